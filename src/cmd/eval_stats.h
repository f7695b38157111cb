/*
 * eval_stats.h - 'sluice eval --stats': what the passes took, and had to take
 */
#ifndef SL_EVAL_STATS_H
#define SL_EVAL_STATS_H

#include "src/cmd/eval_model.h"

/* Prints on standard error what the passes of a run that is over were against
 * the machine's limits, pass by pass. seconds: of all the asking. What was run
 * ends here (sl_runtime_floor). Errors: those of measuring. */
int sl_eval_stats_print(const struct sl_eval_model *m,
                        const struct sl_eval_run *run, double seconds,
                        struct sl_error *err);

#endif
