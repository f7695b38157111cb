/*
 * half.h - IEEE 754 binary16 and bfloat16, bit by bit
 *
 * Portable and exact: round to nearest, ties to even, subnormals kept. The
 * instruction-set kernels use the CPU's own conversions instead, which give
 * the same values. Internal linkage, so instruction-set files must not
 * include this header (style: no shared inline code there).
 */
#ifndef SL_BASE_HALF_H
#define SL_BASE_HALF_H

#include <stdint.h>
#include <string.h>

static inline float sl_half_to_float(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    uint32_t exp = (h >> 10) & 31u;
    uint32_t man = h & 0x3ffu;
    uint32_t bits;
    float f;

    if (exp == 31) {
        bits = sign | 0x7f800000u | man << 13;
    } else if (exp != 0) {
        bits = sign | (exp + 112) << 23 | man << 13;
    } else if (man == 0) {
        bits = sign;
    } else {
        exp = 113;
        while (!(man & 0x400u)) {
            man <<= 1;
            exp--;
        }
        bits = sign | exp << 23 | (man & 0x3ffu) << 13;
    }
    memcpy(&f, &bits, sizeof f);
    return f;
}

static inline uint16_t sl_float_to_half(float f)
{
    uint32_t x, sign, man, half, rest;
    int exp, shift;

    memcpy(&x, &f, sizeof x);
    sign = x >> 16 & 0x8000u;
    exp = (int)(x >> 23 & 255u);
    man = x & 0x7fffffu;
    if (exp == 255)
        return (uint16_t)(sign | 0x7c00u | (man ? 0x200u | man >> 13 : 0));
    exp -= 112;
    if (exp >= 31)
        return (uint16_t)(sign | 0x7c00u);
    shift = 13;
    if (exp <= 0) {
        if (exp < -10)
            return (uint16_t)sign;
        man |= 0x800000u;
        shift = 14 - exp;
        exp = 0;
    }
    half = (uint32_t)exp << 10 | 0;
    half += man >> shift;
    rest = man & ((1u << shift) - 1);
    if (rest > 1u << (shift - 1) || (rest == 1u << (shift - 1) && (half & 1)))
        half++; /* may carry into the exponent: that is the right result */
    return (uint16_t)(sign | half);
}

/* bfloat16 is the first half of a float, so that every one is a float. */
static inline float sl_bf16_to_float(uint16_t h)
{
    uint32_t bits = (uint32_t)h << 16;
    float f;

    memcpy(&f, &bits, sizeof f);
    return f;
}

/* The nearest bfloat16, ties to even; beyond the range an infinity. NaN keeps
 * its sign and the first bits of its payload and is made quiet, so that what
 * is cut off leaves no infinity (ggml-impl.h, ggml_compute_fp32_to_bf16). */
static inline uint16_t sl_float_to_bf16(float f)
{
    uint32_t x;

    memcpy(&x, &f, sizeof x);
    if ((x & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(x >> 16 | 0x40u);
    return (uint16_t)((x + 0x7fffu + (x >> 16 & 1)) >> 16);
}

/* The same as a float; NaN stays as it is. */
static inline float sl_round_bf16(float f)
{
    uint32_t x;

    memcpy(&x, &f, sizeof x);
    if ((x & 0x7fffffffu) > 0x7f800000u) /* NaN */
        return f;
    x += 0x7fff + (x >> 16 & 1);
    x &= 0xffff0000;
    memcpy(&f, &x, sizeof f);
    return f;
}

#endif
