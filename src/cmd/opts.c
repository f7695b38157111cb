#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/base/bytes.h"
#include "src/cmd/opts.h"

/* What stands between a command's parser and argp. */
struct parsing {
    argp_parser_t parser;
    void *input;
    FILE *errors, *help;
    const char *name;
    bool wanted; /* the line of errors that is being written */
    bool inside; /* of a line */
};

/* argp says what is wrong in a line that begins with the program's name, and
 * in a second one where help is. The first is enough. */
static ssize_t write_error(void *cookie, const char *text, size_t n)
{
    struct parsing *p = cookie;
    size_t name = strlen(p->name);

    for (size_t i = 0; i < n;) {
        const char *line = text + i, *end = memchr(line, '\n', n - i);
        size_t length = end != NULL ? (size_t)(end + 1 - line) : n - i;

        if (!p->inside)
            p->wanted = length > name && memcmp(line, p->name, name) == 0;
        if (p->wanted)
            fwrite(line, 1, length, stderr);
        p->inside = end == NULL;
        i += length;
    }
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

enum { KEY_HELP = 'h', KEY_VERSION = 'V' };

/* As nearly all programs have them; --help lists what is argp's own. */
static const struct argp_option usual_options[] = {
    {NULL, KEY_HELP, 0, OPTION_HIDDEN, NULL, -1},
    {"version", KEY_VERSION, 0, OPTION_HIDDEN, NULL, -1},
    {0},
};

static error_t parse_usual(int key, char *arg, struct argp_state *state)
{
    if (key == KEY_HELP)
        argp_state_help(state, state->out_stream, ARGP_HELP_STD_HELP);
    if (key != KEY_HELP && key != KEY_VERSION)
        return ARGP_ERR_UNKNOWN;
    if (key == KEY_VERSION) {
        sl_print_version();
        exit(sl_finish_stdout(SL_EXIT_OK));
    }
    return 0;
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
    };
    struct argp_child children[MOST_CHILDREN];
    struct argp wrapped = *argp;
    int rc = -1;

    p.errors =
        fopencookie(&p, "w", (cookie_io_functions_t){.write = write_error});
    p.help = fopencookie(&p, "w", (cookie_io_functions_t){.write = write_help});
    argp_err_exit_status = SL_EXIT_USAGE;
    wrapped.parser = parse_through;
    if (add_usual(children, argp))
        wrapped.children = children;
    if (p.errors != NULL && p.help != NULL) {
        setvbuf(p.errors, NULL, _IOLBF, BUFSIZ);
        rc = argp_parse(&wrapped, argc, argv, 0, NULL, &p);
    } else {
        fputs("sluice: no memory to read the command line\n", stderr);
    }
    if (p.errors != NULL)
        fclose(p.errors);
    if (p.help != NULL)
        fclose(p.help);
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
