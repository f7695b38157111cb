/*
 * values.cuh - what kernels do with single values and across a warp
 */
#ifndef SL_KERNELS_CUDA_VALUES_CUH
#define SL_KERNELS_CUDA_VALUES_CUH

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/ptx.cuh"

#define SL_WARP 32u

__device__ __forceinline__ float sl_half_at(const uint16_t *p)
{
    return __half2float(__ushort_as_half(*p));
}

/* BF16 is the first half of a float. */
__device__ __forceinline__ float sl_bf16_at(const uint16_t *p)
{
    return __uint_as_float((uint32_t)*p << 16);
}

__device__ __forceinline__ void sl_bf16s_to_floats(float out[2], uint32_t pair)
{
    out[0] = __uint_as_float(pair << 16);
    out[1] = __uint_as_float(pair & 0xffff0000u);
}

__device__ __forceinline__ void sl_halves_to_floats(float out[2], uint32_t pair)
{
    out[0] = __half2float(__ushort_as_half((unsigned short)(pair & 0xffffu)));
    out[1] = __half2float(__ushort_as_half((unsigned short)(pair >> 16)));
}

/* Rounds to nearest even; beyond FP16's range gives its largest value, not an
 * infinity. The comparisons leave NaN alone, so that an error stays to be
 * seen. */
__device__ __forceinline__ uint16_t sl_to_half(float v)
{
    v = v > 65504.0f ? 65504.0f : v;
    v = v < -65504.0f ? -65504.0f : v;
    return __half_as_ushort(__float2half_rn(v));
}

__device__ __forceinline__ uint32_t sl_to_halves(float a, float b)
{
    return (uint32_t)sl_to_half(a) | (uint32_t)sl_to_half(b) << 16;
}

/* Two BF16 as FP16: exact from 2^-14 to 65504, the largest value beyond; below
 * 2^-14 off by 2^-25 at most. */
__device__ __forceinline__ uint32_t sl_bf16s_to_halves(uint32_t pair)
{
    float v[2];

    sl_bf16s_to_floats(v, pair);
    return sl_to_halves(v[0], v[1]);
}

/* Eight values of x from column c on, of which those from cols on are zeros;
 * x + c at a multiple of 16 bytes. */
__device__ __forceinline__ uint4 sl_load_eight(const uint16_t *x, uint32_t c,
                                               uint32_t cols)
{
    uint32_t v[4] = {0, 0, 0, 0};

    if (c + 8 <= cols)
        return *(const uint4 *)(x + c);
    for (uint32_t i = 0; c + i < cols; i++)
        v[i / 2] |= (uint32_t)x[c + i] << (i % 2 * 16);
    return make_uint4(v[0], v[1], v[2], v[3]);
}

__device__ __forceinline__ void sl_eight_to_floats(float out[8], uint4 v)
{
    sl_halves_to_floats(out, v.x);
    sl_halves_to_floats(out + 2, v.y);
    sl_halves_to_floats(out + 4, v.z);
    sl_halves_to_floats(out + 6, v.w);
}

/* Whether heads of the cache begin at multiples of 16 bytes. */
__device__ __forceinline__ bool sl_heads_aligned(const struct sl_cuda_kv &kv)
{
    return kv.head_dim % 8 == 0 && kv.page_stride % 8 == 0;
}

/* As kernels/ref.c: erfc keeps its precision where 1 + erf would cancel. */
__device__ __forceinline__ float sl_gelu_erf(float x)
{
    return x * (0.5f * erfcf(-x * 0.70710678118654752f));
}

/* x / (1 + exp(-2u)), u = sqrt(2 / pi) (x + 0.044715 x^3); expf may become
 * infinite, and the quotient then is the zero that it should be. */
__device__ __forceinline__ float sl_gelu_tanh(float x)
{
    float u = 0.79788456080286536f * (x + 0.044715f * x * x * x);

    return x / (1.0f + expf(-2.0f * u));
}

/* expf may become infinite: the quotient then is zero, too. */
__device__ __forceinline__ float sl_silu(float x)
{
    return x / (1.0f + expf(-x));
}

__device__ __forceinline__ float sl_warp_sum(float v)
{
    for (int i = 16; i > 0; i /= 2)
        v += __shfl_xor_sync(SL_ALL_LANES, v, i);
    return v;
}

#endif
