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
    uint32_t seq, held; /* positions that it holds */
    uint32_t left;      /* tokens that are still to come */
    uint32_t n_fed;
    int32_t *ids, *positions, *blocks; /* (1 + drafts) of what is fed */
};

struct sl_bench_texts {
    struct sl_lm *lm;
    struct sl_drafts *drafts;
    struct sl_stepper stepper;
    struct text *texts;        /* (n) */
    struct sl_sequence **pass; /* (n) */
    int32_t *fed;              /* where the texts' ids lie */
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

static int text_want(struct sl_sequence *s, struct sl_lm_item *items,
                     const uint32_t *drafts, struct sl_error *err)
{
    struct text *t = (struct text *)s;
    const int32_t *blocks = t->all->two_d ? t->blocks : NULL;
    struct sl_draft_place at = {
        .seq = t->seq,
        .n_held = t->held,
        .n_context = t->all->prompt,
        .last = t->ids[0],
        .positions = t->positions,
        .blocks = blocks,
    };
    uint32_t n = 0;

    for (uint32_t k = 0; k <= (drafts != NULL ? *drafts : 0); k++)
        t->positions[k] = t->blocks[k] = (int32_t)(t->held + k);
    if (drafts != NULL &&
        sl_drafter_propose(&t->drafter, &at, t->ids + 1, *drafts, &n, err) != 0)
        return -1;
    s->n_positions = s->n_rows = t->n_fed = 1 + n;
    items[0] = (struct sl_lm_item){
        .seq = t->seq,
        .ids = t->ids,
        .positions = t->positions,
        .blocks = blocks,
        .n = t->n_fed,
        .n_context = t->all->prompt,
        .n_logits = t->n_fed,
        .apart = n > 0,
    };
    return 0;
}

static int text_feed(struct sl_sequence *s, float *logits, struct sl_error *err)
{
    struct text *t = (struct text *)s;
    struct sl_lm *lm = t->all->lm;
    int32_t next = 0;
    uint32_t k;

    for (k = 0; k < t->n_fed; k++, logits += lm->vocab) {
        if (k > 0 && t->ids[k] != next)
            break;
        next = sl_argmax(logits, lm->vocab);
        sl_drafter_add(&t->drafter, next);
    }
    sl_drafter_note(&t->drafter, t->n_fed - 1, k - 1);
    s->n_tokens = k;
    t->left -= k;
    t->held += k;
    if (k < t->n_fed)
        lm->ops->seq_cut(lm, t->seq, t->held);
    t->ids[0] = next;
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
    size_t room = 1 + t->drafts->gate.most;

    t->texts = sl_zalloc_array(t->n, sizeof *t->texts);
    t->pass = sl_zalloc_array(t->n, sizeof *t->pass);
    t->fed = sl_zalloc_array(t->n * room, 3 * sizeof *t->fed);
    if (t->texts == NULL || t->pass == NULL || t->fed == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory for %u texts", t->n);
    t->stepper.lm = t->lm;
    t->stepper.drafts = t->drafts;
    if (sl_stepper_init(&t->stepper, t->n, t->n, err) != 0)
        return -1;
    for (uint32_t i = 0; i < t->n; i++) {
        struct text *x = &t->texts[i];

        x->s.ops = &text_ops;
        x->all = t;
        x->ids = t->fed + 3 * room * i;
        x->positions = x->ids + room;
        x->blocks = x->positions + room;
        if (sl_drafter_init(&x->drafter, t->drafts, t->lm->max_tokens, err))
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
    for (uint32_t i = 0; t->texts != NULL && i < t->n; i++)
        sl_drafter_fini(&t->texts[i].drafter);
    sl_stepper_fini(&t->stepper);
    free(t->texts);
    free(t->pass);
    free(t->fed);
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
        x->ids[0] = sl_argmax(logits + (size_t)i * t->lm->vocab, t->lm->vocab);
        sl_drafter_add(&x->drafter, x->ids[0]);
    }
    return sl_bench_texts_run(t, 1, err);
}
