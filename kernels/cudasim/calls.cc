/* Counting calls, planned failures, errors and faults. */
#include "config.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cudasim/sim.h"

#define MOST_CALLS 96
#define MOST_PLANS 8

struct call_count {
    const char *name;
    uint64_t n;
};

struct plan {
    char call[64]; /* "" is any */
    uint64_t left; /* 0: no plan */
    cudaError_t error;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct call_count counts[MOST_CALLS];
static size_t n_counts;
static uint64_t n_calls;
static struct plan plans[MOST_PLANS];
static bool read_plans;
static cudaError_t fault;
static char fault_text[480];
static __thread cudaError_t last_error;

/* A plan that is made twice replaces itself. The lock is held. */
static void plan_failure(const char *call, uint64_t nth, cudaError_t error)
{
    struct plan *at = nullptr;

    for (struct plan &p : plans) {
        if (p.left && strcmp(p.call, call) == 0)
            at = &p;
        else if (!p.left && !at)
            at = &p;
    }
    if (!at)
        at = &plans[0];
    snprintf(at->call, sizeof at->call, "%s", call);
    at->left = nth;
    at->error = error;
}

/* The lock is held. */
static void read_environment(void)
{
    const char *text = getenv("CUDASIM_FAIL");
    char call[64];
    unsigned long long nth;
    int error;

    read_plans = true;
    if (text && sscanf(text, "%63[^:]:%llu:%d", call, &nth, &error) == 3)
        plan_failure(strcmp(call, "any") == 0 ? "" : call, nth,
                     (cudaError_t)error);
}

static cudaError_t count_call(const char *call)
{
    struct sim_lock held(&lock);
    cudaError_t error = cudaSuccess;
    size_t i = 0;

    if (!read_plans)
        read_environment();
    while (i < n_counts && strcmp(counts[i].name, call) != 0)
        i++;
    if (i == n_counts && i < MOST_CALLS)
        counts[n_counts++] = {call, 0};
    if (i < n_counts)
        counts[i].n++;
    n_calls++;
    for (struct plan &p : plans)
        if (p.left && (!*p.call || strcmp(p.call, call) == 0) && !--p.left)
            error = p.error;
    if (error)
        snprintf(fault_text, sizeof fault_text, "%s fails as planned", call);
    return error;
}

/* As deep as a real driver's calls are said to be. */
static void use_stack(size_t bytes)
{
    volatile char page[4096];

    page[0] = 0;
    if (bytes > sizeof page)
        use_stack(bytes - sizeof page);
    page[sizeof page - 1] = page[0]; /* no tail call */
}

cudaError_t sim_enter_always(const char *call)
{
    use_stack(sim_config().stack_bytes);
    return count_call(call);
}

cudaError_t sim_enter(const char *call)
{
    cudaError_t error = sim_enter_always(call);

    if (error)
        return error;
    if (sim_config().n_devices <= 0)
        return cudaErrorNoDevice;
    if (sim_config().driver < CUDART_VERSION / 1000 * 1000)
        return cudaErrorInsufficientDriver;
    return sim_fault_error();
}

cudaError_t sim_leave(cudaError_t error)
{
    if (error)
        last_error = error;
    return error;
}

cudaError_t sim_refuse(cudaError_t error, const char *format, ...)
{
    struct sim_lock held(&lock);
    va_list args;

    va_start(args, format);
    vsnprintf(fault_text, sizeof fault_text, format, args);
    va_end(args);
    last_error = error;
    return error;
}

void sim_set_fault(cudaError_t error, const char *text)
{
    struct sim_lock held(&lock);

    if (fault)
        return;
    fault = error;
    snprintf(fault_text, sizeof fault_text, "%s", text);
    fprintf(stderr, "cudasim: %s\n", text);
}

cudaError_t sim_fault_error(void)
{
    struct sim_lock held(&lock);

    return fault;
}

char *cudasim_fault(char *text, size_t len)
{
    struct sim_lock held(&lock);

    snprintf(text, len, "%s", fault_text);
    return text;
}

void cudasim_fail(const char *call, uint64_t nth, cudaError_t error)
{
    struct sim_lock held(&lock);

    read_plans = true;
    plan_failure(call ? call : "", nth, error);
}

uint64_t cudasim_calls(const char *call)
{
    struct sim_lock held(&lock);

    for (size_t i = 0; call && i < n_counts; i++)
        if (strcmp(counts[i].name, call) == 0)
            return counts[i].n;
    return call ? 0 : n_calls;
}

size_t cudasim_reset(void)
{
    size_t live;

    sim_drain();
    live = sim_live_memory() + sim_live_streams();
    sim_reread_environment();
    sim_forget_copies();
    struct sim_lock held(&lock);
    memset(plans, 0, sizeof plans);
    read_environment();
    n_counts = 0;
    n_calls = 0;
    fault = cudaSuccess;
    fault_text[0] = '\0';
    last_error = cudaSuccess;
    return live;
}

cudaError_t cudaGetLastError(void)
{
    cudaError_t error = last_error;

    last_error = cudaSuccess;
    return error ? error : sim_fault_error();
}

cudaError_t cudaPeekAtLastError(void)
{
    return last_error ? last_error : sim_fault_error();
}

struct error_text {
    cudaError_t error;
    const char *name, *text;
};

#define ERROR(name, text)                                                      \
    {                                                                          \
        name, #name, text                                                      \
    }

static const struct error_text error_texts[] = {
    ERROR(cudaSuccess, "no error"),
    ERROR(cudaErrorInvalidValue, "invalid argument"),
    ERROR(cudaErrorMemoryAllocation, "out of memory"),
    ERROR(cudaErrorInitializationError, "initialization error"),
    ERROR(cudaErrorInvalidConfiguration, "invalid configuration argument"),
    ERROR(cudaErrorInvalidDevicePointer, "invalid device pointer"),
    ERROR(cudaErrorInvalidMemcpyDirection, "invalid copy direction for memcpy"),
    ERROR(cudaErrorStubLibrary, "CUDA driver is a stub library"),
    ERROR(cudaErrorInsufficientDriver,
          "CUDA driver version is insufficient for CUDA runtime version"),
    ERROR(cudaErrorDevicesUnavailable,
          "CUDA-capable device(s) is/are busy or unavailable"),
    ERROR(cudaErrorNoDevice, "no CUDA-capable device is detected"),
    ERROR(cudaErrorInvalidDevice, "invalid device ordinal"),
    ERROR(cudaErrorInvalidKernelImage, "device kernel image is invalid"),
    ERROR(cudaErrorNoKernelImageForDevice,
          "no kernel image is available for execution on the device"),
    ERROR(cudaErrorECCUncorrectable, "uncorrectable ECC error encountered"),
    ERROR(cudaErrorUnsupportedPtxVersion,
          "the provided PTX was compiled with an unsupported toolchain."),
    ERROR(cudaErrorOperatingSystem, "OS call failed or operation not "
                                    "supported on this OS"),
    ERROR(cudaErrorInvalidResourceHandle, "invalid resource handle"),
    ERROR(cudaErrorNotReady, "device not ready"),
    ERROR(cudaErrorIllegalAddress, "an illegal memory access was encountered"),
    ERROR(cudaErrorLaunchOutOfResources,
          "too many resources requested for launch"),
    ERROR(cudaErrorLaunchTimeout, "the launch timed out and was terminated"),
    ERROR(cudaErrorAssert, "device-side assert triggered"),
    ERROR(cudaErrorHardwareStackError, "hardware stack error"),
    ERROR(cudaErrorMisalignedAddress, "misaligned address"),
    ERROR(cudaErrorHostMemoryAlreadyRegistered,
          "part or all of the requested memory range is already mapped"),
    ERROR(cudaErrorHostMemoryNotRegistered,
          "pointer does not correspond to a registered memory region"),
    ERROR(cudaErrorLaunchFailure, "unspecified launch failure"),
    ERROR(cudaErrorNotPermitted, "operation not permitted"),
    ERROR(cudaErrorNotSupported, "operation not supported"),
    ERROR(cudaErrorSystemNotReady, "system not yet initialized"),
    ERROR(cudaErrorSystemDriverMismatch,
          "system has unsupported display driver / cuda driver combination"),
    ERROR(cudaErrorUnknown, "unknown error"),
};

static const struct error_text *text_of(cudaError_t error)
{
    for (const struct error_text &t : error_texts)
        if (t.error == error)
            return &t;
    return &error_texts[sizeof error_texts / sizeof *error_texts - 1];
}

const char *cudaGetErrorString(cudaError_t error)
{
    return text_of(error)->text;
}

const char *cudaGetErrorName(cudaError_t error)
{
    return text_of(error)->name;
}
