/*
 * fill.h - fills the blanks of texts, one pass of generation for each blank
 *
 * The first remaining mark of the kind that is filled is the blank; the text
 * with [sop] behind it is the context, all of it visible to all of it; what
 * is generated replaces the mark, and the grown text is the context of the
 * next blank (THUDM/GLM-130B generate.py, evaluation/model.py).
 * Works on ids over any struct sl_lm.
 *
 * A causal model has one blank, which is the end of its text
 * (SL_PROMPT_END): it is fed what stands before, and no [sop].
 *
 *   fill.c        texts filled together
 *   batch.c       ... that come and go between passes (batch.h)
 *   fill_text.c   one text, from blank to blank
 *   blank.c       one blank: what the model is fed next, what came of it
 *   fill_base.c   ... by sampling (strategy.h)
 *   fill_beam.c   ... by beam search
 *   fill_plan.c   what memory that takes
 */
#ifndef SL_FILL_H
#define SL_FILL_H

#include <stdatomic.h>

#include "src/arch/hparams.h"
#include "src/decode/beam.h"
#include "src/decode/draft.h"
#include "src/decode/rules.h"
#include "src/decode/sampler.h"
#include "src/exec/lm.h"
#include "src/exec/workload.h"
#include "src/text/prompt.h"

enum sl_strategy {
    SL_STRATEGY_BASE, /* BaseStrategy: sampling */
    SL_STRATEGY_BEAM, /* BeamSearchStrategy */
};

struct sl_fill_config {
    enum sl_strategy strategy;
    /* BaseStrategy only */
    struct sl_sampler_config sampler;
    uint32_t n_answers;       /* drawn from one context; 0 as 1 */
    struct sl_drafts *drafts; /* guesses that passes take along, and what came
                               * of them; borrowed; NULL: none */
    /* BeamSearchStrategy only */
    uint32_t n_beams;
    double length_penalty;
    uint32_t no_repeat_ngram;
    bool deterministic;
    /* both */
    uint32_t min_gen_length; /* no end before so many tokens of a blank */
    uint32_t out_seq_length; /* context, [sop] and answer of a pass together */
    /* Of a model with positions of two dimensions: the text stays as it is,
     * and every blank follows behind it and behind the blanks before it, which
     * it sees (THUDM/GLM generation_utils.py). Else what fills a blank replaces
     * its mark before the next is filled. */
    bool pieces;
    /* Changes a row of logits (vocab) before a beam's next id is chosen, of
     * whose answer n_said are there; NULL: nothing does. */
    void (*adjust)(void *opaque, const int32_t *said, size_t n_said,
                   float *logits, uint32_t vocab);
    void *adjust_opaque; /* borrowed */
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
/* The same for one text more that is filled together with those that load
 * has. */
int sl_fill_workload_beside(struct sl_workload *load,
                            const struct sl_prompt *prompt,
                            const struct sl_hparams *hp,
                            const struct sl_fill_config *config,
                            struct sl_error *err);
/* Makes a load do for another one too. */
void sl_fill_workload_cover(struct sl_workload *load,
                            const struct sl_workload *other);

/* A text of a batch. */
struct sl_fill_text {
    /* borrowed */
    const struct sl_prompt *prompt;
    struct sl_rng *rng;              /* no other text's */
    const struct sl_fill_sink *sink; /* or NULL */
    /* what a text may have of its own; zeroed: nothing */
    const struct sl_fill_config *config; /* else the batch's; of no more
                                          * answers, and the same drafts */
    struct sl_rules *rules;              /* of one answer that is drawn; all
                                          * texts of sl_fill_all, or none */
    const struct sl_ids *given; /* ids that its first answer begins with; not
                                 * of a causal model */
    /* Ids of what is fed, context and [sop] and what is given, from here on
     * are scored: the id `at` is, the rules have its chance. 0: none. */
    uint32_t score_from;
    int (*scored)(void *sinks_opaque, uint32_t at, struct sl_error *err);
    bool only_scored;             /* nothing is chosen */
    const atomic_bool *cancelled; /* set: it ends before the next pass, failed
                                   * with SL_ERR_INTERRUPTED */
    /* how far it is: ids of its first context, which are read, of which were
     * known before */
    uint32_t n_prompt, n_read, n_kept;
    /* what came of it, once ended: the result, or where something was wrong
     * with this text alone why it has none */
    bool ended, failed;
    struct sl_fill_result result; /* owned by the caller when ended */
    struct sl_error err;
};

/* All of a batch: filled with one model under the same rules. */
struct sl_fill_batch {
    struct sl_lm *lm;
    const struct sl_hparams *hp;
    const struct sl_fill_config *config;
    const struct sl_ids *stops; /* that end an answer too, beside eop and
                                 * </s>; NULL: none */
    struct sl_fill_text *texts;
    size_t n_texts;
    /* Called when a text has ended; NULL: nobody wants to know. */
    int (*ended)(void *opaque, size_t text, struct sl_error *err);
    void *opaque;
};

/* Fills all texts, each at its own pace: every forward pass takes what each of
 * them wants to feed next, whole prompts beside single tokens, so that all
 * share its pass over the weights. What comes out of a text does not depend on
 * the others. A run that was interrupted succeeds with what it has. After
 * several blanks all answers of a text share those before the last, so that
 * each reads as one text. A text's own error: as sl_fill_workload. Errors:
 * those of the model, the sinks and `ended`; SL_ERR_CORRUPT for logits that
 * are not numbers. What has ended by then stays. */
int sl_fill_all(const struct sl_fill_batch *batch, struct sl_error *err);

/* Fills one text; its own error is the function's. sink may be NULL. */
int sl_fill(struct sl_fill_result *result, struct sl_lm *lm,
            const struct sl_prompt *prompt, const struct sl_hparams *hp,
            const struct sl_fill_config *config, struct sl_rng *rng,
            const struct sl_fill_sink *sink, struct sl_error *err);
void sl_fill_result_fini(struct sl_fill_result *result);

#endif
