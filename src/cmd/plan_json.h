/*
 * plan_json.h - parts of what sluice plan --json prints
 */
#ifndef SL_PLAN_JSON_H
#define SL_PLAN_JSON_H

#include <jansson.h>

#include "src/runtime/runtime.h"

/* New objects; NULL without memory. Bytes by purpose; a pass of so many
 * positions, which a plan with a GPU expects to take expected_s (else 0). */
json_t *sl_plan_memory_json(const struct sl_memory *m);
json_t *sl_plan_floor_json(const struct sl_floor *f, double expected_s,
                           uint32_t positions);

#endif
