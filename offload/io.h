/*
 * io.h - many large reads in flight, behind one table
 *
 * One file, or two that are alike on two disks (mirror.h); one thread submits,
 * waits and closes, any thread may wake it.
 * Reads are page-aligned in file offset, length and memory. io_uring with
 * O_DIRECT is the first choice, a few threads of pread the second (where
 * io_uring is forbidden, or the file system refuses direct reads: buffered
 * io_uring can be slower than threads, axboe/liburing#472); a test's table
 * injects faults.
 */
#ifndef SL_OFFLOAD_IO_H
#define SL_OFFLOAD_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/error.h"
#include "src/base/log.h"

struct sl_mirror;

#define SL_IO_FILES 2u /* of a reader at most */

enum sl_io_kind {
    SL_IO_AUTO, /* io_uring where direct reads and the kernel allow it,
                 * else pread threads */
    SL_IO_URING,
    SL_IO_PREAD,
};

struct sl_io_buffer {
    void *base; /* page-aligned; registered with the kernel where it may be */
    size_t bytes;
};

struct sl_io_config {
    const char *path; /* for messages and opening; borrowed for the call */
    enum sl_io_kind kind;
    unsigned depth; /* reads in flight at most; 0: 16 */
    bool direct;    /* O_DIRECT; where refused: buffered, page cache
                     * dropped after each read, said once */
    const struct sl_io_buffer *buffers; /* reads land inside these but for
                                         * a few that happen once */
    size_t n_buffers;
    /* NULL: path alone. Else the reader has both files, its own paths, and
     * reads say which is to serve them. Borrowed for the reader's life. */
    struct sl_mirror *mirror;
    const struct sl_log *log; /* told of every fallback, once */
    void *arg; /* of implementations that sl_io_open does not know */
};

struct sl_io_read {
    void *buf;
    uint64_t off;
    uint32_t bytes;
    uint64_t tag;  /* the caller's */
    unsigned file; /* 0, or 1 where there is a mirror */
};

struct sl_io_done {
    uint64_t tag;
    int result;     /* bytes read, or -errno */
    unsigned file;  /* that served it, or failed last */
    unsigned tries; /* that it took, of a reader that reads again by itself
                     * what was not read; 0: one, and the caller's to repeat */
};

struct sl_io {
    const struct sl_io_ops *ops;
    bool direct;     /* reads pass the page cache by */
    bool registered; /* the buffers are registered with the kernel */
};

/* A table of functions; every implementation embeds struct sl_io first. */
struct sl_io_ops {
    const char *name; /* "io_uring" "pread" */
    /* Starts a read. The caller keeps at most `depth` in flight.
     * Errors: SL_ERR_IO. */
    int (*submit)(struct sl_io *io, const struct sl_io_read *r,
                  struct sl_error *err);
    /* Waits until a read has ended or wake was called, and gives up to max
     * reads that have ended. Returns how many (0 after a mere wake), or -1.
     * Errors: SL_ERR_IO. */
    int (*wait)(struct sl_io *io, struct sl_io_done *done, unsigned max,
                struct sl_error *err);
    /* Makes the wait in progress, else the next one, return. Any thread. */
    void (*wake)(struct sl_io *io);
    void (*close)(struct sl_io *io); /* waits for what is in flight */
};

#define SL_IO_DEPTH 16u /* reads in flight where the caller does not say */

/* Where reads are not direct, callers keep to these, so that no more than
 * their product ever lies in the page cache. */
#define SL_IO_CACHED_DEPTH 4u
#define SL_IO_CACHED_BYTES (64u << 10)

/* The most memory a reader of one file takes beside its buffers: rings, the
 * stacks of its threads as far as they are used, the page cache. */
#define SL_IO_OVERHEAD_BYTES (512u << 10)

/* Of one of a file and its mirror (or NULL): reads that keep the disks busy, or
 * as many as may be where they are not direct; and that memory. */
unsigned sl_io_depth(const struct sl_mirror *mirror, bool direct);
uint64_t sl_io_overhead_bytes(const struct sl_mirror *mirror);

/* Opens the reader of the kind asked for, or the best this system allows.
 * Errors: SL_ERR_IO, SL_ERR_NOMEM; SL_ERR_UNSUPPORTED for SL_IO_URING where
 * the kernel forbids it. */
int sl_io_open(struct sl_io **io, const struct sl_io_config *config,
               struct sl_error *err);

/* The same through open (NULL: sl_io_open); with a mirror the reader says
 * itself which file serves a read, reads again what a disk does not give, and
 * goes on with the other file when one has failed for good (mirror.h). */
int sl_io_start(struct sl_io **io, const struct sl_io_config *config,
                int (*open)(struct sl_io **io,
                            const struct sl_io_config *config,
                            struct sl_error *err),
                struct sl_error *err);

/* The path of a reader's file, of path and its mirror (or NULL). */
const char *sl_io_path(const char *path, const struct sl_mirror *mirror,
                       unsigned file);

/* Opens path for reading. *direct tells whether reads must be (and are)
 * direct: want_direct, and the file system takes them, which one page read
 * proves. Else reads go through the page cache, without read-ahead. Close fd
 * with close(2). Errors: SL_ERR_IO. */
int sl_io_open_file(int *fd, bool *direct, const char *path, bool want_direct,
                    struct sl_error *err);

/* One synchronous read of any range of fd into any memory, through an aligned
 * bounce buffer where fd is O_DIRECT and the range is not made of pages (fd
 * loses O_DIRECT when its file system refuses it after all). On other fds the
 * pages read are dropped from the page cache. Short reads and EINTR are
 * continued. Errors: SL_ERR_IO, SL_ERR_NOMEM; SL_ERR_CORRUPT where the file
 * ends early. */
int sl_io_read_full(int fd, const char *path, void *buf, uint64_t off,
                    size_t bytes, struct sl_error *err);

/* The feature bits of io_uring_setup(2). Returns 0, or -errno where io_uring
 * cannot be used (-ENOSYS also where this program was built without). */
int sl_io_uring_features(uint32_t *features);

#endif
