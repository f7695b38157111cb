#include "config.h"

#include "src/arch/decoder.h"

/* Qwen2 and Qwen2.5, dense: as Llama with a bias of q, k and v
 * (huggingface/transformers models/qwen2/modeling_qwen2.py). */

static const char *const hf_names[] = {"Qwen2ForCausalLM", "qwen2", NULL};

static void derive(struct sl_hparams *hp)
{
    sl_decoder_derive(hp, SL_ROPE_HALF);
}

static int configure(struct sl_hparams *hp, const struct sl_settings *s,
                     struct sl_error *err)
{
    return sl_decoder_configure(hp, s, 1, true, err);
}

const struct sl_arch sl_arch_qwen2 = {
    .name = "qwen2",
    .what = "Qwen2",
    .hf_names = hf_names,
    .gguf_name = "qwen2",
    SL_ROWS(sl_decoder_layer_rows, sl_decoder_model_rows),
    .derive = derive,
    .configure = configure,
    .layers = sl_decoder_layers,
};
