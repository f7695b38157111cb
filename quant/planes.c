#include "config.h"

#include "quant/planes.h"

#define UNIT_BYTES 64u

struct sl_matrix sl_matrix_plane(const struct sl_matrix *m)
{
    struct sl_matrix plane = *m;

    plane.fmt = SL_FMT_INT4;
    return plane;
}

/* An INT8 byte is q + 128; q + 136 has both planes, each with its own 8, in
 * its nibbles. */
void sl_planes_split(uint8_t *high, uint8_t *low, const uint8_t *w,
                     size_t bytes)
{
    for (size_t at = 0; at < bytes; at += 2 * UNIT_BYTES) {
        for (size_t i = 0; i < UNIT_BYTES; i++) {
            unsigned a = w[at + i] + 8u, b = w[at + UNIT_BYTES + i] + 8u;

            high[at / 2 + i] = (uint8_t)(a >> 4 | (b & 0xf0));
            low[at / 2 + i] = (uint8_t)((a & 15) | (b & 15) << 4);
        }
    }
}

void sl_planes_join(uint8_t *to, const uint8_t *high, const uint8_t *low,
                    size_t bytes)
{
    for (size_t at = 0; at < bytes; at += 2 * UNIT_BYTES) {
        for (size_t i = 0; i < UNIT_BYTES; i++) {
            unsigned h = high[at / 2 + i], l = low[at / 2 + i];

            to[at + i] = (uint8_t)((h << 4 | (l & 15)) - 8);
            to[at + UNIT_BYTES + i] = (uint8_t)(((h & 0xf0) | l >> 4) - 8);
        }
    }
}

void sl_planes_load(float *out, const uint8_t *high, const uint8_t *low,
                    uint32_t cols)
{
    for (uint32_t c = 0; c < cols; c++) {
        size_t at = (size_t)(c / 8) * UNIT_BYTES + c % 4;
        unsigned shift = c & 4;
        int h = (high[at] >> shift & 15) - 8, l = (low[at] >> shift & 15) - 8;

        out[c] = (float)(SL_PLANE_STEP * h + l);
    }
}
