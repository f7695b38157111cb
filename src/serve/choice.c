#include "config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/json.h"
#include "src/base/mem.h"
#include "src/base/utf8.h"
#include "src/serve/job.h"
#include "src/serve/room.h"

/* Ids that tell how the next one is spelt. */
enum { PRIMING = 8 };

/* --- lists that grow --------------------------------------------------------
 */

/* Room for n + 1 items of a list. */
static int grow(void **v, size_t n, size_t *room, size_t size,
                struct sl_error *err)
{
    if (!sl_grow(v, room, n, size))
        return sl_fail(err, SL_ERR_NOMEM, "out of memory for an answer");
    return 0;
}

static int add_part(struct sl_choice *c, enum sl_part_kind kind, uint32_t begin,
                    uint32_t end, struct sl_error *err)
{
    if (grow((void **)&c->parts, c->n_parts, &c->room_parts, sizeof *c->parts,
             err) != 0)
        return -1;
    c->parts[c->n_parts++] = (struct sl_part){
        .kind = kind,
        .begin = begin,
        .end = end,
        .n_toks = (uint32_t)c->n_toks,
        .blank = c->blank,
    };
    return 0;
}

/* The text of an id alone, as UTF-8. lock and text_lock are held. */
static int add_name(struct sl_choice *c, int32_t id, uint32_t *at, uint32_t *n,
                    struct sl_error *err)
{
    struct sl_tokenizer *t = c->job->s->tokenizer;
    char *text = NULL;
    size_t n_text = 0;
    int rc;

    *at = (uint32_t)c->names.n;
    if (t == NULL)
        return sl_fail(err, SL_ERR_IO, "the model is gone");
    rc = sl_tokenizer_decode_as(t, SL_SPECIALS_SHOWN, &id, 1, &text, &n_text,
                                err);
    if (rc == 0)
        rc = sl_utf8_repair(&c->names, text, n_text, SL_UTF8_SUBPARTS, err);
    *n = (uint32_t)c->names.n - *at;
    free(text);
    return rc;
}

static int add_tops(struct sl_choice *c, struct sl_tok *tok,
                    const struct sl_chance *t, struct sl_error *err)
{
    tok->top = (uint32_t)c->n_tops;
    for (unsigned i = 0; i < t->n_top; i++) {
        struct sl_tok_top top = {t->top[i].id, t->top[i].logprob, 0, 0};

        if (grow((void **)&c->tops, c->n_tops, &c->room_tops, sizeof *c->tops,
                 err) != 0 ||
            add_name(c, top.id, &top.name, &top.n_name, err) != 0)
            return -1;
        c->tops[c->n_tops++] = top;
        tok->n_top++;
    }
    return 0;
}

/* lock and text_lock are held. with: logprobs are there. */
static int add_tok(struct sl_choice *c, const struct sl_chance *t, bool with,
                   struct sl_error *err)
{
    struct sl_tok tok = {
        .id = t->id,
        .logprob = with ? t->logprob : NAN,
        .offset = c->n_chars,
    };

    if (c->gen.rules.n_top < 0)
        return 0;
    if (grow((void **)&c->toks, c->n_toks, &c->room_toks, sizeof *c->toks,
             err) != 0 ||
        add_name(c, tok.id, &tok.name, &tok.n_name, err) != 0 ||
        (with && add_tops(c, &tok, t, err) != 0))
        return -1;
    c->toks[c->n_toks++] = tok;
    return 0;
}

static uint32_t count_chars(const char *text, size_t n)
{
    uint32_t chars = 0;

    for (size_t i = 0; i < n; i++)
        chars += ((unsigned char)text[i] & 0xc0) != 0x80;
    return chars;
}

/* --- what it takes ----------------------------------------------------------
 */

/* Text and names of tokens are short as a rule; a text of longer ones takes
 * more as it grows. */
enum { TEXT_BYTES = 8, NAME_BYTES = 8, GROW_BYTES = 4096 };

/* With what malloc adds, and lists that have grown. */
static uint64_t with_slack(uint64_t n)
{
    return n + n / 4;
}

uint64_t sl_choice_bytes(const struct sl_choice *c)
{
    const struct sl_gen *g = &c->gen;
    uint64_t ids =
        g->ids.n + g->prompt.ids.n + g->given.n + g->shown.n + g->rules.said.n;

    return with_slack(
        c->text.n + c->reasoning.n + c->answer.content.n +
        c->answer.reasoning.n + c->names.n + c->n_toks * sizeof *c->toks +
        c->n_tops * sizeof *c->tops + c->n_parts * sizeof *c->parts +
        ids * sizeof(int32_t) + g->prompt.n_text +
        g->rules.n_bias * sizeof *g->bias + sl_json_bytes(c->tool_calls));
}

/* Of each id that is said a text (here, in the detokenizer and, of a chat, in
 * answer.h), a part and a place in lists; of each that has a chance the chances
 * and names. */
uint64_t sl_choice_to_come(const struct sl_choice *c)
{
    const struct sl_gen *g = &c->gen;
    uint64_t scored = g->score_from > 0 ? g->ids.n - g->n_context + 1 : 0;
    uint64_t top = g->rules.n_top > 0 ? (uint64_t)g->rules.n_top : 0;
    uint64_t chances = g->rules.n_top < 0
                           ? 0
                           : sizeof *c->toks + NAME_BYTES +
                                 top * (sizeof *c->tops + NAME_BYTES);
    uint64_t said =
        (c->chat ? 3 : 2) * TEXT_BYTES + sizeof *c->parts + 4 * sizeof(int32_t);

    return with_slack(g->max_new * said + (g->max_new + scored) * chances) +
           GROW_BYTES;
}

/* lock is held. */
static int stay_within(struct sl_choice *c, struct sl_error *err)
{
    struct sl_server *s = c->job->s;
    uint64_t n = sl_choice_bytes(c);

    if (n <= c->bytes)
        return 0;
    n += GROW_BYTES - c->bytes;
    if (!sl_room_take(s, n))
        return sl_fail(err, SL_ERR_NOMEM,
                       "the answer is longer than there is memory for, beside "
                       "others that are here (--keep-answers)");
    c->bytes += n;
    c->job->bytes += n;
    return 0;
}

/* --- text, on the executor's thread -----------------------------------------
 */

static int say(struct sl_choice *c, bool thinking, const char *text, size_t n,
               struct sl_error *err)
{
    struct sl_str *to = thinking ? &c->reasoning : &c->text;
    uint32_t begin = (uint32_t)to->n;
    enum sl_part_kind kind = thinking ? SL_PART_REASONING : SL_PART_TEXT;

    if (n == 0)
        return 0;
    if (sl_str_append(to, text, n, err) != 0)
        return -1;
    c->n_chars_out += count_chars(text, n);
    return add_part(c, kind, begin, (uint32_t)to->n, err);
}

static int hear_answer(void *opaque, bool thinking, const char *text, size_t n,
                       struct sl_error *err)
{
    struct sl_choice *c = opaque;

    if (thinking || c->reader.tools == NULL)
        return say(c, thinking, text, n, err);
    sl_str_clear(&c->plain);
    if (sl_call_reader_push(&c->reader, &c->plain, text, n, err) != 0)
        return -1;
    return say(c, false, sl_str_text(&c->plain), c->plain.n, err);
}

/* Text of the model, on its way to people. lock is held. */
static int push_text(struct sl_choice *c, const char *text, size_t n, bool last,
                     struct sl_error *err)
{
    sl_str_clear(&c->plain_stop);
    if (sl_stopper_push(&c->stopper, &c->plain_stop, text, n, last, err) != 0)
        return -1;
    if (!c->chat)
        return say(c, false, sl_str_text(&c->plain_stop), c->plain_stop.n, err);
    return sl_answer_push(&c->answer, sl_str_text(&c->plain_stop),
                          c->plain_stop.n, err);
}

/* Names of tokens that a template gives a meaning, which are not shown else. */
static const char *marked(const struct sl_choice *c, int32_t id)
{
    if (id >= 0 && id == c->think[0])
        return "<think>";
    if (id >= 0 && id == c->think[1])
        return "</think>";
    for (size_t i = 0; i < SL_CALL_MARKS; i++) {
        if (id >= 0 && c->reader.tools != NULL && id == c->marks[i])
            return sl_call_marks[i];
    }
    return NULL;
}

/* How a token is spelt depends on what stands before it, which the client has
 * already: the last ids before a blank, or of the prompt, go ahead. */
static int prime(struct sl_choice *c, const int32_t *ids, size_t n,
                 struct sl_error *err)
{
    const char *text;
    char *whole;
    size_t n_text, n_whole;

    if (c->chat)
        return 0;
    if (n > PRIMING) {
        ids += n - PRIMING;
        n = PRIMING;
    }
    if (n == 0)
        return 0;
    if (sl_tokenizer_decode_as(c->job->s->tokenizer, SL_SPECIALS_HIDDEN, ids, n,
                               &whole, &n_whole, err) != 0)
        return -1;
    free(whole);
    if (sl_detok_push(c->detok, ids, n, &text, &n_text, err) != 0)
        return -1;
    c->skip = n_whole - (n_text < n_whole ? n_text : n_whole);
    return 0;
}

/* What the detokenizer gives, less what belongs to the prompt. */
static void skip(struct sl_choice *c, const char **text, size_t *n)
{
    size_t k = c->skip < *n ? c->skip : *n;

    *text += k;
    *n -= k;
    c->skip -= k;
}

static int push_id(struct sl_choice *c, int32_t id, struct sl_error *err)
{
    const char *mark = c->chat ? marked(c, id) : NULL, *text;
    size_t n;

    if (mark != NULL) {
        if (sl_detok_end(c->detok, &text, &n, err) != 0 ||
            push_text(c, text, n, false, err) != 0)
            return -1;
        return push_text(c, mark, strlen(mark), false, err);
    }
    if (sl_detok_push(c->detok, &id, 1, &text, &n, err) != 0)
        return -1;
    skip(c, &text, &n);
    c->n_chars += count_chars(text, n);
    return push_text(c, text, n, false, err);
}

/* Both locks; the model may be gone. */
static int enter(struct sl_choice *c, struct sl_error *err)
{
    struct sl_server *s = c->job->s;

    pthread_mutex_lock(&s->lock);
    pthread_mutex_lock(&s->text_lock);
    if (s->tokenizer != NULL)
        return 0;
    return sl_fail(err, SL_ERR_IO, "the model is gone");
}

static void leave(struct sl_choice *c)
{
    pthread_mutex_unlock(&c->job->s->text_lock);
    pthread_mutex_unlock(&c->job->s->lock);
}

static int hear_token(void *opaque, const struct sl_chance *t, bool *enough,
                      struct sl_error *err)
{
    struct sl_choice *c = opaque;
    const struct sl_gen *g = &c->gen;
    int rc = enter(c, err);

    if (rc == 0 && !g->fill && atomic_load(&g->n_said) == 1)
        rc = prime(c, g->ids.v + g->n_context, g->ids.n - g->n_context, err);
    if (rc == 0)
        rc = add_tok(c, t, true, err);
    if (rc == 0)
        rc = push_id(c, t->id, err);
    if (rc == 0)
        rc = stay_within(c, err);
    if (c->stopper.found != NULL ||
        (c->chat && c->answer.state == SL_ANSWER_STOPPED))
        *enough = true;
    sl_job_wake(c->job);
    leave(c);
    return rc;
}

/* The ids of the prompt before the first that has a value have none. */
static int add_prompt_tok(struct sl_choice *c, const struct sl_chance *t,
                          bool with, struct sl_error *err)
{
    const char *text;
    size_t n;

    if (add_tok(c, t, with, err) != 0)
        return -1;
    c->n_scored++;
    if (sl_detok_push(c->prompt_detok, &t->id, 1, &text, &n, err) != 0)
        return -1;
    c->n_chars += count_chars(text, n);
    c->n_chars_out = c->n_chars;
    return 0;
}

static int hear_scored(void *opaque, uint32_t at, const struct sl_chance *t,
                       struct sl_error *err)
{
    struct sl_choice *c = opaque;
    int rc = enter(c, err);

    /* What is before the text, [gMASK] [sop], is not the client's. */
    for (uint32_t i = c->gen.n_context > 0 ? c->gen.score_from : 0;
         rc == 0 && c->n_scored == 0 && i < at && i < c->gen.ids.n; i++) {
        struct sl_chance first = {.id = c->gen.ids.v[i]};

        rc = add_prompt_tok(c, &first, false, err);
        c->n_scored--;
    }
    if (rc == 0)
        rc = add_prompt_tok(c, t, true, err);
    if (rc == 0)
        rc = stay_within(c, err);
    leave(c);
    return rc;
}

static int hear_blank(void *opaque, struct sl_error *err)
{
    struct sl_choice *c = opaque;
    const char *text;
    size_t n;
    int rc = enter(c, err);

    if (rc == 0 && c->n_blanks > 0) {
        rc = sl_detok_end(c->detok, &text, &n, err);
        skip(c, &text, &n);
        if (rc == 0)
            rc = push_text(c, text, n, false, err);
    }
    c->blank = c->n_blanks++;
    if (rc == 0)
        rc = prime(c, c->gen.shown.v, c->gen.shown.n, err);
    leave(c);
    return rc;
}

/* What was held back, and calls of tools. */
static int finish(struct sl_choice *c, struct sl_error *err)
{
    const char *text = "";
    size_t n = 0;

    if (c->job->s->tokenizer != NULL &&
        sl_detok_end(c->detok, &text, &n, err) != 0)
        return -1;
    skip(c, &text, &n);
    if (push_text(c, text, n, true, err) != 0)
        return -1;
    if (c->chat && sl_answer_end(&c->answer, err) != 0)
        return -1;
    if (c->reader.tools == NULL)
        return 0;
    sl_str_clear(&c->plain);
    if (sl_call_reader_end(&c->reader, &c->plain, &c->tool_calls, err) != 0 ||
        say(c, false, sl_str_text(&c->plain), c->plain.n, err) != 0)
        return -1;
    return c->tool_calls != NULL ? add_part(c, SL_PART_CALLS, 0, 0, err) : 0;
}

void sl_choice_forget_text(struct sl_choice *c)
{
    sl_detok_destroy(c->detok);
    sl_detok_destroy(c->prompt_detok);
    c->detok = c->prompt_detok = NULL;
}

/* Where chances of the prompt are asked for, that of the token which ends the
 * answer stands behind them: clients that score texts ask for one token more,
 * and leave out the last of what they get. */
static int add_end(struct sl_choice *c, struct sl_error *err)
{
    if (c->gen.score_from == 0 || c->how != SL_GEN_STOP)
        return 0;
    return add_tok(c, &c->gen.rules.chance, true, err);
}

static void hear_end(void *opaque, enum sl_gen_end how,
                     const struct sl_error *err)
{
    struct sl_choice *c = opaque;
    struct sl_server *s = c->job->s;
    struct sl_error late;

    pthread_mutex_lock(&s->lock);
    pthread_mutex_lock(&s->text_lock);
    c->how = how;
    if (how == SL_GEN_FAILED)
        c->err = *err;
    else if (finish(c, &late) != 0 || add_end(c, &late) != 0) {
        c->how = SL_GEN_FAILED;
        c->err = late;
    }
    c->stop = c->stopper.found;
    sl_choice_forget_text(c);
    c->ended = true;
    pthread_mutex_unlock(&s->text_lock);
    sl_job_choice_ended(c->job);
    pthread_mutex_unlock(&s->lock);
}

const struct sl_gen_sink sl_choice_sink = {
    .scored = hear_scored,
    .blank = hear_blank,
    .token = hear_token,
    .ended = hear_end,
};

/* --- life -------------------------------------------------------------------
 */

int sl_choice_open(struct sl_choice *c, bool thinks, struct sl_error *err)
{
    struct sl_server *s = c->job->s;
    bool may_think = c->chat && s->tmpl->thinking != SL_THINKING_NONE;
    int rc = 0;

    c->gen.sink = &sl_choice_sink;
    c->gen.opaque = c;
    c->stopper.stops = &c->stops;
    c->answer_sink = (struct sl_answer_sink){hear_answer, c};
    if (c->chat)
        sl_answer_begin(&c->answer, s->tmpl, thinks, &c->answer_sink);
    pthread_mutex_lock(&s->text_lock);
    if (s->tokenizer == NULL) {
        rc = sl_fail(err, SL_ERR_IO, "the model is gone");
    } else {
        for (size_t i = 0; i < SL_CALL_MARKS; i++)
            c->marks[i] = sl_tokenizer_find(s->tokenizer, sl_call_marks[i]);
        c->think[0] =
            may_think ? sl_tokenizer_find(s->tokenizer, "<think>") : -1;
        c->think[1] =
            may_think ? sl_tokenizer_find(s->tokenizer, "</think>") : -1;
        rc = sl_detok_create_as(&c->detok, s->tokenizer, SL_SPECIALS_HIDDEN,
                                err);
        if (rc == 0)
            rc = sl_detok_create_as(&c->prompt_detok, s->tokenizer,
                                    SL_SPECIALS_HIDDEN, err);
    }
    pthread_mutex_unlock(&s->text_lock);
    return rc;
}

void sl_choice_fini(struct sl_choice *c)
{
    sl_gen_fini(&c->gen);
    sl_form_rule_destroy(c->form);
    sl_detok_destroy(c->detok);
    sl_detok_destroy(c->prompt_detok);
    sl_stops_fini(&c->stops);
    sl_stopper_fini(&c->stopper);
    if (c->chat)
        sl_answer_fini(&c->answer);
    sl_call_reader_fini(&c->reader);
    sl_str_fini(&c->plain);
    sl_str_fini(&c->plain_stop);
    sl_str_fini(&c->text);
    sl_str_fini(&c->reasoning);
    sl_str_fini(&c->names);
    free(c->toks);
    free(c->tops);
    free(c->parts);
    json_decref(c->tool_calls);
}
