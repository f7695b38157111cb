/*
 * witness.h - texts of which every logit is remembered
 *
 * Runs of one text over a model, to be compared bit by bit with other runs of
 * it.
 */
#ifndef SL_TESTS_WITNESS_H
#define SL_TESTS_WITNESS_H

#include "src/base/ids.h"
#include "src/decode/fill.h"
#include "tests/arch_models.h"

#define TEST_TEXT_LENGTH 40 /* at most, with what it begins with */

/* A model over another one that remembers the logits behind each position, as
 * they were computed last: those that chose what follows. */
struct witness {
    struct sl_lm lm; /* first */
    struct sl_lm *inner;
    uint32_t seq, held; /* the text's: guesses may have another */
    int32_t from;       /* where what chose its first word stands */
    float *rows;        /* (TEST_TEXT_LENGTH + 1, vocab) */
};

/* What a run said, and of what. */
struct said {
    struct sl_ids ids;
    float *rows;
    uint32_t n_rows;
    struct sl_rng rng;
    bool interrupted; /* a part of it */
};

/* With special ids where the model has blanks. */
struct sl_hparams test_hparams_of(const struct test_model *m);
/* Where position i of an item stands in its text: one of the two goes on, word
 * by word. */
int32_t test_stands_at(const struct sl_lm_item *item, uint32_t i);
/* A text with its blank in the middle, or (gmask, or a causal model) a
 * beginning that is gone on with. w sees it. Errors: sl_fill's; s is to be
 * given back all the same. */
int test_speak_to(struct said *s, struct witness *w, struct sl_lm *inner,
                  const struct sl_hparams *hp,
                  const struct sl_fill_config *config, bool gmask,
                  struct sl_error *err);
struct said test_speak(struct sl_lm *inner, const struct sl_hparams *hp,
                       const struct sl_fill_config *config, bool gmask);
void test_said_fini(struct said *s);
/* The same ids, random numbers and logits. */
void test_check_same(const struct said *a, const struct said *b,
                     uint32_t vocab);

#endif
