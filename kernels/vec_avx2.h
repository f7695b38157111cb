/*
 * vec_avx2.h - what the vec_*.h kernels are written in, for AVX2 with FMA and
 * F16C; see vec_avx512.h for the meaning of the names
 */
#ifndef SL_KERNELS_VEC_AVX2_H
#define SL_KERNELS_VEC_AVX2_H

#define PACKED_TILE 2
/* vec_panel_f32.h */
#define PANEL_F32_VECTORS 2
#define PANEL_F32_TILE    6
#define PANEL_F32_LEAST   6
#define Q8_TILE           4
#define PANEL_BLOCKS      1u
#define PANEL_PLANES      2u
#define PANEL_TILE        4
#define PANEL_LEAST       8
#define PANEL_TILES_H     "kernels/panel_avx2.h"
#define BLOCKS_DOT_H      "kernels/blocks_avx2.h"
#define BLOCKS_TILE       4
#define BLOCKS_LEAST      9
#define ISA(name)         name##_avx2
#define ISA_NAME          "avx2"

#include "kernels/vec_256.h"

/* A pair of products is at most 2 * 15 * 128 and eight of them are added, so
 * 16 bits hold all 32 columns. acc[h][p]: rows 8 h and on. */
INLINE void dot32_int4(vi acc[][Q8_TILE], const uint8_t *w, const int8_t *q,
                       size_t q_stride, const int n)
{
    const vi nibble = _mm256_set1_epi8(15);
    vi sum[2][Q8_TILE];

#pragma GCC unroll 8
    for (int p = 0; p < n; p++)
        sum[0][p] = sum[1][p] = _mm256_setzero_si256();
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        vi v = vi_load_bytes(w + 32 * i);
        vi low = _mm256_and_si256(v, nibble);
        vi high = _mm256_and_si256(_mm256_srli_epi32(v, 4), nibble);

#pragma GCC unroll 8
        for (int p = 0; p < n; p++) {
            const int8_t *x = q + (size_t)p * q_stride + i / 2 * 8;
            vi a = _mm256_maddubs_epi16(low, vi_set_bytes(x));
            vi b = _mm256_maddubs_epi16(high, vi_set_bytes(x + 4));

            sum[i % 2][p] =
                _mm256_add_epi16(sum[i % 2][p], _mm256_add_epi16(a, b));
            vi_fix(&sum[i % 2][p]);
        }
    }
#pragma GCC unroll 8
    for (int p = 0; p < n; p++)
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++)
            acc[h][p] = vi_add(
                acc[h][p], _mm256_madd_epi16(sum[h][p], _mm256_set1_epi16(1)));
}

/* maddubs would saturate at 255 * 127 * 2; so the low and the high four bits
 * are multiplied apart, as in dot32_int4: of one vector of rows. */
INLINE void dot32_int8_part(vi *acc, const uint8_t *w, const int8_t *q,
                            size_t q_stride, const int n)
{
    const vi nibble = _mm256_set1_epi8(15);
    vi low[Q8_TILE], high[Q8_TILE];

#pragma GCC unroll 8
    for (int p = 0; p < n; p++)
        low[p] = high[p] = _mm256_setzero_si256();
#pragma GCC unroll 8
    for (int u = 0; u < 8; u++) {
        vi v = vi_load_bytes(w + 64 * u);
        vi a = _mm256_and_si256(v, nibble);
        vi b = _mm256_and_si256(_mm256_srli_epi32(v, 4), nibble);

#pragma GCC unroll 8
        for (int p = 0; p < n; p++) {
            vi x = vi_set_bytes(q + (size_t)p * q_stride + 4 * u);

            low[p] = _mm256_add_epi16(low[p], _mm256_maddubs_epi16(a, x));
            high[p] = _mm256_add_epi16(high[p], _mm256_maddubs_epi16(b, x));
            vi_fix(&low[p]);
            vi_fix(&high[p]);
        }
    }
#pragma GCC unroll 8
    for (int p = 0; p < n; p++)
        acc[p] = vi_add(
            acc[p], vi_add(_mm256_madd_epi16(low[p], _mm256_set1_epi16(1)),
                           _mm256_madd_epi16(high[p], _mm256_set1_epi16(16))));
}

/* A run of 512 bytes is near once it is asked for: halves one after the other
 * need no line twice from afar. */
INLINE void dot32_int8(vi acc[][Q8_TILE], const uint8_t *w, const int8_t *q,
                       size_t q_stride, const int n)
{
#pragma GCC unroll 2
    for (int h = 0; h < 2; h++)
        dot32_int8_part(acc[h], w + 32 * h, q, q_stride, n);
}

#endif
