#include "config.h"

#include <stdlib.h>
#include <string.h>

#include <cuda_runtime_api.h>

#include "src/base/half.h"
#include "tests/cuda_support.h"

static void check(cudaError_t e, const char *what)
{
    if (e != cudaSuccess)
        fail_msg("%s: %s", what, cudaGetErrorString(e));
}

void test_cuda_need(void)
{
    int n = 0;

    if (cudaGetDeviceCount(&n) != cudaSuccess || n == 0)
        test_skip_all("no CUDA device");
}

void test_cuda_open(struct test_cuda *t, uint64_t workspace_bytes)
{
    cudaStream_t stream;
    struct sl_error err;

    memset(t, 0, sizeof *t);
    check(cudaSetDevice(0), "device 0");
    check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "stream");
    assert_ok(sl_cuda_init(&t->c, stream, &err), &err);
    test_cuda_set_workspace(t, workspace_bytes);
    sl_kernels_init(&t->ref, SL_ISA_REF);
}

void test_cuda_set_workspace(struct test_cuda *t, uint64_t bytes)
{
    struct sl_error err;

    check(cudaStreamSynchronize(t->c.stream), "stream");
    if (t->workspace != NULL)
        check(cudaFree(t->workspace), "workspace");
    t->workspace = NULL;
    if (bytes > 0)
        check(cudaMalloc(&t->workspace, bytes), "workspace");
    assert_ok(sl_cuda_set_workspace(&t->c, t->workspace, bytes, &err), &err);
}

void test_cuda_close(struct test_cuda *t)
{
    check(cudaStreamSynchronize(t->c.stream), "stream");
    sl_cuda_fini(&t->c);
    if (t->workspace != NULL)
        check(cudaFree(t->workspace), "workspace");
    check(cudaStreamDestroy(t->c.stream), "stream");
}

void *test_cuda_up(const void *host, size_t bytes)
{
    void *p = NULL;

    if (bytes == 0)
        return NULL;
    check(cudaMalloc(&p, bytes), "device memory");
    check(cudaMemcpy(p, host, bytes, cudaMemcpyHostToDevice), "copy up");
    /* Memory that is not pinned has been read by then, no more: a kernel on
     * another stream could be earlier than the copy. */
    check(cudaStreamSynchronize(NULL), "copy up");
    return p;
}

void test_cuda_down(struct test_cuda *t, void *host, const void *device,
                    size_t bytes)
{
    check(cudaStreamSynchronize(t->c.stream), "stream");
    check(cudaMemcpy(host, device, bytes, cudaMemcpyDeviceToHost), "copy down");
}

void test_cuda_free(void *device)
{
    if (device != NULL)
        check(cudaFree(device), "free");
}

uint32_t test_random_next(struct test_random *r)
{
    r->state = r->state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(r->state >> 33);
}

float test_random_float(struct test_random *r)
{
    return (float)((double)test_random_next(r) / (double)(1u << 30) - 1);
}

void test_random_halves(struct test_random *r, uint16_t *halves, float *floats,
                        size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float v = test_random_float(r);

        if (test_random_next(r) % 50 == 0)
            v *= 20;
        halves[i] = sl_float_to_half(v);
        if (floats != NULL)
            floats[i] = sl_half_to_float(halves[i]);
    }
}
