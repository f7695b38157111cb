/*
 * Attention to latents on a CUDA device, and what comes before it: the norm of
 * a latent, products of each head alone, keys into the paged cache. Against
 * kernels/ref, plain sums in double, and each head's product by itself.
 *
 * Bounds of attention: as t_cuda_attend has them, of rows in tiles.
 */
#include "config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/half.h"
#include "tests/cuda_pass.h"

#define MARK 0x5a5au

/* --- the norm ------------------------------------------------------------ */

static void norm_case(struct test_cuda *t, uint32_t values, uint32_t turned)
{
    enum { N = 3 };
    size_t stride = ((size_t)values + turned + 7) / 8 * 8 + 8;
    struct test_random rnd = {values};
    uint16_t *x = test_zeros(N * stride, 2), *is = test_zeros(N * stride, 2);
    float *wide = test_zeros(N * stride, 4), *w = test_zeros(values, 4);
    float *ref = test_zeros(values, 4);
    void *dev, *dev_w;
    struct sl_error err;

    test_random_halves(&rnd, x, wide, N * stride);
    for (uint32_t i = 0; i < values; i++)
        w[i] = test_random_float(&rnd);
    dev = test_cuda_up(x, N * stride * 2);
    dev_w = test_cuda_up(w, values * sizeof *w);
    assert_ok(
        sl_cuda_latent_norm(&t->c, dev, stride, dev_w, N, values, 1e-6f, &err),
        &err);
    test_cuda_down(t, is, dev, N * stride * 2);
    for (size_t r = 0; r < N; r++) {
        t->ref.rms_norm(ref, wide + r * stride, w, values, 1e-6f);
        for (uint32_t i = 0; i < values; i++)
            assert_true(fabs((double)sl_half_to_float(is[r * stride + i]) -
                             (double)ref[i]) <=
                        ldexp(fabs((double)ref[i]), -10) + ldexp(1, -20));
        assert_memory_equal(is + r * stride + values, x + r * stride + values,
                            2 * (stride - values));
    }
    test_cuda_free(dev);
    test_cuda_free(dev_w);
    free(x);
    free(is);
    free(wide);
    free(w);
    free(ref);
}

static void latents_are_normed_but_for_what_is_rotated(void **state)
{
    struct test_cuda t;

    test_cuda_open(&t, 0);
    norm_case(&t, 512, 64);
    norm_case(&t, 16, 2);
    norm_case(&t, 1536, 0);
    test_cuda_close(&t);
}

/* --- products of heads --------------------------------------------------- */

enum { HEADS = 5, MOST_N = 70 };

/* A matrix of so many blocks of rows a head; any bytes are weights (finite as
 * floats, too), any inputs. */
struct heads {
    struct sl_matrix m;
    uint32_t each, step;
    size_t x_stride, stride;
    uint16_t *y, *x;
    void *w, *scale, *dev_x, *dev_y;
};

static void heads_init(struct heads *p, enum sl_fmt fmt, uint32_t each,
                       uint32_t cols, uint32_t step)
{
    struct test_random rnd = {fmt * 100 + each};
    struct sl_matrix m = {fmt, HEADS * each * 16, cols, 1,
                          sl_fmt_has_scales(fmt) ? 32 : 0};
    size_t w_bytes, n_scale;
    uint16_t *scale;
    uint8_t *w;

    if (sl_fmt_has_blocks(fmt))
        m.cols = 2 * sl_fmt_of(fmt)->block_cols;
    p->m = m;
    p->each = each;
    p->step = step > m.cols ? step : m.cols;
    p->x_stride = ((size_t)HEADS * p->step + 7) / 8 * 8;
    p->stride = m.rows + 3;
    w_bytes = sl_matrix_bytes(&m);
    n_scale = sl_matrix_scale_bytes(&m) / 2;
    w = test_zeros(w_bytes, 1);
    scale = test_zeros(n_scale, 2);
    p->x = test_zeros(MOST_N * p->x_stride, 2);
    p->y = test_zeros(MOST_N * p->stride, 2);
    for (size_t i = 0; i < w_bytes; i++)
        w[i] = (uint8_t)(test_random_next(&rnd) & 0x2b);
    for (size_t i = 0; i < n_scale; i++)
        scale[i] = sl_float_to_half(0.01f * test_random_float(&rnd));
    test_random_halves(&rnd, p->x, NULL, MOST_N * p->x_stride);
    p->w = test_cuda_up(w, w_bytes);
    p->scale = test_cuda_up(scale, n_scale * 2);
    p->dev_x = test_cuda_up(p->x, MOST_N * p->x_stride * 2);
    p->dev_y = test_cuda_up(p->y, MOST_N * p->stride * 2);
    free(w);
    free(scale);
}

static void heads_fini(struct heads *p)
{
    test_cuda_free(p->w);
    test_cuda_free(p->scale);
    test_cuda_free(p->dev_x);
    test_cuda_free(p->dev_y);
    free(p->x);
    free(p->y);
}

static struct sl_cuda_matmul blocks_of(const struct heads *p, uint32_t first,
                                       uint32_t n)
{
    struct sl_cuda_matmul mm = {
        .m = &p->m, .first_block = first, .n_blocks = n};

    mm.w[0] = (uint8_t *)p->w + sl_matrix_block_offset(&p->m, 0, first);
    if (p->scale != NULL)
        mm.scale[0] =
            (uint16_t *)p->scale + sl_matrix_scale_offset(&p->m, 0, first) / 2;
    return mm;
}

static void clear(struct heads *p)
{
    for (size_t i = 0; i < MOST_N * p->stride; i++)
        p->y[i] = MARK;
    test_cuda_free(p->dev_y);
    p->dev_y = test_cuda_up(p->y, MOST_N * p->stride * 2);
}

/* Blocks [first, end) by one call, into p->y. */
static void together(struct test_cuda *t, struct heads *p, uint32_t first,
                     uint32_t end, uint32_t n)
{
    struct sl_cuda_matmul mm = blocks_of(p, first, end - first);
    struct sl_error err;

    clear(p);
    assert_ok(sl_cuda_multiply_heads(&t->c, p->dev_y, p->stride, &mm, HEADS,
                                     p->step, p->dev_x, p->x_stride, n, &err),
              &err);
    test_cuda_down(t, p->y, p->dev_y, MOST_N * p->stride * 2);
}

/* Each head of them by itself, its inputs where all kernels can load them; to
 * be freed. */
static uint16_t *alone(struct test_cuda *t, struct heads *p, uint32_t first,
                       uint32_t end, uint32_t n)
{
    uint16_t *y = test_zeros(MOST_N * p->stride, 2);
    uint16_t *x = test_zeros(MOST_N * p->x_stride, 2);
    struct sl_error err;

    clear(p);
    for (uint32_t b = first, next; b < end; b = next) {
        struct sl_cuda_matmul mm;
        uint32_t h = b / p->each;
        void *dev;

        next = (h + 1) * p->each < end ? (h + 1) * p->each : end;
        mm = blocks_of(p, b, next - b);
        for (size_t i = 0; i < n; i++)
            memcpy(x + i * p->x_stride, p->x + i * p->x_stride + h * p->step,
                   2 * p->m.cols);
        dev = test_cuda_up(x, MOST_N * p->x_stride * 2);
        assert_ok(sl_cuda_matmul_run(&t->c, p->dev_y, p->stride, SL_CUDA_F16,
                                     &mm, dev, p->x_stride, n, &err),
                  &err);
        test_cuda_down(t, y, p->dev_y, MOST_N * p->stride * 2);
        test_cuda_free(dev);
    }
    free(x);
    return y;
}

static void heads_case(struct test_cuda *t, struct heads *p, uint32_t first,
                       uint32_t end)
{
    static const uint32_t n[] = {1, 3, 9, 20, MOST_N};

    for (size_t i = 0; i < sizeof n / sizeof *n; i++) {
        uint16_t *want = alone(t, p, first, end, n[i]);

        together(t, p, first, end, n[i]);
        for (size_t k = 0; k < MOST_N * p->stride; k++) {
            double v = (double)sl_half_to_float(want[k]);
            double is = (double)sl_half_to_float(p->y[k]);

            if (p->step % 8 == 0 || want[k] == MARK)
                assert_int_equal(p->y[k], want[k]);
            else
                assert_true(fabs(is - v) <= ldexp(fabs(v), -8) + 0.01);
        }
        free(want);
    }
}

static void each_head_multiplies_what_is_its_own(void **state)
{
    struct test_cuda t;

    test_cuda_open(&t, 0); /* no workspace: no cuBLAS */
    for (int fmt = 0; fmt < SL_FMT_COUNT; fmt++) {
        struct heads p;

        heads_init(&p, (enum sl_fmt)fmt, 1, 64, 72);
        heads_case(&t, &p, 0, HEADS);
        heads_fini(&p);
        if (sl_fmt_has_blocks((enum sl_fmt)fmt) && fmt % 3 != 0)
            continue;
        heads_init(&p, (enum sl_fmt)fmt, 9, 96, 0);
        heads_case(&t, &p, 4, HEADS * 9 - 2);
        heads_case(&t, &p, 10, 15);
        heads_fini(&p);
    }
    test_cuda_close(&t);
}

static void inputs_of_heads_may_begin_at_odd_addresses(void **state)
{
    struct test_cuda t;

    test_cuda_open(&t, 0);
    for (int fmt = 0; fmt <= SL_FMT_INT4; fmt++) {
        struct heads p;

        heads_init(&p, (enum sl_fmt)fmt, 2, 32, 37);
        heads_case(&t, &p, 0, HEADS * 2);
        heads_fini(&p);
    }
    test_cuda_close(&t);
}

/* --- keys ---------------------------------------------------------------- */

struct shape {
    uint32_t values, turned, n_heads;
};

static const struct shape shapes[] = {{512, 64, 20}, {16, 4, 4}, {48, 6, 3},
                                      {256, 32, 33}, {64, 0, 1}, {128, 64, 16}};

static const struct test_item items[] = {{0, 1, 0},   {300, 1, 0}, {40, 3, 0},
                                         {5, 18, 20}, {0, 37, 0},  {70, 9, 0}};
#define N_ITEMS (sizeof items / sizeof *items)

/* is: 2 * half values of `from`, rotated. */
static void assert_turned(const struct test_cuda *t, const uint16_t *is,
                          const uint16_t *from, const float *cos,
                          const float *sin, uint32_t half,
                          enum sl_cuda_pairs pairs)
{
    float v[SL_CUDA_MAX_JOINED];

    for (uint32_t e = 0; e < 2 * half; e++)
        v[e] = sl_half_to_float(from[e]);
    if (pairs == SL_CUDA_PAIRS_NEXT)
        t->ref.rope_inter(v, cos, sin, half);
    else
        t->ref.rope(v, cos, sin, half);
    for (uint32_t e = 0; e < 2 * half; e++)
        assert_true(fabs((double)sl_half_to_float(is[e]) - (double)v[e]) <=
                    ldexp(fabs((double)v[e]), -10) + ldexp(1, -14));
}

static void store_case(struct test_cuda *t, const struct shape *s,
                       enum sl_cuda_pairs pairs)
{
    uint32_t d = s->values + s->turned, half = s->turned / 2, rope_at = 5;
    uint32_t step = rope_at + s->turned;
    struct test_random rnd = {d};
    struct sl_cuda_latent l = {
        .q_stride = (size_t)s->n_heads * s->values + 8,
        .turn_stride = (size_t)s->n_heads * step + 1,
        .key_stride = d + 2,
        .turn_head = step,
        .n_heads = s->n_heads,
        .values = s->values,
        .turned = s->turned,
        .pairs = pairs,
    };
    struct test_pass p;
    uint16_t *q, *turn, *key;
    float *cos, *sin;
    void *dev_q, *dev_turn, *dev_key;
    struct sl_error err;

    test_pass_init(&p, d, 1, s->n_heads, items, N_ITEMS);
    q = test_zeros(p.n * l.q_stride, 2);
    turn = test_zeros(p.n * l.turn_stride, 2);
    key = test_zeros(p.n * l.key_stride, 2);
    cos = test_zeros((size_t)p.n * half, 4);
    sin = test_zeros((size_t)p.n * half, 4);
    test_random_halves(&rnd, q, NULL, p.n * l.q_stride);
    test_random_halves(&rnd, turn, NULL, p.n * l.turn_stride);
    test_random_halves(&rnd, key, NULL, p.n * l.key_stride);
    for (size_t i = 0; i < (size_t)p.n * half; i++) {
        float a = 3 * test_random_float(&rnd);

        cos[i] = cosf(a);
        sin[i] = sinf(a);
    }
    l.q = dev_q = test_cuda_up(q, p.n * l.q_stride * 2);
    dev_turn = test_cuda_up(turn, p.n * l.turn_stride * 2);
    l.turn = (uint16_t *)dev_turn + rope_at;
    l.key = dev_key = test_cuda_up(key, p.n * l.key_stride * 2);
    p.rows.cos = test_cuda_up(cos, (size_t)p.n * half * 4);
    p.rows.sin = test_cuda_up(sin, (size_t)p.n * half * 4);
    assert_ok(sl_cuda_latent_store(&t->c, p.dev_q, p.stride, &p.kv, &l, &p.rows,
                                   &err),
              &err);
    test_cuda_down(t, p.q, p.dev_q, p.n * p.stride * 2);
    test_cuda_down(t, p.k, p.kv.k, TEST_PASS_PAGES * p.page_stride * 2);
    for (size_t i = 0; i < (size_t)p.n * (s->n_heads + 1); i++) {
        size_t r = i / (s->n_heads + 1), h = i % (s->n_heads + 1);
        uint32_t at = p.position[r];
        bool is_key = h == s->n_heads;
        const uint16_t *is = p.q + r * p.stride + h * d;
        const uint16_t *want = q + r * l.q_stride + h * s->values;
        const uint16_t *from = turn + r * l.turn_stride + h * step + rope_at;

        if (is_key) {
            is = p.k + p.pages[p.table[r] + at / 16] * p.page_stride +
                 (size_t)(at % 16) * d;
            want = key + r * l.key_stride;
            from = want + s->values;
        }
        assert_memory_equal(is, want, 2 * s->values);
        assert_turned(t, is + s->values, from, cos + r * half, sin + r * half,
                      half, pairs);
    }
    test_cuda_free(dev_q);
    test_cuda_free(dev_turn);
    test_cuda_free(dev_key);
    test_cuda_free((void *)(uintptr_t)p.rows.cos);
    test_cuda_free((void *)(uintptr_t)p.rows.sin);
    free(q);
    free(turn);
    free(key);
    free(cos);
    free(sin);
    test_pass_fini(&p);
}

static void queries_are_joined_and_one_key_is_stored(void **state)
{
    struct test_cuda t;

    test_cuda_open(&t, 0);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        store_case(&t, &shapes[i],
                   i % 2 ? SL_CUDA_PAIRS_APART : SL_CUDA_PAIRS_NEXT);
    test_cuda_close(&t);
}

/* --- attention ----------------------------------------------------------- */

static const uint16_t *key_of(const struct test_pass *p, uint32_t row,
                              uint32_t key)
{
    return p->k + p->pages[p->table[row] + key / 16] * p->page_stride +
           (size_t)(key % 16) * p->d;
}

/* Row r of head h, and how far off it may be. */
static double expect(const struct test_pass *p, uint32_t values, double scale,
                     uint32_t r, uint32_t h, double *out)
{
    const uint16_t *q = p->q + r * p->stride + (size_t)h * p->d;
    double score[TEST_PASS_PAGES * 16], max = -INFINITY, sum = 0, size = 0,
                                        most = 0;

    memset(out, 0, values * sizeof *out);
    for (uint32_t j = 0; j < p->n_keys[r]; j++) {
        const uint16_t *k = key_of(p, r, j);
        double magnitude = 0;

        score[j] = 0;
        for (uint32_t i = 0; i < p->d; i++) {
            double v =
                (double)sl_half_to_float(q[i]) * (double)sl_half_to_float(k[i]);

            score[j] += v * scale;
            magnitude += fabs(v) * scale;
        }
        max = fmax(max, score[j]);
        size = fmax(size, magnitude);
    }
    for (uint32_t j = 0; j < p->n_keys[r]; j++) {
        const uint16_t *k = key_of(p, r, j);
        double by = exp(score[j] - max);

        sum += by;
        for (uint32_t i = 0; i < values; i++) {
            out[i] += by * (double)sl_half_to_float(k[i]);
            most = fmax(most, fabs((double)sl_half_to_float(k[i])));
        }
    }
    for (uint32_t i = 0; i < values; i++)
        out[i] /= sum;
    return most * (ldexp(1, -10) + ldexp(2.0 * p->d * size, -24) +
                   ldexp(p->n_keys[r], -22)) +
           ldexp(1, -24);
}

static void attend(struct test_cuda *t, struct test_pass *p, uint32_t values,
                   uint16_t *out)
{
    float scale = 1 / sqrtf((float)p->d);
    struct sl_error err;

    for (size_t i = 0; i < p->n * p->stride; i++)
        out[i] = MARK;
    test_cuda_free(p->dev_out);
    p->dev_out = test_cuda_up(out, p->n * p->stride * 2);
    assert_ok(sl_cuda_attend_latent(&t->c, p->dev_out, p->stride, p->dev_q,
                                    p->stride, p->n_heads, &p->kv, values,
                                    scale, &p->rows, &err),
              &err);
    test_cuda_down(t, out, p->dev_out, p->n * p->stride * 2);
}

static void attend_case(struct test_cuda *t, const struct shape *s)
{
    double row[SL_CUDA_MAX_LATENT];
    struct test_pass p;
    uint16_t *out;

    test_pass_init(&p, s->values + s->turned, 1, s->n_heads, items, N_ITEMS);
    out = test_zeros(p.n * p.stride, 2);
    attend(t, &p, s->values, out);
    for (uint32_t r = 0; r < p.n; r++) {
        const uint16_t *is = out + r * p.stride;

        for (uint32_t h = 0; h < s->n_heads; h++, is += s->values) {
            double bound = expect(&p, s->values,
                                  (double)(1 / sqrtf((float)p.d)), r, h, row);

            for (uint32_t i = 0; i < s->values; i++)
                if (!(fabs((double)sl_half_to_float(is[i]) - row[i]) <= bound))
                    fail_msg("latents of %u + %u, row %u (%u keys), head %u: "
                             "out[%u] = %g, should be %g +- %g",
                             s->values, s->turned, r, p.n_keys[r], h, i,
                             (double)sl_half_to_float(is[i]), row[i], bound);
        }
        for (; is < out + (r + 1) * p.stride; is++)
            assert_int_equal(*is, MARK);
    }
    free(out);
    test_pass_fini(&p);
}

static void rows_and_prompts_attend_to_latents(void **state)
{
    struct test_cuda t;

    test_cuda_open(&t, 1 << 20);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        attend_case(&t, &shapes[i]);
    test_cuda_close(&t);
}

static void what_is_too_wide_or_has_no_room_is_refused(void **state)
{
    static const struct test_item one = {300, 1, 0};
    struct test_cuda t;
    struct test_pass p;
    struct sl_error err;

    test_cuda_open(&t, 0);
    test_pass_init(&p, 592, 1, 2, &one, 1);
    assert_int_equal(sl_cuda_attend_latent(&t.c, p.dev_out, p.stride, p.dev_q,
                                           p.stride, 2, &p.kv, 528, 1, &p.rows,
                                           &err),
                     -1);
    assert_int_equal(err.code, SL_ERR_UNSUPPORTED);
    test_pass_fini(&p);
    test_pass_init(&p, 40, 1, 2, &one, 1);
    assert_int_equal(sl_cuda_attend_latent(&t.c, p.dev_out, p.stride, p.dev_q,
                                           p.stride, 2, &p.kv, 32, 1, &p.rows,
                                           &err),
                     -1);
    assert_int_equal(err.code, SL_ERR_BUDGET);
    test_pass_fini(&p);
    test_cuda_close(&t);
}

enum { NODES = 13 };

static uint64_t path_of(uint32_t node)
{
    uint64_t path = 1;

    for (; node > 0; node = node % 3 == 0 ? node - 1 : node / 2)
        path |= UINT64_C(1) << node;
    return path;
}

/* A node of a tree, beside another sequence's row, has the bits that it has
 * alone with its path. */
static void tree_case(struct test_cuda *t, const struct shape *s, uint32_t base)
{
    const struct test_item both[] = {{40, 1, 0}, {base, NODES, 0}};
    uint32_t d = s->values + s->turned, fork[TEST_PASS_ROWS] = {UINT32_MAX};
    uint64_t path[TEST_PASS_ROWS] = {0};
    struct test_pass p;
    uint16_t *rows;

    test_pass_init(&p, d, 1, s->n_heads, both, 2);
    for (uint32_t r = 1; r < p.n; r++) {
        fork[r] = base;
        path[r] = path_of(r - 1);
        p.n_keys[r] = base + (uint32_t)__builtin_popcountll(path[r]);
    }
    test_cuda_free((void *)(uintptr_t)p.rows.n_keys);
    p.rows.n_keys = test_cuda_up(p.n_keys, sizeof p.n_keys);
    p.rows.fork = test_cuda_up(fork, sizeof fork);
    p.rows.path = test_cuda_up(path, sizeof path);
    p.items[1].tree = true;
    rows = test_zeros(p.n * p.stride, 2);
    attend(t, &p, s->values, rows);
    for (uint32_t r = 0; r < p.n; r++) {
        const struct test_item one = {p.n_keys[r] - 1, 1, 0};
        struct test_pass single;
        uint16_t *row;

        test_pass_init(&single, d, 1, s->n_heads, &one, 1);
        for (uint32_t key = 0, from = 0; key < p.n_keys[r]; key++, from++) {
            while (from >= fork[r] && (path[r] >> (from - fork[r]) & 1) == 0)
                from++;
            memcpy((void *)(uintptr_t)key_of(&single, 0, key),
                   key_of(&p, r, from), 2 * d);
        }
        test_cuda_free(single.kv.k);
        test_cuda_free(single.dev_q);
        single.kv.k =
            test_cuda_up(single.k, 2 * TEST_PASS_PAGES * single.page_stride);
        single.dev_q = test_cuda_up(p.q + r * p.stride, p.stride * 2);
        row = test_zeros(single.stride, 2);
        attend(t, &single, s->values, row);
        assert_memory_equal(row, rows + r * p.stride,
                            2ull * s->n_heads * s->values);
        free(row);
        test_pass_fini(&single);
    }
    free(rows);
    test_cuda_free((void *)(uintptr_t)p.rows.fork);
    test_cuda_free((void *)(uintptr_t)p.rows.path);
    test_pass_fini(&p);
}

static void a_node_of_a_tree_has_the_bits_of_its_path(void **state)
{
    static const uint32_t bases[] = {5, 250, 300};
    struct test_cuda t;

    test_cuda_open(&t, 1 << 20);
    for (size_t i = 0; i < 3; i++)
        tree_case(&t, &shapes[i], bases[i]);
    test_cuda_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(latents_are_normed_but_for_what_is_rotated),
        cmocka_unit_test(each_head_multiplies_what_is_its_own),
        cmocka_unit_test(inputs_of_heads_may_begin_at_odd_addresses),
        cmocka_unit_test(queries_are_joined_and_one_key_is_stored),
        cmocka_unit_test(rows_and_prompts_attend_to_latents),
        cmocka_unit_test(what_is_too_wide_or_has_no_room_is_refused),
        cmocka_unit_test(a_node_of_a_tree_has_the_bits_of_its_path),
    };

    test_cuda_need();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
