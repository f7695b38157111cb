/*
 * attend_tiles.cu - attention of many rows of one sequence, by mma.sync
 *
 * A thread block takes one head and 64 rows (16 a warp) and passes over the
 * keys in tiles of 64, with an online softmax in FP32 (Dao, FlashAttention-2,
 * arXiv 2307.08691, algorithm 1). Probabilities, at most 1, are rounded to
 * FP16 for the product with the values; scores and sums stay FP32.
 *
 * Values come while keys are multiplied, the next tile's keys while those are:
 *
 *   keys i+1   ......|========================|
 *   values i   |=================|            .
 *   products    q . k i | softmax | p . v i   |
 *
 * Both have but one place: where a copy begins, all warps have done with what
 * lay there before. (sm_75 has no asynchronous copies: there they take turns.)
 *
 * A row sees a prefix of the keys of its own length: in GLM all rows of the
 * context see all of it, whatever their place.
 */
#include "config.h"

#include "kernels/cuda/attend.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/values.cuh"

#define WARPS   4u
#define THREADS (WARPS * SL_WARP)
#define ROWS    (WARPS * 16u)
#define KEYS    64u
#define PAD     8u /* values: rows then begin in different banks */

/* The state of a lane: rows g and g + 8 of its warp's 16. */
template <int D> struct tile {
    uint32_t q[D / 16][4];
    float out[D / 8][4];
    float max[2], sum[2];
    uint32_t n_keys[2];
};

template <int D> struct tiles_shared {
    uint4 k[KEYS * (D + PAD) / 8], v[KEYS * (D + PAD) / 8];
    uint32_t most[WARPS];
};

/* Two neighbouring values of a head, zeros beyond it. */
__device__ __forceinline__ uint32_t load_pair(const uint16_t *head, uint32_t i,
                                              uint32_t d)
{
    uint32_t low = i < d ? head[i] : 0, high = i + 1 < d ? head[i + 1] : 0;

    return low | high << 16;
}

/* Keys (or values) [first, first + KEYS) into `to`, zeros from `end` on: a
 * probability of 0 times what lies there must be 0. */
template <int D>
__device__ __forceinline__ void
load_keys(uint4 *to, const uint16_t *from, const struct sl_attention &a,
          const uint32_t *pages, uint32_t first, uint32_t end)
{
    uint32_t d = a.kv.head_dim, head = blockIdx.y / a.group;

#pragma unroll 4
    for (uint32_t i = threadIdx.x; i < KEYS * D / 8; i += THREADS) {
        uint32_t key = i / (D / 8), c = i % (D / 8) * 8;
        uint4 *box = to + (key * (D + PAD) + c) / 8;
        bool there = first + key < end && c < d;
        size_t at = 0;
        struct sl_copy copy;

        if (there) {
            uint32_t k = first + key;

            at = pages[k / SL_CUDA_PAGE_LEN] * a.kv.page_stride +
                 ((size_t)head * SL_CUDA_PAGE_LEN + k % SL_CUDA_PAGE_LEN) * d +
                 c;
        }
        if (sl_heads_aligned(a.kv) || !there) {
            sl_copy_begin(&copy, box, from + at, there ? 16 : 0);
            sl_copy_end(&copy);
            continue;
        }
        for (uint32_t e = 0; e < 8; e += 2)
            ((uint32_t *)box)[e / 2] = load_pair(from + at, e, d - c);
    }
    sl_copy_commit();
}

template <int D>
__device__ __forceinline__ void load_rows(struct tile<D> *s,
                                          const struct sl_attention &a)
{
    uint32_t lane = threadIdx.x % SL_WARP, g = lane / 4, t = lane % 4;
    uint32_t row = blockIdx.x * ROWS + threadIdx.x / SL_WARP * 16 + g;
    uint32_t d = a.kv.head_dim;

#pragma unroll
    for (uint32_t h = 0; h < 2; h++) {
        bool there = row + 8 * h < a.n;
        size_t at = a.first + row + 8 * h;
        const uint16_t *q = a.q + at * a.q_stride + (size_t)blockIdx.y * d;

        s->max[h] = -INFINITY;
        s->sum[h] = 0;
        s->n_keys[h] = there ? a.n_keys[at] : 0;
#pragma unroll
        for (uint32_t i = 0; i < D / 16; i++) {
            uint32_t c = 16 * i + 2 * t;

            s->q[i][h] = there ? load_pair(q, c, d) : 0;
            s->q[i][h + 2] = there ? load_pair(q, c + 8, d) : 0;
        }
    }
#pragma unroll
    for (uint32_t i = 0; i < D / 8; i++)
#pragma unroll
        for (int k = 0; k < 4; k++)
            s->out[i][k] = 0;
}

/* score = q . k for the warp's rows and the tile's keys */
template <int D>
__device__ __forceinline__ void
score_keys(float score[KEYS / 8][4], const struct tile<D> &s, const uint4 *keys)
{
    uint32_t lane = threadIdx.x % SL_WARP, g = lane / 4, t = lane % 4;
    const uint32_t *words = (const uint32_t *)keys;

#pragma unroll
    for (uint32_t n = 0; n < KEYS / 8; n++) {
        const uint32_t *row = words + (n * 8 + g) * ((D + PAD) / 2);

#pragma unroll
        for (int k = 0; k < 4; k++)
            score[n][k] = 0;
#pragma unroll
        for (uint32_t i = 0; i < D / 16; i++) {
            const uint32_t b[2] = {row[8 * i + t], row[8 * i + 4 + t]};

            sl_mma(score[n], s.q[i], b);
        }
    }
}

/* Scores become probabilities to the new maximum; what was summed before is
 * brought to it too. */
template <int D>
__device__ __forceinline__ void
soften(struct tile<D> *s, float score[KEYS / 8][4], uint32_t first, float scale)
{
    uint32_t t = threadIdx.x % 4;

#pragma unroll
    for (int h = 0; h < 2; h++) {
        float max = s->max[h], by, base;

#pragma unroll
        for (uint32_t n = 0; n < KEYS / 8; n++) {
#pragma unroll
            for (int k = 0; k < 2; k++) {
                uint32_t key = first + n * 8 + 2 * t + k;
                float *v = &score[n][2 * h + k];

                *v = key < s->n_keys[h] ? *v * scale : -INFINITY;
                max = fmaxf(max, *v);
            }
        }
        max = fmaxf(max, __shfl_xor_sync(SL_ALL_LANES, max, 1));
        max = fmaxf(max, __shfl_xor_sync(SL_ALL_LANES, max, 2));
        base = max == -INFINITY ? 0.0f : max;
        by = exp2f(s->max[h] - base);
        s->max[h] = max;
        s->sum[h] *= by;
#pragma unroll
        for (uint32_t n = 0; n < KEYS / 8; n++) {
#pragma unroll
            for (int k = 0; k < 2; k++) {
                score[n][2 * h + k] = exp2f(score[n][2 * h + k] - base);
                s->sum[h] += score[n][2 * h + k];
            }
        }
#pragma unroll
        for (uint32_t n = 0; n < D / 8; n++) {
            s->out[n][2 * h] *= by;
            s->out[n][2 * h + 1] *= by;
        }
    }
}

/* out += p . v: a tile of scores is laid out as its product wants it. */
template <int D>
__device__ __forceinline__ void
add_values(struct tile<D> *s, const float p[KEYS / 8][4], const uint4 *values)
{
    uint32_t lane = threadIdx.x % SL_WARP;
    const uint16_t *v = (const uint16_t *)values;

#pragma unroll
    for (uint32_t i = 0; i < KEYS / 16; i++) {
        const uint16_t *row = v + (i * 16 + lane % 16) * (D + PAD);
        const uint32_t a[4] = {
            sl_to_halves(p[2 * i][0], p[2 * i][1]),
            sl_to_halves(p[2 * i][2], p[2 * i][3]),
            sl_to_halves(p[2 * i + 1][0], p[2 * i + 1][1]),
            sl_to_halves(p[2 * i + 1][2], p[2 * i + 1][3]),
        };

#pragma unroll
        for (uint32_t n = 0; n < D / 8; n++) {
            uint32_t b[2];

            sl_load_transposed(b, row + n * 8);
            sl_mma(s->out[n], a, b);
        }
    }
}

template <int D>
__device__ __forceinline__ void store_rows(struct tile<D> *s,
                                           const struct sl_attention &a)
{
    uint32_t lane = threadIdx.x % SL_WARP, g = lane / 4, t = lane % 4;
    uint32_t row = blockIdx.x * ROWS + threadIdx.x / SL_WARP * 16 + g;
    uint32_t d = a.kv.head_dim;

#pragma unroll
    for (uint32_t h = 0; h < 2; h++) {
        size_t at = a.first + row + 8 * h;
        uint16_t *out = a.out + at * a.out_stride + (size_t)blockIdx.y * d;
        float sum = s->sum[h];

        sum += __shfl_xor_sync(SL_ALL_LANES, sum, 1);
        sum += __shfl_xor_sync(SL_ALL_LANES, sum, 2);
        sum = 1.0f / sum; /* once: nvcc makes a long way of a division */
        if (row + 8 * h >= a.n)
            continue;
#pragma unroll
        for (uint32_t n = 0; n < D / 8; n++) {
#pragma unroll
            for (uint32_t k = 0; k < 2; k++)
                if (n * 8 + 2 * t + k < d)
                    out[n * 8 + 2 * t + k] =
                        sl_to_half(s->out[n][2 * h + k] * sum);
        }
    }
}

/* The most keys that a row of the thread block sees. */
__device__ __forceinline__ uint32_t most_keys(uint32_t *box,
                                              const struct sl_attention &a)
{
    uint32_t row = blockIdx.x * ROWS + threadIdx.x % ROWS, most = 0;

    if (row < a.n)
        most = a.n_keys[a.first + row];
    for (int i = 16; i > 0; i /= 2)
        most = max(most, __shfl_xor_sync(SL_ALL_LANES, most, i));
    if (threadIdx.x % SL_WARP == 0)
        box[threadIdx.x / SL_WARP] = most;
    __syncthreads();
    for (uint32_t w = 0; w < WARPS; w++)
        most = max(most, box[w]);
    return most;
}

template <int D>
__global__ void __launch_bounds__(THREADS) attend_tiles(struct sl_attention a)
{
    SL_SHARED(struct tiles_shared<D>, shared, [1]);
    struct tiles_shared<D> *sh = shared;
    const uint32_t *pages = a.pages + a.table[a.first];
    uint32_t end = most_keys(sh->most, a);
    struct tile<D> s;

    load_keys<D>(sh->k, a.kv.k, a, pages, 0, end);
    load_rows(&s, a);
    for (uint32_t first = 0; first < end; first += KEYS) {
        float score[KEYS / 8][4];

        sl_copy_wait<0>();
        __syncthreads(); /* the keys are there, the values used */
        load_keys<D>(sh->v, a.kv.v, a, pages, first, end);
        score_keys(score, s, sh->k);
        __syncthreads(); /* the keys are used */
        if (first + KEYS < end)
            load_keys<D>(sh->k, a.kv.k, a, pages, first + KEYS, end);
        else
            sl_copy_commit();
        soften(&s, score, first, a.scale);
        sl_copy_wait<1>();
        __syncthreads(); /* the values are there */
        add_values(&s, score, sh->v);
    }
    store_rows(&s, a);
}

int sl_attend_tiles_launch(const struct sl_cuda *c,
                           const struct sl_attention *a, struct sl_error *err)
{
    dim3 grid((a->n + ROWS - 1) / ROWS, a->n_heads);
    uint32_t d = a->kv.head_dim;

    if (d <= 32)
        return sl_launch(c, "attention", attend_tiles<32>, grid, THREADS, a,
                         err);
    if (d <= 64)
        return sl_launch(c, "attention", attend_tiles<64>, grid, THREADS, a,
                         err);
    return sl_launch(c, "attention", attend_tiles<128>, grid, THREADS, a, err);
}
