#include "config.h"

#include "offload/device_file.h"
#include "src/exec/exec_gpu.h"

/* The GPU engine, which lies in a file of its own (offload/device_file.h). A
 * device that is open came out of that file: it is there. */

int sl_gpu_load(struct sl_cuda **cuda, struct sl_device *device,
                const struct sl_log *log, struct sl_error *err)
{
    __typeof__(sl_gpu_load) *load;

    *(void **)&load = sl_device_file_symbol(__func__, err);
    return load != NULL ? load(cuda, device, log, err) : -1;
}

void sl_gpu_unload(struct sl_cuda *cuda)
{
    __typeof__(sl_gpu_unload) *unload;

    if (cuda == NULL)
        return;
    *(void **)&unload = sl_device_file_symbol(__func__, NULL);
    if (unload != NULL)
        unload(cuda);
}

int sl_gpu_measure(struct sl_kernel_rates *rates, struct sl_cuda *cuda,
                   struct sl_device *device, uint32_t side, uint32_t n,
                   struct sl_error *err)
{
    __typeof__(sl_gpu_measure) *measure;

    *(void **)&measure = sl_device_file_symbol(__func__, err);
    return measure != NULL ? measure(rates, cuda, device, side, n, err) : -1;
}

struct sl_gpu_need sl_gpu_need(const struct sl_gpu_shape *shape)
{
    __typeof__(sl_gpu_need) *need;

    *(void **)&need = sl_device_file_symbol(__func__, NULL);
    return need != NULL ? need(shape) : (struct sl_gpu_need){0};
}

int sl_gpu_create(struct sl_exec_engine **e, const struct sl_gpu_config *config,
                  struct sl_error *err)
{
    __typeof__(sl_gpu_create) *create;

    *(void **)&create = sl_device_file_symbol(__func__, err);
    return create != NULL ? create(e, config, err) : -1;
}
