/*
 * Attention over the paged cache on a CUDA device against
 * kernels/ref: sequences whose pages lie in no order, contexts that all rows
 * see, heads of even and odd widths, heads that share their keys.
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
#include "tests/cuda_pass.h"

#define MARK 0x5a5au

/* Row r of head h by kernels/ref, and how far off it may be. */
static double expect(const struct test_cuda *t, const struct test_pass *p,
                     uint32_t r, uint32_t h, float *out)
{
    const void *k_pages[TEST_PASS_PAGES], *v_pages[TEST_PASS_PAGES];
    float q[SL_CUDA_MAX_HEAD],
        *scores = test_zeros(16 * TEST_PASS_PAGES, sizeof *scores);
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
        size_t at = p->pages[p->table[r] + i] * p->page_stride +
                    (size_t)(h / (p->n_heads / p->n_kv)) * 16 * d;

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

static void attend(struct test_cuda *t, struct test_pass *p)
{
    uint16_t *out = test_zeros(p->n * p->stride, 2);
    float row[SL_CUDA_MAX_HEAD];
    struct sl_error err;

    for (size_t i = 0; i < p->n * p->stride; i++)
        out[i] = MARK;
    test_cuda_free(p->dev_out);
    p->dev_out = test_cuda_up(out, p->n * p->stride * 2);
    assert_ok(sl_cuda_attend_shared(&t->c, p->dev_out, p->stride, p->dev_q,
                                    p->stride, p->n_heads, &p->kv, &p->rows,
                                    &err),
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
    static const struct test_item items[] = {
        {0, 1, 0}, {300, 1, 0}, {40, 3, 0}, {15, 1, 0}};
    struct test_cuda t;
    struct test_pass p;

    test_cuda_open(&t, 1 << 20);
    for (size_t i = 0; i < sizeof dims / sizeof *dims; i++) {
        test_pass_init(&p, dims[i], 2, 1, items, 4);
        attend(&t, &p);
        test_pass_fini(&p);
    }
    test_cuda_close(&t);
}

static void prompts_attend_to_their_context_and_back(void **state)
{
    static const struct test_item items[] = {
        {0, 37, 30}, {5, 1, 0}, {70, 9, 75}, {0, 70, 0}};
    struct test_cuda t;
    struct test_pass p;

    test_cuda_open(&t, 1 << 20);
    for (size_t i = 0; i < sizeof dims / sizeof *dims; i++) {
        test_pass_init(&p, dims[i], 2, 1, items, 4);
        attend(&t, &p);
        test_pass_fini(&p);
    }
    test_cuda_close(&t);
}

static void heads_share_keys_and_values(void **state)
{
    static const struct test_item items[] = {
        {300, 1, 0}, {40, 3, 0}, {5, 18, 20}, {0, 9, 0}};
    static const struct {
        uint32_t d, n_kv, group;
    } sizes[] = {{128, 2, 16}, {64, 3, 7}, {16, 2, 2},
                 {80, 1, 5},   {96, 2, 4}, {256, 1, 3}};
    struct test_cuda t;
    struct test_pass p;

    test_cuda_open(&t, 1 << 20);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        test_pass_init(&p, sizes[i].d, sizes[i].n_kv, sizes[i].group, items, 4);
        attend(&t, &p);
        test_pass_fini(&p);
    }
    test_cuda_close(&t);
}

/* A head of a group has the bits that it has where every head has keys and
 * values of its own. */
static void sharing_changes_no_bit(void **state)
{
    static const struct test_item items[] = {{280, 1, 0}, {3, 12, 0}};
    struct test_cuda t;
    struct test_pass p;
    uint16_t *together, *alone;
    struct sl_error err;

    test_cuda_open(&t, 1 << 20);
    test_pass_init(&p, 64, 1, 3, items, 2);
    together = test_zeros(p.n * p.stride, 2);
    alone = test_zeros(p.n * p.stride, 2);
    assert_ok(sl_cuda_attend_shared(&t.c, p.dev_out, p.stride, p.dev_q,
                                    p.stride, 3, &p.kv, &p.rows, &err),
              &err);
    test_cuda_down(&t, together, p.dev_out, p.n * p.stride * 2);
    for (uint32_t h = 0; h < 3; h++) {
        assert_ok(sl_cuda_attend(&t.c, p.dev_out, p.stride, p.dev_q + h * 64,
                                 p.stride, &p.kv, &p.rows, &err),
                  &err);
        test_cuda_down(&t, alone, p.dev_out, p.n * p.stride * 2);
        for (size_t r = 0; r < p.n; r++)
            assert_memory_equal(alone + r * p.stride,
                                together + r * p.stride + h * 64, 64 * 2);
    }
    free(together);
    free(alone);
    test_pass_fini(&p);
    test_cuda_close(&t);
}

static void rows_are_taken_in_turns_where_the_workspace_is_small(void **state)
{
    static const struct test_item items[] = {{300, 5, 0}, {520, 1, 0}};
    struct test_cuda t;
    struct test_pass p;
    struct sl_error err;

    test_pass_init(&p, 32, 3, 1, items, 2);
    test_cuda_open(&t, 2 * sl_cuda_attend_workspace(1, 3, 32, 521));
    attend(&t, &p);
    test_cuda_set_workspace(&t, 0);
    assert_int_equal(sl_cuda_attend(&t.c, p.dev_out, p.stride, p.dev_q,
                                    p.stride, &p.kv, &p.rows, &err),
                     -1);
    assert_int_equal(err.code, SL_ERR_BUDGET);
    test_pass_fini(&p);
    test_cuda_close(&t);
}

/* With equal scores everywhere the result is the mean: large scores must not
 * overflow on the way. */
static void scores_beyond_f16_do_no_harm(void **state)
{
    static const struct test_item items[] = {{0, 12, 0}, {40, 1, 0}};
    struct test_cuda t;
    struct test_pass p;

    test_cuda_open(&t, 0);
    test_pass_init(&p, 64, 1, 1, items, 2);
    for (size_t i = 0; i < TEST_PASS_PAGES * p.page_stride; i++)
        p.k[i] = sl_float_to_half(3000);
    for (size_t i = 0; i < p.n * p.stride; i++)
        p.q[i] = sl_float_to_half(3000);
    test_cuda_free(p.kv.k);
    test_cuda_free(p.dev_q);
    p.kv.k = test_cuda_up(p.k, TEST_PASS_PAGES * p.page_stride * 2);
    p.dev_q = test_cuda_up(p.q, p.n * p.stride * 2);
    attend(&t, &p);
    test_pass_fini(&p);
    test_cuda_close(&t);
}

/* --- trees -----------------------------------------------------------------
 */

enum { NODES = 13 };

/* Node i's parent: some in chains, some side by side. */
static uint32_t parent_of(uint32_t i)
{
    return i % 3 == 0 ? i - 1 : i / 2;
}

static uint64_t path_of(uint32_t node)
{
    uint64_t path = 1;

    for (; node > 0; node = parent_of(node))
        path |= UINT64_C(1) << node;
    return path;
}

static size_t key_at(const struct test_pass *p, uint32_t row, uint32_t head,
                     uint32_t key)
{
    return p->pages[p->table[row] + key / 16] * p->page_stride +
           ((size_t)head * 16 + key % 16) * p->d;
}

/* The last row's sequence as its own path alone would have left it: of a pass
 * with this one row. */
static void lay_path(struct test_pass *alone, const struct test_pass *p,
                     uint32_t row, uint32_t fork, uint64_t path)
{
    uint32_t n = alone->n_keys[0], from = 0;

    for (uint32_t key = 0; key < n; key++, from++) {
        while (from >= fork && (path >> (from - fork) & 1) == 0)
            from++;
        for (uint32_t h = 0; h < p->n_kv; h++) {
            memcpy(alone->k + key_at(alone, 0, h, key),
                   p->k + key_at(p, row, h, from), 2 * p->d);
            memcpy(alone->v + key_at(alone, 0, h, key),
                   p->v + key_at(p, row, h, from), 2 * p->d);
        }
    }
    memcpy(alone->q, p->q + row * p->stride, 2 * p->stride);
}

static void up_again(struct test_pass *p)
{
    size_t bytes = 2 * TEST_PASS_PAGES * p->page_stride;

    test_cuda_free(p->kv.k);
    test_cuda_free(p->kv.v);
    test_cuda_free(p->dev_q);
    p->kv.k = test_cuda_up(p->k, bytes);
    p->kv.v = test_cuda_up(p->v, bytes);
    p->dev_q = test_cuda_up(p->q, p->n * p->stride * 2);
}

static void run(struct test_cuda *t, struct test_pass *p, uint16_t *out)
{
    struct sl_error err;

    assert_ok(sl_cuda_attend_shared(&t->c, p->dev_out, p->stride, p->dev_q,
                                    p->stride, p->n_heads, &p->kv, &p->rows,
                                    &err),
              &err);
    test_cuda_down(t, out, p->dev_out, p->n * p->stride * 2);
}

/* Beside rows of no tree, on both sides of a split. */
static void a_node_of_a_tree_has_the_bits_of_its_path(void **state)
{
    static const uint32_t bases[] = {5, 250, 300};

    for (size_t i = 0; i < sizeof dims / sizeof *dims; i++) {
        uint32_t d = dims[i], base = bases[i % 3], group = 1 + i % 2 * 4;
        const struct test_item items[] = {{40, 1, 0}, {base, NODES, 0}};
        uint32_t fork[TEST_PASS_ROWS] = {UINT32_MAX};
        uint64_t path[TEST_PASS_ROWS] = {0};
        struct test_cuda t;
        struct test_pass p;
        uint16_t *rows, *row;

        test_cuda_open(&t, 1 << 20);
        test_pass_init(&p, d, 2, group, items, 2);
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
        run(&t, &p, rows);
        for (uint32_t r = 0; r < p.n; r++) {
            const struct test_item one = {p.n_keys[r] - 1, 1, 0};
            struct test_pass alone;

            test_pass_init(&alone, d, 2, group, &one, 1);
            lay_path(&alone, &p, r, fork[r], path[r]);
            up_again(&alone);
            row = test_zeros(alone.stride, 2);
            run(&t, &alone, row);
            assert_memory_equal(row, rows + r * p.stride, 2ull * p.n_heads * d);
            free(row);
            test_pass_fini(&alone);
        }
        free(rows);
        test_cuda_free((void *)(uintptr_t)p.rows.fork);
        test_cuda_free((void *)(uintptr_t)p.rows.path);
        test_pass_fini(&p);
        test_cuda_close(&t);
    }
}

static void positions_move_one_after_another(void **state)
{
    static const struct sl_cuda_move moves[] = {
        {7, 3, 7, 1}, {9, 0, 7, 3}, {9, 15, 2, 0}, {7, 1, 9, 15}};
    enum { N = sizeof moves / sizeof *moves };
    const struct test_item item = {20, 1, 0};

    for (size_t i = 0; i < sizeof dims / sizeof *dims; i++) {
        struct test_cuda t;
        struct test_pass p;
        struct sl_error err;
        size_t bytes, plane;
        uint16_t *got;

        test_cuda_open(&t, 0);
        test_pass_init(&p, dims[i], 3, 1, &item, 1);
        plane = TEST_PASS_PAGES / 2 * p.page_stride; /* two of them */
        bytes = 4 * plane;
        got = test_zeros(2 * plane, 2);
        assert_ok(sl_cuda_kv_move(&t.c, &p.kv, 2, plane, moves, N, &err), &err);
        test_cuda_down(&t, got, p.kv.k, bytes);
        for (size_t m = 0; m < N; m++) {
            for (size_t h = 0; h < 2 * 3; h++) {
                uint16_t *at = p.k + h / 3 * plane + h % 3 * 16 * p.d;

                memcpy(at + moves[m].to_page * p.page_stride +
                           moves[m].to * p.d,
                       at + moves[m].from_page * p.page_stride +
                           moves[m].from * p.d,
                       2 * p.d);
            }
        }
        assert_memory_equal(got, p.k, bytes);
        free(got);
        test_pass_fini(&p);
        test_cuda_close(&t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(single_rows_attend_to_the_keys_of_their_sequence),
        cmocka_unit_test(prompts_attend_to_their_context_and_back),
        cmocka_unit_test(heads_share_keys_and_values),
        cmocka_unit_test(sharing_changes_no_bit),
        cmocka_unit_test(rows_are_taken_in_turns_where_the_workspace_is_small),
        cmocka_unit_test(scores_beyond_f16_do_no_harm),
        cmocka_unit_test(a_node_of_a_tree_has_the_bits_of_its_path),
        cmocka_unit_test(positions_move_one_after_another),
    };

    test_cuda_need();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
