#include "config.h"

#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "src/base/bytes.h"
#include "src/base/json.h"
#include "src/serve/api.h"
#include "src/serve/room.h"

/* --- fields -----------------------------------------------------------------
 */

void sl_params_init(struct sl_params *p, const struct sl_server *s)
{
    *p = (struct sl_params){
        .max_tokens = -1,
        .max_field = "max_tokens",
        .temperature = 1,
        .top_p = 1,
        .repetition = 1,
        .seed = -1,
        .n = 1,
        .n_top = -1,
    };
}

void sl_params_fini(struct sl_params *p)
{
    free(p->bias);
    sl_stops_fini(&p->stops);
}

static int add_stop(struct sl_params *p, const json_t *v, const char *name,
                    struct sl_refusal *why)
{
    char *copy;

    if (!json_is_string(v) ||
        strlen(json_string_value(v)) != json_string_length(v))
        return sl_body_wrong(why, name, v, "a string or a list of strings");
    if (json_string_length(v) == 0)
        return 0;
    if (p->stops.n == SL_MOST_STOPS)
        return sl_refuse(why, 400, name, "'%s' has more than %d texts", name,
                         SL_MOST_STOPS);
    copy = strdup(json_string_value(v));
    if (copy == NULL)
        return sl_refuse(why, 503, name, "out of memory");
    p->stops.v[p->stops.n++] = copy;
    return 0;
}

int sl_params_read_stops(struct sl_params *p, const json_t *body,
                         const char *name, struct sl_refusal *why)
{
    const json_t *v = sl_body_get(body, name);

    if (v == NULL)
        return 0;
    if (!json_is_array(v))
        return add_stop(p, v, name, why);
    for (size_t i = 0; i < json_array_size(v); i++) {
        if (add_stop(p, json_array_get(v, i), name, why) != 0)
            return -1;
    }
    return 0;
}

/* {"ID": bias, ...} */
static int read_bias(struct sl_params *p, const struct sl_req *r,
                     struct sl_refusal *why)
{
    json_t *o = sl_body_get(r->body, "logit_bias"), *v;
    const char *key;

    if (o == NULL)
        return 0;
    p->bias = calloc(json_object_size(o) + 1, sizeof *p->bias);
    if (p->bias == NULL)
        return sl_refuse(why, 503, NULL, "out of memory");
    json_object_foreach(o, key, v)
    {
        char *end;
        unsigned long id = strtoul(key, &end, 10);
        double add = json_number_value(v);

        if (*key < '0' || *key > '9' || *end != '\0' || id >= r->s->hp.vocab)
            return sl_refuse(why, 400, "logit_bias",
                             "'logit_bias' has '%.40s', which is no token id "
                             "below %u",
                             key, r->s->hp.vocab);
        if (!json_is_number(v) || add < -100 || add > 100)
            return sl_body_wrong(why, "logit_bias", v,
                                 "a number from -100 to 100 for each id");
        p->bias[p->n_bias++] = (struct sl_bias){(int32_t)id, (float)add};
    }
    return 0;
}

int sl_params_read_format(struct sl_params *p, const json_t *v,
                          const char *name, struct sl_refusal *why)
{
    const char *type = json_string_value(json_object_get(v, "type"));
    const json_t *inner = json_object_get(v, "json_schema");

    if (v == NULL || (type != NULL && strcmp(type, "text") == 0))
        return 0;
    p->json = true;
    if (type != NULL && strcmp(type, "json_object") == 0)
        return 0;
    if (type == NULL || strcmp(type, "json_schema") != 0)
        return sl_body_wrong(why, name, v,
                             "an object of type text, json_object or "
                             "json_schema");
    p->schema = json_object_get(inner != NULL ? inner : v, "schema");
    if (p->schema != NULL)
        return 0;
    return sl_refuse(why, 400, name, "'%s' has no schema", name);
}

int sl_params_read(struct sl_params *p, const struct sl_req *r,
                   struct sl_refusal *why)
{
    const json_t *b = r->body;
    int64_t most = r->s->c->most_tokens > 0 ? r->s->c->most_tokens : r->s->ctx;

    if (sl_read_int(&p->max_tokens, r, "max_tokens", why) != 0)
        return -1;
    if (sl_body_get(b, "max_completion_tokens") != NULL)
        p->max_field = "max_completion_tokens";
    if (sl_read_int(&p->max_tokens, r, "max_completion_tokens", why) ||
        sl_read_int(&p->min_tokens, r, "min_tokens", why) ||
        sl_read_real(&p->temperature, r, "temperature", why) ||
        sl_read_real(&p->top_p, r, "top_p", why) ||
        sl_read_int(&p->top_k, r, "top_k", why) ||
        sl_read_real(&p->presence, r, "presence_penalty", why) ||
        sl_read_real(&p->frequency, r, "frequency_penalty", why) ||
        sl_read_real(&p->repetition, r, "repetition_penalty", why) ||
        sl_read_int(&p->seed, r, "seed", why) ||
        sl_read_int(&p->n, r, "n", why) ||
        sl_params_read_stops(p, b, "stop", why) || read_bias(p, r, why) ||
        sl_params_read_format(p, sl_body_get(b, "response_format"),
                              "response_format", why))
        return -1;
    if (p->max_tokens > most || p->min_tokens > most)
        return sl_refuse(
            why, 400, p->max_tokens > most ? p->max_field : "min_tokens",
            "'%s' is %lld; a whole number from 0 to %lld is "
            "expected",
            p->max_tokens > most ? p->max_field : "min_tokens",
            (long long)(p->max_tokens > most ? p->max_tokens : p->min_tokens),
            (long long)most);
    if (p->top_k < 0)
        p->top_k = 0;
    return 0;
}

/* What a parser makes of a body may be many times as large: of large ones one
 * is there at a time. */
static int take_tree(struct sl_req *r, struct sl_refusal *why)
{
    struct sl_server *s = r->s;
    uint64_t n = sl_json_cost(sl_str_text(&r->body_text), r->body_text.n);
    char all[SL_SIZE_TEXT], wanted[SL_SIZE_TEXT];
    bool room;

    sl_size_format(all, sl_room_bytes(s->c));
    if (n > sl_room_bytes(s->c))
        return sl_refuse(why, 413, NULL,
                         "the body could take %s when it is read, and there "
                         "are %s (--keep-answers): send less at a time",
                         sl_size_format(wanted, n), all);
    if (n >= SL_ROOM_LARGE) {
        pthread_mutex_lock(&s->large_lock);
        r->alone = true;
    }
    pthread_mutex_lock(&s->lock);
    room = sl_room_take(s, n);
    pthread_mutex_unlock(&s->lock);
    if (room) {
        r->held = n;
        return 0;
    }
    sl_refuse(why, 503, NULL,
              "the body could take %s when it is read, which the requests that "
              "are here do not leave of %s (--keep-answers)",
              sl_size_format(wanted, n), all);
    why->retry_after_s = 1;
    return -1;
}

int sl_req_hold(struct sl_req *r, uint64_t n, struct sl_refusal *why)
{
    struct sl_server *s = r->s;
    bool room;

    pthread_mutex_lock(&s->lock);
    room = sl_room_take(s, n);
    pthread_mutex_unlock(&s->lock);
    if (!room)
        return sl_refuse(why, 503, NULL,
                         "the requests that are here have the memory that "
                         "there is for them (--keep-answers)");
    r->held += n;
    return 0;
}

/* What the answer needs of it is kept by the request, and by its job. */
void sl_req_end_reading(struct sl_req *r)
{
    struct sl_server *s = r->s;
    uint64_t left = sl_json_bytes(r->echoes) + sl_json_bytes(r->model);

    json_decref(r->body);
    r->body = NULL;
    if (!s->c->log_text)
        sl_str_fini(&r->body_text);
    pthread_mutex_lock(&s->lock);
    if (!s->c->log_text) {
        s->bodies_bytes -= r->took;
        r->took = 0;
    }
    if (left < r->held) {
        sl_room_give(s, r->held - left);
        r->held = left;
    }
    pthread_mutex_unlock(&s->lock);
    if (r->alone) {
        malloc_trim(0);
        pthread_mutex_unlock(&s->large_lock);
    }
    r->alone = false;
}

int sl_req_body(struct sl_req *r, struct sl_refusal *why)
{
    if (r->body_text.n > 0 && take_tree(r, why) != 0)
        return -1;
    if (sl_body_parse(&r->body, sl_str_text(&r->body_text), r->body_text.n,
                      why) != 0)
        return -1;
    return sl_fields_check(r, why);
}

int sl_req_model(struct sl_req *r, struct sl_refusal *why)
{
    const char *name = NULL;

    if (sl_read_string(&name, NULL, r, "model", why) != 0)
        return -1;
    if (name != NULL)
        r->model = json_incref(json_object_get(r->body, "model"));
    return 0;
}

json_t *sl_req_model_name(const struct sl_req *r)
{
    return r->model != NULL ? json_incref(r->model) : json_string(r->s->model);
}

int sl_req_stream(struct sl_req *r, struct sl_refusal *why)
{
    const json_t *o = sl_body_get(r->body, "stream_options");

    if (sl_read_bool(&r->stream, r, "stream", why) != 0)
        return -1;
    if (o == NULL)
        return 0;
    return sl_body_bool(&r->include_usage, o, "include_usage", why);
}

/* --- the job of a request ---------------------------------------------------
 */

static int hash_text(const char *text, size_t n, void *state)
{
    return XXH3_128bits_update(state, text, n) == XXH_OK ? 0 : -1;
}

void sl_req_hash(const struct sl_req *r, uint64_t hash[2])
{
    static const char *const idle[] = {"stream",      "stream_options", "user",
                                       "metadata",    "model",          "store",
                                       "service_tier"};
    json_t *o = json_copy(r->body);
    XXH3_state_t *state = XXH3_createState();
    XXH128_hash_t h = {0, 0};

    for (size_t i = 0; i < sizeof idle / sizeof *idle; i++)
        json_object_del(o, idle[i]);
    json_object_set_new(o, "", json_string(r->path));
    if (state != NULL &&
        XXH3_128bits_reset_withSeed(state, (uint64_t)r->key) == XXH_OK &&
        json_dump_callback(o, hash_text, state,
                           JSON_SORT_KEYS | JSON_COMPACT) == 0)
        h = XXH3_128bits_digest(state);
    XXH3_freeState(state);
    json_decref(o);
    hash[0] = h.low64;
    hash[1] = h.high64;
}

static void listen_to(struct sl_req *r, struct sl_job *job)
{
    sl_job_listen(job);
    r->job = job;
}

static bool make_cursors(struct sl_req *r, size_t n)
{
    r->cursor = calloc(n * 2, sizeof *r->cursor);
    r->cursor_ended = calloc(n, sizeof *r->cursor_ended);
    return r->cursor != NULL && r->cursor_ended != NULL;
}

bool sl_req_join(struct sl_req *r, const uint64_t hash[2])
{
    struct sl_server *s = r->s;
    struct sl_job *job;

    pthread_mutex_lock(&s->lock);
    job = sl_job_find(s, hash);
    if (job != NULL && make_cursors(r, job->n)) {
        if (sl_job_ended(job))
            s->counts.from_kept++;
        else
            s->counts.joined++;
        listen_to(r, job);
        r->joined = true;
    }
    pthread_mutex_unlock(&s->lock);
    return r->job != NULL;
}

int sl_req_submit(struct sl_req *r, struct sl_job *job, const uint64_t hash[2],
                  const struct sl_params *p, struct sl_refusal *why)
{
    struct sl_server *s = r->s;
    int rc;

    job->hash[0] = hash[0];
    job->hash[1] = hash[1];
    job->background = r->in_background;
    job->request = r->asked;
    r->asked = NULL;
    job->repeatable = p->seed != -1 || p->temperature == 0 || p->top_k == 1;
    if (!make_cursors(r, job->n)) {
        sl_job_discard(job);
        return sl_refuse(why, 503, NULL, "out of memory");
    }
    pthread_mutex_lock(&s->lock);
    rc = sl_job_submit(job, why);
    if (rc == 0)
        listen_to(r, job);
    pthread_mutex_unlock(&s->lock);
    if (rc != 0)
        sl_job_discard(job);
    return rc;
}

const struct sl_choice *sl_req_answer(const struct sl_req *r, size_t prompt,
                                      size_t j)
{
    const struct sl_choice *c = r->job->choices + prompt * r->per_prompt;
    size_t rank[128];

    if (r->per_prompt == r->n_answers || r->per_prompt > 128)
        return c + j;
    for (size_t i = 0; i < r->per_prompt; i++) {
        double mean = 0;
        size_t at = i;

        for (size_t k = 0; k < c[i].n_toks; k++)
            mean += c[i].toks[k].logprob / (double)c[i].n_toks;
        for (; at > 0; at--) {
            const struct sl_choice *other = &c[rank[at - 1]];
            double theirs = 0;

            for (size_t k = 0; k < other->n_toks; k++)
                theirs += other->toks[k].logprob / (double)other->n_toks;
            if (theirs >= mean)
                break;
            rank[at] = rank[at - 1];
        }
        rank[at] = i;
    }
    return &c[rank[j]];
}

/* --- events -----------------------------------------------------------------
 */

int sl_sse(struct sl_str *out, const char *event, json_t *json,
           struct sl_error *err)
{
    if ((event != NULL && (sl_str_add(out, "event: ", err) != 0 ||
                           sl_str_add(out, event, err) != 0 ||
                           sl_str_add(out, "\n", err) != 0)) ||
        sl_str_add(out, "data: ", err) != 0) {
        json_decref(json);
        return -1;
    }
    return sl_json_add(out, json, err) != 0 || sl_str_add(out, "\n\n", err) != 0
               ? -1
               : 0;
}

int sl_say_parts(struct sl_req *r,
                 int (*say)(struct sl_req *r, const struct sl_choice *c,
                            const struct sl_part *p, struct sl_str *out,
                            struct sl_error *err),
                 struct sl_str *out, struct sl_error *err)
{
    const struct sl_choice *c = &r->job->choices[0];

    for (; r->cursor[0] < c->n_parts; r->cursor[0]++) {
        if (out->n >= SL_PIECE_BYTES)
            return 1;
        if (say(r, c, &c->parts[r->cursor[0]], out, err) != 0)
            return -1;
    }
    return 0;
}

json_t *sl_str_json(const struct sl_str *text, size_t from, size_t to)
{
    json_t *v = json_stringn(sl_str_text(text) + from, to - from);

    return v != NULL ? v : json_string("");
}
