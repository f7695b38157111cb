#include "config.h"

#include "src/runtime/runtime_impl.h"

/* Memory for experts (exec/experts.h): what is left when everything that each
 * pass uses has its place, for of that every byte is used in every pass. */

/* One is computed from, others are being read. */
#define LEAST_PLACES 3u
/* So many layers' experts of a position have places before more of what is
 * always used becomes resident. */
#define LAYERS_WANTED 2u

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
    const struct sl_hparams *hp = &rt->mf.hp;
    struct sl_slab_cache_config c = {
        .path = rt->mf.path,
        .records = rt->experts.records,
        .n_records = rt->experts.n_records,
        .n_places = rt->n_expert_places,
        .place_bytes = rt->experts.largest,
        .half_life = (double)SL_CACHE_HALF_LIFE_PASSES *
                     (hp->n_layers - hp->n_dense_layers),
        .io = rt->config.io,
        .direct = true,
        .log = rt->config.log,
        .trace = rt->trace,
    };

    if (c.n_records == 0)
        return 0;
    return sl_slab_cache_open(&rt->experts.cache, &c, err);
}
