/*
 * results.h - what came of an evaluation, as files
 *
 *   results.json   every score, log-probability and id; no times, so that two
 *                  runs that answer the same write the same
 *   results.markdown     a table: task, group, metric, max, median, average
 *
 * and two such files against each other.
 */
#ifndef SL_EVAL_RESULTS_H
#define SL_EVAL_RESULTS_H

#include <stdio.h>

#include "src/eval/eval.h"

struct sl_results_head {
    const char *model, *model_id, *path; /* borrowed */
};

/* Writes both into a folder, each whole or not at all. All units must be done.
 * Errors: SL_ERR_IO, SL_ERR_NOSPACE, SL_ERR_NOMEM. */
int sl_results_write(const char *folder, const struct sl_results_head *head,
                     struct sl_eval *ev, struct sl_error *err);

/* Whether a file can be compared with, before an evaluation is made for it.
 * Errors: SL_ERR_IO, SL_ERR_CORRUPT, SL_ERR_NOMEM. */
int sl_results_check(const char *other, struct sl_error *err);

/* Prints how this evaluation and that of a results.json differ, for each task
 * with a right answer an example: how many only one got right, McNemar's exact
 * p, and the difference of accuracies with its 95 % interval (paired bootstrap
 * of 10000 samples). Errors: SL_ERR_IO, SL_ERR_CORRUPT; SL_ERR_USAGE where no
 * task is in both; SL_ERR_NOMEM. */
int sl_results_compare(FILE *out, struct sl_eval *ev, const char *other,
                       struct sl_error *err);

#endif
