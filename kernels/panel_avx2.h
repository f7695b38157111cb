/*
 * panel_avx2.h - vec_panel.h's tiles for AVX2
 */
#ifndef SL_KERNELS_PANEL_AVX2_H
#define SL_KERNELS_PANEL_AVX2_H

/* cols % 32 == 0 columns of a block as nibbles in bytes. Of INT8 the low ones
 * come first and the high ones are a plane of their own. */
INLINE void panel_unpack(uint8_t *to, const uint8_t *w, uint32_t cols,
                         const bool int4)
{
    const vi nibble = _mm256_set1_epi8(15);
    const size_t step = int4 ? 128 : 64, high_at = int4 ? 64 : PANEL_BYTES;

    for (uint32_t c = 0; c < cols; c += int4 ? 8 : 4, w += 64, to += step) {
#pragma GCC unroll 2
        for (size_t i = 0; i < 64; i += 32) {
            vi v = vi_load_bytes(w + i);
            vi high = _mm256_and_si256(_mm256_srli_epi32(v, 4), nibble);

            vi_store((int32_t *)(void *)(to + i), _mm256_and_si256(v, nibble));
            vi_store((int32_t *)(void *)(to + high_at + i), high);
        }
    }
}

/* sum[v][p] = products of 32 columns with one plane, in pairs of columns: a
 * pair is at most 2 * 15 * 128 and eight are added, so 16 bits hold them. */
INLINE void panel_plane(vi sum[][PANEL_TILE], const uint8_t *w, const int8_t *q,
                        size_t q_stride, const int n)
{
#pragma GCC unroll 4
    for (int p = 0; p < n; p++)
        sum[0][p] = sum[1][p] = _mm256_setzero_si256();
#pragma GCC unroll 8
    for (int u = 0; u < 8; u++) {
        vi a = vi_load_bytes(w + 64 * u), b = vi_load_bytes(w + 64 * u + 32);

#pragma GCC unroll 4
        for (int p = 0; p < n; p++) {
            vi x = vi_set_bytes(q + (size_t)p * q_stride + 4 * u);

            sum[0][p] = _mm256_add_epi16(sum[0][p], _mm256_maddubs_epi16(a, x));
            sum[1][p] = _mm256_add_epi16(sum[1][p], _mm256_maddubs_epi16(b, x));
            vi_fix(&sum[0][p]);
            vi_fix(&sum[1][p]);
        }
    }
}

INLINE void panel_dot(vi acc[][PANEL_TILE], const uint8_t *w, const int8_t *q,
                      size_t q_stride, const int n, const bool int4)
{
    const vi one = _mm256_set1_epi16(1), sixteen = _mm256_set1_epi16(16);
    vi sum[2][PANEL_TILE];

    panel_plane(sum, w, q, q_stride, n);
#pragma GCC unroll 4
    for (int p = 0; p < n; p++)
#pragma GCC unroll 2
        for (int v = 0; v < 2; v++)
            acc[v][p] = vi_add(acc[v][p], _mm256_madd_epi16(sum[v][p], one));
    if (int4)
        return;
    panel_plane(sum, w + PANEL_BYTES, q, q_stride, n);
#pragma GCC unroll 4
    for (int p = 0; p < n; p++)
#pragma GCC unroll 2
        for (int v = 0; v < 2; v++)
            acc[v][p] =
                vi_add(acc[v][p], _mm256_madd_epi16(sum[v][p], sixteen));
}

#include "kernels/vec_tile.h"

#endif
