#include "config.h"

#include "src/base/bytes.h"
#include "src/cmd/gpu_show.h"

char sl_tier_letter(enum sl_tier tier)
{
    static const char letters[] = {
        [SL_TIER_DISK] = '.',
        [SL_TIER_RAM] = 'R',
        [SL_TIER_VRAM] = 'V',
    };

    return letters[tier];
}

const char *sl_tier_name(enum sl_tier tier)
{
    static const char *const names[] = {
        [SL_TIER_DISK] = "disk",
        [SL_TIER_RAM] = "ram",
        [SL_TIER_VRAM] = "vram",
    };

    return names[tier];
}

static void line(FILE *f, const char *what, uint64_t bytes, const char *more)
{
    char size[SL_SIZE_TEXT];

    fprintf(f, "  %-28s %10s%s%s\n", what, sl_size_format(size, bytes),
            more[0] ? "  " : "", more);
}

/* Slabs that the GPU computes in a phase. */
static size_t count_gpu(const struct sl_plan *p, enum sl_phase phase)
{
    size_t n = 0;

    for (size_t i = 0; i < p->n_slabs; i++)
        n += p->worker[phase][i] == SL_DEVICE;
    return n;
}

static size_t count_vram(const struct sl_plan *p)
{
    size_t n = 0;

    for (size_t i = 0; i < p->n_slabs; i++)
        n += p->tier[i] == SL_TIER_VRAM;
    return n;
}

static void kv_line(FILE *f, const struct sl_vram *v)
{
    char more[96] = "f16, of the layers that it decodes", size[SL_SIZE_TEXT];

    if (v->n_layers_waiting > 0)
        snprintf(more, sizeof more,
                 "f16; that of %u of %u layers waits in RAM (%s)",
                 v->n_layers_waiting, v->n_layers,
                 sl_size_format(size, v->kv_waiting));
    line(f, "KV cache", v->kv, more);
}

void sl_gpu_print(FILE *f, const struct sl_runtime *rt)
{
    const char *why;
    const struct sl_device_info *d = sl_runtime_device(rt, &why);
    const struct sl_plan *p = sl_runtime_plan_made(rt);
    const struct sl_vram *v = sl_runtime_vram(rt);
    char more[96], slot[SL_SIZE_TEXT];

    if (d == NULL) {
        if (why[0] != '\0')
            fprintf(f, "\nNo GPU is used: %s\n", why);
        return;
    }
    fprintf(f, "\nMemory of the GPU (%s)\n", d->name);
    line(f, "driver", v->context, "");
    line(f, "norms, biases, scales", v->small, "");
    kv_line(f, v);
    line(f, "activations, logits", v->activations, "");
    line(f, "workspace", v->workspace, "");
    snprintf(more, sizeof more, "%u slots of %s", p->at[SL_DEVICE].n_slots,
             sl_size_format(slot, p->at[SL_DEVICE].slot_bytes));
    line(f, "ring", v->ring,
         p->at[SL_DEVICE].n_slots ? more : "nothing is copied");
    snprintf(more, sizeof more, "%zu of %zu slabs", count_vram(p), p->n_slabs);
    line(f, "resident weights", v->residents, more);
    if (v->experts > 0) {
        snprintf(more, sizeof more, "%u of them, %u that all positions use",
                 sl_runtime_device_experts(rt), sl_runtime_device_shared(rt));
        line(f, "experts", v->experts, more);
    }
    line(f, "in all", v->total, "");
    line(f, "budget", v->budget, "");
    line(f, "least for all on the GPU", v->least, "");
    fprintf(f, "  it computes %zu of %zu slabs of a step",
            count_gpu(p, SL_PHASE_DECODE), p->n_slabs);
    if (p->prefill_from < UINT32_MAX)
        fprintf(f, ", %zu of a prompt of %u token%s and more",
                count_gpu(p, SL_PHASE_PREFILL), p->prefill_from,
                p->prefill_from == 1 ? "" : "s");
    fputc('\n', f);
}

void sl_gpu_print_line(FILE *f, const struct sl_runtime *rt)
{
    const struct sl_device_info *d = sl_runtime_device(rt, NULL);
    const struct sl_vram *v = sl_runtime_vram(rt);
    char a[SL_SIZE_TEXT], b[SL_SIZE_TEXT], c[SL_SIZE_TEXT];

    if (d == NULL)
        return;
    fprintf(f, "%s: %s of a budget of %s, %s of it weights", d->name,
            sl_size_format(a, v->total), sl_size_format(b, v->budget),
            sl_size_format(c, v->residents));
    if (v->experts > 0)
        fprintf(f, ", %s experts", sl_size_format(a, v->experts));
    if (v->n_layers_waiting > 0)
        fprintf(f, "; the KV cache of %u of its %u layers waits in RAM",
                v->n_layers_waiting, v->n_layers);
    fputc('\n', f);
}

static json_t *engines_json(const struct sl_plan *p, enum sl_phase phase)
{
    json_t *list = json_array();

    for (size_t i = 0; i < p->n_slabs; i++)
        json_array_append_new(
            list,
            json_string(p->worker[phase][i] == SL_DEVICE ? "gpu" : "cpu"));
    return list;
}

json_t *sl_gpu_json(const struct sl_runtime *rt)
{
    const struct sl_device_info *d = sl_runtime_device(rt, NULL);
    const struct sl_plan *p = sl_runtime_plan_made(rt);
    const struct sl_vram *v = sl_runtime_vram(rt);

    if (d == NULL)
        return json_null();
    return json_pack(
        "{ss s{sI sI sI sI sI sI sI sI sI sI sI sI sI} sI s{so so}}", "name",
        d->name, "vram", "driver", (json_int_t)v->context, "vectors",
        (json_int_t)v->small, "kv", (json_int_t)v->kv, "kv_waiting",
        (json_int_t)v->kv_waiting, "kv_waiting_layers",
        (json_int_t)v->n_layers_waiting, "activations",
        (json_int_t)v->activations, "workspace", (json_int_t)v->workspace,
        "ring", (json_int_t)v->ring, "residents", (json_int_t)v->residents,
        "experts", (json_int_t)v->experts, "total", (json_int_t)v->total,
        "budget", (json_int_t)v->budget, "least", (json_int_t)v->least,
        "prefill_from", (json_int_t)p->prefill_from, "engines", "decode",
        engines_json(p, SL_PHASE_DECODE), "prefill",
        engines_json(p, SL_PHASE_PREFILL));
}
