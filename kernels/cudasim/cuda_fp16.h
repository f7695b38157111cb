/*
 * cuda_fp16.h - IEEE 754 binary16 for simulated device code
 *
 * Names and roundings of the CUDA Math API: every operation rounds to
 * nearest even once; fused ones once for both steps.
 */
#ifndef SL_CUDASIM_CUDA_FP16_H
#define SL_CUDASIM_CUDA_FP16_H

#ifndef __cplusplus

struct __half {
    unsigned short x;
};
typedef struct __half __half;

#else

#include <math.h>
#include <stdint.h>
#include <string.h>

#include <vector_types.h>

/* The same values as src/base/half.h, without its branches: 2^112 moves the
 * exponent, and subnormals come out right because floats have room. */
static inline float cudasim_to_float(unsigned short h)
{
    uint32_t bits = (uint32_t)(h & 0x7fff) << 13, sign = (uint32_t)h >> 15;
    float f;

    memcpy(&f, &bits, sizeof f);
    f *= 0x1p112f;
    if ((h & 0x7c00) == 0x7c00) { /* infinity or NaN */
        bits |= 0x7f800000u;
        memcpy(&f, &bits, sizeof f);
    }
    return sign ? -f : f;
}

static inline unsigned short cudasim_to_half(float f)
{
    uint32_t x, sign, half;

    memcpy(&x, &f, sizeof x);
    sign = x >> 16 & 0x8000u;
    x &= 0x7fffffffu;
    if (x > 0x7f800000u)
        return (unsigned short)(sign | 0x7fffu);
    if (x >= 0x477ff000u) /* 65520 and more: infinity */
        return (unsigned short)(sign | 0x7c00u);
    if (x < 0x38800000u) { /* below 2^-14: the sum rounds to 2^-24 */
        float a;

        memcpy(&a, &x, sizeof a);
        a += 0.5f;
        memcpy(&half, &a, sizeof half);
        return (unsigned short)(sign | (half - 0x3f000000u));
    }
    x += 0xfffu + (x >> 13 & 1);
    return (unsigned short)(sign | (x - 0x38000000u) >> 13);
}

struct __attribute__((aligned(2))) __half {
    unsigned short x;

    __half() = default;
    __half(float f) : x(cudasim_to_half(f))
    {
    }
    operator float() const
    {
        return cudasim_to_float(x);
    }
};

struct __attribute__((aligned(4))) __half2 {
    __half x, y;
};

struct __half_raw {
    unsigned short x;
};

static inline __half __ushort_as_half(unsigned short u)
{
    __half h;

    h.x = u;
    return h;
}

static inline unsigned short __half_as_ushort(__half h)
{
    return h.x;
}

static inline __half __float2half(float f)
{
    return __half(f);
}

static inline __half __float2half_rn(float f)
{
    return __half(f);
}

static inline float __half2float(__half h)
{
    return (float)h;
}

static inline __half __int2half_rn(int i)
{
    return __half((float)i);
}

static inline __half2 __halves2half2(__half a, __half b)
{
    return __half2{a, b};
}

static inline __half2 make_half2(__half a, __half b)
{
    return __half2{a, b};
}

static inline __half2 __half2half2(__half a)
{
    return __half2{a, a};
}

static inline __half2 __float2half2_rn(float f)
{
    return __half2{__half(f), __half(f)};
}

static inline __half2 __floats2half2_rn(float a, float b)
{
    return __half2{__half(a), __half(b)};
}

static inline __half2 __float22half2_rn(float2 f)
{
    return __half2{__half(f.x), __half(f.y)};
}

static inline float2 __half22float2(__half2 h)
{
    return make_float2((float)h.x, (float)h.y);
}

static inline __half __low2half(__half2 h)
{
    return h.x;
}

static inline __half __high2half(__half2 h)
{
    return h.y;
}

static inline float __low2float(__half2 h)
{
    return (float)h.x;
}

static inline float __high2float(__half2 h)
{
    return (float)h.y;
}

static inline __half2 __lows2half2(__half2 a, __half2 b)
{
    return __half2{a.x, b.x};
}

static inline __half2 __highs2half2(__half2 a, __half2 b)
{
    return __half2{a.y, b.y};
}

/* Sums and products of two halves are exact in double. */
static inline __half cudasim_round(double d)
{
    float f = (float)d;

    /* To odd, so that rounding twice is rounding once. */
    if ((double)f != d) {
        uint32_t bits;

        memcpy(&bits, &f, sizeof bits);
        if (fabs((double)f) > fabs(d))
            bits--;
        bits |= 1;
        memcpy(&f, &bits, sizeof f);
    }
    return __half(f);
}

static inline __half __hadd(__half a, __half b)
{
    return cudasim_round((double)(float)a + (double)(float)b);
}

static inline __half __hsub(__half a, __half b)
{
    return cudasim_round((double)(float)a - (double)(float)b);
}

static inline __half __hmul(__half a, __half b)
{
    return cudasim_round((double)(float)a * (double)(float)b);
}

static inline __half __hdiv(__half a, __half b)
{
    return __half((float)a / (float)b);
}

static inline __half __hfma(__half a, __half b, __half c)
{
    return cudasim_round(fma((float)a, (float)b, (float)c));
}

static inline __half __hneg(__half a)
{
    return __ushort_as_half((unsigned short)(a.x ^ 0x8000u));
}

static inline __half __habs(__half a)
{
    return __ushort_as_half((unsigned short)(a.x & 0x7fffu));
}

/* Of a number and a NaN: the number. */
static inline __half __hmax(__half a, __half b)
{
    return __half(fmaxf(a, b));
}

static inline __half __hmin(__half a, __half b)
{
    return __half(fminf(a, b));
}

static inline bool __hisnan(__half a)
{
    return (a.x & 0x7fff) > 0x7c00;
}

static inline bool __hlt(__half a, __half b)
{
    return (float)a < (float)b;
}

static inline bool __hgt(__half a, __half b)
{
    return (float)a > (float)b;
}

static inline __half2 __hadd2(__half2 a, __half2 b)
{
    return __half2{__hadd(a.x, b.x), __hadd(a.y, b.y)};
}

static inline __half2 __hsub2(__half2 a, __half2 b)
{
    return __half2{__hsub(a.x, b.x), __hsub(a.y, b.y)};
}

static inline __half2 __hmul2(__half2 a, __half2 b)
{
    return __half2{__hmul(a.x, b.x), __hmul(a.y, b.y)};
}

static inline __half2 __hfma2(__half2 a, __half2 b, __half2 c)
{
    return __half2{__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)};
}

static inline __half2 __hneg2(__half2 a)
{
    return __half2{__hneg(a.x), __hneg(a.y)};
}

static inline __half2 __hmax2(__half2 a, __half2 b)
{
    return __half2{__hmax(a.x, b.x), __hmax(a.y, b.y)};
}

static inline __half2 __hmin2(__half2 a, __half2 b)
{
    return __half2{__hmin(a.x, b.x), __hmin(a.y, b.y)};
}

#endif

#endif
