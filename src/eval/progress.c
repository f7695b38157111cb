#include "config.h"

#include <string.h>
#include <unistd.h>

#include "src/base/clock.h"
#include "src/base/progress.h"
#include "src/eval/run.h"

#define REDRAW_NS 200000000ull
#define LINE_NS   30000000000ull

void sl_eval_progress_init(struct sl_eval_progress *p, uint64_t n_questions,
                           uint64_t n_positions, bool quiet)
{
    *p = (struct sl_eval_progress){
        .quiet = quiet,
        .terminal = isatty(STDERR_FILENO) == 1 && sl_progress_screen(),
        .n_questions = n_questions,
        .n_positions = n_positions,
        .start_ns = sl_clock_ns(),
    };
    p->last_ns = p->start_ns;
}

void sl_eval_time_text(char text[32], double seconds)
{
    unsigned long long s =
        seconds < 1e9 ? (unsigned long long)(seconds + 0.5) : 1000000000ull;

    if (s < 100)
        snprintf(text, 32, "%llu s", s);
    else if (s < 6000)
        snprintf(text, 32, "%llu min", (s + 30) / 60);
    else
        snprintf(text, 32, "%llu h %02llu min", s / 3600, s % 3600 / 60);
}

/* Sweeps to come are as large as those that were. */
static void draw(struct sl_eval_progress *p, double seconds)
{
    double share = p->n_positions > 0 && p->positions > 0
                       ? (double)p->positions / (double)p->n_positions
                       : 0;
    char left[32] = "";

    if (share > 0) {
        sl_eval_time_text(left, seconds * (1 / share - 1));
        fprintf(stderr,
                "%ssluice: %llu of %llu questions, %llu of about %.0f sweeps, "
                "%s left%s",
                p->terminal ? "\r\033[K" : "", (unsigned long long)p->questions,
                (unsigned long long)p->n_questions,
                (unsigned long long)p->sweeps, (double)p->sweeps / share, left,
                p->terminal ? "" : "\n");
    }
    p->drawn = true;
}

void sl_eval_progress_show(struct sl_eval_progress *p, bool now)
{
    uint64_t ns = sl_clock_ns();

    if (p->quiet ||
        (!now && ns - p->last_ns < (p->terminal ? REDRAW_NS : LINE_NS)))
        return;
    p->last_ns = ns;
    draw(p, (double)(ns - p->start_ns) * 1e-9);
}

void sl_eval_progress_fini(struct sl_eval_progress *p)
{
    if (p->drawn && p->terminal && !p->quiet)
        fputs("\r\033[K", stderr);
    p->drawn = false;
}
