#include "config.h"

#include <math.h>

#include "src/base/half.h"
#include "src/exec/rotary.h"

static float round_to_half(float x)
{
    return sl_half_to_float(sl_float_to_half(x));
}

/* torch: 1.0 / (base ** (arange(0, dim, 2).float() / dim)), in FP32. */
static float frequency(const struct sl_hparams *hp, uint32_t dim, uint32_t i)
{
    return 1.0f / powf(hp->rope_base, (float)(2 * i) / (float)dim);
}

/* --- longer contexts ------------------------------------------------------ */

/* Pair i of an angle that turns `rotations` times within the context the
 * model was trained for (modeling_rope_utils.py find_correction_dim). */
static double yarn_pair(const struct sl_hparams *hp, uint32_t dim,
                        double rotations)
{
    double context = hp->rope_scale.original_positions;

    return dim * log(context / (rotations * 2 * M_PI)) /
           (2 * log((double)hp->rope_base));
}

/* 0: turns often enough to be kept; 1: to be slowed down; between them both in
 * part. */
static double yarn_share(const struct sl_hparams *hp, uint32_t dim, uint32_t i)
{
    double low = floor(yarn_pair(hp, dim, hp->rope_scale.high));
    double high = ceil(yarn_pair(hp, dim, hp->rope_scale.low));

    low = fmax(low, 0);
    high = fmin(high, dim - 1.0);
    if (low == high)
        high += 0.001;
    return fmin(fmax((i - low) / (high - low), 0), 1);
}

/* What a frequency is divided by (Llama 3.1; _compute_llama3_parameters). */
static double llama3_divisor(const struct sl_rope_scale *s, double frequency)
{
    double turns = s->original_positions * frequency / (2 * M_PI);
    double t;

    if (turns > s->high)
        return 1;
    if (turns < s->low)
        return s->factor;
    t = (turns - s->low) / (s->high - s->low);
    return 1 / ((1 - t) / s->factor + t);
}

/* The base of a context of n positions ("dynamic" NTK). A position is turned
 * as the last of its context, as step by step, so that no pass depends on how
 * it is cut. */
static double ntk_base(const struct sl_hparams *hp, uint32_t dim, double n)
{
    const struct sl_rope_scale *s = &hp->rope_scale;

    if (n <= s->original_positions)
        return hp->rope_base;
    return hp->rope_base *
           pow(s->factor * n / s->original_positions - (s->factor - 1),
               dim / (dim - 2.0));
}

/* The i-th angle of a position, nothing rounded. */
static double exact_angle(const struct sl_hparams *hp, uint32_t dim, uint32_t i,
                          double factor, int32_t position)
{
    const struct sl_rope_scale *s = &hp->rope_scale;
    double base = hp->rope_base, f, share;

    if (s->kind == SL_ROPE_SCALING_NTK)
        base = ntk_base(hp, dim, (double)position + 1);
    f = pow(base, -2.0 * i / dim) / factor;
    switch (s->kind) {
    case SL_ROPE_SCALING_LINEAR:
        return position * (f / s->factor);
    case SL_ROPE_SCALING_YARN:
        share = yarn_share(hp, dim, i);
        return position * (f / s->factor * share + f * (1 - share));
    case SL_ROPE_SCALING_LLAMA3:
        return position * (f / llama3_divisor(s, f));
    default:
        return position * f;
    }
}

/* What cos and sin are multiplied by. */
static double attention_factor(const struct sl_hparams *hp)
{
    const struct sl_rope_scale *s = &hp->rope_scale;

    if (s->kind != SL_ROPE_SCALING_YARN)
        return 1;
    if (s->attention > 0)
        return s->attention;
    return s->factor > 1 ? 0.1 * log(s->factor) + 1 : 1;
}

/* --- a row ---------------------------------------------------------------- */

void sl_rotary_row(float *cos_row, float *sin_row, const struct sl_hparams *hp,
                   const float *factors, uint32_t dim, int32_t position)
{
    double by = attention_factor(hp);

    for (uint32_t i = 0; i < dim / 2; i++) {
        double factor = factors != NULL ? (double)factors[i] : 1;
        double exact = exact_angle(hp, dim, i, factor, position);
        float angle;

        switch (hp->rotary) {
        case SL_ROTARY_EXACT:
            cos_row[i] = (float)(by * cos(exact));
            sin_row[i] = (float)(by * sin(exact));
            break;
        case SL_ROTARY_INV_FREQ_F16:
            angle = (float)position * round_to_half(frequency(hp, dim, i));
            cos_row[i] = cosf(angle);
            sin_row[i] = sinf(angle);
            break;
        case SL_ROTARY_F16:
            angle = round_to_half(round_to_half((float)position) *
                                  round_to_half(frequency(hp, dim, i)));
            cos_row[i] = round_to_half(cosf(angle));
            sin_row[i] = round_to_half(sinf(angle));
            break;
        }
    }
}
