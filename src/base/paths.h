/*
 * paths.h - what a command writes is none of what it reads
 *
 * A command lists all its files before it opens one. The same file is the one
 * with the same device and inode, whatever it is called: links count, and so
 * does standard input where it is a file.
 */
#ifndef SL_PATHS_H
#define SL_PATHS_H

#include <stdbool.h>
#include <stddef.h>

#include "src/base/error.h"

struct sl_path_use {
    const char *option; /* for messages: "--trace" */
    const char *path;   /* NULL: not given; "-": standard input */
    bool written;
    bool beside; /* of a file that is read: so is what lies beside it */
};

/* Refuses a file that is written and is also read, is one of those that make a
 * checkpoint in a folder that is read (or in one of eight levels below it), or
 * is written under another option too. Pipes and terminals are never the same.
 * Errors: SL_ERR_USAGE with both options. */
int sl_paths_check(const struct sl_path_use *uses, size_t n,
                   struct sl_error *err);

/* All files of a command, any number of them; zeroed to begin with. */
struct sl_paths {
    struct sl_path_use *use; /* (n) owned, as are their paths */
    size_t n;
    bool failed; /* no memory for one */
};
/* Both take a path that is NULL, and keep a copy. */
void sl_paths_read(struct sl_paths *p, const char *option, const char *path);
void sl_paths_write(struct sl_paths *p, const char *option, const char *path);
/* What is written as FOLDER/NAME. */
void sl_paths_write_in(struct sl_paths *p, const char *option,
                       const char *folder, const char *name);
/* As sl_paths_check, of all of them, which are forgotten in any case. Errors:
 * SL_ERR_USAGE, SL_ERR_NOMEM. */
int sl_paths_end(struct sl_paths *p, struct sl_error *err);

#endif
