#include "config.h"

#include <stdlib.h>

#include "src/base/bytes.h"
#include "src/base/mem.h"
#include "src/exec/stages.h"
#include "src/runtime/runtime_impl.h"

/* A device that gives less than it had free is asked for this much less. */
#define SHRINK(bytes) ((bytes) / 8 * 7)
#define MOST_SHRINKS  8u

/* --- the device ---------------------------------------------------------- */

/* What only the CPU computes. */
static int check_cpu_only(const struct sl_runtime *rt, struct sl_error *err)
{
    if (rt->lora != NULL)
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "--lora: adapters are applied by the CPU alone: leave "
                       "the GPU out with --device cpu, or merge them with "
                       "'sluice convert --lora'");
    if (rt->mf.compressed != NULL)
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "%s has compressed stages, which are decompressed for "
                       "the CPU alone: convert again with --compress none for "
                       "a GPU",
                       rt->mf.path);
    if (!sl_stages_device_attends(&rt->mf.hp) &&
        rt->config.engine == SL_ENGINE_RULE_GPU)
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "%s attends to latents of %u values, which the CPU "
                       "alone does: leave --engine gpu out, and the GPU has "
                       "the rest",
                       rt->mf.path, rt->mf.hp.kv_lora);
    if (rt->experts.n_records > 0 && rt->config.engine == SL_ENGINE_RULE_GPU)
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "%s is a mixture of experts, which the CPU computes "
                       "where they lie: leave --engine gpu out, and the GPU "
                       "has the rest",
                       rt->mf.path);
    return 0;
}

static bool wants_gpu(const struct sl_runtime_config *c)
{
    return c->device != SL_DEVICE_CPU && c->engine != SL_ENGINE_RULE_CPU;
}

/* The kernels' handles are the device's, and go first. */
static void close_device(struct sl_runtime *rt)
{
    sl_gpu_unload(rt->cuda);
    rt->cuda = NULL;
    sl_device_close(rt->device);
    rt->device = NULL;
}

/* A run goes on without its device; err says why. */
void sl_runtime_drop_device(struct sl_runtime *rt, const struct sl_error *why)
{
    close_device(rt);
    rt->has_gpu = false;
    rt->no_device = *why;
    sl_runtime_measure_memory(rt); /* what its libraries had is the run's */
}

/* --- opening it ----------------------------------------------------------- */

/* Kernels are loaded before memory is looked at: the driver takes VRAM for
 * them, and RAM. */
static int prepare(struct sl_runtime *rt, int ordinal, struct sl_error *err)
{
    if (check_cpu_only(rt, err) != 0)
        return -1;
    if (sl_device_open_cuda(&rt->device, ordinal, rt->config.contexts, err) !=
        0)
        return -1;
    if (sl_gpu_load(&rt->cuda, rt->device, rt->config.log, err) != 0)
        return -1;
    if (rt->config.rates != NULL) {
        rt->rates = *rt->config.rates;
        rt->rates_known = true;
    } else if (sl_runtime_measure_device(rt, err) != 0) {
        return -1;
    }
    /* Before anything is counted: libraries have taken RAM and VRAM. */
    if (rt->device->ops->look(rt->device, err) != 0)
        return -1;
    rt->gpu = rt->device->info;
    rt->has_gpu = true;
    return 0;
}

int sl_runtime_open_device(struct sl_runtime *rt, struct sl_error *err)
{
    const struct sl_runtime_config *c = &rt->config;
    int ordinal =
        c->device == SL_DEVICE_CUDA ? c->device_ordinal : SL_DEVICE_BEST;
    struct sl_error why;

    if (!wants_gpu(c)) {
        if (!sl_runtime_must_have_gpu(c))
            return 0;
        return sl_fail(err, SL_ERR_USAGE,
                       "a GPU is asked for (--device cuda or --engine gpu), "
                       "and refused (--device cpu or --engine cpu)");
    }
    /* It must be asked for. */
    if (sl_gpu_is_simulated() && !sl_runtime_must_have_gpu(c)) {
        sl_fail(&rt->no_device, SL_OK,
                "GPUs are simulated here, and used with --device cuda only");
        return 0;
    }
    if (prepare(rt, ordinal, &why) == 0)
        return 0;
    if (sl_runtime_must_have_gpu(c)) {
        *err = why;
        return -1;
    }
    sl_runtime_drop_device(rt, &why);
    return 0;
}

/* --- what the planner must know ------------------------------------------ */

int sl_runtime_add_gpu(struct sl_runtime *rt, struct sl_plan_input *in,
                       const struct sl_partition *partition,
                       struct sl_plan_stage **stages, struct sl_error *err)
{
    const struct sl_workload *w = &rt->load;
    uint32_t sequences = w->n_sequences * w->n_texts;

    if (rt->device == NULL)
        return 0;
    if (sl_stages_make(stages, &in->n_stages, &rt->mf, partition,
                       &rt->kv_config, err) != 0)
        return -1;
    in->stages = *stages;
    in->memory_bytes[SL_DEVICE] = rt->vram.budget - sl_runtime_vram_fixed(rt) -
                                  sl_experts_shared_bytes(&rt->experts);
    in->pass[SL_PHASE_DECODE] = (struct sl_plan_pass){
        .positions = sequences,
        .logits = sequences,
        .keys = rt->kv_config.max_tokens,
    };
    in->pass[SL_PHASE_PREFILL] = (struct sl_plan_pass){
        .positions = w->pass_positions,
        .logits = w->n_texts,
        .keys = w->pass_positions / w->n_texts,
    };
    in->x_bytes = (uint64_t)rt->mf.hp.hidden * sizeof(float);
    in->turn_bytes = sl_runtime_turn_bytes(rt);
    in->rates = rt->rates;
    in->engine = rt->config.engine;
    return 0;
}

bool sl_runtime_floor_gpu(struct sl_floor *floor, double *expected_s,
                          const struct sl_runtime *rt,
                          const struct sl_rates *rates,
                          struct sl_plan_pass pass)
{
    enum sl_phase phase =
        pass.positions > pass.logits && pass.positions >= rt->plan.prefill_from
            ? SL_PHASE_PREFILL
            : SL_PHASE_DECODE;
    struct sl_kv_config kv = rt->kv_config;
    struct sl_plan_stage *stages;
    struct sl_plan_input in = {
        .slabs = rt->partition.slabs,
        .n_slabs = rt->partition.n_slabs,
        .rates = *rates,
        .x_bytes = (uint64_t)rt->mf.hp.hidden * sizeof(float),
        .turn_bytes = sl_runtime_turn_bytes(rt),
    };
    struct sl_demand demand;
    struct sl_error ignored;

    kv.elsewhere = NULL;
    if (sl_stages_make(&stages, &in.n_stages, &rt->mf, &rt->partition, &kv,
                       &ignored) != 0)
        return false;
    in.stages = stages;
    demand = sl_plan_demand(&rt->plan, &in, phase, pass);
    *expected_s = sl_plan_seconds(&rt->plan, &in, phase, pass);
    free(stages);
    *floor = sl_floor_of(rates, &demand);
    return true;
}

/* --- the run ------------------------------------------------------------- */

static uint64_t arena_bytes(const struct sl_vram *v)
{
    return v->total - v->context;
}

int sl_runtime_take_vram(struct sl_runtime *rt, struct sl_error *err)
{
    for (unsigned i = 0; rt->device != NULL; i++) {
        struct sl_device *dev = rt->device;
        char had[SL_SIZE_TEXT], now[SL_SIZE_TEXT];
        struct sl_error why;

        if (dev->ops->alloc(dev, &rt->arena, arena_bytes(&rt->vram), &why) == 0)
            return 0;
        if (why.code != SL_ERR_NOMEM || i == MOST_SHRINKS) {
            *err = why;
            return -1;
        }
        sl_size_format(had, rt->vram.total);
        rt->vram.budget = rt->vram.context + SHRINK(arena_bytes(&rt->vram));
        sl_log(rt->config.log, SL_LOG_WARN,
               "%s does not give the %s of VRAM that were planned for: trying "
               "%s",
               dev->info.name, had, sl_size_format(now, rt->vram.budget));
        if (sl_runtime_replan(rt, err) != 0)
            return -1;
    }
    return 0;
}

/* Else the stream has said already that pinning is limited. */
static bool stream_is_pinned(const struct sl_runtime *rt)
{
    struct sl_stream_stats s;

    sl_stream_stats(rt->stream, &s);
    return s.pinned_ring_bytes + s.pinned_resident_bytes >=
           rt->plan.at[SL_HOST].ring_bytes +
               rt->plan.at[SL_HOST].resident_bytes;
}

/* Behind residents and ring, in the arena. */
static uint8_t *records_in_vram(const struct sl_runtime *rt)
{
    return (uint8_t *)rt->arena + rt->plan.at[SL_DEVICE].resident_bytes +
           rt->plan.at[SL_DEVICE].ring_bytes;
}

/* What both engines are made of. */
static struct sl_gpu_config gpu_config(struct sl_runtime *rt)
{
    return (struct sl_gpu_config){
        .partition = &rt->partition,
        .plan = &rt->plan,
        .small = &rt->small,
        .kernels = &rt->kernels,
        .pool = rt->pool,
        .device = rt->device,
        .cuda = rt->cuda,
        .upload = rt->upload,
        .kv = rt->kv,
        .place = sl_runtime_place_staging,
        .place_arg = rt,
        .layer_here = rt->elsewhere,
        .layer_waits = rt->waits,
        .experts = &rt->experts,
        .records = records_in_vram(rt),
    };
}

/* Behind residents, ring and experts, in the arena: what guesses ahead need,
 * then the rest. */
static uint8_t *behind_weights(const struct sl_runtime *rt)
{
    return records_in_vram(rt) + rt->vram.experts;
}

static uint64_t ahead_device_bytes(const struct sl_runtime *rt)
{
    return sl_runtime_gpu_need(rt).activations -
           sl_gpu_need(&rt->shape).activations;
}

int sl_runtime_start_gpu_ahead(struct sl_runtime *rt, struct sl_error *err)
{
    struct sl_gpu_config config;

    if (rt->device == NULL)
        return 0;
    config = gpu_config(rt);
    config.shape = sl_runtime_ahead_shape(rt);
    config.other = rt->engines[SL_DEVICE];
    config.memory = behind_weights(rt);
    return sl_gpu_create(&rt->ahead[SL_DEVICE], &config, err);
}

int sl_runtime_start_gpu(struct sl_runtime *rt, struct sl_error *err)
{
    struct sl_upload_config upload = {
        .dev = rt->device,
        .stream = rt->stream,
        .slabs = rt->partition.slabs,
        .plan = &rt->plan,
        .worker = SL_DEVICE,
        .residents = rt->arena,
        .trace = rt->trace,
    };
    struct sl_gpu_config config;
    struct sl_gpu_need need;

    if (rt->device == NULL)
        return 0;
    upload.ring = (uint8_t *)rt->arena + rt->plan.at[SL_DEVICE].resident_bytes;
    if (sl_upload_open(&rt->upload, &upload, err) != 0)
        return -1;
    config = gpu_config(rt);
    config.trace = rt->trace;
    config.shape = rt->shape;
    if (stream_is_pinned(rt))
        config.log = rt->config.log;
    config.memory = behind_weights(rt) + ahead_device_bytes(rt);
    need = sl_runtime_gpu_need(rt);
    config.workspace_bytes =
        arena_bytes(&rt->vram) - rt->plan.at[SL_DEVICE].resident_bytes -
        rt->plan.at[SL_DEVICE].ring_bytes - rt->vram.experts - need.small -
        need.activations - need.kv;
    if (sl_gpu_create(&rt->engines[SL_DEVICE], &config, err) != 0)
        return -1;
    rt->experts.device = rt->engines[SL_DEVICE];
    if (rt->shape.loan_bytes > 0)
        sl_experts_lend(&rt->experts, rt->device, &rt->rates, config.log);
    return sl_experts_load(&rt->experts, rt->device, records_in_vram(rt), err);
}

void sl_runtime_end_gpu(struct sl_runtime *rt)
{
    if (rt->device != NULL) {
        rt->device->ops->free(rt->device, rt->arena);
        rt->arena = NULL;
        close_device(rt);
    }
    rt->kv_config.elsewhere = NULL;
    free(rt->elsewhere);
    free(rt->waits);
    rt->elsewhere = rt->waits = NULL;
}

/* --- queries ------------------------------------------------------------- */

const struct sl_device_info *sl_runtime_device(const struct sl_runtime *rt,
                                               const char **why)
{
    if (why != NULL)
        *why = rt->no_device.msg;
    return rt->has_gpu ? &rt->gpu : NULL;
}

const struct sl_vram *sl_runtime_vram(const struct sl_runtime *rt)
{
    return &rt->vram;
}

const struct sl_rates *sl_runtime_rates(const struct sl_runtime *rt)
{
    return &rt->rates;
}
