/*
 * pack_block.h - a block: sixteen rows become packed bytes and scales
 *
 * The inner loops of pack.c. Lanes are rows, so a vector register holds one
 * column of eight or sixteen rows, every row has its own scale at no cost, and
 * four or eight such columns shifted together are bytes of the model file as
 * quant/matrix.h draws it. One source (pack_block_tmpl.h) is compiled once for
 * any machine and once per instruction set; each row is computed alike in all
 * of them, so all give the same bits.
 */
#ifndef SL_QUANT_PACK_BLOCK_H
#define SL_QUANT_PACK_BLOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "quant/matrix.h"

struct sl_pack_block {
    const uint8_t *rows[SL_BLOCK_ROWS]; /* NULL: a row of the fill, zeros */
    enum sl_fmt from;                   /* what rows are: numbers */
    bool int4;                          /* else INT8 */
    bool mse;                           /* the scale rule, else absmax */
    bool planes;                        /* of INT8: quant/planes.h's */
    uint32_t cols, group_cols;
    uint8_t *w;
    uint16_t *scale;
};

struct sl_pack_block_error { /* of all rows; is added to */
    double squared;
    double source_squared;
    float worst;
    uint64_t n_not_finite;
};

typedef void sl_pack_block_fn(const struct sl_pack_block *p,
                              struct sl_pack_block_error *e);

sl_pack_block_fn sl_pack_block_base;
#ifdef SL_X86_64
sl_pack_block_fn sl_pack_block_avx2;
sl_pack_block_fn sl_pack_block_avx512;
#endif

/* The fastest that this CPU can run. */
sl_pack_block_fn *sl_pack_block_best(void);

#endif
