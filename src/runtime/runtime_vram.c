#include "config.h"

#include <stdlib.h>

#include "src/base/bytes.h"
#include "src/base/mem.h"
#include "src/exec/kv_turns.h"
#include "src/exec/stages.h"
#include "src/runtime/runtime_impl.h"

/* Part of a budget that is left to the driver: it loads kernels, and memory
 * for them, when they are first used. */
#define DRIVER_SHARE 64u
#define LEAST_STEP   (256ull << 10)

/* --- budget -------------------------------------------------------------- */

static void choose_vram_budget(struct sl_runtime *rt)
{
    const struct sl_device_info *info = &rt->device->info;
    struct sl_vram *v = &rt->vram;
    uint64_t margin = info->vram_free / 16;

    if (v->budget != 0) /* an allocation failed, and it was made smaller */
        return;
    v->budget = rt->config.vram_bytes;
    if (v->budget != SL_VRAM_AUTO)
        return;
    /* Leave the desktop its windows. */
    if (margin < 256ull << 20)
        margin = 256ull << 20;
    if (margin > info->vram_free / 2)
        margin = info->vram_free / 2;
    v->budget = info->vram_free - margin;
    if (rt->config.vram_parts > 1)
        v->budget /= rt->config.vram_parts;
    v->budget += info->context_bytes;
}

/* In FP16 whatever the CPU's cache is in: that is what the GPU's kernels read.
 */
static uint64_t kv_layer_bytes(const struct sl_runtime *rt)
{
    return (rt->kv_config.one_plane ? 1ull : 2ull) * rt->kv_config.n_pages *
           sl_kv_plane_bytes(&rt->kv_config, SL_KV_F16);
}

/* Of all layers whose attention it can compute. */
static uint64_t kv_bytes_most(const struct sl_runtime *rt)
{
    return sl_stages_device_attends(&rt->mf.hp)
               ? rt->mf.hp.n_layers * kv_layer_bytes(rt)
               : 0;
}

/* Keys and values that the device has no room for come to it in turns; latents,
 * which are small, do not. Not where the model guesses for itself: guesses go
 * on between the stages of a pass, whose turns are on their way. */
static bool caches_may_wait(const struct sl_runtime *rt)
{
    return rt->mf.hp.kv_lora == 0 && !rt->load.draft_keeps &&
           rt->load.draft_ahead == 0;
}

uint64_t sl_runtime_turn_bytes(const struct sl_runtime *rt)
{
    if (!caches_may_wait(rt))
        return 0;
    return sl_kv_turn_bytes(&rt->kv_config, rt->shape.pass_items,
                            rt->shape.turn_most_bytes);
}

/* What it must have of the caches. */
static uint64_t kv_bytes_least(const struct sl_runtime *rt)
{
    return sl_plan_least_kv(kv_bytes_most(rt), sl_runtime_turn_bytes(rt));
}

/* Bytes beside weights, ring and caches. */
uint64_t sl_runtime_vram_fixed(const struct sl_runtime *rt)
{
    const struct sl_vram *v = &rt->vram;

    return v->context + v->small + v->activations + v->workspace;
}

/* What the GPU needs at least to compute everything: the ring of the finest
 * cut, all caches, or the buffers that they come to in turns. */
static int find_least(struct sl_runtime *rt, const struct sl_gpu_need *need,
                      struct sl_error *err)
{
    struct sl_vram *v = &rt->vram;
    struct sl_partition partition;
    uint64_t least;

    if (sl_partition_make(&partition, &rt->mf, sl_runtime_least_cap(rt), 0,
                          err) != 0)
        return -1;
    least = rt->device->info.context_bytes + need->small + need->activations +
            need->workspace_least +
            SL_RING_MIN_SLOTS * sl_partition_largest(&partition) +
            kv_bytes_least(rt);
    sl_partition_fini(&partition);
    least += least / (DRIVER_SHARE - 1) + 1;
    v->least = sl_round_up(least, LEAST_STEP);
    return 0;
}

/* No cache is counted yet: which layers' the device holds the plan will say
 * (place_caches). */
static void fill_shape(struct sl_runtime *rt)
{
    const struct sl_workload *w = &rt->load;
    uint32_t most = rt->kv_config.n_sequences;

    rt->shape = (struct sl_gpu_shape){
        .mf = &rt->mf,
        .pass_positions = w->pass_positions,
        .pass_logits = w->pass_logits,
        .pass_items = w->pass_positions < most ? w->pass_positions : most,
        .max_tokens = rt->kv_config.max_tokens,
        .n_pages = rt->kv_config.n_pages,
        .n_threads = sl_pool_threads(rt->pool),
        .write_back = rt->config.engine != SL_ENGINE_RULE_GPU,
        .loan_bytes = sl_experts_lend_rows(&rt->experts, &rt->rates) > 0
                          ? rt->experts.loan_bytes
                          : 0,
        .may_wait = caches_may_wait(rt),
    };
}

struct sl_gpu_shape sl_runtime_ahead_shape(const struct sl_runtime *rt)
{
    struct sl_gpu_shape s = rt->shape;

    s.pass_positions = s.pass_logits = s.pass_items = 1;
    s.write_back = s.may_wait = false;
    s.n_layers_waiting = 0;
    s.beside = true;
    return s;
}

/* With what guesses ahead need. */
struct sl_gpu_need sl_runtime_gpu_need(const struct sl_runtime *rt)
{
    struct sl_gpu_need need = sl_gpu_need(&rt->shape), more;
    struct sl_gpu_shape ahead = sl_runtime_ahead_shape(rt);

    if (rt->load.draft_ahead == 0)
        return need;
    more = sl_gpu_need(&ahead);
    need.activations += more.activations;
    need.host += more.host;
    return need;
}

/* Kernels work best with more workspace than they must have; a quarter of
 * what is left over is theirs. */
static void fill_vram(struct sl_runtime *rt, const struct sl_gpu_need *need)
{
    struct sl_vram *v = &rt->vram;
    uint64_t more = v->budget > v->least ? (v->budget - v->least) / 4 : 0;

    v->context = rt->device->info.context_bytes + v->budget / DRIVER_SHARE;
    v->small = need->small;
    v->activations = need->activations;
    if (more > need->workspace - need->workspace_least)
        more = need->workspace - need->workspace_least;
    v->workspace = need->workspace_least + sl_round_down(more, 256);
}

int sl_runtime_refuse_vram(const struct sl_runtime *rt, struct sl_error *err)
{
    const struct sl_vram *v = &rt->vram;
    char budget[SL_SIZE_TEXT], least[SL_SIZE_TEXT], context[SL_SIZE_TEXT],
        act[SL_SIZE_TEXT], kv[SL_SIZE_TEXT];

    if (v->budget >= v->least) /* with that of the cache that waits in RAM */
        return sl_fail(
            err, SL_ERR_BUDGET,
            "--ram %s is too small beside --vram %s of %s: the KV cache of %u "
            "tokens takes %s, in either; a larger --vram or --ram, or --device "
            "cpu",
            sl_size_format(act, rt->memory.budget),
            sl_size_format(budget, v->budget), rt->device->info.name,
            rt->load.max_tokens, sl_size_format(kv, kv_bytes_most(rt)));
    return sl_fail(
        err, SL_ERR_BUDGET,
        "--vram %s is too small for %s: the least that works here is %s "
        "(--vram %lluK): driver %s, activations, tables and workspace of %u "
        "positions %s, KV cache of %u tokens %s, norms and ring the rest; or "
        "use --device cpu",
        sl_size_format(budget, v->budget), rt->device->info.name,
        sl_size_format(least, v->least), (unsigned long long)(v->least >> 10),
        sl_size_format(context, v->context), rt->load.pass_positions,
        sl_size_format(act, v->activations + v->workspace), rt->load.max_tokens,
        sl_size_format(kv, kv_bytes_least(rt)));
}

int sl_runtime_count_vram(struct sl_runtime *rt, struct sl_error *err)
{
    struct sl_gpu_need need;
    struct sl_error why;

    if (rt->device == NULL)
        return 0;
    fill_shape(rt);
    choose_vram_budget(rt);
    need = sl_runtime_gpu_need(rt);
    if (find_least(rt, &need, err) != 0)
        return -1;
    if (rt->vram.budget > rt->vram.least)
        rt->shape.turn_most_bytes =
            sl_kv_turn_most(rt->vram.budget - rt->vram.least);
    fill_vram(rt, &need);
    rt->memory.staging = need.host;
    if (sl_runtime_vram_fixed(rt) < rt->vram.budget)
        return 0;
    sl_runtime_refuse_vram(rt, &why);
    if (sl_runtime_must_have_gpu(&rt->config) ||
        rt->config.vram_bytes != SL_VRAM_AUTO) {
        *err = why;
        return -1;
    }
    sl_runtime_drop_device(rt, &why);
    rt->memory.staging = 0;
    return 0;
}

/* --- after planning ------------------------------------------------------ */

/* Where each layer's cache lies, and what the GPU need not prefill. */
static int place_caches(struct sl_runtime *rt, struct sl_error *err)
{
    const struct sl_plan *plan = &rt->plan;
    struct sl_gpu_shape *shape = &rt->shape;

    free(rt->elsewhere);
    free(rt->waits);
    rt->elsewhere = sl_zalloc_array(rt->mf.hp.n_layers, sizeof *rt->elsewhere);
    rt->waits = sl_zalloc_array(rt->mf.hp.n_layers, sizeof *rt->waits);
    if (rt->elsewhere == NULL || rt->waits == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "KV cache: no memory");
    shape->n_layers_here = shape->n_layers_waiting = 0;
    shape->write_back = false;
    for (size_t slab = 0; slab < plan->n_slabs; slab++) {
        const struct sl_part *p =
            &rt->partition.parts[rt->partition.first_part[slab]];
        const struct sl_tensor_spec *spec = &rt->mf.matrices[p->matrix].spec;

        if (!sl_slot_is_first_of_attention(spec->slot) || p->first_block != 0)
            continue;
        rt->elsewhere[spec->layer] =
            plan->worker[SL_PHASE_DECODE][slab] != SL_HOST;
        rt->waits[spec->layer] = plan->waits[slab];
        shape->n_layers_waiting += plan->waits[slab];
        shape->n_layers_here +=
            rt->elsewhere[spec->layer] && !plan->waits[slab];
        shape->write_back |= !rt->elsewhere[spec->layer] &&
                             plan->worker[SL_PHASE_PREFILL][slab] != SL_HOST;
    }
    shape->may_wait = shape->n_layers_waiting > 0;
    rt->kv_config.elsewhere = rt->elsewhere;
    return 0;
}

/* What each pass uses has its place: the rest is for experts. */
uint64_t sl_runtime_expert_vram(const struct sl_runtime *rt)
{
    const struct sl_vram *v = &rt->vram;
    uint64_t taken = sl_runtime_vram_fixed(rt) + v->kv + v->ring + v->residents;

    return rt->device != NULL && v->budget > taken ? v->budget - taken : 0;
}

int sl_runtime_count_gpu(struct sl_runtime *rt, bool *dropped,
                         struct sl_error *err)
{
    struct sl_vram *v = &rt->vram;
    struct sl_gpu_need need;
    struct sl_error why;

    *dropped = false;
    if (rt->device == NULL)
        return 0;
    if (!rt->plan.uses_device) {
        sl_fail(&why, SL_OK,
                "the CPU alone is as fast as with %s and %llu MiB of VRAM",
                rt->device->info.name, (unsigned long long)(v->budget >> 20));
        sl_runtime_drop_device(rt, &why);
        *dropped = true;
        return 0;
    }
    if (place_caches(rt, err) != 0)
        return -1;
    need = sl_runtime_gpu_need(rt);
    v->activations = need.activations;
    v->kv = need.kv;
    v->kv_waiting = need.kv_host;
    v->n_layers = rt->shape.n_layers_here + rt->shape.n_layers_waiting;
    v->n_layers_waiting = rt->shape.n_layers_waiting;
    v->ring = rt->plan.at[SL_DEVICE].ring_bytes;
    v->residents = rt->plan.at[SL_DEVICE].resident_bytes;
    v->total = sl_runtime_vram_fixed(rt) + v->kv + v->ring + v->residents;
    v->experts =
        sl_experts_place_on_device(&rt->experts, sl_runtime_expert_vram(rt));
    v->total += v->experts;
    rt->memory.staging = need.host;
    return 0;
}
