/*
 * The simulated GPU: that kernels, streams and memory do what CUDA's do, and
 * that it catches what a GPU would let pass.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern "C" { /* its header does not say so */
#include <cmocka.h>
}

#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "kernels/cuda/launch.cuh"
#include "kernels/cudasim/cudasim.h"

#define assert_cuda(call) assert_int_equal(call, cudaSuccess)

static cudaStream_t stream_new(void)
{
    cudaStream_t s;

    assert_cuda(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking));
    return s;
}

template <class T> static T *device_new(size_t n)
{
    T *p;

    assert_cuda(cudaMalloc(&p, n * sizeof *p));
    return p;
}

template <class T> static void fetch(T *to, const T *from, size_t n)
{
    assert_cuda(cudaMemcpy(to, from, n * sizeof *to, cudaMemcpyDeviceToHost));
}

/* Nothing may be left behind. */
static int leaks_nothing(void **state)
{
    assert_int_equal(cudasim_reset(), 0);
    return 0;
}

template <class... P, class... A>
static void launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared,
                   cudaStream_t s, A... args)
{
    struct sl_error err;

    if (sl_cuda_launch("test", kernel, grid, block, shared, s, &err, args...))
        fail_msg("%s", err.msg);
}

/* --- blocks -------------------------------------------------------------- */

static __global__ void where_am_i(unsigned *out)
{
    unsigned block =
        blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    unsigned thread =
        threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);

    out[block * blockDim.x * blockDim.y * blockDim.z + thread] =
        block * 1000 + thread;
}

static void every_thread_runs_once(void **state)
{
    const dim3 grid(3, 2, 2), block(5, 4, 2);
    unsigned *p = device_new<unsigned>(480), got[480];

    launch(where_am_i, grid, block, 0, nullptr, p);
    fetch(got, p, 480);
    for (unsigned i = 0; i < 480; i++)
        assert_int_equal(got[i], i / 40 * 1000 + i % 40);
    assert_cuda(cudaFree(p));
}

/* Each thread hands its value on through shared memory, many times. */
static __global__ void pass_round(int *out, int rounds)
{
    SL_SHARED(int, slot, [300]);
    unsigned i = threadIdx.x, n = blockDim.x;
    int value = (int)i;

    for (int r = 0; r < rounds; r++) {
        slot[(i + 1) % n] = value;
        __syncthreads();
        value = slot[i];
        __syncthreads();
    }
    out[blockIdx.x * n + i] = value;
}

static void barriers_order_shared_memory(void **state)
{
    int *p = device_new<int>(600), got[600];

    launch(pass_round, dim3(2), dim3(300), 0, nullptr, p, 7);
    fetch(got, p, 600);
    for (int i = 0; i < 600; i++)
        assert_int_equal(got[i], (i % 300 + 300 - 7) % 300);
    assert_cuda(cudaFree(p));
}

static __global__ void warp_things(int *out)
{
    int lane = (int)threadIdx.x % 32, base = (int)threadIdx.x * 8;
    unsigned all = 0xffffffffu;
    double d = __shfl_xor_sync(all, lane + 0.5, 3);

    out[base] = __shfl_sync(all, lane * 10, 5);
    out[base + 1] = __shfl_down_sync(all, lane, 4);
    out[base + 2] = __shfl_up_sync(all, lane, 4, 16);
    out[base + 3] = __shfl_xor_sync(all, lane, 9, 8);
    out[base + 4] = (int)__ballot_sync(all, lane % 3 == 0);
    out[base + 5] = __any_sync(all, lane == 31) + 2 * __all_sync(all, lane < 9);
    out[base + 6] = (int)(d * 2);
    out[base + 7] = 0;
    if (lane >= 16) { /* half a warp among itself */
        for (int i = 8; i > 0; i /= 2)
            lane += __shfl_xor_sync(0xffff0000u, lane, i);
        out[base + 7] = lane;
    }
}

static void warps_exchange_values(void **state)
{
    int *p = device_new<int>(64 * 8), got[64][8];

    launch(warp_things, dim3(1), dim3(64), 0, nullptr, p);
    fetch(*got, p, 64 * 8);
    for (int i = 0; i < 64; i++) {
        int lane = i % 32;

        assert_int_equal(got[i][0], 50);
        assert_int_equal(got[i][1], lane < 28 ? lane + 4 : lane);
        assert_int_equal(got[i][2], lane % 16 < 4 ? lane : lane - 4);
        /* beyond the eight: its own, or below them: what is there */
        assert_int_equal(got[i][3], (lane ^ 9) > (lane | 7) ? lane : lane ^ 9);
        assert_int_equal(got[i][4], 0x49249249);
        assert_int_equal(got[i][5], 1);
        assert_int_equal(got[i][6], 2 * (lane ^ 3) + 1);
        assert_int_equal(got[i][7], lane < 16 ? 0 : 376);
    }
    assert_cuda(cudaFree(p));
}

/* The sum of n values: atomics and shared memory of the launch's size. */
static __global__ void sum_up(float *sum, int *count, const float *x, int n)
{
    SL_SHARED_DYNAMIC(float, part);
    unsigned t = threadIdx.x;

    part[t] = 0;
    for (int i = (int)(blockIdx.x * blockDim.x + t); i < n;
         i += (int)(gridDim.x * blockDim.x))
        part[t] += x[i];
    __syncthreads();
    for (unsigned n2 = blockDim.x / 2; n2 > 0; n2 /= 2) {
        if (t < n2)
            part[t] += part[t + n2];
        __syncthreads();
    }
    if (t == 0)
        atomicAdd(sum, part[0]);
    atomicAdd(count, 1);
}

static void atomics_add_up(void **state)
{
    float *x = device_new<float>(1000), *sum = device_new<float>(1);
    float host[1000], got;
    int *count = device_new<int>(1), n;

    for (int i = 0; i < 1000; i++)
        host[i] = (float)i;
    assert_cuda(cudaMemcpy(x, host, sizeof host, cudaMemcpyHostToDevice));
    assert_cuda(cudaMemset(sum, 0, sizeof *sum));
    assert_cuda(cudaMemset(count, 0, sizeof *count));
    launch(sum_up, dim3(3), dim3(128), 128 * sizeof(float), nullptr, sum, count,
           (const float *)x, 1000);
    fetch(&got, sum, 1);
    fetch(&n, count, 1);
    assert_true(got == 499500.f);
    assert_int_equal(n, 3 * 128);
    assert_cuda(cudaFree(x));
    assert_cuda(cudaFree(sum));
    assert_cuda(cudaFree(count));
}

/* --- streams ------------------------------------------------------------- */

static __global__ void add_one(int *to, const int *from, int n)
{
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);

    if (i < n)
        to[i] = from[i] + 1;
}

/* A copy on one stream, its use on another; the copy is held back. */
static int used_value(bool with_wait)
{
    cudaStream_t up = stream_new(), compute = stream_new();
    int *p = device_new<int>(1), *q = device_new<int>(1), seven = 7, got = 0;
    cudaEvent_t copied;

    assert_cuda(cudaMemset(p, 0, sizeof *p));
    assert_cuda(cudaDeviceSynchronize());
    assert_cuda(cudaEventCreateWithFlags(&copied, cudaEventDisableTiming));
    cudasim_hold(up);
    assert_cuda(
        cudaMemcpyAsync(p, &seven, sizeof seven, cudaMemcpyHostToDevice, up));
    assert_cuda(cudaEventRecord(copied, up));
    if (with_wait)
        assert_cuda(cudaStreamWaitEvent(compute, copied, 0));
    launch(add_one, dim3(1), dim3(32), 0, compute, q, (const int *)p, 1);
    if (!with_wait)
        assert_cuda(cudaStreamSynchronize(compute));
    assert_int_equal(cudaStreamQuery(up), cudaErrorNotReady);
    assert_int_equal(cudaEventQuery(copied), cudaErrorNotReady);
    cudasim_release(up);
    assert_cuda(cudaStreamSynchronize(compute));
    assert_cuda(cudaEventSynchronize(copied));
    assert_cuda(cudaEventQuery(copied));
    fetch(&got, q, 1);
    assert_cuda(cudaFree(p));
    assert_cuda(cudaFree(q));
    assert_cuda(cudaEventDestroy(copied));
    assert_cuda(cudaStreamDestroy(up));
    assert_cuda(cudaStreamDestroy(compute));
    return got;
}

static void events_order_streams(void **state)
{
    assert_int_equal(used_value(true), 8);
}

static void a_missing_wait_gives_a_wrong_result(void **state)
{
    assert_int_equal(used_value(false), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_thread_runs_once),
        cmocka_unit_test(barriers_order_shared_memory),
        cmocka_unit_test(warps_exchange_values),
        cmocka_unit_test(atomics_add_up),
        cmocka_unit_test(events_order_streams),
        cmocka_unit_test(a_missing_wait_gives_a_wrong_result),
    };

    return cmocka_run_group_tests(tests, nullptr, leaks_nothing);
}
