/*
 * mirror.h - a file and its copy on another disk, read as one
 *
 *   stream, cache, gather --io_split.c--.            .--> file 0, its disk
 *   single pieces --modelfile.c---------+-- mirror --+
 *                                                    '--> file 1, its disk
 *
 * Whoever reads asks here which file is to serve a read: the one that would be
 * through with it first, by the bytes that are in flight at each and the rate
 * that each was seen to give while it had some. So bytes go by the rates, and
 * both disks have read what is wanted next at about the same time. One that is
 * too slow to be asked gets a read now and then: it may only have stalled. A
 * file that fails for good is left out by all, which is said once; the last one
 * never is.
 *
 * Any thread calls.
 */
#ifndef SL_OFFLOAD_MIRROR_H
#define SL_OFFLOAD_MIRROR_H

#include <stdbool.h>
#include <stdint.h>

#include "offload/io.h"
#include "src/base/clock.h"

struct sl_mirror_config {
    const char *path[SL_IO_FILES]; /* for messages and opening; copied */
    const struct sl_log *log;
    struct sl_clock *clock; /* NULL: the real one */
};

/* Of a file. */
struct sl_mirror_stats {
    uint64_t bytes;   /* that came from it */
    uint64_t busy_ns; /* at least one read was in flight */
    bool out;         /* it was left out */
};

/* Errors: SL_ERR_NOMEM. */
int sl_mirror_create(struct sl_mirror **mirror,
                     const struct sl_mirror_config *config,
                     struct sl_error *err);
void sl_mirror_destroy(struct sl_mirror *m); /* NULL is fine */
const char *sl_mirror_path(const struct sl_mirror *m, unsigned file);

/* A read of so many bytes begins: returns the file that is to serve it. */
unsigned sl_mirror_begin(struct sl_mirror *m, uint64_t bytes);
/* It has ended, and came or not. */
void sl_mirror_end(struct sl_mirror *m, unsigned file, uint64_t bytes,
                   bool came);
bool sl_mirror_is_out(struct sl_mirror *m, unsigned file);
/* The file has failed, for the reason that why says, its name included.
 * Returns whether the other one can be asked. */
bool sl_mirror_leave_out(struct sl_mirror *m, unsigned file, const char *why);

void sl_mirror_stats(struct sl_mirror *m,
                     struct sl_mirror_stats stats[SL_IO_FILES]);

#endif
