#include "config.h"

#include <math.h>
#include <string.h>

#include "src/serve/api.h"

const char sl_openai_error_schema[] =
    "{\"type\":\"object\",\"required\":[\"error\"],\"properties\":{"
    "\"error\":{\"type\":\"object\",\"required\":[\"message\",\"type\","
    "\"param\",\"code\"]}}}";

json_t *sl_openai_error(const struct sl_refusal *why)
{
    const char *type = "invalid_request_error", *code = NULL;
    json_t *o;

    switch (why->status) {
    case 401:
        type = "authentication_error";
        code = "invalid_api_key";
        break;
    case 403:
        type = "permission_error";
        break;
    case 404:
        code = "not_found";
        break;
    case 429:
        type = "rate_limit_error";
        code = "rate_limit_exceeded";
        break;
    case 501:
        type = "not_implemented";
        break;
    default:
        if (why->status >= 500)
            type = why->status == 503 ? "service_unavailable" : "server_error";
    }
    o = json_pack("{s:s, s:s}", "message", why->msg, "type", type);
    json_object_set_new(o, "param",
                        why->field[0] != '\0' && why->status != 405
                            ? json_string(why->field)
                            : json_null());
    json_object_set_new(o, "code",
                        code != NULL ? json_string(code) : json_null());
    return json_pack("{s:o}", "error", o);
}

const char *sl_openai_finish(const struct sl_choice *c)
{
    if (c->tool_calls != NULL)
        return "tool_calls";
    return c->how == SL_GEN_LENGTH ? "length" : "stop";
}

json_t *sl_openai_usage(const struct sl_job *job)
{
    json_int_t said = 0, prompt = 0, kept = 0, reasoning = 0;

    for (size_t i = 0; i < job->n; i++) {
        said += atomic_load(&job->choices[i].gen.n_said);
        kept += atomic_load(&job->choices[i].gen.n_kept);
    }
    prompt = job->n_prompt;
    (void)reasoning;
    return json_pack("{s:I, s:I, s:I, s:{s:I}}", "prompt_tokens", prompt,
                     "completion_tokens", said, "total_tokens", prompt + said,
                     "prompt_tokens_details", "cached_tokens", kept);
}

static json_t *number(float logprob)
{
    return isnan(logprob) ? json_null() : json_real(logprob);
}

/* {"token": logprob, ...}: of two tokens of one spelling the likelier one. */
static json_t *legacy_top(const struct sl_choice *c, const struct sl_tok *t)
{
    const char *names = sl_str_text(&c->names);
    json_t *o, *v;

    if (isnan(t->logprob))
        return json_null();
    o = json_object();
    for (uint32_t i = 0; i < t->n_top; i++) {
        const struct sl_tok_top *top = &c->tops[t->top + i];

        if (json_object_getn(o, names + top->name, top->n_name) == NULL)
            json_object_setn_new(o, names + top->name, top->n_name,
                                 json_real(top->logprob));
    }
    v = json_object_getn(o, names + t->name, t->n_name);
    if (v == NULL || json_real_value(v) < t->logprob)
        json_object_setn_new(o, names + t->name, t->n_name,
                             json_real(t->logprob));
    return o;
}

static json_t *token(const struct sl_choice *c, const struct sl_tok *t)
{
    return sl_str_json(&c->names, t->name, t->name + t->n_name);
}

static json_t *token_logprob(const struct sl_choice *c, const struct sl_tok *t)
{
    (void)c;
    return number(t->logprob);
}

static json_t *text_offset(const struct sl_choice *c, const struct sl_tok *t)
{
    (void)c;
    return json_integer(t->offset);
}

/* Lists of a value a token. */
struct column {
    const char *name;
    json_t *(*value)(const struct sl_choice *c, const struct sl_tok *t);
};

static const struct column legacy[] = {
    {"tokens", token},
    {"token_logprobs", token_logprob},
    {"top_logprobs", legacy_top},
    {"text_offset", text_offset},
    {0},
};

static json_t *chances(const struct column *of, const struct sl_choice *c,
                       size_t from, size_t to)
{
    json_t *o = json_object();

    for (; of->name != NULL; of++) {
        json_t *list = json_array();

        for (size_t i = from; i < to; i++)
            json_array_append_new(list, of->value(c, &c->toks[i]));
        json_object_set_new(o, of->name, list);
    }
    return o;
}

/* A part of a character has a text, U+FFFD, but no bytes: those of U+FFFD are
 * not what clients that put characters together must take. */
static json_t *chat_token(const struct sl_choice *c, uint32_t name, uint32_t n,
                          float logprob)
{
    const char *text = sl_str_text(&c->names) + name;
    bool whole = memmem(text, n, "\xef\xbf\xbd", 3) == NULL;
    json_t *list = whole ? json_array() : json_null();

    for (uint32_t i = 0; i < n && whole; i++)
        json_array_append_new(list, json_integer((unsigned char)text[i]));
    return json_pack("{s:o, s:o, s:o}", "token",
                     sl_str_json(&c->names, name, name + n), "logprob",
                     number(logprob), "bytes", list);
}

static json_t *content(const struct sl_choice *c, const struct sl_tok *t)
{
    json_t *o = chat_token(c, t->name, t->n_name, t->logprob);
    json_t *tops = json_array();

    for (uint32_t k = 0; k < t->n_top; k++) {
        const struct sl_tok_top *top = &c->tops[t->top + k];

        json_array_append_new(
            tops, chat_token(c, top->name, top->n_name, top->logprob));
    }
    json_object_set_new(o, "top_logprobs", tops);
    return o;
}

static const struct column of_chat[] = {{"content", content}, {0}};

static const struct column *columns_of(const struct sl_openai_kind *k)
{
    return k->legacy ? legacy : of_chat;
}

/* --- whole answers ----------------------------------------------------------
 *
 * Piece by piece: chances of an answer are a tree of many times its memory.
 */

/* An object without its end, and the name of what comes next. */
static int open_object(struct sl_str *out, json_t *o, const char *name,
                       struct sl_error *err)
{
    if (sl_json_add(out, o, err) != 0)
        return -1;
    sl_str_cut(out, out->n - 1);
    return sl_str_add(out, ",\"", err) != 0 ||
                   sl_str_add(out, name, err) != 0 ||
                   sl_str_add(out, "\":", err) != 0
               ? -1
               : 0;
}

/* Values from the *at-th on, list by list. Returns 1 where the piece is full.
 */
static int add_chances(const struct column *of, const struct sl_choice *c,
                       size_t from, size_t to, size_t *at, struct sl_str *out,
                       struct sl_error *err)
{
    for (size_t n = to - from; n > 0; (*at)++) {
        const struct column *column = &of[*at / n];
        size_t i = *at % n;

        if (out->n >= SL_PIECE_BYTES)
            return 1;
        if (i == 0 && *at > 0 && sl_str_add(out, "]", err) != 0)
            return -1;
        if (column->name == NULL)
            return sl_str_add(out, "}", err);
        if (sl_str_add(out, *at == 0 ? "{" : ",", err) != 0 ||
            (i == 0 && (sl_str_add(out, "\"", err) != 0 ||
                        sl_str_add(out, column->name, err) != 0 ||
                        sl_str_add(out, "\":[", err) != 0)) ||
            sl_json_add(out, column->value(c, &c->toks[from + i]), err) != 0)
            return -1;
    }
    return sl_json_add(out, chances(of, c, from, to), err); /* empty */
}

/* r->state: its head was said. Returns 1 where the piece is full. */
static int add_choice(struct sl_req *r, const struct sl_openai_kind *k,
                      size_t i, struct sl_str *out, struct sl_error *err)
{
    const struct sl_choice *c = k->choice(r, i);
    size_t from = 0, to = c->n_toks;
    int rc;

    if (r->state == 0 &&
        ((i > 0 && sl_str_add(out, ",", err) != 0) ||
         open_object(out, k->head(r, c, i), "logprobs", err) != 0))
        return -1;
    r->state = 1;
    if (k->range != NULL)
        k->range(r, c, &from, &to);
    if (r->n_logprobs < 0)
        rc = sl_str_add(out, "null", err);
    else
        rc = add_chances(columns_of(k), c, from, to, &r->cursor[1], out, err);
    if (rc != 0)
        return rc;
    r->state = 0;
    r->cursor[1] = 0;
    return sl_str_add(out, "}", err);
}

int sl_openai_whole(struct sl_req *r, const struct sl_openai_kind *k, size_t n,
                    struct sl_str *out, struct sl_error *err)
{
    size_t *at = &r->cursor[0];

    if (!r->begun_stream && (open_object(out, k->frame(r), "choices", err) ||
                             sl_str_add(out, "[", err) != 0))
        return -1;
    r->begun_stream = true;
    for (; *at < n; (*at)++) {
        int rc = out->n >= SL_PIECE_BYTES ? 1 : add_choice(r, k, *at, out, err);

        if (rc != 0)
            return rc < 0 ? -1 : 0;
    }
    r->stream_ended = true;
    return sl_str_add(out, "],\"usage\":", err) != 0 ||
                   sl_json_add(out, sl_openai_usage(r->job), err) != 0 ||
                   sl_str_add(out, "}", err) != 0
               ? -1
               : 0;
}

/* --- streams ----------------------------------------------------------------
 */

#define DONE "data: [DONE]\n\n"

/* So many tokens' chances an event has at most. */
enum { CHANCES_AT_ONCE = 16 };

static json_t *event_chances(const struct sl_req *r,
                             const struct sl_openai_kind *k,
                             const struct sl_choice *c, size_t from, size_t to)
{
    return r->n_logprobs >= 0 && from < to ? chances(columns_of(k), c, from, to)
                                           : json_null();
}

/* Chances of more tokens than an event has go ahead of it. Returns 1 where the
 * piece is full. */
static int say_chances(struct sl_req *r, const struct sl_openai_kind *k,
                       const struct sl_choice *c, size_t *at, size_t to,
                       struct sl_str *out, struct sl_error *err)
{
    while (r->n_logprobs >= 0 && to > *at && to - *at > CHANCES_AT_ONCE) {
        size_t from = *at;

        if (out->n >= SL_PIECE_BYTES)
            return 1;
        *at += CHANCES_AT_ONCE;
        if (k->event(r, c, NULL, event_chances(r, k, c, from, *at), NULL, out,
                     err) != 0)
            return -1;
    }
    return out->n >= SL_PIECE_BYTES;
}

/* All that is new of a choice. Returns 1 where the piece is full. */
static int choice_events(struct sl_req *r, const struct sl_openai_kind *k,
                         const struct sl_choice *c, struct sl_str *out,
                         struct sl_error *err)
{
    size_t *at = &r->cursor[2 * c->index], from, to = c->n_toks;
    int rc;

    for (; at[0] < c->n_parts; at[0]++) {
        const struct sl_part *p = &c->parts[at[0]];

        rc = say_chances(r, k, c, &at[1], p->n_toks, out, err);
        if (rc != 0)
            return rc;
        from = at[1];
        at[1] = p->n_toks;
        if (k->event(r, c, p, event_chances(r, k, c, from, at[1]), NULL, out,
                     err) != 0)
            return -1;
    }
    if (!c->ended || r->cursor_ended[c->index] || c->how == SL_GEN_FAILED ||
        c->how == SL_GEN_CANCELLED)
        return 0;
    if (k->range != NULL)
        k->range(r, c, &from, &to);
    rc = say_chances(r, k, c, &at[1], to, out, err);
    if (rc != 0)
        return rc;
    r->cursor_ended[c->index] = true;
    return k->event(r, c, NULL, event_chances(r, k, c, at[1], to),
                    sl_openai_finish(c), out, err);
}

/* r->state: so many choices were begun. Returns 1 where the piece is full. */
static int begin_choices(struct sl_req *r, const struct sl_openai_kind *k,
                         struct sl_str *out, struct sl_error *err)
{
    for (; r->state < r->job->n; r->state++) {
        if (out->n >= SL_PIECE_BYTES)
            return 1;
        if (k->begin(r, &r->job->choices[r->state], out, err) != 0)
            return -1;
    }
    return 0;
}

/* The usage, where it was asked for. */
static int end_events(struct sl_req *r, const struct sl_openai_kind *k,
                      struct sl_str *out, struct sl_error *err)
{
    if (r->include_usage) {
        json_t *frame = k->event_frame(r);

        json_object_set_new(frame, "choices", json_array());
        json_object_set_new(frame, "usage", sl_openai_usage(r->job));
        if (sl_sse(out, NULL, frame, err) != 0)
            return -1;
    }
    r->stream_ended = true;
    return sl_str_add(out, DONE, err);
}

int sl_openai_events(struct sl_req *r, const struct sl_openai_kind *k,
                     struct sl_str *out, struct sl_error *err)
{
    int rc = begin_choices(r, k, out, err);

    for (size_t i = 0; i < r->job->n && rc == 0; i++)
        rc = choice_events(r, k, &r->job->choices[i], out, err);
    if (rc != 0)
        return rc < 0 ? -1 : 0;
    if (!sl_job_ended(r->job) || sl_job_lost(r->job))
        return 0;
    return end_events(r, k, out, err);
}

int sl_openai_failed(struct sl_req *r, const struct sl_refusal *why,
                     struct sl_str *out, struct sl_error *err)
{
    if (sl_sse(out, NULL, sl_openai_error(why), err) != 0)
        return -1;
    return sl_str_add(out, DONE, err);
}

const struct sl_form sl_form_openai = {
    .name = "openai",
    .error_schema = sl_openai_error_schema,
    .error = sl_openai_error,
};
