#include "config.h"

#include <math.h>
#include <string.h>

#include "src/base/bytes.h"
#include "src/base/mem.h"
#include "src/convert/synth_blocks.h"
#include "src/convert/synth_fill.h"

/* The i-th number of a stream: splitmix64 (Steele, Lea, Flood: Fast splittable
 * pseudorandom number generators, 2014), which needs no state but i. */
static uint64_t number(uint64_t key, uint64_t i)
{
    uint64_t z = key + (i + 1) * UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

/* The least integer, which has no counterpart, becomes zero. If it stayed, the
 * mean weight were -1/2: small beside a weight, but the same for all, so that
 * each product had the sum of its inputs added to all of its rows. Of n inputs
 * that makes sqrt(n) times as much of what they have in common, from a thousand
 * on more than there was: after some layers nothing else were left of them. */
static uint64_t balance(uint64_t x, enum sl_fmt fmt)
{
    uint64_t some;

    if (fmt == SL_FMT_INT4) {
        some = x | x >> 1 | x >> 2 | x >> 3;
        return x | (~some & UINT64_C(0x1111111111111111)) << 3;
    }
    if (fmt != SL_FMT_INT8)
        return x;
    some = x | x >> 4;
    some |= some >> 2;
    some |= some >> 1;
    return x | (~some & UINT64_C(0x0101010101010101)) << 7;
}

static void fill_codes(uint8_t *out, const struct sl_synth_source *s,
                       uint64_t off, size_t n)
{
    uint64_t at = off / 8;
    size_t i = 0;

    for (; i + 8 <= n; i += 8)
        sl_store_u64(out + i, balance(number(s->key, at++), s->m.fmt));
    for (uint64_t x = balance(number(s->key, at), s->m.fmt); i < n;
         i++, x >>= 8)
        out[i] = (uint8_t)x;
}

/* Four values of the table from each number. */
static void fill_levels(uint8_t *out, const struct sl_synth_source *s,
                        uint64_t off, size_t n)
{
    uint64_t at = off / 8, x = 0;

    for (size_t i = 0; i + 2 <= n; i += 2, x >>= 16) {
        if (i % 8 == 0)
            x = number(s->key, at++);
        memcpy(out + i, &s->level[x % SL_SYNTH_LEVELS], 2);
    }
}

static void fill_floats(uint8_t *out, const struct sl_synth_source *s,
                        uint64_t off, size_t n)
{
    uint64_t at = off / 8, x = 0;
    float step = s->spread * 0x1p-31f;

    for (size_t i = 0; i + 4 <= n; i += 4, x >>= 32) {
        float f;

        if (i % 8 == 0)
            x = number(s->key, at++);
        f = s->centre + (float)(int32_t)(uint32_t)x * step;
        memcpy(out + i, &f, sizeof f);
    }
}

/* Rows of a segment's last block that are there, where byte off of the
 * weights (or scales) lies in block number block of them all. */
static uint32_t rows_in_block(const struct sl_matrix *m, uint64_t block)
{
    uint32_t blocks = sl_matrix_segment_blocks(m);
    uint32_t rest =
        sl_matrix_segment_rows(m) - (uint32_t)(block % blocks) * SL_BLOCK_ROWS;

    return rest < SL_BLOCK_ROWS ? rest : SL_BLOCK_ROWS;
}

/* The fill-up of rows and columns holds zero weights (quant/matrix.h). */
static void clear_weights(uint8_t *out, const struct sl_matrix *m, uint64_t off,
                          size_t n)
{
    uint64_t block_bytes = sl_matrix_block_bytes(m, 0, 1);
    bool int4 = m->fmt == SL_FMT_INT4;

    if (m->cols % 8 == 0 && sl_matrix_segment_rows(m) % SL_BLOCK_ROWS == 0)
        return;
    for (size_t i = 0; i < n; i++) {
        uint64_t at = (off + i) % block_bytes;
        uint32_t row = (uint32_t)(at % 64 / 4), col = (uint32_t)(at % 4);

        col += (uint32_t)(at / 64) * (int4 ? 8 : 4);
        if (row >= rows_in_block(m, (off + i) / block_bytes))
            out[i] = int4 ? 0x88 : 0x80;
        else if (!int4)
            out[i] = col < m->cols ? out[i] : 0x80;
        else if (col >= m->cols)
            out[i] = 0x88;
        else if (col + 4 >= m->cols)
            out[i] = (uint8_t)((out[i] & 15) | 0x80);
    }
}

/* Rows of the fill are zeros, to the last bit. */
static void clear_rows(uint8_t *out, const struct sl_matrix *m, uint64_t off,
                       size_t n)
{
    uint64_t block_bytes = sl_matrix_block_bytes(m, 0, 1);

    if (sl_matrix_segment_rows(m) % SL_BLOCK_ROWS == 0)
        return;
    for (size_t i = 0; i < n; i++) {
        if ((off + i) % 64 / 4 >= rows_in_block(m, (off + i) / block_bytes))
            out[i] = 0;
    }
}

static void clear_scales(uint8_t *out, const struct sl_matrix *m, uint64_t off,
                         size_t n)
{
    uint64_t block_scales = sl_matrix_scale_block_bytes(m, 1) / 2;

    if (sl_matrix_segment_rows(m) % SL_BLOCK_ROWS == 0)
        return;
    for (size_t i = 0; i + 2 <= n; i += 2) {
        uint64_t at = (off + i) / 2;

        if (at % SL_BLOCK_ROWS >= rows_in_block(m, at / block_scales))
            sl_store_u16(out + i, 0);
    }
}

void sl_synth_fill(const struct sl_synth_source *s, void *out, uint64_t off,
                   size_t n)
{
    switch (s->kind) {
    case SL_SYNTH_BLOCKS:
        fill_codes(out, s, off, n);
        if (!sl_fmt_has_blocks(s->m.fmt)) {
            clear_weights(out, &s->m, off, n);
            return;
        }
        sl_synth_blocks_heads(out, &s->m, s->centre, off, n);
        clear_rows(out, &s->m, off, n);
        return;
    case SL_SYNTH_SCALE:
        fill_levels(out, s, off, n);
        clear_scales(out, &s->m, off, n);
        return;
    case SL_SYNTH_FLOATS:
        if (sl_fmt_of(s->fmt)->elem_bytes == 2)
            fill_levels(out, s, off, n);
        else
            fill_floats(out, s, off, n);
    }
}

void sl_synth_source_init(struct sl_synth_source *s)
{
    const struct sl_fmt_info *f = sl_fmt_of(s->fmt);

    for (uint32_t i = 0; i < SL_SYNTH_LEVELS && f->elem_bytes == 2; i++) {
        float at = ((float)i + 0.5f) * (2.0f / SL_SYNTH_LEVELS) - 1;
        float x = s->centre + s->spread * at;

        f->store(&s->level[i], &x, 1);
    }
}

void sl_synth_spread(struct sl_synth_source *s)
{
    double sigma = 1 / sqrt((double)s->m.cols);

    if (s->kind == SL_SYNTH_SCALE) {
        /* Root mean square of the integers above -n / 2 and below n / 2, and
         * of one more zero. */
        double n = ldexp(1, sl_fmt_of(s->m.fmt)->bits);
        double unit = sqrt((n / 2 - 1) * (n - 1) / 6);

        s->centre = (float)(sigma / unit);
        s->spread = s->centre / 4;
        return;
    }
    if (s->kind == SL_SYNTH_BLOCKS && sl_fmt_has_blocks(s->m.fmt)) {
        s->centre = (float)(sigma / sl_synth_blocks_unit(s->m.fmt));
        return;
    }
    s->centre = 0;
    s->spread = (float)(sigma * sqrt(3.0)); /* of a uniform distribution */
}
