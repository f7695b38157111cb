/*
 * matvec_rows.cu - row-major weights x 1 to 4 positions, on CUDA cores
 *
 * A warp takes two rows (in a GLU one of A and its partner of B) and its
 * lanes share their columns, 16 bytes of each row at a time. Float weights
 * are used at their own precision. What is packed in groups that are no whole
 * units, or in rows that begin at odd addresses, goes through here too, one
 * column a lane and slowly: no model that sluice writes has such matrices.
 */
#include "config.h"

#include "kernels/cuda/epilogue.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/weight.cuh"

#define WARPS   8u
#define THREADS (WARPS * SL_WARP)

enum way { HALVES, BF16S, FLOATS, SINGLY };

/* Columns that a lane takes at once. */
template <int WAY> struct step {
    static const uint32_t cols = WAY == FLOATS ? 4 : WAY == SINGLY ? 1 : 8;
};

struct rows_args {
    struct sl_product p;
};

template <int WAY>
__device__ __forceinline__ void load_w(float out[step<WAY>::cols],
                                       const struct sl_product &p,
                                       uint32_t which, uint32_t row, uint32_t c)
{
    const uint8_t *w = p.w[which];
    size_t at = (size_t)row * p.cols + c;

    if (WAY == HALVES) {
        sl_eight_to_floats(out, sl_load_once(w + at * 2));
    } else if (WAY == BF16S) {
        uint4 v = sl_load_once(w + at * 2);

        sl_bf16s_to_floats(out, v.x);
        sl_bf16s_to_floats(out + 2, v.y);
        sl_bf16s_to_floats(out + 4, v.z);
        sl_bf16s_to_floats(out + 6, v.w);
    } else if (WAY == FLOATS) {
        uint4 v = sl_load_once(w + at * 4);

        out[0] = __uint_as_float(v.x);
        out[1] = __uint_as_float(v.y);
        out[2] = __uint_as_float(v.z);
        out[3] = __uint_as_float(v.w);
    } else {
        out[0] = sl_weight_at(p, which, row, c);
    }
}

template <int WAY>
__device__ __forceinline__ void load_x(float out[step<WAY>::cols],
                                       const uint16_t *x)
{
    if (WAY == HALVES || WAY == BF16S) {
        sl_eight_to_floats(out, *(const uint4 *)x);
    } else if (WAY == FLOATS) {
        uint2 v = *(const uint2 *)x;

        sl_halves_to_floats(out, v.x);
        sl_halves_to_floats(out + 2, v.y);
    } else {
        out[0] = sl_half_at(x);
    }
}

template <int WAY, int N>
__global__ void __launch_bounds__(THREADS) matvec_rows(struct rows_args a)
{
    const uint32_t cols = step<WAY>::cols;
    bool glu = a.p.out.pairs != 0;
    uint32_t warp = threadIdx.x / SL_WARP, lane = threadIdx.x % SL_WARP;
    uint32_t pair = blockIdx.x * WARPS + warp;
    uint32_t row[2] = {glu ? pair : 2 * pair, glu ? pair : 2 * pair + 1};
    uint32_t first_row = blockIdx.z * a.p.head_rows;
    const uint16_t *from = a.p.x + blockIdx.z * a.p.head_x;
    float sum[2][N] = {};

    if (row[0] >= a.p.n_rows)
        return;
    for (uint32_t c = lane * cols; c < a.p.cols; c += SL_WARP * cols) {
        float x[N][cols], w[2][cols];

#pragma unroll
        for (int i = 0; i < 2; i++)
            if (row[i] < a.p.n_rows)
                load_w<WAY>(w[i], a.p, glu ? i : 0, first_row + row[i], c);
#pragma unroll
        for (int p = 0; p < N; p++)
            load_x<WAY>(x[p], from + p * a.p.x_stride + c);
#pragma unroll
        for (int i = 0; i < 2; i++)
            if (row[i] < a.p.n_rows)
#pragma unroll
                for (int p = 0; p < N; p++)
#pragma unroll
                    for (uint32_t j = 0; j < cols; j++)
                        sum[i][p] += w[i][j] * x[p][j];
    }
#pragma unroll
    for (int p = 0; p < N; p++) {
        sum[0][p] = sl_warp_sum(sum[0][p]);
        sum[1][p] = sl_warp_sum(sum[1][p]);
        if (lane != 0)
            continue;
        sl_epilogue(&a.p.out, p, first_row + row[0], sum[0][p], sum[1][p]);
        if (!glu && row[1] < a.p.n_rows)
            sl_epilogue(&a.p.out, p, first_row + row[1], sum[1][p], 0);
    }
}

template <int WAY>
static int launch(const struct sl_cuda *c, const struct rows_args *a,
                  struct sl_error *err)
{
    uint64_t pairs =
        sl_product_pairs(&a->p) ? a->p.n_rows : ((uint64_t)a->p.n_rows + 1) / 2;
    dim3 grid((unsigned)((pairs + WARPS - 1) / WARPS), 1, a->p.n_heads);

    switch (a->p.n) {
    case 1:
        return sl_launch(c, "matvec_rows", matvec_rows<WAY, 1>, grid, THREADS,
                         a, err);
    case 2:
        return sl_launch(c, "matvec_rows", matvec_rows<WAY, 2>, grid, THREADS,
                         a, err);
    case 3:
        return sl_launch(c, "matvec_rows", matvec_rows<WAY, 3>, grid, THREADS,
                         a, err);
    default:
        return sl_launch(c, "matvec_rows", matvec_rows<WAY, 4>, grid, THREADS,
                         a, err);
    }
}

int sl_matvec_rows_launch(const struct sl_cuda *c, const struct sl_product *p,
                          struct sl_error *err)
{
    struct rows_args a = {*p};

    if (p->head_x % 8 != 0) /* heads of x begin at odd addresses */
        return launch<SINGLY>(c, &a, err);
    if (p->fmt == SL_FMT_F16 && p->cols % 8 == 0)
        return launch<HALVES>(c, &a, err);
    if (p->fmt == SL_FMT_BF16 && p->cols % 8 == 0)
        return launch<BF16S>(c, &a, err);
    if (p->fmt == SL_FMT_F32 && p->cols % 4 == 0)
        return launch<FLOATS>(c, &a, err);
    return launch<SINGLY>(c, &a, err);
}
