#include "config.h"

#include "src/arch/decoder.h"

/* Llama 1 to 3, and what has its shape (SmolLM2, ...): halves of a head are
 * rotated (in GGUF files, whose rows of q and k are in another order,
 * neighbours), biases where config.json says so (huggingface/transformers
 * models/llama/modeling_llama.py, configuration_llama.py). */

static const char *const hf_names[] = {"LlamaForCausalLM", "llama", NULL};

static void derive(struct sl_hparams *hp)
{
    sl_decoder_derive(hp, SL_ROPE_HALF);
}

static int configure(struct sl_hparams *hp, const struct sl_settings *s,
                     struct sl_error *err)
{
    bool bias = false;

    if (sl_decoder_configure(hp, s, 1, true, err) ||
        sl_settings_bool(&bias, s, "attention_bias", SL_SETTING_OPTIONAL,
                         err) ||
        sl_settings_bool(&hp->mlp_bias, s, "mlp_bias", SL_SETTING_OPTIONAL,
                         err))
        return -1;
    hp->no_qkv_bias = !bias;
    hp->attn_out_bias = bias;
    return sl_settings_bool(&hp->attn_out_bias, s, "gguf.attn_out_bias",
                            SL_SETTING_OPTIONAL, err);
}

const struct sl_arch sl_arch_llama = {
    .name = "llama",
    .what = "Llama",
    .hf_names = hf_names,
    .gguf_name = "llama",
    SL_ROWS(sl_decoder_layer_rows, sl_decoder_model_rows),
    .derive = derive,
    .configure = configure,
    .layers = sl_decoder_layers,
};
