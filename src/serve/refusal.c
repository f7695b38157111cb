#include "config.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "src/serve/refusal.h"

int sl_refuse(struct sl_refusal *why, int status, const char *field,
              const char *fmt, ...)
{
    va_list ap;

    *why = (struct sl_refusal){.status = status};
    if (field != NULL)
        snprintf(why->field, sizeof why->field, "%s", field);
    va_start(ap, fmt);
    vsnprintf(why->msg, sizeof why->msg, fmt, ap);
    va_end(ap);
    return -1;
}

int sl_refuse_error(struct sl_refusal *why, const char *field,
                    const struct sl_error *err)
{
    int status = 500;

    switch (err->code) {
    case SL_ERR_USAGE:
        status = 400;
        break;
    case SL_ERR_UNSUPPORTED:
        status = 501;
        break;
    case SL_ERR_NOMEM:
    case SL_ERR_BUDGET:
    case SL_ERR_IO:
    case SL_ERR_INTERRUPTED:
        status = 503;
        break;
    default:
        break;
    }
    return sl_refuse(why, status, field, "%s", err->msg);
}
