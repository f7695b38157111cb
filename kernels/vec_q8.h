/*
 * vec_q8.h - packed weights by INT8 inputs over any vec_<isa>.h
 *
 * A product of row and position is summed by group, in the order of the
 * columns, however many positions there are.
 */
#ifndef SL_KERNELS_VEC_Q8_H
#define SL_KERNELS_VEC_Q8_H

#include "kernels/kernels.h"
#include "kernels/vec_packed.h"
#include "kernels/vec_panel.h"

/* part += the exact sums of a group of 32 activations by their scales:
 * unsigned weights w + offset by q, less offset * (sum of q). */
INLINE void group_q8(vf part[][Q8_TILE], const uint8_t *w, const int8_t *q,
                     const float *q_scale, const int32_t *q_sum,
                     const struct sl_acts *a, const int n, const bool int4)
{
    vi acc[PARTS][Q8_TILE];

#pragma GCC unroll 8
    for (int p = 0; p < n; p++) {
        vi offset = vi_set((int4 ? -8 : -128) *
                           (q_sum[p] + q_sum[(size_t)p + a->group_stride]));

#pragma GCC unroll 2
        for (int h = 0; h < PARTS; h++)
            acc[h][p] = offset;
    }
    if (int4)
        dot32_int4(acc, w, q, a->q_stride, n);
    else
        dot32_int8(acc, w, q, a->q_stride, n);
#pragma GCC unroll 8
    for (int p = 0; p < n; p++)
#pragma GCC unroll 2
        for (int h = 0; h < PARTS; h++)
            part[h][p] =
                vf_fma(vi_to_float(acc[h][p]), vf_set(q_scale[p]), part[h][p]);
}

/* What a block of rows has summed of n positions: of the group of columns that
 * is being summed, and of those before it. */
struct packed_sums {
    vf part[PARTS][Q8_TILE], total[PARTS][Q8_TILE];
};

/* The products of some groups of inputs, and the end of a group of
 * columns where scale is not NULL. Weights are asked for so far ahead. */
INLINE void turn_q8(struct packed_sums *sums, const uint8_t *w, size_t ahead,
                    uint32_t groups, const int8_t *q, const float *q_scale,
                    const int32_t *q_sum, const uint16_t *scale,
                    const struct sl_acts *a, const int n, const bool int4)
{
    const size_t bytes = (int4 ? 4 : 8) * UNIT_BYTES;
    vf part[PARTS][Q8_TILE];

#pragma GCC unroll 2
    for (int h = 0; h < PARTS; h++)
#pragma GCC unroll 8
        for (int p = 0; p < n; p++)
            part[h][p] = sums->part[h][p];
    for (uint32_t i = 0; i < groups; i++) {
#pragma GCC unroll 8
        for (size_t line = 0; line < bytes; line += UNIT_BYTES)
            _mm_prefetch((const char *)w + ahead + line, _MM_HINT_T0);
        group_q8(part, w, q, q_scale, q_sum, a, n, int4);
        w += bytes;
        q += SL_Q8_GROUP;
        q_scale += a->group_stride;
        q_sum += 2 * a->group_stride;
    }
#pragma GCC unroll 2
    for (int h = 0; h < PARTS; h++) {
        vf s = scale != NULL ? vf_load_half(scale + h * W) : vf_set(0);

#pragma GCC unroll 8
        for (int p = 0; p < n; p++) {
            if (scale != NULL) {
                sums->total[h][p] = vf_fma(part[h][p], s, sums->total[h][p]);
                part[h][p] = vf_set(0);
            }
            sums->part[h][p] = part[h][p];
        }
    }
}

/* n positions from p0 on by some blocks of rows, which take turns after every
 * 64 columns or less; one goes on to the end of a group. */
INLINE void packed_q8(const struct packed *k, const int blocks,
                      const struct sl_acts *a, size_t p0, const int n,
                      const bool int4)
{
    const size_t bytes = (int4 ? 4 : 8) * UNIT_BYTES;
    uint32_t runs = k->m->cols / SL_Q8_GROUP, end = 0;
    uint32_t width =
        k->m->group_cols < k->m->cols ? k->m->group_cols : k->m->cols;
    const int8_t *q = a->q + p0 * a->q_stride;
    const float *q_scale = a->q_scale + p0;
    const int32_t *q_sum = a->q_sum + p0;
    size_t scale_at = 0;
    const size_t reach = blocks > 1 ? reading_of(a)->ahead : AHEAD;
    struct packed_sums sums[SL_PLACES_MOST];

    width /= SL_Q8_GROUP;
    for (int b = 0; b < blocks; b++)
        for (int h = 0; h < PARTS; h++)
            for (int p = 0; p < n; p++)
                sums[b].total[h][p] = sums[b].part[h][p] = vf_set(0);
    for (uint32_t run = 0, turn; run < runs; run += turn) {
        size_t at = run * bytes, ahead = reach;

        if (run == end)
            end += runs - end < width ? runs - end : width;
        turn = end - run;
        if (blocks > 1 && turn > 2)
            turn = 2;
        /* At a block's end, of the one that takes its place. */
        if (at + reach >= runs * bytes)
            ahead += (size_t)(blocks - 1) * runs * bytes;
        for (int b = 0; b < blocks; b++)
            turn_q8(&sums[b], k[b].w + at, ahead, turn, q, q_scale, q_sum,
                    run + turn == end ? k[b].scale + scale_at : NULL, a, n,
                    int4);
        if (run + turn == end)
            scale_at += SL_BLOCK_ROWS;
        q += turn * SL_Q8_GROUP;
        q_scale += turn * a->group_stride;
        q_sum += 2 * turn * a->group_stride;
    }
    for (int b = 0; b < blocks; b++)
        for (int h = 0; h < PARTS; h++)
            for (int p = 0; p < n; p++)
                packed_store(k + b, p0 + (size_t)p, h, sums[b].total[h][p]);
}

/* Tiles of about the same size of all positions, for some blocks of rows. */
INLINE void packed_rows_q8(const struct packed *k, const int blocks,
                           const struct sl_acts *a, const bool int4)
{
    size_t p = 0;

    for (size_t left = (a->n + Q8_TILE - 1) / Q8_TILE; left > 0; left--) {
        size_t n = (a->n - p + left - 1) / left;

        if (n == 4)
            packed_q8(k, blocks, a, p, 4, int4);
        else if (n == 3)
            packed_q8(k, blocks, a, p, 3, int4);
        else if (n == 2)
            packed_q8(k, blocks, a, p, 2, int4);
        else
            packed_q8(k, blocks, a, p, 1, int4);
        p += n;
    }
}

INLINE void matmul_q8(float *y, size_t y_stride, const struct sl_matrix *m,
                      const uint8_t *w, const uint16_t *scale, uint32_t n_rows,
                      const struct sl_acts *a, const bool int4)
{
    if (a->n >= PANEL_LEAST) {
        matmul_panel(y, y_stride, m, w, scale, n_rows, a, int4, false);
        return;
    }
    for (uint32_t row = 0; row < n_rows;) {
        const int most =
            a->n <= TURN_POSITIONS ? (int)reading_of(a)->places : 1;
        struct packed k[SL_PLACES_MOST];
        int blocks = 0;

        do {
            k[blocks++] =
                packed_block(y, y_stride, m, w, scale, n_rows, row, int4);
            row += SL_BLOCK_ROWS;
        } while (blocks < most && row < n_rows);
        packed_rows_q8(k, blocks, a, int4);
    }
}

static void ISA(matmul_int8_q8)(float *y, size_t y_stride,
                                const struct sl_matrix *m, const void *w,
                                const uint16_t *scale, uint32_t n_rows,
                                const struct sl_acts *acts)
{
    matmul_q8(y, y_stride, m, w, scale, n_rows, acts, false);
}

static void ISA(matmul_int4_q8)(float *y, size_t y_stride,
                                const struct sl_matrix *m, const void *w,
                                const uint16_t *scale, uint32_t n_rows,
                                const struct sl_acts *acts)
{
    matmul_q8(y, y_stride, m, w, scale, n_rows, acts, true);
}

#endif
