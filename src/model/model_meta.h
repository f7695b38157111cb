/*
 * model_meta.h - the metadata of a model file, written and read
 *
 * man/sluice-model.5 lists the keys. Between model_layout.c and modelfile.c.
 */
#ifndef SL_MODEL_META_H
#define SL_MODEL_META_H

#include "src/model/model_layout.h"

/* The whole header with its checksum; *data is moved to the caller (free).
 * Errors: SL_ERR_NOMEM, SL_ERR_CORRUPT naming what is too long. */
int sl_model_meta_write(const struct sl_layout *l, uint8_t **data,
                        size_t *bytes, struct sl_error *err);

/* Architecture, layout and version are ones this program knows.
 * Errors: SL_ERR_UNSUPPORTED, SL_ERR_CORRUPT. */
/* Whether 'sluice convert' wrote it, as far as it says. */
bool sl_model_meta_is_ours(const struct sl_gguf *g);
int sl_model_meta_check(const struct sl_gguf *g, const struct sl_arch **arch,
                        struct sl_error *err);

/* The checksum that the header says it has: with those of all sections under
 * it, it stands for the whole file. */
int sl_model_meta_sum(const struct sl_gguf *g, uint64_t *sum,
                      struct sl_error *err);
/* The header's own checksum, over its bytes with those eight zero. */
int sl_model_meta_check_sum(const struct sl_gguf *g, const uint8_t *data,
                            size_t bytes, struct sl_error *err);

/* The layout the metadata describes, held against the tensors and sections
 * that are listed; checksums of sections filled in.
 * Errors: SL_ERR_CORRUPT naming key, tensor or section; SL_ERR_NOMEM. */
int sl_model_meta_read(struct sl_layout *l, const struct sl_gguf *g,
                       const struct sl_arch *arch, struct sl_error *err);

#endif
