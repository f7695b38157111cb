#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/base/clock.h"
#include "src/generate.h"
#include "src/lines.h"
#include "src/opts.h"

enum {
    EXIT_INTERRUPTED = 130, /* 128 + SIGINT, as shells have it */
    EXIT_PIPE_CLOSED = 141, /* 128 + SIGPIPE */
};

/* Reports err and says with which code to leave. A reader that has seen
 * enough is not worth a line. */
static int leave(const struct sl_error *err)
{
    if (err->os_errno == EPIPE)
        return EXIT_PIPE_CLOSED;
    if (err->code == SL_ERR_INTERRUPTED)
        return EXIT_INTERRUPTED;
    sl_report(err);
    return SL_EXIT_FAILED;
}

static int start(struct sl_generate *g, const struct sl_workload *load,
                 struct sl_error *err)
{
    if (sl_runtime_start(g->rt, load, err) != 0)
        return -1;
    g->started = true;
    if (!g->o->run.quiet)
        sl_generate_print_plan(g);
    sl_interrupt_watch(g->interrupt, g->rt);
    return 0;
}

static enum sl_show show_of(const struct sl_generate *g)
{
    if (g->o->json)
        return SL_SHOW_JSON;
    return g->o->prompt != NULL ? SL_SHOW_TEXT : SL_SHOW_STYLED;
}

/* All of standard input, without its last line end. */
static int read_prompt(struct sl_lines *in, struct sl_query *q,
                       struct sl_error *err)
{
    char *text;

    if (sl_lines_rest(in, &text, &q->n_text, err) != 0)
        return -1;
    if (q->n_text > 0 && text[q->n_text - 1] == '\n')
        q->n_text--;
    if (q->n_text > 0 && text[q->n_text - 1] == '\r')
        q->n_text--;
    q->text = text;
    return 0;
}

int sl_generate_prompt(struct sl_generate *g)
{
    struct sl_lines in = {.fd = STDIN_FILENO, .stop_fd = -1};
    struct sl_query q = {.text = g->o->prompt, .line = -1};
    struct sl_workload load = {0};
    struct sl_error err = {0};
    bool interrupted = false;
    int rc = 0;

    if (strcmp(q.text, "-") == 0)
        rc = read_prompt(&in, &q, &err);
    else
        q.n_text = strlen(q.text);
    if (rc == 0)
        rc = sl_generate_measure(g, &q, &load, &err);
    if (rc == 0)
        rc = start(g, &load, &err);
    if (rc == 0)
        rc = sl_generate_query(g, &q, show_of(g), &interrupted, &err);
    sl_lines_fini(&in);
    if (rc != 0)
        return leave(&err);
    return interrupted ? EXIT_INTERRUPTED : SL_EXIT_OK;
}

/* Reports what is wrong with one query. */
static void report_query(const struct sl_generate *g, const struct sl_query *q,
                         struct sl_error *err)
{
    if (q->line >= 0)
        sl_error_prefix(err, "%s, line %lld: ", g->o->input_source,
                        (long long)q->line);
    sl_report(err);
    if (g->o->json) {
        printf("{\"line\":%lld,\"error\":", (long long)q->line);
        json_t *text = json_string(err->msg);
        json_dumpf(text, stdout, JSON_ENCODE_ANY);
        json_decref(text);
        puts("}");
    }
}

/* One line of a person or a file. Returns 0, or -1 when the run must end;
 * what is wrong with this query alone is reported and counted. */
static int run_line(struct sl_generate *g, struct sl_query *q, size_t *n_bad,
                    bool *interrupted, struct sl_error *err)
{
    uint64_t begin = sl_clock_ns();
    char *id, *text;
    int rc = 0;

    if (g->o->with_id) {
        rc = sl_query_split((char *)q->text, q->n_text, &id, &text, &q->n_text,
                            err);
        q->id = rc == 0 ? id : NULL;
        q->text = rc == 0 ? text : q->text;
    }
    if (rc == 0)
        rc = sl_generate_query(g, q, show_of(g), interrupted, err);
    if (rc != 0 && err->code == SL_ERR_USAGE) {
        report_query(g, q, err);
        ++*n_bad;
        return 0;
    }
    if (rc == 0 && !g->o->json) {
        printf("\nTaken time %.2f\n\n", (double)(sl_clock_ns() - begin) / 1e9);
        rc = sl_show_flush(stdout, err);
    }
    return rc;
}

/* Prompts for a query. Returns as sl_lines_next; *text is stripped. */
static int ask(struct sl_generate *g, struct sl_lines *in, char **text,
               size_t *n, struct sl_error *err)
{
    for (;;) {
        int rc;

        if (!g->o->json)
            fputs("\nPlease Input Query (stop to exit) >>> ", stdout);
        if (sl_show_flush(stdout, err) != 0)
            return -1;
        rc = sl_lines_next(in, text, n, err);
        if (rc <= 0)
            return rc;
        sl_query_strip(text, n);
        if (*n > 0)
            return 1;
        if (!g->o->json)
            puts("Query should not be empty!");
    }
}

int sl_generate_interactive(struct sl_generate *g)
{
    struct sl_lines in = {.fd = STDIN_FILENO,
                          .stop_fd = sl_interrupt_fd(g->interrupt)};
    struct sl_workload load = {0};
    struct sl_error err = {0};
    bool interrupted = false;
    size_t n_bad = 0, n;
    char *text;
    int rc;

    if (sl_fill_workload(&load, NULL, g->hp, &g->o->fill, &err) != 0 ||
        start(g, &load, &err) != 0)
        return leave(&err);
    for (;;) {
        struct sl_query q = {.line = -1};

        rc = ask(g, &in, &text, &n, &err);
        if (rc == 0 && !g->o->json)
            putchar('\n'); /* the prompt's line is still open */
        if (rc <= 0 || strcmp(text, "stop") == 0)
            break;
        q.text = text;
        q.n_text = n;
        rc = run_line(g, &q, &n_bad, &interrupted, &err);
        if (rc != 0 || interrupted)
            break;
    }
    sl_lines_fini(&in);
    if (interrupted)
        return EXIT_INTERRUPTED;
    return rc < 0 ? leave(&err) : SL_EXIT_OK;
}

/* What all the lines of the file will need; lines that are wrong are
 * reported when their turn comes. */
static int measure_file(struct sl_generate *g, const char *text, size_t n,
                        struct sl_workload *load, struct sl_error *err)
{
    struct sl_error line_err;

    for (size_t i = 0; i < n;) {
        const char *end = memchr(text + i, '\n', n - i);
        size_t size = end != NULL ? (size_t)(end - text) - i : n - i;
        struct sl_query q = {.text = text + i, .n_text = size, .line = 0};
        const char *tab = memchr(q.text, '\t', size);

        if (g->o->with_id && tab != NULL) {
            q.n_text -= (size_t)(tab + 1 - q.text);
            q.text = tab + 1;
        }
        while (q.n_text > 0 && strchr(" \t\r", q.text[q.n_text - 1]))
            q.n_text--;
        if (q.n_text > 0 && sl_generate_measure(g, &q, load, &line_err) != 0 &&
            line_err.code != SL_ERR_USAGE) {
            *err = line_err;
            return -1;
        }
        i += size + 1;
    }
    return 0;
}

static int run_file(struct sl_generate *g, char *text, size_t n, size_t *n_bad,
                    bool *interrupted, struct sl_error *err)
{
    struct sl_query q = {.line = 0};

    for (size_t i = 0; i < n && !*interrupted; q.line++) {
        char *line = text + i, *end = memchr(line, '\n', n - i);
        size_t size = end != NULL ? (size_t)(end - line) : n - i;

        line[size] = '\0';
        i += size + 1;
        if (sl_interrupt_came(g->interrupt))
            return sl_fail(err, SL_ERR_INTERRUPTED, "interrupted");
        if (!g->o->json)
            printf("Working on No. %lld on model group 0... \n",
                   (long long)q.line);
        if (sl_show_flush(stdout, err) != 0)
            return -1;
        sl_query_strip(&line, &size);
        if (size == 0)
            continue;
        q.id = NULL;
        q.text = line;
        q.n_text = size;
        if (run_line(g, &q, n_bad, interrupted, err) != 0)
            return -1;
    }
    return sl_show_flush(stdout, err);
}

int sl_generate_file(struct sl_generate *g)
{
    const char *path = g->o->input_source;
    struct sl_lines in = {.stop_fd = -1};
    struct sl_workload load = {0};
    struct sl_error err = {0};
    bool interrupted = false;
    size_t n_bad = 0, n = 0;
    char *text = NULL;
    int rc;

    in.fd = open(path, O_RDONLY | O_CLOEXEC);
    if (in.fd < 0) {
        sl_fail_os(&err, errno, "%s: cannot open the queries", path);
        return leave(&err);
    }
    rc = sl_lines_rest(&in, &text, &n, &err);
    close(in.fd);
    if (rc == 0)
        rc = measure_file(g, text, n, &load, &err);
    if (rc == 0 && load.n_sequences > 0)
        rc = start(g, &load, &err);
    if (rc == 0)
        rc = run_file(g, text, n, &n_bad, &interrupted, &err);
    sl_lines_fini(&in);
    if (rc != 0)
        return leave(&err);
    if (interrupted)
        return EXIT_INTERRUPTED;
    return n_bad == 0 ? SL_EXIT_OK : SL_EXIT_FAILED;
}
