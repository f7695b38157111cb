/*
 * lines.h - queries one by one: lines from a descriptor, and what a query is
 *
 * Reads with poll, so that waiting for a person can be interrupted.
 */
#ifndef SL_LINES_H
#define SL_LINES_H

#include <stdbool.h>
#include <stddef.h>

#include "src/base/error.h"

struct sl_lines { /* set fd and stop_fd, zero the rest */
    int fd;
    int stop_fd; /* readable: stop waiting; -1: none */
    size_t most; /* bytes of a line or text that are of use; 0: all */
    char *buf;   /* owned */
    size_t n, room, begin;
    bool eof;
    bool begun; /* looked for a byte-order mark, which is skipped */
};

/* *line: without its line end, zero-terminated in place, borrowed until the
 * next call. Of a line of more than `most` bytes more than `most`, but not
 * all need be there: memory does not grow with it. Returns 1, or 0 at the end
 * of the input. Errors: SL_ERR_IO, SL_ERR_NOMEM, SL_ERR_INTERRUPTED. */
int sl_lines_next(struct sl_lines *l, char **line, size_t *n,
                  struct sl_error *err);
/* Everything that is left, as one text; reading ends behind `most`. Errors: as
 * sl_lines_next. */
int sl_lines_rest(struct sl_lines *l, char **text, size_t *n,
                  struct sl_error *err);
void sl_lines_fini(struct sl_lines *l); /* does not close fd */

/* Takes whitespace off both ends, all that Python's str.strip takes; the first
 * also puts a zero byte behind what is left. */
void sl_query_strip(char **text, size_t *n);
void sl_text_strip(const char **text, size_t *n);
/* Characters of UTF-8; a byte that belongs to none counts as one. */
size_t sl_utf8_count(const char *text, size_t n);
/* Bytes of the first `count` characters. */
size_t sl_utf8_prefix(const char *text, size_t n, size_t count);

/* Splits "ID<TAB>text" at its only tab, in place. Errors: SL_ERR_USAGE when
 * there is none or more than one; the query is unchanged then. */
int sl_query_split(char *query, size_t n, char **id, char **text,
                   size_t *n_text, struct sl_error *err);

#endif
