/*
 * logits_input.h - the token ids that `sluice logits` is asked about
 *
 * A JSON object, or a list of such: {"ids": [...]} for a causal model; for
 * one whose context sees all of itself {"context": [...], "answer": [...]}
 * with "positions" (two lists for a model of two dimensions) or
 * "mask_position".
 */
#ifndef SL_LOGITS_INPUT_H
#define SL_LOGITS_INPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/arch/hparams.h"
#include "src/base/error.h"

/* Ids and positions of context and answer; rows of logits are wanted for the
 * ids of the answer. */
struct sl_logits_sample {
    int32_t *ids, *positions, *blocks; /* (n); blocks NULL unless 2-D */
    uint32_t n, n_context;
    bool causal; /* was given as "ids" */
};

struct sl_logits_input {
    struct sl_logits_sample *samples; /* owned */
    size_t n;
};

/* path: "-" is standard input. *in may be set in part when the call fails.
 * Errors: SL_ERR_IO, SL_ERR_CORRUPT naming the object, SL_ERR_NOMEM. */
int sl_logits_input_read(struct sl_logits_input *in, const char *path,
                         struct sl_error *err);
void sl_logits_input_fini(struct sl_logits_input *in);

/* That the model knows these ids, and positions of that kind. Errors:
 * SL_ERR_CORRUPT naming the object. */
int sl_logits_input_check(const struct sl_logits_input *in,
                          const struct sl_hparams *hp, const char *path,
                          struct sl_error *err);

#endif
