/*
 * pack8.h - half a block: eight rows become packed bytes and scales
 *
 * The inner loops of pack.c. Lanes are rows, so a vector register holds one
 * column of eight rows, every row has its own scale at no cost, and four or
 * eight such columns shifted together are 32 bytes of the model file as
 * quant/matrix.h draws it. One source (pack8_tmpl.h) is compiled once for any
 * machine and once per instruction set; each row is computed alike in all of
 * them, so all give the same bits.
 */
#ifndef SL_QUANT_PACK8_H
#define SL_QUANT_PACK8_H

#include <stdbool.h>
#include <stdint.h>

#define SL_PACK8_ROWS 8u

struct sl_pack8 {
    const uint8_t *rows[SL_PACK8_ROWS]; /* NULL: a row of the fill, zeros */
    bool f16;                           /* rows are FP16, else FP32 */
    bool int4;                          /* else INT8 */
    bool mse;                           /* the scale rule, else absmax */
    uint32_t cols, group_cols;
    uint8_t *w;      /* 32 bytes every 64 */
    uint16_t *scale; /* 8 of every 16 */
};

struct sl_pack8_error { /* of all rows; is added to */
    double squared;
    double source_squared;
    float worst;
    uint64_t n_not_finite;
};

typedef void sl_pack8_fn(const struct sl_pack8 *p, struct sl_pack8_error *e);

sl_pack8_fn sl_pack8_base;
#ifdef SL_X86_64
sl_pack8_fn sl_pack8_avx2;
#endif

/* The fastest that this CPU can run. */
sl_pack8_fn *sl_pack8_best(void);

#endif
