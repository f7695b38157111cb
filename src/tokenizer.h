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

#include "src/base/error.h"
#include "src/hparams.h"

#ifdef __cplusplus
extern "C" {
#endif

struct sl_tokenizer;

struct sl_ids { /* a growing list; zeroed to begin with, owned */
    int32_t *v;
    size_t n, room;
};

/* Errors: SL_ERR_NOMEM. */
int sl_ids_add(struct sl_ids *ids, int32_t id, struct sl_error *err);
void sl_ids_fini(struct sl_ids *ids);

/* model: a serialised sentencepiece model, borrowed for the call. Errors:
 * SL_ERR_CORRUPT when it is none, or when hp's ids do not agree with it. */
int sl_tokenizer_create(struct sl_tokenizer **t, const void *model, size_t n,
                        const struct sl_hparams *hp, struct sl_error *err);
void sl_tokenizer_destroy(struct sl_tokenizer *t);

/* What a sentencepiece model says of itself, for the converter: fills
 * n_tokens and special of hp from the pieces and n_image_tokens, max_blank. */
int sl_tokenizer_describe(struct sl_hparams *hp, const void *model, size_t n,
                          struct sl_error *err);

/* Appends the ids of plain text (UTF-8; bad bytes are replaced). Mask strings
 * are not special here. */
int sl_tokenizer_encode(struct sl_tokenizer *t, struct sl_ids *ids,
                        const char *text, size_t n, struct sl_error *err);

/* SAT's detokenize: cut at special ids, which print as "[name]". *text is
 * moved to the caller (free), zero-terminated. Ids without meaning print
 * nothing. */
int sl_tokenizer_decode(struct sl_tokenizer *t, const int32_t *ids, size_t n,
                        char **text, struct sl_error *err);

#ifdef __cplusplus
}
#endif

#endif
