#include "config.h"

#include <stdio.h>

#ifdef HAVE_CUDA
#include "offload/device_cuda.h"
#endif
#include "offload/device.h"

#ifdef HAVE_CUDA
int sl_device_list(struct sl_device_info *infos, size_t room, size_t *n,
                   struct sl_error *err)
{
    return sl_cuda_list(infos, room, n, err);
}
#else
static int fail_absent(struct sl_error *err)
{
    return sl_fail(err, SL_ERR_UNSUPPORTED,
                   "this sluice was built without CUDA (configure "
                   "--with-cuda=yes needs nvcc)");
}

int sl_device_list(struct sl_device_info *infos, size_t room, size_t *n,
                   struct sl_error *err)
{
    *n = 0;
    return fail_absent(err);
}

int sl_device_open_cuda(struct sl_device **dev, int ordinal,
                        struct sl_device_contexts *contexts,
                        struct sl_error *err)
{
    return fail_absent(err);
}
#endif

/* Some 80 % of what NVIDIA's whitepapers on GA102 and Ada state (71 TFLOP/s on
 * the 82 multiprocessors of an RTX 3090, 165 on the 128 of a 4090), and less
 * still of the others. */
double sl_device_ops(const struct sl_device_info *info)
{
    int arch = 10 * info->cc_major + info->cc_minor;
    double each = 0.5e12;

    if (arch >= 86)
        each = 0.7e12;
    if (arch >= 89)
        each = 1.0e12;
    if (arch == 80 || arch == 90 || arch == 100)
        each = 1.8e12;
    return each * info->n_sms;
}

void sl_device_close(struct sl_device *dev)
{
    if (dev != NULL)
        dev->ops->close(dev);
}

char *sl_device_version(char buf[SL_VERSION_TEXT], int version)
{
    snprintf(buf, SL_VERSION_TEXT, "%d.%d", version / 1000,
             version % 1000 / 10);
    return buf;
}
