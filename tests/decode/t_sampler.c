#include "config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/decode/sampler.h"
#include "tests/support.h"

static void filter(float *logits, uint32_t n, double temperature,
                   uint32_t top_k, double top_p)
{
    struct sl_sampler_config config = {temperature, top_k, top_p};
    void *scratch = malloc(sl_sampler_scratch_bytes(n));

    assert_non_null(scratch);
    sl_sampler_filter(logits, n, &config, scratch);
    free(scratch);
}

/* A string with one letter a logit: K kept, . banned. */
static void assert_kept(const float *logits, const char *want)
{
    for (size_t i = 0; want[i] != '\0'; i++)
        assert_int_equal(logits[i] > SL_BANNED, want[i] == 'K');
}

static void the_generator_is_xoshiro(void **state)
{
    struct sl_rng rng, again;
    double sum = 0, squares = 0;

    /* First outputs of splitmix64 for seed 1234567 (its authors' vector). */
    sl_rng_seed(&rng, 1234567);
    assert_true(rng.s[0] == 6457827717110365317u);
    assert_true(rng.s[1] == 3203168211198807973u);
    /* First outputs of xoshiro256** for the state 1, 2, 3, 4. */
    rng = (struct sl_rng){{1, 2, 3, 4}};
    assert_true(sl_rng_uniform(&rng) == (double)(11520u >> 11) * 0x1p-53);
    assert_true(sl_rng_uniform(&rng) == 0);
    assert_true(sl_rng_uniform(&rng) == (double)(1509978240u >> 11) * 0x1p-53);
    sl_rng_seed(&rng, 1);
    sl_rng_seed(&again, 1);
    for (int i = 0; i < 100000; i++) {
        double u = sl_rng_uniform(&rng);

        assert_true(u >= 0 && u < 1 && u == sl_rng_uniform(&again));
        sum += u;
        squares += u * u;
    }
    assert_true(fabs(sum / 100000 - 0.5) < 0.005);
    assert_true(fabs(squares / 100000 - 1.0 / 3) < 0.005);
}

static void a_jump_leads_far_ahead(void **state)
{
    /* 2^128 steps from the state 1, 2, 3, 4: the matrix of a step over GF(2),
     * squared 128 times. */
    static const uint64_t want[] = {0x8c7a153956b5f3d1, 0x701f1a713401d85e,
                                    0x6527f66a65469085, 0x8386b786c4408050};
    struct sl_rng rng = {{1, 2, 3, 4}};

    sl_rng_jump(&rng);
    assert_memory_equal(rng.s, want, sizeof want);
}

static void the_first_of_equals_is_the_largest(void **state)
{
    const float a[] = {1, 7, 3, 7}, b[] = {-1}, c[] = {-INFINITY, -2, -3};

    assert_int_equal(sl_argmax(a, 4), 1);
    assert_int_equal(sl_argmax(b, 1), 0);
    assert_int_equal(sl_argmax(c, 3), 1);
}

static void top_k_keeps_ties(void **state)
{
    float a[] = {3, 1, 3, 2, 3, 0}, b[] = {3, 1, 3, 2, 3, 0};
    float c[] = {5, 4, 4, 4, 1}, d[] = {1, 2, 3};

    filter(a, 6, 1, 2, 0);
    assert_kept(a, "K.K.K.");
    filter(b, 6, 1, 4, 0);
    assert_kept(b, "K.KKK.");
    filter(c, 5, 1, 2, 0);
    assert_kept(c, "KKKK.");
    filter(d, 3, 1, 10, 0);
    assert_kept(d, "KKK");
}

static void top_p_keeps_the_token_that_crosses(void **state)
{
    /* probabilities 0.1 0.2 0.3 0.4 */
    float l[4] = {logf(0.1f), logf(0.2f), logf(0.3f), logf(0.4f)};
    const struct {
        double p;
        const char *kept;
    } cases[] = {
        {0, "KKKK"},    {1e-9, "...K"}, {0.39, "...K"}, {0.41, "..KK"},
        {0.69, "..KK"}, {0.71, ".KKK"}, {0.91, "KKKK"}, {1, "KKKK"},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        float x[4];

        memcpy(x, l, sizeof x);
        filter(x, 4, 1, 0, cases[i].p);
        assert_kept(x, cases[i].kept);
    }
}

static void top_p_counts_only_what_top_k_left(void **state)
{
    float l[4] = {logf(0.1f), logf(0.2f), logf(0.3f), logf(0.4f)};

    /* of 0.3 and 0.4 alone the latter has 0.57 */
    filter(l, 4, 1, 2, 0.55);
    assert_kept(l, "...K");
}

static void temperature_leaves_banned_tokens_banned(void **state)
{
    float l[] = {1, SL_BANNED, 2};

    filter(l, 3, 4.0, 0, 0);
    assert_true(l[0] == 0.25f && l[1] == SL_BANNED && l[2] == 0.5f);
}

static void draws_follow_the_probabilities(void **state)
{
    const float l[] = {logf(0.1f), SL_BANNED, logf(0.6f), logf(0.3f)};
    unsigned seen[4] = {0};
    struct sl_rng rng;

    sl_rng_seed(&rng, 99);
    for (int i = 0; i < 50000; i++)
        seen[sl_sampler_draw(l, 4, &rng)]++;
    assert_int_equal(seen[1], 0);
    assert_in_range(seen[0], 4700, 5300);
    assert_in_range(seen[2], 29500, 30500);
    assert_in_range(seen[3], 14600, 15400);
}

static void a_lone_survivor_is_drawn(void **state)
{
    static float l[150528];
    struct sl_rng rng;

    sl_rng_seed(&rng, 5);
    for (uint32_t i = 0; i < 150528; i++)
        l[i] = (float)(i * 7919u % 150528u) / 1e4f;
    filter(l, 150528, 0.7, 1, 0.9);
    for (int i = 0; i < 10; i++)
        assert_int_equal(sl_sampler_draw(l, 150528, &rng),
                         sl_argmax(l, 150528));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_generator_is_xoshiro),
        cmocka_unit_test(a_jump_leads_far_ahead),
        cmocka_unit_test(the_first_of_equals_is_the_largest),
        cmocka_unit_test(top_k_keeps_ties),
        cmocka_unit_test(top_p_keeps_the_token_that_crosses),
        cmocka_unit_test(top_p_counts_only_what_top_k_left),
        cmocka_unit_test(temperature_leaves_banned_tokens_banned),
        cmocka_unit_test(draws_follow_the_probabilities),
        cmocka_unit_test(a_lone_survivor_is_drawn),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
