/*
 * attend_latent.cu - attention to latents, which are keys and values at once
 *
 * All heads share one key, so they are the rows of a product by mma.sync: a
 * thread block takes 16 queries and passes over the keys in tiles of 32, with
 * an online softmax in FP32 (Dao, FlashAttention-2, arXiv 2307.08691, algorithm
 * 1). A latent is read once, into shared memory, and serves as key, then, but
 * for what is rotated, as value. The queries are heads of one row that is split
 * over keys, or of rows of one sequence that follow one another.
 *
 * Of a tile each of 8 warps makes the scores of half of its keys over a quarter
 * of their values, whose queries it keeps in registers; the quarters are added
 * in their order by the 16 lanes that have a query's softmax. Of the output a
 * warp has every eighth 8 columns:
 *
 *   keys     load |                                | load
 *   scores        | q . k |
 *   softmax               | add, exp |
 *   output                           | scale, p . v |
 *
 * One tile of 512 + 64 values and the scores fill the 48 KiB that every device
 * has: what hides a load is another thread block.
 */
#include "config.h"

#include "kernels/cuda/attend_keys.cuh"

#define WARPS   8u
#define THREADS (WARPS * SL_WARP)
#define QUERIES 16u
#define KEYS    32u
#define PARTS   4u /* of a key's values: a warp's */
#define STEPS   (SL_CUDA_MAX_JOINED / 16 / PARTS)
#define TILES   (SL_CUDA_MAX_LATENT / 8 / WARPS) /* a warp's of the output */
#define PAD     8u /* values: rows then begin in different banks */
#define KEY     (SL_CUDA_MAX_JOINED + PAD)
#define LANES   (THREADS / QUERIES) /* of a query's softmax */

struct latent_shared {
    uint4 keys[KEYS * KEY / 8];
    float score[PARTS][QUERIES][KEYS + PAD];
    uint32_t p[QUERIES][(KEYS + PAD) / 2]; /* pairs of f16 */
    float by[QUERIES];
};

static_assert(sizeof(struct latent_shared) <= 48 << 10, "as every device has");
static_assert(SL_CUDA_MAX_JOINED % (16 * PARTS) == 0, "whole steps");

/* What a thread keeps. */
struct state {
    uint32_t q[STEPS][4]; /* rows g, g + 8 of the warp's part */
    float out[TILES][4];
    float max, sum; /* of query threadIdx.x / LANES: all of it, own keys */
};

/* The thread block's queries: of one row all heads from `first` on, or, by
 * tiles, those from `first` on of all rows and heads. */
struct queries {
    uint32_t row, first, n;
    bool tiles;
};

/* Query i's row and head. */
__device__ __forceinline__ uint32_t row_of(const struct queries &q, uint32_t i,
                                           const struct sl_attention &a)
{
    return q.tiles ? a.first + (q.first + i) / a.n_heads : q.row;
}

__device__ __forceinline__ uint32_t head_of(const struct queries &q, uint32_t i,
                                            const struct sl_attention &a)
{
    return q.tiles ? (q.first + i) % a.n_heads : q.first + i;
}

__device__ __forceinline__ void load_queries(struct state *s,
                                             const struct queries &q,
                                             const struct sl_attention &a)
{
    uint32_t lane = threadIdx.x % SL_WARP, g = lane / 4, t = lane % 4;
    uint32_t part = threadIdx.x / SL_WARP % PARTS, d = a.kv.head_dim;

#pragma unroll
    for (uint32_t h = 0; h < 2; h++) {
        uint32_t i = g + 8 * h;
        bool there = i < q.n;
        const uint16_t *from = a.q;

        if (there)
            from += row_of(q, i, a) * a.q_stride + (size_t)head_of(q, i, a) * d;
#pragma unroll
        for (uint32_t k = 0; k < STEPS; k++) {
            uint32_t c = (k * PARTS + part) * 16 + 2 * t;

            s->q[k][h] = there && c < d ? *(const uint32_t *)(from + c) : 0;
            s->q[k][h + 2] =
                there && c + 8 < d ? *(const uint32_t *)(from + c + 8) : 0;
        }
    }
}

/* Eight values of a key; zeros beyond them. */
__device__ __forceinline__ void load_eight(uint4 *to, const uint16_t *key,
                                           uint32_t c, uint32_t d, bool aligned)
{
    struct sl_copy copy;

    if (aligned || c >= d) {
        sl_copy_begin(&copy, to, c < d ? key + c : key, c < d ? 16 : 0);
        sl_copy_end(&copy);
        return;
    }
    for (uint32_t e = 0; e < 8; e += 2)
        ((uint32_t *)to)[e / 2] =
            c + e < d ? *(const uint32_t *)(key + c + e) : 0;
}

/* Keys [first, first + KEYS), a warp's every eighth; zeros from `end` on, as a
 * probability of 0 times what lies there must be 0. */
__device__ __forceinline__ void load_keys(uint4 *to,
                                          const struct sl_attention &a,
                                          const struct sl_row_keys &keys,
                                          uint32_t first, uint32_t end)
{
    uint32_t warp = threadIdx.x / SL_WARP, lane = threadIdx.x % SL_WARP;
    uint32_t d = a.kv.head_dim, chunks = (d + 15) / 16 * 2;
    bool aligned = sl_heads_aligned(a.kv);

#pragma unroll
    for (uint32_t k = warp; k < KEYS; k += WARPS) {
        bool there = first + k < end;
        const uint16_t *key = a.kv.k;

        if (there)
            key += sl_key_at(a, keys, 0, first + k);
        for (uint32_t i = lane; i < chunks; i += SL_WARP)
            load_eight(to + k * (KEY / 8) + i, key, i * 8, there ? d : 0,
                       aligned);
    }
    sl_copy_commit();
}

/* The warp's part of the scores of its half of the keys. */
__device__ __forceinline__ void score_keys(struct latent_shared *sh,
                                           const struct state &s, uint32_t d)
{
    uint32_t lane = threadIdx.x % SL_WARP, g = lane / 4, t = lane % 4;
    uint32_t warp = threadIdx.x / SL_WARP, part = warp % PARTS;
    uint32_t first = warp / PARTS * 16, steps = (d + 15) / 16;
    const uint32_t *row = (const uint32_t *)sh->keys + (first + g) * (KEY / 2);
    float score[2][4] = {};

#pragma unroll
    for (uint32_t k = 0; k < STEPS; k++) {
        uint32_t step = k * PARTS + part;

        if (step >= steps)
            break;
#pragma unroll
        for (uint32_t n = 0; n < 2; n++) {
            const uint32_t *key = row + n * 8 * (KEY / 2) + step * 8 + t;
            const uint32_t b[2] = {key[0], key[4]};

            sl_mma(score[n], s.q[k], b);
        }
    }
#pragma unroll
    for (uint32_t n = 0; n < 2; n++) {
#pragma unroll
        for (uint32_t k = 0; k < 4; k++)
            sh->score[part][g + k / 2 * 8][first + n * 8 + 2 * t + k % 2] =
                score[n][k];
    }
}

/* Scores become probabilities to the new maximum; by: what is to be done with
 * what was summed before. n_keys: of the tile's, as many are the query's. */
__device__ __forceinline__ void
soften(struct latent_shared *sh, struct state *s, uint32_t n_keys, float scale)
{
    uint32_t i = threadIdx.x / LANES, lane = threadIdx.x % LANES;
    float v[KEYS / LANES], max = s->max, base, by;

#pragma unroll
    for (uint32_t k = 0; k < KEYS / LANES; k++) {
        uint32_t key = lane + k * LANES;

        v[k] = 0;
#pragma unroll
        for (uint32_t part = 0; part < PARTS; part++)
            v[k] += sh->score[part][i][key];
        v[k] = key < n_keys ? v[k] * scale : -INFINITY;
        max = fmaxf(max, v[k]);
    }
#pragma unroll
    for (int e = LANES / 2; e > 0; e /= 2)
        max = fmaxf(max, __shfl_xor_sync(SL_ALL_LANES, max, e));
    base = sl_base_of(max);
    by = exp2f(s->max - base);
    s->max = max;
    s->sum *= by;
#pragma unroll
    for (uint32_t k = 0; k < KEYS / LANES; k++) {
        float p = exp2f(v[k] - base);

        s->sum += p;
        ((uint16_t *)sh->p[i])[lane + k * LANES] = sl_to_half(p);
    }
    if (lane == 0)
        sh->by[i] = by;
}

/* out = by * out + p . v */
__device__ __forceinline__ void
add_values(struct state *s, const struct latent_shared *sh, uint32_t values)
{
    uint32_t lane = threadIdx.x % SL_WARP, g = lane / 4, t = lane % 4;
    uint32_t warp = threadIdx.x / SL_WARP;
    const uint16_t *v = (const uint16_t *)sh->keys;
    float by[2] = {sh->by[g], sh->by[g + 8]};
    uint32_t p[KEYS / 16][4];

#pragma unroll
    for (uint32_t k = 0; k < KEYS / 16; k++) {
#pragma unroll
        for (uint32_t e = 0; e < 4; e++)
            p[k][e] = sh->p[g + e % 2 * 8][k * 8 + e / 2 * 4 + t];
    }
#pragma unroll
    for (uint32_t n = 0; n < TILES; n++) {
        uint32_t c = (n * WARPS + warp) * 8;

        if (c >= values)
            break;
#pragma unroll
        for (uint32_t e = 0; e < 4; e++)
            s->out[n][e] *= by[e / 2];
#pragma unroll
        for (uint32_t k = 0; k < KEYS / 16; k++) {
            uint32_t b[2];

            sl_load_transposed(b, v + (k * 16 + lane % 16) * KEY + c);
            sl_mma(s->out[n], p[k], b);
        }
    }
}

/* Rows of the output, or of their split. */
__device__ __forceinline__ void store(struct latent_shared *sh,
                                      const struct state &s,
                                      const struct queries &q,
                                      const struct sl_attention &a)
{
    uint32_t lane = threadIdx.x % SL_WARP, g = lane / 4, t = lane % 4;
    uint32_t i = threadIdx.x / LANES;
    float sum = s.sum;
    bool whole = q.tiles || a.n_splits == 1;

#pragma unroll
    for (int e = LANES / 2; e > 0; e /= 2)
        sum += __shfl_xor_sync(SL_ALL_LANES, sum, e);
    __syncthreads(); /* by is used */
    if (threadIdx.x % LANES == 0) {
        sh->by[i] = sum;
        if (!whole && i < q.n) {
            float *part =
                a.part + (((size_t)blockIdx.z * a.n_heads + head_of(q, i, a)) *
                              a.n_splits +
                          blockIdx.x) *
                             (a.values + 2);

            part[a.values] = s.max;
            part[a.values + 1] = sum;
        }
    }
    __syncthreads();
#pragma unroll
    for (uint32_t h = 0; h < 2; h++) {
        float by;
        size_t row, head;

        i = g + 8 * h;
        if (i >= q.n)
            continue;
        by = 1.0f / sh->by[i];
        row = row_of(q, i, a);
        head = head_of(q, i, a);
#pragma unroll
        for (uint32_t n = 0; n < TILES; n++) {
            uint32_t c = (n * WARPS + threadIdx.x / SL_WARP) * 8 + 2 * t;
            float x = s.out[n][2 * h], y = s.out[n][2 * h + 1];

            if (c >= a.values)
                break;
            if (whole) {
                *(uint32_t *)(a.out + row * a.out_stride + head * a.values +
                              c) = sl_to_halves(x * by, y * by);
            } else {
                float *part =
                    a.part +
                    (((size_t)blockIdx.z * a.n_heads + head) * a.n_splits +
                     blockIdx.x) *
                        (a.values + 2);

                part[c] = x;
                part[c + 1] = y;
            }
        }
    }
}

/* blockIdx: split, 16 heads, row; by tiles: 16 of all rows and heads. */
template <bool BY_TILES>
__global__ void __launch_bounds__(THREADS) attend_latent(struct sl_attention a)
{
    SL_SHARED(struct latent_shared, sh, [1]);
    SL_SHARED(uint16_t, path, [64]);
    uint32_t i = threadIdx.x / LANES, first = 0, end = 0, own, all;
    struct queries q = {a.first + blockIdx.z, blockIdx.y * QUERIES, 0,
                        BY_TILES};
    struct sl_row_keys keys = {NULL, UINT32_MAX, path};
    struct state s;

    if (BY_TILES)
        q.first = blockIdx.x * QUERIES;
    all = BY_TILES ? a.n * a.n_heads : a.n_heads;
    q.n = min(QUERIES, all - q.first);
    if (BY_TILES) {
        for (uint32_t k = 0; k < q.n; k++)
            end = max(end, a.n_keys[row_of(q, k, a)]);
    } else {
        first = blockIdx.x * SL_SPLIT_KEYS;
        end = min(first + SL_SPLIT_KEYS, a.n_keys[q.row]);
        if (first >= end)
            return;
        if (a.fork != NULL) {
            keys.fork = a.fork[q.row];
            sl_spread_path(path, a.path[q.row]);
        }
    }
    own = i >= q.n ? 0 : BY_TILES ? a.n_keys[row_of(q, i, a)] : end;
    keys.pages = a.pages + a.table[row_of(q, 0, a)];
    load_queries(&s, q, a);
    s.max = -INFINITY;
    s.sum = 0;
#pragma unroll
    for (uint32_t n = 0; n < TILES; n++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            s.out[n][e] = 0;
    for (; first < end; first += KEYS) {
        __syncthreads(); /* the values are used */
        load_keys(sh->keys, a, keys, first, end);
        sl_copy_wait<0>();
        __syncthreads();
        score_keys(sh, s, a.kv.head_dim);
        __syncthreads();
        soften(sh, &s, own > first ? own - first : 0, a.scale);
        __syncthreads();
        add_values(&s, sh, a.values);
    }
    store(sh, s, q, a);
}

int sl_attend_latent_rows_launch(const struct sl_cuda *c,
                                 const struct sl_attention *a,
                                 struct sl_error *err)
{
    dim3 grid(a->n_splits, (a->n_heads + QUERIES - 1) / QUERIES, a->n);

    if (sl_launch(c, "attention to latents", attend_latent<false>, grid,
                  THREADS, a, err) != 0)
        return -1;
    return a->n_splits > 1 ? sl_attend_merge_launch(c, a, err) : 0;
}

int sl_attend_latent_tiles_launch(const struct sl_cuda *c,
                                  const struct sl_attention *a,
                                  struct sl_error *err)
{
    uint64_t all = (uint64_t)a->n * a->n_heads;

    return sl_launch(c, "attention to latents", attend_latent<true>,
                     dim3((unsigned)((all + QUERIES - 1) / QUERIES)), THREADS,
                     a, err);
}
