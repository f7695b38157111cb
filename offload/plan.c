#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "offload/plan_impl.h"
#include "src/base/bytes.h"
#include "src/base/mem.h"

/* The ring grows beyond its least number of slots only while it stays within
   this part of the memory: what it takes is missing for residents. */
#define RING_SHARE 2u

/* Keeping all slabs above a size resident makes slots smaller but puts those
   residents in one place. It must stream at least this part less to be worth
   the unevenness. */
#define UNEVEN_SHARE 50u

/* One way to lay the weights out: which slab sizes may be streamed at all. */
struct candidate {
    uint64_t slot_bytes; /* slabs above this are resident */
    uint64_t n_slots;
    uint64_t forced_bytes; /* of the slabs above slot_bytes, or to be kept */
};

struct planner {
    const struct sl_slab *slabs;
    bool keep;
    const uint64_t *load; /* (n) bytes of each slab */
    size_t n;
    uint64_t total;
    uint64_t room; /* for all residents */
    const struct candidate *c;
};

static int descending(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x < y) - (x > y);
}

/* Bytes that the candidate of slot_bytes needs at least; *forced gets those
   of the slabs that are kept or too large for a slot. */
static uint64_t candidate_bytes(const struct sl_slab *slabs, size_t n,
                                bool keep, uint64_t slot_bytes,
                                uint64_t *forced)
{
    *forced = 0;
    for (size_t i = 0; i < n; i++) {
        uint64_t bytes = sl_slab_load_bytes(&slabs[i]);

        if (bytes > slot_bytes || (keep && slabs[i].keep))
            *forced += bytes;
    }
    return *forced + SL_RING_MIN_SLOTS * slot_bytes;
}

/* The largest slab below a size; 0 when there is none. */
static uint64_t largest_below(const struct sl_slab *slabs, size_t n,
                              uint64_t limit)
{
    uint64_t largest = 0;

    for (size_t i = 0; i < n; i++) {
        uint64_t bytes = sl_slab_load_bytes(&slabs[i]);

        if (bytes < limit && bytes > largest)
            largest = bytes;
    }
    return largest;
}

uint64_t sl_plan_least_bytes(const struct sl_slab *slabs, size_t n_slabs,
                             bool keep)
{
    uint64_t least = sl_slabs_load_bytes(slabs, n_slabs);
    uint64_t slot = UINT64_MAX, forced;

    while ((slot = largest_below(slabs, n_slabs, slot)) > 0) {
        uint64_t need = candidate_bytes(slabs, n_slabs, keep, slot, &forced);

        if (need < least)
            least = need;
    }
    return least;
}

/* Walks the order once and makes a slab resident whenever the residents lag
   behind their share of the bytes passed (Bresenham's line). Returns the
   resident bytes. */
static uint64_t spread(const struct planner *p, uint64_t target,
                       enum sl_tier *tier)
{
    double share = (double)target / (double)p->total;
    uint64_t passed = 0, resident = 0;
    uint64_t room = p->room - p->c->forced_bytes;

    for (size_t i = 0; i < p->n; i++) {
        uint64_t bytes = p->load[i];
        bool forced = bytes > p->c->slot_bytes || (p->keep && p->slabs[i].keep);
        double due;

        passed += bytes;
        due = (double)passed * share - (double)resident;
        tier[i] = SL_TIER_DISK;
        /* half a byte: due is rounded */
        if (!forced && (bytes > room || due + 0.5 < (double)bytes))
            continue;
        tier[i] = SL_TIER_RAM;
        resident += bytes;
        if (!forced)
            room -= bytes;
    }
    return resident;
}

/* The streamed slab to keep next: the largest that fits and, among equals,
   the one farthest from any resident. p->n when none fits. */
static size_t pick(const struct planner *p, const enum sl_tier *tier,
                   uint64_t *ahead, uint64_t room)
{
    uint64_t run = 0, best_gap = 0;
    size_t best = p->n;

    for (size_t i = p->n; i-- > 0;) {
        ahead[i] = run;
        run = tier[i] == SL_TIER_RAM ? 0 : run + p->load[i];
    }
    run = 0;
    for (size_t i = 0; i < p->n; i++) {
        uint64_t gap = run < ahead[i] ? run : ahead[i];

        run = tier[i] == SL_TIER_RAM ? 0 : run + p->load[i];
        if (tier[i] == SL_TIER_RAM || p->load[i] > room)
            continue;
        if (best < p->n && (p->load[i] < p->load[best] ||
                            (p->load[i] == p->load[best] && gap <= best_gap)))
            continue;
        best = i;
        best_gap = gap;
    }
    return best;
}

/* Fills what the walk's rounding left over. Returns the resident bytes. */
static uint64_t fill(const struct planner *p, uint64_t resident,
                     enum sl_tier *tier, uint64_t *scratch)
{
    for (;;) {
        size_t i = pick(p, tier, scratch, p->room - resident);

        if (i == p->n)
            return resident;
        tier[i] = SL_TIER_RAM;
        resident += p->load[i];
    }
}

static uint64_t largest_streamed(const struct planner *p,
                                 const enum sl_tier *tier)
{
    uint64_t largest = 0;

    for (size_t i = 0; i < p->n; i++)
        if (tier[i] == SL_TIER_DISK && p->load[i] > largest)
            largest = p->load[i];
    return largest;
}

/* Chooses the tiers for one candidate. Returns the resident bytes. */
static uint64_t choose(struct planner *p, struct candidate *c,
                       uint64_t weights_bytes, enum sl_tier *tier,
                       uint64_t *scratch)
{
    uint64_t slot, resident;

    p->room = weights_bytes - c->n_slots * c->slot_bytes;
    resident = fill(p, spread(p, p->room, tier), tier, scratch);
    /* A line drawn to what really fits has no uneven end. */
    resident = fill(p, spread(p, resident, tier), tier, scratch);
    /* Where all slabs as large as a slot were kept, slots can be smaller. */
    while ((slot = largest_streamed(p, tier)) < c->slot_bytes) {
        c->slot_bytes = slot;
        p->room = weights_bytes - c->n_slots * slot;
        resident = fill(p, resident, tier, scratch);
    }
    return resident;
}

/* As many as are to be read ahead, as long as residents keep what they must
 * have. */
static void candidate_slots(struct candidate *c, uint64_t weights_bytes,
                            uint64_t read_ahead_bytes)
{
    uint64_t ring = weights_bytes / RING_SHARE;

    if (ring > read_ahead_bytes)
        ring = read_ahead_bytes;
    if (ring > weights_bytes - c->forced_bytes)
        ring = weights_bytes - c->forced_bytes;
    c->n_slots = ring / c->slot_bytes;
    if (c->n_slots < SL_RING_MIN_SLOTS)
        c->n_slots = SL_RING_MIN_SLOTS;
    if (c->n_slots > UINT32_MAX)
        c->n_slots = UINT32_MAX;
}

/* Scratch arrays of one planning. */
struct work {
    uint64_t *load, *sizes, *ahead; /* (n) each */
    enum sl_tier *tier;             /* (n) */
};

static void work_fini(struct work *w)
{
    free(w->load);
    free(w->sizes);
    free(w->ahead);
    free(w->tier);
}

static bool work_init(struct work *w, const struct sl_plan_input *in)
{
    *w = (struct work){
        .load = sl_alloc_array(in->n_slabs, sizeof *w->load),
        .sizes = sl_alloc_array(in->n_slabs, sizeof *w->sizes),
        .ahead = sl_alloc_array(in->n_slabs, sizeof *w->ahead),
        .tier = sl_alloc_array(in->n_slabs, sizeof *w->tier),
    };
    if (w->load == NULL || w->sizes == NULL || w->ahead == NULL ||
        w->tier == NULL) {
        work_fini(w);
        return false;
    }
    for (size_t i = 0; i < in->n_slabs; i++)
        w->load[i] = w->sizes[i] = sl_slab_load_bytes(&in->slabs[i]);
    qsort(w->sizes, in->n_slabs, sizeof *w->sizes, descending);
    return true;
}

/* Tries every size of slab as the size of a slot, from the largest down, and
   keeps the layout that streams least, or nearly so and evenly. */
static void search(struct sl_plan *plan, const struct sl_plan_input *in,
                   uint64_t total, struct work *w)
{
    plan->streamed_bytes = UINT64_MAX;
    for (size_t i = 0; i < in->n_slabs; i++) {
        struct candidate c = {.slot_bytes = w->sizes[i]};
        struct planner p = {.slabs = in->slabs,
                            .keep = in->keep,
                            .load = w->load,
                            .n = in->n_slabs,
                            .total = total,
                            .c = &c};
        uint64_t resident;

        if (i > 0 && w->sizes[i] == w->sizes[i - 1])
            continue;
        if (candidate_bytes(in->slabs, in->n_slabs, in->keep, c.slot_bytes,
                            &c.forced_bytes) > in->memory_bytes[SL_HOST])
            continue;
        candidate_slots(&c, in->memory_bytes[SL_HOST], in->read_ahead_bytes);
        resident = choose(&p, &c, in->memory_bytes[SL_HOST], w->tier, w->ahead);
        if (plan->streamed_bytes != UINT64_MAX &&
            total - resident + plan->streamed_bytes / UNEVEN_SHARE >=
                plan->streamed_bytes)
            continue;
        memcpy(plan->tier, w->tier, in->n_slabs * sizeof *w->tier);
        plan->at[SL_HOST].n_slots = (uint32_t)c.n_slots;
        plan->at[SL_HOST].slot_bytes = c.slot_bytes;
        plan->at[SL_HOST].ring_bytes = c.n_slots * c.slot_bytes;
        plan->at[SL_HOST].resident_bytes = resident;
        plan->streamed_bytes = total - resident;
    }
}

/* Refused with both numbers: what is needed does not follow from what is there.
 */
static int check_budget(const struct sl_plan_input *in, struct sl_error *err)
{
    uint64_t least = sl_plan_least_bytes(in->slabs, in->n_slabs, in->keep);
    char need[SL_SIZE_TEXT], have[SL_SIZE_TEXT];

    if (in->memory_bytes[SL_HOST] >= least)
        return 0;
    return sl_fail(err, SL_ERR_BUDGET,
                   "the weights need at least %llu bytes (%s) to pass through, "
                   "%llu bytes (%s) are left for them",
                   (unsigned long long)least, sl_size_format(need, least),
                   (unsigned long long)in->memory_bytes[SL_HOST],
                   sl_size_format(have, in->memory_bytes[SL_HOST]));
}

int sl_plan_init(struct sl_plan *plan, size_t n_slabs, struct sl_error *err)
{
    *plan = (struct sl_plan){
        .tier = sl_zalloc_array(n_slabs, sizeof *plan->tier),
        .worker = {sl_zalloc_array(n_slabs, 1), sl_zalloc_array(n_slabs, 1)},
        .waits = sl_zalloc_array(n_slabs, 1),
        .n_slabs = n_slabs,
    };
    if (plan->tier != NULL && plan->worker[SL_PHASE_DECODE] != NULL &&
        plan->worker[SL_PHASE_PREFILL] != NULL && plan->waits != NULL)
        return 0;
    sl_plan_fini(plan);
    return sl_fail(err, SL_ERR_NOMEM, "no memory to plan %zu slabs", n_slabs);
}

/* Without a GPU: disk and RAM. */
static int make_plain(struct sl_plan *plan, const struct sl_plan_input *in,
                      struct sl_error *err)
{
    struct sl_plan made;
    uint64_t total = 0;
    struct work w;

    if (check_budget(in, err) != 0 || sl_plan_init(&made, in->n_slabs, err))
        return -1;
    if (!work_init(&w, in)) {
        sl_plan_fini(&made);
        return sl_fail(err, SL_ERR_NOMEM, "no memory to plan %zu slabs",
                       in->n_slabs);
    }
    for (size_t i = 0; i < in->n_slabs; i++)
        total += w.load[i];
    if (total <= in->memory_bytes[SL_HOST]) {
        for (size_t i = 0; i < in->n_slabs; i++)
            made.tier[i] = SL_TIER_RAM;
        made.at[SL_HOST].resident_bytes = total;
    } else {
        search(&made, in, total, &w);
    }
    work_fini(&w);
    /* Of compressed slabs less is read than they take. */
    made.streamed_bytes = 0;
    for (size_t i = 0; i < in->n_slabs; i++) {
        if (made.tier[i] == SL_TIER_DISK)
            made.streamed_bytes += sl_slab_read_bytes(&in->slabs[i]);
    }
    *plan = made;
    return 0;
}

/* --- with a GPU ----------------------------------------------------------- */

/* The CPU holds all caches. */
static struct sl_plan_input without_gpu(const struct sl_plan_input *in)
{
    struct sl_plan_input plain = *in;

    for (size_t i = 0; i < in->n_stages; i++) {
        uint64_t kv = in->stages[i].kv_bytes[SL_HOST];

        plain.memory_bytes[SL_HOST] -=
            kv < plain.memory_bytes[SL_HOST] ? kv : plain.memory_bytes[SL_HOST];
    }
    return plain;
}

static int refuse_gpu(const struct sl_plan_input *in, struct sl_error *err)
{
    uint64_t slot = sl_slabs_largest(in->slabs, in->n_slabs), kv = 0;
    char least[SL_SIZE_TEXT], have[SL_SIZE_TEXT], ring[SL_SIZE_TEXT],
        turn[SL_SIZE_TEXT], all[SL_SIZE_TEXT], ram[SL_SIZE_TEXT];

    for (size_t i = 0; i < in->n_stages; i++)
        kv += in->stages[i].kv_bytes[SL_DEVICE];
    if (sl_plan_least_kv(kv, in->turn_bytes) < kv)
        return sl_fail(
            err, SL_ERR_BUDGET,
            "the GPU alone needs %s of VRAM (%s for three slots, %s for a KV "
            "cache that waits in RAM), there are %s for them; and %s of RAM (as "
            "much for its ring, the KV cache), there are %s",
            sl_size_format(least, SL_RING_MIN_SLOTS * slot + in->turn_bytes),
            sl_size_format(ring, SL_RING_MIN_SLOTS * slot),
            sl_size_format(turn, in->turn_bytes),
            sl_size_format(have, in->memory_bytes[SL_DEVICE]),
            sl_size_format(all, SL_RING_MIN_SLOTS * slot + kv),
            sl_size_format(ram, in->memory_bytes[SL_HOST]));
    return sl_fail(err, SL_ERR_BUDGET,
                   "the GPU alone needs %s of VRAM (%s for three slots, the "
                   "KV cache) and the ring in RAM as much; there are %s of "
                   "VRAM for them",
                   sl_size_format(least, SL_RING_MIN_SLOTS * slot + kv),
                   sl_size_format(ring, SL_RING_MIN_SLOTS * slot),
                   sl_size_format(have, in->memory_bytes[SL_DEVICE]));
}

/* The faster of a plan with the GPU and the best one without. */
static int make_either(struct sl_plan *plan, const struct sl_plan_input *in,
                       struct sl_error *err)
{
    struct sl_plan_input plain = without_gpu(in);
    struct sl_error refused;
    struct sl_plan other;
    bool found;

    if (sl_plan_hybrid(plan, &found, in, err) != 0)
        return -1;
    if (!found && in->engine == SL_ENGINE_RULE_GPU)
        return refuse_gpu(in, err);
    if (!found)
        return make_plain(plan, &plain, err);
    if (in->engine == SL_ENGINE_RULE_GPU ||
        make_plain(&other, &plain, &refused) != 0)
        return 0;
    if (sl_plan_better(&other, plan, in)) {
        struct sl_plan worse = *plan;

        *plan = other;
        other = worse;
    }
    sl_plan_fini(&other);
    return 0;
}

int sl_plan_make(struct sl_plan *plan, const struct sl_plan_input *in,
                 struct sl_error *err)
{
    struct sl_plan_input plain;

    if (in->memory_bytes[SL_DEVICE] == 0 ||
        in->rates.worker[SL_DEVICE].link_bps <= 0 ||
        in->engine == SL_ENGINE_RULE_CPU || in->n_slabs == 0) {
        plain = without_gpu(in);
        return make_plain(plan, &plain, err);
    }
    return make_either(plan, in, err);
}

void sl_plan_fini(struct sl_plan *plan)
{
    free(plan->tier);
    free(plan->waits);
    for (int p = 0; p < SL_PHASE_COUNT; p++)
        free(plan->worker[p]);
    memset(plan, 0, sizeof *plan);
}
