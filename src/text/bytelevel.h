/*
 * bytelevel.h - GPT-2's alphabet: a printable character for every byte
 *
 * Bytes 33..126, 161..172 and 174..255 stand for themselves, the other 68, in
 * order, are U+0100..U+0143 (openai/gpt-2 src/encoder.py bytes_to_unicode).
 */
#ifndef SL_BYTELEVEL_H
#define SL_BYTELEVEL_H

#include "src/base/utf8.h"

/* The character of a byte. */
uint32_t sl_bytelevel_char(uint8_t byte);
/* The byte of a character, or -1. */
int sl_bytelevel_byte(uint32_t c);

/* Appends the bytes of a piece that is spelt in the alphabet; false, and
 * nothing appended, when it is not. */
int sl_bytelevel_decode(bool *is, struct sl_str *out, const char *s, size_t n,
                        struct sl_error *err);
int sl_bytelevel_encode(struct sl_str *out, const char *s, size_t n,
                        struct sl_error *err);

#endif
