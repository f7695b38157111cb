#include "config.h"

#include <stdbool.h>

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

double sl_cost_gpu_seconds(const struct sl_rates *r, const struct sl_demand *d)
{
    return most(over(d->gpu_bytes, r->vram_bps),
                over(d->gpu_ops, r->gpu_ops_per_s)) +
           most(over(d->gpu_kv_bytes, r->vram_bps),
                over(d->gpu_kv_ops, r->gpu_ops_per_s)) +
           d->gpu_stages * r->gpu_stage_s + d->crossings * r->pcie_latency_s +
           over(d->crossing_bytes, r->pcie_bps);
}

/* With a rate of the cores of 0, memory is free. */
static double cpu_seconds(const struct sl_rates *r, const struct sl_demand *d,
                          double dram_bps)
{
    return most(over(d->cpu_ops, r->ops_per_s), over(d->cpu_bytes, dram_bps)) +
           most(over(d->cpu_kv_ops, r->ops_per_s),
                over(d->cpu_kv_bytes, dram_bps));
}

double sl_cost_cpu_seconds(const struct sl_rates *r, const struct sl_demand *d)
{
    return cpu_seconds(r, d,
                       r->cpu_dram_bps > 0 ? r->cpu_dram_bps : r->dram_bps);
}

struct sl_floor sl_floor_of(const struct sl_rates *r, const struct sl_demand *d)
{
    double bytes =
        d->cpu_bytes + d->cpu_kv_bytes + d->copy_bytes + d->disk_bytes;
    double beside = r->pcie_bps + r->disk_bps; /* while the GPU computes */
    struct sl_floor f = {
        .disk_s = over(d->disk_bytes, r->disk_bps),
        .pcie_s = over(d->copy_bytes, r->pcie_bps),
        .compute_s = cpu_seconds(r, d, r->cpu_dram_bps),
        .gpu_s = sl_cost_gpu_seconds(r, d),
        .limit = SL_LIMIT_DISK,
    };
    double engines = f.gpu_s + f.compute_s;

    if (r->dram_bps > 0) {
        double moved = least(f.gpu_s * least(beside, r->dram_bps),
                             d->copy_bytes + d->disk_bytes);

        f.dram_s = bytes / r->dram_bps;
        if (bytes > moved)
            f.dram_s = most(f.dram_s, f.gpu_s + (bytes - moved) / r->dram_bps);
    }
    f.seconds = f.disk_s;
    if (f.dram_s > f.seconds) {
        f.seconds = f.dram_s;
        f.limit = SL_LIMIT_DRAM;
    }
    if (f.pcie_s > f.seconds) {
        f.seconds = f.pcie_s;
        f.limit = SL_LIMIT_PCIE;
    }
    if (engines > f.seconds) {
        f.seconds = engines;
        f.limit = f.gpu_s > f.compute_s ? SL_LIMIT_GPU : SL_LIMIT_COMPUTE;
    }
    return f;
}

struct sl_floor sl_floor_make(const struct sl_rates *rates,
                              uint64_t streamed_bytes, uint64_t resident_bytes,
                              double operations)
{
    struct sl_demand work = {
        .disk_bytes = (double)streamed_bytes,
        .cpu_bytes = (double)streamed_bytes + (double)resident_bytes,
        .cpu_ops = operations,
    };

    return sl_floor_of(rates, &work);
}

const char *sl_limit_name(enum sl_limit limit)
{
    static const char *const names[] = {
        [SL_LIMIT_DISK] = "disk",       [SL_LIMIT_DRAM] = "dram",
        [SL_LIMIT_COMPUTE] = "compute", [SL_LIMIT_PCIE] = "pcie",
        [SL_LIMIT_GPU] = "gpu",
    };

    return names[limit];
}

/* --- one step after another ----------------------------------------------- */

/* How fast each of two goes beside the other, as parts of what it could alone,
   when they want more of DRAM than it has: fair shares, but who wants less
   than half gets that. */
static void slow_down(double *a, double want_a, double *b, double want_b,
                      double all)
{
    double half = all / 2;

    *a = *b = 1;
    if (all <= 0 || want_a + want_b <= all)
        return;
    if (want_a < half)
        *b = (all - want_a) / want_b;
    else if (want_b < half)
        *a = (all - want_b) / want_a;
    else {
        *a = half / want_a;
        *b = half / want_b;
    }
}

/* Moves for so long at part of the rate, but no farther ahead than there is
   room; what the step needs is gone then. Returns how long what was needed is
   still missing. */
static double move_on(struct sl_walk *w, double seconds, double part,
                      double need)
{
    double late;

    w->ahead =
        least(w->ahead + w->moving_bps * part * seconds - need, w->most_ahead);
    if (w->ahead >= 0)
        return 0;
    late = -w->ahead / w->moving_bps;
    w->ahead = 0;
    return late;
}

double sl_walk_step(struct sl_walk *w, const struct sl_step *s)
{
    double cores, moving, full;

    if (w->moving_bps <= 0)
        return s->seconds;
    if (s->gpu || s->seconds <= 0)
        return s->seconds + move_on(w, s->seconds, 1, s->moved_bytes);
    slow_down(&cores, s->dram_bytes / s->seconds, &moving,
              w->moving_bps * w->moving_dram, w->dram_bps);
    /* Once there is no more room, the cores have DRAM for themselves. */
    full =
        (w->most_ahead - w->ahead + s->moved_bytes) / (w->moving_bps * moving);
    if (full * cores < s->seconds) {
        w->ahead = w->most_ahead;
        return full + (s->seconds - full * cores);
    }
    return s->seconds / cores +
           move_on(w, s->seconds / cores, moving, s->moved_bytes);
}
