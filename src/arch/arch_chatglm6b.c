#include "config.h"

#include <math.h>

#include "src/arch/deepnorm.h"
#include "src/arch/settings.h"

/* ChatGLM-6B: GLM-130B's layers without a gate, positions of two dimensions, a
 * head of its own (THUDM/chatglm-6b modeling_chatglm.py). */

static const struct sl_tensor_row model_rows[] = {
    SL_VECTOR(SL_SLOT_FINAL_NORM, "transformer.final_layernorm.weight",
              SL_SPLIT_NONE, SL_DIM_HIDDEN),
    SL_VECTOR(SL_SLOT_FINAL_NORM_BIAS, "transformer.final_layernorm.bias",
              SL_SPLIT_NONE, SL_DIM_HIDDEN),
    SL_MATRIX(SL_SLOT_HEAD, "lm_head.weight", SL_SPLIT_ROWS, SL_DIM_VOCAB,
              SL_DIM_HIDDEN, .alias = {"mixins.chatglm-final.lm_head.weight"}),
    SL_MATRIX(SL_SLOT_EMBED, "transformer.word_embeddings.weight",
              SL_SPLIT_ROWS, SL_DIM_VOCAB, SL_DIM_HIDDEN),
};

static const char *const hf_names[] = {
    "ChatGLMModel", "ChatGLMForConditionalGeneration", "chatglm", NULL};

/* In SAT's form (THUDM/SwissArmyTransformer model/official/chatglm_model.py)
 * the head is a mixin's. */
static const char *const marks[] = {"mixins.chatglm-final.lm_head.weight",
                                    NULL};

/* ChatGLM2 goes by the same names. */
static bool takes(const struct sl_settings *s)
{
    return !sl_settings_has(s, "multi_query_attention") &&
           !sl_settings_has(s, "padded_vocab_size");
}

/* GLM-130B's residual, but a plain GELU in place of the gated one, and a
 * head of its own. */
static void derive(struct sl_hparams *hp)
{
    sl_deepnorm_derive(hp);
    hp->glu = false;
    hp->untied = true;
    if (hp->norm_eps == 0)
        hp->norm_eps = 1e-5f;
    if (hp->inner == 0)
        hp->inner = 4 * hp->hidden;
}

/* A half run rounds the whole rotary table, which is how the published model
 * was trained; others are taken as their code computes in FP32, with rounded
 * frequencies. */
static enum sl_rotary rotary_of(const struct sl_hparams *hp)
{
    bool published = hp->n_layers == 28 && hp->hidden == 4096;

    return published ? SL_ROTARY_F16 : SL_ROTARY_INV_FREQ_F16;
}

static int configure(struct sl_hparams *hp, const struct sl_settings *s,
                     struct sl_error *err)
{
    double eps = 1e-5;

    hp->position_2d = true;
    if (sl_settings_u32(&hp->n_layers, s, "num_layers", SL_SETTING_REQUIRED,
                        err) ||
        sl_settings_u32(&hp->hidden, s, "hidden_size", SL_SETTING_REQUIRED,
                        err) ||
        sl_settings_u32(&hp->inner, s, "inner_hidden_size", SL_SETTING_OPTIONAL,
                        err) ||
        sl_settings_u32(&hp->n_heads, s, "num_attention_heads",
                        SL_SETTING_REQUIRED, err) ||
        sl_settings_u32(&hp->vocab, s, "vocab_size", SL_SETTING_REQUIRED,
                        err) ||
        sl_settings_u32(&hp->max_positions, s, "max_sequence_length|seq_length",
                        SL_SETTING_REQUIRED, err) ||
        sl_settings_f64(&eps, s, "layernorm_epsilon", SL_SETTING_OPTIONAL,
                        err) ||
        sl_settings_bool(&hp->position_2d, s, "position_encoding_2d",
                         SL_SETTING_OPTIONAL, err))
        return -1;
    hp->norm_eps = (float)eps;
    hp->rotary = rotary_of(hp);
    /* Its code makes every layer without saying how many there are, so that a
     * default of 28 applies (GLMBlock.__init__). */
    hp->residual_scale = sqrtf(2.0f * 28);
    return 0;
}

const struct sl_arch sl_arch_chatglm6b = {
    .name = "chatglm6b",
    .what = "ChatGLM-6B",
    .hf_names = hf_names,
    .takes = takes,
    .marks = marks,
    .default_head_dim = 128,
    .default_positions = 2048,
    .prompts = SL_PROMPTS_CHATGLM,
    .prefix = "transformer.prefix_encoder.",
    SL_ROWS(sl_deepnorm_layer_rows, model_rows),
    .derive = derive,
    .configure = configure,
    .layers = sl_deepnorm_layers,
};
