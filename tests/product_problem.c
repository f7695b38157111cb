#include "config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "quant/blocks.h"
#include "src/base/half.h"
#include "tests/block_maker.h"
#include "tests/isa_kernels.h"
#include "tests/product_problem.h"
#include "tests/support.h"

#define GUARD 1e30f

struct random {
    uint64_t state;
};

/* Knuth, MMIX; the high bits. */
static uint32_t next(struct random *r)
{
    r->state = r->state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(r->state >> 33);
}

static float uniform(struct random *r) /* -1 .. 1 */
{
    return (float)((double)next(r) / (double)(1u << 30) - 1);
}

static struct test_room array_make(size_t n, size_t size, size_t off)
{
    struct test_room a = {.memory = calloc(1, n * size + off)};

    assert_non_null(a.memory);
    a.at = a.memory + off;
    return a;
}

void test_problem_put(struct test_problem *p, uint32_t row, uint32_t col, int q)
{
    const struct sl_matrix *m = &p->m;
    uint32_t segment_rows = m->rows / m->n_segments;
    uint32_t s = row / segment_rows, in = row % segment_rows;
    size_t blocks = (segment_rows + 15) / 16;
    size_t block = s * blocks + in / 16, r = in % 16;
    size_t padded = (m->cols + 7) / 8 * 8;
    uint8_t *w = p->w.at;

    if (m->fmt == SL_FMT_INT8) {
        w += block * 16 * padded + 64 * (col / 4) + 4 * r + col % 4;
        *w = (uint8_t)(q + 128);
    } else {
        w += block * 8 * padded + 64 * (col / 8) + 4 * r + col % 4;
        if (col % 8 < 4)
            *w = (uint8_t)((*w & 0xf0) | (q + 8));
        else
            *w = (uint8_t)((*w & 0x0f) | (q + 8) << 4);
    }
}

uint16_t *test_problem_scale(struct test_problem *p, uint32_t row,
                             uint32_t group)
{
    uint32_t segment_rows = p->m.rows / p->m.n_segments;
    uint32_t groups = (p->m.cols + p->m.group_cols - 1) / p->m.group_cols;
    size_t blocks = (segment_rows + 15) / 16;
    size_t block = row / segment_rows * blocks + row % segment_rows / 16;

    return (uint16_t *)p->scale.at + (block * groups + group) * 16 +
           row % segment_rows % 16;
}

/* Row 2 and group 1 of every row are all zero. */
static void fill_packed(struct test_problem *p, struct random *rnd)
{
    const struct sl_matrix *m = &p->m;
    int half = m->fmt == SL_FMT_INT8 ? 128 : 8;

    memset(p->w.at, m->fmt == SL_FMT_INT8 ? 0x80 : 0x88, sl_matrix_bytes(m));
    for (uint32_t r = 0; r < m->rows; r++) {
        for (uint32_t c = 0; c < m->cols; c++) {
            uint32_t g = c / m->group_cols;
            int q = (int)(next(rnd) % (unsigned)(2 * half)) - half;
            float s = 0.002f * (1.5f + uniform(rnd));

            if (next(rnd) % 50 == 0)
                s *= 30;
            if (r == 2 || g == 1)
                s = 0, q = 0;
            if (c % m->group_cols == 0)
                *test_problem_scale(p, r, g) = sl_float_to_half(s);
            test_problem_put(p, r, c, q);
            p->dense[(size_t)r * m->cols + c] =
                (double)q *
                (double)sl_half_to_float(*test_problem_scale(p, r, g));
        }
    }
}

static void fill_floats(struct test_problem *p, struct random *rnd)
{
    const struct sl_fmt_info *f = sl_fmt_of(p->m.fmt);

    for (size_t i = 0; i < (size_t)p->m.rows * p->m.cols; i++) {
        float v = 0.05f * uniform(rnd) * (next(rnd) % 100 == 0 ? 40 : 1);

        f->store((uint8_t *)p->w.at + i * f->elem_bytes, &v, 1);
        f->load(&v, p->w.at, (uint32_t)i, 1);
        p->dense[i] = (double)v;
    }
}

/* Row 2 is all zero. Blocks, dense and packed, are ggml's (t_blocks.c). */
static void fill_blocks(struct test_problem *p, struct random *rnd)
{
    const struct sl_matrix *m = &p->m;
    const struct sl_fmt_info *f = sl_fmt_of(m->fmt);
    size_t n = m->cols / f->block_cols;
    uint8_t *blocks = malloc(n * f->block_bytes);
    float *row = malloc(m->cols * sizeof *row);

    assert_true(blocks != NULL && row != NULL);
    for (uint32_t r = 0; r < m->rows; r++) {
        uint8_t *w = (uint8_t *)p->w.at + sl_matrix_block_offset(m, 0, r / 16);

        test_blocks_make(blocks, m->fmt, n, 0.05, &rnd->state);
        if (r == 2)
            memset(blocks, 0, n * f->block_bytes);
        sl_blocks_pack(w + r % 16 * 4, 64, m->fmt, blocks, m->cols);
        sl_blocks_decode(row, m->fmt, blocks, m->cols);
        for (uint32_t c = 0; c < m->cols; c++)
            p->dense[(size_t)r * m->cols + c] = (double)row[c];
    }
    free(blocks);
    free(row);
}

/* PROBLEM_N positions, one value in 40 an outlier; the third group is zero. */
static void fill_acts(struct test_problem *p, const struct sl_kernels *k,
                      struct random *rnd)
{
    uint32_t cols = p->m.cols, groups = cols / SL_Q8_GROUP;
    size_t stride = cols + 3;
    size_t values = (PROBLEM_N - 1) * stride + cols;

    p->x = array_make(values, sizeof(float), 4);
    for (size_t i = 0; i < values; i++)
        ((float *)p->x.at)[i] =
            i % stride / 32 == 2
                ? 0
                : uniform(rnd) * (next(rnd) % 40 == 0 ? 25.0f : 1.0f);
    p->acts = (struct sl_acts){
        .n = PROBLEM_N, .cols = cols, .x = p->x.at, .x_stride = stride};
    if (cols % SL_Q8_GROUP != 0)
        return;
    p->q = array_make((size_t)(PROBLEM_N - 1) * (cols + 5) + cols, 1, 1);
    p->q_scale = array_make((size_t)PROBLEM_N * groups, sizeof(float), 4);
    p->q_sum = array_make((size_t)PROBLEM_N * 2 * groups, sizeof(int32_t), 4);
    for (size_t i = 0; i < PROBLEM_N; i++)
        k->quantize_q8((int8_t *)p->q.at + i * (cols + 5),
                       (float *)p->q_scale.at + i, (int32_t *)p->q_sum.at + i,
                       PROBLEM_N, p->acts.x + i * stride, cols);
    p->acts.q = p->q.at;
    p->acts.q_scale = p->q_scale.at;
    p->acts.q_sum = p->q_sum.at;
    p->acts.q_stride = cols + 5;
    p->acts.group_stride = PROBLEM_N;
    p->acts.bf16_stride = (size_t)(cols + 4) * k->bf16_bytes;
    p->bf16 = array_make((PROBLEM_N - 1) * p->acts.bf16_stride +
                             (size_t)cols * k->bf16_bytes,
                         1, k->bf16_bytes);
    for (size_t i = 0; i < PROBLEM_N; i++)
        k->round_bf16((uint8_t *)p->bf16.at + i * p->acts.bf16_stride,
                      p->acts.x + i * stride, cols);
    p->acts.bf16 = p->bf16.at;
}

void test_problem_init(struct test_problem *p, const struct sl_matrix *m,
                       const struct sl_kernels *k)
{
    struct random rnd = {m->rows * 1000 + m->cols + m->group_cols};
    struct sl_error err;
    size_t natural = sl_fmt_of(m->fmt)->elem_bytes;

    memset(p, 0, sizeof *p);
    p->m = *m;
    assert_ok(sl_matrix_check(m, &err), &err);
    p->w = array_make(sl_matrix_bytes(m), 1, natural);
    p->scale = array_make(sl_matrix_scale_bytes(m), 1, 2);
    p->dense = calloc((size_t)m->rows * m->cols, sizeof *p->dense);
    assert_non_null(p->dense);
    if (sl_fmt_is_float(m->fmt))
        fill_floats(p, &rnd);
    else if (sl_fmt_has_blocks(m->fmt))
        fill_blocks(p, &rnd);
    else
        fill_packed(p, &rnd);
    fill_acts(p, k, &rnd);
}

void test_problem_fini(struct test_problem *p)
{
    free(p->w.memory);
    free(p->scale.memory);
    free(p->x.memory);
    free(p->q.memory);
    free(p->q_scale.memory);
    free(p->q_sum.memory);
    free(p->bf16.memory);
    free(p->dense);
}

static double input(const struct test_problem *p, enum sl_act act, size_t pos,
                    uint32_t c)
{
    const struct sl_acts *a = &p->acts;

    if (act == SL_ACT_F32)
        return (double)a->x[pos * a->x_stride + c];
    if (act == SL_ACT_BF16)
        return (double)sl_round_bf16(a->x[pos * a->x_stride + c]);
    return (double)a->q[pos * a->q_stride + c] *
           (double)a->q_scale[c / SL_Q8_GROUP * a->group_stride + pos];
}

static double weight(const struct test_problem *p, enum sl_act act, uint32_t r,
                     uint32_t c)
{
    double w = p->dense[(size_t)r * p->m.cols + c];

    if (act == SL_ACT_BF16 && sl_fmt_is_float(p->m.fmt))
        return (double)sl_round_bf16((float)w);
    return w;
}

static void check_sums(const struct test_problem *p, enum sl_act act,
                       const float *y, size_t stride)
{
    double error = 0, energy = 0;

    for (size_t pos = 0; pos < PROBLEM_N; pos++) {
        for (uint32_t r = 0; r < p->m.rows; r++) {
            double sum = 0, size = 0, got = (double)y[pos * stride + r];

            for (uint32_t c = 0; c < p->m.cols; c++) {
                double v = weight(p, act, r, c) * input(p, act, pos, c);

                sum += v;
                size += fabs(v);
            }
            if (!(fabs(got - sum) <= 1e-6 * size))
                fail_msg("%s %u x %u group %u, act %d: row %u of position "
                         "%zu is %g, not %g",
                         sl_fmt_name(p->m.fmt), p->m.rows, p->m.cols,
                         p->m.group_cols, act, r, pos, got, sum);
            error += (got - sum) * (got - sum);
            energy += sum * sum;
        }
    }
    assert_true(error <= 1e-12 * energy);
}

void test_problem_run(const struct sl_kernels *k, const struct test_problem *p,
                      enum sl_act act, float *y, size_t stride, uint32_t row,
                      uint32_t n_rows, size_t first, size_t n)
{
    const struct sl_matrix *m = &p->m;
    struct sl_acts a = p->acts;

    a.n = n;
    a.x += first * a.x_stride;
    if (act == SL_ACT_INT8) {
        a.q += first * a.q_stride;
        a.q_scale += first;
        a.q_sum += first;
        a.x = NULL;
    }
    if (act == SL_ACT_BF16) {
        a.bf16 = (const uint8_t *)a.bf16 + first * a.bf16_stride;
        a.x = NULL;
    }
    k->matmul[m->fmt][act](y, stride, m,
                           (uint8_t *)p->w.at +
                               sl_matrix_block_offset(m, 0, row / 16),
                           sl_fmt_has_scales(m->fmt)
                               ? (uint16_t *)p->scale.at +
                                     sl_matrix_scale_offset(m, 0, row / 16) / 2
                               : NULL,
                           n_rows, &a);
}

/* However weights are read, one position has the same bits: py, rows at a
 * stride, of all positions at once. */
static void check_readings(const struct sl_kernels *k,
                           const struct test_problem *p, enum sl_act act,
                           const float *py, size_t stride)
{
    static const struct sl_reading readings[] = {
        {1, 64}, {2, 4096}, {3, 640}, {4, 2304}, {SL_PLACES_MOST, 1 << 20}};
    struct test_room z = array_make(p->m.rows, 4, 4);
    struct test_problem one = *p;

    for (size_t i = 0; i < sizeof readings / sizeof *readings; i++) {
        one.acts.reading = &readings[i];
        for (size_t pos = 0; pos < PROBLEM_N; pos += PROBLEM_N - 1) {
            test_problem_run(k, &one, act, z.at, p->m.rows, 0, p->m.rows, pos,
                             1);
            if (memcmp(z.at, py + pos * stride, p->m.rows * sizeof *py) != 0)
                fail_msg("%s %s %u x %u: %u places, %u ahead: other bits",
                         k->isa, sl_fmt_name(p->m.fmt), p->m.rows, p->m.cols,
                         readings[i].places, readings[i].ahead);
        }
    }
    free(z.memory);
}

void test_problem_check(const struct sl_kernels *k,
                        const struct test_problem *p, enum sl_act act)
{
    static const size_t cuts[] = {1, 2, 3, 5, 8, PROBLEM_N};
    uint32_t rows = p->m.rows;
    size_t stride = rows + 3, n_y = (PROBLEM_N - 1) * stride + rows;
    struct test_room y = array_make(n_y, 4, 4), z = array_make(n_y, 4, 4);
    float *py = y.at, *pz = z.at;

    for (size_t i = 0; i < n_y; i++)
        py[i] = GUARD;
    test_problem_run(k, p, act, py, stride, 0, rows, 0, PROBLEM_N);
    check_sums(p, act, py, stride);
    for (size_t i = 0; i < n_y; i++)
        if (i % stride >= rows && py[i] != GUARD)
            fail_msg("%s: wrote beside %u rows", k->isa, rows);
    for (size_t c = 0; c < sizeof cuts / sizeof *cuts; c++) {
        for (size_t i = 0; i < n_y; i++)
            pz[i] = GUARD;
        for (size_t f = 0; f < PROBLEM_N; f += cuts[c]) {
            size_t n = PROBLEM_N - f < cuts[c] ? PROBLEM_N - f : cuts[c];

            for (uint32_t r = 0; r < rows; r += 16)
                test_problem_run(k, p, act, pz + f * stride + r, stride, r,
                                 rows - r < 16 ? rows - r : 16, f, n);
        }
        if (memcmp(py, pz, n_y * sizeof *py) != 0)
            fail_msg("%s %s %u x %u: %zu at a time gives other bits", k->isa,
                     sl_fmt_name(p->m.fmt), rows, p->m.cols, cuts[c]);
    }
    check_readings(k, p, act, py, stride);
    free(y.memory);
    free(z.memory);
}

void test_check_matrix(const struct sl_matrix *m)
{
    for (int isa = 0; isa < TEST_ISAS; isa++) {
        struct sl_kernels k;
        struct test_problem p;

        if (!test_isa_init(&k, isa))
            continue;
        test_problem_init(&p, m, &k);
        for (int act = 0; act < SL_ACT_COUNT; act++)
            if (sl_matmul_takes(&k, m, (enum sl_act)act))
                test_problem_check(&k, &p, (enum sl_act)act);
        test_problem_fini(&p);
    }
}
