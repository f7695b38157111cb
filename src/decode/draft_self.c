#include "config.h"

#include <stdlib.h>

#include "src/base/mem.h"
#include "src/decode/draft_grow.h"
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

/* A proposal on its way. */
struct ask {
    const struct sl_draft_self *of;
    const struct sl_draft_place *at;
};

static int ask(void *opaque, const int32_t *ids, const uint32_t *parents,
               const uint32_t *depths, uint32_t n_before, uint32_t n,
               const float **rows, struct sl_error *err)
{
    const struct ask *a = opaque;
    struct sl_lm *lm = a->of->lm;
    int32_t positions[SL_LM_TREE], blocks[SL_LM_TREE];
    const struct sl_lm_item item = {
        .seq = a->at->seq,
        .ids = ids,
        .positions = positions,
        .blocks = a->at->blocks != NULL ? blocks : NULL,
        .n = n,
        .n_context = a->at->n_context,
        .n_logits = n,
        .apart = true,
        .parents = parents,
        .n_tree = n_before,
    };

    for (uint32_t i = 0; i < n; i++) {
        positions[i] = a->at->positions[depths[i]];
        if (a->at->blocks != NULL)
            blocks[i] = a->at->blocks[depths[i]];
    }
    *rows = a->of->logits;
    return lm->ops->guess(lm, &item, 1, a->of->logits, err);
}

/* An interrupted guess is none; whoever runs the whole model hears of it. */
static int self_propose(struct sl_draft *d, const struct sl_draft_place *at,
                        struct sl_tree *tree, uint32_t n, struct sl_error *err)
{
    const struct sl_draft_self *of = ((struct self *)d)->of;
    struct ask a = {of, at};
    const struct sl_grower g = {
        .feed = ask,
        .opaque = &a,
        .vocab = of->lm->vocab,
        .stride = of->lm->vocab,
        .most_rows = of->rows,
    };
    int rc = sl_tree_grow(tree, n, &g, err);

    of->lm->ops->seq_cut(of->lm, at->seq, at->n_held);
    return rc != 0 && err->code != SL_ERR_INTERRUPTED ? -1 : 0;
}

static bool self_branches(struct sl_draft *d)
{
    return true;
}

static const struct sl_draft_ops self_ops = {
    .begin = self_begin,
    .add = self_add,
    .offer = self_offer,
    .branches = self_branches,
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
