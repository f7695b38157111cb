/*
 * vec_tile.h - a panel's tiles of positions, kept in vector registers
 *
 * PANEL_VECTORS vectors of W rows by up to PANEL_TILE positions. Included by
 * vec_panel.h.
 */
#ifndef SL_KERNELS_VEC_TILE_H
#define SL_KERNELS_VEC_TILE_H

/* The scale of W rows of a panel. */
INLINE vf panel_scale(const struct panel *k, int v, size_t group)
{
    size_t row = (size_t)v * W;

    return vf_load_half(k->w_scale[row / SL_BLOCK_ROWS] +
                        group * SL_BLOCK_ROWS + row % SL_BLOCK_ROWS);
}

/* part += the products of one group of inputs. */
INLINE void panel_group(vf part[][PANEL_TILE], const struct panel *k,
                        const int8_t *q, uint32_t g, size_t p0, const int n,
                        const bool int4)
{
    const float *scale = k->scale + (size_t)g * PANEL_RUN + p0;
    const int32_t *bias = k->bias + (size_t)g * PANEL_RUN + p0;
    vi acc[PANEL_ROWS / W][PANEL_TILE];

#pragma GCC unroll 8
    for (int p = 0; p < n; p++)
#pragma GCC unroll 4
        for (int v = 0; v < PANEL_VECTORS; v++)
            acc[v][p] = vi_set(bias[p]);
    panel_dot(acc, k->w + (size_t)g * GROUP_BYTES, q, k->q_stride, n, int4);
#pragma GCC unroll 8
    for (int p = 0; p < n; p++)
#pragma GCC unroll 4
        for (int v = 0; v < PANEL_VECTORS; v++)
            part[v][p] =
                vf_fma(vi_to_float(acc[v][p]), vf_set(scale[p]), part[v][p]);
}

/* Asks for as many of the next columns' weights. */
INLINE void panel_ahead(const struct panel *k, uint32_t g, const bool int4)
{
    const size_t bytes = int4 ? GROUP_BYTES / 2 : GROUP_BYTES;

#pragma GCC unroll 2
    for (size_t b = 0; b < PANEL_BLOCKS; b++)
#pragma GCC unroll 8
        for (size_t i = 0; i < bytes; i += UNIT_BYTES)
            _mm_prefetch((const char *)k->next[b] + g * bytes + i, _MM_HINT_T0);
}

INLINE void panel_tile(struct panel *k, size_t p0, const int n, const bool int4)
{
    const int8_t *q = k->q + p0 * k->q_stride;
    float *part_at = k->part + p0 * PANEL_ROWS;
    float *total_at = k->total + p0 * PANEL_ROWS;
    vf part[PANEL_ROWS / W][PANEL_TILE];
    uint32_t left = k->left;

#pragma GCC unroll 8
    for (int p = 0; p < n; p++)
#pragma GCC unroll 4
        for (int v = 0; v < PANEL_VECTORS; v++)
            part[v][p] =
                vf_load(part_at + (size_t)p * PANEL_ROWS + (size_t)(v * W));
    for (uint32_t g = 0, group = 0; g < k->groups; group++, left = k->width) {
        uint32_t end = k->groups - g < left ? k->groups : g + left;
        bool closed = end - g == left || (end == k->groups && k->last);

        for (; g < end; g++, q += SL_Q8_GROUP) {
            if (p0 == 0)
                panel_ahead(k, g, int4);
            panel_group(part, k, q, g, p0, n, int4);
        }
        if (!closed)
            break;
#pragma GCC unroll 4
        for (int v = 0; v < PANEL_VECTORS; v++) {
            vf s = panel_scale(k, v, group);

#pragma GCC unroll 8
            for (int p = 0; p < n; p++) {
                float *t = total_at + (size_t)p * PANEL_ROWS + (size_t)(v * W);

                vf_store(t, vf_fma(part[v][p], s, vf_load(t)));
                part[v][p] = vf_set(0);
            }
        }
    }
#pragma GCC unroll 8
    for (int p = 0; p < n; p++)
#pragma GCC unroll 4
        for (int v = 0; v < PANEL_VECTORS; v++)
            vf_store(part_at + (size_t)p * PANEL_ROWS + (size_t)(v * W),
                     part[v][p]);
}

INLINE void panel_tiles(struct panel *k, const bool int4)
{
    size_t p = 0;

    for (; k->n - p >= PANEL_TILE; p += PANEL_TILE)
        panel_tile(k, p, PANEL_TILE, int4);
    for (; k->n - p >= 2; p += 2)
        panel_tile(k, p, 2, int4);
    if (p < k->n)
        panel_tile(k, p, 1, int4);
}

#endif
