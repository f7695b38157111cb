/*
 * rope.cu - rotary positions, and keys and values into the cache
 *
 * One pass over q, k and v of all rows: a thread takes a pair of values after
 * the other.
 */
#include "config.h"

#include <string.h>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/qkv.cuh"

#define THREADS 256u

struct rope_args {
    uint16_t *q;
    size_t q_stride;
    struct sl_cuda_kv kv;
    struct sl_cuda_qkv qkv;
    const uint32_t *position, *table, *pages;
    const float *cos, *sin;
    enum sl_cuda_pairs pairs;
    uint32_t turned; /* pairs of a head */
};

/* Pair i of a head's first 2 * n values. */
__device__ __forceinline__ void pair_of(enum sl_cuda_pairs pairs, uint32_t n,
                                        uint32_t i, uint32_t *first,
                                        uint32_t *second)
{
    uint32_t half = n / 2;

    if (pairs == SL_CUDA_PAIRS_NEXT) {
        *first = 2 * i;
        *second = *first + 1;
    } else if (pairs == SL_CUDA_PAIRS_2D) {
        *first = i + (i >= half ? half : 0);
        *second = *first + half;
    } else {
        *first = i;
        *second = i + n;
    }
}

template <class T>
__global__ void __launch_bounds__(THREADS) rope_store(struct rope_args a)
{
    uint32_t d = a.kv.head_dim, n_kv = a.kv.n_heads, n_q = a.qkv.n_heads;
    uint32_t row = blockIdx.x, at = a.position[row];
    size_t page = a.pages[a.table[row] + at / SL_CUDA_PAGE_LEN];
    const T *from_row = (const T *)a.qkv.at + row * a.qkv.stride;
    const float *cos = a.cos + (size_t)row * a.turned;
    const float *sin = a.sin + (size_t)row * a.turned;
    uint32_t all = (n_q + 2 * n_kv) * (d / 2);

    for (uint32_t i = blockIdx.y * THREADS + threadIdx.x; i < all;
         i += gridDim.y * THREADS) {
        uint32_t slot = i / (d / 2), pair = i % (d / 2);
        uint32_t first = 2 * pair, second = first + 1, head = slot - n_q;
        const T *from = from_row + sl_qkv_at(a.qkv, slot);
        bool turn = slot < n_q + n_kv && pair < a.turned;
        float x, y, by_cos = 1, by_sin = 0;
        uint16_t *to = a.q + row * a.q_stride + (size_t)slot * d;

        if (slot >= n_q)
            to = (head < n_kv ? a.kv.k : a.kv.v) + page * a.kv.page_stride +
                 ((size_t)(head % n_kv) * SL_CUDA_PAGE_LEN +
                  at % SL_CUDA_PAGE_LEN) *
                     d;
        if (turn) {
            pair_of(a.pairs, a.turned, pair, &first, &second);
            by_cos = cos[pair];
            by_sin = sin[pair];
        }
        x = sl_value(from + first);
        y = sl_value(from + second);
        to[first] = sl_to_half(turn ? x * by_cos - y * by_sin : x);
        to[second] = sl_to_half(turn ? y * by_cos + x * by_sin : y);
    }
}

int sl_cuda_rotate_store(const struct sl_cuda *c, uint16_t *q, size_t q_stride,
                         const struct sl_cuda_kv *kv,
                         const struct sl_cuda_qkv *qkv,
                         const struct sl_cuda_rows *rows,
                         enum sl_cuda_pairs pairs, uint32_t turned,
                         struct sl_error *err)
{
    struct rope_args a = {};
    uint64_t all =
        ((uint64_t)qkv->n_heads + 2 * kv->n_heads) * (kv->head_dim / 2);
    uint64_t blocks = (all + THREADS - 1) / THREADS;
    dim3 grid(rows->n, (unsigned)(blocks < 65535 ? blocks : 65535));

    if (rows->n == 0)
        return 0;
    a.q = q;
    a.q_stride = q_stride;
    a.kv = *kv;
    a.qkv = *qkv;
    a.position = rows->position;
    a.table = rows->table;
    a.pages = rows->pages;
    a.cos = rows->cos;
    a.sin = rows->sin;
    a.pairs = pairs;
    a.turned = turned / 2;
    if (qkv->type == SL_CUDA_F16)
        return sl_launch(c, "rotary positions", rope_store<uint16_t>, grid,
                         THREADS, &a, err);
    return sl_launch(c, "rotary positions", rope_store<float>, grid, THREADS,
                     &a, err);
}

int sl_cuda_rope_store(const struct sl_cuda *c, uint16_t *q, size_t q_stride,
                       const struct sl_cuda_kv *kv, const void *qkv,
                       size_t qkv_stride, enum sl_cuda_type qkv_type,
                       const struct sl_cuda_rows *rows, bool position_2d,
                       struct sl_error *err)
{
    struct sl_cuda_qkv by_head = {};

    by_head.at = const_cast<void *>(qkv); /* it is read only */
    by_head.stride = qkv_stride;
    by_head.type = qkv_type;
    by_head.order = SL_CUDA_BY_HEAD;
    by_head.n = rows->n;
    by_head.n_heads = by_head.n_kv_heads = kv->n_heads;
    by_head.head_dim = kv->head_dim;
    return sl_cuda_rotate_store(c, q, q_stride, kv, &by_head, rows,
                                position_2d ? SL_CUDA_PAIRS_2D
                                            : SL_CUDA_PAIRS_APART,
                                kv->head_dim, err);
}

struct latent_store_args {
    struct sl_cuda_latent l;
    uint16_t *q;
    size_t q_stride;
    struct sl_cuda_kv kv;
    const uint32_t *position, *table, *pages;
    const float *cos, *sin;
};

/* blockIdx: row, some of its pairs of values: those of all heads' queries, then
 * of the key. */
__global__ void __launch_bounds__(THREADS)
    latent_store(struct latent_store_args a)
{
    const struct sl_cuda_latent &l = a.l;
    uint32_t row = blockIdx.x, at = a.position[row], d = a.kv.head_dim;
    size_t page = a.pages[a.table[row] + at / SL_CUDA_PAGE_LEN];
    const float *cos = a.cos + (size_t)row * (l.turned / 2);
    const float *sin = a.sin + (size_t)row * (l.turned / 2);
    uint32_t all = (l.n_heads + 1) * (d / 2);

    for (uint32_t i = blockIdx.y * THREADS + threadIdx.x; i < all;
         i += gridDim.y * THREADS) {
        uint32_t head = i / (d / 2), pair = i % (d / 2), first, second;
        const uint16_t *key = l.key + row * l.key_stride;
        uint16_t *to = a.q + row * a.q_stride + (size_t)head * d;
        float x, y, by_cos, by_sin;
        bool is_key = head == l.n_heads;

        if (is_key)
            to = a.kv.k + page * a.kv.page_stride +
                 (size_t)(at % SL_CUDA_PAGE_LEN) * d;
        if (pair < l.values / 2) {
            const uint16_t *q =
                l.q + row * l.q_stride + (size_t)head * l.values;

            *(uint32_t *)(to + 2 * pair) =
                *(const uint32_t *)((is_key ? key : q) + 2 * pair);
            continue;
        }
        pair -= l.values / 2;
        by_cos = cos[pair];
        by_sin = sin[pair];
        pair_of(l.pairs, l.turned / 2, pair, &first, &second);
        key += l.values;
        if (!is_key)
            key = l.turn + row * l.turn_stride + head * l.turn_head;
        x = sl_half_at(key + first);
        y = sl_half_at(key + second);
        to[l.values + first] = sl_to_half(x * by_cos - y * by_sin);
        to[l.values + second] = sl_to_half(y * by_cos + x * by_sin);
    }
}

int sl_cuda_latent_store(const struct sl_cuda *c, uint16_t *q, size_t q_stride,
                         const struct sl_cuda_kv *kv,
                         const struct sl_cuda_latent *latent,
                         const struct sl_cuda_rows *rows, struct sl_error *err)
{
    uint64_t all = (latent->n_heads + 1ull) * (kv->head_dim / 2);
    uint64_t blocks = (all + THREADS - 1) / THREADS;
    struct latent_store_args a = {
        *latent,     q,           q_stride,  *kv,      rows->position,
        rows->table, rows->pages, rows->cos, rows->sin};

    if (rows->n == 0)
        return 0;
    return sl_launch(c, "keys of latents", latent_store,
                     dim3(rows->n, (unsigned)(blocks < 65535 ? blocks : 65535)),
                     THREADS, &a, err);
}

struct move_args {
    uint16_t *at;
    size_t page_stride, plane_stride;
    uint32_t n_heads, head_dim;
    struct sl_cuda_move moves[SL_CUDA_MOVES];
    uint32_t n, unused; /* no padding */
};

/* A thread has a value of a head, and makes all moves of it in order.
 * blockIdx: values of all heads, plane. */
__global__ void __launch_bounds__(THREADS) kv_move(struct move_args a)
{
    uint32_t i = blockIdx.x * THREADS + threadIdx.x;
    uint32_t head = i / a.head_dim, value = i % a.head_dim;
    uint16_t *plane = a.at + blockIdx.y * a.plane_stride;

    if (head >= a.n_heads)
        return;
    for (uint32_t k = 0; k < a.n; k++) {
        const struct sl_cuda_move &m = a.moves[k];
        size_t in = (size_t)head * SL_CUDA_PAGE_LEN;

        plane[m.to_page * a.page_stride + (in + m.to) * a.head_dim + value] =
            plane[m.from_page * a.page_stride + (in + m.from) * a.head_dim +
                  value];
    }
}

int sl_cuda_kv_move(const struct sl_cuda *c, const struct sl_cuda_kv *kv,
                    size_t n_planes, size_t plane_stride,
                    const struct sl_cuda_move *moves, uint32_t n,
                    struct sl_error *err)
{
    uint32_t values = kv->n_heads * kv->head_dim;
    struct move_args a = {};

    if (n == 0 || n_planes == 0)
        return 0;
    a.at = kv->k;
    a.page_stride = kv->page_stride;
    a.plane_stride = plane_stride;
    a.n_heads = kv->n_heads;
    a.head_dim = kv->head_dim;
    memcpy(a.moves, moves, n * sizeof *moves);
    a.n = n;
    return sl_launch(c, "moving keys and values", kv_move,
                     dim3((values + THREADS - 1) / THREADS, (unsigned)n_planes),
                     THREADS, &a, err);
}
