#include "config.h"

#include <dlfcn.h>
#include <stddef.h>

#include "offload/device_cuda.h"
#include "offload/device_file.h"
#include "src/base/module_file.h"

static const struct sl_module_file file = {
    .name = SL_DEVICE_FILE,
    .holds = "sluice's code for GPUs",
    .because = "there is an NVIDIA driver",
    .without = "no GPU can be used",
};

/* The driver's library, which the file's CUDA runtime looks for as well. */
static int check_driver(struct sl_error *err)
{
#ifndef CUDA_SIM
    if (dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL) == NULL)
        return sl_fail(err, SL_ERR_UNSUPPORTED, SL_NO_DRIVER);
#endif
    return 0;
}

void *sl_device_file_symbol(const char *name, struct sl_error *err)
{
    if (check_driver(err) != 0)
        return NULL;
    return sl_module_file_symbol(&file, name, err);
}

int sl_cuda_list(struct sl_device_info *infos, size_t room, size_t *n,
                 struct sl_error *err)
{
    __typeof__(sl_cuda_list) *list;

    *n = 0;
    *(void **)&list = sl_device_file_symbol(__func__, err);
    return list != NULL ? list(infos, room, n, err) : -1;
}

int sl_device_open_cuda(struct sl_device **dev, int ordinal,
                        struct sl_device_contexts *contexts,
                        struct sl_error *err)
{
    __typeof__(sl_device_open_cuda) *open;

    *(void **)&open = sl_device_file_symbol(__func__, err);
    return open != NULL ? open(dev, ordinal, contexts, err) : -1;
}
