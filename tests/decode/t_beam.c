#include "config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/decode/beam.h"
#include "tests/support.h"

enum { V = 600 }; /* more than two blocks of draws */

static const int32_t ends[] = {1, 2};

static struct sl_beam_config config(uint32_t n_beams)
{
    return (struct sl_beam_config){
        .n_beams = n_beams,
        .length_penalty = 1,
        .deterministic = true,
        .consider_end = true,
        .end_ids = ends,
        .n_end_ids = 2,
    };
}

static struct sl_beam *create(const struct sl_beam_config *c)
{
    const int32_t context[] = {10, 11, 12, 13, 14};
    struct sl_beam *b = NULL;
    struct sl_error err;

    assert_ok(sl_beam_create(&b, c, context, 5, V, &err), &err);
    return b;
}

static bool step(struct sl_beam *b, float *logits, uint32_t *parents,
                 struct sl_rng *rng)
{
    struct sl_error err;
    bool done;

    assert_ok(sl_beam_step(b, logits, parents, rng, &done, &err), &err);
    return done;
}

static void flat(float *logits, size_t rows)
{
    for (size_t i = 0; i < rows * V; i++)
        logits[i] = 0;
}

static int32_t last(const struct sl_beam *b, size_t i)
{
    size_t n;
    const int32_t *ids = sl_beam_live(b, i, &n, NULL);

    return ids[n - 1];
}

static void equal_scores_go_to_the_first_tokens(void **state)
{
    struct sl_beam_config c = config(3);
    struct sl_beam *b = create(&c);
    static float logits[3 * V];
    uint32_t parents[3];

    flat(logits, 3);
    logits[1] = logits[2] = -50;
    step(b, logits, parents, NULL);
    assert_int_equal(sl_beam_n_live(b), 3);
    assert_int_equal(last(b, 0), 0);
    assert_int_equal(last(b, 1), 3);
    assert_int_equal(last(b, 2), 4);
    sl_beam_destroy(b);
}

static void children_know_their_parents(void **state)
{
    struct sl_beam_config c = config(3);
    struct sl_beam *b = create(&c);
    static float logits[3 * V];
    uint32_t parents[3];

    flat(logits, 3);
    logits[20] = 12, logits[21] = 11, logits[22] = 10;
    step(b, logits, parents, NULL);
    flat(logits, 3);
    logits[V + 30] = 20, logits[V + 31] = 19, logits[2 * V + 40] = 20;
    step(b, logits, parents, NULL);
    assert_int_equal(parents[0], 1);
    assert_int_equal(last(b, 0), 30);
    assert_int_equal(parents[1], 2);
    assert_int_equal(last(b, 1), 40);
    assert_int_equal(parents[2], 1);
    assert_int_equal(last(b, 2), 31);
    sl_beam_destroy(b);
}

static void no_end_before_the_least_length(void **state)
{
    struct sl_beam_config c = config(2);
    static float logits[2 * V];
    uint32_t parents[2];
    struct sl_beam *b;

    c.min_gen_length = 2;
    b = create(&c);
    for (int i = 0; i < 3; i++) {
        flat(logits, 2);
        for (size_t k = 0; k < 2; k++)
            logits[k * V + 1] = 30;
        step(b, logits, parents, NULL);
        assert_int_equal(sl_beam_n_finished(b) > 0, i == 2);
    }
    sl_beam_destroy(b);
}

static void banned_tokens_do_not_come(void **state)
{
    const int32_t banned[] = {5, 6, -1, V + 7};
    struct sl_beam_config c = config(1);
    static float logits[V];
    uint32_t parents[1];
    struct sl_rng rng;
    struct sl_beam *b;

    sl_rng_seed(&rng, 1);
    c.banned = banned;
    c.n_banned = 4;
    for (int drawn = 0; drawn < 2; drawn++) {
        c.deterministic = !drawn;
        b = create(&c);
        flat(logits, 1);
        logits[5] = logits[6] = 100;
        logits[7] = 40;
        step(b, logits, parents, &rng);
        assert_int_equal(last(b, 0), 7);
        sl_beam_destroy(b);
    }
}

static void ngrams_of_the_context_may_repeat(void **state)
{
    struct sl_beam_config c = config(1);
    static float logits[V];
    uint32_t parents[1];
    const int32_t want[] = {10, 11, 12, 10, 11, 0};
    struct sl_beam *b;

    c.no_repeat_ngram = 3;
    b = create(&c); /* 10 11 12 13 14 */
    for (size_t i = 0; i < 6; i++) {
        flat(logits, 1);
        logits[1] = logits[2] = -9;
        if (want[i] != 0)
            logits[want[i]] = 20;
        else
            logits[12] = 20; /* 10 11 12 came once already */
        step(b, logits, parents, NULL);
        assert_int_equal(last(b, 0), want[i]);
    }
    sl_beam_destroy(b);
}

/* Sampling without replacement: over many first steps a token is among the
 * candidates as often as its mass says, and no two live beams are the same. */
static void drawn_beams_differ_and_follow_the_mass(void **state)
{
    struct sl_beam_config c = config(2);
    static float logits[2 * V];
    unsigned seen = 0;
    uint32_t parents[2];
    struct sl_rng rng;

    c.deterministic = false;
    sl_rng_seed(&rng, 7);
    for (int i = 0; i < 2000; i++) {
        struct sl_beam *b = create(&c);

        flat(logits, 2);
        logits[1] = logits[2] = SL_BANNED;
        logits[500] = logf(300);
        step(b, logits, parents, &rng);
        assert_int_equal(sl_beam_n_live(b), 2);
        assert_int_not_equal(last(b, 0), last(b, 1));
        /* six draws; 500 has 300 of 897 parts at first */
        seen += last(b, 0) == 500;
        for (size_t k = 0; k < 2; k++)
            logits[k * V + 300] = 3;
        step(b, logits, parents, &rng);
        assert_false(parents[0] == parents[1] && last(b, 0) == last(b, 1));
        sl_beam_destroy(b);
    }
    /* 1 - product over 6 draws of (1 - 300 / (897 - drawn)) = 0.914 */
    assert_in_range(seen, 1780, 1870);
}

static void fewer_tokens_than_beams_is_no_trouble(void **state)
{
    const int32_t context[] = {0};
    float logits[4 * 3] = {0};
    uint32_t parents[4];
    struct sl_rng rng;
    struct sl_error err;
    struct sl_beam *b;
    bool done;

    sl_rng_seed(&rng, 3);
    for (int drawn = 0; drawn < 2; drawn++) {
        struct sl_beam_config c = config(4);

        c.deterministic = !drawn;
        done = false;
        assert_ok(sl_beam_create(&b, &c, context, 1, 3, &err), &err);
        for (int i = 0; i < 4 && !done; i++) {
            memset(logits, 0, sizeof logits);
            assert_ok(sl_beam_step(b, logits, parents, &rng, &done, &err),
                      &err);
            assert_in_range(sl_beam_n_live(b), 1, 4);
        }
        assert_ok(sl_beam_finish(b, &err), &err);
        assert_int_equal(sl_beam_n_finished(b), 4);
        sl_beam_destroy(b);
    }
}

static void finished_beams_keep_their_order(void **state)
{
    struct sl_beam_config c = config(2);
    struct sl_beam *b = create(&c);
    static float logits[2 * V];
    double score, before = INFINITY;
    const int32_t *ids;
    uint32_t parents[2];
    struct sl_error err;
    size_t n;

    for (int i = 0; i < 3; i++) {
        flat(logits, 2);
        for (size_t k = 0; k < 2; k++)
            logits[k * V + 1] = 5, logits[k * V + 20] = 7;
        if (step(b, logits, parents, NULL))
            break;
    }
    assert_ok(sl_beam_finish(b, &err), &err);
    assert_int_equal(sl_beam_n_finished(b), 2);
    for (size_t i = 0; i < 2; i++) {
        ids = sl_beam_finished(b, i, &n, &score);
        assert_true(score <= before && n > 5);
        assert_int_equal(ids[0], 10);
        before = score;
    }
    sl_beam_destroy(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_scores_go_to_the_first_tokens),
        cmocka_unit_test(children_know_their_parents),
        cmocka_unit_test(no_end_before_the_least_length),
        cmocka_unit_test(banned_tokens_do_not_come),
        cmocka_unit_test(ngrams_of_the_context_may_repeat),
        cmocka_unit_test(drawn_beams_differ_and_follow_the_mass),
        cmocka_unit_test(fewer_tokens_than_beams_is_no_trouble),
        cmocka_unit_test(finished_beams_keep_their_order),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
