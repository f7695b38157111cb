#include "config.h"

#include "kernels/cuda/mma.cuh"

bool sl_mma_takes(const struct sl_product *p)
{
    if (p->fmt == SL_FMT_F16 || p->fmt == SL_FMT_BF16)
        return p->cols % 8 == 0;
    if (sl_fmt_has_blocks(p->fmt))
        return true;
    return sl_fmt_has_scales(p->fmt) && p->cols % 8 == 0 &&
           (p->groups == 1 || p->group_cols % RUN == 0);
}

uint64_t sl_mma_workspace(const struct sl_product *p)
{
    uint64_t bytes =
        MOST_SPLITS * split_bytes(p, row_tiles(p, p->segment_rows));

    return bytes < SPLIT_BYTES ? bytes : SPLIT_BYTES;
}

uint32_t sl_mma_splits(uint32_t tiles, uint32_t stages, uint32_t most,
                       uint32_t n_sms, uint32_t stage_bytes, uint32_t sum_bytes)
{
    uint64_t least = UINT64_MAX;
    uint32_t best = 1;

    for (uint32_t n = 1; n <= most; n++) {
        uint32_t of_split = (stages + n - 1) / n;
        uint64_t blocks =
            (uint64_t)tiles * ((stages + of_split - 1) / of_split);
        uint64_t deepest = (blocks + n_sms - 1) / n_sms;
        uint64_t cost = deepest * of_split * stage_bytes * n_sms;

        if (n > 1)
            cost += 2 * blocks * sum_bytes;
        if (cost < least) {
            least = cost;
            best = n;
        }
    }
    return best;
}

int sl_mma_launch(const struct sl_cuda *c, const struct sl_product *p,
                  struct sl_error *err)
{
    if (sl_fmt_has_blocks(p->fmt))
        return sl_mma_blocks(c, p, err);
    switch (p->fmt) {
    case SL_FMT_INT4:
        return sl_mma_int4(c, p, err);
    case SL_FMT_INT8:
        return sl_mma_int8(c, p, err);
    case SL_FMT_BF16:
        return sl_mma_bf16(c, p, err);
    default:
        return sl_mma_f16(c, p, err);
    }
}
