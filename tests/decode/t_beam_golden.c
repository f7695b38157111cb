#include "config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/ids.h"
#include "src/decode/beam.h"
#include "tests/support.h"
#include "tests/tokens.h"

/* Traces of GLM-130B's own BeamSearchStrategy over a scripted model: at step
 * t the logits of a beam are base[t] + bigram[last token]. */

enum { V = 40, MAX_BEAMS = 8 };

struct run {
    json_t *json;
    struct test_array base, bigram;
    struct sl_beam_config config;
    struct sl_ids ends, banned;
};

static long num(json_t *o, const char *key)
{
    return (long)json_integer_value(json_object_get(o, key));
}

static void assert_ids(const int32_t *v, size_t n, json_t *want)
{
    assert_int_equal(n, json_array_size(want));
    for (size_t i = 0; i < n; i++)
        assert_int_equal(v[i], json_integer_value(json_array_get(want, i)));
}

static void assert_score(double score, json_t *want)
{
    double w = json_number_value(want);

    assert_true(fabs(score - w) <= 1e-5 * (1 + fabs(w)));
}

/* One entry of a trace, for one text of the batch. */
static void check_trace(const struct sl_beam *b, json_t *trace, size_t text)
{
    json_t *tokens = json_array_get(json_object_get(trace, "tokens"), text);
    json_t *scores = json_array_get(json_object_get(trace, "scores"), text);
    json_t *ends = json_array_get(json_object_get(trace, "end_beams"), text);
    json_t *end_scores =
        json_array_get(json_object_get(trace, "end_scores"), text);
    const int32_t *ids;
    double score;
    size_t n;

    assert_int_equal(sl_beam_n_live(b), json_array_size(tokens));
    for (size_t i = 0; i < sl_beam_n_live(b); i++) {
        ids = sl_beam_live(b, i, &n, &score);
        assert_ids(ids, n, json_array_get(tokens, i));
        assert_score(score, json_array_get(scores, i));
    }
    assert_int_equal(sl_beam_n_finished(b), json_array_size(ends));
    for (size_t i = 0; i < sl_beam_n_finished(b); i++) {
        ids = sl_beam_finished(b, i, &n, &score);
        assert_ids(ids, n, json_array_get(ends, i));
        assert_score(score, json_array_get(end_scores, i));
    }
}

static void script(const struct run *r, const struct sl_beam *b, size_t step,
                   float *logits)
{
    const float *base = (const float *)r->base.data + step * V, *row;
    size_t n;

    for (size_t i = 0; i < sl_beam_n_live(b); i++) {
        const int32_t *ids = sl_beam_live(b, i, &n, NULL);

        row = (const float *)r->bigram.data + (size_t)ids[n - 1] * V;
        for (size_t t = 0; t < V; t++)
            logits[i * V + t] = base[t] + row[t];
    }
}

/* Returns the steps it took. */
static size_t replay(struct run *r, size_t text)
{
    json_t *trace = json_object_get(r->json, "trace");
    json_t *final = json_array_get(json_object_get(r->json, "final"), text);
    size_t limit = (size_t)num(r->json, "max_gen"), step = 0;
    bool done = false, full = json_array_size(trace) > 1;
    float logits[MAX_BEAMS * V];
    uint32_t parents[MAX_BEAMS];
    struct sl_ids context = {0};
    struct sl_error err;
    struct sl_beam *b;
    const int32_t *ids;
    size_t n;

    test_json_ids(&context,
                  json_array_get(json_object_get(r->json, "context"), text));
    assert_ok(sl_beam_create(&b, &r->config, context.v, context.n, V, &err),
              &err);
    for (; step < limit && !done; step++) {
        script(r, b, step, logits);
        assert_ok(sl_beam_step(b, logits, parents, NULL, &done, &err), &err);
        if (full)
            check_trace(b, json_array_get(trace, step), text);
    }
    if (!full && step == (size_t)num(r->json, "steps"))
        check_trace(b, json_array_get(trace, 0), text);
    assert_ok(sl_beam_finish(b, &err), &err);
    assert_int_equal(sl_beam_n_finished(b), json_array_size(final));
    for (size_t i = 0; i < sl_beam_n_finished(b); i++) {
        ids = sl_beam_finished(b, i, &n, NULL);
        assert_ids(ids, n, json_array_get(final, i));
    }
    sl_beam_destroy(b);
    sl_ids_fini(&context);
    return step;
}

static void load_run(struct run *r, json_t *json, struct test_npz *tables)
{
    char name[32];

    memset(r, 0, sizeof *r);
    r->json = json;
    snprintf(name, sizeof name, "base%ld", num(json, "seed"));
    test_npz_get(tables, name, &r->base);
    snprintf(name, sizeof name, "bigram%ld", num(json, "seed"));
    test_npz_get(tables, name, &r->bigram);
    test_json_ids(&r->ends, json_object_get(json, "end_tokens"));
    test_json_ids(&r->banned, json_object_get(json, "invalid_slices"));
    r->config = (struct sl_beam_config){
        .n_beams = (uint32_t)num(json, "num_beams"),
        .length_penalty =
            json_number_value(json_object_get(json, "length_penalty")),
        .no_repeat_ngram = (uint32_t)num(json, "no_repeat_ngram_size"),
        .min_gen_length = (uint32_t)num(json, "min_gen_length"),
        .deterministic = true,
        .consider_end = json_is_true(json_object_get(json, "consider_end")),
        .end_ids = r->ends.v,
        .n_end_ids = r->ends.n,
        .banned = r->banned.v,
        .n_banned = r->banned.n,
    };
    assert_in_range(r->config.n_beams, 1, MAX_BEAMS);
}

static void every_trace_of_the_reference_is_repeated(void **state)
{
    char path[1024];
    json_t *cases =
        test_json(test_shared(path, "golden/B_sampling/beam_cases.json"));
    struct test_npz *tables =
        test_npz_open(test_shared(path, "golden/B_sampling/beam_tables.npz"));
    json_t *json;
    size_t i;

    json_array_foreach(json_object_get(cases, "runs"), i, json)
    {
        size_t n = json_array_size(json_object_get(json, "context"));
        size_t steps = 0, most = 0;
        struct run r;

        load_run(&r, json, tables);
        for (size_t text = 0; text < n; text++) {
            steps = replay(&r, text);
            most = steps > most ? steps : most;
        }
        assert_int_equal(most, num(json, "steps"));
        test_array_fini(&r.base);
        test_array_fini(&r.bigram);
        sl_ids_fini(&r.ends);
        sl_ids_fini(&r.banned);
    }
    assert_int_equal(i, 227);
    test_npz_close(tables);
    json_decref(cases);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_trace_of_the_reference_is_repeated),
    };
    char path[1024];

    if (test_shared(path, "golden/B_sampling/beam_cases.json") == NULL)
        test_skip_all("no golden data");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
