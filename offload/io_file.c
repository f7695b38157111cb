#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "offload/io.h"
#include "src/base/direct.h"
#include "src/base/mem.h"

/* Enough for an embedding row or a run of norms in one read, and small
   beside any budget. */
#define BOUNCE_BYTES (256u << 10)

/* Some file systems take O_DIRECT at open and refuse the first read. */
static bool reads_direct(int fd)
{
    void *page;
    ssize_t n;

    if (posix_memalign(&page, SL_PAGE_BYTES, SL_PAGE_BYTES) != 0)
        return false;
    do {
        n = pread(fd, page, SL_PAGE_BYTES, 0);
    } while (n < 0 && errno == EINTR);
    free(page);
    /* other failures are for the real reads to report */
    return n >= 0 || (errno != EINVAL && errno != EOPNOTSUPP);
}

int sl_io_open_file(int *fd, bool *direct, const char *path, bool want_direct,
                    struct sl_error *err)
{
    int f = -1;

    if (want_direct) {
        f = open(path, O_RDONLY | O_CLOEXEC | O_DIRECT);
        if (f >= 0 && sl_file_is_direct(f) && reads_direct(f)) {
            *fd = f;
            *direct = true;
            return 0;
        }
        if (f >= 0)
            close(f);
    }
    f = open(path, O_RDONLY | O_CLOEXEC);
    if (f < 0)
        return sl_fail_os(err, errno, "cannot open %s", path);
    /* Read-ahead would leave pages behind that nobody drops. */
    posix_fadvise(f, 0, 0, POSIX_FADV_RANDOM);
    *fd = f;
    *direct = false;
    return 0;
}

/* Reads [off, off + bytes) or to the end of the file, whichever comes first.
   Returns the bytes read, or -1 with errno set. A direct read that ends off a
   page boundary has met the end of the file. */
static ssize_t read_range(int fd, uint8_t *buf, uint64_t off, size_t bytes,
                          bool direct)
{
    size_t got = 0;

    while (got < bytes) {
        ssize_t n = pread(fd, buf + got, bytes - got, (off_t)(off + got));

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        got += (size_t)n;
        if (n == 0 || (direct && got % SL_PAGE_BYTES != 0))
            break;
    }
    return (ssize_t)got;
}

static int fail_short(const char *path, uint64_t end, uint64_t off,
                      size_t bytes, struct sl_error *err)
{
    return sl_fail(err, SL_ERR_CORRUPT,
                   "%s ends at byte %llu, but %zu bytes are wanted at %llu: "
                   "the file is cut short",
                   path, (unsigned long long)end, bytes,
                   (unsigned long long)off);
}

static int fail_read(const char *path, uint64_t off, size_t bytes,
                     struct sl_error *err)
{
    return sl_fail_os(err, errno, "%s: reading %zu bytes at %llu", path, bytes,
                      (unsigned long long)off);
}

/* The pages are dropped again: the weights' budget is not to be had twice, once
 * here and once in the page cache. */
static int read_buffered(int fd, const char *path, uint8_t *buf, uint64_t off,
                         size_t bytes, struct sl_error *err)
{
    uint64_t first = sl_round_down(off, SL_PAGE_BYTES);
    ssize_t n = read_range(fd, buf, off, bytes, false);

    if (n < 0)
        return fail_read(path, off, bytes, err);
    posix_fadvise(fd, (off_t)first,
                  (off_t)sl_round_up(off + bytes - first, SL_PAGE_BYTES),
                  POSIX_FADV_DONTNEED);
    if ((size_t)n < bytes)
        return fail_short(path, off + (size_t)n, off, bytes, err);
    return 0;
}

/* Returns 1 when the file system refuses direct reads. */
static int read_bounced(int fd, const char *path, uint8_t *buf, uint64_t off,
                        size_t bytes, struct sl_error *err)
{
    uint64_t span = sl_round_up(off + bytes, SL_PAGE_BYTES) -
                    sl_round_down(off, SL_PAGE_BYTES);
    size_t room = span < BOUNCE_BYTES ? (size_t)span : BOUNCE_BYTES;
    size_t done = 0;
    void *bounce;
    int rc = 0;

    if (posix_memalign(&bounce, SL_PAGE_BYTES, room) != 0)
        return sl_fail(err, SL_ERR_NOMEM, "%s: no memory to read %zu bytes",
                       path, bytes);
    while (rc == 0 && done < bytes) {
        uint64_t at = off + done, page = sl_round_down(at, SL_PAGE_BYTES);
        size_t skip = (size_t)(at - page), want = bytes - done;
        ssize_t n;

        if (want > room - skip)
            want = room - skip;
        n = read_range(fd, bounce, page,
                       (size_t)sl_round_up(skip + want, SL_PAGE_BYTES), true);
        if (n < 0) {
            rc = errno == EINVAL ? 1 : fail_read(path, at, want, err);
        } else if ((size_t)n < skip + want) {
            rc = fail_short(path, page + (size_t)n, off, bytes, err);
        } else {
            memcpy(buf + done, (uint8_t *)bounce + skip, want);
            done += want;
        }
    }
    free(bounce);
    return rc;
}

/* Returns 1 when the file system refuses direct reads. */
static int read_direct(int fd, const char *path, uint8_t *buf, uint64_t off,
                       size_t bytes, struct sl_error *err)
{
    ssize_t n;

    if ((uintptr_t)buf % SL_PAGE_BYTES != 0 || off % SL_PAGE_BYTES != 0 ||
        bytes % SL_PAGE_BYTES != 0)
        return read_bounced(fd, path, buf, off, bytes, err);
    n = read_range(fd, buf, off, bytes, true);
    if (n < 0)
        return errno == EINVAL ? 1 : fail_read(path, off, bytes, err);
    if ((size_t)n < bytes)
        return fail_short(path, off + (size_t)n, off, bytes, err);
    return 0;
}

int sl_io_read_full(int fd, const char *path, void *buf, uint64_t off,
                    size_t bytes, struct sl_error *err)
{
    int flags = fcntl(fd, F_GETFL);
    int rc;

    if (off > INT64_MAX - SL_PAGE_BYTES ||
        bytes > INT64_MAX - SL_PAGE_BYTES - off)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "%s: %zu bytes at %llu lie beyond any file", path, bytes,
                       (unsigned long long)off);
    if (flags < 0)
        return fail_read(path, off, bytes, err);
    if (flags & O_DIRECT) {
        rc = read_direct(fd, path, buf, off, bytes, err);
        if (rc <= 0)
            return rc;
        if (fcntl(fd, F_SETFL, flags & ~O_DIRECT) != 0)
            return fail_read(path, off, bytes, err);
    }
    return read_buffered(fd, path, buf, off, bytes, err);
}
