#include "config.h"

#include <string.h>

#include "offload/plan_impl.h"

static uint64_t lesser(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* As many as read `wanted` bytes ahead; caches and the CPU's weights leave
 * `left` of the memory. */
static uint32_t slots(const struct sl_division *d, uint64_t wanted,
                      uint64_t room, uint64_t left)
{
    uint64_t n = lesser(wanted, room / SL_PLAN_RING_SHARE) / d->slot_bytes;

    n = lesser(lesser(n, left / d->slot_bytes), d->in->n_slabs);
    return n < SL_RING_MIN_SLOTS ? SL_RING_MIN_SLOTS : (uint32_t)n;
}

/* Divides the GPU's stages among the memories; false: too little. */
static bool divide_rest(struct sl_division *d, uint64_t rest, uint64_t vram,
                        uint64_t ram)
{
    uint64_t rings = SL_RING_MIN_SLOTS * d->slot_bytes, ring;

    d->n_slots = SL_RING_MIN_SLOTS;
    d->n_device_slots = slots(d, d->ahead_bytes, d->in->vram_bytes, vram);
    /* Its slots are needed only where something is copied in a pass. */
    if (rest <= vram && d->cpu_bytes == 0)
        d->n_device_slots = 0;
    ring = d->n_device_slots * d->slot_bytes;
    if (vram < ring || ram < rings)
        return false;
    d->vram_room = vram - ring;
    d->vram_bytes = lesser(d->vram_room, rest);
    rest -= d->vram_bytes;
    if (rest > ram - rings) {
        /* Something streams from disk: read farther ahead. */
        d->n_slots =
            slots(d, d->in->read_ahead_bytes, d->in->weights_bytes, ram);
        rings = d->n_slots * d->slot_bytes;
        if (ram < rings)
            return false;
    }
    d->ram_room = ram - rings;
    d->copied_bytes = lesser(d->ram_room, rest);
    d->disk_bytes = rest - d->copied_bytes;
    return true;
}

bool sl_plan_divide(struct sl_division *d)
{
    const struct sl_plan_input *in = d->in;
    uint64_t rest = 0;

    d->cpu_bytes = 0;
    memset(d->kv_bytes, 0, sizeof d->kv_bytes);
    for (size_t i = 0; i < in->n_stages; i++) {
        const struct sl_plan_stage *s = &in->stages[i];
        enum sl_engine e = d->cpu[i] ? SL_ENGINE_CPU : SL_ENGINE_GPU;

        d->kv_bytes[e] += s->kv_bytes[e];
        *(d->cpu[i] ? &d->cpu_bytes : &rest) += d->stage_bytes[i];
    }
    if (d->kv_bytes[SL_ENGINE_GPU] > in->vram_bytes ||
        d->kv_bytes[SL_ENGINE_CPU] > in->weights_bytes ||
        d->cpu_bytes > in->weights_bytes - d->kv_bytes[SL_ENGINE_CPU])
        return false;
    return divide_rest(d, rest, in->vram_bytes - d->kv_bytes[SL_ENGINE_GPU],
                       in->weights_bytes - d->kv_bytes[SL_ENGINE_CPU] -
                           d->cpu_bytes);
}

/* --- slabs ---------------------------------------------------------------- */

#define TIERS 3

/* Hands slabs to tiers so that each has its share of any stretch: the tier
   that lags most takes the next slab, if it has room (error diffusion). */
struct dealer {
    double share[TIERS], due[TIERS];
    uint64_t room[TIERS];
};

/* Disk has room for all that the others have not. */
static enum sl_tier deal(struct dealer *d, uint64_t bytes)
{
    int best = SL_TIER_DISK;

    for (int h = 0; h < TIERS; h++)
        d->due[h] += d->share[h] * (double)bytes;
    for (int h = 0; h < TIERS; h++) {
        if (d->room[h] >= bytes &&
            (d->room[best] < bytes || d->due[h] > d->due[best]))
            best = h;
    }
    d->due[best] -= (double)bytes;
    d->room[best] -= lesser(bytes, d->room[best]);
    return (enum sl_tier)best;
}

/* What rounding left over: slabs that fit move to faster memory. */
static void move_up(struct sl_plan *plan, const struct sl_division *d,
                    struct dealer *deal, enum sl_tier from, enum sl_tier to)
{
    for (size_t i = 0; i < plan->n_slabs; i++) {
        uint64_t bytes = sl_slab_load_bytes(&d->in->slabs[i]);

        if (plan->tier[i] != from || bytes > deal->room[to] ||
            plan->engine[SL_PHASE_DECODE][i] == SL_ENGINE_CPU)
            continue;
        plan->tier[i] = to;
        deal->room[to] -= bytes;
        deal->room[from] += bytes;
    }
}

/* What the CPU decodes it has in RAM: a cache of weights that it computes from
 * anyway needs no second copy. */
static void place_stage(struct sl_plan *plan, const struct sl_division *d,
                        const struct sl_plan_stage *s, bool cpu,
                        struct dealer *dealer)
{
    for (size_t i = s->first_slab; i < s->first_slab + s->n_slabs; i++) {
        for (int p = 0; p < SL_PHASE_COUNT; p++)
            plan->engine[p][i] = cpu ? SL_ENGINE_CPU : SL_ENGINE_GPU;
        plan->tier[i] =
            cpu ? SL_TIER_RAM
                : deal(dealer, sl_slab_load_bytes(&d->in->slabs[i]));
    }
}

static void sum_up(struct sl_plan *plan, const struct sl_division *d)
{
    for (size_t i = 0; i < plan->n_slabs; i++) {
        uint64_t bytes = sl_slab_load_bytes(&d->in->slabs[i]);

        *(plan->tier[i] == SL_TIER_RAM    ? &plan->resident_bytes
          : plan->tier[i] == SL_TIER_VRAM ? &plan->vram_bytes
                                          : &plan->streamed_bytes) += bytes;
    }
    memcpy(plan->kv_bytes, d->kv_bytes, sizeof plan->kv_bytes);
    if (plan->streamed_bytes + plan->vram_bytes > 0) {
        plan->n_slots = d->n_slots;
        plan->slot_bytes = d->slot_bytes;
        plan->ring_bytes = d->n_slots * d->slot_bytes;
    }
    if (d->n_device_slots > 0) {
        plan->n_device_slots = d->n_device_slots;
        plan->device_slot_bytes = d->slot_bytes;
        plan->device_ring_bytes = d->n_device_slots * d->slot_bytes;
    }
}

void sl_plan_place(struct sl_plan *plan, const struct sl_division *d)
{
    double rest =
        (double)d->vram_bytes + (double)d->copied_bytes + (double)d->disk_bytes;
    struct dealer dealer = {
        .share = {[SL_TIER_DISK] = (double)d->disk_bytes,
                  [SL_TIER_RAM] = (double)d->copied_bytes,
                  [SL_TIER_VRAM] = (double)d->vram_bytes},
        .room = {[SL_TIER_DISK] = UINT64_MAX / 2,
                 [SL_TIER_RAM] = d->ram_room,
                 [SL_TIER_VRAM] = d->vram_room},
    };

    for (int h = 0; h < TIERS && rest > 0; h++)
        dealer.share[h] /= rest;
    for (size_t i = 0; i < d->in->n_stages; i++)
        place_stage(plan, d, &d->in->stages[i], d->cpu[i], &dealer);
    move_up(plan, d, &dealer, SL_TIER_RAM, SL_TIER_VRAM);
    move_up(plan, d, &dealer, SL_TIER_DISK, SL_TIER_VRAM);
    move_up(plan, d, &dealer, SL_TIER_DISK, SL_TIER_RAM);
    sum_up(plan, d);
}
