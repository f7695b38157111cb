#include "config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/decode/fill.h"
#include "tests/fault.h"
#include "tests/script.h"
#include "tests/support.h"

static const struct sl_hparams hparams = {
    .vocab = V,
    .max_positions = 40,
    .text.n_image_tokens = N_IMAGE,
    .text.n_tokens = N_TOKENS,
    .text.special = {MASK, GMASK, SMASK, EOD, SOP, EOP, ENC, DBLOCK, EOS, 11},
};

static const struct sl_fill_config greedy = {
    .strategy = SL_STRATEGY_BASE,
    .sampler = {1, 1, 0},
    .out_seq_length = 20,
};

static const struct sl_fill_config beams = {
    .strategy = SL_STRATEGY_BEAM,
    .n_beams = 3,
    .length_penalty = 1,
    .no_repeat_ngram = 3,
    .deterministic = true,
    .out_seq_length = 20,
};

struct heard {
    struct sl_ids given, made, all;
    size_t n_blanks;
};

static int listen(void *opaque, const int32_t *ids, size_t n, bool blank,
                  struct sl_error *err)
{
    struct heard *h = opaque;

    h->n_blanks += n == 0 && blank;
    if (sl_ids_append(&h->all, ids, n, err) != 0)
        return -1;
    return sl_ids_append(blank ? &h->made : &h->given, ids, n, err);
}

static int fill(struct script *s, struct sl_fill_result *r,
                const struct sl_hparams *hp, const struct sl_fill_config *c,
                const int32_t *ids, size_t n, bool gmask, struct heard *h,
                struct sl_error *err)
{
    struct sl_fill_sink sink = {listen, h};
    struct sl_prompt p = {0};
    struct sl_rng rng;
    int rc;

    sl_rng_seed(&rng, 1);
    assert_ok(sl_ids_append(&p.ids, ids, n, err), err);
    p.gmask = gmask;
    p.mask = gmask ? GMASK : MASK;
    rc = sl_fill(r, &s->lm, &p, hp, c, &rng, h ? &sink : NULL, err);
    sl_prompt_fini(&p);
    assert_int_equal(s->n_alive, 0);
    return rc;
}

static void fini_heard(struct heard *h)
{
    sl_ids_fini(&h->given);
    sl_ids_fini(&h->made);
    sl_ids_fini(&h->all);
}

static const int32_t one_mask[] = {20, 21, MASK, 22, EOS};
static const int32_t two_masks[] = {20, MASK, 21, MASK, 22, EOS};
static const int32_t tail_mask[] = {20, 21, 22, GMASK};

static void a_blank_s_tokens_share_the_place_of_its_mask(void **state)
{
    struct sl_fill_result r;
    struct script s;
    struct sl_error err;

    test_script_init(&s);
    assert_ok(fill(&s, &r, &hparams, &greedy, one_mask, 5, false, NULL, &err),
              &err);
    assert_int_equal(r.answers[0].ids.n, 4 + 14 - 1);
    for (size_t i = 0; i < s.last.n; i++) {
        assert_int_equal(s.last.positions[i], i < 5 ? i : 2);
        assert_int_equal(s.last.blocks[i], -1);
    }
    assert_int_equal(s.last.ids[5], SOP);
    /* the last token is never fed: 5 + [sop] + 14 generated - 1 */
    assert_int_equal(s.last.n, 19);
    sl_fill_result_fini(&r);
}

static void behind_gmask_positions_run_on(void **state)
{
    struct sl_fill_result r;
    struct script s;
    struct sl_error err;

    test_script_init(&s);
    assert_ok(fill(&s, &r, &hparams, &greedy, tail_mask, 4, true, NULL, &err),
              &err);
    assert_int_equal(s.last.n, 19);
    for (size_t i = 0; i < s.last.n; i++)
        assert_int_equal(s.last.positions[i], i);
    sl_fill_result_fini(&r);
}

/* As the original GLM has them (sl_prompt_make_glm). */
static void marks_of_several_kinds_are_filled_from_left_to_right(void **state)
{
    static const int32_t ids[] = {20, GMASK, 21, MASK, 22};
    struct sl_prompt p = {
        .mask = GMASK, .masks = {MASK, GMASK}, .n_masks = 2, .gmask = true};
    struct sl_fill_result r;
    struct sl_rng rng;
    struct script s;
    struct sl_error err;

    test_script_init(&s);
    s.end_at = 3;
    sl_rng_seed(&rng, 1);
    assert_ok(sl_ids_append(&p.ids, ids, 5, &err), &err);
    assert_ok(sl_fill(&r, &s.lm, &p, &hparams, &greedy, &rng, NULL, &err),
              &err);
    assert_int_equal(r.answers[0].n_blanks, 2);
    assert_int_equal(r.answers[0].blanks[0].begin, 1);
    assert_true(r.answers[0].blanks[0].end < r.answers[0].blanks[1].begin);
    for (size_t i = 0; i < r.answers[0].ids.n; i++)
        assert_false(sl_prompt_fills(&p, r.answers[0].ids.v[i]));
    assert_int_equal(s.n_alive, 0);
    sl_fill_result_fini(&r);
    sl_prompt_fini(&p);
}

/* The context is fed as it was, what was made before behind it. */
static void pieces_stand_behind_the_text_and_the_pieces_before(void **state)
{
    struct sl_fill_config c = greedy;
    struct sl_hparams hp = hparams;
    struct sl_fill_result r;
    struct script s;
    struct sl_error err;
    size_t first;

    hp.position_2d = c.pieces = true;
    test_script_init(&s);
    s.end_at = 9;
    assert_ok(fill(&s, &r, &hp, &c, two_masks, 6, false, NULL, &err), &err);
    assert_int_equal(r.answers[0].n_blanks, 2);
    first = r.answers[0].blanks[0].end - r.answers[0].blanks[0].begin;
    for (size_t i = 0; i < 6; i++)
        assert_int_equal(s.last.ids[i], two_masks[i]);
    assert_int_equal(s.last.ids[6], SOP);
    for (size_t i = 0; i <= first; i++) {
        assert_int_equal(s.last.positions[6 + i], 1);
        assert_int_equal(s.last.blocks[6 + i], i + 1);
    }
    for (size_t i = 0; i < first; i++)
        assert_int_equal(s.last.ids[7 + i], r.answers[0].ids.v[1 + i]);
    assert_int_equal(s.last.ids[7 + first], SOP);
    assert_int_equal(s.last.positions[7 + first], 3);
    assert_int_equal(s.last.blocks[7 + first], 1);
    sl_fill_result_fini(&r);
}

static void two_dimensional_positions_count_in_the_blank(void **state)
{
    struct sl_hparams hp = hparams;
    struct sl_fill_result r;
    struct script s;
    struct sl_error err;

    hp.position_2d = true;
    for (int b = 0; b < 2; b++) {
        test_script_init(&s);
        assert_ok(fill(&s, &r, &hp, b ? &beams : &greedy, tail_mask, 4, true,
                       NULL, &err),
                  &err);
        for (size_t i = 0; i < s.last.n; i++) {
            assert_int_equal(s.last.positions[i], i < 4 ? i : 3);
            assert_int_equal(s.last.blocks[i], i < 4 ? 0 : i - 3);
        }
        sl_fill_result_fini(&r);
    }
}

static void what_is_heard_is_the_answer(void **state)
{
    const struct sl_fill_config *configs[] = {&greedy, &beams};
    struct sl_fill_result r;
    struct script s;
    struct sl_error err;

    for (size_t c = 0; c < 2; c++) {
        struct heard h = {0};
        size_t n_made = 0;

        test_script_init(&s);
        s.end_at = 10;
        assert_ok(
            fill(&s, &r, &hparams, configs[c], two_masks, 6, false, &h, &err),
            &err);
        assert_int_equal(r.answers[0].ids.n, h.all.n);
        assert_memory_equal(r.answers[0].ids.v, h.all.v,
                            h.all.n * sizeof *h.all.v);
        assert_int_equal(h.n_blanks, 2);
        assert_int_equal(h.given.n, 3); /* 20 21 22: no end token */
        assert_int_equal(r.answers[0].n_blanks, 2);
        for (size_t i = 0; i < 2; i++)
            n_made += r.answers[0].blanks[i].end - r.answers[0].blanks[i].begin;
        assert_int_equal(n_made, h.made.n);
        assert_int_equal(r.answers[0].blanks[0].begin, 1);
        assert_int_equal(h.all.v[h.all.n - 1], 22);
        fini_heard(&h);
        sl_fill_result_fini(&r);
    }
}

static void later_blanks_continue_the_best_answer(void **state)
{
    struct sl_fill_result r;
    struct script s;
    struct sl_error err;
    size_t first;

    test_script_init(&s);
    s.end_at = 9;
    assert_ok(fill(&s, &r, &hparams, &beams, two_masks, 6, false, NULL, &err),
              &err);
    assert_int_equal(r.n_answers, 3);
    first = r.answers[0].blanks[0].end;
    for (size_t i = 1; i < 3; i++) {
        assert_int_equal(r.answers[i].n_blanks, 2);
        assert_int_equal(r.answers[i].blanks[0].end, first);
        assert_memory_equal(r.answers[i].ids.v, r.answers[0].ids.v,
                            (first + 1) * sizeof(int32_t));
        assert_true(r.answers[i].score <= r.answers[i - 1].score);
    }
    sl_fill_result_fini(&r);
}

static void control_tokens_and_padding_are_not_generated(void **state)
{
    const int32_t bad[] = {MASK,   GMASK, SMASK,       EOD,      SOP,  ENC,
                           DBLOCK, 0,     N_IMAGE - 1, N_TOKENS, V - 1};
    const struct sl_fill_config *configs[] = {&greedy, &beams};
    struct sl_fill_result r;
    struct script s;
    struct sl_error err;

    for (size_t c = 0; c < 2; c++) {
        for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
            test_script_init(&s);
            s.favourite = bad[i];
            assert_ok(fill(&s, &r, &hparams, configs[c], one_mask, 5, false,
                           NULL, &err),
                      &err);
            for (size_t k = 0; k < r.answers[0].ids.n; k++)
                assert_int_not_equal(r.answers[0].ids.v[k], bad[i]);
            sl_fill_result_fini(&r);
        }
    }
}

static void no_answer_is_shorter_than_asked(void **state)
{
    struct sl_fill_result r;
    struct script s;
    struct sl_error err;

    for (int b = 0; b < 2; b++) {
        for (uint32_t least = 0; least < 5; least++) {
            struct sl_fill_config c = b ? beams : greedy;

            c.min_gen_length = least;
            test_script_init(&s);
            s.end_at = 0;
            assert_ok(
                fill(&s, &r, &hparams, &c, tail_mask, 4, true, NULL, &err),
                &err);
            assert_int_equal(r.answers[0].ids.n, 3 + least);
            sl_fill_result_fini(&r);
        }
    }
}

static void never_more_sequences_than_beams(void **state)
{
    struct sl_fill_config c = beams;
    struct sl_fill_result r;
    struct script s;
    struct sl_error err;

    for (uint32_t n = 1; n <= 8; n++) {
        for (int drawn = 0; drawn < 2; drawn++) {
            c.n_beams = n;
            c.deterministic = !drawn;
            test_script_init(&s);
            assert_ok(
                fill(&s, &r, &hparams, &c, one_mask, 5, false, NULL, &err),
                &err);
            assert_int_equal(s.most_alive, n);
            assert_in_range(r.n_answers, 1, n);
            sl_fill_result_fini(&r);
        }
    }
}

/* The same search with every beam computed from its whole text. */
static void check_beams(int32_t first)
{
    const int32_t ends[] = {EOP, EOS};
    int32_t context[] = {first, 21, 22, GMASK, SOP}, banned[V];
    struct sl_beam_config bc = {
        .n_beams = 3,
        .length_penalty = 1,
        .no_repeat_ngram = 3,
        .deterministic = true,
        .consider_end = true,
        .end_ids = ends,
        .n_end_ids = 2,
        .banned = banned,
    };
    static float logits[3 * V];
    struct sl_fill_result r;
    uint32_t parents[3];
    struct script s;
    struct sl_error err;
    struct sl_beam *b;
    bool done = false;
    double score;
    size_t n;

    for (int32_t i = 0; i < V; i++) {
        if (i < N_IMAGE || i >= N_TOKENS ||
            (i >= MASK && i <= DBLOCK && i != EOP))
            banned[bc.n_banned++] = i;
    }
    test_script_init(&s);
    s.end_at = 12;
    assert_ok(sl_beam_create(&b, &bc, context, 5, V, &err), &err);
    for (size_t step = 0; step < 15 && !done; step++) {
        for (size_t i = 0; i < sl_beam_n_live(b); i++) {
            const int32_t *ids = sl_beam_live(b, i, &n, NULL);
            struct seq q = {.n = n};

            memcpy(q.ids, ids, n * sizeof *ids);
            for (size_t k = 0; k < n; k++)
                q.positions[k] = (int32_t)k;
            test_script_speak(&s, &q, logits + i * V);
        }
        assert_ok(sl_beam_step(b, logits, parents, NULL, &done, &err), &err);
    }
    assert_ok(sl_beam_finish(b, &err), &err);
    assert_ok(fill(&s, &r, &hparams, &beams, context, 4, true, NULL, &err),
              &err);
    assert_int_equal(r.n_answers, sl_beam_n_finished(b));
    for (size_t i = 0; i < r.n_answers; i++) {
        const int32_t *ids = sl_beam_finished(b, i, &n, &score);

        assert_true(r.answers[i].score == score);
        n -= ids[n - 1] == EOP;
        assert_int_equal(r.answers[i].ids.n, n - 2);
        assert_memory_equal(r.answers[i].ids.v + 3, ids + 5,
                            (n - 5) * sizeof *ids);
    }
    sl_beam_destroy(b);
    sl_fill_result_fini(&r);
}

static void beams_continue_their_own_sequences(void **state)
{
    for (int32_t first = 20; first < 40; first++)
        check_beams(first);
}

static void a_text_that_is_too_long_is_refused_with_both_numbers(void **state)
{
    struct sl_fill_config c = greedy;
    struct sl_workload load = {0};
    struct sl_fill_result r;
    struct sl_prompt p = {.mask = GMASK, .gmask = true};
    struct script s;
    struct sl_error err;

    test_script_init(&s);
    c.out_seq_length = 5; /* 4 and [sop]: one too few */
    assert_int_equal(fill(&s, &r, &hparams, &c, tail_mask, 4, true, NULL, &err),
                     -1);
    assert_int_equal(err.code, SL_ERR_USAGE);
    assert_non_null(strstr(err.msg, "5 tokens"));
    assert_non_null(strstr(err.msg, "--out-seq-length 5"));
    assert_int_equal(s.calls, 0);
    c.out_seq_length = 6;
    assert_ok(fill(&s, &r, &hparams, &c, tail_mask, 4, true, NULL, &err), &err);
    assert_int_equal(r.answers[0].ids.n, 4);
    sl_fill_result_fini(&r);
    for (int i = 0; i < 41; i++)
        assert_ok(sl_ids_add(&p.ids, i < 40 ? 20 : GMASK, &err), &err);
    c.out_seq_length = 100;
    assert_int_equal(sl_fill_workload(&load, &p, &hparams, &c, &err), -1);
    assert_non_null(strstr(err.msg, "41"));
    assert_non_null(strstr(err.msg, "40"));
    sl_prompt_fini(&p);
}

static void a_text_without_blanks_is_its_own_answer(void **state)
{
    const int32_t ids[] = {20, SMASK, 21, EOS};
    struct sl_fill_config c = greedy;
    struct sl_fill_result r;
    struct heard h = {0};
    struct script s;
    struct sl_error err;

    test_script_init(&s);
    c.out_seq_length = 1;
    assert_ok(fill(&s, &r, &hparams, &c, ids, 4, false, &h, &err), &err);
    assert_int_equal(r.n_answers, 1);
    assert_int_equal(r.answers[0].ids.n, 3);
    assert_int_equal(h.given.n, 3);
    assert_int_equal(s.calls, 0);
    fini_heard(&h);
    sl_fill_result_fini(&r);
}

static void an_interrupted_run_keeps_its_text(void **state)
{
    const struct sl_fill_config *configs[] = {&greedy, &beams};
    struct sl_fill_result r;
    struct script s;
    struct sl_error err;

    for (size_t c = 0; c < 2; c++) {
        bool interrupted = true;

        for (int at = 0; interrupted; at++) {
            struct heard h = {0};

            test_script_init(&s);
            s.fail_at = at;
            s.fail_code = SL_ERR_INTERRUPTED;
            if (fill(&s, &r, &hparams, configs[c], two_masks, 6, false, &h,
                     &err) != 0) { /* a fork does not fail so */
                assert_int_equal(c, 1);
                fini_heard(&h);
                continue;
            }
            interrupted = r.interrupted;
            assert_int_equal(h.all.n, r.answers[0].ids.n);
            assert_memory_equal(h.all.v, r.answers[0].ids.v,
                                h.all.n * sizeof *h.all.v);
            if (c == 0 && at > 0 && interrupted && at <= 13)
                assert_int_equal(h.made.n, at);
            fini_heard(&h);
            sl_fill_result_fini(&r);
        }
    }
}

static void a_failing_model_is_an_error_and_leaves_nothing(void **state)
{
    const struct sl_fill_config *configs[] = {&greedy, &beams};
    struct sl_fill_result r;
    struct script s;
    struct sl_error err;

    for (size_t c = 0; c < 2; c++) {
        int rc = -1;

        for (int at = 0; rc != 0; at++) {
            test_script_init(&s);
            s.fail_at = at;
            s.fail_code = SL_ERR_IO;
            rc = fill(&s, &r, &hparams, configs[c], two_masks, 6, false, NULL,
                      &err);
            if (rc != 0)
                assert_int_equal(err.code, SL_ERR_IO);
            assert_in_range(at, 0, 200);
        }
        sl_fill_result_fini(&r);
    }
}

static void no_allocation_can_fail_unnoticed(void **state)
{
    const struct sl_fill_config *configs[] = {&greedy, &beams};
    struct sl_prompt p = {.mask = MASK};
    struct sl_fill_result r;
    struct script s;
    struct sl_rng rng;
    struct sl_error err;

    sl_rng_seed(&rng, 1);
    assert_ok(sl_ids_append(&p.ids, two_masks, 6, &err), &err);
    for (size_t c = 0; c < 2; c++) {
        bool fired = true;

        for (int n = 0; fired; n++) {
            int rc;

            test_script_init(&s);
            s.end_at = 10;
            fault_arm(n);
            rc = sl_fill(&r, &s.lm, &p, &hparams, configs[c], &rng, NULL, &err);
            fired = fault_fired();
            assert_int_equal(rc, fired ? -1 : 0);
            assert_int_equal(s.n_alive, 0);
            if (fired)
                assert_int_equal(err.code, SL_ERR_NOMEM);
        }
        sl_fill_result_fini(&r);
    }
    sl_prompt_fini(&p);
}

static void logits_that_are_no_numbers_are_an_error(void **state)
{
    struct sl_fill_result r;
    struct script s;
    struct sl_error err;

    test_script_init(&s);
    s.nan = true;
    assert_int_equal(
        fill(&s, &r, &hparams, &greedy, one_mask, 5, false, NULL, &err), -1);
    assert_int_equal(err.code, SL_ERR_CORRUPT);
    assert_int_equal(
        fill(&s, &r, &hparams, &beams, one_mask, 5, false, NULL, &err), -1);
    assert_int_equal(err.code, SL_ERR_CORRUPT);
}

static void the_workload_covers_every_pass(void **state)
{
    const struct sl_fill_config *configs[] = {&greedy, &beams};
    struct sl_workload load;
    struct sl_fill_result r;
    struct sl_prompt p = {.mask = MASK};
    struct script s;
    struct sl_error err;

    assert_ok(sl_ids_append(&p.ids, two_masks, 6, &err), &err);
    for (size_t c = 0; c < 2; c++) {
        load = (struct sl_workload){0};
        test_script_init(&s);
        assert_ok(sl_fill_workload(&load, &p, &hparams, configs[c], &err),
                  &err);
        assert_ok(
            fill(&s, &r, &hparams, configs[c], two_masks, 6, false, NULL, &err),
            &err);
        assert_in_range(s.pass_positions, 7, load.pass_positions);
        assert_int_equal(load.n_sequences, c == 0 ? 1 : 3);
        assert_int_equal(load.pass_logits, load.n_sequences);
        assert_int_equal(load.max_tokens, 20);
        assert_int_equal(load.shared_tokens, 6);
        sl_fill_result_fini(&r);
    }
    load = (struct sl_workload){0};
    assert_ok(sl_fill_workload(&load, NULL, &hparams, &beams, &err), &err);
    assert_int_equal(load.pass_positions, 19);
    assert_int_equal(load.shared_tokens, 2);
    sl_prompt_fini(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_blank_s_tokens_share_the_place_of_its_mask),
        cmocka_unit_test(behind_gmask_positions_run_on),
        cmocka_unit_test(marks_of_several_kinds_are_filled_from_left_to_right),
        cmocka_unit_test(pieces_stand_behind_the_text_and_the_pieces_before),
        cmocka_unit_test(two_dimensional_positions_count_in_the_blank),
        cmocka_unit_test(what_is_heard_is_the_answer),
        cmocka_unit_test(later_blanks_continue_the_best_answer),
        cmocka_unit_test(control_tokens_and_padding_are_not_generated),
        cmocka_unit_test(no_answer_is_shorter_than_asked),
        cmocka_unit_test(never_more_sequences_than_beams),
        cmocka_unit_test(beams_continue_their_own_sequences),
        cmocka_unit_test(a_text_that_is_too_long_is_refused_with_both_numbers),
        cmocka_unit_test(a_text_without_blanks_is_its_own_answer),
        cmocka_unit_test(an_interrupted_run_keeps_its_text),
        cmocka_unit_test(a_failing_model_is_an_error_and_leaves_nothing),
        cmocka_unit_test(no_allocation_can_fail_unnoticed),
        cmocka_unit_test(logits_that_are_no_numbers_are_an_error),
        cmocka_unit_test(the_workload_covers_every_pass),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
