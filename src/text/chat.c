#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/lines.h"
#include "src/text/chat.h"

#define THINK     "<think>"
#define THINK_END "</think>"

/* A stretch of somebody's text. */
struct span {
    const char *s;
    size_t n;
};

/* --- pieces ---------------------------------------------------------------
 */

static int add_piece(struct sl_chat_pieces *p, const char *special, size_t n,
                     struct sl_error *err)
{
    if (p->n == p->room) {
        size_t room = p->room * 2 + 16;
        struct sl_chat_piece *grown = reallocarray(p->v, room, sizeof *p->v);

        if (grown == NULL)
            return sl_fail(err, SL_ERR_NOMEM,
                           "out of memory for %zu pieces of a conversation",
                           room);
        p->v = grown;
        p->room = room;
    }
    p->v[p->n++] = (struct sl_chat_piece){special, n, p->text.n, p->text.n};
    p->joins = special == NULL;
    return 0;
}

int sl_chat_add_text(struct sl_chat_pieces *p, const char *text, size_t n,
                     struct sl_error *err)
{
    if (n == 0)
        return 0;
    if ((!p->joins && add_piece(p, NULL, 0, err) != 0) ||
        sl_str_append(&p->text, text, n, err) != 0)
        return -1;
    p->v[p->n - 1].end = p->text.n;
    return 0;
}

static int add_span(struct sl_chat_pieces *p, struct span text,
                    struct sl_error *err)
{
    return sl_chat_add_text(p, text.s, text.n, err);
}

static bool has_token(const struct sl_chat_vocab *vocab, const char *name,
                      size_t n)
{
    char copy[64];

    if (n >= sizeof copy)
        return false;
    memcpy(copy, name, n);
    copy[n] = '\0';
    return vocab->token(vocab->opaque, copy) >= 0;
}

/* What stands between two backquotes. */
static int add_mark(struct sl_chat_pieces *p, const char *mark, size_t n,
                    uint32_t round, const struct sl_chat_vocab *vocab,
                    struct sl_error *err)
{
    char number[16];

    if (n == 0) {
        p->joins = false;
        return 0;
    }
    if (n == 1 && *mark == '#') {
        snprintf(number, sizeof number, "%u", round);
        return sl_chat_add_text(p, number, strlen(number), err);
    }
    if (*mark != '?')
        return add_piece(p, mark, n, err);
    if (has_token(vocab, mark + 1, n - 1))
        return add_piece(p, mark + 1, n - 1, err);
    return sl_chat_add_text(p, mark + 1, n - 1, err);
}

int sl_chat_add_marked(struct sl_chat_pieces *p, const char *marked,
                       uint32_t round, const struct sl_chat_vocab *vocab,
                       struct sl_error *err)
{
    while (marked != NULL && *marked != '\0') {
        size_t n = strcspn(marked, "`");

        if (sl_chat_add_text(p, marked, n, err) != 0)
            return -1;
        marked += n;
        if (*marked == '\0')
            break;
        n = strcspn(++marked, "`");
        if (add_mark(p, marked, n, round, vocab, err) != 0)
            return -1;
        marked += n + 1;
    }
    return 0;
}

void sl_chat_pieces_fini(struct sl_chat_pieces *p)
{
    free(p->v);
    sl_str_fini(&p->text);
    *p = (struct sl_chat_pieces){0};
}

int sl_chat_pieces_text(struct sl_str *to, const struct sl_chat_pieces *p,
                        const char *between, struct sl_error *err)
{
    for (size_t i = 0; i < p->n; i++) {
        const struct sl_chat_piece *piece = &p->v[i];
        int rc;

        if (piece->special != NULL)
            rc = sl_str_append(to, piece->special, piece->n_special, err);
        else if (i > 0 && p->v[i - 1].special == NULL &&
                 sl_str_add(to, between, err) != 0)
            rc = -1;
        else
            rc = sl_str_append(to, p->text.s + piece->begin,
                               piece->end - piece->begin, err);
        if (rc != 0)
            return -1;
    }
    return 0;
}

/* --- messages -------------------------------------------------------------
 */

/* A conversation on its way into pieces. */
struct rendering {
    struct sl_chat_pieces *p;
    const struct sl_chat_template *t;
    const struct sl_chat_input *in;
    const struct sl_chat_vocab *vocab;
    uint32_t round;
    size_t n_users, last_user; /* last_user: n_messages where there is none */
};

static int marked(struct rendering *r, const char *text, struct sl_error *err)
{
    return sl_chat_add_marked(r->p, text, r->round, r->vocab, err);
}

static struct span span_of(const char *s)
{
    return (struct span){s, strlen(s)};
}

static struct span stripped(struct span text)
{
    sl_text_strip(&text.s, &text.n);
    return text;
}

static struct span without_newlines(struct span text, bool at_end)
{
    while (text.n > 0 && *text.s == '\n') {
        text.s++;
        text.n--;
    }
    while (at_end && text.n > 0 && text.s[text.n - 1] == '\n')
        text.n--;
    return text;
}

static const char *last_of(const char *text, const char *what)
{
    const char *last = NULL;

    for (const char *at = text; (at = strstr(at, what)) != NULL; at++)
        last = at;
    return last;
}

/* Thinking that stands in the content, as models wrote it, is taken apart. */
static void take_apart(const struct sl_chat_message *m, struct span *content,
                       struct span *reasoning)
{
    const char *first = strstr(m->content, THINK_END), *begin;

    *content = span_of(m->content);
    *reasoning = span_of(m->reasoning != NULL ? m->reasoning : "");
    if (m->reasoning != NULL || first == NULL)
        return;
    begin = m->content;
    for (const char *at = begin; (at = strstr(at, THINK)) != NULL && at < first;
         at++)
        begin = at + strlen(THINK);
    *reasoning =
        without_newlines((struct span){begin, (size_t)(first - begin)}, true);
    *content = without_newlines(
        span_of(last_of(m->content, THINK_END) + strlen(THINK_END)), false);
}

static int add_assistant_qwen3(struct rendering *r, size_t i,
                               struct span content, struct span reasoning,
                               struct sl_error *err)
{
    bool last = i + 1 == r->in->n_messages;

    if (i < r->last_user || (!last && reasoning.n == 0))
        return add_span(r->p, content, err);
    if (marked(r, "`?<think>`\n", err) != 0 ||
        add_span(r->p, without_newlines(reasoning, true), err) != 0 ||
        marked(r, "\n`?</think>`\n\n", err) != 0)
        return -1;
    return add_span(r->p, without_newlines(content, false), err);
}

/* Of earlier rounds what was thought is left out, as these models' templates
 * do: only what came after the last user's turn is kept. */
static int add_assistant_glm(struct rendering *r, size_t i, struct span content,
                             struct span reasoning, struct sl_error *err)
{
    bool lines = r->t->thinking == SL_THINKING_GLM45;
    struct span kept = {"", 0};

    if (i > r->last_user)
        kept = stripped(reasoning);
    content = stripped(content);
    if (lines || kept.n > 0) {
        if (marked(r, lines ? "\n`?<think>`" : "`?<think>`", err) != 0 ||
            add_span(r->p, kept, err) != 0)
            return -1;
    }
    if (marked(r, "`?</think>`", err) != 0 ||
        (lines && content.n > 0 && marked(r, "\n", err) != 0))
        return -1;
    return add_span(r->p, content, err);
}

static int add_assistant_content(struct rendering *r, size_t i,
                                 struct sl_error *err)
{
    const struct sl_chat_message *m = &r->in->messages[i];
    struct span content = span_of(m->content), reasoning;

    if (r->t->thinking != SL_THINKING_NONE)
        take_apart(m, &content, &reasoning);
    switch (r->t->thinking) {
    case SL_THINKING_QWEN3:
        return add_assistant_qwen3(r, i, content, reasoning, err);
    case SL_THINKING_GLM45:
    case SL_THINKING_GLM47:
        return add_assistant_glm(r, i, content, reasoning, err);
    default:
        return add_span(r->p, r->t->trim ? stripped(content) : content, err);
    }
}

/* GLM's templates ask for no thinking behind what the user says. */
static int add_user_content(struct rendering *r, size_t i, struct sl_error *err)
{
    static const char ask[] = "/nothink";
    struct span content = span_of(r->in->messages[i].content);
    size_t n = strlen(ask);

    if (r->t->trim)
        content = stripped(content);
    if (add_span(r->p, content, err) != 0)
        return -1;
    if (r->t->thinking != SL_THINKING_GLM45 || !r->in->no_think ||
        (content.n >= n && memcmp(content.s + content.n - n, ask, n) == 0))
        return 0;
    return marked(r, "`?/nothink`", err);
}

static bool is_tool(const struct rendering *r, size_t i)
{
    return i < r->in->n_messages && r->in->messages[i].role == SL_CHAT_TOOL;
}

/* Models that take several results (each_open) have them all in one turn. */
static int add_tool(struct rendering *r, size_t i, struct sl_error *err)
{
    const struct sl_chat_template *t = r->t;
    struct span content = span_of(r->in->messages[i].content);
    bool rows = t->each_open != NULL;

    if (((!rows || i == 0 || !is_tool(r, i - 1)) &&
         marked(r, t->open[SL_CHAT_TOOL], err) != 0) ||
        marked(r, t->each_open, err) != 0 ||
        add_span(r->p, t->trim ? stripped(content) : content, err) != 0 ||
        marked(r, t->each_close, err) != 0)
        return -1;
    if (rows && is_tool(r, i + 1))
        return 0;
    return marked(r, t->close[SL_CHAT_TOOL], err);
}

static int add_system(struct rendering *r, const char *content,
                      struct sl_error *err)
{
    struct span text = span_of(content);

    if (marked(r, r->t->open[SL_CHAT_SYSTEM], err) != 0 ||
        add_span(r->p, r->t->trim ? stripped(text) : text, err) != 0)
        return -1;
    return marked(r, r->t->close[SL_CHAT_SYSTEM], err);
}

static int add_assistant(struct rendering *r, size_t i, struct sl_error *err)
{
    const struct sl_chat_message *m = &r->in->messages[i];
    /* ChatGLM3 and GLM-4 call a tool instead of saying something. */
    bool silent =
        m->calls != NULL && *m->content == '\0' &&
        (r->t->tools == SL_TOOLS_CHATGLM3 || r->t->tools == SL_TOOLS_GLM4);

    if (!silent && (marked(r, r->t->open[SL_CHAT_ASSISTANT], err) != 0 ||
                    add_assistant_content(r, i, err) != 0))
        return -1;
    if (m->calls != NULL &&
        sl_chat_add_calls(r->p, r->t, m->calls, *m->content != '\0', r->vocab,
                          err) != 0)
        return -1;
    r->round++;
    return marked(r, r->t->close[SL_CHAT_ASSISTANT], err);
}

static int add_user(struct rendering *r, size_t i, struct sl_error *err)
{
    const struct sl_chat_template *t = r->t;
    const char *open = t->open[SL_CHAT_USER];

    if (t->bare_first && r->n_users == 1)
        return add_user_content(r, i, err);
    if (i > 0 && r->in->messages[i - 1].role == SL_CHAT_SYSTEM &&
        t->user_after_system != NULL)
        open = t->user_after_system;
    if (marked(r, open, err) != 0 || add_user_content(r, i, err) != 0)
        return -1;
    return marked(r, t->close[SL_CHAT_USER], err);
}

static int add_message(struct rendering *r, size_t i, struct sl_error *err)
{
    static const char *const names[] = {"system", "user", "assistant", "tool"};
    const struct sl_chat_message *m = &r->in->messages[i];

    if (r->t->open[m->role] == NULL)
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "the template %s of this model has no place for a "
                       "message of the role %s (message %zu)",
                       r->t->name, names[m->role], i + 1);
    switch (m->role) {
    case SL_CHAT_SYSTEM:
        return add_system(r, m->content, err);
    case SL_CHAT_USER:
        return add_user(r, i, err);
    case SL_CHAT_ASSISTANT:
        return add_assistant(r, i, err);
    default:
        return add_tool(r, i, err);
    }
}

/* Tools, the first system message or the one there is without any. *next: the
 * first message that is still to be said. */
static int add_head(struct rendering *r, size_t *next, struct sl_error *err)
{
    const struct sl_chat_input *in = r->in;
    bool has_system =
        in->n_messages > 0 && in->messages[0].role == SL_CHAT_SYSTEM;
    const char *system = has_system ? in->messages[0].content : r->t->system;
    enum sl_chat_tools kind = r->t->tools;

    *next = 0;
    if (json_array_size(in->tools) == 0)
        return !has_system && system != NULL ? add_system(r, system, err) : 0;
    if (kind == SL_TOOLS_NONE)
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "the template %s of this model has no place for tools",
                       r->t->name);
    if (kind == SL_TOOLS_CHATGLM3 || kind == SL_TOOLS_QWEN)
        *next = has_system;
    return sl_chat_add_tools(r->p, r->t, in->tools,
                             *next > 0 || !has_system ? system : NULL, r->vocab,
                             err);
}

static int add_prompt(struct rendering *r, struct sl_error *err)
{
    const struct sl_chat_template *t = r->t;

    if (r->in->no_think && t->prompt_no_think != NULL)
        return marked(r, t->prompt_no_think, err);
    return marked(r, t->prompt, err);
}

int sl_chat_render(struct sl_chat_pieces *pieces,
                   const struct sl_chat_template *tmpl,
                   const struct sl_chat_input *input,
                   const struct sl_chat_vocab *vocab, struct sl_error *err)
{
    struct rendering r = {
        .p = pieces,
        .t = tmpl,
        .in = input,
        .vocab = vocab,
        .round = tmpl->first_round,
        .last_user = input->n_messages,
    };
    size_t next;

    for (size_t i = 0; i < input->n_messages; i++) {
        if (input->messages[i].role != SL_CHAT_USER)
            continue;
        r.n_users++;
        r.last_user = i;
    }
    if (marked(&r, tmpl->begin, err) != 0 || add_head(&r, &next, err) != 0)
        return -1;
    for (size_t i = next; i < input->n_messages; i++) {
        if (add_message(&r, i, err) != 0)
            return -1;
    }
    if (!input->no_answer && add_prompt(&r, err) != 0)
        return -1;
    return marked(&r, tmpl->end, err);
}

/* --- ids ------------------------------------------------------------------
 */

/* A template that does not fit the vocabulary is refused at the first token
 * that is missing: its letters would be read as text, and the model answer
 * nonsense. */
static int add_token(struct sl_ids *ids, const struct sl_chat_template *tmpl,
                     const struct sl_chat_piece *piece,
                     const struct sl_chat_vocab *vocab, struct sl_error *err)
{
    char *name = strndup(piece->special, piece->n_special);
    int32_t id;
    int rc;

    if (name == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "out of memory");
    id = vocab->token(vocab->opaque, name);
    if (id >= 0)
        rc = sl_ids_add(ids, id, err);
    else
        rc = sl_fail(err, SL_ERR_UNSUPPORTED,
                     "the vocabulary has no token '%s', which the template %s "
                     "needs: another one fits this model (--template)",
                     name, tmpl->name);
    free(name);
    return rc;
}

int sl_chat_ids(struct sl_ids *ids, const struct sl_chat_template *tmpl,
                const struct sl_chat_input *input,
                const struct sl_chat_vocab *vocab, struct sl_error *err)
{
    struct sl_chat_pieces p = {0};
    int rc = sl_chat_render(&p, tmpl, input, vocab, err);

    for (size_t i = 0; rc == 0 && i < p.n; i++) {
        const struct sl_chat_piece *piece = &p.v[i];

        if (piece->special != NULL)
            rc = add_token(ids, tmpl, piece, vocab, err);
        else
            rc = vocab->encode(vocab->opaque, ids, p.text.s + piece->begin,
                               piece->end - piece->begin, err);
    }
    sl_chat_pieces_fini(&p);
    return rc;
}

int sl_chat_stops(struct sl_ids *ids, const struct sl_chat_template *tmpl,
                  const struct sl_chat_vocab *vocab, struct sl_error *err)
{
    for (size_t i = 0; tmpl->stops != NULL && tmpl->stops[i] != NULL; i++) {
        int32_t id = vocab->token(vocab->opaque, tmpl->stops[i]);

        if (id >= 0 && sl_ids_add(ids, id, err) != 0)
            return -1;
    }
    return 0;
}

bool sl_chat_prompt_thinks(const struct sl_chat_template *tmpl, bool no_think)
{
    switch (tmpl->thinking) {
    case SL_THINKING_Z1:
        return true;
    case SL_THINKING_GLM47:
        return !no_think;
    default:
        return false;
    }
}
