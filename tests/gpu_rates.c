#include "config.h"

#include "tests/gpu_rates.h"

const struct sl_rates test_gpu_rates = {
    .disk_bps = 3e9,
    .dram_bps = 40e9,
    .worker[SL_HOST].ops_per_s = 1e12,
    .worker[SL_DEVICE].link_bps = 20e9,
    .worker[SL_DEVICE].link_latency_s = 1e-6,
    .worker[SL_DEVICE].memory_bps = 500e9,
    .worker[SL_DEVICE].ops_per_s = 40e12,
};
