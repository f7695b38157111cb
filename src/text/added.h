/*
 * added.h - cuts added tokens out of a text
 *
 * As huggingface/tokenizers src/tokenizer/added_vocabulary.rs: from the left,
 * the longest first, tokens of the raw text before those that are looked for
 * in the normalised one.
 */
#ifndef SL_ADDED_H
#define SL_ADDED_H

#include "src/base/utf8.h"
#include "src/text/vocab.h"

struct sl_added_token {
    char *s; /* owned */
    size_t n;
    uint32_t id;
    unsigned flags; /* enum sl_added_flag */
};

struct sl_added {             /* zeroed to begin with */
    struct sl_added_token *v; /* by first byte, the longer before the shorter */
    size_t n;
    uint32_t from[257]; /* where those of a first byte begin */
};

/* Those whose SL_ADDED_NORMALIZED is as said, normalised by steps if so. */
int sl_added_init(struct sl_added *a, const struct sl_vocab *v, bool normalized,
                  struct sl_error *err);
void sl_added_fini(struct sl_added *a); /* leaves it zeroed */

/* The next token in UTF-8 s[from..n): true and what it takes. Special ones
 * only if special. */
struct sl_added_hit {
    uint32_t id;
    size_t begin, end; /* with the whitespace it takes along */
};
bool sl_added_find(const struct sl_added *a, struct sl_added_hit *hit,
                   const char *s, size_t n, size_t from, bool special);

#endif
