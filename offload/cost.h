/*
 * cost.h - what a pass asks of each part of the machine, and the least time
 *
 *   disk --disk_bps--> RAM --memory_bps--> worker 0, this machine's cores
 *                       |--link_bps--> its memory --memory_bps--> worker 1
 *                       '--link_bps--> ...
 *              (all of it through DRAM: dram_bps)
 *
 * A worker computes stages: the cores out of RAM, any other (a GPU) out of a
 * memory of its own behind a link. Stages follow one another, so workers never
 * compute at the same time; transfers hide behind any. The formulas are those
 * of a roofline per resource: the slowest one decides.
 */
#ifndef SL_OFFLOAD_COST_H
#define SL_OFFLOAD_COST_H

#include <stdint.h>

/* Places in a list of workers. All but the first have a link. */
enum {
    SL_HOST,
    SL_DEVICE,      /* the first behind a link */
    SL_WORKERS = 4, /* room in a list: those without a link_bps are not
                     * there */
};

/* Rates of a worker, 0: unknown; what it would limit is then taken to be
 * free. */
struct sl_worker {
    double memory_bps; /* the most that it reads of the memory it computes in;
                        * of the host, 0: dram_bps */
    double ops_per_s;  /* in the model file's format; multiply-adds count as
                        * two */
    double
        attention_ops_per_s; /* likewise, of the host in FP32; 0: ops_per_s */
    double stage_s;          /* launches and small kernels of a stage */
    double link_bps;         /* from RAM, pinned, to its memory */
    double link_latency_s;   /* of one copy or hand-over */
};

/* Of a GPU that nobody has measured: no more than a guess. */
#define SL_GUESS_STAGE_S     43e-6
#define SL_GUESS_HAND_OVER_S 10e-6
/* Kernels of a stage when it decodes: norm, two products, and of attention
 * half of what keeps keys and of what looks at them. */
#define SL_STAGE_LAUNCHES 4u

/* Rates of a machine, for the model file and threads in use; 0 as above. */
struct sl_rates {
    double disk_bps;       /* direct reads of this file, bytes/s; of all disks
                            * that it is on */
    double mirror_bps;     /* of that the second disk's; 0: there is one */
    double disk_latency_s; /* of one read */
    double dram_bps;       /* all that memory gives, to whom ever, bytes/s */
    struct sl_worker worker[SL_WORKERS];
};

/* What one pass moves and computes: by a worker, */
struct sl_worker_demand {
    double bytes; /* of weights, read from the memory it computes in */
    double ops;
    /* of weights that become FP16 before they are multiplied: what that reads
     * and writes, see sl_cost_add_products */
    double unpack_bytes;
    double kv_bytes, kv_ops; /* attention's, of the KV cache */
    double copy_bytes;       /* read from DRAM and sent over its link */
    double stages;
    double crossings; /* times that x goes over its link */
    double crossing_bytes;
};

/* and by all. */
struct sl_demand {
    double disk_bytes; /* read from disk, hence written to DRAM */
    struct sl_worker_demand by[SL_WORKERS];
};

enum sl_limit {
    SL_LIMIT_DISK,
    SL_LIMIT_DRAM,
    SL_LIMIT_HOST, /* the host's part, see worker_s */
    SL_LIMIT_LINK,
    SL_LIMIT_DEVICE, /* another worker's */
};

/* Seconds of one pass at the physical limit. */
struct sl_floor {
    double disk_s, dram_s;
    double link_s; /* the longest of all links */
    /* Each one's part: its arithmetic, or its reads where it cannot read all
     * that its memory gives. */
    double worker_s[SL_WORKERS];
    double seconds; /* the largest of disk, dram, link and all workers' sum */
    enum sl_limit limit;
};

/* The floor of what a pass asks. dram_s counts that while workers behind links
 * compute, for t seconds, nothing reads DRAM but the copies, and nothing writes
 * it but the disk: dram = t + (bytes - t * (all link_bps + disk_bps)) /
 * dram_bps. */
struct sl_floor sl_floor_of(const struct sl_rates *rates,
                            const struct sl_demand *demand);
/* The same of the host alone: streamed bytes come from disk and cross DRAM
 * twice (written, then read), resident ones once. */
struct sl_floor sl_floor_make(const struct sl_rates *rates,
                              uint64_t streamed_bytes, uint64_t resident_bytes,
                              double operations);
/* "disk" "dram" "compute" "pcie" "gpu" */
const char *sl_limit_name(enum sl_limit limit);

/* Products by weights of one kind, of a worker behind a link. */
struct sl_products {
    double bytes;      /* of the weights as they lie */
    double wide_bytes; /* as FP16; 0: they are multiplied as they lie */
    double ops;        /* of one position */
    double rows;       /* positions */
};

/* More than SL_COST_RUN positions are multiplied in runs of so many, each of
 * which reads the weights anew, or by FP16 weights that are made of them
 * before, which is written and read once more. Up to so many positions (64,
 * 128, 192 or 256) runs take less time, with weights of so many bytes each.
 * Unknown rates: 64. */
#define SL_COST_RUN 64u
uint32_t sl_cost_runs_to(const struct sl_worker *worker,
                         double bytes_per_weight);
/* Adds what they ask, the shorter way. */
void sl_cost_add_products(struct sl_worker_demand *demand,
                          const struct sl_worker *worker,
                          const struct sl_products *products);

/* What one worker's part of it takes, alone; of that, attention. */
double sl_cost_seconds(const struct sl_rates *rates,
                       const struct sl_demand *demand, uint32_t worker);
double sl_cost_kv_seconds(const struct sl_rates *rates,
                          const struct sl_demand *demand, uint32_t worker);

/* A stage in its turn. */
struct sl_step {
    double seconds;     /* of its worker, alone, for the products */
    double dram_bytes;  /* that the cores read meanwhile */
    double kv_seconds;  /* for attention, which comes among them */
    double kv_bytes;    /* likewise */
    double moved_bytes; /* that must be moved near the worker before */
};

/* A timeline of the steps of a pass, one after another, while bytes are moved
 * ahead of them, each store of them as far as it has room:
 *
 *   disk --disk_bps--> ring in RAM --copy_bps--> ring on the device --> steps
 *
 * Without a device copy_bps is 0, and the steps take from the ring in RAM.
 * Cores, copies and reads share DRAM fairly. One link's: with rings on several
 * devices each would want its copies and its room. */
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
