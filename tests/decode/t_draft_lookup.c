#include "config.h"

#include <string.h>

#include "src/decode/draft.h"
#include "tests/support.h"

/* What followed the same words before, as a chain and as a tree. */

struct look {
    int32_t text[40];
    size_t n;
    int32_t want[4];
    uint32_t strength;
};

static void the_longest_and_newest_match_is_what_is_proposed(void **state)
{
    static const struct look looks[] = {
        {{1, 2, 3, 4, 9, 1, 2}, 7, {3, 4, 9, 1}, 0},
        /* the newest of equals */
        {{1, 2, 3, 8, 1, 2, 4, 7, 1, 2}, 10, {4, 7, 1, 2}, 0},
        /* the longest before the newest */
        {{5, 1, 2, 3, 8, 6, 1, 2, 4, 7, 5, 1, 2}, 13, {3, 8, 6, 1}, 1},
        /* into its own continuation */
        {{1, 2, 1, 2}, 4, {1, 2, 1, 2}, 0},
        {{7, 7, 7}, 3, {7, 7, 7, 7}, 0},
        {{1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9},
         19,
         {0, 1, 2, 3},
         3},
    };

    for (size_t i = 0; i < sizeof looks / sizeof *looks; i++) {
        const struct look *l = &looks[i];
        struct sl_draft *d;
        struct sl_error err;
        struct sl_tree tree;
        uint32_t strength;

        for (size_t begun = 0; begun <= l->n; begun++) {
            assert_ok(sl_draft_lookup.create(&d, 40, NULL, &err), &err);
            assert_ok(d->ops->begin(
                          d,
                          &(struct sl_draft_text){.ids = l->text, .n = begun},
                          &err),
                      &err);
            for (size_t k = begun; k < l->n; k++)
                d->ops->add(d, l->text[k]);
            assert_int_equal(d->ops->offer(d, 4, &strength), 4);
            assert_int_equal(strength, l->strength);
            assert_ok(sl_tree_init(&tree, 5, &err), &err);
            sl_tree_begin(&tree, l->text[l->n - 1]);
            assert_ok(d->ops->propose(d, NULL, &tree, 4, &err), &err);
            assert_int_equal(tree.n, 5);
            assert_true(sl_tree_is_chain(&tree));
            assert_memory_equal(tree.ids + 1, l->want, sizeof l->want);
            sl_tree_fini(&tree);
            d->ops->destroy(d);
        }
    }
}

/* What followed the same words in other places stands beside it, the likelier
 * first, each with what went on from there. */
static void other_continuations_stand_beside(void **state)
{
    static const struct {
        int32_t text[40];
        size_t n;
        uint32_t width, most;
        /* in the order that they lie in; parents */
        int32_t want[8];
        uint32_t parents[8];
        size_t n_want;
    } looks[] = {
        /* three times 3, once 4, the newer: three are believed */
        {{1, 2, 3, 5, 1, 2, 3, 6, 1, 2, 3, 5, 1, 2, 4, 7, 1, 2},
         18,
         2,
         6,
         {3, 4, 5, 6, 1, 2},
         {0, 0, 1, 1, 3, 5},
         6},
        /* the same words in the same order go on as a chain */
        {{1, 2, 3, 4, 9, 1, 2, 3, 4, 8, 1, 2},
         12,
         4,
         4,
         {3, 4, 8, 9},
         {0, 1, 2, 2},
         4},
        /* no more brothers than are wanted */
        {{1, 2, 3, 1, 2, 4, 1, 2, 5, 1, 2, 6, 1, 2},
         14,
         2,
         2,
         {6, 5},
         {0, 0},
         2},
        /* chains, of the longest match alone */
        {{1, 2, 3, 1, 2, 4, 1, 2, 5, 1, 2}, 11, 1, 3, {5, 1, 2}, {0, 1, 2}, 3},
    };

    for (size_t i = 0; i < sizeof looks / sizeof *looks; i++) {
        struct sl_draft_text text = {.ids = looks[i].text, .n = looks[i].n};
        struct sl_draft *d;
        struct sl_error err;
        struct sl_tree tree;
        uint32_t strength;

        assert_ok(sl_draft_lookup.create(&d, 40, NULL, &err), &err);
        assert_ok(sl_tree_init(&tree, 9, &err), &err);
        assert_ok(d->ops->begin(d, &text, &err), &err);
        assert_int_equal(d->ops->offer(d, looks[i].most, &strength),
                         looks[i].most);
        sl_tree_begin(&tree, looks[i].text[looks[i].n - 1]);
        tree.width = looks[i].width;
        memset(tree.position_at, 0, 9 * sizeof(int32_t));
        memset(tree.block_at, 0, 9 * sizeof(int32_t));
        assert_ok(d->ops->propose(d, NULL, &tree, looks[i].most, &err), &err);
        sl_tree_lay(&tree);
        for (size_t k = 0; k < looks[i].n_want; k++) {
            assert_int_equal(tree.ids[1 + k], looks[i].want[k]);
            assert_int_equal(tree.parents[1 + k], looks[i].parents[k]);
        }
        sl_tree_fini(&tree);
        d->ops->destroy(d);
    }
}

/* Nodes in any order in which parents come first are laid by depth, and are the
 * same tree. */
static void nodes_are_laid_breadth_first(void **state)
{
    uint32_t random = 3;

    for (int round = 0; round < 500; round++) {
        struct sl_tree t, before;
        struct sl_error err;

        assert_ok(sl_tree_init(&t, 20, &err), &err);
        assert_ok(sl_tree_init(&before, 20, &err), &err);
        sl_tree_begin(&t, 0);
        sl_tree_begin(&before, 0);
        for (int32_t i = 1; i < 20; i++) {
            random = random * 1103515245 + 12345;
            sl_tree_add(&t, (random >> 16) % t.n, i);
            sl_tree_add(&before, t.parents[i], i);
        }
        for (int32_t i = 0; i < 20; i++)
            t.position_at[i] = t.block_at[i] = 100 + i;
        sl_tree_lay(&t);
        for (uint32_t i = 1; i < 20; i++) {
            uint32_t was = (uint32_t)t.ids[i];

            assert_true(t.parents[i] < i);
            assert_true(i == 1 || t.parents[i] >= t.parents[i - 1]);
            assert_int_equal(t.depths[i], t.depths[t.parents[i]] + 1);
            assert_int_equal(t.positions[i], 100 + t.depths[i]);
            assert_int_equal(t.ids[t.parents[i]], before.parents[was]);
        }
        sl_tree_fini(&t);
        sl_tree_fini(&before);
    }
}

static void what_was_never_said_is_not_guessed(void **state)
{
    struct sl_draft *d;
    struct sl_error err;
    uint32_t strength;

    assert_ok(sl_draft_lookup.create(&d, 10, NULL, &err), &err);
    assert_ok(d->ops->begin(d, &(struct sl_draft_text){.n = 0}, &err), &err);
    assert_int_equal(d->ops->offer(d, 4, &strength), 0);
    for (int32_t i = 0; i < 30; i++) { /* more than it has room for */
        d->ops->add(d, i);
        assert_int_equal(d->ops->offer(d, 4, &strength), 0);
    }
    d->ops->destroy(d);
}

/* Against a search of the whole text: what is found ends like it, and no match
 * beyond a chain's reach is much longer. */
static void a_match_is_one(void **state)
{
    enum { N = 600 };
    uint32_t random = 1;
    int32_t text[N];
    struct sl_draft *d;
    struct sl_error err;

    assert_ok(sl_draft_lookup.create(&d, N, NULL, &err), &err);
    assert_ok(d->ops->begin(d, &(struct sl_draft_text){.n = 0}, &err), &err);
    for (size_t n = 0; n < N; n++) {
        uint32_t strength, best = 0;
        struct sl_tree tree;
        int32_t got;

        random = random * 1103515245 + 12345;
        text[n] = (int32_t)(random >> 16) % 5;
        if (n > 200 && n % 97 < 40)
            text[n] = text[n - 150];
        d->ops->add(d, text[n]);
        for (size_t at = 0; at < n; at++) {
            uint32_t k = 0;

            while (k <= at && k < 32 && text[at - k] == text[n - k])
                k++;
            best = k > best ? k : best;
        }
        if (d->ops->offer(d, 1, &strength) == 0) {
            assert_in_range(best, 0, 1);
            continue;
        }
        assert_in_range(best, 2, 32);
        assert_ok(sl_tree_init(&tree, 2, &err), &err);
        sl_tree_begin(&tree, text[n]);
        tree.width = 1 + n % SL_TREE_WIDTH;
        assert_ok(d->ops->propose(d, NULL, &tree, 1, &err), &err);
        assert_int_equal(tree.n, 2);
        got = tree.ids[1];
        sl_tree_fini(&tree);
        /* some place that ends like the text goes on so */
        for (best = 0; best < n; best++) {
            if (best > 0 && text[best] == text[n] &&
                text[best - 1] == text[n - 1] && text[best + 1] == got)
                break;
        }
        assert_in_range(best, 1, n - 1);
    }
    d->ops->destroy(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_longest_and_newest_match_is_what_is_proposed),
        cmocka_unit_test(other_continuations_stand_beside),
        cmocka_unit_test(nodes_are_laid_breadth_first),
        cmocka_unit_test(what_was_never_said_is_not_guessed),
        cmocka_unit_test(a_match_is_one),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
