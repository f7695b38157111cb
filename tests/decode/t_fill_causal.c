#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "src/decode/fill.h"
#include "tests/script.h"
#include "tests/support.h"

/* Texts that a causal model goes on with: no mark is fed, no [sop], and what
 * comes first is not seen by what stands before it. */

static const struct sl_hparams hparams = {
    .vocab = V,
    .max_positions = 64,
    .causal = true,
    .text = {.special = {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1}},
};

static const struct sl_fill_config greedy = {
    .strategy = SL_STRATEGY_BASE,
    .sampler = {1, 1, 0},
    .out_seq_length = 20,
};

static const int32_t first[] = {5, 6, 7, 8, 9, SL_PROMPT_END};
static const int32_t second[] = {20, 21, 22, SL_PROMPT_END};

static struct sl_prompt prompt_of(const int32_t *ids, size_t n)
{
    struct sl_prompt p = {.mask = SL_PROMPT_END, .gmask = true};
    struct sl_error err;

    assert_ok(sl_ids_append(&p.ids, ids, n, &err), &err);
    return p;
}

/* What the script says greedily behind these ids. */
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

static int fill(struct script *s, struct sl_fill_result *r,
                const struct sl_fill_config *config, const int32_t *ids,
                size_t n, const struct sl_ids *stops, struct sl_error *err)
{
    struct sl_prompt p = prompt_of(ids, n);
    struct sl_rng rng;
    struct sl_fill_text text = {.prompt = &p, .rng = &rng};
    struct sl_fill_batch batch = {
        .lm = &s->lm,
        .hp = &hparams,
        .config = config,
        .stops = stops,
        .texts = &text,
        .n_texts = 1,
    };
    int rc;

    sl_rng_seed(&rng, 1);
    rc = sl_fill_all(&batch, err);
    sl_ids_fini(&p.ids);
    if (rc == 0 && text.failed) {
        *err = text.err;
        return -1;
    }
    *r = text.result;
    return rc;
}

static void a_text_goes_on_until_the_length(void **state)
{
    struct sl_fill_result r;
    struct sl_error err;
    struct script s;
    int32_t want[15];

    test_script_init(&s);
    follow(want, first, 5, 15);
    assert_ok(fill(&s, &r, &greedy, first, 6, NULL, &err), &err);
    assert_int_equal(r.n_answers, 1);
    assert_int_equal(r.answers[0].ids.n, 20);
    assert_memory_equal(r.answers[0].ids.v, first, 5 * sizeof *first);
    assert_memory_equal(r.answers[0].ids.v + 5, want, sizeof want);
    assert_int_equal(r.answers[0].n_blanks, 1);
    assert_int_equal(r.answers[0].blanks[0].begin, 5);
    assert_int_equal(r.answers[0].blanks[0].end, 20);
    assert_int_equal(s.last.n, 19); /* the last one was not fed */
    for (size_t i = 0; i < s.last.n; i++)
        assert_int_equal(s.last.positions[i], i);
    assert_int_equal(s.n_alive, 0);
    sl_fill_result_fini(&r);
}

static void any_of_the_stops_ends_it(void **state)
{
    struct sl_ids stops = {0};
    struct sl_fill_result r;
    struct sl_error err;
    struct script s;
    int32_t want[15];
    size_t n = 0;

    follow(want, first, 5, 15);
    assert_ok(sl_ids_add(&stops, 63, &err), &err);
    assert_ok(sl_ids_add(&stops, want[6], &err), &err);
    while (want[n] != want[6] && want[n] != 63)
        n++;
    test_script_init(&s);
    assert_ok(fill(&s, &r, &greedy, first, 6, &stops, &err), &err);
    assert_int_equal(r.answers[0].ids.n, 5 + n);
    assert_int_equal(r.n_generated, n + 1);
    sl_fill_result_fini(&r);
    sl_ids_fini(&stops);
}

static void one_beam_is_greedy(void **state)
{
    static const struct sl_fill_config beam = {
        .strategy = SL_STRATEGY_BEAM,
        .n_beams = 1,
        .length_penalty = 1,
        .deterministic = true,
        .out_seq_length = 20,
    };
    struct sl_fill_config beams = beam;
    struct sl_fill_result r;
    struct sl_error err;
    struct script s;
    int32_t want[15];

    follow(want, first, 5, 15);
    test_script_init(&s);
    assert_ok(fill(&s, &r, &beam, first, 6, NULL, &err), &err);
    assert_int_equal(r.answers[0].ids.n, 20);
    assert_memory_equal(r.answers[0].ids.v + 5, want, sizeof want);
    sl_fill_result_fini(&r);
    beams.n_beams = 3;
    assert_ok(fill(&s, &r, &beams, first, 6, NULL, &err), &err);
    assert_int_equal(r.n_answers, 3);
    assert_int_equal(r.answers[2].ids.n, 20);
    assert_int_equal(s.n_alive, 0);
    sl_fill_result_fini(&r);
}

static void texts_of_a_batch_do_not_see_each_other(void **state)
{
    struct sl_prompt a = prompt_of(first, 6), b = prompt_of(second, 4);
    struct sl_rng rng[2];
    struct sl_fill_text texts[] = {{.prompt = &a, .rng = &rng[0]},
                                   {.prompt = &b, .rng = &rng[1]}};
    struct script s;
    struct sl_fill_batch batch = {
        .lm = &s.lm,
        .hp = &hparams,
        .config = &greedy,
        .texts = texts,
        .n_texts = 2,
    };
    struct sl_error err;
    int32_t want[17];

    test_script_init(&s);
    sl_rng_seed(&rng[0], 1);
    sl_rng_seed(&rng[1], 1);
    assert_ok(sl_fill_all(&batch, &err), &err);
    follow(want, first, 5, 15);
    assert_memory_equal(texts[0].result.answers[0].ids.v + 5, want,
                        15 * sizeof *want);
    follow(want, second, 3, 17);
    assert_memory_equal(texts[1].result.answers[0].ids.v + 3, want,
                        17 * sizeof *want);
    for (int i = 0; i < 2; i++)
        sl_fill_result_fini(&texts[i].result);
    sl_ids_fini(&a.ids);
    sl_ids_fini(&b.ids);
}

static void an_interrupt_leaves_the_text_without_its_mark(void **state)
{
    struct sl_fill_result r;
    struct sl_error err;
    struct script s;

    for (int at = 0; at < 3; at++) {
        test_script_init(&s);
        s.fail_at = at;
        s.fail_code = SL_ERR_INTERRUPTED;
        assert_ok(fill(&s, &r, &greedy, first, 6, NULL, &err), &err);
        assert_true(r.interrupted);
        assert_int_equal(r.answers[0].ids.n, 5 + at);
        for (size_t i = 0; i < r.answers[0].ids.n; i++)
            assert_in_range(r.answers[0].ids.v[i], 0, V - 1);
        sl_fill_result_fini(&r);
    }
}

static void what_leaves_no_room_is_refused(void **state)
{
    static const int32_t empty[] = {SL_PROMPT_END};
    struct sl_prompt p = prompt_of(first, 6);
    struct sl_fill_config config = greedy;
    struct sl_workload load = {0};
    struct sl_fill_result r;
    struct sl_error err;
    struct script s;

    test_script_init(&s);
    config.out_seq_length = 6;
    assert_ok(sl_fill_workload(&load, &p, &hparams, &config, &err), &err);
    assert_int_equal(load.max_tokens, 6);
    assert_int_equal(load.pass_positions, 5);
    assert_int_equal(load.shared_tokens, 5);
    assert_ok(fill(&s, &r, &config, first, 6, NULL, &err), &err);
    assert_int_equal(r.answers[0].ids.n, 6);
    sl_fill_result_fini(&r);
    config.out_seq_length = 5;
    assert_int_equal(sl_fill_workload(&load, &p, &hparams, &config, &err), -1);
    assert_int_equal(err.code, SL_ERR_USAGE);
    assert_int_equal(fill(&s, &r, &config, first, 6, NULL, &err), -1);
    assert_int_equal(err.code, SL_ERR_USAGE);
    assert_int_equal(fill(&s, &r, &greedy, empty, 1, NULL, &err), -1);
    assert_non_null(strstr(err.msg, "an empty text"));
    sl_ids_fini(&p.ids);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_text_goes_on_until_the_length),
        cmocka_unit_test(any_of_the_stops_ends_it),
        cmocka_unit_test(one_beam_is_greedy),
        cmocka_unit_test(texts_of_a_batch_do_not_see_each_other),
        cmocka_unit_test(an_interrupt_leaves_the_text_without_its_mark),
        cmocka_unit_test(what_leaves_no_room_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
