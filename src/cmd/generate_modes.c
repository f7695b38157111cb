#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/base/json.h"
#include "src/base/lines.h"
#include "src/cmd/command.h"
#include "src/cmd/generate.h"
#include "src/cmd/line_editor.h"

#define MAX_ID_BYTES 4096 /* of ID<TAB>, before a text; far too many */

/* Reports err and says with which code to leave. A reader that has seen
 * enough is not worth a line. */
static int leave(struct sl_generate *g, const struct sl_error *err)
{
    if (err->os_errno == EPIPE)
        return SL_EXIT_PIPE_CLOSED;
    if (err->code == SL_ERR_INTERRUPTED)
        return SL_EXIT_INTERRUPTED;
    sl_runtime_spoil(g->rt);
    sl_report(err);
    return SL_EXIT_FAILED;
}

/* The next query's stream of random numbers. */
static struct sl_rng next_rng(struct sl_generate *g)
{
    struct sl_rng rng = g->rng;

    sl_rng_jump(&g->rng);
    return rng;
}

int sl_generate_prompt(struct sl_generate *g)
{
    /* and the line end */
    struct sl_lines in = {.stop_fd = -1, .most = sl_generate_most_bytes(g) + 2};
    struct sl_query q = {.text = g->o->prompt, .line = -1};
    struct sl_rng rng = next_rng(g);
    struct sl_workload load = {0};
    struct sl_group group = {0};
    struct sl_error err = {0};
    bool interrupted = false;
    int rc = 0;

    if (strcmp(q.text, "-") == 0)
        rc = sl_text_read_prompt(&g->o->text, &in, &q.text, &q.n_text, &err);
    else
        q.n_text = strlen(q.text);
    if (rc == 0)
        rc = sl_generate_measure(g, &q, &load, &err);
    if (rc == 0)
        rc = sl_generate_start(g, &load, &err);
    if (rc == 0)
        rc = sl_group_init(&group, g, 1, &err);
    if (rc == 0)
        rc = sl_group_add(&group, &q, &rng, &err);
    if (rc == 0)
        rc = sl_group_show(&group, 0, &interrupted, &err);
    sl_group_fini(&group);
    sl_lines_fini(&in);
    if (rc != 0)
        return leave(g, &err);
    return interrupted ? SL_EXIT_INTERRUPTED : SL_EXIT_OK;
}

void sl_generate_report(const struct sl_generate *g, const struct sl_query *q,
                        struct sl_error *err)
{
    if (q->line >= 0)
        sl_error_prefix(err, "%s, line %lld: ", g->o->input_source,
                        (long long)q->line + 1);
    sl_report(err);
    if (g->o->json) {
        json_t *o = json_object();
        struct sl_error ignored; /* the first one is told */

        if (q->line >= 0)
            json_object_set_new(o, "line", json_integer(q->line + 1));
        json_object_set_new(o, "error", sl_json_text(err->msg));
        sl_json_print(stdout, o, JSON_COMPACT, &ignored);
    }
}

/* Bytes of a line that are of use. */
static size_t most_typed(const struct sl_generate *g)
{
    return MAX_ID_BYTES + sl_generate_most_bytes(g);
}

/* Prompts for a query. Returns as sl_line_editor_next; *text is stripped. */
static int ask(struct sl_generate *g, struct sl_line_editor *in, char **text,
               size_t *n, struct sl_error *err)
{
    const char *prompt = "Please Input Query (stop to exit) >>> ";
    size_t most = most_typed(g);

    for (;;) {
        int rc;

        if (!g->o->json)
            putchar('\n');
        if (sl_show_flush(stdout, err) != 0)
            return -1;
        rc = sl_line_editor_next(in, g->o->json ? NULL : prompt, text, n, err);
        if (rc <= 0 || *n > most) /* too long: not all of it is there */
            return rc;
        sl_query_strip(text, n);
        if (*n > 0)
            return 1;
        if (!g->o->json)
            puts("Query should not be empty!");
    }
}

/* Answers one query; what is wrong with it alone is reported. Returns -1 when
 * the run must end. */
static int answer(struct sl_group *group, struct sl_query *q, bool *interrupted,
                  struct sl_error *err)
{
    struct sl_generate *g = group->g;
    struct sl_rng rng = next_rng(g);
    struct sl_error unsplit;
    char *id;
    int rc;

    if (g->o->with_id && sl_query_split(q->text, q->n_text, &id, &q->text,
                                        &q->n_text, &unsplit) == 0)
        q->id = id;
    sl_group_clear(group);
    rc = sl_group_add(group, q, &rng, err);
    if (rc == 0)
        rc = sl_group_show(group, 0, interrupted, err);
    if (rc == 0 || err->code != SL_ERR_USAGE)
        return rc;
    sl_generate_report(g, q, err);
    return 0;
}

/* One query of the person and its answer. Returns 1 to go on, 0 to leave, -1
 * with what ends the run. Ctrl-C stops an answer where somebody can ask for
 * another, and else the run. */
static int turn(struct sl_group *group, struct sl_line_editor *in,
                bool *interrupted, struct sl_error *err)
{
    struct sl_generate *g = group->g;
    struct sl_query q = {.line = -1};
    int rc = ask(g, in, &q.text, &q.n_text, err);

    if (rc < 0 && err->code == SL_ERR_INTERRUPTED &&
        sl_line_editor_has_terminal(in)) {
        sl_interrupt_clear(g->interrupt);
        return sl_line_editor_stays(in) ? 1 : -1;
    }
    if (rc <= 0)
        return rc;
    if (strcmp(q.text, "stop") == 0)
        return 0;
    rc = answer(group, &q, interrupted, err);
    if (sl_line_editor_has_terminal(in)) {
        if (rc != 0 && err->code == SL_ERR_INTERRUPTED)
            rc = 0;
        *interrupted = false;
        if (sl_interrupt_came(g->interrupt))
            sl_interrupt_clear(g->interrupt);
    }
    if (rc != 0)
        return -1;
    return *interrupted ? 0 : 1;
}

/* Answers stay where nobody looks for them unless they are told. */
static void greet(const struct sl_generate *g, const struct sl_line_editor *in)
{
    if (!g->o->run.quiet && sl_line_editor_has_terminal(in))
        sl_messagef("answers are kept in %s; Ctrl-C stops one, Ctrl-D "
                    "leaves",
                    g->o->output_path);
}

int sl_generate_interactive(struct sl_generate *g)
{
    struct sl_line_config config = {
        .stop_fd = sl_interrupt_fd(g->interrupt),
        .most = most_typed(g),
        .one_line = !isatty(STDIN_FILENO),
        .history = "queries",
        .log = g->o->run.log,
    };
    struct sl_line_editor *in = NULL;
    struct sl_workload load = {0};
    struct sl_group group = {0};
    struct sl_error err = {0};
    bool interrupted = false;
    int rc = sl_fill_workload(&load, NULL, g->hp, &g->o->fill, &err);

    if (rc == 0)
        rc = sl_line_editor_open(&in, &config, &err);
    if (rc == 0)
        rc = sl_generate_start(g, &load, &err);
    if (rc == 0)
        rc = sl_group_init(&group, g, 1, &err);
    if (rc == 0) {
        greet(g, in);
        do {
            rc = turn(&group, in, &interrupted, &err);
        } while (rc > 0);
    }
    sl_group_fini(&group);
    sl_line_editor_close(in);
    if (interrupted)
        return SL_EXIT_INTERRUPTED;
    return rc < 0 ? leave(g, &err) : SL_EXIT_OK;
}

int sl_generate_file(struct sl_generate *g)
{
    const char *path = g->o->input_source;
    struct sl_lines in = {.stop_fd = -1};
    struct sl_error err = {0};
    bool interrupted = false;
    size_t n_bad = 0, n = 0;
    char *text = NULL;
    int rc;

    in.fd = open(path, O_RDONLY | O_CLOEXEC);
    if (in.fd < 0) {
        sl_fail_os(&err, errno, "%s: cannot open the queries", path);
        return leave(g, &err);
    }
    rc = sl_lines_rest(&in, &text, &n, &err);
    if (rc != 0)
        sl_error_prefix(&err, "%s: ", path);
    close(in.fd);
    if (rc == 0)
        rc = sl_generate_lines(g, text, n, &n_bad, &interrupted, &err);
    sl_lines_fini(&in);
    if (rc != 0)
        return leave(g, &err);
    if (interrupted)
        return SL_EXIT_INTERRUPTED;
    return n_bad == 0 ? SL_EXIT_OK : SL_EXIT_FAILED;
}
