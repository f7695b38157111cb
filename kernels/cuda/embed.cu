/*
 * embed.cu - rows of a matrix by number
 */
#include "config.h"

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/weight.cuh"

#define THREADS 256u

struct embed_args {
    struct sl_product p;
    float *x;
    const int32_t *ids;
    int64_t first; /* row of p's first */
    uint64_t add;
};

__global__ void __launch_bounds__(THREADS) embed(struct embed_args a)
{
    int64_t row = (int64_t)a.ids[blockIdx.x] - a.first;
    float *x = a.x + (size_t)blockIdx.x * a.p.cols;
    uint32_t c = blockIdx.y * THREADS + threadIdx.x;

    if (row < 0 || row >= (int64_t)a.p.n_rows)
        return;
    for (; c < a.p.cols; c += gridDim.y * THREADS) {
        float v = sl_weight_at(a.p, 0, (uint32_t)row, c);

        x[c] = a.add ? x[c] + v : v;
    }
}

int sl_embed_launch(const struct sl_cuda *c, float *x,
                    const struct sl_product *p, uint32_t first,
                    const int32_t *ids, bool add, struct sl_error *err)
{
    struct embed_args a = {};
    uint32_t blocks = (p->cols + THREADS - 1) / THREADS;
    dim3 grid(p->n, blocks < 65535 ? blocks : 65535);

    a.p = *p;
    a.x = x;
    a.ids = ids;
    a.first = first;
    a.add = add;
    return sl_launch(c, "embedding", embed, grid, THREADS, &a, err);
}
