#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "src/base/error.h"

/* Names and texts of files that others made may hold what drives a terminal. */
void sl_error_tame(char *text)
{
    for (; *text != '\0'; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            *text = '?';
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
