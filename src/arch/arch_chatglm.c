#include "config.h"

#include <string.h>

#include "src/arch/decoder.h"

/* ChatGLM2-6B, ChatGLM3-6B and GLM-4-9B: pairs of the first half of a head are
 * rotated, q, k and v have a bias. Their own code (modeling_chatglm.py of
 * THUDM/chatglm3-6b, THUDM/glm-4-9b) and transformers' GlmForCausalLM (the -hf
 * folders; models/glm/modeling_glm.py) name everything differently. */

static const char *const hf_names[] = {
    "GlmForCausalLM",     "ChatGLMModel", "ChatGLMForConditionalGeneration",
    "ChatGLMForCausalLM", "chatglm",      NULL};

static bool is_hf(const struct sl_settings *s)
{
    return strcmp(sl_settings_architecture(s), "GlmForCausalLM") == 0;
}

/* ChatGLM-6B goes by the same names. */
static bool takes(const struct sl_settings *s)
{
    return is_hf(s) || sl_settings_has(s, "multi_query_attention") ||
           sl_settings_has(s, "padded_vocab_size");
}

static void derive(struct sl_hparams *hp)
{
    if (hp->rope_dims == 0)
        hp->rope_dims = hp->head_dim / 2;
    sl_decoder_derive(hp, SL_ROPE_INTERLEAVED);
}

/* What the model's own code can be told to do otherwise, and no published
 * model is. */
static int check_usual(const struct sl_settings *s, struct sl_error *err)
{
    static const struct {
        const char *key;
        bool usual;
    } settings[] = {
        {"rmsnorm", true},
        {"post_layer_norm", true},
        {"add_bias_linear", false},
        {"apply_residual_connection_post_layernorm", false},
    };

    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        bool is = settings[i].usual;

        if (sl_settings_bool(&is, s, settings[i].key, SL_SETTING_OPTIONAL,
                             err) != 0)
            return -1;
        if (is != settings[i].usual)
            return sl_fail(err, SL_ERR_UNSUPPORTED,
                           "%s: %s is %s, which no published model has",
                           sl_settings_file(s), settings[i].key,
                           is ? "true" : "false");
    }
    return 0;
}

/* rope_ratio: ChatGLM2-6B-32k's code divides positions by it, that of all
 * later models takes the base times it. Nothing but their name tells them
 * apart. */
static int read_rope_ratio(struct sl_hparams *hp, const struct sl_settings *s,
                           struct sl_error *err)
{
    const char *name = "";
    double ratio = 1;

    hp->rope_base = 10000;
    if (sl_settings_f64(&ratio, s, "rope_ratio", SL_SETTING_OPTIONAL, err) ||
        sl_settings_string(&name, s, "_name_or_path", SL_SETTING_OPTIONAL, err))
        return -1;
    if (!(ratio > 0))
        return sl_fail(err, SL_ERR_CORRUPT, "%s: rope_ratio is %g",
                       sl_settings_file(s), ratio);
    if (ratio == 1)
        return 0;
    if (strstr(name, "chatglm2") != NULL) {
        hp->rope_scale = (struct sl_rope_scale){
            .kind = SL_ROPE_SCALING_LINEAR,
            .factor = (float)ratio,
            .original_positions = hp->max_positions,
        };
        return 0;
    }
    hp->rope_base = (float)(10000 * ratio);
    return 0;
}

/* What the publisher's own class calls its sizes; transformers' class has
 * other names. Without multi_query_attention the number of groups means
 * nothing, though files have one. */
static int configure_own(struct sl_hparams *hp, const struct sl_settings *s,
                         struct sl_error *err)
{
    bool bias = false, grouped = false, tied = false;
    double eps = 1e-5;

    if (sl_settings_u32(&hp->n_layers, s, "num_layers|num_hidden_layers",
                        SL_SETTING_REQUIRED, err) ||
        sl_settings_u32(&hp->hidden, s, "hidden_size", SL_SETTING_REQUIRED,
                        err) ||
        sl_settings_u32(&hp->inner, s, "ffn_hidden_size", SL_SETTING_REQUIRED,
                        err) ||
        sl_settings_u32(&hp->n_heads, s, "num_attention_heads",
                        SL_SETTING_REQUIRED, err) ||
        sl_settings_u32(&hp->head_dim, s, "kv_channels", SL_SETTING_OPTIONAL,
                        err) ||
        sl_settings_bool(&grouped, s, "multi_query_attention",
                         SL_SETTING_OPTIONAL, err) ||
        sl_settings_u32(&hp->vocab, s, "padded_vocab_size|vocab_size",
                        SL_SETTING_REQUIRED, err) ||
        sl_settings_u32(&hp->max_positions, s, "seq_length",
                        SL_SETTING_REQUIRED, err) ||
        sl_settings_f64(&eps, s, "layernorm_epsilon", SL_SETTING_OPTIONAL,
                        err) ||
        sl_settings_bool(&bias, s, "add_qkv_bias", SL_SETTING_OPTIONAL, err) ||
        sl_settings_bool(&tied, s, "tie_word_embeddings", SL_SETTING_OPTIONAL,
                         err))
        return -1;
    if (grouped && sl_settings_u32(&hp->n_kv_heads, s, "multi_query_group_num",
                                   SL_SETTING_REQUIRED, err) != 0)
        return -1;
    hp->norm_eps = (float)eps;
    hp->no_qkv_bias = !bias;
    hp->untied = !tied;
    if (check_usual(s, err) != 0)
        return -1;
    return read_rope_ratio(hp, s, err);
}

static int configure(struct sl_hparams *hp, const struct sl_settings *s,
                     struct sl_error *err)
{
    bool bias = false;

    if (!is_hf(s))
        return configure_own(hp, s, err);
    if (sl_decoder_configure(hp, s, 0.5, true, err) ||
        sl_settings_bool(&bias, s, "attention_bias", SL_SETTING_OPTIONAL, err))
        return -1;
    hp->no_qkv_bias = !bias;
    return 0;
}

const struct sl_arch sl_arch_chatglm = {
    .name = "chatglm",
    .what = "ChatGLM2-6B, ChatGLM3-6B, GLM-4-9B",
    .hf_names = hf_names,
    .gguf_name = "chatglm",
    .takes = takes,
    SL_ROWS(sl_decoder_layer_rows, sl_decoder_model_rows),
    .derive = derive,
    .configure = configure,
    .layers = sl_decoder_layers,
};
