#include "config.h"

#include "src/base/bytes.h"
#include "src/cmd/experts_show.h"

static bool has_experts(const struct sl_runtime *rt)
{
    uint32_t places, records;

    sl_runtime_experts(rt, &places, &records);
    return records > 0;
}

void sl_experts_print_memory(FILE *f, const struct sl_runtime *rt)
{
    char size[SL_SIZE_TEXT];
    uint32_t places, records;

    sl_runtime_experts(rt, &places, &records);
    if (records == 0)
        return;
    fprintf(f, "  %-28s %10s  %u of %u have a place\n", "experts",
            sl_size_format(size, sl_runtime_memory(rt)->experts), places,
            records);
}

void sl_experts_print_pass(FILE *f, const struct sl_runtime *rt,
                           const char *what, struct sl_plan_pass pass)
{
    char wanted[SL_SIZE_TEXT], read[SL_SIZE_TEXT];
    struct sl_expert_demand d;

    if (!has_experts(rt))
        return;
    d = sl_runtime_expert_demand(rt, pass);
    fprintf(f, "  experts of %-17s %10s  %s of it from disk %s\n", what,
            sl_size_format(wanted, (uint64_t)d.wanted_bytes),
            sl_size_format(read, (uint64_t)d.disk_bytes),
            d.by_curve ? "by the hit curve" : "where all are chosen alike");
    if (d.learned_bytes >= 0)
        fprintf(f, "  %-28s %10s  %s of it where chosen as in earlier runs\n",
                "", "", sl_size_format(read, (uint64_t)d.learned_bytes));
}

static double share(uint64_t part, uint64_t of)
{
    return of > 0 ? (double)part / (double)of : 0;
}

void sl_experts_print_stats(FILE *f, const struct sl_runtime *rt,
                            const struct sl_run_stats *s)
{
    const struct sl_slab_cache_stats *c = &s->experts;
    char read[SL_SIZE_TEXT], wanted[SL_SIZE_TEXT], size[SL_SIZE_TEXT];

    if (!has_experts(rt))
        return;
    fprintf(f,
            "experts      %s read of %s wanted, %.0f %% were there; waited "
            "for %.2f s\n",
            sl_size_format(read, c->demand_bytes),
            sl_size_format(wanted, c->wanted_bytes),
            100 * share(c->hits, c->wants), (double)c->wait_ns / 1e9);
    if (c->hint_bytes > 0)
        fprintf(f, "             %s read ahead and used, %s in vain\n",
                sl_size_format(size, c->hint_used_bytes),
                sl_size_format(read, c->hint_wasted_bytes));
    if (s->lent_expert_bytes > 0)
        fprintf(f, "             %s copied to the GPU for long passes\n",
                sl_size_format(size, s->lent_expert_bytes));
    if (s->decode_expert_passes > 0)
        fprintf(f,
                "             a pass of generation wanted %s, read %s, and "
                "%s ahead\n",
                sl_size_format(wanted, s->decode_expert_wanted /
                                           s->decode_expert_passes),
                sl_size_format(read,
                               s->decode_expert_read / s->decode_expert_passes),
                sl_size_format(size, s->decode_expert_hinted /
                                         s->decode_expert_passes));
}

json_t *sl_experts_json(const struct sl_runtime *rt, struct sl_plan_pass pass)
{
    uint32_t places, records;
    struct sl_expert_demand d;

    sl_runtime_experts(rt, &places, &records);
    if (records == 0)
        return json_null();
    d = sl_runtime_expert_demand(rt, pass);
    return json_pack(
        "{sI sI sI sf sf so}", "places", (json_int_t)places, "experts",
        (json_int_t)records, "bytes",
        (json_int_t)sl_runtime_memory(rt)->experts, "wanted_bytes_per_pass",
        d.wanted_bytes, "disk_bytes_per_pass", d.disk_bytes,
        "learned_disk_bytes_per_pass",
        d.learned_bytes >= 0 ? json_real(d.learned_bytes) : json_null());
}

json_t *sl_experts_stats_json(const struct sl_runtime *rt,
                              const struct sl_run_stats *before,
                              const struct sl_run_stats *after)
{
    const struct sl_slab_cache_stats *a = &before->experts,
                                     *b = &after->experts;

    if (!has_experts(rt))
        return NULL;
    return json_pack(
        "{sI sI sI sI sI sI sI sf}", "wants", (json_int_t)(b->wants - a->wants),
        "hits", (json_int_t)(b->hits - a->hits), "wanted_bytes",
        (json_int_t)(b->wanted_bytes - a->wanted_bytes), "demand_bytes",
        (json_int_t)(b->demand_bytes - a->demand_bytes), "hint_bytes",
        (json_int_t)(b->hint_bytes - a->hint_bytes), "hint_used_bytes",
        (json_int_t)(b->hint_used_bytes - a->hint_used_bytes),
        "hint_wasted_bytes",
        (json_int_t)(b->hint_wasted_bytes - a->hint_wasted_bytes),
        "wait_seconds", (double)(b->wait_ns - a->wait_ns) / 1e9);
}
