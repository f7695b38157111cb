#include "config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/convert/convert.h"
#include "src/decode/fill.h"
#include "src/runtime/runtime.h"
#include "tests/gpu_rates.h"
#include "tests/support.h"
#include "tests/tokens.h"

/* demo/golden.json, by id: what reference.py generates for the last blank of
 * each text, at most 32 tokens; beams with their scores. */

/* Each way to keep keys and values, with what a step may be off by, as a part
 * of the largest logit. FP16 is the default. */
static const struct {
    enum sl_kv_kind kind;
    double rel;
    size_t n_equal; /* greedy texts that are those of the reference, at least */
} kinds[] = {
    {SL_KV_F32, 0, 28},
    {SL_KV_F16, 0, 28},
    {SL_KV_INT8, 1e-2, 24},
};

enum { MAX_NEW = 32, MAX_TOKENS = 512, MAX_BEAMS = 4 };

struct fixture {
    char dir[1024], model[1100];
    json_t *golden;
    struct sl_runtime *rt;
    const struct sl_hparams *hp;
};

static int open_fixture(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    struct sl_convert_result result;
    struct sl_convert_options o;
    struct sl_error err;
    char path[1024], demo[1024];

    assert_non_null(f);
    test_temp_dir(f->dir);
    snprintf(f->model, sizeof f->model, "%s/demo.gguf", f->dir);
    assert_non_null(test_source(demo, "demo"));
    f->golden = test_json(test_source(path, "demo/golden.json"));
    sl_convert_options_init(&o);
    o.source = demo;
    o.output = f->model;
    o.quant = "f16";
    o.quiet = true;
    assert_ok(sl_convert(&result, &o, &err), &err);
    sl_convert_result_fini(&result);
    *state = f;
    return 0;
}

static void start_with(struct fixture *f,
                       const struct sl_runtime_config *config)
{
    struct sl_workload load = {.n_sequences = MAX_BEAMS,
                               .max_tokens = MAX_TOKENS,
                               .shared_tokens = 2,
                               .pass_positions = MAX_TOKENS,
                               .pass_logits = MAX_BEAMS,
                               .n_texts = 1};
    struct sl_error err;

    assert_ok(sl_runtime_open(&f->rt, config, &err), &err);
    assert_ok(sl_runtime_start(f->rt, &load, &err), &err);
    f->hp = &sl_runtime_modelfile(f->rt)->hp;
}

static void start(struct fixture *f, enum sl_kv_kind kind)
{
    struct sl_runtime_config config = {
        .model = f->model,
        .threads = 2,
        .kv_set = kind != SL_KV_F16,
        .kv = kind,
    };

    start_with(f, &config);
}

static void stop(struct fixture *f)
{
    sl_runtime_close(f->rt);
    f->rt = NULL;
}

static int close_fixture(void **state)
{
    struct fixture *f = *state;

    json_decref(f->golden);
    test_remove_tree(f->dir);
    free(f);
    return 0;
}

static json_t *last_blank(json_t *c)
{
    json_t *blanks = json_object_get(c, "blanks");

    return json_array_get(blanks, json_array_size(blanks) - 1);
}

static struct sl_fill_result fill(struct fixture *f, json_t *blank,
                                  struct sl_fill_config *config)
{
    size_t at =
        (size_t)json_integer_value(json_object_get(blank, "mask_position"));
    struct sl_fill_result r;
    struct sl_prompt p = {0};
    struct sl_error err;
    struct sl_rng rng;

    sl_rng_seed(&rng, 1);
    test_json_ids(&p.ids, json_object_get(blank, "context_ids"));
    p.mask = p.ids.v[at];
    p.gmask = p.mask == f->hp->text.special.gmask;
    config->out_seq_length = (uint32_t)p.ids.n + 1 + MAX_NEW;
    assert_ok(
        sl_fill(&r, sl_runtime_lm(f->rt), &p, f->hp, config, &rng, NULL, &err),
        &err);
    assert_int_equal(r.answers[0].n_blanks, 1);
    assert_int_equal(r.answers[0].blanks[0].begin, at);
    sl_prompt_fini(&p);
    return r;
}

/* want may end with the token that ended it. */
static void assert_blank(const struct fixture *f,
                         const struct sl_fill_answer *a, json_t *want)
{
    const struct sl_fill_span *b = &a->blanks[0];
    size_t n = json_array_size(want);
    json_int_t last = json_integer_value(json_array_get(want, n - 1));

    n -= last == f->hp->text.special.eop || last == f->hp->text.special.eos;
    assert_int_equal(b->end - b->begin, n);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(a->ids.v[b->begin + i],
                         json_integer_value(json_array_get(want, i)));
}

/* Do the texts part, it is where two tokens were as good as equal. Returns
 * whether they are equal. */
static bool same_greedy(const struct fixture *f, json_t *blank,
                        const struct sl_fill_answer *a, double rel)
{
    json_t *want = json_object_get(blank, "greedy_ids");
    json_t *margins = json_object_get(blank, "step_margins");
    json_t *top = json_array_get(json_object_get(blank, "first_top10"), 0);
    double largest = json_number_value(json_array_get(top, 1));
    const struct sl_fill_span *b = &a->blanks[0];

    for (size_t i = 0; i < b->end - b->begin; i++) {
        if (a->ids.v[b->begin + i] !=
            json_integer_value(json_array_get(want, i))) {
            double margin = json_number_value(json_array_get(margins, i));

            assert_true(i < json_array_size(want));
            assert_true(margin <= 2 * rel * largest);
            return false;
        }
    }
    assert_blank(f, a, want);
    return true;
}

static void greedy_ids_are_the_reference_s(void **state)
{
    struct sl_fill_config config = {.sampler = {1, 1, 0}};
    struct fixture *f = *state;
    json_t *c;
    size_t i;

    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        size_t n_equal = 0;

        start(f, kinds[k].kind);
        json_array_foreach(json_object_get(f->golden, "greedy"), i, c)
        {
            json_t *blank = last_blank(c);
            struct sl_fill_result r = fill(f, blank, &config);

            n_equal += same_greedy(f, blank, &r.answers[0], kinds[k].rel);
            sl_fill_result_fini(&r);
        }
        assert_int_equal(i, 28);
        assert_in_range(n_equal, kinds[k].n_equal, 28);
        stop(f);
    }
}

static uint32_t arg(json_t *c, const char *name)
{
    json_t *args = json_object_get(c, "args");

    return (uint32_t)json_integer_value(json_object_get(args, name));
}

static void check_beam_case(struct fixture *f, json_t *c, double limit)
{
    json_t *blank = last_blank(c);
    json_t *beams = json_object_get(blank, "beams");
    json_t *scores = json_object_get(blank, "scores");
    struct sl_fill_config config = {
        .strategy = SL_STRATEGY_BEAM,
        .n_beams = arg(c, "num_beams"),
        .length_penalty = json_number_value(
            json_object_get(json_object_get(c, "args"), "length_penalty")),
        .no_repeat_ngram = arg(c, "no_repeat_ngram_size"),
        .min_gen_length = arg(c, "min_gen_length"),
        .deterministic = true,
    };
    struct sl_fill_result r = fill(f, blank, &config);

    assert_int_equal(r.n_answers, json_array_size(beams));
    for (size_t k = 0; k < r.n_answers; k++) {
        double want = json_number_value(json_array_get(scores, k));

        assert_blank(f, &r.answers[k], json_array_get(beams, k));
        assert_true(fabs(r.answers[k].score - want) < limit);
    }
    sl_fill_result_fini(&r);
}

static void check_beams(struct fixture *f)
{
    json_t *c;
    size_t i;

    json_array_foreach(json_object_get(f->golden, "beam_search"), i, c)
        check_beam_case(f, c, 1e-3);
    assert_int_equal(i, 7);
}

static void beams_and_their_scores_are_the_reference_s(void **state)
{
    for (size_t k = 0; k < 2; k++) {
        start(*state, kinds[k].kind);
        check_beams(*state);
        stop(*state);
    }
}

#ifdef HAVE_CUDA
static void start_on_gpu(struct fixture *f)
{
    struct sl_runtime_config config = {
        .model = f->model,
        .threads = 2,
        .device = SL_DEVICE_CUDA,
        .device_ordinal = SL_DEVICE_BEST,
        .engine = SL_ENGINE_RULE_GPU,
        .rates = &test_gpu_rates,
    };

    start_with(f, &config);
}

/* Equal up to the first step that is nearly undecided. Returns whether there
 * was none. */
static bool same_while_decided(const struct fixture *f, json_t *blank,
                               const struct sl_fill_answer *a)
{
    json_t *want = json_object_get(blank, "greedy_ids");
    json_t *margins = json_object_get(blank, "step_margins");
    const struct sl_fill_span *b = &a->blanks[0];

    for (size_t i = 0; i < json_array_size(want); i++) {
        if (json_number_value(json_array_get(margins, i)) < 5e-2)
            return false;
        if (i < b->end - b->begin)
            assert_int_equal(a->ids.v[b->begin + i],
                             json_integer_value(json_array_get(want, i)));
    }
    assert_blank(f, a, want);
    return true;
}

/* FP16 inputs of products; so few steps that a simulated GPU takes seconds, and
 * a sanitizer that follows each of its threads no minutes. */
static void a_gpu_s_greedy_ids_are_the_reference_s(void **state)
{
    static const size_t cases[] = {13, 17, 24};
    struct sl_fill_config config = {.sampler = {1, 1, 0}};
    size_t n = TEST_SANITIZED ? 2 : sizeof cases / sizeof *cases, n_equal = 0;
    struct fixture *f = *state;

    start_on_gpu(f);
    for (size_t i = 0; i < n; i++) {
        json_t *c =
            json_array_get(json_object_get(f->golden, "greedy"), cases[i]);
        json_t *blank = last_blank(c);
        struct sl_fill_result r = fill(f, blank, &config);

        n_equal += same_while_decided(f, blank, &r.answers[0]);
        sl_fill_result_fini(&r);
    }
    assert_true(n_equal >= n - 1);
    stop(f);
}

static void a_gpu_s_beams_and_their_scores_are_near(void **state)
{
    struct fixture *f = *state;
    json_t *cases = json_object_get(f->golden, "beam_search");

    start_on_gpu(f);
    check_beam_case(f, json_array_get(cases, 3), 5e-2);
    stop(f);
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_ids_are_the_reference_s),
        cmocka_unit_test(beams_and_their_scores_are_the_reference_s),
#ifdef HAVE_CUDA
        cmocka_unit_test(a_gpu_s_greedy_ids_are_the_reference_s),
        cmocka_unit_test(a_gpu_s_beams_and_their_scores_are_near),
#endif
    };
    size_t n = sizeof tests / sizeof *tests;

#ifdef HAVE_CUDA
    n -= test_has_gpu() ? 0 : 2;
#endif
    return _cmocka_run_group_tests("tests", tests, n, open_fixture,
                                   close_fixture);
}
