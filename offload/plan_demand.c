#include "config.h"

#include <string.h>

#include "offload/plan_impl.h"

uint64_t sl_plan_stage_bytes(const struct sl_plan_input *in,
                             const struct sl_plan_stage *s)
{
    uint64_t n = 0;

    for (size_t i = 0; i < s->n_slabs; i++)
        n += sl_slab_load_bytes(&in->slabs[s->first_slab + i]);
    return n;
}

uint64_t sl_plan_stage_kept(const struct sl_plan_input *in,
                            const struct sl_plan_stage *s)
{
    uint64_t n = 0;

    for (size_t i = s->first_slab; i < s->first_slab + s->n_slabs; i++) {
        if (in->keep && in->slabs[i].keep)
            n += sl_slab_load_bytes(&in->slabs[i]);
    }
    return n;
}

/* One stage's part; bytes: of its weights. */
static void add_stage(struct sl_demand *d, const struct sl_plan_input *in,
                      const struct sl_plan_stage *s, double bytes,
                      uint32_t worker, struct sl_plan_pass pass)
{
    double rows = s->head ? pass.logits : pass.positions;
    struct sl_worker_demand *w = &d->by[worker];
    struct sl_products products = {
        .bytes = bytes,
        .wide_bytes = worker == SL_HOST ? 0 : s->wide_bytes,
        .ops = s->ops,
        .rows = rows,
    };

    sl_cost_add_products(w, &in->rates.worker[worker], &products);
    /* A sequence's cache is read once for all its positions. */
    w->kv_bytes += (double)pass.keys * pass.logits * s->key_bytes[worker];
    w->kv_ops += rows * s->key_ops * pass.keys;
    w->stages++;
}

/* The worker changes: x goes through the links there are between the two, of
   all positions. */
static void add_crossing(struct sl_demand *d, const struct sl_plan_input *in,
                         uint32_t from, uint32_t to, struct sl_plan_pass pass)
{
    const uint32_t ends[] = {from, to};

    for (int i = 0; i < 2; i++) {
        if (ends[i] == SL_HOST)
            continue;
        d->by[ends[i]].crossings++;
        d->by[ends[i]].crossing_bytes += pass.positions * (double)in->x_bytes;
    }
}

double sl_plan_copied_keys(const struct sl_plan_stage *s, enum sl_phase phase,
                           struct sl_plan_pass pass)
{
    if (phase == SL_PHASE_PREFILL)
        return 0;
    return (double)pass.keys * pass.logits * s->key_bytes[SL_DEVICE];
}

/* What must come from beside the worker's memory, by tier. */
static void add_moves(struct sl_demand *d, const struct sl_plan *plan,
                      const struct sl_plan_input *in,
                      const struct sl_plan_stage *s, enum sl_phase phase,
                      struct sl_plan_pass pass)
{
    uint32_t worker = plan->worker[phase][s->first_slab];

    if (plan->waits[s->first_slab])
        d->by[worker].copy_bytes += sl_plan_copied_keys(s, phase, pass);
    for (size_t i = s->first_slab; i < s->first_slab + s->n_slabs; i++) {
        double bytes = (double)sl_slab_load_bytes(&in->slabs[i]);

        if (plan->tier[i] == SL_TIER_DISK)
            d->disk_bytes += bytes;
        if (worker != SL_HOST && plan->tier[i] != sl_tier_of(worker))
            d->by[worker].copy_bytes += bytes;
    }
}

struct sl_demand sl_plan_demand(const struct sl_plan *plan,
                                const struct sl_plan_input *in,
                                enum sl_phase phase, struct sl_plan_pass pass)
{
    const uint8_t *worker = plan->worker[phase];
    struct sl_demand d = {0};

    for (size_t i = 0; i < in->n_stages; i++) {
        const struct sl_plan_stage *s = &in->stages[i];
        size_t at = s->first_slab;

        add_stage(&d, in, s, (double)sl_plan_stage_bytes(in, s), worker[at],
                  pass);
        add_moves(&d, plan, in, s, phase, pass);
        if (i > 0 && worker[at] != worker[at - 1])
            add_crossing(&d, in, worker[at - 1], worker[at], pass);
    }
    return d;
}

/* --- in their turn -------------------------------------------------------- */

/* Rings of so many bytes; of the bytes that are copied, some are read from
   disk first. */
static struct sl_timeline timeline_device(const struct sl_plan_input *in,
                                          double copied, double from_disk,
                                          double device_ring, double ring)
{
    return (struct sl_timeline){
        .dram_bps = in->rates.dram_bps,
        .disk_bps = in->rates.disk_bps,
        .copy_bps = copied > 0 ? in->rates.worker[SL_DEVICE].link_bps : 0,
        .from_disk = copied > 0 ? from_disk / copied : 0,
        .most_read = ring,
        .most_copied = device_ring,
    };
}

struct sl_step sl_plan_step(const struct sl_plan_input *in,
                            const struct sl_plan_stage *s, double bytes,
                            uint32_t worker, struct sl_plan_pass pass)
{
    struct sl_demand d = {0};
    double kv_s;

    add_stage(&d, in, s, bytes, worker, pass);
    kv_s = sl_cost_kv_seconds(&in->rates, &d, worker);
    return (struct sl_step){
        .seconds = sl_cost_seconds(&in->rates, &d, worker) - kv_s,
        .dram_bytes = d.by[SL_HOST].bytes,
        .kv_seconds = kv_s,
        .kv_bytes = d.by[SL_HOST].kv_bytes,
    };
}

double sl_plan_crossing_s(const struct sl_plan_input *in, uint32_t from,
                          uint32_t to, struct sl_plan_pass pass)
{
    struct sl_demand d = {0};

    add_crossing(&d, in, from, to, pass);
    return sl_cost_seconds(&in->rates, &d, from) +
           sl_cost_seconds(&in->rates, &d, to);
}

/* One ring for both engines, filled from disk: copies of what has come go on
   while the disk is waited for. */
static struct sl_timeline timeline_disk(const struct sl_plan_input *in,
                                        double from_disk, double ring)
{
    return (struct sl_timeline){
        .dram_bps = in->rates.dram_bps,
        .disk_bps = in->rates.disk_bps,
        .from_disk = from_disk > 0 ? 1 : 0,
        .most_read = ring,
    };
}

/* One slot less than there are: the one that is computed from holds nothing
 * that is ahead of its use. Caches that wait come half of their buffers ahead.
 */
static double room_ahead(uint32_t n_slots, uint64_t slot_bytes,
                         uint64_t turn_bytes)
{
    return (n_slots > 0 ? (n_slots - 1.0) * (double)slot_bytes : 0) +
           (double)turn_bytes / 2;
}

struct sl_timeline sl_division_timeline(const struct sl_division *v,
                                        double kv_copied)
{
    if (v->in->keep)
        return timeline_disk(v->in,
                             (double)v->disk_bytes + (double)v->host_disk_bytes,
                             ((double)v->n_slots - 1) * (double)v->slot_bytes);
    return timeline_device(
        v->in, (double)v->copied_bytes + (double)v->disk_bytes + kv_copied,
        (double)v->disk_bytes,
        room_ahead(v->n_device_slots, v->slot_bytes,
                   kv_copied > 0 ? v->in->turn_bytes : 0),
        room_ahead(v->n_slots, v->slot_bytes, 0));
}

static struct sl_timeline timeline_of_plan(const struct sl_plan *plan,
                                           const struct sl_plan_input *in,
                                           enum sl_phase phase,
                                           struct sl_plan_pass pass)
{
    struct sl_demand d = sl_plan_demand(plan, in, phase, pass);
    const struct sl_plan_memory *host = &plan->at[SL_HOST];
    const struct sl_plan_memory *device = &plan->at[SL_DEVICE];
    double ring = room_ahead(host->n_slots, host->slot_bytes, 0);
    bool waits = memchr(plan->waits, 1, plan->n_slabs) != NULL;

    if (plan->uses_device && !in->keep)
        return timeline_device(in, d.by[SL_DEVICE].copy_bytes, d.disk_bytes,
                               room_ahead(device->n_slots, device->slot_bytes,
                                          waits ? in->turn_bytes : 0),
                               ring);
    return timeline_disk(in, d.disk_bytes, ring);
}

double sl_plan_seconds(const struct sl_plan *plan,
                       const struct sl_plan_input *in, enum sl_phase phase,
                       struct sl_plan_pass pass)
{
    struct sl_timeline w = timeline_of_plan(plan, in, phase, pass);
    const uint8_t *worker = plan->worker[phase];
    double seconds = 0;

    for (int p = 0; p < 2; p++) {
        seconds = 0;
        for (size_t i = 0; i < in->n_stages; i++) {
            const struct sl_plan_stage *s = &in->stages[i];
            size_t at = s->first_slab;
            struct sl_step step = sl_plan_step(
                in, s, (double)sl_plan_stage_bytes(in, s), worker[at], pass);
            struct sl_demand moves = {0};

            if (i > 0 && worker[at] != worker[at - 1])
                step.seconds +=
                    sl_plan_crossing_s(in, worker[at - 1], worker[at], pass);
            add_moves(&moves, plan, in, s, phase, pass);
            step.moved_bytes = worker[at] == SL_HOST || in->keep
                                   ? moves.disk_bytes
                                   : moves.by[worker[at]].copy_bytes;
            seconds += sl_timeline_step(&w, &step);
        }
    }
    return seconds;
}

double sl_plan_guess_seconds(const struct sl_plan *plan,
                             const struct sl_plan_input *in)
{
    const uint8_t *worker = plan->worker[SL_PHASE_DECODE];
    struct sl_plan_pass pass = {1, 1, in->pass[SL_PHASE_DECODE].keys};
    double seconds = 0;

    for (size_t i = 0; in->keep && i < in->n_stages; i++) {
        const struct sl_plan_stage *s = &in->stages[i];
        size_t at = s->first_slab;
        struct sl_step step = sl_plan_step(
            in, s, (double)sl_plan_stage_kept(in, s), worker[at], pass);

        if (i > 0 && worker[at] != worker[at - 1])
            seconds += sl_plan_crossing_s(in, worker[at - 1], worker[at], pass);
        seconds += step.seconds + step.kv_seconds;
    }
    return seconds;
}
