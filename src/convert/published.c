#include "config.h"

#include <stddef.h>

#include "quant/blocks.h"
#include "src/base/bytes.h"
#include "src/convert/published.h"

uint64_t sl_published_bytes(enum sl_fmt fmt, uint32_t cols)
{
    const struct sl_block_shape *s = sl_block_shape_of(fmt);

    return (uint64_t)(cols / s->cols) * s->bytes;
}

/* Where the FP16 numbers of a block stand: in front of everything but in these
 * of K's. */
static uint32_t halves_at(enum sl_fmt fmt, const struct sl_block_shape *s)
{
    switch (fmt) {
    case SL_FMT_Q2_K:
        return s->bytes - 4;
    case SL_FMT_Q3_K:
    case SL_FMT_Q6_K:
        return s->bytes - 2;
    default:
        return 0;
    }
}

static bool finite_half(const uint8_t *p)
{
    return (sl_load_u16(p) & 0x7c00) != 0x7c00;
}

/* 2^(e - 128) times 12, the largest value, must be a float. */
#define MXFP4_MOST 252u

bool sl_published_finite(uint64_t *column, enum sl_fmt fmt, const uint8_t *row,
                         uint32_t cols)
{
    const struct sl_block_shape *s = sl_block_shape_of(fmt);
    uint32_t at = halves_at(fmt, s), n = s->mins == SL_MINS_NONE ? 1 : 2;

    for (uint32_t b = 0; b < cols / s->cols; b++, row += s->bytes) {
        bool good = true;

        if (fmt == SL_FMT_MXFP4)
            good = row[0] <= MXFP4_MOST;
        for (uint32_t i = 0; i < n && fmt != SL_FMT_MXFP4; i++)
            good = good && finite_half(row + at + 2 * (size_t)i);
        if (!good) {
            *column = (uint64_t)b * s->cols;
            return false;
        }
    }
    return true;
}
