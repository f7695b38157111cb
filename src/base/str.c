#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/mem.h"
#include "src/base/str.h"

int sl_str_append(struct sl_str *to, const char *text, size_t n,
                  struct sl_error *err)
{
    size_t room;
    char *grown;

    if (n >= to->room - to->n) { /* the zero byte needs room too */
        if (!sl_add_size(&room, to->room * 2 + 64, n) ||
            (grown = realloc(to->s, room)) == NULL)
            return sl_fail(err, SL_ERR_NOMEM,
                           "out of memory for a text of %zu bytes", to->n + n);
        to->s = grown;
        to->room = room;
    }
    if (n > 0)
        memcpy(to->s + to->n, text, n);
    to->n += n;
    to->s[to->n] = '\0';
    return 0;
}

int sl_str_add(struct sl_str *to, const char *text, struct sl_error *err)
{
    return sl_str_append(to, text, strlen(text), err);
}

/* Bytes of the character of UTF-8 at s; 0: there is none (Unicode 15, table
 * 3-7). */
static size_t character(const unsigned char *s, size_t left)
{
    unsigned char low = 0x80, high = 0xbf;
    size_t n = 1;

    if (s[0] < 0x80)
        return 1;
    if (s[0] >= 0xc2 && s[0] <= 0xdf)
        n = 2;
    else if (s[0] >= 0xe0 && s[0] <= 0xef)
        n = 3;
    else if (s[0] >= 0xf0 && s[0] <= 0xf4)
        n = 4;
    if (n == 1 || n > left)
        return 0;
    if (s[0] == 0xe0)
        low = 0xa0;
    if (s[0] == 0xed)
        high = 0x9f;
    if (s[0] == 0xf0)
        low = 0x90;
    if (s[0] == 0xf4)
        high = 0x8f;
    for (size_t i = 1; i < n; i++, low = 0x80, high = 0xbf) {
        if (s[i] < low || s[i] > high)
            return 0;
    }
    return n;
}

int sl_str_append_utf8(struct sl_str *to, const char *text, size_t n,
                       struct sl_error *err)
{
    for (size_t i = 0; i < n;) {
        size_t size = character((const unsigned char *)text + i, n - i);
        const char *from = size > 0 ? text + i : "\xef\xbf\xbd";

        if (sl_str_append(to, from, size > 0 ? size : 3, err) != 0)
            return -1;
        i += size > 0 ? size : 1;
    }
    return 0;
}

const char *sl_str_text(const struct sl_str *str)
{
    return str->s != NULL ? str->s : "";
}

void sl_str_clear(struct sl_str *str)
{
    str->n = 0;
    if (str->s != NULL)
        str->s[0] = '\0';
}

void sl_str_fini(struct sl_str *str)
{
    free(str->s);
    *str = (struct sl_str){0};
}
