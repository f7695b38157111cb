#include "config.h"

#include "src/fill_pass.h"

static bool is_end(const struct sl_pass *p, int32_t id)
{
    for (size_t i = 0; i < p->n_ends; i++) {
        if (p->ends[i] == id)
            return true;
    }
    return false;
}

static void ban(struct sl_pass *p, const int32_t *ids, size_t n)
{
    for (size_t i = 0; i < n; i++)
        p->logits[ids[i]] = SL_BANNED;
}

static int32_t choose(struct sl_pass *p, size_t n_generated)
{
    ban(p, p->banned, p->n_banned);
    if (n_generated < p->config->min_gen_length)
        ban(p, p->ends, p->n_ends);
    sl_sampler_filter(p->logits, p->lm->vocab, &p->config->sampler, p->scratch);
    return sl_sampler_draw(p->logits, p->lm->vocab, p->rng);
}

static int forward_one(struct sl_pass *p, uint32_t seq, int32_t id, size_t n,
                       struct sl_error *err)
{
    int32_t block, position = sl_pass_position(p, n, &block);
    struct sl_lm_item item = {
        .seq = seq,
        .ids = &id,
        .positions = &position,
        .blocks = p->hp->position_2d ? &block : NULL,
        .n = 1,
        .n_context = (uint32_t)p->context->n,
        .n_logits = 1,
    };

    return p->lm->ops->forward(p->lm, &item, 1, p->logits, err);
}

static int generate(struct sl_pass *p, uint32_t seq, struct sl_error *err)
{
    struct sl_ids *out = &p->answers[0].ids;

    for (;;) {
        int32_t id;

        if (sl_pass_check(p, 1, err) != 0)
            return -1;
        id = choose(p, out->n);
        if (is_end(p, id))
            return 0;
        if (sl_ids_add(out, id, err) != 0)
            return -1;
        if (p->sink != NULL &&
            p->sink->ids(p->sink->opaque, &id, 1, true, err) != 0)
            return -1;
        if (out->n == p->max_new)
            return 0;
        if (forward_one(p, seq, id, out->n - 1, err) != 0)
            return sl_pass_stopped(p, err) ? 0 : -1;
    }
}

int sl_pass_run_base(struct sl_pass *p, struct sl_error *err)
{
    uint32_t seq;
    int rc = 0;

    p->n_answers = 1;
    p->answers[0].score = 0;
    if (p->lm->ops->seq_create(p->lm, &seq, err) != 0)
        return -1;
    if (sl_pass_prefill(p, seq, err) == 0)
        rc = generate(p, seq, err);
    else if (!sl_pass_stopped(p, err))
        rc = -1;
    p->lm->ops->seq_destroy(p->lm, seq);
    return rc;
}
