#include "config.h"

#include <string.h>
#include <unistd.h>

#include "src/base/clock.h"
#include "src/base/mem.h"
#include "src/probe/meminfo.h"
#include "src/probe/probe.h"

#define DRAM_TIME_NS   200000000u
#define DRAM_MIN_BYTES (64u << 20)
#define DRAM_MAX_BYTES (512u << 20)
#define DRAM_CHUNK     (1u << 20)
/* Asked for this far ahead, as by the kernels: the fastest way counts. */
#define DRAM_AHEAD 4096

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

/* Four sums that do not wait for each other, and lines fetched ahead, so
 * that memory is what limits and not the adders; the sums are kept so that
 * no compiler leaves the reads out. */
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
    return sl_round_down(sl_meminfo_room(bytes), SL_PAGE_BYTES);
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
