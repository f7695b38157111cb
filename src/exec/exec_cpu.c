#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "offload/trace.h"
#include "src/base/clock.h"
#include "src/exec/exec_cpu_impl.h"

struct shape {
    uint64_t n, gathered, head_dim, max_tokens, threads, lookup, score_rows,
        key_floats;
    /* of a position's inputs: values, bytes in INT8, groups of these */
    uint64_t in_values, q_bytes, q_groups;
    uint64_t joined; /* of a thread, where there are planes */
    uint64_t piece_bytes;
    uint32_t pieces; /* gathered for the embedding */
    uint32_t width[SL_BUF_COUNT];
    const struct sl_kernels *kernels;
    const struct sl_hparams *hp;
    enum sl_act act;
};

static uint64_t more(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* The widest of a product's inputs, or all that heads have of their own. */
static void size_inputs(struct shape *s, const struct sl_modelfile *mf)
{
    const struct sl_hparams *hp = &mf->hp;
    uint32_t widest = sl_arch_widest_input(mf->arch, hp);
    uint32_t head = (uint32_t)more(hp->kv_lora, hp->nope_dims);
    uint64_t n = hp->kv_lora > 0 ? hp->n_heads : 0;

    s->in_values = more(widest, n * head);
    s->q_bytes = more(sl_q8_stride(widest), n * sl_q8_stride(head));
    s->q_groups =
        more(sl_div_up(widest, SL_Q8_GROUP), n * sl_div_up(head, SL_Q8_GROUP));
}

static struct shape shape_of(const struct sl_modelfile *mf, uint32_t n,
                             uint32_t max_tokens, uint32_t tree,
                             const struct sl_kernels *kernels, enum sl_act act,
                             unsigned n_threads)
{
    struct shape s = {
        .n = n,
        .gathered = sl_cpu_path_rows(n, tree),
        .head_dim = mf->hp.head_dim,
        .max_tokens = max_tokens,
        .threads = n_threads,
        .lookup = sl_cpu_lookup_bytes(mf),
        .score_rows = sl_cpu_score_rows(&mf->hp, n, max_tokens),
        .kernels = kernels,
        .hp = &mf->hp,
        .act = act,
    };

    size_inputs(&s, mf);
    s.key_floats =
        sl_cpu_key_floats(&mf->hp, (uint32_t)s.score_rows, max_tokens);
    s.pieces = sl_cpu_gathered(mf, n, &s.piece_bytes);
    for (size_t i = 0; i < mf->n_matrices; i++) {
        uint64_t bytes = sl_matmul_joined_bytes(&mf->matrices[i].geom);

        if (mf->matrices[i].low_bytes > 0 && bytes > s.joined)
            s.joined = bytes;
    }
    for (enum sl_buf b = SL_BUF_X; b < SL_BUF_COUNT; b++)
        s.width[b] = sl_arch_buf_width(mf->arch, &mf->hp, b);
    return s;
}

static void carve_all(struct sl_cpu *x, struct sl_carver *c,
                      const struct shape *s)
{
    static const enum sl_buf own[] = {
        SL_BUF_NORM,   SL_BUF_ATT,      SL_BUF_WIDE, SL_BUF_ROUTE, SL_BUF_MIX,
        SL_BUF_LATENT, SL_BUF_Q_LATENT, SL_BUF_Q,    SL_BUF_VALUES};
    uint64_t pages = sl_div_up(s->max_tokens, SL_KV_PAGE_LEN);

    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        x->buf[own[i]] = sl_carve(c, s->n * s->width[own[i]], sizeof(float));
    if (s->act == SL_ACT_BF16)
        x->bf16 = sl_carve(c, s->n * s->in_values, s->kernels->bf16_bytes);
    if (s->act == SL_ACT_INT8) {
        x->q = sl_carve(c, s->n * s->q_bytes, 1);
        x->q_scale = sl_carve(c, s->n * s->q_groups, sizeof(float));
        x->q_sum = sl_carve(c, s->n * 2 * s->q_groups, sizeof(int32_t));
    }
    x->planes.joined_bytes = s->joined;
    x->planes.joined = sl_carve(c, s->threads, s->joined);
    x->lookup = sl_carve(c, s->threads, s->lookup);
    if (s->pieces > 0)
        sl_gather_carve(&x->gather, c, s->pieces, s->piece_bytes);
    x->scores =
        sl_carve(c, s->threads * s->max_tokens * s->score_rows, sizeof(float));
    x->floats = sl_carve(c, s->threads * s->key_floats, sizeof(float));
    x->gathered =
        sl_carve(c, s->threads * 2 * s->gathered * s->head_dim, sizeof(float));
    x->k_pages = sl_carve(c, s->threads * pages, sizeof(void *));
    x->v_pages = sl_carve(c, s->threads * pages, sizeof(void *));
    sl_cpu_mixture_carve(&x->mixture, c, s->hp, s->n, (uint32_t)s->threads);
}

uint64_t sl_cpu_bytes(const struct sl_modelfile *mf, uint32_t pass_positions,
                      uint32_t max_tokens, uint32_t tree_positions,
                      const struct sl_kernels *kernels, enum sl_act act,
                      unsigned n_threads)
{
    struct shape s = shape_of(mf, pass_positions, max_tokens, tree_positions,
                              kernels, act, n_threads);
    struct sl_carver c = {NULL, 0};
    struct sl_cpu counted;

    carve_all(&counted, &c, &s);
    return c.used + (s.pieces > 0 ? sl_io_overhead_bytes(mf->mirror) : 0);
}

bool sl_cpu_takes(const struct sl_modelfile *mf, const struct sl_kernels *k,
                  enum sl_act act)
{
    for (size_t i = 0; i < mf->n_matrices; i++) {
        if (sl_matmul_takes(k, &mf->matrices[i].geom, act))
            return true;
    }
    return false;
}

/* --- the pass ---------------------------------------------------------- */

static int cpu_begin(struct sl_exec_engine *e, const struct sl_pass *pass,
                     struct sl_error *err)
{
    struct sl_cpu *x = (struct sl_cpu *)e;

    x->pass = pass;
    x->planes.high_only = pass->high_only;
    return x->c.experts != NULL
               ? sl_cpu_sweep(x, x->c.experts->first_layer, err)
               : 0;
}

static int cpu_embed(struct sl_exec_engine *e, bool *done, struct sl_error *err)
{
    *done = true;
    return sl_cpu_embed((struct sl_cpu *)e, err);
}

enum sl_epilogue sl_cpu_epilogue(enum sl_act_fn fn)
{
    switch (fn) {
    case SL_FN_GEGLU:
        return SL_EPI_GEGLU;
    case SL_FN_SWIGLU:
        return SL_EPI_SWIGLU;
    default:
        return SL_EPI_NONE;
    }
}

void sl_cpu_place(struct sl_matmul *mm, struct sl_cpu *x,
                  const struct sl_part *part, const uint8_t *base)
{
    const struct sl_model_matrix *m = &x->c.mf->matrices[part->matrix];
    struct sl_matrix g = sl_part_geom(part, m);

    for (uint32_t s = 0; s < m->geom.n_segments; s++) {
        mm->w[s] = base + part->weight_at[s];
        if (part->of == SL_PART_HIGH && x->low != NULL)
            x->planes.low[s] =
                x->low_base + x->low->weight_at[s] +
                sl_matrix_block_bytes(&g, 0,
                                      part->first_block - x->low->first_block);
        if (!sl_fmt_has_scales(m->geom.fmt))
            continue;
        if (m->scale_resident)
            mm->scale[s] =
                x->c.small->scales[part->matrix] +
                sl_matrix_scale_offset(&m->geom, s, part->first_block) / 2;
        else
            mm->scale[s] = (const void *)(base + part->scale_at[s]);
    }
}

static int run_part(struct sl_cpu *x, const struct sl_part *part,
                    const uint8_t *base, struct sl_error *err)
{
    const struct sl_modelfile *mf = x->c.mf;
    const struct sl_model_matrix *m = &mf->matrices[part->matrix];
    const struct sl_matrix *g = &m->geom;
    const struct sl_stage_ops *stage =
        sl_arch_stage(mf->arch, &mf->hp, (uint32_t)m->spec.stage);
    uint32_t at = sl_stage_op_of(stage, m->spec.slot);
    const struct sl_layer_op *op = &stage->ops[at];
    struct sl_matmul mm = {
        .m = g,
        .first_block = part->first_block,
        .n_blocks = part->n_blocks,
        .bias = sl_cpu_vector(x, m->spec.layer, op->bias),
        .low = sl_cpu_adapter(x, m) != NULL ? &x->low_rank : NULL,
        .planes = part->of == SL_PART_HIGH ? &x->planes : NULL,
        .epilogue = sl_cpu_epilogue(op->epilogue),
    };
    uint32_t out_at = sl_arch_out_at(&mf->hp, m->spec.slot);
    size_t stride;
    float *y;

    if (mm.bias != NULL)
        mm.bias += out_at;
    if (part->first_block == 0 && sl_cpu_before(x, m, stage, at, err) != 0)
        return -1;
    if (op->by_head) {
        sl_cpu_multiply_heads(x, op, part, base);
    } else {
        sl_cpu_place(&mm, x, part, base);
        y = sl_cpu_output(x, op, &stride);
        sl_matmul_run(x->c.kernels, x->c.pool, y + out_at, stride, &mm,
                      &x->acts, x->act);
    }
    if (part->first_block + part->n_blocks < sl_matrix_segment_blocks(g))
        return 0;
    if (sl_cpu_after(x, m, stage, at, err) != 0)
        return -1;
    /* The router is all of its stage where a device has the shared expert. */
    if (m->spec.slot == SL_SLOT_ROUTER &&
        sl_experts_shared_there(x->c.experts, m->spec.layer))
        return sl_cpu_after(x, m, stage,
                            sl_stage_op_of(stage, SL_SLOT_SHARED_OUT), err);
    return 0;
}

/* What comes behind a product that another worker has. */
static int end_part(struct sl_cpu *x, const struct sl_part *part,
                    struct sl_error *err)
{
    const struct sl_modelfile *mf = x->c.mf;
    const struct sl_model_matrix *m = &mf->matrices[part->matrix];
    const struct sl_stage_ops *stage =
        sl_arch_stage(mf->arch, &mf->hp, (uint32_t)m->spec.stage);

    return sl_cpu_after(x, m, stage, sl_stage_op_of(stage, m->spec.slot), err);
}

static void trace_slab(const struct sl_cpu *x, size_t slab, uint64_t begin)
{
    const struct sl_modelfile *mf = x->c.mf;
    const struct sl_partition *partition = x->c.partition;
    const struct sl_part *first =
        &partition->parts[partition->first_part[slab]];
    char name[SL_STAGE_NAME];

    sl_arch_stage_name(name, &mf->hp,
                       (uint32_t)mf->matrices[first->matrix].spec.stage);
    sl_trace_span(x->c.trace, SL_TRACK_STAGES, name, begin, sl_clock_ns(),
                  sl_slab_load_bytes(&partition->slabs[slab]));
}

/* A slab's parts; those that are high planes with the parts of the next slab,
 * if it was had (low_base). */
static int run_parts(struct sl_cpu *x, size_t slab, const uint8_t *base,
                     const uint8_t *low_base, struct sl_error *err)
{
    const struct sl_partition *partition = x->c.partition;
    const struct sl_part *low =
        &partition->parts[partition->first_part[slab + 1]];
    int rc = 0;

    x->low_base = low_base;
    for (uint32_t p = partition->first_part[slab];
         rc == 0 && p < partition->first_part[slab + 1]; p++) {
        const struct sl_part *part = &partition->parts[p];
        bool both = part->of == SL_PART_HIGH && low_base != NULL;
        bool lent;

        x->low = both ? low++ : NULL;
        if (sl_cpu_lend_shared(x, slab, p, base, &lent, err) != 0)
            return -1;
        rc = lent ? end_part(x, &partition->parts[++p], err)
                  : run_part(x, part, base, err);
    }
    return rc;
}

/* High planes wait for their low ones, unless they are all that is wanted. */
static int run_low(struct sl_cpu *x, size_t slab, const uint8_t *base,
                   struct sl_error *err)
{
    int rc = run_parts(x, slab - 1, x->high_base, base, err);

    sl_stream_put(x->c.stream, slab - 1);
    sl_stream_put(x->c.stream, slab);
    return rc;
}

static int cpu_run(struct sl_exec_engine *e, size_t slab, struct sl_error *err)
{
    struct sl_cpu *x = (struct sl_cpu *)e;
    enum sl_part_of of = sl_partition_of(x->c.partition, slab);
    const uint8_t *base;
    uint64_t begin;
    int rc;

    if (sl_stream_get(x->c.stream, slab, &base, err) != 0)
        return -1;
    if (x->c.experts != NULL && x->c.plan->tier[slab] == SL_TIER_RAM)
        sl_cpu_note_router(x, slab, base);
    if (of == SL_PART_HIGH && !x->pass->high_only) {
        x->high_base = base;
        return 0;
    }
    if (slab >= x->first_head_slab && x->c.plan->tier[slab] == SL_TIER_RAM)
        x->head_base[slab - x->first_head_slab] = base;
    begin = x->c.trace ? sl_clock_ns() : 0;
    if (of == SL_PART_LOW) {
        rc = run_low(x, slab, base, err);
    } else {
        rc = run_parts(x, slab, base, NULL, err);
        sl_stream_put(x->c.stream, slab);
    }
    if (x->c.trace != NULL)
        trace_slab(x, slab, begin);
    return rc;
}

static bool cpu_ready(const struct sl_exec_engine *e, size_t slab)
{
    return sl_stream_ready(((const struct sl_cpu *)e)->c.stream, slab);
}

static int cpu_skip(struct sl_exec_engine *e, size_t slab, struct sl_error *err)
{
    struct sl_cpu *x = (struct sl_cpu *)e;
    const uint8_t *base;

    if (sl_stream_get(x->c.stream, slab, &base, err) != 0)
        return -1;
    sl_stream_put(x->c.stream, slab);
    return 0;
}

/* --- life -------------------------------------------------------------- */

static void cpu_destroy(struct sl_exec_engine *e)
{
    struct sl_cpu *x = (struct sl_cpu *)e;

    if (x == NULL)
        return;
    sl_gather_close(&x->gather);
    sl_region_fini(&x->buffers);
    free(x->head_base);
    free(x);
}

static const struct sl_engine_ops cpu_ops = {
    .name = "cpu",
    .begin = cpu_begin,
    .embed = cpu_embed,
    .ready = cpu_ready,
    .run = cpu_run,
    .skip = cpu_skip,
    .destroy = cpu_destroy,
};

/* The head's stage has one matrix, so each of its slabs has one part. */
static size_t first_head_slab(const struct sl_cpu_config *c)
{
    size_t slab = c->partition->n_slabs;

    while (slab > 0) {
        uint32_t part = c->partition->first_part[slab - 1];

        if (c->mf->matrices[c->partition->parts[part].matrix].spec.slot !=
            SL_SLOT_HEAD)
            break;
        slab--;
    }
    return slab;
}

static int allocate(struct sl_cpu *x, struct sl_error *err)
{
    const struct sl_cpu_config *c = &x->c;
    struct shape s =
        shape_of(c->mf, c->pass_positions, c->max_tokens, c->tree_positions,
                 c->kernels, c->act, sl_pool_threads(c->pool));
    struct sl_carver counter = {NULL, 0}, carver = {NULL, 0};

    carve_all(x, &counter, &s);
    if (sl_region_init(&x->buffers, counter.used, "activations", err) != 0)
        return -1;
    carver.base = x->buffers.base;
    carve_all(x, &carver, &s);
    memcpy(x->width, s.width, sizeof x->width);
    x->gathered_rows = (uint32_t)s.gathered;
    x->score_rows = (uint32_t)s.score_rows;
    x->key_floats = s.key_floats;
    x->lookup_bytes = s.lookup;
    x->first_head_slab = first_head_slab(c);
    x->head_base = sl_zalloc_array(c->partition->n_slabs - x->first_head_slab,
                                   sizeof *x->head_base);
    if (x->head_base == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "executor: no memory");
    return 0;
}

int sl_cpu_create(struct sl_exec_engine **e, const struct sl_cpu_config *config,
                  struct sl_error *err)
{
    const struct sl_hparams *hp = &config->mf->hp;
    struct sl_cpu *x = calloc(1, sizeof *x);

    if (x == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "executor: no memory");
    x->engine.ops = &cpu_ops;
    x->c = *config;
    x->hidden = hp->hidden;
    x->n_heads = hp->n_heads;
    x->head_dim = hp->head_dim;
    x->qkv = sl_arch_qkv_row(hp);
    if (allocate(x, err) != 0) {
        cpu_destroy(&x->engine);
        return -1;
    }
    if (x->gather.n > 0)
        sl_gather_open(&x->gather, config->mf->path, config->mf->mirror,
                       config->io);
    *e = &x->engine;
    return 0;
}
