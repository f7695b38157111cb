#include "config.h"

#include <stdbool.h>
#include <string.h>

#include "offload/cost.h"

static double least(double a, double b)
{
    return a < b ? a : b;
}

static double most(double a, double b)
{
    return a > b ? a : b;
}

/* Seconds of n units; what has no rate takes no time. */
static double over(double n, double rate)
{
    return rate > 0 ? n / rate : 0;
}

/* Attention's rate is one of its own where one was measured: on the host it is
   in FP32 whatever the products are in. */
static double kv_seconds(const struct sl_worker *w,
                         const struct sl_worker_demand *d, double memory_bps)
{
    double ops_per_s =
        w->attention_ops_per_s > 0 ? w->attention_ops_per_s : w->ops_per_s;

    return most(over(d->kv_bytes, memory_bps), over(d->kv_ops, ops_per_s));
}

static double seconds_of(const struct sl_worker *w,
                         const struct sl_worker_demand *d, double memory_bps)
{
    return over(d->unpack_bytes, memory_bps) +
           most(over(d->bytes, memory_bps), over(d->ops, w->ops_per_s)) +
           kv_seconds(w, d, memory_bps) + d->stages * w->stage_s +
           d->crossings * w->link_latency_s +
           over(d->crossing_bytes, w->link_bps);
}

/* Cores alone seldom read all that DRAM gives; where it is not known what they
   read, they do. */
static double memory_bps(const struct sl_rates *r, uint32_t worker)
{
    double bps = r->worker[worker].memory_bps;

    return worker == SL_HOST && bps <= 0 ? r->dram_bps : bps;
}

double sl_cost_seconds(const struct sl_rates *r, const struct sl_demand *d,
                       uint32_t worker)
{
    return seconds_of(&r->worker[worker], &d->by[worker],
                      memory_bps(r, worker));
}

double sl_cost_kv_seconds(const struct sl_rates *r, const struct sl_demand *d,
                          uint32_t worker)
{
    return kv_seconds(&r->worker[worker], &d->by[worker],
                      memory_bps(r, worker));
}

/* What DRAM gives and takes: linked_s are the seconds in which it has nothing
   to do but to feed links and to be fed by the disk. */
static double dram_seconds(const struct sl_rates *r, const struct sl_demand *d,
                           double linked_s)
{
    const struct sl_worker_demand *host = &d->by[SL_HOST];
    double copied = 0, beside = 0, bytes, moved;

    for (uint32_t i = SL_DEVICE; i < SL_WORKERS; i++) {
        copied += d->by[i].copy_bytes;
        beside += r->worker[i].link_bps;
    }
    beside += r->disk_bps;
    bytes = host->bytes + host->kv_bytes + copied + d->disk_bytes;
    moved =
        least(linked_s * least(beside, r->dram_bps), copied + d->disk_bytes);
    if (bytes <= moved)
        return bytes / r->dram_bps;
    return most(bytes / r->dram_bps, linked_s + (bytes - moved) / r->dram_bps);
}

/* Takes note of what takes longer than anything before. */
static void longest(struct sl_floor *f, double seconds, enum sl_limit limit)
{
    if (seconds <= f->seconds)
        return;
    f->seconds = seconds;
    f->limit = limit;
}

struct sl_floor sl_floor_of(const struct sl_rates *r, const struct sl_demand *d)
{
    struct sl_floor f = {
        .disk_s = over(d->disk_bytes, r->disk_bps),
        .limit = SL_LIMIT_DISK,
    };
    double linked_s = 0, slowest = 0;

    for (uint32_t i = 0; i < SL_WORKERS; i++) {
        const struct sl_worker *w = &r->worker[i];

        /* The host's reads are DRAM's seconds already, unless it reads less
           than DRAM gives. */
        f.worker_s[i] = seconds_of(w, &d->by[i], w->memory_bps);
        if (i == SL_HOST)
            continue;
        f.link_s = most(f.link_s, over(d->by[i].copy_bytes, w->link_bps));
        linked_s += f.worker_s[i];
        slowest = most(slowest, f.worker_s[i]);
    }
    if (r->dram_bps > 0)
        f.dram_s = dram_seconds(r, d, linked_s);
    f.seconds = f.disk_s;
    longest(&f, f.dram_s, SL_LIMIT_DRAM);
    longest(&f, f.link_s, SL_LIMIT_LINK);
    longest(&f, linked_s + f.worker_s[SL_HOST],
            slowest > f.worker_s[SL_HOST] ? SL_LIMIT_DEVICE : SL_LIMIT_HOST);
    return f;
}

struct sl_floor sl_floor_make(const struct sl_rates *rates,
                              uint64_t streamed_bytes, uint64_t resident_bytes,
                              double operations)
{
    struct sl_demand work = {
        .disk_bytes = (double)streamed_bytes,
        .by[SL_HOST] =
            {
                .bytes = (double)streamed_bytes + (double)resident_bytes,
                .ops = operations,
            },
    };

    return sl_floor_of(rates, &work);
}

/* --- many positions of packed weights ------------------------------------- */

#define MOST_RUNS 4
/* Of the rate of products of FP16 weights: what runs, which unpack as they
 * multiply, are taken to reach (bench/RESULTS.md, "65 to 256 positions"). */
#define RUN_RATE 0.85

/* Whole tiles of positions are multiplied. */
static double padded(double rows)
{
    double tile = 8;

    while (tile < SL_COST_RUN && tile < rows)
        tile *= 2;
    return tile;
}

/* In runs. */
static void add_runs(struct sl_worker_demand *d, const struct sl_products *p)
{
    for (double left = p->rows; left > 0; left -= SL_COST_RUN) {
        d->bytes += p->bytes;
        d->ops += p->ops * padded(left) / RUN_RATE;
    }
}

static void add_unpacked(struct sl_worker_demand *d,
                         const struct sl_products *p)
{
    d->unpack_bytes += p->bytes + p->wide_bytes;
    d->bytes += p->wide_bytes;
    d->ops += p->ops * p->rows;
}

uint32_t sl_cost_runs_to(const struct sl_worker *w, double bytes_per_weight)
{
    uint32_t runs = 1;

    if (w->memory_bps <= 0 || w->ops_per_s <= 0)
        return SL_COST_RUN;
    for (; runs < MOST_RUNS; runs++) {
        struct sl_products p = {.bytes = bytes_per_weight,
                                .wide_bytes = 2,
                                .ops = 2,
                                .rows = (runs + 1.0) * SL_COST_RUN};
        struct sl_worker_demand in_runs = {0}, unpacked = {0};

        add_runs(&in_runs, &p);
        add_unpacked(&unpacked, &p);
        if (seconds_of(w, &in_runs, w->memory_bps) >=
            seconds_of(w, &unpacked, w->memory_bps))
            break;
    }
    return runs * SL_COST_RUN;
}

void sl_cost_add_products(struct sl_worker_demand *d, const struct sl_worker *w,
                          const struct sl_products *p)
{
    if (p->rows > SL_COST_RUN && p->wide_bytes > 0) {
        if (p->rows <= sl_cost_runs_to(w, 2 * p->bytes / p->wide_bytes))
            add_runs(d, p);
        else
            add_unpacked(d, p);
        return;
    }
    d->bytes += p->bytes;
    d->ops += p->ops * p->rows;
}

const char *sl_limit_name(enum sl_limit limit)
{
    static const char *const names[] = {
        [SL_LIMIT_DISK] = "disk",    [SL_LIMIT_DRAM] = "dram",
        [SL_LIMIT_HOST] = "compute", [SL_LIMIT_LINK] = "pcie",
        [SL_LIMIT_DEVICE] = "gpu",
    };

    return names[limit];
}

/* --- one step after another ----------------------------------------------- */

enum { READ, COPY, CORES, USERS };

/* Max-min fair shares: whoever wants less than an equal part of what is left
   gets what it wants. */
static void share(double rate[USERS], double all)
{
    bool served[USERS] = {false};
    int left = USERS;

    if (all <= 0 || rate[READ] + rate[COPY] + rate[CORES] <= all)
        return;
    while (left > 0) {
        int least_user = -1;

        for (int i = 0; i < USERS; i++) {
            if (!served[i] && (least_user < 0 || rate[i] < rate[least_user]))
                least_user = i;
        }
        rate[least_user] = least(rate[least_user], all / left);
        all -= rate[least_user];
        served[least_user] = true;
        left--;
    }
}

/* An empty ring gives no more than comes in, a full one takes no more than goes
   out. take: of each byte copied. True if that changed a rate. */
static bool couple(const struct sl_timeline *w, double rate[USERS], double take)
{
    if (take > 0 && w->read <= 0 && rate[COPY] * take > rate[READ]) {
        rate[COPY] = rate[READ] / take;
        return true;
    }
    if (w->read >= w->most_read && rate[READ] > rate[COPY] * take) {
        rate[READ] = rate[COPY] * take;
        return true;
    }
    return false;
}

/* Halves what is missing to rates that are both shared and coupled. */
#define ROUNDS 5

/* Rates at this moment. room: for bytes that are copied. */
static void set_rates(const struct sl_timeline *w, double rate[USERS],
                      double room)
{
    double take = w->from_disk, wants[USERS];

    rate[COPY] = w->copied < room ? w->copy_bps : 0;
    rate[READ] = take > 0 ? w->disk_bps : 0;
    couple(w, rate, take);
    memcpy(wants, rate, sizeof wants);
    for (int i = 0; i < ROUNDS; i++) {
        double before[USERS];

        memcpy(rate, wants, sizeof wants);
        share(rate, w->dram_bps);
        memcpy(before, rate, sizeof before);
        if (!couple(w, rate, take))
            return;
        /* What one of them cannot use the others may. */
        for (int u = READ; u <= COPY; u++) {
            if (rate[u] < before[u])
                wants[u] = (before[u] + rate[u]) / 2;
        }
    }
}

/* Seconds for which these rates hold. */
static double until_change(const struct sl_timeline *w,
                           const double rate[USERS], double room)
{
    double net = rate[READ] - rate[COPY] * w->from_disk, s = 1e9;

    if (rate[COPY] > 0)
        s = least(s, (room - w->copied) / rate[COPY]);
    /* less than a byte a second is rounding */
    if (net > 1)
        s = least(s, (w->most_read - w->read) / net);
    if (net < -1)
        s = least(s, w->read / -net);
    return s;
}

/* More changes than any step sees. */
#define MOST_CHANGES 1000

/* Within 0 and most, and one of them where less than a byte is missing. */
static double snap(double bytes, double most_bytes)
{
    if (bytes < 1)
        return 0;
    return bytes > most_bytes - 1 ? most_bytes : bytes;
}

/* Without a device the ring in RAM plays the device's part, filled from disk.
 */
static void one_ring(struct sl_timeline *w)
{
    w->copy_bps = w->disk_bps;
    w->most_copied = w->most_read;
    w->from_disk = 0;
}

/* One kind of work, of so many seconds alone, that reads so many bytes of
   DRAM, with so many moved near before it ends. */
static double run(struct sl_timeline *w, double seconds, double dram_bytes,
                  double moved_bytes)
{
    double left = 1, total = 0, room = w->most_copied + moved_bytes;

    if (w->copy_bps <= 0 || seconds <= 0)
        return seconds;
    for (int i = 0; i < MOST_CHANGES; i++) {
        double wants = left > 0 ? dram_bytes / seconds : 0;
        double rate[USERS] = {[CORES] = wants}, slow, t;

        set_rates(w, rate, room);
        slow = wants > 0 ? rate[CORES] / wants : 1;
        if (left > 0)
            t = left * seconds / slow;
        else if (w->copied < moved_bytes && rate[COPY] > 0)
            t = (moved_bytes - w->copied) / rate[COPY];
        else
            break;
        t = least(t, until_change(w, rate, room));
        left -= t * slow / seconds;
        if (left < 1e-9)
            left = 0;
        w->copied = snap(w->copied + t * rate[COPY], room);
        w->read = snap(w->read + t * (rate[READ] - rate[COPY] * w->from_disk),
                       w->most_read);
        if (w->copied > moved_bytes - 1)
            w->copied = most(w->copied, moved_bytes);
        total += t;
    }
    w->copied = most(0, w->copied - moved_bytes);
    return total + left * seconds;
}

/* Of the products of an attention, those of queries, keys and values. */
#define BEFORE_ATTENTION 0.75

double sl_timeline_step(struct sl_timeline *w, const struct sl_step *s)
{
    double bytes = s->dram_bytes, first = BEFORE_ATTENTION, t;

    if (w->from_disk > 0 && w->copy_bps <= 0)
        one_ring(w);
    if (s->kv_seconds <= 0)
        return run(w, s->seconds, bytes, s->moved_bytes);
    t = run(w, first * s->seconds, first * bytes, first * s->moved_bytes);
    t += run(w, s->kv_seconds, s->kv_bytes, 0);
    return t + run(w, (1 - first) * s->seconds, (1 - first) * bytes,
                   (1 - first) * s->moved_bytes);
}
