#include "config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/clock.h"
#include "src/base/mem.h"
#include "src/decode/causal.h"

struct sl_causal {
    struct sl_lm *lm;
    uint32_t pass_positions;
    uint32_t seq;
    bool has_seq;
    struct sl_ids held; /* what the sequence holds */
    int32_t *positions; /* (pass_positions) */
    float *logits;      /* (vocab) */
    void *scratch;      /* of the sampler */
    uint8_t *seen;      /* (vocab) bits: the text has the id */
};

/* A run on its way. */
struct run {
    struct sl_causal *c;
    const struct sl_causal_config *config;
    struct sl_rng *rng;
    const struct sl_causal_sink *sink;
    struct sl_causal_result *result;
    uint64_t start_ns;
    bool over;
};

void sl_causal_workload(struct sl_workload *load, uint32_t max_tokens,
                        uint32_t pass_positions)
{
    *load = (struct sl_workload){
        .n_sequences = 1,
        .max_tokens = max_tokens,
        .pass_positions =
            pass_positions < max_tokens ? pass_positions : max_tokens,
        .pass_logits = 1,
        .n_texts = 1,
    };
}

int sl_causal_create(struct sl_causal **out, struct sl_lm *lm,
                     uint32_t pass_positions, struct sl_error *err)
{
    struct sl_causal *c = sl_zalloc_array(1, sizeof *c);

    if (c != NULL) {
        c->lm = lm;
        c->pass_positions = pass_positions;
        c->positions = sl_alloc_array(pass_positions, sizeof *c->positions);
        c->logits = sl_alloc_array(lm->vocab, sizeof *c->logits);
        c->scratch = malloc(sl_sampler_scratch_bytes(lm->vocab));
        c->seen = malloc(lm->vocab / 8 + 1);
    }
    if (c == NULL || c->positions == NULL || c->logits == NULL ||
        c->scratch == NULL || c->seen == NULL) {
        sl_causal_destroy(c);
        return sl_fail(err, SL_ERR_NOMEM,
                       "out of memory to choose among %u tokens", lm->vocab);
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
    free(c->positions);
    free(c->logits);
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
    r->over = true;
    return 0;
}

/* One pass: these ids behind those that are held, which they join. */
static int feed(struct run *r, const int32_t *ids, uint32_t n,
                struct sl_error *err)
{
    struct sl_causal *c = r->c;
    struct sl_lm_item item = {
        .seq = c->seq,
        .ids = ids,
        .positions = c->positions,
        .n = n,
        .n_logits = 1,
    };
    size_t held = c->held.n;

    for (uint32_t i = 0; i < n; i++)
        c->positions[i] = (int32_t)(held + i);
    if (sl_ids_append(&c->held, ids, n, err) != 0)
        return -1;
    if (c->lm->ops->forward(c->lm, &item, 1, c->logits, err) == 0)
        return 0;
    if (err->code != SL_ERR_INTERRUPTED)
        return -1;
    c->held.n = held;
    c->lm->ops->seq_cut(c->lm, c->seq, (uint32_t)held);
    return end(r, SL_CAUSAL_INTERRUPTED);
}

/* What is held and begins the prompt stays; the rest is read. */
static int read_prompt(struct run *r, const int32_t *prompt, size_t n,
                       struct sl_error *err)
{
    struct sl_causal *c = r->c;
    size_t at = 0;

    if (!c->has_seq) {
        if (c->lm->ops->seq_create(c->lm, &c->seq, err) != 0)
            return -1;
        c->has_seq = true;
    }
    while (at < c->held.n && at < n - 1 && c->held.v[at] == prompt[at])
        at++;
    if (at < c->held.n)
        c->lm->ops->seq_cut(c->lm, c->seq, (uint32_t)at);
    c->held.n = at;
    r->result->n_kept = (uint32_t)at;
    while (at < n && !r->over) {
        size_t left = n - at;
        uint32_t now =
            left < c->pass_positions ? (uint32_t)left : c->pass_positions;

        if (feed(r, prompt + at, now, err) != 0)
            return -1;
        at += now;
    }
    r->result->n_read = (uint32_t)(c->held.n - r->result->n_kept);
    return 0;
}

static void punish(struct run *r)
{
    const struct sl_causal *c = r->c;
    float penalty = (float)r->config->repetition_penalty;
    float *l = c->logits;

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

static int choose(struct run *r, int32_t *id, struct sl_error *err)
{
    const struct sl_causal *c = r->c;
    uint32_t vocab = c->lm->vocab, n = r->config->n_tokens;

    for (uint32_t i = 0; i < vocab; i++) {
        if (!isfinite(c->logits[i]))
            return sl_fail(err, SL_ERR_CORRUPT,
                           "the model's output is not a number (logit %u of "
                           "%u): damaged weights? 'sluice verify' tells",
                           i, vocab);
    }
    punish(r);
    for (uint32_t i = n; n > 0 && i < vocab; i++)
        c->logits[i] = SL_BANNED;
    sl_sampler_filter(c->logits, vocab, &r->config->sampler, c->scratch);
    *id = sl_sampler_draw(c->logits, vocab, r->rng);
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

/* The next id, and what the model makes of it. */
static int step(struct run *r, struct sl_error *err)
{
    struct sl_causal *c = r->c;
    struct sl_ids *said = &r->result->ids;
    bool enough = false;
    int32_t id;

    if (choose(r, &id, err) != 0)
        return -1;
    if (is_stop(r->config, id))
        return end(r, SL_CAUSAL_STOP);
    if (sl_ids_add(said, id, err) != 0 ||
        (r->sink != NULL &&
         r->sink->id(r->sink->opaque, id, &enough, err) != 0))
        return -1;
    if (enough)
        return end(r, SL_CAUSAL_ENOUGH);
    if (said->n == r->config->max_new)
        return end(r, SL_CAUSAL_LENGTH);
    if (c->held.n == c->lm->max_tokens)
        return end(r, SL_CAUSAL_FULL);
    return feed(r, &id, 1, err);
}

int sl_causal_run(struct sl_causal *c, const int32_t *prompt, size_t n,
                  const struct sl_causal_config *config, struct sl_rng *rng,
                  const struct sl_causal_sink *sink,
                  struct sl_causal_result *result, struct sl_error *err)
{
    struct run r = {
        .c = c,
        .config = config,
        .rng = rng,
        .sink = sink,
        .result = result,
        .start_ns = sl_clock_ns(),
    };
    int rc;

    if (n >= c->lm->max_tokens)
        return sl_fail(err, SL_ERR_USAGE,
                       "text too long: %zu tokens leave no room for an answer "
                       "among %u",
                       n, c->lm->max_tokens);
    rc = read_prompt(&r, prompt, n, err);
    while (rc == 0 && !r.over)
        rc = step(&r, err);
    if (rc != 0)
        sl_causal_forget(c);
    return rc;
}
