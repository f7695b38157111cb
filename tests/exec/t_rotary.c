#include "config.h"

#include <math.h>
#include <stdio.h>

#include "src/base/half.h"
#include "src/exec/rotary.h"
#include "tests/support.h"

/* The tables of SAT 0.2.12, by precision (F_rotary_and_layers). */
static struct test_npz *tables;

static float at(const struct test_array *a, size_t i)
{
    if (a->dtype[2] == '2')
        return sl_half_to_float(((const uint16_t *)a->data)[i]);
    if (a->dtype[2] == '8')
        return (float)((const double *)a->data)[i];
    return ((const float *)a->data)[i];
}

static int open_tables(void **state)
{
    char path[1024];

    tables = test_npz_open(
        test_shared(path, "golden/F_rotary_and_layers/rotary_tables.npz"));
    return 0;
}

static int close_tables(void **state)
{
    test_npz_close(tables);
    return 0;
}

/* Largest difference to "<dim>.cos<suffix>" and sin; row i of the array is
 * position rows[i], or i. */
static double worst(uint32_t dim, const char *suffix, enum sl_rotary precision)
{
    struct sl_hparams hp = {.rotary = precision, .rope_base = 10000};
    struct test_array c, s, rows;
    float cos_row[64], sin_row[64];
    char name[64];
    double most = 0;

    snprintf(name, sizeof name, "d%u.cos%s", dim, suffix);
    test_npz_get(tables, name, &c);
    snprintf(name, sizeof name, "d%u.sin%s", dim, suffix);
    test_npz_get(tables, name, &s);
    snprintf(name, sizeof name, "d%u.rows", dim);
    test_npz_get(tables, name, &rows);
    assert_int_equal(c.shape[1], dim / 2);
    for (size_t i = 0; i < c.shape[0]; i++) {
        int32_t position =
            c.shape[0] == rows.n ? ((int32_t *)rows.data)[i] : (int32_t)i;

        sl_rotary_row(cos_row, sin_row, &hp, NULL, dim, position);
        for (uint32_t j = 0; j < dim / 2; j++) {
            most = fmax(most, fabs(cos_row[j] - at(&c, i * (dim / 2) + j)));
            most = fmax(most, fabs(sin_row[j] - at(&s, i * (dim / 2) + j)));
        }
    }
    test_array_fini(&c);
    test_array_fini(&s);
    test_array_fini(&rows);
    return most;
}

static void exact_tables_are_exact(void **state)
{
    assert_true(worst(128, "_exact_rows", SL_ROTARY_EXACT) < 1e-7);
    assert_true(worst(64, "_exact_rows", SL_ROTARY_EXACT) < 1e-7);
}

static void rounded_frequencies_match_an_fp32_run(void **state)
{
    assert_true(worst(128, "_f32_rows", SL_ROTARY_INV_FREQ_F16) < 1e-6);
    assert_true(worst(64, "_f32_rows", SL_ROTARY_INV_FREQ_F16) < 1e-6);
}

/* cos and sin differ by at most the last FP16 digit of values near 1. */
static void half_tables_match_a_half_run(void **state)
{
    assert_true(worst(128, "_f16", SL_ROTARY_F16) <= 0.00049);
    assert_true(worst(64, "_f16", SL_ROTARY_F16) <= 0.00049);
}

static void the_precisions_are_not_the_same(void **state)
{
    assert_true(worst(128, "_exact_rows", SL_ROTARY_INV_FREQ_F16) > 0.1);
    assert_true(worst(128, "_f16", SL_ROTARY_INV_FREQ_F16) > 0.1);
}

/* --- scaled for long contexts --------------------------------------------- */

/* A case of tests/golden/rope/scaled.txt, which is what transformers' own code
 * gives (make.py). */
struct scaled {
    struct sl_hparams hp;
    uint32_t dim;
    int32_t position;
    double factor;        /* of cos and sin */
    double frequency[64]; /* (dim / 2) */
};

static bool read_scaled(FILE *f, struct scaled *c)
{
    struct sl_rope_scale *r = &c->hp.rope_scale;
    char kind[16];

    *c = (struct scaled){.dim = 0};
    if (fscanf(f, " case %15s %f %u %f %f %f %f %u %d factor %lf", kind,
               &r->factor, &r->original_positions, &r->low, &r->high,
               &r->attention, &c->hp.rope_base, &c->dim, &c->position,
               &c->factor) != 10)
        return false;
    assert_true(sl_rope_scaling_find(&r->kind, kind));
    if (r->kind == SL_ROPE_SCALING_YARN && r->low == 0) {
        r->low = 1;
        r->high = 32;
    }
    assert_in_range(c->dim, 2, 128);
    for (uint32_t i = 0; i < c->dim / 2; i++)
        assert_int_equal(fscanf(f, " frequency %lf", &c->frequency[i]), 1);
    return true;
}

/* Frequencies there are FP32: an angle may differ by some of its roundings. */
static void check_scaled(const struct scaled *c, int32_t position)
{
    float cos_row[64], sin_row[64];

    sl_rotary_row(cos_row, sin_row, &c->hp, NULL, c->dim, position);
    for (uint32_t i = 0; i < c->dim / 2; i++) {
        double angle = position * c->frequency[i];
        double room = 1e-6 + 6e-7 * fabs(angle);

        assert_true(fabs(cos_row[i] - c->factor * cos(angle)) < room);
        assert_true(fabs(sin_row[i] - c->factor * sin(angle)) < room);
    }
}

static void long_contexts_are_scaled_as_transformers_does(void **state)
{
    static const int32_t positions[] = {0, 1, 700, 5000, 100000};
    char path[1024];
    FILE *f = fopen(test_shared(path, "golden/rope/scaled.txt"), "r");
    struct scaled c;
    unsigned n = 0;

    (void)state;
    assert_non_null(f);
    while (read_scaled(f, &c)) {
        n++;
        if (c.position > 0) { /* frequencies of a context that ends here */
            check_scaled(&c, c.position);
            continue;
        }
        for (size_t i = 0; i < sizeof positions / sizeof *positions; i++)
            check_scaled(&c, positions[i]);
    }
    fclose(f);
    assert_int_equal(n, 9);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exact_tables_are_exact),
        cmocka_unit_test(rounded_frequencies_match_an_fp32_run),
        cmocka_unit_test(half_tables_match_a_half_run),
        cmocka_unit_test(the_precisions_are_not_the_same),
        cmocka_unit_test(long_contexts_are_scaled_as_transformers_does),
    };
    char path[1024];

    if (test_shared(path, "golden/F_rotary_and_layers") == NULL)
        test_skip_all("no golden data");
    return cmocka_run_group_tests(tests, open_tables, close_tables);
}
