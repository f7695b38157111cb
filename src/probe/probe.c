#include "config.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/base/clock.h"
#include "src/base/mem.h"
#include "src/probe/probe.h"

#define DISK_BUFFER_BYTES (16u << 20)
#define DISK_TIME_NS      300000000u
#define MIN_READ_BYTES    (64u << 10)
#define MAX_READ_BYTES    (4u << 20)
/* Read in one go before the next place: long enough for a spinning disk to
   forget the seek. */
#define RUN_BYTES (32u << 20)

#define DRAM_TIME_NS   200000000u
#define DRAM_MIN_BYTES (64u << 20)
#define DRAM_MAX_BYTES (512u << 20)
#define DRAM_CHUNK     (1u << 20)
/* Asked for this far ahead, as by the kernels: the fastest way counts. */
#define DRAM_AHEAD 4096

/* A disk measurement: n_reads reads of read_bytes each, side by side in the
   buffer; a read's tag is its place there. */
struct disk {
    struct sl_io *io;
    struct sl_region buffer;
    const char *path;
    uint64_t file_bytes;
    uint32_t asked_bytes; /* by the caller, or 0 */
    uint32_t read_bytes;
    unsigned n_reads, in_flight;
    uint64_t issued; /* bytes asked for */
    uint64_t done;   /* bytes that came */
};

/* Where the k-th byte asked for lies: runs in steps of the golden ratio of
   the file, so that the first few are already far apart. */
static uint64_t place(const struct disk *d, uint64_t k)
{
    uint64_t n_runs = d->file_bytes / RUN_BYTES, run = k / RUN_BYTES;
    uint64_t step = n_runs * 618 / 1000 + 1;
    uint64_t last =
        d->file_bytes > d->read_bytes
            ? sl_round_down(d->file_bytes - d->read_bytes, SL_PAGE_BYTES)
            : 0;

    if (n_runs > 0)
        k = run % n_runs * step % n_runs * RUN_BYTES + k % RUN_BYTES;
    else if (last > 0)
        k = sl_round_down(k % last, SL_PAGE_BYTES);
    return k < last ? k : last;
}

static int ask(struct disk *d, uint64_t tag, struct sl_error *err)
{
    struct sl_io_read r = {
        .buf = d->buffer.base + tag * d->read_bytes,
        .off = place(d, d->issued),
        .bytes = d->read_bytes,
        .tag = tag,
    };

    if (d->io->ops->submit(d->io, &r, err) != 0)
        return -1;
    d->issued += d->read_bytes;
    d->in_flight++;
    return 0;
}

/* Takes what has ended and asks for more until the time is over. */
static int turn(struct disk *d, uint64_t end_ns, struct sl_error *err)
{
    struct sl_io_done done[SL_IO_DEPTH];
    int n = d->io->ops->wait(d->io, done, SL_IO_DEPTH, err);

    if (n < 0)
        return -1;
    for (int i = 0; i < n; i++) {
        d->in_flight--;
        if (done[i].result <= 0)
            return sl_fail_os(err, done[i].result ? -done[i].result : EIO,
                              "%s: measuring the disk", d->path);
        d->done += (uint64_t)done[i].result;
        if (sl_clock_ns() < end_ns && ask(d, done[i].tag, err) != 0)
            return -1;
    }
    return 0;
}

static int measure_disk(double *bps, struct disk *d, uint64_t time_ns,
                        struct sl_error *err)
{
    uint64_t begin = sl_clock_ns(), ns;

    for (unsigned i = 0; i < d->n_reads; i++)
        if (ask(d, i, err) != 0)
            return -1;
    while (d->in_flight > 0)
        if (turn(d, begin + time_ns, err) != 0)
            return -1;
    ns = sl_clock_ns() - begin;
    *bps = (double)d->done * 1e9 / (double)(ns ? ns : 1);
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
    if (d->asked_bytes > 0) {
        bytes = d->asked_bytes;
        depth = SL_IO_DEPTH;
    }
    if (bytes > d->buffer.bytes)
        bytes = d->buffer.bytes;
    d->read_bytes = (uint32_t)bytes;
    d->n_reads = (unsigned)(d->buffer.bytes / bytes);
    if (d->n_reads > depth)
        d->n_reads = depth;
}

int sl_probe_disk(double *bps, const struct sl_probe_disk_config *config,
                  struct sl_error *err)
{
    struct disk d = {.path = config->path, .asked_bytes = config->read_bytes};
    uint64_t bytes =
        config->buffer_bytes ? config->buffer_bytes : DISK_BUFFER_BYTES;
    struct sl_io_buffer buffer;
    struct sl_io_config io = {
        .path = config->path,
        .kind = config->io,
        .direct = true,
        .buffers = &buffer,
        .n_buffers = 1,
    };
    struct stat st;
    int rc = -1;

    if (stat(config->path, &st) != 0)
        return sl_fail_os(err, errno, "cannot open %s", config->path);
    if (st.st_size <= 0)
        return sl_fail(err, SL_ERR_CORRUPT, "%s is empty", config->path);
    d.file_bytes = (uint64_t)st.st_size;
    bytes = bytes < SL_PAGE_BYTES ? SL_PAGE_BYTES
                                  : sl_round_down(bytes, SL_PAGE_BYTES);
    if (sl_region_init(&d.buffer, bytes, "measuring the disk", err) != 0)
        return -1;
    buffer = (struct sl_io_buffer){d.buffer.base, d.buffer.bytes};
    if (config->issued != NULL)
        d.issued = *config->issued;
    if (sl_io_open(&d.io, &io, err) == 0) {
        size_reads(&d);
        rc = measure_disk(
            bps, &d, config->time_ns ? config->time_ns : DISK_TIME_NS, err);
        d.io->ops->close(d.io);
    }
    if (config->issued != NULL)
        *config->issued = sl_round_up(d.issued, RUN_BYTES);
    sl_region_fini(&d.buffer);
    return rc;
}

/* A DRAM measurement. Each worker keeps a sum on a cache line of its own, so
   that no load can be left out. */
struct dram {
    const uint8_t *base;
    size_t bytes;
    struct sum {
        uint64_t value;
        uint8_t pad[56];
    } * sums; /* (threads) */
};

static void write_chunks(void *arg, size_t begin, size_t end, unsigned worker)
{
    struct dram *d = arg;
    size_t from = begin * DRAM_CHUNK, to = end * DRAM_CHUNK;

    if (to > d->bytes)
        to = d->bytes;
    memset((uint8_t *)d->base + from, 1, to - from);
}

static void read_chunks(void *arg, size_t begin, size_t end, unsigned worker)
{
    struct dram *d = arg;
    size_t from = begin * DRAM_CHUNK, to = end * DRAM_CHUNK;
    const uint64_t *p = (const uint64_t *)(d->base + from);
    uint64_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;

    if (to > d->bytes)
        to = d->bytes;
    for (size_t n = (to - from) / 64; n > 0; n--, p += 8) {
        __builtin_prefetch((const uint8_t *)p + DRAM_AHEAD);
        s0 += p[0] ^ p[4];
        s1 += p[1] ^ p[5];
        s2 += p[2] ^ p[6];
        s3 += p[3] ^ p[7];
    }
    d->sums[worker].value += s0 + s1 + s2 + s3;
}

/* Bytes of the last-level cache; 0 where the system does not tell. */
static uint64_t cache_bytes(void)
{
    long l3 = sysconf(_SC_LEVEL3_CACHE_SIZE);
    long l2 = sysconf(_SC_LEVEL2_CACHE_SIZE);

    return l3 > 0 ? (uint64_t)l3 : l2 > 0 ? (uint64_t)l2 : 0;
}

/* The best of the passes: a floor is what the machine can do. */
static double measure_dram(struct dram *d, struct sl_pool *pool,
                           uint64_t time_ns)
{
    size_t n = (size_t)sl_div_up(d->bytes, DRAM_CHUNK);
    uint64_t begin, now, best = UINT64_MAX;

    sl_pool_for(pool, n, 1, write_chunks, d);
    begin = now = sl_clock_ns();
    do {
        uint64_t before = now;

        sl_pool_for(pool, n, 1, read_chunks, d);
        now = sl_clock_ns();
        if (now - before < best)
            best = now - before;
    } while (now - begin < time_ns);
    return (double)d->bytes * 1e9 / (double)(best ? best : 1);
}

static uint64_t default_dram_bytes(uint64_t most)
{
    uint64_t bytes = 2 * cache_bytes();

    if (bytes < DRAM_MIN_BYTES)
        bytes = DRAM_MIN_BYTES;
    if (bytes > DRAM_MAX_BYTES)
        bytes = DRAM_MAX_BYTES;
    if (most != 0 && bytes > most)
        bytes = most;
    return sl_round_down(bytes, SL_PAGE_BYTES);
}

int sl_probe_dram(struct sl_dram_rate *rate,
                  const struct sl_probe_dram_config *config,
                  struct sl_error *err)
{
    uint64_t bytes =
        config->bytes ? config->bytes : default_dram_bytes(config->most_bytes);
    struct dram d = {.bytes = (size_t)sl_round_down(bytes, 64)};
    unsigned threads = sl_pool_threads(config->pool);
    struct sl_region region = {0}, sums;

    if (d.bytes == 0)
        return sl_fail(err, SL_ERR_USAGE,
                       "%llu bytes are too few to measure memory with",
                       (unsigned long long)bytes);
    if (sl_region_init(&sums, threads * sizeof *d.sums, "measuring memory",
                       err) != 0)
        return -1;
    if (config->buffer == NULL &&
        sl_region_init(&region, d.bytes, "measuring memory", err) != 0) {
        sl_region_fini(&sums);
        return -1;
    }
    d.sums = (struct sum *)sums.base;
    d.base = config->buffer ? config->buffer : region.base;
    rate->bps = measure_dram(&d, config->pool,
                             config->time_ns ? config->time_ns : DRAM_TIME_NS);
    rate->bytes = d.bytes;
    rate->beyond_cache = d.bytes > cache_bytes();
    sl_region_fini(&region);
    sl_region_fini(&sums);
    return 0;
}
