/*
 * utf8.h - UTF-8 in texts that nobody vouches for
 *
 * Texts come from people and pieces from files. What is not UTF-8 is replaced
 * as Python's errors="replace" and Rust's from_utf8_lossy do: U+FFFD for every
 * maximal subpart (The Unicode Standard 15, 3.9, table 3-8), so that the
 * references see what we see.
 */
#ifndef SL_UTF8_H
#define SL_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/error.h"
#include "src/base/str.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Of what is no character: the bytes of its maximal subpart (1 or more), and
 * whether it reaches the end, so that more bytes could complete it. */
struct sl_utf8_bad {
    size_t n;
    bool open;
};

/* Bytes of the character at s[0..left), left > 0, and *c is that character; 0
 * and *bad where s begins none. */
size_t sl_utf8_get(uint32_t *c, struct sl_utf8_bad *bad, const char *s,
                   size_t left);
/* Bytes of the character at s in a text that is known to be UTF-8. */
size_t sl_utf8_next(uint32_t *c, const char *s);
bool sl_utf8_valid(const char *s, size_t n);

/* Appends a character. Errors: SL_ERR_NOMEM. */
int sl_utf8_put(struct sl_str *to, uint32_t c, struct sl_error *err);

/* What one U+FFFD stands for: a maximal subpart, or, as sentencepiece has it,
 * a byte. */
enum sl_utf8_rule { SL_UTF8_SUBPARTS, SL_UTF8_BYTES };
/* Appends s with U+FFFD for what is no UTF-8. */
int sl_utf8_repair(struct sl_str *to, const char *s, size_t n,
                   enum sl_utf8_rule rule, struct sl_error *err);
/* The same of what grows: the beginning of a character at the end of pending
 * stays there unless last, the rest is taken out of it. */
int sl_utf8_flow(struct sl_str *to, struct sl_str *pending,
                 enum sl_utf8_rule rule, bool last, struct sl_error *err);

#ifdef __cplusplus
}
#endif

#endif
