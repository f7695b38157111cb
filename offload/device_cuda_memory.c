#include "config.h"

#include <stdlib.h>
#ifndef CUDA_SIM
#include <dlfcn.h>
#endif

#include "offload/device_cuda.h"

/* What a context is taken for at most where that was not measured: with cuBLAS
 * and all kernels they are of some hundred MB. */
#define CONTEXT_MOST (1ull << 30)
/* A context takes more than this part of any device's memory: a smaller
 * difference means that there was one before, which nobody told of. */
#define LEAST_SHARE 1024

/* --- NVML ------------------------------------------------------------------
 */

/* cudaMemGetInfo makes a context to tell what is free, and so cannot tell what
 * was free without it; the driver's management library can. It comes with every
 * driver but some embedded ones, is opened where it is and never linked; its
 * header does not come with every toolkit. (NVML API Reference Guide, "Device
 * Queries"; nvml.h.) */
struct nvml_memory {
    unsigned long long total, free, used;
};

typedef void *nvml_device;

int nvmlInit_v2(void);
int nvmlShutdown(void);
int nvmlDeviceGetHandleByPciBusId_v2(const char *pci, nvml_device *device);
int nvmlDeviceGetMemoryInfo(nvml_device device, struct nvml_memory *memory);

struct nvml {
    void *library;
    __typeof__(nvmlInit_v2) *init;
    __typeof__(nvmlShutdown) *shutdown;
    __typeof__(nvmlDeviceGetHandleByPciBusId_v2) *find;
    __typeof__(nvmlDeviceGetMemoryInfo) *memory;
};

#ifdef CUDA_SIM
static bool load(struct nvml *n)
{
    *n = (struct nvml){
        .init = nvmlInit_v2,
        .shutdown = nvmlShutdown,
        .find = nvmlDeviceGetHandleByPciBusId_v2,
        .memory = nvmlDeviceGetMemoryInfo,
    };
    return true;
}

static void unload(struct nvml *n)
{
}
#else
static bool load(struct nvml *n)
{
    n->library = dlopen("libnvidia-ml.so.1", RTLD_NOW);
    if (n->library == NULL)
        return false;
    *(void **)&n->init = dlsym(n->library, "nvmlInit_v2");
    *(void **)&n->shutdown = dlsym(n->library, "nvmlShutdown");
    *(void **)&n->find = dlsym(n->library, "nvmlDeviceGetHandleByPciBusId_v2");
    *(void **)&n->memory = dlsym(n->library, "nvmlDeviceGetMemoryInfo");
    if (n->init != NULL && n->shutdown != NULL && n->find != NULL &&
        n->memory != NULL)
        return true;
    dlclose(n->library);
    return false;
}

static void unload(struct nvml *n)
{
    dlclose(n->library);
}
#endif

/* What is free on the device at that address of the bus; 0: unknown. */
static uint64_t free_by_nvml(const char *pci)
{
    struct nvml_memory memory = {0};
    nvml_device device;
    struct nvml n = {0};

    if (pci[0] == '\0' || !load(&n))
        return 0;
    if (n.init() == 0) {
        if (n.find(pci, &device) != 0 || n.memory(device, &memory) != 0)
            memory.free = 0;
        n.shutdown();
    }
    unload(&n);
    return memory.free;
}

/* --- the context -----------------------------------------------------------
 */

/* Of what is in use on the device, what the context has that was made since so
 * much was free by NVML (0: unknown). */
static uint64_t made_since(const struct sl_device_info *info, uint64_t before,
                           uint64_t in_use)
{
    uint64_t now = 0;

    if (before > 0)
        now = free_by_nvml(info->pci);
    if (now > 0 && before > now &&
        before - now > info->vram_bytes / LEAST_SHARE && before - now < in_use)
        return before - now;
    return in_use < CONTEXT_MOST ? in_use : CONTEXT_MOST;
}

int sl_cuda_look_at_memory(struct sl_device_info *info,
                           struct sl_device_contexts *contexts,
                           struct sl_error *err)
{
    uint64_t none = 0, before = 0;
    uint64_t *kept = contexts != NULL && info->ordinal < (int)SL_DEVICE_CONTEXTS
                         ? &contexts->bytes[info->ordinal]
                         : &none;
    bool again = info->context_bytes > 0;
    size_t free_bytes, total;
    cudaError_t rc;

    if (!again && *kept == 0)
        before = free_by_nvml(info->pci);
    rc = cudaSetDevice(info->ordinal);
    /* makes the context, which cudaMemGetInfo then sees */
    if (rc == cudaSuccess)
        rc = cudaFree(NULL);
    if (rc == cudaSuccess)
        rc = cudaMemGetInfo(&free_bytes, &total);
    if (rc != cudaSuccess)
        return sl_cuda_fail(info, rc, err, "cannot be opened");
    if (again && free_bytes < info->vram_free)
        info->context_bytes += info->vram_free - free_bytes;
    info->vram_bytes = total;
    info->vram_free = free_bytes;
    if (!again)
        info->context_bytes =
            *kept > 0 ? *kept : made_since(info, before, total - free_bytes);
    *kept = info->context_bytes;
    return 0;
}
