/*
 * matvec.cu - packed weights x 1 to 4 positions, on CUDA cores
 *
 * Bound by the rate of VRAM: every weight is read once, in loads of 16 bytes
 * a lane, and all else hides behind that. A thread block takes two blocks of
 * 16 rows (in a GLU one of A and its partner of B); its warps share the
 * columns. Within a warp a lane holds 4 rows x 8 (INT8: 4) columns, so that
 * a warp reads 512 consecutive bytes, the inputs it converts serve 8 rows,
 * and the eight lanes of the same rows add up by shuffles.
 *
 * Sums are FP32 within a unit of 8 columns, then scaled, then added to a sum
 * of the lane: the order depends on nothing but the width of the matrix.
 */
#include "config.h"

#include "kernels/cuda/matvec.cuh"

/* Columns of a unit. */
template <int FMT> struct unit {
    static const uint32_t cols = FMT == SL_FMT_INT4 ? 8 : 4;
};

/* The weights of one word, in the order of their columns. */
template <int FMT>
__device__ __forceinline__ void decode(float out[unit<FMT>::cols], uint32_t w)
{
    float v[2];
    uint32_t h[4];

    if (FMT == SL_FMT_INT4) {
        sl_int4_to_half(h, w);
        for (int i = 0; i < 4; i++) { /* (0, 2) (4, 6) (1, 3) (5, 7) */
            sl_halves_to_floats(v, h[i]);
            out[i / 2 + i % 2 * 4] = v[0];
            out[i / 2 + i % 2 * 4 + 2] = v[1];
        }
    } else {
        sl_int8_to_half(h, w);
        sl_halves_to_floats(out, h[0]);
        sl_halves_to_floats(out + 2, h[1]);
    }
}

template <int FMT>
__device__ __forceinline__ void
load_x(float out[unit<FMT>::cols], const uint16_t *x, uint32_t u, uint32_t cols)
{
    uint32_t c = u * unit<FMT>::cols;

    if (FMT == SL_FMT_INT4) {
        sl_eight_to_floats(out, sl_load_eight(x, c, cols));
        return;
    }
    if (c + 4 <= cols) {
        uint2 v = *(const uint2 *)(x + c);

        sl_halves_to_floats(out, v.x);
        sl_halves_to_floats(out + 2, v.y);
        return;
    }
    for (uint32_t i = 0; i < 4; i++)
        out[i] = c + i < cols ? sl_half_at(x + c + i) : 0;
}

/* sum[row][position] += scale[row] * (4 rows of the unit) . x */
template <int FMT, int N>
__device__ __forceinline__ void multiply(float sum[4][N], uint4 w, uint2 scale,
                                         const float x[N][unit<FMT>::cols])
{
    const uint32_t words[4] = {w.x, w.y, w.z, w.w};
    float s[4];

    sl_halves_to_floats(s, scale.x);
    sl_halves_to_floats(s + 2, scale.y);
#pragma unroll
    for (int r = 0; r < 4; r++) {
        float v[unit<FMT>::cols];

        decode<FMT>(v, words[r]);
#pragma unroll
        for (int p = 0; p < N; p++) {
            float dot = 0;

#pragma unroll
            for (uint32_t i = 0; i < unit<FMT>::cols; i++)
                dot += v[i] * x[p][i];
            sum[r][p] += s[r] * dot;
        }
    }
}

/* Where a thread stands in its rows: the unit, and the group it lies in. */
struct place {
    uint32_t unit, group, in_group;
};

template <int FMT> struct packed_sum {
    template <int N>
    static __device__ __forceinline__ void
    columns(float sum[2][4][N], const struct matvec_args &a,
            const uint8_t *const w[2], const uint16_t *const scale[2])
    {
        uint32_t warp = threadIdx.x / SL_WARP, lane = threadIdx.x % SL_WARP;
        uint32_t u = warp * LANES + lane / 4, quad = lane % 4;
        uint32_t group = u / a.group_units, in_group = u % a.group_units;
        const uint32_t groups_a_step = STEP / a.group_units;
        const uint32_t units_left = STEP % a.group_units;
        const size_t at = quad * 16;
        uint4 next[2];

        for (int b = 0; b < 2; b++)
            if (w[b] != NULL && u < a.p.units)
                next[b] = sl_load_once(w[b] + (size_t)u * 64 + at);
        for (; u < a.p.units; u += STEP) {
            float x[N][unit<FMT>::cols];
            uint4 now[2] = {next[0], next[1]};

            for (int b = 0; b < 2; b++)
                if (w[b] != NULL && u + STEP < a.p.units)
                    next[b] = sl_load_once(w[b] + (size_t)(u + STEP) * 64 + at);
#pragma unroll
            for (int p = 0; p < N; p++)
                load_x<FMT>(x[p], a.p.x + p * a.p.x_stride, u, a.p.cols);
#pragma unroll
            for (int b = 0; b < 2; b++)
                if (w[b] != NULL)
                    multiply<FMT, N>(
                        sum[b], now[b],
                        *(const uint2 *)(scale[b] +
                                         (size_t)group * SL_BLOCK_ROWS +
                                         quad * 4),
                        x);
            group += groups_a_step;
            in_group += units_left;
            if (in_group >= a.group_units) {
                in_group -= a.group_units;
                group++;
            }
        }
    }
};

template <int FMT>
static int launch(const struct sl_cuda *c, const struct matvec_args *a,
                  struct sl_error *err)
{
    dim3 grid = matvec_grid(&a->p);

    switch (a->p.n) {
    case 1:
        return sl_launch(c, "matvec", matvec<packed_sum<FMT>, 1>, grid, THREADS,
                         a, err);
    case 2:
        return sl_launch(c, "matvec", matvec<packed_sum<FMT>, 2>, grid, THREADS,
                         a, err);
    case 3:
        return sl_launch(c, "matvec", matvec<packed_sum<FMT>, 3>, grid, THREADS,
                         a, err);
    default:
        return sl_launch(c, "matvec", matvec<packed_sum<FMT>, 4>, grid, THREADS,
                         a, err);
    }
}

bool sl_matvec_takes(const struct sl_product *p)
{
    if (sl_fmt_has_blocks(p->fmt))
        return true;
    return sl_fmt_has_scales(p->fmt) &&
           (p->groups == 1 || p->group_cols % 8 == 0);
}

int sl_matvec_launch(const struct sl_cuda *c, const struct sl_product *p,
                     struct sl_error *err)
{
    struct matvec_args a = matvec_args_of(p);

    if (sl_fmt_has_blocks(p->fmt))
        return sl_matvec_blocks_launch(c, p, err);
    if (p->groups > 1)
        a.group_units = p->group_cols / sl_fmt_of(p->fmt)->unit_cols;
    if (p->fmt == SL_FMT_INT4)
        return launch<SL_FMT_INT4>(c, &a, err);
    return launch<SL_FMT_INT8>(c, &a, err);
}
