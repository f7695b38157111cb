/*
 * log.h - where library code says what a person should know
 *
 * Library code never prints. It is handed a struct sl_log and calls it for
 * warnings and notices (a fallback taken, a tensor ignored). The commands
 * pass sl_log_stderr or one that is quiet. Callable from any thread.
 */
#ifndef SL_BASE_LOG_H
#define SL_BASE_LOG_H

#include <stddef.h>
#include <stdio.h>

enum sl_log_level {
    SL_LOG_WARN, /* something is not as it should be */
    SL_LOG_INFO, /* worth a line */
};

struct sl_log {
    void (*write)(void *opaque, enum sl_log_level level, const char *line);
    void *opaque;
    enum sl_log_level max; /* lines above this level are dropped */
};

/* Formats and hands on one line (no newline at its end); log may be NULL. */
void sl_log(const struct sl_log *log, enum sl_log_level level, const char *fmt,
            ...) __attribute__((format(printf, 3, 4)));

/* Prints "sluice: TEXT" on standard error; on a terminal in lines that end
 * between words. */
void sl_message(const char *text);
/* The same of a text to be formatted. */
void sl_messagef(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Lines that are put together piece by piece: what is printed to `to`, between
 * begin and end, is printed as sl_message has it; "sluice: " before what needs
 * it is the caller's. */
struct sl_said {
    FILE *to;
    char *text; /* owned */
    size_t n;
};
void sl_said_begin(struct sl_said *s);
void sl_said_end(struct sl_said *s);

/* Puts line ends in the place of blanks, so that lines have no more columns
 * than that as far as words allow; the first blank stays. */
void sl_message_wrap(char *text, unsigned columns);

/* A write function that prints "sluice: LINE" (or "sluice: warning: LINE")
 * to standard error. */
void sl_log_stderr(void *opaque, enum sl_log_level level, const char *line);

#endif
