#include "config.h"

#include <stdlib.h>

#include "src/base/mem.h"
#include "src/exec/expert_usage.h"
#include "src/runtime/runtime_impl.h"

/* Memory for experts (exec/experts.h): what is left when everything that each
 * pass uses has its place, for of that every byte is used in every pass. */

/* One is computed from, others are being read. */
#define LEAST_PLACES 3u
/* So many layers' experts of a position have places before more of what is
 * always used becomes resident. */
#define LAYERS_WANTED 2u

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

void sl_runtime_end_experts(struct sl_runtime *rt)
{
    if (rt->traced)
        keep_usage(rt);
    sl_slab_cache_close(rt->experts.cache);
    rt->experts.cache = NULL;
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

static uint64_t bytes_of(const struct sl_runtime *rt, uint64_t places)
{
    const struct sl_experts *e = &rt->experts;

    if (places > e->n_records)
        places = e->n_records;
    return places * e->largest + sl_experts_overhead_bytes(e, (uint32_t)places);
}

uint64_t sl_runtime_experts_least(const struct sl_runtime *rt)
{
    return bytes_of(rt, LEAST_PLACES);
}

uint64_t sl_runtime_experts_reserve(const struct sl_runtime *rt, uint64_t bytes,
                                    uint64_t others_least)
{
    uint64_t wanted =
        bytes_of(rt, LAYERS_WANTED * (uint64_t)rt->mf.hp.n_experts_used);
    uint64_t least = sl_runtime_experts_least(rt);

    if (wanted < least || bytes < wanted || bytes - wanted < others_least)
        return least;
    return wanted;
}

void sl_runtime_count_experts(struct sl_runtime *rt, uint64_t bytes)
{
    const struct sl_experts *e = &rt->experts;
    uint64_t n = 0;

    rt->n_expert_places = 0;
    rt->memory.experts = 0;
    if (e->n_records == 0)
        return;
    if (bytes > bytes_of(rt, 0))
        n = (bytes - bytes_of(rt, 0)) / e->largest;
    n = n < e->n_records ? n : e->n_records;
    while (n > 0 && bytes_of(rt, n) > bytes)
        n--;
    rt->n_expert_places = (uint32_t)n;
    rt->memory.experts = bytes_of(rt, n);
}

void sl_runtime_experts(const struct sl_runtime *rt, uint32_t *n_places,
                        uint32_t *n_experts)
{
    *n_places = rt->n_expert_places;
    *n_experts = rt->experts.n_records;
}

int sl_runtime_start_experts(struct sl_runtime *rt, struct sl_error *err)
{
    struct sl_slab_cache_config c = {
        .path = rt->mf.path,
        .records = rt->experts.records,
        .n_records = rt->experts.n_records,
        .n_layers = rt->experts.n_layers,
        .n_places = rt->n_expert_places,
        .place_bytes = rt->experts.largest,
        .io = rt->config.io,
        .direct = true,
        .log = rt->config.log,
        .trace = rt->trace,
    };

    if (c.n_records == 0)
        return 0;
    rt->experts.looks_ahead = c.n_places < c.n_records;
    if (sl_slab_cache_open(&rt->experts.cache, &c, err) != 0)
        return -1;
    if (rt->experts.usage != NULL)
        sl_cache_policy_take(sl_slab_cache_policy(rt->experts.cache),
                             rt->experts.usage, rt->experts.usage_turns);
    return 0;
}
