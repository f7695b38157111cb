#include "config.h"

#include "offload/plan_impl.h"

uint64_t sl_plan_stage_bytes(const struct sl_plan_input *in,
                             const struct sl_plan_stage *s)
{
    uint64_t n = 0;

    for (size_t i = 0; i < s->n_slabs; i++)
        n += sl_slab_load_bytes(&in->slabs[s->first_slab + i]);
    return n;
}

/* One stage's part; bytes: of its weights. */
static void add_stage(struct sl_demand *d, const struct sl_plan_stage *s,
                      double bytes, bool gpu, struct sl_plan_pass pass)
{
    double rows = s->head ? pass.logits : pass.positions;
    double ops = rows * (s->ops + s->key_ops * pass.keys);
    /* A sequence's cache is read once for all its positions. */
    double keys = (double)pass.keys * pass.logits;

    if (gpu) {
        d->gpu_bytes += bytes;
        d->gpu_kv_bytes += keys * s->key_bytes[SL_ENGINE_GPU];
        d->gpu_ops += ops;
        d->gpu_stages++;
    } else {
        d->cpu_bytes += bytes;
        d->cpu_kv_bytes += keys * s->key_bytes[SL_ENGINE_CPU];
        d->cpu_ops += ops;
    }
}

static void add_crossing(struct sl_demand *d, const struct sl_plan_input *in,
                         struct sl_plan_pass pass)
{
    d->crossings++;
    d->crossing_bytes += pass.positions * (double)in->x_bytes;
}

struct sl_demand sl_demand_of_division(const struct sl_division *v,
                                       struct sl_plan_pass pass)
{
    const struct sl_plan_input *in = v->in;
    struct sl_demand d = {
        .disk_bytes = (double)v->disk_bytes,
        .copy_bytes = (double)v->disk_bytes + (double)v->copied_bytes,
    };

    for (size_t i = 0; i < in->n_stages; i++) {
        add_stage(&d, &in->stages[i], (double)v->stage_bytes[i], !v->cpu[i],
                  pass);
        if (i > 0 && v->cpu[i] != v->cpu[i - 1])
            add_crossing(&d, in, pass);
    }
    return d;
}

/* What must come from beside VRAM, by home. */
static void add_moves(struct sl_demand *d, const struct sl_plan *plan,
                      const struct sl_plan_input *in,
                      const struct sl_plan_stage *s, bool gpu)
{
    for (size_t i = s->first_slab; i < s->first_slab + s->n_slabs; i++) {
        double bytes = (double)sl_slab_load_bytes(&in->slabs[i]);

        if (plan->home[i] == SL_HOME_DISK)
            d->disk_bytes += bytes;
        if (gpu && plan->home[i] != SL_HOME_VRAM)
            d->copy_bytes += bytes;
    }
}

struct sl_demand sl_plan_demand(const struct sl_plan *plan,
                                const struct sl_plan_input *in,
                                enum sl_phase phase, struct sl_plan_pass pass)
{
    const uint8_t *engine = plan->engine[phase];
    struct sl_demand d = {0};

    for (size_t i = 0; i < in->n_stages; i++) {
        const struct sl_plan_stage *s = &in->stages[i];
        bool gpu = engine[s->first_slab] == SL_ENGINE_GPU;

        add_stage(&d, s, (double)sl_plan_stage_bytes(in, s), gpu, pass);
        add_moves(&d, plan, in, s, gpu);
        if (i > 0 && engine[s->first_slab] != engine[s->first_slab - 1])
            add_crossing(&d, in, pass);
    }
    return d;
}

double sl_plan_seconds(const struct sl_plan *plan,
                       const struct sl_plan_input *in, enum sl_phase phase)
{
    struct sl_demand d = sl_plan_demand(plan, in, phase, in->pass[phase]);

    return sl_cost_seconds(&in->rates, &d);
}
