/*
 * decoder.h - what most of today's decoders have in common
 *
 * RMS norms before attention and MLP, a gate under SiLU, rotation of q and k,
 * a cache of fewer heads, causal. Llama, Qwen and GLM-4 are this with other
 * names and a few settings of their own, which their files give.
 *
 *   a = x + W_o att(rms(x));  x = a + W_down(silu(W_gate y) * (W_up y)),
 *   y = rms(a)
 *
 * (huggingface/transformers models/llama/modeling_llama.py, models/glm4)
 */
#ifndef SL_DECODER_H
#define SL_DECODER_H

#include "src/arch/arch.h"
#include "src/arch/settings.h"

/* Tensors under the names of Hugging Face, or ChatGLM's own; biases, q and k
 * norms and sandwich norms where hp has them; experts in place of the MLP. */
#define SL_DECODER_LAYER_ROWS  28u
#define SL_DECODER_MODEL_ROWS  4u
#define SL_DECODER_EXPERT_ROWS 2u
extern const struct sl_tensor_row sl_decoder_layer_rows[SL_DECODER_LAYER_ROWS];
extern const struct sl_tensor_row sl_decoder_model_rows[SL_DECODER_MODEL_ROWS];
extern const struct sl_tensor_row
    sl_decoder_expert_rows[SL_DECODER_EXPERT_ROWS];

/* A layer's router, its shared expert and the chosen ones. */
extern const struct sl_stage_ops sl_decoder_mixture;
/* The operations; with norms of what is added where hp->post_norms. */
const struct sl_layer_table *sl_decoder_layers(const struct sl_hparams *hp);

/* The fixed part of hp; rope: which pairs are turned, unless hp says so. */
void sl_decoder_derive(struct sl_hparams *hp, enum sl_rope rope);

/* What a Hugging Face config.json says under its usual names: sizes, eps, rope
 * with its scaling, tie_word_embeddings. rope_part: which part of a head is
 * rotated unless partial_rotary_factor says so. untied: where the file does
 * not say. */
int sl_decoder_configure(struct sl_hparams *hp, const struct sl_settings *s,
                         double rope_part, bool untied, struct sl_error *err);

/* *v, if the setting is there (sl_settings_f64). */
int sl_decoder_read_f32(float *v, const struct sl_settings *s, const char *keys,
                        enum sl_setting need, struct sl_error *err);

/* The same of a mixture of experts: how many there are, how they are chosen. */
void sl_decoder_derive_experts(struct sl_hparams *hp);
int sl_decoder_configure_experts(struct sl_hparams *hp,
                                 const struct sl_settings *s,
                                 struct sl_error *err);

#endif
