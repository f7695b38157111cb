/*
 * cuda_support.h - a CUDA device, real or simulated, for kernel tests
 *
 * Everything here fails the test on errors. Host arrays go up and down by
 * copies that have ended when the call returns.
 */
#ifndef SL_TESTS_CUDA_SUPPORT_H
#define SL_TESTS_CUDA_SUPPORT_H

#include "kernels/cuda/cuda.h"
#include "kernels/kernels.h"
#include "tests/support.h"

/* The whole test's: device 0 and a stream. */
struct test_cuda {
    struct sl_cuda c;
    void *workspace;
    struct sl_kernels ref;
};

/* First in main: prints why and skips the program where there is no device. */
void test_cuda_need(void);
void test_cuda_open(struct test_cuda *t, uint64_t workspace_bytes);
void test_cuda_close(struct test_cuda *t);
void test_cuda_set_workspace(struct test_cuda *t, uint64_t bytes);

/* A copy of host memory on the device; bytes may be 0. */
void *test_cuda_up(const void *host, size_t bytes);
/* Waits for the stream, then copies. */
void test_cuda_down(struct test_cuda *t, void *host, const void *device,
                    size_t bytes);
void test_cuda_free(void *device);

/* Random values, Knuth's MMIX generator. */
struct test_random {
    uint64_t state;
};
uint32_t test_random_next(struct test_random *r); /* 31 bits */
float test_random_float(struct test_random *r);   /* -1 .. 1 */
/* n FP16 values, one in 50 an outlier 20 times as large; floats get the same
 * values. */
void test_random_halves(struct test_random *r, uint16_t *halves, float *floats,
                        size_t n);

#endif
