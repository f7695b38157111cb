/*
 * guesses.h - drafts that are as right as a test wants them
 *
 * A guesser knows what a text will say, from a run without drafts, and
 * proposes it, or something else at the places that its kind says.
 */
#ifndef SL_TESTS_GUESSES_H
#define SL_TESTS_GUESSES_H

#include "src/base/ids.h"
#include "src/decode/draft.h"

enum guess {
    GUESS_RIGHT,
    GUESS_WRONG,
    GUESS_RANDOM,   /* right or wrong by chance, and as many as chance says */
    GUESS_WRONG_AT, /* wrong at place `at` of each pass alone */
    /* trees: the right one is brother `at` */
    GUESS_TREE,
    GUESS_TREE_ENDS,  /* and none is from depth `at` on */
    GUESS_TREE_WRONG, /* none ever is */
    GUESS_KINDS,
};

struct guesses {
    enum guess kind;
    uint32_t at;
    uint32_t vocab;
    uint64_t random;
    /* what texts say, one after another: (n_texts), borrowed; texts begin in
     * this order, and again after the last */
    const struct sl_ids *said;
    size_t n_texts, next;
    uint64_t calls; /* of the clock */
};

/* Its create takes a struct guesses. */
extern const struct sl_draft_kind test_guess;

/* A clock by which everything takes the same time: a struct sl_drafts' now. */
uint64_t test_even_time(void *calls);

/* Drafts of this source alone, which the gate always takes, as many as it has:
 * a pass costs the same however many positions it has. */
void test_drafts_init(struct sl_drafts *d, struct guesses *g, uint32_t most);

#endif
