/*
 * Products over the thread pool must give the bits of the kernels they are
 * made of, whatever the threads, the cut of the weights and the number of
 * positions.
 */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/matmul.h"
#include "src/base/half.h"
#include "tests/support.h"

#define GUARD 1e30f

struct setup {
    struct sl_kernels k;
    struct sl_matrix m;
    uint8_t *w;
    uint16_t *scale;
    float *bias, *x, *q_scale;
    int8_t *q;
    int32_t *q_sum;
    uint8_t *bf16;
    struct sl_acts acts;
    struct sl_matrix b; /* what an adapter adds */
    float *bw, *low_x;
    struct sl_low_rank low;
    uint64_t state;
};

static float uniform(struct setup *s)
{
    s->state = s->state * 6364136223846793005u + 1442695040888963407u;
    return (float)((double)(s->state >> 33) / (double)(1u << 30) - 1);
}

static void *get(size_t n, size_t size)
{
    void *p = calloc(n, size);

    assert_non_null(p);
    return p;
}

static void setup_init(struct setup *s, const struct sl_matrix *m, size_t n)
{
    uint64_t bytes = sl_matrix_bytes(m), scales = sl_matrix_scale_bytes(m) / 2;
    const struct sl_fmt_info *f = sl_fmt_of(m->fmt);
    uint32_t groups = m->cols / 32;

    memset(s, 0, sizeof *s);
    sl_kernels_init(&s->k, SL_ISA_AMX);
    s->m = *m;
    s->w = get(bytes, 1);
    s->scale = get(scales + 1, 2);
    s->bias = get(m->rows, 4);
    s->x = get(n * m->cols, 4);
    s->q = get(n * sl_q8_stride(m->cols), 1);
    s->q_scale = get(n * groups, 4);
    s->q_sum = get(n * 2 * groups, 4);
    s->bf16 = get(n * m->cols, s->k.bf16_bytes);
    for (uint64_t i = 0; i < bytes; i++)
        s->w[i] = (uint8_t)(128 + 100 * (double)uniform(s));
    for (uint64_t i = 0; f->is_float && i < bytes / f->elem_bytes; i++)
        f->store(s->w + i * f->elem_bytes, &(float){uniform(s)}, 1);
    for (uint64_t i = 0; i < scales; i++)
        s->scale[i] = sl_float_to_half(0.01f * uniform(s));
    for (uint32_t i = 0; i < m->rows; i++)
        s->bias[i] = uniform(s);
    for (size_t i = 0; i < n * m->cols; i++)
        s->x[i] = uniform(s);
    for (size_t i = 0; i < n; i++)
        s->k.quantize_q8(s->q + i * sl_q8_stride(m->cols), s->q_scale + i,
                         s->q_sum + i, n, s->x + i * m->cols, m->cols);
    for (size_t i = 0; i < n && m->cols % 32 == 0; i++)
        s->k.round_bf16(s->bf16 + i * m->cols * s->k.bf16_bytes,
                        s->x + i * m->cols, m->cols);
    s->acts = (struct sl_acts){
        .n = n,
        .cols = m->cols,
        .x = s->x,
        .x_stride = m->cols,
        .q = s->q,
        .q_stride = sl_q8_stride(m->cols),
        .q_scale = s->q_scale,
        .q_sum = s->q_sum,
        .group_stride = n,
        .bf16 = s->bf16,
        .bf16_stride = (size_t)m->cols * s->k.bf16_bytes,
    };
}

static void setup_fini(struct setup *s)
{
    free(s->w);
    free(s->scale);
    free(s->bias);
    free(s->x);
    free(s->q);
    free(s->q_scale);
    free(s->q_sum);
    free(s->bf16);
    free(s->bw);
    free(s->low_x);
}

#define RANK 5

/* What an adapter adds: few values a position, of which there may be more. */
static void setup_low(struct setup *s)
{
    size_t n = s->acts.n;

    s->b = (struct sl_matrix){SL_FMT_F32, s->m.rows, RANK, s->m.n_segments, 0};
    s->bw = get((size_t)s->m.rows * RANK, sizeof *s->bw);
    s->low_x = get(n * (RANK + 2), sizeof *s->low_x);
    for (size_t i = 0; i < (size_t)s->m.rows * RANK; i++)
        s->bw[i] = uniform(s);
    for (size_t i = 0; i < n * (RANK + 2); i++)
        s->low_x[i] = uniform(s);
    s->low = (struct sl_low_rank){&s->b, s->bw, s->low_x, RANK + 2};
}

/* y (rows of all segments) += its product for position p. */
static void add_low(float *y, const struct setup *s, size_t p)
{
    uint32_t rows = sl_matrix_segment_rows(&s->m);
    const struct sl_acts one = {
        .n = 1,
        .cols = RANK,
        .x = s->low_x + p * (RANK + 2),
        .x_stride = RANK + 2,
    };
    float *more = get(rows, sizeof *more);

    for (uint32_t i = 0; i < s->m.n_segments; i++, y += rows) {
        s->k.matmul[SL_FMT_F32][SL_ACT_F32](more, rows, &s->b,
                                            s->bw + (size_t)i * rows * RANK,
                                            NULL, rows, &one);
        for (uint32_t r = 0; r < rows; r++)
            y[r] += more[r];
    }
    free(more);
}

/* y (n, rows of all segments): the kernels alone, a position at a time, what an
 * adapter adds and the bias. */
static void plainly(float *y, struct setup *s, enum sl_act act, bool low,
                    bool bias)
{
    uint32_t rows = sl_matrix_segment_rows(&s->m);

    for (size_t p = 0; p < s->acts.n; p++) {
        struct sl_acts one = s->acts;

        one.n = 1;
        one.x += p * one.x_stride;
        one.q += p * one.q_stride;
        one.q_scale += p;
        one.q_sum += p;
        one.bf16 = s->bf16 + p * one.bf16_stride;
        for (uint32_t i = 0; i < s->m.n_segments; i++)
            s->k.matmul[s->m.fmt][act](
                y + p * s->m.rows + i * rows, s->m.rows, &s->m,
                s->w + sl_matrix_block_offset(&s->m, i, 0),
                s->scale + sl_matrix_scale_offset(&s->m, i, 0) / 2, rows, &one);
    }
    for (size_t p = 0; p < s->acts.n && low; p++)
        add_low(y + p * s->m.rows, s, p);
    for (size_t p = 0; p < s->acts.n && bias; p++)
        for (uint32_t r = 0; r < s->m.rows; r++)
            y[p * s->m.rows + r] += s->bias[r];
}

/* Weights in two planes, and room to join them. */
struct planes {
    uint8_t *high, *low;
    struct sl_matmul_planes use;
};

static void planes_init(struct planes *p, const struct setup *s,
                        unsigned threads)
{
    size_t bytes = (size_t)sl_matrix_bytes(&s->m);

    *p = (struct planes){.high = get(bytes / 2, 1), .low = get(bytes / 2, 1)};
    sl_planes_split(p->high, p->low, s->w, bytes);
    p->use.joined_bytes = sl_matmul_joined_bytes(&s->m);
    p->use.joined = get(threads, p->use.joined_bytes);
}

static void planes_fini(struct planes *p)
{
    free(p->high);
    free(p->low);
    free(p->use.joined);
}

/* The same product in runs of `cut` blocks; of planes unless they are NULL. */
static void by_pool(float *y, size_t stride, const struct setup *s,
                    enum sl_act act, bool low, bool bias,
                    enum sl_epilogue epilogue, uint32_t cut,
                    struct sl_pool *pool, struct planes *planes)
{
    uint32_t blocks = sl_matrix_segment_blocks(&s->m);

    for (uint32_t b = 0; b < blocks; b += cut) {
        struct sl_matmul mm = {
            .m = &s->m,
            .first_block = b,
            .n_blocks = blocks - b < cut ? blocks - b : cut,
            .bias = bias ? s->bias : NULL,
            .low = low ? &s->low : NULL,
            .epilogue = epilogue,
        };

        for (uint32_t i = 0; i < s->m.n_segments; i++) {
            mm.w[i] = s->w + sl_matrix_block_offset(&s->m, i, b);
            if (planes != NULL) {
                struct sl_matrix g = sl_matrix_plane(&s->m);
                uint64_t at = sl_matrix_block_offset(&g, i, b);

                mm.w[i] = planes->high + at;
                planes->use.low[i] = planes->low + at;
                mm.planes = &planes->use;
            }
            mm.scale[i] =
                sl_fmt_has_scales(s->m.fmt)
                    ? s->scale + sl_matrix_scale_offset(&s->m, i, b) / 2
                    : NULL;
        }
        sl_matmul_run(&s->k, pool, y, stride, &mm, &s->acts, act);
    }
}

static void check(const struct sl_matrix *m, size_t n, enum sl_act act,
                  enum sl_epilogue epilogue)
{
    static const uint32_t cuts[] = {1, 3, 1000};
    bool glu = epilogue != SL_EPI_NONE;
    uint32_t width = glu ? m->rows / 2 : m->rows;
    size_t stride = width + 2;
    struct sl_error err;
    struct setup s;
    float *whole, *y;

    setup_init(&s, m, n);
    setup_low(&s);
    whole = get(n * m->rows, sizeof *whole);
    y = get(n * stride, sizeof *y);
    for (unsigned more = 0; more < 4; more += TEST_SANITIZED ? 3 : 1) {
        bool low = more & 2, bias = more & 1;

        plainly(whole, &s, act, low, bias);
        for (size_t p = 0; glu && p < n; p++)
            (epilogue == SL_EPI_GEGLU ? s.k.geglu : s.k.swiglu)(
                whole + p * m->rows, whole + p * m->rows,
                whole + p * m->rows + width, width);
        for (unsigned i = 0; i < 6; i++) {
            struct sl_pool *pool;

            assert_ok(sl_pool_create(&pool, 1 + i % 2 * 2, &err), &err);
            for (size_t j = 0; j < n * stride; j++)
                y[j] = GUARD;
            by_pool(y, stride, &s, act, low, bias, epilogue, cuts[i / 2], pool,
                    NULL);
            sl_pool_destroy(pool);
            for (size_t p = 0; p < n; p++) {
                assert_memory_equal(y + p * stride, whole + p * m->rows,
                                    width * sizeof *y);
                assert_true(y[p * stride + width] == GUARD &&
                            y[p * stride + width + 1] == GUARD);
            }
        }
    }
    free(whole);
    free(y);
    setup_fini(&s);
}

/* Joined again, planes give the bits of the matrix that they are of. */
static void check_planes(const struct sl_matrix *m, size_t n, enum sl_act act,
                         enum sl_epilogue epilogue)
{
    size_t size = n * m->rows;
    float *want = get(size, sizeof *want), *y = get(size, sizeof *y);
    struct sl_pool *pool;
    struct planes planes;
    struct sl_error err;
    struct setup s;

    setup_init(&s, m, n);
    planes_init(&planes, &s, 3);
    assert_ok(sl_pool_create(&pool, 3, &err), &err);
    by_pool(want, m->rows, &s, act, false, true, epilogue, 1000, pool, NULL);
    for (uint32_t cut = 1; cut < 5; cut += 3) {
        memset(y, 0, size * sizeof *y);
        by_pool(y, m->rows, &s, act, false, true, epilogue, cut, pool, &planes);
        assert_memory_equal(y, want, size * sizeof *y);
    }
    sl_pool_destroy(pool);
    planes_fini(&planes);
    setup_fini(&s);
    free(want);
    free(y);
}

static void planes_have_the_bits_of_their_matrix(void **state)
{
    static const struct sl_matrix m[] = {
        {SL_FMT_INT8, 200, 64, 1, 32},
        {SL_FMT_INT8, 72, 1056, 2, 608},
        {SL_FMT_INT8, 40, 100, 1, 100},
    };

    for (size_t i = 0; i < sizeof m / sizeof *m; i++)
        for (size_t n = 1; n <= 41; n += 20)
            for (int act = 0; act < SL_ACT_COUNT; act++) {
                if (act != SL_ACT_F32 && m[i].cols % 32 != 0)
                    continue;
                check_planes(&m[i], n, (enum sl_act)act, SL_EPI_NONE);
                if (m[i].n_segments == 2)
                    check_planes(&m[i], n, (enum sl_act)act, SL_EPI_SWIGLU);
            }
}

/* Whatever a tensor's bytes, as those of a damaged file. */
static void every_instruction_set_joins_planes_alike(void **state)
{
    enum { BYTES = 16 * 128 };
    uint8_t high[BYTES / 2], low[BYTES / 2], want[BYTES], got[BYTES];
    uint64_t seed = 1;

    for (size_t i = 0; i < BYTES / 2; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        high[i] = (uint8_t)(seed >> 40);
        low[i] = (uint8_t)(seed >> 52);
    }
    sl_planes_join(want, high, low, BYTES);
    for (int isa = SL_ISA_REF; isa <= SL_ISA_AMX; isa++) {
        struct sl_kernels k;

        sl_kernels_init(&k, (enum sl_isa)isa);
        memset(got, 0, sizeof got);
        k.join_planes(got, high, low, BYTES);
        assert_memory_equal(got, want, BYTES);
    }
}

/* What the high plane gives is what INT4 gives of it, times 16. */
static void the_high_plane_is_a_model_of_its_own(void **state)
{
    static const struct sl_matrix m = {SL_FMT_INT8, 50, 96, 1, 32};
    struct sl_matrix plane = sl_matrix_plane(&m);
    float y[50], want[50];
    struct planes planes;
    struct sl_pool *pool;
    struct sl_error err;
    struct setup s;

    setup_init(&s, &m, 1);
    planes_init(&planes, &s, 1);
    planes.use.high_only = true;
    assert_ok(sl_pool_create(&pool, 1, &err), &err);
    by_pool(y, 50, &s, SL_ACT_INT8, false, false, SL_EPI_NONE, 2, pool,
            &planes);
    s.k.matmul[SL_FMT_INT4][SL_ACT_INT8](want, 50, &plane, planes.high, s.scale,
                                         50, &s.acts);
    for (size_t i = 0; i < 50; i++)
        assert_true(y[i] == 16 * want[i]);
    sl_pool_destroy(pool);
    planes_fini(&planes);
    setup_fini(&s);
}

static void cuts_and_threads_change_no_bit(void **state)
{
    static const struct sl_matrix m[] = {
        {SL_FMT_F32, 70, 40, 1, 0},    {SL_FMT_F32, 70, 40, 2, 0},
        {SL_FMT_F16, 70, 64, 1, 0},    {SL_FMT_BF16, 70, 64, 2, 0},
        {SL_FMT_INT8, 200, 64, 1, 32}, {SL_FMT_INT4, 200, 96, 2, 96},
    };

    for (size_t i = 0; i < sizeof m / sizeof *m; i++) {
        check(&m[i], 1, SL_ACT_F32, SL_EPI_NONE);
        check(&m[i], 5, SL_ACT_F32, SL_EPI_NONE);
        if (m[i].cols % 32 != 0)
            continue;
        check(&m[i], 1, SL_ACT_BF16, SL_EPI_NONE);
        check(&m[i], 41, SL_ACT_BF16, SL_EPI_NONE);
        if (sl_fmt_is_float(m[i].fmt))
            continue;
        check(&m[i], 1, SL_ACT_INT8, SL_EPI_NONE);
        check(&m[i], 9, SL_ACT_INT8, SL_EPI_NONE);
    }
}

static void both_halves_of_a_glu_meet(void **state)
{
    static const struct sl_matrix m[] = {
        {SL_FMT_F32, 44, 40, 2, 0},
        {SL_FMT_INT4, 808, 64, 2, 32},
        {SL_FMT_BF16, 44, 64, 2, 0},
    };

    for (size_t n = 1; n <= 131; n += 65) {
        check(&m[2], n, SL_ACT_F32, SL_EPI_GEGLU);
        check(&m[2], n, SL_ACT_BF16, SL_EPI_GEGLU);
        check(&m[0], n, SL_ACT_F32, SL_EPI_GEGLU);
        check(&m[1], n, SL_ACT_F32, SL_EPI_GEGLU);
        check(&m[1], n, SL_ACT_INT8, SL_EPI_GEGLU);
        check(&m[1], n, SL_ACT_BF16, SL_EPI_GEGLU);
        check(&m[0], n, SL_ACT_F32, SL_EPI_SWIGLU);
        check(&m[1], n, SL_ACT_INT8, SL_EPI_SWIGLU);
    }
}

/* More positions than a cache holds are taken in several runs. */
static void long_prompts_come_in_runs(void **state)
{
    static const struct sl_matrix wide = {SL_FMT_F32, 18, 8192, 1, 0};
    static const struct sl_matrix narrow = {SL_FMT_INT8, 18, 32, 1, 32};
    static const struct sl_matrix long_rows = {SL_FMT_INT4, 600, 12288, 1, 64};
    static const struct sl_matrix longest = {SL_FMT_INT8, 70, 40000, 1, 40000};

    check(&wide, 37, SL_ACT_F32, SL_EPI_NONE);
    check(&long_rows, 117, SL_ACT_INT8, SL_EPI_NONE);
    check(&longest, 37, SL_ACT_INT8, SL_EPI_NONE);
    check(&narrow, 1100, SL_ACT_INT8, SL_EPI_NONE);
}

/* More columns than are unpacked together, and groups of weights that lie
 * across where they are parted. */
static void wide_groups_are_parted(void **state)
{
    static const struct sl_matrix m[] = {
        {SL_FMT_INT4, 72, 1088, 1, 96},  {SL_FMT_INT8, 40, 1088, 1, 1088},
        {SL_FMT_INT8, 72, 1056, 2, 608}, {SL_FMT_F32, 70, 1056, 2, 0},
        {SL_FMT_BF16, 70, 1056, 1, 0},
    };

    for (size_t i = 0; i < sizeof m / sizeof *m; i++)
        for (size_t n = 31; n <= 131; n += 50)
            for (int act = 0; act < SL_ACT_COUNT; act++)
                if (act != SL_ACT_INT8 || !sl_fmt_is_float(m[i].fmt))
                    check(&m[i], n, (enum sl_act)act, SL_EPI_NONE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cuts_and_threads_change_no_bit),
        cmocka_unit_test(both_halves_of_a_glu_meet),
        cmocka_unit_test(long_prompts_come_in_runs),
        cmocka_unit_test(wide_groups_are_parted),
        cmocka_unit_test(planes_have_the_bits_of_their_matrix),
        cmocka_unit_test(every_instruction_set_joins_planes_alike),
        cmocka_unit_test(the_high_plane_is_a_model_of_its_own),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
