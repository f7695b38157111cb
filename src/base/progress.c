#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "src/base/bytes.h"
#include "src/base/clock.h"
#include "src/base/progress.h"

#define BAR_CELLS   28
#define LINE_CELLS  160
#define REDRAW_NS   100000000ull
#define LINE_GAP_NS 30000000000ull
#define LEAST_NS    3000000000ull

bool sl_progress_screen(void)
{
    const char *term = getenv("TERM");

    return term == NULL || (*term != '\0' && strcmp(term, "dumb") != 0);
}

void sl_progress_init(struct sl_progress *p, const char *what, uint64_t total,
                      uint64_t skipped, bool quiet)
{
    memset(p, 0, sizeof *p);
    p->what = what;
    p->total = total;
    p->done = p->skipped = skipped;
    p->quiet = quiet;
    p->terminal = isatty(STDERR_FILENO) == 1 && sl_progress_screen();
    p->start_ns = p->last_ns = sl_clock_ns();
    p->last_tenth =
        total ? (unsigned)(10.0 * (double)skipped / (double)total) : 0;
}

const char *sl_eta_format(char buf[SL_ETA_TEXT], double s)
{
    size_t n = SL_ETA_TEXT;

    if (s < 0 || s > 360000)
        snprintf(buf, n, "--:--");
    else if (s >= 3600)
        snprintf(buf, n, "%d:%02d:%02d", (int)s / 3600, (int)s / 60 % 60,
                 (int)s % 60);
    else
        snprintf(buf, n, "%d:%02d", (int)s / 60, (int)s % 60);
    return buf;
}

unsigned sl_progress_columns(void)
{
    struct winsize size;

    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0)
        return 80;
    return size.ws_col;
}

/* One line that the next one replaces: a longer one than the terminal is wide
 * would stay. The bar has the room that the numbers leave. */
static void draw_line(const char *what, const char *numbers, double frac)
{
    int room = (int)sl_progress_columns() - 1;
    int cells = room - (int)strlen(what) - (int)strlen(numbers) - 4;
    char bar[BAR_CELLS + 1];

    if (cells > BAR_CELLS)
        cells = BAR_CELLS;
    for (int i = 0; i < cells; i++)
        bar[i] = i < (int)(frac * cells + 0.5) ? '#' : '.';
    if (cells >= 4)
        fprintf(stderr, "\r\033[K%s [%.*s] %s", what, cells, bar, numbers);
    else
        fprintf(stderr, "\r\033[K%.*s", room, numbers);
}

/* Rates count from where a resumed run went on (skipped): what was there
 * before took no time. */
static void draw(struct sl_progress *p, uint64_t now)
{
    double frac = p->total ? (double)p->done / (double)p->total : 1;
    double secs = (double)(now - p->start_ns) * 1e-9;
    double rate = secs > 0 ? (double)(p->done - p->skipped) / secs : 0;
    char done[SL_SIZE_TEXT], total[SL_SIZE_TEXT], per_s[SL_SIZE_TEXT],
        eta[SL_ETA_TEXT];
    char line[LINE_CELLS];

    sl_size_format(done, p->done);
    sl_size_format(total, p->total);
    sl_size_format(per_s, (uint64_t)rate);
    sl_eta_format(eta, rate > 0 ? (double)(p->total - p->done) / rate : -1);
    if (!p->terminal) {
        fprintf(stderr, "%s: %3.0f %%  %s of %s  %s/s  %s left\n", p->what,
                100 * frac, done, total, per_s, eta);
        return;
    }
    /* as wide each time, so that the bar keeps its place */
    snprintf(line, sizeof line, "%3.0f %%  %10s of %s  %10s/s  %5s left",
             100 * frac, done, total, per_s, eta);
    draw_line(p->what, line, frac);
    fflush(stderr);
    p->drawn = true;
}

void sl_progress_update(struct sl_progress *p, uint64_t done)
{
    uint64_t now = sl_clock_ns();
    unsigned tenth;

    p->done = done < p->total ? done : p->total;
    if (p->quiet)
        return;
    tenth =
        p->total ? (unsigned)(10.0 * (double)p->done / (double)p->total) : 10;
    if (p->terminal) {
        if (now - p->last_ns < REDRAW_NS)
            return;
    } else if (now - p->last_ns <
               (tenth == p->last_tenth ? LINE_GAP_NS : LEAST_NS)) {
        return;
    }
    p->last_ns = now;
    p->last_tenth = tenth;
    draw(p, now);
}

void sl_progress_fini(struct sl_progress *p)
{
    if (p->drawn)
        fputs("\r\033[K", stderr);
    p->drawn = false;
}
