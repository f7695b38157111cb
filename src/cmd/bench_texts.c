#include "config.h"

#include <stdlib.h>

#include "src/base/mem.h"
#include "src/cmd/bench_texts.h"
#include "src/decode/sampler.h"
#include "src/decode/sequence.h"

struct text {
    struct sl_sequence s; /* first */
    struct sl_bench_texts *all;
    struct sl_drafter drafter;
    uint32_t seq, held;  /* positions that it holds */
    uint32_t left;       /* tokens that are still to come */
    int32_t last;        /* said, not fed yet */
    struct sl_tree tree; /* what is fed */
};

struct sl_bench_texts {
    struct sl_lm *lm;
    struct sl_drafts *drafts;
    struct sl_stepper stepper;
    struct text *texts;        /* (n) */
    struct sl_sequence **pass; /* (n) */
    uint32_t n, prompt;
    bool two_d;
};

static int text_next(struct sl_sequence *s, struct sl_error *err)
{
    s->n_items = s->n_positions = s->n_rows = 1;
    s->over = ((struct text *)s)->left == 0;
    return 0;
}

static void text_offer(struct sl_sequence *s, struct sl_offer *offers,
                       uint32_t most)
{
    struct text *t = (struct text *)s;
    uint32_t left = t->left - 1;

    *offers = sl_drafter_offer(&t->drafter, left < most ? left : most);
}

/* What a text feeds: its last token and guesses behind it, positions counted
 * from what the cache holds. */
static int text_want(struct sl_sequence *s, struct sl_lm_item *items,
                     const struct sl_deal *drafts, struct sl_error *err)
{
    struct text *t = (struct text *)s;
    struct sl_tree *tree = &t->tree;
    uint32_t n = drafts != NULL ? drafts->n : 0;
    const struct sl_draft_place at = {
        .seq = t->seq,
        .n_held = t->held,
        .n_context = t->all->prompt,
        .positions = tree->position_at,
        .blocks = t->all->two_d ? tree->block_at : NULL,
    };

    sl_tree_begin(tree, t->last);
    for (uint32_t k = 0; k <= n; k++)
        tree->position_at[k] = tree->block_at[k] = (int32_t)(t->held + k);
    if (sl_drafter_propose(&t->drafter, t->all->lm, &at, tree, drafts, err) !=
        0)
        return -1;
    s->n_positions = s->n_rows = tree->n;
    items[0] = sl_tree_item(tree, t->seq, t->all->prompt, t->all->two_d);
    return 0;
}

/* Greedy, since a benchmark is the same each time: of the guesses those stay
 * that are what the row before them chooses, the rest is cut off again. */
static int text_feed(struct sl_sequence *s, float *logits, struct sl_error *err)
{
    struct text *t = (struct text *)s;
    struct sl_tree *tree = &t->tree;
    struct sl_lm *lm = t->all->lm;
    uint32_t node = sl_tree_walk_begin(tree);

    while (node != SL_LM_ROOT) {
        t->last = sl_argmax(logits + (size_t)node * lm->vocab, lm->vocab);
        sl_drafter_add(&t->drafter, t->last);
        node = sl_tree_walk(tree, t->last);
    }
    sl_drafter_note(&t->drafter, tree);
    s->n_tokens = tree->n_path;
    if (sl_tree_keep(tree, lm, t->seq, t->held, err) != 0)
        return -1;
    t->left -= tree->n_path;
    t->held += tree->n_path;
    return 0;
}

static const struct sl_sequence_ops text_ops = {
    .next = text_next,
    .offer = text_offer,
    .want = text_want,
    .feed = text_feed,
};

static int allocate(struct sl_bench_texts *t, struct sl_error *err)
{
    uint32_t room = 1 + t->drafts->gate.most;

    t->texts = sl_zalloc_array(t->n, sizeof *t->texts);
    t->pass = sl_zalloc_array(t->n, sizeof *t->pass);
    if (t->texts == NULL || t->pass == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory for %u texts", t->n);
    t->stepper.lm = t->lm;
    t->stepper.drafts = t->drafts;
    if (sl_stepper_init(&t->stepper, t->n, t->n, err) != 0)
        return -1;
    for (uint32_t i = 0; i < t->n; i++) {
        struct text *x = &t->texts[i];

        x->s.ops = &text_ops;
        x->all = t;
        if (sl_tree_init(&x->tree, room, err) != 0 ||
            sl_drafter_init(&x->drafter, t->drafts, t->lm->max_tokens, err))
            return -1;
    }
    return 0;
}

int sl_bench_texts_create(struct sl_bench_texts **out, struct sl_lm *lm,
                          struct sl_drafts *drafts, uint32_t n, uint32_t prompt,
                          bool two_d, struct sl_error *err)
{
    struct sl_bench_texts *t = sl_zalloc_array(1, sizeof *t);

    if (t == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory for %u texts", n);
    t->lm = lm;
    t->drafts = drafts;
    t->n = n;
    t->prompt = prompt;
    t->two_d = two_d;
    if (allocate(t, err) != 0) {
        sl_bench_texts_destroy(t);
        return -1;
    }
    *out = t;
    return 0;
}

void sl_bench_texts_destroy(struct sl_bench_texts *t)
{
    if (t == NULL)
        return;
    for (uint32_t i = 0; t->texts != NULL && i < t->n; i++) {
        sl_drafter_fini(&t->texts[i].drafter);
        sl_tree_fini(&t->texts[i].tree);
    }
    sl_stepper_fini(&t->stepper);
    free(t->texts);
    free(t->pass);
    free(t);
}

int sl_bench_texts_run(struct sl_bench_texts *t, uint32_t gen,
                       struct sl_error *err)
{
    for (uint32_t i = 0; i < t->n; i++)
        t->texts[i].left = gen;
    for (;;) {
        size_t n = 0;

        for (uint32_t i = 0; i < t->n; i++) {
            struct sl_sequence *s = &t->texts[i].s;

            if (text_next(s, err) != 0)
                return -1;
            if (!s->over)
                t->pass[n++] = s;
        }
        if (n == 0)
            return 0;
        if (sl_stepper_run(&t->stepper, t->pass, n, err) != 0)
            return -1;
    }
}

int sl_bench_texts_begin(struct sl_bench_texts *t, const uint32_t *seqs,
                         const int32_t *ids, const float *logits,
                         struct sl_error *err)
{
    for (uint32_t i = 0; i < t->n; i++) {
        struct text *x = &t->texts[i];
        const int32_t *own = ids + (size_t)i * t->prompt;
        const struct sl_draft_text text = {
            .ids = own,
            .n = t->prompt,
            .context = own,
            .n_context = t->prompt,
            .mask_at = t->prompt,
            .gmask = true,
        };

        if (sl_drafter_begin(&x->drafter, &text, err) != 0)
            return -1;
        x->seq = seqs[i];
        x->held = t->prompt;
        x->last = sl_argmax(logits + (size_t)i * t->lm->vocab, t->lm->vocab);
        sl_drafter_add(&x->drafter, x->last);
    }
    return sl_bench_texts_run(t, 1, err);
}
