#include "config.h"

#include "src/arch/decoder.h"

/* GLM-4.7-Flash: GLM-4.5's mixture of experts behind attention to a latent of
 * keys and values (huggingface/transformers models/glm4_moe_lite/
 * modeling_glm4_moe_lite.py). Its latents' norms have an eps of their own,
 * whatever rms_norm_eps says; in a GGUF file, which knows one eps, they have
 * that (ggml-org/llama.cpp src/models/deepseek2.cpp). */

#define LATENT_EPS 1e-6f

static const char *const hf_names[] = {"Glm4MoeLiteForCausalLM",
                                       "glm4_moe_lite", NULL};

/* One head of keys for all, as wide as the latent and what is rotated of it:
 * that row is all that the cache holds of a position (multi-head latent
 * attention, DeepSeek-V2, arXiv 2405.04434, 2.1). */
static void derive(struct sl_hparams *hp)
{
    sl_decoder_derive(hp, SL_ROPE_INTERLEAVED);
    sl_decoder_derive_experts(hp);
    hp->no_qkv_bias = true;
    if (hp->kv_lora == 0)
        return;
    hp->n_kv_heads = 1;
    hp->head_dim = hp->kv_lora + hp->rope_dims;
    if (hp->latent_eps == 0)
        hp->latent_eps = LATENT_EPS;
}

static int configure(struct sl_hparams *hp, const struct sl_settings *s,
                     struct sl_error *err)
{
    bool bias = false;

    if (sl_decoder_configure(hp, s, 1, true, err) ||
        sl_settings_u32(&hp->q_lora, s, "q_lora_rank", SL_SETTING_REQUIRED,
                        err) ||
        sl_settings_u32(&hp->kv_lora, s, "kv_lora_rank", SL_SETTING_REQUIRED,
                        err) ||
        sl_settings_u32(&hp->nope_dims, s, "qk_nope_head_dim",
                        SL_SETTING_REQUIRED, err) ||
        sl_settings_u32(&hp->rope_dims, s, "qk_rope_head_dim",
                        SL_SETTING_REQUIRED, err) ||
        sl_settings_u32(&hp->value_dims, s, "v_head_dim", SL_SETTING_REQUIRED,
                        err) ||
        sl_decoder_read_f32(&hp->latent_eps, s, "gguf.latent_eps",
                            SL_SETTING_OPTIONAL, err) ||
        sl_settings_bool(&bias, s, "attention_bias", SL_SETTING_OPTIONAL, err))
        return -1;
    if (bias || hp->kv_lora == 0 || hp->q_lora == 0)
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "%s: kv_lora_rank %u, q_lora_rank %u%s: sluice has both "
                       "of some values, and no attention_bias, there",
                       sl_settings_file(s), hp->kv_lora, hp->q_lora,
                       bias ? ", attention_bias" : "");
    return sl_decoder_configure_experts(hp, s, err);
}

const struct sl_arch sl_arch_glm4_moe_lite = {
    .name = "glm4moelite",
    .what = "GLM-4.7-Flash",
    .hf_names = hf_names,
    .gguf_name = "deepseek2",
    SL_ROWS(sl_decoder_layer_rows, sl_decoder_model_rows),
    SL_EXPERT_ROWS(sl_decoder_expert_rows),
    .mixture = &sl_decoder_mixture,
    .derive = derive,
    .configure = configure,
    .layers = sl_decoder_layers,
};
