/*
 * classes.h - results of tasks that have rules of their own
 *
 * CrowS-Pairs, StereoSet and the Pile print no line for a file, and their own
 * lines for a group (THUDM/GLM-130B tasks/ethnic, tasks/language-modeling).
 */
#ifndef SL_EVAL_CLASSES_H
#define SL_EVAL_CLASSES_H

#include <jansson.h>

#include "src/eval/eval.h"

static inline bool sl_class_hides_files(enum sl_task_class class)
{
    return class == SL_CLASS_CROWS_PAIRS || class == SL_CLASS_STEREOSET ||
           class == SL_CLASS_PILE;
}

/* One of a class's numbers: of a category (or set), of one kind ("LMS"...). */
struct sl_class_value {
    const char *kind, *category; /* borrowed from the data */
    double value;
    bool whole; /* Python would print an int */
};

struct sl_class_values { /* zeroed to begin with, owned */
    struct sl_class_value *v;
    size_t n, room;
};

/* The numbers of a file, in order of first appearance. Errors: SL_ERR_NOMEM. */
int sl_class_values(struct sl_class_values *values,
                    const struct sl_eval_task *t, const struct sl_eval_file *f,
                    struct sl_error *err);

/* Prints a group's lines. Errors: SL_ERR_NOMEM. */
int sl_class_show(FILE *out, const struct sl_eval_task *t, size_t group,
                  struct sl_error *err);

#endif
