/*
 * cost.h - what a pass asks of each part of the machine, and the least time
 *
 *   disk --disk_bps--> RAM --pcie_bps--> VRAM --vram_bps--> GPU
 *                       '---cpu_dram_bps--> CPU
 *              (all of it through DRAM: dram_bps)
 *
 * Stages follow one another, so GPU and CPU never compute at the same time;
 * transfers hide behind either. The formulas are those of a roofline per
 * resource: the slowest one decides.
 */
#ifndef SL_OFFLOAD_COST_H
#define SL_OFFLOAD_COST_H

#include <stdbool.h>
#include <stdint.h>

/* Rates of a machine, for the model file and threads in use. 0: unknown, or
 * no such part; what it would limit is then taken to be free. */
struct sl_rates {
    double disk_bps;  /* direct reads of this file, bytes/s */
    double dram_bps;  /* all that memory gives, to whom ever, bytes/s */
    double ops_per_s; /* of the CPU; multiply-adds count as two */
    double attention_ops_per_s; /* likewise, in FP32; 0: ops_per_s */

    /* pcie_bps > 0: there is a GPU. */
    double pcie_bps;       /* pinned memory to VRAM, bytes/s */
    double pcie_latency_s; /* of one copy or hand-over */
    double vram_bps;       /* read by kernels, bytes/s */
    double gpu_ops_per_s;  /* matrix products with FP16 inputs */
    double gpu_stage_s;    /* launches and small kernels of a stage */
    double cpu_dram_bps;   /* the most that the cores alone read; 0: dram_bps */
    double disk_latency_s; /* of one read */
};

/* What one pass moves and computes. */
struct sl_demand {
    double disk_bytes; /* read from disk, hence written to DRAM */
    double copy_bytes; /* read from DRAM and copied to VRAM */
    double cpu_bytes;  /* read from DRAM by the cores */
    double gpu_bytes;  /* read from VRAM by kernels */
    double cpu_ops, gpu_ops;
    double cpu_kv_bytes, gpu_kv_bytes; /* attention's, of the KV cache */
    double cpu_kv_ops, gpu_kv_ops;     /* and its own operations */
    double gpu_stages;                 /* stages that the GPU computes */
    double crossings; /* times that a pass changes its engine */
    double crossing_bytes;
};

enum sl_limit {
    SL_LIMIT_DISK,
    SL_LIMIT_DRAM,
    SL_LIMIT_COMPUTE, /* the CPU */
    SL_LIMIT_PCIE,
    SL_LIMIT_GPU,
};

/* Seconds of one pass at the physical limit. */
struct sl_floor {
    double disk_s, dram_s;
    double compute_s; /* the CPU's part: its arithmetic, or its reads where it
                       * cannot read all that DRAM gives */
    double pcie_s, gpu_s;
    double seconds; /* the largest of disk, dram, pcie and gpu + compute */
    enum sl_limit limit;
};

/* The floor of what a pass asks. dram_s counts that while the GPU computes
 * nothing reads DRAM but the copies, and nothing writes it but the disk: dram =
 * gpu + (bytes - gpu * (pcie_bps + disk_bps)) / dram_bps. */
struct sl_floor sl_floor_of(const struct sl_rates *rates,
                            const struct sl_demand *demand);
/* The same without a GPU: streamed bytes come from disk and cross DRAM twice
 * (written, then read), resident ones once. */
struct sl_floor sl_floor_make(const struct sl_rates *rates,
                              uint64_t streamed_bytes, uint64_t resident_bytes,
                              double operations);
/* "disk" "dram" "compute" "pcie" "gpu" */
const char *sl_limit_name(enum sl_limit limit);

/* What one engine's part of it takes, alone; of that, attention. */
double sl_cost_gpu_seconds(const struct sl_rates *r, const struct sl_demand *d);
double sl_cost_cpu_seconds(const struct sl_rates *r, const struct sl_demand *d);
double sl_cost_gpu_kv_seconds(const struct sl_rates *r,
                              const struct sl_demand *d);
double sl_cost_cpu_kv_seconds(const struct sl_rates *r,
                              const struct sl_demand *d);

/* A stage in its turn. */
struct sl_step {
    bool gpu;
    double seconds;     /* of its engine, alone, for the products */
    double dram_bytes;  /* that the cores read meanwhile */
    double kv_seconds;  /* for attention, which comes among them */
    double kv_bytes;    /* likewise */
    double moved_bytes; /* that must be moved near the engine before */
};

/* A timeline of the steps of a pass, one after another, while bytes are moved
 * ahead of them, each store of them as far as it has room:
 *
 *   disk --disk_bps--> ring in RAM --copy_bps--> ring on the device --> steps
 *
 * Without a GPU copy_bps is 0, and the steps take from the ring in RAM. Cores,
 * copies and reads share DRAM fairly. */
struct sl_timeline {
    double dram_bps, disk_bps, copy_bps; /* alone */
    double from_disk; /* part of the moved bytes that come from there */
    double most_read, most_copied; /* room for bytes ahead of their use */
    double read, copied;           /* bytes that are there already */
};

/* Seconds until the step has ended. */
double sl_timeline_step(struct sl_timeline *timeline,
                        const struct sl_step *step);

#endif
