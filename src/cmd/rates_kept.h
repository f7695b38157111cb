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

#endif
