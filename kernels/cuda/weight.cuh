/*
 * weight.cuh - one weight of a matrix in any format
 */
#ifndef SL_KERNELS_CUDA_WEIGHT_CUH
#define SL_KERNELS_CUDA_WEIGHT_CUH

#include "kernels/cuda/blocks.cuh"
#include "kernels/cuda/product.h"
#include "kernels/cuda/values.cuh"

/* Element (row, col) of half `which` of a product's weights, scaled, as
 * quant/matrix.h draws it. row counts from the part's first row. */
__device__ __forceinline__ float sl_weight_at(const struct sl_product &p,
                                              uint32_t which, uint32_t row,
                                              uint32_t col)
{
    size_t block = row / SL_BLOCK_ROWS, r = row % SL_BLOCK_ROWS;
    size_t at = (size_t)row * p.cols + col;
    const uint8_t *w = p.w[which];
    float s;

    if (p.fmt == SL_FMT_F32)
        return ((const float *)w)[at];
    if (p.fmt == SL_FMT_F16)
        return sl_half_at((const uint16_t *)w + at);
    if (p.fmt == SL_FMT_BF16)
        return sl_bf16_at((const uint16_t *)w + at);
    if (p.groups == 0) /* the scales are inside */
        return sl_block_weight_at(p.fmt, w + block * p.units * 64 + r * 4, col);
    s = sl_half_at(p.scale[which] +
                   (block * p.groups + col / p.group_cols) * SL_BLOCK_ROWS + r);
    w += block * p.units * 64 + r * 4;
    if (p.fmt == SL_FMT_INT8)
        return s * (float)(w[(size_t)(col / 4) * 64 + col % 4] - 128);
    return s *
           (float)((w[(size_t)(col / 8) * 64 + col % 4] >> (col & 4) & 15) - 8);
}

#endif
