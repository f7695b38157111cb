/*
 * More positions than mma.sync takes at once, in runs or by cuBLAS, as the
 * context says (runs_to of kernels/cuda/cuda.h). That products are right is
 * t_cuda_matmul.c's business.
 */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/half.h"
#include "tests/cuda_support.h"

#define ROWS      150u
#define COLS      1056u
#define ALL       70u
#define REST      (ALL - SL_CUDA_SOME)
#define WITH_BLAS (SL_CUDA_BLAS_BYTES + (8ull << 20))

struct product {
    struct test_cuda t;
    struct sl_matrix m;
    uint8_t *w, *scale, *x; /* on the device */
};

/* Any byte is a weight or an input, but for infinities and NaN. */
static void *random_bytes(size_t n, uint16_t mask, struct test_random *rnd)
{
    uint16_t *v = malloc(n);
    void *dev;

    assert_non_null(v);
    for (size_t i = 0; i < n / 2; i++)
        v[i] = (uint16_t)(test_random_next(rnd) & mask);
    dev = test_cuda_up(v, n);
    free(v);
    return dev;
}

static void product_init(struct product *p, enum sl_fmt fmt)
{
    struct test_random rnd = {77};
    bool packed = sl_fmt_has_scales(fmt);

    p->m = (struct sl_matrix){fmt, ROWS, COLS, 1, packed ? 32 : 0};
    test_cuda_open(&p->t, WITH_BLAS);
    /* Numbers below 2: of FP16, of BF16. */
    p->w = random_bytes(sl_matrix_bytes(&p->m), packed ? 0xffff : 0xbf7f, &rnd);
    p->scale = random_bytes(sl_matrix_scale_bytes(&p->m), 0x3fff, &rnd);
    p->x = random_bytes(2ull * ALL * COLS, 0xbfff, &rnd);
}

static void product_fini(struct product *p)
{
    test_cuda_free(p->w);
    test_cuda_free(p->scale);
    test_cuda_free(p->x);
    test_cuda_close(&p->t);
}

/* y (n, ROWS) of the n positions from `first` on. */
static void multiply(float *y, struct product *p, uint32_t first, uint32_t n,
                     uint32_t runs_to)
{
    struct sl_cuda_matmul mm = {
        .m = &p->m,
        .n_blocks = sl_matrix_segment_blocks(&p->m),
        .w = {p->w},
        .scale = {(const uint16_t *)(const void *)p->scale},
    };
    size_t bytes = (size_t)n * ROWS * sizeof *y;
    void *dev = test_cuda_up(y, bytes);
    struct sl_error err;

    p->t.c.runs_to[p->m.fmt] = runs_to;
    assert_ok(sl_cuda_matmul_run(&p->t.c, dev, ROWS, SL_CUDA_F32, &mm,
                                 (const uint16_t *)(const void *)p->x +
                                     (size_t)first * COLS,
                                 COLS, n, &err),
              &err);
    test_cuda_down(&p->t, y, dev, bytes);
    test_cuda_free(dev);
}

static void runs_have_the_bits_that_they_have_alone(void **state)
{
    const enum sl_fmt fmts[] = {SL_FMT_INT4, SL_FMT_INT8, SL_FMT_BF16};
    static float all[ALL * ROWS], some[SL_CUDA_SOME * ROWS], rest[REST * ROWS];

    for (size_t i = 0; i < sizeof fmts / sizeof *fmts; i++) {
        struct product p;

        product_init(&p, fmts[i]);
        multiply(some, &p, 0, SL_CUDA_SOME, 0);
        multiply(rest, &p, SL_CUDA_SOME, REST, 0);
        multiply(all, &p, 0, ALL, 2 * SL_CUDA_SOME);
        assert_memory_equal(all, some, sizeof some);
        assert_memory_equal(all + SL_CUDA_SOME * ROWS, rest, sizeof rest);
        product_fini(&p);
    }
}

/* cuBLAS, which adds in another order. */
static void beyond_the_limit_they_go_together(void **state)
{
    static float all[ALL * ROWS], some[SL_CUDA_SOME * ROWS];
    static const uint32_t limits[] = {0, SL_CUDA_SOME, ALL - 1};
    struct product p;

    product_init(&p, SL_FMT_INT4);
    multiply(some, &p, 0, SL_CUDA_SOME, 0);
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        multiply(all, &p, 0, ALL, limits[i]);
        assert_memory_not_equal(all, some, sizeof some);
    }
    product_fini(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(runs_have_the_bits_that_they_have_alone),
        cmocka_unit_test(beyond_the_limit_they_go_together),
    };

    test_cuda_need();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
