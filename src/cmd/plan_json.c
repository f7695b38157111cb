#include "config.h"

#include "src/cmd/plan_json.h"

json_t *sl_plan_memory_json(const struct sl_memory *m)
{
    return json_pack(
        "{sI sI sI sI sI sI sI sI sI sI sI sI sI sI}", "program",
        (json_int_t)m->program, "vectors", (json_int_t)m->small, "adapters",
        (json_int_t)m->adapters, "kv", (json_int_t)m->kv, "activations",
        (json_int_t)m->activations, "logits", (json_int_t)m->logits, "drafts",
        (json_int_t)m->drafts, "ring", (json_int_t)m->ring, "residents",
        (json_int_t)m->residents, "staging", (json_int_t)m->staging, "other",
        (json_int_t)m->other, "total", (json_int_t)m->total, "budget",
        (json_int_t)m->budget, "least", (json_int_t)m->least);
}

/* Of the GPU's parts nothing where there is none. */
json_t *sl_plan_floor_json(const struct sl_floor *f, double expected_s,
                           uint32_t positions)
{
    json_t *o = json_pack(
        "{sf sf sf sf sf ss}", "seconds_per_pass", f->seconds, "tokens_per_s",
        f->seconds > 0 ? positions / f->seconds : 0.0, "disk_seconds",
        f->disk_s, "dram_seconds", f->dram_s, "compute_seconds",
        f->worker_s[SL_HOST], "limit", sl_limit_name(f->limit));

    if (expected_s <= 0)
        return o;
    json_object_set_new(o, "pcie_seconds", json_real(f->link_s));
    json_object_set_new(o, "gpu_seconds", json_real(f->worker_s[SL_DEVICE]));
    json_object_set_new(o, "expected_seconds", json_real(expected_s));
    return o;
}
