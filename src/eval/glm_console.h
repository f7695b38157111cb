/*
 * glm_console.h - results as THUDM/GLM's own evaluation prints them
 *
 * With --style glm, besides GLM-130B's lines (console.h), byte for byte
 * (THUDM/GLM tasks/eval_utils.py, tasks/language_model/finetune.py), so that
 * scripts that look for these lines in its logs find them.
 */
#ifndef SL_EVAL_GLM_CONSOLE_H
#define SL_EVAL_GLM_CONSOLE_H

#include "src/eval/eval.h"

/* Of a file whose units are all done and scored, which took so many seconds:
 * choices have a line where a task has several files, a word or a text its
 * line between dashes. */
void sl_glm_console_file(FILE *out, const struct sl_eval *ev,
                         const struct sl_eval_task *t,
                         const struct sl_eval_file *f, double seconds);

/* Of a task: the accuracy of all its files' choices. */
void sl_glm_console_task(FILE *out, const struct sl_eval_task *t);

#endif
