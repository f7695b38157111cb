/*
 * textbuf.h - bytes that grow, and the UTF-8 in them
 *
 * Texts come from people and pieces from files: nothing here trusts them. What
 * is not UTF-8 is replaced as Python's errors="replace" and Rust's
 * from_utf8_lossy do: U+FFFD for every maximal subpart (The Unicode Standard
 * 15, 3.9, table 3-8), so that both references see what we see.
 */
#ifndef SL_TEXTBUF_H
#define SL_TEXTBUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/error.h"

#ifdef __cplusplus
extern "C" {
#endif

struct sl_textbuf { /* zeroed to begin with, owned; not terminated */
    char *p;
    size_t n, room;
};

/* Errors: SL_ERR_NOMEM. */
int sl_textbuf_reserve(struct sl_textbuf *b, size_t more, struct sl_error *err);
int sl_textbuf_add(struct sl_textbuf *b, const char *s, size_t n,
                   struct sl_error *err);
int sl_textbuf_add_str(struct sl_textbuf *b, const char *s,
                       struct sl_error *err);
int sl_textbuf_add_char(struct sl_textbuf *b, uint32_t c, struct sl_error *err);
void sl_textbuf_fini(struct sl_textbuf *b); /* leaves it zeroed */

/* Bytes of the character at s[0..left), left > 0; 0 if s begins none. *c is
 * the character. *part then says how many bytes the maximal subpart has (1 or
 * more), and whether it reaches the end, so that more bytes could complete it.
 */
struct sl_utf8_bad {
    size_t n;
    bool open;
};
size_t sl_utf8_get(uint32_t *c, struct sl_utf8_bad *bad, const char *s,
                   size_t left);
/* Bytes of the character at s in a text that is known to be UTF-8. */
size_t sl_utf8_next(uint32_t *c, const char *s);
bool sl_utf8_valid(const char *s, size_t n);

/* Appends s with U+FFFD for what is no UTF-8, or as sentencepiece has it: for
 * every byte of that. */
enum sl_utf8_rule { SL_UTF8_SUBPARTS, SL_UTF8_BYTES };
int sl_utf8_repair(struct sl_textbuf *b, const char *s, size_t n,
                   struct sl_error *err);
/* The same of what grows: the beginning of a character at the end of pending
 * stays there, the rest is taken out of it. */
int sl_utf8_flow(struct sl_textbuf *b, struct sl_textbuf *pending,
                 enum sl_utf8_rule rule, bool last, struct sl_error *err);

#ifdef __cplusplus
}
#endif

#endif
