/*
 * plan.h - where each slab stays, who computes it, and how fast a pass can be
 *
 * A pure function of sizes, budgets and rates. Residents of every kind are
 * spread evenly among the other slabs, so that between two reads there is
 * always about the same amount of work, and disk, PCIe, CPU and GPU are all
 * busy at the same time.
 *
 *              decode by CPU   decode by GPU
 *   home RAM        yes         copied to the device ring in every pass
 *   home DISK     no GPU, or    read, then copied, in every pass
 *                 some stay
 *   home VRAM       never       copied once
 *
 * What the GPU decodes it also prefills; what the CPU decodes either may.
 * All slabs of a stage have one worker in a phase. The KV cache of a layer lies
 * with the worker that decodes its attention; where the GPU has no room for all
 * of its layers', that of as many as must waits in RAM, and is copied in every
 * pass, while the stage's weights are there.
 *
 * Plans, and what their passes ask, have a place for every worker (cost.h). The
 * search (plan_hybrid.c) divides the stages between two of them, the host and
 * the first device, and a timeline knows one link; with several devices both
 * would have to say which.
 */
#ifndef SL_OFFLOAD_PLAN_H
#define SL_OFFLOAD_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "offload/cost.h"
#include "offload/order.h"
#include "offload/slab.h"
#include "src/base/error.h"

/* The disk, then the memory of each worker (cost.h): see sl_tier_of. */
enum sl_tier {
    SL_TIER_DISK, /* read anew in every pass, through the ring */
    SL_TIER_RAM,  /* read once, kept */
    SL_TIER_VRAM, /* read once through the ring, copied to the device, kept */
};

/* Where what stays near a worker lies. */
static inline enum sl_tier sl_tier_of(uint32_t worker)
{
    return (enum sl_tier)(SL_TIER_RAM + worker);
}

enum sl_phase {
    SL_PHASE_DECODE,
    SL_PHASE_PREFILL, /* prompts of at least plan->prefill_from positions */
    SL_PHASE_COUNT,
};

#define SL_RING_MIN_SLOTS 3u
/* Slabs are no larger where there is a choice: 64 MiB is milliseconds of work,
 * and no disk reads faster in larger pieces. */
#define SL_PLAN_SLAB_BYTES (64ull << 20)
/* What is read ahead of its use at most: no disk needs more. */
#define SL_PLAN_READ_AHEAD (256ull << 20)
/* A ring takes no more than this part of its memory. */
#define SL_PLAN_RING_SHARE 8u

/* Slabs [first_slab, first_slab + n_slabs) that have one worker: their only
 * input and output is the residual stream. */
struct sl_plan_stage {
    size_t first_slab, n_slabs;
    /* Multiply-adds times two of one position; a head computes but the
     * positions whose logits are wanted. */
    double ops;
    double wide_bytes; /* its packed weights as FP16 (cost.h) */
    bool head;
    bool host_only; /* the GPU cannot compute it: the CPU does, in any phase */
    /* Of an attention, else 0. The layer's cache when full, by the worker
     * that holds it; what one cached position takes there; operations for
     * each position and cached position. */
    uint64_t kv_bytes[SL_WORKERS];
    double key_bytes[SL_WORKERS];
    double key_ops;
};

/* A pass. */
struct sl_plan_pass {
    uint32_t positions; /* of all sequences */
    uint32_t logits;    /* rows of logits: one for each sequence */
    uint32_t keys;      /* cached positions that each position attends to */
};

enum sl_engine_rule {
    SL_ENGINE_RULE_AUTO, /* whatever takes least time */
    SL_ENGINE_RULE_CPU,  /* as if there were no GPU */
    SL_ENGINE_RULE_GPU,  /* the GPU computes everything */
};

struct sl_plan_input {
    const struct sl_slab *slabs;
    size_t n_slabs;
    /* What the ring, the residents and the caches of layers that the worker
     * decodes may take of its memory. */
    uint64_t memory_bytes[SL_WORKERS];
    uint64_t read_ahead_bytes; /* ring size wanted where there is room */
    bool keep; /* slabs that are to stay do where they are computed, or the
                * budget is too small. Of the CPU's stages other slabs may then
                * stream beside a GPU, and prompts take the engines of decode */

    /* What follows counts only with memory on a device and a rule that allows
     * a GPU: without, a plan needs neither stages nor rates. */
    const struct sl_plan_stage *stages; /* cover all slabs in order */
    size_t n_stages;
    struct sl_plan_pass pass[SL_PHASE_COUNT];
    uint64_t x_bytes; /* of one position's residual stream */
    /* Device memory through which caches come that wait in RAM; 0: none may. */
    uint64_t turn_bytes;
    struct sl_rates rates;
    enum sl_engine_rule engine;
    /* Tries every number of stages that the CPU could decode, which takes the
     * square of their number: to hold the search against. */
    bool every_number;
};

/* Of caches of so many bytes what a device must have: all, or the buffers that
 * they come to in turns (turn_bytes). */
static inline uint64_t sl_plan_least_kv(uint64_t kv_bytes, uint64_t turn_bytes)
{
    return turn_bytes > 0 && turn_bytes < kv_bytes ? turn_bytes : kv_bytes;
}

/* What a plan takes of a worker's memory. The host's ring holds what is read,
 * also on its way to others; a device's what is copied in every pass. */
struct sl_plan_memory {
    uint32_t n_slots;        /* of its ring; 0: nothing passes through */
    uint64_t slot_bytes;     /* of the largest slab that does */
    uint64_t ring_bytes;     /* n_slots * slot_bytes */
    uint64_t resident_bytes; /* load bytes of the slabs that stay */
    uint64_t kv_bytes;       /* of the caches that it holds, the buffers of
                              * those that wait elsewhere included; 0 without
                              * a device */
};

struct sl_plan {
    enum sl_tier *tier;              /* (n_slabs), owned */
    uint8_t *worker[SL_PHASE_COUNT]; /* (n_slabs) of each slab, owned */
    uint8_t *waits; /* (n_slabs) a device's, whose cache waits in RAM; owned */
    size_t n_slabs;
    /* What a pass uses, borrowed; n 0, as plans are made: straight through
     * (sl_plan_order). */
    struct sl_order order;
    struct sl_plan_memory at[SL_WORKERS];
    uint64_t streamed_bytes; /* read in every pass */

    bool uses_device; /* some slab is a device's */
    /* A pass whose items all begin at an empty sequence and that has so many
     * positions takes the workers of SL_PHASE_PREFILL, any other those of
     * SL_PHASE_DECODE. UINT32_MAX: none does; 0 without a device. */
    uint32_t prefill_from;
};

/* What a pass of the plan uses. */
static inline struct sl_order sl_plan_order(const struct sl_plan *plan)
{
    return plan->order.n > 0 ? plan->order
                             : (struct sl_order){NULL, plan->n_slabs};
}

/* Least memory of the host with which sl_plan_make succeeds (without a GPU),
 * with the slabs that are to stay in memory where they are to be kept. */
uint64_t sl_plan_least_bytes(const struct sl_slab *slabs, size_t n_slabs,
                             bool keep);

/* Errors: SL_ERR_BUDGET with both numbers, SL_ERR_NOMEM. */
int sl_plan_make(struct sl_plan *plan, const struct sl_plan_input *in,
                 struct sl_error *err);
void sl_plan_fini(struct sl_plan *plan);

/* What a pass of a phase moves and computes. in: as the plan was made from;
 * its stages must be there. */
struct sl_demand sl_plan_demand(const struct sl_plan *plan,
                                const struct sl_plan_input *in,
                                enum sl_phase phase, struct sl_plan_pass pass);
/* Seconds that it is expected to take, one of many alike: the floor, and what
 * rings that are full or empty and a shared DRAM cost. */
double sl_plan_seconds(const struct sl_plan *plan,
                       const struct sl_plan_input *in, enum sl_phase phase,
                       struct sl_plan_pass pass);

/* Seconds that a pass of one position over what is to stay is expected to take:
 * 0 where nothing is. */
double sl_plan_guess_seconds(const struct sl_plan *plan,
                             const struct sl_plan_input *in);

#endif
