/*
 * console.h - results as GLM-130B's evaluate.py prints them
 *
 * On standard output, byte for byte (THUDM/GLM-130B evaluate.py and
 * evaluation/tasks.py), so that scripts that read its logs go on working.
 */
#ifndef SL_EVAL_CONSOLE_H
#define SL_EVAL_CONSOLE_H

#include <stdio.h>

#include "src/eval/task.h"

/* "> Loading task configs", a line for each task and how many there are. */
void sl_console_tasks(FILE *out, const struct sl_tasks *tasks);

/* The two empty lines before a task, what its file says, and its name. path:
 * where its data are. */
void sl_console_begin(FILE *out, const struct sl_task *task, const char *path);
void sl_console_end(FILE *out, const struct sl_task *task, double seconds);
void sl_console_total(FILE *out, size_t n_tasks, double seconds);

void sl_console_group(FILE *out, const char *group);

/* The values of one metric, of one file each. */
struct sl_scores {
    const char *name;   /* of the metric */
    const double *v;    /* (n) */
    const size_t *n_of; /* (n) examples of each file */
    size_t n;
};

struct sl_summary {
    double max, median, average; /* average: weighted by examples */
};

struct sl_summary sl_scores_summary(const struct sl_scores *s);

/* "        Finish FILE, METRIC = 0.000, ..." */
void sl_console_file(FILE *out, const char *file, const char *const *metrics,
                     const double *values, size_t n);
/* The group's line, or its lines where there are several metrics; indent: 1,
 * or 0 for MMLU's last line. */
void sl_console_summary(FILE *out, const char *group,
                        const struct sl_scores *scores, size_t n_metrics,
                        unsigned indent);

/* A float as Python's repr has it. */
void sl_python_float(char text[32], double x);
/* A number as Python prints round(x, 2); whole: as an int. */
void sl_python_round2(char text[32], double x, bool whole);

#endif
