/*
 * wikitext.h - WikiText as it was written
 *
 * WikiText's *.tokens files have a blank around every token. Models are asked
 * about the text that these were made of, by the rules that zero-shot
 * evaluations have used since Megatron-LM (tasks/zeroshot_gpt/detokenizer.py;
 * THUDM/GLM tasks/language_model/detokenizer.py).
 */
#ifndef SL_EVAL_WIKITEXT_H
#define SL_EVAL_WIKITEXT_H

#include <stdbool.h>
#include <stddef.h>

#include "src/base/error.h"
#include "src/base/str.h"

/* Whether a file of this name is one: *.tokens. */
bool sl_wikitext_is_name(const char *name);
/* *out, which is empty: the text without these blanks. Errors: SL_ERR_NOMEM. */
int sl_wikitext_join(struct sl_str *out, const char *text, size_t n,
                     struct sl_error *err);

#endif
