/*
 * vec_packed.h - what products of packed weights have in common
 */
#ifndef SL_KERNELS_VEC_PACKED_H
#define SL_KERNELS_VEC_PACKED_H

#include "kernels/kernels.h"

#define UNIT_BYTES 64
/* Weights that are read in one place are asked for this far ahead of their use,
 * which the processor's own prefetcher does not do across the end of a page. */
#define AHEAD 4096

/* With more positions than these arithmetic limits, and a block of rows is not
 * parted from its sums, which stay in registers. */
#define TURN_POSITIONS (PARTS == 1 ? 4 : 2)

/* Columns that are unpacked at once for many positions (vec_panel.h), and
 * these. */
#define PANEL_COLS   512u
#define PANEL_RUN    96u /* a multiple of every tile */
#define PANEL_GROUPS (PANEL_COLS / SL_Q8_GROUP)
#define PANEL_ROWS   (PANEL_BLOCKS * SL_BLOCK_ROWS)
/* Bytes of a block's unpacked columns, and of 32 of them. */
#define PANEL_BYTES   (PANEL_COLS * SL_BLOCK_ROWS)
#define GROUP_BYTES   (SL_Q8_GROUP * SL_BLOCK_ROWS)
#define PANEL_VECTORS ((int)(PANEL_ROWS / W))

/* Vectors that the rows of a block take. They are summed side by side where
 * registers allow: then every line of weights is used whole when it comes, and
 * memory is asked for lines all the time. */
#define PARTS      ((int)(SL_BLOCK_ROWS / W))
#define PART_BYTES (4 * W) /* of a unit */

/* Where one call of a packed kernel works: a block of rows, or (vec_blocks.h)
 * W of them. */
struct packed {
    const struct sl_matrix *m;
    const uint8_t *w;
    const uint16_t *scale; /* the first group's */
    float *y;
    size_t y_stride;
    uint32_t n_rows; /* to be written; more than a block's count as one's */
};

/* The block of rows that begins with the row-th of n_rows; m, w, scale, y: as
 * given to a kernel of the table. */
INLINE struct packed packed_block(float *y, size_t y_stride,
                                  const struct sl_matrix *m, const uint8_t *w,
                                  const uint16_t *scale, uint32_t n_rows,
                                  uint32_t row, const bool int4)
{
    size_t padded = ((size_t)m->cols + 7) / 8 * 8, b = row / SL_BLOCK_ROWS;
    size_t groups = ((size_t)m->cols + m->group_cols - 1) / m->group_cols;

    return (struct packed){
        .m = m,
        .w = w + b * (padded * SL_BLOCK_ROWS / (int4 ? 2 : 1)),
        .scale = scale + b * groups * SL_BLOCK_ROWS,
        .y = y + row,
        .y_stride = y_stride,
        .n_rows = n_rows - row,
    };
}

INLINE const struct sl_reading *reading_of(const struct sl_acts *a)
{
    return a->reading != NULL ? a->reading : &sl_reading_default;
}

/* v: of the h-th W rows. */
INLINE void packed_store(const struct packed *k, size_t p, int h, vf v)
{
    uint32_t row = (uint32_t)h * W;
    float *y = k->y + p * k->y_stride + row;

    if (k->n_rows >= row + W)
        vf_store(y, v);
    else if (k->n_rows > row)
        vf_store_n(y, v, k->n_rows - row);
}

#endif
