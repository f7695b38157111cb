#include "config.h"

#include <math.h>
#include <string.h>

#include "src/exec/exec_cpu_impl.h"

/* What GLM-130B does between its matrices. Every job is split by positions or
 * by heads, never along a sum. */

/* Positions that one job quantises: their scales share cache lines. */
#define QUANTIZE_CHUNK 16u
/* An attention job takes a multiple of as many query positions ... */
#define ATTEND_QUERIES 16u
/* ... so that each thread has as many jobs. */
#define ATTEND_JOBS 4u
/* So many new keys and values and more are gathered for the kernel. */
#define GATHER_ROWS 32u

/* --- inputs of a matrix -------------------------------------------------- */

static void quantize_rows(void *arg, size_t begin, size_t end, unsigned worker)
{
    struct sl_cpu *x = arg;
    const struct sl_acts *a = &x->acts;

    for (size_t i = begin; i < end; i++)
        x->c.kernels->quantize_q8(x->q + i * a->q_stride, x->q_scale + i,
                                  x->q_sum + i, a->group_stride,
                                  a->x + i * a->x_stride, a->cols);
}

static void round_rows(void *arg, size_t begin, size_t end, unsigned worker)
{
    struct sl_cpu *x = arg;
    const struct sl_acts *a = &x->acts;

    for (size_t i = begin; i < end; i++)
        x->c.kernels->round_bf16((uint8_t *)x->bf16 + i * a->bf16_stride,
                                 a->x + i * a->x_stride, a->cols);
}

/* Hands n rows of `in` to the products with m. */
static void set_input(struct sl_cpu *x, const struct sl_model_matrix *m,
                      const float *in, size_t stride, size_t n)
{
    x->acts = (struct sl_acts){
        .n = n,
        .cols = m->geom.cols,
        .x = in,
        .x_stride = stride,
    };
    x->act = x->c.act;
    if (!sl_matmul_takes(x->c.kernels, &m->geom, x->act))
        x->act = SL_ACT_F32;
    if (x->act == SL_ACT_BF16) {
        x->acts.bf16 = x->bf16;
        x->acts.bf16_stride = (size_t)m->geom.cols * x->c.kernels->bf16_bytes;
        sl_pool_for(x->c.pool, n, QUANTIZE_CHUNK, round_rows, x);
    }
    if (x->act != SL_ACT_INT8)
        return;
    x->acts.q = x->q;
    x->acts.q_stride = sl_q8_stride(m->geom.cols);
    x->acts.q_scale = x->q_scale;
    x->acts.q_sum = x->q_sum;
    x->acts.group_stride = n;
    sl_pool_for(x->c.pool, n, QUANTIZE_CHUNK, quantize_rows, x);
}

struct norm_job {
    struct sl_cpu *x;
    const float *w, *b;
    float *to;
    const uint32_t *rows; /* NULL: all */
};

static void norm_rows(void *arg, size_t begin, size_t end, unsigned worker)
{
    struct norm_job *job = arg;
    struct sl_cpu *x = job->x;

    for (size_t i = begin; i < end; i++) {
        size_t from = job->rows ? job->rows[i] : i;

        x->c.kernels->layer_norm(job->to + i * x->hidden,
                                 x->pass->x + from * x->hidden, job->w, job->b,
                                 x->hidden, x->c.mf->hp.norm_eps);
    }
}

static void norm_all(struct sl_cpu *x, const float *w, const float *b)
{
    struct norm_job job = {.x = x, .w = w, .b = b, .to = x->a};

    sl_pool_for(x->c.pool, x->pass->n, 1, norm_rows, &job);
}

/* The head sees only the rows whose logits are wanted. */
static void norm_wanted(struct sl_cpu *x)
{
    struct norm_job job = {
        .x = x,
        .w = x->c.vectors->final_w,
        .b = x->c.vectors->final_b,
        .to = x->a,
        .rows = x->pass->rows,
    };

    sl_pool_for(x->c.pool, x->pass->n_rows, 1, norm_rows, &job);
}

void sl_cpu_before(struct sl_cpu *x, const struct sl_model_matrix *m)
{
    const struct sl_layer_vectors *l = &x->c.vectors->layers[m->spec.layer];

    switch (m->spec.op) {
    case SL_OP_QKV:
        norm_all(x, l->ln1_w, l->ln1_b);
        set_input(x, m, x->a, x->hidden, x->pass->n);
        break;
    case SL_OP_ATTN_OUT:
        set_input(x, m, x->att, x->hidden, x->pass->n);
        break;
    case SL_OP_MLP_IN:
        norm_all(x, l->ln2_w, l->ln2_b);
        set_input(x, m, x->a, x->hidden, x->pass->n);
        break;
    case SL_OP_MLP_OUT:
        set_input(x, m, x->big, x->wide, x->pass->n);
        break;
    default: /* the head */
        norm_wanted(x);
        set_input(x, m, x->a, x->hidden, x->pass->n_rows);
        break;
    }
}

float *sl_cpu_output(struct sl_cpu *x, const struct sl_model_matrix *m,
                     size_t *stride)
{
    switch (m->spec.op) {
    case SL_OP_QKV:
    case SL_OP_MLP_IN:
        *stride = x->wide;
        return x->big;
    case SL_OP_HEAD:
        *stride = x->c.mf->hp.vocab;
        return x->pass->logits;
    default:
        /* The residual is the normed input, so x itself is free. */
        *stride = x->hidden;
        return x->pass->x;
    }
}

/* --- attention ----------------------------------------------------------- */

struct attend_job {
    struct sl_cpu *x;
    uint32_t layer;
    const struct sl_pass_item *item;
    uint32_t queries; /* of a unit */
};

static void rotate(const struct sl_cpu *x, float *v, uint32_t row)
{
    uint32_t half = x->head_dim / 2;
    const float *cos_row = x->pass->cos + (size_t)row * half;
    const float *sin_row = x->pass->sin + (size_t)row * half;

    if (!x->c.mf->hp.position_2d) {
        x->c.kernels->rope(v, cos_row, sin_row, half);
        return;
    }
    /* 2-D: each half of the head is rotated by a position of its own. */
    x->c.kernels->rope(v, cos_row, sin_row, half / 2);
    x->c.kernels->rope(v + half, cos_row + half / 2, sin_row + half / 2,
                       half / 2);
}

/* Heads [begin, end) of one item: rotates q and k in place, puts k and v into
 * the cache. A row of qkv is, per head, q then k then v. */
static void rotate_and_store(void *arg, size_t begin, size_t end,
                             unsigned worker)
{
    struct attend_job *job = arg;
    const struct sl_cpu *x = job->x;
    const struct sl_pass_item *it = job->item;
    uint32_t d = x->head_dim, n_pages;
    const uint32_t *pages = sl_kv_pages(x->c.kv, it->seq, &n_pages);

    for (size_t h = begin; h < end; h++) {
        for (uint32_t j = 0; j < it->n; j++) {
            uint32_t at = it->base + j;
            uint32_t page = pages[at / SL_KV_PAGE_LEN];
            uint32_t in_page = at % SL_KV_PAGE_LEN;
            float *q = x->big + (size_t)(it->row + j) * x->wide + h * 3 * d;
            uint8_t *k_at = sl_kv_at(x->c.kv, job->layer, page, (uint32_t)h, 0);
            uint8_t *v_at = sl_kv_at(x->c.kv, job->layer, page, (uint32_t)h, 1);

            rotate(x, q, it->row + j);
            rotate(x, q + d, it->row + j);
            sl_kv_store(x->c.kv, x->c.kernels, k_at, in_page, q + d);
            sl_kv_store(x->c.kv, x->c.kernels, v_at, in_page, q + 2 * d);
        }
    }
}

/* Copies the keys and values of one head that this pass adds, rows [0, n),
 * to the worker's own place: as parts of qkv they lie so far apart that all
 * fall into the same few sets of the caches. */
static void gather_new(const struct sl_cpu *x, struct sl_attend_args *args,
                       uint32_t n, unsigned worker)
{
    size_t values = (size_t)x->c.pass_positions * args->d;
    float *k = x->gathered + worker * 2 * values, *v = k + values;

    for (size_t j = 0; j < n; j++) {
        memcpy(k + j * args->d, args->k_new + j * args->new_stride,
               args->d * sizeof *k);
        memcpy(v + j * args->d, args->v_new + j * args->new_stride,
               args->d * sizeof *v);
    }
    args->k_new = k;
    args->v_new = v;
    args->new_stride = args->d;
}

static uint32_t most_keys(const struct sl_attend_args *args)
{
    uint32_t most = 0;

    for (size_t i = 0; i < args->n_q; i++)
        most = args->n_keys[i] > most ? args->n_keys[i] : most;
    return most;
}

/* Queries [first, first + queries) of head h. What this pass adds is seen as
 * it was computed; rounded it is for the passes to come, so a context costs no
 * precision in its own pass. */
static void attend_unit(const struct attend_job *job, uint32_t h,
                        uint32_t first, unsigned worker)
{
    const struct sl_cpu *x = job->x;
    const struct sl_pass_item *it = job->item;
    uint32_t d = x->head_dim, n_pages, most;
    const uint32_t *pages = sl_kv_pages(x->c.kv, it->seq, &n_pages);
    uint64_t room = sl_div_up(x->c.max_tokens, SL_KV_PAGE_LEN);
    const void **k_pages = x->k_pages + worker * room;
    const void **v_pages = x->v_pages + worker * room;
    size_t row = it->row + first;
    const float *new = x->big + it->row * x->wide + (size_t)h * 3 * d;
    struct sl_attend_args args = {
        .out = x->att + row * x->hidden + (size_t)h * d,
        .out_stride = x->hidden,
        .q = x->big + row * x->wide + (size_t)h * 3 * d,
        .q_stride = x->wide,
        .n_q = it->n - first < job->queries ? it->n - first : job->queries,
        .n_keys = x->pass->n_keys + row,
        .k_pages = k_pages,
        .v_pages = v_pages,
        .page_len = SL_KV_PAGE_LEN,
        .d = d,
        .kv_kind = x->c.kv_kind,
        .n_paged = it->base,
        .k_new = new + d,
        .v_new = new + 2 * d,
        .new_stride = x->wide,
        .scale = 1.0f / sqrtf((float)d),
        .scores =
            x->scores + (size_t)worker * x->c.max_tokens *SL_ATTEND_QUERIES,
    };

    for (uint32_t p = 0; p < n_pages; p++) {
        k_pages[p] = sl_kv_at(x->c.kv, job->layer, pages[p], h, 0);
        v_pages[p] = sl_kv_at(x->c.kv, job->layer, pages[p], h, 1);
    }
    most = most_keys(&args);
    if (most - it->base >= GATHER_ROWS)
        gather_new(x, &args, most - it->base, worker);
    x->c.kernels->attend(&args);
}

static void attend_units(void *arg, size_t begin, size_t end, unsigned worker)
{
    struct attend_job *job = arg;

    for (size_t unit = begin; unit < end; unit++)
        attend_unit(job, (uint32_t)(unit % job->x->n_heads),
                    (uint32_t)(unit / job->x->n_heads) * job->queries, worker);
}

/* Few heads for many threads are shared out by their queries too. */
static uint32_t unit_queries(const struct sl_cpu *x, uint32_t n)
{
    uint32_t jobs = ATTEND_JOBS * sl_pool_threads(x->c.pool);
    uint32_t a_head = (uint32_t)sl_div_up(jobs, x->n_heads);

    return (uint32_t)sl_div_up(sl_div_up(n, a_head), ATTEND_QUERIES) *
           ATTEND_QUERIES;
}

static void attend(struct sl_cpu *x, uint32_t layer)
{
    struct attend_job job = {.x = x, .layer = layer};

    for (size_t i = 0; i < x->pass->n_items; i++) {
        job.item = &x->pass->run[i];
        job.queries = unit_queries(x, job.item->n);
        sl_pool_for(x->c.pool, x->n_heads, 1, rotate_and_store, &job);
        sl_pool_for(x->c.pool, sl_div_up(job.item->n, job.queries) * x->n_heads,
                    1, attend_units, &job);
    }
}

/* --- after a matrix ------------------------------------------------------ */

static void residual_rows(void *arg, size_t begin, size_t end, unsigned worker)
{
    struct sl_cpu *x = arg;

    x->c.kernels->scale_add(x->pass->x + begin * x->hidden, x->alpha,
                            x->a + begin * x->hidden,
                            (end - begin) * x->hidden);
}

static void gelu_rows(void *arg, size_t begin, size_t end, unsigned worker)
{
    struct sl_cpu *x = arg;

    for (size_t i = begin; i < end; i++)
        x->c.kernels->gelu_tanh(x->big + i * x->wide, x->big + i * x->wide,
                                x->inner);
}

void sl_cpu_after(struct sl_cpu *x, const struct sl_model_matrix *m)
{
    switch (m->spec.op) {
    case SL_OP_QKV:
        attend(x, m->spec.layer);
        break;
    case SL_OP_MLP_IN:
        if (!x->c.mf->hp.glu)
            sl_pool_for(x->c.pool, x->pass->n, 1, gelu_rows, x);
        break;
    case SL_OP_ATTN_OUT:
    case SL_OP_MLP_OUT:
        sl_pool_for(x->c.pool, x->pass->n, 1, residual_rows, x);
        break;
    default:
        break;
    }
}
