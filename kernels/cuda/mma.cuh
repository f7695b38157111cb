/*
 * mma.cuh - packed (or 16-bit) weights x 5 to 64 positions, by mma.sync
 *
 * Bound by the rate of VRAM while the positions are few: weights travel
 * packed into shared memory, several stages ahead, and become FP16 in
 * registers on their way into the tensor cores. BF16 weights, too: to round the
 * inputs to BF16 instead would cost them three bits, and sm_75 has no product
 * of those.
 *
 * A thread block takes 128 rows (8 blocks of 16; in a GLU 4 of A and 4 of B
 * by turns) and all positions; each of its 4 warps (KW sets of them share the
 * columns) takes 32 rows as two tiles of 16. The order of rows and columns in
 * a tile is free as long as both factors agree, and is chosen so that the 16
 * bytes a lane reads are what that lane must hold: with g = lane / 4 and
 * t = lane % 4, rows 4 (g % 4) .. + 3 of block g / 4 and columns 8t .. 8t + 7
 * of a run of 32. Rows 0, 1 are rows g, g + 8 of the first tile, rows 2, 3 of
 * the second. (An INT8 unit has 4 columns: a lane takes two of them.)
 *
 * Sums are FP32, of exact products of integers and inputs, up to the end of a
 * group of columns; then they are scaled, by scales that came with the weights.
 * Where the rows are too few to fill the device, columns are split among thread
 * blocks, whose sums are added by finish.cu in a fixed order.
 *
 * A file for each format has its instances (mma_int4.cu and so on): nvcc takes
 * about a minute for one.
 */
#ifndef SL_KERNELS_CUDA_MMA_CUH
#define SL_KERNELS_CUDA_MMA_CUH

#include "kernels/cuda/epilogue.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/mma_feed.cuh"

/* Split sums: at most so many, of so many bytes in all. */
#define MOST_SPLITS 8u
#define SPLIT_BYTES (16ull << 20)
/* Stages that make a split worth its cost. */
#define LEAST_STAGES 8u

template <class G, int FMT, int NT>
__device__ __forceinline__ void
multiply(float sum[2][NT][4], const uint4 *stage, const struct place &at)
{
    uint32_t h[4][4];

    take_w<G, FMT>(h, stage, at);
#pragma unroll
    for (int tile = 0; tile < NT; tile++) {
        uint32_t x[4];

        take_x<G, FMT>(x, stage, at, tile);
#pragma unroll
        for (int s = 0; s < 2; s++) {
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const uint32_t a[4] = {h[2 * i][2 * s], h[2 * i + 1][2 * s],
                                       h[2 * i][2 * s + 1],
                                       h[2 * i + 1][2 * s + 1]};

                sl_mma(sum[i][tile], a, x + 2 * s);
            }
        }
    }
}

/* total += scale * sum; sum = 0. scale: those of 4 rows. */
template <int NT>
__device__ __forceinline__ void scale_up(float total[2][NT][4],
                                         float sum[2][NT][4], uint2 scale)
{
    float s[4];

    sl_halves_to_floats(s, scale.x);
    sl_halves_to_floats(s + 2, scale.y);
#pragma unroll
    for (int i = 0; i < 2; i++) {
#pragma unroll
        for (int tile = 0; tile < NT; tile++) {
#pragma unroll
            for (int k = 0; k < 4; k++) {
                total[i][tile][k] += s[2 * i + k / 2] * sum[i][tile][k];
                sum[i][tile][k] = 0;
            }
        }
    }
}

/* The lane's scales where rows have one each; nothing is there beyond the last
 * block. */
__device__ __forceinline__ uint2 row_scales(const struct sl_product &p,
                                            uint32_t rows, uint32_t lane)
{
    struct block_of b = block_at(p.out.pairs != 0, rows * 2 + lane / 16);

    if (b.block * SL_BLOCK_ROWS >= p.n_rows)
        return make_uint2(0, 0);
    return *(const uint2 *)(p.scale[b.which] +
                            in_weights(p, b.block) * SL_BLOCK_ROWS +
                            lane / 4 % 4 * 4);
}

/* All stages of the thread block's split: total = the lane's sums. */
template <class G, int FMT, int NT>
__device__ __forceinline__ void sum_stages(float total[2][NT][4],
                                           const struct mma_args &a, uint4 *sh)
{
    uint32_t warp = threadIdx.x / SL_WARP, lane = threadIdx.x % SL_WARP;
    uint32_t rows = warp % ROW_WARPS, run = warp / ROW_WARPS;
    uint32_t first = blockIdx.y * a.stages_a_split;
    uint32_t n = min(a.stages_a_split, a.stages - first);
    uint32_t in_group =
        G::packed ? (first * G::cols + run * RUN) % a.p.group_cols : 0;
    struct place at = place_of<G, FMT>(rows, run, lane);
    struct sl_copy copies[G::copies_w + G::copies_x + 1] = {};
    struct feed<G> f;
    float sum[2][NT][4] = {};
    uint4 *now = sh, *next = sh + (G::stages - 1) * G::chunks;

    feed_init<G, FMT>(&f, a.p, first);
    for (uint32_t s = 0; s + 1 < G::stages; s++) {
        if (s < n) {
            begin_stage<G>(copies, sh + s * G::chunks, &f, s, a);
            end_stage<G>(copies, a.p);
        }
        sl_copy_commit();
    }
    for (uint32_t s = 0; s < n; s++) {
        uint32_t ahead = s + G::stages - 1;

        sl_copy_wait<G::stages - 2>();
        __syncthreads();
        if (ahead < n)
            begin_stage<G>(copies, next, &f, ahead, a);
        multiply<G, FMT, NT>(G::packed ? sum : total, now, at);
        if (G::packed && (advance(&in_group, a) || a.step_groups > 0))
            scale_up<NT>(total, sum, ((const uint2 *)now)[at.scale]);
        if (ahead < n)
            end_stage<G>(copies, a.p);
        sl_copy_commit();
        next = now;
        now += G::chunks;
        if (now == sh + G::stages * G::chunks)
            now = sh;
    }
    sl_copy_wait<0>();
    if (G::packed) /* the last group's have come, and were not used up */
        scale_up<NT>(total, sum,
                     a.p.groups > 1 ? ((const uint2 *)next)[at.scale]
                                    : row_scales(a.p, rows, lane));
}

/* Where the sum of a position and a slot lies in the box of all, so that
 * neither writing nor reading meets at a bank. */
__device__ __forceinline__ uint32_t box_at(uint32_t position, uint32_t slot)
{
    return position * TILE_ROWS + (slot ^ (position / 2 & 3));
}

/* Puts the thread's sums into the box, those of the second set of warps first;
 * the first set adds its own. */
template <int NT, int KW>
__device__ __forceinline__ void fill_box(float *box,
                                         const float total[2][NT][4])
{
    uint32_t warp = threadIdx.x / SL_WARP % ROW_WARPS;
    uint32_t lane = threadIdx.x % SL_WARP, g = lane / 4, t = lane % 4;
    uint32_t slot = (warp * 2 + g / 4) * SL_BLOCK_ROWS + g % 4 * 4;
    uint32_t set = threadIdx.x / (ROW_WARPS * SL_WARP);

    for (uint32_t turn = 0; turn < KW; turn++) {
        __syncthreads();
        if (set != KW - 1 - turn)
            continue;
#pragma unroll
        for (int i = 0; i < 2; i++) {
#pragma unroll
            for (int tile = 0; tile < NT; tile++) {
#pragma unroll
                for (int k = 0; k < 4; k++) {
                    float *at = box + box_at(tile * 8 + 2 * t + k % 2,
                                             slot + 2 * i + k / 2);
                    float v = total[i][tile][k];

                    *at = turn == 0 ? v : v + *at;
                }
            }
        }
    }
    __syncthreads();
}

/* One finished (or split) sum. */
__device__ __forceinline__ void put(const struct mma_args &a, const float *box,
                                    uint32_t position, uint32_t slot)
{
    uint32_t row = blockIdx.x * TILE_ROWS + slot;
    float v = box[box_at(position, slot)], b = 0;

    if (a.sums != NULL) {
        a.sums[((size_t)blockIdx.y * a.p.n + position) * a.slots + row] = v;
        return;
    }
    if (a.p.out.pairs != 0) {
        if (slot / SL_BLOCK_ROWS % 2 != 0)
            return;
        b = box[box_at(position, slot + SL_BLOCK_ROWS)];
        row = row / (2 * SL_BLOCK_ROWS) * SL_BLOCK_ROWS + row % SL_BLOCK_ROWS;
    }
    if (row < a.p.n_rows)
        sl_epilogue(&a.p.out, position, blockIdx.z * a.p.head_rows + row, v, b);
}

template <int FMT, int NT, int KW>
__global__ void __launch_bounds__(geom<FMT, NT, KW>::threads,
                                  geom<FMT, NT, KW>::least_blocks)
    mma_product(struct mma_args a)
{
    typedef struct geom<FMT, NT, KW> G;
    SL_SHARED(uint4, sh, [G::shared]);
    float *box = (float *)sh;
    float total[2][NT][4] = {};

    sum_stages<G, FMT, NT>(total, a, sh);
    fill_box<NT, KW>(box, total);
    for (uint32_t i = threadIdx.x; i < a.p.n * TILE_ROWS; i += G::threads)
        put(a, box, i / TILE_ROWS, i % TILE_ROWS);
}

/* --- launching ----------------------------------------------------------- */

/* Tiles of so many rows of each half. */
static inline uint32_t row_tiles(const struct sl_product *p, uint32_t rows)
{
    uint64_t blocks = ((uint64_t)rows + SL_BLOCK_ROWS - 1) / SL_BLOCK_ROWS *
                      (sl_product_pairs(p) ? 2 : 1);

    return (uint32_t)((blocks + TILE_BLOCKS - 1) / TILE_BLOCKS);
}

/* Bytes of the sums of one split. */
static inline uint64_t split_bytes(const struct sl_product *p, uint32_t tiles)
{
    return (uint64_t)tiles * TILE_ROWS * p->n * sizeof(float);
}

/* Sums are the same bits however the matrix is cut, as long as the workspace is
 * what sl_mma_workspace asks for. */
static inline void split(struct mma_args *a, const struct sl_cuda *c,
                         uint32_t stage_cols, uint32_t stage_bytes)
{
    uint32_t tiles = row_tiles(&a->p, a->p.n_rows);
    uint32_t all = row_tiles(&a->p, a->p.segment_rows);
    uint64_t most = SPLIT_BYTES / split_bytes(&a->p, all);
    uint64_t room = c->workspace_bytes / split_bytes(&a->p, tiles);
    uint32_t n;

    a->slots = tiles * TILE_ROWS;
    a->stages = (a->p.cols + stage_cols - 1) / stage_cols;
    if (most > MOST_SPLITS)
        most = MOST_SPLITS;
    if (most > a->stages / LEAST_STAGES)
        most = a->stages / LEAST_STAGES;
    if (most > room)
        most = room;
    if (a->p.head_rows > 0) /* heads fill the device, not splits */
        most = 1;
    n = sl_mma_splits(all, a->stages, (uint32_t)most, c->n_sms, stage_bytes,
                      TILE_ROWS * a->p.n * (uint32_t)sizeof(float));
    a->stages_a_split = (a->stages + n - 1) / n;
    a->n_splits = (a->stages + a->stages_a_split - 1) / a->stages_a_split;
    a->sums = a->n_splits > 1 ? (float *)c->workspace : NULL;
}

/* The kernel, and what adds up the splits. */
static inline int launch_split(const struct sl_cuda *c,
                               void (*kernel)(struct mma_args),
                               uint32_t threads, const struct mma_args *a,
                               struct sl_error *err)
{
    struct sl_product_sums sums = {};

    if (sl_launch(c, "mma product", kernel,
                  dim3(a->slots / TILE_ROWS, a->n_splits, a->p.n_heads),
                  threads, a, err) != 0)
        return -1;
    if (a->sums == NULL)
        return 0;
    sums.sums = a->sums;
    sums.n_splits = a->n_splits;
    sums.split_stride = (size_t)a->p.n * a->slots;
    sums.stride = a->slots;
    sums.interleaved = sl_product_pairs(&a->p);
    return sl_finish_launch(c, &a->p.out, &sums, a->p.n, a->p.n_rows, err);
}

template <int FMT, int NT, int KW>
static int launch(const struct sl_cuda *c, struct mma_args *a,
                  struct sl_error *err)
{
    typedef struct geom<FMT, NT, KW> G;

    split(a, c, G::cols, G::w_copies * 16);
    if (G::packed && a->p.groups > 1) {
        a->step_groups = G::cols / a->p.group_cols;
        a->step_cols = G::cols % a->p.group_cols;
    }
    return launch_split(c, mma_product<FMT, NT, KW>, G::threads, a, err);
}

template <int FMT>
static int launch_format(const struct sl_cuda *c, const struct sl_product *p,
                         struct sl_error *err)
{
    struct mma_args a = {};

    a.p = *p;
    if (p->n <= 8)
        return launch<FMT, 1, 2>(c, &a, err);
    if (p->n <= 16)
        return launch<FMT, 2, 2>(c, &a, err);
    if (p->n <= 32)
        return launch<FMT, 4, 2>(c, &a, err);
    return launch<FMT, 8, 1>(c, &a, err);
}

/* As sl_mma_launch, for one format. */
int sl_mma_int4(const struct sl_cuda *c, const struct sl_product *p,
                struct sl_error *err);
int sl_mma_int8(const struct sl_cuda *c, const struct sl_product *p,
                struct sl_error *err);
int sl_mma_f16(const struct sl_cuda *c, const struct sl_product *p,
               struct sl_error *err);
int sl_mma_bf16(const struct sl_cuda *c, const struct sl_product *p,
                struct sl_error *err);
/* For ggml's blocks. */
int sl_mma_blocks(const struct sl_cuda *c, const struct sl_product *p,
                  struct sl_error *err);

#endif
