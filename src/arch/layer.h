/*
 * layer.h - what a layer computes, as a table
 *
 * A stage (a layer's attention, its MLP, the head) is a short list of
 * operations over a few buffers that hold a row for every position of the
 * pass. An architecture is such lists and a list of tensors (arch.h); the
 * engines, memory counting and the planner read them, and none of them knows
 * a model. GLM-130B's attention, for one:
 *
 *   NORM   x -> norm       attention norm
 *   MATMUL norm -> wide    query_key_value + bias
 *   ATTEND wide -> att
 *   MATMUL att -> x        dense + bias, + alpha * norm
 *
 * Rules that every engine keeps and every table may rely on:
 *   - Between stages nothing lives but x.
 *   - A MATMUL may come in parts, blocks of output rows. What precedes the
 *     stage's first MATMUL runs before its first part; what follows a MATMUL
 *     up to the next one, its epilogue and residual first, after its last.
 *   - Where out is the residual too (x = x + W att), the product waits in
 *     norm, which must then be no operand.
 *   - Of an operation whose weight the model has not (a q norm that is
 *     optional) nothing is done; a bias that it has not is not added.
 */
#ifndef SL_LAYER_H
#define SL_LAYER_H

#include <stdbool.h>
#include <stdint.h>

#include "src/arch/hparams.h"

enum sl_buf {
    SL_BUF_NONE,
    SL_BUF_X,      /* the residual stream, hidden values a position */
    SL_BUF_NORM,   /* hidden values */
    SL_BUF_WIDE,   /* query_key_value, then the MLP's inner values */
    SL_BUF_ATT,    /* the heads' outputs side by side */
    SL_BUF_ROUTE,  /* what the router gives each expert */
    SL_BUF_MIX,    /* hidden values: what the experts give together */
    SL_BUF_LATENT, /* of keys and values: kv_lora values and rope_dims */
    SL_BUF_Q_LATENT,
    SL_BUF_Q,      /* each head's nope_dims and rope_dims */
    SL_BUF_VALUES, /* the heads' outputs out of their latents */
    SL_BUF_LOGITS, /* vocab values of the positions that are wanted */
    SL_BUF_COUNT,
};

enum sl_do {
    SL_DO_NORM,        /* out = norm(in) by weight and bias [+ residual] */
    SL_DO_MATMUL,      /* out = epilogue(W in + bias) [+ alpha * residual] */
    SL_DO_HEAD_NORM,   /* in place: each head's q by weight, its k by bias,
                        * RMS norms over head_dim values */
    SL_DO_ATTEND,      /* turns q and k, keeps k and v, out = attention */
    SL_DO_LATENT_NORM, /* in place: an RMS norm of all values but those that
                        * are rotated */
    SL_DO_JOIN,        /* in's rotated values, and the latent's row, to their
                        * places in out */
    SL_DO_ROUTE,       /* chooses experts and their weights by `in`; bias: what
                        * is added for choosing */
    SL_DO_EXPERTS,     /* out += the chosen experts' MLPs of in, by weight;
                        * then residual += out. Their matrices are read when
                        * ROUTE has spoken, and are of no stage */
};

/* Which tensor of a layer (or of the model): what binds names in files to
 * operands. */
enum sl_slot {
    SL_SLOT_NONE,
    SL_SLOT_ATTN_NORM,
    SL_SLOT_ATTN_NORM_BIAS,
    SL_SLOT_QKV,
    SL_SLOT_Q, /* the three of it, where they are of different formats */
    SL_SLOT_K,
    SL_SLOT_V,
    SL_SLOT_QKV_BIAS,
    SL_SLOT_Q_NORM,
    SL_SLOT_K_NORM,
    SL_SLOT_KV_A, /* to the latent of keys and values */
    SL_SLOT_KV_A_NORM,
    SL_SLOT_Q_A, /* to that of queries */
    SL_SLOT_Q_A_NORM,
    SL_SLOT_Q_B,
    SL_SLOT_K_B, /* of each head: its query to one of the latent */
    SL_SLOT_V_B, /* of each head: the latent to its output */
    SL_SLOT_ATTN_OUT,
    SL_SLOT_ATTN_OUT_BIAS,
    SL_SLOT_ATTN_POST_NORM,
    SL_SLOT_MLP_NORM,
    SL_SLOT_MLP_NORM_BIAS,
    SL_SLOT_MLP_IN,
    SL_SLOT_MLP_IN_BIAS,
    SL_SLOT_MLP_OUT,
    SL_SLOT_MLP_OUT_BIAS,
    SL_SLOT_MLP_POST_NORM,
    SL_SLOT_ROUTER,
    SL_SLOT_ROUTER_BIAS,
    SL_SLOT_SHARED_IN, /* the expert that is always used */
    SL_SLOT_SHARED_OUT,
    SL_SLOT_EXPERT_IN, /* of each expert, which the specs number */
    SL_SLOT_EXPERT_OUT,
    SL_SLOT_FINAL_NORM,
    SL_SLOT_FINAL_NORM_BIAS,
    SL_SLOT_ROPE_FACTORS, /* what each pair's frequency is divided by */
    SL_SLOT_HEAD,
    SL_SLOT_EMBED,           /* rows by id, where the head is another matrix */
    SL_SLOT_EMBED_POSITIONS, /* rows by position, added */
    SL_SLOT_EMBED_BLOCKS,    /* rows by second position, added */
    SL_SLOT_COUNT,
};

/* The matrix whose product an attention begins with. */
bool sl_slot_is_first_of_attention(enum sl_slot slot);
/* The gain of a norm: near one, where biases are near zero. */
bool sl_slot_is_gain(enum sl_slot slot);

/* What a product is put through before anything is added. The two halves of a
 * gated MLP are the matrix's two segments, a and b. */
enum sl_act_fn {
    SL_FN_NONE,
    SL_FN_GEGLU,     /* a * gelu_erf(b) (GLM-130B) */
    SL_FN_SWIGLU,    /* silu(a) * b (Shazeer, 2020) */
    SL_FN_GELU_TANH, /* of one segment */
};

/* "none", "geglu", "swiglu", "gelu". */
const char *sl_act_fn_name(enum sl_act_fn fn);

struct sl_layer_op {
    enum sl_do what;
    enum sl_buf in, out;
    enum sl_slot weight, bias;
    enum sl_act_fn epilogue;
    enum sl_buf residual;
    bool by_head; /* the matrix has rows for each head, which take its values of
                   * in */
    bool scaled;  /* the residual counts hp->residual_scale times */
};

/* Rows of a table; what follows names more fields. */
#define SL_OP_NORM(from, to, w, b, ...)                                        \
    {                                                                          \
        .what = SL_DO_NORM, .in = (from), .out = (to), .weight = (w),          \
        .bias = (b), __VA_ARGS__                                               \
    }
#define SL_OP_MATMUL(from, to, w, b, ...)                                      \
    {                                                                          \
        .what = SL_DO_MATMUL, .in = (from), .out = (to), .weight = (w),        \
        .bias = (b), __VA_ARGS__                                               \
    }
#define SL_OP_HEAD_NORM                                                        \
    {                                                                          \
        .what = SL_DO_HEAD_NORM, .in = SL_BUF_WIDE, .out = SL_BUF_WIDE,        \
        .weight = SL_SLOT_Q_NORM, .bias = SL_SLOT_K_NORM                       \
    }
#define SL_OP_ATTEND                                                           \
    {                                                                          \
        .what = SL_DO_ATTEND, .in = SL_BUF_WIDE, .out = SL_BUF_ATT             \
    }
#define SL_OP_LATENT_NORM(buf, w)                                              \
    {                                                                          \
        .what = SL_DO_LATENT_NORM, .in = (buf), .out = (buf), .weight = (w)    \
    }
#define SL_OP_JOIN                                                             \
    {                                                                          \
        .what = SL_DO_JOIN, .in = SL_BUF_Q, .out = SL_BUF_WIDE                 \
    }
#define SL_OP_ROUTE                                                            \
    {                                                                          \
        .what = SL_DO_ROUTE, .in = SL_BUF_ROUTE, .out = SL_BUF_ROUTE,          \
        .bias = SL_SLOT_ROUTER_BIAS                                            \
    }
#define SL_OP_EXPERTS(from, to, ...)                                           \
    {                                                                          \
        .what = SL_DO_EXPERTS, .in = (from), .out = (to), __VA_ARGS__          \
    }

/* A stage's operations. */
struct sl_stage_ops {
    const struct sl_layer_op *ops;
    uint32_t n;
    bool wanted_rows; /* only for positions whose logits are wanted */
};

#define SL_STAGE_OPS(list)                                                     \
    {                                                                          \
        .ops = (list), .n = sizeof(list) / sizeof *(list)                      \
    }
#define SL_HEAD_OPS(list)                                                      \
    {                                                                          \
        .ops = (list), .n = sizeof(list) / sizeof *(list), .wanted_rows = true \
    }

/* The layers of a model are alike, but that of models with experts only the
 * first n_dense_layers have an MLP; the others have a mixture there (arch.h).
 */
struct sl_layer_table {
    struct sl_stage_ops attention, mlp, head;
};

/* The operation of the matrix in that slot; there is one. */
uint32_t sl_stage_op_of(const struct sl_stage_ops *s, enum sl_slot matrix);
/* What the product with that matrix is put through. */
enum sl_act_fn sl_stage_epilogue(const struct sl_stage_ops *s,
                                 enum sl_slot matrix);
/* The next MATMUL behind operation `at` (or from the first with at = -1), n
 * where there is none. */
uint32_t sl_stage_next_matmul(const struct sl_stage_ops *s, int at);

#endif
