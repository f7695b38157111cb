/*
 * planes.h - an INT8 matrix as two planes of four bits
 *
 * q in -119 .. 119 is 16 high + low, high = floor((q + 8) / 16) in -7 .. 7 and
 * low in -8 .. 7. Both planes are laid out as INT4 matrices of the same shape
 * (quant/matrix.h draws them):
 *
 *   high, unit u = columns 8u .. 8u+7:        byte 64u + 4r + i
 *         = (high[r][8u+i] + 8)  |  (high[r][8u+4+i] + 8) << 4
 *   low   the same of low
 *
 * They share the scales of the INT8 matrix, beside the high plane. Joined
 * again they are that matrix, to the bit; the high plane alone, times 16, is
 * an INT4 model of the same weights, and its scales were chosen for that
 * (SL_SCALE_PLANES of pack.h).
 */
#ifndef SL_QUANT_PLANES_H
#define SL_QUANT_PLANES_H

#include "quant/matrix.h"

#define SL_PLANES_MOST 119 /* the largest integer that has both planes */
#define SL_PLANE_STEP  16  /* what one of the high plane stands for */

/* Either plane of an INT8 matrix, as a matrix of its own. */
struct sl_matrix sl_matrix_plane(const struct sl_matrix *m);

/* Blocks of INT8 weights (whole ones, so many bytes of them) to half as many
 * bytes of each plane. Every q lies in -SL_PLANES_MOST .. SL_PLANES_MOST. */
void sl_planes_split(uint8_t *high, uint8_t *low, const uint8_t *w,
                     size_t bytes);
/* And back. to: bytes of INT8. */
void sl_planes_join(uint8_t *to, const uint8_t *high, const uint8_t *low,
                    size_t bytes);

/* out[i] = column i of a row, without its scale; high and low are the row's
 * first bytes. out: (cols) f32. */
void sl_planes_load(float *out, const uint8_t *high, const uint8_t *low,
                    uint32_t cols);

#endif
