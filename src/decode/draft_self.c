#include "config.h"

#include <stdlib.h>

#include "src/base/mem.h"
#include "src/decode/draft_self.h"

struct self {
    struct sl_draft draft; /* first */
    const struct sl_draft_self *of;
};

static void self_destroy(struct sl_draft *d)
{
    free(d);
}

/* The sequence is the text's own: nothing is to be followed. */
static int self_begin(struct sl_draft *d, const struct sl_draft_text *t,
                      struct sl_error *err)
{
    return 0;
}

static void self_add(struct sl_draft *d, int32_t id)
{
}

static uint32_t self_offer(struct sl_draft *d, uint32_t most,
                           uint32_t *strength)
{
    *strength = 0;
    return most;
}

static int32_t likeliest(const struct sl_draft_self *of)
{
    uint32_t best = 0;

    for (uint32_t i = 1; i < of->lm->vocab; i++)
        best = of->logits[i] > of->logits[best] ? i : best;
    return (int32_t)best;
}

/* An interrupted guess is none; whoever runs the whole model hears of it. */
static int self_propose(struct sl_draft *d, const struct sl_draft_place *at,
                        int32_t *ids, uint32_t n, uint32_t *made,
                        struct sl_error *err)
{
    const struct sl_draft_self *of = ((struct self *)d)->of;
    int32_t last = at->last;
    int rc = 0;

    for (*made = 0; *made < n && rc == 0;) {
        const struct sl_lm_item item = {
            .seq = at->seq,
            .ids = &last,
            .positions = at->positions + *made,
            .blocks = at->blocks != NULL ? at->blocks + *made : NULL,
            .n = 1,
            .n_context = at->n_context,
            .n_logits = 1,
            .apart = true,
        };

        rc = of->lm->ops->guess(of->lm, &item, 1, of->logits, err);
        if (rc == 0)
            ids[(*made)++] = last = likeliest(of);
    }
    of->lm->ops->seq_cut(of->lm, at->seq, at->n_held);
    return rc < 0 && err->code != SL_ERR_INTERRUPTED ? -1 : 0;
}

static const struct sl_draft_ops self_ops = {
    .begin = self_begin,
    .add = self_add,
    .offer = self_offer,
    .propose = self_propose,
    .destroy = self_destroy,
};

static int self_create(struct sl_draft **d, uint32_t max_tokens, void *arg,
                       struct sl_error *err)
{
    struct self *s = sl_zalloc_array(1, sizeof *s);

    if (s == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory for guesses");
    s->draft.ops = &self_ops;
    s->of = arg;
    *d = &s->draft;
    return 0;
}

static uint64_t self_bytes(uint32_t max_tokens)
{
    return sizeof(struct self);
}

const struct sl_draft_kind sl_draft_self_kind = {
    .name = "self",
    .prior = {0.8, 0.8, 0.8, 0.8},
    .bytes = self_bytes,
    .create = self_create,
    .costs = true,
};
