#include "config.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/clock.h"
#include "src/base/mem.h"
#include "src/eval/classes.h"
#include "src/eval/glm_console.h"
#include "src/eval/metrics.h"
#include "src/eval/run.h"
#include "src/eval/share.h"

/* --- plan ---------------------------------------------------------------- */

static uint32_t least(uint64_t a, uint64_t b)
{
    uint64_t n = a < b ? a : b;

    return n > UINT32_MAX ? UINT32_MAX : (uint32_t)n;
}

static uint32_t most(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

void sl_eval_plan(struct sl_eval_run *run, struct sl_workload *load,
                  uint32_t positions, uint64_t logit_bytes, uint32_t vocab)
{
    const struct sl_pack_needs *n = &run->ev->needs;
    uint64_t rows = logit_bytes / sizeof(float) / vocab;
    double share, pages;

    run->positions = run->rows = run->most_live = 1;
    if (n->n_questions == 0)
        return;
    run->positions = most(n->positions, least(positions, n->n_positions));
    run->rows = most(n->rows, least(least(rows, run->positions), n->n_rows));
    /* Contexts wait for their branches until the pass after theirs; where none
     * has any, some may still have more pages than most. */
    share = (n->sequences > 2 ? 2.0 : 1.25) * run->positions /
            (double)n->n_positions;
    share = share < 1 ? share : 1;
    pages = ceil((double)n->n_pages * share) + (double)n->pages;
    run->n_pages = least((uint64_t)pages, UINT32_MAX);
    run->most_live =
        least((uint64_t)((double)n->n_questions * share) + 8, 1u << 20);
    *load = (struct sl_workload){
        .n_sequences = n->sequences,
        .max_tokens = n->longest,
        .shared_tokens = 1,
        .pass_positions = run->positions,
        .pass_logits = run->rows,
        .n_texts = most(run->most_live, 2),
        .kv_pages = (uint32_t)run->n_pages,
    };
}

/* --- results ------------------------------------------------------------- */

static struct sl_eval_task *shown_task(const struct sl_eval_run *run)
{
    return &run->ev->v[run->shown_tasks];
}

/* The values of a group's files for each metric; of all files: group -1. */
static int show_summary(struct sl_eval_run *run, const char *name, size_t group,
                        bool all, struct sl_error *err)
{
    const struct sl_eval_task *t = shown_task(run);
    size_t n_metrics = t->task->n_metrics, n = 0;
    double *values = sl_alloc_array(t->n_files * n_metrics + 1, sizeof(double));
    size_t *n_of = sl_alloc_array(t->n_files + 1, sizeof *n_of);
    struct sl_scores scores[SL_TASK_METRICS_MOST];

    if (values == NULL || n_of == NULL) {
        free(values);
        free(n_of);
        return sl_fail(err, SL_ERR_NOMEM, "out of memory for results");
    }
    for (size_t i = 0; i < t->n_files; i++) {
        if (!all && t->files[i].group != group)
            continue;
        for (size_t m = 0; m < n_metrics; m++)
            values[m * t->n_files + n] = t->files[i].values[m];
        n_of[n++] = t->files[i].n_examples;
    }
    for (size_t m = 0; m < n_metrics; m++)
        scores[m] = (struct sl_scores){sl_metric_name(t->task->metrics[m]),
                                       values + m * t->n_files, n_of, n};
    sl_console_summary(run->out, name, scores, n_metrics, all ? 0 : 1);
    free(values);
    free(n_of);
    return 0;
}

static void show_file(struct sl_eval_run *run, const struct sl_eval_file *f)
{
    const struct sl_task *task = shown_task(run)->task;
    const char *names[SL_TASK_METRICS_MOST];

    for (size_t m = 0; m < task->n_metrics; m++)
        names[m] = sl_metric_name(task->metrics[m]);
    sl_console_file(run->out, f->name, names, f->values, task->n_metrics);
    if (run->ev->o.build.glm)
        sl_glm_console_file(run->out, run->ev, shown_task(run), f,
                            (double)(sl_clock_ns() - run->file_ns) * 1e-9);
    run->file_ns = sl_clock_ns();
}

/* How far confidence is from being right, over all of a task's examples. */
static int show_ece(struct sl_eval_run *run, struct sl_error *err)
{
    const struct sl_eval_task *t = shown_task(run);
    double *sure = sl_alloc_array(t->n_units + 1, sizeof *sure);
    uint8_t *right = sl_alloc_array(t->n_units + 1, 1);

    if (sure == NULL || right == NULL) {
        free(sure);
        free(right);
        return sl_fail(err, SL_ERR_NOMEM, "out of memory for results");
    }
    for (size_t i = 0; i < t->n_units; i++) {
        const struct sl_unit *u = &t->units[i];
        uint32_t p = sl_unit_prediction(u, t->task->class);

        sure[i] = sl_unit_confidence(u, p);
        right[i] = p == u->e->label;
    }
    fprintf(run->out, "    Calibration error of task %s: %.4f\n", t->task->name,
            sl_metric_ece(sure, right, t->n_units));
    free(sure);
    free(right);
    return 0;
}

/* Prints the files that are over, in order, and the names of their groups. */
static int show_files(struct sl_eval_run *run, struct sl_error *err)
{
    struct sl_eval_task *t = shown_task(run);

    for (; run->shown < t->n_files; run->shown++) {
        struct sl_eval_file *f = &t->files[run->shown];

        for (; run->groups_named <= f->group; run->groups_named++)
            sl_console_group(run->out, t->task->groups[run->groups_named].name);
        if (f->n_left > 0)
            break;
        if (sl_eval_score(run->ev, t, f, err) != 0)
            return -1;
        if (!sl_class_hides_files(t->task->class))
            show_file(run, f);
    }
    return 0;
}

/* The end of a task: what its groups come to. */
static int show_task(struct sl_eval_run *run, struct sl_error *err)
{
    const struct sl_eval_task *t = shown_task(run);
    const struct sl_task *task = t->task;
    int rc = 0;

    fprintf(run->out, "Evaluation results of task %s:\n", task->name);
    for (size_t g = 0; rc == 0 && g < task->n_groups; g++)
        rc = sl_class_hides_files(task->class)
                 ? sl_class_show(run->out, t, g, err)
                 : show_summary(run, task->groups[g].name, g, false, err);
    if (rc == 0 && task->class == SL_CLASS_MMLU)
        rc = show_summary(run, "Overall", 0, true, err);
    if (rc == 0 && run->ece && task->type == SL_TASK_MUL &&
        !sl_class_hides_files(task->class))
        rc = show_ece(run, err);
    if (rc == 0 && run->ev->o.build.glm && !sl_class_hides_files(task->class))
        sl_glm_console_task(run->out, t);
    sl_console_end(run->out, task,
                   (double)(sl_clock_ns() - run->begin_ns) * 1e-9);
    return rc;
}

/* What can be printed of the task that is shown; *over: all of it was. */
static int show_some(struct sl_eval_run *run, bool *over, struct sl_error *err)
{
    const struct sl_eval_task *t = shown_task(run);

    if (!run->begun) {
        run->begun = true;
        run->begin_ns = run->file_ns = sl_clock_ns();
        run->shown = run->groups_named = 0;
        sl_console_begin(run->out, t->task, t->path);
    }
    if (show_files(run, err) != 0)
        return -1;
    *over = run->shown == t->n_files;
    return *over ? show_task(run, err) : 0;
}

/* Prints what can be, in order. Between lines of the console there is no line
 * of progress. */
static int show_now(struct sl_eval_run *run, struct sl_error *err)
{
    bool over = true;

    if (run->out == NULL)
        return 0;
    if (run->progress.terminal)
        sl_eval_progress_fini(&run->progress);
    while (over && run->shown_tasks < run->ev->n) {
        if (show_some(run, &over, err) != 0)
            return -1;
        if (over) {
            run->shown_tasks++;
            run->begun = false;
        }
    }
    if (fflush(run->out) != 0)
        return sl_fail_os(err, errno, "cannot write the results");
    return 0;
}

/* --- running ------------------------------------------------------------- */

int sl_eval_answered(void *opaque, struct sl_eval_task *t, struct sl_unit *u,
                     bool here, struct sl_error *err)
{
    struct sl_eval_run *run = opaque;
    struct sl_eval_file *f = &t->files[u->file];

    u->done = true;
    f->n_left--;
    run->progress.questions++;
    if (!here) {
        run->progress.positions +=
            t->generates ? 1 : sl_question_positions(&u->q);
        sl_eval_progress_show(&run->progress, false);
    }
    return f->n_left == 0 ? show_now(run, err) : 0;
}

static int next_question(void *opaque, struct sl_question **q, bool wait,
                         struct sl_error *err)
{
    struct sl_eval_run *run = opaque;
    struct sl_unit *u;

    if (sl_share_take(run->share, &u, run->task, wait, err) != 0)
        return -1;
    *q = u != NULL ? &u->q : NULL;
    return 0;
}

static int question_done(void *opaque, struct sl_question *q,
                         struct sl_error *err)
{
    struct sl_eval_run *run = opaque;

    return sl_share_answer(run->share, run->task,
                           (struct sl_unit *)q /* its first member */, err);
}

int sl_eval_note_pass(struct sl_eval_run *run, uint32_t positions,
                      uint32_t rows, struct sl_error *err)
{
    if (!sl_grow((void **)&run->passes, &run->pass_room, run->n_passes,
                 sizeof *run->passes))
        return sl_fail(err, SL_ERR_NOMEM, "out of memory for %zu passes",
                       run->n_passes);
    run->passes[run->n_passes++] = (struct sl_eval_pass){positions, rows};
    run->progress.sweeps++;
    sl_eval_progress_show(&run->progress, false);
    return 0;
}

static int passed(void *opaque, uint32_t positions, uint32_t rows,
                  struct sl_error *err)
{
    struct sl_eval_run *run = opaque;

    run->progress.positions += positions;
    return sl_eval_note_pass(run, positions, rows, err);
}

struct sl_pack_config sl_eval_pack_config(struct sl_eval_run *run)
{
    return (struct sl_pack_config){
        .lm = run->lm,
        .pool = run->pool,
        .two = run->ev->builder.hp->position_2d,
        .positions = run->positions,
        .rows = run->rows,
        .most_live = run->most_live,
        .n_pages = run->n_pages,
        .passed = passed,
        .opaque = run,
    };
}

static int ask(struct sl_eval_run *run, struct sl_error *err)
{
    struct sl_pack_config config = sl_eval_pack_config(run);

    if (run->task->generates)
        return sl_eval_generate(run, err);
    config.next = next_question;
    config.done = question_done;
    return sl_pack_ask(&config, err);
}

int sl_eval_run_all(struct sl_eval_run *run, struct sl_error *err)
{
    uint64_t begin = sl_clock_ns();
    int rc = show_now(run, err);

    while (rc == 0) {
        rc = sl_share_task(run->share, &run->task, err);
        if (rc != 0 || run->task == NULL)
            break;
        rc = ask(run, err);
    }
    sl_eval_progress_fini(&run->progress);
    if (rc == 0 && run->out != NULL)
        sl_console_total(run->out, run->ev->n,
                         (double)(sl_clock_ns() - begin) * 1e-9);
    return rc;
}
