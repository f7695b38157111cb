/*
 * cuda_pass.h - the rows, keys and values of a pass on a device, for tests of
 * what attention is made of
 *
 * Sequences whose pages lie in no order, contexts that all rows see. All
 * values are random FP16.
 */
#ifndef SL_TESTS_CUDA_PASS_H
#define SL_TESTS_CUDA_PASS_H

#include "tests/cuda_support.h"

#define TEST_PASS_ROWS  200u
#define TEST_PASS_PAGES 96u

struct test_item {
    uint32_t base, n, context; /* positions before, rows, context */
};

struct test_pass {
    uint32_t d, n_heads, n_kv, n;
    size_t stride, page_stride;
    struct sl_cuda_item items[8];
    size_t n_items;
    uint32_t position[TEST_PASS_ROWS], n_keys[TEST_PASS_ROWS],
        table[TEST_PASS_ROWS];
    uint32_t pages[TEST_PASS_PAGES];
    uint16_t *k, *v, *q; /* host */
    struct sl_cuda_kv kv;
    struct sl_cuda_rows rows;
    uint16_t *dev_q, *dev_out;
};

/* Arrays of n zeros; fails the test where there is no memory. */
void *test_zeros(size_t n, size_t size);
/* n_kv heads of keys and values, `group` heads of queries for each. */
void test_pass_init(struct test_pass *p, uint32_t d, uint32_t n_kv,
                    uint32_t group, const struct test_item *items,
                    size_t n_items);
void test_pass_fini(struct test_pass *p);

#endif
