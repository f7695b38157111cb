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

#include "kernels/cuda/epilogue.cuh"
#include "kernels/cuda/launch.cuh"

#define WARPS   8u
#define THREADS (WARPS * SL_WARP)
#define LANES   8u              /* that share their rows */
#define STEP    (WARPS * LANES) /* units that a thread block takes at once */

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

struct matvec_args {
    struct sl_product p;
    uint32_t group_units; /* of a group; all of them if there is one */
    uint32_t row_blocks;  /* of a segment that a thread block takes */
};

struct matvec_shared {
    float sum[WARPS][2 * SL_BLOCK_ROWS][SL_CUDA_FEW];
};

template <int FMT, int N>
__device__ __forceinline__ void
sum_columns(float sum[2][4][N], const struct matvec_args &a,
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
                    *(const uint2 *)(scale[b] + (size_t)group * SL_BLOCK_ROWS +
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

/* Adds up the lanes of the same rows, then the warps. */
template <int N>
__device__ __forceinline__ void gather(struct matvec_shared *sh,
                                       float sum[2][4][N])
{
    uint32_t warp = threadIdx.x / SL_WARP, lane = threadIdx.x % SL_WARP;

#pragma unroll
    for (int b = 0; b < 2; b++) {
#pragma unroll
        for (int r = 0; r < 4; r++) {
#pragma unroll
            for (int p = 0; p < N; p++) {
                float v = sum[b][r][p];

                v += __shfl_xor_sync(SL_ALL_LANES, v, 4);
                v += __shfl_xor_sync(SL_ALL_LANES, v, 8);
                v += __shfl_xor_sync(SL_ALL_LANES, v, 16);
                if (lane < 4)
                    sh->sum[warp][b * SL_BLOCK_ROWS + lane * 4 + r][p] = v;
            }
        }
    }
    __syncthreads();
}

__device__ __forceinline__ float total(const struct matvec_shared *sh,
                                       uint32_t slot, uint32_t p)
{
    float v = 0;

    for (uint32_t i = 0; i < WARPS; i++)
        v += sh->sum[i][slot][p];
    return v;
}

template <int FMT, int N>
__global__ void __launch_bounds__(THREADS) matvec(struct matvec_args a)
{
    SL_SHARED(struct matvec_shared, sh, [1]);
    bool glu = a.p.out.pairs != 0;
    size_t block_bytes = (size_t)a.p.units * 64;
    size_t block_scales = (size_t)a.p.groups * SL_BLOCK_ROWS;
    const uint8_t *w[2];
    const uint16_t *scale[2];
    float sum[2][4][N] = {};

    for (uint32_t i = 0; i < 2; i++) {
        uint32_t which = glu ? i : 0;
        size_t block = glu ? blockIdx.x : blockIdx.x * 2 + i;

        w[i] = NULL;
        scale[i] = NULL;
        if (block * SL_BLOCK_ROWS >= a.p.n_rows)
            continue;
        w[i] = a.p.w[which] + block * block_bytes;
        scale[i] = a.p.scale[which] + block * block_scales;
    }
    sum_columns<FMT, N>(sum, a, w, scale);
    gather<N>(sh, sum);
    for (uint32_t i = threadIdx.x; i < 2 * SL_BLOCK_ROWS * N; i += THREADS) {
        uint32_t p = i / (2 * SL_BLOCK_ROWS), slot = i % (2 * SL_BLOCK_ROWS);
        uint32_t row = blockIdx.x * a.row_blocks * SL_BLOCK_ROWS + slot;

        if (row >= a.p.n_rows || (glu && slot >= SL_BLOCK_ROWS))
            continue;
        sl_epilogue(&a.p.out, p, row, total(sh, slot, p),
                    glu ? total(sh, slot + SL_BLOCK_ROWS, p) : 0);
    }
}

template <int FMT>
static int launch(const struct sl_cuda *c, const struct matvec_args *a,
                  struct sl_error *err)
{
    uint32_t n_blocks = (a->p.n_rows + SL_BLOCK_ROWS - 1) / SL_BLOCK_ROWS;
    dim3 grid(sl_product_pairs(&a->p) ? n_blocks : (n_blocks + 1) / 2);

    switch (a->p.n) {
    case 1:
        return sl_launch(c, "matvec", matvec<FMT, 1>, grid, THREADS, a, err);
    case 2:
        return sl_launch(c, "matvec", matvec<FMT, 2>, grid, THREADS, a, err);
    case 3:
        return sl_launch(c, "matvec", matvec<FMT, 3>, grid, THREADS, a, err);
    default:
        return sl_launch(c, "matvec", matvec<FMT, 4>, grid, THREADS, a, err);
    }
}

bool sl_matvec_takes(const struct sl_product *p)
{
    return sl_fmt_has_scales(p->fmt) &&
           (p->groups == 1 || p->group_cols % 8 == 0);
}

int sl_matvec_launch(const struct sl_cuda *c, const struct sl_product *p,
                     struct sl_error *err)
{
    struct matvec_args a = {};

    a.p = *p;
    a.group_units = p->units;
    a.row_blocks = sl_product_pairs(p) ? 1 : 2;
    if (p->groups > 1)
        a.group_units = p->group_cols / sl_fmt_of(p->fmt)->unit_cols;
    if (p->fmt == SL_FMT_INT4)
        return launch<SL_FMT_INT4>(c, &a, err);
    return launch<SL_FMT_INT8>(c, &a, err);
}
