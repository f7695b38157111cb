#include "config.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "src/base/error.h"

/* Bytes of the character at s, 1 for what begins none. */
static size_t length_at(const unsigned char *s)
{
    size_t n = s[0] < 0xc2   ? 1
               : s[0] < 0xe0 ? 2
               : s[0] < 0xf0 ? 3
               : s[0] < 0xf5 ? 4
                             : 1;

    for (size_t i = 1; i < n; i++)
        if ((s[i] & 0xc0) != 0x80) /* the end of the text, too */
            return 1;
    return n;
}

/* May a terminal be given it? Neither controls, C1 (U+0080 to U+009F) among
 * them, nor what turns the direction of the text or ends its line (U+2028 to
 * U+202E, U+2066 to U+2069), nor what is no UTF-8. */
static bool is_tame(const unsigned char *s, size_t n)
{
    if (n == 1)
        return s[0] >= 0x20 && s[0] < 0x7f;
    if (n == 2)
        return s[0] != 0xc2 || s[1] >= 0xa0;
    if (n != 3 || s[0] != 0xe2)
        return true;
    return !(s[1] == 0x80 && s[2] >= 0xa8 && s[2] <= 0xae) &&
           !(s[1] == 0x81 && s[2] >= 0xa6 && s[2] <= 0xa9);
}

/* Names and texts of files that others made may hold what drives a terminal. */
void sl_error_tame(char *text)
{
    while (*text != '\0') {
        size_t n = length_at((const unsigned char *)text);

        if (!is_tame((const unsigned char *)text, n))
            memset(text, '?', n);
        text += n;
    }
}

int sl_fail(struct sl_error *err, enum sl_code code, const char *fmt, ...)
{
    va_list ap;

    if (err == NULL)
        return -1;
    err->code = code;
    err->os_errno = 0;
    va_start(ap, fmt);
    vsnprintf(err->msg, sizeof err->msg, fmt, ap);
    va_end(ap);
    sl_error_tame(err->msg);
    return -1;
}

int sl_fail_os(struct sl_error *err, int os_errno, const char *fmt, ...)
{
    va_list ap;
    size_t n;

    if (err == NULL)
        return -1;
    err->code = os_errno == ENOSPC || os_errno == EDQUOT ? SL_ERR_NOSPACE
                : os_errno == ENOMEM                     ? SL_ERR_NOMEM
                                                         : SL_ERR_IO;
    err->os_errno = os_errno;
    va_start(ap, fmt);
    vsnprintf(err->msg, sizeof err->msg, fmt, ap);
    va_end(ap);
    sl_error_tame(err->msg);
    n = strlen(err->msg);
    snprintf(err->msg + n, sizeof err->msg - n, ": %s", strerror(os_errno));
    return -1;
}

void sl_error_prefix(struct sl_error *err, const char *fmt, ...)
{
    char head[sizeof err->msg];
    va_list ap;
    size_t n;

    if (err == NULL)
        return;
    va_start(ap, fmt);
    vsnprintf(head, sizeof head, fmt, ap);
    va_end(ap);
    sl_error_tame(head);
    n = strlen(head);
    memmove(err->msg + n, err->msg, sizeof err->msg - n);
    memcpy(err->msg, head, n);
    err->msg[sizeof err->msg - 1] = '\0';
}
