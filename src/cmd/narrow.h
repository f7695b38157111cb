/*
 * narrow.h - tables on terminals that are narrower than they are
 *
 * Commands lay their tables out for 80 to 140 columns. Where standard output
 * is a terminal of fewer, main lets it go through here:
 *
 *   tensor                   type    ne         tensor      type
 *   layers.0.norm.weight     F32    256   -->       ne
 *   layers.1.norm.weight     F32    256         layers.0.norm.weight  F32
 *                                                   256 ...
 *
 * Blanks that all rows of a table have at the same place become one; where
 * that is not enough, rows go on in the next line, all from the same place.
 * Prose is broken between words. A table ends with an empty line; what fits
 * stays as it is, and so does JSON.
 */
#ifndef SL_CMD_NARROW_H
#define SL_CMD_NARROW_H

#include <stdio.h>

#include "src/base/str.h"

/* Appends n bytes of whole lines as they look in so many columns. Errors:
 * SL_ERR_NOMEM. */
int sl_narrow_text(struct sl_str *to, const char *text, size_t n,
                   unsigned columns, struct sl_error *err);

/* A stream that prints what is written to it on file descriptor fd in so many
 * columns; it is owned (fclose), fd is not. NULL without memory. */
FILE *sl_narrow_open(int fd, unsigned columns);

#endif
