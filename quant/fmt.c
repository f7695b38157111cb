#include "config.h"

#include <assert.h>
#include <string.h>

#include "quant/blocks.h"
#include "quant/fmt.h"
#include "src/base/bytes.h"
#include "src/base/half.h"
#include "src/base/mem.h"

#define UNIT_BYTES 64u

static void load_f32(float *out, const void *row, uint32_t first, uint32_t n)
{
    memcpy(out, (const uint8_t *)row + (size_t)first * 4, (size_t)n * 4);
}

static void store_f32(void *row, const float *x, uint32_t n)
{
    memcpy(row, x, (size_t)n * 4);
}

static void load_f16(float *out, const void *row, uint32_t first, uint32_t n)
{
    const uint8_t *at = (const uint8_t *)row + (size_t)first * 2;

    for (uint32_t i = 0; i < n; i++, at += 2)
        out[i] = sl_half_to_float(sl_load_u16(at));
}

static void store_f16(void *row, const float *x, uint32_t n)
{
    uint8_t *at = (uint8_t *)row;

    for (uint32_t i = 0; i < n; i++, at += 2)
        sl_store_u16(at, sl_float_to_half(x[i]));
}

static void load_bf16(float *out, const void *row, uint32_t first, uint32_t n)
{
    const uint8_t *at = (const uint8_t *)row + (size_t)first * 2;

    for (uint32_t i = 0; i < n; i++, at += 2)
        out[i] = sl_bf16_to_float(sl_load_u16(at));
}

static void store_bf16(void *row, const float *x, uint32_t n)
{
    uint8_t *at = (uint8_t *)row;

    for (uint32_t i = 0; i < n; i++, at += 2)
        sl_store_u16(at, sl_float_to_bf16(x[i]));
}

static void load_int8(float *out, const void *row, uint32_t first, uint32_t n)
{
    const uint8_t *w = (const uint8_t *)row;

    for (uint32_t c = first; c < first + n; c++)
        *out++ = (float)(w[(size_t)(c / 4) * UNIT_BYTES + c % 4] - 128);
}

static void load_int4(float *out, const void *row, uint32_t first, uint32_t n)
{
    const uint8_t *w = (const uint8_t *)row;

    for (uint32_t c = first; c < first + n; c++) {
        uint8_t pair = w[(size_t)(c / 8) * UNIT_BYTES + c % 4];

        *out++ = (float)((pair >> (c & 4) & 15) - 8);
    }
}

static const struct sl_fmt_info formats[SL_FMT_COUNT] = {
    /* name, GGUF type, scales, is_float, bits, elem_bytes, block_cols,
     * block_bytes, unit_cols, load, store */
    [SL_FMT_F32] = {"f32", 0, SL_SCALES_NONE, true, 32, 4, 1, 4, 0, load_f32,
                    store_f32},
    [SL_FMT_F16] = {"f16", 1, SL_SCALES_NONE, true, 16, 2, 1, 2, 0, load_f16,
                    store_f16},
    [SL_FMT_BF16] = {"bf16", 30, SL_SCALES_NONE, true, 16, 2, 1, 2, 0,
                     load_bf16, store_bf16},
    [SL_FMT_INT8] = {"int8", 24, SL_SCALES_BESIDE, false, 8, 1, 8, 8, 4,
                     load_int8, NULL},
    [SL_FMT_INT4] = {"int4", 24, SL_SCALES_BESIDE, false, 4, 1, 8, 4, 8,
                     load_int4, NULL},
#define BLOCKS(NAME, name, type, cols, bytes, share, run, q_bits, ...)         \
    [SL_FMT_##                                                                 \
        NAME] = {#name, type, SL_SCALES_INSIDE,      false, q_bits, 1, cols,   \
                 bytes, 0,    sl_blocks_load_##name, NULL},
    SL_BLOCK_SHAPES(BLOCKS)
#undef BLOCKS
};

const struct sl_fmt_info *sl_fmt_of(enum sl_fmt fmt)
{
    assert((unsigned)fmt < SL_FMT_COUNT);
    return &formats[fmt];
}

bool sl_fmt_find(enum sl_fmt *fmt, const char *name)
{
    for (int f = 0; f < SL_FMT_COUNT; f++) {
        if (strcmp(formats[f].name, name) == 0) {
            *fmt = (enum sl_fmt)f;
            return true;
        }
    }
    return false;
}

bool sl_fmt_find_ggml(enum sl_fmt *fmt, uint32_t ggml_type)
{
    for (int f = 0; f < SL_FMT_COUNT; f++) {
        if (formats[f].ggml_type == ggml_type &&
            formats[f].scales != SL_SCALES_BESIDE) {
            *fmt = (enum sl_fmt)f;
            return true;
        }
    }
    return false;
}

const char *sl_fmt_name(enum sl_fmt fmt)
{
    return sl_fmt_of(fmt)->name;
}

bool sl_fmt_is_float(enum sl_fmt fmt)
{
    return sl_fmt_of(fmt)->is_float;
}

bool sl_fmt_has_scales(enum sl_fmt fmt)
{
    return sl_fmt_of(fmt)->scales == SL_SCALES_BESIDE;
}

bool sl_fmt_has_blocks(enum sl_fmt fmt)
{
    return sl_fmt_of(fmt)->scales == SL_SCALES_INSIDE;
}

uint64_t sl_fmt_row_bytes(enum sl_fmt fmt, uint32_t cols)
{
    const struct sl_fmt_info *f = sl_fmt_of(fmt);
    uint64_t n = sl_div_up(cols, f->block_cols);

    if (f->scales != SL_SCALES_INSIDE)
        return n * f->block_bytes;
    return 4 * (n * sl_block_words(sl_block_shape_of(fmt)) +
                sl_div_up(n, sl_block_shape_of(fmt)->share));
}
