/*
 * expert_floor.h - what a pass wants of a mixture's experts, and the least time
 * that takes
 *
 * Which experts a pass will use nobody knows; how many of them, and how many of
 * these have no place in RAM, can be expected: of all alike, as they were
 * chosen in earlier runs, or as somebody measured a cache of that size to
 * serve.
 */
#ifndef SL_EXPERT_FLOOR_H
#define SL_EXPERT_FLOOR_H

#include "offload/plan.h"
#include "src/exec/experts.h"

/* Between points in a straight line, from none that serve nothing to all that
 * serve all. */
double sl_hit_curve_served(const struct sl_hit_curve *curve, double resident);

/* Bytes of the experts that a pass wants, and of those that have no place,
 * where all are chosen equally often and apart. */
struct sl_expert_demand {
    double wanted_bytes, disk_bytes, ops;
    double device_bytes; /* of the wanted: in a device's memory */
    /* disk_bytes where they are chosen as in earlier runs (expert_usage.h);
     * below 0: that is not known. */
    double learned_bytes;
    bool by_curve; /* disk_bytes are a hit curve's */
};
struct sl_expert_demand sl_expert_demand(const struct sl_experts *e,
                                         struct sl_plan_pass pass);

/* Operations of an expert for one position. */
double sl_expert_ops(const struct sl_experts *e);

/* What a plan has the cores take for those that all positions use, of a
 * prompt that lends them to a device; else 0. */
double sl_experts_shared_seconds(const struct sl_experts *e,
                                 const struct sl_rates *rates,
                                 struct sl_plan_pass pass);

/* What a pass that is no prompt may be expected to take beyond its floor, as
 * what is missing comes late, and disk and device have to begin. */
double sl_experts_wait_seconds(const struct sl_experts *e,
                               const struct sl_rates *rates,
                               struct sl_plan_pass pass);

/* Adds what a pass's experts take to the floor of the rest: of a run as they
 * were used, else as is expected. */
void sl_experts_add_floor(struct sl_floor *floor, const struct sl_experts *e,
                          const struct sl_rates *rates,
                          struct sl_plan_pass pass);

#endif
