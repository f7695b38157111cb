#include "config.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "src/exec/exec_cpu_impl.h"

/* Attention of the CPU engine. Every job is split by positions or by heads,
 * never along a sum. */

/* An attention job takes a multiple of as many query positions ... */
#define ATTEND_QUERIES 16u
/* ... so that each thread has as many jobs. */
#define ATTEND_JOBS 4u
/* Queries share what is made of keys and values, as long as their scores take
 * no more of a thread's memory than this. */
#define SCORE_ROWS  64u
#define SCORE_BYTES (2u << 20)
/* So many new keys and values and more are gathered for the kernel. */
#define GATHER_ROWS 32u

struct attend_job {
    struct sl_cpu *x;
    uint32_t layer;
    const struct sl_pass_item *item;
    uint32_t heads, queries; /* of a unit */
};

/* Heads that share one of keys and values. */
static uint32_t sharing(const struct sl_cpu *x)
{
    return x->n_heads / x->c.mf->hp.n_kv_heads;
}

uint32_t sl_cpu_score_rows(const struct sl_hparams *hp, uint32_t n,
                           uint32_t max_tokens)
{
    uint64_t group = hp->n_heads / hp->n_kv_heads;
    uint64_t rows = n * group < SCORE_ROWS ? n * group : SCORE_ROWS;
    uint64_t room = SCORE_BYTES / sizeof(float) / max_tokens;
    uint64_t least = group > SL_ATTEND_QUERIES ? group : SL_ATTEND_QUERIES;

    rows = rows < room ? rows : room;
    return (uint32_t)(rows > least ? rows : least);
}

uint64_t sl_cpu_key_floats(const struct sl_hparams *hp, uint32_t score_rows,
                           uint32_t max_tokens)
{
    uint64_t all = sl_round_up(max_tokens, SL_KV_PAGE_LEN) * hp->head_dim;

    if (score_rows <= SL_ATTEND_QUERIES)
        return 0;
    return all < SL_ATTEND_FLOATS ? all : SL_ATTEND_FLOATS;
}

/* A position's query_key_value. */
static float *qkv_row(const struct sl_cpu *x, size_t row)
{
    return x->buf[SL_BUF_WIDE] + row * x->width[SL_BUF_WIDE];
}

/* In place: nobody needs the product as it was. */
static void rotate(const struct sl_cpu *x, float *v, uint32_t row)
{
    const struct sl_hparams *hp = &x->c.mf->hp;
    uint32_t half = hp->rope_dims / 2;
    const float *cos_row = x->pass->cos + (size_t)row * half;
    const float *sin_row = x->pass->sin + (size_t)row * half;

    if (hp->rope == SL_ROPE_NONE)
        return;
    if (hp->rope == SL_ROPE_INTERLEAVED) {
        x->c.kernels->rope_inter(v, cos_row, sin_row, half);
        return;
    }
    if (!hp->position_2d) {
        x->c.kernels->rope(v, cos_row, sin_row, half);
        return;
    }
    /* 2-D: each half of what is turned has a position of its own. */
    x->c.kernels->rope(v, cos_row, sin_row, half / 2);
    x->c.kernels->rope(v + half, cos_row + half / 2, sin_row + half / 2,
                       half / 2);
}

/* Heads [begin, end) of keys and values of one item: rotates k and the q of
 * all heads that share it in place, puts k and v into the cache. */
static void rotate_and_store(void *arg, size_t begin, size_t end,
                             unsigned worker)
{
    struct attend_job *job = arg;
    const struct sl_cpu *x = job->x;
    const struct sl_pass_item *it = job->item;
    uint32_t group = sharing(x), n_pages;
    uint32_t rotated = x->c.mf->hp.kv_lora; /* and what follows */
    const uint32_t *pages = sl_kv_pages(x->c.kv, it->seq, &n_pages);

    for (size_t g = begin; g < end; g++) {
        for (uint32_t j = 0; j < it->n; j++) {
            uint32_t at = it->base + j;
            uint32_t page = pages[at / SL_KV_PAGE_LEN];
            uint32_t in_page = at % SL_KV_PAGE_LEN;
            float *row = qkv_row(x, it->row + j);
            float *k = row + x->qkv.k_at + g * x->qkv.kv_step;
            float *v = row + x->qkv.v_at + g * x->qkv.kv_step;
            uint8_t *k_at = sl_kv_at(x->c.kv, job->layer, page, (uint32_t)g, 0);
            uint8_t *v_at = sl_kv_at(x->c.kv, job->layer, page, (uint32_t)g, 1);

            for (size_t h = g * group; h < (g + 1) * group; h++)
                rotate(x, row + h * x->qkv.q_step + rotated, it->row + j);
            rotate(x, k + rotated, it->row + j);
            sl_kv_store(x->c.kv, x->c.kernels, k_at, in_page, k);
            if (v != k)
                sl_kv_store(x->c.kv, x->c.kernels, v_at, in_page, v);
        }
    }
}

/* A page that the sequence ends in, and a tree's positions behind it. */
uint32_t sl_cpu_path_rows(uint32_t n, uint32_t tree_positions)
{
    uint32_t deep = tree_positions < SL_LM_TREE ? tree_positions : SL_LM_TREE;
    uint32_t pages = (SL_KV_PAGE_LEN - 1 + deep - 1) / SL_KV_PAGE_LEN + 1;

    return deep == 0 || n > pages * SL_KV_PAGE_LEN ? n : pages * SL_KV_PAGE_LEN;
}

/* Position j of a tree sees its ancestors alone, as pages in which they follow
 * one another: keys then come in the order, and so in the sums, of a sequence
 * that holds nothing else. Returns positions that lie in pages: all that j
 * sees, but itself where the model is not causal. */
static uint32_t lay_path(const struct attend_job *job, uint32_t j, uint32_t g,
                         const uint32_t *pages, const void **k_pages,
                         const void **v_pages, unsigned worker)
{
    const struct sl_cpu *x = job->x;
    const struct sl_pass_item *it = job->item;
    uint32_t first = it->base - it->n_tree, at = first;
    uint64_t path = sl_pass_path(it, j);
    size_t page = (size_t)SL_KV_PAGE_LEN * x->head_dim;
    float *own =
        x->gathered + (size_t)worker * 2 * x->gathered_rows * x->head_dim;

    if (!x->c.mf->hp.causal)
        path &= ~(UINT64_C(1) << (it->n_tree + j));
    if ((path & (path + 1)) == 0) /* they do follow one another */
        return first + (uint32_t)__builtin_popcountll(path);
    assert(first % SL_KV_PAGE_LEN + (uint32_t)__builtin_popcountll(path) <=
           x->gathered_rows);
    for (unsigned value = 0; value < 2; value++) {
        const void **laid = value ? v_pages : k_pages;
        uint32_t p = first / SL_KV_PAGE_LEN;
        uint64_t left = path;

        at = first;
        if (at % SL_KV_PAGE_LEN != 0) {
            memcpy(own, laid[p], sl_kv_head_bytes(x->c.kv));
            laid[p] = own;
        }
        for (; left != 0; left &= left - 1, at++) {
            uint32_t from = first + (uint32_t)__builtin_ctzll(left);

            p = at / SL_KV_PAGE_LEN;
            if (at % SL_KV_PAGE_LEN == 0)
                laid[p] = own + (p - first / SL_KV_PAGE_LEN) * page;
            sl_kv_copy_row(x->c.kv, (void *)laid[p], at % SL_KV_PAGE_LEN,
                           sl_kv_at(x->c.kv, job->layer,
                                    pages[from / SL_KV_PAGE_LEN], g, value),
                           from % SL_KV_PAGE_LEN);
        }
        own += (size_t)x->gathered_rows * x->head_dim;
    }
    return at;
}

/* Copies the keys and values of one head that this pass adds, rows [0, n),
 * to the worker's own place: as parts of qkv they lie so far apart that all
 * fall into the same few sets of the caches. */
static void gather_new(const struct sl_cpu *x, struct sl_attend_args *args,
                       uint32_t n, unsigned worker)
{
    size_t values = (size_t)x->gathered_rows * args->d;
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

/* Values of a head that scores are made of, in the form that the model was
 * trained with. */
static uint32_t score_dims(const struct sl_cpu *x)
{
    const struct sl_hparams *hp = &x->c.mf->hp;

    return hp->kv_lora > 0 ? hp->nope_dims + hp->rope_dims : hp->head_dim;
}

static uint32_t most_keys(const struct sl_attend_args *args)
{
    uint32_t most = 0;

    for (size_t i = 0; i < args->n_q; i++)
        most = args->n_keys[i] > most ? args->n_keys[i] : most;
    return most;
}

/* Positions that queries from `first` on see as they are kept. */
static uint32_t n_paged(const struct sl_cpu *x, const struct sl_pass_item *it,
                        uint32_t first)
{
    if (x->c.mf->hp.causal)
        return it->base + it->n;
    return it->base + (it->apart ? first : 0);
}

/* Queries [first, first + queries) of heads [h, h + heads), which share a head
 * of keys. A causal model sees all as they are kept, so that it is of no
 * consequence in which passes a text was read, and what of it was said. Where
 * a context looks ahead, which takes one pass, what the pass adds is seen as it
 * was computed; rounded it is for the passes to come, so a context costs no
 * precision in its own pass. A position apart sees no more of its pass than
 * itself: those before it, or of a tree its ancestors, lie in the pages
 * already. */
static void attend_unit(const struct attend_job *job, uint32_t h,
                        uint32_t first, unsigned worker)
{
    const struct sl_cpu *x = job->x;
    const struct sl_pass_item *it = job->item;
    uint32_t d = x->head_dim, g = h / sharing(x), n_pages, most;
    const uint32_t *pages = sl_kv_pages(x->c.kv, it->seq, &n_pages);
    uint64_t room = sl_div_up(x->c.max_tokens, SL_KV_PAGE_LEN);
    const void **k_pages = x->k_pages + worker * room;
    const void **v_pages = x->v_pages + worker * room;
    size_t row = it->row + first;
    uint32_t paged = n_paged(x, it, first);
    uint32_t unseen = paged - it->base;
    const float *new = qkv_row(x, it->row + (unseen < it->n ? unseen : 0)) +
                       (size_t)g * x->qkv.kv_step;
    struct sl_attend_args args = {
        .out = x->buf[SL_BUF_ATT] + row * x->width[SL_BUF_ATT] + (size_t)h * d,
        .out_stride = x->width[SL_BUF_ATT],
        .q = qkv_row(x, row) + (size_t)h * x->qkv.q_step,
        .q_stride = x->width[SL_BUF_WIDE],
        .n_q = it->n - first < job->queries ? it->n - first : job->queries,
        .n_keys = x->pass->n_keys + row,
        .k_pages = k_pages,
        .v_pages = v_pages,
        .page_len = SL_KV_PAGE_LEN,
        .d = d,
        .out_d = x->c.mf->hp.kv_lora,
        .kv_kind = x->c.kv_kind,
        .n_paged = paged,
        .k_new = new + x->qkv.k_at,
        .v_new = new + x->qkv.v_at,
        .new_stride = x->width[SL_BUF_WIDE],
        .scale = 1.0f / sqrtf((float)score_dims(x)),
        .group = job->heads,
        .q_head = x->qkv.q_step,
        .out_head = d,
        .scores = x->scores + (size_t)worker * x->c.max_tokens * x->score_rows,
        .score_rows = x->score_rows,
        .floats = x->floats + worker * x->key_floats,
        .n_floats = x->key_floats,
    };

    for (uint32_t p = 0; p < n_pages; p++) {
        k_pages[p] = sl_kv_at(x->c.kv, job->layer, pages[p], g, 0);
        v_pages[p] = sl_kv_at(x->c.kv, job->layer, pages[p], g, 1);
    }
    if (it->parents != NULL)
        args.n_paged = lay_path(job, first, g, pages, k_pages, v_pages, worker);
    paged = args.n_paged;
    most = most_keys(&args);
    if (most >= paged + GATHER_ROWS)
        gather_new(x, &args, most - paged, worker);
    x->c.kernels->attend(&args);
}

static void attend_units(void *arg, size_t begin, size_t end, unsigned worker)
{
    struct attend_job *job = arg;
    uint32_t units = job->x->n_heads / job->heads;

    for (size_t unit = begin; unit < end; unit++)
        attend_unit(job, (uint32_t)(unit % units) * job->heads,
                    (uint32_t)(unit / units) * job->queries, worker);
}

/* A unit has all heads that share keys, so that these are read once. Where
 * there are many threads and few heads of keys, queries are shared out too,
 * then heads. */
static void share_out(struct attend_job *job)
{
    const struct sl_cpu *x = job->x;
    uint32_t jobs = ATTEND_JOBS * sl_pool_threads(x->c.pool);
    uint32_t group = sharing(x), n_kv = x->c.mf->hp.n_kv_heads;
    uint32_t a_head = (uint32_t)sl_div_up(jobs, n_kv), runs, n = job->item->n;

    job->queries = (uint32_t)sl_div_up(sl_div_up(n, a_head), ATTEND_QUERIES) *
                   ATTEND_QUERIES;
    if (job->item->apart && (!x->c.mf->hp.causal || job->item->parents != NULL))
        job->queries = 1;
    runs = (uint32_t)sl_div_up(n, job->queries);
    job->heads = group;
    while (job->heads > 1 && runs * (x->n_heads / job->heads) < jobs) {
        do
            job->heads--;
        while (group % job->heads != 0);
    }
}

void sl_cpu_attend(struct sl_cpu *x, uint32_t layer)
{
    struct attend_job job = {.x = x, .layer = layer};

    for (size_t i = 0; i < x->pass->n_items; i++) {
        job.item = &x->pass->run[i];
        share_out(&job);
        sl_pool_for(x->c.pool, x->c.mf->hp.n_kv_heads, 1, rotate_and_store,
                    &job);
        sl_pool_for(x->c.pool,
                    sl_div_up(job.item->n, job.queries) *
                        (x->n_heads / job.heads),
                    1, attend_units, &job);
    }
}
