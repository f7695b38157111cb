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

json_t *sl_openai_legacy_logprobs(const struct sl_choice *c, size_t from,
                                  size_t to)
{
    json_t *tokens = json_array(), *logprobs = json_array();
    json_t *tops = json_array(), *offsets = json_array();

    for (size_t i = from; i < to; i++) {
        const struct sl_tok *t = &c->toks[i];

        json_array_append_new(
            tokens, sl_str_json(&c->names, t->name, t->name + t->n_name));
        json_array_append_new(logprobs, number(t->logprob));
        json_array_append_new(tops, legacy_top(c, t));
        json_array_append_new(offsets, json_integer(t->offset));
    }
    return json_pack("{s:o, s:o, s:o, s:o}", "tokens", tokens, "token_logprobs",
                     logprobs, "top_logprobs", tops, "text_offset", offsets);
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

json_t *sl_openai_logprobs(const struct sl_choice *c, size_t from, size_t to)
{
    json_t *content = json_array();

    for (size_t i = from; i < to; i++) {
        const struct sl_tok *t = &c->toks[i];
        json_t *o = chat_token(c, t->name, t->n_name, t->logprob);
        json_t *tops = json_array();

        for (uint32_t k = 0; k < t->n_top; k++) {
            const struct sl_tok_top *top = &c->tops[t->top + k];

            json_array_append_new(
                tops, chat_token(c, top->name, top->n_name, top->logprob));
        }
        json_object_set_new(o, "top_logprobs", tops);
        json_array_append_new(content, o);
    }
    return json_pack("{s:o}", "content", content);
}

#define DONE "data: [DONE]\n\n"

int sl_openai_end(struct sl_req *r, json_t *frame, struct sl_str *out,
                  struct sl_error *err)
{
    if (frame != NULL) {
        json_object_set_new(frame, "choices", json_array());
        json_object_set_new(frame, "usage", sl_openai_usage(r->job));
        if (sl_sse(out, NULL, frame, err) != 0)
            return -1;
    }
    r->stream_ended = true;
    return sl_str_add(out, DONE, err);
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
