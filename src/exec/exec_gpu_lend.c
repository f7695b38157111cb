#include "config.h"

#include "src/exec/exec_experts.h"
#include "src/exec/exec_gpu_impl.h"

/* Experts of a long prompt that lie in RAM: one is copied beside what the
 * device computes of the one before.
 *
 *   UP       -- expert 0 -- expert 1 ---------- expert 2 --
 *   COMPUTE  -------------- rows, products 0 -- rows, products 1 --
 */

static bool lends(const struct sl_gpu_shape *s)
{
    return s->loan_bytes > 0 && s->pass_positions > SL_SMALL_PASS && !s->beside;
}

void sl_gpu_carve_lend(struct sl_gpu_lend *l, struct sl_carver *c,
                       const struct sl_gpu_shape *s)
{
    for (uint32_t i = 0; lends(s) && i < SL_LENT; i++) {
        c->used = sl_round_up(c->used, 256);
        l->of[i].record = sl_carve(c, s->loan_bytes, 1);
    }
}

void sl_gpu_carve_lend_host(struct sl_gpu_lend *l, struct sl_carver *c,
                            const struct sl_gpu_shape *s)
{
    const struct sl_hparams *hp = &s->mf->hp;
    uint64_t n = s->pass_positions;

    for (uint32_t i = 0; lends(s) && i < SL_LENT; i++) {
        struct sl_gpu_lent *of = &l->of[i];

        of->host_in =
            sl_carve(c, n * sl_round_up(hp->hidden, 8), sizeof *of->host_in);
        of->host_out = sl_carve(c, n * hp->hidden, sizeof *of->host_out);
    }
}

int sl_gpu_lend_events(struct sl_gpu *g, struct sl_error *err)
{
    struct sl_device *dev = g->c.device;

    for (uint32_t i = 0; lends(&g->c.shape) && i < SL_LENT; i++) {
        struct sl_gpu_lent *of = &g->lend.of[i];

        if (dev->ops->event_create(dev, &of->up, false, err) != 0 ||
            dev->ops->event_create(dev, &of->done, false, err) != 0)
            return -1;
    }
    return 0;
}

void sl_gpu_lend_destroy(struct sl_gpu *g)
{
    for (uint32_t i = 0; i < SL_LENT; i++) {
        g->c.device->ops->event_destroy(g->c.device, g->lend.of[i].up);
        g->c.device->ops->event_destroy(g->c.device, g->lend.of[i].done);
    }
}

int sl_gpu_lend(struct sl_exec_engine *e, const struct sl_loan *loan,
                struct sl_error *err)
{
    struct sl_gpu *g = (struct sl_gpu *)e;
    struct sl_device *dev = g->c.device;
    struct sl_gpu_lent *of = &g->lend.of[g->lend.begun++ % SL_LENT];
    size_t stride = sl_round_up(g->hidden, 8);
    struct sl_loan there = *loan;

    there.base = of->record;
    if (dev->ops->copy_up(dev, SL_QUEUE_UP, of->record, loan->base, loan->bytes,
                          err) != 0 ||
        dev->ops->record(dev, SL_QUEUE_UP, of->up, err) != 0)
        return -1;
    sl_gpu_half_rows(g, of->host_in, loan->in, loan->stride, loan->row,
                     loan->n_rows);
    if (dev->ops->copy_up(dev, SL_QUEUE_COMPUTE, g->mix.in, of->host_in,
                          loan->n_rows * stride * sizeof *g->mix.in,
                          err) != 0 ||
        dev->ops->queue_wait(dev, SL_QUEUE_COMPUTE, of->up, err) != 0 ||
        sl_gpu_run_expert(g, &there, 0, err) != 0 ||
        dev->ops->copy_down(
            dev, SL_QUEUE_COMPUTE, of->host_out, g->mix.out,
            (uint64_t)loan->n_rows * g->hidden * sizeof *g->mix.out, err) != 0)
        return -1;
    return dev->ops->record(dev, SL_QUEUE_COMPUTE, of->done, err);
}

/* Of one that failed only the copy may be under way. */
int sl_gpu_lent(struct sl_exec_engine *e, const float **out,
                struct sl_error *err)
{
    struct sl_gpu *g = (struct sl_gpu *)e;
    struct sl_device *dev = g->c.device;
    struct sl_gpu_lent *of = &g->lend.of[g->lend.taken++ % SL_LENT];

    *out = of->host_out;
    if (dev->ops->sync(dev, of->up, err) != 0)
        return -1;
    return dev->ops->sync(dev, of->done, err);
}
