/*
 * fmt.h - the number formats of weights: one table, a line each
 *
 * Whoever must know something of a format asks this table for that very thing
 * (has it scales of its own? are rows plain numbers? how long is a row?) and
 * not for its name, so that a new format is one line here, its packing in
 * quant/pack.c and its products in kernels/.
 *
 * There are two arrangements. Rows of numbers are GGUF's own types: rows one
 * after another, nothing padded. All others lie side by side, sixteen rows a
 * block, as quant/matrix.h draws it. In both a row's columns are filled up to a
 * multiple of block_cols, each block_cols of which take block_bytes:
 *
 *            GGUF type   scales        block_cols  block_bytes  unit_cols
 *     f32    F32   (0)   none               1           4           -
 *     f16    F16   (1)   none               1           2           -
 *     bf16   BF16 (30)   none               1           2           -
 *     int8   I8   (24)   beside             8           8           4
 *     int4   I8   (24)   beside             8           4           8
 *
 * BF16 is the first half of a float (1 bit of sign, 8 of exponent, 7 of
 * mantissa): F32's range, a little more than two digits.
 */
#ifndef SL_QUANT_FMT_H
#define SL_QUANT_FMT_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SL_BLOCK_ROWS 16u /* side by side */

enum sl_fmt {
    SL_FMT_F32,
    SL_FMT_F16,
    SL_FMT_BF16,
    SL_FMT_INT8,
    SL_FMT_INT4,
    SL_FMT_COUNT,
};

/* Where the factors are that make weights of what is stored. */
enum sl_scales {
    SL_SCALES_NONE,   /* there are none: a row of numbers */
    SL_SCALES_BESIDE, /* in an array of their own: F16, one a group of columns,
                       * by blocks of rows (quant/matrix.h) */
};

struct sl_fmt_info {
    const char *name;   /* in the model file and for --quant */
    uint32_t ggml_type; /* that tensors have in GGUF (enum sl_ggml_type) */
    enum sl_scales scales;
    bool is_float;        /* rows of numbers; else blocks of rows */
    uint8_t bits;         /* of a weight */
    uint8_t elem_bytes;   /* of what repeats: of a number, else 1 */
    uint32_t block_cols;  /* columns are filled up to a multiple of this, */
    uint32_t block_bytes; /* and so many of one row take these */
    uint32_t unit_cols;   /* blocks of rows: columns of a run of 64 bytes */
    /* out[i] = column first + i of a row as it is stored, without the scales
     * beside it, for i < n; exact. row: the first byte of a row of numbers, or
     * of a row's four bytes in the first unit of its block. */
    void (*load)(float *out, const void *row, uint32_t first, uint32_t n);
    /* Rows of numbers, else NULL: row[i] = x[i], rounded to nearest even, for
     * i < n. NaN stays NaN, with its sign and as much of the rest as fits. */
    void (*store)(void *row, const float *x, uint32_t n);
};

/* fmt is one of the above; the table is constant. */
const struct sl_fmt_info *sl_fmt_of(enum sl_fmt fmt);
/* *fmt = the format of that name; false: there is none. */
bool sl_fmt_find(enum sl_fmt *fmt, const char *name);

const char *sl_fmt_name(enum sl_fmt fmt);
bool sl_fmt_is_float(enum sl_fmt fmt);
/* Whether there is an array of scales beside the weights. */
bool sl_fmt_has_scales(enum sl_fmt fmt);
/* Of one row, or of one row's part of a block. */
uint64_t sl_fmt_row_bytes(enum sl_fmt fmt, uint32_t cols);

#ifdef __cplusplus
}
#endif

#endif
