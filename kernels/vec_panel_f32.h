/*
 * vec_panel_f32.h - packed weights by FP32 inputs, many positions at a time
 *
 * Some blocks of rows by PANEL_F32_COLS columns become floats once and stay in
 * the L1 cache while PANEL_F32_RUN positions pass over them in tiles of
 * registers. packed_f32 adds up columns i, i + 4, i + 8, ... of a group apart,
 * i = 0 .. 3, so here a tile passes over the columns of one i after the other:
 * each row and position needs one register, and the sums have the same bits.
 */
#ifndef SL_KERNELS_VEC_PANEL_F32_H
#define SL_KERNELS_VEC_PANEL_F32_H

#include "kernels/kernels.h"
#include "kernels/vec_packed.h"

#define PHASES            4
#define PANEL_F32_COLS    256u
#define PANEL_F32_RUN     48u /* a multiple of every tile */
#define PANEL_F32_ROWS    (PANEL_F32_VECTORS * W)
#define PANEL_F32_BLOCKS  (PANEL_F32_ROWS / SL_BLOCK_ROWS)
#define PANEL_F32_QUARTER (PANEL_F32_COLS / PHASES)

struct panel_f32 {
    /* (PHASES, columns of a phase, rows) */
    _Alignas(64) float w[PANEL_F32_COLS * PANEL_F32_ROWS];
    /* Of the group being summed: (PHASES, PANEL_F32_RUN, rows); of all those
     * before: (PANEL_F32_RUN, rows). */
    _Alignas(64) float part[PHASES * PANEL_F32_RUN * PANEL_F32_ROWS];
    _Alignas(64) float total[PANEL_F32_RUN * PANEL_F32_ROWS];
    const float *x; /* (n, x_stride), from the panel's first column on */
    size_t x_stride;
    size_t n; /* positions */
};

/* cols columns of the b-th block of the panel, a multiple of a unit's. */
INLINE void unpack_f32(struct panel_f32 *k, uint32_t b, const uint8_t *w,
                       uint32_t cols, const bool int4)
{
    const uint32_t unit = int4 ? 8 : 4;
    float *to = k->w + b * SL_BLOCK_ROWS;

    for (uint32_t c = 0; c < cols; c += unit, w += UNIT_BYTES) {
#pragma GCC unroll 2
        for (int h = 0; h < PARTS; h++) {
            vi v = vi_load_bytes(w + h * PART_BYTES);

#pragma GCC unroll 8
            for (uint32_t i = 0; i < unit; i++) {
                size_t at = i % PHASES * PANEL_F32_QUARTER + (c + i) / PHASES;
                vf u = !int4   ? vf_byte(v, (int)i)
                       : i < 4 ? vf_nibble(v, 8 * (int)i)
                               : vf_nibble(v, 8 * (int)i - 28);

                vf_store(to + at * PANEL_F32_ROWS + h * W, u);
            }
        }
    }
}

/* Columns [c, end) of the panel, of one group, for n positions. */
INLINE void tile_f32(struct panel_f32 *k, size_t p0, const int n, uint32_t c,
                     uint32_t end)
{
    const float *x = k->x + p0 * k->x_stride;

    for (uint32_t i = 0; i < PHASES; i++) {
        float *part =
            k->part + ((size_t)i * PANEL_F32_RUN + p0) * PANEL_F32_ROWS;
        const float *w = k->w + (size_t)i * PANEL_F32_QUARTER * PANEL_F32_ROWS;
        vf acc[PANEL_F32_VECTORS][PANEL_F32_TILE];

#pragma GCC unroll 16
        for (int p = 0; p < n; p++)
#pragma GCC unroll 4
            for (int v = 0; v < PANEL_F32_VECTORS; v++)
                acc[v][p] = vf_load(part + p * PANEL_F32_ROWS + v * W);
        for (uint32_t j = c / PHASES; j < end / PHASES; j++) {
            vf u[PANEL_F32_VECTORS];

#pragma GCC unroll 4
            for (int v = 0; v < PANEL_F32_VECTORS; v++)
                u[v] = vf_load(w + (size_t)j * PANEL_F32_ROWS + v * W);
#pragma GCC unroll 16
            for (int p = 0; p < n; p++) {
                vf y = vf_set(x[(size_t)p * k->x_stride + j * PHASES + i]);

#pragma GCC unroll 4
                for (int v = 0; v < PANEL_F32_VECTORS; v++)
                    acc[v][p] = vf_fma(u[v], y, acc[v][p]);
            }
        }
#pragma GCC unroll 16
        for (int p = 0; p < n; p++)
#pragma GCC unroll 4
            for (int v = 0; v < PANEL_F32_VECTORS; v++)
                vf_store(part + p * PANEL_F32_ROWS + v * W, acc[v][p]);
    }
}

INLINE void tiles_f32(struct panel_f32 *k, uint32_t c, uint32_t end)
{
    size_t p = 0;

    for (; k->n - p >= PANEL_F32_TILE; p += PANEL_F32_TILE)
        tile_f32(k, p, PANEL_F32_TILE, c, end);
    for (; k->n - p >= 4; p += 4)
        tile_f32(k, p, 4, c, end);
    for (; k->n - p >= 2; p += 2)
        tile_f32(k, p, 2, c, end);
    if (p < k->n)
        tile_f32(k, p, 1, c, end);
}

/* The group's sums by its scales; scale: (blocks) its. */
INLINE void close_f32(struct panel_f32 *k, const uint16_t *const *scale)
{
    const size_t phase = (size_t)PANEL_F32_RUN * PANEL_F32_ROWS;

#pragma GCC unroll 4
    for (size_t v = 0; v < PANEL_F32_VECTORS; v++) {
        vf s =
            vf_load_half(scale[v * W / SL_BLOCK_ROWS] + v * W % SL_BLOCK_ROWS);

        for (size_t p = 0; p < k->n; p++) {
            float *part = k->part + p * PANEL_F32_ROWS + v * W;
            float *total = k->total + p * PANEL_F32_ROWS + v * W;
            vf low = vf_add(vf_load(part), vf_load(part + phase));
            vf high =
                vf_add(vf_load(part + 2 * phase), vf_load(part + 3 * phase));

            vf_store(total, vf_fma(vf_add(low, high), s, vf_load(total)));
            for (size_t i = 0; i < PHASES; i++)
                vf_store(part + i * phase, vf_set(0));
        }
    }
}

/* All columns of PANEL_F32_BLOCKS blocks for k->n positions; x: of the first
 * of them. */
INLINE void columns_f32(struct panel_f32 *k, const struct packed *rows,
                        const float *x, const bool int4)
{
    const struct sl_matrix *m = rows[0].m;
    const uint32_t width = m->group_cols < m->cols ? m->group_cols : m->cols;
    const uint16_t *scale[PANEL_F32_BLOCKS];

    memset(k->part, 0, sizeof k->part);
    memset(k->total, 0, sizeof k->total);
    for (size_t b = 0; b < PANEL_F32_BLOCKS; b++)
        scale[b] = rows[b].scale;
    for (uint32_t c = 0, left = width; c < m->cols; c += PANEL_F32_COLS) {
        uint32_t n =
            m->cols - c < PANEL_F32_COLS ? m->cols - c : PANEL_F32_COLS;

        for (uint32_t b = 0; b < PANEL_F32_BLOCKS; b++)
            unpack_f32(k, b, rows[b].w + (size_t)c * (int4 ? 8 : 16), n, int4);
        k->x = x + c;
        for (uint32_t at = 0, end; at < n; at = end) {
            end = n - at < left ? n : at + left;
            tiles_f32(k, at, end);
            left -= end - at;
            if (left > 0 && c + end < m->cols)
                continue;
            close_f32(k, scale);
            for (size_t b = 0; b < PANEL_F32_BLOCKS; b++)
                scale[b] += SL_BLOCK_ROWS;
            left = width;
        }
    }
}

/* Units and phases are whole in every group. */
INLINE bool panel_takes_f32(const struct sl_matrix *m)
{
    return m->cols % 8 == 0 &&
           (m->group_cols >= m->cols || m->group_cols % 8 == 0);
}

INLINE void matmul_panel_f32(float *y, size_t y_stride,
                             const struct sl_matrix *m, const uint8_t *w,
                             const uint16_t *scale, uint32_t n_rows,
                             const struct sl_acts *a, const bool int4)
{
    struct panel_f32 k;

    k.x_stride = a->x_stride;
    for (size_t p = 0; p < a->n; p += k.n) {
        k.n = a->n - p < PANEL_F32_RUN ? a->n - p : PANEL_F32_RUN;
        for (uint32_t row = 0; row < n_rows; row += PANEL_F32_ROWS) {
            uint32_t n =
                n_rows - row < PANEL_F32_ROWS ? n_rows - row : PANEL_F32_ROWS;
            struct packed rows[PANEL_F32_BLOCKS];

            /* A block that is not there is the first one once more. */
            for (uint32_t b = 0; b < PANEL_F32_BLOCKS; b++) {
                uint32_t at = b * SL_BLOCK_ROWS < n ? b * SL_BLOCK_ROWS : 0;

                rows[b] = packed_block(y, y_stride, m, w, scale, n_rows,
                                       row + at, int4);
            }
            columns_f32(&k, rows, a->x + p * a->x_stride, int4);
            for (size_t i = 0; i < k.n; i++)
                memcpy(y + (p + i) * y_stride + row,
                       k.total + i * PANEL_F32_ROWS, n * sizeof *y);
        }
    }
}

#endif
