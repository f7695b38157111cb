/*
 * pretok_regex.h - an expression as tokenizers and tiktoken read it, by PCRE2
 */
#ifndef SL_PRETOK_REGEX_H
#define SL_PRETOK_REGEX_H

#include "src/base/utf8.h"

struct sl_regex;

/* Errors: SL_ERR_UNSUPPORTED with the place. */
int sl_regex_create(struct sl_regex **re, const char *pattern, size_t n,
                    struct sl_error *err);
void sl_regex_destroy(struct sl_regex *re); /* NULL is fine */
/* The leftmost match in UTF-8 s[from..n): 1 and its range, 0 if there is none.
 * Errors: -1, SL_ERR_UNSUPPORTED when it takes too long. */
int sl_regex_find(struct sl_regex *re, const char *s, size_t n, size_t from,
                  size_t *begin, size_t *end, struct sl_error *err);

#endif
