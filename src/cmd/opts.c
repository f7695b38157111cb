#include "config.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/base/bytes.h"
#include "src/base/log.h"
#include "src/base/str.h"
#include "src/cmd/opts.h"
#include "src/cmd/opts_list.h"

/* What stands between a command's parser and argp. */
struct parsing {
    argp_parser_t parser;
    void *input;
    FILE *errors, *help;
    const char *name;
    const struct argp *argp;
    const struct argp_state *state; /* while it parses */
    struct sl_str line;             /* of errors, that is being written */
    FILE *standard_error;
    bool said; /* one was */
};

static void look(void *opaque, const struct argp_option *o,
                 const struct argp_option *of)
{
    if (o->name != NULL)
        sl_nearest_look(opaque, o->name);
}

static const struct argp usual; /* --help and its like, of all commands */

/* In lines that end between words. */
__attribute__((format(printf, 1, 2))) static void print_line(const char *fmt,
                                                             ...)
{
    struct sl_said said;
    va_list ap;

    sl_said_begin(&said);
    va_start(ap, fmt);
    vfprintf(said.to, fmt, ap);
    va_end(ap);
    sl_said_end(&said);
}

/* What was perhaps meant by an option that getopt has just complained of. */
static void hint(const struct parsing *p)
{
    struct sl_nearest near = {0};
    const char *typed;

    if (p->state == NULL || p->state->next < 1 ||
        p->state->next > p->state->argc)
        return;
    typed = p->state->argv[p->state->next - 1];
    if (strncmp(typed, "--", 2) != 0)
        return;
    near.typed = typed + 2;
    near.n = strcspn(near.typed, "=");
    sl_opts_each(p->argp, look, &near);
    sl_opts_each(&usual, look, &near);
    if (near.best != NULL && near.distance > 0)
        print_line("%s: did you mean --%s?", p->name, near.best);
}

/* argp says what is wrong in a line that begins with the program's name, and
 * in a second one where help is, which comes alone where getopt has spoken. The
 * first is enough. */
static void end_line(struct parsing *p)
{
    const char *line = sl_str_text(&p->line);
    size_t name = strlen(p->name);

    if (p->line.n > name && memcmp(line, p->name, name) == 0)
        print_line("%s", line);
    else if (!p->said && p->line.n > 0)
        hint(p);
    p->said = true;
    sl_str_clear(&p->line);
}

static ssize_t write_error(void *cookie, const char *text, size_t n)
{
    struct parsing *p = cookie;
    struct sl_error ignored;

    for (size_t i = 0; i < n;) {
        const char *line = text + i, *end = memchr(line, '\n', n - i);
        size_t length = end != NULL ? (size_t)(end - line) : n - i;

        if (sl_str_append(&p->line, line, length, &ignored) != 0)
            fwrite(line, 1, length, stderr);
        if (end != NULL)
            end_line(p);
        i += length + (end != NULL);
    }
    return (ssize_t)n;
}

/* getopt prints words of the command line as they are, and knows no other
 * stream. */
static ssize_t write_tamed(void *cookie, const char *text, size_t n)
{
    struct parsing *p = cookie;
    FILE *now = stderr;

    stderr = p->standard_error;
    print_line("%.*s", (int)n, text);
    stderr = now;
    return (ssize_t)n;
}

/* After help argp exits with 0, whatever became of it: this comes then. */
static ssize_t write_help(void *cookie, const char *text, size_t n)
{
    for (size_t done = 0; done < n;) {
        ssize_t k = write(STDOUT_FILENO, text + done, n - done);

        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0)
            _exit(sl_cannot_write());
        done += (size_t)k;
    }
    return (ssize_t)n;
}

/* A command that takes no arguments need not say so. */
static error_t parse_through(int key, char *arg, struct argp_state *state)
{
    struct parsing *p = state->input;
    error_t rc;

    if (key == ARGP_KEY_INIT) {
        p->state = state;
        state->err_stream = p->errors;
        state->out_stream = p->help;
    }
    state->input = p->input;
    rc = p->parser(key, arg, state);
    /* tried as one of a list where it is none by itself */
    if (key == ARGP_KEY_ARGS && rc == ARGP_ERR_UNKNOWN)
        argp_error(state, "unexpected argument '%s'", state->argv[state->next]);
    return rc;
}

enum { KEY_HELP = 'h', KEY_HELP_TOO = '?', KEY_VERSION = 'V', KEY_USAGE = 1 };

/* As nearly all programs have them. argp's own would bring some that are for
 * those who debug it. */
static const struct argp_option usual_options[] = {
    {"help", KEY_HELP, 0, 0, "Give this help list", -1},
    {NULL, KEY_HELP_TOO, 0, OPTION_ALIAS, NULL, -1},
    {"usage", KEY_USAGE, 0, 0, "Give a short usage message", -1},
    {"version", KEY_VERSION, 0, 0, "Print what this program is", -1},
    {0},
};

static error_t parse_usual(int key, char *arg, struct argp_state *state)
{
    switch (key) {
    case KEY_HELP:
    case KEY_HELP_TOO:
        argp_state_help(state, state->out_stream, ARGP_HELP_STD_HELP);
        return 0;
    case KEY_USAGE:
        argp_state_help(state, state->out_stream,
                        ARGP_HELP_USAGE | ARGP_HELP_EXIT_OK);
        return 0;
    case KEY_VERSION:
        sl_print_version();
        exit(sl_finish_stdout(SL_EXIT_OK));
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp usual = {usual_options, parse_usual, 0, 0, 0, 0, 0};

#define MOST_CHILDREN 8

/* The command's own children and the usual options; false: too many. */
static bool add_usual(struct argp_child children[MOST_CHILDREN],
                      const struct argp *argp)
{
    size_t n = 0;

    while (argp->children != NULL && argp->children[n].argp != NULL) {
        if (n + 2 >= MOST_CHILDREN)
            return false;
        children[n] = argp->children[n];
        n++;
    }
    children[n++] = (struct argp_child){.argp = &usual};
    children[n] = (struct argp_child){0};
    return true;
}

int sl_parse_args(const struct argp *argp, int argc, char **argv, void *input)
{
    struct parsing p = {
        .parser = argp->parser,
        .input = input,
        .name = argv[0],
        .argp = argp,
        .standard_error = stderr,
    };
    struct argp_child children[MOST_CHILDREN];
    struct argp wrapped = *argp;
    FILE *tamed =
        fopencookie(&p, "w", (cookie_io_functions_t){.write = write_tamed});
    int rc = -1;

    p.errors =
        fopencookie(&p, "w", (cookie_io_functions_t){.write = write_error});
    p.help = fopencookie(&p, "w", (cookie_io_functions_t){.write = write_help});
    argp_err_exit_status = SL_EXIT_USAGE;
    wrapped.parser = parse_through;
    if (add_usual(children, argp))
        wrapped.children = children;
    if (p.errors != NULL && p.help != NULL && tamed != NULL) {
        setvbuf(p.errors, NULL, _IOLBF, BUFSIZ);
        setvbuf(tamed, NULL, _IOLBF, BUFSIZ);
        stderr = tamed;
        rc = argp_parse(&wrapped, argc, argv, ARGP_NO_HELP, NULL, &p);
        stderr = p.standard_error;
    } else {
        sl_message("no memory to read the command line");
    }
    if (p.errors != NULL)
        fclose(p.errors);
    if (p.help != NULL)
        fclose(p.help);
    if (tamed != NULL)
        fclose(tamed);
    sl_str_fini(&p.line);
    return rc == 0 ? 0 : SL_EXIT_USAGE;
}

uint64_t sl_opt_u64(struct argp_state *state, const char *name,
                    const char *text, uint64_t min, uint64_t max)
{
    char *end;
    unsigned long long v;

    errno = 0;
    v = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != '\0' || errno != 0 || v < min ||
        v > max)
        argp_error(
            state, "--%s takes a whole number from %llu to %llu, not '%s'",
            name, (unsigned long long)min, (unsigned long long)max, text);
    return v;
}

error_t sl_opt_argument(struct argp_state *state, const char **to,
                        const char *what, const char *arg)
{
    if (state->arg_num > 0)
        argp_error(state, "one %s at a time, not also '%s'", what, arg);
    *to = arg;
    return 0;
}

double sl_opt_f64(struct argp_state *state, const char *name, const char *text,
                  double min, double max)
{
    char *end;
    double v = strtod(text, &end);

    if (*text == '\0' || *end != '\0' || !(v >= min && v <= max))
        argp_error(state, "--%s takes a number from %g to %g, not '%s'", name,
                   min, max, text);
    return v;
}

uint64_t sl_opt_size(struct argp_state *state, const char *name,
                     const char *text, uint64_t min, uint64_t max)
{
    struct sl_error err;
    uint64_t bytes = 0;

    if (sl_size_parse(&bytes, text, &err) != 0)
        argp_error(state, "--%s: %s", name, err.msg);
    if (bytes < min || bytes > max)
        argp_error(state, "--%s takes from %llu to %llu bytes, not %s", name,
                   (unsigned long long)min, (unsigned long long)max, text);
    return bytes;
}

int sl_opt_pick(struct argp_state *state, const char *name, const char *arg,
                const char *const *names)
{
    for (int i = 0; names[i] != NULL; i++) {
        if (strcmp(arg, names[i]) == 0)
            return i;
    }
    argp_error(state, "--%s does not know '%s'; see --help", name, arg);
    return 0;
}

void sl_opt_append(struct argp_state *state, char ***list, size_t *n, char *arg)
{
    char **more = realloc(*list, (*n + 1) * sizeof *more);

    if (more == NULL) {
        argp_failure(state, SL_EXIT_FAILED, 0, "no memory for '%s'", arg);
        return;
    }
    *list = more;
    (*list)[(*n)++] = arg;
}
