#include "config.h"

#include <math.h>

#include "quant/blocks.h"
#include "src/base/bytes.h"
#include "src/base/half.h"
#include "src/convert/synth_blocks.h"

#define UNIT_BYTES 64u /* a word of each row */

/* Mean and mean square of the numbers first .. first + n - 1. */
static double mean_of(double first, double n)
{
    return first + (n - 1) / 2;
}

static double square_of(double first, double n)
{
    double mean = mean_of(first, n);

    return mean * mean + (n * n - 1) / 12;
}

static double square_of_values(const struct sl_block_shape *s)
{
    static const int8_t values[][16] = {
        [SL_CODES_IQ4] = {SL_IQ4_VALUES},
        [SL_CODES_E2M1] = {SL_E2M1_VALUES},
    };
    double sum = 0;

    if (s->codes == SL_CODES_EVEN)
        return square_of(-s->q_off, 1u << s->q_bits);
    for (int i = 0; i < 16; i++)
        sum += values[s->codes][i] * values[s->codes][i];
    return sum / 16;
}

/* By which d is multiplied for the minimum: the mean code, of a scale that is
 * one or that is on average what the minimum's sub code is. */
static double minimum_of(const struct sl_block_shape *s)
{
    double mean = mean_of(0, 1u << s->q_bits);

    return s->mins == SL_MINS_NONE ? 0 : s->mins == SL_MINS_ONE ? -mean : mean;
}

double sl_synth_blocks_unit(enum sl_fmt fmt)
{
    const struct sl_block_shape *s = sl_block_shape_of(fmt);
    double n = 1u << s->sub_bits, m = minimum_of(s);
    double v = square_of_values(s), sub = 1, cross;

    if (s->sub_bits > 0)
        sub = square_of(-s->sub_off, n);
    if (s->mins == SL_MINS_NONE)
        return sqrt(v * sub);
    if (s->mins == SL_MINS_ONE)
        return sqrt(v - m * m);
    /* of sub * q - m * sub', where sub and sub' are alike */
    cross = 2 * m * m * mean_of(0, n) * mean_of(0, n);
    return sqrt(v * sub - cross + m * m * sub);
}

/* Codes that have no minimum are not zero on average: with either sign their
 * weights are. */
static float scale_of(const struct sl_block_shape *s, float d, uint8_t size,
                      uint8_t sign)
{
    float scale = d * (0.75f + (float)size / 512);

    return s->mins == SL_MINS_NONE && (sign & 1) != 0 ? -scale : scale;
}

/* The head of one row, of which every bit is random. */
static void make_head(uint8_t *head, const struct sl_block_shape *s, float d)
{
    float scale = scale_of(s, d, head[1], head[0]);

    if (s->share == 4) {
        for (int i = 0; i < 4; i++)
            head[i] = (uint8_t)(128 + ilogbf(d) + (head[i] & 1));
        return; /* which have both signs already */
    }
    sl_store_u16(head, sl_float_to_half(scale));
    if (s->share == 2)
        sl_store_u16(head + 2,
                     sl_float_to_half(scale_of(s, d, head[3], head[2])));
    else if (s->mins != SL_MINS_NONE)
        sl_store_u16(head + 2, sl_float_to_half(scale * (float)minimum_of(s)));
}

void sl_synth_blocks_heads(uint8_t *out, const struct sl_matrix *m, float d,
                           uint64_t off, size_t n)
{
    const struct sl_block_shape *s = sl_block_shape_of(m->fmt);
    uint64_t row_words = sl_fmt_row_bytes(m->fmt, m->cols) / 4;
    uint32_t tile = 1 + s->share * sl_block_words(s);

    for (size_t i = 0; i < n; i += UNIT_BYTES) {
        if ((off + i) / UNIT_BYTES % row_words % tile != 0)
            continue;
        for (unsigned r = 0; r < SL_BLOCK_ROWS; r++)
            make_head(out + i + (size_t)4 * r, s, d);
    }
}
