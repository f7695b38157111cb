#include "config.h"

#include "src/exec/exec_gpu.h"

/* Built without CUDA: no device opens, so nobody gets here. */

int sl_gpu_load(struct sl_cuda **cuda, struct sl_device *device,
                const struct sl_log *log, struct sl_error *err)
{
    return sl_fail(err, SL_ERR_UNSUPPORTED,
                   "this sluice was built without CUDA");
}

void sl_gpu_unload(struct sl_cuda *cuda)
{
}

int sl_gpu_measure(struct sl_kernel_rates *rates, struct sl_cuda *cuda,
                   struct sl_device *device, uint32_t side, uint32_t n,
                   struct sl_error *err)
{
    return sl_fail(err, SL_ERR_UNSUPPORTED,
                   "this sluice was built without CUDA");
}

struct sl_gpu_need sl_gpu_need(const struct sl_gpu_shape *shape)
{
    return (struct sl_gpu_need){0};
}

int sl_gpu_create(struct sl_exec_engine **e, const struct sl_gpu_config *config,
                  struct sl_error *err)
{
    return sl_fail(err, SL_ERR_UNSUPPORTED,
                   "this sluice was built without CUDA");
}
