/*
 * textnorm.h - what is done to a text before it is cut into words
 *
 * The normalisers of tokenizer.json (huggingface/tokenizers src/normalizers)
 * as steps, one after another. Unicode's tables are utf8proc's.
 */
#ifndef SL_TEXTNORM_H
#define SL_TEXTNORM_H

#include "src/base/utf8.h"
#include "src/text/vocab.h"

enum sl_textnorm_what {
    SL_NORM_NFC,
    SL_NORM_NFD,
    SL_NORM_NFKC,
    SL_NORM_NFKD,
    SL_NORM_LOWER,         /* character by character */
    SL_NORM_STRIP_ACCENTS, /* what is Mn goes */
    SL_NORM_CLEAN,         /* BERT: no control characters, blanks are ' ' */
    SL_NORM_CJK,           /* BERT: blanks around Chinese characters */
    SL_NORM_REPLACE,       /* every a, literally, becomes b */
    SL_NORM_PREPEND,       /* a before a text that is not empty */
    SL_NORM_STRIP,         /* whitespace at the left if a, at the right if b */
    SL_NORM_N,
};

/* That every step is known. Errors: SL_ERR_CORRUPT. */
int sl_textnorm_check(const struct sl_vocab_span *steps, struct sl_error *err);
/* s is UTF-8; out is emptied first and spare holds what is between two steps.
 * Errors: SL_ERR_NOMEM. */
int sl_textnorm_run(const struct sl_vocab_span *steps, struct sl_str *out,
                    struct sl_str *spare, const char *s, size_t n,
                    struct sl_error *err);

/* Unicode's White_Space. */
bool sl_is_white_space(uint32_t c);
/* Letters, digits, marks and connectors: a regular expression's \w. */
bool sl_is_word(uint32_t c);

#endif
