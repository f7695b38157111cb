#include "config.h"

#include <stdlib.h>

#include "src/base/mem.h"
#include "src/decode/blank.h"

#define NO_SEQ UINT32_MAX

/* A search and the sequences of its live beams. */
struct sl_beams {
    struct sl_beam *search;
    uint32_t *live, *next, *parents; /* (n_beams) */
    int32_t *places;                 /* (n_beams, 2) position, block */
    size_t n_live;
    uint32_t n_generated;
};

/* Some of its arrays may be NULL: beams_begin looks, and beams_close frees the
 * others. */
static struct sl_beams *create(size_t n)
{
    struct sl_beams *s = sl_zalloc_array(1, sizeof *s);

    if (s == NULL)
        return NULL;
    s->live = sl_alloc_array(n, sizeof *s->live);
    s->next = sl_alloc_array(n, sizeof *s->next);
    s->parents = sl_alloc_array(n, sizeof *s->parents);
    s->places = sl_alloc_array(n, 2 * sizeof *s->places);
    return s;
}

static int create_search(struct sl_beam **b, const struct sl_blank *p,
                         struct sl_error *err)
{
    const struct sl_fill_config *c = p->c->config;
    struct sl_beam_config config = {
        .n_beams = c->n_beams,
        .length_penalty = c->length_penalty,
        .no_repeat_ngram = c->no_repeat_ngram,
        .min_gen_length = c->min_gen_length,
        .deterministic = c->deterministic,
        .consider_end = true,
        .end_ids = p->c->ends,
        .n_end_ids = p->c->n_ends,
        .banned = p->c->banned,
        .n_banned = p->c->n_banned,
    };

    /* The context is what is about to be fed. */
    return sl_beam_create(b, &config, p->prefill, sl_blank_fed(p),
                          p->c->lm->vocab, err);
}

static int beams_begin(struct sl_blank *p, struct sl_error *err)
{
    size_t n = p->c->config->n_beams;
    struct sl_lm *lm = p->c->lm;
    struct sl_beams *s = p->beams = create(n);

    if (!s || !s->live || !s->next || !s->parents || !s->places)
        return sl_fail(err, SL_ERR_NOMEM, "out of memory for %zu beams", n);
    if (create_search(&s->search, p, err) != 0 ||
        lm->ops->seq_create(lm, &s->live[0], err) != 0)
        return -1;
    s->n_live = 1;
    p->first_seq = s->live[0];
    return 0;
}

static size_t beams_n_live(const struct sl_blank *p)
{
    return p->beams->n_live;
}

static uint32_t beams_room(const struct sl_fill_config *config)
{
    return config->n_beams;
}

/* Gives each new beam a sequence: its parent's own where it is the first
 * child, else a fork of it. Parents without children go first, so that there
 * are never more sequences than beams. */
static int follow(struct sl_beams *s, struct sl_lm *lm, size_t n_next,
                  struct sl_error *err)
{
    uint32_t *old = s->live;
    size_t n_old = s->n_live, k;
    int rc = 0;

    for (size_t i = 0; i < n_old; i++) {
        for (k = 0; k < n_next && s->parents[k] != i; k++)
            ;
        if (k == n_next) {
            lm->ops->seq_destroy(lm, old[i]);
            old[i] = NO_SEQ;
        }
    }
    for (size_t i = 0; i < n_next; i++) {
        for (k = 0; k < i && s->parents[k] != s->parents[i]; k++)
            ;
        s->next[i] = NO_SEQ;
        if (k == i)
            s->next[i] = old[s->parents[i]];
        else if (rc == 0)
            rc = lm->ops->seq_fork(lm, &s->next[i], s->next[k], err);
    }
    s->live = s->next;
    s->next = old;
    s->n_live = n_next;
    return rc;
}

/* Each live beam feeds its last id; what beams have in common they share as
 * pages of the cache. */
static int beams_want(struct sl_blank *p, struct sl_lm_item *items,
                      const struct sl_deal *drafts, struct sl_error *err)
{
    struct sl_beams *s = p->beams;

    for (size_t i = 0; i < s->n_live; i++) {
        int32_t *place = s->places + 2 * i;
        size_t n;
        const int32_t *ids = sl_beam_live(s->search, i, &n, NULL);

        place[0] = sl_blank_position(p, s->n_generated - 1, &place[1]);
        items[i] = (struct sl_lm_item){
            .seq = s->live[i],
            .ids = ids + n - 1,
            .positions = place,
            .blocks = p->c->hp->position_2d ? place + 1 : NULL,
            .n = 1,
            .n_context = sl_blank_context(p),
            .n_logits = 1,
        };
    }
    p->n_positions = p->n_rows = (uint32_t)s->n_live;
    return 0;
}

/* The context's one row is what all beams begin from: there is one live beam
 * then. */
static int beams_feed(struct sl_blank *p, float *logits, struct sl_error *err)
{
    const struct sl_fill_config *c = p->c->config;
    size_t begin = sl_blank_fed(p), n;
    struct sl_beams *s = p->beams;

    if (sl_blank_check(p, logits, p->prefill != NULL ? 1 : s->n_live, err) != 0)
        return -1;
    for (size_t i = 0; c->adjust != NULL && i < s->n_live; i++) {
        const int32_t *ids = sl_beam_live(s->search, i, &n, NULL);

        c->adjust(c->adjust_opaque, ids + begin, n - begin,
                  logits + i * p->c->lm->vocab, p->c->lm->vocab);
    }
    if (sl_beam_step(s->search, logits, s->parents, p->rng, &p->done, err) != 0)
        return -1;
    if (++s->n_generated == p->max_new)
        p->done = true;
    return follow(s, p->c->lm, sl_beam_n_live(s->search), err);
}

/* Answers are the finished beams: what is behind the context, without the end
 * token. */
static int beams_end(struct sl_blank *p, struct sl_error *err)
{
    struct sl_beam *b = p->beams->search;
    size_t begin = sl_blank_fed(p), n;

    if (sl_beam_finish(b, err) != 0)
        return -1;
    p->n_answers = sl_beam_n_finished(b);
    for (size_t i = 0; i < p->n_answers; i++) {
        struct sl_blank_answer *a = &p->answers[i];
        const int32_t *ids = sl_beam_finished(b, i, &n, &a->score);

        for (size_t k = 0; k < p->c->n_ends && n > begin; k++) {
            if (ids[n - 1] == p->c->ends[k]) {
                n--;
                break;
            }
        }
        if (sl_ids_append(&a->ids, ids + begin, n - begin, err) != 0)
            return -1;
    }
    return 0;
}

/* What follow has handed on to another beam is NO_SEQ. */
static void beams_close(struct sl_blank *p)
{
    struct sl_lm *lm = p->c->lm;
    struct sl_beams *s = p->beams;

    p->beams = NULL;
    if (s == NULL)
        return;
    for (size_t i = 0; i < s->n_live; i++) {
        if (s->live[i] != NO_SEQ)
            lm->ops->seq_destroy(lm, s->live[i]);
    }
    sl_beam_destroy(s->search);
    free(s->live);
    free(s->next);
    free(s->parents);
    free(s->places);
    free(s);
}

const struct sl_strategy_ops sl_strategy_beam = {
    .name = "BeamSearchStrategy",
    .room = beams_room,
    .begin = beams_begin,
    .n_live = beams_n_live,
    .want = beams_want,
    .feed = beams_feed,
    .end = beams_end,
    .close = beams_close,
};
