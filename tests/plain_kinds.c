#include "config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/plain_kinds.h"
#include "tests/plain_lm.h"
#include "tests/support.h"

/* --- pieces --------------------------------------------------------------- */

static void layer_norm(double *y, const double *x, uint32_t n, double eps,
                       const double *w, const double *b)
{
    double mean = 0, var = 0;

    for (uint32_t c = 0; c < n; c++)
        mean += x[c] / n;
    for (uint32_t c = 0; c < n; c++)
        var += (x[c] - mean) * (x[c] - mean) / n;
    for (uint32_t c = 0; c < n; c++)
        y[c] = (x[c] - mean) / sqrt(var + eps) * w[c] + b[c];
}

void plain_rms_norm(double *y, const double *x, uint32_t n, double eps,
                    const double *w, const double *b)
{
    double square = 0;

    for (uint32_t c = 0; c < n; c++)
        square += x[c] * x[c] / n;
    square += eps;
    for (uint32_t c = 0; c < n; c++)
        y[c] = x[c] / sqrt(square) * w[c];
}

static double alpha_of_layers(const struct sl_hparams *hp)
{
    return sqrt(2.0 * hp->n_layers);
}

/* ChatGLM-6B's own code has another one than SAT's. */
static double alpha_given(const struct sl_hparams *hp)
{
    return hp->residual_scale;
}

static size_t by_head(const struct sl_hparams *hp, unsigned part, uint32_t head)
{
    return (size_t)(3 * head + part) * hp->head_dim;
}

static size_t in_blocks(const struct sl_hparams *hp, unsigned part,
                        uint32_t head)
{
    uint32_t before = part == 0 ? 0 : hp->n_heads + (part - 1) * hp->n_kv_heads;

    return (size_t)(before + head) * hp->head_dim;
}

static double gelu_erf(double x)
{
    return 0.5 * x * (1 + erf(x / sqrt(2)));
}

static double gelu_tanh(double x)
{
    return 0.5 * x *
           (1 + tanh(sqrt(2 / acos(-1)) * (x + 0.044715 * x * x * x)));
}

/* SAT --no-glu has the other GELU too. */
static double geglu(const struct sl_hparams *hp, double first, double second)
{
    return hp->glu ? first * gelu_erf(second) : gelu_tanh(first);
}

static double gelu(const struct sl_hparams *hp, double first, double second)
{
    return gelu_tanh(first);
}

static double swiglu(const struct sl_hparams *hp, double first, double second)
{
    return first / (1 + exp(-first)) * second;
}

/* --- rotation ------------------------------------------------------------- */

/* What an angle is divided by (transformers modeling_rope_utils.py). */
static double stretch(const struct sl_hparams *hp, double freq)
{
    const struct sl_rope_scale *s = &hp->rope_scale;
    double turns = s->original_positions * freq / (2 * acos(-1)), t;

    switch (s->kind) {
    case SL_ROPE_SCALING_NONE:
        return 1;
    case SL_ROPE_SCALING_LINEAR:
        return s->factor;
    case SL_ROPE_SCALING_LLAMA3:
        t = (turns - s->low) / (s->high - s->low);
        t = fmin(1, fmax(0, t));
        return 1 / ((1 - t) / s->factor + t);
    default:
        print_error("plain_lm has no such rope scaling\n");
        fail();
        return 0;
    }
}

/* Values a and b, the i-th pair of dims values that are turned. */
static void turn_pair(double *a, double *b, const struct sl_hparams *hp,
                      uint32_t i, uint32_t dims, int32_t position)
{
    double freq = pow(hp->rope_base, -2.0 * i / dims);
    double angle = position * freq / stretch(hp, freq);
    double u = *a, v = *b;

    *a = u * cos(angle) - v * sin(angle);
    *b = v * cos(angle) + u * sin(angle);
}

static void turn_halves(double *v, const struct sl_hparams *hp, uint32_t dims,
                        int32_t position)
{
    for (uint32_t i = 0; i < dims / 2; i++)
        turn_pair(&v[i], &v[i + dims / 2], hp, i, dims, position);
}

/* Whole heads; by two positions: each half of a head for itself. */
static void turn_glm(double *v, const struct sl_hparams *hp, int32_t position,
                     int32_t block)
{
    uint32_t d = hp->head_dim;

    if (!hp->position_2d) {
        turn_halves(v, hp, d, position);
        return;
    }
    turn_halves(v, hp, d / 2, position);
    turn_halves(v + d / 2, hp, d / 2, block);
}

static void turn_llama(double *v, const struct sl_hparams *hp, int32_t position,
                       int32_t block)
{
    turn_halves(v, hp, hp->head_dim, position);
}

/* Half of a head's first half with the other. */
static void turn_glm4_moe(double *v, const struct sl_hparams *hp,
                          int32_t position, int32_t block)
{
    uint32_t dims = hp->head_dim / 2;

    for (uint32_t i = 0; i < dims / 2; i++)
        turn_pair(&v[i], &v[i + dims / 2], hp, i, dims, position);
}

/* Neighbours, all of what is given. */
static void turn_latent(double *v, const struct sl_hparams *hp,
                        int32_t position, int32_t block)
{
    for (uint32_t i = 0; i < hp->rope_dims / 2; i++)
        turn_pair(&v[2 * i], &v[2 * i + 1], hp, i, hp->rope_dims, position);
}

/* Neighbours of the first half of a head. */
static void turn_chatglm(double *v, const struct sl_hparams *hp,
                         int32_t position, int32_t block)
{
    uint32_t dims = hp->head_dim / 2;

    for (uint32_t i = 0; i < dims / 2; i++)
        turn_pair(&v[2 * i], &v[2 * i + 1], hp, i, dims, position);
}

/* --- the architectures ---------------------------------------------------- */

#define GLM_LEAVES                                                             \
    .layer = "transformer.layers.", .attn_norm = "input_layernorm",            \
    .qkv = "attention.query_key_value", .attn_out = "attention.dense",         \
    .mlp_norm = "post_attention_layernorm", .mlp_in = "mlp.dense_h_to_4h",     \
    .mlp_out = "mlp.dense_4h_to_h",                                            \
    .final_norm = "transformer.final_layernorm"

static const struct plain_names glm130b_names = {
    GLM_LEAVES,
    .head = "transformer.word_embeddings",
};

static const struct plain_names chatglm6b_names = {
    GLM_LEAVES,
    .head = "lm_head",
    .embed = "transformer.word_embeddings",
};

static const struct plain_names glm_names = {
    GLM_LEAVES,
    .head = "word_embeddings",
};

/* q, k and v, gate and up are one tensor in model files. */
static const struct plain_names decoder_names = {
    .layer = "model.layers.",
    .attn_norm = "input_layernorm",
    .qkv = "self_attn.qkv_proj",
    .attn_out = "self_attn.o_proj",
    .attn_post_norm = "post_self_attn_layernorm",
    .mlp_norm = "post_attention_layernorm",
    .mlp_in = "mlp.gate_up_proj",
    .mlp_out = "mlp.down_proj",
    .mlp_post_norm = "post_mlp_layernorm",
    .final_norm = "model.norm",
    .head = "lm_head",
    .embed = "model.embed_tokens",
};

/* The second: SAT --no-glu --position-encoding-2d. */
static void vary_glm130b(struct sl_hparams *hp, unsigned variant)
{
    hp->glu = variant == 0;
    hp->position_2d = variant == 1;
}

/* As its own code has it; SAT's, with positions of one dimension. */
static void vary_chatglm6b(struct sl_hparams *hp, unsigned variant)
{
    hp->glu = false;
    hp->position_2d = variant == 0;
    hp->residual_scale = variant == 0 ? sqrtf(56) : 0;
}

static void vary_glm(struct sl_hparams *hp, unsigned variant)
{
    hp->glu = false;
    hp->untied = false;
    hp->norm_eps = variant == 0 ? 1e-5f : 0;
}

/* GLM-4-9B's base; as ChatGLM2-6B-32K squeezes positions, without biases. */
static void vary_chatglm(struct sl_hparams *hp, unsigned variant)
{
    if (variant == 0) {
        hp->rope_base = 5e6f;
        hp->norm_eps = 1.5625e-07f;
        return;
    }
    hp->no_qkv_bias = true;
    hp->rope_scale = (struct sl_rope_scale){
        .kind = SL_ROPE_SCALING_LINEAR,
        .factor = 4,
        .original_positions = hp->max_positions,
    };
}

/* 9B, 32B */
static void vary_glm4(struct sl_hparams *hp, unsigned variant)
{
    hp->rope_dims = hp->head_dim / 2;
    hp->no_qkv_bias = variant == 1;
}

/* GLM-4.5-Air with a q and k norm; groups of experts, weights as they are. */
static void vary_glm4_moe(struct sl_hparams *hp, unsigned variant)
{
    hp->rope_dims = hp->head_dim / 2;
    hp->expert_inner = 20;
    hp->qk_norm = variant == 0;
    hp->no_qkv_bias = variant == 1;
    hp->n_dense_layers = variant == 0;
    if (variant == 0) {
        hp->n_experts = 7;
        hp->n_experts_used = 3;
        hp->expert_norm = true;
        hp->expert_scale = 2.5f;
        return;
    }
    hp->n_experts = 8;
    hp->n_experts_used = 2;
    hp->n_expert_groups = 4;
    hp->n_expert_groups_used = 2;
    hp->shared_inner = 40;
}

/* GLM-4.7-Flash; one of other sizes, with groups. */
static void vary_glm4_moe_lite(struct sl_hparams *hp, unsigned variant)
{
    vary_glm4_moe(hp, variant);
    hp->qk_norm = hp->no_qkv_bias = false;
    hp->n_kv_heads = hp->head_dim = 0;
    hp->rope_dims = variant == 0 ? 8 : 4;
    hp->q_lora = 24;
    hp->kv_lora = variant == 0 ? 32 : 16;
    hp->nope_dims = variant == 0 ? 12 : 20;
    hp->value_dims = variant == 0 ? 16 : 32;
    hp->latent_eps = variant == 0 ? 0 : 1e-3f;
}

/* Llama 2; Llama 3.1's rope, with every bias that config.json can ask for. */
static void vary_llama(struct sl_hparams *hp, unsigned variant)
{
    hp->no_qkv_bias = variant == 0;
    if (variant == 0)
        return;
    hp->attn_out_bias = hp->mlp_bias = true;
    hp->rope_base = 500000;
    hp->rope_scale = (struct sl_rope_scale){
        .kind = SL_ROPE_SCALING_LLAMA3,
        .factor = 8,
        .original_positions = 64,
        .low = 1,
        .high = 4,
    };
}

/* 7B v0.2 and later; v0.1. */
static void vary_mistral(struct sl_hparams *hp, unsigned variant)
{
    hp->no_qkv_bias = true;
    hp->rope_base = variant == 0 ? 1e6f : 1e4f;
}

static void vary_qwen2(struct sl_hparams *hp, unsigned variant)
{
    hp->rope_base = variant == 0 ? 1e6f : 0;
}

static void vary_qwen3(struct sl_hparams *hp, unsigned variant)
{
    hp->rope_base = 1e6f;
    hp->no_qkv_bias = variant == 0;
    hp->attn_out_bias = variant == 1;
}

#define LIKE_LLAMA                                                             \
    .names = &decoder_names, .norm = plain_rms_norm, .at = in_blocks,          \
    .act = swiglu, .causal = true, .free_heads = true

static const struct plain_kind kinds[] = {
    {
        .name = "glm130b",
        .names = &glm130b_names,
        .norm = layer_norm,
        .residual = PLAIN_DEEP,
        .alpha = alpha_of_layers,
        .at = by_head,
        .turn = turn_glm,
        .act = geglu,
        .biased = true,
        .vary = vary_glm130b,
    },
    {
        .name = "chatglm6b",
        .names = &chatglm6b_names,
        .norm = layer_norm,
        .residual = PLAIN_DEEP,
        .alpha = alpha_given,
        .at = by_head,
        .turn = turn_glm,
        .act = gelu,
        .biased = true,
        .vary = vary_chatglm6b,
    },
    {
        .name = "glm",
        .names = &glm_names,
        .norm = layer_norm,
        .residual = PLAIN_ADDED,
        .at = in_blocks,
        .act = gelu,
        .biased = true,
        .tables = true,
        .vary = vary_glm,
    },
    {
        .name = "chatglm",
        LIKE_LLAMA,
        .residual = PLAIN_ADDED,
        .turn = turn_chatglm,
        .vary = vary_chatglm,
    },
    {
        .name = "glm4",
        LIKE_LLAMA,
        .residual = PLAIN_NORMED_AND_ADDED,
        .turn = turn_chatglm,
        .vary = vary_glm4,
    },
    {
        .name = "glm4moe",
        LIKE_LLAMA,
        .residual = PLAIN_ADDED,
        .turn = turn_glm4_moe,
        .may_head_norms = true,
        .vary = vary_glm4_moe,
    },
    {
        .name = "glm4moelite",
        LIKE_LLAMA,
        .residual = PLAIN_ADDED,
        .turn = turn_latent,
        .vary = vary_glm4_moe_lite,
    },
    {
        .name = "llama",
        LIKE_LLAMA,
        .residual = PLAIN_ADDED,
        .turn = turn_llama,
        .vary = vary_llama,
    },
    {
        .name = "mistral",
        LIKE_LLAMA,
        .residual = PLAIN_ADDED,
        .turn = turn_llama,
        .vary = vary_mistral,
    },
    {
        .name = "qwen2",
        LIKE_LLAMA,
        .residual = PLAIN_ADDED,
        .turn = turn_llama,
        .vary = vary_qwen2,
    },
    {
        .name = "qwen3",
        LIKE_LLAMA,
        .residual = PLAIN_ADDED,
        .turn = turn_llama,
        .head_norms = true,
        .vary = vary_qwen3,
    },
};

const struct plain_kind *plain_kind_find(const char *arch)
{
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(kinds[i].name, arch) == 0)
            return &kinds[i];
    }
    print_error("the architecture '%s' has no row in the table of "
                "tests/plain_kinds.c: nothing to hold its logits against\n",
                arch);
    fail();
    return NULL;
}

void plain_lm_vary(struct sl_hparams *hp, const char *arch, unsigned variant)
{
    const struct plain_kind *k = plain_kind_find(arch);

    if (!k->free_heads) {
        hp->hidden = hp->n_heads * hp->head_dim;
        hp->n_kv_heads = hp->head_dim = 0;
    }
    if (k->names->embed == NULL)
        hp->untied = false;
    k->vary(hp, variant);
}
