/*
 * panel_avx512.h - vec_panel.h's tiles for AVX-512 with VNNI
 */
#ifndef SL_KERNELS_PANEL_AVX512_H
#define SL_KERNELS_PANEL_AVX512_H

/* cols % 32 == 0 columns of a block as bytes, still offset. */
INLINE void panel_unpack(uint8_t *to, const uint8_t *w, uint32_t cols,
                         const bool int4)
{
    const vi nibble = _mm512_set1_epi8(15);

    if (!int4) {
        memcpy(to, w, (size_t)cols * 16);
        return;
    }
    for (uint32_t c = 0; c < cols; c += 8, w += 64, to += 128) {
        vi v = vi_load_bytes(w);

        _mm512_store_si512(to, _mm512_and_si512(v, nibble));
        _mm512_store_si512(to + 64,
                           _mm512_and_si512(_mm512_srli_epi32(v, 4), nibble));
    }
}

/* acc[v][p] += products of 32 columns. w: of the first of the panel's blocks;
 * q: of the first of n positions. */
INLINE void panel_dot(vi acc[][PANEL_TILE], const uint8_t *w, const int8_t *q,
                      size_t q_stride, const int n, const bool int4)
{
    const int8_t *q3 = q + 3 * q_stride;

#pragma GCC unroll 8
    for (int u = 0; u < 8; u++) {
        vi a = vi_load_bytes(w + 64 * u);
        vi b = vi_load_bytes(w + PANEL_BYTES + 64 * u);

#pragma GCC unroll 8
        for (int p = 0; p < n; p++) {
            const int8_t *at = p < 3 ? q + (size_t)p * q_stride
                                     : q3 + (size_t)(p - 3) * q_stride;
            vi x = vi_set_bytes(at + 4 * u);

            acc[0][p] = _mm512_dpbusd_epi32(acc[0][p], a, x);
            acc[1][p] = _mm512_dpbusd_epi32(acc[1][p], b, x);
        }
    }
}

#include "kernels/vec_tile.h"

#endif
