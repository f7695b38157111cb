/*
 * norm.cu - LayerNorm and RMS norm of rows of the residual stream, RMS norm of
 * the heads of q and k
 *
 * A row a thread block, a head a warp. LayerNorm's variance is summed over
 * differences to the mean, not from squares: GLM-130B's outliers are hundreds
 * of times its typical values. The second and third pass over the row read the
 * L1 cache.
 */
#include "config.h"

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/qkv.cuh"

#define MOST_THREADS 1024u
#define HEAD_WARPS   4u

struct norm_args {
    uint16_t *y_f16;
    size_t y_stride;
    float *y_f32;
    const float *x, *w, *b;
    const uint32_t *rows;
    uint32_t h;
    float eps;
    uint64_t add; /* to y_f32 */
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

__global__ void __launch_bounds__(MOST_THREADS) rms_norm(struct norm_args a)
{
    SL_SHARED(float, box, [SL_WARP]);
    size_t from = a.rows != NULL ? a.rows[blockIdx.x] : blockIdx.x;
    const float *x = a.x + from * a.h;
    float sum = 0, by;

    for (uint32_t i = threadIdx.x; i < a.h; i += blockDim.x)
        sum += x[i] * x[i];
    by = 1.0f / sqrtf(block_sum(box, sum) / (float)a.h + a.eps);
    for (uint32_t i = threadIdx.x; i < a.h; i += blockDim.x) {
        size_t at = (size_t)blockIdx.x * a.h + i;
        float y = x[i] * by * a.w[i];

        if (a.y_f16 != NULL)
            a.y_f16[blockIdx.x * a.y_stride + i] = sl_to_half(y);
        if (a.y_f32 != NULL)
            a.y_f32[at] = a.add != 0 ? a.y_f32[at] + y : y;
    }
}

struct latent_norm_args {
    uint16_t *x;
    size_t stride;
    const float *w;
    uint32_t n;
    float eps;
};

__global__ void __launch_bounds__(MOST_THREADS)
    latent_norm(struct latent_norm_args a)
{
    SL_SHARED(float, box, [SL_WARP]);
    uint16_t *x = a.x + blockIdx.x * a.stride;
    float sum = 0, by;

    for (uint32_t i = threadIdx.x; i < a.n; i += blockDim.x)
        sum += sl_half_at(x + i) * sl_half_at(x + i);
    by = 1.0f / sqrtf(block_sum(box, sum) / (float)a.n + a.eps);
    for (uint32_t i = threadIdx.x; i < a.n; i += blockDim.x)
        x[i] = sl_to_half(sl_half_at(x + i) * by * a.w[i]);
}

struct head_args {
    struct sl_cuda_qkv qkv;
    const float *q_w, *k_w;
    uint32_t n_heads; /* of both */
    float eps;
};

/* Head blockIdx.y * HEAD_WARPS + warp of all of q, then of k. The values wait
 * in registers: the head is read once. */
template <class T>
__global__ void __launch_bounds__(HEAD_WARPS *SL_WARP)
    head_norm(struct head_args a)
{
    const struct sl_cuda_qkv &m = a.qkv;
    uint32_t lane = threadIdx.x % SL_WARP, d = m.head_dim;
    uint32_t slot = blockIdx.y * HEAD_WARPS + threadIdx.x / SL_WARP;
    const float *w = slot < m.n_heads ? a.q_w : a.k_w;
    float v[SL_CUDA_MAX_HEAD / SL_WARP], sum = 0, by;
    T *x;

    if (slot >= a.n_heads || w == NULL)
        return;
    x = (T *)m.at + blockIdx.x * m.stride + sl_qkv_at(m, slot);
#pragma unroll
    for (uint32_t i = 0; i < SL_CUDA_MAX_HEAD / SL_WARP; i++) {
        uint32_t at = i * SL_WARP + lane;

        v[i] = at < d ? sl_value(x + at) : 0.0f;
        sum += v[i] * v[i];
    }
    by = 1.0f / sqrtf(sl_warp_sum(sum) / (float)d + a.eps);
#pragma unroll
    for (uint32_t i = 0; i < SL_CUDA_MAX_HEAD / SL_WARP; i++) {
        uint32_t at = i * SL_WARP + lane;

        if (at < d)
            sl_put(x + at, v[i] * by * w[at]);
    }
}

/* As many threads as a row has values, up to the most. */
static uint32_t threads_of(uint32_t values)
{
    uint32_t threads = (values + SL_WARP - 1) / SL_WARP * SL_WARP;

    return threads < MOST_THREADS ? threads : MOST_THREADS;
}

static int launch_norm(const struct sl_cuda *c, const char *what,
                       void (*kernel)(struct norm_args),
                       const struct norm_args *a, uint32_t n,
                       struct sl_error *err)
{
    if (n == 0)
        return 0;
    return sl_launch(c, what, kernel, dim3(n), threads_of(a->h), a, err);
}

int sl_cuda_layer_norm(const struct sl_cuda *c, uint16_t *y_f16,
                       size_t y_stride, float *y_f32, const float *x,
                       const float *w, const float *b, const uint32_t *rows,
                       uint32_t n, uint32_t h, float eps, struct sl_error *err)
{
    struct norm_args a = {y_f16, y_stride, y_f32, x, w, b, rows, h, eps, 0};

    return launch_norm(c, "layer norm", layer_norm, &a, n, err);
}

int sl_cuda_rms_norm(const struct sl_cuda *c, uint16_t *y_f16, size_t y_stride,
                     float *y_f32, const float *x, const float *w,
                     const uint32_t *rows, uint32_t n, uint32_t h, float eps,
                     struct sl_error *err)
{
    struct norm_args a = {y_f16, y_stride, y_f32, x, w, NULL, rows, h, eps, 0};

    return launch_norm(c, "RMS norm", rms_norm, &a, n, err);
}

int sl_cuda_rms_norm_add(const struct sl_cuda *c, float *x, const float *v,
                         const float *w, uint32_t n, uint32_t h, float eps,
                         struct sl_error *err)
{
    struct norm_args a = {NULL, 0, x, v, w, NULL, NULL, h, eps, 1};

    return launch_norm(c, "RMS norm", rms_norm, &a, n, err);
}

int sl_cuda_latent_norm(const struct sl_cuda *c, uint16_t *x, size_t stride,
                        const float *w, uint32_t n, uint32_t values, float eps,
                        struct sl_error *err)
{
    struct latent_norm_args a = {x, stride, w, values, eps};

    if (n == 0)
        return 0;
    return sl_launch(c, "norm of latents", latent_norm, dim3(n),
                     threads_of(values), &a, err);
}

int sl_cuda_head_norm(const struct sl_cuda *c, const struct sl_cuda_qkv *qkv,
                      const float *q_w, const float *k_w, float eps,
                      struct sl_error *err)
{
    struct head_args a = {*qkv, q_w, k_w, qkv->n_heads + qkv->n_kv_heads, eps};
    dim3 grid(qkv->n, (a.n_heads + HEAD_WARPS - 1) / HEAD_WARPS);

    if (qkv->n == 0)
        return 0;
    if (qkv->head_dim > SL_CUDA_MAX_HEAD)
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "heads of %u values (at most %u on a GPU)",
                       qkv->head_dim, SL_CUDA_MAX_HEAD);
    if (qkv->type == SL_CUDA_F16)
        return sl_launch(c, "norm of heads", head_norm<uint16_t>, grid,
                         HEAD_WARPS * SL_WARP, &a, err);
    return sl_launch(c, "norm of heads", head_norm<float>, grid,
                     HEAD_WARPS * SL_WARP, &a, err);
}
