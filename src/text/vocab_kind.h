/*
 * vocab_kind.h - kinds of vocabulary: one file each, ending in a const table
 *
 * tokenizer.c does what they have in common (what is not UTF-8, added tokens,
 * special ids); a kind turns a stretch of plain text into ids, and a run of
 * ids into text.
 */
#ifndef SL_VOCAB_KIND_H
#define SL_VOCAB_KIND_H

#include "src/base/ids.h"
#include "src/base/utf8.h"
#include "src/text/vocab.h"

#ifdef __cplusplus
extern "C" {
#endif

struct sl_tokenizer;

/* Where a stretch of text stands. */
struct sl_section {
    bool first;   /* at the very beginning */
    bool special; /* special tokens count as such, not as text */
};

struct sl_vocab_kind {
    const char *name;
    uint32_t code;   /* in the blob */
    bool byte_level; /* pieces are spelt in GPT-2's alphabet */
    uint32_t cost;   /* memory that encode takes for a byte, about the most */

    /* Fills t->impl from t->vocab, whose sections were checked. */
    int (*open)(struct sl_tokenizer *t, struct sl_error *err);
    void (*close)(void *impl);
    /* Appends the ids of UTF-8 text without added tokens. */
    int (*encode)(struct sl_tokenizer *t, struct sl_ids *ids, const char *s,
                  size_t n, struct sl_section at, struct sl_error *err);
    /* Does the id stand apart from the run around it, as special ones do? 1
     * and appends what it is shown as, or 0. NULL: control pieces and those
     * that are not the model's do. */
    int (*label)(const struct sl_tokenizer *t, uint32_t id, struct sl_str *out,
                 struct sl_error *err);

    /* A run of ordinary ids: what is final of its text is appended to out.
     * end gives out what is left, and the next id begins a new run: behind an
     * id that stands apart, or, if last, a new list. */
    int (*run_create)(void **run, struct sl_tokenizer *t, struct sl_error *err);
    void (*run_destroy)(void *run);
    int (*run_push)(void *run, const int32_t *ids, size_t n, struct sl_str *out,
                    struct sl_error *err);
    int (*run_end)(void *run, bool last, struct sl_str *out,
                   struct sl_error *err);
};

extern const struct sl_vocab_kind sl_vocab_icetk;
extern const struct sl_vocab_kind sl_vocab_sentencepiece;
extern const struct sl_vocab_kind sl_vocab_byte_bpe;
extern const struct sl_vocab_kind sl_vocab_char_bpe;
extern const struct sl_vocab_kind sl_vocab_wordpiece;

/* NULL where there is none. */
const struct sl_vocab_kind *sl_vocab_kind_at(size_t n);
const struct sl_vocab_kind *sl_vocab_kind_find(const char *name);
const struct sl_vocab_kind *sl_vocab_kind_of(uint32_t code);

#ifdef __cplusplus
}
#endif

#endif
