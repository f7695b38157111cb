/*
 * run.h - asks, and tells what comes of it while it comes
 */
#ifndef SL_EVAL_RUN_H
#define SL_EVAL_RUN_H

#include <stdio.h>

#include "src/eval/eval.h"

/* How far it is, on standard error. */
struct sl_eval_progress {
    bool quiet, terminal;
    uint64_t n_questions, n_positions;     /* of all */
    uint64_t questions, positions, sweeps; /* done now */
    uint64_t start_ns, last_ns;
    bool drawn;
};

void sl_eval_progress_init(struct sl_eval_progress *p, uint64_t n_questions,
                           uint64_t n_positions, bool quiet);
void sl_eval_progress_show(struct sl_eval_progress *p, bool now);
void sl_eval_progress_fini(struct sl_eval_progress *p);
/* "2 h 05 min", "12 s". */
void sl_eval_time_text(char text[32], double seconds);

struct sl_journal;

struct sl_eval_run {
    /* borrowed */
    struct sl_eval *ev;
    struct sl_lm *lm;
    struct sl_pool *pool;       /* or NULL */
    struct sl_journal *journal; /* or NULL */
    FILE *out;                  /* the console */
    /* of a pass, and what was planned for it */
    uint32_t positions, rows, most_live;
    uint64_t n_pages;
    uint32_t texts; /* that are generated at a time */
    bool ece;       /* print calibration, too */
    struct sl_eval_progress progress;
    /* a task's */
    struct sl_eval_task *task;
    size_t shown;        /* its files whose results are printed */
    size_t groups_named; /* its groups whose names are */
};

/* What is planned for questions with these needs, where a pass shall have
 * `positions` and its logits take no more than `logit_bytes`, as far as they
 * can. Fills run's numbers and the load. */
void sl_eval_plan(struct sl_eval_run *run, struct sl_workload *load,
                  uint32_t positions, uint64_t logit_bytes, uint32_t vocab);

/* Adds what texts that are generated need, so many at a time as sl_eval_plan
 * was told of by run->texts. Sets run->texts to no more than there are. */
void sl_eval_plan_texts(struct sl_eval_run *run, struct sl_workload *load);
/* The texts of run->task that are not done; `ended` is told of each. */
int sl_eval_generate(struct sl_eval_run *run,
                     int (*ended)(struct sl_eval_run *run, struct sl_unit *u,
                                  struct sl_error *err),
                     struct sl_error *err);

/* How the questions of a run are packed, its progress shown after each pass;
 * who asks fills in done and what else differs. */
struct sl_pack_config sl_eval_pack_config(struct sl_eval_run *run);

/* All tasks, one after another. Errors: those of the model, the journal and
 * the output. */
int sl_eval_run_all(struct sl_eval_run *run, struct sl_error *err);

#endif
