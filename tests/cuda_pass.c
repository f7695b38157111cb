#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "tests/cuda_pass.h"

void *test_zeros(size_t n, size_t size)
{
    void *p = calloc(n > 0 ? n : 1, size);

    assert_non_null(p);
    return p;
}

/* Pages are handed out last to first, every third left out. */
static void lay_out(struct test_pass *p, const struct test_item *items,
                    size_t n_items)
{
    uint32_t used = 0, page = TEST_PASS_PAGES - 1;

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
        p->items[i] = (struct sl_cuda_item){
            .row = p->n, .n = items[i].n, .most_keys = most};
        p->n += items[i].n;
        for (uint32_t k = 0; k < (len + 15) / 16; k++) {
            assert_true(page < TEST_PASS_PAGES && used < TEST_PASS_PAGES);
            p->pages[used++] = page;
            page -= k % 3 == 2 ? 2 : 1;
        }
    }
    assert_true(p->n <= TEST_PASS_ROWS);
}

void test_pass_init(struct test_pass *p, uint32_t d, uint32_t n_kv,
                    uint32_t group, const struct test_item *items,
                    size_t n_items)
{
    uint32_t n_heads = n_kv * group;
    struct test_random rnd = {d * 31 + n_heads + n_items};
    size_t values;

    memset(p, 0, sizeof *p);
    p->d = d;
    p->n_heads = n_heads;
    p->n_kv = n_kv;
    lay_out(p, items, n_items);
    p->stride = ((size_t)n_heads * d + 7) / 8 * 8 + 8;
    p->page_stride = ((size_t)n_kv * d * 16 + 7) / 8 * 8 + 16;
    values = TEST_PASS_PAGES * p->page_stride;
    p->k = test_zeros(values, 2);
    p->v = test_zeros(values, 2);
    p->q = test_zeros(p->n * p->stride, 2);
    test_random_halves(&rnd, p->k, NULL, values);
    test_random_halves(&rnd, p->v, NULL, values);
    test_random_halves(&rnd, p->q, NULL, p->n * p->stride);
    p->kv = (struct sl_cuda_kv){
        .k = test_cuda_up(p->k, values * 2),
        .v = test_cuda_up(p->v, values * 2),
        .page_stride = p->page_stride,
        .n_heads = n_kv,
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

void test_pass_fini(struct test_pass *p)
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
