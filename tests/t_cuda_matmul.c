/*
 * Matrix products on a CUDA device against kernels/ref: every format, width
 * of groups, number of positions and epilogue, over odd sizes. Inputs are
 * followed by NaNs, outputs surrounded by marks.
 *
 * Bounds. Products of integers (or FP16) and FP16 are exact in FP32, and a sum
 * of `cols` of them is off by at most cols * 2^-24 times the sum of their
 * magnitudes. Weights that go through FP16 (more than 64 positions) add 2^-11
 * of that, and a result stored as FP16 2^-11 of itself.
 */
#include "config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "quant/blocks.h"
#include "src/base/half.h"
#include "tests/block_maker.h"
#include "tests/cuda_support.h"

#define MOST_N 70u
#define MARK   -12345.0f
#define MARK16 0x5a5au

struct problem {
    struct sl_matrix m;
    uint8_t *w;
    uint16_t *scale, *x16;
    float *x, *bias, *residual;
    size_t x_stride, stride; /* of x; of y and the residual */
    float *y;                /* (MOST_N, stride) the products alone */
    double *size;            /* the same: sums of magnitudes */
    void *dev_w, *dev_scale, *dev_x, *dev_bias, *dev_residual;
};

/* Any byte is a weight; padding must be zeros (quant/matrix.h). */
static void fill_packed(struct problem *p, struct test_random *rnd)
{
    const struct sl_matrix *m = &p->m;
    uint32_t rows = sl_matrix_segment_rows(m), groups = sl_matrix_groups(m);
    uint32_t blocks = sl_matrix_segment_blocks(m);
    unsigned per = sl_fmt_of(m->fmt)->unit_cols;
    uint32_t units = (m->cols + 7) / 8 * 8 / per;

    for (size_t i = 0; i < sl_matrix_bytes(m); i++) {
        uint32_t u = (uint32_t)(i / 64 % units), r = i % 64 / 4, k = i % 4;
        uint32_t row = (uint32_t)(i / 64 / units) % blocks * 16 + r;
        uint32_t c = u * per + k;
        uint8_t b = (uint8_t)test_random_next(rnd);

        if (per == 8 && (row >= rows || c >= m->cols))
            b = (uint8_t)((b & 0xf0) | 8);
        if (per == 8 && (row >= rows || c + 4 >= m->cols))
            b = (uint8_t)((b & 0x0f) | 0x80);
        if (per == 4 && (row >= rows || c >= m->cols))
            b = 128;
        p->w[i] = b;
    }
    for (size_t i = 0; i < sl_matrix_scale_bytes(m) / 2; i++) {
        uint32_t row = (uint32_t)(i / 16 / groups) % blocks * 16 + i % 16;
        float s = 0.002f * (1.5f + test_random_float(rnd));

        p->scale[i] = sl_float_to_half(row < rows ? s : 0);
    }
}

static void fill_blocks(struct problem *p, struct test_random *rnd)
{
    const struct sl_matrix *m = &p->m;
    const struct sl_fmt_info *f = sl_fmt_of(m->fmt);
    uint32_t rows = sl_matrix_segment_rows(m), n = m->cols / f->block_cols;
    uint64_t state = test_random_next(rnd);
    uint8_t *blocks = malloc((size_t)n * f->block_bytes);

    assert_non_null(blocks);
    for (uint32_t r = 0; r < m->rows; r++) {
        test_blocks_make(blocks, m->fmt, n, 0.03, &state);
        sl_blocks_pack(p->w +
                           sl_matrix_block_offset(m, r / rows, r % rows / 16) +
                           r % rows % 16 * 4,
                       64, m->fmt, blocks, m->cols);
    }
    free(blocks);
}

static void fill_floats(struct problem *p, struct test_random *rnd)
{
    const struct sl_fmt_info *f = sl_fmt_of(p->m.fmt);

    for (size_t i = 0; i < (size_t)p->m.rows * p->m.cols; i++) {
        float v = 0.05f * test_random_float(rnd);

        f->store(p->w + i * f->elem_bytes, &v, 1);
    }
}

static void *make(size_t n, size_t size)
{
    void *p = calloc(n ? n : 1, size);

    assert_non_null(p);
    return p;
}

/* y by kernels/ref, the sums of magnitudes from decoded rows. */
static void solve(struct problem *p, const struct sl_kernels *ref)
{
    const struct sl_matrix *m = &p->m;
    struct sl_acts acts = {
        .n = MOST_N, .cols = m->cols, .x = p->x, .x_stride = p->x_stride};
    uint32_t rows = sl_matrix_segment_rows(m);
    float *row = make(m->cols, sizeof *row);

    for (uint32_t s = 0; s < m->n_segments; s++) {
        const uint8_t *w = p->w + sl_matrix_block_offset(m, s, 0);
        const uint16_t *scale = p->scale + sl_matrix_scale_offset(m, s, 0) / 2;

        ref->matmul[m->fmt][SL_ACT_F32](p->y + s * rows, p->stride, m, w, scale,
                                        rows, &acts);
        for (uint32_t r = 0; r < rows; r++) {
            sl_matrix_decode_row(
                row, m, w + sl_matrix_block_bytes(m, 0, r / 16),
                scale + sl_matrix_scale_block_bytes(m, r / 16) / 2, r % 16);
            for (size_t i = 0; i < MOST_N; i++) {
                double sum = 0;

                for (uint32_t c = 0; c < m->cols; c++)
                    sum += fabs((double)row[c] *
                                (double)p->x[i * p->x_stride + c]);
                p->size[i * p->stride + s * rows + r] = sum;
            }
        }
    }
    free(row);
}

static void problem_init(struct problem *p, const struct sl_matrix *m,
                         const struct sl_kernels *ref)
{
    struct test_random rnd = {m->rows * 977 + m->cols + m->group_cols};
    struct sl_error err;

    memset(p, 0, sizeof *p);
    p->m = *m;
    assert_ok(sl_matrix_check(m, &err), &err);
    p->x_stride = (m->cols + 7) / 8 * 8 + 8;
    p->stride = m->rows + 5;
    p->w = make(sl_matrix_bytes(m), 1);
    p->scale = make(sl_matrix_scale_bytes(m), 1);
    p->x16 = make(MOST_N * p->x_stride, 2);
    p->x = make(MOST_N * p->x_stride, sizeof *p->x);
    p->bias = make(m->rows, sizeof *p->bias);
    p->residual = make(MOST_N * p->stride, sizeof *p->residual);
    p->y = make(MOST_N * p->stride, sizeof *p->y);
    p->size = make(MOST_N * p->stride, sizeof *p->size);
    if (sl_fmt_is_float(m->fmt))
        fill_floats(p, &rnd);
    else if (sl_fmt_has_blocks(m->fmt))
        fill_blocks(p, &rnd);
    else
        fill_packed(p, &rnd);
    for (size_t i = 0; i < MOST_N; i++) {
        size_t at = i * p->x_stride;

        test_random_halves(&rnd, p->x16 + at, p->x + at, m->cols);
        for (size_t c = m->cols; c < p->x_stride; c++)
            p->x16[at + c] = 0x7e00; /* NaN */
    }
    for (uint32_t r = 0; r < m->rows; r++)
        p->bias[r] = test_random_float(&rnd);
    for (size_t i = 0; i < MOST_N * p->stride; i++)
        p->residual[i] = test_random_float(&rnd);
    solve(p, ref);
    p->dev_w = test_cuda_up(p->w, sl_matrix_bytes(m));
    p->dev_scale = test_cuda_up(p->scale, sl_matrix_scale_bytes(m));
    p->dev_x = test_cuda_up(p->x16, MOST_N * p->x_stride * 2);
    p->dev_bias = test_cuda_up(p->bias, m->rows * sizeof *p->bias);
    p->dev_residual =
        test_cuda_up(p->residual, MOST_N * p->stride * sizeof *p->residual);
}

static void problem_fini(struct problem *p)
{
    void *host[] = {p->w,    p->scale,    p->x16, p->x,
                    p->bias, p->residual, p->y,   p->size};
    void *dev[] = {p->dev_w, p->dev_scale, p->dev_x, p->dev_bias,
                   p->dev_residual};

    for (size_t i = 0; i < sizeof host / sizeof *host; i++)
        free(host[i]);
    for (size_t i = 0; i < sizeof dev / sizeof *dev; i++)
        test_cuda_free(dev[i]);
}

struct way {
    uint32_t n, first, n_blocks;
    enum sl_cuda_epilogue epilogue;
    enum sl_cuda_type type;
};

/* The largest error that column `col` of position i may have before it is
 * stored, and its value. */
static double expect(const struct problem *p, const struct way *way, size_t i,
                     uint32_t col, double *bound)
{
    double unit = ldexp(p->m.cols + 16.0, -24) +
                  (way->n > SL_CUDA_SOME ? ldexp(1, -11) : 0);
    size_t at = i * p->stride + col, second = at + p->m.rows / 2;
    double a = (double)p->y[at] + (double)p->bias[col];
    double ea = unit * p->size[at] + ldexp(fabs(a), -22), b, eb, phi;

    *bound = ea;
    switch (way->epilogue) {
    case SL_CUDA_EPI_GEGLU:
        b = (double)p->y[second] + (double)p->bias[col + p->m.rows / 2];
        eb = unit * p->size[second] + ldexp(fabs(b), -20);
        phi = b * 0.5 * erfc(-b / sqrt(2));
        /* no slope of GELU is above 1.13 */
        *bound = fabs(phi) * ea + 1.13 * eb * (fabs(a) + ea);
        return a * phi;
    case SL_CUDA_EPI_SWIGLU:
        b = (double)p->y[second] + (double)p->bias[col + p->m.rows / 2];
        eb = unit * p->size[second] + ldexp(fabs(b), -22);
        phi = a / (1 + exp(-a));
        /* no slope of SiLU is above 1.1 */
        *bound = fabs(phi) * eb +
                 (1.1 * ea + ldexp(fabs(phi), -20)) * (fabs(b) + eb);
        return phi * b;
    case SL_CUDA_EPI_GELU_TANH:
        *bound = 1.13 * ea + ldexp(fabs(a), -20);
        b = sqrt(M_2_PI) * (a + 0.044715 * a * a * a);
        return a / (1 + exp(-2 * b));
    case SL_CUDA_EPI_RESIDUAL:
        *bound += ldexp(1, -20);
        return a + 1.5 * (double)p->residual[at];
    default:
        return a;
    }
}

static void check(const struct problem *p, const struct way *way, const void *y,
                  uint32_t rows_of_y)
{
    uint32_t rows = sl_matrix_segment_rows(&p->m);

    for (size_t i = 0; i < way->n; i++) {
        for (uint32_t c = 0; c < p->stride; c++) {
            uint32_t block = c % rows / 16;
            size_t at = i * p->stride + c;
            double bound, v, is;

            if (c >= rows_of_y || block < way->first ||
                block >= way->first + way->n_blocks) {
                if (way->type == SL_CUDA_F16)
                    assert_int_equal(((const uint16_t *)y)[at], MARK16);
                else
                    assert_true(((const float *)y)[at] == MARK);
                continue;
            }
            v = expect(p, way, i, c, &bound);
            is = way->type == SL_CUDA_F16
                     ? (double)sl_half_to_float(((const uint16_t *)y)[at])
                     : (double)((const float *)y)[at];
            if (way->type == SL_CUDA_F16)
                bound += ldexp(fabs(v) + bound, -11) + ldexp(1, -25);
            if (!(fabs(is - v) <= bound))
                fail_msg("%s %u x %u, groups of %u, %u positions, epilogue %d, "
                         "type %d: y[%zu][%u] = %g, should be %g +- %g",
                         sl_fmt_name(p->m.fmt), p->m.rows, p->m.cols,
                         p->m.group_cols, way->n, (int)way->epilogue,
                         (int)way->type, i, c, is, v, bound);
        }
    }
}

/* y as the device left it; the caller frees it. */
static void *product(struct test_cuda *t, const struct problem *p,
                     const struct way *way)
{
    const struct sl_matrix *m = &p->m;
    size_t item = way->type == SL_CUDA_F16 ? 2 : 4, n = way->n * p->stride;
    struct sl_cuda_matmul mm = {
        .m = m,
        .first_block = way->first,
        .n_blocks = way->n_blocks,
        .bias = p->dev_bias,
        .epilogue = way->epilogue,
        .alpha = 1.5f,
        .residual = p->dev_residual,
        .residual_stride = p->stride,
    };
    void *y = make(n, 4), *dev;
    struct sl_error err;

    for (uint32_t s = 0; s < m->n_segments; s++) {
        mm.w[s] =
            (uint8_t *)p->dev_w + sl_matrix_block_offset(m, s, way->first);
        if (sl_fmt_has_scales(m->fmt))
            mm.scale[s] = (uint16_t *)p->dev_scale +
                          sl_matrix_scale_offset(m, s, way->first) / 2;
    }
    for (size_t i = 0; i < n; i++) {
        if (item == 2)
            ((uint16_t *)y)[i] = MARK16;
        else
            ((float *)y)[i] = MARK;
    }
    dev = test_cuda_up(y, n * item);
    assert_ok(sl_cuda_matmul_run(&t->c, dev, p->stride, way->type, &mm,
                                 p->dev_x, p->x_stride, way->n, &err),
              &err);
    test_cuda_down(t, y, dev, n * item);
    test_cuda_free(dev);
    return y;
}

static void run(struct test_cuda *t, const struct problem *p,
                const struct way *way)
{
    bool glu = way->epilogue == SL_CUDA_EPI_GEGLU ||
               way->epilogue == SL_CUDA_EPI_SWIGLU;
    void *y = product(t, p, way);

    check(p, way, y, glu ? p->m.rows / 2 : p->m.rows);
    free(y);
}

static const uint32_t counts[] = {1, 2, 3, 4, 5, 9, 20, 40, 70};

/* All numbers of positions and epilogues, all blocks and the last alone. */
static void run_all(struct test_cuda *t, const struct sl_matrix *m)
{
    uint32_t blocks = sl_matrix_segment_blocks(m);
    struct problem p;

    problem_init(&p, m, &t->ref);
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        enum sl_cuda_epilogue by_turns[] = {
            SL_CUDA_EPI_NONE, SL_CUDA_EPI_GELU_TANH, SL_CUDA_EPI_RESIDUAL};
        struct way way = {
            .n = counts[i],
            .n_blocks = blocks,
            .epilogue =
                m->n_segments == 2 ? SL_CUDA_EPI_GEGLU : by_turns[i % 3],
            .type = i % 2 ? SL_CUDA_F16 : SL_CUDA_F32,
        };

        run(t, &p, &way);
        if (m->n_segments == 2) {
            way.epilogue = SL_CUDA_EPI_SWIGLU;
            run(t, &p, &way);
        }
        if (i % 3 != 1)
            continue;
        way.first = blocks - 1;
        way.n_blocks = 1;
        way.epilogue = SL_CUDA_EPI_NONE;
        run(t, &p, &way);
    }
    problem_fini(&p);
}

#define WITH_BLAS (SL_CUDA_BLAS_BYTES + (8ull << 20))

static void products_of_packed_matrices_are_those_of_the_reference(void **state)
{
    static const struct {
        uint32_t rows, cols, n_segments, group_cols;
    } sizes[] = {
        {40, 264, 1, 64},   {32, 200, 1, 200}, {19, 100, 1, 32},
        {76, 136, 2, 128},  {16, 72, 1, 24},   {21, 45, 1, 7},
        {300, 24, 1, 24},   {96, 96, 2, 32},   {20, 1100, 1, 64},
        {17, 1400, 1, 640},
    };
    struct test_cuda t;

    test_cuda_open(&t, WITH_BLAS);
    for (size_t i = 0; i < SL_FMT_COUNT * sizeof sizes / sizeof *sizes; i++) {
        struct sl_matrix m = {
            .fmt = (enum sl_fmt)(i % SL_FMT_COUNT),
            .rows = sizes[i / SL_FMT_COUNT].rows,
            .cols = sizes[i / SL_FMT_COUNT].cols,
            .n_segments = sizes[i / SL_FMT_COUNT].n_segments,
            .group_cols = sizes[i / SL_FMT_COUNT].group_cols,
        };

        if (sl_fmt_has_scales(m.fmt))
            run_all(&t, &m);
    }
    test_cuda_close(&t);
}

static void products_of_float_matrices_are_those_of_the_reference(void **state)
{
    static const struct {
        uint32_t rows, cols, n_segments;
    } sizes[] = {{40, 264, 1}, {38, 104, 2}, {35, 45, 1}, {18, 12, 2}};
    struct test_cuda t;

    test_cuda_open(&t, WITH_BLAS);
    for (size_t i = 0; i < SL_FMT_COUNT * sizeof sizes / sizeof *sizes; i++) {
        struct sl_matrix m = {
            .fmt = (enum sl_fmt)(i % SL_FMT_COUNT),
            .rows = sizes[i / SL_FMT_COUNT].rows,
            .cols = sizes[i / SL_FMT_COUNT].cols,
            .n_segments = sizes[i / SL_FMT_COUNT].n_segments,
        };

        if (sl_fmt_is_float(m.fmt))
            run_all(&t, &m);
    }
    test_cuda_close(&t);
}

static void products_of_blocks_are_those_of_the_reference(void **state)
{
    static const struct {
        uint32_t rows, blocks, n_segments;
    } sizes[] = {{40, 2, 1}, {38, 3, 2}};
    struct test_cuda t;

    test_cuda_open(&t, WITH_BLAS);
    for (size_t i = 0; i < SL_FMT_COUNT * sizeof sizes / sizeof *sizes; i++) {
        size_t k = i / SL_FMT_COUNT;
        struct sl_matrix m = {(enum sl_fmt)(i % SL_FMT_COUNT), sizes[k].rows, 0,
                              sizes[k].n_segments, 0};

        m.cols = sizes[k].blocks * sl_fmt_of(m.fmt)->block_cols;
        if (sl_fmt_has_blocks(m.fmt))
            run_all(&t, &m);
    }
    test_cuda_close(&t);
}

static void long_rows_may_be_split_between_thread_blocks(void **state)
{
    static const uint32_t few[] = {6, 30, 64};
    struct sl_matrix m = {SL_FMT_INT4, 48, 2080, 2, 64};
    struct test_cuda t;
    struct problem p;

    test_cuda_open(&t, 1 << 20);
    for (int fmt = SL_FMT_F16; fmt <= SL_FMT_Q4_0; fmt++) {
        m.fmt = (enum sl_fmt)fmt;
        /* parts end with a group, or within one */
        m.group_cols = fmt == SL_FMT_INT4 ? 64 : fmt == SL_FMT_INT8 ? 160 : 0;
        problem_init(&p, &m, &t.ref);
        for (size_t i = 0; i < 3; i++) {
            struct way way = {few[i], 0, 2, SL_CUDA_EPI_GEGLU, SL_CUDA_F32};

            run(&t, &p, &way);
            way.epilogue = SL_CUDA_EPI_SWIGLU;
            run(&t, &p, &way);
            way.epilogue = SL_CUDA_EPI_RESIDUAL;
            run(&t, &p, &way);
        }
        problem_fini(&p);
    }
    test_cuda_close(&t);
}

/* The columns of y that `part` wrote are those of `all`. */
static void assert_part(const struct problem *p, const struct way *way,
                        const float *all, const float *part)
{
    uint32_t from = way->first * 16, to = from + way->n_blocks * 16;

    for (size_t i = 0; i < way->n; i++) {
        const float *a = all + i * p->stride, *b = part + i * p->stride;

        for (uint32_t c = from; c < to && c < sl_matrix_segment_rows(&p->m);
             c++) {
            if (memcmp(&a[c], &b[c], sizeof *a) != 0)
                fail_msg("%s, %u positions, blocks %u to %u: y[%zu][%u] = %g, "
                         "in one piece %g",
                         sl_fmt_name(p->m.fmt), way->n, way->first,
                         way->first + way->n_blocks, i, c, (double)b[c],
                         (double)a[c]);
        }
    }
}

static void pieces_of_a_matrix_give_the_same_bits(void **state)
{
    static const uint32_t some[] = {1, 4, 5, 30, SL_CUDA_SOME};
    static const uint32_t sizes[] = {1, 7, 16, 40};
    struct sl_matrix m = {SL_FMT_INT4, 1280, 1056, 2, 32};
    struct test_cuda t;
    struct problem p;

    test_cuda_open(&t, 0);
    for (int fmt = SL_FMT_F16; fmt <= SL_FMT_INT4; fmt++) {
        m.fmt = (enum sl_fmt)fmt;
        m.group_cols = sl_fmt_has_scales(m.fmt) ? 32 : 0;
        test_cuda_set_workspace(
            &t, sl_cuda_matmul_workspace_least(&m, SL_CUDA_SOME));
        problem_init(&p, &m, &t.ref);
        for (size_t i = 0; i < sizeof some / sizeof *some; i++) {
            uint32_t blocks = sl_matrix_segment_blocks(&m), size = sizes[i % 4];
            struct way way = {some[i], 0, blocks, SL_CUDA_EPI_GEGLU,
                              SL_CUDA_F32};
            float *all = product(&t, &p, &way);

            for (; way.first < blocks; way.first += size) {
                float *part;

                way.n_blocks =
                    blocks - way.first < size ? blocks - way.first : size;
                part = product(&t, &p, &way);
                assert_part(&p, &way, all, part);
                free(part);
            }
            free(all);
        }
        problem_fini(&p);
    }
    test_cuda_close(&t);
}

static void a_small_workspace_slows_and_changes_nothing_else(void **state)
{
    struct sl_matrix m = {SL_FMT_INT4, 150, 96, 1, 32};
    struct way way = {MOST_N, 0, 10, SL_CUDA_EPI_NONE, SL_CUDA_F32};
    struct test_cuda t;
    struct problem p;

    test_cuda_open(&t, 0);
    problem_init(&p, &m, &t.ref);
    run(&t, &p, &way);
    assert_true(sl_cuda_matmul_workspace(&m, MOST_N) > SL_CUDA_BLAS_BYTES);
    /* 128 rows at a time, of 150 */
    test_cuda_set_workspace(&t, SL_CUDA_BLAS_BYTES + (4ull << 20));
    t.c.workspace_bytes = 128 * (2 * 96 + 4 * MOST_N) + 512;
    run(&t, &p, &way);
    problem_fini(&p);
    test_cuda_close(&t);
}

/* x += W y + bias on x itself, as models do whose residual is not normed: the
 * sum of what the product alone gives and x, rounded once. */
static void results_may_be_added_where_they_stand(void **state)
{
    struct sl_matrix m = {SL_FMT_INT4, 40, 264, 1, 64};
    struct test_cuda t;
    struct problem p;

    test_cuda_open(&t, WITH_BLAS);
    problem_init(&p, &m, &t.ref);
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        struct way way = {counts[i], 0, 3, SL_CUDA_EPI_NONE, SL_CUDA_F32};
        float *alone = product(&t, &p, &way), *x;
        size_t bytes = counts[i] * p.stride * sizeof *x;
        struct sl_cuda_matmul mm = {
            .m = &m,
            .n_blocks = 3,
            .w = {p.dev_w},
            .scale = {p.dev_scale},
            .bias = p.dev_bias,
            .epilogue = SL_CUDA_EPI_RESIDUAL,
            .alpha = 1,
            .residual = test_cuda_up(p.residual, bytes),
            .residual_stride = p.stride,
        };
        void *dev_x = (void *)(uintptr_t)mm.residual;
        struct sl_error err;

        x = make(counts[i] * p.stride, sizeof *x);
        assert_ok(sl_cuda_matmul_run(&t.c, dev_x, p.stride, SL_CUDA_F32, &mm,
                                     p.dev_x, p.x_stride, counts[i], &err),
                  &err);
        test_cuda_down(&t, x, dev_x, bytes);
        for (size_t at = 0; at < counts[i] * p.stride; at++)
            assert_true(x[at] == (at % p.stride < m.rows
                                      ? alone[at] + p.residual[at]
                                      : p.residual[at]));
        test_cuda_free(dev_x);
        free(alone);
        free(x);
    }
    problem_fini(&p);
    test_cuda_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(
            products_of_packed_matrices_are_those_of_the_reference),
        cmocka_unit_test(products_of_float_matrices_are_those_of_the_reference),
        cmocka_unit_test(products_of_blocks_are_those_of_the_reference),
        cmocka_unit_test(long_rows_may_be_split_between_thread_blocks),
        cmocka_unit_test(pieces_of_a_matrix_give_the_same_bits),
        cmocka_unit_test(a_small_workspace_slows_and_changes_nothing_else),
        cmocka_unit_test(results_may_be_added_where_they_stand),
    };

    test_cuda_need();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
