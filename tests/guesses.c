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

static int propose(struct sl_draft *d, const struct sl_draft_place *place,
                   int32_t *ids, uint32_t n, uint32_t *made,
                   struct sl_error *err)
{
    struct guesser *me = (struct guesser *)d;
    struct guesses *g = me->g;

    *made = n;
    if (g->kind == GUESS_RANDOM && n > 0)
        *made = chance(g, n + 1);
    for (uint32_t i = 0; i < n; i++) {
        size_t at = me->n + i;
        bool wrong = g->kind == GUESS_WRONG ||
                     (g->kind == GUESS_WRONG_AT && i == g->at) ||
                     (g->kind == GUESS_RANDOM && chance(g, 4) == 0);

        ids[i] = at < me->said->n ? me->said->v[at] : 0;
        if (wrong)
            ids[i] =
                (int32_t)(((uint32_t)ids[i] + 1 + chance(g, g->vocab - 1)) %
                          g->vocab);
    }
    return 0;
}

static void destroy(struct sl_draft *d)
{
    free(d);
}

static const struct sl_draft_ops ops = {begin, add, offer, propose, destroy};

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
}
