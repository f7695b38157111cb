/*
 * Products on a CUDA device of numbers at the ends of FP16's range, and beyond:
 * inputs are FP16, weights may be F32 or BF16 (kernels/cuda/cuda.h says what is
 * clamped when).
 */
#include "config.h"

#include "src/base/half.h"
#include "tests/cuda_support.h"

#define MOST_N    70u
#define WITH_BLAS (SL_CUDA_BLAS_BYTES + (8ull << 20))

/* What overflows FP16 is clamped, and stays finite in FP32. */
static void large_results_are_clamped_when_stored_as_f16(void **state)
{
    struct sl_matrix m = {SL_FMT_F32, 16, 8, 1, 0};
    struct test_cuda t;
    float w[16 * 8] = {0}, y[16];
    uint16_t x[8], half[16];
    struct sl_error err;
    struct sl_cuda_matmul mm = {.m = &m, .n_blocks = 1};
    void *dev_w, *dev_x, *dev_y;

    test_cuda_open(&t, 0);
    for (size_t i = 0; i < 8; i++)
        x[i] = sl_float_to_half(60000);
    for (size_t r = 0; r < 16; r++)
        w[r * 8 + r % 8] = r % 2 ? -3.0f : 3.0f;
    dev_w = test_cuda_up(w, sizeof w);
    dev_x = test_cuda_up(x, sizeof x);
    dev_y = test_cuda_up(y, sizeof y);
    mm.w[0] = dev_w;
    assert_ok(sl_cuda_matmul_run(&t.c, dev_y, 16, SL_CUDA_F16, &mm, dev_x, 8, 1,
                                 &err),
              &err);
    test_cuda_down(&t, half, dev_y, sizeof half);
    for (size_t r = 0; r < 16; r++)
        assert_int_equal(half[r], r % 2 ? 0xfbff : 0x7bff);
    test_cuda_free(dev_w);
    test_cuda_free(dev_x);
    test_cuda_free(dev_y);
    test_cuda_close(&t);
}

/* Few positions take BF16 as it is, more clamp it to FP16's range. */
static void bf16_weights_keep_their_range_for_few_positions(void **state)
{
    static const uint16_t weights[] = {0x4b80, 0xd180, 0x3080, 0x3f80}; /* 2^24,
                                                       -2^36, 2^-30, 1 */
    static const uint32_t n[] = {1, SL_CUDA_FEW, SL_CUDA_FEW + 1, MOST_N};
    static const uint32_t cols[] = {24, 9}; /* whole chunks, or one by one */
    struct test_cuda t;

    test_cuda_open(&t, WITH_BLAS);
    for (size_t k = 0; k < 8; k++) {
        struct sl_matrix m = {SL_FMT_BF16, 16, cols[k % 2], 1, 0};
        struct sl_cuda_matmul mm = {.m = &m, .n_blocks = 1};
        bool f16 =
            n[k / 2] > SL_CUDA_FEW && (k % 2 == 0 || n[k / 2] > SL_CUDA_SOME);
        float y[MOST_N * 16];
        uint16_t w[16 * 24] = {0}, x[MOST_N * 24] = {0};
        void *dev_w, *dev_x, *dev_y;
        struct sl_error err;

        for (size_t r = 0; r < 16; r++)
            w[r * m.cols + r % 9] = weights[r % 4];
        for (size_t i = 0; i < MOST_N * 24; i++)
            x[i] = 0x2c00; /* 2^-4 */
        dev_w = test_cuda_up(w, sizeof w);
        dev_x = test_cuda_up(x, sizeof x);
        dev_y = test_cuda_up(y, sizeof y);
        mm.w[0] = dev_w;
        assert_ok(sl_cuda_matmul_run(&t.c, dev_y, 16, SL_CUDA_F32, &mm, dev_x,
                                     24, n[k / 2], &err),
                  &err);
        test_cuda_down(&t, y, dev_y, sizeof y);
        for (size_t i = 0; i < n[k / 2] * 16; i++) {
            const float exact[] = {0x1p20f, -0x1p32f, 0x1p-34f, 0x1p-4f};
            const float clamped[] = {65504.0f / 16, -65504.0f / 16, 0, 0x1p-4f};

            if (y[i] != (f16 ? clamped : exact)[i % 4])
                fail_msg("%u columns, %u positions: y[%zu] = %g", m.cols,
                         n[k / 2], i, (double)y[i]);
        }
        test_cuda_free(dev_w);
        test_cuda_free(dev_x);
        test_cuda_free(dev_y);
    }
    test_cuda_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(large_results_are_clamped_when_stored_as_f16),
        cmocka_unit_test(bf16_weights_keep_their_range_for_few_positions),
    };

    test_cuda_need();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
