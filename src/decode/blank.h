/*
 * blank.h - inside fill: a text on its way, and the blank being filled
 *
 * Neither runs the model. Both say what they want to feed it next and take
 * the logits behind that, so that one driver (fill.c) serves one text or many:
 *
 *   text   blank -> blank -> ... -> ended             (fill_text.c)
 *   blank  prefill -> step -> step -> ... -> done     (blank.c)
 */
#ifndef SL_BLANK_H
#define SL_BLANK_H

#include "src/decode/fill.h"

/* The same for all texts of a batch; borrowed. */
struct sl_fill_common {
    struct sl_lm *lm;
    const struct sl_hparams *hp;
    const struct sl_fill_config *config;
    const int32_t *ends, *banned;
    size_t n_ends, n_banned;
    void *scratch; /* of the sampler */
    uint64_t start_ns;
};

/* Answers of a pass, and items it feeds at once, at most. */
size_t sl_fill_room(const struct sl_fill_config *config);
/* Does a text of n ids leave room for an answer? Errors: SL_ERR_USAGE. */
int sl_fill_check_length(size_t n, const struct sl_hparams *hp,
                         const struct sl_fill_config *config,
                         struct sl_error *err);

/* --- blank -----------------------------------------------------------------
 */

struct sl_blank_answer {
    struct sl_ids ids; /* generated, without the end token */
    double score;
};

struct sl_beams; /* of a beam search: fill_beam.c */

/* [sop] and answer of the blanks before, in order, and where they stand. */
struct sl_pieces {
    struct sl_ids ids, positions, blocks;
};

struct sl_blank {
    /* what to do; borrowed */
    const struct sl_fill_common *c;
    struct sl_rng *rng;
    const struct sl_fill_sink *sink; /* or NULL */
    const struct sl_ids *context;    /* without [sop]; with the mark */
    size_t mask_at;                  /* in context */
    const struct sl_pieces *pieces;  /* fed behind the context */
    bool gmask;
    uint32_t max_new; /* > 0 */
    /* where it stands */
    bool running;       /* between begin and end */
    bool done;          /* wants nothing more */
    int32_t *prefill;   /* ids, positions, blocks until they are fed; owned */
    size_t n_rows;      /* of logits that were asked for */
    uint32_t first_seq; /* takes the context */
    bool has_seq;       /* BaseStrategy: it is alive */
    int32_t last, place[2]; /* BaseStrategy: token, its position and block */
    struct sl_beams *beams;
    /* what came of it; the first is the best */
    struct sl_blank_answer *answers; /* (sl_fill_room), owned */
    size_t n_answers;
    uint64_t n_generated, first_token_ns; /* of all passes of a text */
};

/* Errors: those of the model's seq_create; SL_ERR_NOMEM. */
int sl_blank_begin(struct sl_blank *p, struct sl_error *err);
/* Writes what is to be fed next to items (room for sl_fill_room) and returns
 * how many; what they point to stays until the next call. */
size_t sl_blank_want(struct sl_blank *p, struct sl_lm_item *items);
/* logits: (as many rows as items were wanted, vocab), changed in place.
 * Errors: SL_ERR_CORRUPT when one is not a number; those of the sink and of
 * the model's seq_fork. */
int sl_blank_feed(struct sl_blank *p, float *logits, struct sl_error *err);
/* Makes answers of what there is, done or not. */
int sl_blank_end(struct sl_blank *p, struct sl_error *err);
/* Lets go of the sequences; after end, or instead of it. */
void sl_blank_close(struct sl_blank *p);

/* Positions that the first thing to be fed has: the context and [sop], or what
 * a causal model goes on from; and those that all of them see. */
size_t sl_blank_fed(const struct sl_blank *p);
uint32_t sl_blank_context(const struct sl_blank *p);

/* Positions of the n-th generated token (from 0). block is 0 for 1-D. */
int32_t sl_blank_position(const struct sl_blank *p, size_t n, int32_t *block);

/* fill_base.c and fill_beam.c: the strategies' parts of the above. begin sets
 * first_seq. */
int sl_base_begin(struct sl_blank *p, struct sl_error *err);
size_t sl_base_want(struct sl_blank *p, struct sl_lm_item *items);
int sl_base_feed(struct sl_blank *p, float *logits, struct sl_error *err);
void sl_base_close(struct sl_blank *p);

int sl_beams_begin(struct sl_blank *p, struct sl_error *err);
size_t sl_beams_want(struct sl_blank *p, struct sl_lm_item *items);
int sl_beams_feed(struct sl_blank *p, float *logits, struct sl_error *err);
int sl_beams_end(struct sl_blank *p, struct sl_error *err);
void sl_beams_close(struct sl_blank *p);

/* --- text ------------------------------------------------------------------
 */

struct sl_text {
    struct sl_fill_text *io;
    struct sl_fill_result result;
    struct sl_blank pass;
    struct sl_ids ids;           /* the best answer so far */
    size_t shown_at;             /* its mark that is being filled */
    struct sl_ids context;       /* with config.pieces: the text as it was */
    struct sl_pieces pieces;     /* of it so far */
    struct sl_fill_span *blanks; /* of it */
    size_t n_blanks;
    size_t emitted;  /* ids that went to the sink */
    size_t n_wanted; /* items of the pass being run */
    bool over;       /* ended, well or not */
};

/* Errors: SL_ERR_NOMEM; close it all the same. */
int sl_text_open(struct sl_text *t, const struct sl_fill_common *c,
                 struct sl_fill_text *io, struct sl_error *err);
/* What the text wants to feed next (see sl_blank_want), notes it in n_wanted:
 * 0 when it has ended. Errors: SL_ERR_USAGE for what is wrong with this text
 * alone; others. */
int sl_text_want(struct sl_text *t, struct sl_lm_item *items,
                 struct sl_error *err);
int sl_text_feed(struct sl_text *t, float *logits, struct sl_error *err);
/* Ends a text that is not over with what there is. */
int sl_text_interrupt(struct sl_text *t, struct sl_error *err);
void sl_text_close(struct sl_text *t);

#endif
