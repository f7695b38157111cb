/*
 * draft_self.h - guesses of the model itself, of the part of it that stays
 *
 * A file in two planes (quant/planes.h) has another model in it: the high
 * planes alone. Its passes (guess of lm.h) read nothing of the disk where
 * these stay in memory. It sees the keys and values of the text as the whole
 * model made them, and puts its own behind them, which are cut off again
 * before the whole model looks: so it needs neither a cache nor a pass of its
 * own to follow the text.
 *
 * While a pass waits for the disk, guesses go on behind those that it takes,
 * as if all of them and the likeliest word after them were right (guess_ahead
 * of lm.h), on a sequence that shares the text's pages. Where they were, the
 * next pass's guesses are there when this one ends; else they are discarded.
 */
#ifndef SL_DRAFT_SELF_H
#define SL_DRAFT_SELF_H

#include "src/decode/draft.h"
#include "src/exec/lm.h"

/* Guesses that are made while a pass runs, at most, behind those that it takes
 * and what it will say itself. */
#define SL_DRAFT_AHEAD 16u

/* What sl_draft_self_kind's create takes as arg; borrowed. */
struct sl_draft_self {
    struct sl_lm *lm; /* that the texts are of */
    float *logits;    /* (rows, vocab) */
    uint32_t rows;    /* guesses that are gone on with together, > 0 */
    /* Of guesses that go on while a pass runs: positions that these may be
     * ahead of a text's, sl_draft_self_span or 0: there are none; and a row
     * (vocab) of logits. lm is of one text then. */
    uint32_t ahead;
    float *ahead_row;
};

/* Positions that guesses may be ahead of a text, of whose passes takes `most`.
 */
uint32_t sl_draft_self_span(uint32_t most);

extern const struct sl_draft_kind sl_draft_self_kind;

#endif
