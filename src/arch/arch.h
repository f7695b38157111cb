/*
 * arch.h - architectures: one file each, ending in a const table
 *
 * An architecture is numbers and names: the operations of its layers
 * (layer.h), the tensors a checkpoint must hold, how tensor parallelism
 * splits them, what config.json calls its sizes. The converter, the model
 * file, the planner and the engines all read these tables. arch.c holds the
 * list of architectures, and makes of a table the list of tensors in their
 * order of use.
 */
#ifndef SL_ARCH_H
#define SL_ARCH_H

#include <stddef.h>

#include "src/arch/archs.h"
#include "src/arch/hparams.h"
#include "src/arch/layer.h"
#include "src/base/error.h"

/* How an N-way tensor-parallel checkpoint splits a tensor
 * (THUDM/SwissArmyTransformer mpu/layers.py, THUDM/GLM-130B
 * tools/convert_tp.py, THUDM/GLM change_mp.py). */
enum sl_split {
    SL_SPLIT_NONE, /* replicated: rank 0's is taken */
    SL_SPLIT_ROWS, /* concatenate along dim 0 */
    SL_SPLIT_COLS, /* concatenate along dim 1 */
    SL_SPLIT_GLU,  /* every rank has [A_r; B_r]: all A first, then all B */
    SL_SPLIT_QKV,  /* every rank has [Q_r; K_r; V_r]: likewise, in thirds */
    /* Of [heads (nope_dims + value_dims), kv_lora], in one piece: each head's
     * first rows, turned on their side; its other rows. (A GGUF file has the
     * two as they are here.) */
    SL_SPLIT_HEAD_KEYS,
    SL_SPLIT_HEAD_VALUES,
};

enum sl_role {
    SL_ROLE_VECTOR, /* norm or bias: FP32 in the model file, always resident */
    SL_ROLE_LINEAR, /* a weight matrix that --quant packs */
    SL_ROLE_EMBED,  /* the output head, embeddings: --head says how */
    SL_ROLE_ROUTER, /* a matrix that stays FP32: it decides */
    SL_ROLE_EXPERT, /* one expert's weight matrix: --quant-experts packs it */
};

/* A size that a tensor can have, by name. */
enum sl_dim {
    SL_DIM_ONE, /* a vector's columns */
    SL_DIM_HIDDEN,
    SL_DIM_QKV,     /* (n_heads + 2 n_kv_heads) * head_dim */
    SL_DIM_ATT,     /* n_heads * head_dim */
    SL_DIM_KV,      /* n_kv_heads * head_dim */
    SL_DIM_PAIRS,   /* rope_dims / 2 */
    SL_DIM_HEAD,    /* head_dim */
    SL_DIM_INNER,   /* of the MLP */
    SL_DIM_MLP_IN,  /* inner, twice with a gate */
    SL_DIM_ATT_OUT, /* what the heads give together */
    SL_DIM_Q_LORA,
    SL_DIM_KV_LORA,
    SL_DIM_LATENT,  /* kv_lora + rope_dims */
    SL_DIM_NOPE,    /* nope_dims */
    SL_DIM_Q_HEADS, /* n_heads (nope_dims + rope_dims) */
    SL_DIM_K_HEADS, /* n_heads kv_lora */
    SL_DIM_V_HEADS, /* n_heads value_dims */
    SL_DIM_EXPERTS,
    SL_DIM_EXPERT_INNER,
    SL_DIM_EXPERT_IN, /* twice that: gate and up */
    SL_DIM_SHARED_INNER,
    SL_DIM_SHARED_IN,
    SL_DIM_VOCAB,
    SL_DIM_POSITIONS, /* max_positions + 1 */
};

/* Which models have a tensor. */
enum sl_when {
    SL_WHEN_ALWAYS,
    SL_WHEN_QKV_WHOLE,
    SL_WHEN_QKV_SPLIT,
    SL_WHEN_ROPE_FACTORS,
    SL_WHEN_QKV_BIAS,
    SL_WHEN_ATTN_OUT_BIAS,
    SL_WHEN_MLP_BIAS,
    SL_WHEN_QK_NORM,
    SL_WHEN_POST_NORMS,
    SL_WHEN_UNTIED,
    SL_WHEN_LATENT,
    SL_WHEN_DENSE,   /* layers with an MLP */
    SL_WHEN_MIXTURE, /* layers with experts */
};

/* Most tensors of a checkpoint that are one here: q, k, v; gate, up. */
#define SL_SOURCES 3

/* A tensor of every layer (with %u for its number), of every expert (with a
 * second one for its own) or of the model. */
struct sl_tensor_row {
    enum sl_slot slot;
    const char *name; /* in the model file, and in checkpoints unless ... */
    enum sl_split split;
    enum sl_dim rows, cols;
    enum sl_when when;
    /* ... it has another name there (two more are looked for), */
    const char *alias[2];
    /* or its rows lie in several tensors, in this order. */
    const char *parts[SL_SOURCES];
    /* The same in published GGUF files (ggml-org/llama.cpp
     * src/llama-arch.cpp): parts, where the first of them is there. */
    const char *gguf[2];
    const char *gguf_parts[SL_SOURCES];
};

/* Rows of a table; what follows names more fields. */
#define SL_VECTOR(slot_, name_, split_, values, ...)                           \
    {                                                                          \
        .slot = (slot_), .name = (name_), .split = (split_), .rows = (values), \
        __VA_ARGS__                                                            \
    }
#define SL_MATRIX(slot_, name_, split_, out, in, ...)                          \
    {                                                                          \
        .slot = (slot_), .name = (name_), .split = (split_), .rows = (out),    \
        .cols = (in), __VA_ARGS__                                              \
    }
#define SL_ROWS(layer_, model_)                                                \
    .layer_rows = (layer_), .n_layer_rows = sizeof(layer_) / sizeof *(layer_), \
    .model_rows = (model_), .n_model_rows = sizeof(model_) / sizeof *(model_)

#define SL_EXPERT_ROWS(rows_)                                                  \
    .expert_rows = (rows_), .n_expert_rows = sizeof(rows_) / sizeof *(rows_)

#define SL_TENSOR_SPEC_NAME 80

struct sl_tensor_spec {
    char name[SL_TENSOR_SPEC_NAME];
    enum sl_slot slot;
    enum sl_role role;
    enum sl_split split;
    uint32_t rows; /* a vector has rows values and cols = 1 */
    uint32_t cols;
    uint32_t n_segments; /* 2 for a gated MLP's matrix and its bias, else 1 */
    int stage;           /* the stage a matrix is streamed for; -1: none */
    uint32_t layer;      /* n_layers: of the model */
    uint32_t expert;     /* 0 of those that have none */
    const struct sl_tensor_row *row; /* where parts and aliases are */
    uint32_t part_rows[SL_SOURCES];  /* rows of each of its parts */
};

/* "layer 3 attention", "layer 3 mlp", "head" */
#define SL_STAGE_NAME 32

/* How a text with blanks becomes ids (text/prompt.h). */
enum sl_prompts {
    SL_PROMPTS_GLM_130B, /* [gMASK] behind what has no mark, then </s> */
    SL_PROMPTS_GLM,      /* [CLS] first, marks of all kinds are filled */
    SL_PROMPTS_CHATGLM,  /* [gMASK] behind every text, and nothing else */
};

struct sl_settings; /* a config.json (settings.h) */

struct sl_arch {
    const char *name; /* general.architecture of the model file */
    const char *what; /* which models, for people: "ChatGLM2-6B, ..." */
    /* What config.json has as architectures[0] or, failing that, model_type;
     * ends in NULL. NULL: its checkpoints bring none. */
    const char *const *hf_names;
    /* general.architecture of the GGUF files that llama.cpp's converter makes
     * of it; NULL: it makes none, or calls it something else. */
    const char *gguf_name;
    /* Several kinds of model go by one name: whether this is one of them.
     * NULL: it is. */
    bool (*takes)(const struct sl_settings *s);
    /* Fills hp from config.json. Errors: as settings.h; SL_ERR_UNSUPPORTED
     * naming the setting that makes it another model. */
    int (*configure)(struct sl_hparams *hp, const struct sl_settings *s,
                     struct sl_error *err);
    /* A tensor that, of checkpoints without a config.json, only this
     * architecture's have (the layer is 0); ends in NULL. NULL: none. */
    const char *const *marks;
    /* Of checkpoints without a config.json: values a head, positions; 0: it
     * must be said. */
    uint32_t default_head_dim, default_positions;
    enum sl_prompts prompts; /* of models that are not causal */
    /* How the names of a P-Tuning v2 prefix's tensors begin in checkpoints;
     * NULL: the architecture takes none. */
    const char *prefix;
    /* In order of use: of every layer, then of the model; a vector has
     * SL_DIM_ONE columns. The head is the model's first matrix. */
    const struct sl_tensor_row *layer_rows, *model_rows;
    size_t n_layer_rows, n_model_rows;
    /* Matrices of every expert, in order of use; NULL: there are none. */
    const struct sl_tensor_row *expert_rows;
    size_t n_expert_rows;
    const struct sl_stage_ops *mixture; /* in place of the MLP; or NULL */
    /* Fills in what is 0 of hp and cannot be otherwise. */
    void (*derive)(struct sl_hparams *hp);
    const struct sl_layer_table *(*layers)(const struct sl_hparams *hp);
};

#define DECLARE(name) extern const struct sl_arch sl_arch_##name;
SL_ARCHS(DECLARE)
#undef DECLARE

/* NULL if there is none of that name. */
const struct sl_arch *sl_arch_find(const char *name);
/* What keeps a model of the family from being run here, by the name that
 * config.json or GGUF metadata has for its kind; NULL: not known. */
const char *sl_arch_lacks(const char *name);
/* The architecture of a config.json. Errors: SL_ERR_UNSUPPORTED naming what it
 * says and what that lacks, or the architectures there are. */
int sl_arch_of_settings(const struct sl_arch **arch,
                        const struct sl_settings *s, struct sl_error *err);
/* The n-th architecture, NULL beyond the last. */
const struct sl_arch *sl_arch_at(size_t n);

/* What hp leaves at 0 and follows from the rest: n_kv_heads, head_dim, the
 * rope, then what the architecture knows. */
void sl_arch_derive(const struct sl_arch *arch, struct sl_hparams *hp);

/* Values of a dimension. */
uint32_t sl_dim_size(const struct sl_hparams *hp, enum sl_dim dim);

/* The i-th tensor in order: vectors first (as used), then the matrices stage
 * by stage, the head, embeddings that no stage streams, and the experts layer
 * by layer, which none streams either. False beyond the last. */
bool sl_arch_tensor(const struct sl_arch *arch, struct sl_tensor_spec *spec,
                    const struct sl_hparams *hp, uint32_t i);

/* Matrices that experts have together; 0: there are no experts. */
uint32_t sl_arch_n_expert_matrices(const struct sl_arch *arch,
                                   const struct sl_hparams *hp);
/* Whether a layer has experts. */
static inline bool sl_arch_is_mixture(const struct sl_hparams *hp,
                                      uint32_t layer)
{
    return hp->n_experts > 0 && layer >= hp->n_dense_layers;
}

/* A name of the spec's row (its own, a part's, its alias). */
void sl_arch_spec_name(char name[SL_TENSOR_SPEC_NAME], const char *of,
                       const struct sl_tensor_spec *spec);
/* A name of a row (its own, a part's, its alias) for a layer. */
void sl_arch_source_name(char name[SL_TENSOR_SPEC_NAME], const char *of,
                         uint32_t layer);

/* Two stages a layer, then the head. */
uint32_t sl_arch_n_stages(const struct sl_hparams *hp);
void sl_arch_stage_name(char name[SL_STAGE_NAME], const struct sl_hparams *hp,
                        uint32_t stage);
const struct sl_stage_ops *sl_arch_stage(const struct sl_arch *arch,
                                         const struct sl_hparams *hp,
                                         uint32_t stage);
/* The stage that a slot's matrix is streamed for, -1: none. */
int sl_arch_stage_of(const struct sl_hparams *hp, enum sl_slot slot,
                     uint32_t layer);

/* Values a position of a buffer, and columns of the widest product's input:
 * the widest that any operation of the layers needs. */
uint32_t sl_arch_buf_width(const struct sl_arch *arch,
                           const struct sl_hparams *hp, enum sl_buf buf);
uint32_t sl_arch_widest_input(const struct sl_arch *arch,
                              const struct sl_hparams *hp);

/* Where a position's q, k and v lie in a row of query_key_value: head h's q
 * at h * q_step, kv head g's k at k_at + g * kv_step, its v at v_at + ... */
struct sl_qkv_row {
    uint32_t q_step, k_at, v_at, kv_step;
};
struct sl_qkv_row sl_arch_qkv_row(const struct sl_hparams *hp);

/* Where a matrix's product begins in a row of the buffer that it goes to, and
 * its bias among the values of the bias: 0 but for K and V. */
uint32_t sl_arch_out_at(const struct sl_hparams *hp, enum sl_slot matrix);

#endif
