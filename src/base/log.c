#include "config.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/base/error.h"
#include "src/base/log.h"
#include "src/base/progress.h"

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

void sl_message_wrap(char *text, unsigned columns)
{
    char *blank = NULL, *first = strchr(text, ' ');
    size_t column = 0, blank_at = 0;

    for (char *s = text; *s != '\0'; s++) {
        unsigned char c = (unsigned char)*s;

        if (c == '\n') {
            column = 0;
            blank = NULL;
            continue;
        }
        if (c == ' ' && s != first) {
            blank = s;
            blank_at = column;
        }
        /* a character of UTF-8: from U+3000 on most take two columns */
        if ((c & 0xc0) != 0x80)
            column += c >= 0xe3 ? 2 : 1;
        if (column <= columns || blank == NULL)
            continue;
        *blank = '\n';
        column -= blank_at + 1;
        blank = NULL;
    }
}

/* A line with what stands before it. */
static void print_line(char *line)
{
    sl_error_tame(line);
    if (isatty(STDERR_FILENO) == 1)
        sl_message_wrap(line, sl_progress_columns());
    fprintf(stderr, "%s\n", line);
}

void sl_message(const char *text)
{
    char line[1200];

    snprintf(line, sizeof line, "sluice: %s", text);
    print_line(line);
}

void sl_messagef(const char *fmt, ...)
{
    char text[1100];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    sl_message(text);
}

void sl_said_begin(struct sl_said *s)
{
    *s = (struct sl_said){0};
    s->to = open_memstream(&s->text, &s->n);
    if (s->to == NULL)
        s->to = stderr;
}

void sl_said_end(struct sl_said *s)
{
    char *line = NULL, *rest;

    if (s->to != stderr && fclose(s->to) == 0)
        line = s->text;
    for (; line != NULL && *line != '\0'; line = rest) {
        rest = strchr(line, '\n');
        if (rest != NULL)
            *rest++ = '\0';
        print_line(line);
    }
    free(s->text);
    *s = (struct sl_said){0};
}

void sl_log_stderr(void *opaque, enum sl_log_level level, const char *line)
{
    char text[1100];

    (void)opaque;
    snprintf(text, sizeof text, "%s%s", level == SL_LOG_WARN ? "warning: " : "",
             line);
    sl_message(text);
}
