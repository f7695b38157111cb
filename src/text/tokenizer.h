/*
 * tokenizer.h - text to ids and back, whatever the vocabulary
 *
 * Which kind it is (sentencepiece with and without icetk's rules, byte-level
 * BPE, WordPiece: vocab_kind.h) is nobody's business here. A vocabulary is the
 * blob that the model file holds (vocab.h), or, in files of GLM-130B, a bare
 * sentencepiece model with icetk's numbers in the metadata.
 *
 * Special ids are those of control tokens: they are never made from a plain
 * text. Other added tokens ("<think>") are text. One thread at a time.
 */
#ifndef SL_TOKENIZER_H
#define SL_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/arch/text_params.h"
#include "src/base/error.h"
#include "src/base/ids.h"

#ifdef __cplusplus
extern "C" {
#endif

struct sl_tokenizer;

/* data: a compiled vocabulary or a serialised sentencepiece model, borrowed
 * for the call. vocab: rows of the embedding. Errors: SL_ERR_CORRUPT when it
 * is none, or when the ids of tp do not agree with it. */
int sl_tokenizer_create(struct sl_tokenizer **t, const void *data, size_t n,
                        const struct sl_text_params *tp, uint32_t vocab,
                        struct sl_error *err);
void sl_tokenizer_destroy(struct sl_tokenizer *t); /* NULL is fine */

/* What a vocabulary says of itself, for the converter: fills n_tokens and
 * special of tp. A compiled one also fills whitespace, n_image_tokens,
 * max_blank and byte_fallback, which a bare one is read by. */
int sl_tokenizer_describe(struct sl_text_params *tp, const void *data, size_t n,
                          struct sl_error *err);

/* Appends the ids of plain text (UTF-8; what is none is replaced). Mask
 * strings and other special tokens are text here. Errors: SL_ERR_NOMEM. */
int sl_tokenizer_encode(struct sl_tokenizer *t, struct sl_ids *ids,
                        const char *text, size_t n, struct sl_error *err);
/* The same, special tokens by their names ("<|user|>", "[gMASK]") becoming
 * their ids: for templates and for prompts that a person writes as such. */
int sl_tokenizer_encode_special(struct sl_tokenizer *t, struct sl_ids *ids,
                                const char *text, size_t n,
                                struct sl_error *err);

/* --- ids ------------------------------------------------------------------
 */

const char *sl_tokenizer_kind(const struct sl_tokenizer *t);
/* Memory that encoding takes for each byte of a text, about the most. */
uint32_t sl_tokenizer_cost(const struct sl_tokenizer *t);
/* Bytes that no text of so many tokens has more of. */
size_t sl_text_most_bytes(uint32_t n_tokens);
/* Ids below this mean something, but for holes. */
uint32_t sl_tokenizer_n_tokens(const struct sl_tokenizer *t);
/* The id of a special or added token by its name, -1 where there is none. */
int32_t sl_tokenizer_find(const struct sl_tokenizer *t, const char *name);
bool sl_tokenizer_is_special(const struct sl_tokenizer *t, int32_t id);
/* A token as its source spells it ("Ġworld", "▁the", "##ing"), terminated; as
 * much as fits, and how many bytes it has. Nothing for a hole. */
size_t sl_tokenizer_piece(const struct sl_tokenizer *t, int32_t id, char *buf,
                          size_t room);
/* Borrowed lists. Stops: where an answer ends, any of them. Prefix and suffix:
 * what stands before and behind a text that is fed to the model. */
const struct sl_ids *sl_tokenizer_stops(const struct sl_tokenizer *t);
const struct sl_ids *sl_tokenizer_prefix(const struct sl_tokenizer *t);
const struct sl_ids *sl_tokenizer_suffix(const struct sl_tokenizer *t);

/* --- text of ids ----------------------------------------------------------
 */

enum sl_specials {
    SL_SPECIALS_SHOWN, /* by their names; GLM-130B's in brackets */
    SL_SPECIALS_HIDDEN,
};

/* *text is moved to the caller (free), zero-terminated; special ids are shown.
 * Ids without meaning print nothing. A model can write a zero byte: where that
 * matters use sl_detok. */
int sl_tokenizer_decode(struct sl_tokenizer *t, const int32_t *ids, size_t n,
                        char **text, struct sl_error *err);
int sl_tokenizer_decode_as(struct sl_tokenizer *t, enum sl_specials specials,
                           const int32_t *ids, size_t n, char **text,
                           size_t *n_text, struct sl_error *err);

/* The same for a list that grows: text comes out as soon as no later id can
 * change it, never in the middle of a character. All pieces together are what
 * sl_tokenizer_decode says of all ids. */
struct sl_detok;

int sl_detok_create(struct sl_detok **d, struct sl_tokenizer *t,
                    struct sl_error *err);
int sl_detok_create_as(struct sl_detok **d, struct sl_tokenizer *t,
                       enum sl_specials specials, struct sl_error *err);
void sl_detok_destroy(struct sl_detok *d); /* NULL is fine */
/* *text: (*n_text) bytes that are now final, borrowed until the next call. */
int sl_detok_push(struct sl_detok *d, const int32_t *ids, size_t n,
                  const char **text, size_t *n_text, struct sl_error *err);
/* What is left; the next push begins a new list. */
int sl_detok_end(struct sl_detok *d, const char **text, size_t *n_text,
                 struct sl_error *err);

#ifdef __cplusplus
}
#endif

#endif
