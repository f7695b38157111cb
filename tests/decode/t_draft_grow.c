#include "config.h"

#include <string.h>

#include "src/decode/draft_grow.h"
#include "tests/support.h"

/* A tree of what a model finds likeliest, of a model that is a table: what may
 * follow depends on the last id and on the depth. */

enum { VOCAB = 23, ROWS = 4 };

struct table {
    uint32_t seed;
    float rows[ROWS * VOCAB];
    int32_t fed[SL_LM_TREE];
    uint32_t n_fed, most, calls;
    uint32_t end_at; /* no answer from this call on */
};

static void row_of(const struct table *t, int32_t id, uint32_t depth,
                   float *row)
{
    uint32_t x = t->seed * 2654435761u + (uint32_t)id * 40503u + depth * 97u;

    for (uint32_t i = 0; i < VOCAB; i++) {
        x = x * 1664525u + 1013904223u;
        row[i] = (float)(x >> 20) / 700;
    }
}

static int feed(void *opaque, const int32_t *ids, const uint32_t *parents,
                const uint32_t *depths, uint32_t n_before, uint32_t n,
                const float **rows, struct sl_error *err)
{
    struct table *t = opaque;

    if (t->calls++ == t->end_at)
        return 1;
    assert_int_equal(n_before, t->n_fed);
    assert_in_range(n, 1, ROWS);
    assert_in_range(n_before + n, 1, t->most);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t up = parents[n_before + i];

        assert_true(n_before + i == 0 ? up == SL_LM_ROOT : up < n_before);
        t->fed[t->n_fed++] = ids[i];
        row_of(t, ids[i], depths[i], t->rows + i * VOCAB);
    }
    *rows = t->rows;
    return 0;
}

static struct sl_tree grow(struct table *t, uint32_t width, uint32_t n,
                           uint32_t rows)
{
    const struct sl_grower g = {
        .feed = feed,
        .opaque = t,
        .vocab = VOCAB,
        .stride = VOCAB,
        .most_rows = rows,
    };
    struct sl_tree tree;
    struct sl_error err;

    t->most = n;
    t->n_fed = t->calls = 0;
    assert_ok(sl_tree_init(&tree, 1 + n, &err), &err);
    sl_tree_begin(&tree, (int32_t)(t->seed % VOCAB));
    tree.width = width;
    assert_ok(sl_tree_grow(&tree, n, &g, &err), &err);
    return tree;
}

/* What is fed has its place in the text's sequence, where there is room for as
 * many as are wanted, and for no more. */
static void no_more_is_fed_than_is_wanted(void **state)
{
    for (uint32_t i = 0; i < 2000; i++) {
        struct table t = {.seed = i, .end_at = UINT32_MAX};
        uint32_t n = 1 + i % (SL_LM_TREE - 1), width = 1 + i % SL_TREE_WIDTH;
        struct sl_tree tree = grow(&t, width, n, 1 + i % ROWS);

        assert_in_range(tree.n, 2, 1 + n);
        for (uint32_t k = 0; k < tree.n; k++)
            assert_in_range(sl_tree_children(&tree, k), 0, width);
        sl_tree_fini(&tree);
    }
}

static void a_chain_is_what_the_model_says(void **state)
{
    for (uint32_t i = 0; i < 200; i++) {
        struct table t = {.seed = i, .end_at = UINT32_MAX};
        uint32_t n = 1 + i % 30;
        struct sl_tree tree = grow(&t, 1, n, ROWS);

        assert_int_equal(tree.n, 1 + n);
        assert_true(sl_tree_is_chain(&tree));
        assert_int_equal(t.calls, n);
        for (uint32_t k = 0; k < n; k++) {
            float row[VOCAB];

            row_of(&t, tree.ids[k], k, row);
            for (uint32_t v = 0; v < VOCAB; v++)
                assert_true(row[v] <= row[tree.ids[k + 1]]);
        }
        sl_tree_fini(&tree);
    }
}

/* A tree holds what a chain of fewer passes does, and takes fewer passes than
 * it has nodes. */
static void a_tree_takes_fewer_passes(void **state)
{
    uint32_t calls = 0, nodes = 0;

    for (uint32_t i = 0; i < 200; i++) {
        struct table t = {.seed = i, .end_at = UINT32_MAX};
        struct sl_tree tree = grow(&t, SL_TREE_WIDTH, 12, ROWS);
        float row[VOCAB];

        assert_int_equal(tree.n, 13);
        calls += t.calls;
        nodes += tree.n - 1;
        /* the likeliest of all is there */
        row_of(&t, tree.ids[0], 0, row);
        for (uint32_t v = 0; v < VOCAB; v++)
            assert_true(row[v] <= row[tree.ids[1]]);
        sl_tree_fini(&tree);
    }
    assert_in_range(calls, 200, nodes * 2 / 3);
}

static void what_was_grown_stays_where_there_is_no_answer(void **state)
{
    for (uint32_t end_at = 0; end_at < 4; end_at++) {
        struct table t = {.seed = 7, .end_at = end_at};
        struct sl_tree tree = grow(&t, 1, 8, ROWS);

        assert_int_equal(tree.n, 1 + end_at);
        sl_tree_fini(&tree);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_more_is_fed_than_is_wanted),
        cmocka_unit_test(a_chain_is_what_the_model_says),
        cmocka_unit_test(a_tree_takes_fewer_passes),
        cmocka_unit_test(what_was_grown_stays_where_there_is_no_answer),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
