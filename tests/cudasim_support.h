/*
 * cudasim_support.h - what the tests of the simulated GPU share (C++)
 */
#ifndef SL_TESTS_CUDASIM_SUPPORT_H
#define SL_TESTS_CUDASIM_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

extern "C" { /* its header does not say so */
#include <cmocka.h>
}

#include <cuda_runtime.h>

#include "kernels/cuda/launch.cuh"
#include "kernels/cudasim/cudasim.h"

#define assert_cuda(call) assert_int_equal(call, cudaSuccess)

static inline cudaStream_t stream_new(void)
{
    cudaStream_t s;

    assert_cuda(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking));
    return s;
}

template <class T> static inline T *device_new(size_t n)
{
    T *p;

    assert_cuda(cudaMalloc(&p, n * sizeof *p));
    return p;
}

template <class T> static inline void fetch(T *to, const T *from, size_t n)
{
    assert_cuda(cudaMemcpy(to, from, n * sizeof *to, cudaMemcpyDeviceToHost));
}

/* With ThreadSanitizer: the races that it reported. Those that tests make on
 * purpose are asked for; any other fails the program at its end. */
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define SEES_RACES 1
#endif
#endif

struct race_count {
    int n, expected;
};

static inline struct race_count *races(void)
{
    static struct race_count r;

    return &r;
}

#ifdef SEES_RACES
extern "C" {
void __tsan_on_report(void *report);
const char *__tsan_default_options(void);

void __tsan_on_report(void *)
{
    races()->n++;
}

const char *__tsan_default_options(void)
{
    return "exitcode=0"; /* leaks_nothing decides */
}
}
#endif

/* A race must have been seen since `before` of them. */
static inline void expect_race(int before)
{
#ifdef SEES_RACES
    assert_true(races()->n > before);
    races()->expected += races()->n - before;
#else
    (void)before;
#endif
}

/* Nothing may be left behind. */
static inline int leaks_nothing(void **state)
{
    assert_int_equal(races()->n, races()->expected);
    assert_int_equal(cudasim_reset(), 0);
    return 0;
}

template <class... P, class... A>
static inline void launch(void (*kernel)(P...), dim3 grid, dim3 block,
                          size_t shared, cudaStream_t s, A... args)
{
    struct sl_error err;
    char why[400];

    if (sl_cuda_launch("test", kernel, grid, block, shared, s, &err, args...))
        fail_msg("%s: %s", err.msg, cudasim_fault(why, sizeof why));
}

#endif
