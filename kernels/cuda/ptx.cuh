/*
 * ptx.cuh - all PTX of the kernels, each beside a twin in plain C++
 *
 * The twins run where the sources are compiled for the host (CUDA_SIM) and
 * say what the instructions mean. Threads of a block are numbered by
 * threadIdx.x alone. Source: NVIDIA, PTX ISA 8.5, sections 9.7.9.25
 * (cp.async) and 9.7.14 (mma.sync, ldmatrix).
 *
 * A uint32_t that holds two FP16 values has the first in its low half.
 */
#ifndef SL_KERNELS_CUDA_PTX_CUH
#define SL_KERNELS_CUDA_PTX_CUH

#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <stdint.h>

#ifdef CUDA_SIM
#include "kernels/cudasim/device_ptx.h"
#endif

#define SL_ALL_LANES 0xffffffffu

/* v, of which the compiler knows nothing: it keeps it in a register, where it
 * would rather compute it anew in every round of a loop. */
__device__ __forceinline__ uint32_t sl_keep(uint32_t v)
{
#ifndef CUDA_SIM
    asm volatile("" : "+r"(v));
#endif
    return v;
}

/* --- loads --------------------------------------------------------------- */

/* 16 bytes of what is read once: they do not push what is shared out of the
 * L1 cache. */
__device__ __forceinline__ uint4 sl_load_once(const void *p)
{
#ifdef CUDA_SIM
    return *(const uint4 *)p;
#else
    uint4 v;

    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(p));
    return v;
#endif
}

#if defined(CUDA_SIM) || (defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800)
#define SL_CP_ASYNC 1
#else
#define SL_CP_ASYNC 0
#endif

/* A copy of 16 bytes from global to shared memory, of which the last
 * 16 - bytes (an even number) are zeros. Begun by sl_copy_begin; sl_copy_end
 * must follow before the group is committed. From sm_80 on it is asynchronous
 * from the beginning and done when sl_copy_wait says so; sm_75 holds the bytes
 * in registers until sl_copy_end, so that what stands between the two hides the
 * load. */
struct sl_copy {
#if SL_CP_ASYNC
    char unused;
#else
    uint4 value;
    void *to;
#endif
};

__device__ __forceinline__ void sl_copy_begin(struct sl_copy *copy, void *to,
                                              const void *from, int bytes)
{
#ifdef CUDA_SIM
    cudasim_copy_async(to, from, (unsigned)bytes);
#elif SL_CP_ASYNC
    uint32_t at = (uint32_t)__cvta_generic_to_shared(to);

    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at),
                 "l"(from), "r"(bytes)
                 : "memory");
#else
    uint32_t v[4] = {0, 0, 0, 0};

    copy->to = to;
    if (bytes == 16) {
        copy->value = *(const uint4 *)from;
        return;
    }
#pragma unroll
    for (int i = 0; i < 8; i++)
        if (2 * i < bytes)
            v[i / 2] |= (uint32_t)((const uint16_t *)from)[i] << (i % 2 * 16);
    copy->value = make_uint4(v[0], v[1], v[2], v[3]);
#endif
}

__device__ __forceinline__ void sl_copy_end(struct sl_copy *copy)
{
#if !SL_CP_ASYNC
    *(uint4 *)copy->to = copy->value;
#endif
}

/* Ends a group of this thread's copies. */
__device__ __forceinline__ void sl_copy_commit(void)
{
#ifdef CUDA_SIM
    cudasim_copy_commit();
#elif SL_CP_ASYNC
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

/* Returns when all but the last N groups of this thread are done. */
template <int N> __device__ __forceinline__ void sl_copy_wait(void)
{
#ifdef CUDA_SIM
    cudasim_copy_wait(N);
#elif SL_CP_ASYNC
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
#endif
}

/* --- INT to FP16 --------------------------------------------------------- */

#ifdef CUDA_SIM
/* Bits of a small integer as FP16, two of them. */
__device__ __forceinline__ uint32_t sl_twin_pair(int a, int b)
{
    __half h[2] = {__float2half_rn((float)a), __float2half_rn((float)b)};
    uint32_t v;

    memcpy(&v, h, sizeof v);
    return v;
}
#endif

/* The eight weights of a word of INT4 (byte i: column i below, column 4 + i
 * above, each + 8) as FP16: columns (0, 2), (4, 6), (1, 3), (5, 7).
 *
 * A nibble put into the low bits of 0x6400 is 1024 + n, into bits 4 to 7
 * 1024 + 16 n: lop3 does the masking and the or for two of them at once, one
 * more instruction takes the offset away exactly. (Kim et al., Who says
 * elephants can't run, arXiv 2211.10017, section 3.) */
__device__ __forceinline__ void sl_int4_to_half(uint32_t out[4], uint32_t w)
{
#ifdef CUDA_SIM
    int q[8];

    for (int i = 0; i < 4; i++) {
        q[i] = (int)(w >> 8 * i & 15) - 8;
        q[4 + i] = (int)(w >> (8 * i + 4) & 15) - 8;
    }
    out[0] = sl_twin_pair(q[0], q[2]);
    out[1] = sl_twin_pair(q[4], q[6]);
    out[2] = sl_twin_pair(q[1], q[3]);
    out[3] = sl_twin_pair(q[5], q[7]);
#else
    const uint32_t low = 0x000f000f, high = 0x00f000f0, exponent = 0x64006400;
    const uint32_t minus_1032 = 0xe408e408, sixteenth = 0x2c002c00;
    const uint32_t minus_72 = 0xd480d480;
    uint32_t next = w >> 8;

    /* 0xea: (a & b) | c */
    asm("lop3.b32 %0, %1, %2, %3, 0xea;"
        : "=r"(out[0])
        : "r"(w), "n"(low), "r"(exponent));
    asm("lop3.b32 %0, %1, %2, %3, 0xea;"
        : "=r"(out[1])
        : "r"(w), "n"(high), "r"(exponent));
    asm("lop3.b32 %0, %1, %2, %3, 0xea;"
        : "=r"(out[2])
        : "r"(next), "n"(low), "r"(exponent));
    asm("lop3.b32 %0, %1, %2, %3, 0xea;"
        : "=r"(out[3])
        : "r"(next), "n"(high), "r"(exponent));
    asm("add.f16x2 %0, %0, %1;" : "+r"(out[0]) : "r"(minus_1032));
    asm("fma.rn.f16x2 %0, %0, %1, %2;"
        : "+r"(out[1])
        : "r"(sixteenth), "r"(minus_72));
    asm("add.f16x2 %0, %0, %1;" : "+r"(out[2]) : "r"(minus_1032));
    asm("fma.rn.f16x2 %0, %0, %1, %2;"
        : "+r"(out[3])
        : "r"(sixteenth), "r"(minus_72));
#endif
}

/* Four bytes, less OFF (0 to 255), as FP16: bytes (0, 1), (2, 3). The same
 * trick by whole bytes: 0x6400 + byte is 1024 + byte. */
template <int OFF>
__device__ __forceinline__ void sl_bytes_to_half(uint32_t out[2], uint32_t w)
{
#ifdef CUDA_SIM
    out[0] = sl_twin_pair((int)(w & 255) - OFF, (int)(w >> 8 & 255) - OFF);
    out[1] =
        sl_twin_pair((int)(w >> 16 & 255) - OFF, (int)(w >> 24 & 255) - OFF);
#else
    const uint32_t exponent = 0x64646464, minus = (0xe400u + OFF) * 0x10001u;

    asm("prmt.b32 %0, %1, %2, 0x4140;" : "=r"(out[0]) : "r"(w), "r"(exponent));
    asm("prmt.b32 %0, %1, %2, 0x4342;" : "=r"(out[1]) : "r"(w), "r"(exponent));
    asm("add.f16x2 %0, %0, %1;" : "+r"(out[0]) : "r"(minus));
    asm("add.f16x2 %0, %0, %1;" : "+r"(out[1]) : "r"(minus));
#endif
}

/* The four weights of a word of INT8 (each + 128). */
__device__ __forceinline__ void sl_int8_to_half(uint32_t out[2], uint32_t w)
{
    sl_bytes_to_half<128>(out, w);
}

/* The low (high) halves of a and b. */
__device__ __forceinline__ uint32_t sl_low_halves(uint32_t a, uint32_t b)
{
    return (a & 0xffffu) | b << 16;
}

__device__ __forceinline__ uint32_t sl_high_halves(uint32_t a, uint32_t b)
{
    return a >> 16 | (b & 0xffff0000u);
}

/* --- mma ----------------------------------------------------------------- */

/* c (16, 8) f32 += a (16, 16) f16 . b (16, 8) f16, over a warp. With
 * g = lane / 4 and t = lane % 4 a thread holds
 *   a[0] = A[g][2t, 2t+1]     a[1] = A[g+8][2t, 2t+1]
 *   a[2] = A[g][2t+8, 2t+9]   a[3] = A[g+8][2t+8, 2t+9]
 *   b[0] = B[2t, 2t+1][g]     b[1] = B[2t+8, 2t+9][g]
 *   c[0, 1] = C[g][2t, 2t+1]  c[2, 3] = C[g+8][2t, 2t+1]
 * sm_75 has half of it: two steps of 8 inner columns. */
__device__ __forceinline__ void sl_mma(float c[4], const uint32_t a[4],
                                       const uint32_t b[2])
{
#ifdef CUDA_SIM
    cudasim_mma(c, a, b, cudasim_site{__FILE__, __LINE__});
#elif __CUDA_ARCH__ >= 800
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(b[0]));
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[2]), "r"(a[3]), "r"(b[1]));
#endif
}

/* Two 8 x 8 tiles of FP16 from shared memory, transposed: lanes 0 to 7 point
 * to the rows (16 bytes each, aligned) of the first, 8 to 15 to those of the
 * second; out[i] = tile i [rows 2t, 2t+1][column g]. */
__device__ __forceinline__ void sl_load_transposed(uint32_t out[2],
                                                   const void *row)
{
#ifdef CUDA_SIM
    cudasim_load_matrix<2>(out, row, true);
#else
    uint32_t at = (uint32_t)__cvta_generic_to_shared(row);

    asm volatile(
        "ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
        : "=r"(out[0]), "=r"(out[1])
        : "r"(at)
        : "memory");
#endif
}

#endif
