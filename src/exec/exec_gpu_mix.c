#include "config.h"

#include "src/exec/exec_experts.h"
#include "src/exec/exec_gpu_impl.h"

/* Experts that lie on the device: rows go up as FP16, what they give comes down
 * as FP32. The compute queue has nothing else to do then: x is the CPU's. */

void sl_gpu_carve_mix(struct sl_gpu_mix *m, struct sl_carver *c,
                      const struct sl_hparams *hp, uint32_t n)
{
    uint32_t inner = hp->expert_inner > hp->shared_inner ? hp->expert_inner
                                                         : hp->shared_inner;
    uint64_t rows;

    if (hp->n_experts == 0)
        return;
    rows = sl_mixture_pairs(hp, n);
    m->in = sl_carve(c, rows * sl_round_up(hp->hidden, 8), sizeof *m->in);
    m->wide = sl_carve(c, rows * sl_round_up(inner, 8), sizeof *m->wide);
    m->out = sl_carve(c, rows * hp->hidden, sizeof *m->out);
}

void sl_gpu_carve_mix_host(struct sl_gpu_mix *m, struct sl_carver *c,
                           const struct sl_hparams *hp, uint32_t n)
{
    uint64_t rows;

    if (hp->n_experts == 0)
        return;
    rows = sl_mixture_pairs(hp, n);
    m->host_in =
        sl_carve(c, rows * sl_round_up(hp->hidden, 8), sizeof *m->host_in);
    m->host_out = sl_carve(c, rows * hp->hidden, sizeof *m->host_out);
}

struct convert_job {
    const struct sl_gpu *g;
    const float *in;
    size_t in_stride;
    const uint32_t *row; /* NULL: all */
    uint16_t *to;
};

/* What is too large becomes the largest there is; NaN stays. */
static void clamp_halves(uint16_t *h, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        h[i] = (uint16_t)(h[i] - ((h[i] & 0x7fffu) == 0x7c00u));
}

static void convert_rows(void *arg, size_t begin, size_t end, unsigned worker)
{
    const struct convert_job *job = arg;
    const struct sl_gpu *g = job->g;
    size_t stride = sl_round_up(g->hidden, 8);

    (void)worker;
    for (size_t i = begin; i < end; i++) {
        size_t from = job->row != NULL ? job->row[i] : i;
        uint16_t *to = job->to + i * stride;

        g->c.kernels->f32_to_f16(to, job->in + from * job->in_stride,
                                 g->hidden);
        clamp_halves(to, g->hidden);
    }
}

void sl_gpu_half_rows(struct sl_gpu *g, uint16_t *to, const float *in,
                      size_t stride, const uint32_t *row, uint32_t n)
{
    struct convert_job job = {g, in, stride, row, to};

    sl_pool_for(g->c.pool, n, 1, convert_rows, &job);
}

int sl_gpu_run_expert(struct sl_gpu *g, const struct sl_loan *loan,
                      uint32_t first_row, struct sl_error *err)
{
    size_t in = sl_round_up(g->hidden, 8);
    size_t wide = sl_round_up(loan->m[1]->geom.cols, 8);
    struct sl_cuda_matmul gate_up = {
        .m = &loan->m[0]->geom,
        .n_blocks = loan->part[0].n_blocks,
        .epilogue = SL_CUDA_EPI_SWIGLU,
    };
    struct sl_cuda_matmul down = {
        .m = &loan->m[1]->geom,
        .n_blocks = loan->part[1].n_blocks,
        .epilogue = SL_CUDA_EPI_NONE,
    };

    sl_gpu_set_weights(g, &gate_up, &loan->part[0], loan->base);
    if (sl_cuda_matmul_run(g->c.cuda, g->mix.wide, wide, SL_CUDA_F16, &gate_up,
                           g->mix.in + first_row * in, in, loan->n_rows,
                           err) != 0)
        return -1;
    sl_gpu_set_weights(g, &down, &loan->part[1], loan->base);
    return sl_cuda_matmul_run(
        g->c.cuda, g->mix.out + (size_t)first_row * g->hidden, g->hidden,
        SL_CUDA_F32, &down, g->mix.wide, wide, loan->n_rows, err);
}

static int run_part(struct sl_gpu *g, const struct sl_mix *mix,
                    const struct sl_mix_part *p, struct sl_error *err)
{
    struct sl_loan loan = {
        .base = (const uint8_t *)g->c.records +
                sl_experts_device_at(g->c.experts, mix->layer, p->expert),
        .n_rows = p->n,
    };

    sl_expert_matrices(g->c.experts, mix->layer, p->expert, loan.m, loan.part);
    return sl_gpu_run_expert(g, &loan, p->first, err);
}

int sl_gpu_mix(struct sl_exec_engine *e, const struct sl_mix *mix,
               struct sl_error *err)
{
    struct sl_gpu *g = (struct sl_gpu *)e;
    struct sl_device *dev = g->c.device;
    size_t stride = sl_round_up(g->hidden, 8);

    /* One that nobody took, of a pass that has failed. */
    if (dev->ops->sync(dev, g->mix.done, err) != 0)
        return -1;
    sl_gpu_half_rows(g, g->mix.host_in, mix->in, mix->stride, mix->row,
                     mix->n_rows);
    if (dev->ops->copy_up(dev, SL_QUEUE_COMPUTE, g->mix.in, g->mix.host_in,
                          mix->n_rows * stride * sizeof *g->mix.in, err) != 0)
        return -1;
    for (uint32_t i = 0; i < mix->n_parts; i++) {
        if (run_part(g, mix, &mix->parts[i], err) != 0)
            return -1;
    }
    if (dev->ops->copy_down(
            dev, SL_QUEUE_COMPUTE, g->mix.host_out, g->mix.out,
            (uint64_t)mix->n_rows * g->hidden * sizeof *g->mix.out, err) != 0)
        return -1;
    return dev->ops->record(dev, SL_QUEUE_COMPUTE, g->mix.done, err);
}

int sl_gpu_mixed(struct sl_exec_engine *e, const float **out,
                 struct sl_error *err)
{
    struct sl_gpu *g = (struct sl_gpu *)e;

    *out = g->mix.host_out;
    return g->c.device->ops->sync(g->c.device, g->mix.done, err);
}
