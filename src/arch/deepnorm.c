#include "config.h"

#include <math.h>

#include "src/arch/deepnorm.h"

#define LAYER "transformer.layers.%u."

const struct sl_tensor_row sl_deepnorm_layer_rows[SL_DEEPNORM_LAYER_ROWS] = {
    SL_VECTOR(SL_SLOT_ATTN_NORM, LAYER "input_layernorm.weight", SL_SPLIT_NONE,
              SL_DIM_HIDDEN),
    SL_VECTOR(SL_SLOT_ATTN_NORM_BIAS, LAYER "input_layernorm.bias",
              SL_SPLIT_NONE, SL_DIM_HIDDEN),
    SL_VECTOR(SL_SLOT_QKV_BIAS, LAYER "attention.query_key_value.bias",
              SL_SPLIT_ROWS, SL_DIM_QKV),
    SL_VECTOR(SL_SLOT_ATTN_OUT_BIAS, LAYER "attention.dense.bias",
              SL_SPLIT_NONE, SL_DIM_HIDDEN),
    SL_VECTOR(SL_SLOT_MLP_NORM, LAYER "post_attention_layernorm.weight",
              SL_SPLIT_NONE, SL_DIM_HIDDEN),
    SL_VECTOR(SL_SLOT_MLP_NORM_BIAS, LAYER "post_attention_layernorm.bias",
              SL_SPLIT_NONE, SL_DIM_HIDDEN),
    SL_VECTOR(SL_SLOT_MLP_IN_BIAS, LAYER "mlp.dense_h_to_4h.bias", SL_SPLIT_GLU,
              SL_DIM_MLP_IN),
    SL_VECTOR(SL_SLOT_MLP_OUT_BIAS, LAYER "mlp.dense_4h_to_h.bias",
              SL_SPLIT_NONE, SL_DIM_HIDDEN),
    SL_MATRIX(SL_SLOT_QKV, LAYER "attention.query_key_value.weight",
              SL_SPLIT_ROWS, SL_DIM_QKV, SL_DIM_HIDDEN),
    SL_MATRIX(SL_SLOT_ATTN_OUT, LAYER "attention.dense.weight", SL_SPLIT_COLS,
              SL_DIM_HIDDEN, SL_DIM_ATT),
    SL_MATRIX(SL_SLOT_MLP_IN, LAYER "mlp.dense_h_to_4h.weight", SL_SPLIT_GLU,
              SL_DIM_MLP_IN, SL_DIM_HIDDEN),
    SL_MATRIX(SL_SLOT_MLP_OUT, LAYER "mlp.dense_4h_to_h.weight", SL_SPLIT_COLS,
              SL_DIM_HIDDEN, SL_DIM_INNER),
};

void sl_deepnorm_derive(struct sl_hparams *hp)
{
    hp->norm = SL_NORM_LAYER;
    hp->qkv = SL_QKV_BY_HEAD;
    hp->rope = SL_ROPE_HALF;
    hp->rope_dims = hp->head_dim;
    hp->attn_out_bias = hp->mlp_bias = true;
    if (hp->residual_scale == 0)
        hp->residual_scale = sqrtf(2.0f * (float)hp->n_layers);
}

static const struct sl_layer_op attention[] = {
    SL_OP_NORM(SL_BUF_X, SL_BUF_NORM, SL_SLOT_ATTN_NORM,
               SL_SLOT_ATTN_NORM_BIAS),
    SL_OP_MATMUL(SL_BUF_NORM, SL_BUF_WIDE, SL_SLOT_QKV, SL_SLOT_QKV_BIAS),
    SL_OP_ATTEND,
    SL_OP_MATMUL(SL_BUF_ATT, SL_BUF_X, SL_SLOT_ATTN_OUT, SL_SLOT_ATTN_OUT_BIAS,
                 .residual = SL_BUF_NORM, .scaled = true),
};

#define MLP(fn)                                                                \
    {                                                                          \
        SL_OP_NORM(SL_BUF_X, SL_BUF_NORM, SL_SLOT_MLP_NORM,                    \
                   SL_SLOT_MLP_NORM_BIAS),                                     \
            SL_OP_MATMUL(SL_BUF_NORM, SL_BUF_WIDE, SL_SLOT_MLP_IN,             \
                         SL_SLOT_MLP_IN_BIAS, .epilogue = (fn)),               \
            SL_OP_MATMUL(SL_BUF_WIDE, SL_BUF_X, SL_SLOT_MLP_OUT,               \
                         SL_SLOT_MLP_OUT_BIAS, .residual = SL_BUF_NORM,        \
                         .scaled = true),                                      \
    }

static const struct sl_layer_op gated_mlp[] = MLP(SL_FN_GEGLU);
static const struct sl_layer_op plain_mlp[] = MLP(SL_FN_GELU_TANH);

static const struct sl_layer_op head[] = {
    SL_OP_NORM(SL_BUF_X, SL_BUF_NORM, SL_SLOT_FINAL_NORM,
               SL_SLOT_FINAL_NORM_BIAS),
    SL_OP_MATMUL(SL_BUF_NORM, SL_BUF_LOGITS, SL_SLOT_HEAD, SL_SLOT_NONE),
};

static const struct sl_layer_table gated = {
    SL_STAGE_OPS(attention),
    SL_STAGE_OPS(gated_mlp),
    SL_HEAD_OPS(head),
};

/* ChatGLM-6B; SAT --no-glu. */
static const struct sl_layer_table plain = {
    SL_STAGE_OPS(attention),
    SL_STAGE_OPS(plain_mlp),
    SL_HEAD_OPS(head),
};

const struct sl_layer_table *sl_deepnorm_layers(const struct sl_hparams *hp)
{
    return hp->glu ? &gated : &plain;
}
