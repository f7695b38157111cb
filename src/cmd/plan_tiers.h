/*
 * plan_tiers.h - where each slab of a plan stays, drawn
 */
#ifndef SL_PLAN_TIERS_H
#define SL_PLAN_TIERS_H

#include <jansson.h>

#include "offload/plan.h"

/* Prints the slabs in order of use, a letter each. */
void sl_plan_tiers_print(const struct sl_plan *p);
/* Of each slab its name: "disk" "ram" "vram". The caller owns it. */
json_t *sl_plan_tiers_json(const struct sl_plan *plan);

#endif
