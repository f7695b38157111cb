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

        sl_rotary_row(cos_row, sin_row, &hp, dim, position);
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

/* Frequencies by the formulas of huggingface/transformers
 * modeling_rope_utils.py (_compute_yarn_parameters, _compute_llama3_parameters,
 * _compute_dynamic_ntk_parameters), written out in Python with doubles. */
static const struct {
    struct sl_rope_scale scale;
    float base;
    uint32_t dim;
    int32_t position;
    uint32_t pair[6];
    double frequency[6];
    double factor; /* of cos and sin */
} scaled[] = {
    {{SL_ROPE_SCALING_YARN, 4, 32768, 1, 32, 0},
     1e6f,
     128,
     700,
     {0, 20, 30, 36, 40, 63},
     {1, 0.0133352143, 0.00106436098, 0.000179841156, 4.44569853e-05,
      3.1023444e-07},
     1.138629436111989},
    {{SL_ROPE_SCALING_LLAMA3, 8, 8192, 1, 4, 0},
     5e5f,
     128,
     700,
     {0, 20, 30, 36, 40, 63},
     {1, 0.0165604401, 0.00137189357, 7.78465527e-05, 3.4281022e-05,
      3.06892599e-07},
     1},
    {{SL_ROPE_SCALING_NTK, 2, 2048, 0, 0, 0},
     1e4f,
     64,
     4999,
     {0, 10, 20, 31, 0, 0},
     {1, 0.036303857, 0.00131797003, 3.43442139e-05, 1, 1},
     1},
    {{SL_ROPE_SCALING_LINEAR, 4, 2048, 0, 0, 0},
     1e4f,
     64,
     700,
     {0, 16, 0, 0, 0, 0},
     {0.25, 0.0025, 0.25, 0.25, 0.25, 0.25},
     1},
};

static void long_contexts_are_scaled_as_transformers_does(void **state)
{
    for (size_t k = 0; k < sizeof scaled / sizeof *scaled; k++) {
        struct sl_hparams hp = {.rope_base = scaled[k].base,
                                .rope_scale = scaled[k].scale};
        float c[64], s[64];

        sl_rotary_row(c, s, &hp, scaled[k].dim, scaled[k].position);
        for (size_t i = 0; i < 6; i++) {
            double angle = scaled[k].position * scaled[k].frequency[i];
            uint32_t at = scaled[k].pair[i];

            assert_true(fabs(c[at] - scaled[k].factor * cos(angle)) < 2e-5);
            assert_true(fabs(s[at] - scaled[k].factor * sin(angle)) < 2e-5);
        }
    }
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
