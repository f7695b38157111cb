#include "config.h"

#include <errno.h>
#include <string.h>

#include "src/cmd/chat.h"

#define DIM   "\033[2m"
#define PLAIN "\033[0m"

/* --- answers ----------------------------------------------------------------
 */

/* To a terminal nothing goes that could be a command to it. */
static void put_clean(const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)text[i];

        if ((c >= 0x20 && c != 0x7f) || c == '\n' || c == '\t')
            putchar(c);
    }
}

static void change(struct sl_chat *c, bool thinking)
{
    if (thinking == c->thinking)
        return;
    c->thinking = thinking;
    if (c->g.color)
        fputs(thinking ? DIM : PLAIN, stdout);
    if (!thinking && c->shown)
        fputs("\n\n", stdout);
}

int sl_chat_show(void *opaque, bool thinking, const char *text, size_t n,
                 struct sl_error *err)
{
    struct sl_chat *c = opaque;

    if (thinking && !c->terminal)
        return 0;
    if (thinking != c->thinking && c->shown)
        sl_waiting_text(c->g.waiting, "\n", 1);
    sl_waiting_text(c->g.waiting, text, n);
    change(c, thinking);
    c->shown = true;
    if (c->terminal)
        put_clean(text, n);
    else
        fwrite(text, 1, n, stdout);
    atomic_store(&c->g.line_open, n > 0 && text[n - 1] != '\n');
    return sl_show_flush(stdout, err);
}

int sl_chat_show_end(struct sl_chat *c, struct sl_error *err)
{
    if (c->thinking && c->g.color)
        fputs(PLAIN, stdout);
    if (c->shown)
        putchar('\n');
    c->thinking = c->shown = false;
    atomic_store(&c->g.line_open, false);
    return sl_show_flush(stdout, err);
}

/* --- what it cost -----------------------------------------------------------
 */

static const char *plural(uint64_t n)
{
    return n == 1 ? "" : "s";
}

void sl_chat_tell_end(const struct sl_chat *c)
{
    const struct sl_session_turn *t = &c->last;

    if (t->n_dropped > 0)
        sl_messagef("the context of %u tokens is full: the oldest %zu "
                    "turn%s went",
                    c->session.c.lm->max_tokens, t->n_dropped,
                    plural(t->n_dropped));
    if (t->end == SL_CAUSAL_FULL)
        sl_messagef("the answer ends where the context of %u tokens does; "
                    "--ctx makes it longer",
                    c->session.c.lm->max_tokens);
    else if (t->cut_in_thought && t->end == SL_CAUSAL_LENGTH)
        sl_messagef("%u tokens went into thinking: -n allows more, "
                    "--no-think does without",
                    t->n_new);
}

void sl_chat_print_turn(const struct sl_chat *c)
{
    const struct sl_session_turn *t = &c->last;
    const struct sl_run_stats *a = &c->before, *b = &c->after;
    /* the prompt's pass gave the first token; the last may be an end */
    uint64_t n = t->n_new + (t->end == SL_CAUSAL_STOP) - (t->n_new > 0);
    struct sl_said said;
    double s = (double)(b->decode_ns - a->decode_ns) / 1e9 + c->guessing_s;

    if (t->n_prompt == 0) {
        sl_message("nothing was said yet");
        return;
    }
    sl_said_begin(&said);
    fprintf(said.to, "sluice: %u token%s", t->n_new, plural(t->n_new));
    if (n > 0 && s > 0 && (double)n / s >= 1)
        fprintf(said.to, ", %.2f tokens/s", (double)n / s);
    else if (n > 0 && s > 0)
        fprintf(said.to, ", %.2f s a token", s / (double)n);
    fprintf(said.to, "; first after %.2f s; prompt of %u tokens, ",
            (double)t->first_token_ns / 1e9, t->n_prompt);
    if (c->session.causal != NULL)
        fprintf(said.to, "%u known and %u read\n", t->n_kept,
                t->n_prompt - t->n_kept);
    else
        fputs("all read: this model sees it in both directions\n", said.to);
    sl_said_end(&said);
}

void sl_chat_print_context(const struct sl_chat *c)
{
    const struct sl_chat_history *h = &c->session.history;
    const struct sl_session_turn *t = &c->last;

    sl_messagef("%zu message%s, about %u of %u tokens of context; template "
                "%s",
                h->n, plural(h->n), h->n > 0 ? t->n_prompt + t->n_new : 0,
                c->session.c.lm->max_tokens, c->tmpl->name);
}

/* --- the tokenizer ----------------------------------------------------------
 */

static int push(void *opaque, const int32_t *ids, size_t n, const char **text,
                size_t *n_text, struct sl_error *err)
{
    struct sl_chat *c = opaque;

    return sl_detok_push(c->detok, ids, n, text, n_text, err);
}

static int end(void *opaque, const char **text, size_t *n_text,
               struct sl_error *err)
{
    struct sl_chat *c = opaque;

    return sl_detok_end(c->detok, text, n_text, err);
}

struct sl_chat_speaker sl_chat_speaker_of(struct sl_chat *c)
{
    return (struct sl_chat_speaker){push, end, c};
}
