/*
 * error.h - one error type for the whole program
 *
 * A fallible function returns int, 0 or -1, takes a struct sl_error last and
 * fills it on failure. The error is a value on the caller's stack; nothing is
 * allocated. A message says what failed, on which object, with the numbers,
 * without a newline and without the word "error". Library code never prints,
 * exits or aborts: only the commands do.
 */
#ifndef SL_BASE_ERROR_H
#define SL_BASE_ERROR_H

#include <stdarg.h>

#ifdef __cplusplus
extern "C" {
#endif

enum sl_code {
    SL_OK = 0,
    SL_ERR_USAGE,       /* the caller's mistake: option, value, query */
    SL_ERR_IO,          /* the system refused or failed an operation */
    SL_ERR_CORRUPT,     /* a file is not what it says it is */
    SL_ERR_UNSUPPORTED, /* well-formed, but nothing here can handle it */
    SL_ERR_NOMEM,       /* an allocation failed */
    SL_ERR_BUDGET,      /* does not fit the memory that was granted */
    SL_ERR_NOSPACE,     /* the disk is full or too small */
    SL_ERR_INTERRUPTED, /* stopped on request (Ctrl-C) */
    SL_ERR_INTERNAL,    /* a bug in sluice */
};

struct sl_error {
    enum sl_code code;
    int os_errno; /* errno of the failed call, 0 if there was none */
    char msg[480];
};

/* Fills err (which may be NULL) and returns -1. */
int sl_fail(struct sl_error *err, enum sl_code code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* As sl_fail, for a failed system call: appends ": " and the text of
 * os_errno, and picks the code (ENOSPC, ENOMEM and EDQUOT have their own;
 * else SL_ERR_IO). */
int sl_fail_os(struct sl_error *err, int os_errno, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Makes question marks of what is no text (below U+0020, U+007F), so that a
 * message stays one line; all of these do. */
void sl_error_tame(char *text);

/* Puts context in front of the message on the way up: "layer 3: ...". */
void sl_error_prefix(struct sl_error *err, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

#ifdef __cplusplus
}
#endif

#endif
