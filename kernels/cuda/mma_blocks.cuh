/*
 * mma_blocks.cuh - ggml's blocks x 5 to 64 positions, by mma.sync
 *
 * As mma.cuh, whose tiles, splits and ends these are, but for where values lie
 * meanwhile: a lane takes its weights right out of global memory, as each is
 * but one lane's, and inputs out of the L1 cache, as all warps of a thread
 * block want the same ones about the same time. What the next run of 32 columns
 * needs of weights and scales is under way while this one is multiplied.
 *
 * A lane holds 4 rows x 4 columns in a step of 16: with g = lane / 4 and
 * t = lane % 4, rows 4 (g % 4) .. + 3 of block g / 4, and of the run's eight
 * fours of columns the one that four_of says, so that all 16 columns of a step
 * have one scale. Codes, less their offset, are small integers, exact in FP16;
 * their sums with inputs are scaled in FP32. Minima are multiplied by the sum
 * of a run's inputs, a product with ones.
 *
 * Scales of a row are made by one lane of the four that want them.
 */
#ifndef SL_KERNELS_CUDA_MMA_BLOCKS_CUH
#define SL_KERNELS_CUDA_MMA_BLOCKS_CUH

#include "kernels/cuda/blocks.cuh"
#include "kernels/cuda/mma.cuh"

/* Which four columns of a run the lanes t have in a step. */
template <int FMT>
__device__ __forceinline__ uint32_t four_of(uint32_t step, uint32_t t)
{
    return sl_shape<FMT>::run == 16 ? 4 * step + t : 2 * t + step;
}

/* What a lane reads of a run: words of its rows' codes, and of one row's scale.
 */
template <int FMT> struct block_run {
    static const uint32_t bits = sl_shape<FMT>::q_bits;
    static const uint32_t n = bits == 4 ? 1 : bits == 3 ? 3 : bits == 6 ? 4 : 2;
    uint4 q[n];
    uint32_t head, scale, min, high;
};

/* The place of q[k] among the words of a group. */
template <int FMT>
__device__ __forceinline__ uint32_t word_at(uint32_t k, uint32_t t)
{
    const uint32_t bits = sl_shape<FMT>::q_bits;

    if (bits == 8)
        return 2 * t + k;
    if (bits < 4)
        return k;
    if (bits == 6)
        return k < 2 ? 2 * k + t / 2 : 2 + k;
    return k == 0 ? t : 4;
}

/* Where a lane's words begin: codes of four rows, scales of one. */
struct block_rows {
    const uint8_t *codes, *scales;
};

template <int FMT>
__device__ __forceinline__ void load_run(struct block_run<FMT> *r,
                                         const struct block_rows &rows,
                                         uint32_t c, uint32_t t)
{
    typedef sl_shape<FMT> shape;
    uint32_t b = c / shape::cols, run = c % shape::cols / shape::run;
    uint32_t group = c % shape::cols / RUN, unused;
    const uint8_t *codes = sl_block_at<FMT>(&unused, rows.codes, b);
    const uint8_t *subs = sl_block_at<FMT>(&r->head, rows.scales, b);
    const uint32_t per = shape::sub_bits == 8 ? 4 : 8; /* codes a word */

    codes += (shape::sub_words + group * shape::q_bits) * 64;
#pragma unroll
    for (uint32_t k = 0; k < block_run<FMT>::n; k++)
        r->q[k] = sl_load_once(codes + word_at<FMT>(k, t) * 64);
    if (shape::sub_bits == 0)
        return;
    r->scale = sl_block_word(subs, run / per);
    if (shape::mins == SL_MINS_CODES)
        r->min = sl_block_word(subs, (shape::runs + run) / per);
    if (shape::sub_bits == 6 && shape::subs > 8)
        r->high = sl_block_word(subs, shape::subs / 8);
}

/* Sub code i, of whose words one has its low bits. */
template <int FMT>
__device__ __forceinline__ uint32_t sub_of(const struct block_run<FMT> &r,
                                           uint32_t word, uint32_t i)
{
    typedef sl_shape<FMT> shape;
    uint32_t byte = i % 4 * 8, code;

    if (shape::sub_bits == 8)
        return word >> byte & 255;
    code = word >> (byte + i / 4 % 2 * 4) & 15;
    if (shape::sub_bits == 6 && shape::subs == 8)
        code |= (r.head >> (16 + 2 * i) & 3) << 4;
    else if (shape::sub_bits == 6)
        code |= (r.high >> (byte + i / 4 * 2) & 3) << 4;
    return code;
}

/* Of the lane's one row: scale and minimum of the columns from c on. */
template <int FMT>
__device__ __forceinline__ void
scale_of(float *scale, float *min, const struct block_run<FMT> &r, uint32_t c)
{
    typedef sl_shape<FMT> shape;
    uint32_t run = c % shape::cols / shape::run;

    *scale = sl_block_d<FMT>(r.head, c / shape::cols);
    *min = 0;
    if (shape::sub_bits > 0)
        *scale *= (float)((int)sub_of<FMT>(r, r.scale, run) - shape::sub_off);
    if (shape::mins == SL_MINS_ONE)
        *min = sl_half_of(r.head >> 16);
    if (shape::mins == SL_MINS_CODES)
        *min = -(sl_half_of(r.head >> 16) *
                 (float)sub_of<FMT>(r, r.min, shape::runs + run));
}

__device__ __forceinline__ uint32_t row_word(const uint4 &v, int row)
{
    return row == 0 ? v.x : row == 1 ? v.y : row == 2 ? v.z : v.w;
}

/* The four codes of a row in a step. */
template <int FMT>
__device__ __forceinline__ uint32_t codes_of(const struct block_run<FMT> &r,
                                             int row, uint32_t step, uint32_t t)
{
    const uint32_t bits = sl_shape<FMT>::q_bits, n = block_run<FMT>::n;
    uint32_t j = four_of<FMT>(step, t), c;

    if (bits == 8)
        return row_word(r.q[step % n], row);
    if (bits < 4) {
        c = row_word(r.q[step % n], row) >> 2 * t & 0x03030303u;
        if (bits == 3)
            c |= (row_word(r.q[2 % n], row) >> j & 0x01010101u) << 2;
        return c;
    }
    if (bits == 6)
        return (row_word(r.q[step % n], row) >> t % 2 * 4 & 0x0f0f0f0fu) |
               (row_word(r.q[(2 + step) % n], row) >> 2 * t & 0x03030303u) << 4;
    c = row_word(r.q[0], row) >> 4 * step & 0x0f0f0f0fu;
    if (bits == 5)
        c |= (row_word(r.q[1 % n], row) >> j & 0x01010101u) << 4;
    return c;
}

/* The inputs of a position in the lane's columns of a run, by steps; zeros for
 * a position that is not there. */
template <int FMT>
__device__ __forceinline__ void
load_x(uint32_t x[4], const struct sl_product &p, uint32_t position, uint32_t c,
       uint32_t t)
{
    const uint16_t *at =
        p.x + blockIdx.z * p.head_x + position * p.x_stride + c;
    uint2 v[2];

    x[0] = x[1] = x[2] = x[3] = 0;
    if (position >= p.n)
        return;
    if (sl_shape<FMT>::run == 16) {
        v[0] = *(const uint2 *)(at + 4 * t);
        v[1] = *(const uint2 *)(at + 16 + 4 * t);
        x[0] = v[0].x;
        x[1] = v[0].y;
        x[2] = v[1].x;
        x[3] = v[1].y;
    } else {
        uint4 all = *(const uint4 *)(at + 8 * t);

        x[0] = all.x;
        x[1] = all.y;
        x[2] = all.z;
        x[3] = all.w;
    }
}

/* total += scale * sum + min * ones */
__device__ __forceinline__ void add_scaled(float total[4], const float sum[4],
                                           const float ones[4],
                                           const float *scale, const float *min,
                                           bool has_min)
{
#pragma unroll
    for (int k = 0; k < 4; k++) {
        total[k] += scale[k / 2] * sum[k];
        if (has_min)
            total[k] += min[k / 2] * ones[k % 2];
    }
}

/* total += a run of columns, from c on. */
template <int FMT, int NT>
__device__ __forceinline__ void
multiply_run(float total[2][NT][4], const struct sl_product &p,
             const struct block_run<FMT> &r, uint32_t c, uint32_t lane)
{
    const bool has_min = sl_shape<FMT>::mins != SL_MINS_NONE;
    const int scales = sl_shape<FMT>::run == 16 ? 2 : 1;
    const uint32_t one[4] = {0x3c003c00, 0x3c003c00, 0x3c003c00, 0x3c003c00};
    uint32_t t = lane % 4, h[2][4][2], x[NT][4];
    float scale[2][4], min[2][4];

#pragma unroll
    for (int tile = 0; tile < NT; tile++)
        load_x<FMT>(x[tile], p, tile * 8 + lane / 4, c, t);
#pragma unroll
    for (int s = 0; s < scales; s++) {
        float own, own_min;

        scale_of<FMT>(&own, &own_min, r, c + 16 * s);
#pragma unroll
        for (int row = 0; row < 4; row++) {
            int from = (int)(lane & ~3u) + row;

            scale[s][row] = __shfl_sync(SL_ALL_LANES, own, from);
            min[s][row] =
                has_min ? __shfl_sync(SL_ALL_LANES, own_min, from) : 0;
        }
    }
#pragma unroll
    for (int s = 0; s < 2; s++) {
#pragma unroll
        for (int row = 0; row < 4; row++)
            sl_block_halves<FMT>(h[s][row], codes_of<FMT>(r, row, s, t));
    }
#pragma unroll
    for (int tile = 0; tile < NT; tile++) {
        float sum[2][4] = {}, ones[4] = {};

#pragma unroll
        for (int s = 0; s < 2; s++) {
            if (has_min)
                sl_mma(ones, one, x[tile] + 2 * s);
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const uint32_t a[4] = {h[s][2 * i][0], h[s][2 * i + 1][0],
                                       h[s][2 * i][1], h[s][2 * i + 1][1]};

                sl_mma(sum[i], a, x[tile] + 2 * s);
            }
            if (s == 0 && scales == 1)
                continue;
#pragma unroll
            for (int i = 0; i < 2; i++) {
                add_scaled(total[i][tile], sum[i], ones,
                           scale[s % scales] + 2 * i, min[s % scales] + 2 * i,
                           has_min);
#pragma unroll
                for (int k = 0; k < 4; k++)
                    sum[i][k] = 0;
            }
#pragma unroll
            for (int k = 0; k < 4; k++)
                ones[k] = 0;
        }
    }
}

/* Beyond the last block the first once more, whose sums are nobody's. */
__device__ __forceinline__ struct block_rows
rows_of(const struct sl_product &p, uint32_t rows, uint32_t lane)
{
    struct block_of b = block_at(p.out.pairs != 0, rows * 2 + lane / 16);
    struct block_rows at;

    if (b.block * SL_BLOCK_ROWS >= p.n_rows)
        b = {0, 0};
    at.codes = p.w[b.which] + in_weights(p, b.block) * p.units * 64 +
               lane / 4 % 4 * 16;
    at.scales = at.codes + lane % 4 * 4;
    return at;
}

template <int FMT, int NT, int KW>
__global__ void __launch_bounds__(ROW_WARPS *KW *SL_WARP)
    mma_blocks_product(struct mma_args a)
{
    SL_SHARED(float, box, [TILE_ROWS * NT * 8]);
    uint32_t warp = threadIdx.x / SL_WARP, lane = threadIdx.x % SL_WARP;
    uint32_t first = blockIdx.y * a.stages_a_split;
    uint32_t end = min(first + a.stages_a_split, a.stages) * KW * RUN;
    uint32_t c = (first * KW + warp / ROW_WARPS) * RUN;
    struct block_rows rows = rows_of(a.p, warp % ROW_WARPS, lane);
    struct block_run<FMT> next = {
    };
    float total[2][NT][4] = {};

    end = min(end, a.p.cols);
    if (c < end)
        load_run<FMT>(&next, rows, c, lane % 4);
    while (c < end) {
        struct block_run<FMT> now = next;

        if (c + KW * RUN < end)
            load_run<FMT>(&next, rows, c + KW * RUN, lane % 4);
        multiply_run<FMT, NT>(total, a.p, now, c, lane);
        c += KW * RUN;
    }
    fill_box<NT, KW>(box, total);
    for (uint32_t i = threadIdx.x; i < a.p.n * TILE_ROWS; i += blockDim.x)
        put(a, box, i / TILE_ROWS, i % TILE_ROWS);
}

template <int FMT, int NT, int KW>
static int launch_blocks(const struct sl_cuda *c, const struct sl_product *p,
                         struct sl_error *err)
{
    struct mma_args a = {};

    a.p = *p;
    split(&a, c, KW * RUN, TILE_ROWS * KW * RUN * sl_shape<FMT>::q_bits / 8);
    return launch_split(c, mma_blocks_product<FMT, NT, KW>,
                        ROW_WARPS * KW * SL_WARP, &a, err);
}

template <int FMT>
static int launch_block_format(const struct sl_cuda *c,
                               const struct sl_product *p, struct sl_error *err)
{
    if (p->n <= 16)
        return launch_blocks<FMT, 2, 2>(c, p, err);
    if (p->n <= 32)
        return launch_blocks<FMT, 4, 2>(c, p, err);
    return launch_blocks<FMT, 8, 1>(c, p, err);
}

#endif
