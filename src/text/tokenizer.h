/*
 * tokenizer.h - text to ids and back, by icetk's rules over sentencepiece
 *
 * ids = sentencepiece id + n_image_tokens. After the pieces of the model come
 * the control pieces, <|tab|>, <|blank_2|>.. and the bytes, appended to the
 * serialised model (icetk; SwissArmyTransformer tokenization/icetk_glm_130B;
 * reference.py class Tokenizer). C++ behind a C face. One thread at a time.
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

/* model: a serialised sentencepiece model, borrowed for the call. vocab: rows
 * of the embedding. Errors: SL_ERR_CORRUPT when it is none, or when the ids of
 * tp do not agree with it. */
int sl_tokenizer_create(struct sl_tokenizer **t, const void *model, size_t n,
                        const struct sl_text_params *tp, uint32_t vocab,
                        struct sl_error *err);
void sl_tokenizer_destroy(struct sl_tokenizer *t);

/* What a sentencepiece model says of itself, for the converter: fills
 * n_tokens and special of tp from the pieces and n_image_tokens, max_blank,
 * byte_fallback. */
int sl_tokenizer_describe(struct sl_text_params *tp, const void *model,
                          size_t n, struct sl_error *err);

/* Appends the ids of plain text (UTF-8; bad bytes are replaced). Mask strings
 * are not special here. */
int sl_tokenizer_encode(struct sl_tokenizer *t, struct sl_ids *ids,
                        const char *text, size_t n, struct sl_error *err);

/* SAT's detokenize: cut at special ids, which print as "[name]". *text is
 * moved to the caller (free), zero-terminated. Ids without meaning print
 * nothing. A model can write a zero byte: where that matters use sl_detok. */
int sl_tokenizer_decode(struct sl_tokenizer *t, const int32_t *ids, size_t n,
                        char **text, struct sl_error *err);

/* The same for a list that grows: text comes out as soon as no later id can
 * change it, never in the middle of a character. All pieces together are what
 * sl_tokenizer_decode says of all ids. */
struct sl_detok;

int sl_detok_create(struct sl_detok **d, struct sl_tokenizer *t,
                    struct sl_error *err);
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
