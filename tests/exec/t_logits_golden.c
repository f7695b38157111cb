#include "config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/logits_run.h"
#include "tests/support.h"

/* Logits of converted checkpoints against the reference implementations:
 * golden/A_glm130b (SwissArmyTransformer 0.2.12) and glm-tiny's golden.json
 * (reference.py). Everything goes through the commands, as a user would. */

#define SIZES_A                                                                \
    "--num-layers 3 --hidden-size 64 --num-attention-heads 4 "                 \
    "--inner-hidden-size 172 --vocab-size 512 --max-sequence-length 64"

static char dir[1024];

/* --- golden/A_glm130b/g130_a ------------------------------------------- */

static struct test_npz *arrays;
static json_t *cases;

/* All cases as one input. The fully causal case has no context: all its ids
 * are "answer". */
static void write_cases(void)
{
    json_t *list = json_array(), *c;
    size_t i;

    json_array_foreach(json_object_get(cases, "cases"), i, c)
    {
        const char *name = json_string_value(json_object_get(c, "name"));
        size_t context =
            (size_t)json_integer_value(json_object_get(c, "context_length"));
        struct test_array ids, pos;
        char key[64];

        context = strcmp(name, "unidirectional") == 0 ? 0 : context - 1;
        snprintf(key, sizeof key, "%s.ids", name);
        test_npz_get(arrays, key, &ids);
        snprintf(key, sizeof key, "%s.pos", name);
        test_npz_get(arrays, key, &pos);
        json_array_append_new(
            list, json_pack("{so so so}", "context",
                            json_of_ids(ids.data, context), "answer",
                            json_of_ids((int32_t *)ids.data + context,
                                        ids.n - context),
                            "positions", json_of_ids(pos.data, pos.n)));
        test_array_fini(&ids);
        test_array_fini(&pos);
    }
    write_logits_input(dir, list);
}

/* Largest difference to `array` of all cases. The arrays hold the rows from
 * [sop] on, or all rows: the last rows are compared. */
static double worst(const struct test_array *got, const char *array)
{
    double most = 0;
    size_t i, row = 0;
    json_t *c;

    json_array_foreach(json_object_get(cases, "cases"), i, c)
    {
        const char *name = json_string_value(json_object_get(c, "name"));
        struct test_array want, ids;
        char key[96];
        size_t context =
            (size_t)json_integer_value(json_object_get(c, "context_length"));
        size_t rows, vocab;
        const float *a, *b;

        snprintf(key, sizeof key, "%s.ids", name);
        test_npz_get(arrays, key, &ids);
        snprintf(key, sizeof key, "%s.%s", name, array);
        test_npz_get(arrays, key, &want);
        vocab = want.shape[1];
        rows = ids.n - (context - 1);
        if (want.shape[0] < rows)
            rows = want.shape[0];
        /* our rows of this case end at `row` */
        row +=
            strcmp(name, "unidirectional") == 0 ? ids.n : ids.n - (context - 1);
        a = (const float *)got->data + (row - rows) * vocab;
        b = (const float *)want.data + (want.shape[0] - rows) * vocab;
        for (size_t j = 0; j < rows * vocab; j++)
            most = fmax(most, fabs((double)a[j] - b[j]));
        test_array_fini(&ids);
        test_array_fini(&want);
    }
    assert_int_equal(row, got->shape[0]);
    return most;
}

static void check_on(const char *device, const char *variant, const char *quant,
                     const char *rotary, const char *array, double limit)
{
    static const char *const modes[] = {"", "--step-by-step"};
    char path[1024], name[128];

    snprintf(name, sizeof name, "golden/A_glm130b/g130_a/%s", variant);
    if (test_variant(path, name) == NULL)
        return;
    run_sluice(dir,
               "convert --force --quant %s --rotary-precision %s %s -o "
               "'%s/model.gguf' '%s'",
               quant, rotary, SIZES_A, dir, path);
    for (int i = 0; i < 2; i++) {
        struct test_array got;
        char flags[64];
        double off;

        snprintf(flags, sizeof flags, "%s %s", device, modes[i]);
        run_logits(dir, &got, flags);
        off = worst(&got, array);
        if (!(off <= limit))
            print_error("%s %s %s %s: off by %g\n", variant, quant, rotary,
                        modes[i], off);
        assert_true(off <= limit);
        test_array_fini(&got);
    }
}

static void check_variant(const char *variant, const char *quant,
                          const char *rotary, const char *array, double limit)
{
    check_on("--activations f32", variant, quant, rotary, array, limit);
}

static void float_checkpoints_give_the_reference_logits(void **state)
{
    static const char *const variants[] = {"tp1", "tp2", "tp4"};

    write_cases();
    for (int i = 0; i < 3; i++) {
        check_variant(variants[i], "keep", "inv-freq-f16", "logits_f32", 1e-4);
        check_variant(variants[i], "keep", "exact", "logitsB_f32_exactrope",
                      1e-4);
        check_variant(variants[i], "keep", "f16", "logitsB_f32_f16rope", 1e-4);
    }
}

static void quantised_checkpoints_give_the_reference_logits(void **state)
{
    static const char *const variants[] = {"int8_tp1", "int8_tp2", "int8_tp4",
                                           "int4_tp1", "int4_tp2"};

    write_cases();
    for (int i = 0; i < 5; i++) {
        char array[64];

        snprintf(array, sizeof array, "logitsB_%s", variants[i]);
        check_variant(variants[i], "keep", "inv-freq-f16", array, 1e-4);
    }
}

/* The way we quantise is the way the authors do: from the float checkpoint to
 * the logits of the quantised one, but for the head, which is FP16 (a wrong
 * scale or split is off by 0.2 and more). */
static void our_quantisation_gives_the_reference_logits(void **state)
{
    write_cases();
    check_variant("tp1", "int8", "inv-freq-f16", "logitsB_int8_tp1", 2e-2);
    check_variant("tp4", "int8 --quant-tp 2", "inv-freq-f16",
                  "logitsB_int8_tp2", 2e-2);
    check_variant("tp2", "int4", "inv-freq-f16", "logitsB_int4_tp1", 2e-2);
    check_variant("tp1", "int4 --quant-tp 2", "inv-freq-f16",
                  "logitsB_int4_tp2", 2e-2);
}

static void an_fp16_file_is_near(void **state)
{
    write_cases();
    check_variant("tp2", "f16", "inv-freq-f16", "logits_f32", 5e-2);
}

#ifdef HAVE_CUDA
#define ON_GPU "--device cuda --engine gpu"

/* FP16 inputs of products, keys and values. How shards are joined is the CPU's
 * cases' matter: one checkpoint of each format, as a simulated GPU is slow. */
static void a_gpu_gives_nearly_the_reference_logits(void **state)
{
    static const char *const packed[] = {"int8_tp4", "int4_tp2"};

    write_cases();
    check_on(ON_GPU, "tp2", "f16", "inv-freq-f16", "logits_f32", 5e-2);
    if (TEST_SANITIZED) /* a case takes a minute */
        return;
    check_on(ON_GPU, "tp1", "keep", "inv-freq-f16", "logits_f32", 5e-2);
    for (int i = 0; i < 2; i++) {
        char array[64];

        snprintf(array, sizeof array, "logitsB_%s", packed[i]);
        check_on(ON_GPU, packed[i], "keep", "inv-freq-f16", array, 5e-2);
    }
}
#endif

static int open_a(void **state)
{
    char path[1024];

    cases = test_json(test_shared(path, "golden/A_glm130b/g130_a/cases.json"));
    arrays =
        test_npz_open(test_shared(path, "golden/A_glm130b/g130_a/cases.npz"));
    test_temp_dir(dir);
    return 0;
}

static int close_a(void **state)
{
    json_decref(cases);
    test_npz_close(arrays);
    test_remove_tree(dir);
    return 0;
}

/* --- glm-tiny ----------------------------------------------------------- */

struct blank {
    const json_t *ids, *margins, *top10;
};

/* One object per blank of every so-manieth greedy case: the ids that greedy
 * search chose, teacher-forced. */
static size_t write_some(const json_t *golden, int sop, struct blank *blanks,
                         size_t every)
{
    json_t *list = json_array(), *c, *b;
    size_t i, j, n = 0;

    json_array_foreach(json_object_get(golden, "greedy"), i, c)
    {
        bool gmask = json_is_true(json_object_get(c, "use_gmask"));

        if (i % every != 0)
            continue;
        json_array_foreach(json_object_get(c, "blanks"), j, b)
        {
            json_t *ids = json_object_get(b, "greedy_ids");
            json_t *answer = json_pack("[i]", sop), *o;

            for (size_t k = 0; k + 1 < json_array_size(ids); k++)
                json_array_append(answer, json_array_get(ids, k));
            o = json_pack("{sO so}", "context",
                          json_object_get(b, "context_ids"), "answer", answer);
            if (gmask)
                json_object_set_new(o, "mask_position", json_null());
            else
                json_object_set(o, "mask_position",
                                json_object_get(b, "mask_position"));
            json_array_append_new(list, o);
            blanks[n++] = (struct blank){
                .ids = ids,
                .margins = json_object_get(b, "step_margins"),
                .top10 = json_object_get(b, "first_top10"),
            };
        }
    }
    write_logits_input(dir, list);
    return n;
}

static double largest(const float *row, size_t vocab, size_t *at)
{
    *at = 0;
    for (size_t v = 1; v < vocab; v++) {
        if (row[v] > row[*at])
            *at = v;
    }
    return row[*at];
}

/* rel: allowed error of a logit, relative to the row's largest. Returns the
 * worst there was. */
static double compare_greedy(const struct test_array *got,
                             const struct blank *blanks, size_t n, double rel)
{
    size_t vocab = got->shape[1], row = 0, at;
    double worst_rel = 0;

    for (size_t i = 0; i < n; i++) {
        const float *first = (const float *)got->data + row * vocab;
        double scale = fabs(largest(first, vocab, &at));

        for (size_t k = 0; k < json_array_size(blanks[i].top10); k++) {
            json_t *pair = json_array_get(blanks[i].top10, k);
            size_t id = (size_t)json_integer_value(json_array_get(pair, 0));
            double want = json_number_value(json_array_get(pair, 1));

            worst_rel = fmax(worst_rel, fabs(first[id] - want) / scale);
        }
        for (size_t k = 0; k < json_array_size(blanks[i].ids); k++, row++) {
            const float *r = (const float *)got->data + row * vocab;
            double margin =
                json_number_value(json_array_get(blanks[i].margins, k));

            scale = fabs(largest(r, vocab, &at));
            if (margin > 2 * rel * scale)
                assert_int_equal(
                    at, json_integer_value(json_array_get(blanks[i].ids, k)));
        }
    }
    assert_int_equal(row, got->shape[0]);
    if (!(worst_rel <= rel))
        print_error("off by %g of the row's largest\n", worst_rel);
    assert_true(worst_rel <= rel);
    return worst_rel;
}

/* The worst difference of two runs, as a part of the row's largest. */
static double apart(const struct test_array *a, const struct test_array *b)
{
    size_t vocab = a->shape[1], at;
    double most = 0;

    assert_int_equal(a->n, b->n);
    for (size_t row = 0; row < a->shape[0]; row++) {
        const float *x = (const float *)a->data + row * vocab;
        const float *y = (const float *)b->data + row * vocab;
        double scale = fabs(largest(x, vocab, &at));

        for (size_t i = 0; i < vocab; i++)
            most = fmax(most, fabs((double)x[i] - (double)y[i]) / scale);
    }
    return most;
}

struct golden_run {
    const char *flags;
    double golden;
    double f32; /* all rows, to the first run's */
};

/* Every so-manieth case in n ways. */
static void compare_runs(const struct golden_run *runs, size_t n, size_t every)
{
    char path[1024];
    json_t *golden = test_json(test_source(path, "demo/golden.json"));
    json_t *config = test_json(test_source(path, "demo/config.json"));
    int sop = (int)json_integer_value(
        json_object_get(json_object_get(config, "special_tokens"), "<sop>"));
    struct test_array got, first;
    struct blank blanks[128];
    size_t n_blanks;

    run_sluice(dir, "convert --force --quant f16 -o '%s/model.gguf' '%s'", dir,
               test_source(path, "demo"));
    n_blanks = write_some(golden, sop, blanks, every);
    run_logits(dir, &first, runs[0].flags);
    for (size_t i = 0; i < n; i++) {
        double off, f32;

        run_logits(dir, &got, runs[i].flags);
        off = compare_greedy(&got, blanks, n_blanks, runs[i].golden);
        f32 = apart(&got, &first);
        print_message("# %s: off by %.2g, to the first run %.2g\n",
                      runs[i].flags, off, f32);
        assert_true(f32 <= runs[i].f32);
        test_array_fini(&got);
    }
    test_array_fini(&first);
    json_decref(golden);
    json_decref(config);
}

/* A pass sees what it adds to the cache as it was computed, so a context
 * gives the same logits however it is kept... */
static void the_demo_model_gives_the_golden_logits(void **state)
{
    static const struct golden_run runs[] = {
        {"--kv f32", 1e-6, 0},
        {"--activations f32", 1e-6, 0},
        {"--kv f32 --ram least", 1e-6, 1e-5},
        {"--ram least", 1e-6, 1e-5},
    };

    compare_runs(runs, sizeof runs / sizeof *runs, 1);
}

/* ... but steps behind it do not. A pass for each of their 600 ids takes its
 * time, so it is every fifth case. */
static void steps_of_the_demo_model_give_the_golden_logits(void **state)
{
    static const struct golden_run runs[] = {
        {"--kv f32 --step-by-step", 1e-6, 0},
        {"--activations f32 --step-by-step", 1e-6, 0},
        {"--kv f32", 1e-6, 1e-5},
        {"--step-by-step", 1e-6, 2e-3},
        {"--step-by-step --isa ref", 1e-6, 2e-3},
        {"--kv int8 --step-by-step", 1e-2, 1e-2},
        {"--kv int8 --step-by-step --isa ref", 1e-2, 1e-2},
    };

    compare_runs(runs, sizeof runs / sizeof *runs, 5);
}

#ifdef HAVE_CUDA
/* The same ids up to the first step that is nearly undecided; of every third
 * case, or fifth where a sanitizer follows each simulated thread. */
static void a_gpu_chooses_the_golden_ids(void **state)
{
    char path[1024];
    json_t *golden = test_json(test_source(path, "demo/golden.json"));
    json_t *config = test_json(test_source(path, "demo/config.json"));
    int sop = (int)json_integer_value(
        json_object_get(json_object_get(config, "special_tokens"), "<sop>"));
    struct test_array got;
    struct blank blanks[128];
    size_t n, row = 0;

    run_sluice(dir, "convert --force --quant f16 -o '%s/model.gguf' '%s'", dir,
               test_source(path, "demo"));
    n = write_some(golden, sop, blanks, TEST_SANITIZED ? 5 : 3);
    run_logits(dir, &got, ON_GPU);
    for (size_t i = 0; i < n; i++) {
        size_t steps = json_array_size(blanks[i].ids), vocab = got.shape[1], at;
        bool decided = true;

        for (size_t k = 0; k < steps; k++, row++) {
            decided &=
                json_number_value(json_array_get(blanks[i].margins, k)) >= 5e-2;
            if (!decided)
                continue;
            largest((const float *)got.data + row * vocab, vocab, &at);
            assert_int_equal(
                at, json_integer_value(json_array_get(blanks[i].ids, k)));
        }
    }
    assert_int_equal(row, got.shape[0]);
    test_array_fini(&got);
    json_decref(golden);
    json_decref(config);
}
#endif

/* exp of the mean of -log p over the ids that greedy search chose. */
static double perplexity(const struct test_array *got,
                         const struct blank *blanks, size_t n)
{
    size_t vocab = got->shape[1], row = 0, at;
    double sum = 0;

    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < json_array_size(blanks[i].ids); k++, row++) {
            const float *r = (const float *)got->data + row * vocab;
            double most = largest(r, vocab, &at), all = 0;
            size_t id =
                (size_t)json_integer_value(json_array_get(blanks[i].ids, k));

            for (size_t v = 0; v < vocab; v++)
                all += exp((double)r[v] - most);
            sum += log(all) - ((double)r[id] - most);
        }
    }
    assert_int_equal(row, got->shape[0]);
    return exp(sum / (double)row);
}

/* Rounded inputs leave the perplexity where it was. */
static void check_perplexity(const char *act, const char *const *quants,
                             size_t n_quants)
{
    char path[1024], options[64];
    json_t *golden = test_json(test_source(path, "demo/golden.json"));
    json_t *config = test_json(test_source(path, "demo/config.json"));
    int sop = (int)json_integer_value(
        json_object_get(json_object_get(config, "special_tokens"), "<sop>"));
    struct blank blanks[128];
    size_t n = write_some(golden, sop, blanks, 1);

    snprintf(options, sizeof options, "--activations %s --kv f32", act);
    for (size_t i = 0; i < n_quants; i++) {
        struct test_array f32, rounded;
        double want, got;

        run_sluice(dir, "convert --force --quant %s -o '%s/model.gguf' '%s'",
                   quants[i], dir, test_source(path, "demo"));
        run_logits(dir, &f32, "--activations f32 --kv f32");
        run_logits(dir, &rounded, options);
        want = perplexity(&f32, blanks, n);
        got = perplexity(&rounded, blanks, n);
        print_message("# %s: perplexity %.4f, with %s activations %+.3f %%, "
                      "logits off by %.2g\n",
                      quants[i], want, act, 100 * (got / want - 1),
                      apart(&rounded, &f32));
        assert_true(fabs(got / want - 1) <= 5e-3);
        assert_true(apart(&rounded, &f32) > 0);
        test_array_fini(&f32);
        test_array_fini(&rounded);
    }
    json_decref(golden);
    json_decref(config);
}

/* In groups of 32, whatever the weights are packed to. */
static void int8_activations_keep_the_perplexity(void **state)
{
    static const char *const quants[] = {"int8", "int8-g64", "int4", "int4-g64",
                                         "int4-g32"};

    check_perplexity("int8", quants, sizeof quants / sizeof *quants);
}

static void bf16_activations_keep_the_perplexity(void **state)
{
    static const char *const quants[] = {"f32", "f16", "int8", "int4-g64"};

    check_perplexity("bf16", quants, sizeof quants / sizeof *quants);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(float_checkpoints_give_the_reference_logits),
        cmocka_unit_test(quantised_checkpoints_give_the_reference_logits),
        cmocka_unit_test(our_quantisation_gives_the_reference_logits),
        cmocka_unit_test(an_fp16_file_is_near),
        cmocka_unit_test(the_demo_model_gives_the_golden_logits),
        cmocka_unit_test(steps_of_the_demo_model_give_the_golden_logits),
        cmocka_unit_test(int8_activations_keep_the_perplexity),
        cmocka_unit_test(bf16_activations_keep_the_perplexity),
#ifdef HAVE_CUDA
        cmocka_unit_test(a_gpu_gives_nearly_the_reference_logits),
        cmocka_unit_test(a_gpu_chooses_the_golden_ids),
#endif
    };
    size_t n = sizeof tests / sizeof *tests;
    char path[1024];

    if (test_shared(path, "golden/A_glm130b/g130_a/tp1") == NULL)
        test_skip_all("no golden data");
#ifdef HAVE_CUDA
    n -= test_has_gpu() ? 0 : 2;
#endif
    return _cmocka_run_group_tests("tests", tests, n, open_a, close_a);
}
