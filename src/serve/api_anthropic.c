#include "config.h"

#include <string.h>

#include "src/serve/api.h"

/*
 * Anthropic's Messages (docs.anthropic.com, "Messages" and "Streaming
 * Messages"): blocks of content in place of a text, events with names. What is
 * asked becomes messages of OpenAI's form, which is what templates know.
 */

/* --- answers ----------------------------------------------------------------
 */

/* The types of Anthropic's errors, of which clients go by the type and not
 * by the status. */
static json_t *error_json(const struct sl_refusal *why)
{
    const char *type = "api_error";

    switch (why->status) {
    case 400:
        type = "invalid_request_error";
        break;
    case 401:
        type = "authentication_error";
        break;
    case 403:
        type = "permission_error";
        break;
    case 404:
    case 405:
        type = "not_found_error";
        break;
    case 413:
        type = "request_too_large";
        break;
    case 429:
        type = "rate_limit_error";
        break;
    case 503:
        type = "overloaded_error";
        break;
    default:
        break;
    }
    return json_pack("{s:s, s:{s:s, s:s}}", "type", "error", "error", "type",
                     type, "message", why->msg);
}

static const char *stop_reason(const struct sl_choice *c)
{
    if (c->tool_calls != NULL)
        return "tool_use";
    if (c->stop != NULL)
        return "stop_sequence";
    return c->how == SL_GEN_LENGTH ? "max_tokens" : "end_turn";
}

static json_t *usage(const struct sl_job *job)
{
    return json_pack("{s:I, s:I}", "input_tokens", (json_int_t)job->n_prompt,
                     "output_tokens",
                     (json_int_t)atomic_load(&job->choices[0].gen.n_said));
}

/* A call of OpenAI's form as a block. */
static json_t *tool_use(const json_t *call, bool with_input)
{
    const json_t *f = json_object_get(call, "function");
    const char *arguments = json_string_value(json_object_get(f, "arguments"));
    json_t *input =
        with_input && arguments != NULL ? json_loads(arguments, 0, NULL) : NULL;

    return json_pack("{s:s, s:O, s:O, s:o}", "type", "tool_use", "id",
                     json_object_get(call, "id"), "name",
                     json_object_get(f, "name"), "input",
                     input != NULL ? input : json_object());
}

/* In a stream the first event has the message as it begins: stop_reason null
 * until it has ended. */
static json_t *message_frame(const struct sl_req *r, json_t *content,
                             const struct sl_choice *ended)
{
    json_t *o =
        json_pack("{s:s, s:s, s:s, s:o, s:o, s:o}", "id", r->job->id, "type",
                  "message", "role", "assistant", "model", sl_req_model_name(r),
                  "content", content, "usage", usage(r->job));

    json_object_set_new(o, "stop_reason",
                        ended != NULL ? json_string(stop_reason(ended))
                                      : json_null());
    json_object_set_new(o, "stop_sequence",
                        ended != NULL && ended->stop != NULL
                            ? json_string(ended->stop)
                            : json_null());
    return o;
}

/* Blocks in the order in which they were said. A text block is there even
 * where nothing was: clients take the first block of an answer. `signature`
 * is a field of thinking that clients send back; nothing here signs. */
static int whole(struct sl_req *r, struct sl_str *out, struct sl_error *err)
{
    const struct sl_choice *c = &r->job->choices[0];
    json_t *content = json_array(), *call;
    size_t i;

    if (c->reasoning.n > 0)
        json_array_append_new(
            content,
            json_pack("{s:s, s:o, s:s}", "type", "thinking", "thinking",
                      sl_str_json(&c->reasoning, 0, c->reasoning.n),
                      "signature", ""));
    if (c->text.n > 0 || c->tool_calls == NULL)
        json_array_append_new(content,
                              json_pack("{s:s, s:o}", "type", "text", "text",
                                        sl_str_json(&c->text, 0, c->text.n)));
    json_array_foreach(c->tool_calls, i, call)
        json_array_append_new(content, tool_use(call, true));
    return sl_json_whole(r, out, message_frame(r, content, c), err);
}

/* --- streams ----------------------------------------------------------------
 */

/* r->state: the block that is open. */
enum { BLOCK_NONE, BLOCK_THINKING, BLOCK_TEXT };

static int block_start(struct sl_req *r, json_t *block, struct sl_str *out,
                       struct sl_error *err)
{
    return sl_sse(out, "content_block_start",
                  json_pack("{s:s, s:I, s:o}", "type", "content_block_start",
                            "index", (json_int_t)r->n_blocks, "content_block",
                            block),
                  err);
}

static int block_delta(struct sl_req *r, json_t *delta, struct sl_str *out,
                       struct sl_error *err)
{
    return sl_sse(out, "content_block_delta",
                  json_pack("{s:s, s:I, s:o}", "type", "content_block_delta",
                            "index", (json_int_t)r->n_blocks, "delta", delta),
                  err);
}

static int block_stop(struct sl_req *r, struct sl_str *out,
                      struct sl_error *err)
{
    json_int_t index = (json_int_t)r->n_blocks++;

    r->state = BLOCK_NONE;
    return sl_sse(
        out, "content_block_stop",
        json_pack("{s:s, s:I}", "type", "content_block_stop", "index", index),
        err);
}

/* The block that this kind of text goes into is open. */
static int open_block(struct sl_req *r, unsigned kind, struct sl_str *out,
                      struct sl_error *err)
{
    json_t *block;

    if (r->state == kind)
        return 0;
    if (r->state != BLOCK_NONE && block_stop(r, out, err) != 0)
        return -1;
    r->state = kind;
    block = kind == BLOCK_TEXT
                ? json_pack("{s:s, s:s}", "type", "text", "text", "")
                : json_pack("{s:s, s:s, s:s}", "type", "thinking", "thinking",
                            "", "signature", "");
    return block_start(r, block, out, err);
}

/* Arguments in one piece: they are known to be JSON only when a call has
 * ended. */
static int say_calls(struct sl_req *r, const struct sl_choice *c,
                     struct sl_str *out, struct sl_error *err)
{
    json_t *call;
    size_t i;

    if (r->state != BLOCK_NONE && block_stop(r, out, err) != 0)
        return -1;
    json_array_foreach(c->tool_calls, i, call)
    {
        json_t *arguments =
            json_object_get(json_object_get(call, "function"), "arguments");

        if (block_start(r, tool_use(call, false), out, err) != 0 ||
            block_delta(r,
                        json_pack("{s:s, s:O}", "type", "input_json_delta",
                                  "partial_json", arguments),
                        out, err) != 0 ||
            block_stop(r, out, err) != 0)
            return -1;
    }
    return 0;
}

/* Parts of one kind go into one block; another kind ends it and begins the
 * next. */
static int say_part(struct sl_req *r, const struct sl_choice *c,
                    const struct sl_part *p, struct sl_str *out,
                    struct sl_error *err)
{
    bool thinks = p->kind == SL_PART_REASONING;

    if (p->kind == SL_PART_CALLS)
        return say_calls(r, c, out, err);
    if (open_block(r, thinks ? BLOCK_THINKING : BLOCK_TEXT, out, err) != 0)
        return -1;
    return block_delta(
        r,
        thinks ? json_pack("{s:s, s:o}", "type", "thinking_delta", "thinking",
                           sl_str_json(&c->reasoning, p->begin, p->end))
               : json_pack("{s:s, s:o}", "type", "text_delta", "text",
                           sl_str_json(&c->text, p->begin, p->end)),
        out, err);
}

/* An answer without a word still has a block, as above. */
static int end_message(struct sl_req *r, const struct sl_choice *c,
                       struct sl_str *out, struct sl_error *err)
{
    json_t *delta = json_pack("{s:s, s:s?}", "stop_reason", stop_reason(c),
                              "stop_sequence", c->stop);

    if (r->n_blocks == 0 && r->state == BLOCK_NONE &&
        open_block(r, BLOCK_TEXT, out, err) != 0)
        return -1;
    if (r->state != BLOCK_NONE && block_stop(r, out, err) != 0)
        return -1;
    if (sl_sse(out, "message_delta",
               json_pack("{s:s, s:o, s:o}", "type", "message_delta", "delta",
                         delta, "usage", usage(r->job)),
               err) != 0)
        return -1;
    r->stream_ended = true;
    return sl_sse(out, "message_stop",
                  json_pack("{s:s}", "type", "message_stop"), err);
}

static int events(struct sl_req *r, struct sl_str *out, struct sl_error *err)
{
    int rc;

    if (!r->begun_stream &&
        sl_sse(out, "message_start",
               json_pack("{s:s, s:o}", "type", "message_start", "message",
                         message_frame(r, json_array(), NULL)),
               err) != 0)
        return -1;
    r->begun_stream = true;
    rc = sl_say_parts(r, say_part, out, err);
    if (rc != 0 || !sl_job_ended(r->job) || sl_job_lost(r->job))
        return rc < 0 ? -1 : 0;
    return end_message(r, &r->job->choices[0], out, err);
}

static int progress(struct sl_req *r, struct sl_str *out, struct sl_error *err)
{
    return sl_sse(out, "ping",
                  json_pack("{s:s, s:o}", "type", "ping", "progress",
                            sl_job_progress_json(r->job)),
                  err);
}

static int failed(struct sl_req *r, const struct sl_refusal *why,
                  struct sl_str *out, struct sl_error *err)
{
    return sl_sse(out, "error", error_json(why), err);
}

const struct sl_form sl_form_anthropic = {
    .name = "anthropic",
    .error_schema =
        "{\"type\":\"object\",\"required\":[\"type\",\"error\"],"
        "\"properties\":{\"error\":{\"type\":\"object\",\"required\":["
        "\"type\",\"message\"]}}}",
    .error = error_json,
    .whole = whole,
    .events = events,
    .progress = progress,
    .failed = failed,
};

/* --- requests ---------------------------------------------------------------
 */

/* The texts of a string or of a list of blocks, one after another. */
static int add_texts(struct sl_str *text, const json_t *v, const char *field,
                     struct sl_refusal *why)
{
    struct sl_error err;
    const json_t *block;
    size_t i;
    int rc = 0;

    if (json_is_string(v))
        rc = sl_str_add(text, json_string_value(v), &err);
    else if (!json_is_array(v))
        return sl_body_wrong(why, field, v, "a text or a list of blocks");
    json_array_foreach(v, i, block)
    {
        const char *type = json_string_value(json_object_get(block, "type"));
        const char *part = json_string_value(json_object_get(block, "text"));

        if (type == NULL || strcmp(type, "text") != 0 || part == NULL)
            return sl_refuse(why, 400, field,
                             "'%s' has a block '%.40s'; blocks of text alone "
                             "are understood here",
                             field, type != NULL ? type : "?");
        if (rc == 0)
            rc = sl_str_add(text, part, &err);
    }
    return rc == 0 ? 0 : sl_refuse_error(why, field, &err);
}

static int add_message(json_t *list, const char *role,
                       const struct sl_str *text, json_t *more)
{
    json_t *o = json_pack("{s:s, s:o}", "role", role, "content",
                          sl_str_json(text, 0, text->n));

    if (more != NULL) {
        json_object_update(o, more);
        json_decref(more);
    }
    return json_array_append_new(list, o);
}

static json_t *call_of(const json_t *block)
{
    json_t *input = json_object_get(block, "input");
    char *arguments = json_dumps(input, JSON_COMPACT | JSON_ENCODE_ANY);
    json_t *call = json_pack("{s:O?, s:s, s:{s:O?, s:s}}", "id",
                             json_object_get(block, "id"), "type", "function",
                             "function", "name", json_object_get(block, "name"),
                             "arguments", arguments != NULL ? arguments : "{}");

    free(arguments);
    return call;
}

/* A message's blocks: texts and calls are one message, each result of a tool
 * is one of its own. */
static int add_blocks(json_t *list, const char *role, const json_t *blocks,
                      struct sl_refusal *why)
{
    struct sl_str text = {0}, thinking = {0};
    json_t *calls = json_array(), *more = NULL;
    const json_t *block;
    size_t i;
    int rc = 0;

    json_array_foreach(blocks, i, block)
    {
        const char *type = json_string_value(json_object_get(block, "type"));
        const char *part = json_string_value(json_object_get(block, "text"));
        const char *thought =
            json_string_value(json_object_get(block, "thinking"));
        struct sl_error err;

        if (type != NULL && strcmp(type, "text") == 0 && part != NULL) {
            rc = sl_str_add(&text, part, &err);
        } else if (type != NULL && strcmp(type, "thinking") == 0) {
            rc = sl_str_add(&thinking, thought != NULL ? thought : "", &err);
        } else if (type != NULL && strcmp(type, "redacted_thinking") == 0) {
            continue;
        } else if (type != NULL && strcmp(type, "tool_use") == 0) {
            json_array_append_new(calls, call_of(block));
        } else if (type != NULL && strcmp(type, "tool_result") == 0) {
            struct sl_str result = {0};
            const json_t *content = json_object_get(block, "content");

            rc = content == NULL ? 0
                                 : add_texts(&result, content, "messages", why);
            if (rc == 0)
                add_message(list, "tool", &result,
                            json_pack("{s:O?}", "tool_call_id",
                                      json_object_get(block, "tool_use_id")));
            sl_str_fini(&result);
        } else {
            rc = sl_refuse(why, 400, "messages",
                           "'messages' has a block '%.40s', which this model "
                           "cannot be shown",
                           type != NULL ? type : "?");
        }
        if (rc != 0)
            break;
    }
    if (json_array_size(calls) > 0)
        more = json_pack("{s:O}", "tool_calls", calls);
    if (thinking.n > 0) {
        more = more != NULL ? more : json_object();
        json_object_set_new(more, "reasoning_content",
                            sl_str_json(&thinking, 0, thinking.n));
    }
    if (rc == 0 && (text.n > 0 || more != NULL))
        add_message(list, role, &text, more);
    else
        json_decref(more);
    json_decref(calls);
    sl_str_fini(&text);
    sl_str_fini(&thinking);
    return rc;
}

/* "system" and "messages" in OpenAI's form. */
static int read_messages(json_t **list, const json_t *body,
                         struct sl_refusal *why)
{
    const json_t *system = sl_body_get(body, "system"), *m;
    const json_t *messages = sl_body_get(body, "messages");
    struct sl_str text = {0};
    size_t i;
    int rc = 0;

    if (!json_is_array(messages) || json_array_size(messages) == 0)
        return sl_body_wrong(why, "messages", messages,
                             "a list of messages, not empty");
    *list = json_array();
    if (system != NULL)
        rc = add_texts(&text, system, "system", why);
    if (rc == 0 && text.n > 0)
        add_message(*list, "system", &text, NULL);
    sl_str_fini(&text);
    json_array_foreach(messages, i, m)
    {
        const char *role = json_string_value(json_object_get(m, "role"));
        const json_t *content = json_object_get(m, "content");

        if (rc != 0)
            break;
        if (role == NULL ||
            (strcmp(role, "user") != 0 && strcmp(role, "assistant") != 0)) {
            rc = sl_refuse(why, 400, "messages",
                           "'messages' has a role '%.40s'; user and assistant "
                           "are expected",
                           role != NULL ? role : "?");
        } else if (json_is_string(content)) {
            json_array_append_new(*list, json_pack("{s:s, s:O}", "role", role,
                                                   "content", content));
        } else if (json_is_array(content)) {
            rc = add_blocks(*list, role, content, why);
        } else {
            rc = sl_refuse(why, 400, "messages",
                           "'messages' has a message without content");
        }
    }
    return rc;
}

/* {"name", "description", "input_schema"} as OpenAI has it. */
static int read_tools(json_t **tools, const struct sl_req *r,
                      struct sl_refusal *why)
{
    const json_t *list = sl_body_get(r->body, "tools"), *t;
    const json_t *choice = sl_body_get(r->body, "tool_choice");
    const char *kind = json_string_value(json_object_get(choice, "type"));
    size_t i;

    if (list == NULL || json_array_size(list) == 0 ||
        (kind != NULL && strcmp(kind, "none") == 0))
        return 0;
    if (r->s->tmpl->tools == SL_TOOLS_NONE)
        return sl_refuse(why, 400, "tools",
                         "'tools' needs a model that was trained to call "
                         "some; the template of %s has no place for them",
                         r->s->model);
    *tools = json_array();
    json_array_foreach(list, i, t)
    {
        json_t *schema = json_object_get(t, "input_schema");

        if (!json_is_string(json_object_get(t, "name")))
            return sl_body_wrong(why, "tools", t, "a tool with a name");
        json_array_append_new(
            *tools,
            json_pack("{s:s, s:{s:O, s:o, s:o}}", "type", "function",
                      "function", "name", json_object_get(t, "name"),
                      "description",
                      json_object_get(t, "description") != NULL
                          ? json_incref(json_object_get(t, "description"))
                          : json_string(""),
                      "parameters",
                      schema != NULL ? json_incref(schema) : json_object()));
    }
    return 0;
}

static bool asks_to_think(const json_t *body)
{
    const char *type = json_string_value(
        json_object_get(sl_body_get(body, "thinking"), "type"));

    return type != NULL && strcmp(type, "disabled") != 0;
}

/* A conversation of what is asked, to be freed with h and tools. */
static int read_talk(struct sl_req *r, struct sl_chat_history *h,
                     json_t **tools, struct sl_chat_input *input,
                     struct sl_refusal *why)
{
    json_t *list = NULL;
    int rc =
        sl_talk_count(r->s, sl_body_get(r->body, "messages"), "messages", why);

    if (rc == 0)
        rc = read_messages(&list, r->body, why);
    if (rc == 0)
        rc = sl_talk_read(h, r->s, list, why);
    json_decref(list);
    if (rc == 0)
        rc = read_tools(tools, r, why);
    *input = (struct sl_chat_input){
        .messages = h->v,
        .n_messages = h->n,
        .tools = *tools,
        .no_think = !asks_to_think(r->body),
    };
    return rc;
}

/* Fields of the API that have no meaning here were refused, or let go, by
 * the table of fields before. */
static int read_params(struct sl_params *p, struct sl_req *r,
                       struct sl_refusal *why)
{
    const json_t *b = r->body;
    int64_t most = r->s->c->most_tokens > 0 ? r->s->c->most_tokens : r->s->ctx;

    /* What a client of a large context asks for is cut to what there is. */
    if (sl_req_model(r, why) != 0 || sl_req_stream(r, why) != 0 ||
        sl_read_int(&p->max_tokens, r, "max_tokens", why) != 0 ||
        sl_read_real(&p->temperature, r, "temperature", why) != 0 ||
        sl_read_real(&p->top_p, r, "top_p", why) != 0 ||
        sl_read_int(&p->top_k, r, "top_k", why) != 0 ||
        sl_params_read_stops(p, b, "stop_sequences", why) != 0)
        return -1;
    p->max_tokens = p->max_tokens < most ? p->max_tokens : most;
    p->cut_to_room = true;
    return 0;
}

int sl_api_messages(struct sl_req *r, struct sl_refusal *why)
{
    struct sl_chat_history h = {0};
    struct sl_chat_input input;
    struct sl_params p;
    json_t *tools = NULL;
    uint64_t hash[2];
    int rc = sl_req_body(r, why);

    if (rc != 0)
        return -1;
    sl_params_init(&p, r->s);
    sl_params_of_template(&p, r->s);
    rc = read_params(&p, r, why);
    if (rc == 0)
        rc = read_talk(r, &h, &tools, &input, why);
    r->n_answers = r->per_prompt = 1;
    if (rc == 0) {
        sl_req_hash(r, hash);
        if (!sl_req_join(r, hash))
            rc = sl_talk_submit(r, "msg", &p, &input, hash, why);
    }
    json_decref(tools);
    sl_chat_history_fini(&h);
    sl_params_fini(&p);
    return rc;
}

int sl_api_count_tokens(struct sl_req *r, struct sl_refusal *why)
{
    struct sl_chat_history h = {0};
    struct sl_chat_input input;
    struct sl_ids ids = {0};
    json_t *tools = NULL;
    int rc = sl_req_body(r, why);

    if (rc == 0)
        rc = read_talk(r, &h, &tools, &input, why);
    if (rc == 0)
        rc = sl_talk_ids(r->s, &ids, &input, why);
    if (rc == 0)
        rc = sl_reply_json(
            r, 200, json_pack("{s:I}", "input_tokens", (json_int_t)ids.n));
    sl_ids_fini(&ids);
    json_decref(tools);
    sl_chat_history_fini(&h);
    return rc;
}
