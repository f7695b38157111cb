/*
 * dot_vnni.h - products of 32 packed columns with VPDPBUSD, for registers of
 * 256 and of 512 bits
 */
#ifndef SL_KERNELS_DOT_VNNI_H
#define SL_KERNELS_DOT_VNNI_H

#include "kernels/vec_packed.h"

/* acc[h][p] += products of 32 columns, weights still offset: w holds one unit
 * every 64 bytes, q 32 values every q_stride bytes, a line for each of n
 * positions. Where a block of rows is one register, high nibbles are multiplied
 * where they are, by 16 too large: shifting the sums costs less than shifting
 * the weights. Where it is two, registers do not hold both kinds of sums. */
INLINE void dot32_int4(vi acc[][Q8_TILE], const uint8_t *w, const int8_t *q,
                       size_t q_stride, const int n)
{
    const vi low = vi_set(0x0f0f0f0f), upper = vi_set((int)0xf0f0f0f0u);
    vi high[Q8_TILE];

#pragma GCC unroll 8
    for (int p = 0; p < n; p++)
        high[p] = vi_set(0);
#pragma GCC unroll 4
    for (int u = 0; u < 4; u++) {
        vi a[PARTS], b[PARTS];

#pragma GCC unroll 2
        for (int h = 0; h < PARTS; h++) {
            vi v = vi_load_bytes(w + 64 * u + h * PART_BYTES);

            a[h] = vi_and(v, low);
            b[h] = PARTS == 1 ? vi_and(v, upper) : vi_and(vi_right(v, 4), low);
        }
#pragma GCC unroll 8
        for (int p = 0; p < n; p++) {
            const int8_t *at = q + (size_t)p * q_stride + 8 * u;
            vi x = vi_set_bytes(at);

#pragma GCC unroll 2
            for (int h = 0; h < PARTS; h++)
                acc[h][p] = vi_dot(acc[h][p], a[h], x);
            x = vi_set_bytes(at + 4);
#pragma GCC unroll 2
            for (int h = 0; h < PARTS; h++) {
                vi *to = PARTS == 1 ? &high[p] : &acc[h][p];

                *to = vi_dot(*to, b[h], x);
            }
        }
    }
    if (PARTS > 1)
        return;
#pragma GCC unroll 8
    for (int p = 0; p < n; p++)
        acc[0][p] = vi_add(acc[0][p], vi_right_signed(high[p], 4));
}

INLINE void dot32_int8(vi acc[][Q8_TILE], const uint8_t *w, const int8_t *q,
                       size_t q_stride, const int n)
{
#pragma GCC unroll 8
    for (int u = 0; u < 8; u++) {
        vi v[PARTS];

#pragma GCC unroll 2
        for (int h = 0; h < PARTS; h++)
            v[h] = vi_load_bytes(w + 64 * u + h * PART_BYTES);
#pragma GCC unroll 8
        for (int p = 0; p < n; p++) {
            vi x = vi_set_bytes(q + (size_t)p * q_stride + 4 * u);

#pragma GCC unroll 2
            for (int h = 0; h < PARTS; h++)
                acc[h][p] = vi_dot(acc[h][p], v[h], x);
        }
    }
}

#endif
