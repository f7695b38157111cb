/*
 * ckpt_tar.h - where the members of a tar archive lie
 *
 * ustar, GNU (long names, sizes in base 256) and pax (path, size). Only
 * headers are read; a member is then a slice of the archive's source, which
 * may be many files end to end. Sources: POSIX.1-2017 pax "ustar Interchange
 * Format" and "pax Extended Header", GNU tar manual, "Basic Tar Format".
 */
#ifndef SL_CKPT_TAR_H
#define SL_CKPT_TAR_H

#include <stddef.h>
#include <stdint.h>

#include "src/base/error.h"
#include "src/ckpt/ckpt_src.h"

struct sl_tar_member {
    char *name;   /* without a leading "./" */
    uint64_t off; /* of its data in the source */
    uint64_t bytes;
};

struct sl_tar {
    struct sl_src *src;            /* borrowed */
    struct sl_tar_member *members; /* the regular files, in their order */
    size_t n_members;
};

/* Goes through all headers up to the mark that ends the archive. Errors:
 * SL_ERR_CORRUPT (a bad header, cut short), naming part, member, offsets and
 * sizes; SL_ERR_UNSUPPORTED (sparse members, more than a million members),
 * SL_ERR_IO, SL_ERR_NOMEM. */
int sl_tar_open(struct sl_tar *tar, struct sl_src *src, struct sl_error *err);
void sl_tar_close(struct sl_tar *tar);

/* The last member of that name, NULL if there is none. */
const struct sl_tar_member *sl_tar_find(const struct sl_tar *tar,
                                        const char *name);

#endif
