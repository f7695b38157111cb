#include "config.h"

#include <stdlib.h>

#include "src/base/mem.h"
#include "src/exec/expert_usage.h"
#include "src/runtime/runtime_impl.h"

/* Experts of a run (exec/experts.h): their cache, and what it learns. */

/* Passes from which on it is worth keeping what they used. */
#define LEAST_TURNS 8.0f

static void take_usage(struct sl_runtime *rt)
{
    struct sl_experts *e = &rt->experts;

    if (rt->config.no_usage || e->n_records == 0)
        return;
    e->usage = sl_alloc_array(e->n_records, sizeof *e->usage);
    if (e->usage != NULL &&
        sl_expert_usage_read(e->usage, &e->usage_turns, &rt->mf, e->n_records,
                             rt->config.log))
        return;
    free(e->usage);
    e->usage = NULL;
}

/* Nothing is said where the folder cannot be written: it is never needed. */
static void keep_usage(const struct sl_runtime *rt)
{
    const struct sl_experts *e = &rt->experts;
    struct sl_error err;
    float *parts, turns;

    if (rt->config.no_usage || e->cache == NULL)
        return;
    parts = sl_alloc_array(e->n_records, sizeof *parts);
    if (parts == NULL)
        return;
    sl_cache_policy_learned(sl_slab_cache_policy(e->cache), parts, &turns);
    if (turns >= LEAST_TURNS)
        sl_expert_usage_write(parts, turns, &rt->mf, e->n_records, &err);
    free(parts);
}

int sl_runtime_open_experts(struct sl_runtime *rt, struct sl_error *err)
{
    const struct sl_hparams *hp = &rt->mf.hp;
    struct sl_experts *e = &rt->experts;
    struct sl_route_shape shape = {
        .n_layers = hp->n_layers - hp->n_dense_layers,
        .n_experts = hp->n_experts,
        .n_used = hp->n_experts_used,
    };

    if (sl_experts_init(e, &rt->mf, err) != 0)
        return -1;
    e->curve = rt->config.hit_curve;
    take_usage(rt);
    if (rt->config.route_trace == NULL)
        return 0;
    if (e->n_records == 0)
        return sl_fail(err, SL_ERR_USAGE,
                       "%s has no experts whose choice could be kept",
                       rt->mf.path);
    shape.record_bytes = e->largest;
    return sl_route_trace_open(&e->route, rt->config.route_trace, &shape, err);
}

static void go_on(void *arg)
{
    sl_slab_cache_go_on(arg);
}

void sl_runtime_end_experts(struct sl_runtime *rt)
{
    if (rt->traced)
        keep_usage(rt);
    if (rt->experts.cache != NULL)
        sl_pool_set_errand(rt->pool, NULL, NULL);
    sl_experts_close_cache(&rt->experts);
}

void sl_runtime_close_experts(struct sl_runtime *rt)
{
    struct sl_error err;

    if (!rt->traced)
        sl_route_trace_drop(rt->experts.route);
    else if (sl_route_trace_close(rt->experts.route, &err) != 0)
        sl_log(rt->config.log, SL_LOG_WARN, "%s", err.msg);
    rt->experts.route = NULL;
    sl_experts_fini(&rt->experts);
}

void sl_runtime_experts(const struct sl_runtime *rt, uint32_t *n_places,
                        uint32_t *n_experts)
{
    *n_places = rt->experts.n_places;
    *n_experts = rt->experts.n_records;
}

uint32_t sl_runtime_device_experts(const struct sl_runtime *rt)
{
    return rt->experts.n_device;
}

uint32_t sl_runtime_device_shared(const struct sl_runtime *rt)
{
    return rt->experts.n_shared;
}

struct sl_expert_demand sl_runtime_expert_demand(const struct sl_runtime *rt,
                                                 struct sl_plan_pass pass)
{
    return sl_expert_demand(&rt->experts, pass);
}

int sl_runtime_start_experts(struct sl_runtime *rt, struct sl_error *err)
{
    struct sl_slab_cache_config c = {
        .path = rt->mf.path,
        .mirror = rt->mf.mirror,
        .records = rt->experts.records,
        .n_records = rt->experts.n_records,
        .n_layers = rt->experts.n_layers,
        .n_places = rt->experts.n_places,
        .place_bytes = rt->experts.largest,
        .io = rt->config.io,
        .direct = true,
        .touch_threads = sl_pool_threads(rt->pool),
        .log = rt->config.log,
        .trace = rt->trace,
    };

    if (c.n_records == 0)
        return 0;
    rt->experts.looks_ahead = c.n_places + rt->experts.n_device < c.n_records;
    if (sl_slab_cache_open(&rt->experts.cache, &c, err) != 0)
        return -1;
    sl_pool_set_errand(rt->pool, go_on, rt->experts.cache);
    if (rt->experts.usage != NULL)
        sl_cache_policy_take(sl_slab_cache_policy(rt->experts.cache),
                             rt->experts.usage, rt->experts.usage_turns);
    return 0;
}

void sl_runtime_count_experts_anew(struct sl_runtime *rt, bool reads)
{
    struct sl_experts *e = &rt->experts;

    *(reads ? &e->prefill : &e->decode) = (struct sl_expert_use){0};
}

void sl_runtime_experts_stats(const struct sl_runtime *rt,
                              struct sl_run_stats *s)
{
    const struct sl_expert_use *use = &rt->experts.decode;

    if (rt->experts.cache == NULL)
        return;
    sl_slab_cache_stats(rt->experts.cache, &s->experts);
    s->decode_expert_passes = use->layers / rt->experts.n_layers;
    s->decode_expert_wanted = use->wanted_bytes;
    s->decode_expert_read = use->read_bytes;
    s->decode_expert_hinted = use->hint_bytes;
    s->lent_expert_bytes = rt->experts.lent_bytes;
}
