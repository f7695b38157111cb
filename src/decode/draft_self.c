#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/mem.h"
#include "src/decode/draft_grow.h"
#include "src/decode/draft_self.h"
#include "src/decode/sampler.h"

/* Guesses that there are, at most: those of a pass, what it will say itself,
 * and those ahead. */
#define ROOM (SL_DRAFT_MOST + 1 + SL_DRAFT_AHEAD)

/* What was said last is followed by a line of guesses. A sequence of its own,
 * which began as the text's, holds all of it but its last guess, so that the
 * line can be gone on with while a pass runs, and after it where what the text
 * says is what was guessed. */
struct self {
    struct sl_draft draft; /* first */
    const struct sl_draft_self *of;
    int32_t line[ROOM];
    uint32_t n;       /* 0: there is no line, and no sequence */
    uint32_t n_taken; /* of these a pass has taken */
    uint32_t n_most;  /* where the line ends */
    uint32_t seq;
    uint32_t from; /* what the text held where the sequence began */
    /* where what was said last stands, and each guess after the one before */
    int32_t position, step, block, block_step;
    struct sl_lm_ahead wish;
    int32_t at_position, at_block; /* of its item */
};

/* --- the line ------------------------------------------------------------ */

static void drop(struct self *s)
{
    struct sl_lm *lm = s->of->lm;

    if (s->n == 0)
        return;
    *s->draft.discarded += s->n - s->n_taken;
    s->n = s->n_taken = 0;
    lm->ops->guess_ahead(lm, NULL);
    lm->ops->seq_destroy(lm, s->seq);
}

/* What is fed next: the line's last guess. */
static struct sl_lm_item next_item(struct self *s, uint32_t n_context)
{
    s->at_position = s->position + (int32_t)s->n * s->step;
    s->at_block = s->block + (int32_t)s->n * s->block_step;
    return (struct sl_lm_item){
        .seq = s->seq,
        .ids = &s->line[s->n - 1],
        .positions = &s->at_position,
        .blocks = &s->at_block,
        .n = 1,
        .n_context = n_context,
        .n_logits = 1,
        .apart = true,
    };
}

static void lengthen(struct self *s)
{
    s->line[s->n++] = sl_argmax(s->of->ahead_row, s->of->lm->vocab);
}

/* While a pass runs. */
static bool made(void *arg)
{
    struct self *s = arg;

    lengthen(s);
    ++*s->draft.ahead;
    if (s->n >= s->n_most)
        return false;
    s->wish.item = next_item(s, s->wish.item.n_context);
    return true;
}

/* The next pass takes n guesses of the line, behind n_held positions. */
static void go_on(struct self *s, const struct sl_draft_place *at, uint32_t n)
{
    const struct sl_draft_self *of = s->of;
    uint32_t span = of->ahead - (at->n_held - s->from);
    uint32_t most = of->lm->max_tokens - at->n_held;

    s->n_taken = n;
    s->n_most = n + 1 + SL_DRAFT_AHEAD;
    if (s->n_most > span)
        s->n_most = span;
    if (s->n_most > most)
        s->n_most = most;
    if (s->n >= s->n_most)
        return;
    s->wish = (struct sl_lm_ahead){
        .item = next_item(s, at->n_context),
        .logits = of->ahead_row,
        .made = made,
        .arg = s,
    };
    of->lm->ops->guess_ahead(of->lm, &s->wish);
}

static void place(struct self *s, const struct sl_draft_place *at)
{
    s->position = at->positions[0];
    s->step = at->positions[1] - at->positions[0];
    s->block = s->block_step = 0;
    if (at->blocks == NULL)
        return;
    s->block = at->blocks[0];
    s->block_step = at->blocks[1] - at->blocks[0];
}

/* Makes the sequence the text's again, followed by a line of n at most, which
 * it is fed together: keys and values of what was said are then the whole
 * model's, and shared. Returns 1 when there is no line then. */
static int begin_anew(struct self *s, const struct sl_draft_place *at,
                      int32_t last, uint32_t n, struct sl_error *err)
{
    struct sl_lm *lm = s->of->lm;
    int32_t ids[1 + SL_DRAFT_MOST], positions[1 + SL_DRAFT_MOST],
        blocks[1 + SL_DRAFT_MOST];
    struct sl_lm_item item = {
        .ids = ids,
        .positions = positions,
        .blocks = blocks,
        .n_context = at->n_context,
        .n_logits = 1,
        .apart = true,
    };
    struct sl_error ignored;
    int rc;

    if (s->n > n) {
        *s->draft.discarded += s->n - n;
        s->n = n;
    }
    item.n = s->n;
    for (uint32_t i = 0; i < item.n; i++) {
        ids[i] = i == 0 ? last : s->line[i - 1];
        positions[i] = s->position + (int32_t)i * s->step;
        blocks[i] = s->block + (int32_t)i * s->block_step;
    }
    lm->ops->seq_destroy(lm, s->seq);
    if (lm->ops->seq_fork(lm, &s->seq, at->seq, &ignored) != 0) {
        s->n = s->n_taken = 0;
        return 1;
    }
    s->from = at->n_held;
    item.seq = s->seq;
    rc = lm->ops->guess(lm, &item, 1, s->of->ahead_row, err);
    if (rc != 0)
        drop(s);
    return rc;
}

/* Until there are n guesses. Returns 1 when that was not to be had. */
static int make_line(struct self *s, const struct sl_draft_place *at,
                     int32_t last, uint32_t n, struct sl_error *err)
{
    struct sl_lm *lm = s->of->lm;
    uint32_t held = at->n_held - s->from;
    int rc = 0;

    place(s, at);
    if (held + n + 1 + SL_DRAFT_AHEAD / 2 > s->of->ahead)
        rc = begin_anew(s, at, last, n, err);
    while (rc == 0 && s->n < n) {
        const struct sl_lm_item item = next_item(s, at->n_context);

        rc = lm->ops->guess(lm, &item, 1, s->of->ahead_row, err);
        if (rc == 0)
            lengthen(s);
        else
            lm->ops->seq_cut(lm, s->seq, at->n_held + s->n);
    }
    return rc;
}

/* --- the draft ----------------------------------------------------------- */

static void self_destroy(struct sl_draft *d)
{
    drop((struct self *)d);
    free(d);
}

/* The text's sequence is its own: nothing is to be followed. */
static int self_begin(struct sl_draft *d, const struct sl_draft_text *t,
                      struct sl_error *err)
{
    drop((struct self *)d);
    return 0;
}

static void self_add(struct sl_draft *d, int32_t id)
{
    struct self *s = (struct self *)d;

    if (s->n == 0)
        return;
    if (s->n == 1 || id != s->line[0]) {
        s->n_taken += s->n_taken < s->n && id == s->line[0];
        drop(s);
        return;
    }
    s->n--;
    s->n_taken -= s->n_taken > 0;
    memmove(s->line, s->line + 1, s->n * sizeof *s->line);
}

static uint32_t self_offer(struct sl_draft *d, uint32_t most,
                           uint32_t *strength)
{
    *strength = 0;
    return most;
}

static uint32_t self_ready(struct sl_draft *d)
{
    return ((struct self *)d)->n;
}

/* A proposal on its way. */
struct ask {
    const struct sl_draft_self *of;
    const struct sl_draft_place *at;
    uint32_t n_fed;
};

static int ask(void *opaque, const int32_t *ids, const uint32_t *parents,
               const uint32_t *depths, uint32_t n_before, uint32_t n,
               const float **rows, struct sl_error *err)
{
    struct ask *a = opaque;
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
    a->n_fed = n_before + n;
    return lm->ops->guess(lm, &item, 1, a->of->logits, err);
}

/* A chain that was made becomes a line: the sequence, which holds it, is
 * shared. Without memory for that there is none. */
static void begin_line(struct self *s, const struct ask *a,
                       const struct sl_tree *tree)
{
    struct sl_lm *lm = s->of->lm;
    uint32_t n = tree->n - 1;
    struct sl_error ignored;

    if (n == 0 || a->n_fed != n || !sl_tree_is_chain(tree) ||
        lm->ops->seq_fork(lm, &s->seq, a->at->seq, &ignored) != 0)
        return;
    s->n = n;
    s->from = a->at->n_held;
    memcpy(s->line, tree->ids + 1, n * sizeof *s->line);
    place(s, a->at);
}

static int grow(struct self *s, const struct sl_draft_place *at,
                struct sl_tree *tree, uint32_t n, struct sl_error *err)
{
    const struct sl_draft_self *of = s->of;
    bool chain = tree->width == 1;
    struct ask a = {of, at, 0};
    const struct sl_grower g = {
        .feed = ask,
        .opaque = &a,
        .vocab = of->lm->vocab,
        .stride = of->lm->vocab,
        .most_rows = of->rows,
    };
    int rc = sl_tree_grow(tree, n, &g, err);

    if (rc == 0 && chain && of->ahead > 0)
        begin_line(s, &a, tree);
    of->lm->ops->seq_cut(of->lm, at->seq, at->n_held);
    return rc;
}

static int take_line(struct self *s, const struct sl_draft_place *at,
                     struct sl_tree *tree, uint32_t n, struct sl_error *err)
{
    uint32_t node = 0;
    int rc = make_line(s, at, tree->ids[0], n, err);

    for (uint32_t i = 0; i < n && i < s->n; i++)
        node = sl_tree_add(tree, node, s->line[i]);
    return rc;
}

/* An interrupted guess is none; whoever runs the whole model hears of it. */
static int self_propose(struct sl_draft *d, const struct sl_draft_place *at,
                        struct sl_tree *tree, uint32_t n, struct sl_error *err)
{
    struct self *s = (struct self *)d;
    int rc = (s->n > 0 ? take_line : grow)(s, at, tree, n, err);

    if (s->n > 0)
        go_on(s, at, tree->n - 1);
    return rc < 0 && err->code != SL_ERR_INTERRUPTED ? -1 : 0;
}

static bool self_branches(struct sl_draft *d)
{
    return ((struct self *)d)->n == 0;
}

static const struct sl_draft_ops self_ops = {
    .begin = self_begin,
    .add = self_add,
    .offer = self_offer,
    .ready = self_ready,
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

uint32_t sl_draft_self_span(uint32_t most)
{
    return most + 1 + SL_DRAFT_AHEAD;
}

const struct sl_draft_kind sl_draft_self_kind = {
    .name = "self",
    .prior = {0.8, 0.8, 0.8, 0.8},
    .bytes = self_bytes,
    .create = self_create,
    .costs = true,
};
