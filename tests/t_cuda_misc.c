/*
 * Norms of rows, embedding and the largest values on a CUDA device, and
 * launches that the device refuses.
 */
#include "config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#ifdef CUDA_SIM
#include "kernels/cudasim/cudasim.h"
#endif
#include "kernels/cuda/product.h"
#include "quant/planes.h"
#include "src/base/half.h"
#include "tests/cuda_support.h"

static void *make(size_t n, size_t size)
{
    void *p = calloc(n, size);

    assert_non_null(p);
    return p;
}

/* --- norms --------------------------------------------------------------- */

/* Sums of h values are off by h * 2^-24 of their magnitudes; what is left is
 * the rounding of the result. */
static void norm_case(struct test_cuda *t, uint32_t h, bool rows, bool rms)
{
    static const uint32_t picked[] = {4, 1, 1};
    uint32_t n_x = 5, n = rows ? 3 : 5;
    size_t stride = (h + 7) / 8 * 8;
    struct test_random rnd = {h};
    float *x = make((size_t)n_x * h, 4), *w = make(h, 4), *b = make(h, 4);
    float *y = make((size_t)n * h, 4), *ref = make(h, 4);
    uint16_t *y16 = make(n * stride, 2);
    void *dev_x, *dev_w, *dev_b, *dev_y, *dev_y16, *dev_rows;
    struct sl_error err;

    for (size_t i = 0; i < (size_t)n_x * h; i++)
        x[i] = 30 * test_random_float(&rnd) *
               (test_random_next(&rnd) % 64 ? 1 : 100);
    for (uint32_t i = 0; i < h; i++) {
        w[i] = test_random_float(&rnd);
        b[i] = test_random_float(&rnd);
    }
    dev_x = test_cuda_up(x, (size_t)n_x * h * 4);
    dev_w = test_cuda_up(w, h * sizeof *w);
    dev_b = test_cuda_up(b, h * sizeof *b);
    dev_y = test_cuda_up(y, (size_t)n * h * 4);
    dev_y16 = test_cuda_up(y16, n * stride * 2);
    dev_rows = test_cuda_up(picked, sizeof picked);
    if (rms)
        assert_ok(sl_cuda_rms_norm(&t->c, dev_y16, stride, dev_y, dev_x, dev_w,
                                   rows ? dev_rows : NULL, n, h, 1e-5f, &err),
                  &err);
    else
        assert_ok(sl_cuda_layer_norm(&t->c, dev_y16, stride, dev_y, dev_x,
                                     dev_w, dev_b, rows ? dev_rows : NULL, n, h,
                                     1e-5f, &err),
                  &err);
    test_cuda_down(t, y, dev_y, (size_t)n * h * 4);
    test_cuda_down(t, y16, dev_y16, n * stride * 2);
    for (uint32_t i = 0; i < n; i++) {
        const float *from = x + (size_t)(rows ? picked[i] : i) * h;

        if (rms)
            t->ref.rms_norm(ref, from, w, h, 1e-5f);
        else
            t->ref.layer_norm(ref, from, w, b, h, 1e-5f);
        for (uint32_t c = 0; c < h; c++) {
            double v = (double)ref[c], is = (double)y[(size_t)i * h + c];
            double is16 = (double)sl_half_to_float(y16[i * stride + c]);
            double bound = ldexp(8 + fabs(v), -20);

            assert_true(fabs(is - v) <= bound);
            assert_true(fabs(is16 - v) <= bound + ldexp(fabs(v), -11));
        }
    }
    test_cuda_free(dev_x);
    test_cuda_free(dev_w);
    test_cuda_free(dev_b);
    test_cuda_free(dev_y);
    test_cuda_free(dev_y16);
    test_cuda_free(dev_rows);
    free(x);
    free(w);
    free(b);
    free(y);
    free(ref);
    free(y16);
}

static void rows_are_normed(void **state)
{
    struct test_cuda t;

    test_cuda_open(&t, 0);
    for (int rms = 0; rms < 2; rms++) {
        norm_case(&t, 256, false, rms);
        norm_case(&t, 2501, true, rms);
        norm_case(&t, 24, true, rms);
    }
    test_cuda_close(&t);
}

static void norms_are_added(void **state)
{
    enum { N = 3, H = 1030 };
    struct test_random rnd = {7};
    float *x = make(N * H + 1, 4), *v = make(N * H, 4),
          *is = make(N * H + 1, 4);
    float w[H], ref[H];
    struct test_cuda t;
    struct sl_error err;
    void *dev_x, *dev_v, *dev_w;

    test_cuda_open(&t, 0);
    for (size_t i = 0; i < N * H; i++) {
        x[i] = 100 * test_random_float(&rnd);
        v[i] = test_random_float(&rnd) * (i % 97 ? 1 : 500);
    }
    x[N * H] = -1;
    for (size_t i = 0; i < H; i++)
        w[i] = 2 * test_random_float(&rnd);
    dev_x = test_cuda_up(x, (N * H + 1) * 4);
    dev_v = test_cuda_up(v, N * H * 4);
    dev_w = test_cuda_up(w, sizeof w);
    assert_ok(
        sl_cuda_rms_norm_add(&t.c, dev_x, dev_v, dev_w, N, H, 0.01f, &err),
        &err);
    test_cuda_down(&t, is, dev_x, (N * H + 1) * 4);
    for (size_t i = 0; i < N; i++) {
        t.ref.rms_norm(ref, v + i * H, w, H, 0.01f);
        for (size_t c = 0; c < H; c++) {
            double want = (double)x[i * H + c] + (double)ref[c];

            assert_true(fabs((double)is[i * H + c] - want) <=
                        ldexp(8 + fabs((double)ref[c]) + fabs(want), -20));
        }
    }
    assert_true(is[N * H] == -1);
    test_cuda_free(dev_x);
    test_cuda_free(dev_v);
    test_cuda_free(dev_w);
    free(x);
    free(v);
    free(is);
    test_cuda_close(&t);
}

/* --- embedding ----------------------------------------------------------- */

static void embedding_case(struct test_cuda *t, enum sl_fmt fmt)
{
    enum { MOST = 768 };
    struct sl_matrix m = {fmt, 50, 44, 1, sl_fmt_has_scales(fmt) ? 16 : 0};
    const int32_t ids[] = {49, 0, 17, 15, 32, 16};
    struct test_random rnd = {fmt};
    size_t w_bytes, n_scale = sl_matrix_scale_bytes(&m);
    uint16_t *scale = make(n_scale + 2, 1);
    float x[6 * MOST], twice[6 * MOST], row[MOST];
    uint8_t *w;
    struct sl_cuda_matmul mm = {.m = &m, .first_block = 1, .n_blocks = 3};
    void *dev_w, *dev_scale, *dev_x, *dev_ids;
    struct sl_error err;

    if (sl_fmt_has_blocks(fmt)) /* three; rows end in the middle of a tile */
        m.cols = 3 * sl_fmt_of(fmt)->block_cols;
    w_bytes = sl_matrix_bytes(&m);
    w = make(w_bytes, 1);
    for (size_t i = 0; i < w_bytes; i++) /* finite as floats, too */
        w[i] = (uint8_t)(test_random_next(&rnd) & 0x3b);
    for (size_t i = 0; i < n_scale / 2; i++)
        scale[i] = sl_float_to_half(test_random_float(&rnd));
    for (size_t i = 0; i < (size_t)6 * m.cols; i++)
        x[i] = -1;
    dev_w = test_cuda_up(w, w_bytes);
    dev_scale = test_cuda_up(scale, n_scale);
    dev_x = test_cuda_up(x, sizeof x);
    dev_ids = test_cuda_up(ids, sizeof ids);
    mm.w[0] = (uint8_t *)dev_w + sl_matrix_block_offset(&m, 0, 1);
    if (dev_scale != NULL)
        mm.scale[0] =
            (uint16_t *)dev_scale + sl_matrix_scale_offset(&m, 0, 1) / 2;
    assert_ok(sl_cuda_embed(&t->c, dev_x, &mm, dev_ids, 6, &err), &err);
    test_cuda_down(t, x, dev_x, sizeof x);
    assert_ok(sl_cuda_embed_add(&t->c, dev_x, &mm, dev_ids, 6, &err), &err);
    test_cuda_down(t, twice, dev_x, sizeof twice);
    for (size_t i = 0; i < 6; i++) {
        uint32_t id = (uint32_t)ids[i];

        sl_matrix_decode_row(
            row, &m, w + sl_matrix_block_offset(&m, 0, id / 16),
            scale + sl_matrix_scale_offset(&m, 0, id / 16) / 2, id % 16);
        for (size_t c = 0; c < m.cols; c++) {
            size_t at = i * m.cols + c;

            assert_true(x[at] == (id < 16 ? -1 : row[c]));
            assert_true(twice[at] == (id < 16 ? -1 : row[c] + row[c]));
        }
    }
    test_cuda_free(dev_w);
    test_cuda_free(dev_scale);
    test_cuda_free(dev_x);
    test_cuda_free(dev_ids);
    free(w);
    free(scale);
}

static void rows_are_looked_up_where_a_part_has_them(void **state)
{
    struct test_cuda t;

    test_cuda_open(&t, 0);
    for (int fmt = 0; fmt < SL_FMT_COUNT; fmt++)
        embedding_case(&t, (enum sl_fmt)fmt);
    test_cuda_close(&t);
}

/* --- the largest --------------------------------------------------------- */

static bool before(const float *x, uint32_t a, uint32_t b)
{
    if (isnan(x[a]) || isnan(x[b]))
        return isnan(x[a]) == isnan(x[b]) ? a < b : isnan(x[b]);
    return x[a] == x[b] ? a < b : x[a] > x[b];
}

static void top_case(struct test_cuda *t, uint32_t cols, uint32_t k)
{
    struct test_random rnd = {cols + k};
    uint32_t n = 3;
    float *x = make((size_t)n * (cols + 1), 4), *value = make((size_t)n * k, 4);
    uint32_t *index = make((size_t)n * k, 4);
    void *dev_x, *dev_value, *dev_index;
    struct sl_error err;

    for (size_t i = 0; i < (size_t)n * (cols + 1); i++) {
        uint32_t kind = test_random_next(&rnd) % 20;

        x[i] = test_random_float(&rnd) * 10;
        if (kind < 6) /* many equal ones, zeros of both signs among them */
            x[i] = kind < 3 ? floorf(x[i]) : -0.0f * x[i];
        else if (kind == 6)
            x[i] = NAN;
        else if (kind == 7)
            x[i] = -INFINITY;
    }
    dev_x = test_cuda_up(x, (size_t)n * (cols + 1) * 4);
    dev_value = test_cuda_up(value, (size_t)n * k * 4);
    dev_index = test_cuda_up(index, (size_t)n * k * 4);
    assert_ok(sl_cuda_top_k(&t->c, dev_index, dev_value, dev_x, cols + 1, cols,
                            n, k, &err),
              &err);
    test_cuda_down(t, value, dev_value, (size_t)n * k * 4);
    test_cuda_down(t, index, dev_index, (size_t)n * k * 4);
    for (uint32_t i = 0; i < n; i++) {
        const float *row = x + (size_t)i * (cols + 1);

        for (uint32_t j = 0; j < k; j++) {
            uint32_t at = index[i * k + j], rank = 0;

            assert_true(at < cols);
            for (uint32_t c = 0; c < cols; c++)
                rank += before(row, c, at);
            assert_int_equal(rank, j);
            assert_memory_equal(&value[i * k + j], &row[at], sizeof(float));
        }
    }
    test_cuda_free(dev_x);
    test_cuda_free(dev_value);
    test_cuda_free(dev_index);
    free(x);
    free(value);
    free(index);
}

static void the_largest_values_come_in_order(void **state)
{
    struct test_cuda t;
    struct sl_error err;

    test_cuda_open(&t, 0);
    top_case(&t, 5000, 1);
    top_case(&t, 5000, 40);
    top_case(&t, 1500, 1024);
    top_case(&t, 33, 33);
    top_case(&t, 1, 1);
    assert_int_equal(sl_cuda_top_k(&t.c, NULL, NULL, NULL, 5, 5, 1, 6, &err),
                     -1);
    test_cuda_close(&t);
}

/* --- refused launches ---------------------------------------------------- */

#ifdef CUDA_SIM
/* Weights, inputs and outputs are zeros: only what is called counts. */
struct everything {
    struct test_cuda t;
    void *zeros; /* 1 MiB */
};

static int run_newer(const struct everything *e, float *y,
                     const struct sl_cuda_kv *kv, const struct sl_cuda_rows *r,
                     const struct sl_cuda_matmul *mm, struct sl_error *err)
{
    const struct sl_cuda *c = &e->t.c;
    float *z = e->zeros;
    struct sl_cuda_qkv qkv = {
        .at = z, /* stays zeros: also where positions are read */
        .stride = 256,
        .type = SL_CUDA_F16,
        .order = SL_CUDA_BLOCKS,
        .n = r->n,
        .n_heads = 4,
        .n_kv_heads = 1,
        .head_dim = 32,
    };

    if (sl_cuda_rms_norm(c, (uint16_t *)y, 32, NULL, z, z, NULL, 2, 32, 1e-5f,
                         err) != 0 ||
        sl_cuda_rms_norm_add(c, y, z, z, 2, 32, 1e-5f, err) != 0 ||
        sl_cuda_head_norm(c, &qkv, z, z, 1e-6f, err) != 0 ||
        sl_cuda_rotate_store(c, (uint16_t *)y + 8192, 128, kv, &qkv, r,
                             SL_CUDA_PAIRS_NEXT, 16, err) != 0 ||
        sl_cuda_attend_shared(c, (uint16_t *)y, 128, (uint16_t *)z, 128, 4, kv,
                              r, err) != 0)
        return -1;
    return sl_cuda_embed_add(c, y, mm, (const int32_t *)z, 2, err);
}

/* Four heads of 16 values, and 16 more that are rotated. */
static int run_latents(struct everything *e, uint16_t *y,
                       const struct sl_cuda_kv *kv,
                       const struct sl_cuda_rows *r, struct sl_error *err)
{
    const struct sl_cuda *c = &e->t.c;
    const uint16_t *z = e->zeros;
    const struct sl_matrix m = {SL_FMT_INT4, 64, 32, 1, 32};
    struct sl_cuda_matmul mm = {.m = &m, .n_blocks = 4};
    struct sl_cuda_latent latent = {
        .q = z,
        .turn = z,
        .key = z,
        .q_stride = 64,
        .turn_stride = 128,
        .key_stride = 32,
        .turn_head = 32,
        .n_heads = 4,
        .values = 16,
        .turned = 16,
        .pairs = SL_CUDA_PAIRS_NEXT,
    };

    mm.w[0] = z;
    mm.scale[0] = z;
    for (uint32_t n = 2; n < 20; n += 10) {
        if (sl_cuda_multiply_heads(c, y, 64, &mm, 4, 32, z, 128, n, err) != 0)
            return -1;
    }
    if (sl_cuda_latent_norm(c, y, 32, (const float *)z, 2, 16, 1e-5f, err) !=
            0 ||
        sl_cuda_latent_store(c, y, 128, kv, &latent, r, err) != 0)
        return -1;
    return sl_cuda_attend_latent(c, y, 64, z, 128, 4, kv, 16, 0.1f, r, err);
}

static int run_everything(struct everything *e, struct sl_error *err)
{
    static const struct sl_cuda_item items[] = {{0, 1, 600, false},
                                                {1, 16, 30, false}};
    const struct sl_cuda *c = &e->t.c;
    struct sl_matrix m = {SL_FMT_INT4, 16, 32, 1, 32};
    struct sl_cuda_matmul mm = {.m = &m, .n_blocks = 1};
    uint16_t *z = e->zeros;
    float *y = (float *)(z + (1 << 18));
    struct sl_cuda_kv kv = {z, z, 512, 1, 32};
    struct sl_cuda_rows rows = {.n = 17, .items = items, .n_items = 2};

    rows.position = rows.n_keys = rows.table = rows.pages = e->zeros;
    rows.cos = rows.sin = e->zeros;
    mm.w[0] = z;
    mm.scale[0] = z;
    for (uint32_t n = 2; n < 80; n *= 6) {
        if (sl_cuda_matmul_run(c, y, 16, SL_CUDA_F32, &mm, z, 32, n, err) != 0)
            return -1;
    }
    m.cols = 4096;
    if (sl_cuda_matmul_run(c, y, 16, SL_CUDA_F32, &mm, z, 4096, 12, err) != 0)
        return -1;
    m.cols = m.group_cols = 6;
    if (sl_cuda_layer_norm(c, z, 32, NULL, (float *)z, (float *)z, (float *)z,
                           NULL, 2, 32, 1e-5f, err) != 0 ||
        sl_cuda_rope_store(c, (uint16_t *)y, 32, &kv, z, 96, SL_CUDA_F32, &rows,
                           false, err) != 0 ||
        sl_cuda_attend(c, (uint16_t *)y, 32, z, 32, &kv, &rows, err) != 0 ||
        run_newer(e, y, &kv, &rows, &mm, err) != 0 ||
        run_latents(e, (uint16_t *)y, &kv, &rows, err) != 0 ||
        sl_cuda_embed(c, y, &mm, (const int32_t *)z, 2, err) != 0 ||
        sl_cuda_top_k(c, (uint32_t *)y, NULL, (float *)z, 64, 64, 2, 1, err) !=
            0)
        return -1;
    return sl_cuda_top_k(c, (uint32_t *)y, NULL, (float *)z, 64, 64, 2, 3, err);
}

static void a_refused_call_is_an_error_and_nothing_hangs(void **state)
{
    static const char *const calls[] = {"cudaLaunchKernel", "cublasGemmEx"};
    struct everything e;
    struct sl_error err;
    void *zeros = make(1, 1 << 20);

    test_cuda_open(&e.t, SL_CUDA_BLAS_BYTES + (8 << 20));
    e.zeros = test_cuda_up(zeros, 1 << 20);
    free(zeros);
    for (size_t i = 0; i < 2; i++) {
        uint64_t n = 1;

        for (;; n++) {
            cudasim_fail(calls[i], n, cudaErrorLaunchOutOfResources);
            err.msg[0] = '\0';
            if (run_everything(&e, &err) == 0)
                break;
            assert_int_equal(err.code, SL_ERR_IO);
            assert_true(err.msg[0] != '\0');
        }
        cudasim_fail(calls[i], 0, cudaSuccess);
        assert_true(n > (i == 0 ? 26 : 1));
    }
    test_cuda_free(e.zeros);
    test_cuda_close(&e.t);
}

static void without_cublas_products_go_on_and_a_note_says_so(void **state)
{
    struct everything e;
    struct sl_error err;
    void *zeros = make(1, 1 << 20);
    uint64_t destroyed = cudasim_calls("cublasDestroy");

    /* the newer one does not start, the older one takes no stream */
    cudasim_fail("cublasCreate", 1, cudaErrorMemoryAllocation);
    cudasim_fail("cublasSetStream", 1, cudaErrorInvalidValue);
    test_cuda_open(&e.t, 8 << 20);
    assert_null(e.t.c.blas);
    assert_non_null(strstr(e.t.c.note, "libcublas.so.13 does not start"));
    assert_int_equal(cudasim_calls("cublasDestroy") - destroyed, 1);
    e.zeros = test_cuda_up(zeros, 1 << 20);
    free(zeros);
    assert_ok(run_everything(&e, &err), &err);
    test_cuda_free(e.zeros);
    test_cuda_close(&e.t);
}

static void a_cublas_that_does_not_start_leaves_it_to_the_older_one(void **s)
{
    uint64_t before = cudasim_calls("cublasCreate");
    struct test_cuda t;

    cudasim_fail("cublasCreate", 1, cudaErrorInsufficientDriver);
    test_cuda_open(&t, SL_CUDA_BLAS_BYTES + (8 << 20));
    assert_non_null(t.c.blas);
    assert_true(t.c.blas_ready);
    assert_string_equal(t.c.note, "");
    assert_int_equal(cudasim_calls("cublasCreate") - before, 2);
    test_cuda_close(&t);
}
#endif

static void planes_are_joined_and_scaled(void **state)
{
    enum { UNITS = 41, BYTES = UNITS * 128 };
    struct test_random rnd = {9};
    uint8_t *w = make(BYTES, 1), *high = make(BYTES / 2, 1);
    uint8_t *low = make(BYTES / 2, 1), *is = make(BYTES, 1);
    uint16_t scales[50], is16[50];
    void *dev_high, *dev_low, *dev_to, *dev_scales;
    struct test_cuda t;
    struct sl_error err;

    /* every q that has two planes, as a byte */
    for (size_t i = 0; i < BYTES; i++)
        w[i] = (uint8_t)(128 - SL_PLANES_MOST +
                         (i < 2 * SL_PLANES_MOST + 1
                              ? i
                              : test_random_next(&rnd) %
                                    (2 * SL_PLANES_MOST + 1)));
    for (size_t i = 0; i < 50; i++)
        scales[i] = sl_float_to_half(ldexpf(1.25f, (int)i % 30 - 20));
    sl_planes_split(high, low, w, BYTES);
    test_cuda_open(&t, 0);
    dev_high = test_cuda_up(high, BYTES / 2);
    dev_low = test_cuda_up(low, BYTES / 2);
    dev_to = test_cuda_up(is, BYTES);
    dev_scales = test_cuda_up(scales, sizeof scales);
    assert_ok(sl_cuda_join_planes(&t.c, dev_to, dev_high, dev_low, BYTES, &err),
              &err);
    test_cuda_down(&t, is, dev_to, BYTES);
    assert_memory_equal(is, w, BYTES);
    assert_ok(sl_cuda_scale_plane(&t.c, dev_to, dev_scales, 50, &err), &err);
    test_cuda_down(&t, is16, dev_to, sizeof is16);
    for (size_t i = 0; i < 50; i++)
        assert_true(sl_half_to_float(is16[i]) ==
                    16 * sl_half_to_float(scales[i]));
    test_cuda_free(dev_high);
    test_cuda_free(dev_low);
    test_cuda_free(dev_to);
    test_cuda_free(dev_scales);
    test_cuda_close(&t);
    free(w);
    free(high);
    free(low);
    free(is);
}

/* Of what the multiprocessor with the most to do reads, the even share. */
static double balance(uint32_t tiles, uint32_t stages, uint32_t n,
                      uint32_t n_sms)
{
    uint32_t of_split = (stages + n - 1) / n, splits;

    splits = (stages + of_split - 1) / of_split;
    return (double)tiles * stages / n_sms /
           (double)((tiles * splits + n_sms - 1) / n_sms * of_split);
}

static void columns_are_split_so_that_all_have_as_much_to_do(void **state)
{
    static const struct {
        uint32_t tiles, cols, n_sms;
        double least;
    } cases[] = {
        {96, 12288, 82, 0.9}, /* 0.59 unsplit */
        {288, 12288, 82, 0.87}, {384, 12288, 82, 0.93}, {32, 4096, 82, 0.8},
        {86, 4096, 82, 0.8},    {32, 11008, 128, 0.85}, {96, 12288, 28, 0.85},
        {96, 12288, 132, 0.85}, {8, 1024, 82, 0.18},    {1200, 4096, 82, 0.95},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint32_t stages = cases[i].cols / 64, most = stages / 8;
        uint32_t n;

        most = most < 8 ? most : 8;
        n = sl_mma_splits(cases[i].tiles, stages, most, cases[i].n_sms, 4096,
                          4096);
        assert_in_range(n, 1, most);
        if (balance(cases[i].tiles, stages, n, cases[i].n_sms) < cases[i].least)
            fail_msg("%u tiles of %u columns on %u: %u parts, %.2f",
                     cases[i].tiles, cases[i].cols, cases[i].n_sms, n,
                     balance(cases[i].tiles, stages, n, cases[i].n_sms));
    }
    /* no sum goes to memory and back where that is dearer than what it saves */
    assert_int_equal(sl_mma_splits(82, 64, 8, 82, 4096, 32768), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_normed),
        cmocka_unit_test(planes_are_joined_and_scaled),
        cmocka_unit_test(columns_are_split_so_that_all_have_as_much_to_do),
        cmocka_unit_test(norms_are_added),
        cmocka_unit_test(rows_are_looked_up_where_a_part_has_them),
        cmocka_unit_test(the_largest_values_come_in_order),
#ifdef CUDA_SIM
        cmocka_unit_test(a_refused_call_is_an_error_and_nothing_hangs),
        cmocka_unit_test(without_cublas_products_go_on_and_a_note_says_so),
        cmocka_unit_test(
            a_cublas_that_does_not_start_leaves_it_to_the_older_one),
#endif
    };

    test_cuda_need();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
