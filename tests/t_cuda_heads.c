/*
 * What is done with the heads of q and k before attention, on a CUDA device
 * against kernels/ref: their norms, rotary positions in every order of qkv,
 * and keys and values into the paged cache.
 */
#include "config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/half.h"
#include "tests/cuda_pass.h"

/* --- rotary positions ---------------------------------------------------- */

static void near_half(uint16_t is, float v)
{
    double bound = ldexp(fabs((double)v), -10) + ldexp(1, -20);

    if (!(fabs((double)sl_half_to_float(is) - (double)v) <= bound))
        fail_msg("%g, should be %g", (double)sl_half_to_float(is), (double)v);
}

static void rotate(const struct test_cuda *t, float *v, const float *cos,
                   const float *sin, uint32_t half, bool two)
{
    if (!two) {
        t->ref.rope(v, cos, sin, half);
        return;
    }
    t->ref.rope(v, cos, sin, half / 2);
    t->ref.rope(v + half, cos + half / 2, sin + half / 2, half / 2);
}

static void rope_case(struct test_cuda *t, uint32_t d, bool two, bool f16)
{
    static const struct test_item items[] = {{0, 20, 18}, {33, 1, 0}};
    uint32_t half = d / 2, heads = 3;
    struct test_random rnd = {d};
    struct test_pass p;
    size_t stride, n;
    float *qkv, *cos, *sin, head[SL_CUDA_MAX_HEAD];
    uint16_t *qkv16;
    void *dev, *dev_cos, *dev_sin;
    struct sl_error err;

    test_pass_init(&p, d, heads, 1, items, 2);
    stride = (size_t)heads * 3 * d + 2;
    n = p.n * stride;
    qkv = test_zeros(n, sizeof *qkv);
    qkv16 = test_zeros(n, 2);
    cos = test_zeros((size_t)p.n * half, sizeof *cos);
    sin = test_zeros((size_t)p.n * half, sizeof *sin);
    test_random_halves(&rnd, qkv16, qkv, n);
    for (size_t i = 0; i < (size_t)p.n * half; i++) {
        float a = 3 * test_random_float(&rnd);

        cos[i] = cosf(a);
        sin[i] = sinf(a);
    }
    dev = f16 ? test_cuda_up(qkv16, n * 2) : test_cuda_up(qkv, n * 4);
    p.rows.cos = dev_cos = test_cuda_up(cos, (size_t)p.n * half * 4);
    p.rows.sin = dev_sin = test_cuda_up(sin, (size_t)p.n * half * 4);
    assert_ok(sl_cuda_rope_store(&t->c, p.dev_q, p.stride, &p.kv, dev, stride,
                                 f16 ? SL_CUDA_F16 : SL_CUDA_F32, &p.rows, two,
                                 &err),
              &err);
    test_cuda_down(t, p.q, p.dev_q, p.n * p.stride * 2);
    test_cuda_down(t, p.k, p.kv.k, TEST_PASS_PAGES * p.page_stride * 2);
    test_cuda_down(t, p.v, p.kv.v, TEST_PASS_PAGES * p.page_stride * 2);
    for (uint32_t i = 0; i < p.n * heads; i++) {
        uint32_t r = i / heads, h = i % heads, at = p.position[r];
        const float *from = qkv + r * stride + (size_t)h * 3 * d;
        size_t to = p.pages[p.table[r] + at / 16] * p.page_stride +
                    ((size_t)h * 16 + at % 16) * d;

        for (int part = 0; part < 3; part++) {
            const uint16_t *is = part == 0   ? p.q + r * p.stride + h * d
                                 : part == 1 ? p.k + to
                                             : p.v + to;

            memcpy(head, from + part * d, d * sizeof *head);
            if (part < 2)
                rotate(t, head, cos + (size_t)r * half, sin + (size_t)r * half,
                       half, two);
            for (uint32_t e = 0; e < d; e++)
                near_half(is[e], head[e]);
        }
    }
    test_cuda_free(dev);
    test_cuda_free(dev_cos);
    test_cuda_free(dev_sin);
    free(qkv);
    free(qkv16);
    free(cos);
    free(sin);
    test_pass_fini(&p);
}

static void q_and_k_are_rotated_and_k_and_v_stored(void **state)
{
    struct test_cuda t;

    test_cuda_open(&t, 0);
    rope_case(&t, 32, false, false);
    rope_case(&t, 128, false, true);
    rope_case(&t, 20, true, false);
    rope_case(&t, 64, true, true);
    test_cuda_close(&t);
}

/* --- other orders, parts of heads ---------------------------------------- */

struct turn_case {
    uint32_t d, n_kv, group;
    enum sl_cuda_order order;
    enum sl_cuda_pairs pairs;
    uint32_t turned;
    bool f16;
};

/* Where head h of q (part 0), k (1) or v (2) begins in a row of qkv. */
static size_t head_at(const struct turn_case *c, int part, uint32_t h)
{
    uint32_t g = c->group, n_q = c->n_kv * g, head;

    if (c->order == SL_CUDA_BLOCKS)
        head = h + (part > 0 ? n_q : 0) + (part > 1 ? c->n_kv : 0);
    else if (part == 0)
        head = h / g * (g + 2) + h % g;
    else
        head = h * (g + 2) + g + (uint32_t)part - 1;
    return (size_t)head * c->d;
}

static void turn(const struct test_cuda *t, const struct turn_case *c, float *v,
                 const float *cos, const float *sin)
{
    uint32_t half = c->turned / 2;

    if (c->pairs == SL_CUDA_PAIRS_NEXT)
        t->ref.rope_inter(v, cos, sin, half);
    else
        rotate(t, v, cos, sin, half, c->pairs == SL_CUDA_PAIRS_2D);
}

static struct sl_cuda_qkv qkv_of(const struct turn_case *c, void *at,
                                 size_t stride, uint32_t n)
{
    return (struct sl_cuda_qkv){
        .at = at,
        .stride = stride,
        .type = c->f16 ? SL_CUDA_F16 : SL_CUDA_F32,
        .order = c->order,
        .n = n,
        .n_heads = c->n_kv * c->group,
        .n_kv_heads = c->n_kv,
        .head_dim = c->d,
    };
}

/* q, k and v of the pass before the call. */
struct before {
    uint16_t *q, *k, *v;
};

static struct before before_make(const struct test_pass *p)
{
    size_t values = TEST_PASS_PAGES * p->page_stride, n = p->n * p->stride;
    struct before b = {test_zeros(n, 2), test_zeros(values, 2),
                       test_zeros(values, 2)};

    memcpy(b.q, p->q, n * 2);
    memcpy(b.k, p->k, values * 2);
    memcpy(b.v, p->v, values * 2);
    return b;
}

static void before_free(struct before *b)
{
    free(b->q);
    free(b->k);
    free(b->v);
}

/* qkv: what the device was given. Nothing else in q and in the pages may have
 * changed: what was to be written is made the same and all compared. */
static void check_turned(struct test_cuda *t, const struct turn_case *c,
                         struct test_pass *p, struct before *b,
                         const float *qkv, size_t stride, const float *cos,
                         const float *sin)
{
    size_t half = c->turned / 2, values = TEST_PASS_PAGES * p->page_stride;
    float head[SL_CUDA_MAX_HEAD];

    for (size_t r = 0; r < p->n; r++) {
        uint32_t at = p->position[r];
        size_t page = p->pages[p->table[r] + at / 16] * p->page_stride;

        for (int part = 0; part < 3; part++) {
            for (uint32_t h = 0; h < (part ? p->n_kv : p->n_heads); h++) {
                size_t to = part == 0
                                ? r * p->stride + (size_t)h * c->d
                                : page + ((size_t)h * 16 + at % 16) * c->d;
                uint16_t *is = (part == 0 ? p->q : part == 1 ? p->k : p->v);
                uint16_t *was = (part == 0 ? b->q : part == 1 ? b->k : b->v);

                memcpy(head, qkv + r * stride + head_at(c, part, h),
                       c->d * sizeof *head);
                if (part < 2)
                    turn(t, c, head, cos + r * half, sin + r * half);
                for (uint32_t e = 0; e < c->d; e++)
                    near_half(is[to + e], head[e]);
                memcpy(was + to, is + to, c->d * sizeof *is);
            }
        }
    }
    assert_memory_equal(b->q, p->q, p->n * p->stride * 2);
    assert_memory_equal(b->k, p->k, values * 2);
    assert_memory_equal(b->v, p->v, values * 2);
}

static void turn_heads(struct test_cuda *t, const struct turn_case *c)
{
    static const struct test_item items[] = {{0, 20, 18}, {33, 1, 0}};
    uint32_t half = c->turned / 2;
    struct test_random rnd = {c->d};
    struct test_pass p;
    size_t stride = (size_t)(c->group + 2) * c->n_kv * c->d + 2, n, n_turns;
    float *qkv, *cos, *sin;
    uint16_t *qkv16;
    struct sl_cuda_qkv qkv_dev;
    struct before before;
    struct sl_error err;
    void *dev_cos, *dev_sin;

    test_pass_init(&p, c->d, c->n_kv, c->group, items, 2);
    before = before_make(&p);
    n = p.n * stride;
    n_turns = (size_t)p.n * half;
    qkv = test_zeros(n, sizeof *qkv);
    qkv16 = test_zeros(n, 2);
    cos = test_zeros(n_turns, sizeof *cos);
    sin = test_zeros(n_turns, sizeof *sin);
    test_random_halves(&rnd, qkv16, qkv, n);
    for (size_t i = 0; i < n_turns; i++) {
        float a = 3 * test_random_float(&rnd);

        cos[i] = cosf(a);
        sin[i] = sinf(a);
    }
    qkv_dev = qkv_of(
        c, c->f16 ? test_cuda_up(qkv16, n * 2) : test_cuda_up(qkv, n * 4),
        stride, p.n);
    p.rows.cos = dev_cos = test_cuda_up(cos, n_turns * 4);
    p.rows.sin = dev_sin = test_cuda_up(sin, n_turns * 4);
    assert_ok(sl_cuda_rotate_store(&t->c, p.dev_q, p.stride, &p.kv, &qkv_dev,
                                   &p.rows, c->pairs, c->turned, &err),
              &err);
    test_cuda_down(t, p.q, p.dev_q, p.n * p.stride * 2);
    test_cuda_down(t, p.k, p.kv.k, TEST_PASS_PAGES * p.page_stride * 2);
    test_cuda_down(t, p.v, p.kv.v, TEST_PASS_PAGES * p.page_stride * 2);
    check_turned(t, c, &p, &before, qkv, stride, cos, sin);
    before_free(&before);
    test_cuda_free(qkv_dev.at);
    test_cuda_free(dev_cos);
    test_cuda_free(dev_sin);
    free(qkv);
    free(qkv16);
    free(cos);
    free(sin);
    test_pass_fini(&p);
}

static const struct turn_case turn_cases[] = {
    {128, 2, 4, SL_CUDA_BLOCKS, SL_CUDA_PAIRS_NEXT, 64, true},
    {64, 2, 7, SL_CUDA_BLOCKS, SL_CUDA_PAIRS_APART, 64, true},
    {80, 3, 1, SL_CUDA_BLOCKS, SL_CUDA_PAIRS_APART, 40, false},
    {24, 2, 3, SL_CUDA_BY_HEAD, SL_CUDA_PAIRS_NEXT, 24, false},
    {20, 3, 1, SL_CUDA_BY_HEAD, SL_CUDA_PAIRS_2D, 20, true},
    {64, 3, 1, SL_CUDA_BLOCKS, SL_CUDA_PAIRS_APART, 0, true},
};

static void heads_are_turned_in_every_order(void **state)
{
    struct test_cuda t;

    test_cuda_open(&t, 0);
    for (size_t i = 0; i < sizeof turn_cases / sizeof *turn_cases; i++)
        turn_heads(&t, &turn_cases[i]);
    test_cuda_close(&t);
}

/* v and what lies between rows stay; q alone is normed where k has no
 * weights. */
static void norm_heads(struct test_cuda *t, const struct turn_case *c,
                       bool only_q)
{
    uint32_t n = 3, n_q = c->n_kv * c->group;
    size_t stride = (size_t)(c->group + 2) * c->n_kv * c->d + 2;
    struct test_random rnd = {c->d};
    float *x = test_zeros(n * stride, 4), *is = test_zeros(n * stride, 4);
    float w[2][SL_CUDA_MAX_HEAD];
    uint16_t *x16 = test_zeros(n * stride, 2);
    struct sl_cuda_qkv qkv;
    void *dev_w[2];
    struct sl_error err;

    test_random_halves(&rnd, x16, x, n * stride);
    for (uint32_t i = 0; i < 2 * c->d; i++)
        w[i / c->d][i % c->d] = 2 * test_random_float(&rnd);
    for (int i = 0; i < 2; i++)
        dev_w[i] = test_cuda_up(w[i], c->d * sizeof(float));
    qkv = qkv_of(c,
                 c->f16 ? test_cuda_up(x16, n * stride * 2)
                        : test_cuda_up(x, n * stride * 4),
                 stride, n);
    assert_ok(sl_cuda_head_norm(&t->c, &qkv, dev_w[0], only_q ? NULL : dev_w[1],
                                1e-6f, &err),
              &err);
    if (c->f16) {
        test_cuda_down(t, x16, qkv.at, n * stride * 2);
        t->ref.f16_to_f32(is, x16, n * stride);
    } else {
        test_cuda_down(t, is, qkv.at, n * stride * 4);
    }
    for (uint32_t r = 0; r < n; r++)
        for (uint32_t h = 0; h < n_q + (only_q ? 0 : c->n_kv); h++) {
            float *v =
                x + r * stride + head_at(c, h >= n_q, h >= n_q ? h - n_q : h);

            t->ref.rms_norm(v, v, w[h >= n_q], c->d, 1e-6f);
        }
    for (size_t i = 0; i < n * stride; i++)
        if (!(fabs((double)is[i] - (double)x[i]) <=
              ldexp(fabs((double)x[i]), c->f16 ? -10 : -20) + ldexp(1, -20)))
            fail_msg("value %zu is %g, not %g", i, (double)is[i], (double)x[i]);
    test_cuda_free(qkv.at);
    test_cuda_free(dev_w[0]);
    test_cuda_free(dev_w[1]);
    free(x);
    free(is);
    free(x16);
}

static void heads_of_q_and_k_are_normed_in_place(void **state)
{
    struct turn_case wide = {.d = SL_CUDA_MAX_HEAD + 2, .n_kv = 1, .group = 1};
    struct sl_cuda_qkv qkv = qkv_of(&wide, NULL, 0, 1);
    struct test_cuda t;
    struct sl_error err;

    test_cuda_open(&t, 0);
    for (size_t i = 0; i < sizeof turn_cases / sizeof *turn_cases; i++)
        norm_heads(&t, &turn_cases[i], i % 3 == 1);
    assert_int_equal(sl_cuda_head_norm(&t.c, &qkv, NULL, NULL, 1e-6f, &err),
                     -1);
    assert_int_equal(err.code, SL_ERR_UNSUPPORTED);
    test_cuda_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(q_and_k_are_rotated_and_k_and_v_stored),
        cmocka_unit_test(heads_are_turned_in_every_order),
        cmocka_unit_test(heads_of_q_and_k_are_normed_in_place),
    };

    test_cuda_need();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
