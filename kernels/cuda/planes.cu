/*
 * planes.cu - INT8 weights that lie in two planes of four bits (quant/planes.h)
 *
 * Joined they are INT8 as quant/matrix.h draws it; the high plane alone is
 * INT4 whose scales are 16 times as large.
 */
#include "config.h"

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/values.cuh"
#include "quant/planes.h"

#define THREADS 256u

struct join_args {
    uint4 *to;
    const uint4 *high, *low;
    uint64_t n;
};

/* A plane has a unit's columns 8u .. 8u+3 in low nibbles, the next four, which
 * are INT8's next unit, in high ones. Bytes are q + 136 before 8 goes off, each
 * for itself: what is borrowed is given back. */
__device__ __forceinline__ uint32_t without_8(uint32_t v)
{
    return ((v | 0x80808080u) - 0x08080808u) ^ (~v & 0x80808080u);
}

__device__ __forceinline__ uint32_t first_half(uint32_t h, uint32_t l)
{
    return without_8((h << 4 & 0xf0f0f0f0u) | (l & 0x0f0f0f0fu));
}

__device__ __forceinline__ uint32_t second_half(uint32_t h, uint32_t l)
{
    return without_8((h & 0xf0f0f0f0u) | (l >> 4 & 0x0f0f0f0fu));
}

/* A thread takes 16 bytes of either plane, a quarter of a unit. */
__global__ void __launch_bounds__(THREADS) join(struct join_args a)
{
    uint64_t i = (uint64_t)blockIdx.x * THREADS + threadIdx.x;
    uint4 h, l, *to;

    if (i >= a.n)
        return;
    h = a.high[i];
    l = a.low[i];
    to = a.to + i / 4 * 8 + i % 4;
    to[0] = make_uint4(first_half(h.x, l.x), first_half(h.y, l.y),
                       first_half(h.z, l.z), first_half(h.w, l.w));
    to[4] = make_uint4(second_half(h.x, l.x), second_half(h.y, l.y),
                       second_half(h.z, l.z), second_half(h.w, l.w));
}

int sl_cuda_join_planes(const struct sl_cuda *c, void *to, const void *high,
                        const void *low, uint64_t bytes, struct sl_error *err)
{
    struct join_args a = {};

    a.to = (uint4 *)to;
    a.high = (const uint4 *)high;
    a.low = (const uint4 *)low;
    a.n = bytes / 32;
    return sl_launch(c, "planes", join,
                     dim3((uint32_t)((a.n + THREADS - 1) / THREADS)), THREADS,
                     &a, err);
}

struct scale_args {
    uint16_t *to;
    const uint16_t *from;
    uint64_t n;
};

__global__ void __launch_bounds__(THREADS) scale(struct scale_args a)
{
    uint64_t i = (uint64_t)blockIdx.x * THREADS + threadIdx.x;

    if (i < a.n)
        a.to[i] = sl_to_half(SL_PLANE_STEP * sl_half_at(a.from + i));
}

int sl_cuda_scale_plane(const struct sl_cuda *c, uint16_t *to,
                        const uint16_t *from, uint64_t n, struct sl_error *err)
{
    struct scale_args a = {};

    a.to = to;
    a.from = from;
    a.n = n;
    return sl_launch(c, "scales of a plane", scale,
                     dim3((uint32_t)((n + THREADS - 1) / THREADS)), THREADS, &a,
                     err);
}
