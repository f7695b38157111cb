/*
 * attend_rows.cu - attention of single rows, split over keys
 *
 * Bound by the rate at which keys and values are read. A thread block takes
 * one head of one row, or HEADS that share their keys, and SL_SPLIT_KEYS keys;
 * in a warp LANES lanes share a key, 16 bytes each, and keep for each head a
 * softmax of their own that is merged at the end: a maximum, a sum and 8
 * values (Milakov and Gimelshein, arXiv 1805.02867, algorithm 3). Parts of
 * several splits are merged by a second kernel, in order. Further heads of a
 * group are other thread blocks', which find the keys in the L2 cache.
 *
 * Scores are FP32: q . k of FP16 values is at most 65504^2 * 256, far inside
 * of its range, where FP16 scores would overflow (GLM-130B's training divided
 * them by the layer's number for that reason).
 */
#include "config.h"

#include "kernels/cuda/attend_keys.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/values.cuh"

#define WARPS   4u
#define THREADS (WARPS * SL_WARP)
#define DEPTH   4u /* keys that a lane loads at once */

struct soft {
    float max, sum, v[8];
};

/* Eight values from i on of a head; zeros beyond it. */
__device__ __forceinline__ uint4 load_head(const uint16_t *head, uint32_t i,
                                           uint32_t d, bool aligned)
{
    uint32_t v[4] = {0, 0, 0, 0};

    if (aligned)
        return sl_load_eight(head, i, d);
#pragma unroll
    for (uint32_t k = 0; k < 8; k++)
        if (i + k < d)
            v[k / 2] |= (uint32_t)head[i + k] << (k % 2 * 16);
    return make_uint4(v[0], v[1], v[2], v[3]);
}

__device__ __forceinline__ void merge(struct soft *s, int lanes)
{
    float max = fmaxf(s->max, __shfl_xor_sync(SL_ALL_LANES, s->max, lanes));
    float by = exp2f(s->max - sl_base_of(max));

    s->max = max;
    s->sum *= by;
    s->sum += __shfl_xor_sync(SL_ALL_LANES, s->sum, lanes);
#pragma unroll
    for (int i = 0; i < 8; i++) {
        s->v[i] *= by;
        s->v[i] += __shfl_xor_sync(SL_ALL_LANES, s->v[i], lanes);
    }
}

/* Scores of DEPTH keys and one head; those from `end` on are none. */
template <int LANES>
__device__ __forceinline__ void score_keys(float score[DEPTH], const float q[8],
                                           const uint4 k[DEPTH], uint32_t key,
                                           uint32_t end, float scale)
{
#pragma unroll
    for (uint32_t j = 0; j < DEPTH; j++) {
        float f[8], dot = 0;

        sl_eight_to_floats(f, k[j]);
#pragma unroll
        for (int e = 0; e < 8; e++)
            dot += q[e] * f[e];
#pragma unroll
        for (int e = LANES / 2; e > 0; e /= 2)
            dot += __shfl_xor_sync(SL_ALL_LANES, dot, e);
        score[j] = key + j * (THREADS / LANES) < end ? dot * scale : -INFINITY;
    }
}

/* Takes DEPTH keys' values into one head's softmax. */
__device__ __forceinline__ void
take_in(struct soft *s, const float score[DEPTH], const uint4 v[DEPTH])
{
    float max = s->max, by;

#pragma unroll
    for (uint32_t j = 0; j < DEPTH; j++)
        max = fmaxf(max, score[j]);
    by = exp2f(s->max - sl_base_of(max));
    s->max = max;
    s->sum *= by;
#pragma unroll
    for (int e = 0; e < 8; e++)
        s->v[e] *= by;
#pragma unroll
    for (uint32_t j = 0; j < DEPTH; j++) {
        float f[8], p = exp2f(score[j] - sl_base_of(max));

        sl_eight_to_floats(f, v[j]);
        s->sum += p;
#pragma unroll
        for (int e = 0; e < 8; e++)
            s->v[e] += p * f[e];
    }
}

/* What a lane takes in: DEPTH keys for all heads. */
template <int LANES, int HEADS>
__device__ __forceinline__ void
step(struct soft s[HEADS], const struct sl_attention &a,
     const struct sl_row_keys &keys, uint32_t kv_head, const float q[HEADS][8],
     uint32_t key, uint32_t end)
{
    const uint32_t apart = THREADS / LANES;
    uint32_t i = threadIdx.x % LANES * 8;
    uint4 k[DEPTH], v[DEPTH];

#pragma unroll
    for (uint32_t j = 0; j < DEPTH; j++) {
        k[j] = v[j] = make_uint4(0, 0, 0, 0);
        if (key + j * apart < end) {
            size_t at = sl_key_at(a, keys, kv_head, key + j * apart);

            k[j] = load_head(a.kv.k + at, i, a.kv.head_dim,
                             sl_heads_aligned(a.kv));
            v[j] = load_head(a.kv.v + at, i, a.kv.head_dim,
                             sl_heads_aligned(a.kv));
        }
    }
#pragma unroll
    for (int h = 0; h < HEADS; h++) {
        float score[DEPTH];

        score_keys<LANES>(score, q[h], k, key, end, a.scale);
        take_in(&s[h], score, v);
    }
}

struct head_shared {
    float max[WARPS], sum[WARPS];
    float v[WARPS][SL_CUDA_MAX_HEAD];
};

/* The warps' parts of a head become one of the row, or of its split. */
__device__ __forceinline__ void store_head(const struct head_shared *sh,
                                           const struct sl_attention &a,
                                           uint32_t row, uint32_t head)
{
    size_t part =
        ((size_t)blockIdx.z * a.n_heads + head) * a.n_splits + blockIdx.x;
    uint32_t d = a.kv.head_dim;
    float max = -INFINITY;

    for (uint32_t w = 0; w < WARPS; w++)
        max = fmaxf(max, sh->max[w]);
    for (uint32_t e = threadIdx.x; e < d; e += THREADS) {
        float v = 0, sum = 0;

        for (uint32_t w = 0; w < WARPS; w++) {
            float by = exp2f(sh->max[w] - max);

            v += by * sh->v[w][e];
            sum += by * sh->sum[w];
        }
        if (a.n_splits == 1) {
            a.out[row * a.out_stride + (size_t)head * d + e] =
                sl_to_half(v / sum);
            continue;
        }
        a.part[part * (d + 2) + e] = v;
        if (e == 0) {
            a.part[part * (d + 2) + d] = max;
            a.part[part * (d + 2) + d + 1] = sum;
        }
    }
}

/* blockIdx: split, HEADS heads of a group, row. */
template <int LANES, int HEADS>
__global__ void __launch_bounds__(THREADS) attend_rows(struct sl_attention a)
{
    SL_SHARED(struct head_shared, sh, [HEADS]);
    SL_SHARED(uint16_t, path, [64]);
    uint32_t row = a.first + blockIdx.z, d = a.kv.head_dim;
    uint32_t parts = (a.group + HEADS - 1) / HEADS;
    uint32_t kv_head = blockIdx.y / parts, in = blockIdx.y % parts * HEADS;
    uint32_t head = kv_head * a.group + in,
             n = min(a.group - in, (uint32_t)HEADS);
    uint32_t first = blockIdx.x * SL_SPLIT_KEYS, n_keys = a.n_keys[row];
    uint32_t end = min(first + SL_SPLIT_KEYS, n_keys);
    uint32_t warp = threadIdx.x / SL_WARP, lane = threadIdx.x % SL_WARP;
    uint32_t i = lane % LANES * 8;
    struct sl_row_keys keys = {a.pages + a.table[row], UINT32_MAX, path};
    struct soft s[HEADS];
    float q[HEADS][8];

    if (first >= n_keys)
        return;
    if (a.fork != NULL) {
        keys.fork = a.fork[row];
        sl_spread_path(path, a.path[row]);
    }
#pragma unroll
    for (uint32_t h = 0; h < HEADS; h++) {
        /* Where the group has no more heads, its last once more. */
        size_t at = row * a.q_stride + (size_t)(head + min(h, n - 1)) * d;

        s[h] = {-INFINITY, 0, {}};
        sl_eight_to_floats(q[h],
                           load_head(a.q + at, i, d, sl_heads_aligned(a.kv)));
    }
    /* The bound is the block's, so that all lanes meet at the shuffles. */
    for (uint32_t key = 0; first + key < end; key += THREADS / LANES * DEPTH)
        step<LANES, HEADS>(s, a, keys, kv_head, q,
                           first + key + threadIdx.x / LANES, end);
#pragma unroll
    for (uint32_t h = 0; h < HEADS; h++) {
#pragma unroll
        for (int e = LANES; e < 32; e *= 2)
            merge(&s[h], e);
        if (lane < LANES) {
#pragma unroll
            for (int e = 0; e < 8; e++)
                if (i + e < d)
                    sh[h].v[warp][i + e] = s[h].v[e];
        }
        if (lane == 0) {
            sh[h].max[warp] = s[h].max;
            sh[h].sum[warp] = s[h].sum;
        }
    }
    __syncthreads();
    for (uint32_t h = 0; h < n; h++)
        store_head(&sh[h], a, row, head + h);
}

/* Merges the parts of one head of one row. */
__global__ void __launch_bounds__(THREADS) attend_merge(struct sl_attention a)
{
    uint32_t row = a.first + blockIdx.y, head = blockIdx.x, d = a.values;
    uint32_t n = (a.n_keys[row] + SL_SPLIT_KEYS - 1) / SL_SPLIT_KEYS;
    const float *part =
        a.part + ((size_t)blockIdx.y * a.n_heads + head) * a.n_splits * (d + 2);
    float max = -INFINITY;

    for (uint32_t i = 0; i < n; i++)
        max = fmaxf(max, part[i * (d + 2) + d]);
    for (uint32_t e = threadIdx.x; e < d; e += THREADS) {
        float v = 0, sum = 0;

        for (uint32_t i = 0; i < n; i++) {
            float by = exp2f(part[i * (d + 2) + d] - max);

            v += by * part[i * (d + 2) + e];
            sum += by * part[i * (d + 2) + d + 1];
        }
        a.out[row * a.out_stride + (size_t)head * d + e] = sl_to_half(v / sum);
    }
}

template <int LANES, int HEADS>
static int launch_rows(const struct sl_cuda *c, const struct sl_attention *a,
                       struct sl_error *err)
{
    dim3 grid(a->n_splits, a->kv.n_heads * ((a->group + HEADS - 1) / HEADS),
              a->n);

    return sl_launch(c, "attention", attend_rows<LANES, HEADS>, grid, THREADS,
                     a, err);
}

/* More copies for every width and group would take long to compile, and gain
 * nothing: two heads computed in vain still wait for memory, and narrow ones
 * are in small models only. */
int sl_attend_rows_launch(const struct sl_cuda *c, const struct sl_attention *a,
                          struct sl_error *err)
{
    uint32_t d = a->kv.head_dim;
    bool alone = a->group == 1;
    int rc;

    if (d <= 32)
        rc = launch_rows<4, 1>(c, a, err);
    else if (d <= 64)
        rc = (alone ? launch_rows<8, 1> : launch_rows<8, 4>)(c, a, err);
    else if (d <= 128)
        rc = (alone ? launch_rows<16, 1> : launch_rows<16, 4>)(c, a, err);
    else
        rc = (alone ? launch_rows<32, 1> : launch_rows<32, 4>)(c, a, err);
    if (rc != 0 || a->n_splits == 1)
        return rc;
    return sl_attend_merge_launch(c, a, err);
}

int sl_attend_merge_launch(const struct sl_cuda *c,
                           const struct sl_attention *a, struct sl_error *err)
{
    return sl_launch(c, "attention's merge", attend_merge,
                     dim3(a->n_heads, a->n), THREADS, a, err);
}
