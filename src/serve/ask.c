#include "config.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "src/serve/api.h"
#include "src/text/tokenizer.h"

/* --- from a prompt to a gen -------------------------------------------------
 */

static void set_sampling(struct sl_choice *c, const struct sl_params *p)
{
    struct sl_gen *g = &c->gen;
    uint64_t seed = (uint64_t)p->seed;

    g->sampler = (struct sl_sampler_config){
        .temperature = p->temperature > 0 ? p->temperature : 1,
        .top_k = p->temperature > 0 ? (uint32_t)p->top_k : 1,
        .top_p = p->top_p < 1 ? p->top_p : 0,
    };
    g->min_new = (uint32_t)p->min_tokens;
    g->rules.presence = p->presence;
    g->rules.frequency = p->frequency;
    g->rules.repetition = p->repetition;
    g->rules.n_top = (int)p->n_top;
    if (p->seed == -1 && getrandom(&seed, sizeof seed, 0) < 0)
        seed = c->job->created_ns;
    if (p->seed == -1 || c->index == 0) {
        sl_rng_seed(&g->rng, seed);
    } else { /* behind the one before, which is made and has not begun */
        g->rng = c[-1].gen.rng;
        sl_rng_jump(&g->rng);
    }
}

/* The rule of a form. */
static int set_form(struct sl_choice *c, const struct sl_params *p,
                    struct sl_refusal *why)
{
    struct sl_server *s = c->job->s;
    struct sl_error err;
    int rc = 0;

    pthread_mutex_lock(&s->text_lock);
    if (s->tokenizer == NULL)
        rc = sl_fail(&err, SL_ERR_IO, "the model is gone");
    else if (s->spellings == NULL)
        rc =
            sl_spellings_create(&s->spellings, s->tokenizer, s->hp.vocab, &err);
    pthread_mutex_unlock(&s->text_lock);
    if (rc == 0)
        rc = sl_form_rule_create(&c->form, p->schema, s->spellings, &err);
    if (rc != 0)
        return sl_refuse_error(why, "response_format", &err);
    c->gen.rules.rule = &c->form->rule;
    return 0;
}

static int copy_params(struct sl_choice *c, const struct sl_params *p,
                       struct sl_refusal *why)
{
    set_sampling(c, p);
    for (size_t i = 0; i < p->stops.n; i++) {
        c->stops.v[i] = strdup(p->stops.v[i]);
        if (c->stops.v[i] == NULL)
            return sl_refuse(why, 503, NULL, "out of memory");
        c->stops.n++;
    }
    if (p->json && set_form(c, p, why) != 0)
        return -1;
    if (p->n_bias == 0)
        return 0;
    c->gen.bias = malloc(p->n_bias * sizeof *p->bias);
    if (c->gen.bias == NULL)
        return sl_refuse(why, 503, NULL, "out of memory");
    memcpy(c->gen.bias, p->bias, p->n_bias * sizeof *p->bias);
    c->gen.rules.bias = c->gen.bias;
    c->gen.rules.n_bias = p->n_bias;
    return 0;
}

/* How many ids may be said behind a prompt of n. */
static int set_room(struct sl_choice *c, const struct sl_params *p, size_t n,
                    const char *field, struct sl_refusal *why)
{
    const struct sl_server *s = c->job->s;
    int64_t room = (int64_t)s->ctx - (int64_t)n - (c->gen.fill ? 1 : 0);
    int64_t want = p->max_tokens;

    if (room < (want == 0 ? 0 : 1))
        return sl_refuse(why, 400, field,
                         "the prompt's %zu tokens leave no room for an answer "
                         "among the %u of a text (--ctx)",
                         n, s->ctx);
    if (want < 0)
        want = s->c->max_tokens < room ? s->c->max_tokens : room;
    if (want > room && p->cut_to_room)
        want = room;
    if (want > room)
        return sl_refuse(why, 400, p->max_field,
                         "'%s' is %lld, but behind the prompt's %zu tokens "
                         "there is room for %lld (--ctx %u)",
                         p->max_field, (long long)want, n, (long long)room,
                         s->ctx);
    c->gen.max_new = (uint32_t)want;
    return 0;
}

static int check_bytes(const struct sl_server *s, size_t n,
                       struct sl_refusal *why)
{
    if (n <= sl_text_most_bytes(s->ctx))
        return 0;
    return sl_refuse(why, 400, "prompt",
                     "a text of %zu bytes does not fit the %u tokens of "
                     "--ctx",
                     n, s->ctx);
}

/* [gMASK] [sop], or what the model has for it. */
static int begin_scored(struct sl_gen *g, const struct sl_server *s,
                        struct sl_error *err)
{
    const struct sl_special_ids *special = &s->hp.text.special;
    int32_t mark = special->gmask >= 0 ? special->gmask : special->mask;

    if (s->prompts == SL_PROMPTS_GLM && special->enc >= 0 &&
        sl_ids_add(&g->ids, special->enc, err) != 0)
        return -1;
    if (sl_ids_add(&g->ids, mark, err) != 0)
        return -1;
    g->n_context = (uint32_t)g->ids.n;
    return sl_ids_add(&g->ids, special->sop, err);
}

/* A text that only looks back. text_lock is held. */
static int ask_line(struct sl_choice *c, const struct sl_ask *ask,
                    const struct sl_ids *ids, struct sl_error *err)
{
    struct sl_server *s = c->job->s;
    struct sl_gen *g = &c->gen;
    size_t before;

    if (!s->hp.causal && begin_scored(g, s, err) != 0)
        return -1;
    if (s->hp.causal && ask->text != NULL &&
        sl_ids_append(&g->ids, s->prefix.v, s->prefix.n, err) != 0)
        return -1;
    before = g->ids.n;
    if (ask->text != NULL &&
        sl_tokenizer_encode_special(s->tokenizer, &g->ids, ask->text,
                                    ask->n_text, err) != 0)
        return -1;
    if (ask->text == NULL && sl_ids_append(&g->ids, ids->v, ids->n, err) != 0)
        return -1;
    if (ask->echo && g->rules.n_top >= 0)
        g->score_from = s->hp.causal ? 1 : (uint32_t)before;
    return 0;
}

static bool is_mark(const struct sl_server *s, int32_t id)
{
    const struct sl_special_ids *special = &s->hp.text.special;

    return id >= 0 && (id == special->mask || id == special->gmask ||
                       id == special->smask);
}

/* Ids that were given: the first kind of mark among them is filled. */
static int fill_ids(struct sl_choice *c, const struct sl_ids *ids,
                    struct sl_error *err)
{
    const struct sl_special_ids *special = &c->job->s->hp.text.special;
    struct sl_prompt *p = &c->gen.prompt;
    int32_t end = special->gmask >= 0 ? special->gmask : special->mask;

    p->mask = -1;
    for (size_t i = 0; i < ids->n && p->mask < 0; i++) {
        if (is_mark(c->job->s, ids->v[i]))
            p->mask = ids->v[i];
    }
    if (sl_ids_append(&p->ids, ids->v, ids->n, err) != 0)
        return -1;
    if (p->mask < 0) {
        p->mask = end;
        if (sl_ids_add(&p->ids, end, err) != 0)
            return -1;
    }
    p->masks[p->n_masks++] = p->mask;
    p->gmask = p->mask == special->gmask;
    return 0;
}

/* A text with blanks. text_lock is held. */
static int ask_fill(struct sl_choice *c, const struct sl_ask *ask,
                    const struct sl_ids *ids, struct sl_error *err)
{
    struct sl_server *s = c->job->s;
    struct sl_str whole = {0};
    int rc;

    c->gen.fill = true;
    if (ask->text == NULL)
        return fill_ids(c, ids, err);
    rc = sl_str_append(&whole, ask->text, ask->n_text, err);
    if (rc == 0 && ask->suffix != NULL)
        rc = sl_str_add(&whole, "[MASK]", err);
    if (rc == 0 && ask->suffix != NULL)
        rc = sl_str_add(&whole, ask->suffix, err);
    if (rc == 0 && s->prompts == SL_PROMPTS_GLM)
        rc = sl_prompt_make_glm(&c->gen.prompt, s->tokenizer, &s->hp.text,
                                SL_STYLE_GLM_130B, sl_str_text(&whole), whole.n,
                                err);
    else if (rc == 0)
        rc = sl_prompt_make(&c->gen.prompt, s->tokenizer, &s->hp.text,
                            sl_str_text(&whole), whole.n, err);
    sl_str_fini(&whole);
    return rc;
}

int sl_choice_ask(struct sl_choice *c, const struct sl_params *p,
                  const struct sl_ask *ask, struct sl_refusal *why)
{
    struct sl_server *s = c->job->s;
    bool line = s->hp.causal || (ask->echo && p->n_top >= 0) ||
                (ask->echo && p->max_tokens == 0);
    struct sl_ids ids = {0};
    struct sl_error err;
    int rc;

    if (copy_params(c, p, why) != 0)
        return -1;
    if (ask->text == NULL) {
        if (json_array_size(ask->ids) == 0)
            return sl_body_wrong(why, "prompt", ask->ids,
                                 "a list of token ids, not empty");
        if (sl_body_ids(&ids, ask->ids, "prompt", s->hp.vocab, why) != 0) {
            sl_ids_fini(&ids);
            return -1;
        }
    } else if (check_bytes(s, ask->n_text, why) != 0) {
        return -1;
    }
    if (ask->suffix != NULL && s->hp.causal)
        return sl_refuse(why, 400, "suffix",
                         "'suffix' needs a model that fills blanks; %s only "
                         "goes on",
                         s->model);
    pthread_mutex_lock(&s->text_lock);
    if (s->tokenizer == NULL)
        rc = sl_fail(&err, SL_ERR_IO, "the model is gone");
    else
        rc = (line ? ask_line : ask_fill)(c, ask, &ids, &err);
    pthread_mutex_unlock(&s->text_lock);
    sl_ids_fini(&ids);
    if (rc != 0)
        return sl_refuse_error(why, "prompt", &err);
    if (!line && p->max_tokens == 0)
        return sl_refuse(why, 400, p->max_field,
                         "'%s' is 0, which goes with echo alone", p->max_field);
    if ((line ? c->gen.ids.n : c->gen.prompt.ids.n) == 0)
        return sl_refuse(why, 400, "prompt",
                         "'prompt' is empty: the model goes on from what it "
                         "reads");
    if (set_room(c, p, line ? c->gen.ids.n : c->gen.prompt.ids.n, "prompt",
                 why) != 0)
        return -1;
    if (sl_choice_open(c, false, &err) != 0)
        return sl_refuse_error(why, NULL, &err);
    return sl_choice_hold(c, why);
}

/* --- from a conversation to a gen -------------------------------------------
 */

int sl_talk_ids(struct sl_server *s, struct sl_ids *ids,
                const struct sl_chat_input *input, struct sl_refusal *why)
{
    const struct sl_special_ids *special = &s->hp.text.special;
    size_t bytes = 0;
    struct sl_error err;
    int rc = -1;

    for (size_t i = 0; i < input->n_messages; i++)
        bytes += strlen(input->messages[i].content);
    if (check_bytes(s, bytes, why) != 0)
        return -1;
    pthread_mutex_lock(&s->text_lock);
    if (s->tokenizer != NULL) {
        struct sl_chat_words words = {s->tokenizer, special};
        struct sl_chat_vocab vocab = sl_chat_vocab_of(&words);

        rc = sl_chat_ids(ids, s->tmpl, input, &vocab, &err);
    } else {
        sl_fail(&err, SL_ERR_IO, "the model is gone");
    }
    pthread_mutex_unlock(&s->text_lock);
    if (rc != 0) {
        if (err.code == SL_ERR_UNSUPPORTED)
            err.code = SL_ERR_USAGE; /* of this model: the client's to change */
        return sl_refuse_error(why, "messages", &err);
    }
    if (s->hp.causal)
        return 0;
    /* What fills blanks wants one, and adds what begins the answer. */
    if (ids->n > 0 && ids->v[ids->n - 1] == special->sop)
        ids->n--;
    if (ids->n == 0 || !is_mark(s, ids->v[ids->n - 1]))
        rc = sl_ids_add(
            ids, special->gmask >= 0 ? special->gmask : special->mask, &err);
    return rc == 0 ? 0 : sl_refuse_error(why, NULL, &err);
}

int sl_choice_talk(struct sl_choice *c, const struct sl_params *p,
                   const struct sl_chat_input *input, struct sl_refusal *why)
{
    struct sl_server *s = c->job->s;
    struct sl_gen *g = &c->gen;
    struct sl_ids *ids = s->hp.causal ? &g->ids : &g->prompt.ids;
    struct sl_chat_input asked = *input;
    struct sl_error err;

    /* JSON has no thinking before it, and nothing in it is polished. */
    c->chat = !p->json;
    asked.no_think |= p->json;
    if (copy_params(c, p, why) != 0 || sl_talk_ids(s, ids, &asked, why) != 0)
        return -1;
    if (!s->hp.causal) {
        g->fill = true;
        g->prompt.mask = ids->v[ids->n - 1];
        g->prompt.masks[g->prompt.n_masks++] = g->prompt.mask;
        g->prompt.gmask = g->prompt.mask == s->hp.text.special.gmask;
    }
    if (set_room(c, p, ids->n, "messages", why) != 0)
        return -1;
    if (g->max_new == 0)
        return sl_refuse(why, 400, p->max_field, "'%s' is 0", p->max_field);
    if (sl_choice_open(c, sl_chat_prompt_thinks(s->tmpl, input->no_think),
                       &err) != 0)
        return sl_refuse_error(why, NULL, &err);
    return sl_choice_hold(c, why);
}
