#include "config.h"

#include <stdlib.h>

#include "kernels/matmul.h"
#include "src/base/bytes.h"
#include "src/base/mem.h"
#include "src/probe/meminfo.h"
#include "src/probe/probe.h"
#include "src/runtime/runtime_impl.h"

/* Everything that a plan takes from this machine is learnt here, before the
 * plan is made: a plan follows from sizes and rates. */

void sl_runtime_measure_memory(struct sl_runtime *rt)
{
    rt->program_bytes = rt->config.program_bytes > 0 && rt->device == NULL
                            ? rt->config.program_bytes
                            : sl_meminfo_program();
    rt->available_bytes = rt->config.free_bytes > 0 ? rt->config.free_bytes
                                                    : sl_meminfo_available();
    rt->granted_bytes =
        rt->config.free_bytes > 0 ? UINT64_MAX : sl_meminfo_limit();
}

/* --- disk, memory, arithmetic --------------------------------------------- */

/* Buffers of the measurements stay within what the plan gives to weights;
 * reads need little to run at full rate, DRAM as much as there is. */
#define PROBE_DISK_BYTES (16ull << 20)
#define PROBE_LEAST      (256ull << 10)

void sl_runtime_arithmetic(const struct sl_runtime *rt, enum sl_fmt *fmt,
                           uint32_t *group_cols, enum sl_act *act)
{
    const struct sl_matrix *m = &rt->mf.matrices[0].geom;

    *fmt = m->fmt;
    *group_cols = m->group_cols < m->cols ? m->group_cols : 0;
    *act = sl_matmul_takes(&rt->kernels, m, rt->act) ? rt->act : SL_ACT_F32;
}

/* In the format, and with the inputs, that nearly all products of this file
 * have: rates of formats differ by several times. */
static int measure_arithmetic(const struct sl_runtime *rt,
                              struct sl_rates *rates, uint64_t time_ns,
                              uint64_t most_bytes, struct sl_error *err)
{
    struct sl_probe_ops_config products = {
        .kernels = &rt->kernels,
        .pool = rt->pool,
        .most_bytes = most_bytes,
        .time_ns = time_ns,
    };
    struct sl_probe_attend_config attention = {
        .kernels = &rt->kernels,
        .pool = rt->pool,
        .most_bytes = most_bytes,
        .time_ns = time_ns,
    };

    sl_runtime_arithmetic(rt, &products.fmt, &products.group_cols,
                          &products.act);
    if (sl_probe_ops(&rates->worker[SL_HOST].ops_per_s, &products, err) != 0)
        return -1;
    return sl_probe_attend(&rates->worker[SL_HOST].attention_ops_per_s,
                           &attention, err);
}

int sl_runtime_measure_arithmetic(struct sl_runtime *rt, struct sl_rates *rates,
                                  uint64_t time_ns, struct sl_error *err)
{
    return measure_arithmetic(rt, rates, time_ns, 0, err);
}

int sl_runtime_read_extents(const struct sl_runtime *rt,
                            struct sl_extent **extents, size_t *n,
                            struct sl_error *err)
{
    const struct sl_plan *plan = &rt->plan;
    struct sl_order order = sl_plan_order(plan);

    *extents = NULL;
    *n = 0;
    if (plan->tier == NULL || plan->streamed_bytes == 0)
        return 0;
    *extents = sl_alloc_array(order.n * SL_SLAB_EXTENTS, sizeof **extents);
    if (*extents == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory to list %zu slabs",
                       order.n);
    for (size_t i = 0; i < order.n; i++) {
        size_t slab = sl_order_slab(&order, i);
        const struct sl_slab *s = &rt->partition.slabs[slab];

        if (plan->tier[slab] != SL_TIER_DISK)
            continue;
        for (uint32_t k = 0; k < s->n_extents; k++)
            (*extents)[(*n)++] = sl_slab_read_extent(s, k);
    }
    return 0;
}

void sl_runtime_files(const struct sl_runtime *rt, const char **path,
                      const char **mirror)
{
    struct sl_mirror *m = rt->mf.mirror;
    bool first_out = m != NULL && sl_mirror_is_out(m, 0);
    bool second_out = m != NULL && sl_mirror_is_out(m, 1);

    *path = first_out ? sl_mirror_path(m, 1) : rt->mf.path;
    *mirror =
        m == NULL || first_out || second_out ? NULL : sl_mirror_path(m, 1);
}

/* Over the runs of the file that passes read, and with the reads that they
 * use: drives are faster in some places, and file systems in some patterns. */
static int measure_disk(struct sl_runtime *rt, uint64_t room,
                        struct sl_error *err)
{
    struct sl_extent *extents;
    struct sl_probe_disk_config disk = {
        .mirror_bps = &rt->rates.mirror_bps,
        .io = rt->config.io,
        .buffer_bytes = room < PROBE_DISK_BYTES ? room : PROBE_DISK_BYTES,
    };
    int rc;

    sl_runtime_files(rt, &disk.path, &disk.mirror);
    if (disk.buffer_bytes < PROBE_LEAST)
        disk.buffer_bytes = PROBE_LEAST;
    if (sl_runtime_read_extents(rt, &extents, &disk.n_extents, err) != 0)
        return -1;
    disk.extents = extents;
    rc = sl_probe_disk(&rt->rates.disk_bps, &disk, err);
    free(extents);
    return rc;
}

int sl_runtime_measure_rates(struct sl_runtime *rt, uint64_t room,
                             struct sl_error *err)
{
    struct sl_probe_dram_config dram = {.pool = rt->pool};
    struct sl_dram_rate rate;

    if (measure_disk(rt, room, err) != 0)
        return -1;
    dram.most_bytes =
        room < PROBE_LEAST ? PROBE_LEAST : sl_round_down(room, SL_PAGE_BYTES);
    if (sl_probe_dram(&rate, &dram, err) != 0)
        return -1;
    rt->rates.dram_bps = rate.bps;
    rt->dram_in_cache = !rate.beyond_cache;
    if (measure_arithmetic(rt, &rt->rates, 0, dram.most_bytes, err) != 0)
        return -1;
    rt->rates_known = true;
    return 0;
}

bool sl_runtime_dram_in_cache(const struct sl_runtime *rt)
{
    return rt->dram_in_cache;
}

bool sl_runtime_gpu_measured(const struct sl_runtime *rt)
{
    return rt->gpu_measured;
}

/* --- a device ------------------------------------------------------------- */

/* Memory that the measurements of disk and DRAM may take: they end before
 * weights are read. */
#define PROBE_BYTES (64ull << 20)
/* Copied to the device and within it. */
#define COPY_BYTES (16ull << 20)

#define VRAM_PART 0.92 /* of its clock's rate, the most seen by copies */

static void measure_kernels(struct sl_runtime *rt)
{
    struct sl_worker *w = &rt->rates.worker[SL_DEVICE];
    struct sl_kernel_rates kernels = {0};
    struct sl_error ignored;

    rt->gpu_measured =
        !sl_gpu_is_simulated() &&
        sl_gpu_measure(&kernels, rt->cuda, rt->device, SL_GPU_MEASURED_SIDE,
                       SL_GPU_MEASURED_POSITIONS, &ignored) == 0;
    w->ops_per_s =
        rt->gpu_measured ? kernels.ops_per_s : sl_device_ops(&rt->device->info);
    w->stage_s = rt->gpu_measured ? kernels.stage_s : SL_GUESS_STAGE_S;
}

int sl_runtime_measure_device(struct sl_runtime *rt, struct sl_error *err)
{
    const struct sl_device_info *info = &rt->device->info;
    struct sl_worker *w = &rt->rates.worker[SL_DEVICE];
    struct sl_device_rates device;
    uint64_t bytes = COPY_BYTES;

    if (bytes > info->vram_free / 8)
        bytes = sl_round_up(info->vram_free / 8, SL_PAGE_BYTES);
    if (sl_runtime_measure_rates(rt, PROBE_BYTES, err) != 0 ||
        sl_probe_device(&device, rt->device, bytes, err) != 0)
        return -1;
    w->link_bps = device.up_bps;
    w->link_latency_s =
        sl_gpu_is_simulated() ? SL_GUESS_HAND_OVER_S : device.hand_over_s;
    w->memory_bps = device.vram_bps;
    /* So few bytes may have stayed in its cache. */
    if (info->vram_bps > 0 &&
        w->memory_bps > VRAM_PART * (double)info->vram_bps)
        w->memory_bps = VRAM_PART * (double)info->vram_bps;
    measure_kernels(rt);
    return 0;
}
