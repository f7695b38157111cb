/* What the simulated machine has, and the calls that ask for it. */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cudasim/sim.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static bool known;
static struct cudasim_config now;
static __thread int current_device;

static size_t size_in(const char *name, size_t otherwise)
{
    const char *text = getenv(name);
    char *end;
    unsigned long long n;

    if (!text)
        return otherwise;
    n = strtoull(text, &end, 10);
    switch (*end) {
    case 'G':
        n <<= 10; /* fall through */
    case 'M':
        n <<= 10; /* fall through */
    case 'K':
        n <<= 10;
    }
    return (size_t)n;
}

static void read_environment(void)
{
    const char *cc = getenv("CUDASIM_CC");

    now.n_devices = (int)size_in("CUDASIM_DEVICES", 1);
    now.cc_major = 8;
    now.cc_minor = 6;
    if (cc)
        sscanf(cc, "%d.%d", &now.cc_major, &now.cc_minor);
    now.driver = (int)size_in("CUDASIM_DRIVER", CUDART_VERSION);
    now.memory_bytes = size_in("CUDASIM_MEMORY", (size_t)1 << 30);
    now.context_bytes = now.memory_bytes / 64;
    now.others_bytes = size_in("CUDASIM_OTHERS", 0);
    now.stack_bytes = size_in("CUDASIM_STACK", 0);
    now.pin_bytes = size_in("CUDASIM_PIN", (size_t)-1);
    now.reverse = (int)size_in("CUDASIM_REVERSE", 0);
    known = true;
}

void sim_reread_environment(void)
{
    struct sim_lock held(&lock);

    read_environment();
}

struct cudasim_config sim_config(void)
{
    struct sim_lock held(&lock);

    if (!known)
        read_environment();
    return now;
}

void cudasim_get_config(struct cudasim_config *config)
{
    *config = sim_config();
}

void cudasim_set_config(const struct cudasim_config *config)
{
    struct sim_lock held(&lock);

    now = *config;
    known = true;
}

int sim_device(void)
{
    return current_device;
}

cudaError_t cudaGetDeviceCount(int *count)
{
    cudaError_t e = sim_enter_always("cudaGetDeviceCount");
    struct cudasim_config c = sim_config();

    *count = 0;
    if (e)
        return sim_leave(e);
    if (c.driver < CUDART_VERSION / 1000 * 1000)
        return sim_leave(cudaErrorInsufficientDriver);
    if (c.n_devices <= 0)
        return sim_leave(cudaErrorNoDevice);
    *count = c.n_devices;
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int device)
{
    cudaError_t e = sim_enter("cudaSetDevice");

    if (e)
        return sim_leave(e);
    if (device < 0 || device >= sim_config().n_devices)
        return sim_leave(cudaErrorInvalidDevice);
    current_device = device;
    sim_make_context();
    return cudaSuccess;
}

cudaError_t cudaGetDevice(int *device)
{
    cudaError_t e = sim_enter("cudaGetDevice");

    if (e)
        return sim_leave(e);
    *device = current_device;
    return cudaSuccess;
}

cudaError_t cudaSetDeviceFlags(unsigned int flags)
{
    return sim_leave(sim_enter("cudaSetDeviceFlags"));
}

cudaError_t cudaInitDevice(int device, unsigned int device_flags,
                           unsigned int flags)
{
    cudaError_t e = sim_enter("cudaInitDevice");

    if (e)
        return sim_leave(e);
    return sim_leave(device < 0 || device >= sim_config().n_devices
                         ? cudaErrorInvalidDevice
                         : cudaSuccess);
}

cudaError_t cudaDriverGetVersion(int *version)
{
    cudaError_t e = sim_enter_always("cudaDriverGetVersion");

    if (e)
        return sim_leave(e);
    *version = sim_config().driver;
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
    cudaError_t e = sim_enter_always("cudaRuntimeGetVersion");

    if (e)
        return sim_leave(e);
    *version = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *prop, int device)
{
    cudaError_t e = sim_enter("cudaGetDeviceProperties");
    struct cudasim_config c = sim_config();

    if (e)
        return sim_leave(e);
    if (device < 0 || device >= c.n_devices)
        return sim_leave(cudaErrorInvalidDevice);
    memset(prop, 0, sizeof *prop);
    snprintf(prop->name, sizeof prop->name, "cudasim %d", device);
    prop->totalGlobalMem = c.memory_bytes;
    prop->sharedMemPerBlock = SIM_SHARED_DEFAULT;
    prop->sharedMemPerBlockOptin = SIM_SHARED_MOST;
    prop->sharedMemPerMultiprocessor = SIM_SHARED_MOST + 1024;
    prop->warpSize = 32;
    prop->maxThreadsPerBlock = 1024;
    prop->maxThreadsPerMultiProcessor = 1536;
    prop->major = c.cc_major;
    prop->minor = c.cc_minor;
    prop->multiProcessorCount = 4;
    prop->memoryBusWidth = 128;
    prop->l2CacheSize = 1 << 20;
    prop->asyncEngineCount = 2;
    prop->unifiedAddressing = 1;
    prop->pciBusID = device + 1;
    return cudaSuccess;
}

static int attribute(const struct cudasim_config *c, enum cudaDeviceAttr attr)
{
    switch (attr) {
    case cudaDevAttrMaxThreadsPerBlock:
        return 1024;
    case cudaDevAttrMaxSharedMemoryPerBlock:
        return SIM_SHARED_DEFAULT;
    case cudaDevAttrWarpSize:
        return 32;
    case cudaDevAttrClockRate:
    case cudaDevAttrMemoryClockRate:
        return 1000000; /* kHz */
    case cudaDevAttrMultiProcessorCount:
        return 4;
    case cudaDevAttrIntegrated:
        return 0;
    case cudaDevAttrGlobalMemoryBusWidth:
        return 128;
    case cudaDevAttrL2CacheSize:
        return 1 << 20;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
        return 1536;
    case cudaDevAttrAsyncEngineCount:
        return 2;
    case cudaDevAttrComputeCapabilityMajor:
        return c->cc_major;
    case cudaDevAttrComputeCapabilityMinor:
        return c->cc_minor;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
        return SIM_SHARED_MOST + 1024;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
        return SIM_SHARED_MOST;
    case cudaDevAttrUnifiedAddressing:
    case cudaDevAttrHostRegisterSupported:
        return 1;
    }
    return -1;
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attr,
                                   int device)
{
    cudaError_t e = sim_enter("cudaDeviceGetAttribute");
    struct cudasim_config c = sim_config();
    int found = attribute(&c, attr);

    if (e)
        return sim_leave(e);
    if (device < 0 || device >= c.n_devices)
        return sim_leave(cudaErrorInvalidDevice);
    if (found < 0)
        return sim_refuse(cudaErrorInvalidValue,
                          "cudaDeviceGetAttribute: cudasim does not know "
                          "attribute %d",
                          (int)attr);
    *value = found;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetPCIBusId(char *text, int len, int device)
{
    cudaError_t e = sim_enter("cudaDeviceGetPCIBusId");

    if (e)
        return sim_leave(e);
    if (device < 0 || device >= sim_config().n_devices || len < 13)
        return sim_leave(cudaErrorInvalidValue);
    snprintf(text, (size_t)len, "0000:%02x:00.0", device + 1);
    return cudaSuccess;
}
