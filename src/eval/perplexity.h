/*
 * perplexity.h - how well a model knows texts, alone and against another
 *
 * A text goes through windows that overlap (build.h); every id is scored once.
 */
#ifndef SL_EVAL_PERPLEXITY_H
#define SL_EVAL_PERPLEXITY_H

#include "src/eval/eval.h"

struct sl_perplexity {
    uint64_t n_tokens, n_scored, n_words, n_bytes;
    double loss;             /* natural, of all that was scored */
    double per_token, error; /* and its standard error */
    double per_word, bits_per_byte;
    double adjusted; /* THUDM/GLM's: by tokens a word of the original text */
    /* against another model; n_scored values */
    bool against;
    double other_per_token;
    double divergence, divergence_median, divergence_99, divergence_most;
    double same_top; /* share, 0 to 1 */
};

/* Of some files of a task of type lm whose units are all done. Errors: SL_ERR_
 * NOMEM. */
int sl_perplexity_of(struct sl_perplexity *p, const struct sl_eval_task *t,
                     size_t first_file, size_t n_files, struct sl_error *err);

#endif
