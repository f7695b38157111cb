#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/mem.h"
#include "src/fill_pass.h"

#define NO_SEQ UINT32_MAX

/* The sequences of the live beams, beside struct sl_beam's own list. */
struct seqs {
    uint32_t *live, *next, *parents; /* (n_beams) */
    struct sl_lm_item *items;        /* (n_beams) */
    int32_t *places;                 /* (n_beams, 2) position, block */
    size_t n_live;
};

static int seqs_init(struct seqs *s, size_t n, struct sl_error *err)
{
    s->live = sl_alloc_array(n, sizeof *s->live);
    s->next = sl_alloc_array(n, sizeof *s->next);
    s->parents = sl_alloc_array(n, sizeof *s->parents);
    s->items = sl_alloc_array(n, sizeof *s->items);
    s->places = sl_alloc_array(n, 2 * sizeof *s->places);
    s->n_live = 0;
    if (!s->live || !s->next || !s->parents || !s->items || !s->places)
        return sl_fail(err, SL_ERR_NOMEM, "out of memory for %zu beams", n);
    return 0;
}

static void seqs_fini(struct seqs *s, struct sl_lm *lm)
{
    for (size_t i = 0; i < s->n_live; i++) {
        if (s->live[i] != NO_SEQ)
            lm->ops->seq_destroy(lm, s->live[i]);
    }
    free(s->live);
    free(s->next);
    free(s->parents);
    free(s->items);
    free(s->places);
}

/* Gives each new beam a sequence: its parent's own where it is the first
 * child, else a fork of it. Parents without children go first, so that there
 * are never more sequences than beams. */
static int seqs_follow(struct seqs *s, struct sl_lm *lm, size_t n_next,
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

static int forward_all(struct sl_pass *p, struct seqs *s,
                       const struct sl_beam *b, size_t n_generated,
                       struct sl_error *err)
{
    for (size_t i = 0; i < s->n_live; i++) {
        int32_t *place = s->places + 2 * i;
        size_t n;
        const int32_t *ids = sl_beam_live(b, i, &n, NULL);

        place[0] = sl_pass_position(p, n_generated, &place[1]);
        s->items[i] = (struct sl_lm_item){
            .seq = s->live[i],
            .ids = ids + n - 1,
            .positions = place,
            .blocks = p->hp->position_2d ? place + 1 : NULL,
            .n = 1,
            .n_context = (uint32_t)p->context->n,
            .n_logits = 1,
        };
    }
    return p->lm->ops->forward(p->lm, s->items, s->n_live, p->logits, err);
}

static int search(struct sl_pass *p, struct seqs *s, struct sl_beam *b,
                  struct sl_error *err)
{
    bool done = false;

    for (size_t n = 0; n < p->max_new && !done; n++) {
        if (n > 0 && forward_all(p, s, b, n - 1, err) != 0)
            return sl_pass_stopped(p, err) ? 0 : -1;
        if (sl_pass_check(p, s->n_live, err) != 0 ||
            sl_beam_step(b, p->logits, s->parents, p->rng, &done, err) != 0 ||
            seqs_follow(s, p->lm, sl_beam_n_live(b), err) != 0)
            return -1;
    }
    return 0;
}

/* Takes the finished beams as answers: what is behind [sop], without the end
 * token. */
static int take_answers(struct sl_pass *p, const struct sl_beam *b,
                        struct sl_error *err)
{
    size_t begin = p->context->n + 1, n;

    p->n_answers = sl_beam_n_finished(b);
    for (size_t i = 0; i < p->n_answers; i++) {
        struct sl_pass_answer *a = &p->answers[i];
        const int32_t *ids = sl_beam_finished(b, i, &n, &a->score);

        for (size_t k = 0; k < p->n_ends && n > begin; k++) {
            if (ids[n - 1] == p->ends[k]) {
                n--;
                break;
            }
        }
        if (sl_ids_append(&a->ids, ids + begin, n - begin, err) != 0)
            return -1;
    }
    return 0;
}

static int create_beam(struct sl_beam **b, const struct sl_pass *p,
                       struct sl_error *err)
{
    const struct sl_fill_config *c = p->config;
    struct sl_beam_config config = {
        .n_beams = c->n_beams,
        .length_penalty = c->length_penalty,
        .no_repeat_ngram = c->no_repeat_ngram,
        .min_gen_length = c->min_gen_length,
        .deterministic = c->deterministic,
        .consider_end = true,
        .end_ids = p->ends,
        .n_end_ids = p->n_ends,
        .banned = p->banned,
        .n_banned = p->n_banned,
    };
    struct sl_ids all = {0};
    int rc = -1;

    if (sl_ids_append(&all, p->context->v, p->context->n, err) == 0 &&
        sl_ids_add(&all, p->hp->special.sop, err) == 0)
        rc = sl_beam_create(b, &config, all.v, all.n, p->lm->vocab, err);
    sl_ids_fini(&all);
    return rc;
}

int sl_pass_run_beam(struct sl_pass *p, struct sl_error *err)
{
    struct sl_beam *b = NULL;
    struct seqs s = {0};
    int rc = -1;

    if (seqs_init(&s, p->config->n_beams, err) != 0 ||
        create_beam(&b, p, err) != 0 ||
        p->lm->ops->seq_create(p->lm, &s.live[0], err) != 0)
        goto out;
    s.n_live = 1;
    if (sl_pass_prefill(p, s.live[0], err) == 0)
        rc = search(p, &s, b, err);
    else if (sl_pass_stopped(p, err))
        rc = 0;
    if (rc == 0)
        rc = sl_beam_finish(b, err);
    if (rc == 0)
        rc = take_answers(p, b, err);
out:
    seqs_fini(&s, p->lm);
    sl_beam_destroy(b);
    return rc;
}
