/*
 * Matrix products: every format, form of the inputs and instruction set, over
 * odd sizes, against sums in double. Weights are laid out here from the
 * drawing in quant/matrix.h, not by quant/pack.c. All arrays end where their
 * allocation ends, so that a sanitizer sees each byte too many.
 */
#include "config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/matmul.h"
#include "src/base/half.h"
#include "tests/isa_kernels.h"
#include "tests/product_problem.h"
#include "tests/support.h"

static const uint32_t all_cols[] = {1, 7, 8, 31, 32, 64, 172, 256, 704};
static const uint32_t all_rows[] = {1, 2, 8, 15, 16, 17, 24, 40, 150};

static void float_products_are_right(void **state)
{
    for (size_t c = 0; c < sizeof all_cols / sizeof *all_cols; c++) {
        for (size_t r = 0; r < sizeof all_rows / sizeof *all_rows; r++) {
            struct sl_matrix m = {SL_FMT_F32, all_rows[r], all_cols[c], 1, 0};

            for (int fmt = 0; fmt < SL_FMT_COUNT; fmt++) {
                m.fmt = (enum sl_fmt)fmt;
                if (sl_fmt_is_float(m.fmt))
                    test_check_matrix(&m);
            }
        }
    }
}

/* Groups of 32 .. 128, of the whole row, of its N-th part (43 columns: groups
 * that end inside a unit), and of one column. */
static void packed_products_are_right(void **state)
{
    for (size_t c = 0; c < sizeof all_cols / sizeof *all_cols; c++) {
        uint32_t cols = all_cols[c];
        const uint32_t groups[] = {
            32, 64, 128, cols, cols % 4 ? 3 : cols / 4, 1,
        };

        for (size_t g = 0; g < sizeof groups / sizeof *groups; g++) {
            for (size_t r = g % 2; r < sizeof all_rows / sizeof *all_rows;
                 r += 2) {
                struct sl_matrix m = {SL_FMT_INT8, all_rows[r], cols, 1,
                                      groups[g]};

                for (int fmt = 0; fmt < SL_FMT_COUNT; fmt++) {
                    m.fmt = (enum sl_fmt)fmt;
                    if (sl_fmt_has_scales(m.fmt))
                        test_check_matrix(&m);
                }
            }
        }
    }
}

/* Largest sums an integer accumulator can meet: all weights and inputs at
 * their ends. */
static void integer_sums_do_not_overflow(void **state)
{
    static const int ends[][2] = {{-128, 127}, {-8, 7}};

    for (int i = 0; i < 8; i++) {
        struct sl_matrix m = {i & 1 ? SL_FMT_INT4 : SL_FMT_INT8, 17, 256, 1,
                              64};
        int weight = ends[i & 1][i >> 1 & 1];
        int8_t x = i & 4 ? 127 : -127;

        for (int isa = 0; isa < TEST_ISAS; isa++) {
            struct sl_kernels k;
            struct test_problem p;

            if (!test_isa_init(&k, isa))
                continue;
            test_problem_init(&p, &m, &k);
            memset(p.q.at, x, (PROBLEM_N - 1) * p.acts.q_stride + m.cols);
            for (size_t g = 0; g < (size_t)PROBLEM_N * (m.cols / 32); g++)
                ((float *)p.q_scale.at)[g] = 0.5f;
            for (size_t g = 0; g < (size_t)PROBLEM_N * (m.cols / 16); g++)
                ((int32_t *)p.q_sum.at)[g] = 16 * x;
            for (uint32_t r = 0; r < m.rows; r++) {
                for (uint32_t c = 0; c < m.cols; c++) {
                    test_problem_put(&p, r, c, weight);
                    p.dense[r * m.cols + c] =
                        weight * (double)sl_half_to_float(
                                     *test_problem_scale(&p, r, c / 64));
                }
            }
            test_problem_check(&k, &p, SL_ACT_INT8);
            test_problem_fini(&p);
        }
    }
}

static void int8_inputs_stay_close_to_floats(void **state)
{
    struct sl_matrix m = {SL_FMT_INT4, 40, 704, 1, 64};
    double error = 0, energy = 0;
    struct sl_kernels k;
    struct test_problem p;
    float y[2][PROBLEM_N * 40];

    sl_kernels_init(&k, SL_ISA_AVX512);
    test_problem_init(&p, &m, &k);
    test_problem_run(&k, &p, SL_ACT_F32, y[0], 40, 0, 40, 0, PROBLEM_N);
    test_problem_run(&k, &p, SL_ACT_INT8, y[1], 40, 0, 40, 0, PROBLEM_N);
    for (size_t i = 0; i < PROBLEM_N * 40; i++) {
        double d = (double)y[0][i] - (double)y[1][i];

        error += d * d;
        energy += (double)y[0][i] * (double)y[0][i];
    }
    assert_true(error > 0);
    assert_true(error < 3e-4 * energy);
    test_problem_fini(&p);
}

/* Ties go to the even one, NaN stays, and what is too large is infinite. */
static void bf16_is_the_first_half_of_a_float(void **state)
{
    static const uint32_t t[][2] = {
        {0x3f800000, 0x3f800000}, {0x3f808000, 0x3f800000},
        {0x3f818000, 0x3f820000}, {0x3f808001, 0x3f810000},
        {0x3f807fff, 0x3f800000}, {0xbf808001, 0xbf810000},
        {0x7f7fffff, 0x7f800000}, {0xff800000, 0xff800000},
        {0x00000000, 0x00000000}, {0x80000000, 0x80000000},
    };
    float x[32], y[32];

    for (int isa = 0; isa < TEST_ISAS; isa++) {
        struct sl_kernels k;

        if (!test_isa_init(&k, isa))
            continue;
        if (k.bf16_bytes != sizeof *y)
            continue;
        for (size_t i = 0; i < 32; i++)
            memcpy(&x[i], t[i % 10], 4);
        x[31] = NAN;
        k.round_bf16(y, x, 32);
        for (size_t i = 0; i < 31; i++)
            assert_memory_equal(&y[i], &t[i % 10][1], 4);
        assert_true(isnan(y[31]));
    }
}

/* Floats that FP16 has not: subnormal, near the end of the range, infinite and
 * no number at all. One column counts, the others are zero. */
static void bf16_weights_keep_their_range(void **state)
{
    static const struct {
        uint16_t w;
        float x, want;
    } t[] = {
        {0x0001, 0x1p120f, 0x1p-13f}, {0x8003, 0x1p100f, -0x1.8p-32f},
        {0x7f7f, 0.5f, 0x1.fep126f},  {0xff7f, 0x1p-126f, -0x1.fep1f},
        {0x7f80, 2, INFINITY},        {0xff80, 2, -INFINITY},
        {0x0080, 0x1p126f, 1},        {0x7fa0, 1, NAN},
    };
    enum { ROWS = sizeof t / sizeof *t };

    for (int isa = 0; isa < TEST_ISAS; isa++) {
        for (uint32_t cols = 31; cols <= 64; cols += 33) {
            struct sl_matrix m = {SL_FMT_BF16, ROWS, cols, 1, 0};
            uint16_t w[ROWS * 64] = {0};
            float x[ROWS * 64] = {0}, y[ROWS * ROWS];
            struct sl_acts a = {
                .n = ROWS, .cols = cols, .x = x, .x_stride = cols};
            struct sl_kernels k;

            if (!test_isa_init(&k, isa))
                continue;
            for (uint32_t i = 0; i < ROWS; i++) {
                w[i * cols + (i * 5 + 30) % cols] = t[i].w;
                x[i * cols + (i * 5 + 30) % cols] = t[i].x;
            }
            k.matmul[SL_FMT_BF16][SL_ACT_F32](y, ROWS, &m, w, NULL, ROWS, &a);
            for (uint32_t i = 0; i < ROWS; i++) {
                float got = y[i * ROWS + i];

                if (!(got == t[i].want || (isnan(got) && isnan(t[i].want))))
                    fail_msg("%s: weight %#x by %g is %g, not %g", k.isa,
                             t[i].w, (double)t[i].x, (double)got,
                             (double)t[i].want);
            }
        }
    }
}

static void the_ladder_stops_where_it_is_told(void **state)
{
    static const char *const names[] = {"ref", "avx2", "avxvnni", "avx512",
                                        "amx"};
    struct sl_kernels k, ref;

    sl_kernels_init(&ref, SL_ISA_REF);
    assert_string_equal(ref.isa, "ref");
    for (int isa = SL_ISA_REF; isa <= SL_ISA_AMX; isa++) {
        int best = isa < (int)sl_cpu_best_isa() ? isa : (int)sl_cpu_best_isa();

        sl_kernels_init(&k, (enum sl_isa)isa);
        if (best == SL_ISA_AVXVNNI && !test_isa_init(&k, best))
            best = SL_ISA_AVX2; /* AVX-512 does not bring it along */
        assert_string_equal(k.isa, names[best]);
        for (int f = 0; f < SL_FMT_COUNT; f++) {
            assert_true(k.matmul[f][SL_ACT_F32] != NULL);
            assert_true(k.matmul[f][SL_ACT_BF16] != NULL ||
                        sl_fmt_has_blocks((enum sl_fmt)f));
            assert_int_equal(k.matmul[f][SL_ACT_INT8] != NULL,
                             !sl_fmt_is_float((enum sl_fmt)f));
            if (best > SL_ISA_REF)
                assert_true(k.matmul[f][SL_ACT_F32] !=
                            ref.matmul[f][SL_ACT_F32]);
        }
    }
}

static void short_inputs_need_whole_groups(void **state)
{
    static const struct {
        struct sl_matrix m;
        bool int8, bf16;
    } t[] = {
        {{SL_FMT_INT8, 16, 64, 1, 32}, true, true},
        {{SL_FMT_INT4, 16, 96, 1, 64}, true, true},
        {{SL_FMT_INT4, 16, 12288, 1, 12288}, true, true},
        {{SL_FMT_INT4, 16, 32, 1, 100}, true, true},
        {{SL_FMT_INT8, 16, 172, 1, 172}, false, false},
        {{SL_FMT_INT8, 16, 96, 1, 48}, false, false},
        {{SL_FMT_F16, 16, 64, 1, 0}, false, true},
        {{SL_FMT_BF16, 16, 64, 1, 0}, false, true},
        {{SL_FMT_F32, 16, 40, 1, 0}, false, false},
    };
    struct sl_kernels k;

    sl_kernels_init(&k, SL_ISA_AVX512);
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        assert_int_equal(sl_matmul_takes(&k, &t[i].m, SL_ACT_INT8), t[i].int8);
        assert_int_equal(sl_matmul_takes(&k, &t[i].m, SL_ACT_BF16), t[i].bf16);
        assert_true(sl_matmul_takes(&k, &t[i].m, SL_ACT_F32));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(float_products_are_right),
        cmocka_unit_test(packed_products_are_right),
        cmocka_unit_test(integer_sums_do_not_overflow),
        cmocka_unit_test(int8_inputs_stay_close_to_floats),
        cmocka_unit_test(bf16_is_the_first_half_of_a_float),
        cmocka_unit_test(bf16_weights_keep_their_range),
        cmocka_unit_test(the_ladder_stops_where_it_is_told),
        cmocka_unit_test(short_inputs_need_whole_groups),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
