/*
 * device_math.h - atomics, integer and arithmetic functions of device code
 *
 * C++ only. Names and meanings of the CUDA Math API; the fast variants are
 * as exact as the host's own functions.
 */
#ifndef SL_CUDASIM_DEVICE_MATH_H
#define SL_CUDASIM_DEVICE_MATH_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "kernels/cudasim/device.h"

template <class T> static inline T __ldg(const T *p)
{
    return *p;
}

template <class T> static inline T __ldcs(const T *p)
{
    return *p;
}

template <class T> static inline T __ldcg(const T *p)
{
    return *p;
}

template <class T> static inline void __stcs(T *p, T value)
{
    *p = value;
}

/* --- atomics: relaxed, as on the device ---------------------------------- */

template <class T> static inline T atomicAdd(T *p, T value)
{
    T old, sum;

    __atomic_load(p, &old, __ATOMIC_RELAXED);
    do {
        sum = old + value;
    } while (!__atomic_compare_exchange(p, &old, &sum, true, __ATOMIC_RELAXED,
                                        __ATOMIC_RELAXED));
    return old;
}

template <class T> static inline T atomicMax(T *p, T value)
{
    T old = __atomic_load_n(p, __ATOMIC_RELAXED);

    while (old < value &&
           !__atomic_compare_exchange_n(p, &old, value, true, __ATOMIC_RELAXED,
                                        __ATOMIC_RELAXED))
        ;
    return old;
}

template <class T> static inline T atomicMin(T *p, T value)
{
    T old = __atomic_load_n(p, __ATOMIC_RELAXED);

    while (value < old &&
           !__atomic_compare_exchange_n(p, &old, value, true, __ATOMIC_RELAXED,
                                        __ATOMIC_RELAXED))
        ;
    return old;
}

template <class T> static inline T atomicExch(T *p, T value)
{
    T old;

    __atomic_exchange(p, &value, &old, __ATOMIC_RELAXED);
    return old;
}

template <class T> static inline T atomicCAS(T *p, T expected, T value)
{
    __atomic_compare_exchange_n(p, &expected, value, false, __ATOMIC_RELAXED,
                                __ATOMIC_RELAXED);
    return expected;
}

template <class T> static inline T atomicOr(T *p, T value)
{
    return __atomic_fetch_or(p, value, __ATOMIC_RELAXED);
}

template <class T> static inline T atomicAnd(T *p, T value)
{
    return __atomic_fetch_and(p, value, __ATOMIC_RELAXED);
}

/* As CUDA's: counts up to limit, then starts at 0 again. */
static inline unsigned atomicInc(unsigned *p, unsigned limit)
{
    unsigned old = __atomic_load_n(p, __ATOMIC_RELAXED);

    while (!__atomic_compare_exchange_n(p, &old, old >= limit ? 0 : old + 1,
                                        true, __ATOMIC_RELAXED,
                                        __ATOMIC_RELAXED))
        ;
    return old;
}

/* --- bits ---------------------------------------------------------------- */

template <class To, class From> static inline To cudasim_bits(From value)
{
    To result;

    static_assert(sizeof(To) == sizeof(From), "same size");
    memcpy(&result, &value, sizeof result);
    return result;
}

static inline float __uint_as_float(unsigned u)
{
    return cudasim_bits<float>(u);
}

static inline unsigned __float_as_uint(float f)
{
    return cudasim_bits<unsigned>(f);
}

static inline float __int_as_float(int i)
{
    return cudasim_bits<float>(i);
}

static inline int __float_as_int(float f)
{
    return cudasim_bits<int>(f);
}

static inline int __popc(unsigned u)
{
    return __builtin_popcount(u);
}

static inline int __popcll(unsigned long long u)
{
    return __builtin_popcountll(u);
}

static inline int __clz(int i)
{
    return i == 0 ? 32 : __builtin_clz((unsigned)i);
}

static inline int __ffs(int i)
{
    return __builtin_ffs(i);
}

static inline unsigned __brev(unsigned u)
{
    unsigned r = 0;

    for (int i = 0; i < 32; i++)
        r |= (u >> i & 1) << (31 - i);
    return r;
}

/* Bytes 0-3 are a's, 4-7 b's; a selector's high bit copies the byte's sign. */
static inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector)
{
    uint64_t bytes = (uint64_t)b << 32 | a;
    unsigned r = 0;

    for (int i = 0; i < 4; i++) {
        unsigned pick = selector >> (4 * i) & 15;
        unsigned byte = (unsigned)(bytes >> (8 * (pick & 7))) & 255;

        if (pick & 8)
            byte = byte & 128 ? 255 : 0;
        r |= byte << (8 * i);
    }
    return r;
}

static inline unsigned __funnelshift_r(unsigned lo, unsigned hi, unsigned n)
{
    return (unsigned)(((uint64_t)hi << 32 | lo) >> (n & 31));
}

static inline unsigned __funnelshift_l(unsigned lo, unsigned hi, unsigned n)
{
    return (unsigned)(((uint64_t)hi << 32 | lo) << (n & 31) >> 32);
}

static inline int __dp4a(int a, int b, int c)
{
    unsigned sum = (unsigned)c;

    for (int i = 0; i < 32; i += 8)
        sum += (unsigned)((int)(int8_t)((unsigned)a >> i) *
                          (int)(int8_t)((unsigned)b >> i));
    return (int)sum;
}

static inline unsigned __umulhi(unsigned a, unsigned b)
{
    return (unsigned)((uint64_t)a * b >> 32);
}

/* --- arithmetic ---------------------------------------------------------- */

static inline float __fmaf_rn(float a, float b, float c)
{
    return fmaf(a, b, c);
}

static inline float __fadd_rn(float a, float b)
{
    return a + b;
}

static inline float __fmul_rn(float a, float b)
{
    return a * b;
}

static inline float __fdividef(float a, float b)
{
    return a / b;
}

static inline float __frcp_rn(float a)
{
    return 1 / a;
}

static inline float __fsqrt_rn(float a)
{
    return sqrtf(a);
}

static inline float rsqrtf(float a)
{
    return 1 / sqrtf(a);
}

static inline float __frsqrt_rn(float a)
{
    return 1 / sqrtf(a);
}

/* Macros: glibc declares functions of these names. */
#define __expf(a)    expf(a)
#define __exp2f(a)   exp2f(a)
#define __logf(a)    logf(a)
#define __tanhf(a)   tanhf(a)
#define __powf(a, b) powf(a, b)

static inline float __saturatef(float a)
{
    return a > 0 ? (a < 1 ? a : 1) : 0;
}

static inline int __float2int_rn(float a)
{
    return (int)rintf(a);
}

static inline float __int2float_rn(int a)
{
    return (float)a;
}

static inline float __uint2float_rn(unsigned a)
{
    return (float)a;
}

template <class T> static inline T min(T a, T b)
{
    return b < a ? b : a;
}

template <class T> static inline T max(T a, T b)
{
    return a < b ? b : a;
}

static inline float min(float a, float b)
{
    return fminf(a, b);
}

static inline float max(float a, float b)
{
    return fmaxf(a, b);
}

#endif
