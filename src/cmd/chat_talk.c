#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/base/lines.h"
#include "src/cmd/chat.h"
#include "src/cmd/command.h"

/* Reports err and says with which code to leave. A reader that has seen
 * enough is not worth a line. */
static int leave(const struct sl_error *err)
{
    if (err->os_errno == EPIPE)
        return SL_EXIT_PIPE_CLOSED;
    return sl_report(err);
}

/* What is wrong with one question is told, and the conversation goes on. */
static bool goes_on(const struct sl_error *err)
{
    return err->code == SL_ERR_USAGE || err->code == SL_ERR_UNSUPPORTED;
}

/* What is not kept is told, and the conversation goes on. */
static int write_history(struct sl_chat *c)
{
    struct sl_error err;

    if (c->o->history == NULL ||
        sl_chat_history_write(&c->session.history, c->o->history, &err) == 0)
        return SL_EXIT_OK;
    return sl_report(&err);
}

/* A question and its answer, shown and kept. */
static int ask(struct sl_chat *c, const char *text, struct sl_error *err)
{
    const struct sl_answer_sink sink = {sl_chat_show, c};
    const struct sl_gate_counts *guessed = &c->g.drafts.gate.counts;
    double guessing_s = guessed->draft_s;
    struct sl_error ignored;
    int rc;

    sl_runtime_stats(c->g.rt, &c->before);
    sl_waiting_begin(c->g.waiting, "answering", c->o->run.text.most_new);
    rc = sl_session_ask(&c->session, text, &sink, &c->last, err);
    sl_waiting_end(c->g.waiting);
    sl_runtime_stats(c->g.rt, &c->after);
    c->guessing_s = guessed->draft_s - guessing_s;
    c->g.n_generated += c->last.n_new;
    if (c->g.first_token_ns == 0)
        c->g.first_token_ns = c->last.first_token_ns;
    if (sl_chat_show_end(c, rc == 0 ? err : &ignored) != 0)
        rc = -1;
    if (rc != 0)
        return -1;
    sl_chat_tell_end(c);
    if (c->o->run.stats)
        sl_chat_print_turn(c);
    return 0;
}

/* --- one answer -------------------------------------------------------------
 */

/* Of such a text not all need be there (lines.h). */
static int too_long(const struct sl_chat *c, struct sl_error *err)
{
    return sl_fail(err, SL_ERR_USAGE,
                   "text too long: more than %zu bytes do not fit the "
                   "context; shorten the text or raise --ctx",
                   c->most_text);
}

int sl_chat_read_prompt(struct sl_chat *c, struct sl_error *err)
{
    char *text = c->o->run.prompt;
    size_t n;

    c->said = (struct sl_lines){.stop_fd = -1, .most = c->most_text};
    c->prompt = text;
    if (text == NULL || strcmp(text, "-") != 0)
        return 0;
    if (sl_text_read_prompt(&c->o->run.text, &c->said, &text, &n, err) != 0)
        return -1;
    c->prompt = text;
    if (n > c->most_text)
        return too_long(c, err);
    if (strlen(text) != n)
        return sl_fail(err, SL_ERR_USAGE,
                       "a zero byte at byte %zu of the text: "
                       "no text has one",
                       strlen(text) + 1);
    return 0;
}

int sl_chat_prompt(struct sl_chat *c)
{
    struct sl_error err = {0};
    int kept;

    if (ask(c, c->prompt, &err) != 0)
        return leave(&err);
    kept = write_history(c);
    if (c->last.end == SL_CAUSAL_INTERRUPTED)
        return SL_EXIT_INTERRUPTED;
    return kept;
}

/* --- commands ---------------------------------------------------------------
 */

enum next { NEXT_LINE, NEXT_LEAVE };

static enum next do_help(struct sl_chat *c, const char *rest);

static enum next do_clear(struct sl_chat *c, const char *rest)
{
    sl_chat_history_clear(&c->session.history);
    sl_session_restart(&c->session);
    c->last = (struct sl_session_turn){0};
    write_history(c);
    sl_message("the conversation begins anew");
    return NEXT_LINE;
}

/* "" takes the message away. What was read begins with the system message,
 * so that nothing of it can be kept. */
static enum next do_system(struct sl_chat *c, const char *rest)
{
    struct sl_chat_history *h = &c->session.history;
    bool has = h->n > 0 && h->v[0].role == SL_CHAT_SYSTEM;
    struct sl_said said;
    struct sl_error err;

    if (*rest == '\0') {
        sl_said_begin(&said);
        fprintf(said.to, "sluice: %s\n",
                has ? h->v[0].content : "there is no system message");
        sl_said_end(&said);
        return NEXT_LINE;
    }
    if (strcmp(rest, "\"\"") == 0)
        rest = "";
    if (sl_chat_history_set_system(h, rest, &err) != 0)
        sl_report(&err);
    sl_session_restart(&c->session);
    write_history(c);
    return NEXT_LINE;
}

static enum next do_save(struct sl_chat *c, const char *rest)
{
    struct sl_error err;

    if (*rest == '\0')
        sl_message("/save wants the name of a file");
    else if (sl_chat_history_write(&c->session.history, rest, &err) != 0)
        sl_report(&err);
    return NEXT_LINE;
}

static enum next do_load(struct sl_chat *c, const char *rest)
{
    struct sl_error err;

    if (*rest == '\0') {
        sl_message("/load wants the name of a file");
    } else if (sl_chat_history_read(&c->session.history, rest, &err) != 0) {
        sl_report(&err);
    } else {
        sl_session_restart(&c->session);
        sl_messagef("%zu messages", c->session.history.n);
        write_history(c);
    }
    return NEXT_LINE;
}

static enum next do_stats(struct sl_chat *c, const char *rest)
{
    sl_chat_print_turn(c);
    sl_chat_print_context(c);
    return NEXT_LINE;
}

static enum next do_stop(struct sl_chat *c, const char *rest)
{
    return NEXT_LEAVE;
}

static const struct command {
    const char *name, *what;
    enum next (*run)(struct sl_chat *c, const char *rest);
} commands[] = {
    {"/help", "these lines", do_help},
    {"/clear", "begin anew; the system message stays", do_clear},
    {"/system", "TEXT: set the system message (\"\": none); alone: show it",
     do_system},
    {"/save", "FILE: write the conversation, in OpenAI's form", do_save},
    {"/load", "FILE: go on with that one", do_load},
    {"/stats", "what the last turn cost", do_stats},
    {"/stop", "leave, as Ctrl-D does", do_stop},
    {"/quit", "the same", do_stop},
};

#define N_COMMANDS (sizeof commands / sizeof *commands)

static enum next do_help(struct sl_chat *c, const char *rest)
{
    for (size_t i = 0; i < N_COMMANDS; i++)
        fprintf(stderr, "  %-8s %s\n", commands[i].name, commands[i].what);
    fputs("  A line that ends in \\ goes on in the next; \"\"\" begins and "
          "ends a text of\n  several lines. Ctrl-C stops an answer. A blank "
          "before / makes it text.\n",
          stderr);
    if (c->tmpl->words)
        fputs("  A line of only 'clear' or 'stop' is a command too.\n", stderr);
    return NEXT_LINE;
}

/* The command that a text is, or NULL; *rest: what stands behind its name. */
static const struct command *find_command(const struct sl_chat *c,
                                          const char *text, const char **rest,
                                          bool *unknown)
{
    size_t n = strcspn(text, " \t\n");
    const char *stripped = text;
    size_t n_stripped = strlen(text);

    *unknown = false;
    sl_text_strip(&stripped, &n_stripped);
    for (size_t i = 0; i < N_COMMANDS; i++) {
        const char *name = commands[i].name;

        if (strlen(name) == n && memcmp(name, text, n) == 0) {
            *rest = text + n + strspn(text + n, " \t\n");
            return &commands[i];
        }
        /* ChatGLM-6B's cli_demo.py */
        if (c->tmpl->words && strlen(name) - 1 == n_stripped &&
            memcmp(name + 1, stripped, n_stripped) == 0 &&
            (commands[i].run == do_clear || strcmp(name, "/stop") == 0)) {
            *rest = "";
            return &commands[i];
        }
    }
    *unknown = n > 1 && text[0] == '/' &&
               strspn(text + 1, "abcdefghijklmnopqrstuvwxyz") == n - 1;
    return NULL;
}

/* --- the conversation -------------------------------------------------------
 */

/* Returns 1 to go on, 0 to leave, -1 with what ends the conversation. */
static int take(struct sl_chat *c, const char *text, struct sl_error *err)
{
    const struct command *command;
    const char *rest;
    bool unknown;

    if (text[strspn(text, " \t\n")] == '\0')
        return 1;
    command = find_command(c, text, &rest, &unknown);
    if (command != NULL)
        return command->run(c, rest) == NEXT_LINE;
    if (unknown) {
        sl_messagef("there is no command %.*s; /help lists them",
                    (int)strcspn(text, " \t\n"), text);
        return 1;
    }
    if (ask(c, text, err) != 0) {
        if (!goes_on(err))
            return -1;
        sl_report(err);
    } else {
        write_history(c);
    }
    return 1;
}

/* One text of the person and what becomes of it. Returns as take. */
static int turn(struct sl_chat *c, struct sl_error *err)
{
    const char *prompt = sl_line_editor_has_terminal(c->editor) ? "> " : NULL;
    char *text;
    size_t n;
    int rc = sl_line_editor_next(c->editor, prompt, &text, &n, err);

    if (rc < 0 && err->code == SL_ERR_INTERRUPTED) {
        sl_interrupt_clear(c->g.interrupt);
        return sl_line_editor_stays(c->editor) ? 1 : -1;
    }
    if (rc <= 0)
        return rc;
    if (n > c->most_text) {
        too_long(c, err);
        sl_report(err);
        return 1;
    }
    if (strlen(text) != n) {
        sl_message("a zero byte is no text");
        return 1;
    }
    rc = take(c, text, err);
    if (sl_interrupt_came(c->g.interrupt))
        sl_interrupt_clear(c->g.interrupt);
    return rc;
}

int sl_chat_talk(struct sl_chat *c)
{
    struct sl_error err = {0};
    int rc;

    do {
        rc = turn(c, &err);
    } while (rc > 0);
    if (rc == 0)
        return SL_EXIT_OK;
    if (err.code == SL_ERR_INTERRUPTED)
        return SL_EXIT_INTERRUPTED;
    return leave(&err);
}
