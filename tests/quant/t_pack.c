#include "config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "quant/pack.h"
#include "quant/planes.h"
#include "src/base/bytes.h"
#include "src/base/half.h"
#include "src/base/mem.h"
#include "tests/support.h"

static double uniform(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (double)(*state >> 33) / 2147483648.0 - 1;
}

/* Near normal, with an outlier now and then, a row of zeros, a zero group. */
static void make_source(float *w, uint32_t rows, uint32_t cols, uint64_t seed)
{
    for (uint32_t r = 0; r < rows; r++) {
        for (uint32_t c = 0; c < cols; c++) {
            double x = 0;

            for (int i = 0; i < 4; i++)
                x += uniform(&seed);
            if ((r * 31 + c) % 97 == 0)
                x *= 6;
            if (r % 11 == 5 || (r % 7 == 3 && c < 64))
                x = 0;
            w[(size_t)r * cols + c] = (float)(x * 0.02);
        }
    }
}

/* Formats of numbers, which a source may have. */
static size_t float_formats(enum sl_fmt found[SL_FMT_COUNT])
{
    size_t n = 0;

    for (int f = 0; f < SL_FMT_COUNT; f++) {
        if (sl_fmt_is_float((enum sl_fmt)f))
            found[n++] = (enum sl_fmt)f;
    }
    return n;
}

struct sample {
    struct sl_matrix m;
    float *w;        /* (rows, cols) */
    uint8_t *source; /* the same in this: */
    enum sl_fmt from;
    uint8_t *bytes;
    uint16_t *scale;
    float *decoded;
    struct sl_pack_error error;
};

static void sample_init(struct sample *s, const struct sl_matrix *m,
                        enum sl_fmt from)
{
    const struct sl_fmt_info *f = sl_fmt_of(from);
    size_t n = (size_t)m->rows * m->cols;
    struct sl_error err;

    assert_ok(sl_matrix_check(m, &err), &err);
    *s = (struct sample){.m = *m, .from = from};
    s->w = calloc(n, 4);
    s->source = calloc(n, 4);
    s->decoded = calloc(n, 4);
    s->bytes = malloc(sl_matrix_bytes(m));
    s->scale = malloc(sl_matrix_scale_bytes(m) + 1);
    memset(s->bytes, 0xa5, sl_matrix_bytes(m));
    memset(s->scale, 0xa5, sl_matrix_scale_bytes(m));
    make_source(s->w, m->rows, m->cols, n);
    f->store(s->source, s->w, (uint32_t)n);
    f->load(s->w, s->source, 0, (uint32_t)n);
}

/* Where the source's row begins. */
static const uint8_t *source_row(const struct sample *s, size_t row)
{
    return s->source + row * sl_fmt_row_bytes(s->from, s->m.cols);
}

static void sample_fini(struct sample *s)
{
    free(s->w);
    free(s->source);
    free(s->decoded);
    free(s->bytes);
    free(s->scale);
}

/* Packs in runs of `blocks` blocks and decodes every row again. */
static void pack(struct sample *s, enum sl_scale_rule rule, uint32_t blocks,
                 unsigned threads)
{
    const struct sl_matrix *m = &s->m;
    uint32_t seg_rows = sl_matrix_segment_rows(m);
    struct sl_error err;
    struct sl_pool *pool;

    assert_ok(sl_pool_create(&pool, threads, &err), &err);
    s->error = (struct sl_pack_error){0};
    for (uint32_t row = 0; row < m->rows;) {
        uint32_t seg = row / seg_rows, in = row % seg_rows;
        uint32_t n = seg_rows - in;
        struct sl_pack_source src = {
            .fmt = s->from,
            .rows = source_row(s, row),
        };

        n = n < blocks * 16 ? n : blocks * 16;
        sl_pack_rows(s->bytes + sl_matrix_block_offset(m, seg, in / 16),
                     s->scale + sl_matrix_scale_offset(m, seg, in / 16) / 2, m,
                     rule, &src, n, pool, &s->error);
        row += n;
    }
    sl_pool_destroy(pool);
    for (uint32_t row = 0; row < m->rows; row++) {
        uint32_t seg = row / seg_rows, in = row % seg_rows;

        sl_matrix_decode_row(
            s->decoded + (size_t)row * m->cols, m,
            s->bytes + sl_matrix_block_offset(m, seg, in / 16),
            s->scale + sl_matrix_scale_offset(m, seg, in / 16) / 2, in % 16);
    }
}

static const struct sl_matrix shapes[] = {
    {SL_FMT_INT8, 1, 1, 1, 1},      {SL_FMT_INT4, 1, 1, 1, 32},
    {SL_FMT_INT8, 16, 64, 1, 64},   {SL_FMT_INT4, 16, 64, 1, 32},
    {SL_FMT_INT8, 33, 172, 1, 43},  {SL_FMT_INT4, 33, 172, 1, 43},
    {SL_FMT_INT8, 50, 1001, 2, 64}, {SL_FMT_INT4, 50, 1001, 2, 128},
    {SL_FMT_INT8, 22, 700, 2, 700}, {SL_FMT_INT4, 22, 700, 2, 700},
    {SL_FMT_INT4, 17, 523, 1, 9},   {SL_FMT_INT8, 48, 264, 1, 132},
};
#define N_SHAPES (sizeof shapes / sizeof *shapes)

/* GLM's quantiser in plain scalar steps, one group of one row. */
static float glm_quantise(int *q, const float *w, uint32_t n, int bits,
                          bool f16)
{
    float max = 0, scale, most = bits == 8 ? 127 : 7;

    for (uint32_t i = 0; i < n; i++)
        max = fabsf(w[i]) > max ? fabsf(w[i]) : max;
    scale = sl_half_to_float(sl_float_to_half(max / most));
    for (uint32_t i = 0; i < n; i++) {
        float x = w[i] / scale;

        if (f16)
            x = sl_half_to_float(sl_float_to_half(x));
        q[i] = scale > 0 ? (int)nearbyintf(x) : 0;
    }
    return scale;
}

static void absmax_is_glms_quantiser(void **state)
{
    enum sl_fmt from[SL_FMT_COUNT];
    size_t n_from = float_formats(from);

    for (size_t k = 0; k < n_from * N_SHAPES; k++) {
        const struct sl_matrix *m = &shapes[k / n_from];
        int *q = malloc(m->cols * sizeof *q);
        struct sample s;

        sample_init(&s, m, from[k % n_from]);
        pack(&s, SL_SCALE_ABSMAX, 1000, 2);
        for (size_t r = 0; r < m->rows; r++) {
            for (uint32_t c = 0; c < m->cols; c += m->group_cols) {
                uint32_t left = m->cols - c;
                uint32_t n = left < m->group_cols ? left : m->group_cols;
                float scale =
                    glm_quantise(q, s.w + r * m->cols + c, n,
                                 sl_fmt_of(m->fmt)->bits, s.from == SL_FMT_F16);

                for (uint32_t i = 0; i < n; i++)
                    assert_true(s.decoded[r * m->cols + c + i] ==
                                (float)q[i] * scale);
            }
        }
        sample_fini(&s);
        free(q);
    }
}

static double squared_error(const struct sample *s)
{
    double sum = 0;

    for (size_t i = 0; i < (size_t)s->m.rows * s->m.cols; i++)
        sum += pow((double)s->decoded[i] - (double)s->w[i], 2);
    return sum;
}

static void mse_is_never_worse_than_absmax(void **state)
{
    enum sl_fmt from[SL_FMT_COUNT];
    size_t n_from = float_formats(from);

    for (size_t k = 0; k < n_from * N_SHAPES; k++) {
        struct sample s;
        double absmax, mse;

        sample_init(&s, &shapes[k / n_from], from[k % n_from]);
        pack(&s, SL_SCALE_ABSMAX, 1000, 1);
        absmax = squared_error(&s);
        pack(&s, SL_SCALE_MSE, 1000, 1);
        mse = squared_error(&s);
        assert_true(mse <= absmax * (1 + 1e-6));
        if (s.m.fmt == SL_FMT_INT4 && s.m.cols > 32 && s.m.group_cols > 16)
            assert_true(mse < absmax * 0.95);
        sample_fini(&s);
    }
}

/* The least error over every FP16 scale there is, of one group. */
static double best_error(const float *w, uint32_t n)
{
    double best = INFINITY;

    for (uint16_t h = 1; h < 0x7c00; h++) {
        double scale = (double)sl_half_to_float(h), sum = 0;

        for (uint32_t i = 0; i < n && sum < best; i++) {
            double q = nearbyint((double)w[i] / scale);

            q = q > 7 ? 7 : q < -8 ? -8 : q;
            sum += pow(q * scale - (double)w[i], 2);
        }
        best = sum < best ? sum : best;
    }
    return best;
}

static void mse_comes_close_to_the_best_scale_there_is(void **state)
{
    static const struct sl_matrix m = {SL_FMT_INT4, 16, 64, 1, 64};
    struct sample s;
    double best = 0;

    sample_init(&s, &m, SL_FMT_F16);
    pack(&s, SL_SCALE_MSE, 1, 1);
    for (uint32_t r = 0; r < m.rows; r++)
        best += best_error(s.w + (size_t)r * m.cols, m.cols);
    assert_true(squared_error(&s) < best * 1.03);
    sample_fini(&s);
}

/* The squared error of the high plane alone, and the largest integer. */
static double plane_error(const struct sample *s, double *most)
{
    const struct sl_matrix *m = &s->m;
    size_t bytes = (size_t)sl_matrix_bytes(m);
    uint8_t *high = malloc(bytes), *low = malloc(bytes);
    struct sl_matrix plane = sl_matrix_plane(m);
    float *row = malloc(m->cols * sizeof *row);
    double sum = 0;

    sl_planes_split(high, low, s->bytes, bytes);
    for (uint32_t r = 0; r < m->rows; r++) {
        uint32_t seg = r / sl_matrix_segment_rows(m);
        uint32_t in = r % sl_matrix_segment_rows(m);
        uint64_t at = sl_matrix_block_offset(&plane, seg, in / 16);
        const uint16_t *scale =
            s->scale + sl_matrix_scale_offset(m, seg, in / 16) / 2;

        sl_matrix_decode_row(row, &plane, high + at, scale, in % 16);
        for (uint32_t c = 0; c < m->cols; c++)
            sum += pow(16.0 * (double)row[c] -
                           (double)s->w[(size_t)r * m->cols + c],
                       2);
        sl_planes_load(row, high + at + in % 16 * 4, low + at + in % 16 * 4,
                       m->cols);
        for (uint32_t c = 0; c < m->cols; c++) {
            float unit = sl_half_to_float(
                scale[(size_t)(c / m->group_cols) * 16 + in % 16]);

            *most = fmax(*most, fabs((double)row[c]));
            assert_true(row[c] * unit == s->decoded[(size_t)r * m->cols + c]);
        }
    }
    free(high);
    free(low);
    free(row);
    return sum;
}

/* Both planes are a good INT8, the high one alone nearly as good an INT4 as
 * those that are made of the weights. */
static void both_planes_are_good_models(void **state)
{
    static const struct sl_matrix m[] = {
        {SL_FMT_INT8, 50, 1001, 2, 64},
        {SL_FMT_INT8, 33, 172, 1, 43},
        {SL_FMT_INT8, 22, 704, 2, 32},
    };

    for (size_t k = 0; k < sizeof m / sizeof *m; k++) {
        struct sample s;
        double absmax, int4, both, high, most = 0;

        sample_init(&s, &m[k], SL_FMT_F16);
        pack(&s, SL_SCALE_ABSMAX, 1000, 1);
        absmax = squared_error(&s);
        pack(&s, SL_SCALE_PLANES, 2, 2);
        both = squared_error(&s);
        high = plane_error(&s, &most);
        sample_fini(&s);
        sample_init(&s, &m[k], SL_FMT_F16);
        s.m.fmt = SL_FMT_INT4;
        pack(&s, SL_SCALE_ABSMAX, 1000, 1);
        int4 = squared_error(&s);
        sample_fini(&s);
        assert_true(most <= SL_PLANES_MOST);
        assert_true(both < absmax * 2);
        assert_true(high < int4 && high > both * 50);
    }
}

static void planes_part_and_join_again(void **state)
{
    uint8_t w[128], high[64], low[64], again[128];

    for (int first = -SL_PLANES_MOST; first <= SL_PLANES_MOST; first++) {
        float q[8];

        for (int i = 0; i < 128; i++)
            w[i] = (uint8_t)(128 + (first + i) % (SL_PLANES_MOST + 1));
        sl_planes_split(high, low, w, sizeof w);
        sl_planes_join(again, high, low, sizeof again);
        assert_memory_equal(again, w, sizeof w);
        sl_planes_load(q, high, low, 8);
        for (int c = 0; c < 8; c++)
            assert_int_equal((int)q[c], w[c / 4 * 64 + c % 4] - 128);
    }
}

static void the_error_report_is_the_error(void **state)
{
    static const enum sl_scale_rule rules[] = {SL_SCALE_ABSMAX, SL_SCALE_MSE};
    enum sl_fmt from[SL_FMT_COUNT];
    size_t n_from = float_formats(from);

    for (size_t k = 0; k < 2 * n_from * N_SHAPES; k++) {
        struct sample s;
        double sum = 0, worst = 0;
        size_t n;

        sample_init(&s, &shapes[k / 2 / n_from], from[k / 2 % n_from]);
        n = (size_t)s.m.rows * s.m.cols;
        pack(&s, rules[k % 2], 2, 3);
        for (size_t i = 0; i < n; i++) {
            double d = fabs((double)s.decoded[i] - (double)s.w[i]);

            sum += (double)s.w[i] * (double)s.w[i];
            worst = d > worst ? d : worst;
        }
        assert_int_equal(s.error.n, n);
        assert_int_equal(s.error.n_not_finite, 0);
        assert_true(fabs(s.error.sum_squared - squared_error(&s)) <=
                    1e-5 * s.error.sum_squared);
        assert_true(fabs(s.error.sum_source_squared - sum) <= 1e-5 * sum);
        assert_true(fabs(s.error.worst - worst) <= 1e-6 * worst);
        sample_fini(&s);
    }
}

static void threads_and_cuts_change_nothing(void **state)
{
    for (size_t k = 0; k < N_SHAPES; k++) {
        struct sample a, b;

        sample_init(&a, &shapes[k], SL_FMT_F16);
        pack(&a, SL_SCALE_MSE, 1000, 1);
        for (unsigned threads = 1; threads <= 3; threads++) {
            sample_init(&b, &shapes[k], SL_FMT_F16);
            pack(&b, SL_SCALE_MSE, threads == 2 ? 1000 : 1, threads);
            assert_memory_equal(a.bytes, b.bytes, sl_matrix_bytes(&a.m));
            assert_memory_equal(a.scale, b.scale, sl_matrix_scale_bytes(&a.m));
            if (threads == 2)
                assert_memory_equal(&a.error, &b.error, sizeof a.error);
            sample_fini(&b);
        }
        sample_fini(&a);
    }
}

/* Rows and columns beyond the matrix: weight 0 (stored as 128 or 8), scale 0.
 * 11 rows of 3 columns leave most of the block to the fill. */
static void the_fill_is_zero(void **state)
{
    static const struct sl_matrix m8 = {SL_FMT_INT8, 11, 3, 1, 2};
    static const struct sl_matrix m4 = {SL_FMT_INT4, 11, 3, 1, 2};
    struct sample s;

    sample_init(&s, &m8, SL_FMT_F32);
    pack(&s, SL_SCALE_MSE, 1, 1);
    for (unsigned i = 0; i < 128; i++) {
        if (i / 64 == 1 || i % 4 == 3 || i % 64 / 4 >= 11)
            assert_int_equal(s.bytes[i], 128);
    }
    for (unsigned i = 0; i < 32; i++) {
        if (i % 16 >= 11)
            assert_int_equal(s.scale[i], 0);
    }
    sample_fini(&s);
    sample_init(&s, &m4, SL_FMT_F32);
    pack(&s, SL_SCALE_MSE, 1, 1);
    for (unsigned i = 0; i < 64; i++) {
        assert_int_equal(s.bytes[i] >> 4, 8);
        if (i % 4 == 3 || i / 4 >= 11)
            assert_int_equal(s.bytes[i], 0x88);
    }
    sample_fini(&s);
}

static void quantised_sources_keep_their_numbers(void **state)
{
    struct sl_error err;
    struct sl_pool *pool;

    assert_ok(sl_pool_create(&pool, 2, &err), &err);
    for (size_t k = 0; k < N_SHAPES; k++) {
        const struct sl_matrix *m = &shapes[k];
        uint32_t groups = sl_matrix_groups(m);
        uint32_t seg_rows = sl_matrix_segment_rows(m);
        int8_t *q = malloc((size_t)m->rows * m->cols);
        uint16_t *q_scale = malloc((size_t)m->rows * groups * 2);
        float *row = malloc(m->cols * sizeof *row);
        uint64_t seed = k;
        struct sample s;

        sample_init(&s, m, SL_FMT_F16);
        for (size_t i = 0; i < (size_t)m->rows * m->cols; i++)
            q[i] =
                (int8_t)(uniform(&seed) * (1 << (sl_fmt_of(m->fmt)->bits - 1)));
        for (size_t i = 0; i < (size_t)m->rows * groups; i++)
            q_scale[i] = sl_float_to_half((float)fabs(uniform(&seed)));
        for (uint32_t seg = 0; seg < m->n_segments; seg++)
            sl_pack_quantized(s.bytes + sl_matrix_block_offset(m, seg, 0),
                              s.scale + sl_matrix_scale_offset(m, seg, 0) / 2,
                              m, q + (size_t)seg * seg_rows * m->cols,
                              q_scale + (size_t)seg * seg_rows * groups,
                              seg_rows, pool);
        for (uint32_t r = 0; r < m->rows; r++) {
            uint32_t seg = r / seg_rows, in = r % seg_rows;

            sl_matrix_decode_row(
                row, m, s.bytes + sl_matrix_block_offset(m, seg, in / 16),
                s.scale + sl_matrix_scale_offset(m, seg, in / 16) / 2, in % 16);
            for (size_t c = 0; c < m->cols; c++) {
                uint16_t h = q_scale[r * groups + c / m->group_cols];

                assert_true(row[c] ==
                            (float)q[r * m->cols + c] * sl_half_to_float(h));
            }
        }
        sample_fini(&s);
        free(q);
        free(q_scale);
        free(row);
    }
    sl_pool_destroy(pool);
}

static void float_formats_round_once(void **state)
{
    static const struct sl_matrix sizes[] = {{SL_FMT_F32, 35, 301, 1, 0},
                                             {SL_FMT_F32, 34, 7, 2, 0}};
    enum sl_fmt formats[SL_FMT_COUNT];
    size_t n_formats = float_formats(formats);

    for (size_t k = 0; k < 2 * n_formats * n_formats; k++) {
        struct sl_matrix m = sizes[k % 2];
        const struct sl_fmt_info *f;
        struct sample s;

        m.fmt = formats[k / 2 % n_formats];
        f = sl_fmt_of(m.fmt);
        sample_init(&s, &m, formats[k / 2 / n_formats]);
        pack(&s, SL_SCALE_MSE, 1, 2);
        for (size_t i = 0; i < (size_t)m.rows * m.cols; i++) {
            uint32_t bits;
            float want;

            f->store(&bits, &s.w[i], 1);
            f->load(&want, &bits, 0, 1);
            assert_true(s.decoded[i] == want);
        }
        assert_true(fabs(s.error.sum_squared - squared_error(&s)) <=
                    1e-9 * s.error.sum_squared);
        sample_fini(&s);
    }
}

static void what_is_no_number_is_counted(void **state)
{
    static const struct sl_matrix packed = {SL_FMT_INT4, 4, 100, 1, 32};
    static const struct sl_matrix floats = {SL_FMT_F16, 4, 100, 1, 0};
    float bad[] = {NAN, INFINITY, -INFINITY, 1e30f};
    struct sample s;

    for (unsigned k = 0; k < 2; k++) {
        sample_init(&s, k ? &floats : &packed, SL_FMT_F32);
        for (size_t i = 0; i < 4; i++)
            memcpy(s.source + 4 * (100 * i + 50), &bad[i], 4);
        pack(&s, k ? SL_SCALE_ABSMAX : SL_SCALE_MSE, 1, 1);
        /* 1e30 is a number, but no FP16 one, and no scale holds it */
        assert_int_equal(s.error.n_not_finite, 4);
        sample_fini(&s);
    }
}

/* Every FP16 bit pattern, as a group of its own: the scale is the value. */
static void every_half_is_read_right(void **state)
{
    struct sl_matrix m = {SL_FMT_INT8, 16, 2048, 1, 1};
    struct sample s;

    sample_init(&s, &m, SL_FMT_F16);
    for (uint32_t bit = 0; bit < 2; bit++) {
        for (uint32_t i = 0; i < 32768; i++)
            sl_store_u16(s.source + 2 * i, (uint16_t)(i | bit << 15));
        pack(&s, SL_SCALE_ABSMAX, 1, 1);
        assert_int_equal(s.error.n_not_finite, 1024);
        for (uint32_t i = 0; i < 0x7c00; i++) {
            float x = sl_half_to_float((uint16_t)(i | bit << 15)), y;
            float scale = sl_half_to_float(sl_float_to_half(fabsf(x) / 127));

            y = scale > 0 ? sl_half_to_float(sl_float_to_half(x / scale)) : 0;
            y = fminf(fmaxf(nearbyintf(y), -127), 127);
            assert_true(s.decoded[i] == y * scale);
        }
    }
    sample_fini(&s);
}

/* Any bits, those of signalling NaNs included, with a report or without. */
static void what_has_the_format_is_copied_to_the_bit(void **state)
{
    enum sl_fmt formats[SL_FMT_COUNT];
    size_t n_formats = float_formats(formats);
    struct sl_error err;
    struct sl_pool *pool;

    assert_ok(sl_pool_create(&pool, 2, &err), &err);
    for (size_t k = 0; k < 2 * n_formats; k++) {
        struct sl_matrix m = {formats[k / 2], 37, 301, 1, 0};
        struct sl_pack_error e = {0};
        uint64_t bytes = sl_matrix_bytes(&m), seed = k;
        struct sample s;
        struct sl_pack_source src = {.fmt = m.fmt};

        sample_init(&s, &m, m.fmt);
        for (uint64_t i = 0; i < bytes; i++)
            s.source[i] = (uint8_t)((uniform(&seed) + 1) * 256);
        src.rows = s.source;
        sl_pack_rows(s.bytes, NULL, &m, SL_SCALE_MSE, &src, m.rows, pool,
                     k % 2 ? &e : NULL);
        assert_memory_equal(s.bytes, s.source, bytes);
        if (k % 2)
            assert_true(e.n_not_finite > 0 || m.fmt == SL_FMT_F32);
        sample_fini(&s);
    }
    sl_pool_destroy(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(absmax_is_glms_quantiser),
        cmocka_unit_test(mse_is_never_worse_than_absmax),
        cmocka_unit_test(mse_comes_close_to_the_best_scale_there_is),
        cmocka_unit_test(both_planes_are_good_models),
        cmocka_unit_test(planes_part_and_join_again),
        cmocka_unit_test(the_error_report_is_the_error),
        cmocka_unit_test(threads_and_cuts_change_nothing),
        cmocka_unit_test(the_fill_is_zero),
        cmocka_unit_test(quantised_sources_keep_their_numbers),
        cmocka_unit_test(float_formats_round_once),
        cmocka_unit_test(what_has_the_format_is_copied_to_the_bit),
        cmocka_unit_test(what_is_no_number_is_counted),
        cmocka_unit_test(every_half_is_read_right),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
