#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "src/cmd/opts_text.h"

static void add_stop(struct sl_text_options *o, const char *text,
                     struct argp_state *state)
{
    char *copy;

    if (*text == '\0')
        argp_error(state, "--stop: an empty text comes before all others");
    if (o->stops.n == SL_MOST_STOPS)
        argp_error(state, "--stop may be given at most %u times",
                   SL_MOST_STOPS);
    copy = strdup(text);
    if (copy == NULL)
        argp_failure(state, SL_EXIT_FAILED, ENOMEM, "--stop");
    o->stops.v[o->stops.n++] = copy;
}

bool sl_opt_text(struct sl_text_options *o, int key, char *arg,
                 struct argp_state *state)
{
    static const char *const colors[] = {
        [SL_COLOR_AUTO] = "auto",
        [SL_COLOR_ALWAYS] = "always",
        [SL_COLOR_NEVER] = "never",
        NULL,
    };

    switch (key) {
    case 'f':
        o->prompt_file = arg;
        o->dash[0] = '-';
        return true;
    case 'n':
        /* llama.cpp's word for no limit */
        o->most_new =
            strcmp(arg, "-1") == 0
                ? 0
                : (uint32_t)sl_opt_u64(state, "n-predict", arg, 0, 1 << 24);
        return true;
    case SL_OPT_STOP:
        add_stop(o, arg, state);
        return true;
    case SL_OPT_NO_DISPLAY_PROMPT:
        o->hide_prompt = true;
        return true;
    case SL_OPT_COLOR:
        o->color = (enum sl_color)sl_opt_pick(state, "color", arg, colors);
        return true;
    default:
        return false;
    }
}

void sl_text_options_fini(struct sl_text_options *o)
{
    sl_stops_fini(&o->stops);
}

int sl_text_read_prompt(const struct sl_text_options *o, struct sl_lines *in,
                        char **text, size_t *n, struct sl_error *err)
{
    const char *path = o->prompt_file;
    bool file = path != NULL && strcmp(path, "-") != 0;
    int rc;

    in->fd = file ? open(path, O_RDONLY | O_CLOEXEC) : STDIN_FILENO;
    if (in->fd < 0)
        return sl_fail_os(err, errno, "-f %s: cannot open", path);
    rc = sl_lines_rest(in, text, n, err);
    if (file)
        close(in->fd);
    if (rc != 0) {
        sl_error_prefix(err, "%s: ", file ? path : "standard input");
        return -1;
    }
    if (*n > 0 && (*text)[*n - 1] == '\n')
        --*n;
    if (*n > 0 && (*text)[*n - 1] == '\r')
        --*n;
    (*text)[*n] = '\0';
    return 0;
}
