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
#include "quant/blocks.h"
#include "src/base/half.h"
#include "tests/block_maker.h"
#include "tests/support.h"

#define MAX_N 17
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

/* n elements of `size` bytes that end where the allocation ends and begin
 * `off` bytes after an aligned address. */
struct array {
    uint8_t *memory;
    void *at;
};

static struct array array_make(size_t n, size_t size, size_t off)
{
    struct array a = {.memory = calloc(1, n * size + off)};

    assert_non_null(a.memory);
    a.at = a.memory + off;
    return a;
}

struct problem {
    struct sl_matrix m;
    struct array w, scale, x, q, q_scale, q_sum, bf16;
    double *dense;       /* (rows, cols): the weights' values */
    struct sl_acts acts; /* MAX_N positions */
};

/* Sets weight (row, col) of segment-less rows; blocks count per segment. */
static void put_weight(struct problem *p, uint32_t row, uint32_t col, int q)
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

static uint16_t *scale_at(struct problem *p, uint32_t row, uint32_t group)
{
    uint32_t segment_rows = p->m.rows / p->m.n_segments;
    uint32_t groups = (p->m.cols + p->m.group_cols - 1) / p->m.group_cols;
    size_t blocks = (segment_rows + 15) / 16;
    size_t block = row / segment_rows * blocks + row % segment_rows / 16;

    return (uint16_t *)p->scale.at + (block * groups + group) * 16 +
           row % segment_rows % 16;
}

/* Row 2 and group 1 of every row are all zero. */
static void fill_packed(struct problem *p, struct random *rnd)
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
                *scale_at(p, r, g) = sl_float_to_half(s);
            put_weight(p, r, c, q);
            p->dense[(size_t)r * m->cols + c] =
                (double)q * (double)sl_half_to_float(*scale_at(p, r, g));
        }
    }
}

static void fill_floats(struct problem *p, struct random *rnd)
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
static void fill_blocks(struct problem *p, struct random *rnd)
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

/* MAX_N positions, one value in 40 an outlier; the third group is zero. */
static void fill_acts(struct problem *p, const struct sl_kernels *k,
                      struct random *rnd)
{
    uint32_t cols = p->m.cols, groups = cols / SL_Q8_GROUP;
    size_t stride = cols + 3;
    size_t values = (MAX_N - 1) * stride + cols;

    p->x = array_make(values, sizeof(float), 4);
    for (size_t i = 0; i < values; i++)
        ((float *)p->x.at)[i] =
            i % stride / 32 == 2
                ? 0
                : uniform(rnd) * (next(rnd) % 40 == 0 ? 25.0f : 1.0f);
    p->acts = (struct sl_acts){
        .n = MAX_N, .cols = cols, .x = p->x.at, .x_stride = stride};
    if (cols % SL_Q8_GROUP != 0)
        return;
    p->q = array_make((size_t)(MAX_N - 1) * (cols + 5) + cols, 1, 1);
    p->q_scale = array_make((size_t)MAX_N * groups, sizeof(float), 4);
    p->q_sum = array_make((size_t)MAX_N * 2 * groups, sizeof(int32_t), 4);
    for (size_t i = 0; i < MAX_N; i++)
        k->quantize_q8((int8_t *)p->q.at + i * (cols + 5),
                       (float *)p->q_scale.at + i, (int32_t *)p->q_sum.at + i,
                       MAX_N, p->acts.x + i * stride, cols);
    p->acts.q = p->q.at;
    p->acts.q_scale = p->q_scale.at;
    p->acts.q_sum = p->q_sum.at;
    p->acts.q_stride = cols + 5;
    p->acts.group_stride = MAX_N;
    p->acts.bf16_stride = (size_t)(cols + 4) * k->bf16_bytes;
    p->bf16 = array_make((MAX_N - 1) * p->acts.bf16_stride +
                             (size_t)cols * k->bf16_bytes,
                         1, k->bf16_bytes);
    for (size_t i = 0; i < MAX_N; i++)
        k->round_bf16((uint8_t *)p->bf16.at + i * p->acts.bf16_stride,
                      p->acts.x + i * stride, cols);
    p->acts.bf16 = p->bf16.at;
}

static void problem_init(struct problem *p, const struct sl_matrix *m,
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

static void problem_fini(struct problem *p)
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

static double input(const struct problem *p, enum sl_act act, size_t pos,
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

static double weight(const struct problem *p, enum sl_act act, uint32_t r,
                     uint32_t c)
{
    double w = p->dense[(size_t)r * p->m.cols + c];

    if (act == SL_ACT_BF16 && sl_fmt_is_float(p->m.fmt))
        return (double)sl_round_bf16((float)w);
    return w;
}

static void check_sums(const struct problem *p, enum sl_act act, const float *y,
                       size_t stride)
{
    double error = 0, energy = 0;

    for (size_t pos = 0; pos < MAX_N; pos++) {
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

/* The kernel on `n` positions from the first-th and all rows from row on. */
static void call(const struct sl_kernels *k, const struct problem *p,
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

/* Whole batch, each cut of it and each block alone: the same bits, and
 * nothing written beside them. */
static void check_product(const struct sl_kernels *k, const struct problem *p,
                          enum sl_act act)
{
    static const size_t cuts[] = {1, 2, 3, 5, 8, MAX_N};
    uint32_t rows = p->m.rows;
    size_t stride = rows + 3, n_y = (MAX_N - 1) * stride + rows;
    struct array y = array_make(n_y, 4, 4), z = array_make(n_y, 4, 4);
    float *py = y.at, *pz = z.at;

    for (size_t i = 0; i < n_y; i++)
        py[i] = GUARD;
    call(k, p, act, py, stride, 0, rows, 0, MAX_N);
    check_sums(p, act, py, stride);
    for (size_t i = 0; i < n_y; i++)
        if (i % stride >= rows && py[i] != GUARD)
            fail_msg("%s: wrote beside %u rows", k->isa, rows);
    for (size_t c = 0; c < sizeof cuts / sizeof *cuts; c++) {
        for (size_t i = 0; i < n_y; i++)
            pz[i] = GUARD;
        for (size_t f = 0; f < MAX_N; f += cuts[c]) {
            size_t n = MAX_N - f < cuts[c] ? MAX_N - f : cuts[c];

            for (uint32_t r = 0; r < rows; r += 16)
                call(k, p, act, pz + f * stride + r, stride, r,
                     rows - r < 16 ? rows - r : 16, f, n);
        }
        if (memcmp(py, pz, n_y * sizeof *py) != 0)
            fail_msg("%s %s %u x %u: %zu at a time gives other bits", k->isa,
                     sl_fmt_name(p->m.fmt), rows, p->m.cols, cuts[c]);
    }
    free(y.memory);
    free(z.memory);
}

static void check_matrix(const struct sl_matrix *m)
{
    for (int isa = SL_ISA_REF; isa <= (int)sl_cpu_best_isa(); isa++) {
        struct sl_kernels k;
        struct problem p;

        sl_kernels_init(&k, (enum sl_isa)isa);
        problem_init(&p, m, &k);
        for (int act = 0; act < SL_ACT_COUNT; act++)
            if (sl_matmul_takes(&k, m, (enum sl_act)act))
                check_product(&k, &p, (enum sl_act)act);
        problem_fini(&p);
    }
}

static const uint32_t all_cols[] = {1, 7, 8, 31, 32, 64, 172, 256, 704};
static const uint32_t all_rows[] = {1, 2, 8, 15, 16, 17, 24, 40};

static void float_products_are_right(void **state)
{
    for (size_t c = 0; c < sizeof all_cols / sizeof *all_cols; c++) {
        for (size_t r = 0; r < sizeof all_rows / sizeof *all_rows; r++) {
            struct sl_matrix m = {SL_FMT_F32, all_rows[r], all_cols[c], 1, 0};

            for (int fmt = 0; fmt < SL_FMT_COUNT; fmt++) {
                m.fmt = (enum sl_fmt)fmt;
                if (sl_fmt_is_float(m.fmt))
                    check_matrix(&m);
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
                        check_matrix(&m);
                }
            }
        }
    }
}

/* Every format; rows of one block and of several tiles, which end in the middle
 * of one, and columns of more than one panel. */
static void products_of_blocks_are_right(void **state)
{
    static const uint32_t counts[2][4] = {{1, 3, 8, 37}, {1, 2, 5, 5}};

    for (int fmt = 0; fmt < SL_FMT_COUNT; fmt++) {
        const struct sl_fmt_info *f = sl_fmt_of((enum sl_fmt)fmt);

        for (size_t i = 0; sl_fmt_has_blocks((enum sl_fmt)fmt) && i < 8; i++) {
            struct sl_matrix m = {(enum sl_fmt)fmt, all_rows[i], 0, 1, 0};

            m.cols =
                counts[f->block_cols > 32][(i + i / 4) % 4] * f->block_cols;
            check_matrix(&m);
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
        for (int isa = SL_ISA_REF; isa <= (int)sl_cpu_best_isa(); isa++) {
            const struct sl_block_shape *s = sl_block_shape_of(m.fmt);
            struct sl_kernels k;
            struct problem p;
            uint8_t *w;

            sl_kernels_init(&k, (enum sl_isa)isa);
            problem_init(&p, &m, &k);
            memset(p.q.at, x, (MAX_N - 1) * p.acts.q_stride + m.cols);
            for (size_t g = 0; g < (size_t)MAX_N * (m.cols / 32); g++)
                ((float *)p.q_scale.at)[g] = 0.5f;
            for (size_t g = 0; g < (size_t)MAX_N * (m.cols / 16); g++)
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
            check_product(&k, &p, SL_ACT_INT8);
            problem_fini(&p);
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

        for (int isa = SL_ISA_REF; isa <= (int)sl_cpu_best_isa(); isa++) {
            struct sl_kernels k;
            struct problem p;

            sl_kernels_init(&k, (enum sl_isa)isa);
            problem_init(&p, &m, &k);
            memset(p.q.at, x, (MAX_N - 1) * p.acts.q_stride + m.cols);
            for (size_t g = 0; g < (size_t)MAX_N * (m.cols / 32); g++)
                ((float *)p.q_scale.at)[g] = 0.5f;
            for (size_t g = 0; g < (size_t)MAX_N * (m.cols / 16); g++)
                ((int32_t *)p.q_sum.at)[g] = 16 * x;
            for (uint32_t r = 0; r < m.rows; r++) {
                for (uint32_t c = 0; c < m.cols; c++) {
                    put_weight(&p, r, c, weight);
                    p.dense[r * m.cols + c] =
                        weight *
                        (double)sl_half_to_float(*scale_at(&p, r, c / 64));
                }
            }
            check_product(&k, &p, SL_ACT_INT8);
            problem_fini(&p);
        }
    }
}

static void int8_inputs_stay_close_to_floats(void **state)
{
    struct sl_matrix m = {SL_FMT_INT4, 40, 704, 1, 64};
    double error = 0, energy = 0;
    struct sl_kernels k;
    struct problem p;
    float y[2][MAX_N * 40];

    sl_kernels_init(&k, SL_ISA_AVX512);
    problem_init(&p, &m, &k);
    call(&k, &p, SL_ACT_F32, y[0], 40, 0, 40, 0, MAX_N);
    call(&k, &p, SL_ACT_INT8, y[1], 40, 0, 40, 0, MAX_N);
    for (size_t i = 0; i < MAX_N * 40; i++) {
        double d = (double)y[0][i] - (double)y[1][i];

        error += d * d;
        energy += (double)y[0][i] * (double)y[0][i];
    }
    assert_true(error > 0);
    assert_true(error < 3e-4 * energy);
    problem_fini(&p);
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

    for (int isa = SL_ISA_REF; isa <= (int)sl_cpu_best_isa(); isa++) {
        struct sl_kernels k;

        sl_kernels_init(&k, (enum sl_isa)isa);
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

    for (int isa = SL_ISA_REF; isa <= (int)sl_cpu_best_isa(); isa++) {
        for (uint32_t cols = 31; cols <= 64; cols += 33) {
            struct sl_matrix m = {SL_FMT_BF16, ROWS, cols, 1, 0};
            uint16_t w[ROWS * 64] = {0};
            float x[ROWS * 64] = {0}, y[ROWS * ROWS];
            struct sl_acts a = {
                .n = ROWS, .cols = cols, .x = x, .x_stride = cols};
            struct sl_kernels k;

            sl_kernels_init(&k, (enum sl_isa)isa);
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
    static const char *const names[] = {"ref", "avx2", "avx512", "amx"};
    struct sl_kernels k, ref;

    sl_kernels_init(&ref, SL_ISA_REF);
    assert_string_equal(ref.isa, "ref");
    for (int isa = SL_ISA_REF; isa <= SL_ISA_AMX; isa++) {
        int best = isa < (int)sl_cpu_best_isa() ? isa : (int)sl_cpu_best_isa();

        sl_kernels_init(&k, (enum sl_isa)isa);
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
        cmocka_unit_test(products_of_blocks_are_right),
        cmocka_unit_test(integer_sums_do_not_overflow),
        cmocka_unit_test(block_sums_do_not_overflow),
        cmocka_unit_test(int8_inputs_stay_close_to_floats),
        cmocka_unit_test(bf16_is_the_first_half_of_a_float),
        cmocka_unit_test(bf16_weights_keep_their_range),
        cmocka_unit_test(the_ladder_stops_where_it_is_told),
        cmocka_unit_test(short_inputs_need_whole_groups),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
