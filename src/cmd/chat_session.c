#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/clock.h"
#include "src/base/mem.h"
#include "src/cmd/chat_session.h"

/* The part of a context that an answer needs at least, and of what is left
 * the part that stays when turns go: not every question shall make some go,
 * since all must be read again then. */
enum { ANSWER_PART = 4, STAYING_NUM = 3, STAYING_DEN = 4 };

/* A question on its way. */
struct asking {
    struct sl_session *s;
    struct sl_session_turn *turn;
    struct sl_answer answer;
    struct sl_ids ids; /* of the prompt */
    struct sl_stopper stopper;
    struct sl_str said; /* what it let through */
    uint64_t start_ns;
    bool enough;
};

int sl_session_workload(struct sl_workload *load, const struct sl_hparams *hp,
                        uint32_t max_tokens, uint32_t pass_positions,
                        struct sl_drafts *drafts, struct sl_error *err)
{
    struct sl_fill_config fill = {
        .strategy = SL_STRATEGY_BASE,
        .drafts = drafts,
        .out_seq_length = max_tokens,
    };

    *load = (struct sl_workload){0};
    if (!hp->causal)
        return sl_fill_workload(load, NULL, hp, &fill, err);
    sl_causal_workload(load, max_tokens, pass_positions, drafts);
    return 0;
}

int sl_session_open(struct sl_session *s,
                    const struct sl_session_config *config,
                    struct sl_error *err)
{
    const struct sl_chat_vocab *v = config->vocab;
    bool thinks = config->tmpl->thinking != SL_THINKING_NONE;

    *s = (struct sl_session){.c = *config};
    sl_rng_seed(&s->rng, config->seed);
    s->think[0] = thinks ? v->token(v->opaque, "<think>") : -1;
    s->think[1] = thinks ? v->token(v->opaque, "</think>") : -1;
    if ((config->stops != NULL && sl_ids_append(&s->stops, config->stops->v,
                                                config->stops->n, err) != 0) ||
        sl_chat_stops(&s->stops, config->tmpl, v, err) != 0)
        return -1;
    if (config->hp->causal)
        return sl_causal_create(&s->causal, config->lm, config->pass_positions,
                                config->drafts, err);
    return 0;
}

void sl_session_close(struct sl_session *s)
{
    sl_causal_destroy(s->causal);
    sl_chat_history_fini(&s->history);
    sl_ids_fini(&s->stops);
    *s = (struct sl_session){0};
}

void sl_session_restart(struct sl_session *s)
{
    s->first = 0;
}

/* --- the prompt -------------------------------------------------------------
 */

/* Ids of the system messages and of all that begins at a message. */
static int make_ids(struct asking *a, size_t from, struct sl_error *err)
{
    const struct sl_session *s = a->s;
    const struct sl_chat_history *h = &s->history;
    size_t head = sl_chat_history_first_turn(h), n = head + h->n - from;
    struct sl_chat_message *messages = sl_alloc_array(n, sizeof *messages);
    const struct sl_special_ids *special = &s->c.hp->text.special;
    struct sl_chat_input input = {
        .messages = messages,
        .n_messages = n,
        .tools = s->c.tools,
        .no_think = s->c.no_think,
    };
    struct sl_ids *ids = &a->ids;
    int rc;

    if (messages == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "out of memory for %zu messages", n);
    memcpy(messages, h->v, head * sizeof *messages);
    memcpy(messages + head, h->v + from, (h->n - from) * sizeof *messages);
    ids->n = 0;
    rc = sl_chat_ids(ids, s->c.tmpl, &input, s->c.vocab, err);
    free(messages);
    if (rc != 0 || s->causal != NULL)
        return rc;
    /* What fills blanks wants one, and adds what begins the answer. */
    if (ids->n > 0 && ids->v[ids->n - 1] == special->sop)
        ids->n--;
    if (ids->n == 0 || ids->v[ids->n - 1] != special->gmask)
        rc = sl_ids_add(ids, special->gmask, err);
    return rc;
}

/* Ids of a prompt that leaves this much room. */
static uint32_t longest_prompt(const struct sl_session *s, uint32_t room)
{
    uint32_t all = s->c.lm->max_tokens;

    if (s->causal == NULL)
        all--; /* [sop] */
    return all > room ? all - room : 0;
}

/* Makes turns go until the prompt has at most n ids, or one turn is left:
 * halving, since each try encodes what is left. */
static int drop_turns(struct asking *a, uint32_t n, struct sl_error *err)
{
    struct sl_session *s = a->s;
    const struct sl_chat_history *h = &s->history;
    size_t *turns = sl_alloc_array(h->n, sizeof *turns);
    size_t n_turns = 0, low = 0, high;
    int rc = 0;

    if (turns == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "out of memory for %zu turns", h->n);
    for (size_t at = s->first; at < h->n; at = sl_chat_history_next_turn(h, at))
        turns[n_turns++] = at;
    high = n_turns - 1;
    while (low < high && rc == 0) {
        size_t middle = low + (high - low) / 2;

        rc = make_ids(a, turns[middle], err);
        if (a->ids.n <= n)
            high = middle;
        else
            low = middle + 1;
    }
    if (rc == 0)
        rc = make_ids(a, turns[high], err);
    if (rc == 0) {
        a->turn->n_dropped = high;
        s->first = turns[high];
    }
    free(turns);
    return rc;
}

/* Where the conversation has become too long, oldest turns go until
 * STAYING_NUM / STAYING_DEN of the room is filled, and not just until it
 * fits: else every turn from then on would drop one, and have all read
 * again. */
static int make_prompt(struct asking *a, struct sl_error *err)
{
    struct sl_session *s = a->s;
    size_t head = sl_chat_history_first_turn(&s->history);
    uint32_t part = s->c.lm->max_tokens / ANSWER_PART, most;

    if (s->c.max_new > 0 && s->c.max_new < part)
        part = s->c.max_new;
    if (s->first < head || s->first >= s->history.n)
        s->first = head;
    most = longest_prompt(s, part);
    if (make_ids(a, s->first, err) != 0)
        return -1;
    if (a->ids.n > most &&
        drop_turns(a, (uint32_t)((uint64_t)most * STAYING_NUM / STAYING_DEN),
                   err) != 0)
        return -1;
    a->turn->n_prompt = (uint32_t)a->ids.n;
    if (a->ids.n <= longest_prompt(s, 1))
        return 0;
    return sl_fail(err, SL_ERR_USAGE,
                   "text too long: %zu tokens with what is around it leave no "
                   "room for an answer among %u; shorten it or raise --ctx",
                   a->ids.n, s->c.lm->max_tokens);
}

/* --- the answer -------------------------------------------------------------
 */

static bool stops_in(const struct asking *a)
{
    return a->stopper.stops != NULL && a->stopper.stops->n > 0 &&
           a->answer.state != SL_ANSWER_THINKING;
}

/* What was thought is looked through for no stop. */
static int say(struct asking *a, const char *text, size_t n,
               struct sl_error *err)
{
    int rc;

    /* Thinking is no part of the answer, and ends by itself. */
    if (stops_in(a)) {
        sl_str_clear(&a->said);
        if (sl_stopper_push(&a->stopper, &a->said, text, n, false, err) != 0)
            return -1;
        text = sl_str_text(&a->said);
        n = a->said.n;
    }
    rc = sl_answer_push(&a->answer, text, n, err);
    a->enough =
        a->answer.state == SL_ANSWER_STOPPED || a->stopper.found != NULL;
    return rc;
}

/* What a stop could have begun with, and did not. */
static int say_held(struct asking *a, struct sl_error *err)
{
    if (a->stopper.held.n == 0)
        return 0;
    sl_str_clear(&a->said);
    if (sl_stopper_push(&a->stopper, &a->said, "", 0, true, err) != 0)
        return -1;
    return sl_answer_push(&a->answer, sl_str_text(&a->said), a->said.n, err);
}

static int say_rest(struct asking *a, struct sl_error *err)
{
    const struct sl_chat_speaker *v = a->s->c.speaker;
    const char *text;
    size_t n;

    if (v->end(v->opaque, &text, &n, err) != 0)
        return -1;
    return say(a, text, n, err);
}

/* The ids of thinking's begin and end may be no text to the tokenizer
 * (special tokens); the reader of answers wants them as text. */
static int hear(struct asking *a, int32_t id, struct sl_error *err)
{
    const struct sl_session *s = a->s;
    const char *text;
    size_t n;

    if (a->turn->n_new++ == 0)
        a->turn->first_token_ns = sl_clock_ns() - a->start_ns;
    if (id >= 0 && (id == s->think[0] || id == s->think[1])) {
        text = id == s->think[0] ? "<think>" : "</think>";
        if (say_rest(a, err) != 0)
            return -1;
        return say(a, text, strlen(text), err);
    }
    if (s->c.speaker->push(s->c.speaker->opaque, &id, 1, &text, &n, err) != 0)
        return -1;
    return say(a, text, n, err);
}

static int hear_causal(void *opaque, int32_t id, bool *enough,
                       struct sl_error *err)
{
    struct asking *a = opaque;
    int rc = hear(a, id, err);

    *enough = a->enough;
    return rc;
}

/* Only what is new since the last turn is read: sl_causal_run keeps the keys
 * and values of what the two prompts have in common. */
static int answer_causal(struct asking *a, struct sl_rng *rng,
                         struct sl_error *err)
{
    struct sl_session *s = a->s;
    const struct sl_causal_config config = {
        .sampler = s->c.sampler,
        .repetition_penalty = s->c.repetition_penalty,
        .max_new = s->c.max_new,
        .n_tokens = s->c.hp->text.n_tokens,
        .stops = s->stops.v,
        .n_stops = s->stops.n,
    };
    const struct sl_causal_sink sink = {hear_causal, a};
    struct sl_causal_result result = {0};
    int rc = sl_causal_run(s->causal, a->ids.v, a->ids.n, &config, rng, &sink,
                           &result, err);

    a->turn->end = result.end;
    a->turn->n_kept = result.n_kept;
    sl_causal_result_fini(&result);
    return rc;
}

static bool is_stop(const struct sl_session *s, int32_t id)
{
    for (size_t i = 0; i < s->stops.n; i++) {
        if (s->stops.v[i] == id)
            return true;
    }
    return false;
}

static int hear_fill(void *opaque, const int32_t *ids, size_t n, bool blank,
                     struct sl_error *err)
{
    struct asking *a = opaque;

    for (size_t i = 0; i < n && blank; i++) {
        if (is_stop(a->s, ids[i]))
            a->enough = true;
        else if (hear(a, ids[i], err) != 0)
            return -1;
        if (a->enough)
            return sl_fail(err, SL_ERR_INTERRUPTED, "enough was heard");
    }
    return 0;
}

/* For models that see their whole context at once: the answer fills a
 * [gMASK] behind the prompt, of which nothing can be kept from the turn
 * before. */
static int answer_fill(struct asking *a, struct sl_rng *rng,
                       struct sl_error *err)
{
    const struct sl_session *s = a->s;
    uint32_t room = longest_prompt(s, (uint32_t)a->ids.n);
    bool all = s->c.max_new == 0 || s->c.max_new > room;
    struct sl_fill_config config = {
        .strategy = SL_STRATEGY_BASE,
        .sampler = s->c.sampler,
        .drafts = s->c.drafts,
        .out_seq_length = (uint32_t)a->ids.n + 1 + (all ? room : s->c.max_new),
    };
    struct sl_prompt prompt = {
        .text = "",
        .ids = a->ids,
        .mask = s->c.hp->text.special.gmask,
        .gmask = true,
    };
    const struct sl_fill_sink sink = {hear_fill, a};
    struct sl_fill_result result = {0};
    bool full;

    if (sl_fill(&result, s->c.lm, &prompt, s->c.hp, &config, rng, &sink, err) !=
        0) {
        a->turn->end = SL_CAUSAL_ENOUGH;
        return a->enough ? 0 : -1;
    }
    full = a->ids.n + 1 + a->turn->n_new == config.out_seq_length;
    if (result.interrupted)
        a->turn->end = SL_CAUSAL_INTERRUPTED;
    else if (!full)
        a->turn->end = SL_CAUSAL_STOP;
    else
        a->turn->end = all ? SL_CAUSAL_FULL : SL_CAUSAL_LENGTH;
    sl_fill_result_fini(&result);
    return 0;
}

/* A random state of its own for each answer: how many numbers an answer took
 * changes nothing of the next. */
static int answer(struct asking *a, struct sl_error *err)
{
    struct sl_session *s = a->s;
    struct sl_rng rng = s->rng;
    struct sl_error ignored;
    int rc;

    sl_rng_jump(&s->rng);
    rc = s->causal != NULL ? answer_causal(a, &rng, err)
                           : answer_fill(a, &rng, err);
    /* Even where it failed: the next answer begins with nothing left over. */
    if ((say_rest(a, rc == 0 ? err : &ignored) != 0 ||
         say_held(a, rc == 0 ? err : &ignored) != 0) &&
        rc == 0)
        rc = -1;
    if (rc != 0)
        return -1;
    a->turn->cut_in_thought = a->answer.state == SL_ANSWER_THINKING;
    return sl_answer_end(&a->answer, err);
}

/* The answer joins the history. A question that was interrupted before there
 * was any goes. */
static int keep(struct asking *a, size_t asked, struct sl_error *err)
{
    struct sl_chat_history *h = &a->s->history;

    if (a->turn->end == SL_CAUSAL_INTERRUPTED &&
        a->answer.content.n + a->answer.reasoning.n == 0) {
        sl_chat_history_cut(h, asked);
        return 0;
    }
    return sl_chat_history_add(h, SL_CHAT_ASSISTANT,
                               sl_str_text(&a->answer.content),
                               sl_str_text(&a->answer.reasoning), err);
}

int sl_session_ask(struct sl_session *s, const char *text,
                   const struct sl_answer_sink *sink,
                   struct sl_session_turn *turn, struct sl_error *err)
{
    struct asking a = {
        .s = s,
        .turn = turn,
        .stopper = {.stops = s->c.stop_texts},
        .start_ns = sl_clock_ns(),
    };
    size_t asked = s->history.n, first = s->first;
    int rc;

    *turn = (struct sl_session_turn){0};
    sl_answer_begin(&a.answer, s->c.tmpl,
                    sl_chat_prompt_thinks(s->c.tmpl, s->c.no_think), sink);
    rc = sl_chat_history_add(&s->history, SL_CHAT_USER, text, NULL, err);
    if (rc == 0)
        rc = make_prompt(&a, err);
    if (rc == 0)
        rc = answer(&a, err);
    if (rc == 0)
        rc = keep(&a, asked, err);
    turn->ns = sl_clock_ns() - a.start_ns;
    if (rc != 0) {
        sl_chat_history_cut(&s->history, asked);
        s->first = first;
    }
    sl_answer_fini(&a.answer);
    sl_ids_fini(&a.ids);
    sl_stopper_fini(&a.stopper);
    sl_str_fini(&a.said);
    return rc;
}
