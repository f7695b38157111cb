#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "src/decode/causal.h"
#include "src/decode/draft_model.h"
#include "src/decode/fill.h"
#include "tests/guesses.h"
#include "tests/script.h"
#include "tests/support.h"

/* A model that guesses for another. Where both are the same script, the guesses
 * are right if and only if the smaller one was fed ids and places as the other
 * was. */

enum { LENGTH = 48, GUESSES = 5 };

static struct sl_hparams hparams(bool causal, bool position_2d)
{
    struct sl_hparams hp = {
        .vocab = V,
        .max_positions = MAX_LEN,
        .position_2d = position_2d,
        .causal = causal,
        .text.n_tokens = N_TOKENS,
        .text.special = {MASK, GMASK, SMASK, EOD, SOP, EOP, ENC, DBLOCK, EOS,
                         11},
    };

    if (causal)
        hp.text.special =
            (struct sl_special_ids){-1, -1, -1, -1, -1, EOP, -1, -1, EOS, -1};
    return hp;
}

/* A model, its guesser, and what a text became. */
struct rig {
    struct sl_hparams hp, small_hp;
    struct script script, small;
    struct sl_draft_model model;
    struct sl_drafts drafts;
    uint64_t calls; /* of its clock */
    /* its guesses take no time: passes of both models are alike here */
    struct sl_draft_kind kind;
};

static void open_rig(struct rig *r, bool causal, bool position_2d)
{
    struct sl_error err;

    memset(r, 0, sizeof *r);
    r->hp = r->small_hp = hparams(causal, position_2d);
    test_script_init(&r->script);
    test_script_init(&r->small);
    r->model.lm = &r->small.lm;
    r->model.hp = &r->small_hp;
    assert_ok(sl_vocab_shift_make(&r->model.shift, &r->hp, &r->small_hp, &err),
              &err);
    r->kind = sl_draft_model_kind;
    r->kind.costs = false;
    sl_drafts_init(&r->drafts, GUESSES, 0);
    r->drafts.now = test_even_time;
    r->drafts.now_arg = &r->calls;
    assert_ok(sl_drafts_add(&r->drafts, &r->kind, &r->model, &err), &err);
}

static void close_rig(struct rig *r)
{
    assert_int_equal(r->script.n_alive, 0);
    assert_int_equal(r->small.n_alive, 0);
    sl_vocab_shift_fini(&r->model.shift);
}

static struct sl_fill_result fill(struct rig *r, const int32_t *ids, size_t n,
                                  int32_t mark, bool guess, bool greedy,
                                  uint32_t n_answers)
{
    struct sl_fill_config config = {
        .strategy = SL_STRATEGY_BASE,
        .sampler = {greedy ? 1 : 4, greedy, 0},
        .n_answers = n_answers,
        .drafts = guess ? &r->drafts : NULL,
        .out_seq_length = LENGTH,
    };
    struct sl_prompt prompt = {.mask = mark, .gmask = mark == GMASK};
    struct sl_fill_result result;
    struct sl_rng rng;
    struct sl_error err;

    assert_ok(sl_ids_append(&prompt.ids, ids, n, &err), &err);
    sl_rng_seed(&rng, 3);
    assert_ok(sl_fill(&result, &r->script.lm, &prompt, &r->hp, &config, &rng,
                      NULL, &err),
              &err);
    sl_prompt_fini(&prompt);
    return result;
}

static void check_same(struct sl_fill_result *a, struct sl_fill_result *b)
{
    assert_int_equal(a->n_answers, b->n_answers);
    for (size_t i = 0; i < a->n_answers; i++) {
        assert_int_equal(a->answers[i].ids.n, b->answers[i].ids.n);
        assert_memory_equal(a->answers[i].ids.v, b->answers[i].ids.v,
                            a->answers[i].ids.n * sizeof(int32_t));
    }
    sl_fill_result_fini(a);
    sl_fill_result_fini(b);
}

static const struct {
    bool causal, position_2d;
    int32_t mark, ids[10];
    size_t n;
} texts[] = {
    {false, false, GMASK, {20, 21, 22, 23, GMASK}, 5},
    {false, false, MASK, {20, 21, MASK, 23, 24}, 5},
    {false, true, GMASK, {20, 21, 22, 23, GMASK}, 5},
    {false, true, MASK, {20, 21, MASK, 23, 24}, 5},
    {false, false, MASK, {20, MASK, 22, MASK, 24, MASK}, 6},
    {true, false, SL_PROMPT_END, {20, 21, 22, 23, SL_PROMPT_END}, 5},
};

static void the_same_model_guesses_all_that_is_said(void **state)
{
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct sl_fill_result plain, guessed;
        int forwards, n_blanks;
        struct rig r;

        open_rig(&r, texts[i].causal, texts[i].position_2d);
        r.script.end_at = r.small.end_at = 30;
        plain =
            fill(&r, texts[i].ids, texts[i].n, texts[i].mark, false, true, 1);
        forwards = r.script.forwards;
        n_blanks = (int)plain.answers[0].n_blanks;
        r.script.forwards = 0;
        guessed =
            fill(&r, texts[i].ids, texts[i].n, texts[i].mark, true, true, 1);
        check_same(&plain, &guessed);
        /* but those behind the end, and where two words are as likely */
        assert_in_range(r.drafts.gate.counts.drafted[0] -
                            r.drafts.gate.counts.accepted[0],
                        0, GUESSES * (n_blanks + 1));
        assert_true(r.drafts.gate.counts.accepted[0] > 4);
        /* a pass of the context and one without guesses, then six at a time */
        assert_in_range(r.script.forwards, 1,
                        2 * n_blanks + forwards / GUESSES + n_blanks);
        close_rig(&r);
    }
}

/* Drawn words are often others than the likeliest: the guesser is put right. */
static void a_wrong_guess_changes_no_text(void **state)
{
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        for (uint32_t n_answers = 1; n_answers < 4; n_answers += 2) {
            struct sl_fill_result plain, guessed;
            struct rig r;

            open_rig(&r, texts[i].causal, texts[i].position_2d);
            plain = fill(&r, texts[i].ids, texts[i].n, texts[i].mark, false,
                         false, n_answers);
            guessed = fill(&r, texts[i].ids, texts[i].n, texts[i].mark, true,
                           false, n_answers);
            check_same(&plain, &guessed);
            assert_true(r.drafts.gate.counts.drafted[0] > 0);
            close_rig(&r);
        }
    }
}

/* A conversation's next turn: what both know stays known. */
static void a_guesser_follows_a_conversation(void **state)
{
    static const int32_t prompt[] = {20, 21, 22, 23, 20, 21};
    const struct sl_causal_config config = {
        .sampler = {1, 1, 0},
        .repetition_penalty = 1,
        .max_new = 12,
    };
    struct sl_ids said[2] = {{0}};

    for (int guess = 0; guess < 2; guess++) {
        struct sl_ids text = {0};
        struct sl_causal *c;
        struct sl_error err;
        struct sl_rng rng;
        struct rig r;

        open_rig(&r, true, false);
        sl_rng_seed(&rng, 3);
        assert_ok(sl_causal_create(&c, &r.script.lm, 4,
                                   guess ? &r.drafts : NULL, &err),
                  &err);
        assert_ok(sl_ids_append(&text, prompt, 6, &err), &err);
        for (int turn = 0; turn < 3; turn++) {
            struct sl_causal_result result = {0};

            assert_ok(sl_causal_run(c, text.v, text.n, &config, &rng, NULL,
                                    &result, &err),
                      &err);
            assert_ok(sl_ids_append(&text, result.ids.v, result.ids.n, &err),
                      &err);
            assert_ok(sl_ids_add(&text, 40 + turn, &err), &err);
            sl_causal_result_fini(&result);
        }
        said[guess] = text;
        if (guess) {
            assert_true(r.drafts.gate.counts.accepted[0] > 15);
            assert_int_equal(r.drafts.gate.counts.drafted[0],
                             r.drafts.gate.counts.accepted[0]);
        }
        sl_causal_destroy(c);
        close_rig(&r);
    }
    assert_int_equal(said[0].n, said[1].n);
    assert_memory_equal(said[0].v, said[1].v, said[0].n * sizeof(int32_t));
    sl_ids_fini(&said[0]);
    sl_ids_fini(&said[1]);
}

/* GLM-130B's numbers and ChatGLM-6B's, which has no image tokens and ends
 * sooner. */
static void words_keep_their_order_and_marks_their_meaning(void **state)
{
    const struct sl_hparams glm = {
        .vocab = 150528,
        .text.n_tokens = 150000,
        .text.n_image_tokens = 20000,
        .text.special = {.mask = 150000,
                         .gmask = 150001,
                         .smask = 150002,
                         .eod = 150003,
                         .sop = 150004,
                         .eop = 150005,
                         .enc = 150006,
                         .dblock = 150007,
                         .eos = 20002},
    };
    const struct sl_hparams chat = {
        .vocab = 130528,
        .position_2d = true,
        .text.n_tokens = 130000,
        .text.special = {.mask = 130000,
                         .gmask = 130001,
                         .smask = 130002,
                         .eod = -1,
                         .sop = 130004,
                         .eop = 130005,
                         .enc = -1,
                         .dblock = -1,
                         .eos = 130005},
    };
    struct sl_hparams causal = chat;
    struct sl_vocab_shift s;
    struct sl_error err;

    assert_ok(sl_vocab_shift_make(&s, &glm, &chat, &err), &err);
    assert_int_equal(s.to[20000], 0);
    assert_int_equal(s.to[100000], 80000);
    assert_int_equal(s.to[149999], 129999);
    assert_int_equal(s.to[19999], -1);
    assert_int_equal(s.to[150001], 130001);
    assert_int_equal(s.to[150004], 130004);
    assert_int_equal(s.to[150003], -1);
    assert_int_equal(s.from[0], 20000);
    assert_int_equal(s.from[129999], 149999);
    assert_int_equal(s.from[130000], -1);
    assert_int_equal(s.to[150000], 130000);
    assert_int_equal(s.from[130005], 150005);
    assert_int_equal(s.from[130527], -1);
    for (uint32_t i = 0; i < glm.vocab; i++) {
        if (s.to[i] >= 0 && s.to[i] < 130000)
            assert_int_equal(s.from[s.to[i]], i);
    }
    sl_vocab_shift_fini(&s);
    causal.causal = true;
    assert_int_equal(sl_vocab_shift_make(&s, &glm, &causal, &err), -1);
    assert_int_equal(err.code, SL_ERR_USAGE);
}

/* Brothers are fed together, and of its own tree too the draft model keeps
 * what the text came by. */
static void trees_of_a_model_change_no_text(void **state)
{
    uint64_t beside = 0, beside_right = 0;

    for (size_t i = 0; i < 2 * sizeof texts / sizeof *texts; i++) {
        bool greedy = i % 2;
        size_t t = i / 2;
        struct sl_fill_result plain, guessed;
        struct sl_acceptance *a;
        struct rig r;

        open_rig(&r, texts[t].causal, texts[t].position_2d);
        r.script.end_at = r.small.end_at = 40;
        for (uint32_t c = 0; c < SL_DRAFT_CLASSES; c++) {
            a = &r.drafts.gate.sources[0].of[c];
            a->prior = 0.4;
            for (uint32_t k = 0; k < SL_DRAFT_BESIDE; k++)
                a->beside_tried[k] = a->beside_right[k] = 1e9;
        }
        plain =
            fill(&r, texts[t].ids, texts[t].n, texts[t].mark, false, greedy, 1);
        guessed =
            fill(&r, texts[t].ids, texts[t].n, texts[t].mark, true, greedy, 1);
        check_same(&plain, &guessed);
        assert_in_range(r.drafts.gate.counts.accepted[0], 1, 1000);
        beside += r.drafts.gate.counts.beside[0];
        beside_right += r.drafts.gate.counts.beside_accepted[0];
        close_rig(&r);
    }
    assert_in_range(beside, 20, 10000);
    assert_in_range(beside_right, 1, beside); /* where it is drawn */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(trees_of_a_model_change_no_text),
        cmocka_unit_test(the_same_model_guesses_all_that_is_said),
        cmocka_unit_test(a_wrong_guess_changes_no_text),
        cmocka_unit_test(a_guesser_follows_a_conversation),
        cmocka_unit_test(words_keep_their_order_and_marks_their_meaning),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
