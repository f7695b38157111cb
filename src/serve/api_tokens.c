#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "src/serve/api.h"
#include "src/serve/sizes.h"

/* What the library takes for an id that it makes text of. */
enum { ID_COST = 256 };

static int check_length(const struct sl_server *s, const char *name, size_t n,
                        struct sl_refusal *why)
{
    size_t most = sl_sizes_split(s->ctx, s->text_cost);

    if (n <= most)
        return 0;
    return sl_refuse(why, 400, name,
                     "'%s' has %zu bytes; %zu are the most at a time", name, n,
                     most);
}

static int no_model(struct sl_refusal *why)
{
    return sl_refuse(why, 503, NULL, "the model is gone");
}

static json_t *list_ids(const int32_t *v, size_t n)
{
    json_t *list = json_array();

    for (size_t i = 0; i < n; i++)
        json_array_append_new(list, json_integer(v[i]));
    return list;
}

/* FasterTransformer's: every line of "text" is a prompt of its own
 * (reference: THUDM/GLM-130B docs/inference-with-fastertransformer.md). */
static int tokenize_lines(struct sl_req *r, const char *text, size_t n,
                          struct sl_refusal *why)
{
    struct sl_server *s = r->s;
    json_t *ids = json_array(), *lengths = json_array(), *marks = json_array();
    struct sl_error err;
    int rc = 0;

    for (size_t at = 0; rc == 0 && at <= n;) {
        const char *line = text + at, *end = memchr(line, '\n', n - at);
        size_t len = end != NULL ? (size_t)(end - line) : n - at;
        struct sl_prompt p = {0};

        rc = sl_prompt_make(&p, s->tokenizer, &s->hp.text, line, len, &err);
        for (size_t i = 0; rc == 0 && i <= p.ids.n; i++) {
            if (i < p.ids.n && p.ids.v[i] != p.mask)
                continue;
            json_array_append_new(
                marks,
                json_integer(p.gmask || i == p.ids.n ? -1 : (json_int_t)i));
            break;
        }
        if (rc == 0) {
            json_array_append_new(ids, list_ids(p.ids.v, p.ids.n));
            json_array_append_new(lengths, json_integer((json_int_t)p.ids.n));
        }
        sl_prompt_fini(&p);
        at += len + 1;
    }
    if (rc == 0)
        return sl_reply_json(r, 200,
                             json_pack("{s:o, s:o, s:o}", "start_ids", ids,
                                       "start_lengths", lengths,
                                       "mask_positions", marks));
    json_decref(ids);
    json_decref(lengths);
    json_decref(marks);
    return sl_refuse_error(why, "text", &err);
}

static int tokenize_text(struct sl_req *r, const char *text, size_t n,
                         struct sl_refusal *why)
{
    struct sl_server *s = r->s;
    bool special = false, parse = true, pieces = false;
    struct sl_ids ids = {0};
    struct sl_error err;
    json_t *o;
    int rc;

    if (sl_read_bool(&special, r, "add_special_tokens", why) != 0 ||
        sl_read_bool(&special, r, "add_special", why) != 0 ||
        sl_read_bool(&parse, r, "parse_special", why) != 0 ||
        sl_read_bool(&pieces, r, "with_pieces", why) != 0)
        return -1;
    rc = special ? sl_ids_append(&ids, s->prefix.v, s->prefix.n, &err) : 0;
    if (rc == 0)
        rc = (parse ? sl_tokenizer_encode_special
                    : sl_tokenizer_encode)(s->tokenizer, &ids, text, n, &err);
    if (rc != 0) {
        sl_ids_fini(&ids);
        return sl_refuse_error(why, "prompt", &err);
    }
    o = json_pack("{s:o, s:I, s:I}", "tokens", list_ids(ids.v, ids.n), "count",
                  (json_int_t)ids.n, "max_model_len", (json_int_t)s->ctx);
    if (pieces) {
        json_t *list = json_array();
        char piece[256];

        for (size_t i = 0; i < ids.n; i++) {
            size_t len =
                sl_tokenizer_piece(s->tokenizer, ids.v[i], piece, sizeof piece);
            json_t *name = json_stringn(
                piece, len < sizeof piece ? len : sizeof piece - 1);

            json_array_append_new(list, name != NULL ? name : json_null());
        }
        json_object_set_new(o, "pieces", list);
    }
    sl_ids_fini(&ids);
    return sl_reply_json(r, 200, o);
}

int sl_api_tokenize(struct sl_req *r, struct sl_refusal *why)
{
    const char *text = NULL, *name = "prompt";
    size_t n = 0;
    bool lines;
    int rc;

    if (sl_req_body(r, why) != 0)
        return -1;
    lines = sl_body_get(r->body, "text") != NULL;
    if (lines)
        name = "text";
    else if (sl_body_get(r->body, "content") != NULL)
        name = "content";
    if (sl_read_string(&text, &n, r, name, why) != 0)
        return -1;
    if (text == NULL)
        return sl_refuse(why, 400, "prompt",
                         "'prompt' is missing (or 'content', or 'text')");
    if (lines && r->s->hp.causal)
        return sl_refuse(why, 400, "text",
                         "'text' is for models that fill blanks; say 'prompt'");
    if (check_length(r->s, name, n, why) != 0)
        return -1;
    pthread_mutex_lock(&r->s->text_lock);
    if (r->s->tokenizer == NULL)
        rc = no_model(why);
    else
        rc = (lines ? tokenize_lines : tokenize_text)(r, text, n, why);
    pthread_mutex_unlock(&r->s->text_lock);
    return rc;
}

/* No more memory than splitting takes. */
static int check_count(const struct sl_server *s, size_t n,
                       struct sl_refusal *why)
{
    size_t most = sl_sizes_split(s->ctx, s->text_cost) * s->text_cost / ID_COST;

    if (n <= most)
        return 0;
    return sl_refuse(why, 400, "tokens",
                     "'tokens' has %zu ids; %zu are the most at a time", n,
                     most);
}

int sl_api_detokenize(struct sl_req *r, struct sl_refusal *why)
{
    struct sl_server *s = r->s;
    struct sl_ids ids = {0};
    const json_t *list;
    char *text = NULL;
    size_t n = 0;
    struct sl_error err;
    int rc;

    if (sl_req_body(r, why) != 0)
        return -1;
    list = sl_body_get(r->body, "tokens");
    rc = check_count(s, json_array_size(list), why);
    if (rc == 0)
        rc = sl_body_ids(&ids, list, "tokens", s->hp.vocab, why);
    if (rc == 0) {
        pthread_mutex_lock(&s->text_lock);
        if (s->tokenizer == NULL) {
            rc = no_model(why);
        } else if (sl_tokenizer_decode_as(s->tokenizer, SL_SPECIALS_SHOWN,
                                          ids.v, ids.n, &text, &n, &err) != 0) {
            rc = sl_refuse_error(why, "tokens", &err);
        }
        pthread_mutex_unlock(&s->text_lock);
    }
    sl_ids_fini(&ids);
    if (rc == 0) {
        struct sl_str whole = {text, n, n + 1};

        rc = sl_reply_json(r, 200,
                           json_pack("{s:o, s:o}", "prompt",
                                     sl_str_json(&whole, 0, n), "content",
                                     sl_str_json(&whole, 0, n)));
    }
    free(text);
    return rc;
}

/* A token by its id, as its name is spelt; null where there is none. */
static json_t *token_name(const struct sl_server *s, int32_t id)
{
    char piece[256];
    size_t n =
        id < 0 ? 0 : sl_tokenizer_piece(s->tokenizer, id, piece, sizeof piece);
    json_t *v = n == 0 || n >= sizeof piece ? NULL : json_stringn(piece, n);

    return v != NULL ? v : json_null();
}

/* lm-eval asks for these names (lm_eval/models/openai_completions.py). */
int sl_api_tokenizer_info(struct sl_req *r, struct sl_refusal *why)
{
    struct sl_server *s = r->s;
    const struct sl_special_ids *special = &s->hp.text.special;
    const struct sl_ids *stops;
    int32_t end, begin;
    json_t *o;
    int rc;

    pthread_mutex_lock(&s->text_lock);
    if (s->tokenizer == NULL) {
        rc = no_model(why);
    } else {
        stops = sl_tokenizer_stops(s->tokenizer);
        end = special->eos >= 0 ? special->eos
              : stops->n > 0    ? stops->v[0]
                                : -1;
        begin = s->prefix.n > 0 ? s->prefix.v[0]
                : s->hp.causal  ? -1
                                : special->sop;
        o = json_pack("{s:s, s:o, s:o, s:o, s:s, s:I, s:I}", "tokenizer_class",
                      sl_tokenizer_kind(s->tokenizer), "eos_token",
                      token_name(s, end), "bos_token", token_name(s, begin),
                      "pad_token", token_name(s, end), "chat_template",
                      s->tmpl->name, "vocab_size",
                      (json_int_t)sl_tokenizer_n_tokens(s->tokenizer),
                      "model_max_length", (json_int_t)s->ctx);
        json_object_set_new(o, "add_bos_token", json_boolean(s->prefix.n > 0));
        rc = sl_reply_json(r, 200, o);
    }
    pthread_mutex_unlock(&s->text_lock);
    return rc;
}
