/*
 * workload.h - what a run asks of memory
 */
#ifndef SL_WORKLOAD_H
#define SL_WORKLOAD_H

#include <stdbool.h>
#include <stdint.h>

/* What the longest run will need; the budget is planned for it. */
struct sl_workload {
    uint32_t n_sequences;    /* of a text, alive at the same time (beams) */
    uint32_t max_tokens;     /* of one sequence: context, [sop], answer */
    uint32_t shared_tokens;  /* leading tokens that a text's sequences share */
    uint32_t pass_positions; /* most positions in one pass */
    uint32_t pass_logits;    /* most rows of logits in one pass */
    uint32_t n_texts;        /* at the same time; 0 is 1 */
    /* Guesses that a pass of generation may take along, each a position and a
     * row of logits beside those above, and the memory of guessing. Optional:
     * fewer or none where they would raise the least budget, or take memory
     * from weights so that a pass reads more (0.5 % and more). */
    uint32_t draft_positions;
    /* Of a tree of guesses that takes several passes; 0: a tree is all in one
     * pass, and there is none where draft_positions is not more than one. */
    uint32_t tree_positions;
    uint64_t draft_bytes;
    bool draft_optional;
    /* Guesses are the model's own, without low planes (draft_self.h): all else
     * stays in memory. */
    bool draft_keeps;
    /* Positions that such guesses may be ahead of a text's while its passes
     * wait (guess_ahead of lm.h), of one text and sequence; 0: none are. */
    uint32_t draft_ahead;
    /* Pages of the KV cache that all sequences have together at most, where
     * that is less than as many as each could grow to; 0: it is not. */
    uint32_t kv_pages;
    uint64_t beside_bytes; /* that the caller takes for what is no model's */
};

/* Positions of the largest tree of guesses; 0: there is none. */
static inline uint32_t sl_workload_tree(const struct sl_workload *w)
{
    if (w->tree_positions > 0)
        return w->tree_positions;
    return w->draft_positions > 1 ? w->pass_positions : 0;
}

#endif
