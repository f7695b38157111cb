#include "config.h"

#include "kernels/cuda/mma_blocks.cuh"

int sl_mma_blocks(const struct sl_cuda *c, const struct sl_product *p,
                  struct sl_error *err)
{
    switch (p->fmt) {
#define LAUNCH(NAME, ...)                                                      \
    case SL_FMT_##NAME:                                                        \
        return launch_block_format<SL_FMT_##NAME>(c, p, err);
        SL_BLOCK_SHAPES(LAUNCH)
#undef LAUNCH
    default:
        return sl_fail(err, SL_ERR_INTERNAL, "no blocks: %s",
                       sl_fmt_name(p->fmt));
    }
}
