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
 * group of columns; then they are scaled. Where the rows are too few to fill
 * the device, columns are split among thread blocks, whose sums are added by
 * finish.cu in a fixed order.
 *
 * A file for each format has its instances (mma_int4.cu and so on): nvcc takes
 * about a minute for one.
 */
#ifndef SL_KERNELS_CUDA_MMA_CUH
#define SL_KERNELS_CUDA_MMA_CUH

#include "kernels/cuda/epilogue.cuh"
#include "kernels/cuda/launch.cuh"

#define TILE_BLOCKS 8u
#define TILE_ROWS   (TILE_BLOCKS * SL_BLOCK_ROWS)
#define RUN         32u /* columns that a warp takes at once */
#define ROW_WARPS   4u
#define MOST_STAGES 4u
#define MOST_SHARED (48u << 10) /* what every device has without asking */
/* Split sums: at most so many, of so many bytes in all. */
#define MOST_SPLITS 8u
#define SPLIT_BYTES (16ull << 20)
/* Stages that make a split worth its cost. */
#define LEAST_STAGES 8u

/* The geometry of one instance: NT tiles of 8 positions, KW sets of warps. */
template <int FMT, int NT, int KW> struct geom {
    static const uint32_t threads = ROW_WARPS * KW * SL_WARP;
    static const uint32_t cols = RUN * KW; /* of a stage */
    static const bool packed = FMT == SL_FMT_INT4 || FMT == SL_FMT_INT8;
    static const uint32_t unit_cols = FMT == SL_FMT_INT4 ? 8 : 4;
    static const uint32_t units = cols / unit_cols;
    /* in chunks of 16 bytes */
    static const uint32_t row_chunks = cols / 8 + 1; /* rows: one to spare */
    static const uint32_t w_copies =
        packed ? TILE_BLOCKS * units * 4 : TILE_ROWS * (cols / 8);
    static const uint32_t w_chunks = packed ? w_copies : TILE_ROWS * row_chunks;
    static const uint32_t x_copies = NT * cols;
    static const uint32_t chunks = w_chunks + x_copies;
    static const uint32_t fit = MOST_SHARED / (chunks * 16);
    static const uint32_t stages = fit < MOST_STAGES ? fit : MOST_STAGES;
    static const uint32_t copies_w = (w_copies + threads - 1) / threads;
    static const uint32_t copies_x = (x_copies + threads - 1) / threads;
    /* What the second set of warps hands to the first. */
    static const uint32_t gather = KW > 1 ? ROW_WARPS *SL_WARP *NT * 2 : 0;
    static const uint32_t shared =
        chunks * stages > gather ? chunks *stages : gather;
};

struct mma_args {
    struct sl_product p;
    float *sums; /* (n_splits, n, slots); NULL if there is one split */
    uint32_t stages, stages_a_split, n_splits, slots;
};

/* Where chunk `quad` of unit `unit` of a block lies, so that the lanes of a
 * quarter warp read from all banks. */
template <int FMT>
__device__ __forceinline__ uint32_t spread(uint32_t unit, uint32_t quad)
{
    return (unit * 4 + quad) ^ (unit & (FMT == SL_FMT_INT4 ? 2u : 6u));
}

__device__ __forceinline__ uint32_t spread_x(uint32_t position, uint32_t chunk,
                                             uint32_t row_chunks)
{
    if (row_chunks == 8)
        chunk ^= (position & 1) << 2;
    return position * row_chunks + chunk;
}

/* The block of weights that slot `slot` of the thread block's rows holds. */
struct block_of {
    uint32_t which, block;
};

__device__ __forceinline__ struct block_of block_at(bool glu, uint32_t slot)
{
    struct block_of b = {0, blockIdx.x * TILE_BLOCKS + slot};

    if (glu) {
        b.which = slot % 2;
        b.block = (blockIdx.x * TILE_BLOCKS + slot) / 2;
    }
    return b;
}

/* Begins copy i of a stage's weights. */
template <class G, int FMT>
__device__ __forceinline__ void copy_w(struct sl_copy *copy, uint4 *to,
                                       const struct sl_product &p,
                                       uint32_t stage, uint32_t i)
{
    bool glu = p.out.pairs != 0;

    if (G::packed) {
        uint32_t slot = i / (G::units * 4), in = i % (G::units * 4);
        uint32_t unit = in / 4, quad = in % 4, u = stage * G::units + unit;
        struct block_of b = block_at(glu, slot);
        bool there = b.block * SL_BLOCK_ROWS < p.n_rows && u < p.units;
        size_t at =
            there ? ((size_t)b.block * p.units + u) * 64 + quad * 16 : 0;

        sl_copy_begin(copy, to + slot * G::units * 4 + spread<FMT>(unit, quad),
                      p.w[b.which] + at, there ? 16 : 0);
    } else {
        uint32_t row = i / (G::cols / 8), chunk = i % (G::cols / 8);
        uint32_t c = stage * G::cols + chunk * 8;
        struct block_of b = block_at(glu, row / SL_BLOCK_ROWS);
        uint32_t r = b.block * SL_BLOCK_ROWS + row % SL_BLOCK_ROWS;
        bool there = r < p.n_rows && c < p.cols;
        size_t at = there ? ((size_t)r * p.cols + c) * 2 : 0;

        sl_copy_begin(copy, to + row * G::row_chunks + chunk, p.w[b.which] + at,
                      there ? 16 : 0);
    }
}

template <class G>
__device__ __forceinline__ void copy_x(struct sl_copy *copy, uint4 *to,
                                       const struct sl_product &p,
                                       uint32_t stage, uint32_t i)
{
    uint32_t position = i / (G::cols / 8), chunk = i % (G::cols / 8);
    uint32_t c = stage * G::cols + chunk * 8;
    bool there = position < p.n && c < p.cols;
    size_t at = there ? position * p.x_stride + c : 0;
    int bytes = there ? p.cols - c < 8 ? (int)(p.cols - c) * 2 : 16 : 0;

    sl_copy_begin(copy, to + spread_x(position, chunk, G::cols / 8), p.x + at,
                  bytes);
}

template <class G, int FMT>
__device__ __forceinline__ void begin_stage(struct sl_copy *copies, uint4 *to,
                                            const struct sl_product &p,
                                            uint32_t stage)
{
#pragma unroll
    for (uint32_t k = 0; k < G::copies_w; k++) {
        uint32_t i = threadIdx.x + k * G::threads;

        if (i < G::w_copies)
            copy_w<G, FMT>(&copies[k], to, p, stage, i);
    }
#pragma unroll
    for (uint32_t k = 0; k < G::copies_x; k++) {
        uint32_t i = threadIdx.x + k * G::threads;

        if (i < G::x_copies)
            copy_x<G>(&copies[G::copies_w + k], to + G::w_chunks, p, stage, i);
    }
}

template <class G> __device__ __forceinline__ void end_stage(struct sl_copy *c)
{
#pragma unroll
    for (uint32_t k = 0; k < G::copies_w; k++)
        if (threadIdx.x + k * G::threads < G::w_copies)
            sl_copy_end(&c[k]);
#pragma unroll
    for (uint32_t k = 0; k < G::copies_x; k++)
        if (threadIdx.x + k * G::threads < G::x_copies)
            sl_copy_end(&c[G::copies_w + k]);
}

/* The lane's 4 rows x 8 columns of one run, as FP16 pairs: pairs 0, 1 go into
 * the first step of 16 columns, 2, 3 into the second. */
template <class G, int FMT>
__device__ __forceinline__ void take_w(uint32_t out[4][4], const uint4 *w,
                                       uint32_t rows, uint32_t run,
                                       uint32_t lane)
{
    uint32_t g = lane / 4, t = lane % 4, quad = g % 4;
    uint32_t slot = rows * 2 + g / 4;

    if (FMT == SL_FMT_INT4) {
        uint32_t unit = run * 4 + t;
        uint4 v = w[slot * G::units * 4 + spread<FMT>(unit, quad)];

        sl_int4_to_half(out[0], v.x);
        sl_int4_to_half(out[1], v.y);
        sl_int4_to_half(out[2], v.z);
        sl_int4_to_half(out[3], v.w);
    } else if (FMT == SL_FMT_INT8) {
#pragma unroll
        for (uint32_t i = 0; i < 2; i++) {
            uint32_t unit = run * 8 + 2 * t + i;
            uint4 v = w[slot * G::units * 4 + spread<FMT>(unit, quad)];

            sl_int8_to_half(out[0] + 2 * i, v.x);
            sl_int8_to_half(out[1] + 2 * i, v.y);
            sl_int8_to_half(out[2] + 2 * i, v.z);
            sl_int8_to_half(out[3] + 2 * i, v.w);
        }
    } else {
#pragma unroll
        for (uint32_t r = 0; r < 4; r++) {
            uint32_t row = slot * SL_BLOCK_ROWS + quad * 4 + r;
            uint4 v = w[row * G::row_chunks + run * 4 + t];

            out[r][0] = FMT == SL_FMT_BF16 ? sl_bf16s_to_halves(v.x) : v.x;
            out[r][1] = FMT == SL_FMT_BF16 ? sl_bf16s_to_halves(v.y) : v.y;
            out[r][2] = FMT == SL_FMT_BF16 ? sl_bf16s_to_halves(v.z) : v.z;
            out[r][3] = FMT == SL_FMT_BF16 ? sl_bf16s_to_halves(v.w) : v.w;
        }
    }
}

/* The inputs of position g of a tile in the same order. */
template <class G, int FMT>
__device__ __forceinline__ void take_x(uint32_t out[4], const uint4 *x,
                                       uint32_t tile, uint32_t run,
                                       uint32_t lane)
{
    uint4 v = x[spread_x(tile * 8 + lane / 4, run * 4 + lane % 4, G::cols / 8)];

    if (FMT == SL_FMT_INT4) { /* (0, 2) (4, 6) (1, 3) (5, 7) */
        out[0] = sl_low_halves(v.x, v.y);
        out[1] = sl_low_halves(v.z, v.w);
        out[2] = sl_high_halves(v.x, v.y);
        out[3] = sl_high_halves(v.z, v.w);
    } else {
        out[0] = v.x;
        out[1] = v.y;
        out[2] = v.z;
        out[3] = v.w;
    }
}

template <class G, int FMT, int NT>
__device__ __forceinline__ void multiply(float sum[2][NT][4], const uint4 *w,
                                         uint32_t rows, uint32_t run,
                                         uint32_t lane)
{
    uint32_t h[4][4];

    take_w<G, FMT>(h, w, rows, run, lane);
#pragma unroll
    for (int tile = 0; tile < NT; tile++) {
        uint32_t x[4];

        take_x<G, FMT>(x, w + G::w_chunks, tile, run, lane);
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

/* total += scale * sum; sum = 0 */
template <int NT>
__device__ __forceinline__ void
scale_up(float total[2][NT][4], float sum[2][NT][4], const uint16_t *scale)
{
    uint2 v = make_uint2(0, 0);
    float s[4];

    if (scale != NULL)
        v = *(const uint2 *)scale;
    sl_halves_to_floats(s, v.x);
    sl_halves_to_floats(s + 2, v.y);
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

/* The lane's scales of group 0, or NULL beyond the last block. */
__device__ __forceinline__ const uint16_t *
scales_of(const struct sl_product &p, uint32_t rows, uint32_t lane)
{
    struct block_of b = block_at(p.out.pairs != 0, rows * 2 + lane / 16);

    if (b.block * SL_BLOCK_ROWS >= p.n_rows)
        return NULL;
    return p.scale[b.which] + (size_t)b.block * p.groups * SL_BLOCK_ROWS +
           lane / 4 % 4 * 4;
}

/* All stages of the thread block's split: total = the lane's sums. */
template <class G, int FMT, int NT>
__device__ __forceinline__ void sum_stages(float total[2][NT][4],
                                           const struct mma_args &a, uint4 *sh)
{
    uint32_t warp = threadIdx.x / SL_WARP, lane = threadIdx.x % SL_WARP;
    uint32_t rows = warp % ROW_WARPS, run = warp / ROW_WARPS;
    uint32_t first = blockIdx.y * a.stages_a_split, group = 0;
    uint32_t end = min(first + a.stages_a_split, a.stages);
    const uint16_t *scale = G::packed ? scales_of(a.p, rows, lane) : NULL;
    struct sl_copy copies[G::copies_w + G::copies_x] = {};
    float sum[2][NT][4] = {};

    for (uint32_t s = first; s + 1 < first + G::stages; s++) {
        if (s < end) {
            begin_stage<G, FMT>(copies, sh + s % G::stages * G::chunks, a.p, s);
            end_stage<G>(copies);
        }
        sl_copy_commit();
    }
    for (uint32_t s = first; s < end; s++) {
        uint32_t next = s + G::stages - 1;

        sl_copy_wait<G::stages - 2>();
        __syncthreads();
        if (next < end)
            begin_stage<G, FMT>(copies, sh + next % G::stages * G::chunks, a.p,
                                next);
        if (G::packed) {
            uint32_t now =
                min((s * G::cols + run * RUN) / a.p.group_cols, a.p.groups - 1);

            if (now != group) {
                const uint16_t *at = scale;

                if (at != NULL)
                    at += (size_t)group * SL_BLOCK_ROWS;
                scale_up<NT>(total, sum, at);
                group = now;
            }
        }
        multiply<G, FMT, NT>(G::packed ? sum : total,
                             sh + s % G::stages * G::chunks, rows, run, lane);
        if (next < end)
            end_stage<G>(copies);
        sl_copy_commit();
    }
    sl_copy_wait<0>();
    if (G::packed && scale != NULL)
        scale_up<NT>(total, sum, scale + (size_t)group * SL_BLOCK_ROWS);
}

/* Adds what the second set of warps has to the first set's; true in those. */
template <int NT, int KW>
__device__ __forceinline__ bool gather(float total[2][NT][4], uint4 *sh)
{
    uint32_t at = threadIdx.x % (ROW_WARPS * SL_WARP);
    bool first = threadIdx.x < ROW_WARPS * SL_WARP;
    float4 *box = (float4 *)sh;

    if (KW == 1)
        return true;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 2 * NT; i++) {
        const float *t = total[i / NT][i % NT];

        if (!first)
            box[i * ROW_WARPS * SL_WARP + at] =
                make_float4(t[0], t[1], t[2], t[3]);
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 2 * NT; i++) {
        float *t = total[i / NT][i % NT];
        float4 v;

        if (!first)
            continue;
        v = box[i * ROW_WARPS * SL_WARP + at];
        t[0] += v.x;
        t[1] += v.y;
        t[2] += v.z;
        t[3] += v.w;
    }
    return first;
}

/* One finished (or split) sum. glu: b is its partner's. */
__device__ __forceinline__ void put(const struct mma_args &a, uint32_t position,
                                    uint32_t slot, bool glu, float v, float b)
{
    uint32_t row = blockIdx.x * TILE_ROWS + slot;

    if (position >= a.p.n)
        return;
    if (a.sums != NULL) {
        a.sums[((size_t)blockIdx.y * a.p.n + position) * a.slots + row] = v;
        return;
    }
    if (glu) {
        if (slot / SL_BLOCK_ROWS % 2 != 0)
            return;
        row = row / (2 * SL_BLOCK_ROWS) * SL_BLOCK_ROWS + row % SL_BLOCK_ROWS;
    }
    if (row < a.p.n_rows)
        sl_epilogue(&a.p.out, position, row, v, b);
}

template <int FMT, int NT, int KW>
__global__ void __launch_bounds__(ROW_WARPS *KW *SL_WARP)
    mma_product(struct mma_args a)
{
    typedef struct geom<FMT, NT, KW> G;
    SL_SHARED(uint4, sh, [G::shared]);
    bool glu = a.p.out.pairs != 0;
    uint32_t warp = threadIdx.x / SL_WARP % ROW_WARPS;
    uint32_t lane = threadIdx.x % SL_WARP, g = lane / 4, t = lane % 4;
    uint32_t slot = (warp * 2 + g / 4) * SL_BLOCK_ROWS + g % 4 * 4;
    float total[2][NT][4] = {};

    sum_stages<G, FMT, NT>(total, a, sh);
    if (!gather<NT, KW>(total, sh))
        return;
#pragma unroll
    for (int i = 0; i < 2; i++) {
#pragma unroll
        for (int tile = 0; tile < NT; tile++) {
#pragma unroll
            for (int k = 0; k < 4; k++) {
                float v = total[i][tile][k], b = 0;

                if (glu) /* its partner's block is four groups further */
                    b = __shfl_xor_sync(SL_ALL_LANES, v, 16);
                put(a, tile * 8 + 2 * t + k % 2, slot + 2 * i + k / 2, glu, v,
                    b);
            }
        }
    }
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

/* Splits columns until the whole matrix would fill the device: sums are the
 * same bits however it is cut, as long as the workspace is what
 * sl_mma_workspace asks for. */
static inline void split(struct mma_args *a, const struct sl_cuda *c,
                         uint32_t stage_cols)
{
    uint32_t tiles = row_tiles(&a->p, a->p.n_rows);
    uint32_t all = row_tiles(&a->p, a->p.segment_rows);
    uint64_t most = SPLIT_BYTES / split_bytes(&a->p, all);
    uint64_t room = c->workspace_bytes / split_bytes(&a->p, tiles);
    uint32_t n = 2 * c->n_sms / all;

    a->slots = tiles * TILE_ROWS;
    a->stages = (a->p.cols + stage_cols - 1) / stage_cols;
    if (n > MOST_SPLITS)
        n = MOST_SPLITS;
    if (n > a->stages / LEAST_STAGES)
        n = a->stages / LEAST_STAGES;
    if (n > most)
        n = (uint32_t)most;
    if (n > room)
        n = (uint32_t)room;
    if (n < 1)
        n = 1;
    a->stages_a_split = (a->stages + n - 1) / n;
    a->n_splits = (a->stages + a->stages_a_split - 1) / a->stages_a_split;
    a->sums = n > 1 ? (float *)c->workspace : NULL;
}

template <int FMT, int NT, int KW>
static int launch(const struct sl_cuda *c, struct mma_args *a,
                  struct sl_error *err)
{
    typedef struct geom<FMT, NT, KW> G;
    struct sl_product_sums sums = {};

    static_assert(G::stages >= 2, "two stages must fit");
    split(a, c, G::cols);
    if (sl_launch(c, "mma product", mma_product<FMT, NT, KW>,
                  dim3(a->slots / TILE_ROWS, a->n_splits), G::threads, a,
                  err) != 0)
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

#endif
