#include "config.h"

#include "offload/plan.h"

static uint64_t load_bytes(const struct sl_plan_input *in,
                           const struct sl_plan_stage *s)
{
    uint64_t n = 0;

    for (size_t i = 0; i < s->n_slabs; i++)
        n += sl_slab_load_bytes(&in->slabs[s->first_slab + i]);
    return n;
}

/* What must come from beside VRAM, by home. */
static void add_moves(struct sl_demand *w, const struct sl_plan *plan,
                      const struct sl_plan_input *in,
                      const struct sl_plan_stage *s, bool gpu)
{
    for (size_t i = s->first_slab; i < s->first_slab + s->n_slabs; i++) {
        double bytes = (double)sl_slab_load_bytes(&in->slabs[i]);

        if (plan->home[i] == SL_HOME_DISK)
            w->disk_bytes += bytes;
        if (gpu && plan->home[i] != SL_HOME_VRAM)
            w->copy_bytes += bytes;
    }
}

struct sl_demand sl_plan_demand(const struct sl_plan *plan,
                                const struct sl_plan_input *in,
                                enum sl_phase phase, struct sl_plan_pass pass)
{
    struct sl_demand w = {0};
    bool was_gpu = false;

    for (size_t i = 0; i < in->n_stages; i++) {
        const struct sl_plan_stage *s = &in->stages[i];
        bool gpu = plan->engine[phase][s->first_slab] == SL_ENGINE_GPU;
        double rows = s->head ? pass.logits : pass.positions;
        double bytes = (double)load_bytes(in, s);

        add_moves(&w, plan, in, s, gpu);
        if (gpu) {
            w.gpu_bytes += bytes + (double)s->kv_device_bytes;
            w.gpu_ops += rows * s->ops;
            w.gpu_stages++;
        } else {
            w.cpu_bytes += bytes + (double)s->kv_host_bytes;
            w.cpu_ops += rows * s->ops;
        }
        if (i > 0 && gpu != was_gpu) {
            w.crossings++;
            w.crossing_bytes += pass.positions * (double)in->x_bytes;
        }
        was_gpu = gpu;
    }
    return w;
}
