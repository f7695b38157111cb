#include "config.h"

#include <errno.h>
#include <sys/stat.h>

#include "src/base/clock.h"
#include "src/base/mem.h"
#include "src/probe/meminfo.h"
#include "src/probe/probe.h"

#define DISK_BUFFER_BYTES (16u << 20)
#define DISK_TIME_NS      300000000u
#define MIN_READ_BYTES    (64u << 10)
#define MAX_READ_BYTES    (4u << 20)

/* What had come by then, while as many reads were in flight as may be. */
struct moment {
    uint64_t ns, bytes;
};

/* A measurement: n_reads reads of read_bytes each, side by side in the buffer;
   a read's tag is its place there. */
struct disk {
    const struct sl_probe_disk_config *config;
    struct sl_io *io;
    struct sl_region buffer;
    struct sl_extent file; /* read where the caller names no extents */
    const struct sl_extent *extents;
    size_t n_extents, extent; /* the one at hand, */
    uint64_t at;              /* and how much of it was asked for */
    uint32_t read_bytes;
    unsigned n_reads, in_flight;
    uint64_t issued, done;     /* bytes asked for, and that came */
    struct moment first, last; /* of the time that counts */
};

static uint64_t now_of(const struct disk *d)
{
    return sl_clock_now(d->config->clock);
}

/* Goes to where a reader is that has read so many bytes, over and over. */
static void seek(struct disk *d, uint64_t bytes)
{
    uint64_t all = 0;

    for (size_t i = 0; i < d->n_extents; i++)
        all += d->extents[i].bytes;
    for (bytes = sl_round_down(bytes % all, SL_PAGE_BYTES);
         bytes >= d->extents[d->extent].bytes; d->extent++)
        bytes -= d->extents[d->extent].bytes;
    d->at = bytes;
}

/* What is in order the next one, as a pass would read it. */
static int ask(struct disk *d, uint64_t tag, struct sl_error *err)
{
    const struct sl_extent *e = &d->extents[d->extent];
    uint64_t left = e->bytes - d->at;
    struct sl_io_read r = {
        .buf = d->buffer.base + tag * d->read_bytes,
        .off = e->off + d->at,
        .bytes = left < d->read_bytes ? (uint32_t)left : d->read_bytes,
        .tag = tag,
    };

    if (d->io->ops->submit(d->io, &r, err) != 0)
        return -1;
    d->issued += r.bytes;
    d->at += r.bytes;
    d->in_flight++;
    if (d->at == e->bytes) {
        d->extent = (d->extent + 1) % d->n_extents;
        d->at = 0;
    }
    return 0;
}

/* Takes what has ended and asks for more until the time is over. */
static int turn(struct disk *d, uint64_t end_ns, struct sl_error *err)
{
    struct sl_io_done done[SL_IO_DEPTH];
    bool full = d->in_flight == d->n_reads;
    int n = d->io->ops->wait(d->io, done, SL_IO_DEPTH, err);
    uint64_t now = now_of(d);

    if (n < 0)
        return -1;
    for (int i = 0; i < n; i++) {
        d->in_flight--;
        if (done[i].result <= 0)
            return sl_fail_os(err, done[i].result ? -done[i].result : EIO,
                              "%s: measuring the disk", d->config->path);
        d->done += (uint64_t)done[i].result;
        if (now < end_ns && ask(d, done[i].tag, err) != 0)
            return -1;
    }
    if (full && n > 0) {
        d->last = (struct moment){now, d->done};
        if (d->first.ns == 0)
            d->first = d->last;
    }
    return 0;
}

/* A pass's reads never begin and never end: so what counts is the time from
 * the first read that ended to the last one that was followed by another. On
 * some disks the last few reads alone take as long as all before. */
static int measure(double *bps, struct disk *d, struct sl_error *err)
{
    uint64_t time = d->config->time_ns ? d->config->time_ns : DISK_TIME_NS;
    uint64_t begin = now_of(d), ns, bytes;

    for (unsigned i = 0; i < d->n_reads; i++)
        if (ask(d, i, err) != 0)
            return -1;
    while (d->in_flight > 0)
        if (turn(d, begin + time, err) != 0)
            return -1;
    ns = d->last.ns - d->first.ns;
    bytes = d->last.bytes - d->first.bytes;
    if (ns == 0 || bytes == 0) { /* too short to tell */
        ns = now_of(d) - begin;
        bytes = d->done;
    }
    *bps = (double)bytes * 1e9 / (double)(ns ? ns : 1);
    return 0;
}

/* Cuts the buffer into reads, as the stream would be read. */
static void size_reads(struct disk *d)
{
    uint64_t most = d->io->direct ? MAX_READ_BYTES : SL_IO_CACHED_BYTES;
    uint64_t bytes =
        sl_round_down(d->buffer.bytes / SL_IO_DEPTH, SL_PAGE_BYTES);
    unsigned depth = d->io->direct ? SL_IO_DEPTH : SL_IO_CACHED_DEPTH;

    if (bytes < MIN_READ_BYTES)
        bytes = MIN_READ_BYTES;
    if (bytes > most)
        bytes = most;
    if (d->config->read_bytes > 0) {
        bytes = d->config->read_bytes;
        depth = SL_IO_DEPTH;
    }
    if (bytes > d->buffer.bytes)
        bytes = d->buffer.bytes;
    d->read_bytes = (uint32_t)bytes;
    d->n_reads = (unsigned)(d->buffer.bytes / bytes);
    if (d->n_reads > depth)
        d->n_reads = depth;
}

/* The whole file where no parts of it are named. */
static int take_extents(struct disk *d, struct sl_error *err)
{
    const struct sl_probe_disk_config *c = d->config;
    struct stat st;

    d->extents = c->n_extents > 0 ? c->extents : &d->file;
    d->n_extents = c->n_extents > 0 ? c->n_extents : 1;
    if (c->n_extents > 0)
        return 0;
    if (stat(c->path, &st) != 0)
        return sl_fail_os(err, errno, "cannot open %s", c->path);
    if (st.st_size <= 0)
        return sl_fail(err, SL_ERR_CORRUPT, "%s is empty", c->path);
    d->file.bytes = sl_round_up((uint64_t)st.st_size, SL_PAGE_BYTES);
    return 0;
}

static int probe_one(double *bps, const struct sl_probe_disk_config *config,
                     struct sl_error *err)
{
    struct disk d = {.config = config};
    uint64_t bytes = config->buffer_bytes ? config->buffer_bytes
                                          : sl_meminfo_room(DISK_BUFFER_BYTES);
    struct sl_io_buffer buffer;
    struct sl_io_config io = {
        .path = config->path,
        .kind = config->io,
        .direct = true,
        .buffers = &buffer,
        .n_buffers = 1,
        .arg = config->io_arg,
    };
    int rc = -1;

    if (take_extents(&d, err) != 0)
        return -1;
    bytes = bytes < SL_PAGE_BYTES ? SL_PAGE_BYTES
                                  : sl_round_down(bytes, SL_PAGE_BYTES);
    if (sl_region_init(&d.buffer, bytes, "measuring the disk", err) != 0)
        return -1;
    buffer = (struct sl_io_buffer){d.buffer.base, d.buffer.bytes};
    seek(&d, config->issued != NULL ? *config->issued : 0);
    if ((config->io_open ? config->io_open : sl_io_open)(&d.io, &io, err) ==
        0) {
        size_reads(&d);
        rc = measure(bps, &d, err);
        d.io->ops->close(d.io);
    }
    if (config->issued != NULL)
        *config->issued += d.issued;
    sl_region_fini(&d.buffer);
    return rc;
}

int sl_probe_disk(double *bps, const struct sl_probe_disk_config *config,
                  struct sl_error *err)
{
    struct sl_probe_disk_config second = *config;
    double own, more = 0;

    if (probe_one(&own, config, err) != 0)
        return -1;
    second.path = config->mirror;
    if (config->mirror != NULL && probe_one(&more, &second, err) != 0)
        return -1;
    *bps = own + more;
    if (config->mirror_bps != NULL)
        *config->mirror_bps = more;
    return 0;
}
