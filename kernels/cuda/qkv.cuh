/*
 * qkv.cuh - where the heads of q, k and v lie in a row of their product
 */
#ifndef SL_KERNELS_CUDA_QKV_CUH
#define SL_KERNELS_CUDA_QKV_CUH

#include "kernels/cuda/values.cuh"

/* Where slot `slot` begins: the heads of q are counted first, then those of k,
 * then those of v. */
__device__ __forceinline__ size_t sl_qkv_at(const struct sl_cuda_qkv &m,
                                            uint32_t slot)
{
    uint32_t group = m.n_heads / m.n_kv_heads, head = slot;

    if (m.order == SL_CUDA_BY_HEAD) {
        if (slot < m.n_heads) {
            head = slot / group * (group + 2) + slot % group;
        } else {
            uint32_t kv = slot - m.n_heads, part = kv / m.n_kv_heads;

            head = kv % m.n_kv_heads * (group + 2) + group + part;
        }
    }
    return (size_t)head * m.head_dim;
}

__device__ __forceinline__ float sl_value(const float *p)
{
    return *p;
}

__device__ __forceinline__ float sl_value(const uint16_t *p)
{
    return sl_half_at(p);
}

__device__ __forceinline__ void sl_put(float *p, float v)
{
    *p = v;
}

__device__ __forceinline__ void sl_put(uint16_t *p, float v)
{
    *p = sl_to_half(v);
}

#endif
