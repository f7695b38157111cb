#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "tests/support.h"
#include "tests/witness.h"

static int seq_create(struct sl_lm *lm, uint32_t *seq, struct sl_error *err)
{
    struct witness *w = (struct witness *)lm;

    w->held = 0;
    if (w->inner->ops->seq_create(w->inner, seq, err) != 0)
        return -1;
    w->seq = *seq;
    return 0;
}

static int seq_fork(struct sl_lm *lm, uint32_t *seq, uint32_t from,
                    struct sl_error *err)
{
    struct witness *w = (struct witness *)lm;

    return w->inner->ops->seq_fork(w->inner, seq, from, err);
}

static void seq_destroy(struct sl_lm *lm, uint32_t seq)
{
    struct witness *w = (struct witness *)lm;

    w->inner->ops->seq_destroy(w->inner, seq);
}

static void seq_cut(struct sl_lm *lm, uint32_t seq, uint32_t n)
{
    struct witness *w = (struct witness *)lm;

    if (seq == w->seq)
        w->held = n;
    w->inner->ops->seq_cut(w->inner, seq, n);
}

static int seq_pick(struct sl_lm *lm, uint32_t seq, uint32_t n,
                    const uint32_t *path, uint32_t n_path, struct sl_error *err)
{
    struct witness *w = (struct witness *)lm;

    for (uint32_t i = 0; i < n_path; i++)
        memmove(w->rows + (size_t)(n + i) * lm->vocab,
                w->rows + (size_t)(n + path[i]) * lm->vocab, 4ull * lm->vocab);
    w->held = n + n_path;
    return w->inner->ops->seq_pick(w->inner, seq, n, path, n_path, err);
}

int32_t test_stands_at(const struct sl_lm_item *item, uint32_t i)
{
    return item->positions[i] + (item->blocks != NULL ? item->blocks[i] : 0);
}

static int forward(struct sl_lm *lm, const struct sl_lm_item *items, size_t n,
                   float *logits, struct sl_error *err)
{
    struct witness *w = (struct witness *)lm;

    assert_int_equal(n, 1);
    assert_in_range(w->held + items->n, 1, TEST_TEXT_LENGTH);
    if (w->held == 0)
        w->from = test_stands_at(items, items->n - 1);
    if (w->inner->ops->forward(w->inner, items, n, logits, err) != 0)
        return -1;
    w->held += items->n;
    memcpy(w->rows + (size_t)(w->held - items->n_logits) * lm->vocab, logits,
           4ull * items->n_logits * lm->vocab);
    return 0;
}

static int guess(struct sl_lm *lm, const struct sl_lm_item *items, size_t n,
                 float *logits, struct sl_error *err)
{
    struct witness *w = (struct witness *)lm;

    return w->inner->ops->guess(w->inner, items, n, logits, err);
}

static void guess_ahead(struct sl_lm *lm, struct sl_lm_ahead *ahead)
{
    struct witness *w = (struct witness *)lm;

    w->inner->ops->guess_ahead(w->inner, ahead);
}

static const struct sl_lm_ops witness_ops = {
    .seq_create = seq_create,
    .seq_fork = seq_fork,
    .seq_destroy = seq_destroy,
    .seq_cut = seq_cut,
    .seq_pick = seq_pick,
    .forward = forward,
    .guess = guess,
    .guess_ahead = guess_ahead,
};

static int listen(void *opaque, const int32_t *ids, size_t n, bool blank,
                  struct sl_error *err)
{
    return blank ? sl_ids_append(opaque, ids, n, err) : 0;
}

/* A text with its blank in the middle, or a beginning; ids that repeat, so
 * that there is something to look up. */
static void make_prompt(struct sl_prompt *p, const struct sl_hparams *hp,
                        bool gmask)
{
    struct sl_error err;

    *p = (struct sl_prompt){.gmask = gmask};
    p->mask = hp->causal ? SL_PROMPT_END
              : gmask    ? hp->text.special.gmask
                         : hp->text.special.mask;
    for (int32_t i = 0; i < 12; i++) {
        if (i == 7 && !gmask && !hp->causal)
            assert_ok(sl_ids_add(&p->ids, p->mask, &err), &err);
        assert_ok(sl_ids_add(&p->ids, 8 + i % 5, &err), &err);
    }
    if (gmask || hp->causal)
        assert_ok(sl_ids_add(&p->ids, p->mask, &err), &err);
}

int test_speak_to(struct said *s, struct witness *w, struct sl_lm *inner,
                  const struct sl_hparams *hp,
                  const struct sl_fill_config *config, bool gmask,
                  struct sl_error *err)
{
    const struct sl_fill_sink sink = {listen, &s->ids};
    struct sl_fill_result result;
    struct sl_prompt prompt;
    int rc;

    *s = (struct said){
        .rows = calloc((TEST_TEXT_LENGTH + 1) * (size_t)inner->vocab,
                       sizeof(float)),
    };
    *w = (struct witness){.lm = *inner, .inner = inner, .rows = s->rows};
    w->lm.ops = &witness_ops;
    make_prompt(&prompt, hp, gmask);
    sl_rng_seed(&s->rng, 11);
    rc = sl_fill(&result, &w->lm, &prompt, hp, config, &s->rng, &sink, err);
    s->n_rows = (uint32_t)(prompt.ids.n + s->ids.n - hp->causal);
    s->interrupted = rc == 0 && result.interrupted;
    if (rc == 0)
        sl_fill_result_fini(&result);
    sl_prompt_fini(&prompt);
    return rc;
}

struct said test_speak(struct sl_lm *inner, const struct sl_hparams *hp,
                       const struct sl_fill_config *config, bool gmask)
{
    struct sl_error err;
    struct witness w;
    struct said s;

    assert_ok(test_speak_to(&s, &w, inner, hp, config, gmask, &err), &err);
    return s;
}

void test_said_fini(struct said *s)
{
    sl_ids_fini(&s->ids);
    free(s->rows);
}

void test_check_same(const struct said *a, const struct said *b, uint32_t vocab)
{
    assert_int_equal(a->ids.n, b->ids.n);
    assert_memory_equal(a->ids.v, b->ids.v, a->ids.n * sizeof *a->ids.v);
    assert_memory_equal(&a->rng, &b->rng, sizeof a->rng);
    /* behind the last position that was fed there may be others */
    for (uint32_t i = 0; i < a->n_rows; i++)
        assert_memory_equal(a->rows + (size_t)i * vocab,
                            b->rows + (size_t)i * vocab, 4ull * vocab);
}

struct sl_hparams test_hparams_of(const struct test_model *m)
{
    struct sl_hparams hp = m->hp;

    sl_arch_derive(m->arch, &hp);
    if (!hp.causal)
        hp.text.special = (struct sl_special_ids){.mask = 1,
                                                  .gmask = 2,
                                                  .smask = 3,
                                                  .eod = -1,
                                                  .sop = 4,
                                                  .eop = -1,
                                                  .enc = -1,
                                                  .dblock = -1,
                                                  .eos = -1};
    return hp;
}
