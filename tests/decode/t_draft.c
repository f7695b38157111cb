#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "src/decode/causal.h"
#include "src/decode/fill.h"
#include "tests/guesses.h"
#include "tests/script.h"
#include "tests/support.h"

/* Drafts change what a pass carries and nothing else: not the text, not the
 * random numbers, not what is heard of it, not what the model holds of it. */

static const struct sl_hparams models[] = {
    /* what fills blanks, the same with places of two dimensions, causal */
    {
        .vocab = V,
        .max_positions = MAX_LEN,
        .text.n_image_tokens = N_IMAGE,
        .text.n_tokens = N_TOKENS,
        .text.special = {MASK, GMASK, SMASK, EOD, SOP, EOP, ENC, DBLOCK, EOS,
                         11},
    },
    {
        .vocab = V,
        .max_positions = MAX_LEN,
        .position_2d = true,
        .text.n_image_tokens = N_IMAGE,
        .text.n_tokens = N_TOKENS,
        .text.special = {MASK, GMASK, SMASK, EOD, SOP, EOP, ENC, DBLOCK, EOS,
                         11},
    },
    {
        .vocab = V,
        .max_positions = MAX_LEN,
        .causal = true,
        .text.special = {-1, -1, -1, -1, -1, EOP, -1, -1, EOS, -1},
    },
};
#define N_MODELS (sizeof models / sizeof *models)

static const struct sl_sampler_config samplers[] = {
    {1, 1, 0}, {4, 0, 0}, {2, 7, 0}, {3, 0, 0.8}};
#define N_SAMPLERS (sizeof samplers / sizeof *samplers)

enum { TEXTS = 3, LENGTH = 48 };

static const struct {
    int32_t ids[12];
    size_t n;
} texts[TEXTS] = {
    {{20, 21, 22, 23, 20, 21, MASK}, 7},
    {{20, MASK, 23, MASK, 24, 25, 26, EOS}, 8},
    {{30, 31, 32, 33, 34, 35, 36, 37, 38, GMASK}, 10},
};

/* A run of some texts. */
struct outcome {
    struct script script;
    struct sl_prompt prompts[TEXTS];
    struct sl_rng rng[TEXTS];
    struct sl_fill_sink sinks[TEXTS];
    struct sl_ids heard[TEXTS];
    struct sl_fill_text t[TEXTS];
    size_t n;
};

static int listen(void *opaque, const int32_t *ids, size_t n, bool blank,
                  struct sl_error *err)
{
    return blank ? sl_ids_append(opaque, ids, n, err) : 0;
}

static void run(struct outcome *o, const struct sl_hparams *hp,
                const struct sl_fill_config *config, size_t first, size_t n,
                int end_at)
{
    struct sl_fill_batch batch = {
        .lm = &o->script.lm,
        .hp = hp,
        .config = config,
        .texts = o->t,
        .n_texts = n,
    };
    struct sl_error err;

    memset(o, 0, sizeof *o);
    test_script_init(&o->script);
    o->script.end_at = end_at;
    o->n = n;
    for (size_t i = 0; i < n; i++) {
        struct sl_prompt *p = &o->prompts[i];
        bool last = texts[first + i].ids[texts[first + i].n - 1] == GMASK;

        p->mask = hp->causal ? SL_PROMPT_END : last ? GMASK : MASK;
        p->gmask = last;
        for (size_t k = 0; k < texts[first + i].n; k++) {
            int32_t id = texts[first + i].ids[k];

            if (!hp->causal || (id != MASK && id != GMASK))
                assert_ok(sl_ids_add(&p->ids, id, &err), &err);
        }
        if (hp->causal)
            assert_ok(sl_ids_add(&p->ids, SL_PROMPT_END, &err), &err);
        sl_rng_seed(&o->rng[i], 7 + first + i);
        o->sinks[i] = (struct sl_fill_sink){listen, &o->heard[i]};
        o->t[i] = (struct sl_fill_text){
            .prompt = p, .rng = &o->rng[i], .sink = &o->sinks[i]};
    }
    assert_ok(sl_fill_all(&batch, &err), &err);
    assert_int_equal(o->script.n_alive, 0);
}

static void end(struct outcome *o)
{
    for (size_t i = 0; i < o->n; i++) {
        sl_fill_result_fini(&o->t[i].result);
        sl_prompt_fini(&o->prompts[i]);
        sl_ids_fini(&o->heard[i]);
    }
}

static void check_same(const struct outcome *a, const struct outcome *b)
{
    for (size_t i = 0; i < a->n; i++) {
        const struct sl_fill_result *x = &a->t[i].result, *y = &b->t[i].result;

        assert_true(a->t[i].ended && b->t[i].ended);
        assert_int_equal(a->t[i].failed, b->t[i].failed);
        assert_int_equal(x->n_answers, y->n_answers);
        assert_int_equal(x->n_generated, y->n_generated);
        for (size_t k = 0; k < x->n_answers; k++) {
            assert_int_equal(x->answers[k].ids.n, y->answers[k].ids.n);
            assert_memory_equal(x->answers[k].ids.v, y->answers[k].ids.v,
                                x->answers[k].ids.n * sizeof(int32_t));
        }
        assert_int_equal(a->heard[i].n, b->heard[i].n);
        assert_memory_equal(a->heard[i].v, b->heard[i].v,
                            a->heard[i].n * sizeof(int32_t));
        assert_memory_equal(&a->rng[i], &b->rng[i], sizeof a->rng[i]);
    }
}

/* One text, guessed in every way; how many passes it took is what the guesses
 * were worth. */
static void check_guesses(const struct sl_hparams *hp,
                          struct sl_fill_config config, size_t text, int end_at)
{
    struct outcome plain, drafted;
    struct sl_ids said;

    run(&plain, hp, &config, text, 1, end_at);
    said = plain.heard[0];
    for (enum guess kind = 0; kind < GUESS_KINDS; kind++) {
        for (uint32_t most = 1; most < 12; most += most) {
            for (uint32_t at = 0; at < most; at++) {
                struct guesses g = {kind, at, V, at, &said, 1, 0, 0};
                struct sl_drafts drafts;

                test_drafts_init(&drafts, &g, most);
                config.drafts = &drafts;
                run(&drafted, hp, &config, text, 1, end_at);
                check_same(&plain, &drafted);
                assert_in_range(drafted.script.forwards, 1,
                                plain.script.forwards);
                if (kind == GUESS_WRONG || kind == GUESS_TREE_WRONG)
                    assert_int_equal(drafts.gate.counts.accepted[0], 0);
                end(&drafted);
                if (kind == GUESS_RIGHT || kind == GUESS_WRONG)
                    break;
            }
        }
    }
    end(&plain);
}

static void guesses_change_no_text(void **state)
{
    for (size_t m = 0; m < N_MODELS; m++) {
        for (size_t s = 0; s < N_SAMPLERS; s++) {
            struct sl_fill_config config = {
                .strategy = SL_STRATEGY_BASE,
                .sampler = samplers[s],
                .out_seq_length = LENGTH,
                .min_gen_length = s,
            };

            /* several blanks restart the guesser: one text with one blank */
            for (int end_at = -1; end_at < 40; end_at += 13) {
                check_guesses(&models[m], config, 0, end_at);
                if (!models[m].causal)
                    check_guesses(&models[m], config, 2, end_at);
            }
        }
    }
}

/* Right guesses are taken, and each saves a pass. */
static void right_guesses_save_passes(void **state)
{
    struct sl_fill_config config = {
        .strategy = SL_STRATEGY_BASE,
        .sampler = samplers[0],
        .out_seq_length = LENGTH,
    };
    struct outcome plain, drafted;
    struct guesses g = {GUESS_RIGHT, 0, V, 0, plain.heard, 1, 0, 0};
    struct sl_drafts drafts;

    run(&plain, &models[2], &config, 0, 1, -1);
    test_drafts_init(&drafts, &g, 4);
    config.drafts = &drafts;
    run(&drafted, &models[2], &config, 0, 1, -1);
    check_same(&plain, &drafted);
    /* 42 tokens: one of the prompt, then five a pass */
    assert_int_equal(plain.heard[0].n, LENGTH - 6);
    assert_int_equal(plain.script.forwards, 42);
    assert_int_equal(drafted.script.forwards, 1 + 9);
    assert_int_equal(drafts.gate.counts.drafted[0],
                     drafts.gate.counts.accepted[0]);
    end(&plain);
    end(&drafted);
}

/* And so are those that stand beside wrong ones. */
static void right_brothers_save_passes(void **state)
{
    struct sl_fill_config config = {
        .strategy = SL_STRATEGY_BASE,
        .sampler = samplers[0],
        .out_seq_length = LENGTH,
    };

    for (uint32_t at = 0; at < SL_TREE_WIDTH; at++) {
        struct outcome plain, drafted;
        struct guesses g = {GUESS_TREE, at, V, at, plain.heard, 1, 0, 0};
        struct sl_drafts drafts;

        run(&plain, &models[2], &config, 0, 1, -1);
        test_drafts_init(&drafts, &g, 16);
        config.drafts = &drafts;
        run(&drafted, &models[2], &config, 0, 1, -1);
        config.drafts = NULL;
        check_same(&plain, &drafted);
        assert_in_range(drafted.script.forwards, 2, plain.script.forwards / 2);
        assert_in_range(drafts.gate.counts.accepted[0], 20, 42);
        if (at > 0)
            assert_in_range(drafts.gate.counts.beside_accepted[0],
                            drafts.gate.counts.accepted[0] / 2,
                            drafts.gate.counts.beside[0] - 1);
        end(&plain);
        end(&drafted);
    }
}

/* Looking up is exact too, with several texts and blanks, and answers; and
 * where beams search, nothing is guessed. */
static void texts_together_are_guessed_like_each_alone(void **state)
{
    for (size_t m = 0; m < N_MODELS; m++) {
        for (size_t s = 0; s <= N_SAMPLERS; s++) {
            for (uint32_t n_answers = 1; n_answers < 4; n_answers++) {
                struct sl_fill_config config = {
                    .strategy =
                        s < N_SAMPLERS ? SL_STRATEGY_BASE : SL_STRATEGY_BEAM,
                    .sampler = samplers[s % N_SAMPLERS],
                    .n_answers = n_answers,
                    .n_beams = 3,
                    .length_penalty = 1,
                    .out_seq_length = LENGTH,
                };
                struct outcome plain, drafted;
                struct sl_drafts drafts;
                struct sl_error err;

                run(&plain, &models[m], &config, 0, TEXTS, 30);
                sl_drafts_init(&drafts, 8, 0);
                assert_ok(sl_drafts_add(&drafts, &sl_draft_lookup, NULL, &err),
                          &err);
                config.drafts = &drafts;
                run(&drafted, &models[m], &config, 0, TEXTS, 30);
                check_same(&plain, &drafted);
                if (s == N_SAMPLERS)
                    assert_int_equal(drafts.gate.counts.drafted[0], 0);
                end(&plain);
                end(&drafted);
            }
        }
    }
}

/* --- several answers -------------------------------------------------------
 */

static void several_answers_share_the_prompt(void **state)
{
    for (size_t m = 0; m < N_MODELS; m++) {
        struct sl_fill_config config = {
            .strategy = SL_STRATEGY_BASE,
            .sampler = samplers[1],
            .n_answers = 5,
            .out_seq_length = LENGTH,
        };
        struct outcome one, five;
        const struct sl_fill_answer *a;

        run(&five, &models[m], &config, 0, 1, -1);
        config.n_answers = 1;
        run(&one, &models[m], &config, 0, 1, -1);
        a = five.t[0].result.answers;
        assert_int_equal(five.t[0].result.n_answers, 5);
        /* the first is what a run with one says */
        assert_int_equal(a[0].ids.n, one.t[0].result.answers[0].ids.n);
        assert_memory_equal(a[0].ids.v, one.t[0].result.answers[0].ids.v,
                            a[0].ids.n * sizeof(int32_t));
        assert_memory_equal(&one.rng[0], &five.rng[0], sizeof one.rng[0]);
        for (size_t i = 1; i < 5; i++)
            assert_true(a[i].ids.n != a[0].ids.n ||
                        memcmp(a[i].ids.v, a[0].ids.v,
                               a[0].ids.n * sizeof(int32_t)) != 0);
        /* the prompt is read once, and all go on in the same passes */
        assert_int_equal(five.script.most_alive, 5);
        assert_int_equal(five.script.forwards, one.script.forwards);
        end(&one);
        end(&five);
    }
}

/* --- a conversation --------------------------------------------------------
 */

struct ears {
    struct sl_ids heard;
    size_t enough;
};

static int hear(void *opaque, int32_t id, bool *enough, struct sl_error *err)
{
    struct ears *e = opaque;

    *enough = e->heard.n + 1 == e->enough;
    return sl_ids_add(&e->heard, id, err);
}

/* Two turns with or without drafts. Returns passes. */
static int converse(struct ears *e, struct sl_drafts *drafts,
                    const struct sl_causal_config *config, size_t enough)
{
    static const int32_t prompt[] = {20, 21, 22, 23, 20, 21};
    const struct sl_causal_sink sink = {hear, e};
    struct sl_causal_result first = {0}, second = {0};
    struct script script;
    struct sl_causal *c;
    struct sl_error err;
    struct sl_rng rng;
    struct sl_ids next = {0};

    *e = (struct ears){.enough = enough};
    sl_rng_seed(&rng, 3);
    test_script_init(&script);
    assert_ok(sl_causal_create(&c, &script.lm, 4, drafts, &err), &err);
    assert_ok(sl_causal_run(c, prompt, 6, config, &rng, &sink, &first, &err),
              &err);
    assert_ok(sl_ids_append(&next, prompt, 6, &err), &err);
    assert_ok(sl_ids_append(&next, first.ids.v, first.ids.n, &err), &err);
    assert_ok(sl_ids_add(&next, 40, &err), &err);
    e->enough = 0;
    assert_ok(
        sl_causal_run(c, next.v, next.n, config, &rng, &sink, &second, &err),
        &err);
    /* all that was read and said but its last id was known */
    assert_in_range(second.n_kept, 6 + first.ids.n - 1, 6 + first.ids.n);
    sl_causal_result_fini(&first);
    sl_causal_result_fini(&second);
    sl_ids_fini(&next);
    sl_causal_destroy(c);
    assert_int_equal(script.n_alive, 0);
    return script.forwards;
}

static void a_conversation_is_the_same_with_guesses(void **state)
{
    for (size_t s = 0; s < N_SAMPLERS; s++) {
        for (uint32_t max_new = 0; max_new < 20; max_new += 9) {
            struct sl_causal_config config = {
                .sampler = samplers[s],
                .repetition_penalty = s % 2 ? 1.3 : 1,
                .max_new = max_new,
                .stops = (const int32_t[]){33, 34},
                .n_stops = 2,
            };
            struct ears plain, drafted;

            for (size_t enough = 0; enough < 6; enough += 5) {
                int forwards = converse(&plain, NULL, &config, enough);

                for (uint32_t most = 1; most < 10; most += 2) {
                    struct sl_drafts drafts;
                    struct sl_error err;

                    sl_drafts_init(&drafts, most, 0);
                    assert_ok(
                        sl_drafts_add(&drafts, &sl_draft_lookup, NULL, &err),
                        &err);
                    assert_in_range(
                        converse(&drafted, &drafts, &config, enough), 1,
                        forwards);
                    assert_int_equal(plain.heard.n, drafted.heard.n);
                    assert_memory_equal(plain.heard.v, drafted.heard.v,
                                        plain.heard.n * sizeof(int32_t));
                    sl_ids_fini(&drafted.heard);
                }
                sl_ids_fini(&plain.heard);
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(guesses_change_no_text),
        cmocka_unit_test(right_guesses_save_passes),
        cmocka_unit_test(right_brothers_save_passes),
        cmocka_unit_test(texts_together_are_guessed_like_each_alone),
        cmocka_unit_test(several_answers_share_the_prompt),
        cmocka_unit_test(a_conversation_is_the_same_with_guesses),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
