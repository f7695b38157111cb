/*
 * eval.h - an evaluation: tasks, their data, what was asked and answered
 *
 *   load    tasks and data become units, each a question or a text to go on
 *   plan    what all of it asks of memory
 *   run     task by task; every unit that is over is told of
 *   score   metrics of files, groups, tasks
 *
 * A unit is an example, or a window of a long text. Units that were answered
 * in an earlier run (journal.h) are not asked again.
 */
#ifndef SL_EVAL_EVAL_H
#define SL_EVAL_EVAL_H

#include "src/base/pool.h"
#include "src/eval/build.h"
#include "src/eval/console.h"
#include "src/eval/pack.h"
#include "src/exec/workload.h"

struct sl_unit {
    struct sl_question q; /* of mul and lm */
    struct sl_ids prompt; /* of gen: what is gone on with */
    struct sl_ids said;   /* of gen: the answer */
    struct sl_example *e; /* borrowed */
    uint32_t *choice_len; /* (n_choices) of mul; owned */
    uint32_t window;      /* of lm: of its example */
    uint32_t blank;       /* of gen: where its mark stands */
    uint32_t file;        /* of its task */
    bool done;
};

struct sl_eval_file {
    char *name, *path; /* owned; name: relative to the task's folder */
    size_t group;
    struct sl_data data;
    size_t first, n;   /* units */
    size_t n_examples; /* that are asked */
    size_t n_left;     /* units that are not done */
    struct sl_stem stem;
    bool has_stem;
    double values[SL_TASK_METRICS_MOST]; /* once all are done */
};

struct sl_eval_task {
    const struct sl_task *task; /* borrowed */
    char *path;                 /* its data's folder, owned */
    struct sl_eval_file *files; /* (n_files) owned, group by group */
    size_t n_files;
    struct sl_unit *units; /* (n_units) owned */
    size_t n_units, room;
    uint64_t n_truncated;
    /* Answers are generated; of GLM's models LAMBADA's are scored: right where
     * every id of the word is the likeliest behind those before it. */
    bool generates;
};

struct sl_eval_options {
    const char *data_path; /* NULL: none is needed */
    const char *plain;     /* --tasks-json, or NULL */
    uint64_t limit;        /* examples of a file; 0: all */
    bool shuffle;          /* examples of a file, before the limit */
    uint64_t seed;
    struct sl_builder_options build;
    const struct sl_log *log;
};

struct sl_eval {                  /* zeroed to begin with; owned */
    const struct sl_tasks *tasks; /* borrowed */
    struct sl_eval_options o;
    struct sl_builder builder;
    struct sl_eval_task *v; /* (n) */
    size_t n;
    struct sl_pack_needs needs; /* of all questions that are not done */
};

/* Reads all data and makes the questions. tokenizer and hp are borrowed until
 * fini. Errors: SL_ERR_IO, SL_ERR_USAGE for a folder or files that are not
 * there; those of data.h and build.h, with file and line. */
int sl_eval_load(struct sl_eval *ev, const struct sl_tasks *tasks,
                 struct sl_tokenizer *tokenizer, const struct sl_hparams *hp,
                 bool is_glm, const struct sl_eval_options *o,
                 struct sl_error *err);
void sl_eval_fini(struct sl_eval *ev);

/* Counts into ev->needs what is not done. */
void sl_eval_measure(struct sl_eval *ev);

/* What a question is, in 64 bits: ids, places, asks. */
uint64_t sl_unit_key(const struct sl_unit *u);

/* Metrics of a file whose units are all done. Errors: SL_ERR_NOMEM; those of
 * detokenizing. */
int sl_eval_score(struct sl_eval *ev, struct sl_eval_task *t,
                  struct sl_eval_file *f, struct sl_error *err);

/* What a file of texts comes to. */
struct sl_text_loss {
    double loss;       /* in nats */
    double ids, words; /* of the file's texts, or as many as were asked of them;
                          of GLM's models the first is left out */
};

struct sl_text_loss sl_eval_text_loss(const struct sl_eval *ev,
                                      const struct sl_eval_task *t,
                                      const struct sl_eval_file *f);

/* The sum of a choice's log-probabilities, and which choice wins (the first of
 * equals; StereoSet's by ids). */
double sl_unit_choice(const struct sl_unit *u, uint32_t choice);
uint32_t sl_unit_prediction(const struct sl_unit *u, enum sl_task_class class);
/* Its probability among the choices. */
double sl_unit_confidence(const struct sl_unit *u, uint32_t choice);

#endif
