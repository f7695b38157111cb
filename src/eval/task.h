/*
 * task.h - what a task file says, as GLM-130B's evaluation has it
 *
 * A task is a YAML file: a name, a type, where its data lie and how they are
 * put to the model (THUDM/GLM-130B evaluation/configs.py). Keys may be
 * written in kebab, snake or camel case. What a task then does depends on its
 * kind, which its type names or, for five tasks with rules of their own,
 * `module`.
 */
#ifndef SL_EVAL_TASK_H
#define SL_EVAL_TASK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/error.h"
#include "src/base/log.h"

enum sl_task_type {
    SL_TASK_MUL, /* log-probabilities of choices */
    SL_TASK_GEN, /* an answer is generated */
    SL_TASK_LM,  /* log-probability of a text */
    SL_TASK_TYPES,
};

/* What a task does beyond its type. */
enum sl_task_class {
    SL_CLASS_PLAIN,
    SL_CLASS_CROWS_PAIRS,
    SL_CLASS_STEREOSET,
    SL_CLASS_LAMBADA,
    SL_CLASS_MMLU,
    SL_CLASS_PILE,
};

enum sl_metric {
    SL_METRIC_ACCURACY,
    SL_METRIC_EM,
    SL_METRIC_F1,
    SL_METRIC_PPL,
    SL_METRIC_PRECISION,
    SL_METRIC_RECALL,
    SL_METRIC_F1_MUL,
    SL_METRICS,
};

struct sl_task_group {
    char *name, *pattern; /* owned */
};

#define SL_TASK_METRICS_MOST 8

struct sl_task { /* owned, all of it */
    char *file;  /* of the task, as it is shown; "" for made ones */
    char *name, *path, *module; /* module NULL: none was named */
    enum sl_task_type type;
    enum sl_task_class class;
    enum sl_metric metrics[SL_TASK_METRICS_MOST];
    size_t n_metrics;
    bool use_task_mask, use_multitask_encoding, unidirectional;
    uint32_t max_seq_length, micro_batch_size;
    struct sl_task_group *groups;
    size_t n_groups;
    bool one_pattern; /* file_pattern was one text: group "all" */
    /* gen */
    bool beams; /* BeamSearchStrategy */
    uint32_t num_beams, no_repeat_ngram_size, min_gen_length, max_gen_length;
    double length_penalty;
    /* lm */
    uint32_t generation_length;
};

struct sl_tasks { /* zeroed to begin with, owned */
    struct sl_task *v;
    size_t n, room;
};

const char *sl_metric_name(enum sl_metric metric);
/* False when there is none of that name. */
bool sl_metric_find(enum sl_metric *metric, const char *name);
/* "mul" "gen" "lm". */
const char *sl_task_type_name(enum sl_task_type type);

/* The defaults of a type. Errors: SL_ERR_NOMEM. */
int sl_task_init(struct sl_task *task, enum sl_task_type type, const char *name,
                 struct sl_error *err);
void sl_task_fini(struct sl_task *task);
/* A group more. Errors: SL_ERR_NOMEM. */
int sl_task_add_group(struct sl_task *task, const char *name,
                      const char *pattern, struct sl_error *err);
/* Takes *task over, even when it fails. Errors: SL_ERR_NOMEM. */
int sl_tasks_add(struct sl_tasks *tasks, struct sl_task *task,
                 struct sl_error *err);
void sl_tasks_fini(struct sl_tasks *tasks);

/* Reads one task file; file is what it is called in messages. Keys that nobody
 * knows are warned of. Errors: SL_ERR_IO; SL_ERR_CORRUPT with line and column
 * for what is no YAML, no value of its key, a metric or a module that nobody
 * knows; SL_ERR_NOMEM. */
int sl_task_read(struct sl_task *task, const char *file,
                 const struct sl_log *log, struct sl_error *err);

/* Adds the tasks of a path: a file, or all *.yaml of a folder and the folders
 * in it, in order of their names. Errors: as sl_task_read; SL_ERR_IO where
 * nothing is of that name. */
int sl_tasks_find(struct sl_tasks *tasks, const char *path,
                  const struct sl_log *log, struct sl_error *err);

#endif
