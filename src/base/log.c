#include "config.h"

#include <stdarg.h>
#include <stdio.h>

#include "src/base/error.h"
#include "src/base/log.h"

void sl_log(const struct sl_log *log, enum sl_log_level level, const char *fmt,
            ...)
{
    char line[1024];
    va_list ap;

    if (log == NULL || log->write == NULL || level > log->max)
        return;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    sl_error_tame(line);
    log->write(log->opaque, level, line);
}

void sl_log_stderr(void *opaque, enum sl_log_level level, const char *line)
{
    (void)opaque;
    fprintf(stderr, "sluice: %s%s\n", level == SL_LOG_WARN ? "warning: " : "",
            line);
}
