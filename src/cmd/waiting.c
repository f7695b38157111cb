#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <wchar.h>

#include "src/base/bytes.h"
#include "src/base/clock.h"
#include "src/base/json.h"
#include "src/base/mem.h"
#include "src/base/progress.h"
#include "src/base/utf8.h"
#include "src/cmd/waiting.h"

#define SILENCE_NS 1000000000ull  /* that nobody wonders about */
#define REDRAW_NS  200000000ull   /* of a terminal's line */
#define JSON_NS    1000000000ull  /* from one line to the next */
#define LINES_NS   30000000000ull /* the same of plain ones */

#define TEXT_CELLS 240

/* How it is shown. */
enum show { SHOW_SCREEN, SHOW_LINES, SHOW_JSON };

struct sl_waiting {
    enum show show;
    bool shares; /* standard output is a terminal too: the same one */
    pthread_t thread;
    pthread_mutex_t lock; /* of all that follows */
    pthread_cond_t changed;
    bool quit;
    struct sl_runtime *rt; /* borrowed, or NULL */
    const char *what;      /* NULL: nobody waits */
    uint64_t begin_ns;     /* of that, */
    uint64_t silent_ns;    /* of silence, */
    uint64_t shown_ns;     /* and when something was shown last */
    uint64_t first_pass;   /* passes there had been then */
    uint32_t most_passes;
    const char *unit; /* NULL: nothing is counted */
    uint64_t done, total, count_ns;
    /* of the pass under way, when it was first seen */
    uint64_t pass_ns, read_bytes, seen_ns;
    /* of the text on the terminal's last line; unsure: something in it has a
     * width that only the terminal knows */
    size_t column;
    bool unsure;
    bool drawn, below;
};

bool sl_opt_progress(enum sl_progress_kind *kind, int key, const char *arg,
                     struct argp_state *state)
{
    static const char *const names[] = {
        [SL_PROGRESS_AUTO] = "auto",
        [SL_PROGRESS_JSON] = "json",
        [SL_PROGRESS_OFF] = "off",
        NULL,
    };

    if (key != SL_OPT_PROGRESS)
        return false;
    *kind = (enum sl_progress_kind)sl_opt_pick(state, "progress", arg, names);
    return true;
}

/* --- what is said -----------------------------------------------------------
 */

/* What a pass is for: nothing was computed yet and weights are read for the
   first time, a prompt is read, tokens come. */
enum pass { PASS_NONE, PASS_WEIGHTS, PASS_PROMPT, PASS_TOKENS };

/* Positions of a pass that is no prompt: drafts and beams have some. */
#define MOST_TOKENS 64u

/* Seconds, where they are known: else negative. */
struct view {
    enum pass phase;
    struct sl_run_place at;
    uint64_t pass;    /* the how manieth of this wait */
    double share;     /* of the pass */
    double read_bps;  /* from disk, in this pass */
    double seconds;   /* of the pass, so far */
    double each_s;    /* of passes */
    double left_s;    /* to the first token; of tokens: at most to the end */
    double counted_s; /* to the end of what is counted */
    double waited_s;
};

static double seconds(uint64_t ns)
{
    return (double)ns * 1e-9;
}

static void look_at_pass(struct sl_waiting *w, struct view *v, uint64_t now)
{
    const struct sl_run_place *at = &v->at;
    double whole_s;

    if (at->begin_ns != w->pass_ns) {
        w->pass_ns = at->begin_ns;
        w->read_bytes = at->read_bytes;
        w->seen_ns = now;
    }
    v->pass = at->passes - w->first_pass + 1;
    v->seconds = now > at->begin_ns ? seconds(now - at->begin_ns) : 0;
    v->share = at->pass_bytes > 0
                   ? (double)at->done_bytes / (double)at->pass_bytes
                   : 0;
    if (now > w->seen_ns && at->read_bytes > w->read_bytes)
        v->read_bps = (double)(at->read_bytes - w->read_bytes) /
                      seconds(now - w->seen_ns);
    whole_s = v->share > 0 ? v->seconds / v->share : -1;
    v->phase = at->passes == 0                               ? PASS_WEIGHTS
               : v->pass == 1 || at->positions > MOST_TOKENS ? PASS_PROMPT
                                                             : PASS_TOKENS;
    if (v->phase != PASS_TOKENS) {
        if (whole_s > 0)
            v->left_s = whole_s * (1 + at->to_come) - v->seconds;
        return;
    }
    v->each_s = (v->waited_s - v->seconds) / (double)(v->pass - 1);
    if (w->most_passes >= v->pass)
        v->left_s =
            v->each_s * ((double)(w->most_passes - v->pass) + 1 - v->share);
}

static struct view look(struct sl_waiting *w, uint64_t now)
{
    struct view v = {.left_s = -1, .counted_s = -1, .each_s = -1};

    v.waited_s = seconds(now - w->begin_ns);
    if (w->rt != NULL)
        v.at = sl_runtime_place(w->rt);
    if (v.at.begin_ns != 0)
        look_at_pass(w, &v, now);
    if (w->unit != NULL && w->done > 0)
        v.counted_s = seconds(now - w->count_ns) / (double)w->done *
                      (double)(w->total - w->done);
    return v;
}

static size_t say_pass(char *text, size_t n, const struct view *v,
                       uint32_t most_passes)
{
    char done[SL_SIZE_TEXT], all[SL_SIZE_TEXT], eta[SL_ETA_TEXT];
    char limit[32] = "", rate[32] = "";

    sl_eta_format(eta, v->left_s);
    if (v->read_bps > 0)
        snprintf(rate, sizeof rate, ", %.2f GB/s", v->read_bps / 1e9);
    if (v->phase == PASS_WEIGHTS)
        return (size_t)snprintf(
            text, n, "weights: %s of %s%s, first token in %s",
            sl_size_format(done, v->at.done_bytes),
            sl_size_format(all, v->at.pass_bytes), rate, eta);
    if (v->phase == PASS_PROMPT)
        return (size_t)snprintf(
            text, n, "prompt: %.0f %% of %u positions, first token in %s",
            100 * v->share, v->at.positions, eta);
    if (most_passes > 0)
        snprintf(limit, sizeof limit, " of at most %u", most_passes);
    return (size_t)snprintf(text, n, "pass %llu%s: %.0f %%, %.2f s each%s%s%s",
                            (unsigned long long)v->pass, limit, 100 * v->share,
                            v->each_s, v->left_s >= 0 ? ", at most " : "",
                            v->left_s >= 0 ? eta : "",
                            v->left_s >= 0 ? " left" : "");
}

static void say(char text[TEXT_CELLS], const struct sl_waiting *w,
                const struct view *v)
{
    size_t at = 0, n = TEXT_CELLS;
    char eta[SL_ETA_TEXT];

    if (w->unit != NULL) {
        at = (size_t)snprintf(text, n, "%llu of %llu %s",
                              (unsigned long long)w->done,
                              (unsigned long long)w->total, w->unit);
        if (v->counted_s >= 0)
            at += (size_t)snprintf(text + at, n - at, ", %s left",
                                   sl_eta_format(eta, v->counted_s));
        at += (size_t)snprintf(text + at, n - at, "; ");
    }
    if (v->phase != PASS_NONE)
        say_pass(text + at, n - at, v, w->most_passes);
    else
        snprintf(text + at, n - at, "%s: %.0f s", w->what, v->waited_s);
}

/* --- how it is shown --------------------------------------------------------
 */

/* One write, which nobody else's parts. */
static void put(const char *bytes, size_t n)
{
    while (n > 0) {
        ssize_t done = write(STDERR_FILENO, bytes, n);

        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return;
        bytes += done;
        n -= (size_t)done;
    }
}

static void erase(struct sl_waiting *w)
{
    static const char line[] = "\r\033[K";
    static const char next[] = "\0337\033[B\r\033[K\0338";

    if (!w->drawn)
        return;
    if (w->below)
        put(next, sizeof next - 1);
    else
        put(line, sizeof line - 1);
    w->drawn = false;
}

/* Under an open line the cursor goes down and comes back. Behind a line that
 * is full it is where only the terminal knows. */
static void draw(struct sl_waiting *w, const char *text)
{
    unsigned columns = sl_progress_columns();
    size_t at = w->column % columns;
    char bytes[TEXT_CELLS + 64];
    int n;

    if (w->column > 0 && (w->unsure || at == 0 || at == columns - 1))
        return;
    w->below = w->column > 0;
    /* index and its reverse make room for a line without leaving this one */
    n = snprintf(bytes, sizeof bytes, "%s%.*s\033[K%s",
                 w->below ? "\033D\033M\0337\033[B\r\033[0m" : "\r",
                 (int)columns - 1, text, w->below ? "\0338" : "");
    put(bytes, (size_t)n);
    w->drawn = true;
}

static void show_line(const char *text)
{
    char bytes[TEXT_CELLS + 16];

    put(bytes, (size_t)snprintf(bytes, sizeof bytes, "sluice: %s\n", text));
}

static void add_real(json_t *o, const char *name, double value)
{
    if (o != NULL && value >= 0)
        json_object_set_new(o, name, json_real(value));
}

static void show_json(const struct sl_waiting *w, const struct view *v)
{
    static const char *const phases[] = {
        [PASS_WEIGHTS] = "weights",
        [PASS_PROMPT] = "prompt",
        [PASS_TOKENS] = "tokens",
    };
    json_t *o =
        json_pack("{ss sf}", "progress", w->what, "seconds", v->waited_s);
    char *text;

    if (o != NULL && w->unit != NULL) {
        json_object_set_new(o, "unit", json_string(w->unit));
        json_object_set_new(o, "done", json_integer((json_int_t)w->done));
        json_object_set_new(o, "total", json_integer((json_int_t)w->total));
        add_real(o, "total_seconds_left", v->counted_s);
    }
    if (o != NULL && v->phase != PASS_NONE) {
        json_object_set_new(o, "phase", json_string(phases[v->phase]));
        json_object_set_new(o, "pass", json_integer((json_int_t)v->pass));
        json_object_set_new(o, "bytes_done",
                            json_integer((json_int_t)v->at.done_bytes));
        json_object_set_new(o, "bytes",
                            json_integer((json_int_t)v->at.pass_bytes));
        add_real(o, "read_bytes_per_second", v->read_bps);
        add_real(o, "seconds_left", v->left_s);
    }
    o = sl_json_versioned(o);
    text =
        o != NULL ? json_dumps(o, JSON_COMPACT | JSON_REAL_PRECISION(6)) : NULL;
    if (text != NULL) {
        size_t n = strlen(text);

        text[n] = '\n'; /* in the place of its end */
        put(text, n + 1);
    }
    free(text);
    json_decref(o);
}

static void show(struct sl_waiting *w, uint64_t now)
{
    static const uint64_t gaps[] = {
        [SHOW_SCREEN] = REDRAW_NS / 2,
        [SHOW_LINES] = LINES_NS,
        [SHOW_JSON] = JSON_NS,
    };
    struct view v = look(w, now);
    char text[TEXT_CELLS];

    if (now - w->shown_ns < gaps[w->show] ||
        (w->show != SHOW_JSON && now - w->silent_ns < SILENCE_NS))
        return;
    w->shown_ns = now;
    if (w->show == SHOW_JSON) {
        show_json(w, &v);
        return;
    }
    say(text, w, &v);
    if (w->show == SHOW_SCREEN)
        draw(w, text);
    else if (w->column == 0)
        show_line(text);
}

static void *watch(void *arg)
{
    struct sl_waiting *w = arg;

    pthread_mutex_lock(&w->lock);
    while (!w->quit) {
        uint64_t until = sl_clock_ns() + REDRAW_NS;
        struct timespec t = {(time_t)(until / 1000000000u),
                             (long)(until % 1000000000u)};

        if (w->what == NULL)
            pthread_cond_wait(&w->changed, &w->lock);
        else if (pthread_cond_timedwait(&w->changed, &w->lock, &t) ==
                     ETIMEDOUT &&
                 w->what != NULL)
            show(w, sl_clock_ns());
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

/* --- life -------------------------------------------------------------------
 */

static int start(struct sl_waiting *w, struct sl_error *err)
{
    pthread_condattr_t monotonic;
    sigset_t all, old;
    int rc;

    pthread_mutex_init(&w->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&w->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &old);
    rc = pthread_create(&w->thread, NULL, watch, w);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return rc == 0 ? 0
                   : sl_fail_os(err, rc,
                                "cannot start a thread that shows progress");
}

int sl_waiting_create(struct sl_waiting **out, enum sl_progress_kind kind,
                      bool quiet, struct sl_error *err)
{
    struct sl_waiting *w;

    *out = NULL;
    if (kind == SL_PROGRESS_OFF ||
        (kind == SL_PROGRESS_AUTO && (quiet || !isatty(STDERR_FILENO))))
        return 0;
    w = sl_zalloc_array(1, sizeof *w);
    if (w == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "out of memory");
    w->shares = isatty(STDOUT_FILENO);
    w->show = kind == SL_PROGRESS_JSON ? SHOW_JSON
              : sl_progress_screen()   ? SHOW_SCREEN
                                       : SHOW_LINES;
    if (start(w, err) != 0) {
        free(w);
        return -1;
    }
    *out = w;
    return 0;
}

void sl_waiting_destroy(struct sl_waiting *w)
{
    if (w == NULL)
        return;
    pthread_mutex_lock(&w->lock);
    w->quit = true;
    erase(w);
    pthread_cond_signal(&w->changed);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    pthread_cond_destroy(&w->changed);
    pthread_mutex_destroy(&w->lock);
    free(w);
}

void sl_waiting_watch(struct sl_waiting *w, struct sl_runtime *rt)
{
    if (w == NULL)
        return;
    pthread_mutex_lock(&w->lock);
    w->rt = rt;
    w->pass_ns = 0;
    pthread_mutex_unlock(&w->lock);
}

void sl_waiting_begin(struct sl_waiting *w, const char *what,
                      uint32_t most_passes)
{
    if (w == NULL)
        return;
    pthread_mutex_lock(&w->lock);
    w->what = what;
    w->most_passes = most_passes;
    w->begin_ns = w->silent_ns = w->shown_ns = sl_clock_ns();
    w->first_pass = w->rt != NULL ? sl_runtime_place(w->rt).passes : 0;
    pthread_cond_signal(&w->changed);
    pthread_mutex_unlock(&w->lock);
}

void sl_waiting_end(struct sl_waiting *w)
{
    if (w == NULL)
        return;
    pthread_mutex_lock(&w->lock);
    erase(w);
    w->what = NULL;
    w->column = 0;
    w->unsure = false;
    pthread_mutex_unlock(&w->lock);
}

void sl_waiting_count(struct sl_waiting *w, const char *unit, uint64_t done,
                      uint64_t total)
{
    if (w == NULL)
        return;
    pthread_mutex_lock(&w->lock);
    if (w->unit == NULL)
        w->count_ns = sl_clock_ns();
    w->unit = unit;
    w->done = done;
    w->total = total;
    pthread_mutex_unlock(&w->lock);
}

void sl_waiting_aside(struct sl_waiting *w)
{
    if (w == NULL)
        return;
    pthread_mutex_lock(&w->lock);
    erase(w);
    pthread_mutex_unlock(&w->lock);
}

/* Where the cursor will be. */
static void follow(struct sl_waiting *w, const char *text, size_t n)
{
    struct sl_utf8_bad bad;
    uint32_t c;

    for (size_t at = 0; at < n;) {
        size_t size = sl_utf8_get(&c, &bad, text + at, n - at);
        int width;

        at += size > 0 ? size : bad.n;
        if (size > 0 && c == '\n') {
            w->column = 0;
            w->unsure = false;
            continue;
        }
        width = size > 0 && c < 0x10000 ? wcwidth((wchar_t)c) : -1;
        w->unsure = w->unsure || width < 1;
        w->column += width < 1 ? 1 : (size_t)width;
    }
}

void sl_waiting_text(struct sl_waiting *w, const char *text, size_t n)
{
    if (w == NULL || n == 0)
        return;
    pthread_mutex_lock(&w->lock);
    w->silent_ns = sl_clock_ns();
    erase(w);
    if (w->shares)
        follow(w, text, n);
    pthread_mutex_unlock(&w->lock);
}

void sl_waiting_log(void *opaque, enum sl_log_level level, const char *line)
{
    struct sl_waiting **w = opaque;

    sl_waiting_aside(*w);
    sl_log_stderr(NULL, level, line);
}
