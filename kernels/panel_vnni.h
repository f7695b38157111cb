/*
 * panel_vnni.h - vec_panel.h's tiles with VPDPBUSD, for registers of 256 and of
 * 512 bits
 */
#ifndef SL_KERNELS_PANEL_VNNI_H
#define SL_KERNELS_PANEL_VNNI_H

/* cols % 32 == 0 columns of a block as bytes, still offset. */
INLINE void panel_unpack(uint8_t *to, const uint8_t *w, uint32_t cols,
                         const bool int4)
{
    const vi nibble = vi_set(0x0f0f0f0f);

    if (!int4) {
        memcpy(to, w, (size_t)cols * 16);
        return;
    }
    for (uint32_t c = 0; c < cols; c += 8, w += 64, to += 128) {
#pragma GCC unroll 2
        for (size_t i = 0; i < UNIT_BYTES; i += sizeof(vi)) {
            vi v = vi_load_bytes(w + i);

            vi_store((int32_t *)(void *)(to + i), vi_and(v, nibble));
            vi_store((int32_t *)(void *)(to + 64 + i),
                     vi_and(vi_right(v, 4), nibble));
        }
    }
}

/* Where the v-th vector of a panel's rows begins, of four columns. */
INLINE size_t panel_vector(int v)
{
    size_t row = (size_t)v * W;

    return row / SL_BLOCK_ROWS * PANEL_BYTES + row % SL_BLOCK_ROWS * 4;
}

/* acc[v][p] += products of 32 columns. w: of the first of the panel's blocks;
 * q: of the first of n positions. */
INLINE void panel_dot(vi acc[][PANEL_TILE], const uint8_t *w, const int8_t *q,
                      size_t q_stride, const int n, const bool int4)
{
    const int8_t *q3 = q + 3 * q_stride;

#pragma GCC unroll 8
    for (int u = 0; u < 8; u++) {
        vi a[PANEL_VECTORS];

#pragma GCC unroll 4
        for (int v = 0; v < PANEL_VECTORS; v++)
            a[v] = vi_load_bytes(w + panel_vector(v) + 64 * u);
#pragma GCC unroll 8
        for (int p = 0; p < n; p++) {
            const int8_t *at = p < 3 ? q + (size_t)p * q_stride
                                     : q3 + (size_t)(p - 3) * q_stride;
            vi x = vi_set_bytes(at + 4 * u);

#pragma GCC unroll 4
            for (int v = 0; v < PANEL_VECTORS; v++)
                acc[v][p] = vi_dot(acc[v][p], a[v], x);
        }
    }
}

#include "kernels/vec_tile.h"

#endif
