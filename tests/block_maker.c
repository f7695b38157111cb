#include "config.h"

#include <math.h>
#include <string.h>

#include "quant/blocks.h"
#include "src/base/bytes.h"
#include "src/base/half.h"
#include "tests/block_maker.h"

/* Knuth, MMIX; the high bits. */
static uint32_t next(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33);
}

/* Where the FP16 d and m of a block are; -1: it has none. */
static const struct {
    enum sl_fmt fmt;
    int d, m;
} places[] = {
    {SL_FMT_Q4_0, 0, -1},   {SL_FMT_Q4_1, 0, 2},    {SL_FMT_Q5_0, 0, -1},
    {SL_FMT_Q5_1, 0, 2},    {SL_FMT_Q8_0, 0, -1},   {SL_FMT_Q2_K, 80, 82},
    {SL_FMT_Q3_K, 108, -1}, {SL_FMT_Q4_K, 0, 2},    {SL_FMT_Q5_K, 0, 2},
    {SL_FMT_Q6_K, 208, -1}, {SL_FMT_IQ4_NL, 0, -1}, {SL_FMT_IQ4_XS, 0, -1},
    {SL_FMT_MXFP4, -1, -1},
};

static void set_half(uint8_t *b, int at, double x)
{
    if (at >= 0)
        sl_store_u16(b + at, sl_float_to_half((float)x));
}

static void clear_special(uint8_t *b, int at)
{
    if (at >= 0 && (b[at + 1] & 0x7c) == 0x7c)
        b[at + 1] ^= 0x40;
}

static double rms_of(enum sl_fmt fmt, const uint8_t *b)
{
    float v[SL_BLOCK_MAX_COLS];
    uint32_t cols = sl_fmt_of(fmt)->block_cols;
    double sum = 0;

    sl_blocks_decode(v, fmt, b, cols);
    for (uint32_t i = 0; i < cols; i++)
        sum += (double)v[i] * (double)v[i];
    return sqrt(sum / cols);
}

/* Minima that leave the mean near zero: minus the mean code, or that by sub
 * codes that are alike those of the scales. */
static double minimum(enum sl_fmt fmt)
{
    const struct sl_block_shape *s = sl_block_shape_of(fmt);
    double mean = ((1u << s->q_bits) - 1) / 2.0;

    return s->mins == SL_MINS_ONE ? -mean : mean;
}

static void make(uint8_t *b, enum sl_fmt fmt, int d, int m, double rms,
                 uint64_t *state)
{
    double scale;

    if (fmt == SL_FMT_MXFP4) { /* E2M1's values by 2 are 6.2 on average */
        int e = rms > 0 ? 128 + ilogb(rms / 6.2) : 120;

        b[0] = (uint8_t)(e - 1 + (int)(next(state) % 3));
        return;
    }
    if (!(rms > 0)) {
        clear_special(b, d);
        clear_special(b, m);
        return;
    }
    set_half(b, d, 1);
    set_half(b, m, m >= 0 ? minimum(fmt) : 0);
    scale = rms / rms_of(fmt, b) * (0.5 + next(state) % 1024 / 1024.0);
    set_half(b, d, next(state) % 2 && m < 0 ? -scale : scale);
    set_half(b, m, m >= 0 ? minimum(fmt) * scale : 0);
}

void test_blocks_make(uint8_t *b, enum sl_fmt fmt, size_t n_blocks, double rms,
                      uint64_t *state)
{
    size_t bytes = sl_fmt_of(fmt)->block_bytes, k = 0;

    while (places[k].fmt != fmt)
        k++;
    for (size_t i = 0; i < n_blocks; i++, b += bytes) {
        for (size_t j = 0; j < bytes; j++)
            b[j] = (uint8_t)next(state);
        make(b, fmt, places[k].d, places[k].m, rms, state);
    }
}
