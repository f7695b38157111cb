#include "config.h"

#include <string.h>
#include <time.h>

#include "src/base/json.h"
#include "src/serve/api.h"

/* --- ChatGLM-6B's api.py: POST / --------------------------------------------
 *
 * {"prompt", "history": [[q, a], ...], "max_length" 2048, "top_p" 0.7,
 * "temperature" 0.95} -> {"response", "history", "status", "time"}; what is
 * null or 0 is the default, as its `or` makes it (THUDM/ChatGLM-6B api.py).
 */

static const char plain_schema[] =
    "{\"type\":\"object\",\"required\":[\"error\",\"status\"]}";

static json_t *plain_error(const struct sl_refusal *why)
{
    return json_pack("{s:s, s:i}", "error", why->msg, "status", why->status);
}

/* The answer of ChatGLM-6B's api.py, the conversation with its new turn in
 * it: clients send it back as it is. */
static int chatglm_whole(struct sl_req *r, struct sl_str *out,
                         struct sl_error *err)
{
    const struct sl_choice *c = &r->job->choices[0];
    json_t *history = json_copy(json_array_get(r->echoes, 0));
    time_t now = time(NULL);
    char when[32];
    struct tm tm;

    json_array_append_new(history,
                          json_pack("[O, o]", json_array_get(r->echoes, 1),
                                    sl_str_json(&c->text, 0, c->text.n)));
    localtime_r(&now, &tm);
    strftime(when, sizeof when, "%Y-%m-%d %H:%M:%S", &tm);
    return sl_json_whole(r, out,
                         json_pack("{s:o, s:o, s:i, s:s}", "response",
                                   sl_str_json(&c->text, 0, c->text.n),
                                   "history", history, "status", 200, "time",
                                   when),
                         err);
}

const struct sl_form sl_form_chatglm = {
    .name = "chatglm",
    .error_schema = plain_schema,
    .error = plain_error,
    .whole = chatglm_whole,
};

static int add_turn(struct sl_chat_history *h, const json_t *turn,
                    struct sl_refusal *why)
{
    const char *q = json_string_value(json_array_get(turn, 0));
    const char *a = json_string_value(json_array_get(turn, 1));
    struct sl_error err;

    if (q == NULL || a == NULL || json_array_size(turn) != 2)
        return sl_body_wrong(why, "history", turn,
                             "a list of pairs of question and answer");
    if (sl_chat_history_add(h, SL_CHAT_USER, q, NULL, &err) != 0 ||
        sl_chat_history_add(h, SL_CHAT_ASSISTANT, a, NULL, &err) != 0)
        return sl_refuse_error(why, NULL, &err);
    return 0;
}

static int read_talk(struct sl_chat_history *h, struct sl_req *r,
                     struct sl_refusal *why)
{
    const json_t *history = sl_body_get(r->body, "history"), *turn;
    const char *prompt = NULL;
    struct sl_error err;
    size_t i;

    if (sl_read_string(&prompt, NULL, r, "prompt", why) != 0)
        return -1;
    if (sl_talk_count(r->s, history, "history", why) != 0)
        return -1;
    json_array_foreach(history, i, turn)
    {
        if (add_turn(h, turn, why) != 0)
            return -1;
    }
    if (sl_chat_history_add(h, SL_CHAT_USER, prompt, NULL, &err) != 0)
        return sl_refuse_error(why, NULL, &err);
    r->echoes = json_pack("[o, O]",
                          history != NULL ? json_incref((json_t *)history)
                                          : json_array(),
                          json_object_get(r->body, "prompt"));
    return 0;
}

/* max_length counts the prompt too. */
static int length_to_tokens(struct sl_params *p, const struct sl_req *r,
                            const struct sl_chat_input *input,
                            struct sl_refusal *why)
{
    int64_t most = 0;
    struct sl_ids ids = {0};
    int rc;

    if (sl_read_int(&most, r, "max_length", why) != 0)
        return -1;
    if (most == 0)
        most = 2048;
    rc = sl_talk_ids(r->s, &ids, input, why);
    if (rc == 0 && (int64_t)ids.n + 1 >= most)
        rc = sl_refuse(why, 400, "max_length",
                       "'max_length' is %lld, and the prompt has %zu tokens",
                       (long long)most, ids.n);
    p->max_tokens = most - (int64_t)ids.n - 1;
    p->max_field = "max_length";
    p->cut_to_room = true;
    sl_ids_fini(&ids);
    return rc;
}

int sl_api_chatglm(struct sl_req *r, struct sl_refusal *why)
{
    struct sl_chat_history h = {0};
    struct sl_chat_input input = {.no_think = true};
    struct sl_params p;
    double temperature = 0, top_p = 0;
    uint64_t hash[2];
    int rc = sl_req_body(r, why);

    if (rc != 0)
        return -1;
    sl_params_init(&p, r->s);
    if (sl_read_real(&temperature, r, "temperature", why) != 0 ||
        sl_read_real(&top_p, r, "top_p", why) != 0 ||
        read_talk(&h, r, why) != 0)
        rc = -1;
    p.temperature = temperature > 0 ? temperature : 0.95;
    p.top_p = top_p > 0 ? top_p : 0.7;
    p.top_k = 50; /* transformers' own, which ChatGLM does not change */
    input.messages = h.v;
    input.n_messages = h.n;
    r->n_answers = r->per_prompt = 1;
    if (rc == 0)
        rc = length_to_tokens(&p, r, &input, why);
    if (rc == 0) {
        sl_req_hash(r, hash);
        if (!sl_req_join(r, hash))
            rc = sl_talk_submit(r, "chatglm", &p, &input, hash, why);
    }
    sl_chat_history_fini(&h);
    sl_params_fini(&p);
    return rc;
}

/* --- GLM-130B on FasterTransformer: POST /generate --------------------------
 *
 * {"text": lines, each a prompt, "out_seq_length" 200 new tokens, "seed" 1234,
 * "topk" 5, "topp" 0, ...} -> {"text": [answer, ...]}; what is falsy is the
 * default, other fields were never used (THUDM/FasterTransformer
 * examples/pytorch/glm/glm_server.py).
 */

enum { MOST_LINES = 256 };

static int lines_whole(struct sl_req *r, struct sl_str *out,
                       struct sl_error *err)
{
    size_t *at = &r->cursor[0];

    for (; *at < r->job->n; (*at)++) {
        const struct sl_str *text = &r->job->choices[*at].text;

        if (out->n >= SL_PIECE_BYTES)
            return 0;
        if (sl_str_add(out, *at == 0 ? "{\"text\":[" : ",", err) != 0 ||
            sl_json_add(out, sl_str_json(text, 0, text->n), err) != 0)
            return -1;
    }
    r->stream_ended = true;
    return sl_str_add(out, "]}", err);
}

const struct sl_form sl_form_glm130b = {
    .name = "glm-130b",
    .error_schema = plain_schema,
    .error = plain_error,
    .whole = lines_whole,
};

/* Where a field is 0 or missing, what the reference's flask program took. */
static int read_lines_params(struct sl_params *p, const struct sl_req *r,
                             struct sl_refusal *why)
{
    int64_t length = 0, seed = 0, top_k = 0;
    double top_p = 0;

    if (sl_read_int(&length, r, "out_seq_length", why) != 0 ||
        sl_read_int(&seed, r, "seed", why) != 0 ||
        sl_read_int(&top_k, r, "topk", why) != 0 ||
        sl_read_real(&top_p, r, "topp", why) != 0)
        return -1;
    p->max_tokens = length > 0 ? length : 200;
    p->max_field = "out_seq_length";
    p->cut_to_room = true;
    p->seed = seed != 0 ? seed : 1234;
    p->top_k = top_k > 0 ? top_k : 5;
    p->top_p = top_p > 0 ? top_p : 1;
    return 0;
}

static int make_lines(struct sl_job *job, const char *text, size_t n,
                      const struct sl_params *p, struct sl_refusal *why)
{
    size_t at = 0;

    for (size_t i = 0; i < job->n; i++) {
        const char *end = memchr(text + at, '\n', n - at);
        size_t len = end != NULL ? (size_t)(end - text) - at : n - at;
        struct sl_ask ask = {.text = text + at, .n_text = len};

        if (sl_choice_ask(&job->choices[i], p, &ask, why) != 0)
            return -1;
        at += len + 1;
    }
    return 0;
}

int sl_api_generate(struct sl_req *r, struct sl_refusal *why)
{
    struct sl_params p;
    struct sl_job *job;
    const char *text = NULL;
    size_t n = 0, n_lines = 1;
    uint64_t hash[2];

    if (r->body_text.n == 0)
        return sl_refuse(why, 500, NULL, "Config can not be empty.");
    if (sl_req_body(r, why) != 0 ||
        sl_read_string(&text, &n, r, "text", why) != 0)
        return -1;
    for (size_t i = 0; i < n; i++)
        n_lines += text[i] == '\n';
    if (n_lines > MOST_LINES)
        return sl_refuse(why, 400, "text",
                         "'text' has %zu lines; %d are the "
                         "most",
                         n_lines, MOST_LINES);
    sl_params_init(&p, r->s);
    if (read_lines_params(&p, r, why) != 0)
        return -1;
    r->n_answers = r->per_prompt = 1;
    sl_req_hash(r, hash);
    if (sl_req_join(r, hash))
        return 0;
    if (sl_job_create(&job, r->s, "glm", n_lines, why) != 0)
        return -1;
    if (make_lines(job, text, n, &p, why) != 0) {
        bool long_text =
            why->status == 400 && strstr(why->msg, "leave no room") != NULL;

        sl_job_discard(job);
        return long_text ? sl_reply_json(
                               r, 200,
                               json_pack("{s:[s]}", "text", "length too long"))
                         : -1;
    }
    return sl_req_submit(r, job, hash, &p, why);
}
