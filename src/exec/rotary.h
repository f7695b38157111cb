/*
 * rotary.h - the rotary table, in the precision the model was trained with
 *
 * Rows of cos and sin for given positions. formats.md 2 "Rotary: precision is
 * part of the model"; SAT model/position_embedding/rotary_embeddings.py.
 */
#ifndef SL_ROTARY_H
#define SL_ROTARY_H

#include <stdint.h>

#include "src/arch/hparams.h"

#define SL_ROTARY_BASE 10000.0

/* cos, sin: (dim / 2) f32 for one position: frequencies base^(-2i / dim). dim
 * is the width that is rotated: the head's, or half of it in a 2-D model. */
void sl_rotary_row(float *cos_row, float *sin_row, enum sl_rotary precision,
                   uint32_t dim, int32_t position);

#endif
