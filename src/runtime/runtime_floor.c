#include "config.h"

#include "src/exec/stages.h"
#include "src/probe/meminfo.h"
#include "src/runtime/runtime_impl.h"

void sl_runtime_end(struct sl_runtime *rt)
{
    struct sl_error ignored;

    /* Who ends it need not be who ran it. */
    if (rt->device != NULL)
        rt->device->ops->attach(rt->device, &ignored);
    sl_prompt_cache_destroy(rt->prompt_cache);
    sl_exec_destroy(rt->exec);
    sl_upload_close(rt->upload);
    for (unsigned i = 0; i < SL_WORKERS; i++) {
        if (rt->ahead[i] != NULL) /* beside the others */
            rt->ahead[i]->ops->destroy(rt->ahead[i]);
        rt->ahead[i] = NULL;
    }
    for (unsigned i = 0; i < SL_WORKERS; i++) {
        if (rt->engines[i] != NULL)
            rt->engines[i]->ops->destroy(rt->engines[i]);
        rt->engines[i] = NULL;
    }
    sl_small_tensors_fini(&rt->small);
    sl_adapters_fini(&rt->adapters);
    sl_stream_close(rt->stream);
    sl_runtime_end_experts(rt);
    sl_runtime_end_gpu(rt);
    sl_kv_destroy(rt->kv);
    rt->prompt_cache = NULL;
    rt->exec = NULL;
    rt->upload = NULL;
    rt->stream = NULL;
    rt->kv = NULL;
}

void sl_runtime_stats(const struct sl_runtime *rt, struct sl_run_stats *s)
{
    struct sl_exec_stats x;

    *s = rt->stats;
    s->peak_bytes = sl_meminfo_peak();
    if (rt->mf.mirror != NULL)
        sl_mirror_stats(rt->mf.mirror, s->disks);
    if (rt->exec == NULL)
        return;
    sl_exec_stats(rt->exec, &x);
    s->passes = x.passes;
    s->prefill_passes = x.prefill_passes;
    s->positions = x.positions;
    s->decode_positions = x.decode_positions;
    s->prefill_sequences = x.prefill_sequences;
    s->decode_sequences = x.decode_sequences;
    s->prefill_keys = x.prefill_keys;
    s->decode_keys = x.decode_keys;
    s->prefill_ns = x.prefill_ns;
    s->decode_ns = x.decode_ns;
    s->first_pass_ns = x.first_pass_ns;
    s->kv_pages = rt->kv_config.n_pages;
    s->kv_pages_held = sl_kv_pages_held(rt->kv);
    sl_stream_stats(rt->stream, &s->stream);
    sl_runtime_experts_stats(rt, s);
    if (rt->prompt_cache != NULL)
        sl_prompt_cache_stats(rt->prompt_cache, &s->prompt_cache);
    if (rt->upload != NULL)
        sl_upload_stats(rt->upload, &s->upload);
}

struct sl_run_place sl_runtime_place(const struct sl_runtime *rt)
{
    struct sl_exec_place at = sl_exec_place(rt->exec);
    struct sl_order order = sl_plan_order(&rt->plan);
    struct sl_stream_stats stream;
    struct sl_run_place p = {
        .passes = at.passes,
        .begin_ns = at.begin_ns,
        .positions = at.positions,
        .to_come = at.to_come,
    };

    for (size_t i = 0; i < order.n; i++) {
        uint64_t bytes =
            sl_slab_load_bytes(&rt->partition.slabs[sl_order_slab(&order, i)]);

        p.pass_bytes += bytes;
        p.done_bytes += i < at.at ? bytes : 0;
    }
    sl_stream_stats(rt->stream, &stream);
    p.read_bytes = stream.bytes_read;
    return p;
}

/* Multiply-adds count as two operations; the head runs for few positions. */
static double operations(const struct sl_runtime *rt, struct sl_plan_pass pass)
{
    double n = 0;

    for (size_t i = 0; i < rt->mf.n_matrices; i++) {
        const struct sl_model_matrix *m = &rt->mf.matrices[i];

        if (m->spec.stage < 0)
            continue;
        n += 2.0 * m->geom.rows * m->geom.cols *
             (m->spec.slot == SL_SLOT_HEAD ? pass.logits : pass.positions);
    }
    return n;
}

struct sl_floor sl_runtime_floor_at(const struct sl_runtime *rt,
                                    const struct sl_rates *rates,
                                    struct sl_plan_pass pass)
{
    const struct sl_hparams *hp = &rt->mf.hp;
    struct sl_demand demand;
    struct sl_floor floor;
    double ignored;

    if (rt->has_gpu &&
        sl_runtime_floor_gpu(&floor, &ignored, rt, rates, pass)) {
        sl_experts_add_floor(&floor, &rt->experts, rates, pass);
        return floor;
    }
    demand = (struct sl_demand){
        .disk_bytes = (double)rt->plan.streamed_bytes,
        /* all weights as they are computed with; on disk they may be fewer */
        .by[SL_HOST].bytes =
            (double)sl_slabs_load_bytes(rt->partition.slabs,
                                        rt->partition.n_slabs) +
            (double)rt->memory.small + (double)rt->memory.adapters,
        .by[SL_HOST].ops = operations(rt, pass),
        /* a sequence's cache is read once for all its positions */
        .by[SL_HOST].kv_bytes = (double)pass.keys * pass.logits *
                                (double)sl_kv_page_bytes(&rt->kv_config) /
                                SL_KV_PAGE_LEN,
        .by[SL_HOST].kv_ops =
            sl_key_ops(hp) * hp->n_layers * pass.positions * (double)pass.keys,
    };
    floor = sl_floor_of(rates, &demand);
    sl_experts_add_floor(&floor, &rt->experts, rates, pass);
    return floor;
}

double sl_runtime_expected_at(const struct sl_runtime *rt,
                              const struct sl_rates *rates,
                              struct sl_plan_pass pass)
{
    struct sl_floor floor;
    double seconds = 0, rest;

    if (!rt->has_gpu ||
        !sl_runtime_floor_gpu(&floor, &seconds, rt, rates, pass))
        return seconds;
    rest = floor.seconds;
    sl_experts_add_floor(&floor, &rt->experts, rates, pass);
    return seconds + floor.seconds - rest +
           sl_experts_wait_seconds(&rt->experts, rates, pass) -
           sl_experts_shared_seconds(&rt->experts, rates, pass);
}

int sl_runtime_floor(struct sl_runtime *rt, struct sl_plan_pass pass,
                     struct sl_floor *floor, struct sl_rates *rates,
                     struct sl_error *err)
{
    if (!rt->ended) {
        sl_runtime_stats(rt, &rt->stats);
        sl_runtime_end(rt);
        rt->ended = true;
    }
    if (!rt->rates_known &&
        sl_runtime_measure_rates(rt,
                                 rt->plan.at[SL_HOST].ring_bytes +
                                     rt->plan.at[SL_HOST].resident_bytes +
                                     rt->memory.experts,
                                 err) != 0)
        return -1;
    *rates = rt->rates;
    *floor = sl_runtime_floor_at(rt, rates, pass);
    return 0;
}
