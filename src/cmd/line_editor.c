#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/base/lines.h"
#include "src/base/mem.h"
#include "src/cmd/folders.h"
#include "src/cmd/line_editor.h"

#define QUOTES "\"\"\""

struct sl_line_editor {
    struct sl_line_config c;
    bool terminal;
    struct sl_line_edit *edit; /* NULL: plain lines */
    struct sl_lines lines;
    struct sl_str text, line, last; /* last: what was remembered */
    char *history;                  /* path, owned; NULL: none */
    unsigned n_given_up; /* Ctrl-C on an empty line, one after another */
};

static char *history_path(const char *name)
{
    char *folder = name != NULL ? sl_state_folder() : NULL, *path;

    if (folder == NULL || asprintf(&path, "%s/sluice/%s", folder, name) < 0)
        path = NULL;
    free(folder);
    return path;
}

static void forget_history(struct sl_line_editor *e)
{
    free(e->history);
    e->history = NULL;
}

int sl_line_editor_open(struct sl_line_editor **out,
                        const struct sl_line_config *config,
                        struct sl_error *err)
{
    struct sl_line_editor *e = sl_zalloc_array(1, sizeof *e);
    struct sl_error why;

    if (e == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "out of memory for a line");
    e->c = *config;
    e->terminal = isatty(STDIN_FILENO);
    e->lines = (struct sl_lines){
        .fd = STDIN_FILENO,
        .stop_fd = config->stop_fd,
        .most = config->most,
    };
    *out = e;
    if (config->plain || !e->terminal || !isatty(STDOUT_FILENO) ||
        !sl_line_edit_open(&e->edit, config->stop_fd))
        return 0;
    e->history = history_path(config->history);
    if (e->history != NULL &&
        sl_line_history_read(e->history, sl_line_edit_remember, e->edit,
                             &why) != 0) {
        sl_log(config->log, SL_LOG_WARN, "%s; former lines are not at hand",
               why.msg);
        forget_history(e);
    }
    return 0;
}

void sl_line_editor_close(struct sl_line_editor *e)
{
    if (e == NULL)
        return;
    sl_line_edit_close(e->edit);
    sl_lines_fini(&e->lines);
    sl_str_fini(&e->text);
    sl_str_fini(&e->line);
    sl_str_fini(&e->last);
    forget_history(e);
    free(e);
}

bool sl_line_editor_stays(struct sl_line_editor *e)
{
    if (e->text.n > 0 || (e->edit != NULL && !sl_line_edit_was_empty(e->edit)))
        e->n_given_up = 0;
    else if (++e->n_given_up == 2)
        return false;
    else
        sl_message("Ctrl-D leaves, and so does Ctrl-C again");
    return true;
}

bool sl_line_editor_has_terminal(const struct sl_line_editor *e)
{
    return e->terminal;
}

static int plain_line(struct sl_line_editor *e, const char *prompt,
                      struct sl_error *err)
{
    char *line;
    size_t n;
    int rc;

    if (prompt != NULL)
        fputs(prompt, stdout);
    if (fflush(stdout) != 0 || ferror(stdout))
        return sl_fail_os(err, errno, "cannot write to standard output");
    rc = sl_lines_next(&e->lines, &line, &n, err);
    /* The prompt's line is still open. */
    if (prompt != NULL &&
        (rc == 0 || (rc < 0 && err->code == SL_ERR_INTERRUPTED)))
        putchar('\n');
    if (rc <= 0)
        return rc;
    return sl_str_append(&e->line, line, n, err) == 0 ? 1 : -1;
}

static int next_line(struct sl_line_editor *e, const char *prompt,
                     struct sl_error *err)
{
    sl_str_clear(&e->line);
    if (e->edit != NULL)
        return sl_line_edit_next(e->edit, prompt != NULL ? prompt : "",
                                 &e->line, err);
    return plain_line(e, prompt, err);
}

static bool ends_with(const struct sl_str *s, const char *end)
{
    size_t n = strlen(end);

    return s->n >= n && memcmp(s->s + s->n - n, end, n) == 0;
}

static void drop_end(struct sl_str *s, size_t n)
{
    s->n -= n;
    s->s[s->n] = '\0';
}

/* Adds the line that was read to the text. *more: the text goes on. */
static int take_line(struct sl_line_editor *e, bool *quoted, bool *more,
                     struct sl_error *err)
{
    const char *line = sl_str_text(&e->line);
    size_t n = e->line.n, q = strlen(QUOTES);
    bool first = !*more;

    *more = false;
    if (first && n >= q && memcmp(line, QUOTES, q) == 0) {
        *quoted = true;
        line += q;
        n -= q;
    }
    if (sl_str_append(&e->text, line, n, err) != 0)
        return -1;
    if (*quoted) {
        *more = !ends_with(&e->text, QUOTES);
        if (!*more)
            drop_end(&e->text, q);
        /* What stands alone beside the quotes adds no line. */
        if (*more && first && n == 0)
            return 0;
        if (!*more && ends_with(&e->text, "\n"))
            drop_end(&e->text, 1);
    } else if (ends_with(&e->text, "\\")) {
        drop_end(&e->text, 1);
        *more = true;
    }
    return *more ? sl_str_add(&e->text, "\n", err) : 0;
}

static void remember(struct sl_line_editor *e)
{
    struct sl_error why;

    if (e->edit == NULL || e->text.n == 0 ||
        strcmp(sl_str_text(&e->last), e->text.s) == 0)
        return;
    sl_str_clear(&e->last);
    sl_str_add(&e->last, e->text.s, &why); /* else it is remembered twice */
    sl_line_edit_remember(e->edit, e->text.s, &why);
    if (e->history == NULL ||
        sl_line_history_add(e->history, e->text.s, &why) == 0)
        return;
    sl_log(e->c.log, SL_LOG_WARN, "%s; lines are not kept", why.msg);
    forget_history(e);
}

int sl_line_editor_next(struct sl_line_editor *e, const char *prompt,
                        char **text, size_t *n, struct sl_error *err)
{
    bool quoted = false, more = false;

    sl_str_clear(&e->text);
    if (sl_str_add(&e->text, "", err) != 0)
        return -1;
    do {
        const char *show = more && prompt != NULL ? "... " : prompt;
        int rc = next_line(e, show, err);

        if (rc < 0 || (rc == 0 && !more))
            return rc;
        if (rc == 0)
            break;
        if (e->c.one_line) {
            if (sl_str_append(&e->text, e->line.s, e->line.n, err) != 0)
                return -1;
        } else if (take_line(e, &quoted, &more, err) != 0) {
            return -1;
        }
    } while (more && (e->c.most == 0 || e->text.n <= e->c.most));
    remember(e);
    e->n_given_up = 0;
    *text = e->text.s;
    *n = e->text.n;
    return 1;
}
