#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/mem.h"
#include "src/decode/blank.h"

/* BaseStrategy: answers that are drawn token by token, each by a voice. All
 * voices go on from one context, which is read once; each has its own stream
 * of random numbers, so that what it says depends on no other.
 *
 * A voice may feed drafts behind its last token. From each row of logits it
 * draws as it would have without, and goes on to the guess that is what it
 * drew, if there is one; the rest of what it fed is cut off again. */

struct voice {
    uint32_t seq;
    bool has_seq;  /* else it has ended, or not begun */
    uint32_t held; /* positions of seq */
    struct sl_rng *rng, own;
    struct sl_drafter drafter;
    int32_t last;        /* token, not fed yet */
    bool ends;           /* with its first token */
    struct sl_tree tree; /* what is fed */
};

struct sl_voices {
    struct voice *v;
    uint32_t n;
};

static uint32_t base_room(const struct sl_fill_config *config)
{
    return config->n_answers > 1 ? config->n_answers : 1;
}

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

/* Leaves the tokens that may come after so many of an answer. */
static void filter(const struct sl_blank *p, float *logits, size_t n_said)
{
    const struct sl_fill_common *c = p->c;

    if (p->rules != NULL) {
        sl_rules_look(p->rules, c->room, logits);
        sl_rules_shape(p->rules, c->room, logits, p->context->v,
                       c->hp->causal ? p->mask_at : 0);
    }
    ban(logits, c->banned, c->n_banned);
    if (n_said < c->config->min_gen_length)
        ban(logits, c->ends, c->n_ends);
    sl_sampler_filter(logits, c->lm->vocab, &c->config->sampler, c->scratch);
}

static uint32_t most_fed(const struct sl_blank *p)
{
    return 1 +
           (p->c->config->drafts != NULL ? p->c->config->drafts->gate.most : 0);
}

static int begin_drafts(const struct sl_blank *p, struct voice *v,
                        const struct sl_ids *ids, struct sl_error *err)
{
    const struct sl_draft_text text = {
        .ids = ids->v,
        .n = ids->n,
        .context = p->context->v,
        .n_context = p->context->n,
        .mask_at = p->mask_at,
        .gmask = p->gmask,
        .has_pieces = p->pieces->ids.n > 0,
    };

    return sl_drafter_begin(&v->drafter, &text, err);
}

/* What drafts know of the text: what stands behind the blank, then what stands
 * before it, which the answer goes on with. */
static int tell_drafts(const struct sl_blank *p, struct voice *v,
                       struct sl_error *err)
{
    const struct sl_ids *context = p->context;
    size_t behind = p->mask_at + 1;
    struct sl_ids ids = {0};
    int rc = 0;

    if (p->c->config->drafts == NULL)
        return 0;
    if (behind < context->n)
        rc = sl_ids_append(&ids, context->v + behind, context->n - behind, err);
    if (rc == 0)
        rc = sl_ids_append(&ids, p->pieces->ids.v, p->pieces->ids.n, err);
    if (rc == 0)
        rc = sl_ids_append(&ids, context->v, p->mask_at, err);
    if (rc == 0)
        rc = begin_drafts(p, v, &ids, err);
    sl_ids_fini(&ids);
    return rc;
}

/* Each voice's random numbers begin far from those of the one before: what it
 * draws does not depend on how long the others are. */
static int open_voice(struct sl_blank *p, uint32_t i, struct sl_error *err)
{
    struct voice *v = &p->voices->v[i];

    v->rng = p->rng;
    if (i > 0) {
        v->own = p->voices->v[i - 1].rng == p->rng ? *p->rng
                                                   : p->voices->v[i - 1].own;
        sl_rng_jump_far(&v->own);
        v->rng = &v->own;
    }
    if (sl_tree_init(&v->tree, most_fed(p), err) != 0 ||
        sl_drafter_init(&v->drafter, p->c->config->drafts, p->c->lm->max_tokens,
                        err) != 0)
        return -1;
    return tell_drafts(p, v, err);
}

/* Whether another text may go on with what this one has read. */
static bool keeps(const struct sl_blank *p)
{
    return p->c->kept != NULL && p->c->hp->causal &&
           base_room(p->c->config) == 1;
}

/* At least one position is fed again of what is kept, as its logits are what
 * the answer begins with; where chances of given tokens are wanted, none of
 * theirs is taken from there. */
static int base_begin(struct sl_blank *p, struct sl_error *err)
{
    struct sl_lm *lm = p->c->lm;
    uint32_t n = base_room(p->c->config);
    struct sl_voices *s = p->voices = sl_zalloc_array(1, sizeof *s);

    if (s != NULL)
        s->v = sl_zalloc_array(n, sizeof *s->v);
    if (s == NULL || s->v == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "out of memory for %u answers", n);
    for (s->n = 0; s->n < n; s->n++) {
        if (open_voice(p, s->n, err) != 0)
            return -1;
    }
    if (keeps(p)) {
        size_t most = sl_blank_fed(p) - 1;

        if (p->score_from > 0 && p->score_from - 1 < most)
            most = p->score_from - 1;
        if (sl_kept_begin(p->c->kept, &p->first_seq, &p->n_read, p->prefill,
                          sl_blank_fed(p), most, err) != 0)
            return -1;
    } else if (lm->ops->seq_create(lm, &p->first_seq, err) != 0) {
        return -1;
    }
    s->v[0].seq = p->first_seq;
    s->v[0].has_seq = true;
    return 0;
}

static size_t base_n_live(const struct sl_blank *p)
{
    size_t n = 0;

    for (uint32_t i = 0; i < p->voices->n; i++)
        n += p->voices->v[i].has_seq;
    return n;
}

static void base_offer(struct sl_blank *p, struct sl_offer *offers,
                       uint32_t most)
{
    for (uint32_t i = 0; i < p->voices->n; i++) {
        struct voice *v = &p->voices->v[i];
        /* the answer's tokens that may come after the next one */
        uint32_t left = p->max_new - (uint32_t)p->answers[i].ids.n - 1;

        if (v->has_seq)
            *offers++ =
                sl_drafter_offer(&v->drafter, left < most ? left : most);
    }
}

/* What was said last and at most so many drafts. */
static int draft_voice(const struct sl_blank *p, struct voice *v, size_t n_said,
                       const struct sl_deal *deal, struct sl_error *err)
{
    struct sl_tree *t = &v->tree;
    const struct sl_draft_place at = {
        .seq = v->seq,
        .n_held = v->held,
        .n_context = sl_blank_context(p),
        .positions = t->position_at,
        .blocks = p->c->hp->position_2d ? t->block_at : NULL,
    };

    sl_tree_begin(t, v->last);
    for (uint32_t k = 0; k < 1 + (deal != NULL ? deal->n : 0); k++)
        t->position_at[k] =
            sl_blank_position(p, n_said - 1 + k, &t->block_at[k]);
    return sl_drafter_propose(&v->drafter, p->c->lm, &at, t, deal, err);
}

static int base_want(struct sl_blank *p, struct sl_lm_item *items,
                     const struct sl_deal *drafts, struct sl_error *err)
{
    p->n_positions = p->n_rows = 0;
    for (uint32_t i = 0; i < p->voices->n; i++) {
        struct voice *v = &p->voices->v[i];

        if (!v->has_seq)
            continue;
        if (draft_voice(p, v, p->answers[i].ids.n,
                        drafts != NULL ? drafts++ : NULL, err) != 0)
            return -1;
        *items++ = sl_tree_item(&v->tree, v->seq, sl_blank_context(p),
                                p->c->hp->position_2d);
        p->n_positions += v->tree.n;
        p->n_rows += v->tree.n;
    }
    return 0;
}

/* A sequence that is kept holds what was read and said, for a text that begins
 * alike. */
static void end_voice(struct sl_blank *p, struct voice *v)
{
    const struct sl_ids *said = &p->answers[0].ids;
    size_t n = sl_blank_fed(p);

    if (!v->has_seq)
        return;
    v->has_seq = false;
    if (!keeps(p)) {
        p->c->lm->ops->seq_destroy(p->c->lm, v->seq);
        return;
    }
    /* A text that ends while it is read has what came of it so far. */
    if (p->spoilt || v->held == 0)
        n = v->held = p->spoilt ? 0 : p->n_read;
    /* An interrupted pass has left a part of what it was fed. */
    if (!p->spoilt)
        p->c->lm->ops->seq_cut(p->c->lm, v->seq, v->held);
    sl_kept_end(p->c->kept, v->seq, p->context->v, n, said->v, v->held - n);
}

/* Draws from a filtered row and takes the token in. *end: it was the last. */
static int say(struct sl_blank *p, uint32_t i, const float *row, bool *end,
               struct sl_error *err)
{
    struct voice *v = &p->voices->v[i];
    struct sl_ids *out = &p->answers[i].ids;

    v->last = sl_sampler_draw(row, p->c->lm->vocab, v->rng);
    *end = is_end(p->c, v->last);
    if (*end && p->rules != NULL)
        sl_rules_tell(p->rules, p->c->room, v->last);
    if (*end)
        return 0;
    if (sl_ids_add(out, v->last, err) != 0)
        return -1;
    sl_drafter_add(&v->drafter, v->last);
    *end = out->n == p->max_new;
    if (p->rules != NULL) {
        sl_rules_tell(p->rules, p->c->room, v->last);
        if (sl_rules_said(p->rules, v->last, err) != 0)
            return -1;
    }
    if (p->sink != NULL && i == 0 &&
        p->sink->ids(p->sink->opaque, &v->last, 1, true, err) != 0)
        return -1;
    *end = *end || (p->rules != NULL && p->rules->enough);
    return 0;
}

/* The context was read: all voices go on from there. */
static int feed_first(struct sl_blank *p, float *row, struct sl_error *err)
{
    struct sl_lm *lm = p->c->lm;
    struct sl_voices *s = p->voices;

    if (sl_blank_check(p, row, 1, err) != 0)
        return -1;
    p->n_generated += s->n - 1;
    filter(p, row, 0);
    for (uint32_t i = 0; i < s->n; i++) {
        struct voice *v = &s->v[i];
        bool end;

        if (i > 0) {
            if (lm->ops->seq_fork(lm, &v->seq, p->first_seq, err) != 0)
                return -1;
            v->has_seq = true;
        }
        v->held = (uint32_t)sl_blank_fed(p);
        if (say(p, i, row, &end, err) != 0)
            return -1;
        v->ends = end; /* once all have forked */
    }
    for (uint32_t i = 0; i < s->n; i++) {
        if (s->v[i].ends)
            end_voice(p, &s->v[i]);
    }
    return 0;
}

/* Draws from row after row as long as what was drawn was fed. */
static int feed_voice(struct sl_blank *p, uint32_t i, float *rows,
                      struct sl_error *err)
{
    struct voice *v = &p->voices->v[i];
    struct sl_tree *t = &v->tree;
    uint32_t node = sl_tree_walk_begin(t);
    bool end = false;

    while (node != SL_LM_ROOT) {
        float *row = rows + (size_t)node * p->c->lm->vocab;

        if (sl_blank_check(p, row, 1, err) != 0)
            return -1;
        filter(p, row, p->answers[i].ids.n);
        if (say(p, i, row, &end, err) != 0)
            return -1;
        node = end ? SL_LM_ROOT : sl_tree_walk(t, v->last);
    }
    sl_drafter_note(&v->drafter, t);
    if (sl_tree_keep(t, p->c->lm, v->seq, v->held, err) != 0)
        return -1;
    v->held += t->n_path;
    if (end)
        end_voice(p, v);
    return 0;
}

/* Rows follow one another as want wrote the voices' items. */
static int base_feed(struct sl_blank *p, float *logits, struct sl_error *err)
{
    struct sl_voices *s = p->voices;
    int rc = 0;

    if (p->prefill != NULL) {
        rc = feed_first(p, logits, err);
    } else {
        for (uint32_t i = 0; i < s->n && rc == 0; i++) {
            uint32_t n_rows = s->v[i].tree.n;

            if (!s->v[i].has_seq)
                continue;
            rc = feed_voice(p, i, logits, err);
            logits += (size_t)n_rows * p->c->lm->vocab;
        }
    }
    p->done = base_n_live(p) == 0;
    return rc;
}

static int base_end(struct sl_blank *p, struct sl_error *err)
{
    p->n_answers = p->voices->n;
    for (size_t i = 0; i < p->n_answers; i++)
        p->answers[i].score = 0;
    return 0;
}

/* All that there is room for: opening may have failed half way, and what is
 * still zero ends as nothing. */
static void base_close(struct sl_blank *p)
{
    struct sl_voices *s = p->voices;

    p->voices = NULL;
    if (s == NULL)
        return;
    for (uint32_t i = 0; s->v != NULL && i < base_room(p->c->config); i++) {
        end_voice(p, &s->v[i]);
        sl_drafter_fini(&s->v[i].drafter);
        sl_tree_fini(&s->v[i].tree);
    }
    free(s->v);
    free(s);
}

const struct sl_strategy_ops sl_strategy_base = {
    .name = "BaseStrategy",
    .room = base_room,
    .begin = base_begin,
    .n_live = base_n_live,
    .offer = base_offer,
    .want = base_want,
    .feed = base_feed,
    .end = base_end,
    .close = base_close,
    .speaks = true,
};
