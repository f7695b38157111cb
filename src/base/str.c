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

const char *sl_str_text(const struct sl_str *str)
{
    return str->s != NULL ? str->s : "";
}

void sl_str_cut(struct sl_str *str, size_t n)
{
    str->n = n;
    if (str->s != NULL)
        str->s[n] = '\0';
}

void sl_str_clear(struct sl_str *str)
{
    sl_str_cut(str, 0);
}

void sl_str_fini(struct sl_str *str)
{
    free(str->s);
    *str = (struct sl_str){0};
}
