/*
 * vocab_build.h - puts a vocabulary together, from whatever source
 *
 * Readers of files (tokenizer.json, merges.txt, base64 ranks, vocab.txt, a
 * GGUF's metadata) call this one set of functions and know nothing of the
 * blob. Pieces are given as the sources spell them: byte-level ones in GPT-2's
 * alphabet. A merge names pieces that were added before it.
 *
 *     sl_vocab_builder_create -> piece... -> merge... -> added... -> pre
 *         -> stops, prefix, numbers -> sl_vocab_builder_finish -> blob
 */
#ifndef SL_VOCAB_BUILD_H
#define SL_VOCAB_BUILD_H

#include "src/text/vocab.h"
#include "src/text/vocab_kind.h"

#ifdef __cplusplus
extern "C" {
#endif

struct sl_vocab_builder;

/* kind: its name ("byte-bpe"). Errors: SL_ERR_NOMEM, SL_ERR_UNSUPPORTED. */
int sl_vocab_builder_create(struct sl_vocab_builder **b, const char *kind,
                            struct sl_error *err);
void sl_vocab_builder_destroy(struct sl_vocab_builder *b); /* NULL is fine */

/* A piece that the model itself can say. Ids may come in any order and leave
 * holes. Errors: SL_ERR_CORRUPT for an id that is taken or beyond
 * SL_VOCAB_MAX. */
int sl_vocab_add_piece(struct sl_vocab_builder *b, uint32_t id, const char *s,
                       size_t n, enum sl_piece_type type, struct sl_error *err);
/* For a sentencepiece model that has no file of its own (a GGUF's). */
int sl_vocab_set_score(struct sl_vocab_builder *b, uint32_t id, float score,
                       struct sl_error *err);
/* The next merge by rank. Errors: SL_ERR_CORRUPT naming the piece that there
 * is not. */
int sl_vocab_add_merge(struct sl_vocab_builder *b, const char *left,
                       size_t n_left, const char *right, size_t n_right,
                       struct sl_error *err);
/* The same by the ids of both and of what they become. */
int sl_vocab_add_merge_ids(struct sl_vocab_builder *b, uint32_t left,
                           uint32_t right, uint32_t result,
                           struct sl_error *err);
/* What is cut out of a text first; the id may be that of a piece. flags: enum
 * sl_added_flag. Adding the same name again replaces the flags; what
 * is no piece of the model is spelt by its first name. */
int sl_vocab_add_added(struct sl_vocab_builder *b, uint32_t id, const char *s,
                       size_t n, unsigned flags, struct sl_error *err);
/* A step of the normaliser (textnorm.h) or pre-tokenizer (pretok.h). */
int sl_vocab_add_norm(struct sl_vocab_builder *b, uint32_t what, const char *a,
                      size_t n_a, const char *c, size_t n_c,
                      struct sl_error *err);
int sl_vocab_add_split(struct sl_vocab_builder *b, uint32_t what, const char *a,
                       size_t n_a, const char *c, size_t n_c,
                       struct sl_error *err);
/* A pre-tokenizer by the name that tokenizer.ggml.pre has ("gpt-2", "qwen2",
 * "llama-bpe", "glm4", ...). Errors: SL_ERR_UNSUPPORTED. */
int sl_vocab_set_pre(struct sl_vocab_builder *b, const char *name,
                     struct sl_error *err);
/* which: SL_VOCAB_PREFIX, _SUFFIX or _STOPS; an id is listed once. */
int sl_vocab_add_id(struct sl_vocab_builder *b, enum sl_vocab_tag which,
                    int32_t id, struct sl_error *err);
void sl_vocab_clear_ids(struct sl_vocab_builder *b, enum sl_vocab_tag which);
bool sl_vocab_has_ids(const struct sl_vocab_builder *b,
                      enum sl_vocab_tag which);
void sl_vocab_set_control(struct sl_vocab_builder *b,
                          enum sl_vocab_control which, int32_t id);
int32_t sl_vocab_get_control(const struct sl_vocab_builder *b,
                             enum sl_vocab_control which);
void sl_vocab_set_number(struct sl_vocab_builder *b, enum sl_vocab_number which,
                         uint32_t value);
int sl_vocab_set_model(struct sl_vocab_builder *b, const void *model, size_t n,
                       struct sl_error *err);

/* The id of a piece or added token, as the source spells it, or -1. */
int32_t sl_vocab_find(const struct sl_vocab_builder *b, const char *s,
                      size_t n);
/* How the source spells a piece, borrowed until the next is added; nothing
 * for a hole. */
const char *sl_vocab_spelling(const struct sl_vocab_builder *b, uint32_t id,
                              size_t *n);
/* Is it one that is cut out of a text? */
bool sl_vocab_is_added(const struct sl_vocab_builder *b, uint32_t id);
const struct sl_vocab_kind *
sl_vocab_builder_kind(const struct sl_vocab_builder *b);
/* One more than the largest id, of the model's own pieces and of all. */
uint32_t sl_vocab_n_pieces(const struct sl_vocab_builder *b);
uint32_t sl_vocab_n_tokens(const struct sl_vocab_builder *b);

/* *blob is moved to the caller (free). */
int sl_vocab_builder_finish(struct sl_vocab_builder *b, uint8_t **blob,
                            size_t *n, struct sl_error *err);

#ifdef __cplusplus
}
#endif

#endif
