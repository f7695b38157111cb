/*
 * exec_gpu_impl.h - the state of the GPU engine, shared by its parts
 *
 * exec_gpu.c begins and ends passes and runs slabs; exec_gpu_ops.c puts
 * kernels on the queue, exec_gpu_planes.c those of weights in two planes,
 * exec_gpu_mix.c those of experts;
 * exec_gpu_back.c brings keys and values of a prefill to
 * the host, exec_gpu_turns.c those of caches that wait there to the device;
 * exec_gpu_life.c counts, carves and makes.
 */
#ifndef SL_EXEC_GPU_IMPL_H
#define SL_EXEC_GPU_IMPL_H

#include "kernels/cuda/cuda.h"
#include "src/base/mem.h"
#include "src/exec/exec_gpu.h"
#include "src/exec/kv_turns.h"

_Static_assert(SL_CUDA_SOME == SL_COST_RUN,
               "runs are as long as the planner has them");

/* The tables of a pass: made on the host, copied up as they are. */
struct sl_gpu_tables {
    int32_t *ids;       /* (n) */
    float *cos, *sin;   /* (n, rope_dims / 2) */
    uint32_t *position; /* (n) place in the sequence */
    uint32_t *n_keys;   /* (n) */
    uint32_t *rows;     /* (n_rows) whose logits are wanted */
    uint64_t *path;     /* (n) as struct sl_cuda_rows has these two */
    uint32_t *fork;     /* (n) */
    uint32_t *table;    /* (n) where the sequence's list begins in pages */
    uint32_t *pages;
    /* The same two for the scratch pages of a layer whose cache lies with
     * the host: every sequence begins in this pass. */
    uint32_t *back_table, *back_pages;
    /* And for the buffers of layers whose cache waits there. */
    uint32_t *turn_table, *turn_pages;
};

/* Keys and values of one layer on their way to the host. */
struct sl_gpu_back {
    uint32_t n_pages; /* room */
    uint16_t *k, *v;  /* device: (n_pages, heads, 16, d) */
    uint16_t *host_k, *host_v;
    float *rows;            /* (threads, d) while they are converted */
    struct sl_event *ready; /* on COMPUTE: k and v are there */
    struct sl_event *down;  /* on DOWN: host_k and host_v are */
    bool waiting;           /* a layer is on its way */
    uint32_t layer;
};

/* Where a turn is, and what its buffer waits for. */
struct sl_gpu_buffer {
    struct sl_event *up;     /* on KEYS: its pages are there */
    struct sl_event *stored; /* on COMPUTE: so is what the pass adds */
    struct sl_event *down;   /* on DOWN: that is in RAM */
    struct sl_event *used;   /* on COMPUTE: it was attended to */
};

/* Layers of which only some sequences' keys and values are on the device. */
struct sl_gpu_waiting {
    struct sl_kv_turns turns;   /* of the pass */
    uint32_t *table;            /* (pass_items) where their lists begin */
    struct sl_cuda_item *items; /* (pass_items) of a turn */
    uint32_t *layer;            /* (n_layers) in their order */
    uint32_t n_layers;
    /* device: (K and V, turns.room, heads, 16, d) each */
    uint16_t *buffer[SL_KV_TURN_BUFFERS];
    struct sl_gpu_buffer of[SL_KV_TURN_BUFFERS];
    struct sl_region host; /* (n_layers, K and V, n_pages, heads, 16, d) */
    bool pinned;
    uint32_t asked, taken; /* turns of the pass: on their way; attended to */
    bool on_their_way;     /* something may be, to RAM */
};

/* What experts on the device read and give. */
struct sl_gpu_mix {
    uint16_t *in, *wide;   /* device: (rows, stride of hidden, of inner) */
    float *out;            /* device: (rows, hidden) */
    uint16_t *host_in;     /* (rows, stride of hidden) */
    float *host_out;       /* (rows, hidden) */
    struct sl_event *done; /* host_out is there */
};

/* Experts that lie in RAM (exec_gpu_lend.c), by turns. On the device their rows
 * are where those of others are: one queue computes both. */
struct sl_gpu_lend {
    struct sl_gpu_lent {
        uint8_t *record;   /* device */
        uint16_t *host_in; /* (n, stride of hidden) */
        float *host_out;   /* (n, hidden) */
        struct sl_event *up, *done;
    } of[SL_LENT];
    uint32_t begun, taken;
};

struct sl_gpu {
    struct sl_exec_engine engine; /* first */
    struct sl_gpu_config c;
    uint32_t hidden, n_heads, n_kv_heads, head_dim;
    uint32_t n_planes; /* of a layer's cache: keys and values, or one of both */
    size_t stride[SL_BUF_COUNT]; /* values a row of 16 bits, multiples of 8 */
    size_t page_values;          /* of one layer's keys in a page */

    /* device memory */
    const uint8_t *small; /* as c.small->region */
    float *x;             /* (n, hidden) the residual stream */
    float *a;             /* (n, hidden) its norm in FP32, for the residual */
    /* (n, stride) by use. The norm and the attention's output share memory:
     * what was multiplied makes room. */
    uint16_t *half[SL_BUF_COUNT];
    uint16_t *q;   /* (n, stride of ATT) */
    float *logits; /* (pass_logits, vocab) */
    uint8_t *tables;
    uint8_t *joined; /* where there are planes: a piece of both */
    uint64_t joined_bytes;
    uint16_t *kv;       /* (layers here, planes, n_pages, heads, 16, d) */
    uint32_t *kv_place; /* host: (n_layers) which of the layers here, or of
                         * those that wait */

    /* host memory, pinned where that is allowed */
    struct sl_region staging;
    bool pinned;
    uint8_t *host_tables;
    float *host_x; /* (n, hidden): x where it crosses */
    float *bounce; /* (bounce_rows, vocab) logits, or a page's keys */
    uint32_t bounce_rows;
    struct sl_cuda_item *items; /* (pass_items) */
    struct sl_gpu_back back;
    struct sl_gpu_mix mix;
    struct sl_gpu_lend lend;
    struct sl_gpu_waiting wait;

    size_t first_head_slab;
    const uint8_t **head_base; /* (head slabs) in VRAM, once they are there */
    struct sl_event *done;     /* what the host waits for */
    struct sl_event **marks;   /* (2 * n_slabs) for the trace, else NULL */
    bool *ran;                 /* (n_slabs) marked in this pass */

    /* of the pass being run */
    const struct sl_pass *pass;
    struct sl_gpu_tables t; /* device */
    struct sl_cuda_rows rows, back_rows;
    bool has_logits;
    /* high planes that were had, and the low ones of the part that runs */
    const uint8_t *high_base, *low_base;
    const struct sl_part *low; /* NULL: the high ones alone are wanted */
};

/* A product's planes, by segment: the first byte of its first block. */
struct sl_gpu_planes {
    const struct sl_matrix *m;       /* INT8 */
    const uint8_t *high[2], *low[2]; /* low NULL: of the high ones alone */
};

/* What a product reads and writes, as sl_cuda_matmul_run has it. */
struct sl_gpu_product {
    void *y;
    size_t y_stride;
    enum sl_cuda_type y_type;
    const uint16_t *x;
    size_t x_stride;
    uint32_t n;
    /* Where each head takes its own values of x (sl_cuda_multiply_heads); else
     * 0. */
    uint32_t n_heads, head_x;
};

/* exec_gpu_life.c: the tables of a pass over memory (NULL: only counts). */
void sl_gpu_carve_tables(struct sl_gpu_tables *t, struct sl_carver *c,
                         uint64_t n, uint64_t n_rows, uint64_t n_pages,
                         uint64_t n_back_pages, uint64_t n_turn_pages,
                         uint64_t half);

void sl_gpu_destroy(struct sl_exec_engine *e);

/* exec_gpu.c: all that is on the queue now is done. */
int sl_gpu_wait(struct sl_gpu *g, enum sl_queue queue, struct sl_event *event,
                struct sl_error *err);

extern const struct sl_engine_ops sl_gpu_ops;
/* Pages of the layers that lie on the device are copied by g from now on. */
void sl_gpu_keep_pages(struct sl_gpu *g);

/* exec_gpu_ops.c. Where the part's weights and scales lie. */
void sl_gpu_set_weights(const struct sl_gpu *g, struct sl_cuda_matmul *mm,
                        const struct sl_part *part, const uint8_t *base);
int sl_gpu_run_part(struct sl_gpu *g, const struct sl_part *part,
                    const uint8_t *base, struct sl_error *err);
int sl_gpu_embed(struct sl_gpu *g, struct sl_error *err);
int sl_gpu_multiply(struct sl_gpu *g, const struct sl_cuda_matmul *mm,
                    const struct sl_gpu_product *to, struct sl_error *err);
/* Of rows that begin at row `first` of the pass: puts what the product left
 * into kv; attends to what is there. */
int sl_gpu_store_rows(struct sl_gpu *g, const struct sl_cuda_kv *kv,
                      const struct sl_cuda_rows *rows, uint32_t first,
                      struct sl_error *err);
int sl_gpu_attend_rows(struct sl_gpu *g, const struct sl_cuda_kv *kv,
                       const struct sl_cuda_rows *rows, uint32_t first,
                       struct sl_error *err);

/* exec_gpu_planes.c. Device bytes to join planes in; 0 where there are none.
 * mm: with scales, its weights are those of p. */
uint64_t sl_gpu_joined_bytes(const struct sl_modelfile *mf);
int sl_gpu_multiply_planes(struct sl_gpu *g, const struct sl_gpu_planes *p,
                           const struct sl_cuda_matmul *mm,
                           const struct sl_gpu_product *to,
                           struct sl_error *err);

/* exec_gpu_mix.c. Arrays of passes of n positions at most, none without
 * experts: on the device, in pinned memory; bytes of workspace. */
void sl_gpu_carve_mix(struct sl_gpu_mix *m, struct sl_carver *c,
                      const struct sl_hparams *hp, uint32_t n);
void sl_gpu_carve_mix_host(struct sl_gpu_mix *m, struct sl_carver *c,
                           const struct sl_hparams *hp, uint32_t n);
int sl_gpu_mix(struct sl_exec_engine *e, const struct sl_mix *mix,
               struct sl_error *err);
int sl_gpu_mixed(struct sl_exec_engine *e, const float **out,
                 struct sl_error *err);
/* Rows of in, those of row or all, as FP16 side by side. */
void sl_gpu_half_rows(struct sl_gpu *g, uint16_t *to, const float *in,
                      size_t stride, const uint32_t *row, uint32_t n);
/* Both products of an expert whose matrices (base) are on the device, and its
 * rows from first_row on. */
int sl_gpu_run_expert(struct sl_gpu *g, const struct sl_loan *loan,
                      uint32_t first_row, struct sl_error *err);

/* exec_gpu_lend.c: experts of RAM, whose records are copied. */
void sl_gpu_carve_lend(struct sl_gpu_lend *l, struct sl_carver *c,
                       const struct sl_gpu_shape *s);
void sl_gpu_carve_lend_host(struct sl_gpu_lend *l, struct sl_carver *c,
                            const struct sl_gpu_shape *s);
int sl_gpu_lend_events(struct sl_gpu *g, struct sl_error *err);
void sl_gpu_lend_destroy(struct sl_gpu *g);
int sl_gpu_lend(struct sl_exec_engine *e, const struct sl_loan *loan,
                struct sl_error *err);
int sl_gpu_lent(struct sl_exec_engine *e, const float **out,
                struct sl_error *err);

/* exec_gpu_back.c. take: the scratch may be written to again; give: what it
 * holds now belongs to `layer`; drain: the host has it. */
int sl_gpu_back_take(struct sl_gpu *g, struct sl_error *err);
int sl_gpu_back_give(struct sl_gpu *g, uint32_t layer, struct sl_error *err);
int sl_gpu_back_drain(struct sl_gpu *g, struct sl_error *err);

/* exec_gpu_turns.c. begin: of a pass, whose tables are made; attend: the next
 * layer; settle: the host may read and write what lies in RAM. */
int sl_gpu_waiting_create(struct sl_gpu *g, uint16_t *buffers,
                          struct sl_error *err);
void sl_gpu_waiting_destroy(struct sl_gpu *g);
int sl_gpu_waiting_begin(struct sl_gpu *g, struct sl_error *err);
int sl_gpu_waiting_attend(struct sl_gpu *g, struct sl_error *err);
int sl_gpu_waiting_settle(struct sl_gpu *g, struct sl_error *err);
/* For struct sl_kv_page_store, of these layers alone. */
int sl_gpu_waiting_copy(struct sl_gpu *g, uint32_t to, uint32_t from,
                        struct sl_error *err);
int sl_gpu_waiting_move(struct sl_gpu *g, const struct sl_kv_move *moves,
                        uint32_t n, struct sl_error *err);
int sl_gpu_waiting_get(struct sl_gpu *g, uint32_t layer, uint32_t page,
                       unsigned value, void *to, struct sl_error *err);
int sl_gpu_waiting_put(struct sl_gpu *g, uint32_t layer, uint32_t page,
                       unsigned value, const void *from, struct sl_error *err);

/* exec_gpu_life.c: of the caches that wait, in RAM. */
uint64_t sl_gpu_waiting_bytes(const struct sl_gpu_shape *s);

/* Whether a layer's cache waits in RAM (exec_gpu_turns.c). */
static inline bool sl_gpu_layer_waits(const struct sl_gpu *g, uint32_t layer)
{
    return g->c.shape.n_layers_waiting > 0 && g->c.layer_waits[layer];
}

/* The copy on the device of a value among the vectors; NULL of NULL. */
static inline const void *sl_gpu_vector(const struct sl_gpu *g, const void *v)
{
    if (v == NULL)
        return NULL;
    return g->small + ((const uint8_t *)v - g->c.small->region.base);
}

#endif
