/*
 * bench_texts.h - what a bench decodes where it guesses ahead
 *
 * Texts go on from the prompts of a bench, greedily, each as long as the
 * others, all in one pass while all go on; guesses go through the gate as they
 * do when texts are generated.
 */
#ifndef SL_BENCH_TEXTS_H
#define SL_BENCH_TEXTS_H

#include "src/decode/draft.h"
#include "src/exec/lm.h"

struct sl_bench_texts;

/* For n texts behind prompts of so many positions, of a model with positions of
 * two dimensions or one. lm and drafts are borrowed. Errors: SL_ERR_NOMEM. */
int sl_bench_texts_create(struct sl_bench_texts **t, struct sl_lm *lm,
                          struct sl_drafts *drafts, uint32_t n, uint32_t prompt,
                          bool two_d, struct sl_error *err);
void sl_bench_texts_destroy(struct sl_bench_texts *t); /* NULL is fine */

/* The sequences (n) hold the prompts, ids (n, prompt), and logits (n, vocab)
 * are those behind them. Runs the pass of the first token. */
int sl_bench_texts_begin(struct sl_bench_texts *t, const uint32_t *seqs,
                         const int32_t *ids, const float *logits,
                         struct sl_error *err);
/* Goes on with gen tokens of each. */
int sl_bench_texts_run(struct sl_bench_texts *t, uint32_t gen,
                       struct sl_error *err);

#endif
