/*
 * blank.h - inside fill: a text on its way, and the blank being filled
 *
 * Neither runs the model. A text is a request (sequence.h): it says what it
 * wants to feed next and takes the logits behind that, so that one stepper
 * serves one text or many:
 *
 *   text   blank -> blank -> ... -> ended             (fill_text.c)
 *   blank  prefill -> step -> step -> ... -> done     (blank.c)
 *
 * What a step is, the blank's strategy says (strategy.h).
 */
#ifndef SL_BLANK_H
#define SL_BLANK_H

#include "src/decode/fill.h"
#include "src/decode/kept.h"
#include "src/decode/sequence.h"
#include "src/decode/strategy.h"

/* The same for all texts of a batch; borrowed. */
struct sl_fill_common {
    struct sl_lm *lm;
    const struct sl_hparams *hp;
    const struct sl_fill_config *config;
    const int32_t *ends, *banned;
    size_t n_ends, n_banned;
    void *scratch;              /* of the sampler */
    struct sl_rules_room *room; /* NULL: no text has rules of its own */
    struct sl_kept *kept;       /* NULL: nothing is kept */
    /* Most positions of a causal text, and rows of one that is scored, that a
     * pass reads; 0: all. */
    uint32_t part_positions, part_rows;
    bool alone; /* what goes wrong with a text ends it and no other */
    uint64_t start_ns;
};

/* Does a text of n ids leave room for an answer? Errors: SL_ERR_USAGE. */
int sl_fill_check_length(size_t n, const struct sl_hparams *hp,
                         const struct sl_fill_config *config,
                         struct sl_error *err);

/* Appends the ids that must not be generated. */
int sl_fill_list_banned(struct sl_ids *banned, const struct sl_hparams *hp,
                        uint32_t vocab, struct sl_error *err);

/* --- blank -----------------------------------------------------------------
 */

struct sl_blank_answer {
    struct sl_ids ids; /* generated, without the end token */
    double score;
};

struct sl_beams;  /* of a beam search: fill_beam.c */
struct sl_voices; /* of answers that are drawn: fill_base.c */

/* [sop] and answer of the blanks before, in order, and where they stand. */
struct sl_pieces {
    struct sl_ids ids, positions, blocks;
};

struct sl_blank {
    /* what to do; borrowed */
    const struct sl_fill_common *c;
    const struct sl_strategy_ops *strategy;
    struct sl_rng *rng;
    const struct sl_fill_sink *sink; /* or NULL */
    const struct sl_ids *context;    /* without [sop]; with the mark */
    size_t mask_at;                  /* in context */
    const struct sl_pieces *pieces;  /* fed behind the context */
    const struct sl_ids *given;      /* what the answer begins with, or NULL */
    struct sl_rules *rules;          /* or NULL */
    uint32_t score_from;             /* as struct sl_fill_text has them */
    int (*scored)(void *sinks_opaque, uint32_t at, struct sl_error *err);
    bool gmask;
    uint32_t max_new; /* 0: nothing is chosen */
    /* where it stands */
    bool running;       /* between begin and end */
    bool done;          /* wants nothing more */
    bool spoilt;        /* what its sequence holds is of no use */
    int32_t *prefill;   /* ids, positions, blocks until they are fed; owned */
    uint32_t n_read;    /* of it */
    uint32_t n_part;    /* goes into the next pass; 0: not known yet */
    uint32_t first_seq; /* takes the context */
    uint32_t n_positions, n_rows; /* that want asked for */
    uint32_t n_tokens;            /* that the last feed chose */
    struct sl_beams *beams;
    struct sl_voices *voices;
    /* what came of it; the first is the best */
    struct sl_blank_answer *answers; /* (the strategy's room), owned */
    size_t n_answers;
    uint64_t n_generated, first_token_ns; /* of all passes of a text */
};

/* Errors: those of the model's seq_create; SL_ERR_NOMEM. */
int sl_blank_begin(struct sl_blank *p, struct sl_error *err);
/* Items of what is to be fed next. */
size_t sl_blank_n_items(const struct sl_blank *p);
/* As struct sl_sequence_ops has them. */
void sl_blank_offer(struct sl_blank *p, struct sl_offer *offers, uint32_t most);
int sl_blank_want(struct sl_blank *p, struct sl_lm_item *items,
                  const struct sl_deal *drafts, struct sl_error *err);
int sl_blank_feed(struct sl_blank *p, float *logits, struct sl_error *err);
/* For strategies, before tokens are chosen from so many rows: notes the time
 * of the first. Errors: SL_ERR_CORRUPT when a logit is not a number. */
int sl_blank_check(struct sl_blank *p, const float *logits, size_t n_rows,
                   struct sl_error *err);
/* Makes answers of what there is, done or not. */
int sl_blank_end(struct sl_blank *p, struct sl_error *err);
/* Lets go of the sequences; after end, or instead of it. */
void sl_blank_close(struct sl_blank *p);

/* Positions that the first thing to be fed has: the context and [sop], or what
 * a causal model goes on from; and those that all of them see. */
size_t sl_blank_fed(const struct sl_blank *p);
/* How many of these the next pass reads, and the rows of logits of it. */
uint32_t sl_blank_part(struct sl_blank *p, uint32_t *rows);
/* Ids that the answer begins with. */
size_t sl_blank_n_given(const struct sl_blank *p);
uint32_t sl_blank_context(const struct sl_blank *p);

/* Positions of the n-th generated token (from 0). block is 0 for 1-D. */
int32_t sl_blank_position(const struct sl_blank *p, size_t n, int32_t *block);

/* --- text ------------------------------------------------------------------
 */

struct sl_text {
    struct sl_sequence seq; /* first: it is a request */
    struct sl_fill_text *io;
    struct sl_fill_result result;
    struct sl_blank pass;
    struct sl_ids ids;           /* the best answer so far */
    size_t shown_at;             /* its mark that is being filled */
    struct sl_ids context;       /* with config.pieces: the text as it was */
    struct sl_pieces pieces;     /* of it so far */
    struct sl_fill_span *blanks; /* of it */
    size_t n_blanks;
    size_t emitted; /* ids that went to the sink */
};

/* Errors: SL_ERR_NOMEM; close it all the same. */
int sl_text_open(struct sl_text *t, const struct sl_fill_common *c,
                 struct sl_fill_text *io, struct sl_error *err);
/* Ends a text that is not over with what there is. */
int sl_text_interrupt(struct sl_text *t, struct sl_error *err);
/* Ends it with nothing but an error. */
void sl_text_fail(struct sl_text *t, const struct sl_error *err);
void sl_text_close(struct sl_text *t);

#endif
