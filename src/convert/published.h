/*
 * published.h - rows of ggml's blocks as they stand in a published file
 */
#ifndef SL_PUBLISHED_H
#define SL_PUBLISHED_H

#include <stdbool.h>
#include <stdint.h>

#include "quant/fmt.h"

/* Bytes of a row; fmt has blocks, of which cols is a multiple. */
uint64_t sl_published_bytes(enum sl_fmt fmt, uint32_t cols);

/* Whether all scales and minima of a row are finite numbers; else *column is
 * the first whose are not. (ggml-org/ggml src/ggml-common.h says where they
 * stand.) */
bool sl_published_finite(uint64_t *column, enum sl_fmt fmt, const uint8_t *row,
                         uint32_t cols);

#endif
