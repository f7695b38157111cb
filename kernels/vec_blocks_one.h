/*
 * vec_blocks_one.h - one position by ggml's blocks
 *
 * The weights come from memory then: tiles of rows take turns (vec_packed.h).
 * Included by vec_blocks.h.
 */
#ifndef SL_KERNELS_VEC_BLOCKS_ONE_H
#define SL_KERNELS_VEC_BLOCKS_ONE_H

/* W rows that take turns with others. */
struct row_tile {
    const uint8_t *w; /* the block's codes */
    vi head;
    vf d, min; /* what the scales and the minima are multiples of */
    vf total;
};

/* What all tiles of a call multiply by, from a group of columns on. */
struct one_input {
    const int8_t *q;
    const float *q_scale;
    const int32_t *q_sum;
    size_t stride; /* of scales; of sums, a half of a group */
};

/* total += the products of one run: the i-th of the block, from the j-th four
 * columns of the group at w on. */
INLINE void one_run(struct row_tile *r, const uint8_t *w, int i, unsigned j,
                    const struct one_input *in, const struct shape *s)
{
    const uint8_t *sub = r->w - sub_words(s) * UNIT_BYTES;
    const int32_t *half = in->q_sum + (j > 0 ? in->stride : 0);
    int32_t sum = half[0] + (s->run == GROUP_COLS ? half[in->stride] : 0);
    vi acc[BLOCKS_TILE] = {vi_set(-dot_offset(s) * sum)}, part[BLOCKS_TILE];

#pragma GCC unroll 8
    for (unsigned u = 0; u < s->run / 4; u++)
        dot_quad(acc, part, quad_operand(w, j + u, s), in->q + 4 * (j + u), 0,
                 1, u, s);
    r->total =
        vf_fma(vf_mul(vi_to_float(acc[0]), run_scale(sub, r->head, r->d, i, s)),
               vf_set(in->q_scale[0]), r->total);
    if (s->mins != SL_MINS_NONE)
        r->total = vf_fma(run_min(sub, r->head, r->min, i, s),
                          vf_set((float)sum * in->q_scale[0]), r->total);
}

/* Lines are asked for once, whatever rows they have. */
INLINE void one_ahead(int t, const uint8_t *w, size_t bytes)
{
    if (t % PARTS == 0)
        fetch_ahead(w, bytes);
}

INLINE void blocks_one(const struct packed *k, const int tiles,
                       const struct sl_acts *a, size_t p,
                       const struct blocks *f)
{
    const struct shape *s = f->s;
    const size_t codes = s->cols / GROUP_COLS * group_bytes(s);
    const int runs = (int)(GROUP_COLS / s->run);
    struct one_input in = {a->q + p * a->q_stride, a->q_scale + p, a->q_sum + p,
                           a->group_stride};
    size_t bytes = blocks_bytes(s, k->m->cols), at = 0;
    struct row_tile tile[ROW_TILES];

    for (int t = 0; t < tiles; t++) {
        tile[t].w = k[t].w;
        tile[t].total = vf_set(0);
    }
    for (uint32_t b = 0; b < k->m->cols / s->cols; b++) {
        size_t head = b % s->share == 0 ? UNIT_BYTES : 0;
        size_t first = head + sub_words(s) * UNIT_BYTES;
        size_t ahead = TURNS_AHEAD;

        /* At a tile's end, of the one that takes its place. */
        if (at + TURNS_AHEAD >= bytes)
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
                const uint8_t *w = tile[t].w + g * group_bytes(s);

                one_ahead(t, w + ahead, group_bytes(s));
#pragma GCC unroll 2
                for (int i = 0; i < runs; i++)
                    one_run(&tile[t], w, (int)g * runs + i,
                            (unsigned)i * QUADS / 2, &in, s);
            }
            in.q += GROUP_COLS;
            in.q_scale += in.stride;
            in.q_sum += 2 * in.stride;
        }
        for (int t = 0; t < tiles; t++)
            tile[t].w += codes;
        at += first + codes;
    }
    for (int t = 0; t < tiles; t++)
        packed_store(k + t, p, 0, tile[t].total);
}

#endif
