/*
 * plan_impl.h - what the parts of planning share
 *
 *   plan.c         RAM and disk alone
 *   plan_hybrid.c  which stages the host computes, and which a device
 *   plan_place.c   where the slabs lie, given that
 *   plan_demand.c  what a pass of a plan asks
 */
#ifndef SL_OFFLOAD_PLAN_IMPL_H
#define SL_OFFLOAD_PLAN_IMPL_H

#include "offload/plan.h"

/* Workers that stages are divided between: the host and one device. */
#define SL_PLAN_DIVIDED 2

/* Room for the arrays of a plan, all zero. Errors: SL_ERR_NOMEM. */
int sl_plan_init(struct sl_plan *plan, size_t n_slabs, struct sl_error *err);

/* Load bytes of a stage; those that are to stay where it is computed. */
uint64_t sl_plan_stage_bytes(const struct sl_plan_input *in,
                             const struct sl_plan_stage *s);
uint64_t sl_plan_stage_kept(const struct sl_plan_input *in,
                            const struct sl_plan_stage *s);

/* One way to divide the weights: which stages the host decodes; the rest is the
 * device's. */
struct sl_division {
    const struct sl_plan_input *in;
    uint64_t *stage_bytes; /* (n_stages) */
    uint64_t *stage_kept;  /* (n_stages) of these; 0 where nothing is to stay */
    uint8_t *host;         /* (n_stages) the host decodes it */
    uint64_t slot_bytes;   /* of both rings: the largest slab's */
    uint64_t ahead_bytes;  /* wanted of the device's ring */
    uint8_t *waits;        /* (n_stages) filled in: the device's, whose cache
                            * waits in RAM */

    /* what follows from it: sl_plan_divide */
    uint32_t n_slots, n_device_slots;
    /* Of the host's stages: what must be in RAM (all, or what is to stay; of
     * that the stages that are never a device's), what is kept there of the
     * rest at most, and what is left. */
    uint64_t host_bytes, host_only_bytes, host_ram_bytes, host_disk_bytes;
    /* Of the device's: what must be in VRAM; of the rest what is kept there at
     * most, in RAM at most, and what is left. */
    uint64_t device_kept_bytes, vram_bytes, copied_bytes, disk_bytes;
    uint64_t vram_room, ram_room; /* for either, at most */
    uint64_t kv_bytes[SL_WORKERS];
};

/* Fills in what follows from d->host. False when it does not fit. */
bool sl_plan_divide(struct sl_division *d);
/* Gives every slab its tier and workers (those of decode, for both phases).
 * plan: from sl_plan_init. */
void sl_plan_place(struct sl_plan *plan, const struct sl_division *d);

/* The best plan that uses a device; *found says whether there is one that
 * fits. Errors: SL_ERR_NOMEM. */
int sl_plan_hybrid(struct sl_plan *plan, bool *found,
                   const struct sl_plan_input *in, struct sl_error *err);

/* Whether one plan decodes faster than another; or as fast, and has the faster
 * prefill. */
bool sl_plan_better(const struct sl_plan *a, const struct sl_plan *b,
                    const struct sl_plan_input *in);

/* Bytes of a cache that waits which a pass copies. A prompt has none yet. */
double sl_plan_copied_keys(const struct sl_plan_stage *s, enum sl_phase phase,
                           struct sl_plan_pass pass);

/* A stage of a pass, with nothing moved for it yet; what it costs that x goes
 * from one worker to another; a walk over the stages of a division. */
struct sl_step sl_plan_step(const struct sl_plan_input *in,
                            const struct sl_plan_stage *s, double bytes,
                            uint32_t worker, struct sl_plan_pass pass);
double sl_plan_crossing_s(const struct sl_plan_input *in, uint32_t from,
                          uint32_t to, struct sl_plan_pass pass);
/* kv_copied: bytes of caches that a pass copies. */
struct sl_timeline sl_division_timeline(const struct sl_division *d,
                                        double kv_copied);

#endif
