/*
 * run_show.h - lines of --stats that commands have in common
 */
#ifndef SL_RUN_SHOW_H
#define SL_RUN_SHOW_H

#include <stdio.h>

#include <jansson.h>

#include "src/runtime/runtime.h"

/* "disk         1.2 GiB read at 3.10 GB/s, waited for 0.20 s (io_uring)", and
 * what came from each of two disks */
void sl_run_show_disk(FILE *out, const struct sl_runtime *rt,
                      const struct sl_run_stats *s);
/* That of two disks in JSON, between two readings; NULL where there is one. */
json_t *sl_run_disks_json(const struct sl_runtime *rt,
                          const struct sl_run_stats *before,
                          const struct sl_run_stats *after);
/* "memory       peak 1.9 GiB of a budget of 2.0 GiB" */
void sl_run_show_memory(FILE *out, const struct sl_runtime *rt,
                        const struct sl_run_stats *s);
/* "disk 3.10 GB/s, memory 20.1 GB/s, products 800 GOP/s, attention 60" */
void sl_run_show_rates(FILE *out, const struct sl_runtime *rt,
                       const struct sl_rates *rates);

#endif
