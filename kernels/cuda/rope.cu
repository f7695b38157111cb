/*
 * rope.cu - rotary positions, and keys and values into the cache
 *
 * One pass over q, k and v of all rows: a thread takes one pair of values of
 * each.
 */
#include "config.h"

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/values.cuh"

#define THREADS 256u

struct rope_args {
    uint16_t *q;
    size_t q_stride;
    struct sl_cuda_kv kv;
    const void *qkv;
    size_t qkv_stride;
    const uint32_t *position, *table, *pages;
    const float *cos, *sin;
    uint32_t pairs; /* of a head */
    uint32_t position_2d;
};

__device__ __forceinline__ float value(const float *p)
{
    return *p;
}

__device__ __forceinline__ float value(const uint16_t *p)
{
    return sl_half_at(p);
}

/* to[first], to[second] = the pair from + (first, second), rotated */
template <class T>
__device__ __forceinline__ void rotate(uint16_t *to, const T *from,
                                       uint32_t first, uint32_t second,
                                       float cos, float sin)
{
    float a = value(from + first), b = value(from + second);

    to[first] = sl_to_half(a * cos - b * sin);
    to[second] = sl_to_half(b * cos + a * sin);
}

template <class T>
__global__ void __launch_bounds__(THREADS) rope_store(struct rope_args a)
{
    uint32_t d = a.kv.head_dim, pairs = a.pairs, row = blockIdx.x;
    uint32_t at = a.position[row], in_page = at % SL_CUDA_PAGE_LEN;
    size_t page = a.pages[a.table[row] + at / SL_CUDA_PAGE_LEN];
    const float *cos = a.cos + (size_t)row * pairs;
    const float *sin = a.sin + (size_t)row * pairs;
    uint32_t i = blockIdx.y * THREADS + threadIdx.x;

    for (; i < a.kv.n_heads * pairs; i += gridDim.y * THREADS) {
        uint32_t head = i / pairs, pair = i % pairs;
        uint32_t first = pair, second = pair + pairs;
        const T *from =
            (const T *)a.qkv + row * a.qkv_stride + (size_t)head * 3 * d;
        size_t to = page * a.kv.page_stride +
                    ((size_t)head * SL_CUDA_PAGE_LEN + in_page) * d;

        if (a.position_2d) { /* each half of a head on its own */
            first = pair + (pair >= pairs / 2 ? pairs / 2 : 0);
            second = first + pairs / 2;
        }
        rotate(a.q + row * a.q_stride + (size_t)head * d, from, first, second,
               cos[pair], sin[pair]);
        rotate(a.kv.k + to, from + d, first, second, cos[pair], sin[pair]);
        a.kv.v[to + first] = sl_to_half(value(from + 2 * d + first));
        a.kv.v[to + second] = sl_to_half(value(from + 2 * d + second));
    }
}

int sl_cuda_rope_store(const struct sl_cuda *c, uint16_t *q, size_t q_stride,
                       const struct sl_cuda_kv *kv, const void *qkv,
                       size_t qkv_stride, enum sl_cuda_type qkv_type,
                       const struct sl_cuda_rows *rows, bool position_2d,
                       struct sl_error *err)
{
    struct rope_args a = {};
    uint64_t all = (uint64_t)kv->n_heads * (kv->head_dim / 2);
    uint64_t blocks = (all + THREADS - 1) / THREADS;
    dim3 grid(rows->n, (unsigned)(blocks < 65535 ? blocks : 65535));

    if (rows->n == 0)
        return 0;
    a.q = q;
    a.q_stride = q_stride;
    a.kv = *kv;
    a.qkv = qkv;
    a.qkv_stride = qkv_stride;
    a.position = rows->position;
    a.table = rows->table;
    a.pages = rows->pages;
    a.cos = rows->cos;
    a.sin = rows->sin;
    a.pairs = kv->head_dim / 2;
    a.position_2d = position_2d;
    if (qkv_type == SL_CUDA_F16)
        return sl_launch(c, "rotary positions", rope_store<uint16_t>, grid,
                         THREADS, &a, err);
    return sl_launch(c, "rotary positions", rope_store<float>, grid, THREADS,
                     &a, err);
}
