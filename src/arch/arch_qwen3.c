#include "config.h"

#include "src/arch/decoder.h"

/* Qwen3, dense: as Llama with a norm of every head's q and k
 * (huggingface/transformers models/qwen3/modeling_qwen3.py). */

static const char *const hf_names[] = {"Qwen3ForCausalLM", "qwen3", NULL};

static void derive(struct sl_hparams *hp)
{
    sl_decoder_derive(hp, SL_ROPE_HALF);
    hp->qk_norm = true;
}

static int configure(struct sl_hparams *hp, const struct sl_settings *s,
                     struct sl_error *err)
{
    bool bias = false;

    hp->head_dim = 128; /* what the class has where the file says nothing */
    if (sl_decoder_configure(hp, s, 1, true, err) ||
        sl_settings_bool(&bias, s, "attention_bias", SL_SETTING_OPTIONAL, err))
        return -1;
    hp->no_qkv_bias = !bias;
    hp->attn_out_bias = bias;
    return sl_settings_bool(&hp->attn_out_bias, s, "gguf.attn_out_bias",
                            SL_SETTING_OPTIONAL, err);
}

const struct sl_arch sl_arch_qwen3 = {
    .name = "qwen3",
    .what = "Qwen3 (dense)",
    .hf_names = hf_names,
    .gguf_name = "qwen3",
    SL_ROWS(sl_decoder_layer_rows, sl_decoder_model_rows),
    .derive = derive,
    .configure = configure,
    .layers = sl_decoder_layers,
};
