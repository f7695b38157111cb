#include "config.h"

#include <math.h>

#include "src/base/half.h"
#include "src/exec/rotary.h"

static float round_to_half(float x)
{
    return sl_half_to_float(sl_float_to_half(x));
}

/* torch: 1.0 / (10000 ** (arange(0, dim, 2).float() / dim)), in FP32. */
static float frequency(uint32_t dim, uint32_t i)
{
    return 1.0f / powf((float)SL_ROTARY_BASE, (float)(2 * i) / (float)dim);
}

void sl_rotary_row(float *cos_row, float *sin_row, enum sl_rotary precision,
                   uint32_t dim, int32_t position)
{
    for (uint32_t i = 0; i < dim / 2; i++) {
        double exact = position * pow(SL_ROTARY_BASE, -2.0 * i / dim);
        float angle;

        switch (precision) {
        case SL_ROTARY_EXACT:
            cos_row[i] = (float)cos(exact);
            sin_row[i] = (float)sin(exact);
            break;
        case SL_ROTARY_INV_FREQ_F16:
            angle = (float)position * round_to_half(frequency(dim, i));
            cos_row[i] = cosf(angle);
            sin_row[i] = sinf(angle);
            break;
        case SL_ROTARY_F16:
            angle = round_to_half(round_to_half((float)position) *
                                  round_to_half(frequency(dim, i)));
            cos_row[i] = round_to_half(cosf(angle));
            sin_row[i] = round_to_half(sinf(angle));
            break;
        }
    }
}
