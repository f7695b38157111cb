/*
 * device_cuda.h - what the parts of the CUDA device share
 *
 * For offload/device*.c and those who call the CUDA runtime on this device's
 * queues themselves. Include it only where HAVE_CUDA.
 */
#ifndef SL_OFFLOAD_DEVICE_CUDA_H
#define SL_OFFLOAD_DEVICE_CUDA_H

#include <cuda_runtime_api.h>

#include "offload/device.h"

/* Why there is no device where there is no driver. */
#define SL_NO_DRIVER                                                           \
    "no NVIDIA driver is installed here (libcuda.so.1 is missing), so no GPU " \
    "can be used"

/* Fills err with what a failed call of the runtime means, in one line that
 * names the device and what to do; `what` tells what was being done. Returns
 * -1. */
int sl_cuda_fail(const struct sl_device_info *info, cudaError_t rc,
                 struct sl_error *err, const char *what, ...)
    __attribute__((format(printf, 4, 5)));

/* Finds the devices, as sl_device_list does. */
int sl_cuda_list(struct sl_device_info *infos, size_t room, size_t *n,
                 struct sl_error *err);
/* Makes device `ordinal` the present one of this thread with a context, and
 * tells about it. Returns -1 where it cannot be used (err and info->why_not
 * say why). */
int sl_cuda_look(struct sl_device_info *info, int ordinal,
                 struct sl_device_contexts *contexts, struct sl_error *err);
/* Its memory alone: total, free, taken by the context. Makes the context,
 * unless contexts (or NULL) have it; asked again, tells what that has come to
 * since the first time. (device_cuda_memory.c)
 */
int sl_cuda_look_at_memory(struct sl_device_info *info,
                           struct sl_device_contexts *contexts,
                           struct sl_error *err);
/* Whether a device of compute capability cc (10 major + minor) runs machine
 * code for one of archs ("75 80 86") or PTX of version ptx. */
bool sl_cuda_has_kernels(const char *archs, int ptx, int cc);
/* How many devices there are. Errors: SL_ERR_UNSUPPORTED why there is none. */
int sl_cuda_count(int *n, struct sl_error *err);

#endif
