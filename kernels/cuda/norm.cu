/*
 * norm.cu - LayerNorm of rows of the residual stream
 *
 * A row a thread block. The variance is summed over differences to the mean,
 * not from squares: GLM-130B's outliers are hundreds of times its typical
 * values. The second and third pass over the row read the L1 cache.
 */
#include "config.h"

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/values.cuh"

#define MOST_THREADS 1024u

struct norm_args {
    uint16_t *y_f16;
    size_t y_stride;
    float *y_f32;
    const float *x, *w, *b;
    const uint32_t *rows;
    uint32_t h;
    float eps;
};

/* The sum over the thread block, in every thread. */
__device__ __forceinline__ float block_sum(float *box, float v)
{
    uint32_t lane = threadIdx.x % SL_WARP, n_warps = blockDim.x / SL_WARP;

    v = sl_warp_sum(v);
    if (lane == 0)
        box[threadIdx.x / SL_WARP] = v;
    __syncthreads();
    v = sl_warp_sum(lane < n_warps ? box[lane] : 0.0f);
    __syncthreads();
    return v;
}

__global__ void __launch_bounds__(MOST_THREADS) layer_norm(struct norm_args a)
{
    SL_SHARED(float, box, [SL_WARP]);
    size_t from = a.rows != NULL ? a.rows[blockIdx.x] : blockIdx.x;
    const float *x = a.x + from * a.h;
    float sum = 0, mean, by;

    for (uint32_t i = threadIdx.x; i < a.h; i += blockDim.x)
        sum += x[i];
    mean = block_sum(box, sum) / (float)a.h;
    sum = 0;
    for (uint32_t i = threadIdx.x; i < a.h; i += blockDim.x)
        sum += (x[i] - mean) * (x[i] - mean);
    by = 1.0f / sqrtf(block_sum(box, sum) / (float)a.h + a.eps);
    for (uint32_t i = threadIdx.x; i < a.h; i += blockDim.x) {
        float y = (x[i] - mean) * by * a.w[i] + a.b[i];

        if (a.y_f16 != NULL)
            a.y_f16[blockIdx.x * a.y_stride + i] = sl_to_half(y);
        if (a.y_f32 != NULL)
            a.y_f32[(size_t)blockIdx.x * a.h + i] = y;
    }
}

int sl_cuda_layer_norm(const struct sl_cuda *c, uint16_t *y_f16,
                       size_t y_stride, float *y_f32, const float *x,
                       const float *w, const float *b, const uint32_t *rows,
                       uint32_t n, uint32_t h, float eps, struct sl_error *err)
{
    struct norm_args a = {y_f16, y_stride, y_f32, x, w, b, rows, h, eps};
    uint32_t threads = (h + SL_WARP - 1) / SL_WARP * SL_WARP;

    if (n == 0)
        return 0;
    if (threads > MOST_THREADS)
        threads = MOST_THREADS;
    return sl_launch(c, "layer norm", layer_norm, dim3(n), threads, &a, err);
}
