#include "config.h"

#include <cuda_fp16.h>

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/launch.cuh"

#define NORM_THREADS 256

/* The sum over the block, in every thread. */
static __device__ float block_sum(float v)
{
    SL_SHARED(float, part, [NORM_THREADS / 32]);
    unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;

    for (int i = 16; i > 0; i /= 2)
        v += __shfl_xor_sync(0xffffffffu, v, i);
    __syncthreads();
    if (lane == 0)
        part[warp] = v;
    __syncthreads();
    v = 0;
    for (unsigned i = 0; i < NORM_THREADS / 32; i++)
        v += part[i];
    return v;
}

static __global__ void __launch_bounds__(NORM_THREADS)
    layer_norm(__half *y_f16, size_t y_stride, float *y_f32, const float *x,
               const float *w, const float *b, const uint32_t *rows, uint32_t h,
               float eps)
{
    size_t row = rows ? rows[blockIdx.x] : blockIdx.x;
    float sum = 0, mean, scale;

    x += row * h;
    for (uint32_t i = threadIdx.x; i < h; i += NORM_THREADS)
        sum += x[i];
    mean = block_sum(sum) / (float)h;
    sum = 0;
    for (uint32_t i = threadIdx.x; i < h; i += NORM_THREADS)
        sum += (x[i] - mean) * (x[i] - mean);
    scale = rsqrtf(block_sum(sum) / (float)h + eps);
    for (uint32_t i = threadIdx.x; i < h; i += NORM_THREADS) {
        float y = (x[i] - mean) * scale * w[i] + b[i];

        if (y_f16)
            y_f16[blockIdx.x * y_stride + i] =
                __float2half(fminf(fmaxf(y, -65504.f), 65504.f));
        if (y_f32)
            y_f32[(size_t)blockIdx.x * h + i] = y;
    }
}

int sl_cuda_layer_norm(const struct sl_cuda *c, uint16_t *y_f16,
                       size_t y_stride, float *y_f32, const float *x,
                       const float *w, const float *b, const uint32_t *rows,
                       uint32_t n, uint32_t h, float eps, struct sl_error *err)
{
    return sl_cuda_launch("layer norm", layer_norm, dim3(n), dim3(NORM_THREADS),
                          0, (cudaStream_t)c->stream, err, (__half *)y_f16,
                          y_stride, y_f32, x, w, b, rows, h, eps);
}
