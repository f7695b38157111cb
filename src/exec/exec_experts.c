#include "config.h"

#include <string.h>

#include "src/exec/exec_cpu_impl.h"

void sl_cpu_mixture_carve(struct sl_cpu_mixture *m, struct sl_carver *c,
                          const struct sl_hparams *hp, uint64_t n,
                          uint32_t n_threads)
{
    uint64_t k = hp->n_experts_used;
    uint64_t pairs = n * k, ahead;

    if (hp->n_experts == 0)
        return;
    m->k = hp->n_experts_used;
    m->n_out = sl_mixture_pairs(hp, n);
    m->chosen = sl_carve(c, pairs, sizeof *m->chosen);
    m->weight = sl_carve(c, pairs, sizeof *m->weight);
    m->pair_of = sl_carve(c, pairs, sizeof *m->pair_of);
    m->row = sl_carve(c, pairs, sizeof *m->row);
    m->pair_weight = sl_carve(c, pairs, sizeof *m->pair_weight);
    m->first = sl_carve(c, hp->n_experts + 1, sizeof *m->first);
    m->records = sl_carve(c, hp->n_experts, sizeof *m->records);
    m->swept = sl_carve(c, hp->n_experts, sizeof *m->swept);
    m->chances = sl_carve(c, hp->n_experts, sizeof *m->chances);
    m->score =
        sl_carve(c, (uint64_t)n_threads * 2 * hp->n_experts, sizeof *m->score);
    m->gathered = sl_carve(c, n * hp->hidden, sizeof *m->gathered);
    m->routers = sl_carve(c, hp->n_layers + 1, sizeof *m->routers);
    ahead = n < SL_AHEAD_POSITIONS ? n : SL_AHEAD_POSITIONS;
    m->ahead_norm = sl_carve(c, ahead * hp->hidden, sizeof *m->ahead_norm);
    m->ahead_route = sl_carve(c, ahead * hp->n_experts, sizeof(float));
    m->likely = sl_carve(c, ahead * k, sizeof *m->likely);
    m->likely_records = sl_carve(c, ahead * k, sizeof *m->likely_records);
    m->likely_ranks = sl_carve(c, ahead * k, sizeof *m->likely_ranks);
    m->parts = sl_carve(c, hp->n_experts + 1, sizeof *m->parts);
    m->mix_row = sl_carve(c, m->n_out, sizeof *m->mix_row);
    m->out = sl_carve(c, (uint64_t)m->n_out * hp->hidden, sizeof *m->out);
}

struct mix_job {
    struct sl_cpu *x;
    const struct sl_layer_op *op;
    const float *out; /* of the first pair that is mixed */
    uint32_t first;   /* pair */
};

/* Rows of an expert's inputs, side by side. */
static void gather_rows(void *arg, size_t begin, size_t end, unsigned worker)
{
    struct mix_job *job = arg;
    struct sl_cpu *x = job->x;
    const float *in = sl_cpu_buffer(x, job->op->in);

    for (size_t i = begin; i < end; i++)
        memcpy(x->mixture.gathered + i * x->hidden,
               in + (size_t)x->mixture.row[job->first + i] * x->hidden,
               x->hidden * sizeof *in);
}

/* An expert's pairs, of a position one at most, to their positions. */
static void scatter_rows(void *arg, size_t begin, size_t end, unsigned worker)
{
    struct mix_job *job = arg;
    struct sl_cpu *x = job->x;
    const struct sl_cpu_mixture *m = &x->mixture;
    float *mix = sl_cpu_buffer(x, job->op->out);

    for (size_t i = begin; i < end; i++) {
        uint32_t pair = job->first + (uint32_t)i;

        x->c.kernels->scale_add(mix + (size_t)m->row[pair] * x->hidden,
                                m->pair_weight[pair], job->out + i * x->hidden,
                                x->hidden);
    }
}

/* The same of all pairs of a position, expert by expert. */
static void mix_rows(void *arg, size_t begin, size_t end, unsigned worker)
{
    struct mix_job *job = arg;
    struct sl_cpu *x = job->x;
    const struct sl_cpu_mixture *m = &x->mixture;
    float *mix = sl_cpu_buffer(x, job->op->out);

    for (size_t i = begin; i < end; i++) {
        for (uint32_t r = 0; r < m->k; r++) {
            uint32_t pair = m->pair_of[i * m->k + r];

            x->c.kernels->scale_add(mix + i * x->hidden, m->pair_weight[pair],
                                    job->out + (size_t)pair * x->hidden,
                                    x->hidden);
        }
    }
}

static void add_rows(void *arg, size_t begin, size_t end, unsigned worker)
{
    struct mix_job *job = arg;
    struct sl_cpu *x = job->x;
    size_t at = begin * x->hidden;

    x->c.kernels->add(sl_cpu_buffer(x, job->op->residual) + at,
                      sl_cpu_buffer(x, job->op->out) + at,
                      (end - begin) * x->hidden);
}

/* y = W in of n rows; the record, which begins with the matrix `first`, lies
 * at base. */
static void multiply(struct sl_cpu *x, float *y, size_t y_stride,
                     const struct sl_model_matrix *first, uint32_t i,
                     const uint8_t *base, const float *in, size_t stride,
                     size_t n)
{
    const struct sl_model_matrix *m = &first[i];
    const struct sl_matrix *g = &m->geom;
    struct sl_part part = sl_expert_part(x->c.experts, first, i);
    struct sl_matmul mm = {
        .m = g,
        .n_blocks = part.n_blocks,
        .epilogue = sl_cpu_epilogue(i == 0 ? SL_FN_SWIGLU : SL_FN_NONE),
    };

    sl_cpu_place(&mm, x, &part, base);
    sl_cpu_set_input(x, m, in, stride, n);
    sl_matmul_run(x->c.kernels, x->c.pool, y, y_stride, &mm, &x->acts, x->act);
}

/* What an expert gives of all its positions, to rows of out. */
static int run_expert(struct sl_cpu *x, const struct sl_layer_op *op,
                      uint32_t layer, uint32_t expert, float *out,
                      struct sl_error *err)
{
    struct sl_cpu_mixture *m = &x->mixture;
    struct sl_experts *experts = x->c.experts;
    uint32_t record = sl_experts_record(experts, layer, expert);
    uint32_t n = m->first[expert + 1] - m->first[expert];
    const struct sl_model_matrix *first =
        sl_modelfile_expert(x->c.mf, layer, expert);
    struct mix_job job = {.x = x, .op = op, .first = m->first[expert]};
    float *wide = sl_cpu_buffer(x, SL_BUF_WIDE);
    size_t width = x->width[SL_BUF_WIDE];
    const uint8_t *base;

    sl_pool_for(x->c.pool, n, 1, gather_rows, &job);
    /* The rest may come meanwhile. */
    if (sl_slab_cache_get_first(experts->cache, record,
                                sl_experts_first_bytes(experts, record), &base,
                                err) != 0)
        return -1;
    multiply(x, wide, width, first, 0, base, m->gathered, x->hidden, n);
    if (sl_slab_cache_get(experts->cache, record, &base, err) != 0)
        return -1;
    multiply(x, out, x->hidden, first, 1, base, wide, width, n);
    return sl_slab_cache_put(experts->cache, record, (double)n / x->pass->n,
                             err);
}

/* All pairs have room: what is there computes while the rest is read. */
static int run_small(struct sl_cpu *x, const struct sl_layer_op *op,
                     uint32_t layer, struct sl_error *err)
{
    struct sl_cpu_mixture *m = &x->mixture;
    struct mix_job job = {.x = x, .op = op, .out = m->out};
    uint32_t n_experts = x->c.experts->n_experts;

    while (m->n_used > 0) {
        uint32_t expert =
            sl_experts_take(x->c.experts, m->records, &m->n_used) % n_experts;

        if (run_expert(x, op, layer, expert,
                       m->out + (size_t)m->first[expert] * x->hidden, err) != 0)
            return -1;
    }
    if (sl_cpu_mix_take(x, op, layer, err) != 0)
        return -1;
    sl_pool_for(x->c.pool, x->pass->n, 1, mix_rows, &job);
    return 0;
}

static void scatter(struct sl_cpu *x, const struct sl_layer_op *op,
                    uint32_t expert, const float *out)
{
    const struct sl_cpu_mixture *m = &x->mixture;
    struct mix_job job = {x, op, out, m->first[expert]};

    sl_pool_for(x->c.pool, m->first[expert + 1] - m->first[expert], 1,
                scatter_rows, &job);
}

static void copy_rows(void *arg, size_t begin, size_t end, unsigned worker)
{
    struct mix_job *job = arg;
    struct sl_cpu *x = job->x;

    memcpy(sl_cpu_buffer(x, job->op->out) + begin * x->hidden,
           job->out + begin * x->hidden,
           (end - begin) * x->hidden * sizeof *job->out);
}

/* What all the others are added to. */
static void copy_shared(struct sl_cpu *x, const struct sl_layer_op *op,
                        const float *out)
{
    struct mix_job job = {x, op, out, 0};

    sl_pool_for(x->c.pool, x->pass->n, 1, copy_rows, &job);
}

/* What the device gives of the shared one, where it lies there. */
static int take_shared(struct sl_cpu *x, const struct sl_layer_op *op,
                       uint32_t layer, struct sl_error *err)
{
    const float *out;

    if (!x->mixture.shared_waits)
        return 0;
    if (sl_cpu_mix_part(x, layer, 0, &out, err) != 0)
        return -1;
    copy_shared(x, op, out);
    return 0;
}

/* Takes what the device gives of those that were lent to it, until so few of
 * them are under way. */
static int take_lent(struct sl_cpu *x, const struct sl_layer_op *op,
                     uint32_t layer, uint32_t left, struct sl_error *err)
{
    struct sl_cpu_mixture *m = &x->mixture;
    const float *out;
    uint32_t expert;

    while (m->n_lent > left) {
        expert = m->lent[0];
        if (take_shared(x, op, layer, err) != 0 ||
            sl_cpu_take_lent(x, layer, &out, err) != 0)
            return -1;
        if (expert == x->c.experts->n_experts)
            copy_shared(x, op, out);
        else
            scatter(x, op, expert, out);
    }
    return 0;
}

/* Expert by expert, in the order in which they lie in the file: those that are
 * lent are computed while the next ones are, but added in their turn. */
static int run_experts(struct sl_cpu *x, const struct sl_layer_op *op,
                       uint32_t layer, struct sl_error *err)
{
    struct sl_cpu_mixture *m = &x->mixture;
    uint32_t n_experts = x->c.experts->n_experts, part = m->shared_waits;

    for (uint32_t e = 0; e < n_experts; e++) {
        const float *out = m->out;

        if (m->first[e] == m->first[e + 1])
            continue;
        if (part < m->n_parts && m->parts[part].expert == e) {
            /* another mix may begin, which takes its place */
            if (take_shared(x, op, layer, err) != 0 ||
                sl_cpu_mix_part(x, layer, part++, &out, err) != 0)
                return -1;
        } else if (sl_cpu_lends(x, e)) {
            if (take_lent(x, op, layer, SL_LENT - 1, err) != 0 ||
                sl_cpu_lend(x, layer, e, err) != 0)
                return -1;
            continue;
        } else if (run_expert(x, op, layer, e, m->out, err) != 0) {
            return -1;
        }
        if (take_lent(x, op, layer, 0, err) != 0 ||
            take_shared(x, op, layer, err) != 0)
            return -1;
        scatter(x, op, e, out);
    }
    return take_lent(x, op, layer, 0, err);
}

static int run_large(struct sl_cpu *x, const struct sl_layer_op *op,
                     uint32_t layer, struct sl_error *err)
{
    int rc = run_experts(x, op, layer, err);
    struct sl_error later;
    const float *ignored;

    while (rc != 0 && x->mixture.n_lent > 0)
        (void)sl_cpu_take_lent(x, layer, &ignored, &later);
    return rc;
}

int sl_cpu_name_expert(const struct sl_cpu *x, struct sl_error *err)
{
    uint32_t record;

    if (sl_slab_cache_failed(x->c.experts->cache, &record))
        sl_error_prefix(err, "expert %u: ", record % x->c.experts->n_experts);
    return -1;
}

int sl_cpu_experts(struct sl_cpu *x, const struct sl_layer_op *op,
                   uint32_t layer, struct sl_error *err)
{
    struct mix_job job = {.x = x, .op = op};
    int rc;

    rc = sl_cpu_mixes_long(x) ? run_large(x, op, layer, err)
                              : run_small(x, op, layer, err);
    if (rc != 0)
        return -1;
    sl_pool_for(x->c.pool, x->pass->n, 1, add_rows, &job);
    sl_experts_count(x->c.experts, x->pass->reads);
    return sl_cpu_look_ahead(x, layer, SL_HINT_LATE, err);
}
