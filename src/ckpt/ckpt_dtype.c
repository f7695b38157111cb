#include "config.h"

#include <string.h>

#include "src/base/bytes.h"
#include "src/base/half.h"
#include "src/ckpt/ckpt.h"

/* The second name is that in the header of a safetensors file
 * (huggingface/safetensors safetensors/src/tensor.rs, enum Dtype). */
static const struct {
    const char *name;
    const char *short_name;
    uint32_t bytes;
    uint32_t values; /* of a block; 0: one */
} dtypes[SL_DT_COUNT] = {[SL_DT_F32] = {"float32", "F32", 4, 0},
                         [SL_DT_F16] = {"float16", "F16", 2, 0},
                         [SL_DT_BF16] = {"bfloat16", "BF16", 2, 0},
                         [SL_DT_F64] = {"float64", "F64", 8, 0},
                         [SL_DT_I8] = {"int8", "I8", 1, 0},
                         [SL_DT_U8] = {"uint8", "U8", 1, 0},
                         [SL_DT_I16] = {"int16", "I16", 2, 0},
                         [SL_DT_I32] = {"int32", "I32", 4, 0},
                         [SL_DT_I64] = {"int64", "I64", 8, 0},
                         [SL_DT_BOOL] = {"bool", "BOOL", 1, 0},
                         [SL_DT_U16] = {"uint16", "U16", 2, 0},
                         [SL_DT_U32] = {"uint32", "U32", 4, 0},
                         [SL_DT_U64] = {"uint64", "U64", 8, 0},
                         [SL_DT_F8_E4M3] = {"float8_e4m3", "F8_E4M3", 1, 0},
                         [SL_DT_F8_E5M2] = {"float8_e5m2", "F8_E5M2", 1, 0},
#define BLOCKS(NAME, name, type, cols, bytes, ...)                             \
    [SL_DT_##NAME] = {#name, #NAME, bytes, cols},
                         SL_BLOCK_SHAPES(BLOCKS)
#undef BLOCKS
};

uint32_t sl_dtype_bytes(enum sl_dtype dt)
{
    return dtypes[dt].bytes;
}

uint32_t sl_dtype_block_values(enum sl_dtype dt)
{
    return dtypes[dt].values > 0 ? dtypes[dt].values : 1;
}

bool sl_dtype_blocks(enum sl_fmt *fmt, enum sl_dtype dt)
{
    switch (dt) {
#define BLOCKS(NAME, ...)                                                      \
    case SL_DT_##NAME:                                                         \
        *fmt = SL_FMT_##NAME;                                                  \
        return true;
        SL_BLOCK_SHAPES(BLOCKS)
#undef BLOCKS
    default:
        return false;
    }
}

const char *sl_dtype_name(enum sl_dtype dt)
{
    return dtypes[dt].name;
}

const char *sl_dtype_short(enum sl_dtype dt)
{
    return dtypes[dt].short_name;
}

bool sl_dtype_find(enum sl_dtype *dt, const char *short_name)
{
    for (size_t i = 0; i < SL_DT_COUNT; i++) {
        if (strcmp(dtypes[i].short_name, short_name) == 0) {
            *dt = (enum sl_dtype)i;
            return true;
        }
    }
    return false;
}

static float from_bits(uint32_t bits)
{
    float f;

    memcpy(&f, &bits, sizeof f);
    return f;
}

static float from_double(const uint8_t *p)
{
    uint64_t bits = sl_load_u64(p);
    double d;

    memcpy(&d, &bits, sizeof d);
    return (float)d;
}

/* OCP 8-bit floating point specification 1.0, table 1: E4M3 has no infinities
 * and one pattern of bits that is no number. */
static float from_e4m3(uint8_t x)
{
    float sign = x & 0x80 ? -1.0f : 1.0f;
    int exponent = x >> 3 & 15, fraction = x & 7;

    if ((x & 0x7f) == 0x7f)
        return from_bits(0x7fc00000);
    if (exponent == 0)
        return sign * (float)fraction / 512.0f;
    return sign * from_bits((uint32_t)(exponent + 120) << 23) *
           (1.0f + (float)fraction / 8.0f);
}

float sl_dtype_load(const void *p, enum sl_dtype dt)
{
    const uint8_t *b = p;

    switch (dt) {
    case SL_DT_F32:
        return from_bits(sl_load_u32(b));
    case SL_DT_F16:
        return sl_half_to_float(sl_load_u16(b));
    case SL_DT_BF16:
        return from_bits((uint32_t)sl_load_u16(b) << 16);
    case SL_DT_F64:
        return from_double(b);
    case SL_DT_I8:
        return (float)(int8_t)b[0];
    case SL_DT_I16:
        return (float)(int16_t)sl_load_u16(b);
    case SL_DT_I32:
        return (float)(int32_t)sl_load_u32(b);
    case SL_DT_I64:
        return (float)(int64_t)sl_load_u64(b);
    case SL_DT_U16:
        return (float)sl_load_u16(b);
    case SL_DT_U32:
        return (float)sl_load_u32(b);
    case SL_DT_U64:
        return (float)sl_load_u64(b);
    case SL_DT_F8_E4M3:
        return from_e4m3(b[0]);
    case SL_DT_F8_E5M2: /* the upper half of an FP16 */
        return sl_half_to_float((uint16_t)(b[0] << 8));
    default:
        return (float)b[0];
    }
}
