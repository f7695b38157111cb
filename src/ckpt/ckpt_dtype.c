#include "config.h"

#include <string.h>

#include "src/ckpt/ckpt.h"

/* The second name is that in the header of a safetensors file
 * (huggingface/safetensors safetensors/src/tensor.rs, enum Dtype). */
static const struct {
    const char *name;
    const char *short_name;
    uint32_t bytes;
} dtypes[SL_DT_COUNT] = {
    [SL_DT_F32] = {"float32", "F32", 4},
    [SL_DT_F16] = {"float16", "F16", 2},
    [SL_DT_BF16] = {"bfloat16", "BF16", 2},
    [SL_DT_F64] = {"float64", "F64", 8},
    [SL_DT_I8] = {"int8", "I8", 1},
    [SL_DT_U8] = {"uint8", "U8", 1},
    [SL_DT_I16] = {"int16", "I16", 2},
    [SL_DT_I32] = {"int32", "I32", 4},
    [SL_DT_I64] = {"int64", "I64", 8},
    [SL_DT_BOOL] = {"bool", "BOOL", 1},
    [SL_DT_U16] = {"uint16", "U16", 2},
    [SL_DT_U32] = {"uint32", "U32", 4},
    [SL_DT_U64] = {"uint64", "U64", 8},
    [SL_DT_F8_E4M3] = {"float8_e4m3", "F8_E4M3", 1},
    [SL_DT_F8_E5M2] = {"float8_e5m2", "F8_E5M2", 1},
};

uint32_t sl_dtype_bytes(enum sl_dtype dt)
{
    return dtypes[dt].bytes;
}

const char *sl_dtype_name(enum sl_dtype dt)
{
    return dtypes[dt].name;
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
