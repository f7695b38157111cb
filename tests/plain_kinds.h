/*
 * plain_kinds.h - what architectures compute, for plain_lm.c
 *
 * Formulas of their own, after demo/reference.py (GLM-130B), THUDM/chatglm-6b
 * and THUDM/chatglm3-6b modeling_chatglm.py, THUDM/GLM model/modeling_glm.py
 * and huggingface/transformers models/{llama,mistral,qwen2,qwen3,glm4,
 * glm4_moe}. The tables of src/arch are what they are there to check, and
 * nothing here looks at them.
 */
#ifndef SL_TESTS_PLAIN_KINDS_H
#define SL_TESTS_PLAIN_KINDS_H

#include <stddef.h>

#include "src/arch/hparams.h"

/* Leaves, to which .weight and .bias are added. */
struct plain_names {
    const char *layer; /* what a layer's begin with */
    const char *attn_norm, *qkv, *attn_out, *attn_post_norm;
    const char *mlp_norm, *mlp_in, *mlp_out, *mlp_post_norm;
    const char *final_norm, *head, *embed;
};

struct plain_kind {
    const char *name; /* of the architecture */
    const struct plain_names *names;
    void (*norm)(double *y, const double *x, uint32_t n, double eps,
                 const double *w, const double *b);
    /* What becomes of x, the normed x and what attention or MLP made of it. */
    enum { PLAIN_ADDED, PLAIN_DEEP, PLAIN_NORMED_AND_ADDED } residual;
    double (*alpha)(const struct sl_hparams *hp); /* PLAIN_DEEP */
    /* Where a head's q (part 0), k or v begins in a row. */
    size_t (*at)(const struct sl_hparams *hp, unsigned part, uint32_t head);
    void (*turn)(double *v, const struct sl_hparams *hp, int32_t position,
                 int32_t block); /* NULL: nothing is turned */
    /* Of the two halves, or of the one part where there is no gate. */
    double (*act)(const struct sl_hparams *hp, double first, double second);
    bool biased;         /* every norm and product is; else hp says which */
    bool head_norms;     /* every q and k has a norm */
    bool may_head_norms; /* where hp says so */
    bool tables;         /* learned positions, two of them */
    bool causal;         /* no position sees a later one */
    bool free_heads;     /* heads need not divide hidden, and may share keys */
    void (*vary)(struct sl_hparams *hp, unsigned variant);
};

/* Fails the test where there is none. */
const struct plain_kind *plain_kind_find(const char *arch);

/* y may be x. */
void plain_rms_norm(double *y, const double *x, uint32_t n, double eps,
                    const double *w, const double *b);

#endif
