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

struct sl_share;

struct sl_eval_pass {
    uint32_t positions, rows; /* of logits */
};

struct sl_eval_run {
    /* borrowed */
    struct sl_eval *ev;
    struct sl_lm *lm;
    struct sl_pool *pool;   /* or NULL */
    struct sl_share *share; /* what this process asks (share.h) */
    FILE *out;              /* the console; NULL: another process has it */
    /* of a pass, and what was planned for it */
    uint32_t positions, rows, most_live;
    uint64_t n_pages;
    uint32_t texts; /* that are generated at a time */
    bool ece;       /* print calibration, too */
    struct sl_eval_progress progress;
    struct sl_eval_pass *passes; /* (n_passes) that there were, owned */
    size_t n_passes, pass_room;
    struct sl_eval_task *task; /* that is being asked */
    /* What is printed: all tasks before this one, */
    size_t shown_tasks;
    bool begun;                 /* the head of this one, at begin_ns, */
    size_t shown;               /* so many of its files */
    size_t groups_named;        /* and of its groups' names. */
    uint64_t begin_ns, file_ns; /* when its last file was over */
};

/* What is planned for questions with these needs, where a pass shall have
 * `positions` and its logits take no more than `logit_bytes`, as far as they
 * can. Fills run's numbers and the load. */
void sl_eval_plan(struct sl_eval_run *run, struct sl_workload *load,
                  uint32_t positions, uint64_t logit_bytes, uint32_t vocab);

/* Adds what texts that are generated need, so many at a time as sl_eval_plan
 * was told of by run->texts. Sets run->texts to no more than there are. */
void sl_eval_plan_texts(struct sl_eval_run *run, struct sl_workload *load);
/* The texts of run->task that run->share has for this process. */
int sl_eval_generate(struct sl_eval_run *run, struct sl_error *err);

/* A pass is over. Errors: SL_ERR_NOMEM. */
int sl_eval_note_pass(struct sl_eval_run *run, uint32_t positions,
                      uint32_t rows, struct sl_error *err);

/* How the questions of a run are packed, its progress shown after each pass;
 * who asks fills in done and what else differs. */
struct sl_pack_config sl_eval_pack_config(struct sl_eval_run *run);

/* A unit is answered, here or elsewhere: share.h's `answered`, for which run is
 * the opaque. */
int sl_eval_answered(void *run, struct sl_eval_task *t, struct sl_unit *u,
                     bool here, struct sl_error *err);

/* All that run->share has for this process, task by task. Errors: those of the
 * model, the share and the output. */
int sl_eval_run_all(struct sl_eval_run *run, struct sl_error *err);

#endif
