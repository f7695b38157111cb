/*
 * vocab_read.h - one file or two of a publisher's, into a builder
 *
 * Each function makes a builder (destroy it) out of a file's bytes; file is
 * its name in messages. What the folder says beside (special tokens, stops) is
 * vocab_folder.c's. Errors: SL_ERR_CORRUPT, SL_ERR_UNSUPPORTED naming all that
 * is not supported, SL_ERR_NOMEM.
 */
#ifndef SL_VOCAB_READ_H
#define SL_VOCAB_READ_H

#include <jansson.h>

#include "src/text/vocab_build.h"

/* tokenizer.json of Hugging Face's tokenizers: BPE and WordPiece. */
int sl_vocab_read_json(struct sl_vocab_builder **b, const char *data, size_t n,
                       const char *file, struct sl_error *err);
/* GPT-2's and RoBERTa's vocab.json and merges.txt. */
int sl_vocab_read_merges(struct sl_vocab_builder **b, const char *vocab,
                         size_t n_vocab, const char *merges, size_t n_merges,
                         const char *file, struct sl_error *err);
/* tiktoken: a line a token, base64 of its bytes and its rank. pre: the
 * pre-tokenizer's name. */
bool sl_vocab_is_ranks(const char *data, size_t n);
int sl_vocab_read_ranks(struct sl_vocab_builder **b, const char *data, size_t n,
                        const char *pre, const char *file,
                        struct sl_error *err);
/* BERT's vocab.txt: a line a piece. lower: the uncased rules. */
int sl_vocab_read_wordpiece(struct sl_vocab_builder **b, const char *data,
                            size_t n, bool lower, const char *file,
                            struct sl_error *err);
/* A serialised sentencepiece model as it is. */
int sl_vocab_read_sp(struct sl_vocab_builder **b, const char *data, size_t n,
                     const char *file, struct sl_error *err);

/* --- pieces of them --------------------------------------------------------
 */

/* A list of what is not supported, for one message. */
struct sl_unsupported {
    char list[160];
};
void sl_unsupported_add(struct sl_unsupported *u, const char *where,
                        const char *what);

/* The normalizer and pre_tokenizer of tokenizer.json. */
int sl_vocab_read_norms(struct sl_vocab_builder *b, struct sl_unsupported *u,
                        const json_t *norm, struct sl_error *err);
int sl_vocab_read_splits(struct sl_vocab_builder *b, struct sl_unsupported *u,
                         const json_t *pre, struct sl_error *err);
/* Its post_processor: prefix and suffix. */
int sl_vocab_read_template(struct sl_vocab_builder *b, struct sl_unsupported *u,
                           const json_t *post, struct sl_error *err);
/* {"token": id, ...} */
int sl_vocab_read_pieces(struct sl_vocab_builder *b, const json_t *vocab,
                         const char *file, struct sl_error *err);
/* BERT's normaliser and pre-tokenizer. */
int sl_vocab_add_bert(struct sl_vocab_builder *b, bool clean, bool cjk,
                      bool accents, bool lower, struct sl_error *err);
int sl_vocab_add_bert_splits(struct sl_vocab_builder *b, struct sl_error *err);

/* The value of a key, NULL where it is missing or null. */
const json_t *sl_json_find(const json_t *object, const char *key);
/* A key's string, "" where there is none. */
const char *sl_json_text_of(const json_t *object, const char *key);
bool sl_json_true(const json_t *object, const char *key, bool otherwise);

#endif
