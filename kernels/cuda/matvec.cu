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
 * What is multiplied next is under way meanwhile: weights, scales and inputs.
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

/* Inputs of a unit: INT8 has half of it. */
template <int FMT> __device__ __forceinline__ uint4 load_x(const uint16_t *x)
{
    uint2 half;

    if (FMT == SL_FMT_INT4)
        return *(const uint4 *)x;
    half = *(const uint2 *)x;
    return make_uint4(half.x, half.y, 0, 0);
}

template <int FMT>
__device__ __forceinline__ void x_floats(float out[unit<FMT>::cols], uint4 x)
{
    sl_halves_to_floats(out, x.x);
    sl_halves_to_floats(out + 2, x.y);
    if (FMT == SL_FMT_INT4) {
        sl_halves_to_floats(out + 4 % unit<FMT>::cols, x.z);
        sl_halves_to_floats(out + 6 % unit<FMT>::cols, x.w);
    }
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

/* All that a thread multiplies at once: a unit of its rows in two blocks, with
 * their scales and inputs. */
template <int FMT, int N> struct load {
    uint4 w[2], x[N];
    uint2 scale[2];
};

/* Where a thread stands in its rows. */
template <int N> struct stand {
    const uint8_t *w[2];
    const uint16_t *scale[2], *x;
    size_t x_stride;
    uint32_t group, in_group;
};

/* Loads a unit: all of it is under way before anything is used. */
template <int FMT, int N>
__device__ __forceinline__ void load_unit(struct load<FMT, N> *l,
                                          const struct stand<N> &at)
{
#pragma unroll
    for (int b = 0; b < 2; b++)
        l->w[b] = sl_load_once(at.w[b]);
#pragma unroll
    for (int b = 0; b < 2; b++)
        l->scale[b] =
            *(const uint2 *)(at.scale[b] + (size_t)at.group * SL_BLOCK_ROWS);
#pragma unroll
    for (int p = 0; p < N; p++)
        l->x[p] = load_x<FMT>(at.x + p * at.x_stride);
}

/* One step of the thread block on. */
template <int FMT, int N>
__device__ __forceinline__ void go_on(struct stand<N> *at,
                                      const struct matvec_args &a)
{
#pragma unroll
    for (int b = 0; b < 2; b++)
        at->w[b] += STEP * 64;
    at->x += STEP * unit<FMT>::cols;
    at->group += a.step_groups;
    at->in_group += a.step_units;
    if (at->in_group >= a.group_units) {
        at->in_group -= a.group_units;
        at->group++;
    }
}

template <int FMT, int N>
__device__ __forceinline__ void multiply_unit(float sum[2][4][N],
                                              const struct load<FMT, N> &l)
{
    float x[N][unit<FMT>::cols];

#pragma unroll
    for (int p = 0; p < N; p++)
        x_floats<FMT>(x[p], l.x[p]);
#pragma unroll
    for (int b = 0; b < 2; b++)
        multiply<FMT, N>(sum[b], l.w[b], l.scale[b], x);
}

template <int FMT> struct packed_sum {
    /* nvcc would give four positions so many registers that there is but one,
     * and one position three. */
    static constexpr unsigned least_blocks(int n)
    {
        return n == 4 ? 2 : n == 1 ? 4 : 0;
    }

    template <int N>
    static __device__ __forceinline__ void
    columns(float sum[2][4][N], const struct matvec_args &a,
            const uint8_t *const w[2], const uint16_t *const scale[2])
    {
        uint32_t warp = threadIdx.x / SL_WARP, lane = threadIdx.x % SL_WARP;
        uint32_t u = warp * LANES + lane / 4, quad = lane % 4;
        struct load<FMT, N> l;
        struct stand<N> at;

        if (u >= a.p.units)
            return;
        /* Beyond the last block the one before it once more, whose sums are
           nobody's: no branch is needed for it. */
        for (int b = 0; b < 2; b++) {
            const uint8_t *block = w[b];
            const uint16_t *scales = scale[b];

            if (block == NULL) {
                block = w[0];
                scales = scale[0];
            }
            at.w[b] = block + (size_t)u * 64 + quad * 16;
            at.scale[b] = scales + quad * 4;
        }
        at.x = a.p.x + blockIdx.z * a.p.head_x + u * unit<FMT>::cols;
        at.x_stride = a.p.x_stride;
        at.group = u / a.group_units;
        at.in_group = u % a.group_units;
        load_unit<FMT, N>(&l, at);
        for (bool more = true; more;) {
            struct load<FMT, N> now = l;

            u += STEP;
            more = u < a.p.units;
            if (more) {
                go_on<FMT, N>(&at, a);
                load_unit<FMT, N>(&l, at);
            }
            multiply_unit<FMT, N>(sum, now);
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
    return sl_fmt_has_scales(p->fmt) && p->cols % 8 == 0 &&
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
    a.step_groups = STEP / a.group_units;
    a.step_units = STEP % a.group_units;
    if (p->fmt == SL_FMT_INT4)
        return launch<SL_FMT_INT4>(c, &a, err);
    return launch<SL_FMT_INT8>(c, &a, err);
}
