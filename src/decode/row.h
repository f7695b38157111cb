/*
 * row.h - a row of logits: is it one, and how likely is what
 */
#ifndef SL_ROW_H
#define SL_ROW_H

#include <stdint.h>

#include "src/base/error.h"

/* Errors: SL_ERR_CORRUPT for a logit that is not a number. */
int sl_row_check(const float *row, uint32_t vocab, struct sl_error *err);
/* ln of the sum of exp of a row of logits; *most: the largest of them. NAN
 * where the row has what is no number. */
double sl_row_log_sum(const float *row, uint32_t vocab, double *most);

#endif
