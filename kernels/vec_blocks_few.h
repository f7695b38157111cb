/*
 * vec_blocks_few.h - few positions by ggml's blocks
 *
 * The weights come from memory then: tiles of rows take turns.
 * Included by vec_blocks.h.
 */
#ifndef SL_KERNELS_VEC_BLOCKS_FEW_H
#define SL_KERNELS_VEC_BLOCKS_FEW_H

/* W rows that take turns with others. */
struct row_tile {
    const uint8_t *w; /* the block's codes */
    vi head;
    vf d, min; /* what the scales and the minima are multiples of */
    vf total[BLOCKS_TILE];
};

/* Lines are asked for once, whatever rows they have. */
INLINE void one_ahead(int t, const uint8_t *w, size_t bytes)
{
    if (t % PARTS == 0)
        fetch_ahead(w, bytes);
}

INLINE void blocks_few(const struct packed *k, const int tiles,
                       const struct sl_acts *a, size_t p0, const int n,
                       const struct blocks *f)
{
    const struct shape *s = f->s;
    const size_t codes = s->cols / GROUP_COLS * group_bytes(s);
    const int runs = (int)(GROUP_COLS / s->run);
    const int8_t *q = a->q + p0 * a->q_stride;
    const float *q_scale = a->q_scale + p0;
    const int32_t *q_sum = a->q_sum + p0;
    size_t bytes = blocks_bytes(s, k->m->cols), at = 0;
    const size_t reach = reading_of(a)->ahead;
    struct row_tile tile[ROW_TILES];

    for (int t = 0; t < tiles; t++) {
        tile[t].w = k[t].w;
        for (int p = 0; p < n; p++)
            tile[t].total[p] = vf_set(0);
    }
    for (uint32_t b = 0; b < k->m->cols / s->cols; b++) {
        size_t head = b % s->share == 0 ? UNIT_BYTES : 0;
        size_t first = head + sub_words(s) * UNIT_BYTES;
        size_t ahead = reach;

        /* At a tile's end, of the one that takes its place. */
        if (at + reach >= bytes)
            ahead += (size_t)((tiles - 1) / PARTS) * bytes;
        for (int t = 0; t < tiles; t++) {
            struct row_tile *r = &tile[t];

            one_ahead(t, r->w + ahead, first);
            if (head > 0)
                r->head = vi_load_bytes(r->w);
            r->d = head_d(r->head, b, s);
            r->min = head_min(r->head, s);
            r->w += first;
        }
#pragma GCC unroll 8
        for (unsigned g = 0; g < s->cols / GROUP_COLS; g++) {
            for (int t = 0; t < tiles; t++) {
                struct row_tile *r = &tile[t];
                const uint8_t *w = r->w + g * group_bytes(s);
                const uint8_t *sub = r->w - sub_words(s) * UNIT_BYTES;
                vf total[BLOCKS_TILE];

                one_ahead(t, w + ahead, group_bytes(s));
#pragma GCC unroll 4
                for (int p = 0; p < n; p++)
                    total[p] = r->total[p];
#pragma GCC unroll 2
                for (int i = 0; i < runs; i++) {
                    int run = (int)g * runs + i;

                    run_q8(total, w, (unsigned)(i * QUADS / 2),
                           run_scale(sub, r->head, r->d, run, s),
                           run_min(sub, r->head, r->min, run, s), q, a, q_scale,
                           q_sum + (size_t)i * a->group_stride, n, s);
                }
#pragma GCC unroll 4
                for (int p = 0; p < n; p++)
                    r->total[p] = total[p];
            }
            q += GROUP_COLS;
            q_scale += a->group_stride;
            q_sum += 2 * a->group_stride;
        }
        for (int t = 0; t < tiles; t++)
            tile[t].w += codes;
        at += first + codes;
    }
    for (int t = 0; t < tiles; t++)
        for (int p = 0; p < n; p++)
            packed_store(k + t, p0 + (size_t)p, 0, tile[t].total[p]);
}

#endif
