/*
 * product_problem.h - matrices and inputs of odd sizes, and what their product
 * is, for tests of kernels
 *
 * All arrays end where their allocation ends, so that a sanitizer sees each
 * byte too many. Failures fail the running test.
 */
#ifndef SL_TESTS_PRODUCT_PROBLEM_H
#define SL_TESTS_PRODUCT_PROBLEM_H

#include "kernels/matmul.h"

#define PROBLEM_N 17 /* positions */

/* n elements of `size` bytes that end where the allocation ends and begin
 * `off` bytes after an aligned address. */
struct test_room {
    uint8_t *memory;
    void *at;
};

struct test_problem {
    struct sl_matrix m;
    struct test_room w, scale, x, q, q_scale, q_sum, bf16;
    double *dense;       /* (rows, cols): the weights' values */
    struct sl_acts acts; /* PROBLEM_N positions */
};

/* Random weights, as the matrix's format lies in the model file, and inputs in
 * every form that k has. */
void test_problem_init(struct test_problem *p, const struct sl_matrix *m,
                       const struct sl_kernels *k);
void test_problem_fini(struct test_problem *p);

/* INT8, INT4: sets weight (row, col), and not dense; the scale of a group. */
void test_problem_put(struct test_problem *p, uint32_t row, uint32_t col,
                      int q);
uint16_t *test_problem_scale(struct test_problem *p, uint32_t row,
                             uint32_t group);

/* The kernel on `n` positions from the first-th and n_rows rows from row on. */
void test_problem_run(const struct sl_kernels *k, const struct test_problem *p,
                      enum sl_act act, float *y, size_t stride, uint32_t row,
                      uint32_t n_rows, size_t first, size_t n);
/* Against sums in double; and whole batch, each cut of it, each block alone and
 * every way to read weights: the same bits, nothing written beside them. */
void test_problem_check(const struct sl_kernels *k,
                        const struct test_problem *p, enum sl_act act);
/* A problem of m with every instruction set and form of inputs. */
void test_check_matrix(const struct sl_matrix *m);

#endif
