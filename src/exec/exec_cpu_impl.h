/*
 * exec_cpu_impl.h - the state of the CPU engine, shared by its parts
 *
 * exec_cpu.c runs slabs; exec_embed.c looks up embeddings; exec_ops.c does
 * what comes between matrices.
 */
#ifndef SL_EXEC_CPU_IMPL_H
#define SL_EXEC_CPU_IMPL_H

#include "kernels/matmul.h"
#include "src/base/mem.h"
#include "src/exec/exec_cpu.h"

struct sl_cpu {
    struct sl_exec_engine engine; /* first */
    struct sl_cpu_config c;
    uint32_t hidden, inner, n_heads, head_dim, wide;
    float alpha;

    /* the pass: (pass_positions, ...); x itself is the pass's */
    struct sl_region buffers;
    float *a;   /* (n, hidden) the norm of x: input of the next matrix */
    float *att; /* (n, hidden) attention output */
    float *big; /* (n, wide) qkv, then the MLP's inner values */
    void *bf16; /* (n, largest cols) */
    int8_t *q;  /* the same */
    float *q_scale;
    int32_t *q_sum;
    float *scores;        /* (threads, SL_ATTEND_QUERIES, max_tokens) */
    float *gathered;      /* (threads, 2, n, head_dim) one head's k and v */
    const void **k_pages; /* (threads, pages of max_tokens) */
    const void **v_pages;
    uint8_t *lookup; /* (threads, lookup_bytes) a block of embeddings */
    uint64_t lookup_bytes;
    size_t first_head_slab;
    const uint8_t **head_base; /* (head slabs) where resident, else NULL */

    /* of the pass being run */
    const struct sl_pass *pass;
    struct sl_acts acts;
    enum sl_act act;
};

/* exec_embed.c */
uint64_t sl_cpu_lookup_bytes(const struct sl_modelfile *mf);
/* pass->x = embedding rows of all ids of the pass, from RAM where the head is
 * resident and has been read, else from disk. */
int sl_cpu_embed(struct sl_cpu *x, struct sl_error *err);

/* exec_ops.c: what comes before a matrix's first part and after its last. */
void sl_cpu_before(struct sl_cpu *x, const struct sl_model_matrix *m);
void sl_cpu_after(struct sl_cpu *x, const struct sl_model_matrix *m);
/* Where the product of a matrix goes, and how wide its rows are there. */
float *sl_cpu_output(struct sl_cpu *x, const struct sl_model_matrix *m,
                     size_t *stride);

#endif
