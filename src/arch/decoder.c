#include "config.h"

#include <math.h>
#include <string.h>

#include "src/arch/decoder.h"

#define LAYER "model.layers.%u."
/* ChatGLM's own names (THUDM/chatglm3-6b modeling_chatglm.py). */
#define OWN "transformer.encoder.layers.%u."
#define BLK "blk.%u."

const struct sl_tensor_row sl_decoder_layer_rows[SL_DECODER_LAYER_ROWS] = {
    SL_VECTOR(SL_SLOT_ATTN_NORM, LAYER "input_layernorm.weight", SL_SPLIT_NONE,
              SL_DIM_HIDDEN, .alias = {OWN "input_layernorm.weight"},
              .gguf = {BLK "attn_norm.weight"}),
    SL_VECTOR(SL_SLOT_QKV_BIAS, LAYER "self_attn.qkv_proj.bias", SL_SPLIT_NONE,
              SL_DIM_QKV, .when = SL_WHEN_QKV_BIAS,
              .alias = {OWN "self_attention.query_key_value.bias"},
              .parts = {LAYER "self_attn.q_proj.bias",
                        LAYER "self_attn.k_proj.bias",
                        LAYER "self_attn.v_proj.bias"},
              .gguf = {BLK "attn_qkv.bias"},
              .gguf_parts = {BLK "attn_q.bias", BLK "attn_k.bias",
                             BLK "attn_v.bias"}),
    SL_VECTOR(SL_SLOT_Q_NORM, LAYER "self_attn.q_norm.weight", SL_SPLIT_NONE,
              SL_DIM_HEAD, .when = SL_WHEN_QK_NORM,
              .gguf = {BLK "attn_q_norm.weight"}),
    SL_VECTOR(SL_SLOT_K_NORM, LAYER "self_attn.k_norm.weight", SL_SPLIT_NONE,
              SL_DIM_HEAD, .when = SL_WHEN_QK_NORM,
              .gguf = {BLK "attn_k_norm.weight"}),
    SL_VECTOR(SL_SLOT_Q_A_NORM, LAYER "self_attn.q_a_layernorm.weight",
              SL_SPLIT_NONE, SL_DIM_Q_LORA, .when = SL_WHEN_LATENT,
              .gguf = {BLK "attn_q_a_norm.weight"}),
    SL_VECTOR(SL_SLOT_KV_A_NORM, LAYER "self_attn.kv_a_layernorm.weight",
              SL_SPLIT_NONE, SL_DIM_KV_LORA, .when = SL_WHEN_LATENT,
              .gguf = {BLK "attn_kv_a_norm.weight"}),
    SL_VECTOR(SL_SLOT_ATTN_OUT_BIAS, LAYER "self_attn.o_proj.bias",
              SL_SPLIT_NONE, SL_DIM_HIDDEN, .when = SL_WHEN_ATTN_OUT_BIAS,
              .gguf = {BLK "attn_output.bias"}),
    SL_VECTOR(SL_SLOT_ATTN_POST_NORM, LAYER "post_self_attn_layernorm.weight",
              SL_SPLIT_NONE, SL_DIM_HIDDEN, .when = SL_WHEN_POST_NORMS,
              .gguf = {BLK "post_attention_norm.weight"}),
    SL_VECTOR(SL_SLOT_MLP_NORM, LAYER "post_attention_layernorm.weight",
              SL_SPLIT_NONE, SL_DIM_HIDDEN,
              .alias = {OWN "post_attention_layernorm.weight"},
              .gguf = {BLK "ffn_norm.weight", /* glm4moe: */
                       BLK "post_attention_norm.weight"}),
    SL_VECTOR(SL_SLOT_MLP_IN_BIAS, LAYER "mlp.gate_up_proj.bias", SL_SPLIT_NONE,
              SL_DIM_MLP_IN, .when = SL_WHEN_MLP_BIAS,
              .gguf = {BLK "ffn_up.bias"},
              .gguf_parts = {BLK "ffn_gate.bias", BLK "ffn_up.bias"},
              .parts = {LAYER "mlp.gate_proj.bias", LAYER "mlp.up_proj.bias"}),
    SL_VECTOR(SL_SLOT_MLP_OUT_BIAS, LAYER "mlp.down_proj.bias", SL_SPLIT_NONE,
              SL_DIM_HIDDEN, .when = SL_WHEN_MLP_BIAS,
              .gguf = {BLK "ffn_down.bias"}),
    SL_VECTOR(SL_SLOT_MLP_POST_NORM, LAYER "post_mlp_layernorm.weight",
              SL_SPLIT_NONE, SL_DIM_HIDDEN, .when = SL_WHEN_POST_NORMS,
              .gguf = {BLK "post_ffw_norm.weight"}),
    SL_VECTOR(SL_SLOT_ROUTER_BIAS, LAYER "mlp.gate.e_score_correction_bias",
              SL_SPLIT_NONE, SL_DIM_EXPERTS, .when = SL_WHEN_MIXTURE,
              .gguf = {BLK "exp_probs_b.bias"}),
    SL_MATRIX(SL_SLOT_QKV, LAYER "self_attn.qkv_proj.weight", SL_SPLIT_NONE,
              SL_DIM_QKV, SL_DIM_HIDDEN, .when = SL_WHEN_QKV_WHOLE,
              .alias = {OWN "self_attention.query_key_value.weight"},
              .parts = {LAYER "self_attn.q_proj.weight",
                        LAYER "self_attn.k_proj.weight",
                        LAYER "self_attn.v_proj.weight"},
              .gguf = {BLK "attn_qkv.weight"},
              .gguf_parts = {BLK "attn_q.weight", BLK "attn_k.weight",
                             BLK "attn_v.weight"}),
    SL_MATRIX(SL_SLOT_Q, LAYER "self_attn.q_proj.weight", SL_SPLIT_NONE,
              SL_DIM_ATT, SL_DIM_HIDDEN, .when = SL_WHEN_QKV_SPLIT,
              .gguf = {BLK "attn_q.weight"}),
    SL_MATRIX(SL_SLOT_K, LAYER "self_attn.k_proj.weight", SL_SPLIT_NONE,
              SL_DIM_KV, SL_DIM_HIDDEN, .when = SL_WHEN_QKV_SPLIT,
              .gguf = {BLK "attn_k.weight"}),
    SL_MATRIX(SL_SLOT_V, LAYER "self_attn.v_proj.weight", SL_SPLIT_NONE,
              SL_DIM_KV, SL_DIM_HIDDEN, .when = SL_WHEN_QKV_SPLIT,
              .gguf = {BLK "attn_v.weight"}),
    SL_MATRIX(SL_SLOT_KV_A, LAYER "self_attn.kv_a_proj_with_mqa.weight",
              SL_SPLIT_NONE, SL_DIM_LATENT, SL_DIM_HIDDEN,
              .when = SL_WHEN_LATENT, .gguf = {BLK "attn_kv_a_mqa.weight"}),
    SL_MATRIX(SL_SLOT_Q_A, LAYER "self_attn.q_a_proj.weight", SL_SPLIT_NONE,
              SL_DIM_Q_LORA, SL_DIM_HIDDEN, .when = SL_WHEN_LATENT,
              .gguf = {BLK "attn_q_a.weight"}),
    SL_MATRIX(SL_SLOT_Q_B, LAYER "self_attn.q_b_proj.weight", SL_SPLIT_NONE,
              SL_DIM_Q_HEADS, SL_DIM_Q_LORA, .when = SL_WHEN_LATENT,
              .gguf = {BLK "attn_q_b.weight"}),
    SL_MATRIX(SL_SLOT_K_B, LAYER "self_attn.k_b_proj.weight",
              SL_SPLIT_HEAD_KEYS, SL_DIM_K_HEADS, SL_DIM_NOPE,
              .when = SL_WHEN_LATENT,
              .alias = {LAYER "self_attn.kv_b_proj.weight"},
              .gguf = {BLK "attn_k_b.weight"}),
    SL_MATRIX(SL_SLOT_V_B, LAYER "self_attn.v_b_proj.weight",
              SL_SPLIT_HEAD_VALUES, SL_DIM_V_HEADS, SL_DIM_KV_LORA,
              .when = SL_WHEN_LATENT,
              .alias = {LAYER "self_attn.kv_b_proj.weight"},
              .gguf = {BLK "attn_v_b.weight"}),
    SL_MATRIX(SL_SLOT_ATTN_OUT, LAYER "self_attn.o_proj.weight", SL_SPLIT_NONE,
              SL_DIM_HIDDEN, SL_DIM_ATT_OUT,
              .alias = {OWN "self_attention.dense.weight"},
              .gguf = {BLK "attn_output.weight"}),
    SL_MATRIX(
        SL_SLOT_MLP_IN, LAYER "mlp.gate_up_proj.weight", SL_SPLIT_NONE,
        SL_DIM_MLP_IN, SL_DIM_HIDDEN, .when = SL_WHEN_DENSE,
        .alias = {OWN "mlp.dense_h_to_4h.weight"},
        .parts = {LAYER "mlp.gate_proj.weight", LAYER "mlp.up_proj.weight"},
        .gguf = {BLK "ffn_up.weight"},
        .gguf_parts = {BLK "ffn_gate.weight", BLK "ffn_up.weight"}),
    SL_MATRIX(SL_SLOT_MLP_OUT, LAYER "mlp.down_proj.weight", SL_SPLIT_NONE,
              SL_DIM_HIDDEN, SL_DIM_INNER, .when = SL_WHEN_DENSE,
              .alias = {OWN "mlp.dense_4h_to_h.weight"},
              .gguf = {BLK "ffn_down.weight"}),
    SL_MATRIX(SL_SLOT_ROUTER, LAYER "mlp.gate.weight", SL_SPLIT_NONE,
              SL_DIM_EXPERTS, SL_DIM_HIDDEN, .when = SL_WHEN_MIXTURE,
              .gguf = {BLK "ffn_gate_inp.weight"}),
    SL_MATRIX(
        SL_SLOT_SHARED_IN, LAYER "mlp.shared_experts.gate_up_proj.weight",
        SL_SPLIT_NONE, SL_DIM_SHARED_IN, SL_DIM_HIDDEN, .when = SL_WHEN_MIXTURE,
        .parts = {LAYER "mlp.shared_experts.gate_proj.weight", LAYER
                  "mlp.shared_experts.up_proj.weight"},
        .gguf_parts = {BLK "ffn_gate_shexp.weight", BLK "ffn_up_shexp.weight"}),
    SL_MATRIX(SL_SLOT_SHARED_OUT, LAYER "mlp.shared_experts.down_proj.weight",
              SL_SPLIT_NONE, SL_DIM_HIDDEN, SL_DIM_SHARED_INNER,
              .when = SL_WHEN_MIXTURE, .gguf = {BLK "ffn_down_shexp.weight"}),
};

const struct sl_tensor_row sl_decoder_expert_rows[SL_DECODER_EXPERT_ROWS] = {
    SL_MATRIX(SL_SLOT_EXPERT_IN, LAYER "mlp.experts.%u.gate_up_proj.weight",
              SL_SPLIT_NONE, SL_DIM_EXPERT_IN, SL_DIM_HIDDEN,
              .parts = {LAYER "mlp.experts.%u.gate_proj.weight",
                        LAYER "mlp.experts.%u.up_proj.weight"},
              .gguf_parts = {BLK "ffn_gate_exps.%u.weight",
                             BLK "ffn_up_exps.%u.weight"}),
    SL_MATRIX(SL_SLOT_EXPERT_OUT, LAYER "mlp.experts.%u.down_proj.weight",
              SL_SPLIT_NONE, SL_DIM_HIDDEN, SL_DIM_EXPERT_INNER,
              .gguf = {BLK "ffn_down_exps.%u.weight"}),
};

/* Where they are one matrix, checkpoints hold it under either name. */
const struct sl_tensor_row sl_decoder_model_rows[SL_DECODER_MODEL_ROWS] = {
    SL_VECTOR(SL_SLOT_FINAL_NORM, "model.norm.weight", SL_SPLIT_NONE,
              SL_DIM_HIDDEN,
              .alias = {"transformer.encoder.final_layernorm.weight"},
              .gguf = {"output_norm.weight"}),
    SL_VECTOR(SL_SLOT_ROPE_FACTORS, "rope_freqs.weight", SL_SPLIT_NONE,
              SL_DIM_PAIRS, .when = SL_WHEN_ROPE_FACTORS,
              .gguf = {"rope_freqs.weight"}),
    SL_MATRIX(SL_SLOT_HEAD, "lm_head.weight", SL_SPLIT_NONE, SL_DIM_VOCAB,
              SL_DIM_HIDDEN,
              .alias = {"transformer.output_layer.weight",
                        "model.embed_tokens.weight"},
              .gguf = {"output.weight", "token_embd.weight"}),
    SL_MATRIX(SL_SLOT_EMBED, "model.embed_tokens.weight", SL_SPLIT_NONE,
              SL_DIM_VOCAB, SL_DIM_HIDDEN, .when = SL_WHEN_UNTIED,
              .alias = {"transformer.embedding.word_embeddings.weight"},
              .gguf = {"token_embd.weight"}),
};

/* --- operations ----------------------------------------------------------- */

/* q, k and v, side by side. */
#define WHOLE_QKV                                                              \
    SL_OP_MATMUL(SL_BUF_NORM, SL_BUF_WIDE, SL_SLOT_QKV, SL_SLOT_QKV_BIAS)
#define SPLIT_QKV                                                              \
    SL_OP_MATMUL(SL_BUF_NORM, SL_BUF_WIDE, SL_SLOT_Q, SL_SLOT_QKV_BIAS),       \
        SL_OP_MATMUL(SL_BUF_NORM, SL_BUF_WIDE, SL_SLOT_K, SL_SLOT_QKV_BIAS),   \
        SL_OP_MATMUL(SL_BUF_NORM, SL_BUF_WIDE, SL_SLOT_V, SL_SLOT_QKV_BIAS)

#define ATTENTION(qkv)                                                         \
    SL_OP_NORM(SL_BUF_X, SL_BUF_NORM, SL_SLOT_ATTN_NORM, SL_SLOT_NONE), qkv,   \
        SL_OP_HEAD_NORM, SL_OP_ATTEND,                                         \
        SL_OP_MATMUL(SL_BUF_ATT, SL_BUF_X, SL_SLOT_ATTN_OUT,                   \
                     SL_SLOT_ATTN_OUT_BIAS, .residual = SL_BUF_X)
#define NORMED_ATTENTION(qkv)                                                  \
    SL_OP_NORM(SL_BUF_X, SL_BUF_NORM, SL_SLOT_ATTN_NORM, SL_SLOT_NONE), qkv,   \
        SL_OP_HEAD_NORM, SL_OP_ATTEND,                                         \
        SL_OP_MATMUL(SL_BUF_ATT, SL_BUF_NORM, SL_SLOT_ATTN_OUT,                \
                     SL_SLOT_ATTN_OUT_BIAS),                                   \
        SL_OP_NORM(SL_BUF_NORM, SL_BUF_X, SL_SLOT_ATTN_POST_NORM,              \
                   SL_SLOT_NONE, .residual = SL_BUF_X)

static const struct sl_layer_op attention[] = {ATTENTION(WHOLE_QKV)};
static const struct sl_layer_op split_attention[] = {ATTENTION(SPLIT_QKV)};
static const struct sl_layer_op normed_attention[] = {
    NORMED_ATTENTION(WHOLE_QKV)};
static const struct sl_layer_op split_normed_attention[] = {
    NORMED_ATTENTION(SPLIT_QKV)};

/* Each head's query is taken to the latent, of which the keys and, but for what
 * is rotated, the values are made: so these need not be. (DeepSeek-V2, arXiv
 * 2405.04434, 2.1.2 and appendix C) */
static const struct sl_layer_op latent_attention[] = {
    SL_OP_NORM(SL_BUF_X, SL_BUF_NORM, SL_SLOT_ATTN_NORM, SL_SLOT_NONE),
    SL_OP_MATMUL(SL_BUF_NORM, SL_BUF_LATENT, SL_SLOT_KV_A, SL_SLOT_NONE),
    SL_OP_LATENT_NORM(SL_BUF_LATENT, SL_SLOT_KV_A_NORM),
    SL_OP_MATMUL(SL_BUF_NORM, SL_BUF_Q_LATENT, SL_SLOT_Q_A, SL_SLOT_NONE),
    SL_OP_LATENT_NORM(SL_BUF_Q_LATENT, SL_SLOT_Q_A_NORM),
    SL_OP_MATMUL(SL_BUF_Q_LATENT, SL_BUF_Q, SL_SLOT_Q_B, SL_SLOT_NONE),
    SL_OP_MATMUL(SL_BUF_Q, SL_BUF_WIDE, SL_SLOT_K_B, SL_SLOT_NONE,
                 .by_head = true),
    SL_OP_JOIN,
    SL_OP_ATTEND,
    SL_OP_MATMUL(SL_BUF_ATT, SL_BUF_VALUES, SL_SLOT_V_B, SL_SLOT_NONE,
                 .by_head = true),
    SL_OP_MATMUL(SL_BUF_VALUES, SL_BUF_X, SL_SLOT_ATTN_OUT,
                 SL_SLOT_ATTN_OUT_BIAS, .residual = SL_BUF_X),
};

static const struct sl_layer_op mlp[] = {
    SL_OP_NORM(SL_BUF_X, SL_BUF_NORM, SL_SLOT_MLP_NORM, SL_SLOT_NONE),
    SL_OP_MATMUL(SL_BUF_NORM, SL_BUF_WIDE, SL_SLOT_MLP_IN, SL_SLOT_MLP_IN_BIAS,
                 .epilogue = SL_FN_SWIGLU),
    SL_OP_MATMUL(SL_BUF_WIDE, SL_BUF_X, SL_SLOT_MLP_OUT, SL_SLOT_MLP_OUT_BIAS,
                 .residual = SL_BUF_X),
};

/* The experts are read while the shared one computes. */
static const struct sl_layer_op mixture[] = {
    SL_OP_NORM(SL_BUF_X, SL_BUF_NORM, SL_SLOT_MLP_NORM, SL_SLOT_NONE),
    SL_OP_MATMUL(SL_BUF_NORM, SL_BUF_ROUTE, SL_SLOT_ROUTER, SL_SLOT_NONE),
    SL_OP_ROUTE,
    SL_OP_MATMUL(SL_BUF_NORM, SL_BUF_WIDE, SL_SLOT_SHARED_IN, SL_SLOT_NONE,
                 .epilogue = SL_FN_SWIGLU),
    SL_OP_MATMUL(SL_BUF_WIDE, SL_BUF_MIX, SL_SLOT_SHARED_OUT, SL_SLOT_NONE),
    SL_OP_EXPERTS(SL_BUF_NORM, SL_BUF_MIX, .residual = SL_BUF_X),
};

static const struct sl_layer_op normed_mlp[] = {
    SL_OP_NORM(SL_BUF_X, SL_BUF_NORM, SL_SLOT_MLP_NORM, SL_SLOT_NONE),
    SL_OP_MATMUL(SL_BUF_NORM, SL_BUF_WIDE, SL_SLOT_MLP_IN, SL_SLOT_MLP_IN_BIAS,
                 .epilogue = SL_FN_SWIGLU),
    SL_OP_MATMUL(SL_BUF_WIDE, SL_BUF_NORM, SL_SLOT_MLP_OUT,
                 SL_SLOT_MLP_OUT_BIAS),
    SL_OP_NORM(SL_BUF_NORM, SL_BUF_X, SL_SLOT_MLP_POST_NORM, SL_SLOT_NONE,
               .residual = SL_BUF_X),
};

static const struct sl_layer_op head[] = {
    SL_OP_NORM(SL_BUF_X, SL_BUF_NORM, SL_SLOT_FINAL_NORM, SL_SLOT_NONE),
    SL_OP_MATMUL(SL_BUF_NORM, SL_BUF_LOGITS, SL_SLOT_HEAD, SL_SLOT_NONE),
};

const struct sl_stage_ops sl_decoder_mixture = SL_STAGE_OPS(mixture);

/* By post_norms, then by split_qkv. */
static const struct sl_layer_table tables[2][2] = {
    {{SL_STAGE_OPS(attention), SL_STAGE_OPS(mlp), SL_HEAD_OPS(head)},
     {SL_STAGE_OPS(split_attention), SL_STAGE_OPS(mlp), SL_HEAD_OPS(head)}},
    {{SL_STAGE_OPS(normed_attention), SL_STAGE_OPS(normed_mlp),
      SL_HEAD_OPS(head)},
     {SL_STAGE_OPS(split_normed_attention), SL_STAGE_OPS(normed_mlp),
      SL_HEAD_OPS(head)}},
};

static const struct sl_layer_table latent = {
    SL_STAGE_OPS(latent_attention),
    SL_STAGE_OPS(mlp),
    SL_HEAD_OPS(head),
};

const struct sl_layer_table *sl_decoder_layers(const struct sl_hparams *hp)
{
    if (hp->kv_lora > 0)
        return &latent;
    return &tables[hp->post_norms][hp->split_qkv];
}

void sl_decoder_derive(struct sl_hparams *hp, enum sl_rope rope)
{
    hp->norm = SL_NORM_RMS;
    hp->qkv = SL_QKV_IN_BLOCKS;
    if (hp->rope == SL_ROPE_NONE)
        hp->rope = rope;
    hp->residual_scale = 1;
    hp->glu = true;
    hp->causal = true;
    if (hp->rope_dims == 0)
        hp->rope_dims = hp->head_dim;
}

/* --- config.json ---------------------------------------------------------- */

#define SCALING(key) "rope_parameters." key "|rope_scaling." key

int sl_decoder_read_f32(float *v, const struct sl_settings *s, const char *keys,
                        enum sl_setting need, struct sl_error *err)
{
    double wide = *v;

    if (sl_settings_f64(&wide, s, keys, need, err) != 0)
        return -1;
    *v = (float)wide;
    return 0;
}

static const struct {
    const char *name; /* rope_type */
    enum sl_rope_scaling kind;
} scalings[] = {
    {"default", SL_ROPE_SCALING_NONE},  {"linear", SL_ROPE_SCALING_LINEAR},
    {"dynamic", SL_ROPE_SCALING_NTK},   {"yarn", SL_ROPE_SCALING_YARN},
    {"llama3", SL_ROPE_SCALING_LLAMA3},
};

/* rope_type, and before transformers 4.45 type. */
static int read_scaling_kind(enum sl_rope_scaling *kind,
                             const struct sl_settings *s, struct sl_error *err)
{
    const char *name = "default";

    if (sl_settings_string(&name, s, SCALING("rope_type") "|" SCALING("type"),
                           SL_SETTING_OPTIONAL, err) != 0)
        return -1;
    for (size_t i = 0; i < sizeof scalings / sizeof *scalings; i++) {
        if (strcmp(scalings[i].name, name) != 0)
            continue;
        *kind = scalings[i].kind;
        return 0;
    }
    return sl_fail(err, SL_ERR_UNSUPPORTED,
                   "%s: rope scaling '%.32s' is not one that sluice has: "
                   "linear, dynamic, yarn, llama3",
                   sl_settings_file(s), name);
}

/* What cos and sin are multiplied by where two values are said instead of the
 * factor itself (_compute_yarn_parameters: get_mscale). */
static double mscale(double factor, double by)
{
    return factor <= 1 ? 1 : 0.1 * by * log(factor) + 1;
}

/* beta_fast and beta_slow are turns within the context that a model was
 * trained on (YaRN, arXiv 2309.00071, 3.2); where both mscales are said
 * their quotient scales attention, as _compute_yarn_parameters of
 * transformers' modeling_rope_utils.py has it. */
static int read_yarn(struct sl_rope_scale *r, const struct sl_settings *s,
                     struct sl_error *err)
{
    double one = 0, all = 0;
    bool truncate = true;

    r->low = 1;
    r->high = 32;
    if (sl_decoder_read_f32(&r->low, s, SCALING("beta_slow"),
                            SL_SETTING_OPTIONAL, err) ||
        sl_decoder_read_f32(&r->high, s, SCALING("beta_fast"),
                            SL_SETTING_OPTIONAL, err) ||
        sl_decoder_read_f32(&r->attention, s, SCALING("attention_factor"),
                            SL_SETTING_OPTIONAL, err) ||
        sl_settings_f64(&one, s, SCALING("mscale"), SL_SETTING_OPTIONAL, err) ||
        sl_settings_f64(&all, s, SCALING("mscale_all_dim"), SL_SETTING_OPTIONAL,
                        err) ||
        sl_settings_bool(&truncate, s, SCALING("truncate"), SL_SETTING_OPTIONAL,
                         err))
        return -1;
    if (!truncate)
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "%s: yarn with truncate false: sluice has it with whole "
                       "pairs alone",
                       sl_settings_file(s));
    if (r->attention == 0 && one != 0 && all != 0)
        r->attention = (float)(mscale(r->factor, one) / mscale(r->factor, all));
    return 0;
}

static int read_llama3(struct sl_rope_scale *r, const struct sl_settings *s,
                       struct sl_error *err)
{
    return sl_decoder_read_f32(&r->low, s, SCALING("low_freq_factor"),
                               SL_SETTING_REQUIRED, err) != 0 ||
                   sl_decoder_read_f32(&r->high, s, SCALING("high_freq_factor"),
                                       SL_SETTING_REQUIRED, err) != 0
               ? -1
               : 0;
}

#define ORIGINAL "original_max_position_embeddings"

/* huggingface/transformers modeling_rope_utils.py */
static int read_scaling(struct sl_hparams *hp, const struct sl_settings *s,
                        struct sl_error *err)
{
    struct sl_rope_scale r = {.original_positions = hp->max_positions};

    if (read_scaling_kind(&r.kind, s, err) != 0)
        return -1;
    if (r.kind == SL_ROPE_SCALING_NONE)
        return 0;
    if (sl_decoder_read_f32(&r.factor, s, SCALING("factor"),
                            SL_SETTING_REQUIRED, err) ||
        sl_settings_u32(&r.original_positions, s,
                        SCALING(ORIGINAL) "|" ORIGINAL, SL_SETTING_OPTIONAL,
                        err) ||
        (r.kind == SL_ROPE_SCALING_LLAMA3 && read_llama3(&r, s, err)) ||
        (r.kind == SL_ROPE_SCALING_YARN && read_yarn(&r, s, err)))
        return -1;
    hp->rope_scale = r;
    return 0;
}

/* Newer files of transformers have the settings in rope_parameters, older
 * ones beside the sizes. part: what an architecture rotates of a head where
 * the file does not say. */
static int read_rope(struct sl_hparams *hp, const struct sl_settings *s,
                     double part, struct sl_error *err)
{
    uint32_t d = hp->head_dim;

    hp->rope_base = 10000;
    if (sl_decoder_read_f32(&hp->rope_base, s,
                            "rope_parameters.rope_theta|rope_theta",
                            SL_SETTING_OPTIONAL, err) ||
        sl_settings_f64(&part, s,
                        "rope_parameters.partial_rotary_factor|"
                        "partial_rotary_factor",
                        SL_SETTING_OPTIONAL, err))
        return -1;
    if (d == 0 && hp->n_heads > 0)
        d = hp->hidden / hp->n_heads;
    hp->rope_dims = (uint32_t)(d * part);
    if (!(part > 0 && part <= 1) || !(hp->rope_base > 0))
        return sl_fail(err, SL_ERR_CORRUPT,
                       "%s: partial_rotary_factor is %g and rope_theta %g; "
                       "more than 0 is possible, and 1 at most of the first",
                       sl_settings_file(s), part, (double)hp->rope_base);
    return read_scaling(hp, s, err);
}

/* A window that shuts nothing out is none. */
static int check_window(const struct sl_settings *s, struct sl_error *err)
{
    uint32_t window = 0, positions = 0;
    bool used = true;

    if (sl_settings_bool(&used, s, "use_sliding_window", SL_SETTING_OPTIONAL,
                         err) ||
        sl_settings_u32(&window, s, "sliding_window", SL_SETTING_OPTIONAL,
                        err) ||
        sl_settings_u32(&positions, s, "max_position_embeddings",
                        SL_SETTING_OPTIONAL, err))
        return -1;
    if (!used || window == 0 || window >= positions)
        return 0;
    return sl_fail(err, SL_ERR_UNSUPPORTED,
                   "%s: sliding_window is %u: attention that forgets is not "
                   "one that sluice has",
                   sl_settings_file(s), window);
}

/* swish is an older name of the same. */
static int check_activation(const struct sl_settings *s, struct sl_error *err)
{
    const char *act = "silu";

    if (sl_settings_string(&act, s, "hidden_act", SL_SETTING_OPTIONAL, err))
        return -1;
    if (strcmp(act, "silu") == 0 || strcmp(act, "swish") == 0)
        return 0;
    return sl_fail(err, SL_ERR_UNSUPPORTED,
                   "%s: hidden_act is \"%.32s\"; sluice has \"silu\" there",
                   sl_settings_file(s), act);
}

/* What a GGUF has otherwise than Hugging Face's checkpoints: no config.json
 * says this (ckpt/gguf_config.h). */
static int read_gguf(struct sl_hparams *hp, const struct sl_settings *s,
                     struct sl_error *err)
{
    bool inter = false;

    if (sl_settings_bool(&inter, s, "gguf.rope_interleaved",
                         SL_SETTING_OPTIONAL, err) ||
        sl_settings_u32(&hp->rope_dims, s, "gguf.rope_dims",
                        SL_SETTING_OPTIONAL, err) ||
        sl_settings_bool(&hp->rope_factors, s, "gguf.rope_factors",
                         SL_SETTING_OPTIONAL, err) ||
        sl_settings_bool(&hp->split_qkv, s, "gguf.split_qkv",
                         SL_SETTING_OPTIONAL, err))
        return -1;
    if (inter)
        hp->rope = SL_ROPE_INTERLEAVED;
    return 0;
}

int sl_decoder_configure(struct sl_hparams *hp, const struct sl_settings *s,
                         double rope_part, bool untied, struct sl_error *err)
{
    bool tied = !untied;

    if (sl_settings_u32(&hp->n_layers, s, "num_hidden_layers",
                        SL_SETTING_REQUIRED, err) ||
        sl_settings_u32(&hp->hidden, s, "hidden_size", SL_SETTING_REQUIRED,
                        err) ||
        sl_settings_u32(&hp->inner, s, "intermediate_size", SL_SETTING_REQUIRED,
                        err) ||
        sl_settings_u32(&hp->n_heads, s, "num_attention_heads",
                        SL_SETTING_REQUIRED, err) ||
        sl_settings_u32(&hp->n_kv_heads, s, "num_key_value_heads",
                        SL_SETTING_OPTIONAL, err) ||
        sl_settings_u32(&hp->head_dim, s, "head_dim", SL_SETTING_OPTIONAL,
                        err) ||
        sl_settings_u32(&hp->vocab, s, "vocab_size", SL_SETTING_REQUIRED,
                        err) ||
        sl_settings_u32(&hp->max_positions, s, "max_position_embeddings",
                        SL_SETTING_REQUIRED, err) ||
        sl_decoder_read_f32(&hp->norm_eps, s, "rms_norm_eps",
                            SL_SETTING_REQUIRED, err) ||
        sl_settings_bool(&tied, s, "tie_word_embeddings", SL_SETTING_OPTIONAL,
                         err) ||
        check_activation(s, err) || check_window(s, err))
        return -1;
    hp->untied = !tied;
    return read_rope(hp, s, rope_part, err) != 0 ? -1 : read_gguf(hp, s, err);
}
