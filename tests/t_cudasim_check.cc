/*
 * What the simulated GPU catches: bad pointers and copies, too little memory,
 * kernels whose threads do not meet; and that any call can fail.
 */
#include "config.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/cudasim_support.h"

static void says(const char *what)
{
    char text[400];

    cudasim_fault(text, sizeof text);
    if (!strstr(text, what))
        fail_msg("\"%s\" does not say \"%s\"", text, what);
}

/* --- memory -------------------------------------------------------------- */

static void device_memory_has_a_size(void **state)
{
    struct cudasim_config c;
    size_t free_bytes, total, less;
    void *p, *q;

    cudasim_get_config(&c);
    c.memory_bytes = 1 << 20;
    c.context_bytes = 100 << 10;
    cudasim_set_config(&c);
    assert_cuda(cudaMemGetInfo(&free_bytes, &total));
    assert_int_equal(total, 1 << 20);
    assert_int_equal(free_bytes, (1 << 20) - (100 << 10));
    assert_cuda(cudaMalloc(&p, 600000));
    assert_cuda(cudaMemGetInfo(&less, &total));
    assert_int_equal(free_bytes - less, (600000 + 255) / 256 * 256);
    assert_int_equal(cudaMalloc(&q, less + 1), cudaErrorMemoryAllocation);
    assert_int_equal(cudaGetLastError(), cudaErrorMemoryAllocation);
    assert_int_equal(cudaGetLastError(), cudaSuccess);
    assert_int_equal(cudaMalloc(&q, (size_t)-1), cudaErrorMemoryAllocation);
    assert_cuda(cudaMalloc(&q, less));
    assert_cuda(cudaFree(p));
    assert_cuda(cudaFree(q));
    assert_int_equal(cudaFree(q), cudaErrorInvalidValue);
    says("is not what cudaMalloc gave");
}

static void copies_stay_within_an_allocation(void **state)
{
    char *p = device_new<char>(1000), *q = device_new<char>(1000);
    char host[2000];

    assert_cuda(cudaMemcpy(p, host, 1000, cudaMemcpyHostToDevice));
    assert_int_equal(cudaMemcpy(p, host, 1001, cudaMemcpyHostToDevice),
                     cudaErrorInvalidValue);
    says("1001 bytes");
    assert_int_equal(cudaMemcpy(host, p + 1, 1000, cudaMemcpyDeviceToHost),
                     cudaErrorInvalidValue);
    assert_int_equal(cudaMemcpy(q, p - 1, 10, cudaMemcpyDeviceToDevice),
                     cudaErrorInvalidValue);
    assert_int_equal(cudaMemset(p + 999, 0, 2), cudaErrorInvalidValue);
    assert_cuda(cudaMemset(p + 999, 0, 1));
    assert_cuda(cudaFree(q));
    assert_int_equal(cudaMemcpy(host, q, 1, cudaMemcpyDeviceToHost),
                     cudaErrorInvalidValue);
    assert_cuda(cudaFree(p));
}

static void copies_go_the_way_they_say(void **state)
{
    char *p = device_new<char>(8), host[8] = {};

    assert_int_equal(cudaMemcpy(host, p, 8, cudaMemcpyHostToDevice),
                     cudaErrorInvalidValue);
    says("is not device memory");
    assert_int_equal(cudaMemcpy(p, host, 8, cudaMemcpyDeviceToHost),
                     cudaErrorInvalidValue);
    assert_int_equal(cudaMemcpy(p, host, 8, cudaMemcpyDeviceToDevice),
                     cudaErrorInvalidValue);
    assert_int_equal(cudaMemcpy(p, p, 8, cudaMemcpyHostToHost),
                     cudaErrorInvalidValue);
    says("is device memory");
    assert_int_equal(cudaMemcpy(p, host, 8, (enum cudaMemcpyKind)7),
                     cudaErrorInvalidMemcpyDirection);
    assert_cuda(cudaFree(p));
}

static void new_memory_is_nans(void **state)
{
    float *p = device_new<float>(1000), got[1000];

    fetch(got, p, 1000);
    for (int i = 0; i < 1000; i++)
        assert_true(got[i] != got[i]);
    assert_cuda(cudaFree(p));
}

/* Runs what in a child; true if that ended by a signal or an exit that a
 * sanitizer makes. */
static bool dies(void (*what)(float *), float *p)
{
    int status;
    pid_t child = fork();

    assert_true(child >= 0);
    if (child == 0) {
        signal(SIGSEGV, SIG_DFL); /* not cmocka's */
        signal(SIGBUS, SIG_DFL);
        if (!freopen("/dev/null", "w", stderr))
            _exit(0);
        what(p);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) || WEXITSTATUS(status) != 0;
}

static void read_on_host(float *p)
{
    volatile float f = *p;

    (void)f;
}

static void write_on_host(float *p)
{
    *(volatile float *)p = 1;
}

static void touch_freed(float *p)
{
    cudaFree(p);
    read_on_host(p);
}

static void host_threads_cannot_touch_device_memory(void **state)
{
    float *p = device_new<float>(1024);

    assert_true(dies(touch_freed, p));
    if (cudasim_guards_memory()) {
        assert_true(dies(read_on_host, p));
        assert_true(dies(write_on_host, p));
    }
    assert_cuda(cudaFree(p));
}

static __global__ void store(float *p, int i)
{
    p[i] = 1;
}

static void launch_store(float *p, int i)
{
    cudaStream_t s;

    /* Of the parent's streams the child has no threads. */
    if (cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking) != cudaSuccess)
        _exit(0);
    launch(store, dim3(1), dim3(1), 0, s, p, i);
    cudaStreamSynchronize(s);
}

static void store_last(float *p)
{
    launch_store(p, 1023);
}

static void store_beyond(float *p)
{
    launch_store(p, 1024);
}

static void store_before(float *p)
{
    launch_store(p, -1024);
}

static void kernels_cannot_leave_their_memory(void **state)
{
    float *p = device_new<float>(1024);
    bool last = dies(store_last, p), beyond = dies(store_beyond, p);
    bool before = dies(store_before, p);

    assert_cuda(cudaFree(p));
#ifndef SEES_RACES /* ThreadSanitizer lets children have no threads */
    assert_false(last);
    assert_true(beyond);
    assert_true(before);
#else
    (void)last, (void)beyond, (void)before;
#endif
}

static void pinning_is_kept_account_of(void **state)
{
    struct cudasim_config c;
    static char memory[64 << 10];
    void *p;

    cudasim_get_config(&c);
    c.pin_bytes = 40 << 10;
    cudasim_set_config(&c);
    assert_int_equal(cudaHostUnregister(memory),
                     cudaErrorHostMemoryNotRegistered);
    assert_cuda(cudaHostRegister(memory, 32 << 10, cudaHostRegisterDefault));
    assert_int_equal(
        cudaHostRegister(memory + 100, 10, cudaHostRegisterDefault),
        cudaErrorHostMemoryAlreadyRegistered);
    assert_int_equal(
        cudaHostRegister(memory + (32 << 10), 9 << 10, cudaHostRegisterDefault),
        cudaErrorMemoryAllocation);
    assert_int_equal(cudaMallocHost(&p, 9 << 10), cudaErrorMemoryAllocation);
    assert_cuda(cudaMallocHost(&p, 8 << 10));
    assert_cuda(cudaFreeHost(p));
    assert_cuda(cudaHostUnregister(memory));
    assert_cuda(cudaHostRegister(memory, 40 << 10, cudaHostRegisterDefault));
    assert_cuda(cudaHostUnregister(memory));
}

/* --- launches ------------------------------------------------------------ */

static cudaError_t try_launch(dim3 grid, dim3 block, size_t shared, float *p,
                              cudaStream_t s = nullptr)
{
    int i = 0;
    void *args[] = {&p, &i};

    return cudaLaunchKernel(store, grid, block, args, shared, s);
}

static void a_device_does_its_own_work_alone(void **state)
{
    struct cudasim_config c;
    cudaStream_t first, second;
    float *here, *there;
    cudaEvent_t event;

    cudasim_get_config(&c);
    c.n_devices = 2;
    cudasim_set_config(&c);
    assert_cuda(cudaSetDevice(0));
    first = stream_new();
    here = device_new<float>(8);
    assert_cuda(cudaEventCreate(&event));
    assert_cuda(try_launch(dim3(1), dim3(1), 0, here, first));
    assert_cuda(cudaSetDevice(1));
    second = stream_new();
    there = device_new<float>(8);
    assert_int_equal(try_launch(dim3(1), dim3(1), 0, there, first),
                     cudaErrorInvalidResourceHandle);
    assert_int_equal(try_launch(dim3(1), dim3(1), 0, here, second),
                     cudaErrorInvalidValue);
    assert_int_equal(cudaEventRecord(event, second),
                     cudaErrorInvalidResourceHandle);
    assert_cuda(try_launch(dim3(1), dim3(1), 0, there, second));
    /* which device is current matters for no record and no copy */
    assert_cuda(cudaEventRecord(event, first));
    assert_cuda(cudaStreamWaitEvent(second, event, 0));
    assert_cuda(cudaStreamSynchronize(second));
    assert_cuda(
        cudaMemcpyAsync(there, here, 32, cudaMemcpyDeviceToDevice, first));
    assert_cuda(cudaEventDestroy(event));
    assert_cuda(cudaStreamDestroy(first));
    assert_cuda(cudaStreamDestroy(second));
    assert_cuda(cudaFree(here));
    assert_cuda(cudaFree(there));
    assert_cuda(cudaSetDevice(0));
    assert_int_equal(cudasim_reset(), 0);
}

static void impossible_launches_are_refused(void **state)
{
    float *p = device_new<float>(1);

    assert_int_equal(try_launch(dim3(0), dim3(1), 0, p),
                     cudaErrorInvalidConfiguration);
    assert_int_equal(try_launch(dim3(1), dim3(1025), 0, p),
                     cudaErrorInvalidConfiguration);
    assert_int_equal(try_launch(dim3(1, 65536), dim3(1), 0, p),
                     cudaErrorInvalidConfiguration);
    assert_int_equal(try_launch(dim3(1), dim3(1), 50000, p),
                     cudaErrorInvalidValue);
    assert_int_equal(
        cudaFuncSetAttribute(store, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             200000),
        cudaErrorInvalidValue);
    assert_cuda(cudaFuncSetAttribute(
        store, cudaFuncAttributeMaxDynamicSharedMemorySize, 60000));
    assert_cuda(try_launch(dim3(1), dim3(1), 50000, p));
    assert_int_equal(try_launch(dim3(1), dim3(1), 60001, p),
                     cudaErrorInvalidValue);
#ifndef SL_SANITIZED
    float host;

    assert_int_equal(try_launch(dim3(1), dim3(1), 0, &host),
                     cudaErrorInvalidValue);
    says("host memory that is not pinned");
#endif
    assert_cuda(cudaDeviceSynchronize());
    assert_cuda(cudaFree(p));
}

/* --- kernels that go wrong ----------------------------------------------- */

enum wrong {
    ONE_SKIPS_BARRIER,
    TWO_BARRIERS,
    LANE_NOT_IN_MASK,
    LANES_DIFFER,
    LANE_MISSING,
    TOO_MUCH_SHARED,
    NOT_WRONG,
};

static __global__ void go_wrong(enum wrong how, int *out)
{
    unsigned t = threadIdx.x, all = 0xffffffffu;

    if (how == ONE_SKIPS_BARRIER && t != 40)
        __syncthreads();
    if (how == TWO_BARRIERS) {
        if (t < 32)
            __syncthreads();
        else
            __syncthreads();
    }
    if (how == LANE_NOT_IN_MASK)
        __syncwarp(0xfffeu);
    if (how == LANES_DIFFER) {
        if (t % 2)
            __shfl_sync(all, t, 0);
        else
            __shfl_xor_sync(all, t, 1);
    }
    if (how == LANE_MISSING && t % 32 < 16)
        __shfl_xor_sync(0xffffu, t, 16);
    if (how == TOO_MUCH_SHARED) {
        SL_SHARED(char, huge, [120000]);
        huge[t] = 1;
    }
    if (how == NOT_WRONG) { /* lanes that have ended need not come */
        if (t % 32 >= 16)
            return;
        out[t] = __any_sync(all, t == 3);
    }
}

/* The fault ends this kernel and all later calls, until the reset. */
static void fault_is(enum wrong how, const char *text)
{
    int *p = device_new<int>(64), *q;

    launch(go_wrong, dim3(3), dim3(64), 0, nullptr, how, p);
    assert_int_equal(cudaDeviceSynchronize(), cudaErrorLaunchFailure);
    says(text);
    assert_int_equal(cudaMalloc(&q, 4), cudaErrorLaunchFailure);
    assert_int_equal(cudasim_reset(), 1);
    assert_cuda(cudaFree(p));
}

static void threads_that_do_not_meet_are_named(void **state)
{
    fault_is(ONE_SKIPS_BARRIER, "63 are at the block's barrier");
    fault_is(TWO_BARRIERS, "thread (32,0,0) is at __syncthreads of");
    fault_is(LANE_NOT_IN_MASK, "not in its mask 0000fffe");
    fault_is(LANES_DIFFER, "lane 0 at __shfl_xor_sync of");
    fault_is(LANE_MISSING, "reads lane 16");
    fault_is(TOO_MUCH_SHARED, "wants 120000 bytes of shared memory");
}

static void lanes_that_have_ended_need_not_come(void **state)
{
    int *p = device_new<int>(64), got[64];

    launch(go_wrong, dim3(1), dim3(64), 0, nullptr, NOT_WRONG, p);
    fetch(got, p, 64);
    for (int i = 0; i < 48; i++)
        if (i % 32 < 16)
            assert_int_equal(got[i], i < 32);
    assert_cuda(cudaFree(p));
}

/* --- planned failures ---------------------------------------------------- */

/* Uses what there is; the first error, and nothing left behind. */
static cudaError_t use_everything(void)
{
    cudaStream_t s = nullptr;
    cudaEvent_t event = nullptr;
    float *p = nullptr, host[4] = {}, *pinned = nullptr;
    cudaError_t e = cudaSetDevice(0);

    if (!e)
        e = cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking);
    if (!e)
        e = cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
    if (!e)
        e = cudaMalloc(&p, sizeof host);
    if (!e)
        e = cudaMallocHost((void **)&pinned, sizeof host);
    if (!e)
        e = cudaMemcpyAsync(p, host, sizeof host, cudaMemcpyHostToDevice, s);
    if (!e)
        e = try_launch(dim3(1), dim3(1), 0, p, s);
    if (!e)
        e = cudaEventRecord(event, s);
    if (!e)
        e = cudaStreamWaitEvent(nullptr, event, 0);
    if (!e)
        e = cudaStreamSynchronize(s);
    /* These do their work also when they say that something failed. */
    cudaFree(p);
    cudaFreeHost(pinned);
    if (event)
        cudaEventDestroy(event);
    if (s)
        cudaStreamDestroy(s);
    return e;
}

static void any_call_can_fail(void **state)
{
    uint64_t n_calls;

    assert_int_equal(cudasim_reset(), 0);
    assert_cuda(use_everything());
    n_calls = cudasim_calls(nullptr);
    assert_int_equal(cudasim_calls("cudaMalloc"), 1);
    for (uint64_t n = 1; n <= n_calls; n++) {
        cudasim_fail(nullptr, n, cudaErrorUnknown);
        if (n <= n_calls - 4)
            assert_int_equal(use_everything(), cudaErrorUnknown);
        else
            assert_cuda(use_everything());
        says("fails as planned");
        assert_int_equal(cudasim_reset(), 0);
    }
    cudasim_fail("cudaMalloc", 2, cudaErrorMemoryAllocation);
    assert_cuda(use_everything());
    assert_int_equal(use_everything(), cudaErrorMemoryAllocation);
    assert_cuda(use_everything());
}

static void the_environment_describes_the_machine(void **state)
{
    int n;
    struct cudaDeviceProp prop;
    void *p;

    setenv("CUDASIM_DEVICES", "2", 1);
    setenv("CUDASIM_MEMORY", "3M", 1);
    setenv("CUDASIM_CC", "7.5", 1);
    setenv("CUDASIM_FAIL", "cudaMalloc:2:2", 1);
    assert_int_equal(cudasim_reset(), 0);
    assert_cuda(cudaGetDeviceCount(&n));
    assert_int_equal(n, 2);
    assert_cuda(cudaGetDeviceProperties(&prop, 1));
    assert_int_equal(prop.totalGlobalMem, 3 << 20);
    assert_int_equal(prop.major * 10 + prop.minor, 75);
    assert_cuda(cudaMalloc(&p, 1));
    assert_cuda(cudaFree(p));
    assert_int_equal(cudaMalloc(&p, 1), cudaErrorMemoryAllocation);
    setenv("CUDASIM_DEVICES", "0", 1);
    cudasim_reset();
    assert_int_equal(cudaGetDeviceCount(&n), cudaErrorNoDevice);
    assert_int_equal(cudaMalloc(&p, 1), cudaErrorNoDevice);
    setenv("CUDASIM_DEVICES", "1", 1);
    setenv("CUDASIM_DRIVER", "11040", 1);
    cudasim_reset();
    assert_int_equal(cudaGetDeviceCount(&n), cudaErrorInsufficientDriver);
    unsetenv("CUDASIM_DEVICES");
    unsetenv("CUDASIM_MEMORY");
    unsetenv("CUDASIM_CC");
    unsetenv("CUDASIM_DRIVER");
    unsetenv("CUDASIM_FAIL");
    cudasim_reset();
}

static void what_is_left_is_counted(void **state)
{
    cudaStream_t s = stream_new();
    float *p = device_new<float>(1);
    cudaEvent_t event;

    assert_cuda(cudaEventCreate(&event));
    assert_int_equal(cudasim_reset(), 3);
    assert_cuda(cudaEventDestroy(event));
    assert_int_equal(cudaEventDestroy(event), cudaErrorInvalidResourceHandle);
    assert_cuda(cudaStreamDestroy(s));
    assert_int_equal(cudaStreamSynchronize(s), cudaErrorInvalidResourceHandle);
    assert_int_equal(cudasim_reset(), 1);
    assert_cuda(cudaFree(p));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(device_memory_has_a_size, leaks_nothing),
        cmocka_unit_test(copies_stay_within_an_allocation),
        cmocka_unit_test(copies_go_the_way_they_say),
        cmocka_unit_test(new_memory_is_nans),
        cmocka_unit_test(host_threads_cannot_touch_device_memory),
        cmocka_unit_test(kernels_cannot_leave_their_memory),
        cmocka_unit_test_teardown(pinning_is_kept_account_of, leaks_nothing),
        cmocka_unit_test(a_device_does_its_own_work_alone),
        cmocka_unit_test(impossible_launches_are_refused),
        cmocka_unit_test(threads_that_do_not_meet_are_named),
        cmocka_unit_test(lanes_that_have_ended_need_not_come),
        cmocka_unit_test(any_call_can_fail),
        cmocka_unit_test(the_environment_describes_the_machine),
        cmocka_unit_test(what_is_left_is_counted),
    };

    return cmocka_run_group_tests(tests, nullptr, leaks_nothing);
}
