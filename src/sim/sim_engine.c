#include "config.h"

#include <stdlib.h>

#include "src/base/mem.h"
#include "src/exec/kv_turns.h"
#include "src/exec/stages.h"
#include "src/sim/sim_engine.h"
#include "src/sim/sim_mixer.h"

/* What a slab asks of its engine. */
struct slab_cost {
    double bytes;
    double ops;        /* of a row */
    double wide_bytes; /* of its weights as FP16 (offload/cost.h) */
    const struct sl_plan_stage *stage;
    bool attends; /* attention comes before its first product */
    bool begins;  /* it is the first of its stage */
    /* of a mixture: its router is done with here, and this part of the bytes
     * and operations with that; its experts come behind this slab */
    bool routes, mixes;
    double router_bytes, router_ops;
    const struct sl_model_matrix *shared[2]; /* both, whole, or NULL */
    uint32_t layer;
};

/* Of caches that wait in RAM (exec/kv_turns.h): turns of all of their layers,
 * as they are cut in this pass. */
struct sim_turns {
    struct sl_event *up[SL_KV_TURN_BUFFERS], *used[SL_KV_TURN_BUFFERS];
    uint32_t n_layers, of_layer; /* turns of each */
    uint32_t asked, taken;
    uint64_t bytes; /* copied for a turn */
};

struct sim_engine {
    struct sl_exec_engine engine;
    struct sl_sim_config c;
    struct slab_cost *costs; /* (n_slabs) */
    size_t head_slab;        /* the first of the head */
    const struct sl_pass *pass;
    double keys, key_pairs; /* cached positions; of all positions, together */
    /* The GPU's: */
    struct sl_event *done;
    struct sl_sim_mixer mixer;
    struct sim_turns turns;
    struct sl_event **marks; /* (2 * n_slabs) around each one's kernels; NULL
                                without a trace */
};

/* --- what both know ------------------------------------------------------- */

static void cost_slab(struct slab_cost *cost, const struct sl_modelfile *mf,
                      const struct sl_partition *partition, size_t slab)
{
    cost->bytes = (double)sl_slab_load_bytes(&partition->slabs[slab]);
    for (uint32_t i = partition->first_part[slab];
         i < partition->first_part[slab + 1]; i++) {
        const struct sl_part *p = &partition->parts[i];
        const struct sl_model_matrix *m = &mf->matrices[p->matrix];
        const struct sl_matrix *g = &m->geom;
        double share =
            (double)p->n_blocks / (double)sl_matrix_segment_blocks(g);

        if (p->of == SL_PART_LOW) /* the same products again */
            continue;
        cost->ops += 2.0 * g->rows * g->cols * share;
        cost->wide_bytes += sl_stage_wide_bytes(g) * share;
        cost->layer = m->spec.layer;
        if (m->spec.slot == SL_SLOT_ROUTER) {
            cost->routes |=
                p->first_block + p->n_blocks == sl_matrix_segment_blocks(g);
            cost->router_ops += 2.0 * g->rows * g->cols * share;
            cost->router_bytes += (double)m->bytes * share;
        }
        if (m->spec.slot == SL_SLOT_SHARED_IN && share == 1)
            cost->shared[0] = m;
        if (m->spec.slot == SL_SLOT_SHARED_OUT && share == 1)
            cost->shared[1] = m;
        cost->attends |=
            m->spec.slot == SL_SLOT_ATTN_OUT && p->first_block == 0;
    }
}

static int create(struct sim_engine **out, const struct sl_sim_config *c,
                  const struct sl_engine_ops *ops, struct sl_error *err)
{
    struct sim_engine *e = calloc(1, sizeof *e);

    if (e != NULL)
        e->costs = sl_zalloc_array(c->partition->n_slabs, sizeof *e->costs);
    if (e == NULL || e->costs == NULL) {
        free(e);
        return sl_fail(err, SL_ERR_NOMEM, "no memory for the model of a run");
    }
    e->engine.ops = ops;
    e->c = *c;
    for (size_t i = 0; i < c->n_stages; i++) {
        const struct sl_plan_stage *s = &c->stages[i];
        bool routed = false;

        for (size_t j = 0; j < s->n_slabs; j++) {
            struct slab_cost *cost = &e->costs[s->first_slab + j];

            cost_slab(cost, c->mf, c->partition, s->first_slab + j);
            cost->stage = s;
            cost->begins = j == 0;
            routed |= cost->routes;
            cost->mixes = routed && j + 1 == s->n_slabs;
        }
    }
    *out = e;
    return 0;
}

static void model_destroy(struct sl_exec_engine *engine)
{
    struct sim_engine *e = (struct sim_engine *)engine;

    if (e == NULL)
        return;
    if (e->done != NULL)
        e->c.dev->ops->event_destroy(e->c.dev, e->done);
    sl_sim_mixer_fini(&e->mixer);
    for (size_t i = 0; i < SL_KV_TURN_BUFFERS && e->turns.used[i]; i++) {
        e->c.dev->ops->event_destroy(e->c.dev, e->turns.up[i]);
        e->c.dev->ops->event_destroy(e->c.dev, e->turns.used[i]);
    }
    for (size_t i = 0; e->marks != NULL && i < 2 * e->c.partition->n_slabs; i++)
        e->c.dev->ops->event_destroy(e->c.dev, e->marks[i]);
    free(e->marks);
    free(e->costs);
    free(e);
}

static void take_pass(struct sim_engine *e, const struct sl_pass *pass)
{
    e->pass = pass;
    e->keys = e->key_pairs = 0;
    for (size_t i = 0; i < pass->n_items; i++) {
        const struct sl_pass_item *r = &pass->run[i];

        e->keys += r->base + r->n;
        for (uint32_t j = 0; j < r->n; j++)
            e->key_pairs += pass->n_keys[r->row + j];
    }
}

static double rows(const struct sim_engine *e, const struct slab_cost *cost)
{
    return cost->stage->head ? e->pass->n_rows : e->pass->n;
}

static void trace(const struct sim_engine *e, enum sl_track track, size_t slab,
                  uint64_t begin, uint64_t end)
{
    const struct sl_partition *partition = e->c.partition;
    const struct sl_part *first =
        &partition->parts[partition->first_part[slab]];
    const struct sl_modelfile *mf = e->c.mf;
    char name[SL_STAGE_NAME];

    sl_arch_stage_name(name, &mf->hp,
                       (uint32_t)mf->matrices[first->matrix].spec.stage);
    sl_trace_span(e->c.trace, track, name, begin, end,
                  sl_slab_load_bytes(&partition->slabs[slab]));
}

/* --- the cores ------------------------------------------------------------ */

static int cpu_begin(struct sl_exec_engine *engine, const struct sl_pass *pass,
                     struct sl_error *err)
{
    struct sim_engine *e = (struct sim_engine *)engine;

    take_pass(e, pass);
    return e->c.mixture != NULL
               ? sl_sim_mixture_begin(e->c.mixture, pass->n, err)
               : 0;
}

static int cpu_embed(struct sl_exec_engine *engine, bool *done,
                     struct sl_error *err)
{
    (void)engine, (void)err;
    *done = true;
    return 0;
}

static void take_time(const struct sim_engine *e, double bytes, double ops)
{
    if (e->c.mixture != NULL)
        sl_sim_compute(e->c.mixture, bytes, ops, e->pass->n);
    else
        sl_machine_compute(e->c.machine, bytes, ops);
}

static int compute(const struct sim_engine *e, const struct slab_cost *cost,
                   struct sl_error *err)
{
    const struct sl_plan_stage *s = cost->stage;
    const struct sl_pass *pass = e->pass;
    double n = rows(e, cost);

    if (cost->attends)
        take_time(e, e->keys * s->key_bytes[SL_HOST],
                  e->key_pairs * s->key_ops);
    take_time(e, cost->router_bytes, cost->router_ops * n);
    if (cost->routes &&
        sl_sim_route(e->c.mixture, cost->layer, pass->n, pass->reads, err) != 0)
        return -1;
    if (e->c.mixture != NULL && cost->shared[0] != NULL &&
        cost->shared[1] != NULL && sl_sim_lends_shared(e->c.mixture, pass->n)) {
        if (sl_sim_lend_shared(e->c.mixture, cost->shared, pass->n, err) != 0)
            return -1;
    } else {
        take_time(e, cost->bytes - cost->router_bytes,
                  (cost->ops - cost->router_ops) * n);
    }
    return cost->mixes ? sl_sim_mix(e->c.mixture, cost->layer, pass->n,
                                    pass->reads, err)
                       : 0;
}

static int cpu_run(struct sl_exec_engine *engine, size_t slab,
                   struct sl_error *err)
{
    struct sim_engine *e = (struct sim_engine *)engine;
    struct sl_sim_machine *m = e->c.machine;
    const uint8_t *base;
    uint64_t begin;
    int rc;

    if (sl_stream_get(e->c.stream, slab, &base, err) != 0)
        return -1;
    begin = sl_clock_now(m->clock);
    rc = compute(e, &e->costs[slab], err);
    sl_stream_put(e->c.stream, slab);
    trace(e, SL_TRACK_STAGES, slab, begin, sl_clock_now(m->clock));
    return rc;
}

static bool cpu_ready(const struct sl_exec_engine *engine, size_t slab)
{
    return sl_stream_ready(((const struct sim_engine *)engine)->c.stream, slab);
}

static const struct sl_engine_ops cpu_ops = {
    .name = "model cpu",
    .ready = cpu_ready,
    .begin = cpu_begin,
    .embed = cpu_embed,
    .run = cpu_run,
    .skip = cpu_run,
    .destroy = model_destroy,
};

int sl_sim_cpu_create(struct sl_exec_engine **engine,
                      const struct sl_sim_config *config, struct sl_error *err)
{
    struct sim_engine *e;

    if (create(&e, config, &cpu_ops, err) != 0)
        return -1;
    *engine = &e->engine;
    return 0;
}

/* --- the GPU -------------------------------------------------------------- */

/* Copies as far ahead as there are buffers. */
static int ask_turns(struct sim_engine *e, struct sl_error *err)
{
    struct sim_turns *t = &e->turns;
    struct sl_device *dev = e->c.dev;

    while (t->asked < t->n_layers * t->of_layer &&
           t->asked < t->taken + SL_KV_TURN_BUFFERS) {
        uint32_t b = t->asked++ % SL_KV_TURN_BUFFERS;

        if (dev->ops->queue_wait(dev, SL_QUEUE_KEYS, t->used[b], err) != 0 ||
            dev->ops->copy_up(dev, SL_QUEUE_KEYS, NULL, NULL, t->bytes, err) !=
                0 ||
            dev->ops->record(dev, SL_QUEUE_KEYS, t->up[b], err) != 0)
            return -1;
    }
    return 0;
}

/* A prompt's keys are only made. */
static int begin_turns(struct sim_engine *e, struct sl_error *err)
{
    struct sim_turns *t = &e->turns;
    const struct sl_pass *pass = e->pass;
    double bytes = 0;

    t->n_layers = t->asked = t->taken = 0;
    for (size_t i = 0; i < e->c.partition->n_slabs; i++) {
        if (!e->costs[i].attends || !e->c.plan->waits[i])
            continue;
        t->n_layers++;
        bytes = e->costs[i].stage->key_bytes[SL_DEVICE];
    }
    if (t->n_layers == 0)
        return 0;
    bytes *= pass->phase == SL_PHASE_PREFILL ? 0 : e->keys - pass->n;
    t->of_layer =
        (uint32_t)(bytes * SL_KV_TURN_BUFFERS / (double)e->c.turn_bytes) + 1;
    t->bytes = (uint64_t)(bytes / t->of_layer);
    return ask_turns(e, err);
}

/* One after another, in which the keys come; what the pass adds goes down. */
static int attend_turns(struct sim_engine *e, double bytes, double ops,
                        struct sl_error *err)
{
    struct sim_turns *t = &e->turns;
    struct sl_device *dev = e->c.dev;

    for (uint32_t i = 0; i < t->of_layer; i++) {
        uint32_t b = t->taken++ % SL_KV_TURN_BUFFERS;

        if (dev->ops->queue_wait(dev, SL_QUEUE_COMPUTE, t->up[b], err) != 0 ||
            sl_device_model_launch(dev, bytes / t->of_layer, ops / t->of_layer,
                                   0, err) != 0 ||
            dev->ops->record(dev, SL_QUEUE_COMPUTE, t->used[b], err) != 0 ||
            ask_turns(e, err) != 0)
            return -1;
    }
    return 0;
}

static int gpu_begin(struct sl_exec_engine *engine, const struct sl_pass *pass,
                     struct sl_error *err)
{
    struct sim_engine *e = (struct sim_engine *)engine;

    take_pass(e, pass);
    /* High planes alone are those of the device: nothing is copied. */
    if (!pass->high_only)
        sl_upload_begin(e->c.upload, pass->phase);
    return begin_turns(e, err);
}

static bool gpu_ready(const struct sl_exec_engine *engine, size_t slab)
{
    return sl_upload_ready(((const struct sim_engine *)engine)->c.upload, slab);
}

/* The head is the GPU's, and its rows are taken where they are. */
static int gpu_embed(struct sl_exec_engine *engine, bool *done,
                     struct sl_error *err)
{
    (void)engine, (void)err;
    *done = false;
    return 0;
}

static uint64_t x_bytes(const struct sim_engine *e)
{
    return (uint64_t)e->pass->n * e->c.mf->hp.hidden * sizeof(float);
}

/* Waits for all that was put on a queue. */
static int settle(struct sim_engine *e, enum sl_queue queue,
                  struct sl_error *err)
{
    const struct sl_device_ops *ops = e->c.dev->ops;

    if (ops->record(e->c.dev, queue, e->done, err) != 0)
        return -1;
    return ops->sync(e->c.dev, e->done, err);
}

static int gpu_load(struct sl_exec_engine *engine, struct sl_error *err)
{
    struct sim_engine *e = (struct sim_engine *)engine;

    return e->c.dev->ops->copy_up(e->c.dev, SL_QUEUE_COMPUTE, NULL, NULL,
                                  x_bytes(e), err);
}

static int gpu_store(struct sl_exec_engine *engine, struct sl_error *err)
{
    struct sim_engine *e = (struct sim_engine *)engine;

    if (e->c.dev->ops->copy_down(e->c.dev, SL_QUEUE_COMPUTE, NULL, NULL,
                                 x_bytes(e), err) != 0)
        return -1;
    return settle(e, SL_QUEUE_COMPUTE, err);
}

/* Attention reads the cache where it lies; what was computed for a layer whose
   cache is the CPU's goes there. */
static int attend(struct sim_engine *e, size_t slab,
                  const struct slab_cost *cost, struct sl_error *err)
{
    const struct sl_plan_stage *s = cost->stage;
    double key_bytes = s->key_bytes[SL_DEVICE];
    struct sl_device *dev = e->c.dev;

    if ((e->c.plan->worker[SL_PHASE_DECODE][slab] == SL_HOST ||
         e->c.plan->waits[slab]) &&
        dev->ops->copy_down(dev, SL_QUEUE_DOWN, NULL, NULL,
                            (uint64_t)(e->pass->n * key_bytes), err) != 0)
        return -1;
    if (e->c.plan->waits[slab])
        return attend_turns(e, e->keys * key_bytes, e->key_pairs * s->key_ops,
                            err);
    return sl_device_model_launch(dev, e->keys * key_bytes,
                                  e->key_pairs * s->key_ops, 0, err);
}

static int mark(struct sim_engine *e, size_t i, struct sl_error *err)
{
    if (e->marks == NULL)
        return 0;
    return e->c.dev->ops->record(e->c.dev, SL_QUEUE_COMPUTE, e->marks[i], err);
}

/* A slab's products, on the compute queue. */
static int multiply(struct sim_engine *e, const struct slab_cost *cost,
                    struct sl_error *err)
{
    const struct sl_worker *w = &e->c.machine->spec.rates.worker[SL_DEVICE];
    struct sl_worker_demand d = {0};
    struct sl_products products = {
        .bytes = cost->bytes,
        .wide_bytes = cost->wide_bytes,
        .ops = cost->ops,
        .rows = rows(e, cost),
    };

    sl_cost_add_products(&d, w, &products);
    return sl_device_model_launch(
        e->c.dev, d.bytes, d.ops,
        d.unpack_bytes / w->memory_bps + (cost->begins ? w->stage_s : 0), err);
}

static int gpu_run(struct sl_exec_engine *engine, size_t slab,
                   struct sl_error *err)
{
    struct sim_engine *e = (struct sim_engine *)engine;
    const struct slab_cost *cost = &e->costs[slab];
    const void *base;

    if (sl_upload_get(e->c.upload, slab, &base, err) != 0 ||
        mark(e, 2 * slab, err) != 0)
        return -1;
    if (cost->attends && attend(e, slab, cost, err) != 0)
        return -1;
    if (multiply(e, cost, err) != 0 || mark(e, 2 * slab + 1, err) != 0)
        return -1;
    return sl_upload_put(e->c.upload, slab, err);
}

static int gpu_mix(struct sl_exec_engine *engine, const struct sl_mix *mix,
                   struct sl_error *err)
{
    return sl_sim_mixer_mix(&((struct sim_engine *)engine)->mixer, mix, err);
}

static int gpu_mixed(struct sl_exec_engine *engine, const float **out,
                     struct sl_error *err)
{
    *out = NULL;
    return sl_sim_mixer_mixed(&((struct sim_engine *)engine)->mixer, err);
}

static int gpu_lend(struct sl_exec_engine *engine, const struct sl_loan *loan,
                    struct sl_error *err)
{
    return sl_sim_mixer_lend(&((struct sim_engine *)engine)->mixer, loan, err);
}

static int gpu_lent(struct sl_exec_engine *engine, const float **out,
                    struct sl_error *err)
{
    *out = NULL;
    return sl_sim_mixer_lent(&((struct sim_engine *)engine)->mixer, err);
}

/* What the queue did, now that it is done. */
static int trace_pass(struct sim_engine *e, struct sl_error *err)
{
    const uint8_t *engines = e->c.plan->worker[e->pass->phase];
    uint64_t begin, length;

    for (size_t slab = 0; slab < e->c.partition->n_slabs && e->marks != NULL;
         slab++) {
        if (engines[slab] != SL_DEVICE ||
            (e->pass->high_only &&
             sl_partition_of(e->c.partition, slab) == SL_PART_LOW))
            continue;
        if (e->c.dev->ops->span(e->c.dev, e->marks[2 * slab],
                                e->marks[2 * slab + 1], &begin, &length,
                                err) != 0)
            return -1;
        trace(e, SL_TRACK_KERNELS, slab, begin, begin + length);
    }
    return 0;
}

/* The logits come down, if they are here; so do keys and values. */
static int gpu_end(struct sl_exec_engine *engine, struct sl_error *err)
{
    struct sim_engine *e = (struct sim_engine *)engine;
    const uint8_t *engines = e->c.plan->worker[e->pass->phase];
    size_t last = e->c.partition->n_slabs - 1;

    if (engines[last] == SL_DEVICE &&
        e->c.dev->ops->copy_down(e->c.dev, SL_QUEUE_COMPUTE, NULL, NULL,
                                 (uint64_t)e->pass->n_rows * e->c.mf->hp.vocab *
                                     sizeof(float),
                                 err) != 0)
        return -1;
    if (settle(e, SL_QUEUE_COMPUTE, err) != 0 ||
        settle(e, SL_QUEUE_DOWN, err) != 0)
        return -1;
    return trace_pass(e, err);
}

static const struct sl_engine_ops gpu_ops = {
    .name = "model gpu",
    .ready = gpu_ready,
    .begin = gpu_begin,
    .embed = gpu_embed,
    .load = gpu_load,
    .store = gpu_store,
    .run = gpu_run,
    .skip = gpu_run,
    .end = gpu_end,
    .mix = gpu_mix,
    .mixed = gpu_mixed,
    .lend = gpu_lend,
    .lent = gpu_lent,
    .destroy = model_destroy,
};

static int create_events(struct sim_engine *e, struct sl_error *err)
{
    const struct sl_device_ops *ops = e->c.dev->ops;
    size_t n = 2 * e->c.partition->n_slabs;

    if (ops->event_create(e->c.dev, &e->done, false, err) != 0 ||
        sl_sim_mixer_init(&e->mixer, e->c.dev, e->c.machine, e->c.mixture,
                          err) != 0)
        return -1;
    for (size_t i = 0; i < SL_KV_TURN_BUFFERS; i++) {
        if (ops->event_create(e->c.dev, &e->turns.up[i], false, err) != 0 ||
            ops->event_create(e->c.dev, &e->turns.used[i], false, err) != 0)
            return -1;
    }
    if (e->c.trace == NULL)
        return 0;
    e->marks = sl_zalloc_array(n, sizeof *e->marks);
    if (e->marks == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory to trace a pass");
    for (size_t i = 0; i < n; i++) {
        if (ops->event_create(e->c.dev, &e->marks[i], true, err) != 0)
            return -1;
    }
    return 0;
}

int sl_sim_gpu_create(struct sl_exec_engine **engine,
                      const struct sl_sim_config *config, struct sl_error *err)
{
    struct sim_engine *e;

    if (create(&e, config, &gpu_ops, err) != 0)
        return -1;
    if (create_events(e, err) != 0) {
        model_destroy(&e->engine);
        return -1;
    }
    *engine = &e->engine;
    return 0;
}
