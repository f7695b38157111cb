/*
 * lora.h - low-rank adapters (LoRA) in the form that PEFT writes
 *
 *     DIR/adapter_config.json   r, lora_alpha, use_rslora, ...
 *     DIR/adapter_model.safetensors, or .bin
 *         base_model.model.MODULE.lora_A.weight   (r, in)
 *         base_model.model.MODULE.lora_B.weight   (out, r)
 *
 * MODULE.weight is a checkpoint's name of a matrix or of some of its rows
 * (arch.h: name, alias, parts); with it W becomes W + s B A, where s is alpha
 * / r, with rslora alpha / sqrt(r) (huggingface/peft tuners/lora/layer.py).
 *
 * All adapters of a model are one pair for each matrix of it: their A above
 * one another, their B, each times its s and what the user says, side by side,
 * zero in rows that they do not have:
 *
 *     W x + B A x      A (rank, cols), B (rows, rank), rank: the sum of all r
 *
 * The converter adds the product to weights, the executor to products.
 */
#ifndef SL_LORA_H
#define SL_LORA_H

#include "src/arch/arch.h"
#include "src/base/log.h"

#define SL_LORA_MOST 16u /* adapters at a time */

/* --lora PATH[:SCALE] */
struct sl_lora_arg {
    const char *path; /* borrowed */
    float scale;
};

struct sl_lora;

/* Opens n > 0 adapters of a model; model is its name in messages. Borrows the
 * paths and hp. Errors: as sl_ckpt_open; SL_ERR_UNSUPPORTED naming a setting or
 * a module that is none of the layers' matrices, SL_ERR_CORRUPT naming a
 * tensor, its shape and the model's. */
int sl_lora_open(struct sl_lora **l, const struct sl_lora_arg *args, size_t n,
                 const struct sl_arch *arch, const struct sl_hparams *hp,
                 const char *model, const struct sl_log *log,
                 struct sl_error *err);
void sl_lora_close(struct sl_lora *l); /* NULL is fine */

/* The rank of what is added to a matrix; 0: nothing is. l may be NULL. */
uint32_t sl_lora_rank(const struct sl_lora *l, enum sl_slot slot,
                      uint32_t layer);
/* Memory that reading takes beside. */
#define SL_LORA_READ_BYTES (1u << 20)
/* a: (rank, cols), b: (rows, rank) f32 of a matrix whose rank is not 0. Errors:
 * SL_ERR_IO, SL_ERR_NOMEM; SL_ERR_CORRUPT naming a tensor whose numbers are not
 * finite. */
int sl_lora_read(const struct sl_lora *l, enum sl_slot slot, uint32_t layer,
                 float *a, float *b, struct sl_error *err);

#endif
