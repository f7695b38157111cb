/*
 * experts_show.h - a mixture's experts, for people and in JSON
 */
#ifndef SL_EXPERTS_SHOW_H
#define SL_EXPERTS_SHOW_H

#include <jansson.h>
#include <stdio.h>

#include "src/runtime/runtime.h"

/* All print and give nothing (NULL) for a model without experts. */

/* "experts   21.3 GiB  2400 of 5760 have a place" */
void sl_experts_print_memory(FILE *f, const struct sl_runtime *rt);
/* What the experts of a pass are expected to read. */
void sl_experts_print_pass(FILE *f, const struct sl_runtime *rt,
                           const char *what, struct sl_plan_pass pass);
/* What they did read in a run. */
void sl_experts_print_stats(FILE *f, const struct sl_runtime *rt,
                            const struct sl_run_stats *s);
json_t *sl_experts_json(const struct sl_runtime *rt, struct sl_plan_pass pass);
json_t *sl_experts_stats_json(const struct sl_runtime *rt,
                              const struct sl_run_stats *before,
                              const struct sl_run_stats *after);

#endif
