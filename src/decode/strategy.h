/*
 * strategy.h - ways to fill a blank: a table
 *
 * A strategy owns the sequences of a blank and chooses what they go on with.
 * It runs no model: the blank (blank.h) asks it what it wants to feed, and
 * hands it the logits.
 *
 *   fill_base.c   BaseStrategy: tokens are drawn, one answer or several
 *   fill_beam.c   BeamSearchStrategy
 */
#ifndef SL_STRATEGY_H
#define SL_STRATEGY_H

#include "src/decode/draft.h"
#include "src/decode/fill.h"

struct sl_blank;

struct sl_strategy_ops {
    const char *name; /* as --sampling-strategy has it */
    /* Answers of a blank, and sequences it has at the same time, at most. */
    uint32_t (*room)(const struct sl_fill_config *config);
    /* Sets first_seq, which takes the context. Errors: those of seq_create;
     * SL_ERR_NOMEM. */
    int (*begin)(struct sl_blank *b, struct sl_error *err);
    /* Sequences that go on, each an item of the next pass. */
    size_t (*n_live)(const struct sl_blank *b);
    /* Drafts of each of these; NULL: it takes none. */
    void (*offer)(struct sl_blank *b, struct sl_offer *offers, uint32_t most);
    /* Writes their items, and counts positions and rows of logits into the
     * blank. drafts: at most so many of each; NULL: none. */
    int (*want)(struct sl_blank *b, struct sl_lm_item *items,
                const struct sl_deal *drafts, struct sl_error *err);
    /* Takes the logits of all rows, the first time the one behind the context.
     */
    int (*feed)(struct sl_blank *b, float *logits, struct sl_error *err);
    /* Makes answers of what there is, the best first. */
    int (*end)(struct sl_blank *b, struct sl_error *err);
    /* Lets go of all sequences; after begin, even one that failed. */
    void (*close)(struct sl_blank *b);
    bool speaks; /* hands its tokens to the sink one by one */
};

extern const struct sl_strategy_ops sl_strategy_base, sl_strategy_beam;

/* By enum sl_strategy; ends in NULL. */
extern const struct sl_strategy_ops *const sl_strategies[];

static inline const struct sl_strategy_ops *
sl_strategy_of(const struct sl_fill_config *config)
{
    return sl_strategies[config->strategy];
}

#endif
