/*
 * newfile.h - a file that appears whole or not at all
 *
 * It is written under a temporary name beside its own, which no other file
 * has, and renamed when all of it is there; a large one after a look at the
 * room on the disk.
 */
#ifndef SL_NEWFILE_H
#define SL_NEWFILE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "src/base/error.h"

struct sl_newfile {
    FILE *file; /* write here */
    char *path; /* the file's name */
    char *temp; /* until it is whole; NULL: written in place */
};

/* Where links of that name lead: the file that is to be replaced, not the link.
 * Owned. Errors: SL_ERR_NOMEM, SL_ERR_IO for links without an end. */
int sl_newfile_name(char **name, const char *path, struct sl_error *err);

/* For a pipe, a device and what the caller has opened (/dev/stdout), which are
 * written in place, for a new file, and for one that will replace another,
 * whose mode it takes. Links are followed. Errors: SL_ERR_IO, SL_ERR_NOSPACE,
 * SL_ERR_NOMEM. */
int sl_newfile_open(struct sl_newfile *f, const char *path,
                    struct sl_error *err);
/* What was written so far is on the disk, and whether all of it could be:
 * returns 0 or an errno. */
int sl_newfile_flush(struct sl_newfile *f);
/* The file has its name afterwards; or, when this fails, is as it was. f is
 * closed in any case. Errors: SL_ERR_IO, SL_ERR_NOSPACE. */
int sl_newfile_close(struct sl_newfile *f, struct sl_error *err);
/* Forgets what was written; a zeroed or closed one is fine. */
void sl_newfile_drop(struct sl_newfile *f);

/* fsync, and fine where a file system does not know it (CIFS, some of FUSE,
 * pipes). Returns 0 or -1 with errno. */
int sl_sync(int fd);

/* There is something other than a file of that name, a folder, a pipe, a
 * device, an open descriptor: a rename would replace it instead of writing
 * there. */
bool sl_newfile_in_place(const char *name);
/* That there is not, and a name at all. Errors: SL_ERR_USAGE. */
int sl_newfile_check_kind(const char *name, struct sl_error *err);

/* That a file may be written there, before work is done for it. Errors:
 * SL_ERR_IO, SL_ERR_NOMEM. */
int sl_newfile_check_place(const char *name, struct sl_error *err);

/* That the disk can still grant bytes to temp, which will be called name;
 * blocks that temp has already taken are not needed again. Errors:
 * SL_ERR_NOSPACE with both numbers, SL_ERR_IO. */
int sl_newfile_check_space(const char *temp, const char *name, uint64_t bytes,
                           struct sl_error *err);

/* Locks the file until it is closed; where the file system has no locks, it
 * goes without. Errors: SL_ERR_USAGE (another program has it), SL_ERR_IO. */
int sl_newfile_lock(int fd, const char *path, struct sl_error *err);

/* Makes the file that long, and takes the disk's blocks where the file system
 * can. path is for messages. Errors: SL_ERR_NOSPACE, SL_ERR_IO. */
int sl_newfile_reserve(int fd, const char *path, uint64_t bytes,
                       struct sl_error *err);

/* Syncs fd, renames temp to name and syncs the folder, as far as the file
 * system can. Errors: SL_ERR_IO. */
int sl_newfile_commit(int fd, const char *temp, const char *name,
                      struct sl_error *err);

#endif
