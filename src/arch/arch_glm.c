#include "config.h"

#include <string.h>

#include "src/arch/arch.h"
#include "src/arch/settings.h"

/* The original GLM, 110M to 10B: pre-LN, learned embeddings of two positions,
 * no rotation, one matrix for embedding and head (THUDM/GLM
 * model/modeling_glm.py, mpu/transformer.py; THUDM/glm-10b modeling_glm.py for
 * the names under "glm."; SwissArmyTransformer model/official/glm_model.py). */

#define LAYER "transformer.layers.%u."
#define HF    "glm.transformer.layers.%u."

/* A leaf of a layer under its two names. */
#define NAMES(leaf) LAYER leaf
#define ALIAS(leaf) .alias = {HF leaf}

static const struct sl_tensor_row layer_rows[] = {
    SL_VECTOR(SL_SLOT_ATTN_NORM, NAMES("input_layernorm.weight"), SL_SPLIT_NONE,
              SL_DIM_HIDDEN, ALIAS("input_layernorm.weight")),
    SL_VECTOR(SL_SLOT_ATTN_NORM_BIAS, NAMES("input_layernorm.bias"),
              SL_SPLIT_NONE, SL_DIM_HIDDEN, ALIAS("input_layernorm.bias")),
    SL_VECTOR(SL_SLOT_QKV_BIAS, NAMES("attention.query_key_value.bias"),
              SL_SPLIT_QKV, SL_DIM_QKV,
              ALIAS("attention.query_key_value.bias")),
    SL_VECTOR(SL_SLOT_ATTN_OUT_BIAS, NAMES("attention.dense.bias"),
              SL_SPLIT_NONE, SL_DIM_HIDDEN, ALIAS("attention.dense.bias")),
    SL_VECTOR(SL_SLOT_MLP_NORM, NAMES("post_attention_layernorm.weight"),
              SL_SPLIT_NONE, SL_DIM_HIDDEN,
              ALIAS("post_attention_layernorm.weight")),
    SL_VECTOR(SL_SLOT_MLP_NORM_BIAS, NAMES("post_attention_layernorm.bias"),
              SL_SPLIT_NONE, SL_DIM_HIDDEN,
              ALIAS("post_attention_layernorm.bias")),
    SL_VECTOR(SL_SLOT_MLP_IN_BIAS, NAMES("mlp.dense_h_to_4h.bias"),
              SL_SPLIT_ROWS, SL_DIM_MLP_IN, ALIAS("mlp.dense_h_to_4h.bias")),
    SL_VECTOR(SL_SLOT_MLP_OUT_BIAS, NAMES("mlp.dense_4h_to_h.bias"),
              SL_SPLIT_NONE, SL_DIM_HIDDEN, ALIAS("mlp.dense_4h_to_h.bias")),
    SL_MATRIX(SL_SLOT_QKV, NAMES("attention.query_key_value.weight"),
              SL_SPLIT_QKV, SL_DIM_QKV, SL_DIM_HIDDEN,
              ALIAS("attention.query_key_value.weight")),
    SL_MATRIX(SL_SLOT_ATTN_OUT, NAMES("attention.dense.weight"), SL_SPLIT_COLS,
              SL_DIM_HIDDEN, SL_DIM_ATT, ALIAS("attention.dense.weight")),
    SL_MATRIX(SL_SLOT_MLP_IN, NAMES("mlp.dense_h_to_4h.weight"), SL_SPLIT_ROWS,
              SL_DIM_MLP_IN, SL_DIM_HIDDEN, ALIAS("mlp.dense_h_to_4h.weight")),
    SL_MATRIX(SL_SLOT_MLP_OUT, NAMES("mlp.dense_4h_to_h.weight"), SL_SPLIT_COLS,
              SL_DIM_HIDDEN, SL_DIM_INNER, ALIAS("mlp.dense_4h_to_h.weight")),
};

static const struct sl_tensor_row model_rows[] = {
    SL_VECTOR(SL_SLOT_FINAL_NORM, "transformer.final_layernorm.weight",
              SL_SPLIT_NONE, SL_DIM_HIDDEN,
              .alias = {"glm.transformer.final_layernorm.weight"}),
    SL_VECTOR(SL_SLOT_FINAL_NORM_BIAS, "transformer.final_layernorm.bias",
              SL_SPLIT_NONE, SL_DIM_HIDDEN,
              .alias = {"glm.transformer.final_layernorm.bias"}),
    SL_MATRIX(SL_SLOT_HEAD, "word_embeddings.weight", SL_SPLIT_ROWS,
              SL_DIM_VOCAB, SL_DIM_HIDDEN,
              .alias = {"glm.word_embeddings.weight",
                        "transformer.word_embeddings.weight"}),
    SL_MATRIX(SL_SLOT_EMBED_POSITIONS, "transformer.position_embeddings.weight",
              SL_SPLIT_NONE, SL_DIM_POSITIONS, SL_DIM_HIDDEN,
              .alias = {"glm.transformer.position_embeddings.weight"}),
    SL_MATRIX(
        SL_SLOT_EMBED_BLOCKS, "transformer.block_position_embeddings.weight",
        SL_SPLIT_NONE, SL_DIM_POSITIONS, SL_DIM_HIDDEN,
        .alias = {"glm.transformer.block_position_embeddings.weight",
                  "mixins.block_position_embedding.block_position_embeddings."
                  "weight"}),
};

static const struct sl_layer_op attention[] = {
    SL_OP_NORM(SL_BUF_X, SL_BUF_NORM, SL_SLOT_ATTN_NORM,
               SL_SLOT_ATTN_NORM_BIAS),
    SL_OP_MATMUL(SL_BUF_NORM, SL_BUF_WIDE, SL_SLOT_QKV, SL_SLOT_QKV_BIAS),
    SL_OP_ATTEND,
    SL_OP_MATMUL(SL_BUF_ATT, SL_BUF_X, SL_SLOT_ATTN_OUT, SL_SLOT_ATTN_OUT_BIAS,
                 .residual = SL_BUF_X),
};

static const struct sl_layer_op mlp[] = {
    SL_OP_NORM(SL_BUF_X, SL_BUF_NORM, SL_SLOT_MLP_NORM, SL_SLOT_MLP_NORM_BIAS),
    SL_OP_MATMUL(SL_BUF_NORM, SL_BUF_WIDE, SL_SLOT_MLP_IN, SL_SLOT_MLP_IN_BIAS,
                 .epilogue = SL_FN_GELU_TANH),
    SL_OP_MATMUL(SL_BUF_WIDE, SL_BUF_X, SL_SLOT_MLP_OUT, SL_SLOT_MLP_OUT_BIAS,
                 .residual = SL_BUF_X),
};

static const struct sl_layer_op head[] = {
    SL_OP_NORM(SL_BUF_X, SL_BUF_NORM, SL_SLOT_FINAL_NORM,
               SL_SLOT_FINAL_NORM_BIAS),
    SL_OP_MATMUL(SL_BUF_NORM, SL_BUF_LOGITS, SL_SLOT_HEAD, SL_SLOT_NONE),
};

static const struct sl_layer_table table = {
    SL_STAGE_OPS(attention),
    SL_STAGE_OPS(mlp),
    SL_HEAD_OPS(head),
};

static const struct sl_layer_table *layers(const struct sl_hparams *hp)
{
    return &table;
}

static const char *const hf_names[] = {"GLMModel",
                                       "GLMForConditionalGeneration",
                                       "GLMForMultipleChoice", "glm", NULL};

static const char *const marks[] = {
    "transformer.block_position_embeddings.weight",
    "glm.transformer.block_position_embeddings.weight",
    "mixins.block_position_embedding.block_position_embeddings.weight", NULL};

/* GLM-4 in transformers' own form has the same model_type. */
static bool takes(const struct sl_settings *s)
{
    return strcmp(sl_settings_architecture(s), "GlmForCausalLM") != 0 &&
           !sl_settings_has(s, "num_key_value_heads");
}

/* No rotation: positions are two learned tables, of where in the context and
 * of where in the blank (GLM, arXiv 2103.10360, 2.3). */
static void derive(struct sl_hparams *hp)
{
    hp->norm = SL_NORM_LAYER;
    hp->qkv = SL_QKV_IN_BLOCKS;
    hp->rope = SL_ROPE_NONE;
    hp->rope_dims = 0;
    hp->position_2d = true;
    hp->attn_out_bias = hp->mlp_bias = true;
    hp->residual_scale = 1;
    if (hp->norm_eps == 0)
        hp->norm_eps = 1e-5f;
    if (hp->inner == 0)
        hp->inner = 4 * hp->hidden;
}

static int configure(struct sl_hparams *hp, const struct sl_settings *s,
                     struct sl_error *err)
{
    bool blocks = true;

    if (sl_settings_u32(&hp->n_layers, s, "num_layers", SL_SETTING_REQUIRED,
                        err) ||
        sl_settings_u32(&hp->hidden, s, "hidden_size", SL_SETTING_REQUIRED,
                        err) ||
        sl_settings_u32(&hp->n_heads, s, "num_attention_heads",
                        SL_SETTING_REQUIRED, err) ||
        sl_settings_u32(&hp->vocab, s, "vocab_size", SL_SETTING_REQUIRED,
                        err) ||
        sl_settings_u32(&hp->max_positions, s, "max_sequence_length",
                        SL_SETTING_REQUIRED, err) ||
        sl_settings_bool(&blocks, s, "block_position_encoding",
                         SL_SETTING_OPTIONAL, err))
        return -1;
    if (!blocks)
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "%s: block_position_encoding is false, which no "
                       "published model has",
                       sl_settings_file(s));
    return 0;
}

const struct sl_arch sl_arch_glm = {
    .name = "glm",
    .what = "GLM (110M to 10B)",
    .hf_names = hf_names,
    .takes = takes,
    .marks = marks,
    .default_head_dim = 64,
    .prompts = SL_PROMPTS_GLM,
    SL_ROWS(layer_rows, model_rows),
    .derive = derive,
    .configure = configure,
    .layers = layers,
};
