/*
 * fill_pass.h - one pass of generation: the answers to one blank
 *
 * fill.c sets a pass up; fill_base.c and fill_beam.c run it.
 */
#ifndef SL_FILL_PASS_H
#define SL_FILL_PASS_H

#include "src/fill.h"

struct sl_pass_answer {
    struct sl_ids ids; /* generated, without the end token */
    double score;
};

struct sl_pass {
    /* what to do; borrowed */
    struct sl_lm *lm;
    const struct sl_hparams *hp;
    const struct sl_fill_config *config;
    struct sl_rng *rng;
    const struct sl_fill_sink *sink; /* or NULL */
    const struct sl_ids *context;    /* without [sop] */
    size_t mask_at;
    bool gmask;
    uint32_t max_new; /* > 0 */
    const int32_t *ends, *banned;
    size_t n_ends, n_banned;
    uint64_t start_ns;
    /* working memory */
    float *logits; /* (n_beams or 1, vocab) */
    void *scratch; /* of the sampler */
    /* what came of it */
    struct sl_pass_answer *answers; /* (room for n_beams or 1), best first */
    size_t n_answers;
    uint64_t n_generated, first_token_ns;
    bool interrupted;
};

int sl_pass_run_base(struct sl_pass *p, struct sl_error *err);
int sl_pass_run_beam(struct sl_pass *p, struct sl_error *err);

/* The first forward of a new sequence: context and [sop]. */
int sl_pass_prefill(struct sl_pass *p, uint32_t seq, struct sl_error *err);
/* Positions of the n-th generated token (from 0). block is 0 for 1-D. */
int32_t sl_pass_position(const struct sl_pass *p, size_t n, int32_t *block);
/* Did forward fail because it was asked to stop? Notes it. */
bool sl_pass_stopped(struct sl_pass *p, const struct sl_error *err);
/* Before tokens are chosen from n_rows of logits: notes the time of the first.
 * Errors: SL_ERR_CORRUPT when a logit is not a number. */
int sl_pass_check(struct sl_pass *p, size_t n_rows, struct sl_error *err);

#endif
