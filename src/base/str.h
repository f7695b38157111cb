/*
 * str.h - text that grows
 */
#ifndef SL_STR_H
#define SL_STR_H

#include <stddef.h>

#include "src/base/error.h"

#ifdef __cplusplus
extern "C" {
#endif

struct sl_str { /* zeroed to begin with, owned */
    char *s;    /* (n) and a zero byte behind them; NULL while nothing came */
    size_t n, room;
};

/* Append n bytes, or those of a zero-terminated text. Errors: SL_ERR_NOMEM.
 * (utf8.h appends characters, and what may be no UTF-8.) */
int sl_str_append(struct sl_str *to, const char *text, size_t n,
                  struct sl_error *err);
int sl_str_add(struct sl_str *to, const char *text, struct sl_error *err);
/* The text, never NULL; borrowed until the next call. */
const char *sl_str_text(const struct sl_str *str);
/* Shortens it to n bytes, n <= str->n, or to none; its memory is kept. */
void sl_str_cut(struct sl_str *str, size_t n);
void sl_str_clear(struct sl_str *str);
void sl_str_fini(struct sl_str *str); /* leaves it zeroed */

#ifdef __cplusplus
}
#endif

#endif
