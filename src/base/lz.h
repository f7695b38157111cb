/*
 * lz.h - blocks of bytes made smaller: LZ4, after sorting values by byte
 *
 * Bytes of one significance are more alike than those of one value: the first
 * bytes of FP16 numbers are signs and exponents, the second ones noise. So
 * values of 2 or 4 bytes are split into planes first:
 *
 *   in:   a0 a1 | b0 b1 | c0 c1       planes = 2
 *   LZ4:  a0 b0 c0 a1 b1 c1
 *
 * What is left when n is no multiple of `planes` follows as it is. (LZ4 block
 * format: lz4/lz4 doc/lz4_Block_format.md.)
 */
#ifndef SL_BASE_LZ_H
#define SL_BASE_LZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Longest block: LZ4 counts in int. */
#define SL_LZ_MOST (1u << 30)

/* Bytes that `out` of sl_lz_encode needs for n of input. */
size_t sl_lz_bound(size_t n);

/* n > 0 bytes of `in`, planes 1, 2 or 4. scratch: n bytes, unused with planes
 * 1. Returns the bytes written to out, or 0 where these are not fewer than n:
 * such a block is better kept as it is. */
size_t sl_lz_encode(void *out, const void *in, size_t n, unsigned planes,
                    void *scratch);

/* The reverse, for exactly n bytes. Never writes beyond them or reads beyond
 * in_bytes, whatever `in` holds; false when it is no such block. scratch as
 * above. */
bool sl_lz_decode(void *out, size_t n, const void *in, size_t in_bytes,
                  unsigned planes, void *scratch);

#endif
