#include "config.h"

#include "src/exec/exec_experts.h"
#include "src/exec/exec_gpu_impl.h"

/* Experts that lie on the device: rows go up as FP16, what they give comes down
 * as FP32. The compute queue has nothing else to do then: x is the CPU's. */

void sl_gpu_carve_mix(struct sl_gpu_mix *m, struct sl_carver *c,
                      const struct sl_hparams *hp, uint32_t n)
{
    uint64_t rows;

    if (hp->n_experts == 0)
        return;
    rows = sl_mixture_pairs(hp, n);
    m->in = sl_carve(c, rows * sl_round_up(hp->hidden, 8), sizeof *m->in);
    m->wide =
        sl_carve(c, rows * sl_round_up(hp->expert_inner, 8), sizeof *m->wide);
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
    const struct sl_mix *mix;
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
        uint16_t *to = job->to + i * stride;

        g->c.kernels->f32_to_f16(
            to, job->mix->in + (size_t)job->mix->row[i] * job->mix->stride,
            g->hidden);
        clamp_halves(to, g->hidden);
    }
}

void sl_gpu_half_rows(struct sl_gpu *g, const struct sl_mix *mix, uint16_t *to)
{
    struct convert_job job = {g, mix, to};

    sl_pool_for(g->c.pool, mix->n_rows, 1, convert_rows, &job);
}

/* One of an expert's matrices. */
static int multiply(struct sl_gpu *g, const struct sl_mix *mix,
                    const struct sl_mix_part *p, const uint8_t *record,
                    uint32_t i, struct sl_error *err)
{
    const struct sl_experts *e = g->c.experts;
    const struct sl_model_matrix *first =
        sl_modelfile_expert(e->mf, mix->layer, p->expert);
    struct sl_part part = sl_expert_part(e, first, i);
    size_t in = sl_round_up(g->hidden, 8);
    size_t wide = sl_round_up(e->mf->hp.expert_inner, 8);
    uint16_t *inner = g->mix.wide + p->first * wide;
    struct sl_cuda_matmul mm = {
        .m = &first[i].geom,
        .n_blocks = part.n_blocks,
        .epilogue = i == 0 ? SL_CUDA_EPI_SWIGLU : SL_CUDA_EPI_NONE,
    };

    sl_gpu_set_weights(g, &mm, &part, record);
    if (i == 0)
        return sl_cuda_matmul_run(g->c.cuda, inner, wide, SL_CUDA_F16, &mm,
                                  g->mix.in + p->first * in, in, p->n, err);
    return sl_cuda_matmul_run(
        g->c.cuda, g->mix.out + (size_t)p->first * g->hidden, g->hidden,
        SL_CUDA_F32, &mm, inner, wide, p->n, err);
}

int sl_gpu_run_expert(struct sl_gpu *g, const struct sl_mix *mix,
                      const struct sl_mix_part *p, const uint8_t *record,
                      struct sl_error *err)
{
    if (multiply(g, mix, p, record, 0, err) != 0)
        return -1;
    return multiply(g, mix, p, record, 1, err);
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
    sl_gpu_half_rows(g, mix, g->mix.host_in);
    if (dev->ops->copy_up(dev, SL_QUEUE_COMPUTE, g->mix.in, g->mix.host_in,
                          mix->n_rows * stride * sizeof *g->mix.in, err) != 0)
        return -1;
    for (uint32_t i = 0; i < mix->n_parts; i++) {
        const struct sl_mix_part *p = &mix->parts[i];

        if (sl_gpu_run_expert(g, mix, p,
                              (const uint8_t *)g->c.records +
                                  p->place * g->c.experts->largest,
                              err) != 0)
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
