/*
 * question.h - what a model is asked: log-probabilities of given ids
 *
 * A question is a tree of two levels. Its root is the context, whose first
 * n_context positions see each other; branches go on behind it, each seeing
 * the root and itself: GLM-130B's block-diagonal sequence of all choices, of
 * which the context is computed once.
 *
 *   root    t t t t M s          asks: first id of every choice
 *   branch            c c c      asks: its other ids
 *   branch            c c
 *
 * Where many questions begin alike, a stem before their roots is computed once
 * for all of them.
 */
#ifndef SL_EVAL_QUESTION_H
#define SL_EVAL_QUESTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/error.h"

/* The log-probability of an id behind position `at` of a strand. */
struct sl_ask {
    uint32_t at;
    int32_t id;
    uint32_t to; /* where it goes in the question's logp */
};

struct sl_strand {
    int32_t *ids; /* (n) owned */
    uint32_t n, n_context;
    /* Positions: start, start + 1, ... of the first n_run, then held. */
    uint32_t n_run;
    int32_t start, held;
    /* Second positions of a 2-D model: 0, from block_from on block, ... */
    uint32_t block_from;
    int32_t block;
    struct sl_ask *asks; /* (n_asks) owned, in order of at */
    uint32_t n_asks;
    /* the packer's */
    uint32_t fed, seq, other_seq;
    bool live; /* has a sequence */
};

/* Ids that several questions begin with. */
struct sl_stem {
    struct sl_strand strand; /* asks nothing */
    uint32_t n_users;        /* the packer's: questions that it has */
};

struct sl_question {
    struct sl_strand *strands; /* (n_strands) owned; the first is the root */
    uint32_t n_strands;
    struct sl_stem *stem; /* borrowed, or NULL */
    double *logp;         /* (n_logp) owned: natural logarithms */
    uint8_t *top;         /* (n_logp) owned: no other id is likelier */
    uint32_t n_logp;
    /* Against another model (pack.h): its log-probabilities, how far it is
     * (Kullback-Leibler, of the other's distribution from this one's), whether
     * both like the same id best. (n_logp) owned, NULL where nobody asks. */
    double *other_logp, *divergence;
    uint8_t *same_top;
    bool truncated; /* its context lost its beginning */
    /* the packer's */
    uint64_t n_pages;
    uint32_t n_open; /* strands that are not fed to their end */
};

/* Room for so many strands and log-probabilities. Errors: SL_ERR_NOMEM. */
int sl_question_init(struct sl_question *q, uint32_t n_strands, uint32_t n_logp,
                     struct sl_error *err);
/* Room for what another model says. Errors: SL_ERR_NOMEM. */
int sl_question_init_other(struct sl_question *q, struct sl_error *err);
void sl_question_fini(struct sl_question *q); /* a zeroed one is fine */
/* Room for so many ids and asks. Errors: SL_ERR_NOMEM. */
int sl_strand_init(struct sl_strand *s, uint32_t n, uint32_t n_asks,
                   struct sl_error *err);
void sl_strand_fini(struct sl_strand *s);

/* Positions that it takes, its stem left out; the longest sequence with it. */
uint64_t sl_question_positions(const struct sl_question *q);
uint32_t sl_question_longest(const struct sl_question *q);
/* Pages of the KV cache. */
uint64_t sl_question_pages(const struct sl_question *q);

#endif
