#include "config.h"

#include "src/exec/exec_experts.h"
#include "src/sim/sim_mixer.h"

int sl_sim_mixer_init(struct sl_sim_mixer *m, struct sl_device *dev,
                      const struct sl_sim_machine *machine,
                      const struct sl_sim_mixture *mixture,
                      struct sl_error *err)
{
    const struct sl_device_ops *ops = dev->ops;

    *m = (struct sl_sim_mixer){
        .dev = dev,
        .machine = machine,
        .mixture = mixture,
    };
    if (ops->event_create(dev, &m->mixed, false, err) != 0)
        return -1;
    for (size_t i = 0; i < SL_LENT; i++) {
        if (ops->event_create(dev, &m->up[i], false, err) != 0 ||
            ops->event_create(dev, &m->lent[i], false, err) != 0)
            return -1;
    }
    return 0;
}

void sl_sim_mixer_fini(struct sl_sim_mixer *m)
{
    if (m->dev == NULL)
        return;
    m->dev->ops->event_destroy(m->dev, m->mixed);
    for (size_t i = 0; i < SL_LENT; i++) {
        m->dev->ops->event_destroy(m->dev, m->up[i]);
        m->dev->ops->event_destroy(m->dev, m->lent[i]);
    }
}

/* Rows go up as FP16, what they give comes down as FP32; before the products
 * the queue waits for what is copied beside. */
static int compute(struct sl_sim_mixer *m, uint32_t n_rows, double bytes,
                   double ops, struct sl_event *up, struct sl_event *done,
                   struct sl_error *err)
{
    uint64_t values = (uint64_t)n_rows * m->mixture->experts->mf->hp.hidden;
    const struct sl_device_ops *dev = m->dev->ops;

    if (dev->copy_up(m->dev, SL_QUEUE_COMPUTE, NULL, NULL, values * 2, err) !=
        0)
        return -1;
    if (up != NULL && dev->queue_wait(m->dev, SL_QUEUE_COMPUTE, up, err) != 0)
        return -1;
    if (sl_device_model_launch(m->dev, bytes, ops,
                               m->machine->spec.rates.worker[SL_DEVICE].stage_s,
                               err) != 0 ||
        dev->copy_down(m->dev, SL_QUEUE_COMPUTE, NULL, NULL, values * 4, err) !=
            0)
        return -1;
    return dev->record(m->dev, SL_QUEUE_COMPUTE, done, err);
}

/* Of a row. */
static double ops_of(const struct sl_model_matrix *const m[2])
{
    return 2.0 * m[0]->geom.rows * m[0]->geom.cols +
           2.0 * m[1]->geom.rows * m[1]->geom.cols;
}

int sl_sim_mixer_mix(struct sl_sim_mixer *m, const struct sl_mix *mix,
                     struct sl_error *err)
{
    double bytes = 0, ops = 0;

    for (uint32_t i = 0; i < mix->n_parts; i++) {
        const struct sl_model_matrix *of[2];
        struct sl_part ignored[2];

        sl_expert_matrices(m->mixture->experts, mix->layer,
                           mix->parts[i].expert, of, ignored);
        bytes += (double)(of[0]->bytes + of[0]->scale_bytes + of[1]->bytes +
                          of[1]->scale_bytes);
        ops += ops_of(of) * mix->parts[i].n;
    }
    return compute(m, mix->n_rows, bytes, ops, NULL, m->mixed, err);
}

int sl_sim_mixer_mixed(struct sl_sim_mixer *m, struct sl_error *err)
{
    return m->dev->ops->sync(m->dev, m->mixed, err);
}

int sl_sim_mixer_lend(struct sl_sim_mixer *m, const struct sl_loan *loan,
                      struct sl_error *err)
{
    uint32_t i = m->n_lent++ % SL_LENT;

    if (m->dev->ops->copy_up(m->dev, SL_QUEUE_UP, NULL, NULL, loan->bytes,
                             err) != 0 ||
        m->dev->ops->record(m->dev, SL_QUEUE_UP, m->up[i], err) != 0)
        return -1;
    return compute(m, loan->n_rows, (double)loan->bytes,
                   ops_of(loan->m) * loan->n_rows, m->up[i], m->lent[i], err);
}

int sl_sim_mixer_lent(struct sl_sim_mixer *m, struct sl_error *err)
{
    return m->dev->ops->sync(m->dev, m->lent[m->n_taken++ % SL_LENT], err);
}
