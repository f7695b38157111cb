/*
 * pretok.h - cuts a text into words, within which pieces are merged
 *
 * Steps come one after another, each over all words of the one before. Regular
 * expressions are PCRE2's (UTF, Unicode properties, JIT where there is one);
 * \s is Unicode's White_Space, as for the engines that tokenizers and tiktoken
 * use. What happens to a match is tokenizers' SplitDelimiterBehavior
 * (huggingface/tokenizers src/tokenizer/normalizer.rs, split).
 */
#ifndef SL_PRETOK_H
#define SL_PRETOK_H

#include "src/base/utf8.h"
#include "src/text/vocab.h"

enum sl_pretok_what {
    SL_PRETOK_ISOLATED,    /* a: regex; a match is a word */
    SL_PRETOK_REMOVED,     /* a match is dropped */
    SL_PRETOK_PREVIOUS,    /* a match belongs to the word before it */
    SL_PRETOK_NEXT,        /* or to the one behind it */
    SL_PRETOK_CONTIGUOUS,  /* neighbouring matches are one word */
    SL_PRETOK_BLANK_FIRST, /* a blank is put before what begins with none */
    SL_PRETOK_METASPACE,   /* blanks become a; b: "always", "first", "never"
                              an a is put before what begins with none */
    SL_PRETOK_N,
    SL_PRETOK_INVERT = 256, /* what is not matched counts as matched */
};

struct sl_pretok_word {
    size_t off, n;
};

struct sl_pretok_words { /* borrowed until the next run */
    const char *text;
    const struct sl_pretok_word *v;
    size_t n;
};

struct sl_pretok;

/* Errors: SL_ERR_UNSUPPORTED for an expression that PCRE2 does not take. */
int sl_pretok_create(struct sl_pretok **p, const struct sl_vocab_span *steps,
                     struct sl_error *err);
void sl_pretok_destroy(struct sl_pretok *p); /* NULL is fine */
/* s is UTF-8. first: it begins the whole text. Errors: SL_ERR_UNSUPPORTED when
 * an expression takes more steps than PCRE2 allows. */
int sl_pretok_run(struct sl_pretok *p, struct sl_pretok_words *words,
                  const char *s, size_t n, bool first, struct sl_error *err);

/* The expressions of a pre-tokenizer by the name that GGUF's
 * tokenizer.ggml.pre has, NULL at the end; NULL if it is not known. */
const char *const *sl_pretok_named(const char *name);

#endif
