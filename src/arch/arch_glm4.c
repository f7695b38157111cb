#include "config.h"

#include "src/arch/decoder.h"

/* GLM-4-0414 (9B, 32B) and GLM-Z1: what attention and MLP give is normed
 * before it is added; pairs of the first half of a head are rotated
 * (huggingface/transformers models/glm4/modeling_glm4.py). */

static const char *const hf_names[] = {"Glm4ForCausalLM", "glm4", NULL};

static void derive(struct sl_hparams *hp)
{
    sl_decoder_derive(hp, SL_ROPE_INTERLEAVED);
    hp->post_norms = true;
}

static int configure(struct sl_hparams *hp, const struct sl_settings *s,
                     struct sl_error *err)
{
    bool bias = false;

    if (sl_decoder_configure(hp, s, 0.5, true, err) ||
        sl_settings_bool(&bias, s, "attention_bias", SL_SETTING_OPTIONAL, err))
        return -1;
    hp->no_qkv_bias = !bias;
    return 0;
}

const struct sl_arch sl_arch_glm4 = {
    .name = "glm4",
    .what = "GLM-4-0414, GLM-Z1",
    .hf_names = hf_names,
    .gguf_name = "glm4",
    SL_ROWS(sl_decoder_layer_rows, sl_decoder_model_rows),
    .derive = derive,
    .configure = configure,
    .layers = sl_decoder_layers,
};
