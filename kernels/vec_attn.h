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
 * waits where it will lie in the end, as the sum that it is so far. Where
 * enough tiles share a block that is kept as anything but floats, it becomes
 * floats once, ahead of them.
 */
#ifndef SL_KERNELS_VEC_ATTN_H
#define SL_KERNELS_VEC_ATTN_H

#include <math.h>

#include "kernels/vec_attn_rows.h"
#include "kernels/vec_misc.h"

#define KEYS      4                        /* scored together: vf_tile_sums */
#define HALF      ((ATTN_QUERIES + 1) / 2) /* of a tile */
#define PIECES    8  /* vectors of an output kept in registers for one query, */
#define SHARED    4  /* for each of several */
#define RUN_TILES 16 /* as many share them at most */
/* From so many tiles on a block becomes floats: it is read twice more. */
#define FLOAT_TILES 3
#define BLOCK_PAGES 64 /* of floats, at most */

/* Queries that are taken together. */
struct attn_tile {
    const struct sl_attend_args *a;
    /* of the keys, or values, that pass by: from the first-th page on */
    const void *const *pages;
    uint32_t first_page;
    bool fetch; /* they are read for the first time */
    const float *q[ATTN_QUERIES];
    float *out[ATTN_QUERIES];
    float *scores; /* (n, score_stride) */
    size_t score_stride;
    uint32_t n_keys[ATTN_QUERIES];
    uint32_t least, most; /* of n_keys */
    int n;
    float sum[ATTN_QUERIES];
};

INLINE struct attn_rows attn_tile_page(const struct attn_tile *t, uint32_t page,
                                       const int kind)
{
    return attn_page(t->a, t->pages[page - t->first_page], kind);
}

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
    vf dot[ATTN_QUERIES][KEYS], x[ATTN_QUERIES];
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
        for (int i = 0; i < n_q; i++)
            x[i] = vf_load(q[i] + c);
#pragma GCC unroll 4
        for (int j = 0; j < n; j++) {
            vf v = attn_load(&k[j], c, kind);

#pragma GCC unroll 4
            for (int i = 0; i < n_q; i++)
                dot[i][j] = vf_fma(x[i], v, dot[i][j]);
        }
    }
    if (rest != 0) {
#pragma GCC unroll 4
        for (int i = 0; i < n_q; i++)
            x[i] = vf_load_n(q[i] + full, rest);
#pragma GCC unroll 4
        for (int j = 0; j < n; j++) {
            vf v = attn_load_n(&k[j], full, rest, kind);

#pragma GCC unroll 4
            for (int i = 0; i < n_q; i++)
                dot[i][j] = vf_fma(x[i], v, dot[i][j]);
        }
    }
    if (n == KEYS) {
        vf_tile_sums(scores, t->score_stride, dot, n_q, a->scale);
        return;
    }
#pragma GCC unroll 4
    for (int i = 0; i < n_q; i++)
#pragma GCC unroll 4
        for (int j = 0; j < n; j++)
            scores[(size_t)i * t->score_stride + (size_t)j] =
                vf_sum(dot[i][j]) * a->scale;
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
        rows = attn_tile_page(t, from / a->page_len, kind);
        if (t->fetch)
            attn_fetch(a, t->pages, from / a->page_len, kind);
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
        vf p[ATTN_QUERIES];

#pragma GCC unroll 4
        for (int q = 0; q < n_q; q++)
            p[q] = vf_set(scores[(size_t)q * t->score_stride + j]);
#pragma GCC unroll 8
        for (int i = 0; i < n; i++) {
            vf v = rest != 0 ? attn_load_n(&row, c, rest, kind)
                             : attn_load(&row, c + (uint32_t)i * W, kind);

#pragma GCC unroll 4
            for (int q = 0; q < n_q; q++)
                acc[q][i] = vf_fma(p[q], v, acc[q][i]);
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
        rows = attn_tile_page(t, from / a->page_len, kind);
        if (t->fetch && c == 0)
            attn_fetch(a, t->pages, from / a->page_len, kind);
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
    uint32_t d = t->a->out_d > 0 ? t->a->out_d : t->a->d, c = 0;

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
    TILE(kind, half, HALF)                                                     \
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
    const struct sl_attend_args *a;
    struct attn_tile tiles[RUN_TILES + 1]; /* the last ones may be small */
    size_t n;
    uint32_t most;  /* keys that any sees, */
    uint32_t block; /* that pass by at once */
    bool floats;    /* made of them first */
    bool fetch;     /* they are read for the first time */
};

/* Those of pages that hold keys, or values, [from, to) as floats: laid[i] is
 * the i-th of them. */
INLINE void attn_lay(const void **laid, const struct attn_run *r,
                     const void *const *pages, uint32_t from, uint32_t to,
                     const int kind)
{
    const struct sl_attend_args *a = r->a;
    float *at = a->floats;

    for (uint32_t page = from / a->page_len; from < to; page++) {
        uint32_t n = a->page_len < to - from ? a->page_len : to - from;
        struct attn_rows rows = attn_page(a, pages[page], kind);

        if (r->fetch)
            attn_fetch(a, pages, page, kind);
        attn_convert(at, &rows, n, a->d, kind);
        *laid++ = at;
        at += (size_t)a->page_len * a->d;
        from += n;
    }
}

static void ISA(attn_lay)(const void **laid, const struct attn_run *r,
                          const void *const *pages, uint32_t from, uint32_t to)
{
    if (r->a->kv_kind == SL_KV_F16)
        attn_lay(laid, r, pages, from, to, SL_KV_F16);
    else
        attn_lay(laid, r, pages, from, to, SL_KV_INT8);
}

/* All tiles over one block after the other. */
INLINE void run_blocks(struct attn_run *r, const void *const *pages,
                       attn_tile_fns *fns)
{
    attn_tile_fn *const *fn = fns[r->floats ? SL_KV_F32 : r->a->kv_kind];
    const void *laid[BLOCK_PAGES];

    for (uint32_t from = 0; from < r->most; from += r->block) {
        uint32_t to = attn_clamp(from + r->block, from, r->most);
        uint32_t paged = to < r->a->n_paged ? to : r->a->n_paged;

        if (r->floats && from < paged)
            ISA(attn_lay)(laid, r, pages, from, paged);
        for (size_t i = 0; i < r->n; i++) {
            struct attn_tile *t = &r->tiles[i];

            t->pages = r->floats ? laid : pages;
            t->first_page = r->floats ? from / r->a->page_len : 0;
            t->fetch = r->fetch && !r->floats && i == 0;
            if (from < t->most)
                fn[t->n == 1 ? 0 : t->n == ATTN_QUERIES ? 2 : 1](t, from, to);
        }
    }
}

/* Keys that pass by at once, and whether as floats: in whole pages then, where
 * there is room for one. */
INLINE void run_size(struct attn_run *r)
{
    const struct sl_attend_args *a = r->a;
    size_t page = (size_t)a->page_len * a->d;
    size_t n_pages = a->n_floats / page;

    r->block = SL_ATTEND_FLOATS / a->d / KEYS * KEYS;
    if (r->n == 1 || r->block == 0)
        r->block = r->most;
    r->floats = a->kv_kind != SL_KV_F32 && r->n >= FLOAT_TILES && n_pages > 0;
    if (r->floats)
        r->block = (uint32_t)(n_pages < BLOCK_PAGES ? n_pages : BLOCK_PAGES) *
                   a->page_len;
}

/* Of the next tile: two halves rather than a whole and a single one. */
INLINE int tile_size(size_t left)
{
    if (left == ATTN_QUERIES + 1 && left == 2 * HALF)
        return HALF;
    if (left >= ATTN_QUERIES)
        return ATTN_QUERIES;
    return left >= HALF ? HALF : 1;
}

/* Queries [row, row + n), counted position after position. alone: there are no
 * others in the call. */
static void attend_run(const struct sl_attend_args *a, size_t row, size_t n,
                       size_t score_stride, bool alone)
{
    struct attn_run r;

    r.a = a;
    r.n = 0;
    r.most = 0;
    r.fetch = alone;
    for (size_t i = 0; i < n; i += (size_t)r.tiles[r.n++].n) {
        struct attn_tile *t = &r.tiles[r.n];

        tile_init(t, a, row + i, tile_size(n - i));
        t->scores = a->scores + i * score_stride;
        t->score_stride = score_stride;
        r.most = t->most > r.most ? t->most : r.most;
    }
    run_size(&r);
    run_blocks(&r, a->k_pages, ISA(attn_scores));
    for (size_t i = 0; i < r.n; i++)
        for (int q = 0; q < r.tiles[i].n; q++)
            r.tiles[i].sum[q] =
                attn_softmax(r.tiles[i].scores + (size_t)q * score_stride,
                             r.tiles[i].n_keys[q]);
    run_blocks(&r, a->v_pages, ISA(attn_values));
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
#undef HALF
#undef PIECES
#undef SHARED
#undef RUN_TILES
#undef FLOAT_TILES
#undef BLOCK_PAGES

#endif
