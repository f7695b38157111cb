/*
 * direct.h - does a file system read and write past the page cache?
 */
#ifndef SL_BASE_DIRECT_H
#define SL_BASE_DIRECT_H

#include <stdbool.h>

/* False where a file that was opened with O_DIRECT is served from the page
 * cache all the same, and the kernel (6.1 and later) says so: ext4 with
 * data=journal or with fs-verity, folders of fscrypt. (statx(2),
 * STATX_DIOALIGN) */
bool sl_file_is_direct(int fd);

#endif
