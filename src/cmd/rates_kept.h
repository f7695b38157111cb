/*
 * rates_kept.h - what `sluice probe` has kept, for one run
 */
#ifndef SL_RATES_KEPT_H
#define SL_RATES_KEPT_H

#include <stdbool.h>

#include "src/runtime/runtime.h"

/* Rates that are kept of this machine, the disk of the runtime's file (both of
 * two), its threads and its arithmetic, all others 0; age_s: of the oldest.
 * False where something is not known. */
bool sl_rates_kept(struct sl_rates *rates, double *age_s,
                   const struct sl_runtime *rt);
/* How weights are best read by the kernels and threads that such a run has; the
 * default where nothing is kept. */
struct sl_reading sl_reading_kept(const struct sl_runtime_config *config);

#endif
