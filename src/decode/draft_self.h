/*
 * draft_self.h - guesses of the model itself, of the part of it that stays
 *
 * A file in two planes (quant/planes.h) has another model in it: the high
 * planes alone. Its passes (guess of lm.h) read nothing of the disk where
 * these stay in memory. It sees the keys and values of the text as the whole
 * model made them, and puts its own behind them, which are cut off again
 * before the whole model looks: so it needs neither a cache nor a pass of its
 * own to follow the text.
 */
#ifndef SL_DRAFT_SELF_H
#define SL_DRAFT_SELF_H

#include "src/decode/draft.h"
#include "src/exec/lm.h"

/* What sl_draft_self_kind's create takes as arg; borrowed. */
struct sl_draft_self {
    struct sl_lm *lm; /* that the texts are of */
    float *logits;    /* (rows, vocab) */
    uint32_t rows;    /* guesses that are gone on with together, > 0 */
};

extern const struct sl_draft_kind sl_draft_self_kind;

#endif
