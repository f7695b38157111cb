#include "config.h"

#include <assert.h>
#include <string.h>

#include "src/exec/exec_cpu_impl.h"

/* The operations of a stage beside its products (arch/layer.h says what each
 * means). Every job is split by positions, never along a sum. */

/* Positions that one job quantises: their scales share cache lines. */
#define QUANTIZE_CHUNK 16u

/* --- inputs of a matrix -------------------------------------------------- */

/* Rows [from, ...) of what is multiplied: those of a head after the other's,
 * where heads have inputs of their own. */
struct input_job {
    struct sl_cpu *x;
    size_t from, head_step;
};

static const float *input_row(const struct input_job *job, size_t i)
{
    const struct sl_acts *a = &job->x->acts;

    return a->x + i % a->n * a->x_stride + i / a->n * job->head_step;
}

/* Each row alone, so that it does not depend on who computes it. */
static void quantize_rows(void *arg, size_t begin, size_t end, unsigned worker)
{
    const struct input_job *job = arg;
    struct sl_cpu *x = job->x;
    const struct sl_acts *a = &x->acts;

    for (size_t i = job->from + begin; i < job->from + end; i++)
        x->c.kernels->quantize_q8(x->q + i * a->q_stride, x->q_scale + i,
                                  x->q_sum + i, a->group_stride,
                                  input_row(job, i), a->cols);
}

static void round_rows(void *arg, size_t begin, size_t end, unsigned worker)
{
    const struct input_job *job = arg;
    struct sl_cpu *x = job->x;
    const struct sl_acts *a = &x->acts;

    for (size_t i = job->from + begin; i < job->from + end; i++)
        x->c.kernels->round_bf16((uint8_t *)x->bf16 + i * a->bf16_stride,
                                 input_row(job, i), a->cols);
}

void sl_cpu_set_head_inputs(struct sl_cpu *x, const struct sl_model_matrix *m,
                            const float *in, size_t stride, size_t n,
                            size_t head_step, uint32_t first, uint32_t end)
{
    struct input_job job = {x, first * n, head_step};
    size_t rows = (end - first) * n;

    x->acts = (struct sl_acts){
        .n = n,
        .cols = m->geom.cols,
        .x = in,
        .x_stride = stride,
    };
    x->act = x->c.act;
    if (m->spec.role == SL_ROLE_ROUTER ||
        !sl_matmul_takes(x->c.kernels, &m->geom, x->act))
        x->act = SL_ACT_F32;
    if (x->act == SL_ACT_BF16) {
        x->acts.bf16 = x->bf16;
        x->acts.bf16_stride = (size_t)m->geom.cols * x->c.kernels->bf16_bytes;
        sl_pool_for(x->c.pool, rows, QUANTIZE_CHUNK, round_rows, &job);
    }
    if (x->act != SL_ACT_INT8)
        return;
    x->acts.q = x->q;
    x->acts.q_stride = sl_q8_stride(m->geom.cols);
    x->acts.q_scale = x->q_scale;
    x->acts.q_sum = x->q_sum;
    x->acts.group_stride = n * end;
    sl_pool_for(x->c.pool, rows, QUANTIZE_CHUNK, quantize_rows, &job);
}

void sl_cpu_set_input(struct sl_cpu *x, const struct sl_model_matrix *m,
                      const float *in, size_t stride, size_t n)
{
    sl_cpu_set_head_inputs(x, m, in, stride, n, 0, 0, 1);
}

/* x->low_rank = A x of a matrix that has an adapter, of its inputs as they are.
 */
static void multiply_low(struct sl_cpu *x, const struct sl_adapter *ad)
{
    const struct sl_adapters *as = x->c.adapters;
    const struct sl_matmul mm = {
        .m = &ad->a,
        .n_blocks = sl_matrix_segment_blocks(&ad->a),
        .w = {ad->aw},
    };

    sl_matmul_run(x->c.kernels, x->c.pool, as->low, as->low_stride, &mm,
                  &x->acts, SL_ACT_F32);
    x->low_rank = (struct sl_low_rank){
        .b = &ad->b,
        .w = ad->bw,
        .x = as->low,
        .x_stride = as->low_stride,
    };
}

/* --- buffers ------------------------------------------------------------- */

float *sl_cpu_buffer(const struct sl_cpu *x, enum sl_buf buf)
{
    switch (buf) {
    case SL_BUF_X:
        return x->pass->x;
    case SL_BUF_LOGITS:
        return x->pass->logits;
    default:
        return x->buf[buf];
    }
}

/* Where out is the residual too, the product waits elsewhere. */
static enum sl_buf product_buffer(const struct sl_layer_op *op)
{
    return op->residual == op->out ? SL_BUF_NORM : op->out;
}

float *sl_cpu_output(const struct sl_cpu *x, const struct sl_layer_op *op,
                     size_t *stride)
{
    enum sl_buf to = product_buffer(op);

    *stride = x->width[to];
    return sl_cpu_buffer(x, to);
}

/* --- norms --------------------------------------------------------------- */

struct op_job {
    struct sl_cpu *x;
    const struct sl_layer_op *op;
    const float *w, *b;
    const uint32_t *rows; /* NULL: all */
};

/* out = norm(in), or out += norm(in): then in is norm, which may be used. */
static void norm_rows(void *arg, size_t begin, size_t end, unsigned worker)
{
    struct op_job *job = arg;
    struct sl_cpu *x = job->x;
    const struct sl_kernels *k = x->c.kernels;
    bool adds = job->op->residual != SL_BUF_NONE;
    float *in = sl_cpu_buffer(x, job->op->in),
          *out = sl_cpu_buffer(x, job->op->out);
    float eps = x->c.mf->hp.norm_eps;

    for (size_t i = begin; i < end; i++) {
        float *from = in + (job->rows ? job->rows[i] : i) * x->hidden;
        float *to = out + i * x->hidden, *normed = adds ? from : to;

        if (x->c.mf->hp.norm == SL_NORM_RMS)
            k->rms_norm(normed, from, job->w, x->hidden, eps);
        else
            k->layer_norm(normed, from, job->w, job->b, x->hidden, eps);
        if (adds)
            k->add(to, normed, x->hidden);
    }
}

/* q by weight and k by bias, head by head. */
static void head_norm_rows(void *arg, size_t begin, size_t end, unsigned worker)
{
    struct op_job *job = arg;
    struct sl_cpu *x = job->x;
    const struct sl_hparams *hp = &x->c.mf->hp;
    uint32_t d = x->head_dim;

    for (size_t i = begin; i < end; i++) {
        float *row = sl_cpu_buffer(x, job->op->in) + i * x->width[job->op->in];

        for (uint32_t h = 0; h < hp->n_heads; h++) {
            float *q = row + (size_t)h * x->qkv.q_step;

            x->c.kernels->rms_norm(q, q, job->w, d, hp->norm_eps);
        }
        for (uint32_t g = 0; g < hp->n_kv_heads; g++) {
            float *k = row + x->qkv.k_at + (size_t)g * x->qkv.kv_step;

            x->c.kernels->rms_norm(k, k, job->b, d, hp->norm_eps);
        }
    }
}

/* --- after a product ----------------------------------------------------- */

/* Where out is the residual itself the product has waited elsewhere
 * (product_buffer). */
static void residual_rows(void *arg, size_t begin, size_t end, unsigned worker)
{
    struct op_job *job = arg;
    struct sl_cpu *x = job->x;
    const struct sl_layer_op *op = job->op;
    size_t at = begin * x->hidden, n = (end - begin) * x->hidden;
    float alpha = op->scaled ? x->c.mf->hp.residual_scale : 1;

    if (op->residual == op->out)
        x->c.kernels->add(sl_cpu_buffer(x, op->out) + at,
                          sl_cpu_buffer(x, product_buffer(op)) + at, n);
    else
        x->c.kernels->scale_add(sl_cpu_buffer(x, op->out) + at, alpha,
                                sl_cpu_buffer(x, op->residual) + at, n);
}

/* Of an MLP without a gate: gates are applied by the product, as its epilogue.
 */
static void gelu_rows(void *arg, size_t begin, size_t end, unsigned worker)
{
    struct op_job *job = arg;
    struct sl_cpu *x = job->x;
    enum sl_buf to = product_buffer(job->op);
    float *out = sl_cpu_buffer(x, to);

    for (size_t i = begin; i < end; i++) {
        float *row = out + i * x->width[to];

        x->c.kernels->gelu_tanh(row, row, x->c.mf->hp.inner);
    }
}

/* --- the interpreter ----------------------------------------------------- */

/* Everything but products, which run as the bytes of their slabs come. */
static int run_op(struct sl_cpu *x, const struct sl_stage_ops *stage,
                  const struct sl_layer_op *op, uint32_t layer,
                  struct sl_error *err)
{
    struct op_job job = {
        .x = x,
        .op = op,
        .w = sl_cpu_vector(x, layer, op->weight),
        .b = sl_cpu_vector(x, layer, op->bias),
        .rows = stage->wanted_rows ? x->pass->rows : NULL,
    };
    size_t n = stage->wanted_rows ? x->pass->n_rows : x->pass->n;

    switch (op->what) {
    case SL_DO_NORM:
        sl_pool_for(x->c.pool, n, 1, norm_rows, &job);
        break;
    case SL_DO_HEAD_NORM:
        if (job.w != NULL)
            sl_pool_for(x->c.pool, n, 1, head_norm_rows, &job);
        break;
    case SL_DO_ATTEND:
        sl_cpu_attend(x, layer);
        break;
    case SL_DO_LATENT_NORM:
        sl_cpu_latent_norm(x, op, job.w);
        break;
    case SL_DO_JOIN:
        sl_cpu_join(x, op);
        break;
    case SL_DO_ROUTE:
        return sl_cpu_route(x, op, layer, job.b, err) == 0
                   ? 0
                   : sl_cpu_name_expert(x, err);
    case SL_DO_EXPERTS:
        return sl_cpu_experts(x, op, layer, err) == 0
                   ? 0
                   : sl_cpu_name_expert(x, err);
    default:
        assert(op->what != SL_DO_MATMUL);
        break;
    }
    return 0;
}

int sl_cpu_before(struct sl_cpu *x, const struct sl_model_matrix *m,
                  const struct sl_stage_ops *stage, uint32_t op,
                  struct sl_error *err)
{
    const struct sl_layer_op *o = &stage->ops[op];

    if (op == sl_stage_next_matmul(stage, -1)) {
        for (uint32_t i = 0; i < op; i++) {
            if (run_op(x, stage, &stage->ops[i], m->spec.layer, err) != 0)
                return -1;
        }
    }
    if (o->by_head)
        return 0;
    sl_cpu_set_input(x, m, sl_cpu_buffer(x, o->in), x->width[o->in],
                     stage->wanted_rows ? x->pass->n_rows : x->pass->n);
    if (sl_cpu_adapter(x, m) != NULL)
        multiply_low(x, sl_cpu_adapter(x, m));
    return 0;
}

int sl_cpu_after(struct sl_cpu *x, const struct sl_model_matrix *m,
                 const struct sl_stage_ops *stage, uint32_t op,
                 struct sl_error *err)
{
    struct op_job job = {.x = x, .op = &stage->ops[op]};
    uint32_t end = sl_stage_next_matmul(stage, (int)op);

    if (job.op->epilogue == SL_FN_GELU_TANH)
        sl_pool_for(x->c.pool, x->pass->n, 1, gelu_rows, &job);
    if (job.op->residual != SL_BUF_NONE)
        sl_pool_for(x->c.pool, x->pass->n, 1, residual_rows, &job);
    for (uint32_t i = op + 1; i < end; i++) {
        if (run_op(x, stage, &stage->ops[i], m->spec.layer, err) != 0)
            return -1;
    }
    return 0;
}
