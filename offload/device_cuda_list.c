#include "config.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "offload/device_cuda.h"
#include "src/base/bytes.h"

/* The oldest architecture that nvcc 13 compiles for. */
#define LEAST_CC 75

/* --- failures ------------------------------------------------------------- */

static int fail_driver(struct sl_error *err)
{
    char have[SL_VERSION_TEXT], need[SL_VERSION_TEXT];
    int driver = 0, runtime = 0;

    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    if (driver == 0)
        return sl_fail(err, SL_ERR_UNSUPPORTED, SL_NO_DRIVER);
    return sl_fail(err, SL_ERR_UNSUPPORTED,
                   "the NVIDIA driver is too old: it knows CUDA %s, this "
                   "sluice needs %s; install a newer driver",
                   sl_device_version(have, driver),
                   sl_device_version(need, runtime));
}

/* What to do about an error that has nothing to do with a single call. */
static const char *advice(cudaError_t rc)
{
    switch (rc) {
    case cudaErrorMemoryAllocation:
        return "out of memory on the device: a smaller --vram needs less";
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorInvalidKernelImage:
    case cudaErrorUnsupportedPtxVersion:
        return "this build has no kernels for its architecture; configure "
               "with --with-cuda-arch and build again";
    case cudaErrorDevicesUnavailable:
        return "another process uses the device exclusively";
    case cudaErrorSystemDriverMismatch:
        return "the driver's library and its kernel module differ: reboot";
    case cudaErrorSystemNotReady:
        return "the driver is not ready (is nvidia-fabricmanager running?)";
    case cudaErrorLaunchTimeout:
        return "a kernel ran longer than the display allows";
    case cudaErrorECCUncorrectable:
        return "its memory has an error that cannot be corrected";
    case cudaErrorIllegalAddress:
    case cudaErrorMisalignedAddress:
    case cudaErrorAssert:
        return "a kernel went wrong, which is a bug in sluice";
    default:
        return NULL;
    }
}

/* After these nothing on the device works any more. */
static bool lost(cudaError_t rc)
{
    switch (rc) {
    case cudaErrorLaunchFailure:
    case cudaErrorLaunchTimeout:
    case cudaErrorECCUncorrectable:
    case cudaErrorHardwareStackError:
    case cudaErrorUnknown:
    case cudaErrorNoDevice:
        return true;
    default:
        return false;
    }
}

static enum sl_code code_of(cudaError_t rc)
{
    switch (rc) {
    case cudaErrorMemoryAllocation:
        return SL_ERR_NOMEM;
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorInvalidKernelImage:
    case cudaErrorUnsupportedPtxVersion:
    case cudaErrorSystemDriverMismatch:
    case cudaErrorNotSupported:
        return SL_ERR_UNSUPPORTED;
    case cudaErrorInvalidValue:
    case cudaErrorInvalidResourceHandle:
    case cudaErrorIllegalAddress:
    case cudaErrorMisalignedAddress:
    case cudaErrorAssert:
        return SL_ERR_INTERNAL;
    default:
        return SL_ERR_IO;
    }
}

int sl_cuda_fail(const struct sl_device_info *info, cudaError_t rc,
                 struct sl_error *err, const char *what, ...)
{
    const char *hint = advice(rc);
    char text[160];
    va_list args;

    /* The runtime keeps the last error for whoever asks next. */
    cudaGetLastError();
    if (rc == cudaErrorInsufficientDriver || rc == cudaErrorStubLibrary)
        return fail_driver(err);
    va_start(args, what);
    vsnprintf(text, sizeof text, what, args);
    va_end(args);
    return sl_fail(err, code_of(rc), "GPU %d (%s): %s: %s (CUDA error %d)%s%s",
                   info->ordinal, info->name, text,
                   lost(rc) ? "the device is lost" : cudaGetErrorString(rc),
                   (int)rc, hint != NULL ? ": " : "", hint != NULL ? hint : "");
}

/* --- one device ----------------------------------------------------------- */

/* Machine code runs within a major version, from its own minor version up, PTX
 * on all that is as new or newer (CUDA C++ Programming Guide, "Binary
 * Compatibility" and "PTX Compatibility"). */
bool sl_cuda_has_kernels(const char *archs, int ptx, int cc)
{
    for (const char *s = archs; *s != '\0';) {
        char *end;
        long arch = strtol(s, &end, 10);

        if (end == s)
            break;
        if (arch / 10 == cc / 10 && arch <= cc)
            return true;
        s = end;
    }
    return cc >= ptx;
}

static bool has_kernels(int cc)
{
#ifdef SL_CUDA_ARCH
    return sl_cuda_has_kernels(SL_CUDA_ARCH, SL_CUDA_PTX, cc);
#else
    return sl_cuda_has_kernels("", LEAST_CC, cc);
#endif
}

static int fail_architecture(const struct sl_device_info *info,
                             struct sl_error *err)
{
    const char *built = "";
    int cc = info->cc_major * 10 + info->cc_minor;

#ifdef SL_CUDA_ARCH
    built = " (it has them for " SL_CUDA_ARCH ")";
#endif
    if (cc < LEAST_CC)
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "GPU %d (%s) is of compute capability %d.%d, but 7.5 "
                       "(Turing) is the least that sluice can use",
                       info->ordinal, info->name, info->cc_major,
                       info->cc_minor);
    return sl_fail(err, SL_ERR_UNSUPPORTED,
                   "GPU %d (%s) is of compute capability %d.%d, for which this "
                   "build has no kernels%s: configure with "
                   "--with-cuda-arch=%d and build again",
                   info->ordinal, info->name, info->cc_major, info->cc_minor,
                   built, cc);
}

/* The first line of a file below the device's folder in sysfs; "" without. */
static void read_sysfs(char line[32], const char *pci, const char *name)
{
    char path[96];
    FILE *f;

    line[0] = '\0';
    snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/%s", pci, name);
    f = fopen(path, "re");
    if (f == NULL)
        return;
    if (fgets(line, 32, f) == NULL)
        line[0] = '\0';
    fclose(f);
}

/* What the slot and the device can do together; the present speed of an idle
 * link is lower, to save power. */
static void look_at_link(struct sl_device_info *info)
{
    char line[32];

    if (cudaDeviceGetPCIBusId(info->pci, sizeof info->pci, info->ordinal) !=
        cudaSuccess) {
        cudaGetLastError();
        info->pci[0] = '\0';
        return;
    }
    for (char *c = info->pci; *c != '\0'; c++)
        *c = (char)tolower((unsigned char)*c);
    read_sysfs(line, info->pci, "max_link_speed"); /* "16.0 GT/s PCIe" */
    info->pcie_gtps = strtod(line, NULL);
    /* The width does not change with power: what is in use counts. */
    read_sysfs(line, info->pci, "current_link_width");
    info->pcie_lanes = (uint32_t)strtoul(line, NULL, 10);
}

static void look_at_clocks(struct sl_device_info *info)
{
    int khz = 0, bits = 0;

    cudaDriverGetVersion(&info->driver);
    cudaRuntimeGetVersion(&info->runtime);
    if (cudaDeviceGetAttribute(&khz, cudaDevAttrMemoryClockRate,
                               info->ordinal) == cudaSuccess &&
        cudaDeviceGetAttribute(&bits, cudaDevAttrGlobalMemoryBusWidth,
                               info->ordinal) == cudaSuccess &&
        khz > 0 && bits > 0)
        info->vram_bps = 2000ull * (uint64_t)khz * (uint64_t)bits / 8;
    else
        cudaGetLastError();
}

int sl_cuda_look(struct sl_device_info *info, int ordinal,
                 struct sl_device_contexts *contexts, struct sl_error *err)
{
    struct cudaDeviceProp prop;
    struct sl_error why;
    cudaError_t rc;
    int bad;

    *info = (struct sl_device_info){.ordinal = ordinal};
    snprintf(info->name, sizeof info->name, "unnamed");
    rc = cudaGetDeviceProperties(&prop, ordinal);
    if (rc != cudaSuccess) {
        bad = sl_cuda_fail(info, rc, &why, "cannot be asked what it is");
    } else {
        snprintf(info->name, sizeof info->name, "%.*s",
                 (int)sizeof info->name - 1, prop.name);
        info->cc_major = prop.major;
        info->cc_minor = prop.minor;
        info->n_sms = (uint32_t)prop.multiProcessorCount;
        info->vram_bytes = prop.totalGlobalMem;
        look_at_link(info);
        look_at_clocks(info);
        bad = has_kernels(prop.major * 10 + prop.minor)
                  ? sl_cuda_look_at_memory(info, contexts, &why)
                  : fail_architecture(info, &why);
    }
    if (bad == 0)
        return 0;
    info->why_not = why;
    if (err != NULL)
        *err = why;
    return -1;
}

/* --- all devices ---------------------------------------------------------- */

int sl_cuda_count(int *n, struct sl_error *err)
{
    cudaError_t rc = cudaGetDeviceCount(n);

    if (rc == cudaSuccess && *n > 0)
        return 0;
    *n = 0;
    cudaGetLastError();
    if (rc == cudaErrorInsufficientDriver || rc == cudaErrorStubLibrary)
        return fail_driver(err);
    if (rc == cudaSuccess || rc == cudaErrorNoDevice)
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "there is an NVIDIA driver, but no GPU that it may use "
                       "(see nvidia-smi and CUDA_VISIBLE_DEVICES)");
    return sl_fail(err, SL_ERR_UNSUPPORTED,
                   "the NVIDIA driver cannot be used: %s (CUDA error %d)%s%s",
                   cudaGetErrorString(rc), (int)rc,
                   advice(rc) != NULL ? ": " : "",
                   advice(rc) != NULL ? advice(rc) : "");
}

int sl_cuda_list(struct sl_device_info *infos, size_t room, size_t *n,
                 struct sl_error *err)
{
    int count;

    *n = 0;
    if (sl_cuda_count(&count, err) != 0)
        return -1;
    *n = (size_t)count;
    for (size_t i = 0; i < *n && i < room; i++) {
        /* Gives back the context that looking made, and its memory. */
        if (sl_cuda_look(&infos[i], (int)i, NULL, NULL) == 0)
            cudaDeviceReset();
    }
    return 0;
}
