#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "src/decode/fill.h"
#include "tests/fault.h"
#include "tests/script.h"
#include "tests/support.h"

enum { TEXTS = 4, BEAMS = 3 };

static const struct sl_hparams hparams = {
    .vocab = V,
    .max_positions = 40,
    .text.n_image_tokens = N_IMAGE,
    .text.n_tokens = N_TOKENS,
    .text.special = {MASK, GMASK, SMASK, EOD, SOP, EOP, ENC, DBLOCK, EOS, 11},
};

static const struct sl_fill_config configs[] = {
    /* greedy, drawn, beams, drawn beams */
    {
        .strategy = SL_STRATEGY_BASE,
        .sampler = {1, 1, 0},
        .out_seq_length = 20,
    },
    {
        .strategy = SL_STRATEGY_BASE,
        .sampler = {4, 0, 0},
        .out_seq_length = 20,
    },
    {
        .strategy = SL_STRATEGY_BEAM,
        .n_beams = BEAMS,
        .length_penalty = 1,
        .deterministic = true,
        .out_seq_length = 20,
    },
    {
        .strategy = SL_STRATEGY_BEAM,
        .n_beams = BEAMS,
        .length_penalty = 1,
        .out_seq_length = 20,
    },
};
#define N_CONFIGS (sizeof configs / sizeof *configs)

/* Lengths, numbers of blanks and ends of their own; the last has no blank. */
static const struct {
    int32_t ids[16];
    size_t n;
} texts[TEXTS] = {
    {{20, 21, MASK, 22, EOS}, 5},
    {{20, MASK, 23, MASK, 24, MASK, 22, EOS}, 8},
    {{30, 31, 32, 33, 34, 35, 36, 37, 38, MASK}, 10},
    {{25, 26, EOS}, 3},
};

/* What a text became, and what was heard of it. */
struct outcome {
    struct sl_prompt prompt;
    struct sl_rng rng;
    struct sl_fill_sink sink;
    struct sl_ids heard;
};

static int listen(void *opaque, const int32_t *ids, size_t n, bool blank,
                  struct sl_error *err)
{
    return sl_ids_append(opaque, ids, n, err);
}

static void outcomes_init(struct outcome *o, struct sl_fill_text *t)
{
    struct sl_error err;

    for (size_t i = 0; i < TEXTS; i++) {
        o[i] = (struct outcome){.prompt = {.mask = MASK}};
        assert_ok(
            sl_ids_append(&o[i].prompt.ids, texts[i].ids, texts[i].n, &err),
            &err);
        sl_rng_seed(&o[i].rng, 5 + i);
        o[i].sink = (struct sl_fill_sink){listen, &o[i].heard};
        t[i] = (struct sl_fill_text){
            .prompt = &o[i].prompt,
            .rng = &o[i].rng,
            .sink = &o[i].sink,
        };
    }
}

static void outcomes_fini(struct outcome *o, struct sl_fill_text *t)
{
    for (size_t i = 0; i < TEXTS; i++) {
        if (t[i].ended)
            sl_fill_result_fini(&t[i].result);
        sl_prompt_fini(&o[i].prompt);
        sl_ids_fini(&o[i].heard);
    }
}

static int note_end(void *opaque, size_t text, struct sl_error *err)
{
    ((int *)opaque)[text]++;
    return 0;
}

static int fill_together(struct script *s, struct sl_fill_text *t,
                         const struct sl_fill_config *config, int *ends,
                         struct sl_error *err)
{
    struct sl_fill_batch batch = {
        .lm = &s->lm,
        .hp = &hparams,
        .config = config,
        .texts = t,
        .n_texts = TEXTS,
        .ended = ends != NULL ? note_end : NULL,
        .opaque = ends,
    };
    int rc = sl_fill_all(&batch, err);

    assert_int_equal(s->n_alive, 0);
    return rc;
}

static void check_same(const struct sl_fill_result *a,
                       const struct sl_fill_result *b)
{
    assert_int_equal(a->n_answers, b->n_answers);
    assert_int_equal(a->n_generated, b->n_generated);
    for (size_t i = 0; i < a->n_answers; i++) {
        const struct sl_fill_answer *x = &a->answers[i], *y = &b->answers[i];

        assert_int_equal(x->ids.n, y->ids.n);
        assert_memory_equal(x->ids.v, y->ids.v, x->ids.n * sizeof *x->ids.v);
        assert_int_equal(x->n_blanks, y->n_blanks);
        assert_true(x->score == y->score);
    }
}

static void check_config(const struct sl_fill_config *config, int end_at)
{
    struct outcome together[TEXTS], alone[TEXTS];
    struct sl_fill_text t[TEXTS], t1[TEXTS];
    struct script s;
    struct sl_error err;
    int ends[TEXTS] = {0}, calls, most = 0;

    outcomes_init(together, t);
    outcomes_init(alone, t1);
    test_script_init(&s);
    s.end_at = end_at;
    assert_ok(fill_together(&s, t, config, ends, &err), &err);
    calls = s.forwards;
    for (size_t i = 0; i < TEXTS; i++) {
        struct sl_fill_result r;

        test_script_init(&s);
        s.end_at = end_at;
        assert_ok(sl_fill(&r, &s.lm, &alone[i].prompt, &hparams, config,
                          &alone[i].rng, &alone[i].sink, &err),
                  &err);
        if (s.forwards > most)
            most = s.forwards;
        assert_int_equal(ends[i], 1);
        assert_true(t[i].ended && !t[i].failed);
        check_same(&t[i].result, &r);
        assert_int_equal(together[i].heard.n, alone[i].heard.n);
        assert_memory_equal(together[i].heard.v, alone[i].heard.v,
                            alone[i].heard.n * sizeof(int32_t));
        assert_memory_equal(&together[i].rng, &alone[i].rng,
                            sizeof alone[i].rng);
        sl_fill_result_fini(&r);
    }
    /* the slowest text sets the number of passes */
    assert_int_equal(calls, most);
    outcomes_fini(together, t);
    outcomes_fini(alone, t1);
}

static void a_text_comes_out_the_same_together_as_alone(void **state)
{
    for (size_t c = 0; c < N_CONFIGS; c++) {
        for (int end_at = -1; end_at < 18; end_at += 3)
            check_config(&configs[c], end_at);
    }
}

static void a_text_that_goes_wrong_leaves_the_others_alone(void **state)
{
    for (size_t c = 0; c < N_CONFIGS; c++) {
        struct sl_fill_config config = configs[c];
        struct outcome o[TEXTS], other[TEXTS];
        struct sl_fill_text t[TEXTS], all[TEXTS];
        int ends[TEXTS] = {0};
        struct script s;
        struct sl_error err;

        config.out_seq_length = 60; /* beyond the model's longest sequence */
        outcomes_init(other, all);
        test_script_init(&s);
        assert_ok(fill_together(&s, all, &config, NULL, &err), &err);
        /* with its first blank filled it is too long for the second */
        assert_true(all[1].failed);
        assert_int_equal(all[1].err.code, SL_ERR_USAGE);

        outcomes_init(o, t);
        for (int i = 0; i < 33; i++)
            assert_ok(sl_ids_add(&o[1].prompt.ids, 20, &err), &err);
        test_script_init(&s);
        assert_ok(fill_together(&s, t, &config, ends, &err), &err);
        for (size_t i = 0; i < TEXTS; i++) {
            assert_int_equal(ends[i], 1);
            assert_true(t[i].ended);
            assert_int_equal(t[i].failed, i == 1);
            if (i != 1)
                check_same(&t[i].result, &all[i].result);
        }
        assert_non_null(strstr(t[1].err.msg, "41 tokens"));
        outcomes_fini(o, t);
        outcomes_fini(other, all);
    }
}

static void interrupted_texts_keep_what_they_have(void **state)
{
    for (size_t c = 0; c < N_CONFIGS; c++) {
        bool interrupted = true;

        for (int at = 0; interrupted; at++) {
            struct outcome o[TEXTS];
            struct sl_fill_text t[TEXTS];
            int ends[TEXTS] = {0};
            struct script s;
            struct sl_error err;

            outcomes_init(o, t);
            test_script_init(&s);
            s.end_at = 12;
            s.fail_at = at;
            s.fail_code = SL_ERR_INTERRUPTED;
            interrupted = false;
            if (fill_together(&s, t, &configs[c], ends, &err) != 0) {
                interrupted = true; /* of a fork, which does not fail so */
                outcomes_fini(o, t);
                continue;
            }
            for (size_t i = 0; i < TEXTS; i++) {
                const struct sl_ids *ids = &t[i].result.answers[0].ids;

                interrupted |= t[i].result.interrupted;
                assert_true(t[i].ended && !t[i].failed && ends[i] == 1);
                assert_int_equal(ids->n, o[i].heard.n);
                assert_memory_equal(ids->v, o[i].heard.v,
                                    ids->n * sizeof *ids->v);
            }
            assert_false(t[TEXTS - 1].result.interrupted);
            outcomes_fini(o, t);
        }
    }
}

static void what_has_ended_outlives_a_failure(void **state)
{
    struct outcome o[TEXTS];
    struct sl_fill_text t[TEXTS];
    struct script s;
    struct sl_error err;
    size_t most = 0;

    for (int at = 0;; at++) {
        size_t n_ended = 0;
        int rc;

        outcomes_init(o, t);
        test_script_init(&s);
        s.end_at = 11;
        s.fail_at = at;
        s.fail_code = SL_ERR_IO;
        rc = fill_together(&s, t, &configs[0], NULL, &err);
        for (size_t i = 0; i < TEXTS; i++) {
            n_ended += t[i].ended;
            assert_true(!t[i].ended || t[i].result.n_answers == 1);
        }
        outcomes_fini(o, t);
        if (rc == 0)
            break;
        assert_int_equal(err.code, SL_ERR_IO);
        most = n_ended > most ? n_ended : most;
    }
    assert_in_range(most, 2, TEXTS - 1);
}

static void no_allocation_can_fail_unnoticed(void **state)
{
    for (size_t c = 0; c < N_CONFIGS; c++) {
        bool fired = true;

        for (int n = 0; fired; n++) {
            struct outcome o[TEXTS];
            struct sl_fill_text t[TEXTS];
            struct script s;
            struct sl_error err;
            int rc;

            outcomes_init(o, t);
            test_script_init(&s);
            s.end_at = 12;
            fault_arm(n);
            rc = fill_together(&s, t, &configs[c], NULL, &err);
            fired = fault_fired();
            assert_int_equal(rc, fired ? -1 : 0);
            if (fired)
                assert_int_equal(err.code, SL_ERR_NOMEM);
            outcomes_fini(o, t);
        }
    }
}

static void the_workload_covers_every_pass_of_a_batch(void **state)
{
    for (size_t c = 0; c < N_CONFIGS; c++) {
        bool by_beams = configs[c].strategy == SL_STRATEGY_BEAM;
        struct sl_workload load = {0}, small = {0};
        struct outcome o[TEXTS];
        struct sl_fill_text t[TEXTS];
        struct script s;
        struct sl_error err;

        outcomes_init(o, t);
        for (size_t i = 0; i < TEXTS; i++)
            assert_ok(sl_fill_workload_beside(&load, &o[i].prompt, &hparams,
                                              &configs[c], &err),
                      &err);
        test_script_init(&s);
        s.end_at = 12;
        assert_ok(fill_together(&s, t, &configs[c], NULL, &err), &err);
        /* the prompts with [sop], all in the first pass */
        assert_in_range(s.pass_positions, 6 + 9 + 11, load.pass_positions);
        assert_int_equal(load.n_texts, TEXTS);
        assert_int_equal(load.n_sequences, by_beams ? BEAMS : 1);
        assert_in_range(s.most_alive, 3, load.n_sequences * TEXTS);
        assert_int_equal(load.pass_logits, 3 * load.n_sequences + 1);
        assert_int_equal(load.max_tokens, 20);
        assert_int_equal(load.shared_tokens, 6);
        outcomes_fini(o, t);

        small = load;
        small.pass_positions = 1;
        small.n_texts = TEXTS + 1;
        sl_fill_workload_cover(&load, &small);
        assert_int_equal(load.n_texts, TEXTS + 1);
        assert_in_range(load.pass_positions, 26, 100);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_text_comes_out_the_same_together_as_alone),
        cmocka_unit_test(a_text_that_goes_wrong_leaves_the_others_alone),
        cmocka_unit_test(interrupted_texts_keep_what_they_have),
        cmocka_unit_test(what_has_ended_outlives_a_failure),
        cmocka_unit_test(no_allocation_can_fail_unnoticed),
        cmocka_unit_test(the_workload_covers_every_pass_of_a_batch),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
