#include "config.h"

#include "src/arch/decoder.h"

/* Mistral, dense: as Llama without biases, with defaults of its own
 * (huggingface/transformers models/mistral/modeling_mistral.py,
 * configuration_mistral.py). */

static const char *const hf_names[] = {"MistralForCausalLM", "mistral", NULL};

static void derive(struct sl_hparams *hp)
{
    sl_decoder_derive(hp, SL_ROPE_HALF);
    hp->no_qkv_bias = true;
}

/* What config.json does not mention is a window of 4096 to the class; null is
 * none. One that is said is sl_decoder_configure's matter. */
static int check_no_window(const struct sl_hparams *hp,
                           const struct sl_settings *s, struct sl_error *err)
{
    static const char key[] = "sliding_window";

    if (sl_settings_has(s, key) || sl_settings_null(s, key) ||
        hp->max_positions <= 4096)
        return 0;
    return sl_fail(err, SL_ERR_UNSUPPORTED,
                   "%s: does not say sliding_window, which is 4096 then; "
                   "attention that forgets is not one that sluice has "
                   "(\"sliding_window\": null is none)",
                   sl_settings_file(s));
}

static int configure(struct sl_hparams *hp, const struct sl_settings *s,
                     struct sl_error *err)
{
    hp->n_kv_heads = 8; /* what the class has where the file says nothing */
    if (sl_decoder_configure(hp, s, 1, true, err) != 0)
        return -1;
    return check_no_window(hp, s, err);
}

const struct sl_arch sl_arch_mistral = {
    .name = "mistral",
    .what = "Mistral",
    .hf_names = hf_names,
    SL_ROWS(sl_decoder_layer_rows, sl_decoder_model_rows),
    .derive = derive,
    .configure = configure,
    .layers = sl_decoder_layers,
};
