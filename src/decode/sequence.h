/*
 * sequence.h - a request on its way, as a pass over the weights sees it
 *
 * A request runs no model. It says what it wants to feed next and takes the
 * logits behind that; a stepper puts what many of them feed into one pass:
 *
 *   next - offer - want - (forward) - feed - next - ...      until it is over
 *
 * Texts with blanks are requests (blank.h), and so is a conversation's turn
 * (causal.c). Each keeps to itself where it stands, so that drafts and batches
 * need to know nothing of what it is.
 */
#ifndef SL_SEQUENCE_H
#define SL_SEQUENCE_H

#include <stdbool.h>

#include "src/decode/draft.h"
#include "src/exec/lm.h"

struct sl_sequence {
    const struct sl_sequence_ops *ops; /* every request embeds this first */
    bool over;                         /* ended, well or not */
    /* of what is fed next; next sets them, and want again where drafts add to
     * them */
    bool reads;     /* a text is read, none is gone on with */
    size_t n_items; /* of the pass */
    uint32_t n_positions, n_rows;
    uint32_t n_tokens; /* that the last feed chose */
    uint32_t to_come;  /* passes that go on reading the text */
};

struct sl_sequence_ops {
    /* Goes on to what is fed next, or to the end. Errors: SL_ERR_USAGE for
     * what is wrong with this request alone; others. */
    int (*next)(struct sl_sequence *s, struct sl_error *err);
    /* Drafts that each item could take along, at most `most`: (n_items).
     * NULL: none ever. */
    void (*offer)(struct sl_sequence *s, struct sl_offer *offers,
                  uint32_t most);
    /* Writes the items, with at most so many drafts each (n_items; NULL: none).
     * What they point to stays until feed. */
    int (*want)(struct sl_sequence *s, struct sl_lm_item *items,
                const struct sl_deal *drafts, struct sl_error *err);
    /* logits: (n_rows, vocab), changed in place. Errors: SL_ERR_CORRUPT when
     * one that counts is not a number; those of the sink and of seq_fork. */
    int (*feed)(struct sl_sequence *s, float *logits, struct sl_error *err);
};

/* Puts what requests feed into passes, and drafts with it where they pay. */
struct sl_stepper {
    /* borrowed */
    struct sl_lm *lm;
    struct sl_drafts *drafts; /* or NULL */
    /* owned */
    struct sl_lm_item *items; /* (n_items) */
    struct sl_offer *offers;  /* (n_items) */
    struct sl_deal *deals;    /* (n_items) */
    float *logits;            /* (n_rows, vocab) */
    size_t n_items, n_rows;
    bool interrupted; /* the pass that failed last was, and nobody's sink */
};

/* For requests that have at most so many items and rows of logits together,
 * drafts left out: for those there are as many rows more as the model has room
 * for. Set lm and drafts before. Errors: SL_ERR_NOMEM. */
int sl_stepper_init(struct sl_stepper *p, size_t n_items, size_t n_rows,
                    struct sl_error *err);
void sl_stepper_fini(struct sl_stepper *p); /* a zeroed one is fine */
/* Rows of logits for drafts, beside those of n_rows. */
uint32_t sl_stepper_draft_rows(const struct sl_lm *lm,
                               const struct sl_drafts *drafts, size_t n_rows);

/* One pass for requests that want something. Errors: those of the model (after
 * SL_ERR_INTERRUPTED they stand where they stood, and interrupted is set) and
 * of feed. */
int sl_stepper_run(struct sl_stepper *p, struct sl_sequence *const *seqs,
                   size_t n, struct sl_error *err);

#endif
