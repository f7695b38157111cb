/*
 * block_maker.h - random blocks as published GGUF files have them
 */
#ifndef SL_TESTS_BLOCK_MAKER_H
#define SL_TESTS_BLOCK_MAKER_H

#include "quant/fmt.h"

/* n_blocks blocks, every code as likely as the others; weights of about that
 * root mean square (of MXFP4 within a factor of two). rms 0: any finite FP16
 * scales, any exponent that gives normal weights. *state goes on. */
void test_blocks_make(uint8_t *b, enum sl_fmt fmt, size_t n_blocks, double rms,
                      uint64_t *state);

#endif
