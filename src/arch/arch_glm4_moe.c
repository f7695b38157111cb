#include "config.h"

#include "src/arch/decoder.h"

/* GLM-4.5, GLM-4.5-Air, GLM-4.6, GLM-4.7: mixtures of experts. The first layers
 * have an MLP; halves of the first half of a head are rotated
 * (huggingface/transformers models/glm4_moe/modeling_glm4_moe.py). The layers
 * behind the last, which predict more than one token, are left out. */

static const char *const hf_names[] = {"Glm4MoeForCausalLM", "glm4_moe", NULL};

static void derive(struct sl_hparams *hp)
{
    sl_decoder_derive(hp, SL_ROPE_HALF);
    sl_decoder_derive_experts(hp);
}

static int configure(struct sl_hparams *hp, const struct sl_settings *s,
                     struct sl_error *err)
{
    bool bias = false;

    if (sl_decoder_configure(hp, s, 0.5, true, err) ||
        sl_settings_bool(&bias, s, "attention_bias", SL_SETTING_OPTIONAL,
                         err) ||
        sl_settings_bool(&hp->qk_norm, s, "use_qk_norm", SL_SETTING_OPTIONAL,
                         err))
        return -1;
    hp->no_qkv_bias = !bias;
    return sl_decoder_configure_experts(hp, s, err);
}

const struct sl_arch sl_arch_glm4_moe = {
    .name = "glm4moe",
    .what = "GLM-4.5, GLM-4.6, GLM-4.7",
    .hf_names = hf_names,
    .gguf_name = "glm4moe",
    SL_ROWS(sl_decoder_layer_rows, sl_decoder_model_rows),
    SL_EXPERT_ROWS(sl_decoder_expert_rows),
    .mixture = &sl_decoder_mixture,
    .derive = derive,
    .configure = configure,
    .layers = sl_decoder_layers,
};
