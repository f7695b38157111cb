/*
 * matvec_blocks.cu - ggml's blocks x 1 to 4 positions, on CUDA cores
 *
 * As matvec.cu; a lane takes a group of 32 columns of 4 rows, the eight lanes
 * of the same rows a whole block of 256. Sums are FP32 within a run of columns
 * with one scale, then scaled, then added to a sum of the lane.
 */
#include "config.h"

#include "kernels/cuda/blocks.cuh"
#include "kernels/cuda/matvec.cuh"

#define GROUP 32u /* columns */

__device__ __forceinline__ uint32_t word_of(const uint4 &v, int r)
{
    return r == 0 ? v.x : r == 1 ? v.y : r == 2 ? v.z : v.w;
}

/* The codes of the j-th four columns of a group, of row r of four. */
template <int FMT>
__device__ __forceinline__ uint32_t four_codes(const uint4 *w, int r, int j)
{
    const uint32_t bits = sl_shape<FMT>::q_bits;
    uint32_t c;

    if (bits == 8)
        return word_of(w[j % (int)bits], r);
    if (bits < 4) {
        c = word_of(w[j / 4], r) >> j % 4 * 2 & 0x03030303u;
        if (bits == 3)
            c |= (word_of(w[2 % bits], r) >> j & 0x01010101u) << 2;
        return c;
    }
    c = word_of(w[j / 2 % (int)bits], r) >> j % 2 * 4 & 0x0f0f0f0fu;
    if (bits == 5)
        c |= (word_of(w[4 % bits], r) >> j & 0x01010101u) << 4;
    if (bits == 6)
        c |= (word_of(w[(4 + j / 4) % bits], r) >> j % 4 * 2 & 0x03030303u)
             << 4;
    return c;
}

template <int FMT>
__device__ __forceinline__ void four_values(float out[4], uint32_t codes)
{
    uint32_t h[2];

    sl_block_halves<FMT>(h, codes);
    sl_halves_to_floats(out, h[0]);
    sl_halves_to_floats(out + 2, h[1]);
}

/* Four values of x for each of n positions, zeros for the others. */
template <int N>
__device__ __forceinline__ void
load_four(float out[N][4], const struct sl_product &p, uint32_t c)
{
    const uint16_t *x = p.x + blockIdx.z * p.head_x + c;

#pragma unroll
    for (int i = 0; i < N; i++) {
        uint2 v = make_uint2(0, 0);

        if (N == 1 || (uint32_t)i < p.n)
            v = *(const uint2 *)(x + i * p.x_stride);
        sl_halves_to_floats(out[i], v.x);
        sl_halves_to_floats(out[i] + 2, v.y);
    }
}

/* sum[row][position] += 4 rows of the group from column c on; rows: of the
 * first of the four. */
template <int FMT, int N>
__device__ __forceinline__ void add_group(float sum[4][N],
                                          const struct sl_product &p,
                                          const uint8_t *rows, uint32_t c)
{
    typedef sl_shape<FMT> shape;
    const uint32_t runs = GROUP / shape::run;
    uint32_t b = c / shape::cols, in = c % shape::cols, head;
    const uint8_t *block = sl_block_at<FMT>(&head, rows, b), *q;
    uint4 w[shape::q_bits];

    q = block + (shape::sub_words + in / GROUP * shape::q_bits) * 64;
#pragma unroll
    for (uint32_t k = 0; k < shape::q_bits; k++)
        w[k] = sl_load_once(q + k * 64);
#pragma unroll
    for (uint32_t i = 0; i < runs; i++) {
        float dot[4][N] = {}, x_sum[N] = {};

#pragma unroll
        for (uint32_t u = 0; u < shape::run / 4; u++) {
            uint32_t j = i * (shape::run / 4) + u;
            float x[N][4];

            load_four<N>(x, p, c + j * 4);
            for (int k = 0; k < N && shape::mins != SL_MINS_NONE; k++)
                x_sum[k] += x[k][0] + x[k][1] + x[k][2] + x[k][3];
#pragma unroll
            for (int r = 0; r < 4; r++) {
                float v[4];

                four_values<FMT>(v, four_codes<FMT>(w, r, (int)j));
#pragma unroll
                for (int k = 0; k < N; k++)
                    dot[r][k] += v[0] * x[k][0] + v[1] * x[k][1] +
                                 v[2] * x[k][2] + v[3] * x[k][3];
            }
        }
#pragma unroll
        for (int r = 0; r < 4; r++) {
            const uint8_t *row = sl_block_at<FMT>(&head, rows + 4 * r, b);
            float scale, min;

            sl_block_scale<FMT>(&scale, &min, row, head, b,
                                in + i * shape::run);
#pragma unroll
            for (int k = 0; k < N; k++)
                sum[r][k] += scale * dot[r][k] + min * x_sum[k];
        }
    }
}

template <int FMT> struct block_sum {
    static constexpr unsigned least_blocks(int)
    {
        return 0;
    }

    template <int N>
    static __device__ __forceinline__ void
    columns(float sum[2][4][N], const struct matvec_args &a,
            const uint8_t *const w[2], const uint16_t *const scale[2])
    {
        uint32_t warp = threadIdx.x / SL_WARP, lane = threadIdx.x % SL_WARP;
        uint32_t c = (warp * LANES + lane / 4) * GROUP;

        for (; c < a.p.cols; c += STEP * GROUP) {
#pragma unroll
            for (int i = 0; i < 2; i++)
                if (w[i] != NULL)
                    add_group<FMT, N>(sum[i], a.p, w[i] + lane % 4 * 16, c);
        }
    }
};

template <int FMT>
static int launch(const struct sl_cuda *c, const struct matvec_args *a,
                  struct sl_error *err)
{
    dim3 grid = matvec_grid(&a->p);

    if (a->p.n == 1)
        return sl_launch(c, "matvec", matvec<block_sum<FMT>, 1>, grid, THREADS,
                         a, err);
    return sl_launch(c, "matvec", matvec<block_sum<FMT>, SL_CUDA_FEW>, grid,
                     THREADS, a, err);
}

int sl_matvec_blocks_launch(const struct sl_cuda *c, const struct sl_product *p,
                            struct sl_error *err)
{
    struct matvec_args a = matvec_args_of(p);

    switch (p->fmt) {
#define LAUNCH(NAME, ...)                                                      \
    case SL_FMT_##NAME:                                                        \
        return launch<SL_FMT_##NAME>(c, &a, err);
        SL_BLOCK_SHAPES(LAUNCH)
#undef LAUNCH
    default:
        return sl_matvec_rows_launch(c, p, err);
    }
}
