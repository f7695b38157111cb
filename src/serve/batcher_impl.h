/*
 * batcher_impl.h - what the files of the batcher share
 *
 *   batcher.c        passes: who is in them, what becomes of their rows
 *   batcher_line.c   texts that only look back, and what they leave behind
 *   batcher_fill.c   texts with blanks
 *   batcher_rows.c   a row of logits: chances, penalties, the choice
 */
#ifndef SL_BATCHER_IMPL_H
#define SL_BATCHER_IMPL_H

#include <pthread.h>

#include "src/serve/batcher.h"

/* Keys and values that an ended text has left. */
struct sl_left {
    uint32_t seq;
    struct sl_ids ids; /* that it holds */
    uint64_t used;     /* pass */
};

struct sl_batcher {
    struct sl_batcher_config c;
    struct sl_gen **active; /* (max_active), first come first */
    uint32_t n_active;
    struct sl_left *left; /* (max_active) */
    uint32_t n_left;
    struct sl_ids banned, ends;
    struct sl_lm_item *items;    /* (max_active) */
    struct sl_gen **in_pass;     /* (max_active) whose they are */
    int32_t *positions, *blocks; /* (pass_positions) */
    size_t n_items;
    uint32_t n_positions, n_rows; /* of the pass that is being made */
    float *logits;                /* (pass_logits, vocab) */
    float *raw;                   /* (vocab) a row before it is shaped */
    uint8_t *seen;                /* (vocab / 8 + 1) */
    void *scratch;                /* the sampler's */
    pthread_mutex_t lock;         /* of the following, and of in_pass while */
    bool running;                 /* a pass runs */
    struct sl_batcher_stats stats;
};

/* Ends a text: its sink hears, its sequence goes or is left. */
void sl_batcher_end(struct sl_batcher *e, struct sl_gen *g, enum sl_gen_end how,
                    const struct sl_error *err);

/* -- each kind: begin; what it feeds next, as an item of the pass (n_fed 0:
 * there is no room for it); take its rows; let go of its sequences -- */
int sl_line_begin(struct sl_batcher *e, struct sl_gen *g, struct sl_error *err);
void sl_line_want(struct sl_batcher *e, struct sl_gen *g, uint32_t room,
                  uint32_t rows);
int sl_line_feed(struct sl_batcher *e, struct sl_gen *g, float *row,
                 struct sl_error *err);
void sl_line_close(struct sl_batcher *e, struct sl_gen *g, bool keep);
/* Gives the oldest sequence that was left back. False: there is none. */
bool sl_line_drop_left(struct sl_batcher *e);

int sl_fill_begin(struct sl_batcher *e, struct sl_gen *g, struct sl_error *err);
/* 1: the text has ended. */
int sl_fill_want(struct sl_batcher *e, struct sl_gen *g, uint32_t room,
                 struct sl_error *err);
int sl_fill_feed(struct sl_batcher *e, struct sl_gen *g, float *row,
                 struct sl_error *err);
void sl_fill_close(struct sl_batcher *e, struct sl_gen *g);

/* -- batcher_rows.c -- */

/* Errors: SL_ERR_CORRUPT for what is no number. */
int sl_row_check(const float *row, uint32_t vocab, struct sl_error *err);
/* Remembers a row for sl_row_tell, where the gen wants logprobs. */
void sl_row_keep(struct sl_batcher *e, struct sl_gen *g, const float *row);
/* Makes g->token: this id and how likely it was in the row that was kept. */
void sl_row_tell(struct sl_batcher *e, struct sl_gen *g, int32_t id);
/* Bias, penalties (of what is in ids) and the rule. */
void sl_row_shape(struct sl_batcher *e, struct sl_gen *g, float *row,
                  const int32_t *ids, size_t n, size_t n_prompt);

#endif
