#include "config.h"

#include <string.h>

#include "src/serve/api.h"

enum { MOST_PROMPTS = 1024, MOST_LEGACY_TOP = 20 };

/* --- answers ----------------------------------------------------------------
 */

static json_t *frame(const struct sl_req *r)
{
    return json_pack("{s:s, s:s, s:I, s:o}", "id", r->job->id, "object",
                     "text_completion", "created", (json_int_t)r->job->created,
                     "model", sl_req_model_name(r));
}

/* The prompt as the client wrote it, or its ids as text. */
static const char *echoed(const struct sl_req *r, const struct sl_choice *c)
{
    json_t *list = json_array_get(r->echoes, c->index / r->per_prompt);

    return r->echo && json_is_string(list) ? json_string_value(list) : "";
}

/* The toks that belong to the text: a stop takes some away. */
static size_t known_toks(const struct sl_req *r, const struct sl_choice *c)
{
    size_t n = c->n_toks;

    if (c->stop == NULL)
        return n;
    while (n > 0 && c->toks[n - 1].offset >= c->n_chars_out && n > c->n_scored)
        n--;
    return n;
}

/* What was filled in each blank, where a text had several: the answer's text
 * has them one behind the other. */
static json_t *blanks_of(const struct sl_choice *c)
{
    json_t *list = json_array();
    struct sl_str one = {0};
    struct sl_error err;

    for (uint32_t b = 0; b < c->n_blanks; b++) {
        sl_str_clear(&one);
        for (size_t i = 0; i < c->n_parts; i++) {
            const struct sl_part *p = &c->parts[i];

            if (p->blank == b && p->kind == SL_PART_TEXT)
                sl_str_append(&one, c->text.s + p->begin, p->end - p->begin,
                              &err);
        }
        json_array_append_new(list, sl_str_json(&one, 0, one.n));
    }
    sl_str_fini(&one);
    return list;
}

/* With `echo` what was asked stands before the answer, and chances of its
 * tokens before the others'. */
static json_t *choice_head(const struct sl_req *r, const struct sl_choice *c,
                           size_t index)
{
    struct sl_str text = {0};
    struct sl_error err;
    json_t *o = NULL;

    if (sl_str_add(&text, echoed(r, c), &err) == 0 &&
        sl_str_append(&text, sl_str_text(&c->text), c->text.n, &err) == 0)
        o = json_pack("{s:o, s:I, s:s}", "text", sl_str_json(&text, 0, text.n),
                      "index", (json_int_t)index, "finish_reason",
                      sl_openai_finish(c));
    if (c->stop != NULL)
        json_object_set_new(o, "stop_reason", json_string(c->stop));
    if (c->n_blanks > 1)
        json_object_set_new(o, "blanks", blanks_of(c));
    sl_str_fini(&text);
    return o;
}

/* Of `best_of` answers to each prompt the `n` best, prompt by prompt. */
static const struct sl_choice *choice_of(const struct sl_req *r, size_t i)
{
    return sl_req_answer(r, i / r->n_answers, i % r->n_answers);
}

static void shown_toks(const struct sl_req *r, const struct sl_choice *c,
                       size_t *from, size_t *to)
{
    *from = r->echo ? 0 : c->n_scored;
    *to = known_toks(r, c);
}

static int chunk(struct sl_req *r, const struct sl_choice *c, json_t *text,
                 json_t *logprobs, const char *finish, const struct sl_part *p,
                 json_t *progress, struct sl_str *out, struct sl_error *err)
{
    json_t *o = frame(r), *choice;

    choice = json_pack("{s:o, s:I, s:o, s:s?}", "text", text, "index",
                       (json_int_t)c->index, "logprobs", logprobs,
                       "finish_reason", finish);
    if (p != NULL && c->n_blanks > 1)
        json_object_set_new(choice, "blank", json_integer(p->blank));
    json_object_set_new(o, "choices", json_pack("[o]", choice));
    if (progress != NULL)
        json_object_set_new(o, "progress", progress);
    return sl_sse(out, NULL, o, err);
}

static int begin(struct sl_req *r, const struct sl_choice *c,
                 struct sl_str *out, struct sl_error *err)
{
    return r->echo ? chunk(r, c, json_string(echoed(r, c)), json_null(), NULL,
                           NULL, NULL, out, err)
                   : 0;
}

static int event(struct sl_req *r, const struct sl_choice *c,
                 const struct sl_part *p, json_t *logprobs, const char *finish,
                 struct sl_str *out, struct sl_error *err)
{
    json_t *text =
        p != NULL ? sl_str_json(&c->text, p->begin, p->end) : json_string("");

    return chunk(r, c, text, logprobs, finish, p, NULL, out, err);
}

static const struct sl_openai_kind kind = {
    .legacy = true,
    .range = shown_toks,
    .frame = frame,
    .choice = choice_of,
    .head = choice_head,
    .event_frame = frame,
    .begin = begin,
    .event = event,
};

static int whole(struct sl_req *r, struct sl_str *out, struct sl_error *err)
{
    return sl_openai_whole(r, &kind, r->job->n / r->per_prompt * r->n_answers,
                           out, err);
}

static int events(struct sl_req *r, struct sl_str *out, struct sl_error *err)
{
    return sl_openai_events(r, &kind, out, err);
}

static int progress(struct sl_req *r, struct sl_str *out, struct sl_error *err)
{
    return chunk(r, &r->job->choices[0], json_string(""), json_null(), NULL,
                 NULL, sl_job_progress_json(r->job), out, err);
}

const struct sl_form sl_form_completions = {
    .name = "completions",
    .error_schema = sl_openai_error_schema,
    .error = sl_openai_error,
    .whole = whole,
    .events = events,
    .progress = progress,
    .failed = sl_openai_failed,
};

/* --- requests ---------------------------------------------------------------
 */

/* "prompt": a string, a list of strings, of ids, or of lists of ids. */
static int list_prompts(json_t **list, const json_t *body,
                        struct sl_refusal *why)
{
    json_t *p = sl_body_get(body, "prompt"), *first;

    first = json_array_get(p, 0);
    if (json_is_string(p) || json_is_integer(first)) {
        *list = json_pack("[O]", p);
        return 0;
    }
    if (!json_is_array(p) || first == NULL || json_array_size(p) > MOST_PROMPTS)
        return sl_body_wrong(why, "prompt", p,
                             "a string, or a list (not empty, of 1024 at most) "
                             "of strings, of token ids or of lists of these");
    *list = json_incref(p);
    return 0;
}

/* best_of is judged by chances, which are then kept though nobody is shown
 * them; a stream cannot take back what it showed. */
static int read_flags(struct sl_req *r, struct sl_params *p, int64_t *best_of,
                      struct sl_refusal *why)
{
    if (sl_req_model(r, why) != 0 || sl_req_stream(r, why) != 0 ||
        sl_params_read(p, r, why) != 0 ||
        sl_read_bool(&r->echo, r, "echo", why) != 0 ||
        sl_read_int(&p->n_top, r, "logprobs", why) != 0)
        return -1;
    *best_of = p->n;
    r->n_logprobs = (int)p->n_top;
    if (sl_read_int(best_of, r, "best_of", why) != 0)
        return -1;
    if (*best_of < p->n)
        return sl_refuse(why, 400, "best_of",
                         "'best_of' is %lld, fewer than the %lld of 'n'",
                         (long long)*best_of, (long long)p->n);
    if (*best_of > p->n && r->stream)
        return sl_refuse(why, 400, "best_of",
                         "'best_of' does not go with 'stream'");
    if (*best_of > p->n && p->n_top < 0)
        p->n_top = 0;
    r->n_answers = (size_t)p->n;
    r->per_prompt = (size_t)*best_of;
    return 0;
}

/* What an echo says, one string a prompt. */
static int make_echoes(struct sl_req *r, const json_t *list,
                       struct sl_refusal *why)
{
    struct sl_server *s = r->s;
    struct sl_error err;

    r->echoes = json_array();
    for (size_t i = 0; i < json_array_size(list) && r->echo; i++) {
        json_t *one = json_array_get(list, i);
        struct sl_ids ids = {0};
        char *text = NULL;
        size_t n = 0;
        int rc;

        if (json_is_string(one)) {
            json_array_append(r->echoes, one);
            continue;
        }
        if (json_array_size(one) > s->ctx)
            return sl_refuse(why, 400, "prompt",
                             "the prompt's %zu tokens leave no room for an "
                             "answer among the %u of a text (--ctx)",
                             json_array_size(one), s->ctx);
        if (sl_body_ids(&ids, one, "prompt", s->hp.vocab, why) != 0) {
            sl_ids_fini(&ids);
            return -1;
        }
        pthread_mutex_lock(&s->text_lock);
        rc = s->tokenizer == NULL
                 ? sl_fail(&err, SL_ERR_IO, "the model is gone")
                 : sl_tokenizer_decode_as(s->tokenizer, SL_SPECIALS_HIDDEN,
                                          ids.v, ids.n, &text, &n, &err);
        pthread_mutex_unlock(&s->text_lock);
        sl_ids_fini(&ids);
        if (rc != 0)
            return sl_refuse_error(why, "prompt", &err);
        rc = sl_req_hold(r, n, why);
        if (rc == 0)
            json_array_append_new(r->echoes, json_stringn(text, n));
        free(text);
        if (rc != 0)
            return -1;
    }
    return 0;
}

/* A prompt is a text, or ids that the client made. */
static int make_choices(struct sl_req *r, struct sl_job *job,
                        const json_t *list, const struct sl_params *p,
                        struct sl_refusal *why)
{
    const char *suffix = NULL;

    if (sl_read_string(&suffix, NULL, r, "suffix", why) != 0)
        return -1;
    for (size_t i = 0; i < job->n; i++) {
        json_t *one = json_array_get(list, i / r->per_prompt);
        struct sl_ask ask = {
            .suffix = suffix != NULL && *suffix != '\0' ? suffix : NULL,
            .echo = r->echo,
        };

        if (json_is_string(one)) {
            ask.text = json_string_value(one);
            ask.n_text = json_string_length(one);
        } else {
            ask.ids = one;
        }
        if (sl_choice_ask(&job->choices[i], p, &ask, why) != 0)
            return -1;
    }
    return 0;
}

static int submit(struct sl_req *r, const struct sl_params *p,
                  const json_t *list, struct sl_refusal *why)
{
    uint64_t hash[2];
    struct sl_job *job;

    if (make_echoes(r, list, why) != 0)
        return -1;
    sl_req_hash(r, hash);
    if (sl_req_join(r, hash))
        return 0;
    if (sl_job_create(&job, r->s, "cmpl", json_array_size(list) * r->per_prompt,
                      why) != 0)
        return -1;
    if (make_choices(r, job, list, p, why) != 0) {
        sl_job_discard(job);
        return -1;
    }
    return sl_req_submit(r, job, hash, p, why);
}

int sl_api_completions(struct sl_req *r, struct sl_refusal *why)
{
    struct sl_params p;
    json_t *list = NULL;
    int64_t best_of;
    int rc;

    if (sl_req_body(r, why) != 0)
        return -1;
    sl_params_init(&p, r->s);
    rc = read_flags(r, &p, &best_of, why);
    if (rc == 0)
        rc = list_prompts(&list, r->body, why);
    if (rc == 0)
        rc = submit(r, &p, list, why);
    json_decref(list);
    sl_params_fini(&p);
    return rc;
}
