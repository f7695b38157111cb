/*
 * files.h - files by pattern, as Python's glob has them
 *
 * "**" stands for any folders or none, "*", "?" and "[...]" for parts of one
 * name; names that begin with a dot are found by no wildcard.
 */
#ifndef SL_EVAL_FILES_H
#define SL_EVAL_FILES_H

#include <stdbool.h>
#include <stddef.h>

#include "src/base/error.h"

struct sl_names { /* zeroed to begin with, owned */
    char **v;
    size_t n, room;
};

/* Moves name to the list; a NULL is SL_ERR_NOMEM. */
int sl_names_add(struct sl_names *names, char *name, struct sl_error *err);
void sl_names_fini(struct sl_names *names);

/* Whether a path matches a pattern; both have parts between slashes. */
bool sl_glob_match(const char *pattern, const char *path);

/* All files under a folder that match, relative to it, in order of their
 * bytes. Errors: SL_ERR_IO for a folder that cannot be read, SL_ERR_NOMEM. */
int sl_files_find(struct sl_names *names, const char *folder,
                  const char *pattern, struct sl_error *err);

/* "FOLDER/NAME", moved to the caller; NULL: no memory. */
char *sl_path_join(const char *folder, const char *name);
/* The path as seen from the working folder, without "." and needless "..";
 * moved to the caller. NULL: no memory. */
char *sl_path_relative(const char *path);
/* A file's name for messages: "-" is standard input. Borrowed. */
const char *sl_file_shown(const char *path);
/* The whole of a file or of standard input ("-"), a zero byte behind it, moved
 * to the caller. Errors: SL_ERR_IO, SL_ERR_NOMEM; SL_ERR_UNSUPPORTED for more
 * than 1 GiB. */
int sl_file_read(char **text, size_t *n, const char *path,
                 struct sl_error *err);

#endif
