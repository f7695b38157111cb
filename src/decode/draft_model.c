#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/ids.h"
#include "src/base/mem.h"
#include "src/decode/draft_grow.h"
#include "src/decode/draft_model.h"

/* --- the same words, other numbers ----------------------------------------
 */

/* A mark is read, and never said. */
static void add_mark(struct sl_vocab_shift *s, int32_t target, int32_t draft)
{
    if (target >= 0 && draft >= 0 && (uint32_t)target < s->n_to &&
        (uint32_t)draft < s->n_from)
        s->to[target] = draft;
}

static void add_word(struct sl_vocab_shift *s, int32_t target, int32_t draft)
{
    add_mark(s, target, draft);
    if (target >= 0 && draft >= 0 && (uint32_t)draft < s->n_from)
        s->from[draft] = target;
}

static uint32_t n_words(const struct sl_hparams *hp)
{
    return hp->text.n_tokens > 0 ? hp->text.n_tokens : hp->vocab;
}

static void never_said(struct sl_vocab_shift *s, const struct sl_special_ids *d)
{
    const int32_t marks[] = {d->mask, d->gmask, d->smask, d->eod,
                             d->sop,  d->enc,   d->dblock};

    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++) {
        if (marks[i] >= 0 && (uint32_t)marks[i] < s->n_from)
            s->from[marks[i]] = -1;
    }
}

int sl_vocab_shift_make(struct sl_vocab_shift *s,
                        const struct sl_hparams *target,
                        const struct sl_hparams *draft, struct sl_error *err)
{
    const struct sl_special_ids *t = &target->text.special;
    const struct sl_special_ids *d = &draft->text.special;
    int64_t by = (int64_t)draft->text.n_image_tokens -
                 (int64_t)target->text.n_image_tokens;

    *s = (struct sl_vocab_shift){.n_to = target->vocab, .n_from = draft->vocab};
    if (target->causal != draft->causal)
        return sl_fail(err, SL_ERR_USAGE,
                       "one of the models goes on with texts and the other "
                       "fills blanks");
    s->to = sl_alloc_array(s->n_to, sizeof *s->to);
    s->from = sl_alloc_array(s->n_from, sizeof *s->from);
    if (s->to == NULL || s->from == NULL) {
        sl_vocab_shift_fini(s);
        return sl_fail(err, SL_ERR_NOMEM, "no memory for two vocabularies");
    }
    memset(s->to, -1, s->n_to * sizeof *s->to);
    memset(s->from, -1, s->n_from * sizeof *s->from);
    for (uint32_t i = target->text.n_image_tokens; i < n_words(target); i++) {
        int64_t id = i + by;

        if (id >= 0 && id < n_words(draft) && id < draft->vocab &&
            i < target->vocab)
            add_word(s, (int32_t)i, (int32_t)id);
    }
    add_mark(s, t->mask, d->mask);
    add_mark(s, t->gmask, d->gmask);
    add_mark(s, t->smask, d->smask);
    add_mark(s, t->sop, d->sop);
    /* where an answer's end is a text's end too, it is an answer's here */
    add_word(s, t->eos, d->eos);
    add_word(s, t->eop, d->eop);
    never_said(s, d);
    return 0;
}

void sl_vocab_shift_fini(struct sl_vocab_shift *s)
{
    free(s->to);
    free(s->from);
    *s = (struct sl_vocab_shift){0};
}

/* --- the guesses -----------------------------------------------------------
 */

struct guesser {
    struct sl_draft draft; /* first */
    const struct sl_draft_model *m;
    uint32_t room; /* positions of its sequence */
    uint32_t seq;
    bool has_seq, lost; /* lost: the text has a word that it does not know */
    /* The text: what is read as a whole, n_context positions with [sop] or
     * none of a causal model, then what was generated. */
    int32_t *ids, *positions, *blocks; /* (room) */
    uint32_t n, n_context;
    int32_t mask_at;
    bool gmask;
    int32_t *held; /* (room) what the sequence holds of a text, */
    uint32_t n_held;
    /* and the tree of guesses behind that */
    int32_t fed_ids[SL_LM_TREE];
    uint32_t fed_parents[SL_LM_TREE];
    uint32_t n_fed;
    float *logits; /* (rows, vocab) */
    uint32_t rows; /* guesses that are gone on with together */
};

static void model_destroy(struct sl_draft *d)
{
    struct guesser *g = (struct guesser *)d;

    if (g->has_seq)
        g->m->lm->ops->seq_destroy(g->m->lm, g->seq);
    free(g->ids);
    free(g->positions);
    free(g->blocks);
    free(g->held);
    free(g->logits);
    free(g);
}

/* The place of a position, as blank.h has it for texts with blanks. */
static void place(const struct guesser *g, uint32_t at, int32_t *position,
                  int32_t *block)
{
    const struct sl_hparams *hp = g->m->hp;

    *position = (int32_t)at;
    *block = 0;
    if (hp->causal || at < g->n_context)
        return;
    *block = (int32_t)(at - g->n_context) + 1; /* [sop] is 0 */
    if (hp->position_2d || !g->gmask)
        *position = g->mask_at;
}

static void put(struct guesser *g, int32_t id)
{
    const struct sl_vocab_shift *s = &g->m->shift;
    int32_t own = id >= 0 && (uint32_t)id < s->n_to ? s->to[id] : -1;

    g->lost = g->lost || own < 0 || g->n == g->room;
    if (g->lost)
        return;
    g->ids[g->n] = own;
    place(g, g->n, &g->positions[g->n], &g->blocks[g->n]);
    g->n++;
}

static int model_begin(struct sl_draft *d, const struct sl_draft_text *t,
                       struct sl_error *err)
{
    struct guesser *g = (struct guesser *)d;
    const struct sl_hparams *hp = g->m->hp;
    const struct sl_lm_ops *ops = g->m->lm->ops;
    bool blank = !hp->causal;

    g->n = 0;
    g->lost = t->has_pieces;
    g->n_context = blank ? (uint32_t)t->n_context : 0;
    g->mask_at = (int32_t)t->mask_at;
    g->gmask = t->gmask;
    for (size_t i = 0; i < (blank ? t->n_context : t->mask_at); i++)
        put(g, t->context[i]);
    if (blank && !g->lost && g->n < g->room) {
        g->ids[g->n] = hp->text.special.sop;
        place(g, g->n, &g->positions[g->n], &g->blocks[g->n]);
        g->n++;
    }
    /* A context that is seen as a whole is read anew. */
    if (g->has_seq && blank) {
        ops->seq_destroy(g->m->lm, g->seq);
        g->has_seq = false;
    }
    if (g->has_seq)
        return 0;
    g->n_held = g->n_fed = 0;
    if (ops->seq_create(g->m->lm, &g->seq, err) != 0)
        return -1;
    g->has_seq = true;
    return 0;
}

static void model_add(struct sl_draft *d, int32_t id)
{
    put((struct guesser *)d, id);
}

/* The last guess is not fed: n guesses take n - 1 positions more. */
static uint32_t model_offer(struct sl_draft *d, uint32_t most,
                            uint32_t *strength)
{
    struct guesser *g = (struct guesser *)d;
    uint32_t left = g->room - g->n + 1;

    *strength = 0;
    if (g->lost || g->n == 0)
        return 0;
    return left < most ? left : most;
}

/* Which of the guesses that were fed the text has come by: they stay, and the
 * others go. */
static int keep_right(struct guesser *g, struct sl_error *err)
{
    uint32_t path[SL_LM_TREE], n = 0, at = 0, n_fed = g->n_fed;

    g->n_fed = 0;
    for (uint32_t k = 0; k < n_fed && g->n_held + n < g->n; k++) {
        if (g->fed_parents[k] != (n == 0 ? SL_LM_ROOT : at) ||
            g->fed_ids[k] != g->ids[g->n_held + n])
            continue;
        path[n++] = at = k;
    }
    if (n_fed == 0)
        return 0;
    for (uint32_t k = 0; k < n; k++)
        g->held[g->n_held + k] = g->fed_ids[path[k]];
    if (sl_path_keep(g->m->lm, g->seq, g->n_held, path, n, err) != 0)
        return -1;
    g->n_held += n;
    return 0;
}

/* Cuts the sequence back to what it has of the text; the last token is always
 * fed, for its logits. */
static int agree(struct guesser *g, struct sl_error *err)
{
    uint32_t n = 0;

    while (n < g->n_held && n < g->n && g->held[n] == g->ids[n])
        n++;
    if (n == g->n_held) {
        if (keep_right(g, err) != 0)
            return -1;
        n = g->n_held;
    }
    if (n == g->n)
        n--;
    if (n < g->n_context) /* of which a part is no use */
        n = 0;
    if (n < g->n_held)
        g->m->lm->ops->seq_cut(g->m->lm, g->seq, n);
    g->n_held = n;
    g->n_fed = 0;
    return 0;
}

/* Feeds ids [n_held, n) of the text, and finds the last one's logits. */
static int feed_text(struct guesser *g, uint32_t n, struct sl_error *err)
{
    struct sl_lm *lm = g->m->lm;
    uint32_t at = g->n_held, most = lm->pass_positions;

    while (at < n) {
        uint32_t now = n - at;
        struct sl_lm_item item = {
            .seq = g->seq,
            .ids = g->ids + at,
            .positions = g->positions + at,
            .blocks = g->m->hp->position_2d ? g->blocks + at : NULL,
            .n_context = g->n_context,
            .n_logits = 1,
        };

        if (g->n_context == 0 && most > 0 && now > most)
            now = most;
        item.n = now;
        item.reads = now > 1; /* what another has read or chosen */
        if (lm->ops->forward(lm, &item, 1, g->logits, err) != 0)
            return -1;
        memcpy(g->held + at, g->ids + at, now * sizeof *g->held);
        g->n_held = at += now;
    }
    return 0;
}

/* Guesses, behind the text; its last token is not of their tree. */
static int feed(void *opaque, const int32_t *ids, const uint32_t *parents,
                const uint32_t *depths, uint32_t n_before, uint32_t n,
                const float **rows, struct sl_error *err)
{
    struct guesser *g = opaque;
    struct sl_lm *lm = g->m->lm;
    int32_t positions[SL_LM_TREE], blocks[SL_LM_TREE];
    struct sl_lm_item item = {
        .seq = g->seq,
        .ids = ids,
        .positions = positions,
        .blocks = g->m->hp->position_2d ? blocks : NULL,
        .n = n,
        .n_context = g->n_context,
        .n_logits = n,
        .apart = true,
    };

    *rows = g->logits;
    if (n_before == 0)
        return feed_text(g, g->n, err);
    if (g->n + n_before - 1 + n > g->room)
        return 1;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t at = n_before - 1 + i, up = parents[n_before + i];

        g->fed_ids[at] = ids[i];
        g->fed_parents[at] = up == 0 ? SL_LM_ROOT : up - 1;
        place(g, g->n + depths[i] - 1, &positions[i], &blocks[i]);
    }
    item.parents = g->fed_parents;
    item.n_tree = n_before - 1;
    g->n_fed = n_before - 1 + n;
    return lm->ops->forward(lm, &item, 1, g->logits, err);
}

static int model_propose(struct sl_draft *d, const struct sl_draft_place *where,
                         struct sl_tree *tree, uint32_t n, struct sl_error *err)
{
    struct guesser *g = (struct guesser *)d;
    const struct sl_vocab_shift *s = &g->m->shift;
    const struct sl_lm *lm = g->m->lm;
    const struct sl_grower grower = {
        .feed = feed,
        .opaque = g,
        .vocab = s->n_from,
        .stride = lm->vocab,
        .words = s->from,
        .most_rows = g->rows,
    };

    if (n == 0)
        return 0;
    if (agree(g, err) != 0)
        return -1;
    return sl_tree_grow(tree, n, &grower, err);
}

static bool model_branches(struct sl_draft *d)
{
    return ((struct guesser *)d)->m->lm->ops->seq_pick != NULL;
}

static const struct sl_draft_ops model_ops = {
    .begin = model_begin,
    .add = model_add,
    .offer = model_offer,
    .branches = model_branches,
    .propose = model_propose,
    .destroy = model_destroy,
};

static int model_create(struct sl_draft **d, uint32_t max_tokens, void *arg,
                        struct sl_error *err)
{
    const struct sl_draft_model *m = arg;
    struct guesser *g = sl_zalloc_array(1, sizeof *g);

    if (g == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory for a model's guesses");
    g->draft.ops = &model_ops;
    g->m = m;
    g->room = max_tokens < m->lm->max_tokens ? max_tokens : m->lm->max_tokens;
    g->ids = sl_alloc_array(g->room, sizeof *g->ids);
    g->positions = sl_alloc_array(g->room, sizeof *g->positions);
    g->blocks = sl_alloc_array(g->room, sizeof *g->blocks);
    g->held = sl_alloc_array(g->room, sizeof *g->held);
    g->rows = m->lm->pass_logits > 0 && m->lm->pass_logits < SL_TREE_WIDTH
                  ? m->lm->pass_logits
                  : SL_TREE_WIDTH;
    g->logits =
        sl_alloc_array((size_t)g->rows * m->lm->vocab, sizeof *g->logits);
    if (g->ids == NULL || g->positions == NULL || g->blocks == NULL ||
        g->held == NULL || g->logits == NULL) {
        model_destroy(&g->draft);
        return sl_fail(err, SL_ERR_NOMEM, "no memory for a model's guesses");
    }
    *d = &g->draft;
    return 0;
}

/* Logits and sequence are the smaller model's, and planned with it. */
static uint64_t model_bytes(uint32_t max_tokens)
{
    return sizeof(struct guesser) + 16ull * max_tokens;
}

const struct sl_draft_kind sl_draft_model_kind = {
    .name = "model",
    .prior = {0.5, 0.5, 0.5, 0.5},
    .bytes = model_bytes,
    .create = model_create,
    .costs = true,
};
