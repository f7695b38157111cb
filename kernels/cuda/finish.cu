/*
 * finish.cu - the epilogue of sums that were not finished where they were made
 */
#include "config.h"

#include "kernels/cuda/epilogue.cuh"
#include "kernels/cuda/launch.cuh"

#define THREADS 256u

struct finish_args {
    struct sl_product_out out;
    struct sl_product_sums s;
    uint32_t n, n_rows;
};

/* Splits are added in their order. */
__device__ __forceinline__ float add_up(const struct sl_product_sums &s,
                                        size_t at)
{
    float v = 0;

    for (uint32_t i = 0; i < s.n_splits; i++)
        v += s.sums[i * s.split_stride + at];
    return v;
}

__global__ void __launch_bounds__(THREADS) finish(struct finish_args a)
{
    uint32_t row = blockIdx.x * THREADS + threadIdx.x;
    size_t slot = row, second = a.s.second + row;

    if (row >= a.n_rows)
        return;
    if (a.s.interleaved) {
        slot = (size_t)(row / SL_BLOCK_ROWS) * 2 * SL_BLOCK_ROWS +
               row % SL_BLOCK_ROWS;
        second = slot + SL_BLOCK_ROWS;
    }
    for (uint32_t p = blockIdx.y; p < a.n; p += gridDim.y) {
        float b = 0;

        if (a.out.pairs != 0)
            b = add_up(a.s, p * a.s.stride + second);
        sl_epilogue(&a.out, p, row, add_up(a.s, p * a.s.stride + slot), b);
    }
}

int sl_finish_launch(const struct sl_cuda *c, const struct sl_product_out *out,
                     const struct sl_product_sums *sums, uint32_t n,
                     uint32_t n_rows, struct sl_error *err)
{
    struct finish_args a = {};
    dim3 grid((n_rows + THREADS - 1) / THREADS, n < 65535 ? n : 65535);

    a.out = *out;
    a.s = *sums;
    a.n = n;
    a.n_rows = n_rows;
    return sl_launch(c, "epilogue", finish, grid, THREADS, &a, err);
}
