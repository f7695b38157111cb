/*
 * stages.h - what the planner must know of a model's stages
 */
#ifndef SL_STAGES_H
#define SL_STAGES_H

#include "offload/plan.h"
#include "src/exec/kvcache.h"
#include "src/exec/partition.h"
#include "src/model/modelfile.h"

/* The stages of a cut, for plan_input.stages. kv: the whole cache as the CPU
 * would hold it; a GPU holds the same pages in FP16. *stages is moved to the
 * caller (free). Errors: SL_ERR_NOMEM. */
int sl_stages_make(struct sl_plan_stage **stages, size_t *n_stages,
                   const struct sl_modelfile *mf,
                   const struct sl_partition *partition,
                   const struct sl_kv_config *kv, struct sl_error *err);

/* Whether a GPU can attend as the model does: latents may be too wide. */
bool sl_stages_device_attends(const struct sl_hparams *hp);

/* Operations of a layer's attention for a position and a key that it sees: for
 * each head a dot product with the key, and its values added; of a latent the
 * values are its first kv_lora. */
double sl_key_ops(const struct sl_hparams *hp);

/* Bytes of a matrix's weights as FP16, which a GPU may make of them to multiply
 * them with many positions; 0 where it never does, or always. */
double sl_stage_wide_bytes(const struct sl_matrix *m);

#endif
