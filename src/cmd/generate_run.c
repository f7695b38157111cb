#include "config.h"

#include <unistd.h>

#include "src/cmd/generate.h"
#include "src/cmd/rates_kept.h"

void sl_generate_log(void *opaque, enum sl_log_level level, const char *line)
{
    struct sl_generate *g = opaque;

    if (isatty(STDOUT_FILENO) && isatty(STDERR_FILENO) &&
        atomic_exchange(&g->line_open, false)) {
        sl_waiting_text(g->waiting, "\n", 1);
        fputc('\n', stderr);
    }
    sl_waiting_log(&g->waiting, level, line);
}

int sl_generate_open(struct sl_generate *g, struct sl_error *err)
{
    const struct sl_generate_options *o = g->o;
    int rc;

    if (sl_interrupt_create(&g->interrupt, err) != 0 ||
        sl_waiting_create(&g->waiting, o->progress, o->run.quiet, err) != 0)
        return -1;
    /* Checksums have a line of their own. */
    if (!o->run.verify)
        sl_waiting_begin(g->waiting, "opening the model", 0);
    rc = sl_runtime_open(&g->rt, &o->run, err);
    sl_waiting_end(g->waiting);
    return rc;
}

void sl_generate_close(struct sl_generate *g)
{
    sl_waiting_destroy(g->waiting);
    g->waiting = NULL;
    if (g->interrupt != NULL)
        sl_interrupt_watch(g->interrupt, NULL);
    sl_draft_file_close(&g->draft_file);
    sl_runtime_close(g->rt);
    sl_interrupt_destroy(g->interrupt);
}

static int start(struct sl_generate *g, const struct sl_workload *load,
                 struct sl_error *err)
{
    struct sl_workload all = *load;
    double age_s;

    /* before the plan, which counts the memory that this takes */
    if (g->o->json || g->drafts.n > 0 || sl_generate_wants_summary(g))
        g->rates_kept = sl_rates_kept(&g->rates, &age_s, g->rt);
    if (sl_draft_file_plan(&g->draft_file, &all, g->rt, &g->o->run, err) != 0 ||
        sl_runtime_start(g->rt, &all, err) != 0)
        return -1;
    return sl_draft_file_start(&g->draft_file, g->rt, err);
}

int sl_generate_start(struct sl_generate *g, const struct sl_workload *load,
                      struct sl_error *err)
{
    int rc;

    sl_waiting_begin(g->waiting, "planning", 0);
    rc = start(g, load, err);
    sl_waiting_end(g->waiting);
    if (rc != 0)
        return -1;
    g->started = true;
    sl_drafts_start(&g->drafts, g->rt, g->rates_kept ? &g->rates : NULL,
                    g->o->run.log);
    if (!g->o->run.quiet)
        sl_generate_print_plan(g);
    sl_interrupt_watch(g->interrupt, g->rt);
    sl_waiting_watch(g->waiting, g->rt);
    return 0;
}
