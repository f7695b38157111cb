/*
 * matrix.h - how one weight matrix lies in the model file
 *
 *     y[out] = sum over in of W[out][in] * x[in]     rows = out, cols = in
 *
 * F32, F16 and BF16 are GGUF's own types: rows one after another, cols elements
 * a row, nothing padded.
 *
 * INT8 and INT4 are stored one way, whatever the width of their groups. Rows
 * are taken 16 at a time (a block; the last block of a segment is filled up
 * with zero weights and zero scales) and columns are filled up with zeros to
 * a multiple of 8. Within a block 64 bytes hold 16 rows side by side, four
 * bytes each, so that one 512-bit (or two 256-bit) register holds all 16 rows
 * and sums stay in their lanes:
 *
 *   INT8, unit u = columns 4u .. 4u+3:        byte 64u + 4r + i
 *         = W[row r][col 4u+i] + 128
 *   INT4, unit u = columns 8u .. 8u+7:        byte 64u + 4r + i
 *         = (W[r][8u+i] + 8)  |  (W[r][8u+4+i] + 8) << 4
 *
 * The value of a weight is q * scale[row][group], group = col / group_cols;
 * the last group of a row may be short. Scales are F16 (positive or zero), by
 * block, then group, then row:     scale[(block * n_groups + group) * 16 + r]
 *
 * A row-wise scale is a group as wide as the row; GLM-130B's N-way
 * tensor-parallel quantisation of column-split matrices is group_cols =
 * cols / N. A matrix with two segments (a GLU's [A; B] halves) holds rows / 2
 * rows in each, and each segment's blocks are counted and filled up on their
 * own, so that block b of A and block b of B are matched row for row.
 *
 * ggml's blocks (Q4_0 and so on) have their scales among the weights and lie by
 * the same rule: 16 rows a block, four bytes of each in 64. quant/blocks.h says
 * what the four bytes are. Their columns are whole blocks.
 *
 * This arrangement is named "rows16" in the model file (sluice.layout).
 */
#ifndef SL_QUANT_MATRIX_H
#define SL_QUANT_MATRIX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "quant/fmt.h"
#include "src/base/error.h"

#ifdef __cplusplus
extern "C" {
#endif

#define SL_LAYOUT_NAME "rows16"

struct sl_matrix {
    enum sl_fmt fmt;
    uint32_t rows, cols; /* of the whole matrix, as in the checkpoint */
    uint32_t n_segments; /* 1, or 2 for a GLU */
    uint32_t group_cols; /* with scales beside: columns a scale; else 0 */
};

/* Sizes are bounded: sl_matrix_check refuses what would overflow.
 * Errors: SL_ERR_CORRUPT naming the number that is off. */
int sl_matrix_check(const struct sl_matrix *m, struct sl_error *err);

uint32_t sl_matrix_segment_rows(const struct sl_matrix *m);
uint32_t sl_matrix_segment_blocks(const struct sl_matrix *m);
/* Scales beside a row; 0 where there are none. */
uint32_t sl_matrix_groups(const struct sl_matrix *m);

/* Bytes of the weights / scales of n_blocks whole blocks of one segment, from
 * the segment's block `first` on (the last block of a float matrix may hold
 * fewer rows, hence fewer bytes). */
uint64_t sl_matrix_block_bytes(const struct sl_matrix *m, uint32_t first,
                               uint32_t n_blocks);
uint64_t sl_matrix_scale_block_bytes(const struct sl_matrix *m,
                                     uint32_t n_blocks);
/* Where block `block` of segment `segment` begins, from the matrix's (the
 * scales') first byte. */
uint64_t sl_matrix_block_offset(const struct sl_matrix *m, uint32_t segment,
                                uint32_t block);
uint64_t sl_matrix_scale_offset(const struct sl_matrix *m, uint32_t segment,
                                uint32_t block);
uint64_t sl_matrix_bytes(const struct sl_matrix *m);
uint64_t sl_matrix_scale_bytes(const struct sl_matrix *m); /* 0: none beside */

/* Decodes one row to floats, exactly (q * scale in FP32; of ggml's blocks what
 * ggml makes of them). w and scale point
 * to the first byte of the block that holds the row; row_in_block < 16.
 * out: (cols) f32. */
void sl_matrix_decode_row(float *out, const struct sl_matrix *m, const void *w,
                          const uint16_t *scale, unsigned row_in_block);

#ifdef __cplusplus
}
#endif

#endif
