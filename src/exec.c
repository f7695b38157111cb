#include "config.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/clock.h"
#include "src/exec_impl.h"
#include "src/rotary.h"

/* Carves the pass's arrays out of one region; with base NULL only counts. */
struct carver {
    uint8_t *base;
    uint64_t used;
};

static void *carve(struct carver *c, uint64_t n, uint64_t item)
{
    uint64_t at = c->used;

    c->used = sl_round_up(at + n * item, 64);
    return c->base ? c->base + at : NULL;
}

struct shape {
    uint64_t n, rows, hidden, wide, widest_in, head_dim, max_tokens, threads;
    uint64_t lookup;
    bool int8;
};

static struct shape shape_of(const struct sl_modelfile *mf, uint32_t n,
                             uint32_t n_logits, uint32_t max_tokens,
                             bool int8_activations, unsigned n_threads)
{
    const struct sl_hparams *hp = &mf->hp;
    uint64_t qkv = 3ull * hp->hidden;

    return (struct shape){
        .n = n,
        .rows = n_logits,
        .hidden = hp->hidden,
        .wide = qkv > hp->inner ? qkv : hp->inner,
        .widest_in = hp->hidden > hp->inner ? hp->hidden : hp->inner,
        .head_dim = hp->hidden / hp->n_heads,
        .max_tokens = max_tokens,
        .threads = n_threads,
        .lookup = sl_exec_lookup_bytes(mf),
        .int8 = int8_activations,
    };
}

static void carve_all(struct sl_exec *x, struct carver *c,
                      const struct shape *s)
{
    uint64_t pages = sl_div_up(s->max_tokens, SL_KV_PAGE_LEN);

    x->x = carve(c, s->n * s->hidden, sizeof(float));
    x->a = carve(c, s->n * s->hidden, sizeof(float));
    x->att = carve(c, s->n * s->hidden, sizeof(float));
    x->big = carve(c, s->n * s->wide, sizeof(float));
    if (s->int8) {
        uint64_t groups = sl_div_up(s->widest_in, SL_Q8_GROUP);

        x->q = carve(c, s->n * sl_q8_stride((uint32_t)s->widest_in), 1);
        x->q_scale = carve(c, s->n * groups, sizeof(float));
        x->q_sum = carve(c, s->n * groups, sizeof(int32_t));
    }
    x->cos = carve(c, s->n * (s->head_dim / 2), sizeof(float));
    x->sin = carve(c, s->n * (s->head_dim / 2), sizeof(float));
    x->n_keys = carve(c, s->n, sizeof(uint32_t));
    x->run = carve(c, s->n, sizeof *x->run);
    x->lookup = carve(c, s->threads, s->lookup);
    x->scores =
        carve(c, s->threads * s->max_tokens * SL_ATTEND_QUERIES, sizeof(float));
    x->k_pages = carve(c, s->threads * pages, sizeof(void *));
    x->v_pages = carve(c, s->threads * pages, sizeof(void *));
}

struct sl_exec_need sl_exec_need(const struct sl_modelfile *mf,
                                 uint32_t pass_positions, uint32_t pass_logits,
                                 uint32_t max_tokens, bool int8_activations,
                                 unsigned n_threads)
{
    struct shape s = shape_of(mf, pass_positions, pass_logits, max_tokens,
                              int8_activations, n_threads);
    struct carver c = {NULL, 0};
    struct sl_exec counted;

    carve_all(&counted, &c, &s);
    return (struct sl_exec_need){
        .vectors = sl_exec_vector_bytes(mf),
        .activations = c.used,
    };
}

bool sl_exec_takes_int8(const struct sl_modelfile *mf,
                        const struct sl_kernels *k)
{
    for (size_t i = 0; i < mf->n_matrices; i++) {
        if (sl_matmul_takes_int8(k, &mf->matrices[i].geom))
            return true;
    }
    return false;
}

/* --- the pass ---------------------------------------------------------- */

static int check_items(struct sl_exec *x, const struct sl_lm_item *items,
                       size_t n_items, struct sl_error *err)
{
    uint64_t n = 0, rows = 0;

    for (size_t i = 0; i < n_items; i++) {
        n += items[i].n;
        rows += items[i].n_logits;
        if (items[i].n == 0 || items[i].n_logits > items[i].n)
            return sl_fail(err, SL_ERR_INTERNAL,
                           "item %zu of a pass has %u ids and wants %u rows of "
                           "logits",
                           i, items[i].n, items[i].n_logits);
        if (items[i].n_context > sl_kv_len(x->c.kv, items[i].seq) + items[i].n)
            return sl_fail(err, SL_ERR_INTERNAL,
                           "item %zu of a pass looks at a context of %u "
                           "positions that it does not hold",
                           i, items[i].n_context);
        for (uint32_t j = 0; j < items[i].n; j++) {
            if (items[i].ids[j] < 0 || (uint32_t)items[i].ids[j] >= x->lm.vocab)
                return sl_fail(err, SL_ERR_USAGE,
                               "token id %d at place %u is outside the "
                               "vocabulary of %u",
                               (int)items[i].ids[j], j, x->lm.vocab);
        }
    }
    if (n > x->c.pass_positions || rows > x->c.pass_logits)
        return sl_fail(err, SL_ERR_BUDGET,
                       "a pass of %llu positions and %llu rows of logits, but "
                       "memory was planned for %u and %u",
                       (unsigned long long)n, (unsigned long long)rows,
                       x->c.pass_positions, x->c.pass_logits);
    return 0;
}

static void fill_rotary(struct sl_exec *x, uint32_t row, int32_t position,
                        int32_t block)
{
    const struct sl_hparams *hp = &x->c.mf->hp;
    uint32_t half = x->head_dim / 2;
    float *cos_row = x->cos + (size_t)row * half;
    float *sin_row = x->sin + (size_t)row * half;

    if (!hp->position_2d) {
        sl_rotary_row(cos_row, sin_row, hp->rotary, x->head_dim, position);
        return;
    }
    sl_rotary_row(cos_row, sin_row, hp->rotary, half, position);
    sl_rotary_row(cos_row + half / 2, sin_row + half / 2, hp->rotary, half,
                  block);
}

/* Lays the items out over the rows of the pass and makes room in the cache. */
static int begin_pass(struct sl_exec *x, const struct sl_lm_item *items,
                      size_t n_items, float *logits, struct sl_error *err)
{
    x->items = items;
    x->n_items = n_items;
    x->n = x->n_rows = 0;
    x->logits = logits;
    for (size_t i = 0; i < n_items; i++) {
        const struct sl_lm_item *it = &items[i];
        struct sl_exec_item *r = &x->run[i];

        *r = (struct sl_exec_item){
            .seq = it->seq,
            .row = x->n,
            .n = it->n,
            .base = sl_kv_len(x->c.kv, it->seq),
            .n_context = it->n_context,
            .n_logits = it->n_logits,
        };
        if (sl_kv_extend(x->c.kv, it->seq, it->n, err) != 0)
            return -1;
        for (uint32_t j = 0; j < it->n; j++) {
            uint32_t causal = r->base + j + 1;

            x->n_keys[r->row + j] =
                causal > it->n_context ? causal : it->n_context;
            fill_rotary(x, r->row + j, it->positions[j],
                        it->blocks ? it->blocks[j] : 0);
        }
        x->n += it->n;
        x->n_rows += it->n_logits;
    }
    return 0;
}

static void run_part(struct sl_exec *x, const struct sl_part *part,
                     const uint8_t *base)
{
    const struct sl_model_matrix *m = &x->c.mf->matrices[part->matrix];
    const struct sl_matrix *g = &m->geom;
    bool glu = m->spec.op == SL_OP_MLP_IN && x->c.mf->hp.glu;
    struct sl_matmul mm = {
        .m = g,
        .first_block = part->first_block,
        .n_blocks = part->n_blocks,
        .epilogue = glu ? SL_EPI_GEGLU : SL_EPI_NONE,
    };
    size_t stride;
    float *y;

    if (part->first_block == 0)
        sl_exec_before(x, m);
    for (uint32_t s = 0; s < g->n_segments; s++) {
        mm.w[s] = base + part->weight_at[s];
        if (!sl_fmt_packed(g->fmt))
            continue;
        if (m->scale_resident)
            mm.scale[s] = x->scales[part->matrix] +
                          sl_matrix_scale_offset(g, s, part->first_block) / 2;
        else
            mm.scale[s] = (const void *)(base + part->scale_at[s]);
    }
    if (m->spec.op != SL_OP_HEAD)
        mm.bias = x->layers[m->spec.layer].bias[m->spec.op];
    y = sl_exec_output(x, m, &stride);
    if (x->acts.n > 0)
        sl_matmul_run(x->c.kernels, x->c.pool, y, stride, &mm, &x->acts,
                      x->act);
    if (part->first_block + part->n_blocks == sl_matrix_segment_blocks(g))
        sl_exec_after(x, m);
}

static int run_slab(struct sl_exec *x, size_t slab, struct sl_error *err)
{
    const struct sl_cut *cut = x->c.cut;
    const struct sl_modelfile *mf = x->c.mf;
    const struct sl_part *first = &cut->parts[cut->first_part[slab]];
    const struct sl_tensor_spec *spec = &mf->matrices[first->matrix].spec;
    char name[SL_STAGE_NAME];
    const uint8_t *base;
    uint64_t begin;

    if (atomic_load_explicit(x->c.stop, memory_order_relaxed))
        return sl_fail(err, SL_ERR_INTERRUPTED, "interrupted");
    if (sl_stream_get(x->c.stream, slab, &base, err) != 0) {
        mf->arch->stage_name(name, &mf->hp, (uint32_t)spec->stage);
        sl_error_prefix(err, "%s: ", name);
        return -1;
    }
    if (slab >= x->first_head_slab && x->c.plan->home[slab] == SL_HOME_RAM)
        x->head_base[slab - x->first_head_slab] = base;
    begin = x->c.trace ? sl_clock_ns() : 0;
    for (uint32_t p = cut->first_part[slab]; p < cut->first_part[slab + 1]; p++)
        run_part(x, &cut->parts[p], base);
    sl_stream_put(x->c.stream, slab);
    if (x->c.trace != NULL) {
        mf->arch->stage_name(name, &mf->hp, (uint32_t)spec->stage);
        sl_trace_span(x->c.trace, SL_TRACK_STAGES, name, begin, sl_clock_ns(),
                      sl_slab_load_bytes(&cut->slabs[slab]));
    }
    return 0;
}

static void count_pass(struct sl_exec *x, uint64_t ns)
{
    struct sl_exec_stats *s = &x->stats;
    bool prefill = x->n > x->n_items;

    if (s->passes++ == 0)
        s->first_pass_ns = ns;
    s->positions += x->n;
    if (prefill) {
        s->prefill_passes++;
        s->prefill_ns += ns;
    } else {
        s->decode_positions += x->n;
        s->decode_ns += ns;
    }
}

static int exec_forward(struct sl_lm *lm, const struct sl_lm_item *items,
                        size_t n_items, float *logits, struct sl_error *err)
{
    struct sl_exec *x = (struct sl_exec *)lm;
    uint64_t begin = sl_clock_ns();

    if (x->broken)
        return sl_fail(err, SL_ERR_INTERNAL,
                       "a pass was asked for after one had failed");
    if (check_items(x, items, n_items, err) != 0)
        return -1;
    x->broken = true;
    if (begin_pass(x, items, n_items, logits, err) != 0 ||
        sl_exec_embed(x, err) != 0)
        return -1;
    for (size_t slab = 0; slab < x->c.cut->n_slabs; slab++) {
        if (run_slab(x, slab, err) != 0)
            return -1;
    }
    x->broken = false;
    count_pass(x, sl_clock_ns() - begin);
    return 0;
}

static int exec_seq_create(struct sl_lm *lm, uint32_t *seq,
                           struct sl_error *err)
{
    return sl_kv_seq_create(((struct sl_exec *)lm)->c.kv, seq, err);
}

static int exec_seq_fork(struct sl_lm *lm, uint32_t *seq, uint32_t from,
                         struct sl_error *err)
{
    return sl_kv_seq_fork(((struct sl_exec *)lm)->c.kv, seq, from, err);
}

static void exec_seq_destroy(struct sl_lm *lm, uint32_t seq)
{
    sl_kv_seq_destroy(((struct sl_exec *)lm)->c.kv, seq);
}

static const struct sl_lm_ops exec_ops = {
    .seq_create = exec_seq_create,
    .seq_fork = exec_seq_fork,
    .seq_destroy = exec_seq_destroy,
    .forward = exec_forward,
};

/* --- life -------------------------------------------------------------- */

/* The head's stage has one matrix, so each of its slabs has one part. */
static size_t first_head_slab(const struct sl_exec_config *c)
{
    size_t slab = c->cut->n_slabs;

    while (slab > 0) {
        uint32_t part = c->cut->first_part[slab - 1];

        if (c->mf->matrices[c->cut->parts[part].matrix].spec.op != SL_OP_HEAD)
            break;
        slab--;
    }
    return slab;
}

static int allocate(struct sl_exec *x, struct sl_error *err)
{
    const struct sl_exec_config *c = &x->c;
    struct shape s =
        shape_of(c->mf, c->pass_positions, c->pass_logits, c->max_tokens,
                 c->int8_activations, sl_pool_threads(c->pool));
    struct carver counter = {NULL, 0}, carver = {NULL, 0};

    carve_all(x, &counter, &s);
    if (sl_region_init(&x->buffers, counter.used, "activations", err) != 0)
        return -1;
    carver.base = x->buffers.base;
    carve_all(x, &carver, &s);
    x->wide = (uint32_t)s.wide;
    x->lookup_bytes = s.lookup;
    x->first_head_slab = first_head_slab(c);
    x->layers = sl_zalloc_array(c->mf->hp.n_layers, sizeof *x->layers);
    x->scales = sl_zalloc_array(c->mf->n_matrices, sizeof *x->scales);
    x->head_base = sl_zalloc_array(c->cut->n_slabs - x->first_head_slab,
                                   sizeof *x->head_base);
    if (x->layers == NULL || x->scales == NULL || x->head_base == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "executor: no memory");
    return 0;
}

int sl_exec_create(struct sl_exec **out, const struct sl_exec_config *config,
                   struct sl_error *err)
{
    const struct sl_hparams *hp = &config->mf->hp;
    struct sl_exec *x = calloc(1, sizeof *x);

    if (x == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "executor: no memory");
    x->c = *config;
    x->lm = (struct sl_lm){
        .vocab = hp->vocab,
        .max_tokens = config->max_tokens,
        .ops = &exec_ops,
    };
    x->hidden = hp->hidden;
    x->inner = hp->inner;
    x->n_heads = hp->n_heads;
    x->head_dim = hp->hidden / hp->n_heads;
    x->alpha = sqrtf(2.0f * (float)hp->n_layers);
    if (allocate(x, err) != 0 || sl_exec_load_vectors(x, err) != 0) {
        sl_exec_destroy(x);
        return -1;
    }
    *out = x;
    return 0;
}

void sl_exec_destroy(struct sl_exec *x)
{
    if (x == NULL)
        return;
    sl_region_fini(&x->buffers);
    sl_region_fini(&x->vectors);
    free(x->layers);
    free(x->scales);
    free(x->head_base);
    free(x);
}

struct sl_lm *sl_exec_lm(struct sl_exec *x)
{
    return &x->lm;
}

void sl_exec_stats(const struct sl_exec *x, struct sl_exec_stats *stats)
{
    *stats = x->stats;
}
