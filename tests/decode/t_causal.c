#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "src/decode/causal.h"
#include "tests/script.h"
#include "tests/support.h"

static const struct sl_causal_config greedy = {
    .sampler = {.temperature = 1, .top_k = 1},
    .repetition_penalty = 1,
    .max_new = 8,
};

struct rig {
    struct script script;
    struct sl_causal *causal;
    struct sl_rng rng;
};

static void open_rig(struct rig *r, uint32_t pass_positions)
{
    struct sl_error err;

    test_script_init(&r->script);
    sl_rng_seed(&r->rng, 1);
    assert_ok(
        sl_causal_create(&r->causal, &r->script.lm, pass_positions, NULL, &err),
        &err);
}

static void close_rig(struct rig *r)
{
    sl_causal_destroy(r->causal);
    assert_int_equal(r->script.n_alive, 0);
}

static void run(struct rig *r, const int32_t *prompt, size_t n,
                const struct sl_causal_config *config,
                const struct sl_causal_sink *sink,
                struct sl_causal_result *result)
{
    struct sl_error err;

    *result = (struct sl_causal_result){0};
    assert_ok(sl_causal_run(r->causal, prompt, n, config, &r->rng, sink, result,
                            &err),
              &err);
}

/* What the script says greedily behind these ids, one after another. */
static void follow(int32_t *said, const int32_t *prompt, size_t n, size_t n_new)
{
    struct script s;
    struct seq q = {.alive = true};
    float logits[V];

    test_script_init(&s);
    for (size_t i = 0; i < n + n_new; i++) {
        if (i >= n) {
            test_script_speak(&s, &q, logits);
            said[i - n] = sl_argmax(logits, V);
        }
        q.ids[q.n] = i < n ? prompt[i] : said[i - n];
        q.positions[q.n] = (int32_t)q.n;
        q.n++;
    }
}

static const int32_t first[] = {5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 16};
#define N_FIRST (sizeof first / sizeof *first)

static void a_text_goes_on_as_the_model_says(void **state)
{
    int32_t want[8];

    follow(want, first, N_FIRST, 8);
    for (uint32_t positions = 1; positions < 14; positions++) {
        struct sl_causal_result got;
        struct rig r;

        open_rig(&r, positions);
        run(&r, first, N_FIRST, &greedy, NULL, &got);
        assert_int_equal(got.ids.n, 8);
        assert_memory_equal(got.ids.v, want, sizeof want);
        assert_int_equal(got.end, SL_CAUSAL_LENGTH);
        assert_int_equal(got.n_read, N_FIRST);
        assert_int_equal(got.n_kept, 0);
        assert_true(got.first_token_ns > 0);
        assert_in_range(r.script.pass_positions, 1, positions);
        sl_causal_result_fini(&got);
        close_rig(&r);
    }
}

/* The second prompt shares some ids with what was read and said: only the
 * others are read, and the answer is the same as to somebody new. */
static void what_is_known_is_not_read_again(void **state)
{
    for (size_t share = 0; share <= N_FIRST + 8; share++) {
        int32_t prompt[N_FIRST + 8 + 2], want[8];
        struct sl_causal_result got;
        struct rig r;
        /* the last id said was never fed */
        size_t known = share < N_FIRST + 7 ? share : N_FIRST + 7;

        open_rig(&r, 64);
        run(&r, first, N_FIRST, &greedy, NULL, &got);
        memcpy(prompt, first, sizeof first);
        memcpy(prompt + N_FIRST, got.ids.v, 8 * sizeof *prompt);
        sl_causal_result_fini(&got);
        prompt[share] = 40;
        prompt[share + 1] = 41;
        follow(want, prompt, share + 2, 8);
        run(&r, prompt, share + 2, &greedy, NULL, &got);
        assert_int_equal(got.n_kept, known);
        assert_int_equal(got.n_kept + got.n_read, share + 2);
        assert_memory_equal(got.ids.v, want, sizeof want);
        sl_causal_result_fini(&got);
        close_rig(&r);
    }
}

static void the_same_prompt_costs_one_position(void **state)
{
    struct sl_causal_result a, b;
    struct rig r;

    open_rig(&r, 64);
    run(&r, first, N_FIRST, &greedy, NULL, &a);
    run(&r, first, N_FIRST, &greedy, NULL, &b);
    assert_int_equal(b.n_read, 1);
    assert_memory_equal(a.ids.v, b.ids.v, 8 * sizeof *a.ids.v);
    sl_causal_result_fini(&b);
    sl_causal_forget(r.causal);
    run(&r, first, N_FIRST, &greedy, NULL, &b);
    assert_int_equal(b.n_read, N_FIRST);
    sl_causal_result_fini(&a);
    sl_causal_result_fini(&b);
    close_rig(&r);
}

struct listener {
    size_t n, enough;
};

static int listen(void *opaque, int32_t id, bool *enough, struct sl_error *err)
{
    struct listener *l = opaque;

    l->n++;
    *enough = l->n == l->enough;
    if (l->enough == 100)
        return sl_fail(err, SL_ERR_IO, "deaf");
    return 0;
}

static void an_answer_ends_in_five_ways(void **state)
{
    struct sl_causal_config config = greedy;
    struct listener l = {0, 3};
    const struct sl_causal_sink sink = {listen, &l};
    struct sl_causal_result got;
    int32_t said[8];
    struct rig r;

    follow(said, first, N_FIRST, 8);
    open_rig(&r, 64);
    config.stops = said + 4;
    config.n_stops = 1;
    run(&r, first, N_FIRST, &config, NULL, &got);
    assert_int_equal(got.end, SL_CAUSAL_STOP);
    assert_in_range(got.ids.n, 1, 4);
    sl_causal_result_fini(&got);
    config = greedy;
    run(&r, first, N_FIRST, &config, &sink, &got);
    assert_int_equal(got.end, SL_CAUSAL_ENOUGH);
    assert_int_equal(got.ids.n, 3);
    sl_causal_result_fini(&got);
    config.max_new = 0;
    run(&r, first, N_FIRST, &config, NULL, &got);
    assert_int_equal(got.end, SL_CAUSAL_FULL);
    assert_int_equal(got.ids.n, MAX_LEN - N_FIRST + 1);
    sl_causal_result_fini(&got);
    close_rig(&r);
}

static void an_interrupt_keeps_what_was_said(void **state)
{
    int32_t want[8];

    follow(want, first, N_FIRST, 8);
    for (int at = 0; at < 6; at++) {
        struct sl_causal_result got;
        struct rig r;

        open_rig(&r, 4); /* three passes of the prompt */
        r.script.fail_at = at;
        r.script.fail_code = SL_ERR_INTERRUPTED;
        run(&r, first, N_FIRST, &greedy, NULL, &got);
        assert_int_equal(got.end, SL_CAUSAL_INTERRUPTED);
        assert_int_equal(got.ids.n, at < 3 ? 0 : at - 2);
        assert_memory_equal(got.ids.v ? got.ids.v : want, want,
                            got.ids.n * sizeof *want);
        sl_causal_result_fini(&got);
        run(&r, first, N_FIRST, &greedy, NULL, &got);
        assert_int_equal(got.ids.n, 8);
        assert_memory_equal(got.ids.v, want, sizeof want);
        sl_causal_result_fini(&got);
        close_rig(&r);
    }
}

static void errors_are_told_and_the_next_run_begins_anew(void **state)
{
    struct listener deaf = {0, 100};
    const struct sl_causal_sink sink = {listen, &deaf};
    struct sl_causal_result got = {0};
    int32_t longest[MAX_LEN] = {0};
    struct sl_error err;
    struct rig r;

    open_rig(&r, 64);
    assert_int_equal(sl_causal_run(r.causal, longest, MAX_LEN, &greedy, &r.rng,
                                   NULL, &got, &err),
                     -1);
    assert_int_equal(err.code, SL_ERR_USAGE);
    r.script.fail_at = 1;
    r.script.fail_code = SL_ERR_IO;
    assert_int_equal(sl_causal_run(r.causal, first, N_FIRST, &greedy, &r.rng,
                                   NULL, &got, &err),
                     -1);
    assert_int_equal(err.code, SL_ERR_IO);
    assert_int_equal(r.script.n_alive, 0);
    sl_causal_result_fini(&got);
    assert_int_equal(sl_causal_run(r.causal, first, N_FIRST, &greedy, &r.rng,
                                   &sink, &got, &err),
                     -1);
    assert_string_equal(err.msg, "deaf");
    sl_causal_result_fini(&got);
    r.script.nan = true;
    assert_int_equal(sl_causal_run(r.causal, first, N_FIRST, &greedy, &r.rng,
                                   NULL, &got, &err),
                     -1);
    assert_int_equal(err.code, SL_ERR_CORRUPT);
    r.script.nan = false;
    sl_causal_result_fini(&got);
    run(&r, first, N_FIRST, &greedy, NULL, &got);
    assert_int_equal(got.n_kept, 0);
    sl_causal_result_fini(&got);
    close_rig(&r);
}

static void repetition_can_be_made_dear(void **state)
{
    struct sl_causal_config config = greedy;
    struct sl_causal_result got;
    struct rig r;

    open_rig(&r, 64);
    r.script.favourite = 20; /* 25, others below 8 */
    run(&r, first, N_FIRST, &config, NULL, &got);
    for (size_t i = 0; i < 8; i++)
        assert_int_equal(got.ids.v[i], 20);
    sl_causal_result_fini(&got);
    config.repetition_penalty = 10;
    run(&r, first, N_FIRST, &config, NULL, &got);
    for (size_t i = 0; i < 8; i++)
        assert_true(i == 0 ? got.ids.v[i] == 20 : got.ids.v[i] != 20);
    sl_causal_result_fini(&got);
    close_rig(&r);
}

static void ids_without_meaning_are_never_said(void **state)
{
    struct sl_causal_config config = greedy;
    struct sl_causal_result got;
    struct rig r;

    open_rig(&r, 64);
    r.script.favourite = 60;
    config.n_tokens = N_TOKENS;
    run(&r, first, N_FIRST, &config, NULL, &got);
    for (size_t i = 0; i < 8; i++)
        assert_in_range(got.ids.v[i], 0, N_TOKENS - 1);
    sl_causal_result_fini(&got);
    close_rig(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_text_goes_on_as_the_model_says),
        cmocka_unit_test(what_is_known_is_not_read_again),
        cmocka_unit_test(the_same_prompt_costs_one_position),
        cmocka_unit_test(an_answer_ends_in_five_ways),
        cmocka_unit_test(an_interrupt_keeps_what_was_said),
        cmocka_unit_test(errors_are_told_and_the_next_run_begins_anew),
        cmocka_unit_test(repetition_can_be_made_dear),
        cmocka_unit_test(ids_without_meaning_are_never_said),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
