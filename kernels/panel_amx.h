/*
 * panel_amx.h - vec_panel.h's tiles in the tile registers of AMX
 *
 * A tile product is 16 positions by 16 rows by the 32 columns of one group of
 * inputs: exact, in 32-bit integers. It goes through memory to the vector
 * registers, where it is scaled and added as in vec_tile.h, with the same
 * bits; while one is scaled the next is multiplied. (Intel SDM volume 1,
 * chapter 18; the unpacked weights lie as TDPBSSD wants its second operand.)
 */
#ifndef SL_KERNELS_PANEL_AMX_INCLUDED_H
#define SL_KERNELS_PANEL_AMX_INCLUDED_H

#include "kernels/amx.h"

/* Tile registers: sums, inputs, weights; sums and inputs of the last
 * positions, which may be fewer. */
#define AMX_SUM       0
#define AMX_INPUT     1
#define AMX_WEIGHT    2
#define AMX_SUM_END   3
#define AMX_INPUT_END 4

/* n_end: positions of the last tile. Until amx_end the thread has tiles. */
INLINE void amx_begin(uint32_t n_end)
{
    struct amx_config c = {.palette = 1};

    c.row_bytes[AMX_SUM] = c.row_bytes[AMX_SUM_END] = 64;
    c.row_bytes[AMX_INPUT] = c.row_bytes[AMX_INPUT_END] = SL_Q8_GROUP;
    c.row_bytes[AMX_WEIGHT] = 64;
    c.rows[AMX_SUM] = c.rows[AMX_INPUT] = AMX_TILE;
    c.rows[AMX_SUM_END] = c.rows[AMX_INPUT_END] =
        (uint8_t)(n_end > 0 ? n_end : AMX_TILE);
    c.rows[AMX_WEIGHT] = SL_Q8_GROUP / 4;
    _tile_loadconfig(&c);
}

INLINE void amx_end(void)
{
    _tile_release();
}

/* cols % 32 == 0 columns of a block as signed bytes. */
INLINE void amx_unpack(uint8_t *to, const uint8_t *w, uint32_t cols,
                       const bool int4)
{
    const vi nibble = _mm512_set1_epi8(15), eight = _mm512_set1_epi8(8);
    const vi sign = _mm512_set1_epi8((char)0x80);

    for (uint32_t c = 0; !int4 && c < cols; c += 4, w += 64, to += 64)
        _mm512_store_si512(to, _mm512_xor_si512(vi_load_bytes(w), sign));
    for (uint32_t c = 0; int4 && c < cols; c += 8, w += 64, to += 128) {
        vi v = vi_load_bytes(w);
        vi high = _mm512_and_si512(_mm512_srli_epi32(v, 4), nibble);

        _mm512_store_si512(to,
                           _mm512_sub_epi8(_mm512_and_si512(v, nibble), eight));
        _mm512_store_si512(to + 64, _mm512_sub_epi8(high, eight));
    }
}

INLINE void amx_product(struct panel *k, const uint8_t *w, const int8_t *q,
                        uint32_t g, const bool end)
{
    int32_t *to = k->tile[g % 2];

    _tile_loadd(AMX_WEIGHT, w + (size_t)g * GROUP_BYTES, 64);
    if (end) {
        _tile_zero(AMX_SUM_END);
        _tile_loadd(AMX_INPUT_END, q + (size_t)g * SL_Q8_GROUP, k->q_stride);
        _tile_dpbssd(AMX_SUM_END, AMX_INPUT_END, AMX_WEIGHT);
        _tile_stored(AMX_SUM_END, to, 64);
        return;
    }
    _tile_zero(AMX_SUM);
    _tile_loadd(AMX_INPUT, q + (size_t)g * SL_Q8_GROUP, k->q_stride);
    _tile_dpbssd(AMX_SUM, AMX_INPUT, AMX_WEIGHT);
    _tile_stored(AMX_SUM, to, 64);
}

/* 16 positions and a block; with `end` fewer positions, and what is computed
 * for the others is never used. */
INLINE void amx_tile(struct panel *k, size_t p0, size_t block, const bool end)
{
    const int8_t *q = k->q + p0 * k->q_stride;
    const uint8_t *w = k->w + block * PANEL_BYTES;
    const uint16_t *w_scale = k->w_scale[block];
    float *part_at = k->part + p0 * PANEL_ROWS + block * SL_BLOCK_ROWS;
    float *total_at = k->total + p0 * PANEL_ROWS + block * SL_BLOCK_ROWS;
    uint32_t left = k->left;
    vf part[AMX_TILE];

#pragma GCC unroll 16
    for (int p = 0; p < AMX_TILE; p++)
        part[p] = vf_load(part_at + (size_t)p * PANEL_ROWS);
    amx_product(k, w, q, 0, end);
    for (uint32_t g = 0; g < k->groups; g++) {
        const float *scale = k->scale + (size_t)g * PANEL_RUN + p0;
        const int32_t *sum = k->tile[g % 2];

        if (g + 1 < k->groups)
            amx_product(k, w, q, g + 1, end);
#pragma GCC unroll 16
        for (int p = 0; p < AMX_TILE; p++)
            part[p] =
                vf_fma(vi_to_float(vi_load(sum + (size_t)p * SL_BLOCK_ROWS)),
                       vf_set(scale[p]), part[p]);
        if (--left == 0 || (k->last && g + 1 == k->groups)) {
            vf s = vf_load_half(w_scale);

#pragma GCC unroll 16
            for (int p = 0; p < AMX_TILE; p++) {
                float *t = total_at + (size_t)p * PANEL_ROWS;

                vf_store(t, vf_fma(part[p], s, vf_load(t)));
                part[p] = vf_set(0);
            }
            w_scale += SL_BLOCK_ROWS;
            left = k->width;
        }
    }
#pragma GCC unroll 16
    for (int p = 0; p < AMX_TILE; p++)
        vf_store(part_at + (size_t)p * PANEL_ROWS, part[p]);
}

INLINE void amx_tiles(struct panel *k, const bool int4)
{
    size_t p = 0;

    for (; k->n - p >= AMX_TILE; p += AMX_TILE)
        for (size_t b = 0; b < PANEL_BLOCKS; b++)
            amx_tile(k, p, b, false);
    for (size_t b = 0; p < k->n && b < PANEL_BLOCKS; b++)
        amx_tile(k, p, b, true);
}

#endif
