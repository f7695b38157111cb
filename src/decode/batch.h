/*
 * batch.h - texts that come and go between passes
 *
 * A batch has room for some texts at a time. What is admitted waits until
 * there is room, in order; every step is one pass over the weights that takes
 * what each text under way wants to feed next, whole prompts beside single
 * tokens. So a text costs the passes it needs and no others wait for it.
 *
 *   admit ... admit    step  step  step  admit  step ...    close
 *
 * Room is counted in pages of the KV cache: a text begins when the most that
 * it can grow to is free, so that none that has begun has to stop. A pass that
 * cannot take all takes those first that have waited longest, and lets no long
 * prompt keep others from going on. What comes out of a text depends neither
 * on the others nor on when they came.
 *
 * A text may bring rules of its own (rules.h), be scored, and be cancelled from
 * any thread: struct sl_fill_text.
 *
 * One thread at a time. Texts and what they borrow belong to the caller and
 * stay until they have ended.
 */
#ifndef SL_BATCH_H
#define SL_BATCH_H

#include "src/decode/fill.h"

struct sl_batch_config { /* zeroed but for what is wanted */
    /* borrowed */
    struct sl_lm *lm;
    const struct sl_hparams *hp;
    const struct sl_fill_config *config;
    const struct sl_ids *stops; /* as struct sl_fill_batch has them */
    size_t most;                /* texts under way at a time, > 0 */
    /* For texts that come from many sides: what goes wrong with one, its sink
     * included, ends that one; an interrupted pass ends those that were in it,
     * failed with SL_ERR_INTERRUPTED. */
    bool alone;
    bool rules; /* texts may have rules of their own */
    bool keeps; /* what causal texts have read is kept for others (kept.h) */
    /* Most positions of a causal text that a pass reads; 0: all. */
    uint32_t part_positions;
    uint32_t score_rows; /* rows of logits for texts that are scored, beside
                          * one a text; each takes parts of as many */
    /* Pages of the KV cache that texts may have together; 0: as many as they
     * want. */
    uint64_t n_pages;
    /* A text has ended; NULL: nobody wants to know. May admit others. */
    int (*ended)(void *opaque, struct sl_fill_text *text, struct sl_error *err);
    void *opaque;
};

struct sl_batch;

/* Errors: SL_ERR_NOMEM. */
int sl_batch_create(struct sl_batch **b, const struct sl_batch_config *config,
                    struct sl_error *err);
/* Ends nothing: texts under way or waiting have not ended. NULL is fine. */
void sl_batch_close(struct sl_batch *b);

/* Errors: SL_ERR_BUDGET for a text that could never have its pages, with how
 * many it would need; SL_ERR_NOMEM. The batch goes on. */
int sl_batch_admit(struct sl_batch *b, struct sl_fill_text *text,
                   struct sl_error *err);
/* Lets in what has room, and runs a pass. *more: not all have ended. What is
 * wrong with one text ends that one. An interrupted pass ends all that are
 * under way with what they have, and those that wait with that error. Errors:
 * as sl_fill_all; nothing but close may follow. */
int sl_batch_step(struct sl_batch *b, bool *more, struct sl_error *err);

/* Ends all that is under way or waits as failed for this reason. Errors: those
 * of `ended`. */
int sl_batch_fail(struct sl_batch *b, const struct sl_error *why,
                  struct sl_error *err);

/* What the last step was. */
struct sl_batch_pass {
    uint32_t positions; /* drafts included; 0: there was nothing to do */
    bool reads;         /* a text was read */
};
struct sl_batch_pass sl_batch_last(const struct sl_batch *b);

/* Texts under way, and waiting. */
size_t sl_batch_running(const struct sl_batch *b);
size_t sl_batch_waiting(const struct sl_batch *b);

#endif
