/*
 * epilogue.cuh - what becomes of a finished sum
 */
#ifndef SL_KERNELS_CUDA_EPILOGUE_CUH
#define SL_KERNELS_CUDA_EPILOGUE_CUH

#include "kernels/cuda/product.h"
#include "kernels/cuda/values.cuh"

/* a: the sum of row `row` for position p; b: its partner's in a GLU. The
 * product of a GLU's halves is where models come nearest to FP16's limit:
 * it is taken in FP32 and clamped when it is stored. */
__device__ __forceinline__ void sl_epilogue(const struct sl_product_out *o,
                                            size_t p, uint32_t row, float a,
                                            float b)
{
    size_t at = p * o->y_stride + row;

    if (o->bias[0] != NULL)
        a += o->bias[0][row];
    if (o->pairs) {
        if (o->bias[1] != NULL)
            b += o->bias[1][row];
        if (o->epilogue == SL_CUDA_EPI_SWIGLU)
            a = sl_silu(a) * b;
        else
            a *= sl_gelu_erf(b);
    } else if (o->epilogue == SL_CUDA_EPI_GELU_TANH) {
        a = sl_gelu_tanh(a);
    } else if (o->epilogue == SL_CUDA_EPI_RESIDUAL) {
        a += o->alpha * o->residual[p * o->residual_stride + row];
    }
    if (o->type == SL_CUDA_F16)
        ((uint16_t *)o->y)[at] = sl_to_half(a);
    else
        ((float *)o->y)[at] = a;
}

#endif
