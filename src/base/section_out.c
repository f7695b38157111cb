#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <xxhash.h>

#include "src/base/direct.h"
#include "src/base/mem.h"
#include "src/base/newfile.h"
#include "src/base/section_out.h"

/* Written in pieces of this size, each a multiple of a page at a multiple of
 * a page, as direct writes want it. */
#define PIECE_BYTES (4u << 20)

struct sl_out {
    const char *path;
    int fd;
    bool direct;
    struct sl_region piece;
    size_t fill;
    uint64_t off; /* of the piece's first byte in the file */
    XXH3_state_t *sum;
};

uint64_t sl_out_memory(void)
{
    return 2 * (uint64_t)PIECE_BYTES; /* a copy in the page cache */
}

/* Direct writes leave no page cache behind and keep the disk busy. Where a
 * file system has none, what was written is pushed out and dropped. */
static bool set_direct(int fd, bool on)
{
    int flags = fcntl(fd, F_GETFL);

    if (flags < 0 || (on && !sl_file_is_direct(fd)))
        return false;
    flags = on ? flags | O_DIRECT : flags & ~O_DIRECT;
    return fcntl(fd, F_SETFL, flags) == 0;
}

int sl_out_open(struct sl_out **out, const char *path, struct sl_error *err)
{
    struct sl_out *o = sl_zalloc_array(1, sizeof *o);

    if (o == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "%s: no memory to write it", path);
    o->path = path;
    o->fd = -1;
    o->sum = XXH3_createState();
    if (o->sum == NULL) {
        sl_fail(err, SL_ERR_NOMEM, "%s: no memory to write it", path);
        goto fail;
    }
    if (sl_region_init(&o->piece, PIECE_BYTES, "writing", err) != 0)
        goto fail;
    o->fd = open(path, O_WRONLY | O_CLOEXEC);
    if (o->fd < 0) {
        sl_fail_os(err, errno, "%s: cannot open for writing", path);
        goto fail;
    }
    o->direct = set_direct(o->fd, true);
    *out = o;
    return 0;
fail:
    sl_out_close(o);
    return -1;
}

void sl_out_close(struct sl_out *o)
{
    if (o == NULL)
        return;
    if (o->fd >= 0)
        close(o->fd);
    sl_region_fini(&o->piece);
    XXH3_freeState(o->sum);
    free(o);
}

void sl_out_begin(struct sl_out *o, uint64_t off)
{
    o->off = off;
    o->fill = 0;
    XXH3_64bits_reset(o->sum);
}

/* Where direct writes are refused the piece is written through the page
 * cache, and its pages are dropped at once: a conversion writes more than
 * memory has, and would push out what others use. */
static int write_piece(struct sl_out *o, struct sl_error *err)
{
    size_t done = 0;

    while (done < o->fill) {
        ssize_t n = pwrite(o->fd, o->piece.base + done, o->fill - done,
                           (off_t)(o->off + done));

        if (n < 0 && errno == EINTR)
            continue;
        /* Some file systems grant the flag and refuse the write. */
        if (n < 0 && errno == EINVAL && o->direct) {
            o->direct = false;
            if (set_direct(o->fd, false))
                continue;
            errno = EINVAL;
        }
        if (n < 0)
            return sl_fail_os(err, errno,
                              "%s: cannot write %zu bytes at offset %" PRIu64,
                              o->path, o->fill - done, o->off + done);
        done += (size_t)n;
    }
    if (!o->direct) {
        sync_file_range(o->fd, (off_t)o->off, (off_t)o->fill,
                        SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
                            SYNC_FILE_RANGE_WAIT_AFTER);
        posix_fadvise(o->fd, (off_t)o->off, (off_t)o->fill,
                      POSIX_FADV_DONTNEED);
    }
    o->off += o->fill;
    o->fill = 0;
    return 0;
}

int sl_out_append(struct sl_out *o, const void *data, size_t n,
                  struct sl_error *err)
{
    const uint8_t *p = data;

    XXH3_64bits_update(o->sum, data, n);
    while (n > 0) {
        size_t take = PIECE_BYTES - o->fill < n ? PIECE_BYTES - o->fill : n;

        memcpy(o->piece.base + o->fill, p, take);
        o->fill += take;
        p += take;
        n -= take;
        if (o->fill == PIECE_BYTES && write_piece(o, err) != 0)
            return -1;
    }
    return 0;
}

int sl_out_pad(struct sl_out *o, uint64_t off, struct sl_error *err)
{
    static const uint8_t zeros[SL_PAGE_BYTES];
    uint64_t at = o->off + o->fill;

    while (at < off) {
        size_t n = off - at < sizeof zeros ? (size_t)(off - at) : sizeof zeros;

        if (sl_out_append(o, zeros, n, err) != 0)
            return -1;
        at += n;
    }
    return 0;
}

int sl_out_skip(struct sl_out *o, uint64_t off, struct sl_error *err)
{
    static const uint8_t zeros[SL_PAGE_BYTES];
    uint64_t page = sl_round_up(o->off + o->fill, SL_PAGE_BYTES);

    if (page >= off)
        return sl_out_pad(o, off, err);
    if (sl_out_pad(o, page, err) != 0 || write_piece(o, err) != 0)
        return -1;
    if (fallocate(o->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                  (off_t)page, (off_t)(off - page)) != 0)
        return sl_out_pad(o, off, err);
    for (uint64_t at = page; at < off; at += sizeof zeros)
        XXH3_64bits_update(o->sum, zeros, sizeof zeros);
    o->off = off;
    return 0;
}

int sl_out_end(struct sl_out *o, uint64_t end, uint64_t *xxh3,
               struct sl_error *err)
{
    if (sl_out_pad(o, end, err) != 0 || write_piece(o, err) != 0)
        return -1;
    if (o->off != end)
        return sl_fail(err, SL_ERR_INTERNAL,
                       "%s: a section ends at %" PRIu64 " instead of %" PRIu64,
                       o->path, o->off, end);
    *xxh3 = XXH3_64bits_digest(o->sum);
    return 0;
}

int sl_out_sync(struct sl_out *o, struct sl_error *err)
{
    if (sl_sync(o->fd) != 0)
        return sl_fail_os(err, errno, "%s: cannot sync to the disk", o->path);
    return 0;
}
