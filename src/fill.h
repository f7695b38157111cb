/*
 * fill.h - fills the blanks of a text, one pass of generation for each
 *
 * The first remaining mark of the kind that is filled is the blank; the text
 * with [sop] behind it is the context, all of it visible to all of it; what
 * is generated replaces the mark, and the grown text is the context of the
 * next blank (THUDM/GLM-130B generate.py, evaluation/model.py;
 * reference-behaviour 1.6, 1.7). Works on ids over any struct sl_lm.
 */
#ifndef SL_FILL_H
#define SL_FILL_H

#include "src/beam.h"
#include "src/lm.h"
#include "src/prompt.h"
#include "src/runtime.h"
#include "src/sampler.h"

enum sl_strategy {
    SL_STRATEGY_BASE, /* BaseStrategy: sampling */
    SL_STRATEGY_BEAM, /* BeamSearchStrategy */
};

struct sl_fill_config {
    enum sl_strategy strategy;
    struct sl_sampler_config sampler; /* BaseStrategy only */
    /* BeamSearchStrategy only */
    uint32_t n_beams;
    double length_penalty;
    uint32_t no_repeat_ngram;
    bool deterministic;
    /* both */
    uint32_t min_gen_length; /* no end before so many tokens of a blank */
    uint32_t out_seq_length; /* context, [sop] and answer of a pass together */
};

/* Where the text comes out while it is made: the ids of the best answer, in
 * order, each once, as soon as they are final; blank tells what was generated
 * from what was given. With beams a blank comes when its pass is over. Every
 * blank begins with a call without ids, so an empty one is heard too. */
struct sl_fill_sink {
    int (*ids)(void *opaque, const int32_t *ids, size_t n, bool blank,
               struct sl_error *err);
    void *opaque;
};

struct sl_fill_span {
    size_t begin, end; /* of an answer's ids */
};

struct sl_fill_answer {
    struct sl_ids ids;           /* the whole text, a last </s> left out */
    struct sl_fill_span *blanks; /* what was generated, in order; owned */
    size_t n_blanks;
    double score; /* of the last pass, length-penalised; 0 when sampled */
};

struct sl_fill_result {
    struct sl_fill_answer *answers; /* best first; at least one */
    size_t n_answers;
    uint64_t n_generated;    /* tokens that were chosen, end tokens included */
    uint64_t first_token_ns; /* from the call to the first of them */
    bool interrupted;        /* stopped on request: a part of the text */
};

/* Adds to load (zeroed to begin with) what filling this prompt needs; a NULL
 * prompt stands for the longest there can be. Errors: SL_ERR_USAGE for a text
 * that leaves no room for an answer, naming both numbers. */
int sl_fill_workload(struct sl_workload *load, const struct sl_prompt *prompt,
                     const struct sl_hparams *hp,
                     const struct sl_fill_config *config, struct sl_error *err);

/* sink may be NULL. A run that was interrupted succeeds with what it has.
 * After several blanks all answers share those before the last, so that each
 * reads as one text. Errors: as sl_fill_workload; those of the model;
 * SL_ERR_CORRUPT for logits that are not numbers. */
int sl_fill(struct sl_fill_result *result, struct sl_lm *lm,
            const struct sl_prompt *prompt, const struct sl_hparams *hp,
            const struct sl_fill_config *config, struct sl_rng *rng,
            const struct sl_fill_sink *sink, struct sl_error *err);
void sl_fill_result_fini(struct sl_fill_result *result);

#endif
