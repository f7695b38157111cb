/*
 * beam.h - GLM-130B's BeamSearchStrategy
 *
 * A pure bookkeeper: it is handed the logits of the live beams and says which
 * beams live on, from which parents and with which tokens
 * (THUDM/GLM-130B generation/strategies.py).
 */
#ifndef SL_BEAM_H
#define SL_BEAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/error.h"
#include "src/decode/sampler.h"

struct sl_beam_config {
    uint32_t n_beams;
    double length_penalty;
    uint32_t no_repeat_ngram; /* 0: off; 1 is off too, as in the reference */
    uint32_t min_gen_length;
    bool deterministic;     /* else candidates are sampled */
    bool consider_end;      /* true for generation */
    const int32_t *end_ids; /* borrowed until destroy */
    size_t n_end_ids;
    const int32_t *banned; /* borrowed until destroy */
    size_t n_banned;
};

struct sl_beam; /* the state of one search */

/* context: (n_context) ids the search starts from, [sop] included; copied. */
int sl_beam_create(struct sl_beam **b, const struct sl_beam_config *config,
                   const int32_t *context, size_t n_context, uint32_t vocab,
                   struct sl_error *err);
void sl_beam_destroy(struct sl_beam *b);

/* Live beams: 1 before the first step, n_beams afterwards. */
size_t sl_beam_n_live(const struct sl_beam *b);
/* The ids of a live beam, context included; borrowed until the next step. */
const int32_t *sl_beam_live(const struct sl_beam *b, size_t i, size_t *n,
                            double *score);
/* logits: (n_live, vocab), changed in place. parents[i] says which of the old
 * beams new beam i continues (array of n_beams). *done: the search is over. */
int sl_beam_step(struct sl_beam *b, float *logits, uint32_t *parents,
                 struct sl_rng *rng, bool *done, struct sl_error *err);
/* Ends the search: unfinished beams join the finished by the same rule. */
int sl_beam_finish(struct sl_beam *b, struct sl_error *err);
/* Finished beams, best first; ids include context and the end token. */
size_t sl_beam_n_finished(const struct sl_beam *b);
const int32_t *sl_beam_finished(const struct sl_beam *b, size_t i, size_t *n,
                                double *score);

#endif
