/*
 * blocks_impl.h - what blocks.c and blocks_ggml.c share: a block's codes
 */
#ifndef SL_QUANT_BLOCKS_IMPL_H
#define SL_QUANT_BLOCKS_IMPL_H

#include "quant/blocks.h"

/* A block taken apart: every code in a byte. */
struct sl_codes {
    uint16_t d, m; /* as they are stored */
    uint8_t sub[SL_BLOCK_MAX_SUBS];
    uint8_t q[SL_BLOCK_MAX_COLS];
};

/* From a block of a published file, and back. */
void sl_codes_split(struct sl_codes *c, enum sl_fmt fmt, const uint8_t *b);
void sl_codes_join(uint8_t *b, enum sl_fmt fmt, const struct sl_codes *c);

#endif
