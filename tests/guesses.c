#include "config.h"

#include <stdlib.h>

#include "tests/guesses.h"
#include "tests/support.h"

struct guesser {
    struct sl_draft draft;
    struct guesses *g;
    const struct sl_ids *said;
    size_t n; /* that were said */
};

static uint32_t chance(struct guesses *g, uint32_t n)
{
    g->random = g->random * UINT64_C(6364136223846793005) +
                UINT64_C(1442695040888963407);
    return (uint32_t)(g->random >> 33) % n;
}

static int begin(struct sl_draft *d, const struct sl_draft_text *t,
                 struct sl_error *err)
{
    struct guesser *me = (struct guesser *)d;

    me->n = 0;
    me->said = &me->g->said[me->g->next++ % me->g->n_texts];
    return 0;
}

static void add(struct sl_draft *d, int32_t id)
{
    struct guesser *me = (struct guesser *)d;

    /* the text is the one that was said without drafts */
    assert_in_range(me->n, 0, me->said->n);
    if (me->n < me->said->n)
        assert_int_equal(id, me->said->v[me->n]);
    me->n++;
}

static uint32_t offer(struct sl_draft *d, uint32_t most, uint32_t *strength)
{
    struct guesser *me = (struct guesser *)d;

    *strength = 0;
    if (me->g->kind != GUESS_RANDOM || most == 0)
        return most;
    *strength = chance(me->g, SL_DRAFT_CLASSES);
    return chance(me->g, most + 1);
}

/* Anything but what comes at so many places from here, nor a brother's. */
static int32_t wrong_at(const struct guesser *me, const struct sl_tree *t,
                        uint32_t parent, size_t at)
{
    struct guesses *g = me->g;
    int32_t id;

    do
        id = (int32_t)chance(g, g->vocab);
    while ((at < me->said->n && id == me->said->v[at]) ||
           sl_tree_child(t, parent, id) != SL_LM_ROOT);
    return id;
}

static int32_t right_at(const struct guesser *me, size_t at)
{
    return at < me->said->n ? me->said->v[at] : 0;
}

static void propose_chain(const struct guesser *me, struct sl_tree *t,
                          uint32_t n)
{
    struct guesses *g = me->g;

    if (g->kind == GUESS_RANDOM && n > 0)
        n = chance(g, n + 1);
    for (uint32_t i = 0; i < n; i++) {
        bool wrong = g->kind == GUESS_WRONG || g->kind == GUESS_TREE_WRONG ||
                     (g->kind == GUESS_WRONG_AT && i == g->at) ||
                     (g->kind == GUESS_RANDOM && chance(g, 4) == 0);

        sl_tree_add(t, i,
                    wrong ? wrong_at(me, t, i, me->n + i)
                          : right_at(me, me->n + i));
    }
}

/* The right path lies among wrong ones, which branch off it and have branches
 * of their own: at each depth the right guess is brother `at`. */
static void propose_tree(const struct guesser *me, struct sl_tree *t,
                         uint32_t n)
{
    struct guesses *g = me->g;
    uint32_t right = 0; /* node; the path has ended where it is SL_LM_ROOT */

    while (t->n < 1 + n) {
        uint32_t up = right, depth, place;

        if (right == SL_LM_ROOT || chance(g, 3) == 0)
            up = chance(g, t->n);
        depth = t->depths[up];
        place = sl_tree_children(t, up);
        if (place == t->width)
            continue;
        if (up != right || place != g->at % t->width ||
            g->kind == GUESS_TREE_WRONG) {
            sl_tree_add(t, up, wrong_at(me, t, up, me->n + depth));
            continue;
        }
        right = sl_tree_add(t, up, right_at(me, me->n + depth));
        if (g->kind == GUESS_TREE_ENDS && depth + 1 == g->at)
            right = SL_LM_ROOT;
    }
}

static int propose(struct sl_draft *d, const struct sl_draft_place *place,
                   struct sl_tree *t, uint32_t n, struct sl_error *err)
{
    struct guesser *me = (struct guesser *)d;

    if (me->g->kind < GUESS_TREE || t->width == 1)
        propose_chain(me, t, n);
    else
        propose_tree(me, t, n);
    return 0;
}

static void destroy(struct sl_draft *d)
{
    free(d);
}

static bool branches(struct sl_draft *d)
{
    return ((struct guesser *)d)->g->kind >= GUESS_TREE;
}

static const struct sl_draft_ops ops = {
    .begin = begin,
    .add = add,
    .offer = offer,
    .branches = branches,
    .propose = propose,
    .destroy = destroy,
};

static int create(struct sl_draft **d, uint32_t max_tokens, void *arg,
                  struct sl_error *err)
{
    struct guesser *me = calloc(1, sizeof *me);

    if (me == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory to guess");
    me->draft.ops = &ops;
    me->g = arg;
    *d = &me->draft;
    return 0;
}

static uint64_t bytes(uint32_t max_tokens)
{
    return sizeof(struct guesser);
}

const struct sl_draft_kind test_guess = {
    .name = "guess",
    .prior = {1, 1, 1, 1},
    .bytes = bytes,
    .create = create,
};

uint64_t test_even_time(void *calls)
{
    return 1000 * ++*(uint64_t *)calls;
}

void test_drafts_init(struct sl_drafts *d, struct guesses *g, uint32_t most)
{
    struct sl_error err;

    sl_drafts_init(d, most, 0);
    d->now = test_even_time;
    d->now_arg = &g->calls;
    assert_ok(sl_drafts_add(d, &test_guess, g, &err), &err);
    if (g->kind < GUESS_TREE)
        return;
    /* brothers are believed in, whatever comes of them */
    for (uint32_t i = 0; i < SL_DRAFT_CLASSES; i++) {
        struct sl_acceptance *a = &d->gate.sources[0].of[i];

        a->prior = 0.5;
        for (uint32_t r = 0; r < SL_DRAFT_BESIDE; r++)
            a->beside_tried[r] = a->beside_right[r] = 1e9;
    }
}
