/*
 * rotary.h - the rotary table, in the precision the model was trained with
 *
 * Rows of cos and sin for given positions. The precision is a part of the
 * model: over 2048 positions a cosine of FP16 angles is up to 0.88 away from
 * the exact one, and up to 0.49 if only the frequencies were rounded to FP16.
 * THUDM/SwissArmyTransformer model/position_embedding/rotary_embeddings.py:
 * 0.2.x, which GLM-130B pins, rounds the frequencies, and in a run in FP16 all
 * that follows from them; since 2023-05 nothing is rounded.
 */
#ifndef SL_ROTARY_H
#define SL_ROTARY_H

#include <stdint.h>

#include "src/arch/hparams.h"

/* cos, sin: (dim / 2) f32 for one position: frequencies base^(-2i / dim),
 * scaled as hp says. dim is the width that one position turns: rope_dims, or
 * half of them in a 2-D model. factors: (dim / 2) what each frequency is
 * divided by (rope_freqs.weight of ggml-org/llama.cpp), or NULL; only with
 * SL_ROTARY_EXACT. */
void sl_rotary_row(float *cos_row, float *sin_row, const struct sl_hparams *hp,
                   const float *factors, uint32_t dim, int32_t position);

#endif
