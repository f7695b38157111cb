/*
 * attend_keys.cuh - where the keys of a row that is alone lie
 */
#ifndef SL_KERNELS_CUDA_ATTEND_KEYS_CUH
#define SL_KERNELS_CUDA_ATTEND_KEYS_CUH

#include "kernels/cuda/attend.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/values.cuh"

/* exp2 of differences to a maximum that may be -infinity: of no key yet. */
__device__ __forceinline__ float sl_base_of(float max)
{
    return max == -INFINITY ? 0.0f : max;
}

/* Where a row's keys are: in the pages of its sequence, and from `fork` on,
 * where it is one of a tree, at its ancestors' places there. */
struct sl_row_keys {
    const uint32_t *pages;
    uint32_t fork;
    const uint16_t *path; /* shared memory */
};

/* Where key `key` of the row lies in k and v. */
__device__ __forceinline__ size_t sl_key_at(const struct sl_attention &a,
                                            const struct sl_row_keys &r,
                                            uint32_t head, uint32_t key)
{
    size_t page;

    if (key >= r.fork)
        key = r.fork + r.path[key - r.fork];
    page = r.pages[key / SL_CUDA_PAGE_LEN];

    return page * a.kv.page_stride +
           ((size_t)head * SL_CUDA_PAGE_LEN + key % SL_CUDA_PAGE_LEN) *
               a.kv.head_dim;
}

/* The k-th place of the path, for every k: each bit knows how many are before
 * it. */
__device__ __forceinline__ void sl_spread_path(uint16_t to[64], uint64_t path)
{
    uint32_t bit = threadIdx.x;

    if (bit < 64 && (path >> bit & 1) != 0)
        to[__popcll(path & ((UINT64_C(1) << bit) - 1))] = (uint16_t)bit;
    __syncthreads();
}

#endif
