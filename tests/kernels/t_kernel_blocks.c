/*
 * Products of ggml's blocks: every format, form of the inputs and instruction
 * set, over odd sizes, against sums in double.
 */
#include "config.h"

#include <string.h>

#include "quant/blocks.h"
#include "tests/isa_kernels.h"
#include "tests/product_problem.h"
#include "tests/support.h"

/* Every format; rows of one block and of several tiles, which end in the middle
 * of one, and columns of more than one panel. */
static void products_of_blocks_are_right(void **state)
{
    static const uint32_t rows[] = {1, 2, 8, 15, 16, 17, 24, 40, 150};
    static const uint32_t counts[2][4] = {{1, 3, 8, 37}, {1, 2, 5, 5}};

    for (int fmt = 0; fmt < SL_FMT_COUNT; fmt++) {
        const struct sl_fmt_info *f = sl_fmt_of((enum sl_fmt)fmt);

        for (size_t i = 0; sl_fmt_has_blocks((enum sl_fmt)fmt) && i < 8; i++) {
            struct sl_matrix m = {(enum sl_fmt)fmt, rows[i], 0, 1, 0};

            m.cols =
                counts[f->block_cols > 32][(i + i / 4) % 4] * f->block_cols;
            test_check_matrix(&m);
        }
    }
}

/* Every code and sub code at its end, inputs too. */
static void block_sums_do_not_overflow(void **state)
{
    for (int i = 0; i < SL_FMT_COUNT * 4; i++) {
        struct sl_matrix m = {(enum sl_fmt)(i / 4), 17, 512, 1, 0};
        int8_t x = i & 1 ? 127 : -127;

        if (!sl_fmt_has_blocks(m.fmt))
            continue;
        for (int isa = 0; isa < TEST_ISAS; isa++) {
            const struct sl_block_shape *s = sl_block_shape_of(m.fmt);
            struct sl_kernels k;
            struct test_problem p;
            uint8_t *w;

            if (!test_isa_init(&k, isa))
                continue;
            test_problem_init(&p, &m, &k);
            memset(p.q.at, x, (PROBLEM_N - 1) * p.acts.q_stride + m.cols);
            for (size_t g = 0; g < (size_t)PROBLEM_N * (m.cols / 32); g++)
                ((float *)p.q_scale.at)[g] = 0.5f;
            for (size_t g = 0; g < (size_t)PROBLEM_N * (m.cols / 16); g++)
                ((int32_t *)p.q_sum.at)[g] = 16 * x;
            /* all but the heads */
            w = p.w.at;
            for (size_t j = 0; j < sl_matrix_bytes(&m); j++) {
                size_t word = j % sl_matrix_block_bytes(&m, 0, 1) / 64;

                if (word % (1 + s->share * sl_block_words(s)) != 0)
                    w[j] = i & 2 ? 0xff : 0;
            }
            for (uint32_t r = 0; r < m.rows; r++) {
                float row[512];

                sl_matrix_decode_row(row, &m,
                                     w + sl_matrix_block_offset(&m, 0, r / 16),
                                     NULL, r % 16);
                for (uint32_t c = 0; c < m.cols; c++)
                    p.dense[r * m.cols + c] = (double)row[c];
            }
            test_problem_check(&k, &p, SL_ACT_INT8);
            test_problem_fini(&p);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_of_blocks_are_right),
        cmocka_unit_test(block_sums_do_not_overflow),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
