#include "config.h"

#include <string.h>

#include "offload/sim_machine.h"

#define GB           1e9
#define GIB          (1ull << 30)
#define DRIVER_BYTES 900000000u

/* What such parts sustain, which is less than their nominal rates. Two channels
   of DDR4-3200 or of DDR5-6000; PCIe 4.0 x16; NVMe of 7 GB/s nominal. A 3090
   and a 4090 have 24 GiB of which a driver keeps 0.9 GB, a 3060 has 12. 6 ms of
   a pass are launches: 43 us for each of the 141 stages of GLM-130B. */
#define DDR4 .dram_bps = 43 * GB, .worker[SL_HOST].memory_bps = 40 * GB
#define DDR5 .dram_bps = 80 * GB, .worker[SL_HOST].memory_bps = 74 * GB
#define PCIE                                                                   \
    .worker[SL_DEVICE].link_bps = 25 * GB,                                     \
    .worker[SL_DEVICE].link_latency_s = 10e-6
#define NVME .disk_bps = 6.6 * GB, .disk_latency_s = 80e-6
#define RTX3060                                                                \
    .worker[SL_DEVICE].memory_bps = 300 * GB,                                  \
    .worker[SL_DEVICE].ops_per_s = 20e12
#define RTX3090                                                                \
    .worker[SL_DEVICE].memory_bps = 800 * GB,                                  \
    .worker[SL_DEVICE].ops_per_s = 60e12
#define RTX4090                                                                \
    .worker[SL_DEVICE].memory_bps = 860 * GB,                                  \
    .worker[SL_DEVICE].ops_per_s = 130e12
#define LAUNCH .worker[SL_DEVICE].stage_s = 43e-6

#define CORES_6_AVX2  .worker[SL_HOST].ops_per_s = 0.6e12
#define CORES_8_AVX2  .worker[SL_HOST].ops_per_s = 0.8e12
#define CORES_16_VNNI .worker[SL_HOST].ops_per_s = 2.5e12

static const struct sl_machine_spec specs[] = {
    {
        .name = "rtx3090-ddr4",
        .rates = {NVME, DDR4, PCIE, RTX3090, LAUNCH, CORES_8_AVX2},
        .memory_bytes[SL_DEVICE] = 24 * GIB - DRIVER_BYTES,
        .memory_bytes[SL_HOST] = 64 * GIB,
    },
    {
        .name = "rtx3090-ddr5",
        .rates = {NVME, DDR5, PCIE, RTX3090, LAUNCH, CORES_16_VNNI},
        .memory_bytes[SL_DEVICE] = 24 * GIB - DRIVER_BYTES,
        .memory_bytes[SL_HOST] = 64 * GIB,
    },
    {
        .name = "rtx4090-ddr5",
        .rates = {NVME, DDR5, PCIE, RTX4090, LAUNCH, CORES_16_VNNI},
        .memory_bytes[SL_DEVICE] = 24 * GIB - DRIVER_BYTES,
        .memory_bytes[SL_HOST] = 64 * GIB,
    },
    {
        .name = "rtx3060-ddr4-nvme",
        .rates = {NVME, DDR4, PCIE, RTX3060, LAUNCH, CORES_6_AVX2},
        .memory_bytes[SL_DEVICE] = 12 * GIB - DRIVER_BYTES,
        .memory_bytes[SL_HOST] = 32 * GIB,
    },
};

const struct sl_machine_spec *sl_machine_spec_at(size_t n)
{
    return n < sizeof specs / sizeof *specs ? &specs[n] : NULL;
}

const struct sl_machine_spec *sl_machine_spec_find(const char *name)
{
    const struct sl_machine_spec *s;

    for (size_t i = 0; (s = sl_machine_spec_at(i)) != NULL; i++) {
        if (strcmp(s->name, name) == 0)
            return s;
    }
    return NULL;
}

int sl_machine_spec_check(const struct sl_machine_spec *spec,
                          struct sl_error *err)
{
    const struct sl_rates *r = &spec->rates;

    if (r->disk_bps <= 0 || r->dram_bps <= 0 ||
        r->worker[SL_HOST].ops_per_s <= 0)
        return sl_fail(err, SL_ERR_USAGE,
                       "machine %s: disk, memory and arithmetic of the CPU "
                       "need rates above 0",
                       spec->name);
    for (uint32_t i = SL_DEVICE; i < SL_WORKERS; i++) {
        const struct sl_worker *w = &r->worker[i];

        if (w->link_bps > 0 && (w->memory_bps <= 0 || w->ops_per_s <= 0 ||
                                spec->memory_bytes[i] == 0))
            return sl_fail(err, SL_ERR_USAGE,
                           "machine %s: PCIe needs a GPU behind it, with VRAM, "
                           "its rate and arithmetic",
                           spec->name);
    }
    if (r->mirror_bps >= r->disk_bps)
        return sl_fail(err, SL_ERR_USAGE,
                       "machine %s: a second disk needs a first one",
                       spec->name);
    if (r->worker[SL_HOST].memory_bps > r->dram_bps)
        return sl_fail(err, SL_ERR_USAGE,
                       "machine %s: the cores cannot read %.3g bytes/s of "
                       "memory that gives %.3g",
                       spec->name, r->worker[SL_HOST].memory_bps, r->dram_bps);
    return 0;
}

/* --- a machine at work ---------------------------------------------------- */

int sl_sim_machine_init(struct sl_sim_machine *m,
                        const struct sl_machine_spec *spec,
                        struct sl_error *err)
{
    const double bps[SL_PIPE_COUNT] = {
        [SL_PIPE_DISK] = spec->rates.disk_bps - spec->rates.mirror_bps,
        [SL_PIPE_MIRROR] = spec->rates.mirror_bps,
        [SL_PIPE_DRAM] = spec->rates.dram_bps,
        [SL_PIPE_UP] = spec->rates.worker[SL_DEVICE].link_bps,
        [SL_PIPE_DOWN] = spec->rates.worker[SL_DEVICE].link_bps,
    };

    *m = (struct sl_sim_machine){.spec = *spec};
    if (sl_vclock_create(&m->vclock, err) != 0)
        return -1;
    m->clock = sl_vclock_clock(m->vclock);
    sl_fluid_init(&m->fluid, m->vclock, bps);
    pthread_mutex_init(&m->mutex, NULL);
    pthread_cond_init(&m->computed, NULL);
    return 0;
}

void sl_sim_machine_fini(struct sl_sim_machine *m)
{
    sl_fluid_fini(&m->fluid);
    sl_vclock_destroy(m->vclock);
    pthread_cond_destroy(&m->computed);
    pthread_mutex_destroy(&m->mutex);
}

struct computation {
    struct sl_flow flow;
    struct sl_sim_machine *machine;
    bool done;
};

static void computed(struct sl_flow *flow)
{
    struct computation *c = (struct computation *)flow;

    c->done = true;
    sl_clock_broadcast(c->machine->clock, &c->machine->computed);
}

void sl_machine_compute(struct sl_sim_machine *m, double bytes, double ops)
{
    const struct sl_rates *r = &m->spec.rates;
    const struct sl_worker *w = &r->worker[SL_HOST];
    double bps = w->memory_bps > 0 ? w->memory_bps : r->dram_bps;
    double read_s = bytes / bps, ops_s = ops / w->ops_per_s;
    double s = read_s > ops_s ? read_s : ops_s;
    struct computation c = {.machine = m};

    if (s <= 0)
        return;
    /* A flow of no bytes has no rate: then it counts nanoseconds. */
    c.flow = (struct sl_flow){
        .bytes = bytes > 0 ? bytes : s * 1e9,
        .most_bps = bytes > 0 ? bytes / s : 1e9,
        .pipes = bytes > 0 ? 1u << SL_PIPE_DRAM : 0,
        .done = computed,
    };
    pthread_mutex_lock(&m->mutex);
    sl_fluid_start(&m->fluid, &c.flow);
    while (!c.done)
        sl_clock_wait(m->clock, &m->computed, &m->mutex);
    pthread_mutex_unlock(&m->mutex);
}
