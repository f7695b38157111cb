/*
 * Rotary positions, the paged cache and attention on a CUDA device against
 * kernels/ref: sequences whose pages lie in no order, contexts that all rows
 * see, heads of even and odd widths.
 *
 * Bounds. Probabilities are rounded to FP16 where rows are taken in tiles and
 * the result is stored as FP16: 2^-11 of the largest value each. A score is
 * off by d * 2^-24 of the sum of its magnitudes, and a probability by twice
 * that.
 */
#include "config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/half.h"
#include "tests/cuda_support.h"

#define MOST_ROWS 200u
#define PAGES     96u
#define MARK      0x5a5au

struct item {
    uint32_t base, n, context; /* positions before, rows, context */
};

struct pass {
    uint32_t d, n_heads, n;
    size_t stride, page_stride;
    struct sl_cuda_item items[8];
    size_t n_items;
    uint32_t position[MOST_ROWS], n_keys[MOST_ROWS], table[MOST_ROWS];
    uint32_t pages[PAGES];
    uint16_t *k, *v, *q; /* host */
    struct sl_cuda_kv kv;
    struct sl_cuda_rows rows;
    uint16_t *dev_q, *dev_out;
};

static void *make(size_t n, size_t size)
{
    void *p = calloc(n, size);

    assert_non_null(p);
    return p;
}

/* Pages are handed out last to first, every third left out. */
static void lay_out(struct pass *p, const struct item *items, size_t n_items)
{
    uint32_t used = 0, page = PAGES - 1;

    p->n_items = n_items;
    for (size_t i = 0; i < n_items; i++) {
        uint32_t len = items[i].base + items[i].n, most = 0;

        for (uint32_t j = 0; j < items[i].n; j++) {
            uint32_t row = p->n + j, causal = items[i].base + j + 1;

            p->position[row] = items[i].base + j;
            p->n_keys[row] =
                causal > items[i].context ? causal : items[i].context;
            p->table[row] = used;
            if (p->n_keys[row] > most)
                most = p->n_keys[row];
        }
        p->items[i] = (struct sl_cuda_item){p->n, items[i].n, most};
        p->n += items[i].n;
        for (uint32_t k = 0; k < (len + 15) / 16; k++) {
            assert_true(page < PAGES && used < PAGES);
            p->pages[used++] = page;
            page -= k % 3 == 2 ? 2 : 1;
        }
    }
    assert_true(p->n <= MOST_ROWS);
}

static void pass_init(struct pass *p, uint32_t d, uint32_t n_heads,
                      const struct item *items, size_t n_items)
{
    struct test_random rnd = {d * 31 + n_heads + n_items};
    size_t values;

    memset(p, 0, sizeof *p);
    p->d = d;
    p->n_heads = n_heads;
    lay_out(p, items, n_items);
    p->stride = ((size_t)n_heads * d + 7) / 8 * 8 + 8;
    p->page_stride = ((size_t)n_heads * d * 16 + 7) / 8 * 8 + 16;
    values = PAGES * p->page_stride;
    p->k = make(values, 2);
    p->v = make(values, 2);
    p->q = make(p->n * p->stride, 2);
    test_random_halves(&rnd, p->k, NULL, values);
    test_random_halves(&rnd, p->v, NULL, values);
    test_random_halves(&rnd, p->q, NULL, p->n * p->stride);
    p->kv = (struct sl_cuda_kv){
        .k = test_cuda_up(p->k, values * 2),
        .v = test_cuda_up(p->v, values * 2),
        .page_stride = p->page_stride,
        .n_heads = n_heads,
        .head_dim = d,
    };
    p->rows = (struct sl_cuda_rows){
        .n = p->n,
        .position = test_cuda_up(p->position, sizeof p->position),
        .n_keys = test_cuda_up(p->n_keys, sizeof p->n_keys),
        .table = test_cuda_up(p->table, sizeof p->table),
        .pages = test_cuda_up(p->pages, sizeof p->pages),
        .items = p->items,
        .n_items = n_items,
    };
    p->dev_q = test_cuda_up(p->q, p->n * p->stride * 2);
    p->dev_out = test_cuda_up(p->q, p->n * p->stride * 2);
}

static void pass_fini(struct pass *p)
{
    test_cuda_free(p->kv.k);
    test_cuda_free(p->kv.v);
    test_cuda_free((void *)(uintptr_t)p->rows.position);
    test_cuda_free((void *)(uintptr_t)p->rows.n_keys);
    test_cuda_free((void *)(uintptr_t)p->rows.table);
    test_cuda_free((void *)(uintptr_t)p->rows.pages);
    test_cuda_free(p->dev_q);
    test_cuda_free(p->dev_out);
    free(p->k);
    free(p->v);
    free(p->q);
}

/* Row r of head h by kernels/ref, and how far off it may be. */
static double expect(const struct test_cuda *t, const struct pass *p,
                     uint32_t r, uint32_t h, float *out)
{
    const void *k_pages[PAGES], *v_pages[PAGES];
    float q[SL_CUDA_MAX_HEAD], *scores = make(16 * PAGES, sizeof *scores);
    uint32_t d = p->d, n = p->n_keys[r];
    double most = 0, size = 0;
    struct sl_attend_args args = {
        .out = out,
        .out_stride = d,
        .q = q,
        .q_stride = d,
        .n_q = 1,
        .n_keys = &p->n_keys[r],
        .k_pages = k_pages,
        .v_pages = v_pages,
        .page_len = 16,
        .d = d,
        .kv_kind = SL_KV_F16,
        .n_paged = n,
        .scale = 1 / sqrtf((float)d),
        .scores = scores,
    };

    for (uint32_t i = 0; i < d; i++)
        q[i] = sl_half_to_float(p->q[r * p->stride + h * d + i]);
    for (uint32_t i = 0; i < (n + 15) / 16; i++) {
        size_t at =
            p->pages[p->table[r] + i] * p->page_stride + (size_t)h * 16 * d;

        k_pages[i] = p->k + at;
        v_pages[i] = p->v + at;
    }
    for (uint32_t j = 0; j < n; j++) {
        const uint16_t *k = (const uint16_t *)k_pages[j / 16] + j % 16 * d;
        const uint16_t *v = (const uint16_t *)v_pages[j / 16] + j % 16 * d;
        double sum = 0;

        for (uint32_t i = 0; i < d; i++) {
            most = fmax(most, fabs((double)sl_half_to_float(v[i])));
            sum += fabs((double)q[i] * (double)sl_half_to_float(k[i]));
        }
        size = fmax(size, sum * (double)args.scale);
    }
    t->ref.attend(&args);
    free(scores);
    return most * (ldexp(1, -10) + ldexp(2.0 * d * size, -24) + ldexp(n, -22)) +
           ldexp(1, -24);
}

static void attend(struct test_cuda *t, struct pass *p)
{
    uint16_t *out = make(p->n * p->stride, 2);
    float row[SL_CUDA_MAX_HEAD];
    struct sl_error err;

    for (size_t i = 0; i < p->n * p->stride; i++)
        out[i] = MARK;
    test_cuda_free(p->dev_out);
    p->dev_out = test_cuda_up(out, p->n * p->stride * 2);
    assert_ok(sl_cuda_attend(&t->c, p->dev_out, p->stride, p->dev_q, p->stride,
                             &p->kv, &p->rows, &err),
              &err);
    test_cuda_down(t, out, p->dev_out, p->n * p->stride * 2);
    for (uint32_t r = 0; r < p->n; r++) {
        for (uint32_t h = 0; h < p->n_heads; h++) {
            double bound = expect(t, p, r, h, row);

            for (uint32_t i = 0; i < p->d; i++) {
                float is = sl_half_to_float(out[r * p->stride + h * p->d + i]);

                if (!(fabs((double)is - (double)row[i]) <= bound))
                    fail_msg("heads of %u, row %u (%u keys), head %u: "
                             "out[%u] = %g, should be %g +- %g",
                             p->d, r, p->n_keys[r], h, i, (double)is,
                             (double)row[i], bound);
            }
        }
        for (size_t i = (size_t)p->n_heads * p->d; i < p->stride; i++)
            assert_int_equal(out[r * p->stride + i], MARK);
    }
    free(out);
}

static const uint32_t dims[] = {32, 64, 128, 80, 20, 200};

static void single_rows_attend_to_the_keys_of_their_sequence(void **state)
{
    static const struct item items[] = {
        {0, 1, 0}, {300, 1, 0}, {40, 3, 0}, {15, 1, 0}};
    struct test_cuda t;
    struct pass p;

    test_cuda_open(&t, 1 << 20);
    for (size_t i = 0; i < sizeof dims / sizeof *dims; i++) {
        pass_init(&p, dims[i], 2, items, 4);
        attend(&t, &p);
        pass_fini(&p);
    }
    test_cuda_close(&t);
}

static void prompts_attend_to_their_context_and_back(void **state)
{
    static const struct item items[] = {
        {0, 37, 30}, {5, 1, 0}, {70, 9, 75}, {0, 70, 0}};
    struct test_cuda t;
    struct pass p;

    test_cuda_open(&t, 1 << 20);
    for (size_t i = 0; i < sizeof dims / sizeof *dims; i++) {
        pass_init(&p, dims[i], 2, items, 4);
        attend(&t, &p);
        pass_fini(&p);
    }
    test_cuda_close(&t);
}

static void rows_are_taken_in_turns_where_the_workspace_is_small(void **state)
{
    static const struct item items[] = {{300, 5, 0}, {520, 1, 0}};
    struct test_cuda t;
    struct pass p;
    struct sl_error err;

    pass_init(&p, 32, 3, items, 2);
    test_cuda_open(&t, 2 * sl_cuda_attend_workspace(1, 3, 32, 521));
    attend(&t, &p);
    test_cuda_set_workspace(&t, 0);
    assert_int_equal(sl_cuda_attend(&t.c, p.dev_out, p.stride, p.dev_q,
                                    p.stride, &p.kv, &p.rows, &err),
                     -1);
    assert_int_equal(err.code, SL_ERR_BUDGET);
    pass_fini(&p);
    test_cuda_close(&t);
}

/* With equal scores everywhere the result is the mean: large scores must not
 * overflow on the way. */
static void scores_beyond_f16_do_no_harm(void **state)
{
    static const struct item items[] = {{0, 12, 0}, {40, 1, 0}};
    struct test_cuda t;
    struct pass p;

    test_cuda_open(&t, 0);
    pass_init(&p, 64, 1, items, 2);
    for (size_t i = 0; i < PAGES * p.page_stride; i++)
        p.k[i] = sl_float_to_half(3000);
    for (size_t i = 0; i < p.n * p.stride; i++)
        p.q[i] = sl_float_to_half(3000);
    test_cuda_free(p.kv.k);
    test_cuda_free(p.dev_q);
    p.kv.k = test_cuda_up(p.k, PAGES * p.page_stride * 2);
    p.dev_q = test_cuda_up(p.q, p.n * p.stride * 2);
    attend(&t, &p);
    pass_fini(&p);
    test_cuda_close(&t);
}

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
    static const struct item items[] = {{0, 20, 18}, {33, 1, 0}};
    uint32_t half = d / 2, heads = 3;
    struct test_random rnd = {d};
    struct pass p;
    size_t stride, n;
    float *qkv, *cos, *sin, head[SL_CUDA_MAX_HEAD];
    uint16_t *qkv16;
    void *dev, *dev_cos, *dev_sin;
    struct sl_error err;

    pass_init(&p, d, heads, items, 2);
    stride = (size_t)heads * 3 * d + 2;
    n = p.n * stride;
    qkv = make(n, sizeof *qkv);
    qkv16 = make(n, 2);
    cos = make((size_t)p.n * half, sizeof *cos);
    sin = make((size_t)p.n * half, sizeof *sin);
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
    test_cuda_down(t, p.k, p.kv.k, PAGES * p.page_stride * 2);
    test_cuda_down(t, p.v, p.kv.v, PAGES * p.page_stride * 2);
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
    pass_fini(&p);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(single_rows_attend_to_the_keys_of_their_sequence),
        cmocka_unit_test(prompts_attend_to_their_context_and_back),
        cmocka_unit_test(rows_are_taken_in_turns_where_the_workspace_is_small),
        cmocka_unit_test(scores_beyond_f16_do_no_harm),
        cmocka_unit_test(q_and_k_are_rotated_and_k_and_v_stored),
    };

    test_cuda_need();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
