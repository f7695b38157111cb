#include "config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/ids.h"
#include "src/decode/sampler.h"
#include "tests/support.h"
#include "tests/tokens.h"

struct fixture {
    json_t *cases;
    struct test_npz *arrays, *tables;
};

static int open_fixture(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    char path[1024];

    assert_non_null(f);
    f->cases =
        test_json(test_shared(path, "golden/B_sampling/filter_cases.json"));
    f->arrays =
        test_npz_open(test_shared(path, "golden/B_sampling/filter_cases.npz"));
    f->tables =
        test_npz_open(test_shared(path, "golden/B_sampling/beam_tables.npz"));
    *state = f;
    return 0;
}

static int close_fixture(void **state)
{
    struct fixture *f = *state;

    json_decref(f->cases);
    test_npz_close(f->arrays);
    test_npz_close(f->tables);
    free(f);
    return 0;
}

static struct sl_sampler_config config_of(json_t *c)
{
    return (struct sl_sampler_config){
        .temperature =
            json_is_number(json_object_get(c, "temperature"))
                ? json_number_value(json_object_get(c, "temperature"))
                : 0.8,
        .top_k = (uint32_t)json_integer_value(json_object_get(c, "top_k")),
        .top_p = json_number_value(json_object_get(c, "top_p")),
    };
}

static void get(struct fixture *f, json_t *c, const char *what,
                struct test_array *a)
{
    char name[64];

    snprintf(name, sizeof name, "%s.%s",
             json_string_value(json_object_get(c, "key")), what);
    test_npz_get(f->arrays, name, a);
}

static bool kept_are_equal(const float *x, const float *y, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if ((x[i] > SL_BANNED) != (y[i] > SL_BANNED))
            return false;
    }
    return true;
}

/* The same tokens are kept, but for two freedoms of the reference: which of
 * equal logits torch sorts first, and, at top_p = 1, what its FP32 sums lose
 * (less than 1e-6 of the mass; here nothing is lost). */
static void assert_same_kept(const float *x, const float *y, size_t n)
{
    double only_x = 0, total = 0;
    float value = 0;
    size_t many_x = 0, many_y = 0;

    for (size_t i = 0; i < n; i++) {
        total += exp(x[i]);
        if ((x[i] > SL_BANNED) == (y[i] > SL_BANNED))
            continue;
        value = x[i] > y[i] ? x[i] : y[i];
        many_x += x[i] > y[i];
        many_y += x[i] < y[i];
        only_x += x[i] > y[i] ? exp(x[i]) : 0;
    }
    for (size_t i = 0; i < n && many_y > 0; i++) {
        if ((x[i] > SL_BANNED) != (y[i] > SL_BANNED))
            assert_true(fmaxf(x[i], y[i]) == value); /* ties only */
    }
    if (many_y > 0)
        assert_int_equal(many_x, many_y);
    else
        assert_true(only_x < 1e-6 * total);
}

static void check_filter(struct fixture *f, json_t *c)
{
    struct sl_sampler_config config = config_of(c);
    struct test_array logits, want, probs;
    float *x, *y;
    double total = 0, probs_error = 0;
    void *scratch;

    get(f, c, "logits", &logits);
    get(f, c, "filtered", &want);
    get(f, c, "probs", &probs);
    scratch = malloc(sl_sampler_scratch_bytes((uint32_t)logits.n));
    x = logits.data;
    y = want.data;
    sl_sampler_filter(x, (uint32_t)logits.n, &config, scratch);
    assert_same_kept(x, y, logits.n);
    for (size_t i = 0; i < logits.n; i++) {
        if (x[i] > SL_BANNED && y[i] > SL_BANNED)
            assert_true(fabsf(x[i] - y[i]) <= 1e-6f * fabsf(y[i]));
        total += exp(x[i]);
    }
    for (size_t i = 0; i < logits.n; i++)
        probs_error = fmax(probs_error,
                           fabs(exp(x[i]) / total - ((float *)probs.data)[i]));
    if (kept_are_equal(x, y, logits.n))
        assert_true(probs_error < 1e-6);
    free(scratch);
    test_array_fini(&logits);
    test_array_fini(&want);
    test_array_fini(&probs);
}

static void every_filter_of_the_reference_is_repeated(void **state)
{
    struct fixture *f = *state;
    json_t *c;
    size_t i;

    json_array_foreach(json_object_get(f->cases, "cases"), i, c)
        check_filter(f, c);
    assert_int_equal(i, 180);
}

enum { V = 40 };

/* A text of BaseStrategy whose draw was replaced by the likeliest token. */
static void check_text(struct fixture *f, json_t *c, json_t *tokens,
                       size_t n_context)
{
    struct sl_sampler_config config = config_of(c);
    struct candidate_room {
        char bytes[V * 16];
    } scratch;
    struct test_array base, bigram;
    struct sl_ids want = {0};
    char name[32];

    assert_in_range(sl_sampler_scratch_bytes(V), 1, sizeof scratch);
    snprintf(name, sizeof name, "base%d",
             (int)json_integer_value(json_object_get(c, "seed")));
    test_npz_get(f->tables, name, &base);
    snprintf(name, sizeof name, "bigram%d",
             (int)json_integer_value(json_object_get(c, "seed")));
    test_npz_get(f->tables, name, &bigram);
    test_json_ids(&want, tokens);
    for (size_t i = n_context; i < want.n; i++) {
        const float *a = (float *)base.data + (i - n_context) * V;
        const float *b = (float *)bigram.data + (size_t)want.v[i - 1] * V;
        float logits[V];

        for (size_t t = 0; t < V; t++)
            logits[t] = a[t] + b[t];
        sl_sampler_filter(logits, V, &config, &scratch);
        assert_int_equal(sl_argmax(logits, V), want.v[i]);
    }
    sl_ids_fini(&want);
    test_array_fini(&base);
    test_array_fini(&bigram);
}

static void the_likeliest_texts_are_the_reference_s(void **state)
{
    struct fixture *f = *state;
    json_t *c, *tokens, *text;
    size_t i, k, n = 0;

    json_array_foreach(json_object_get(f->cases, "base_strategy"), i, c)
    {
        tokens = json_object_get(c, "tokens");
        if (!json_is_array(json_array_get(tokens, 0))) {
            check_text(f, c, tokens, 5);
            n++;
            continue;
        }
        json_array_foreach(tokens, k, text)
        {
            check_text(f, c, text, 5);
            n++;
        }
    }
    assert_int_equal(n, 18);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_filter_of_the_reference_is_repeated),
        cmocka_unit_test(the_likeliest_texts_are_the_reference_s),
    };
    char path[1024];

    if (test_shared(path, "golden/B_sampling/filter_cases.json") == NULL)
        test_skip_all("no golden data");
    return cmocka_run_group_tests(tests, open_fixture, close_fixture);
}
