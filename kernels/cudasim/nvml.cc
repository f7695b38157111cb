/*
 * NVML as far as sluice uses it: what the machine's memory looks like from
 * outside, whoever has it. Names and values of NVIDIA's header nvml.h.
 */
#include "config.h"

#include <stdio.h>

#include "kernels/cudasim/sim.h"

extern "C" {

struct nvml_memory {
    unsigned long long total, free, used;
};

int nvmlInit_v2(void);
int nvmlShutdown(void);
int nvmlDeviceGetHandleByPciBusId_v2(const char *pci, void **device);
int nvmlDeviceGetMemoryInfo(void *device, struct nvml_memory *memory);
}

#define NVML_ERROR_UNINITIALIZED 1
#define NVML_ERROR_NOT_FOUND     6

static int enter(const char *call)
{
    return sim_enter_always(call) ? NVML_ERROR_UNINITIALIZED : 0;
}

int nvmlInit_v2(void)
{
    return enter("nvmlInit_v2");
}

int nvmlShutdown(void)
{
    return enter("nvmlShutdown");
}

/* A handle is the number of its bus. */
int nvmlDeviceGetHandleByPciBusId_v2(const char *pci, void **device)
{
    int rc = enter("nvmlDeviceGetHandleByPciBusId_v2");
    unsigned bus;

    if (rc)
        return rc;
    if (sscanf(pci, "0000:%x:00.0", &bus) != 1 || bus < 1 ||
        (int)bus > sim_config().n_devices)
        return NVML_ERROR_NOT_FOUND;
    *device = reinterpret_cast<void *>(static_cast<uintptr_t>(bus));
    return 0;
}

int nvmlDeviceGetMemoryInfo(void *device, struct nvml_memory *memory)
{
    int rc = enter("nvmlDeviceGetMemoryInfo");

    if (rc)
        return rc;
    memory->total = sim_config().memory_bytes;
    memory->free =
        sim_free_memory((int)reinterpret_cast<uintptr_t>(device) - 1);
    memory->used = memory->total - memory->free;
    return 0;
}
