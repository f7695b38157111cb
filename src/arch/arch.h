/*
 * arch.h - architectures: one file each, ending in a const table
 *
 * An architecture says which tensors a checkpoint must hold, how tensor
 * parallelism splits them, and in which order of use they lie in the model
 * file. The converter, the model file and the executor all read this one
 * list. arch.c holds the list of tables.
 */
#ifndef SL_ARCH_H
#define SL_ARCH_H

#include <stddef.h>

#include "src/arch/hparams.h"
#include "src/base/error.h"

/* How an N-way tensor-parallel checkpoint splits a tensor (formats.md; SAT
 * mpu/layers.py, THUDM/GLM-130B tools/convert_tp.py). */
enum sl_split {
    SL_SPLIT_NONE, /* replicated: rank 0's is taken */
    SL_SPLIT_ROWS, /* concatenate along dim 0 */
    SL_SPLIT_COLS, /* concatenate along dim 1 */
    SL_SPLIT_GLU,  /* every rank has [A_r; B_r]: all A first, then all B */
};

enum sl_role {
    SL_ROLE_VECTOR, /* norm or bias: FP32 in the model file, always resident */
    SL_ROLE_LINEAR, /* a weight matrix that --quant packs */
    SL_ROLE_EMBED,  /* embedding and head, one tied matrix */
};

/* The matrices of a pass, in the order in which they are used. The number is
 * the index into the executor's table of operations. */
enum sl_op {
    SL_OP_QKV,      /* attention.query_key_value */
    SL_OP_ATTN_OUT, /* attention.dense */
    SL_OP_MLP_IN,   /* mlp.dense_h_to_4h */
    SL_OP_MLP_OUT,  /* mlp.dense_4h_to_h */
    SL_OP_HEAD,     /* word_embeddings as the output head */
    SL_OP_COUNT,
};

struct sl_tensor_spec {
    char name[80]; /* as in the checkpoint, "transformer.…weight" */
    enum sl_role role;
    enum sl_split split;
    uint32_t rows; /* a vector has rows values and cols = 1 */
    uint32_t cols;
    uint32_t n_segments; /* 2 for a GLU's matrix, else 1 */
    int stage;           /* index of the stage a matrix belongs to; -1: none */
    enum sl_op op;       /* matrices only */
    uint32_t layer;      /* of matrices and layer vectors */
};

/* "layer 3 attention", "layer 3 mlp", "head" */
#define SL_STAGE_NAME 32

struct sl_arch {
    const char *name; /* general.architecture of the model file */
    uint32_t (*n_stages)(const struct sl_hparams *hp);
    void (*stage_name)(char name[SL_STAGE_NAME], const struct sl_hparams *hp,
                       uint32_t stage);
    /* The i-th tensor in order: vectors first (as used), then the matrices
     * stage by stage. False beyond the last. */
    bool (*tensor)(struct sl_tensor_spec *spec, const struct sl_hparams *hp,
                   uint32_t i);
};

extern const struct sl_arch sl_arch_glm130b;

/* NULL if there is none of that name. */
const struct sl_arch *sl_arch_find(const char *name);
/* The n-th architecture, NULL beyond the last. */
const struct sl_arch *sl_arch_at(size_t n);

#endif
