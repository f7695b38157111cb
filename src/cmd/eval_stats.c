#include "config.h"

#include <stdio.h>

#include "src/cmd/eval_stats.h"
#include "src/cmd/run_show.h"

/* What all passes must take together, and what limits most of that. */
static double floor_of(const struct sl_runtime *rt,
                       const struct sl_rates *rates,
                       const struct sl_eval_run *run, enum sl_limit *limit)
{
    double sum = 0, most = 0;

    for (size_t i = 0; i < run->n_passes; i++) {
        const struct sl_eval_pass *p = &run->passes[i];
        struct sl_floor f = sl_runtime_floor_at(
            rt, rates, (struct sl_plan_pass){p->positions, p->rows, 0});

        sum += f.seconds;
        if (f.seconds > most)
            *limit = f.limit;
        most = f.seconds > most ? f.seconds : most;
    }
    return sum;
}

static void show_passes(const struct sl_eval_run *run, double seconds)
{
    double n = run->n_passes > 0 ? (double)run->n_passes : 1;
    uint64_t positions = 0, rows = 0;

    for (size_t i = 0; i < run->n_passes; i++) {
        positions += run->passes[i].positions;
        rows += run->passes[i].rows;
    }
    fprintf(stderr, "questions    %llu in %.2f s: %.1f a minute\n",
            (unsigned long long)run->progress.questions, seconds,
            60 * (double)run->progress.questions / seconds);
    fprintf(stderr,
            "passes       %zu, %.0f positions and %.0f rows of logits each\n",
            run->n_passes, (double)positions / n, (double)rows / n);
}

int sl_eval_stats_print(const struct sl_eval_model *m,
                        const struct sl_eval_run *run, double seconds,
                        struct sl_error *err)
{
    enum sl_limit limit = SL_LIMIT_DISK;
    struct sl_run_stats s;
    struct sl_floor ignored;
    struct sl_rates rates;
    double floor_s;

    sl_runtime_stats(m->rt, &s);
    fflush(stdout); /* what it is about comes first */
    show_passes(run, seconds);
    sl_run_show_disk(stderr, m->rt, &s);
    sl_run_show_memory(stderr, m->rt, &s);
    if (run->n_passes == 0)
        return 0;
    if (sl_runtime_floor(m->rt, (struct sl_plan_pass){1, 1, 0}, &ignored,
                         &rates, err) != 0)
        return -1;
    floor_s = floor_of(m->rt, &rates, run, &limit);
    fprintf(stderr, "floor        %.2f s (%s: ", floor_s, sl_limit_name(limit));
    sl_run_show_rates(stderr, m->rt, &rates);
    fprintf(stderr, "), measured %.2f s: share %.2f\n", seconds,
            floor_s / seconds);
    return 0;
}
