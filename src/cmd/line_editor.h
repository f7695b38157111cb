/*
 * line_editor.h - what a person types, one text after another
 *
 * On a terminal with libedit: editing, history (arrow keys, Ctrl-R), pasted
 * text as one piece however long it is. Elsewhere plain lines. Both ways a
 * text may have several lines:
 *
 *   a line that ends in a backslash goes on in the next;
 *   a line that begins with """ goes on until one that ends with """.
 *
 * Ctrl-C gives the line up, Ctrl-D on an empty line ends the input. Waiting
 * ends when stop_fd becomes readable (interrupt.h).
 *
 *   line_editor.c    lines to texts; plain lines
 *   line_edit.c      one line by libedit
 *   line_history.c   the file of former texts
 */
#ifndef SL_LINE_EDITOR_H
#define SL_LINE_EDITOR_H

#include <stdbool.h>
#include <stddef.h>

#include "src/base/error.h"
#include "src/base/log.h"
#include "src/base/str.h"

struct sl_line_editor;

struct sl_line_config {
    int stop_fd;   /* readable: stop waiting; -1: none */
    size_t most;   /* bytes of a text that are of use; 0: all */
    bool one_line; /* a line is a text, whatever it is */
    bool plain;    /* no editing, not even on a terminal */
    /* Of the file of former texts in what programs remember, or NULL; the
     * folder is made. */
    const char *history;
    const struct sl_log *log;
};

/* Reads standard input. Errors: SL_ERR_NOMEM. */
int sl_line_editor_open(struct sl_line_editor **e,
                        const struct sl_line_config *config,
                        struct sl_error *err);
void sl_line_editor_close(struct sl_line_editor *e); /* NULL is fine */
/* After Ctrl-C: whether the person stays. The first on an empty line says how
 * to leave, the second leaves; one that gave a line up is none of them. */
bool sl_line_editor_stays(struct sl_line_editor *e);
/* Standard input is a terminal. */
bool sl_line_editor_has_terminal(const struct sl_line_editor *e);

/* Shows the prompt (NULL: none) and reads a text. *text: without its last line
 * end, zero-terminated, borrowed until the next call. Returns 1, or 0 at the
 * end of the input. Errors: SL_ERR_INTERRUPTED, after which more can be read;
 * SL_ERR_IO, SL_ERR_NOMEM. */
int sl_line_editor_next(struct sl_line_editor *e, const char *prompt,
                        char **text, size_t *n, struct sl_error *err);

/* -- line_history.c -- */

/* Calls add with each text of the file, oldest first, the last thousand at
 * most; a file that has grown far beyond that is made shorter. A file that is
 * not there has none. Errors: SL_ERR_IO, SL_ERR_NOMEM. */
int sl_line_history_read(const char *path,
                         int (*add)(void *opaque, const char *text,
                                    struct sl_error *err),
                         void *opaque, struct sl_error *err);
/* Adds a text; the file, and its folder, are made where there are none, for
 * this user's eyes only. Errors: SL_ERR_IO, SL_ERR_NOSPACE, SL_ERR_NOMEM. */
int sl_line_history_add(const char *path, const char *text,
                        struct sl_error *err);

/* -- line_edit.c -- */

struct sl_line_edit;

/* False, and nothing made, where there is no libedit or the terminal cannot
 * move its cursor. */
bool sl_line_edit_open(struct sl_line_edit **e, int stop_fd);
void sl_line_edit_close(struct sl_line_edit *e); /* NULL is fine */
/* Appends a line without its end. Returns and errors as sl_line_editor_next. */
int sl_line_edit_next(struct sl_line_edit *e, const char *prompt,
                      struct sl_str *line, struct sl_error *err);
bool sl_line_edit_was_empty(const struct sl_line_edit *e);
/* A text for the arrow keys; an opaque sl_line_edit. */
int sl_line_edit_remember(void *edit, const char *text, struct sl_error *err);

#endif
