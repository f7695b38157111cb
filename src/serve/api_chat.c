#include "config.h"

#include <string.h>

#include "src/serve/api.h"

enum { MOST_TOP = 20 };

/* --- answers ----------------------------------------------------------------
 */

static json_t *frame(const struct sl_req *r, const char *object)
{
    return json_pack("{s:s, s:s, s:I, s:o}", "id", r->job->id, "object", object,
                     "created", (json_int_t)r->job->created, "model",
                     sl_req_model_name(r));
}

static json_t *message_json(const struct sl_choice *c)
{
    bool bare = c->tool_calls != NULL && c->text.n == 0;
    json_t *o =
        json_pack("{s:s, s:o}", "role", "assistant", "content",
                  bare ? json_null() : sl_str_json(&c->text, 0, c->text.n));

    if (c->reasoning.n > 0)
        json_object_set_new(o, "reasoning_content",
                            sl_str_json(&c->reasoning, 0, c->reasoning.n));
    if (c->tool_calls != NULL)
        json_object_set(o, "tool_calls", c->tool_calls);
    return o;
}

static json_t *whole_frame(const struct sl_req *r)
{
    json_t *o = frame(r, "chat.completion");

    if (r->s->tmpl->base)
        json_object_set_new(o, "warning",
                            json_string("this base model was not trained to "
                                        "chat: it goes on with a talk in "
                                        "ChatGLM's plain form"));
    return o;
}

static const struct sl_choice *choice_of(const struct sl_req *r, size_t i)
{
    return &r->job->choices[i];
}

static json_t *choice_head(const struct sl_req *r, const struct sl_choice *c,
                           size_t i)
{
    (void)r;
    return json_pack("{s:I, s:o, s:s}", "index", (json_int_t)i, "message",
                     message_json(c), "finish_reason", sl_openai_finish(c));
}

static json_t *event_frame(const struct sl_req *r)
{
    return frame(r, "chat.completion.chunk");
}

static int chunk(struct sl_req *r, const struct sl_choice *c, json_t *delta,
                 json_t *logprobs, const char *finish, json_t *progress,
                 struct sl_str *out, struct sl_error *err)
{
    json_t *o = event_frame(r);

    json_object_set_new(o, "choices",
                        json_pack("[{s:I, s:o, s:o, s:s?}]", "index",
                                  (json_int_t)c->index, "delta", delta,
                                  "logprobs", logprobs, "finish_reason",
                                  finish));
    if (progress != NULL)
        json_object_set_new(o, "progress", progress);
    return sl_sse(out, NULL, o, err);
}

/* Calls as a stream has them: each with its index. */
static json_t *calls_delta(const struct sl_choice *c)
{
    json_t *list = json_array(), *call;
    size_t i;

    json_array_foreach(c->tool_calls, i, call)
    {
        json_t *o = json_copy(call);

        json_object_set_new(o, "index", json_integer((json_int_t)i));
        json_array_append_new(list, o);
    }
    return json_pack("{s:o}", "tool_calls", list);
}

static json_t *part_delta(const struct sl_choice *c, const struct sl_part *p)
{
    switch (p->kind) {
    case SL_PART_CALLS:
        return calls_delta(c);
    case SL_PART_REASONING:
        return json_pack("{s:o}", "reasoning_content",
                         sl_str_json(&c->reasoning, p->begin, p->end));
    default:
        return json_pack("{s:o}", "content",
                         sl_str_json(&c->text, p->begin, p->end));
    }
}

/* The first event of a choice has the role alone, as OpenAI's streams do. */
static int begin(struct sl_req *r, const struct sl_choice *c,
                 struct sl_str *out, struct sl_error *err)
{
    return chunk(r, c,
                 json_pack("{s:s, s:s}", "role", "assistant", "content", ""),
                 json_null(), NULL, NULL, out, err);
}

static int event(struct sl_req *r, const struct sl_choice *c,
                 const struct sl_part *p, json_t *logprobs, const char *finish,
                 struct sl_str *out, struct sl_error *err)
{
    return chunk(r, c, p != NULL ? part_delta(c, p) : json_object(), logprobs,
                 finish, NULL, out, err);
}

static const struct sl_openai_kind kind = {
    .frame = whole_frame,
    .choice = choice_of,
    .head = choice_head,
    .event_frame = event_frame,
    .begin = begin,
    .event = event,
};

static int whole(struct sl_req *r, struct sl_str *out, struct sl_error *err)
{
    return sl_openai_whole(r, &kind, r->job->n, out, err);
}

static int events(struct sl_req *r, struct sl_str *out, struct sl_error *err)
{
    return sl_openai_events(r, &kind, out, err);
}

static int progress(struct sl_req *r, struct sl_str *out, struct sl_error *err)
{
    return chunk(r, &r->job->choices[0], json_object(), json_null(), NULL,
                 sl_job_progress_json(r->job), out, err);
}

const struct sl_form sl_form_chat = {
    .name = "chat",
    .error_schema = sl_openai_error_schema,
    .error = sl_openai_error,
    .whole = whole,
    .events = events,
    .progress = progress,
    .failed = sl_openai_failed,
};

/* --- requests ---------------------------------------------------------------
 */

/* Before anything is made of them: each takes a token at least. */
int sl_talk_count(const struct sl_server *s, const json_t *list,
                  const char *field, struct sl_refusal *why)
{
    size_t n = json_array_size(list);

    if (n <= s->ctx)
        return 0;
    return sl_refuse(why, 400, field,
                     "'%s' has %zu items, which do not fit the %u tokens of "
                     "--ctx",
                     field, n, s->ctx);
}

int sl_talk_read(struct sl_chat_history *h, const struct sl_server *s,
                 const json_t *messages, struct sl_refusal *why)
{
    struct sl_error err;

    if (sl_talk_count(s, messages, "messages", why) != 0)
        return -1;
    if (!json_is_array(messages) || json_array_size(messages) == 0)
        return sl_body_wrong(why, "messages", messages,
                             "a list of messages, not empty");
    if (sl_chat_history_take(h, messages, &err) != 0)
        return sl_refuse_error(why, "messages", &err);
    return 0;
}

int sl_talk_tools(json_t **tools, const struct sl_req *r,
                  struct sl_refusal *why)
{
    json_t *v = sl_body_get(r->body, "tools");
    const json_t *choice = sl_body_get(r->body, "tool_choice");
    const char *word = json_string_value(choice);

    *tools = NULL;
    if (choice != NULL && (word == NULL || (strcmp(word, "auto") != 0 &&
                                            strcmp(word, "none") != 0)))
        return sl_body_wrong(why, "tool_choice", choice,
                             "\"auto\" or \"none\"");
    if (v == NULL || json_array_size(v) == 0 ||
        (word != NULL && strcmp(word, "none") == 0))
        return 0;
    if (r->s->tmpl->tools == SL_TOOLS_NONE)
        return sl_refuse(why, 400, "tools",
                         "'tools' needs a model that was trained to call "
                         "some; the template of %s has no place for them",
                         r->s->model);
    *tools = v;
    return 0;
}

static int read_thinking(bool *no_think, const struct sl_req *r,
                         struct sl_refusal *why)
{
    const json_t *kwargs = sl_body_get(r->body, "chat_template_kwargs");
    const char *effort = NULL;
    bool enable = true;

    if (kwargs != NULL &&
        sl_body_bool(&enable, kwargs, "enable_thinking", why) != 0)
        return -1;
    if (sl_read_string(&effort, NULL, r, "reasoning_effort", why) != 0)
        return -1;
    *no_think = !enable || (effort != NULL && strcmp(effort, "none") == 0);
    return 0;
}

/* "logprobs": true, "top_logprobs": n */
static int read_logprobs(struct sl_params *p, const struct sl_req *r,
                         struct sl_refusal *why)
{
    bool wanted = false;
    int64_t n = 0;

    if (sl_read_bool(&wanted, r, "logprobs", why) != 0 ||
        sl_read_int(&n, r, "top_logprobs", why) != 0)
        return -1;
    p->n_top = wanted ? n : -1;
    return 0;
}

void sl_params_of_template(struct sl_params *p, const struct sl_server *s)
{
    p->temperature = s->sampling.temperature;
    p->top_p = s->sampling.top_p > 0 ? s->sampling.top_p : 1;
    p->top_k = s->sampling.top_k;
    p->repetition = s->sampling.penalty;
}

int sl_talk_submit(struct sl_req *r, const char *prefix,
                   const struct sl_params *p, const struct sl_chat_input *input,
                   const uint64_t hash[2], struct sl_refusal *why)
{
    struct sl_job *job;

    if (sl_job_create(&job, r->s, prefix, (size_t)p->n, why) != 0)
        return -1;
    for (size_t i = 0; i < job->n; i++) {
        struct sl_choice *c = &job->choices[i];

        c->reader.kind = r->s->tmpl->tools;
        c->reader.tools = json_incref((json_t *)input->tools);
        if (sl_choice_talk(c, p, input, why) != 0) {
            sl_job_discard(job);
            return -1;
        }
    }
    return sl_req_submit(r, job, hash, p, why);
}

/* The hash is of the body as it was read: who asks the same thing a second
 * time, with the same key, joins the job that is under way. */
static int submit(struct sl_req *r, const struct sl_params *p,
                  struct sl_refusal *why)
{
    struct sl_chat_history h = {0};
    struct sl_chat_input input = {0};
    json_t *tools;
    uint64_t hash[2];
    int rc = sl_talk_tools(&tools, r, why);

    if (rc == 0)
        rc = sl_talk_read(&h, r->s, sl_body_get(r->body, "messages"), why);
    if (rc == 0)
        rc = read_thinking(&input.no_think, r, why);
    if (rc == 0) {
        input.messages = h.v;
        input.n_messages = h.n;
        input.tools = tools;
        sl_req_hash(r, hash);
        if (!sl_req_join(r, hash))
            rc = sl_talk_submit(r, "chatcmpl", p, &input, hash, why);
    }
    sl_chat_history_fini(&h);
    return rc;
}

int sl_api_chat(struct sl_req *r, struct sl_refusal *why)
{
    struct sl_params p;
    int rc = sl_req_body(r, why);

    if (rc != 0)
        return -1;
    sl_params_init(&p, r->s);
    sl_params_of_template(&p, r->s);
    if (sl_req_model(r, why) != 0 || sl_req_stream(r, why) != 0 ||
        sl_params_read(&p, r, why) != 0 || read_logprobs(&p, r, why) != 0)
        rc = -1;
    r->n_logprobs = (int)p.n_top;
    r->n_answers = r->per_prompt = (size_t)p.n;
    if (rc == 0)
        rc = submit(r, &p, why);
    sl_params_fini(&p);
    return rc;
}
