/*
 * pack.h - from floating-point rows to the bytes of the model file
 *
 * A packer is handed runs of whole blocks of rows, in order, and writes their
 * weights and scales as quant/matrix.h draws them; it works in parallel and
 * keeps the error it makes.
 */
#ifndef SL_QUANT_PACK_H
#define SL_QUANT_PACK_H

#include "quant/matrix.h"
#include "src/base/pool.h"

/* How scales are chosen. */
enum sl_scale_rule {
    /* GLM-130B's quantiser, bit for bit (THUDM/GLM-130B
     * quantization/layers.py, tools/convert_tp.py): scale = fp16(max|w| /
     * (2^(bits-1) - 1)); q = round-half-even(w / scale), where for an FP16
     * source w / scale is rounded to FP16 first. All-zero group: scale 0,
     * q 0. */
    SL_SCALE_ABSMAX,
    /* The FP16 scale that minimises the squared error of the group among
     * candidates around the absmax one. */
    SL_SCALE_MSE,
    /* INT8 whose integers stay within 119, so that they have two planes
     * (planes.h): of the FP16 scales from max|w| / 119 up the one with which
     * the high plane alone has the least squared error. */
    SL_SCALE_PLANES,
};

struct sl_pack_error {  /* summed over all that was packed */
    double sum_squared; /* of (decoded - source) */
    double sum_source_squared;
    double worst; /* largest |decoded - source| */
    uint64_t n;
    uint64_t n_not_finite; /* infinite or NaN, in the source or once FP16, or
                              more than the largest FP16 scale can hold */
};

struct sl_pack_source {
    enum sl_fmt fmt;  /* of numbers */
    const void *rows; /* (n_rows, cols), row-major, dense */
};

/* Packs rows [16 * first_block, +n_rows) of one segment (n_rows may end a
 * segment inside a block) into w and scale, which begin at first_block's
 * first byte; the fill is written too. e may be NULL. What has the matrix's
 * own format is copied, to the bit. Nothing can fail but a bad m (checked by
 * sl_matrix_check). */
void sl_pack_rows(void *w, uint16_t *scale, const struct sl_matrix *m,
                  enum sl_scale_rule rule, const struct sl_pack_source *src,
                  uint32_t n_rows, struct sl_pool *pool,
                  struct sl_pack_error *e);

/* The same from a source that is quantised already ("keep"): q (n_rows, cols)
 * int8 and scales (n_rows, n_groups) FP16 row-major, both dense. q of INT4
 * lie in -8 .. 7. */
void sl_pack_quantized(void *w, uint16_t *scale, const struct sl_matrix *m,
                       const int8_t *q, const uint16_t *q_scale,
                       uint32_t n_rows, struct sl_pool *pool);

/* Values that are infinite or no numbers, of n dense ones of a format of plain
 * numbers; of others 0. */
uint64_t sl_pack_not_finite(const void *values, enum sl_fmt fmt, uint64_t n,
                            struct sl_pool *pool);

/* From a published file: rows of ggml's blocks, one every row_bytes, in m's
 * format. Exact. */
void sl_pack_published(void *w, const struct sl_matrix *m, const void *rows,
                       size_t row_bytes, uint32_t n_rows, struct sl_pool *pool);

#endif
