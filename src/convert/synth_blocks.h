/*
 * synth_blocks.h - heads of pseudo-random blocks
 *
 * Of ggml's blocks any bytes are codes and sub codes; what is left to be said
 * are the scales that make weights of them (quant/blocks.h).
 */
#ifndef SL_SYNTH_BLOCKS_H
#define SL_SYNTH_BLOCKS_H

#include "quant/matrix.h"

/* The root mean square of a format's weights for d = 1, all codes and sub
 * codes as likely as the others, minima such that the mean is near zero. */
double sl_synth_blocks_unit(enum sl_fmt fmt);

/* Puts scales of about d (within a factor of 1.5) and their minima where n
 * bytes from byte off of a tensor on, random so far, are heads. off and n are
 * multiples of 64. */
void sl_synth_blocks_heads(uint8_t *out, const struct sl_matrix *m, float d,
                           uint64_t off, size_t n);

#endif
