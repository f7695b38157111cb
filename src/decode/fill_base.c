#include "config.h"

#include "src/decode/blank.h"

static bool is_end(const struct sl_fill_common *c, int32_t id)
{
    for (size_t i = 0; i < c->n_ends; i++) {
        if (c->ends[i] == id)
            return true;
    }
    return false;
}

static void ban(float *logits, const int32_t *ids, size_t n)
{
    for (size_t i = 0; i < n; i++)
        logits[ids[i]] = SL_BANNED;
}

static int32_t choose(struct sl_blank *p, float *logits)
{
    const struct sl_fill_common *c = p->c;

    ban(logits, c->banned, c->n_banned);
    if (p->answers[0].ids.n < c->config->min_gen_length)
        ban(logits, c->ends, c->n_ends);
    sl_sampler_filter(logits, c->lm->vocab, &c->config->sampler, c->scratch);
    return sl_sampler_draw(logits, c->lm->vocab, p->rng);
}

int sl_base_begin(struct sl_blank *p, struct sl_error *err)
{
    struct sl_lm *lm = p->c->lm;

    if (lm->ops->seq_create(lm, &p->first_seq, err) != 0)
        return -1;
    p->has_seq = true;
    return 0;
}

size_t sl_base_want(struct sl_blank *p, struct sl_lm_item *items)
{
    items[0] = (struct sl_lm_item){
        .seq = p->first_seq,
        .ids = &p->last,
        .positions = &p->place[0],
        .blocks = p->c->hp->position_2d ? &p->place[1] : NULL,
        .n = 1,
        .n_context = sl_blank_context(p),
        .n_logits = 1,
    };
    return 1;
}

int sl_base_feed(struct sl_blank *p, float *logits, struct sl_error *err)
{
    struct sl_ids *out = &p->answers[0].ids;

    p->last = choose(p, logits);
    p->place[0] = sl_blank_position(p, out->n, &p->place[1]);
    p->done = is_end(p->c, p->last);
    if (p->done)
        return 0;
    if (sl_ids_add(out, p->last, err) != 0)
        return -1;
    p->done = out->n == p->max_new;
    if (p->sink == NULL)
        return 0;
    return p->sink->ids(p->sink->opaque, &p->last, 1, true, err);
}

void sl_base_close(struct sl_blank *p)
{
    struct sl_lm *lm = p->c->lm;

    if (p->has_seq)
        lm->ops->seq_destroy(lm, p->first_seq);
    p->has_seq = false;
}
