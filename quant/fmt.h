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
 * INT8 may lie in two planes of four bits (quant/planes.h).
 *
 * BF16 is the first half of a float (1 bit of sign, 8 of exponent, 7 of
 * mantissa): F32's range, a little more than two digits.
 *
 * The formats whose scales are inside are ggml's blocks, as published GGUF
 * files have them, in an order of their own (quant/blocks.h draws them all):
 * q4_0 q4_1 q5_0 q5_1 q8_0 iq4_nl mxfp4 (32 columns a block) and q2_k q3_k
 * q4_k q5_k q6_k iq4_xs (256). A row of them has whole blocks: nothing but
 * matrices that are published so has these formats.
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
    SL_FMT_Q4_0,
    SL_FMT_Q4_1,
    SL_FMT_Q5_0,
    SL_FMT_Q5_1,
    SL_FMT_Q8_0,
    SL_FMT_Q2_K,
    SL_FMT_Q3_K,
    SL_FMT_Q4_K,
    SL_FMT_Q5_K,
    SL_FMT_Q6_K,
    SL_FMT_IQ4_NL,
    SL_FMT_IQ4_XS,
    SL_FMT_MXFP4,
    SL_FMT_COUNT,
};

/* Where the factors are that make weights of what is stored. */
enum sl_scales {
    SL_SCALES_NONE,   /* there are none: a row of numbers */
    SL_SCALES_BESIDE, /* in an array of their own: F16, one a group of columns,
                       * by blocks of rows (quant/matrix.h) */
    SL_SCALES_INSIDE, /* among the weights: ggml's blocks (quant/blocks.h) */
};

struct sl_fmt_info {
    const char *name; /* in the model file and for --quant */
    /* That tensors have in GGUF files: INT8, INT4 in ours, all others in
     * published ones (in ours, blocks are I8: their order is not ggml's). */
    uint32_t ggml_type;
    enum sl_scales scales;
    bool is_float;        /* rows of numbers; else blocks of rows */
    uint8_t bits;         /* of a weight, without its scales */
    uint8_t elem_bytes;   /* of what repeats: of a number, else 1 */
    uint32_t block_cols;  /* columns are filled up to a multiple of this, */
    uint32_t block_bytes; /* and so many of one row take these */
    uint32_t unit_cols;   /* scales beside: columns of a run of 64 bytes */
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
/* *fmt = the format of published tensors of that GGUF type: of numbers or of
 * ggml's blocks; false: there is none. */
bool sl_fmt_find_ggml(enum sl_fmt *fmt, uint32_t ggml_type);

const char *sl_fmt_name(enum sl_fmt fmt);
bool sl_fmt_is_float(enum sl_fmt fmt);
/* Whether there is an array of scales beside the weights. */
bool sl_fmt_has_scales(enum sl_fmt fmt);
/* Whether rows are ggml's blocks. */
bool sl_fmt_has_blocks(enum sl_fmt fmt);
/* Of one row, or of one row's part of a block of rows (where blocks share a
 * word, up to three bytes more than block_bytes each). */
uint64_t sl_fmt_row_bytes(enum sl_fmt fmt, uint32_t cols);

#ifdef __cplusplus
}
#endif

#endif
