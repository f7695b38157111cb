/*
 * crc32.h - the CRC-32 of zip files, of pieces that come in any order
 *
 * Of bits in reverse, with the polynomial 0xedb88320 (PKWARE APPNOTE.TXT
 * 4.4.7; ISO 3309).
 */
#ifndef SL_CRC32_H
#define SL_CRC32_H

#include <stddef.h>
#include <stdint.h>

/* Of n bytes that follow others, whose sum is crc; of the first ones 0. */
uint32_t sl_crc32(uint32_t crc, const void *data, size_t n);

/* The sum of two pieces that follow one another, from theirs; n_b bytes are
 * in the second. */
uint32_t sl_crc32_join(uint32_t a, uint32_t b, uint64_t n_b);

#endif
