/*
 * vec_panel.h - packed weights by INT8 inputs, many positions at a time
 *
 * PANEL_BLOCKS blocks of rows and PANEL_COLS columns are unpacked to bytes
 * once and stay in the L1 cache while PANEL_RUN positions pass over them, a
 * tile of positions after the other (panel_tiles of the instruction set). What
 * a row and position have summed up waits in part and total for the next
 * columns: the sums are made in the order of packed_q8 and have its bits.
 */
#ifndef SL_KERNELS_VEC_PANEL_H
#define SL_KERNELS_VEC_PANEL_H

#include "kernels/kernels.h"
#include "kernels/vec_packed.h"

struct panel {
    /* (PANEL_BLOCKS, PANEL_PLANES, PANEL_COLS / 4, 16, 4): as in INT8 */
    _Alignas(64) uint8_t w[PANEL_BLOCKS * PANEL_PLANES * PANEL_BYTES];
    /* Of the group being summed, of all those before: (PANEL_RUN, rows). */
    _Alignas(64) float part[PANEL_RUN * PANEL_ROWS];
    _Alignas(64) float total[PANEL_RUN * PANEL_ROWS];
    /* Of the inputs: (PANEL_GROUPS, PANEL_RUN). */
    _Alignas(64) float scale[PANEL_GROUPS * PANEL_RUN];
    _Alignas(64) int32_t bias[PANEL_GROUPS * PANEL_RUN];
    const int8_t *q; /* (n, q_stride), from the panel's first column on */
    size_t q_stride;
    size_t n;        /* positions */
    uint32_t groups; /* of inputs, in the panel */
    uint32_t width;  /* groups of inputs that share a weight's scale, */
    uint32_t left;   /* those left of the first such */
    bool last;       /* the row ends with the panel */
#ifdef PANEL_AMX_H
    /* Products of a tile on their way from tile to vector registers. */
    _Alignas(64) int32_t tile[2][AMX_TILE * SL_BLOCK_ROWS];
#endif
    const uint16_t *w_scale[PANEL_BLOCKS]; /* the first such's */
    /* Packed weights of the next columns, to be asked for meanwhile. */
    const uint8_t *next[PANEL_BLOCKS];
};

#include PANEL_TILES_H
#ifdef PANEL_AMX_H
#include PANEL_AMX_H
#else
#define amx_unpack panel_unpack
#define amx_tiles  panel_tiles
#endif

/* The unsigned weights are too large by offset, hence the sums by offset *
 * (sum of q). */
INLINE void panel_inputs(struct panel *k, const struct sl_acts *a, size_t p0,
                         uint32_t c, const int offset)
{
    k->q = a->q + p0 * a->q_stride + c;
    for (uint32_t g = 0; g < k->groups; g++) {
        size_t at = (c / SL_Q8_GROUP + g) * a->group_stride;
        const int32_t *first = a->q_sum + 2 * at + p0;
        const int32_t *second = first + a->group_stride;
        const float *from = a->q_scale + at + p0;
        int32_t *bias = k->bias + (size_t)g * PANEL_RUN;
        float *scale = k->scale + (size_t)g * PANEL_RUN;

        for (size_t p = 0; p < k->n; p += W) { /* room is for whole vectors */
            size_t n = k->n - p < W ? k->n - p : W;
            vi sum = vi_add(vi_load_n(first + p, n), vi_load_n(second + p, n));

            vf_store(scale + p, vf_load_n(from + p, n));
            vi_store(bias + p, vi_mul(sum, vi_set(-offset)));
        }
    }
}

/* All columns of PANEL_BLOCKS blocks for k->n positions from p0 on. */
INLINE void panel_columns(struct panel *k, const struct packed *rows,
                          const struct sl_acts *a, size_t p0, const bool int4,
                          const bool amx)
{
    const uint32_t cols = rows[0].m->cols;
    uint32_t done; /* groups of inputs */

    memset(k->part, 0, k->n * PANEL_ROWS * sizeof *k->part);
    memset(k->total, 0, k->n * PANEL_ROWS * sizeof *k->total);
    for (uint32_t c = 0; c < cols; c += PANEL_COLS) {
        uint32_t n = cols - c < PANEL_COLS ? cols - c : PANEL_COLS;

        done = c / SL_Q8_GROUP;
        k->groups = n / SL_Q8_GROUP;
        k->left = k->width - done % k->width;
        k->last = c + n == cols;
        for (size_t b = 0; b < PANEL_BLOCKS; b++) {
            k->w_scale[b] =
                rows[b].scale + (size_t)(done / k->width) * SL_BLOCK_ROWS;
            (amx ? amx_unpack : panel_unpack)(
                k->w + b * PANEL_PLANES * PANEL_BYTES,
                rows[b].w + (size_t)c * (int4 ? 8 : 16), n, int4);
            k->next[b] = rows[b].w + (size_t)(c + n) * (int4 ? 8 : 16);
        }
        panel_inputs(k, a, p0, c, int4 ? 8 : 128);
        (amx ? amx_tiles : panel_tiles)(k, int4);
    }
}

INLINE void matmul_panel(float *y, size_t y_stride, const struct sl_matrix *m,
                         const uint8_t *w, const uint16_t *scale,
                         uint32_t n_rows, const struct sl_acts *a,
                         const bool int4, const bool amx)
{
    uint32_t width = m->group_cols < m->cols ? m->group_cols : m->cols;
    uint32_t last = (n_rows - 1) / SL_BLOCK_ROWS * SL_BLOCK_ROWS;
    struct panel k;

    k.q_stride = a->q_stride;
    k.width = width / SL_Q8_GROUP;
    for (size_t p = 0; p < a->n; p += k.n) {
        k.n = a->n - p < PANEL_RUN ? a->n - p : PANEL_RUN;
        for (uint32_t row = 0; row < n_rows; row += PANEL_ROWS) {
            uint32_t n = n_rows - row < PANEL_ROWS ? n_rows - row : PANEL_ROWS;
            struct packed rows[PANEL_BLOCKS];

            /* A block that is not there is the last one once more. */
            for (uint32_t b = 0; b < PANEL_BLOCKS; b++) {
                uint32_t at = row + b * SL_BLOCK_ROWS;

                rows[b] = packed_block(y, y_stride, m, w, scale, n_rows,
                                       at < last ? at : last, int4);
            }
            panel_columns(&k, rows, a, p, int4, amx);
            for (size_t i = 0; i < k.n; i++)
                memcpy(y + (p + i) * y_stride + row, k.total + i * PANEL_ROWS,
                       n * sizeof *y);
        }
    }
}

#endif
