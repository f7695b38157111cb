/*
 * vec_attn.h - attention over any vec_<isa>.h
 *
 * A score is summed W lanes at a time along d, an output along the keys in
 * their order: both the same whatever else is computed beside them. Queries
 * are taken ATTN_QUERIES at a time, a tile, only to use a key or value more
 * than once; keys that not all of them see are added for each alone. A run of
 * tiles, as many as there is room for scores, passes over a block of keys
 * before any goes on to the next: the first reads it from memory and asks for
 * the pages ahead, the others find it in the cache. Between blocks an output
 * waits where it will lie in the end, as the sum that it is so far.
 */
#ifndef SL_KERNELS_VEC_ATTN_H
#define SL_KERNELS_VEC_ATTN_H

#include <math.h>

#include "kernels/vec_misc.h"

#define KEYS   4 /* scored together: vf_sum4 */
#define PIECES 8 /* vectors of an output kept in registers for one query, */
#define SHARED 4 /* for each of several */
#define PAGES_AHEAD                                                            \
    2 /* pages: far enough for DRAM, near enough for the L1 cache */
#define LINE 64
/* Of keys, or of values, that pass by at once: half of a small L2 cache. */
#define BLOCK_BYTES (128u << 10)
#define RUN_TILES   16 /* as many share them at most */

/* Rows of keys or values: those of a page, or those that are in no page. */
struct attn_rows {
    const uint8_t *at;
    size_t stride;         /* bytes from row to row */
    const uint8_t *scales; /* of INT8 */
};

INLINE size_t attn_row_bytes(const struct sl_attend_args *a, const int kind)
{
    return a->d * (kind == SL_KV_F32 ? 4 : kind == SL_KV_F16 ? 2 : 1);
}

INLINE struct attn_rows attn_page(const struct sl_attend_args *a,
                                  const void *page, const int kind)
{
    struct attn_rows rows = {.at = page, .stride = attn_row_bytes(a, kind)};

    if (kind == SL_KV_INT8)
        rows.scales = rows.at + (size_t)a->page_len * a->d;
    return rows;
}

/* Asks for the page PAGES_AHEAD of the one with position `from`. Pages are
 * short and lie far apart, so that the CPU does not find them by itself. */
INLINE void attn_fetch(const struct sl_attend_args *a, const void *const *pages,
                       uint32_t from, const int kind)
{
    uint32_t page = from / a->page_len + PAGES_AHEAD;
    const uint8_t *at;

    if (page * a->page_len >= a->n_paged)
        return;
    at = pages[page];
    for (size_t i = 0; i < a->page_len * attn_row_bytes(a, kind); i += LINE)
        __builtin_prefetch(at + i);
}

INLINE struct attn_rows attn_new(const struct sl_attend_args *a,
                                 const float *from)
{
    return (struct attn_rows){
        .at = (const uint8_t *)from,
        .stride = a->new_stride * sizeof *from,
    };
}

/* A key or value. */
struct attn_row {
    const uint8_t *at;
    vf scale, offset; /* of INT8 */
};

INLINE struct attn_row attn_row(const struct attn_rows *rows, uint32_t i,
                                const int kind)
{
    struct attn_row row = {.at = rows->at + i * rows->stride};
    struct sl_kv_scale s; /* may lie anywhere */

    if (kind != SL_KV_INT8)
        return row;
    memcpy(&s, rows->scales + i * sizeof s, sizeof s);
    row.scale = vf_set(s.scale);
    row.offset = vf_set(s.offset);
    return row;
}

INLINE vf attn_load(const struct attn_row *row, uint32_t i, const int kind)
{
    if (kind == SL_KV_F32)
        return vf_load((const float *)row->at + i);
    if (kind == SL_KV_F16)
        return vf_load_half((const uint16_t *)row->at + i);
    return vf_fma(vf_load_i8((const int8_t *)row->at + i), row->scale,
                  row->offset);
}

/* What lies beyond n is of no account. */
INLINE vf attn_load_n(const struct attn_row *row, uint32_t i, uint32_t n,
                      const int kind)
{
    if (kind == SL_KV_F32)
        return vf_load_n((const float *)row->at + i, n);
    if (kind == SL_KV_F16)
        return vf_load_half_n((const uint16_t *)row->at + i, n);
    return vf_fma(vf_load_i8_n((const int8_t *)row->at + i, n), row->scale,
                  row->offset);
}

/* Queries that are taken together. */
struct attn_tile {
    const struct sl_attend_args *a;
    const float *q[ATTN_QUERIES];
    float *out[ATTN_QUERIES];
    float *scores; /* (n, score_stride) */
    size_t score_stride;
    uint32_t n_keys[ATTN_QUERIES];
    uint32_t least, most; /* of n_keys */
    int n;
    bool fetch; /* the keys and values are read for the first time */
    float sum[ATTN_QUERIES];
};

INLINE uint32_t attn_clamp(uint32_t n, uint32_t least, uint32_t most)
{
    n = n < most ? n : most;
    return n > least ? n : least;
}

/* Scores of n_q queries and n keys, the in-th of the rows and on. */
INLINE void attn_score(const struct attn_tile *t, const float *const *q,
                       float *scores, const struct attn_rows *rows, uint32_t in,
                       const int n_q, const int n, const int kind)
{
    const struct sl_attend_args *a = t->a;
    uint32_t full = a->d - a->d % W, rest = a->d % W;
    vf dot[ATTN_QUERIES][KEYS], v[KEYS];
    struct attn_row k[KEYS];

#pragma GCC unroll 4
    for (int j = 0; j < n; j++)
        k[j] = attn_row(rows, in + (uint32_t)j, kind);
#pragma GCC unroll 4
    for (int i = 0; i < n_q; i++)
#pragma GCC unroll 4
        for (int j = 0; j < KEYS; j++)
            dot[i][j] = vf_set(0);
    for (uint32_t c = 0; c < full; c += W) {
#pragma GCC unroll 4
        for (int j = 0; j < n; j++)
            v[j] = attn_load(&k[j], c, kind);
#pragma GCC unroll 4
        for (int i = 0; i < n_q; i++) {
            vf x = vf_load(q[i] + c);

#pragma GCC unroll 4
            for (int j = 0; j < n; j++)
                dot[i][j] = vf_fma(x, v[j], dot[i][j]);
        }
    }
    if (rest != 0) {
#pragma GCC unroll 4
        for (int j = 0; j < n; j++)
            v[j] = attn_load_n(&k[j], full, rest, kind);
#pragma GCC unroll 4
        for (int i = 0; i < n_q; i++) {
            vf x = vf_load_n(q[i] + full, rest);

#pragma GCC unroll 4
            for (int j = 0; j < n; j++)
                dot[i][j] = vf_fma(x, v[j], dot[i][j]);
        }
    }
#pragma GCC unroll 4
    for (int i = 0; i < n_q; i++) {
        float *to = scores + (size_t)i * t->score_stride, four[KEYS];

        vf_sum4(four, dot[i][0], dot[i][1], dot[i][2], dot[i][3]);
#pragma GCC unroll 4
        for (int j = 0; j < n; j++)
            to[j] = four[j] * a->scale;
    }
}

/* Scores of n_q queries and rows [in, in + n). */
INLINE void attn_score_rows(const struct attn_tile *t, const float *const *q,
                            float *scores, const struct attn_rows *rows,
                            uint32_t in, uint32_t n, const int n_q,
                            const int kind)
{
    uint32_t j = 0;

    for (; n - j >= KEYS; j += KEYS)
        attn_score(t, q, scores + j, rows, in + j, n_q, KEYS, kind);
    for (; j < n; j++)
        attn_score(t, q, scores + j, rows, in + j, n_q, 1, kind);
}

/* Scores of queries [first, first + n_q) of the tile and keys [from, to). */
INLINE void attn_scores(const struct attn_tile *t, int first, const int n_q,
                        uint32_t from, uint32_t to, const int kind)
{
    const struct sl_attend_args *a = t->a;
    const float *const *q = t->q + first;
    float *scores = t->scores + (size_t)first * t->score_stride;
    uint32_t paged = to < a->n_paged ? to : a->n_paged, n;
    struct attn_rows rows;

    for (; from < paged; from += n) {
        uint32_t in = from % a->page_len;

        n = a->page_len - in < paged - from ? a->page_len - in : paged - from;
        rows = attn_page(a, a->k_pages[from / a->page_len], kind);
        if (t->fetch)
            attn_fetch(a, a->k_pages, from, kind);
        attn_score_rows(t, q, scores + from, &rows, in, n, n_q, kind);
    }
    if (from == to)
        return;
    rows = attn_new(a, a->k_new);
    attn_score_rows(t, q, scores + from, &rows, from - a->n_paged, to - from,
                    n_q, SL_KV_F32);
}

/* scores <- exp(scores - largest); returns their sum. */
INLINE float attn_softmax(float *scores, uint32_t n)
{
    vf largest = vf_set(-INFINITY), sum = vf_set(0), v;
    uint32_t i = 0, rest = n % W;
    float max;

    for (; i + W <= n; i += W)
        largest = vf_max(vf_load(scores + i), largest);
    max = vf_largest(largest);
    for (; i < n; i++)
        max = scores[i] > max ? scores[i] : max;
    largest = vf_set(max);
    for (i = 0; i + W <= n; i += W) {
        v = vec_exp(vf_sub(vf_load(scores + i), largest));
        vf_store(scores + i, v);
        sum = vf_add(sum, v);
    }
    if (rest != 0) {
        v = vec_exp(vf_sub(vf_load_n(scores + i, rest), largest));
        vf_store_n(scores + i, v, rest);
        sum = vf_add(sum, vf_load_n(scores + i, rest));
    }
    return vf_sum(sum);
}

/* acc += the values of rows [in, in + n_rows), columns from c on: n vectors,
 * or the first rest < W of one. scores: of the first query and row in. */
INLINE void attn_add_rows(vf acc[][PIECES], const struct attn_tile *t,
                          const float *scores, const struct attn_rows *rows,
                          uint32_t in, uint32_t n_rows, const int n_q,
                          uint32_t c, const int n, uint32_t rest,
                          const int kind)
{
    for (uint32_t j = 0; j < n_rows; j++) {
        struct attn_row row = attn_row(rows, in + j, kind);
        vf v[PIECES];

#pragma GCC unroll 8
        for (int i = 0; i < n; i++)
            v[i] = rest != 0 ? attn_load_n(&row, c, rest, kind)
                             : attn_load(&row, c + (uint32_t)i * W, kind);
#pragma GCC unroll 4
        for (int q = 0; q < n_q; q++) {
            vf p = vf_set(scores[(size_t)q * t->score_stride + j]);

#pragma GCC unroll 8
            for (int i = 0; i < n; i++)
                acc[q][i] = vf_fma(p, v[i], acc[q][i]);
        }
    }
}

/* The same for keys [from, to). */
INLINE void attn_add(vf acc[][PIECES], const struct attn_tile *t, int first,
                     const int n_q, uint32_t from, uint32_t to, uint32_t c,
                     const int n, uint32_t rest, const int kind)
{
    const struct sl_attend_args *a = t->a;
    const float *scores = t->scores + (size_t)first * t->score_stride;
    uint32_t paged = to < a->n_paged ? to : a->n_paged, run;
    struct attn_rows rows;

    for (; from < paged; from += run) {
        uint32_t in = from % a->page_len;

        run = a->page_len - in < paged - from ? a->page_len - in : paged - from;
        rows = attn_page(a, a->v_pages[from / a->page_len], kind);
        if (t->fetch && c == 0)
            attn_fetch(a, a->v_pages, from, kind);
        attn_add_rows(acc, t, scores + from, &rows, in, run, n_q, c, n, rest,
                      kind);
    }
    if (from == to)
        return;
    rows = attn_new(a, a->v_new);
    attn_add_rows(acc, t, scores + from, &rows, from - a->n_paged, to - from,
                  n_q, c, n, rest, SL_KV_F32);
}

/* What keys [from, to) add to columns [c, c + n * W) of the outputs, or to
 * [c, c + rest). The first block begins the sums, the last ends them. */
INLINE void attn_output(const struct attn_tile *t, uint32_t from, uint32_t to,
                        uint32_t c, const int n_q, const int n, uint32_t rest,
                        const int kind)
{
    uint32_t shared = attn_clamp(t->least, from, to);
    vf acc[ATTN_QUERIES][PIECES];

#pragma GCC unroll 4
    for (int q = 0; q < n_q; q++)
#pragma GCC unroll 8
        for (int i = 0; i < n; i++)
            acc[q][i] = from == 0   ? vf_set(0)
                        : rest != 0 ? vf_load_n(t->out[q] + c, rest)
                                    : vf_load(t->out[q] + c + i * W);
    attn_add(acc, t, 0, n_q, from, shared, c, n, rest, kind);
#pragma GCC unroll 4
    for (int q = 0; q < n_q; q++) {
        float *out = t->out[q] + c;
        vf sum = vf_set(to >= t->most ? t->sum[q] : 1);

        if (t->n_keys[q] > shared)
            attn_add(acc + q, t, q, 1, shared,
                     attn_clamp(t->n_keys[q], shared, to), c, n, rest, kind);
        if (rest != 0) {
            vf_store_n(out, vf_div(acc[q][0], sum), rest);
            continue;
        }
#pragma GCC unroll 8
        for (int i = 0; i < n; i++)
            vf_store(out + i * W, vf_div(acc[q][i], sum));
    }
}

/* Scores of keys [from, to) for all queries of a tile. */
INLINE void tile_scores(const struct attn_tile *t, uint32_t from, uint32_t to,
                        const int n_q, const int kind)
{
    uint32_t shared = attn_clamp(t->least, from, to);

    attn_scores(t, 0, n_q, from, shared, kind);
    for (int q = 0; n_q > 1 && q < n_q; q++)
        if (t->n_keys[q] > shared)
            attn_scores(t, q, 1, shared, attn_clamp(t->n_keys[q], shared, to),
                        kind);
}

/* The same for their outputs. */
INLINE void tile_values(const struct attn_tile *t, uint32_t from, uint32_t to,
                        const int n_q, const int kind)
{
    uint32_t d = t->a->d, c = 0;

    for (; n_q == 1 && c + PIECES * W <= d; c += PIECES * W)
        attn_output(t, from, to, c, n_q, PIECES, 0, kind);
    for (; c + SHARED * W <= d; c += SHARED * W)
        attn_output(t, from, to, c, n_q, SHARED, 0, kind);
    for (; c + W <= d; c += W)
        attn_output(t, from, to, c, n_q, 1, 0, kind);
    if (c < d)
        attn_output(t, from, to, c, n_q, 1, d - c, kind);
}

INLINE void tile_init(struct attn_tile *t, const struct sl_attend_args *a,
                      size_t row, int n)
{
    uint32_t group = a->group > 0 ? a->group : 1;

    t->a = a;
    t->n = n;
    t->least = UINT32_MAX;
    t->most = 0;
    for (int i = 0; i < n; i++) {
        size_t p = (row + (size_t)i) / group, head = (row + (size_t)i) % group;

        t->q[i] = a->q + p * a->q_stride + head * a->q_head;
        t->out[i] = a->out + p * a->out_stride + head * a->out_head;
        t->n_keys[i] = a->n_keys[p];
        t->least = t->n_keys[i] < t->least ? t->n_keys[i] : t->least;
        t->most = t->n_keys[i] > t->most ? t->n_keys[i] : t->most;
    }
}

/* A function for each kind and number of queries, so that the compiler finds
 * registers for each alone. */
typedef void attn_tile_fn(const struct attn_tile *t, uint32_t from,
                          uint32_t to);

#define TILE(kind, name, n_q)                                                  \
    static void ISA(scores_##name##_##kind)(const struct attn_tile *t,         \
                                            uint32_t from, uint32_t to)        \
    {                                                                          \
        tile_scores(t, from, to, n_q, SL_KV_##kind);                           \
    }                                                                          \
    static void ISA(values_##name##_##kind)(const struct attn_tile *t,         \
                                            uint32_t from, uint32_t to)        \
    {                                                                          \
        tile_values(t, from, to, n_q, SL_KV_##kind);                           \
    }
#define TILES(kind)                                                            \
    TILE(kind, one, 1)                                                         \
    TILE(kind, half, ATTN_QUERIES / 2)                                         \
    TILE(kind, whole, ATTN_QUERIES)

TILES(F32)
TILES(F16)
TILES(INT8)

#define SIZES(what, kind)                                                      \
    [SL_KV_##kind] = {ISA(what##_one_##kind), ISA(what##_half_##kind),         \
                      ISA(what##_whole_##kind)}

/* By kind and size: a query, half a tile, a whole one. */
typedef attn_tile_fn *const attn_tile_fns[3];

static attn_tile_fns ISA(attn_scores)[] = {
    SIZES(scores, F32),
    SIZES(scores, F16),
    SIZES(scores, INT8),
};
static attn_tile_fns ISA(attn_values)[] = {
    SIZES(values, F32),
    SIZES(values, F16),
    SIZES(values, INT8),
};

#undef TILE
#undef TILES
#undef SIZES

/* Tiles of a run. */
struct attn_run {
    struct attn_tile tiles[RUN_TILES + 1]; /* the last ones may be small */
    size_t n;
    uint32_t most;  /* keys that any sees, */
    uint32_t block; /* that pass by at once */
};

/* All tiles over one block after the other. */
INLINE void run_blocks(const struct attn_run *r, attn_tile_fns fns)
{
    for (uint32_t from = 0; from < r->most; from += r->block) {
        uint32_t to = attn_clamp(from + r->block, from, r->most);

        for (size_t i = 0; i < r->n; i++) {
            const struct attn_tile *t = &r->tiles[i];

            if (from < t->most)
                fns[t->n == 1 ? 0 : t->n == ATTN_QUERIES ? 2 : 1](t, from, to);
        }
    }
}

/* Queries [row, row + n), counted position after position. alone: there are no
 * others in the call. */
static void attend_run(const struct sl_attend_args *a, size_t row, size_t n,
                       size_t score_stride, bool alone)
{
    struct attn_run r;

    r.n = 0;
    r.most = 0;
    for (size_t i = 0; i < n; i += (size_t)r.tiles[r.n++].n) {
        struct attn_tile *t = &r.tiles[r.n];
        size_t left = n - i;

        tile_init(t, a, row + i,
                  left >= ATTN_QUERIES       ? ATTN_QUERIES
                  : left >= ATTN_QUERIES / 2 ? ATTN_QUERIES / 2
                                             : 1);
        t->scores = a->scores + i * score_stride;
        t->score_stride = score_stride;
        t->fetch = alone && i == 0;
        r.most = t->most > r.most ? t->most : r.most;
    }
    r.block = BLOCK_BYTES / sizeof(float) / a->d / KEYS * KEYS;
    if (r.n == 1 || r.block == 0)
        r.block = r.most;
    run_blocks(&r, ISA(attn_scores)[a->kv_kind]);
    for (size_t i = 0; i < r.n; i++)
        for (int q = 0; q < r.tiles[i].n; q++)
            r.tiles[i].sum[q] =
                attn_softmax(r.tiles[i].scores + (size_t)q * score_stride,
                             r.tiles[i].n_keys[q]);
    run_blocks(&r, ISA(attn_values)[a->kv_kind]);
}

static void ISA(attend)(const struct sl_attend_args *a)
{
    size_t rows = a->n_q * (a->group > 0 ? a->group : 1);
    size_t run = a->score_rows > 0 ? a->score_rows : ATTN_QUERIES;
    uint32_t most = 0;

    if (run > RUN_TILES * ATTN_QUERIES)
        run = RUN_TILES * ATTN_QUERIES;
    for (size_t i = 0; i < a->n_q; i++)
        most = a->n_keys[i] > most ? a->n_keys[i] : most;
    for (size_t row = 0; row < rows; row += run)
        attend_run(a, row, rows - row < run ? rows - row : run, most,
                   rows <= run);
}

#undef KEYS
#undef PIECES
#undef SHARED
#undef PAGES_AHEAD
#undef LINE
#undef BLOCK_BYTES
#undef RUN_TILES

#endif
