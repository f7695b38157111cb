#include "config.h"

#include "kernels/cuda/mma.cuh"

int sl_mma_bf16(const struct sl_cuda *c, const struct sl_product *p,
                struct sl_error *err)
{
    return launch_format<SL_FMT_BF16>(c, p, err);
}
