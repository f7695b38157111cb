/*
 * api.h - what the APIs have in common: from fields of a request to a job
 *
 *   params.c            fields that are common; the job of a request
 *   ask.c               prompts and conversations to gens
 *   api_openai.c        OpenAI's errors, finish reasons, usage, logprobs
 *   api_completions.c   POST /v1/completions
 *   api_chat.c          POST /v1/chat/completions
 *   api_responses.c     /v1/responses
 *   api_anthropic.c     POST /v1/messages
 *   api_native.c        /health, /metrics, /props, /v1/models
 *   api_tokens.c        /tokenize, /detokenize, /tokenizer_info
 *   openapi.c           OpenAPI's description of them
 *   page.c              the web page
 *   api_reference.c     ChatGLM-6B's and FasterTransformer's
 */
#ifndef SL_API_H
#define SL_API_H

#include "src/serve/body.h"
#include "src/serve/fields.h"
#include "src/serve/http.h"
#include "src/text/chat_history.h"

/* How texts are to be made, whatever an API calls it. */
struct sl_params {
    int64_t max_tokens; /* -1: nobody said */
    const char *max_field;
    bool cut_to_room; /* more than there is room for is no mistake */
    int64_t min_tokens;
    double temperature, top_p;
    int64_t top_k;
    double presence, frequency, repetition;
    int64_t seed; /* -1: any */
    int64_t n;
    int64_t n_top;        /* -1: no logprobs */
    bool json;            /* the answer is to be JSON, */
    const json_t *schema; /* of this form; NULL: any; borrowed */
    struct sl_bias *bias; /* owned */
    size_t n_bias;
    struct sl_stops stops; /* owned */
};

void sl_params_init(struct sl_params *p, const struct sl_server *s);
void sl_params_fini(struct sl_params *p);
/* The fields that OpenAI's APIs share, and those that others have added to
 * them (top_k, min_tokens, repetition_penalty). */
int sl_params_read(struct sl_params *p, const struct sl_req *r,
                   struct sl_refusal *why);
/* {"type": "text", "json_object" or "json_schema", ...}; the last has the
 * schema in itself, or in "json_schema". v may be NULL. */
int sl_params_read_format(struct sl_params *p, const json_t *v,
                          const char *name, struct sl_refusal *why);
/* "stop": a string or a list of them. */
int sl_params_read_stops(struct sl_params *p, const json_t *body,
                         const char *name, struct sl_refusal *why);

/* A prompt of a choice: text or ids, or a conversation. */
struct sl_ask {
    const char *text; /* NULL: ids */
    size_t n_text;
    const json_t *ids;
    const char *suffix; /* or NULL */
    bool echo;          /* with its logprobs, if those are wanted */
};

/* Sets up a choice for a prompt (text_lock is not held). Refusals: 400. */
int sl_choice_ask(struct sl_choice *c, const struct sl_params *p,
                  const struct sl_ask *ask, struct sl_refusal *why);
/* The same for a conversation. */
int sl_choice_talk(struct sl_choice *c, const struct sl_params *p,
                   const struct sl_chat_input *input, struct sl_refusal *why);
/* Ids of it, as sl_choice_talk feeds them. */
int sl_talk_ids(struct sl_server *s, struct sl_ids *ids,
                const struct sl_chat_input *input, struct sl_refusal *why);

/* Can a list of so many be a conversation? Refusals: 400. */
int sl_talk_count(const struct sl_server *s, const json_t *list,
                  const char *field, struct sl_refusal *why);
/* "messages" as a conversation; "tools" of r->body (borrowed, or NULL). */
int sl_talk_read(struct sl_chat_history *h, const struct sl_server *s,
                 const json_t *messages, struct sl_refusal *why);
int sl_talk_tools(json_t **tools, const struct sl_req *r,
                  struct sl_refusal *why);
/* What the model's own program samples with. */
void sl_params_of_template(struct sl_params *p, const struct sl_server *s);
/* A job of p->n answers. */
int sl_talk_submit(struct sl_req *r, const char *prefix,
                   const struct sl_params *p, const struct sl_chat_input *input,
                   const uint64_t hash[2], struct sl_refusal *why);

/* A key by which the same request is known again; of r->body, without fields
 * that do not change what is said. */
void sl_req_hash(const struct sl_req *r, uint64_t hash[2]);
/* The same request's job, if there is one: the request listens to it. */
bool sl_req_join(struct sl_req *r, const uint64_t hash[2]);
/* Submits and listens; the job is gone where that is refused. */
int sl_req_submit(struct sl_req *r, struct sl_job *job, const uint64_t hash[2],
                  const struct sl_params *p, struct sl_refusal *why);
/* Reads the body as JSON, which is there until reading has ended. Refusals:
 * 400, and 413 and 503 where there is no memory for it (room.h). */
int sl_req_body(struct sl_req *r, struct sl_refusal *why);
/* More memory of the same kind, for r->echoes. Refusals: 503. */
int sl_req_hold(struct sl_req *r, uint64_t n, struct sl_refusal *why);
/* "model", as the client calls it; any name will do. */
int sl_req_model(struct sl_req *r, struct sl_refusal *why);
/* What to call the model in an answer. The caller's. */
json_t *sl_req_model_name(const struct sl_req *r);
/* Reads "stream". */
int sl_req_stream(struct sl_req *r, struct sl_refusal *why);

/* Appends "data: JSON\n\n", with "event: NAME\n" before it where there is a
 * name. json is the callee's. */
int sl_sse(struct sl_str *out, const char *event, json_t *json,
           struct sl_error *err);

/* Has an API say what is new of the first choice, part by part; cursor[0]
 * counts them. Returns 1 where the piece is full. */
int sl_say_parts(struct sl_req *r,
                 int (*say)(struct sl_req *r, const struct sl_choice *c,
                            const struct sl_part *p, struct sl_str *out,
                            struct sl_error *err),
                 struct sl_str *out, struct sl_error *err);

/* The j-th best of the choices of a prompt, by the mean logprob. */
const struct sl_choice *sl_req_answer(const struct sl_req *r, size_t prompt,
                                      size_t j);

json_t *sl_openai_error(const struct sl_refusal *why);
extern const char sl_openai_error_schema[]; /* what that makes */
const char *sl_openai_finish(const struct sl_choice *c);
json_t *sl_openai_usage(const struct sl_job *job);

/* How an API of OpenAI's tells answers: an object of choices, with chances
 * behind all else that a choice has, or a stream of events. */
struct sl_openai_kind {
    bool legacy; /* chances have the form of completions */
    /* The toks to be shown; NULL: all. */
    void (*range)(const struct sl_req *r, const struct sl_choice *c,
                  size_t *from, size_t *to);
    /* -- whole answers: what stands before the choices, which choice is the
     * i-th, and what it has but for chances -- */
    json_t *(*frame)(const struct sl_req *r);
    const struct sl_choice *(*choice)(const struct sl_req *r, size_t i);
    json_t *(*head)(const struct sl_req *r, const struct sl_choice *c,
                    size_t i);
    /* -- streams: what stands around an event, what is said first of a choice,
     * and an event of a part of it (NULL: of none); logprobs is taken -- */
    json_t *(*event_frame)(const struct sl_req *r);
    int (*begin)(struct sl_req *r, const struct sl_choice *c,
                 struct sl_str *out, struct sl_error *err);
    int (*event)(struct sl_req *r, const struct sl_choice *c,
                 const struct sl_part *p, json_t *logprobs, const char *finish,
                 struct sl_str *out, struct sl_error *err);
};
/* Of n choices; as struct sl_form's whole. */
int sl_openai_whole(struct sl_req *r, const struct sl_openai_kind *k, size_t n,
                    struct sl_str *out, struct sl_error *err);
/* As struct sl_form's events. cursor: parts and toks of each choice; a listener
 * who comes late, or waited, gets all that was said since. */
int sl_openai_events(struct sl_req *r, const struct sl_openai_kind *k,
                     struct sl_str *out, struct sl_error *err);
int sl_openai_failed(struct sl_req *r, const struct sl_refusal *why,
                     struct sl_str *out, struct sl_error *err);
json_t *sl_str_json(const struct sl_str *text, size_t from, size_t to);

extern const struct sl_form sl_form_openai; /* of what is answered at once */
extern const struct sl_form sl_form_completions, sl_form_chat,
    sl_form_responses, sl_form_anthropic, sl_form_chatglm, sl_form_glm130b;

/* Handlers of routes. */
int sl_api_health(struct sl_req *r, struct sl_refusal *why);
int sl_api_metrics(struct sl_req *r, struct sl_refusal *why);
int sl_api_props(struct sl_req *r, struct sl_refusal *why);
int sl_api_models(struct sl_req *r, struct sl_refusal *why);
int sl_api_model(struct sl_req *r, struct sl_refusal *why);
int sl_api_embeddings(struct sl_req *r, struct sl_refusal *why);
int sl_api_tokenize(struct sl_req *r, struct sl_refusal *why);
int sl_api_detokenize(struct sl_req *r, struct sl_refusal *why);
int sl_api_tokenizer_info(struct sl_req *r, struct sl_refusal *why);
int sl_api_completions(struct sl_req *r, struct sl_refusal *why);
int sl_api_chat(struct sl_req *r, struct sl_refusal *why);
int sl_api_messages(struct sl_req *r, struct sl_refusal *why);
int sl_api_count_tokens(struct sl_req *r, struct sl_refusal *why);
int sl_api_chatglm(struct sl_req *r, struct sl_refusal *why);
int sl_api_generate(struct sl_req *r, struct sl_refusal *why);
int sl_api_responses(struct sl_req *r, struct sl_refusal *why);
int sl_api_response_get(struct sl_req *r, struct sl_refusal *why);
int sl_api_response_cancel(struct sl_req *r, struct sl_refusal *why);
int sl_api_page(struct sl_req *r, struct sl_refusal *why);
int sl_api_openapi(struct sl_req *r, struct sl_refusal *why);
int sl_api_preflight(struct sl_req *r, struct sl_refusal *why);

#endif
