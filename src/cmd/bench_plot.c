#include "config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/bytes.h"
#include "src/base/mem.h"
#include "src/base/newfile.h"
#include "src/cmd/bench.h"

/* Two panels a phase: speed above, efficiency below, over one axis of RAM
 * budgets. A line for every prompt, batch and number of threads. Units are
 * SVG's pixels. */
#define WIDTH   1000
#define HEIGHT  720
#define PANEL_W 380.0
#define PANEL_H 220.0
#define MIB     (1024.0 * 1024)
#define GIB     (1024.0 * MIB)
#define TICK    24  /* characters of a number at an axis */
#define DIGIT_W 8.3 /* of a wide sans-serif */

static const char *const colours[] = {
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00",
}; /* Okabe and Ito: told apart by colour-blind eyes too */
#define N_COLOURS (sizeof colours / sizeof *colours)

struct plot {
    FILE *f;
    const struct sl_bench_result **r; /* (n) by series, then budget */
    size_t n;
    double unit;         /* of the axis of budgets, bytes: a GiB or a MiB */
    double x_min, x_max; /* units */
};

struct panel {
    double left, top;
    double y_max, y_step;
};

static int compare(const void *a, const void *b)
{
    const struct sl_bench_result *x = *(const struct sl_bench_result *const *)a;
    const struct sl_bench_result *y = *(const struct sl_bench_result *const *)b;
    const uint64_t xs[] = {x->run.prompt, x->run.batch, x->run.threads,
                           x->memory.budget};
    const uint64_t ys[] = {y->run.prompt, y->run.batch, y->run.threads,
                           y->memory.budget};

    for (int i = 0; i < 4; i++) {
        if (xs[i] != ys[i])
            return xs[i] < ys[i] ? -1 : 1;
    }
    return 0;
}

static bool same_series(const struct sl_bench_result *a,
                        const struct sl_bench_result *b)
{
    return a->run.prompt == b->run.prompt && a->run.batch == b->run.batch &&
           a->run.threads == b->run.threads;
}

/* 1, 2 or 5 times a power of ten, so that there are about five steps. */
static double nice_step(double range)
{
    double step = pow(10, floor(log10(range / 5)));

    while (range / step > 7) {
        step *= 2;
        if (range / step > 7)
            step *= 2.5;
        if (range / step > 7)
            step *= 2;
    }
    return step;
}

static double x_at(const struct plot *p, const struct panel *panel, double x)
{
    return panel->left + PANEL_W * (x - p->x_min) / (p->x_max - p->x_min);
}

static double budget_of(const struct plot *p, const struct sl_bench_result *r)
{
    return (double)r->memory.budget / p->unit;
}

static double y_at(const struct panel *panel, double y)
{
    return panel->top + PANEL_H * (1 - y / panel->y_max);
}

/* XML's five; the text comes from a file's metadata. */
static void escape(FILE *f, const char *text)
{
    for (; *text != '\0'; text++) {
        switch (*text) {
        case '<':
            fputs("&lt;", f);
            break;
        case '>':
            fputs("&gt;", f);
            break;
        case '&':
            fputs("&amp;", f);
            break;
        default:
            fputc((unsigned char)*text < 0x20 ? ' ' : *text, f);
        }
    }
}

/* The number at a tick; no exponent for large ones. */
static const char *tick(char text[TICK], double v)
{
    if (fabs(v) < 1e-9)
        v = 0;
    snprintf(text, TICK, fabs(v) < 999.5 ? "%.3g" : "%.0f", v);
    return text;
}

/* Where the y axis's title stands: left of its longest number, within the
 * margin. */
static double y_title_at(const struct panel *panel)
{
    char text[TICK];
    double most = 0;

    for (int i = 0; i * panel->y_step <= panel->y_max * 1.0001; i++)
        most = fmax(most, strlen(tick(text, i * panel->y_step)) * DIGIT_W);
    return panel->left - fmin(fmax(most + 16, 52), 70);
}

/* The least budget above x; INFINITY: none. */
static double next_budget(const struct plot *p, double x)
{
    double next = INFINITY;

    for (size_t i = 0; i < p->n; i++) {
        double b = budget_of(p, p->r[i]);

        if (b > x && b < next)
            next = b;
    }
    return next;
}

/* A line for every budget that was used, and its number where there is room
 * beside the one before. */
static void budgets(const struct plot *p, const struct panel *panel)
{
    double bottom = panel->top + PANEL_H, end = -INFINITY;
    char text[TICK];

    for (double b = next_budget(p, -1); b < INFINITY; b = next_budget(p, b)) {
        double x = x_at(p, panel, b);
        double half = strlen(tick(text, b)) * DIGIT_W / 2;

        fprintf(p->f,
                "<line class=\"g\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" "
                "y2=\"%.1f\"/>\n",
                x, panel->top, x, bottom);
        if (x - half < end)
            continue;
        fprintf(p->f, "<text class=\"m\" x=\"%.1f\" y=\"%.1f\">%s</text>\n", x,
                bottom + 18, text);
        end = x + half + DIGIT_W;
    }
}

static void axes(const struct plot *p, const struct panel *panel,
                 const char *title, const char *y_title, bool x_title)
{
    double right = panel->left + PANEL_W, bottom = panel->top + PANEL_H;
    char text[TICK];

    fprintf(p->f,
            "<text class=\"t\" x=\"%.1f\" y=\"%.1f\">%s</text>\n"
            "<text class=\"m\" transform=\"translate(%.1f,%.1f) "
            "rotate(-90)\">%s</text>\n",
            panel->left + PANEL_W / 2, panel->top - 10, title,
            y_title_at(panel), panel->top + PANEL_H / 2, y_title);
    if (x_title)
        fprintf(p->f,
                "<text class=\"m\" x=\"%.1f\" y=\"%.1f\">RAM budget "
                "[%s]</text>\n",
                panel->left + PANEL_W / 2, bottom + 40,
                p->unit == GIB ? "GiB" : "MiB");
    for (int i = 0; i * panel->y_step <= panel->y_max * 1.0001; i++) {
        double y = y_at(panel, i * panel->y_step);

        fprintf(p->f,
                "<line class=\"g\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" "
                "y2=\"%.1f\"/>\n"
                "<text class=\"r\" x=\"%.1f\" y=\"%.1f\">%s</text>\n",
                panel->left, y, right, y, panel->left - 7, y + 4,
                tick(text, i * panel->y_step));
    }
    budgets(p, panel);
    fprintf(p->f,
            "<rect class=\"a\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" "
            "height=\"%.1f\"/>\n",
            panel->left, panel->top, PANEL_W, PANEL_H);
}

/* What is drawn of a result. */
enum curve { SPEED, FLOOR, EFFICIENCY };

/* v[0] is drawn, v[1] .. v[2] is its spread. */
static void value(double v[3], const struct sl_bench_result *r,
                  enum sl_bench_phase phase, enum curve curve)
{
    const struct sl_bench_phase_result *p = &r->phase[phase];

    switch (curve) {
    case SPEED:
        v[0] = p->positions / p->seconds.median;
        v[1] = p->positions / p->seconds.most;
        v[2] = p->positions / p->seconds.least;
        return;
    case FLOOR:
        v[0] = p->floor.seconds > 0 ? p->positions / p->floor.seconds : 0;
        v[1] = v[2] = v[0];
        return;
    case EFFICIENCY:
        v[0] = p->efficiency.median;
        v[1] = p->efficiency.least;
        v[2] = p->efficiency.most;
    }
}

/* A line for each series of runs that differ in RAM alone; dots are medians,
 * bars from least to most. Floors have a short stroke in place of dots. */
static void draw(const struct plot *p, const struct panel *panel,
                 enum sl_bench_phase phase, enum curve curve)
{
    size_t series = 0;
    double v[3];

    for (size_t i = 0, end; i < p->n; i = end, series++) {
        const char *colour = colours[series % N_COLOURS];

        for (end = i + 1; end < p->n && same_series(p->r[i], p->r[end]);)
            end++;
        fprintf(p->f, "<polyline fill=\"none\" stroke=\"%s\" %s points=\"",
                colour,
                curve == FLOOR ? "stroke-dasharray=\"6 4\" stroke-width=\"1.5\""
                               : "stroke-width=\"2\"");
        for (size_t k = i; k < end; k++) {
            value(v, p->r[k], phase, curve);
            fprintf(p->f, "%.1f,%.1f ", x_at(p, panel, budget_of(p, p->r[k])),
                    y_at(panel, v[0]));
        }
        fputs("\"/>\n", p->f);
        for (size_t k = i; k < end; k++) {
            double x = x_at(p, panel, budget_of(p, p->r[k]));

            value(v, p->r[k], phase, curve);
            if (curve == FLOOR) {
                fprintf(p->f,
                        "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" "
                        "y2=\"%.1f\" stroke=\"%s\"/>\n",
                        x - 5, y_at(panel, v[0]), x + 5, y_at(panel, v[0]),
                        colour);
                continue;
            }
            fprintf(p->f,
                    "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" "
                    "stroke=\"%s\"/>\n"
                    "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"4\" fill=\"%s\"/>\n",
                    x, y_at(panel, v[1]), x, y_at(panel, v[2]), colour, x,
                    y_at(panel, v[0]), colour);
        }
    }
}

static double largest(const struct plot *p, enum sl_bench_phase phase,
                      enum curve curve)
{
    double most = 0, v[3];

    for (size_t i = 0; i < p->n; i++) {
        value(v, p->r[i], phase, curve);
        most = v[2] > most ? v[2] : most;
    }
    return most > 0 ? most : 1;
}

/* Speed above efficiency, over the same budgets. The scale of efficiency is
 * the same for all plots, unless something lies beyond it. */
static void draw_phase(const struct plot *p, enum sl_bench_phase phase,
                       double left)
{
    struct panel speed = {.left = left, .top = 130};
    struct panel share = {.left = left, .top = 420};
    const char *name = sl_bench_phase_name(phase);
    double most = largest(p, phase, FLOOR), other = largest(p, phase, SPEED);
    char title[64];

    most = other > most ? other : most;
    speed.y_step = nice_step(most);
    speed.y_max = ceil(most * 1.05 / speed.y_step) * speed.y_step;
    most = largest(p, phase, EFFICIENCY);
    share.y_step = 0.2;
    share.y_max = most > 1.15 ? ceil(most / 0.2) * 0.2 : 1.2;
    snprintf(title, sizeof title, "%s: speed", name);
    axes(p, &speed, title, "tokens/s", false);
    draw(p, &speed, phase, FLOOR);
    draw(p, &speed, phase, SPEED);
    snprintf(title, sizeof title, "%s: efficiency", name);
    axes(p, &share, title, "floor / measured", true);
    draw(p, &share, phase, EFFICIENCY);
}

/* Series beyond the colours there are would look like earlier ones: they are
 * drawn, but not named twice. */
static void legend(const struct plot *p, const struct sl_bench_origin *origin)
{
    char size[SL_SIZE_TEXT];
    size_t series = 0;

    fprintf(p->f, "<text class=\"h\" x=\"80\" y=\"30\">");
    escape(p->f, origin->name);
    fprintf(p->f, ", %s, %s</text>\n<text class=\"s\" x=\"80\" y=\"50\">",
            origin->quant, sl_size_format(size, origin->file_bytes));
    escape(p->f, origin->machine.cpu);
    fprintf(p->f,
            ", %u CPUs; dots: medians, bars: least to most; dashed: the "
            "limit of this machine</text>\n",
            origin->machine.n_cpus);
    for (size_t i = 0, end; i < p->n; i = end, series++) {
        double x = 80 + (double)(series % 3) * 290;
        double y = 72 + (double)(series / 3) * 18;

        for (end = i + 1; end < p->n && same_series(p->r[i], p->r[end]);)
            end++;
        if (series >= N_COLOURS)
            continue;
        fprintf(p->f,
                "<circle cx=\"%.0f\" cy=\"%.0f\" r=\"4\" fill=\"%s\"/>"
                "<text class=\"s\" x=\"%.0f\" y=\"%.0f\">prompt %u, batch %u, "
                "%u thread%s</text>\n",
                x, y - 4, colours[series], x + 12, y, p->r[i]->run.prompt,
                p->r[i]->run.batch, p->r[i]->run.threads,
                p->r[i]->run.threads == 1 ? "" : "s");
    }
}

static void draw_all(struct plot *p, const struct sl_bench_origin *origin)
{
    double least = INFINITY, most = 0;

    p->unit = MIB;
    for (size_t i = 0; i < p->n; i++) {
        if ((double)p->r[i]->memory.budget >= GIB)
            p->unit = GIB;
    }
    for (size_t i = 0; i < p->n; i++) {
        double x = budget_of(p, p->r[i]);

        least = x < least ? x : least;
        most = x > most ? x : most;
    }
    /* From zero, unless that would press all of it to the right. */
    p->x_min =
        least > most / 2 && most > least ? least - (most - least) / 8 : 0;
    p->x_max = most + (most - p->x_min) / 16;
    fprintf(p->f,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" "
            "height=\"%d\" viewBox=\"0 0 %d %d\">\n"
            "<style>text{font-family:sans-serif;font-size:13px;fill:#222}"
            ".m{text-anchor:middle}.r{text-anchor:end}"
            ".t{text-anchor:middle;font-weight:bold}"
            ".h{font-size:18px;font-weight:bold}.s{fill:#444}"
            ".g{stroke:#ddd}.a{fill:none;stroke:#222}</style>\n"
            "<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n",
            WIDTH, HEIGHT, WIDTH, HEIGHT);
    legend(p, origin);
    draw_phase(p, SL_BENCH_DECODE, 80);
    draw_phase(p, SL_BENCH_PREFILL, 570);
    fputs("</svg>\n", p->f);
}

int sl_bench_plot(const char *path, const struct sl_bench_result *results,
                  size_t n, const struct sl_bench_origin *origin,
                  struct sl_error *err)
{
    struct plot p = {.n = n};
    struct sl_newfile to;
    int rc = -1;

    p.r = sl_alloc_array(n, sizeof *p.r);
    if (p.r == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory for the plot");
    for (size_t i = 0; i < n; i++)
        p.r[i] = &results[i];
    qsort(p.r, n, sizeof *p.r, compare);
    if (sl_newfile_open(&to, path, err) == 0) {
        p.f = to.file;
        draw_all(&p, origin);
        rc = sl_newfile_close(&to, err);
    }
    free(p.r);
    return rc;
}
