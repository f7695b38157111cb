/*
 * pack.h - questions in passes over the weights
 *
 * A pass takes what fits of all questions under way, then begins others: the
 * contexts of some go with the choices of those before them, so that nobody
 * waits. What comes of a question depends neither on the others of its pass
 * nor on how many these are: a strand is cut, where it must be, by its own
 * rows of logits alone.
 *
 * Of logits nothing is kept beyond a pass: each row is reduced to the
 * log-probabilities that were asked for.
 */
#ifndef SL_EVAL_PACK_H
#define SL_EVAL_PACK_H

#include "src/base/pool.h"
#include "src/eval/question.h"
#include "src/exec/lm.h"

struct sl_pack_config {
    /* borrowed */
    struct sl_lm *lm;
    struct sl_lm *other;  /* asked the same; NULL: none */
    struct sl_pool *pool; /* NULL: one thread */
    bool two;             /* positions have two dimensions */
    uint32_t positions;   /* most of a pass */
    uint32_t rows;        /* of logits, most of a pass */
    uint32_t most_live;   /* questions under way */
    uint64_t n_pages;     /* of the KV cache */
    /* The next question: *q NULL: none now. wait: nothing is under way, so that
     * finding one may take its time, and NULL ends the run. Errors end the
     * run. */
    int (*next)(void *opaque, struct sl_question **q, bool wait,
                struct sl_error *err);
    /* A question is over. Errors end the run. */
    int (*done)(void *opaque, struct sl_question *q, struct sl_error *err);
    /* A pass of so many positions and rows of logits is over; may be NULL.
     * Errors end the run. */
    int (*passed)(void *opaque, uint32_t positions, uint32_t rows,
                  struct sl_error *err);
    void *opaque;
};

/* Rows of logits after which a strand is cut: of the vocabulary alone, so that
 * a score depends on no budget. */
uint32_t sl_pack_chunk_rows(uint32_t vocab);

/* What questions ask of memory together. */
struct sl_pack_needs {
    uint32_t longest;   /* sequence */
    uint32_t positions; /* least of a pass: the longest piece of a strand */
    uint32_t rows;      /* least of a pass */
    uint64_t pages;     /* of the largest question and its stem */
    uint32_t sequences; /* of the one with most */
    /* in all, stems included */
    uint64_t n_questions, n_positions, n_rows, n_pages;
};

/* Takes questions into account. stem: NULL, or one to count. */
void sl_pack_measure(struct sl_pack_needs *needs, const struct sl_question *q,
                     uint32_t vocab);
void sl_pack_measure_stem(struct sl_pack_needs *needs,
                          const struct sl_stem *stem);

/* Runs what config->next has to ask, in order as far as it fits. Errors: those
 * of the model, of `next` and `done`; SL_ERR_CORRUPT for logits that are not
 * numbers. Sequences are let go of whatever happens. */
int sl_pack_ask(const struct sl_pack_config *config, struct sl_error *err);

#endif
