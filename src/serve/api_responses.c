#include "config.h"

#include <string.h>
#include <time.h>

#include "src/serve/api.h"

/*
 * OpenAI's Responses (platform.openai.com/docs/api-reference/responses). With
 * "background": true the answer is at once a job's number and state, and
 * GET /v1/responses/{id} tells how far it is: OpenAI's own form for what takes
 * minutes.
 */

/* --- answers ----------------------------------------------------------------
 */

static const char *status_of(const struct sl_job *job)
{
    const struct sl_choice *c = &job->choices[0];

    if (job->cancelled)
        return "cancelled";
    if (sl_job_error(job) != NULL)
        return "failed";
    if (sl_job_ended(job))
        return c->how == SL_GEN_LENGTH ? "incomplete" : "completed";
    return atomic_load(&c->gen.admitted) ? "in_progress" : "queued";
}

static json_t *usage(const struct sl_job *job)
{
    json_int_t said = atomic_load(&job->choices[0].gen.n_said);
    json_int_t kept = atomic_load(&job->choices[0].gen.n_kept);

    return json_pack("{s:I, s:{s:I}, s:I, s:{s:i}, s:I}", "input_tokens",
                     (json_int_t)job->n_prompt, "input_tokens_details",
                     "cached_tokens", kept, "output_tokens", said,
                     "output_tokens_details", "reasoning_tokens", 0,
                     "total_tokens", job->n_prompt + said);
}

static json_t *text_part(const struct sl_choice *c)
{
    return json_pack("{s:s, s:o, s:[], s:[]}", "type", "output_text", "text",
                     sl_str_json(&c->text, 0, c->text.n), "annotations",
                     "logprobs");
}

static json_t *message_item(const struct sl_job *job, const char *status,
                            json_t *content)
{
    char id[SL_JOB_ID + 8];

    snprintf(id, sizeof id, "msg_%s", job->id);
    return json_pack("{s:s, s:s, s:s, s:s, s:o}", "type", "message", "id", id,
                     "status", status, "role", "assistant", "content", content);
}

static json_t *call_item(const struct sl_job *job, const json_t *call)
{
    const json_t *f = json_object_get(call, "function");
    char id[SL_JOB_ID + 40];

    snprintf(id, sizeof id, "fc_%s_%s", job->id,
             json_string_value(json_object_get(call, "id")));
    return json_pack("{s:s, s:s, s:O, s:O, s:O, s:s}", "type", "function_call",
                     "id", id, "call_id", json_object_get(call, "id"), "name",
                     json_object_get(f, "name"), "arguments",
                     json_object_get(f, "arguments"), "status", "completed");
}

static json_t *output_of(const struct sl_job *job)
{
    const struct sl_choice *c = &job->choices[0];
    const char *status = c->ended ? "completed" : "in_progress";
    json_t *list = json_array(), *call;
    char id[SL_JOB_ID + 8];
    size_t i;

    snprintf(id, sizeof id, "rs_%s", job->id);
    if (c->reasoning.n > 0)
        json_array_append_new(
            list,
            json_pack("{s:s, s:s, s:[], s:[{s:s, s:o}]}", "type", "reasoning",
                      "id", id, "summary", "content", "type", "reasoning_text",
                      "text", sl_str_json(&c->reasoning, 0, c->reasoning.n)));
    if (c->text.n > 0 || (c->ended && c->tool_calls == NULL))
        json_array_append_new(
            list, message_item(job, status, json_pack("[o]", text_part(c))));
    json_array_foreach(c->tool_calls, i, call)
        json_array_append_new(list, call_item(job, call));
    return list;
}

/* What the client said. */
static json_t *said_or(const struct sl_job *job, const char *name,
                       json_t *otherwise)
{
    json_t *v = sl_body_get(job->request, name);

    if (v == NULL)
        return otherwise;
    json_decref(otherwise);
    return json_incref(v);
}

static json_t *said(const struct sl_job *job, const char *name)
{
    return said_or(job, name, json_null());
}

/* Those that the model was shown: functions. */
static json_t *tools_had(const struct sl_job *job)
{
    json_t *list = json_array(), *t;
    const char *type;
    size_t i;

    json_array_foreach(json_object_get(job->request, "tools"), i, t)
    {
        type = json_string_value(json_object_get(t, "type"));
        if (type != NULL && strcmp(type, "function") == 0)
            json_array_append(list, t);
    }
    return list;
}

/* The whole object. lock is held. */
static json_t *response_json(const struct sl_job *job)
{
    const struct sl_error *error = sl_job_error(job);
    const char *status = status_of(job);
    json_t *o = json_pack(
        "{s:s, s:s, s:I, s:s, s:b, s:o, s:o, s:o, s:o, s:o, s:b, s:n, s:o}",
        "id", job->id, "object", "response", "created_at",
        (json_int_t)job->created, "status", status, "background",
        job->background, "model",
        said_or(job, "model", json_string(job->s->model)), "instructions",
        said(job, "instructions"), "max_output_tokens",
        said(job, "max_output_tokens"), "output", output_of(job), "tools",
        tools_had(job), "parallel_tool_calls", 1, "previous_response_id",
        "metadata", said_or(job, "metadata", json_object()));

    json_object_set_new(o, "tool_choice",
                        said_or(job, "tool_choice", json_string("auto")));
    json_object_set_new(
        o, "temperature",
        said_or(job, "temperature", json_real(job->s->sampling.temperature)));
    json_object_set_new(
        o, "top_p", said_or(job, "top_p", json_real(job->s->sampling.top_p)));
    json_object_set_new(
        o, "text",
        said_or(job, "text", json_pack("{s:{s:s}}", "format", "type", "text")));
    json_object_set_new(o, "truncation", json_string("disabled"));
    json_object_set_new(o, "usage",
                        sl_job_ended(job) ? usage(job) : json_null());
    json_object_set_new(o, "error",
                        error != NULL
                            ? json_pack("{s:s, s:s}", "code", "server_error",
                                        "message", error->msg)
                            : json_null());
    json_object_set_new(o, "incomplete_details",
                        strcmp(status, "incomplete") == 0
                            ? json_pack("{s:s}", "reason", "max_output_tokens")
                            : json_null());
    if (!sl_job_ended(job))
        json_object_set_new(o, "progress", sl_job_progress_json(job));
    return o;
}

static int whole(struct sl_req *r, struct sl_str *out, struct sl_error *err)
{
    return sl_json_whole(r, out, response_json(r->job), err);
}

/* --- streams ----------------------------------------------------------------
 */

/* r->state: what was opened of the message. */
enum { OPENED_NOTHING, OPENED_PART };

static int event(struct sl_req *r, const char *type, json_t *o,
                 struct sl_str *out, struct sl_error *err)
{
    json_object_set_new(o, "type", json_string(type));
    json_object_set_new(o, "sequence_number",
                        json_integer((json_int_t)r->cursor[1]++));
    return sl_sse(out, type, o, err);
}

static json_t *at_part(const struct sl_req *r)
{
    char id[SL_JOB_ID + 8];

    snprintf(id, sizeof id, "msg_%s", r->job->id);
    return json_pack("{s:s, s:I, s:i}", "item_id", id, "output_index",
                     (json_int_t)r->n_blocks, "content_index", 0);
}

static json_t *at_item(const struct sl_req *r, json_t *item)
{
    return json_pack("{s:I, s:o}", "output_index", (json_int_t)r->n_blocks,
                     "item", item);
}

static json_t *with(json_t *o, const char *name, json_t *v)
{
    json_object_set_new(o, name, v);
    return o;
}

static int open_message(struct sl_req *r, struct sl_str *out,
                        struct sl_error *err)
{
    json_t *part = json_pack("{s:s, s:s, s:[]}", "type", "output_text", "text",
                             "", "annotations");

    if (r->state == OPENED_PART) {
        json_decref(part);
        return 0;
    }
    r->state = OPENED_PART;
    if (event(r, "response.output_item.added",
              at_item(r, message_item(r->job, "in_progress", json_array())),
              out, err) != 0)
        return -1;
    return event(r, "response.content_part.added",
                 with(at_part(r), "part", part), out, err);
}

static int close_message(struct sl_req *r, const struct sl_choice *c,
                         struct sl_str *out, struct sl_error *err)
{
    if (r->state != OPENED_PART)
        return 0;
    r->state = OPENED_NOTHING;
    if (event(r, "response.output_text.done",
              with(at_part(r), "text", sl_str_json(&c->text, 0, c->text.n)),
              out, err) != 0 ||
        event(r, "response.content_part.done",
              with(at_part(r), "part", text_part(c)), out, err) != 0 ||
        event(r, "response.output_item.done",
              at_item(r, message_item(r->job, "completed",
                                      json_pack("[o]", text_part(c)))),
              out, err) != 0)
        return -1;
    r->n_blocks++;
    return 0;
}

static int say_calls(struct sl_req *r, const struct sl_choice *c,
                     struct sl_str *out, struct sl_error *err)
{
    json_t *call;
    size_t i;

    if (close_message(r, c, out, err) != 0)
        return -1;
    json_array_foreach(c->tool_calls, i, call)
    {
        if (event(r, "response.output_item.added",
                  at_item(r, call_item(r->job, call)), out, err) != 0 ||
            event(r, "response.output_item.done",
                  at_item(r, call_item(r->job, call)), out, err) != 0)
            return -1;
        r->n_blocks++;
    }
    return 0;
}

static int say_part(struct sl_req *r, const struct sl_choice *c,
                    const struct sl_part *p, struct sl_str *out,
                    struct sl_error *err)
{
    if (p->kind == SL_PART_CALLS)
        return say_calls(r, c, out, err);
    if (p->kind == SL_PART_REASONING)
        return event(r, "response.reasoning_text.delta",
                     with(at_part(r), "delta",
                          sl_str_json(&c->reasoning, p->begin, p->end)),
                     out, err);
    if (open_message(r, out, err) != 0)
        return -1;
    return event(
        r, "response.output_text.delta",
        with(at_part(r), "delta", sl_str_json(&c->text, p->begin, p->end)), out,
        err);
}

static json_t *state(const struct sl_req *r)
{
    return json_pack("{s:o}", "response", response_json(r->job));
}

static int events(struct sl_req *r, struct sl_str *out, struct sl_error *err)
{
    const struct sl_choice *c = &r->job->choices[0];
    const char *end =
        c->how == SL_GEN_LENGTH ? "response.incomplete" : "response.completed";
    int rc;

    if (!r->begun_stream &&
        (event(r, "response.created", state(r), out, err) != 0 ||
         event(r, "response.in_progress", state(r), out, err) != 0))
        return -1;
    r->begun_stream = true;
    rc = sl_say_parts(r, say_part, out, err);
    if (rc != 0 || !sl_job_ended(r->job) || sl_job_lost(r->job))
        return rc < 0 ? -1 : 0;
    r->stream_ended = true;
    if ((c->text.n == 0 && c->tool_calls == NULL &&
         open_message(r, out, err) != 0) ||
        close_message(r, c, out, err) != 0)
        return -1;
    return event(r, end, state(r), out, err);
}

static int progress(struct sl_req *r, struct sl_str *out, struct sl_error *err)
{
    return event(r, "response.in_progress", state(r), out, err);
}

static int failed(struct sl_req *r, const struct sl_refusal *why,
                  struct sl_str *out, struct sl_error *err)
{
    if (sl_job_ended(r->job))
        return event(r, "response.failed", state(r), out, err);
    return event(r, "error", json_pack("{s:s}", "message", why->msg), out, err);
}

const struct sl_form sl_form_responses = {
    .name = "responses",
    .error_schema = sl_openai_error_schema,
    .error = sl_openai_error,
    .whole = whole,
    .events = events,
    .progress = progress,
    .failed = failed,
};

/* --- requests ---------------------------------------------------------------
 */

/* The text of a content: a string, or parts with texts. */
static json_t *content_text(const json_t *content, struct sl_refusal *why)
{
    struct sl_str text = {0};
    struct sl_error err;
    const json_t *part;
    json_t *v = NULL;
    int rc = json_is_array(content) ? 0 : -1;
    size_t i;

    if (json_is_string(content))
        return json_incref((json_t *)content);
    json_array_foreach(content, i, part)
    {
        const char *t = json_string_value(json_object_get(part, "text"));

        if (t == NULL || sl_str_add(&text, t, &err) != 0)
            rc = -1;
    }
    if (rc != 0)
        sl_refuse(why, 400, "input",
                  "'input' has a content that is no text, nor parts with some");
    else
        v = sl_str_json(&text, 0, text.n);
    sl_str_fini(&text);
    return v;
}

/* An item of the input as a message. Returns 1 for one that is left out. */
static int add_item(json_t *list, const json_t *item, struct sl_refusal *why)
{
    const char *type = json_string_value(json_object_get(item, "type"));
    const char *role = json_string_value(json_object_get(item, "role"));
    json_t *text, *call;

    if (type != NULL && strcmp(type, "reasoning") == 0)
        return 0;
    if (type != NULL && strcmp(type, "function_call") == 0) {
        call = json_pack("{s:O?, s:s, s:{s:O?, s:O?}}", "id",
                         json_object_get(item, "call_id"), "type", "function",
                         "function", "name", json_object_get(item, "name"),
                         "arguments", json_object_get(item, "arguments"));
        return json_array_append_new(
            list, json_pack("{s:s, s:s, s:[o]}", "role", "assistant", "content",
                            "", "tool_calls", call));
    }
    if (type != NULL && strcmp(type, "function_call_output") == 0) {
        text = content_text(json_object_get(item, "output"), why);
        return text == NULL
                   ? -1
                   : json_array_append_new(
                         list, json_pack("{s:s, s:O?, s:o}", "role", "tool",
                                         "tool_call_id",
                                         json_object_get(item, "call_id"),
                                         "content", text));
    }
    if (role == NULL)
        return sl_refuse(why, 400, "input",
                         "'input' has an item '%.40s' that is no message",
                         type != NULL ? type : "?");
    text = content_text(json_object_get(item, "content"), why);
    if (text == NULL)
        return -1;
    return json_array_append_new(
        list, json_pack("{s:s, s:o}", "role", role, "content", text));
}

static int read_input(json_t **list, const struct sl_req *r,
                      struct sl_refusal *why)
{
    const json_t *input = sl_body_get(r->body, "input"), *item;
    const char *instructions = NULL;
    size_t i;

    *list = json_array();
    if (sl_read_string(&instructions, NULL, r, "instructions", why) != 0)
        return -1;
    if (instructions != NULL)
        json_array_append_new(*list, json_pack("{s:s, s:s}", "role", "system",
                                               "content", instructions));
    if (json_is_string(input))
        return json_array_append_new(
            *list, json_pack("{s:s, s:O}", "role", "user", "content", input));
    if (!json_is_array(input) || json_array_size(input) == 0)
        return sl_body_wrong(why, "input", input,
                             "a string or a list of items, not empty");
    if (sl_talk_count(r->s, input, "input", why) != 0)
        return -1;
    json_array_foreach(input, i, item)
    {
        if (add_item(*list, item, why) != 0)
            return -1;
    }
    return 0;
}

/* Functions, as chat has them. What the service would do itself is left out
 * beside functions (agents offer all they know), and refused alone. */
static int read_tools(json_t **tools, const struct sl_req *r,
                      struct sl_refusal *why)
{
    const char *other = "";
    json_t *list, *t, *f;
    size_t i;

    *tools = NULL;
    if (sl_talk_tools(&list, r, why) != 0)
        return -1;
    if (list == NULL)
        return 0;
    *tools = json_array();
    json_array_foreach(list, i, t)
    {
        const char *type = json_string_value(json_object_get(t, "type"));

        if (type != NULL && strcmp(type, "function") != 0) {
            other = type;
            continue;
        }
        if (type == NULL || !json_is_string(json_object_get(t, "name")))
            return sl_body_wrong(why, "tools", t,
                                 "a list of functions with type and name");
        f = json_copy(t);
        json_object_del(f, "type");
        json_object_del(f, "strict");
        json_array_append_new(
            *tools, json_pack("{s:s, s:o}", "type", "function", "function", f));
    }
    if (json_array_size(*tools) > 0)
        return 0;
    return sl_refuse(why, 400, "tools",
                     "'tools' has none but such as '%.40s': functions can be "
                     "had here",
                     other);
}

static int read_params(struct sl_params *p, struct sl_req *r, bool *background,
                       struct sl_refusal *why)
{
    const json_t *b = r->body;
    int64_t most = r->s->c->most_tokens > 0 ? r->s->c->most_tokens : r->s->ctx;

    if (sl_req_model(r, why) != 0 || sl_req_stream(r, why) != 0 ||
        sl_read_bool(background, r, "background", why) != 0 ||
        sl_read_int(&p->max_tokens, r, "max_output_tokens", why) != 0 ||
        sl_read_real(&p->temperature, r, "temperature", why) != 0 ||
        sl_read_real(&p->top_p, r, "top_p", why) != 0 ||
        sl_params_read_format(p, sl_body_get(sl_body_get(b, "text"), "format"),
                              "text.format", why) != 0)
        return -1;
    p->max_field = "max_output_tokens";
    p->max_tokens = p->max_tokens < most ? p->max_tokens : most;
    p->cut_to_room = true;
    return 0;
}

static int submit(struct sl_req *r, const struct sl_params *p,
                  const struct sl_chat_input *input, bool background,
                  struct sl_refusal *why)
{
    uint64_t hash[2] = {0, 0};
    json_t *o = NULL;
    int rc;

    if (!background) {
        sl_req_hash(r, hash);
        if (sl_req_join(r, hash))
            return 0;
    }
    r->in_background = background;
    r->asked = json_copy(r->body); /* what it tells of it, below */
    json_object_del(r->asked, "input");
    rc = sl_talk_submit(r, "resp", p, input, hash, why);
    if (rc != 0 || !background || r->stream)
        return rc;
    pthread_mutex_lock(&r->s->lock);
    o = response_json(r->job);
    sl_job_leave(r->job);
    r->job = NULL;
    pthread_mutex_unlock(&r->s->lock);
    return sl_reply_json(r, 200, o);
}

int sl_api_responses(struct sl_req *r, struct sl_refusal *why)
{
    struct sl_chat_history h = {0};
    struct sl_chat_input input = {0};
    struct sl_params p;
    json_t *list = NULL, *tools = NULL;
    bool background = false;
    int rc = sl_req_body(r, why);

    if (rc != 0)
        return -1;
    sl_params_init(&p, r->s);
    sl_params_of_template(&p, r->s);
    rc = read_params(&p, r, &background, why);
    if (rc == 0)
        rc = read_input(&list, r, why);
    if (rc == 0)
        rc = sl_talk_read(&h, r->s, list, why);
    if (rc == 0)
        rc = read_tools(&tools, r, why);
    r->n_answers = r->per_prompt = 1;
    if (rc == 0) {
        input.messages = h.v;
        input.n_messages = h.n;
        input.tools = tools;
        rc = submit(r, &p, &input, background, why);
    }
    json_decref(list);
    json_decref(tools);
    sl_chat_history_fini(&h);
    sl_params_fini(&p);
    return rc;
}

/* --- jobs by their number ---------------------------------------------------
 */

static int with_job(struct sl_req *r, bool cancel, struct sl_refusal *why)
{
    char id[SL_JOB_ID] = "";
    size_t n = strcspn(r->argument, "/");
    struct sl_job *job;
    json_t *o = NULL;

    if (n < sizeof id)
        memcpy(id, r->argument, n);
    pthread_mutex_lock(&r->s->lock);
    job = sl_job_named(r->s, id);
    if (job != NULL && !job->background)
        job = NULL;
    if (job != NULL && cancel)
        sl_job_cancel(job);
    if (job != NULL)
        o = response_json(job);
    pthread_mutex_unlock(&r->s->lock);
    if (job == NULL)
        return sl_refuse(why, 404, "id",
                         "there is no response '%.40s': it was not in the "
                         "background, or is no longer kept",
                         id);
    return sl_reply_json(r, 200, o);
}

int sl_api_response_get(struct sl_req *r, struct sl_refusal *why)
{
    return with_job(r, false, why);
}

int sl_api_response_cancel(struct sl_req *r, struct sl_refusal *why)
{
    return with_job(r, true, why);
}
