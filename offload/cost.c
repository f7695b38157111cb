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

/* The GPU's own seconds, hand-overs between the engines included. */
static double gpu_seconds(const struct sl_rates *r, const struct sl_demand *d)
{
    return most(over(d->gpu_bytes, r->vram_bps),
                over(d->gpu_ops, r->gpu_ops_per_s)) +
           over(d->gpu_kv_bytes, r->vram_bps) + d->gpu_stages * r->gpu_stage_s +
           d->crossings * r->pcie_latency_s +
           over(d->crossing_bytes, r->pcie_bps);
}

/* The cores' own seconds, if they can read so fast. */
static double cpu_seconds(const struct sl_rates *r, const struct sl_demand *d,
                          double dram_bps)
{
    return most(over(d->cpu_ops, r->ops_per_s), over(d->cpu_bytes, dram_bps)) +
           over(d->cpu_kv_bytes, dram_bps);
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
        .gpu_s = gpu_seconds(r, d),
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

/* --- sharing DRAM --------------------------------------------------------- */

enum { DISK, COPY, CORES, USERS };

/* Max-min fair shares: whoever wants less than an equal part of what is left
   gets all it wants. */
static void share(double got[USERS], const double want[USERS], double all)
{
    unsigned left = USERS;

    for (int i = 0; i < USERS; i++)
        got[i] = -1;
    while (left > 0) {
        double part = all / left;
        bool served = false;

        for (int i = 0; i < USERS; i++) {
            if (got[i] >= 0 || want[i] > part)
                continue;
            got[i] = want[i];
            all -= want[i];
            left--;
            served = true;
            break;
        }
        if (served)
            continue;
        for (int i = 0; i < USERS; i++) {
            if (got[i] < 0)
                got[i] = part;
        }
        return;
    }
}

double sl_cost_seconds(const struct sl_rates *r, const struct sl_demand *d)
{
    double gpu = gpu_seconds(r, d), both, late, cores_slow, moving_slow;
    double cores =
        cpu_seconds(r, d, r->cpu_dram_bps > 0 ? r->cpu_dram_bps : r->dram_bps);
    double moving = most(over(d->disk_bytes, r->disk_bps),
                         over(d->copy_bytes, r->pcie_bps));
    double want[USERS], got[USERS];

    moving = most(moving, over(d->disk_bytes + d->copy_bytes, r->dram_bps));
    if (r->dram_bps <= 0 || cores <= 0 || moving <= gpu)
        return most(gpu + cores, moving);
    want[DISK] = d->disk_bytes / moving;
    want[COPY] = d->copy_bytes / moving;
    want[CORES] = (d->cpu_bytes + d->cpu_kv_bytes) / cores;
    share(got, want, r->dram_bps);
    /* How much longer each takes while both go on. */
    cores_slow = want[CORES] > 0 ? want[CORES] / got[CORES] : 1;
    moving_slow = (want[DISK] + want[COPY]) / (got[DISK] + got[COPY]);
    late = (moving - gpu) * moving_slow; /* its end, if cores never end */
    both = least(cores * cores_slow, late);
    return gpu + both + (cores - both / cores_slow) +
           (moving - gpu - both / moving_slow);
}
