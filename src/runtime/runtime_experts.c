#include "config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

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

static uint32_t n_mixtures(const struct sl_runtime *rt)
{
    return rt->mf.hp.n_layers - rt->mf.hp.n_dense_layers;
}

static int by_part(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;

    return (x < y) - (x > y);
}

/* Bytes that a pass reads where those used most have the places. */
static double learned_bytes(const struct sl_runtime *rt, uint32_t positions)
{
    const struct sl_experts *e = &rt->experts;
    double n = 0;
    float *parts;

    if (e->usage == NULL)
        return -1;
    parts = sl_alloc_array(e->n_records, sizeof *parts);
    if (parts == NULL)
        return -1;
    memcpy(parts, e->usage, e->n_records * sizeof *parts);
    qsort(parts, e->n_records, sizeof *parts, by_part);
    for (uint32_t r = rt->n_expert_places; r < e->n_records; r++)
        n += 1 - pow(1 - (double)parts[r], positions);
    free(parts);
    return n / e->n_records * (double)e->bytes;
}

/* Between points in a straight line, from none that serve nothing to all that
 * serve all. */
static double served_by(const struct sl_hit_curve *curve, double resident)
{
    struct sl_hit_point from = {0, 0}, to = {1, 1};

    for (size_t i = 0; i < curve->n; i++) {
        if (curve->point[i].resident > resident) {
            to = curve->point[i];
            break;
        }
        from = curve->point[i];
    }
    if (to.resident <= from.resident)
        return to.served;
    return from.served + (to.served - from.served) *
                             (resident - from.resident) /
                             (to.resident - from.resident);
}

struct sl_expert_demand sl_runtime_expert_demand(const struct sl_runtime *rt,
                                                 struct sl_plan_pass pass)
{
    const struct sl_hparams *hp = &rt->mf.hp;
    const struct sl_experts *e = &rt->experts;
    struct sl_expert_demand d = {0};
    double missed, distinct;

    if (e->n_records == 0)
        return d;
    /* 1 - (1 - k / E)^n of a layer's experts */
    missed = 1 - (double)hp->n_experts_used / hp->n_experts;
    distinct = 1 - pow(missed, pass.positions);
    d.wanted_bytes = distinct * (double)e->bytes;
    d.disk_bytes =
        d.wanted_bytes * (1 - (double)rt->n_expert_places / e->n_records);
    d.by_curve = rt->config.hit_curve.n > 0 && pass.positions <= pass.logits;
    if (d.by_curve)
        d.disk_bytes =
            d.wanted_bytes *
            (1 - served_by(&rt->config.hit_curve,
                           (double)rt->n_expert_places / e->n_records));
    d.learned_bytes = learned_bytes(rt, pass.positions);
    /* gate, up and down */
    d.ops = 2.0 * 3 * hp->hidden * (double)hp->expert_inner *
            hp->n_experts_used * pass.positions * n_mixtures(rt);
    return d;
}

/* The same as it was in the passes of generation, where there were any. */
static void take_measured(struct sl_expert_demand *d,
                          const struct sl_run_stats *s,
                          struct sl_plan_pass pass)
{
    double share;

    if (s->decode_expert_wanted == 0 || pass.positions > pass.logits)
        return;
    share = (double)s->decode_expert_read / (double)s->decode_expert_wanted;
    d->wanted_bytes =
        (double)s->decode_expert_wanted / (double)s->decode_expert_passes;
    d->disk_bytes = share * d->wanted_bytes;
    d->hint_bytes =
        (double)s->decode_expert_hinted / (double)s->decode_expert_passes;
}

void sl_runtime_add_experts(struct sl_floor *floor, const struct sl_runtime *rt,
                            const struct sl_rates *rates,
                            struct sl_plan_pass pass)
{
    struct sl_expert_demand d = sl_runtime_expert_demand(rt, pass);
    struct sl_run_stats now = rt->stats;
    double disk_s = 0, hint_s = 0, dram_s = 0, ops_s = 0, there, seconds;

    if (d.wanted_bytes <= 0)
        return;
    if (!rt->ended)
        sl_runtime_experts_stats(rt, &now);
    take_measured(&d, &now, pass);
    /* Those that are there compute while the others are read. */
    there = 1 - d.disk_bytes / d.wanted_bytes;
    if (rates->disk_bps > 0) {
        disk_s = d.disk_bytes / rates->disk_bps;
        hint_s = d.hint_bytes / rates->disk_bps;
    }
    floor->seconds = fmax(floor->seconds, hint_s);
    if (rates->dram_bps > 0)
        dram_s = there * d.wanted_bytes / rates->dram_bps;
    if (rates->ops_per_s > 0)
        ops_s = there * d.ops / rates->ops_per_s;
    seconds = fmax(disk_s, fmax(dram_s, ops_s));
    if (seconds > floor->seconds)
        floor->limit = seconds == disk_s   ? SL_LIMIT_DISK
                       : seconds == dram_s ? SL_LIMIT_DRAM
                                           : SL_LIMIT_COMPUTE;
    floor->disk_s += disk_s + hint_s;
    floor->dram_s += dram_s;
    floor->compute_s += ops_s;
    floor->seconds += seconds;
}

void sl_runtime_experts_stats(const struct sl_runtime *rt,
                              struct sl_run_stats *s)
{
    const struct sl_expert_use *use = &rt->experts.decode;

    if (rt->experts.cache == NULL)
        return;
    sl_slab_cache_stats(rt->experts.cache, &s->experts);
    s->decode_expert_passes = use->layers / n_mixtures(rt);
    s->decode_expert_wanted = use->wanted_bytes;
    s->decode_expert_read = use->read_bytes;
    s->decode_expert_hinted = use->hint_bytes;
}
