/*
 * sampler.h - one token from one row of logits (GLM-130B's BaseStrategy)
 *
 * temperature, banned ids, top_k (ties kept), top_p (the crossing token
 * kept), softmax, one draw (SAT 0.2.12 generation/sampling_strategies).
 * All in FP32/FP64.
 */
#ifndef SL_SAMPLER_H
#define SL_SAMPLER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/error.h"

#define SL_BANNED (-65504.0f) /* the logit of a token that must not come */

/* xoshiro256** seeded through splitmix64 (Blackman, Vigna 2018): the same
 * stream everywhere. */
struct sl_rng {
    uint64_t s[4];
};

void sl_rng_seed(struct sl_rng *rng, uint64_t seed);
double sl_rng_uniform(struct sl_rng *rng); /* [0, 1) with 53 bits */
/* Goes 2^128 numbers on: to a stream that does not meet the one before
 * (jump of prng.di.unimi.it/xoshiro256starstar.c). */
void sl_rng_jump(struct sl_rng *rng);
/* The same by 2^192: past all streams that jumps lead to (long_jump there). */
void sl_rng_jump_far(struct sl_rng *rng);

struct sl_sampler_config {
    double temperature; /* > 0 */
    uint32_t top_k;     /* 0: off */
    double top_p;       /* 0: off */
};

/* Applies temperature and both filters in place: what is filtered becomes
 * SL_BANNED. scratch: (vocab) pairs, see sl_sampler_scratch_bytes. */
void sl_sampler_filter(float *logits, uint32_t vocab,
                       const struct sl_sampler_config *config, void *scratch);
size_t sl_sampler_scratch_bytes(uint32_t vocab);

/* Draws from softmax(logits). The largest logit wins ties of rounding; with
 * one survivor no random number matters. */
int32_t sl_sampler_draw(const float *logits, uint32_t vocab,
                        struct sl_rng *rng);

/* Index of the largest (the first of equals). */
int32_t sl_argmax(const float *logits, uint32_t vocab);

#endif
