#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/clock.h"
#include "src/base/mem.h"
#include "src/decode/causal.h"
#include "src/decode/row.h"
#include "src/decode/sequence.h"

struct sl_causal {
    struct sl_lm *lm;
    uint32_t pass_positions;
    uint32_t seq;
    bool has_seq;
    struct sl_ids held; /* what the sequence holds */
    struct sl_stepper stepper;
    struct sl_drafter drafter;
    struct sl_tree tree; /* what is fed: said last, drafts */
    int32_t last;        /* said, not fed yet */
    int32_t *positions;  /* (pass_positions) of a prompt */
    void *scratch;       /* of the sampler */
    uint8_t *seen;       /* (vocab) bits: the text has the id */
};

/* A run on its way: a request (sequence.h). It reads its prompt in several
 * passes, then feeds what it said last and drafts behind that. */
struct run {
    struct sl_sequence s; /* first */
    struct sl_causal *c;
    const struct sl_causal_config *config;
    struct sl_rng *rng;
    const struct sl_causal_sink *sink;
    struct sl_causal_result *result;
    uint64_t start_ns;
    const int32_t *prompt;
    size_t n_prompt;
};

void sl_causal_workload(struct sl_workload *load, uint32_t max_tokens,
                        uint32_t pass_positions, const struct sl_drafts *drafts)
{
    *load = (struct sl_workload){
        .n_sequences = 1,
        .max_tokens = max_tokens,
        .pass_positions =
            pass_positions < max_tokens ? pass_positions : max_tokens,
        .pass_logits = 1,
        .n_texts = 1,
    };
    sl_drafts_workload(drafts, load);
}

static uint32_t most_fed(const struct sl_drafts *drafts)
{
    return 1 + (drafts != NULL ? drafts->gate.most : 0);
}

static int allocate(struct sl_causal *c, struct sl_drafts *drafts,
                    struct sl_error *err)
{
    c->positions = sl_alloc_array(c->pass_positions, sizeof *c->positions);
    c->scratch = malloc(sl_sampler_scratch_bytes(c->lm->vocab));
    c->seen = malloc(c->lm->vocab / 8 + 1);
    if (c->positions == NULL || c->scratch == NULL || c->seen == NULL)
        return sl_fail(err, SL_ERR_NOMEM,
                       "out of memory to choose among %u tokens", c->lm->vocab);
    c->stepper.lm = c->lm;
    c->stepper.drafts = drafts;
    if (sl_tree_init(&c->tree, most_fed(drafts), err) != 0 ||
        sl_stepper_init(&c->stepper, 1, 1, err) != 0)
        return -1;
    return sl_drafter_init(&c->drafter, drafts, c->lm->max_tokens, err);
}

int sl_causal_create(struct sl_causal **out, struct sl_lm *lm,
                     uint32_t pass_positions, struct sl_drafts *drafts,
                     struct sl_error *err)
{
    struct sl_causal *c = sl_zalloc_array(1, sizeof *c);

    if (c == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "out of memory for a text");
    c->lm = lm;
    c->pass_positions = pass_positions;
    if (allocate(c, drafts, err) != 0) {
        sl_causal_destroy(c);
        return -1;
    }
    *out = c;
    return 0;
}

void sl_causal_forget(struct sl_causal *c)
{
    if (c->has_seq)
        c->lm->ops->seq_destroy(c->lm, c->seq);
    c->has_seq = false;
    c->held.n = 0;
}

void sl_causal_destroy(struct sl_causal *c)
{
    if (c == NULL)
        return;
    sl_causal_forget(c);
    sl_ids_fini(&c->held);
    sl_stepper_fini(&c->stepper);
    sl_drafter_fini(&c->drafter);
    sl_tree_fini(&c->tree);
    free(c->positions);
    free(c->scratch);
    free(c->seen);
    free(c);
}

void sl_causal_result_fini(struct sl_causal_result *r)
{
    sl_ids_fini(&r->ids);
}

static int end(struct run *r, enum sl_causal_end why)
{
    r->result->end = why;
    r->s.over = true;
    return 0;
}

/* What is held and begins the prompt stays. */
static int keep_prompt(struct run *r, struct sl_error *err)
{
    struct sl_causal *c = r->c;
    size_t at = 0;

    if (!c->has_seq) {
        if (c->lm->ops->seq_create(c->lm, &c->seq, err) != 0)
            return -1;
        c->has_seq = true;
    }
    while (at < c->held.n && at < r->n_prompt - 1 &&
           c->held.v[at] == r->prompt[at])
        at++;
    if (at < c->held.n)
        c->lm->ops->seq_cut(c->lm, c->seq, (uint32_t)at);
    c->held.n = at;
    r->result->n_kept = (uint32_t)at;
    return sl_drafter_begin(&c->drafter,
                            &(struct sl_draft_text){
                                .ids = r->prompt,
                                .n = r->n_prompt,
                                .context = r->prompt,
                                .n_context = r->n_prompt,
                                .mask_at = r->n_prompt,
                            },
                            err);
}

static bool reading(const struct run *r)
{
    return r->c->held.n < r->n_prompt;
}

/* A prompt longer than a pass comes in parts, of which only the last has
 * something said behind it; to_come counts them for whoever shows how far it
 * is. */
static int run_next(struct sl_sequence *s, struct sl_error *err)
{
    struct run *r = (struct run *)s;
    size_t left = r->n_prompt - r->c->held.n, most = r->c->pass_positions;

    s->reads = reading(r);
    s->n_items = s->n_rows = 1;
    s->n_positions = 1;
    s->to_come = 0;
    if (s->reads) {
        s->n_positions = (uint32_t)(left < most ? left : most);
        s->to_come = (uint32_t)((left - 1) / most);
    }
    return 0;
}

/* The sequence has room for the drafts and what comes after them, and nothing
 * is drafted that would not be said any more. */
static void run_offer(struct sl_sequence *s, struct sl_offer *offers,
                      uint32_t most)
{
    struct run *r = (struct run *)s;
    size_t room = r->c->lm->max_tokens - r->c->held.n - 1;
    uint32_t max_new = r->config->max_new;

    if (max_new > 0 && max_new - r->result->ids.n - 1 < room)
        room = max_new - r->result->ids.n - 1;
    *offers =
        sl_drafter_offer(&r->c->drafter, room < most ? (uint32_t)room : most);
}

static void want_prompt(struct run *r, struct sl_lm_item *item)
{
    struct sl_causal *c = r->c;

    for (uint32_t i = 0; i < r->s.n_positions; i++)
        c->positions[i] = (int32_t)(c->held.n + i);
    *item = (struct sl_lm_item){
        .seq = c->seq,
        .ids = r->prompt + c->held.n,
        .positions = c->positions,
        .n = r->s.n_positions,
        .n_logits = 1,
        .reads = true,
    };
}

static int run_want(struct sl_sequence *s, struct sl_lm_item *items,
                    const struct sl_deal *drafts, struct sl_error *err)
{
    struct run *r = (struct run *)s;
    struct sl_causal *c = r->c;
    struct sl_tree *t = &c->tree;
    uint32_t n = drafts != NULL ? drafts->n : 0;
    const struct sl_draft_place at = {
        .seq = c->seq,
        .n_held = (uint32_t)c->held.n,
        .positions = t->position_at,
    };

    if (s->reads) {
        want_prompt(r, items);
        return 0;
    }
    sl_tree_begin(t, c->last);
    for (uint32_t i = 0; i < 1 + n; i++)
        t->position_at[i] = (int32_t)(c->held.n + i);
    if (sl_drafter_propose(&c->drafter, c->lm, &at, t, drafts, err) != 0)
        return -1;
    items[0] = sl_tree_item(t, c->seq, 0, false);
    s->n_positions = s->n_rows = t->n;
    return 0;
}

/* As transformers' RepetitionPenaltyLogitsProcessor has it: an id counts once,
 * however often it came. */
static void punish(struct run *r, float *l)
{
    const struct sl_causal *c = r->c;
    float penalty = (float)r->config->repetition_penalty;

    if (r->config->repetition_penalty == 1 ||
        r->config->repetition_penalty <= 0)
        return;
    memset(c->seen, 0, c->lm->vocab / 8 + 1);
    for (size_t i = 0; i < c->held.n; i++) {
        int32_t id = c->held.v[i];

        if (c->seen[id / 8] >> id % 8 & 1)
            continue;
        c->seen[id / 8] |= (uint8_t)(1u << id % 8);
        l[id] = l[id] > 0 ? l[id] / penalty : l[id] * penalty;
    }
}

/* Rows of the embedding behind the vocabulary's last id (n_tokens) are padding,
 * and never said. */
static int choose(struct run *r, float *l, int32_t *id, struct sl_error *err)
{
    const struct sl_causal *c = r->c;
    uint32_t vocab = c->lm->vocab, n = r->config->n_tokens;

    if (sl_row_check(l, vocab, err) != 0)
        return -1;
    punish(r, l);
    for (uint32_t i = n; n > 0 && i < vocab; i++)
        l[i] = SL_BANNED;
    sl_sampler_filter(l, vocab, &r->config->sampler, c->scratch);
    *id = sl_sampler_draw(l, vocab, r->rng);
    if (r->result->first_token_ns == 0)
        r->result->first_token_ns = sl_clock_ns() - r->start_ns;
    return 0;
}

static bool is_stop(const struct sl_causal_config *config, int32_t id)
{
    for (size_t i = 0; i < config->n_stops; i++) {
        if (config->stops[i] == id)
            return true;
    }
    return false;
}

/* The next id of a row, which is to be fed then. */
static int say(struct run *r, float *row, struct sl_error *err)
{
    struct sl_causal *c = r->c;
    struct sl_ids *said = &r->result->ids;
    bool enough = false;
    int32_t id = -1;

    if (choose(r, row, &id, err) != 0)
        return -1;
    r->s.n_tokens++;
    if (is_stop(r->config, id))
        return end(r, SL_CAUSAL_STOP);
    if (sl_ids_add(said, id, err) != 0 ||
        (r->sink != NULL &&
         r->sink->id(r->sink->opaque, id, &enough, err) != 0))
        return -1;
    sl_drafter_add(&c->drafter, id);
    if (enough)
        return end(r, SL_CAUSAL_ENOUGH);
    if (said->n == r->config->max_new)
        return end(r, SL_CAUSAL_LENGTH);
    if (c->held.n == c->lm->max_tokens)
        return end(r, SL_CAUSAL_FULL);
    c->last = id;
    return 0;
}

/* Says id after id as long as what was said was fed; the rest is cut off
 * again. */
static int feed_said(struct run *r, float *rows, struct sl_error *err)
{
    struct sl_causal *c = r->c;
    struct sl_tree *t = &c->tree;
    uint32_t held = (uint32_t)c->held.n, node = sl_tree_walk_begin(t);

    while (node != SL_LM_ROOT) {
        if (sl_ids_add(&c->held, t->ids[node], err) != 0 ||
            say(r, rows + (size_t)node * c->lm->vocab, err) != 0)
            return -1;
        node = r->s.over ? SL_LM_ROOT : sl_tree_walk(t, c->last);
    }
    sl_drafter_note(&c->drafter, t);
    return sl_tree_keep(t, c->lm, c->seq, held, err);
}

/* Only behind the last part of a prompt there is something to say. */
static int run_feed(struct sl_sequence *s, float *logits, struct sl_error *err)
{
    struct run *r = (struct run *)s;
    struct sl_causal *c = r->c;

    s->n_tokens = 0;
    if (!s->reads)
        return feed_said(r, logits, err);
    if (sl_ids_append(&c->held, r->prompt + c->held.n, s->n_positions, err))
        return -1;
    r->result->n_read += s->n_positions;
    return reading(r) ? 0 : say(r, logits, err);
}

static const struct sl_sequence_ops run_ops = {
    .next = run_next,
    .offer = run_offer,
    .want = run_want,
    .feed = run_feed,
};

/* One pass. What an interrupted one has fed is not held. */
static int step(struct run *r, struct sl_error *err)
{
    struct sl_causal *c = r->c;
    struct sl_sequence *s = &r->s;

    if (run_next(s, err) != 0)
        return -1;
    if (sl_stepper_run(&c->stepper, &s, 1, err) == 0)
        return 0;
    if (!c->stepper.interrupted)
        return -1;
    c->lm->ops->seq_cut(c->lm, c->seq, (uint32_t)c->held.n);
    return end(r, SL_CAUSAL_INTERRUPTED);
}

int sl_causal_run(struct sl_causal *c, const int32_t *prompt, size_t n,
                  const struct sl_causal_config *config, struct sl_rng *rng,
                  const struct sl_causal_sink *sink,
                  struct sl_causal_result *result, struct sl_error *err)
{
    struct run r = {
        .s = {.ops = &run_ops},
        .c = c,
        .config = config,
        .rng = rng,
        .sink = sink,
        .result = result,
        .start_ns = sl_clock_ns(),
        .prompt = prompt,
        .n_prompt = n,
    };
    int rc;

    if (n >= c->lm->max_tokens)
        return sl_fail(err, SL_ERR_USAGE,
                       "text too long: %zu tokens leave no room for an answer "
                       "among %u",
                       n, c->lm->max_tokens);
    rc = keep_prompt(&r, err);
    while (rc == 0 && !r.s.over)
        rc = step(&r, err);
    if (rc != 0)
        sl_causal_forget(c);
    return rc;
}
