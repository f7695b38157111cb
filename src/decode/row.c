#include "config.h"

#include <math.h>

#include "src/decode/row.h"

int sl_row_check(const float *row, uint32_t vocab, struct sl_error *err)
{
    for (uint32_t i = 0; i < vocab; i++) {
        if (!isfinite(row[i]))
            return sl_fail(err, SL_ERR_CORRUPT,
                           "the model's output is not a number (logit %u of "
                           "%u): damaged weights? 'sluice verify' tells",
                           i, vocab);
    }
    return 0;
}

double sl_row_log_sum(const float *row, uint32_t vocab, double *most)
{
    float top = row[0];
    double sum = 0;

    for (uint32_t i = 1; i < vocab; i++)
        top = row[i] > top ? row[i] : top;
    for (uint32_t i = 0; i < vocab; i++)
        sum += exp((double)row[i] - (double)top);
    *most = (double)top;
    return (double)top + log(sum);
}
