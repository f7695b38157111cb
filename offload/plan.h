/*
 * plan.h - which slabs stay in RAM, and how fast a pass can then be
 *
 * A pure function of sizes, the budget and rates. Residents are spread evenly
 * among the streamed slabs, so that between two reads there is always about
 * the same amount of work and the disk never idles.
 */
#ifndef SL_OFFLOAD_PLAN_H
#define SL_OFFLOAD_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "offload/slab.h"
#include "src/base/error.h"

enum sl_home {
    SL_HOME_DISK, /* read anew in every pass, through the ring */
    SL_HOME_RAM,  /* read once, kept */
};

/* What computes a slab. */
enum sl_engine {
    SL_ENGINE_CPU,
    SL_ENGINE_GPU,
    SL_ENGINE_COUNT,
};

#define SL_RING_MIN_SLOTS 3u

struct sl_plan_input {
    const struct sl_slab *slabs;
    size_t n_slabs;
    uint64_t weights_bytes;    /* what the ring and the residents may take */
    uint64_t read_ahead_bytes; /* ring size wanted where there is room */
};

struct sl_plan {
    enum sl_home *home; /* (n_slabs), owned */
    size_t n_slabs;
    uint32_t n_slots;        /* 0 when everything is resident */
    uint64_t slot_bytes;     /* of the largest streamed slab */
    uint64_t ring_bytes;     /* n_slots * slot_bytes */
    uint64_t resident_bytes; /* load bytes of the residents */
    uint64_t streamed_bytes; /* load bytes read in every pass */
};

/* Least weights_bytes with which sl_plan_make succeeds. */
uint64_t sl_plan_least_bytes(const struct sl_slab *slabs, size_t n_slabs);

/* Errors: SL_ERR_BUDGET with both numbers, SL_ERR_NOMEM. */
int sl_plan_make(struct sl_plan *plan, const struct sl_plan_input *in,
                 struct sl_error *err);
void sl_plan_fini(struct sl_plan *plan);

/* Seconds of one pass at the physical limit (peers-and-physics 3.1 without a
 * GPU): transfers overlap, so the slowest resource decides. */
struct sl_rates {
    double disk_bps;  /* direct reads of this file, bytes/s */
    double dram_bps;  /* read by the threads in use, bytes/s */
    double ops_per_s; /* multiply-adds count as two; 0: unknown */
};

enum sl_limit { SL_LIMIT_DISK, SL_LIMIT_DRAM, SL_LIMIT_COMPUTE };

struct sl_floor {
    double disk_s, dram_s, compute_s;
    double seconds; /* the largest of them */
    enum sl_limit limit;
};

/* streamed bytes come from disk and cross DRAM twice (written, then read). */
struct sl_floor sl_floor_make(const struct sl_rates *rates,
                              uint64_t streamed_bytes, uint64_t resident_bytes,
                              double operations);
const char *sl_limit_name(enum sl_limit limit); /* "disk" "dram" "compute" */

#endif
