/*
 * model_hparams.h - hyper-parameters in the metadata of a model file
 *
 * Sizes stand under the architecture's name ("llama.block_count"), by GGUF's
 * keys where it has one. What an architecture derives is written only where a
 * model has something else.
 */
#ifndef SL_MODEL_HPARAMS_H
#define SL_MODEL_HPARAMS_H

#include "src/arch/arch.h"
#include "src/model/gguf.h"

void sl_model_hparams_write(struct sl_gguf_writer *w,
                            const struct sl_arch *arch,
                            const struct sl_hparams *hp);
/* What texts need, under "sluice.tokenizer.". */
void sl_model_text_write(struct sl_gguf_writer *w,
                         const struct sl_text_params *text);

/* What is given of how to sample, under "general.sampling." as llama.cpp has
 * it. */
void sl_model_sampling_write(struct sl_gguf_writer *w,
                             const struct sl_sampling *s);

/* All three, derived; not yet checked (sl_hparams_check). hp is zeroed to begin
 * with. Errors: SL_ERR_CORRUPT, SL_ERR_UNSUPPORTED, naming the key. */
int sl_model_hparams_read(struct sl_hparams *hp, const struct sl_gguf *g,
                          const struct sl_arch *arch, struct sl_error *err);

#endif
