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

/* cos, sin: (dim / 2) f32 for one position: frequencies base^(-2i / dim),
 * scaled as hp says. dim is the width that one position turns: rope_dims, or
 * half of them in a 2-D model. */
void sl_rotary_row(float *cos_row, float *sin_row, const struct sl_hparams *hp,
                   uint32_t dim, int32_t position);

#endif
