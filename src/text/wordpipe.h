/*
 * wordpipe.h - from a stretch of text to its words
 *
 * What BPE and WordPiece have in common: normalise, cut out the added tokens
 * that are looked for in the normalised text, cut the rest into words.
 */
#ifndef SL_WORDPIPE_H
#define SL_WORDPIPE_H

#include "src/base/ids.h"
#include "src/text/added.h"
#include "src/text/pretok.h"
#include "src/text/vocab_kind.h"

struct sl_wordpipe { /* zeroed to begin with */
    const struct sl_vocab *v;
    struct sl_added added;
    struct sl_pretok *pretok;
    struct sl_str text, spare;
};

typedef int sl_word_fn(void *opaque, struct sl_ids *ids, const char *s,
                       size_t n, struct sl_error *err);

int sl_wordpipe_init(struct sl_wordpipe *w, const struct sl_vocab *v,
                     struct sl_error *err);
void sl_wordpipe_fini(struct sl_wordpipe *w);
/* Calls word for each of them, in order, and adds added tokens between. */
int sl_wordpipe_run(struct sl_wordpipe *w, struct sl_ids *ids, const char *s,
                    size_t n, struct sl_section at, sl_word_fn *word,
                    void *opaque, struct sl_error *err);

#endif
