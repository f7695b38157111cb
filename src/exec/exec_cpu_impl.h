/*
 * exec_cpu_impl.h - the state of the CPU engine, shared by its parts
 *
 * exec_cpu.c runs slabs; exec_embed.c looks up embeddings; exec_ops.c does
 * what comes between matrices; exec_route.c and exec_experts.c mix experts.
 */
#ifndef SL_EXEC_CPU_IMPL_H
#define SL_EXEC_CPU_IMPL_H

#include "kernels/matmul.h"
#include "src/base/mem.h"
#include "src/exec/exec_cpu.h"
#include "src/exec/exec_experts.h"
#include "src/exec/gather.h"

struct sl_cpu {
    struct sl_exec_engine engine; /* first */
    struct sl_cpu_config c;
    uint32_t hidden, n_heads, head_dim;
    struct sl_qkv_row qkv; /* where a head's q, k and v lie in a row of wide */

    /* the pass: (pass_positions, ...); x itself is the pass's */
    struct sl_region buffers;
    float *buf[SL_BUF_COUNT];     /* (n, width) of each but x and logits */
    uint32_t width[SL_BUF_COUNT]; /* values a row */
    void *bf16;                   /* (n, largest cols) */
    int8_t *q;                    /* the same */
    float *q_scale;
    int32_t *q_sum;
    float *scores; /* (threads, score_rows, max_tokens) */
    float *floats; /* (threads, key_floats) */
    uint32_t score_rows;
    uint64_t key_floats;
    /* (threads, 2, gathered_rows, head_dim) one head's k and v; of a tree the
     * pages that a position's ancestors lie in */
    float *gathered;
    uint32_t gathered_rows;
    const void **k_pages; /* (threads, pages of max_tokens) */
    const void **v_pages;
    uint8_t *lookup; /* (threads, lookup_bytes) a block of embeddings */
    uint64_t lookup_bytes;
    struct sl_gather gather; /* what a long pass looks up of the disk */
    size_t first_head_slab;
    const uint8_t **head_base; /* (head slabs) where resident, else NULL */

    /* of the pass being run */
    const struct sl_pass *pass;
    struct sl_acts acts;
    enum sl_act act;
    struct sl_low_rank low_rank; /* what an adapter adds to the product */
    /* of planes: the high ones that were had, the low ones of the part that
     * is computed (NULL: not wanted, or none), and where these lie */
    const uint8_t *high_base, *low_base;
    const struct sl_part *low;
    struct sl_matmul_planes planes;
    struct sl_cpu_mixture mixture;
};

/* exec_embed.c */
uint64_t sl_cpu_lookup_bytes(const struct sl_modelfile *mf);
/* Pieces of the file that are read together for passes of so many positions at
 * most, and the memory of each; 0: rows are read one by one. */
uint32_t sl_cpu_gathered(const struct sl_modelfile *mf, uint32_t pass_positions,
                         uint64_t *piece_bytes);
/* pass->x = embedding rows of all ids of the pass, from RAM where the head is
 * resident and has been read, else from disk. */
int sl_cpu_embed(struct sl_cpu *x, struct sl_error *err);

/* exec_ops.c: a stage's operations (arch/layer.h). before: what comes before
 * a matrix's first part; after: what comes after its last; op: its place among
 * the stage's operations. */
int sl_cpu_before(struct sl_cpu *x, const struct sl_model_matrix *m,
                  const struct sl_stage_ops *stage, uint32_t op,
                  struct sl_error *err);
int sl_cpu_after(struct sl_cpu *x, const struct sl_model_matrix *m,
                 const struct sl_stage_ops *stage, uint32_t op,
                 struct sl_error *err);
/* Hands n rows of `in` to the products with m. */
void sl_cpu_set_input(struct sl_cpu *x, const struct sl_model_matrix *m,
                      const float *in, size_t stride, size_t n);
/* The same for heads [first, end), each with inputs of its own, so many values
 * behind those of the head before. */
void sl_cpu_set_head_inputs(struct sl_cpu *x, const struct sl_model_matrix *m,
                            const float *in, size_t stride, size_t n,
                            size_t head_step, uint32_t first, uint32_t end);
float *sl_cpu_buffer(const struct sl_cpu *x, enum sl_buf buf);
/* Where the product of a matrix goes, and how wide its rows are there. */
float *sl_cpu_output(const struct sl_cpu *x, const struct sl_layer_op *op,
                     size_t *stride);
/* A vector of a layer; NULL where the model has none. */
static inline const float *sl_cpu_vector(const struct sl_cpu *x, uint32_t layer,
                                         enum sl_slot slot)
{
    return x->c.small->layers[layer][slot];
}

/* What is added to a matrix's products; NULL: nothing. */
static inline const struct sl_adapter *
sl_cpu_adapter(const struct sl_cpu *x, const struct sl_model_matrix *m)
{
    const struct sl_adapters *as = x->c.adapters;
    size_t i = (size_t)(m - x->c.mf->matrices);

    return as != NULL && as->of[i].a.rows > 0 ? &as->of[i] : NULL;
}

/* exec_cpu.c: blocks of a matrix whose slab or record lies at base. */
void sl_cpu_place(struct sl_matmul *mm, struct sl_cpu *x,
                  const struct sl_part *part, const uint8_t *base);
enum sl_epilogue sl_cpu_epilogue(enum sl_act_fn fn);

/* exec_latent.c: operations of attention to a latent; a product by heads. */
void sl_cpu_latent_norm(struct sl_cpu *x, const struct sl_layer_op *op,
                        const float *w);
void sl_cpu_join(struct sl_cpu *x, const struct sl_layer_op *op);
void sl_cpu_multiply_heads(struct sl_cpu *x, const struct sl_layer_op *op,
                           const struct sl_part *part, const uint8_t *base);

/* exec_route.c: who computes what in a mixture; asks for the experts. bias: of
 * the choice. */
int sl_cpu_route(struct sl_cpu *x, const struct sl_layer_op *op, uint32_t layer,
                 const float *bias, struct sl_error *err);
/* A row's experts, best first; s: its logits, which become sigmoids; c: room
 * for 2 E values. */
void sl_cpu_pick_experts(uint32_t *chosen, float *s, float *c,
                         const float *bias, const struct sl_hparams *hp);

/* exec_ahead.c: guesses what the next layer will choose, for the cache, before
 * the layer's experts are computed (early) and after. Where its router was seen
 * in a slab that stays. Errors: SL_ERR_IO. */
void sl_cpu_note_router(struct sl_cpu *x, size_t slab, const uint8_t *base);
int sl_cpu_look_ahead(struct sl_cpu *x, uint32_t layer, enum sl_hint kind,
                      struct sl_error *err);
/* The layer's experts are coming, of a pass of many positions. */
int sl_cpu_sweep(struct sl_cpu *x, uint32_t layer, struct sl_error *err);

/* exec_experts.c: what they give. */
/* To what failed in either: the expert that could not be read, whichever was
 * being computed meanwhile. Returns -1. */
int sl_cpu_name_expert(const struct sl_cpu *x, struct sl_error *err);
int sl_cpu_experts(struct sl_cpu *x, const struct sl_layer_op *op,
                   uint32_t layer, struct sl_error *err);

/* exec_mix.c: experts that a device computes beside. rows: positions of one,
 * n_experts: the shared one; add: one that positions have chosen; begin: as
 * many as there is room for; take: all of a small pass, to their rows by pair,
 * the shared one's to op's output; part: where the rows of one of a long pass
 * are, which are taken in turn. */
uint32_t sl_cpu_expert_rows(const struct sl_cpu *x, uint32_t expert);
void sl_cpu_mix_add(struct sl_cpu *x, uint32_t expert);
int sl_cpu_mix_begin(struct sl_cpu *x, uint32_t layer, struct sl_error *err);
int sl_cpu_mix_take(struct sl_cpu *x, const struct sl_layer_op *op,
                    uint32_t layer, struct sl_error *err);
int sl_cpu_mix_part(struct sl_cpu *x, uint32_t layer, uint32_t part,
                    const float **out, struct sl_error *err);

/* exec_lend.c: experts of RAM that it computes in a long pass. lends: whether
 * one is lent; lend: begins that; lend_shared: the one that is always used, if
 * this part and the next are all of it; take: what the oldest of them gives,
 * whose record is put, whatever becomes of it. */
bool sl_cpu_mixes_long(const struct sl_cpu *x);
bool sl_cpu_lends(const struct sl_cpu *x, uint32_t expert);
int sl_cpu_lend(struct sl_cpu *x, uint32_t layer, uint32_t expert,
                struct sl_error *err);
int sl_cpu_lend_shared(struct sl_cpu *x, size_t slab, uint32_t part,
                       const uint8_t *base, bool *lent, struct sl_error *err);
int sl_cpu_take_lent(struct sl_cpu *x, uint32_t layer, const float **out,
                     struct sl_error *err);

/* exec_attend.c. Rows of scores that a thread has room for: those of all
 * queries that share a head of keys, or of more in passes of n positions. */
uint32_t sl_cpu_score_rows(const struct sl_hparams *hp, uint32_t n,
                           uint32_t max_tokens);
/* Floats that a thread has room for to make of keys and values. */
uint64_t sl_cpu_key_floats(const struct sl_hparams *hp, uint32_t score_rows,
                           uint32_t max_tokens);
/* Rows of a head's keys that a thread needs room for: those of a pass of n
 * positions, and of a node's ancestors where trees have up to so many. */
uint32_t sl_cpu_path_rows(uint32_t n, uint32_t tree_positions);
/* Turns q and k of a layer, keeps k and v, attends. */
void sl_cpu_attend(struct sl_cpu *x, uint32_t layer);

#endif
