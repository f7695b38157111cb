/*
 * exec_impl.h - the executor's state, shared by exec.c and its parts
 *
 * exec.c runs passes over slabs; exec_weights.c loads what is resident and
 * looks up embeddings; exec_ops.c does what comes between matrices.
 */
#ifndef SL_EXEC_IMPL_H
#define SL_EXEC_IMPL_H

#include "kernels/matmul.h"
#include "src/base/mem.h"
#include "src/exec.h"

/* Vectors of a layer, by use. */
struct sl_layer_vectors {
    const float *ln1_w, *ln1_b, *ln2_w, *ln2_b;
    const float *bias[SL_OP_COUNT]; /* of the matrix; NULL for the head */
};

/* One sequence's share of a pass: rows [row, row + n) of the activations. */
struct sl_exec_item {
    uint32_t seq;
    uint32_t row, n;
    uint32_t base; /* positions the sequence held before */
    uint32_t n_context;
    uint32_t n_logits;
};

struct sl_exec {
    struct sl_lm lm; /* first: the executor is a language model */
    struct sl_exec_config c;
    struct sl_exec_stats stats;
    uint32_t hidden, inner, n_heads, head_dim, wide;
    float alpha;

    /* resident weights */
    struct sl_region vectors;
    struct sl_layer_vectors *layers; /* (n_layers) */
    const float *final_w, *final_b;
    const uint16_t **scales; /* (n_matrices), NULL where streamed or none */

    /* the pass: (pass_positions, ...) */
    struct sl_region buffers;
    float *x;   /* (n, hidden) the residual stream */
    float *a;   /* (n, hidden) its norm: input of the next matrix */
    float *att; /* (n, hidden) attention output */
    float *big; /* (n, wide) qkv, then the MLP's inner values */
    int8_t *q;  /* (n, largest cols) */
    float *q_scale;
    int32_t *q_sum;
    float *cos, *sin;     /* (n, head_dim / 2) */
    float *scores;        /* (threads, SL_ATTEND_QUERIES, max_tokens) */
    uint32_t *n_keys;     /* (n) keys each position sees */
    const void **k_pages; /* (threads, pages of max_tokens) */
    const void **v_pages;
    uint8_t *lookup; /* (threads, lookup_bytes) a block of embeddings */
    uint64_t lookup_bytes;
    size_t first_head_slab;
    const uint8_t **head_base; /* (head slabs) where resident, else NULL */

    /* of the pass being run */
    const struct sl_lm_item *items;
    struct sl_exec_item *run; /* (room: pass_positions) */
    size_t n_items;
    uint32_t n;      /* positions */
    uint32_t n_rows; /* of logits */
    float *logits;
    struct sl_acts acts;
    enum sl_act act;
    bool broken; /* a pass failed half way: nothing can follow */
};

/* exec_weights.c */
int sl_exec_load_vectors(struct sl_exec *x, struct sl_error *err);
uint64_t sl_exec_vector_bytes(const struct sl_modelfile *mf);
uint64_t sl_exec_lookup_bytes(const struct sl_modelfile *mf);
/* x->x = embedding rows of all ids of the pass, from RAM where the head is
 * resident and has been read, else from disk. */
int sl_exec_embed(struct sl_exec *x, struct sl_error *err);

/* exec_ops.c: what comes before a matrix's first part and after its last. */
void sl_exec_before(struct sl_exec *x, const struct sl_model_matrix *m);
void sl_exec_after(struct sl_exec *x, const struct sl_model_matrix *m);
/* Where the product of a matrix goes, and how wide its rows are there. */
float *sl_exec_output(struct sl_exec *x, const struct sl_model_matrix *m,
                      size_t *stride);

#endif
