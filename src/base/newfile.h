/*
 * newfile.h - a large file that appears whole or not at all
 *
 * It is written under a temporary name beside its own, after a look at the
 * room on the disk, and renamed when all of it is there.
 */
#ifndef SL_NEWFILE_H
#define SL_NEWFILE_H

#include <stdbool.h>
#include <stdint.h>

#include "src/base/error.h"

/* There is something other than a file of that name, a folder, a pipe or a
 * device: a rename would replace it instead of writing there. */
bool sl_newfile_in_place(const char *name);
/* That there is not, and a name at all. Errors: SL_ERR_USAGE. */
int sl_newfile_check_kind(const char *name, struct sl_error *err);

/* That the disk can still grant bytes to temp, which will be called name;
 * blocks that temp has already taken are not needed again. Errors:
 * SL_ERR_NOSPACE with both numbers, SL_ERR_IO. */
int sl_newfile_check_space(const char *temp, const char *name, uint64_t bytes,
                           struct sl_error *err);

/* Makes the file that long, and takes the disk's blocks where the file system
 * can. path is for messages. Errors: SL_ERR_NOSPACE, SL_ERR_IO. */
int sl_newfile_reserve(int fd, const char *path, uint64_t bytes,
                       struct sl_error *err);

/* Syncs fd, renames temp to name and syncs the folder. Errors: SL_ERR_IO. */
int sl_newfile_commit(int fd, const char *temp, const char *name,
                      struct sl_error *err);

#endif
