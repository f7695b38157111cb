/*
 * workload.h - what a run asks of memory
 */
#ifndef SL_WORKLOAD_H
#define SL_WORKLOAD_H

#include <stdint.h>

/* What the longest run will need; the budget is planned for it. */
struct sl_workload {
    uint32_t n_sequences;    /* of a text, alive at the same time (beams) */
    uint32_t max_tokens;     /* of one sequence: context, [sop], answer */
    uint32_t shared_tokens;  /* leading tokens that a text's sequences share */
    uint32_t pass_positions; /* most positions in one pass */
    uint32_t pass_logits;    /* most rows of logits in one pass */
    uint32_t n_texts;        /* at the same time; 0 is 1 */
};

#endif
