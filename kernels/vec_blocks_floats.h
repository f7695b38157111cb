/*
 * vec_blocks_floats.h - products of ggml's blocks by FP32 and by rounded
 * inputs, and the table of all of an instruction set's products of blocks
 *
 * The weights stay exact with all of them.
 */
#ifndef SL_KERNELS_VEC_BLOCKS_FLOATS_H
#define SL_KERNELS_VEC_BLOCKS_FLOATS_H

#include "kernels/vec_blocks.h"

#define BLOCKS_FLOATS(NAME, name, ...)                                         \
    static void ISA(matmul_##name##_f32)(                                      \
        float *y, size_t y_stride, const struct sl_matrix *m, const void *w,   \
        const uint16_t *scale, uint32_t n_rows, const struct sl_acts *acts)    \
    {                                                                          \
        matmul_blocks(y, y_stride, m, w, n_rows, acts, false,                  \
                      &ISA(blocks_##name));                                    \
    }                                                                          \
    static void ISA(matmul_##name##_bf16)(                                     \
        float *y, size_t y_stride, const struct sl_matrix *m, const void *w,   \
        const uint16_t *scale, uint32_t n_rows, const struct sl_acts *acts)    \
    {                                                                          \
        struct sl_acts a = sl_acts_rounded(acts);                              \
                                                                               \
        ISA(matmul_##name##_f32)(y, y_stride, m, w, scale, n_rows, &a);        \
    }
SL_BLOCK_SHAPES(BLOCKS_FLOATS)
#undef BLOCKS_FLOATS

void ISA(sl_kernels_init_blocks)(struct sl_kernels *k)
{
    blocks_q8_entries(k);
#define BLOCKS_ENTRY(NAME, name, ...)                                          \
    k->matmul[SL_FMT_##NAME][SL_ACT_F32] = ISA(matmul_##name##_f32);           \
    k->matmul[SL_FMT_##NAME][SL_ACT_BF16] = ISA(matmul_##name##_bf16);
    SL_BLOCK_SHAPES(BLOCKS_ENTRY)
#undef BLOCKS_ENTRY
}

#endif
