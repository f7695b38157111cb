/*
 * hparams.h - what makes a model this model
 *
 * Everything the forward pass and the tokenizer must know beside weights. It
 * comes from a preset, a config.json or flags when a checkpoint is converted,
 * and from the metadata of the model file ever after.
 */
#ifndef SL_HPARAMS_H
#define SL_HPARAMS_H

#include <stdbool.h>
#include <stdint.h>

#include "src/arch/sampling.h"
#include "src/arch/text_params.h"
#include "src/base/error.h"

/* How the rotary table was rounded when the model was trained
 * (docs: SAT model/position_embedding/rotary_embeddings.py; a GLM-130B half
 * run rounds inv_freq, position, their product and cos/sin to FP16). */
enum sl_rotary {
    SL_ROTARY_EXACT,        /* nothing rounded */
    SL_ROTARY_INV_FREQ_F16, /* inv_freq rounded to FP16, the rest FP32 */
    SL_ROTARY_F16,          /* position, inv_freq, product, cos, sin: FP16 */
};

enum sl_norm {
    SL_NORM_LAYER, /* (x - mean) / sqrt(var + eps) * w + b */
    SL_NORM_RMS,   /* x / sqrt(mean(x^2) + eps) * w */
};

/* Which values of a head's first rope_dims are turned together. */
enum sl_rope {
    SL_ROPE_NONE,
    SL_ROPE_HALF,        /* (i, i + rope_dims / 2) */
    SL_ROPE_INTERLEAVED, /* (2i, 2i + 1) */
};

/* How the rows of query_key_value are ordered. */
enum sl_qkv {
    SL_QKV_BY_HEAD,  /* per head its q, k and v */
    SL_QKV_IN_BLOCKS /* q of all heads, k of all kv heads, v of all */
};

/* How a context longer than the one trained for is squeezed into the angles;
 * huggingface/transformers modeling_rope_utils.py defines each. */
enum sl_rope_scaling {
    SL_ROPE_SCALING_NONE,
    SL_ROPE_SCALING_LINEAR, /* positions / factor */
    SL_ROPE_SCALING_NTK,    /* "dynamic": base grows with the length */
    SL_ROPE_SCALING_YARN,   /* Peng et al., 2023 */
    SL_ROPE_SCALING_LLAMA3, /* slow frequencies / factor */
};

struct sl_rope_scale {
    enum sl_rope_scaling kind;
    float factor;
    uint32_t original_positions; /* max_positions before it was stretched */
    float low, high;             /* llama3: low_freq_factor, high_freq_factor;
                                  * yarn: beta_slow, beta_fast */
    float attention;             /* yarn: cos and sin times this; 0: as
                                  * 0.1 ln(factor) + 1 */
};

/* The first seven describe the size; what is 0 of the others is derived by
 * the architecture (sl_arch_derive), which also knows what its checkpoints
 * leave out. */
struct sl_hparams {
    uint32_t n_layers;
    uint32_t hidden;
    uint32_t inner; /* of the MLP; a GLU has 2 * inner rows going in */
    uint32_t n_heads;
    uint32_t vocab; /* rows of the embedding, padding included */
    uint32_t max_positions;
    float norm_eps;
    uint32_t n_kv_heads; /* n_heads is a multiple of it */
    uint32_t head_dim;
    enum sl_norm norm;
    enum sl_qkv qkv;
    enum sl_rope rope;
    uint32_t rope_dims; /* values of a head that are turned, from the first */
    float rope_base;
    struct sl_rope_scale rope_scale;
    float residual_scale; /* DeepNorm's alpha; 1 elsewhere */
    bool causal;          /* a prompt's positions do not see later ones */
    bool untied;          /* the head is not the embedding */
    bool no_qkv_bias, attn_out_bias, mlp_bias;
    bool post_norms;   /* what attention and MLP give is normed before it is
                        * added ("sandwich") */
    bool split_qkv;    /* q, k and v are matrices of their own, since a GGUF
                        * has them in different formats */
    bool rope_factors; /* there are divisors of the frequencies */
    bool qk_norm;      /* every head's q and k have a norm of their own */
    bool position_2d;  /* rope_dims / 2 by each of two positions; SAT
                        * --position-encoding-2d */
    bool glu;          /* the MLP has a gate; GLM-130B: SAT --no-glu */
    /* Keys and values as one latent for all heads (DeepSeek-V2, arXiv
     * 2405.04434, 2.1): n_kv_heads is 1, head_dim kv_lora + rope_dims, the last
     * of which are rotated. kv_lora 0: no such thing. */
    uint32_t q_lora, kv_lora;
    uint32_t nope_dims;  /* of a head's q before it meets the latent */
    uint32_t value_dims; /* of a head's output */
    float latent_eps;    /* of the latents' norms */
    /* Mixtures of experts; 0 experts: there are none. */
    uint32_t n_experts, n_experts_used; /* of a layer, for a position */
    uint32_t n_expert_groups;           /* of as many consecutive experts */
    uint32_t n_expert_groups_used;      /* those with the best two experts */
    uint32_t expert_inner;              /* inner of one expert */
    uint32_t shared_inner;              /* of the one that is always used */
    uint32_t n_dense_layers;            /* the first, which have an MLP */
    bool expert_norm;                   /* weights are made to sum up to 1 */
    float expert_scale;                 /* then they count so many times */
    enum sl_rotary rotary;
    /* Of a checkpoint, behind the last: layers that predict further tokens and
     * are left out. */
    uint32_t n_layers_left_out;
    struct sl_text_params text;
    struct sl_sampling sampling;
};

/* That the numbers can be a model and that no size made of them overflows.
 * Errors: SL_ERR_CORRUPT naming the number. */
int sl_hparams_check(const struct sl_hparams *hp, struct sl_error *err);

/* The names the options take and the model file holds: "exact",
 * "inv-freq-f16", "f16". */
const char *sl_rotary_name(enum sl_rotary rotary);
/* False when there is none of that name. */
bool sl_rotary_find(enum sl_rotary *rotary, const char *name);

/* "layer", "rms". */
const char *sl_norm_name(enum sl_norm norm);
/* "none", "half", "interleaved". */
const char *sl_rope_name(enum sl_rope rope);
/* As the model file has it: "none", "linear", "dynamic", "yarn", "llama3". */
const char *sl_rope_scaling_name(enum sl_rope_scaling kind);
bool sl_rope_scaling_find(enum sl_rope_scaling *kind, const char *name);

#endif
