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

/* Divides what is free to be anywhere among the memories: `rest` of the GPU's
 * stages, `loose` of the CPU's. False: too little. */
static bool divide_rest(struct sl_division *d, uint64_t rest, uint64_t loose,
                        uint64_t vram, uint64_t ram)
{
    uint64_t rings = SL_RING_MIN_SLOTS * d->slot_bytes, ring;

    d->n_slots = SL_RING_MIN_SLOTS;
    d->n_device_slots =
        slots(d, d->ahead_bytes, d->in->memory_bytes[SL_DEVICE], vram);
    /* Its slots are needed only where something is copied in a pass. */
    if (rest <= vram && (d->in->keep || d->host_bytes == d->host_only_bytes))
        d->n_device_slots = 0;
    ring = d->n_device_slots * d->slot_bytes;
    if (vram < ring || ram < rings)
        return false;
    d->vram_room = vram - ring;
    d->vram_bytes = lesser(d->vram_room, rest);
    rest -= d->vram_bytes;
    if (rest + loose > ram - rings) {
        /* Something streams from disk: read farther ahead. */
        d->n_slots = slots(d, d->in->read_ahead_bytes,
                           d->in->memory_bytes[SL_HOST], ram);
        rings = d->n_slots * d->slot_bytes;
        if (ram < rings)
            return false;
    }
    d->ram_room = ram - rings;
    d->host_ram_bytes = lesser(d->ram_room, loose);
    d->host_disk_bytes = loose - d->host_ram_bytes;
    d->ram_room -= d->host_ram_bytes;
    d->copied_bytes = lesser(d->ram_room, rest);
    d->disk_bytes = rest - d->copied_bytes;
    return true;
}

/* Marks k of the n caches that would be the device's, evenly. */
static void mark_waiting(const struct sl_division *d, size_t k, size_t n)
{
    size_t at = 0;

    memset(d->waits, 0, d->in->n_stages);
    for (size_t i = 0; i < d->in->n_stages && k > 0; i++) {
        if (d->host[i] || d->in->stages[i].kv_bytes[SL_DEVICE] == 0)
            continue;
        /* Bresenham's line, begun half a step in */
        d->waits[i] =
            (2 * at * k + n) / (2 * n) != (2 * (at + 1) * k + n) / (2 * n);
        at++;
    }
}

/* With k of the n caches waiting. */
static bool divide(struct sl_division *d, size_t k, size_t n)
{
    const struct sl_plan_input *in = d->in;
    uint64_t rest = 0, loose = 0, vram, ram;

    d->host_bytes = d->host_only_bytes = d->device_kept_bytes = 0;
    memset(d->kv_bytes, 0, sizeof d->kv_bytes);
    mark_waiting(d, k, n);
    if (k > 0)
        d->kv_bytes[SL_DEVICE] = in->turn_bytes;
    for (size_t i = 0; i < in->n_stages; i++) {
        const struct sl_plan_stage *s = &in->stages[i];
        uint32_t e = d->host[i] ? SL_HOST : SL_DEVICE;
        uint64_t kept = d->stage_kept[i];

        d->kv_bytes[d->waits[i] ? SL_HOST : e] += s->kv_bytes[e];
        d->host_only_bytes += s->host_only ? d->stage_bytes[i] : 0;
        if (d->host[i] && !in->keep)
            kept = d->stage_bytes[i];
        *(d->host[i] ? &d->host_bytes : &d->device_kept_bytes) += kept;
        *(d->host[i] ? &loose : &rest) += d->stage_bytes[i] - kept;
    }
    vram = d->kv_bytes[SL_DEVICE] + d->device_kept_bytes;
    ram = d->kv_bytes[SL_HOST] + d->host_bytes;
    if (vram > in->memory_bytes[SL_DEVICE] || ram > in->memory_bytes[SL_HOST])
        return false;
    return divide_rest(d, rest, loose, in->memory_bytes[SL_DEVICE] - vram,
                       in->memory_bytes[SL_HOST] - ram);
}

/* The fewest caches that leave the device room for its ring and for what must
 * be there. Those that lie there save as many bytes of a pass's copies as
 * weights in their place would, and more only where texts are long. */
static size_t fewest_waiting(const struct sl_division *d, size_t n,
                             uint64_t largest)
{
    uint64_t kept = 0, need;

    for (size_t i = 0; i < d->in->n_stages; i++)
        kept += d->host[i] ? 0 : d->stage_kept[i];
    need = kept + SL_RING_MIN_SLOTS * d->slot_bytes + d->in->turn_bytes;
    if (need >= d->in->memory_bytes[SL_DEVICE])
        return n;
    need = (d->in->memory_bytes[SL_DEVICE] - need) / largest;
    return need < n ? n - (size_t)need : 1;
}

bool sl_plan_divide(struct sl_division *d)
{
    uint64_t largest = 0;
    size_t n = 0;

    for (size_t i = 0; i < d->in->n_stages; i++) {
        uint64_t kv = d->host[i] ? 0 : d->in->stages[i].kv_bytes[SL_DEVICE];

        n += kv > 0;
        largest = kv > largest ? kv : largest;
    }
    if (divide(d, 0, n))
        return true;
    return d->in->turn_bytes > 0 && n > 0 &&
           divide(d, fewest_waiting(d, n, largest), n);
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
            (to == SL_TIER_VRAM && plan->worker[SL_PHASE_DECODE][i] == SL_HOST))
            continue;
        plan->tier[i] = to;
        deal->room[to] -= bytes;
        deal->room[from] += bytes;
    }
}

/* What the CPU decodes it has in RAM: a cache of weights that it computes from
 * anyway needs no second copy. Where some slabs are to stay, the others may be
 * anywhere. */
static void place_stage(struct sl_plan *plan, const struct sl_division *d,
                        const struct sl_plan_stage *s, bool host,
                        struct dealer *dealers)
{
    const struct sl_slab *slabs = d->in->slabs;
    uint32_t e = host ? SL_HOST : SL_DEVICE;

    for (size_t i = s->first_slab; i < s->first_slab + s->n_slabs; i++) {
        bool stays = d->in->keep ? slabs[i].keep : host;

        for (int p = 0; p < SL_PHASE_COUNT; p++)
            plan->worker[p][i] = (uint8_t)e;
        if (stays)
            plan->tier[i] = sl_tier_of(e);
        else
            plan->tier[i] = deal(&dealers[e], sl_slab_load_bytes(&slabs[i]));
    }
}

static void sum_up(struct sl_plan *plan, const struct sl_division *d)
{
    for (size_t i = 0; i < plan->n_slabs; i++) {
        uint64_t bytes = sl_slab_load_bytes(&d->in->slabs[i]);

        *(plan->tier[i] == SL_TIER_RAM    ? &plan->at[SL_HOST].resident_bytes
          : plan->tier[i] == SL_TIER_VRAM ? &plan->at[SL_DEVICE].resident_bytes
                                          : &plan->streamed_bytes) += bytes;
    }
    for (int i = 0; i < SL_WORKERS; i++)
        plan->at[i].kv_bytes = d->kv_bytes[i];
    if (plan->streamed_bytes + plan->at[SL_DEVICE].resident_bytes > 0) {
        plan->at[SL_HOST].n_slots = d->n_slots;
        plan->at[SL_HOST].slot_bytes = d->slot_bytes;
        plan->at[SL_HOST].ring_bytes = d->n_slots * d->slot_bytes;
    }
    if (d->n_device_slots > 0) {
        plan->at[SL_DEVICE].n_slots = d->n_device_slots;
        plan->at[SL_DEVICE].slot_bytes = d->slot_bytes;
        plan->at[SL_DEVICE].ring_bytes = d->n_device_slots * d->slot_bytes;
    }
}

/* Of so many bytes for each tier, with room for so many. */
static struct dealer make_dealer(uint64_t disk, uint64_t ram, uint64_t ram_room,
                                 uint64_t vram, uint64_t vram_room)
{
    double all = (double)disk + (double)ram + (double)vram;
    struct dealer dealer = {
        .room = {[SL_TIER_DISK] = UINT64_MAX / 2,
                 [SL_TIER_RAM] = ram_room,
                 [SL_TIER_VRAM] = vram_room},
    };

    if (all > 0) {
        dealer.share[SL_TIER_DISK] = (double)disk / all;
        dealer.share[SL_TIER_RAM] = (double)ram / all;
        dealer.share[SL_TIER_VRAM] = (double)vram / all;
    }
    return dealer;
}

void sl_plan_place(struct sl_plan *plan, const struct sl_division *d)
{
    struct dealer dealers[SL_PLAN_DIVIDED] = {
        [SL_HOST] = make_dealer(d->host_disk_bytes, d->host_ram_bytes,
                                d->host_ram_bytes, 0, 0),
        [SL_DEVICE] = make_dealer(d->disk_bytes, d->copied_bytes, d->ram_room,
                                  d->vram_bytes, d->vram_room),
    };
    struct dealer *left = &dealers[SL_DEVICE];

    for (size_t i = 0; i < d->in->n_stages; i++) {
        const struct sl_plan_stage *s = &d->in->stages[i];

        place_stage(plan, d, s, d->host[i], dealers);
        memset(plan->waits + s->first_slab, d->waits[i], s->n_slabs);
    }
    left->room[SL_TIER_RAM] += dealers[SL_HOST].room[SL_TIER_RAM];
    move_up(plan, d, left, SL_TIER_RAM, SL_TIER_VRAM);
    move_up(plan, d, left, SL_TIER_DISK, SL_TIER_VRAM);
    move_up(plan, d, left, SL_TIER_DISK, SL_TIER_RAM);
    sum_up(plan, d);
}
