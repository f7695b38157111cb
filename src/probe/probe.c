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
/* As the kernels read (kernels/kernels.h), since the fastest way counts:
 * lines of several places in turn, each asked for this far ahead. */
#define DRAM_PLACES 4u
#define DRAM_AHEAD  2304u
#define LINE        64u

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

static inline uint64_t read_line(const uint8_t *at)
{
    const uint64_t *p = (const uint64_t *)(const void *)at;

    __builtin_prefetch(at + DRAM_AHEAD);
    return ((p[0] ^ p[4]) + (p[1] ^ p[5])) + ((p[2] ^ p[6]) + (p[3] ^ p[7]));
}

/* A sum for each place, so that memory is what limits and not the adders; the
 * sums are kept so that no compiler leaves the reads out. */
static void read_chunks(void *arg, size_t begin, size_t end, unsigned worker)
{
    struct dram *d = arg;
    size_t from = begin * DRAM_CHUNK, to = end * DRAM_CHUNK, part;
    const uint8_t *p = d->base + from;
    uint64_t sum[DRAM_PLACES] = {0};

    if (to > d->bytes)
        to = d->bytes;
    part = (to - from) / LINE / DRAM_PLACES * LINE;
    for (size_t at = 0; at < part; at += LINE)
#pragma GCC unroll 4
        for (size_t i = 0; i < DRAM_PLACES; i++)
            sum[i] += read_line(p + i * part + at);
    for (size_t at = DRAM_PLACES * part; at < to - from; at += LINE)
        sum[0] += read_line(p + at);
    d->sums[worker].value += sum[0] + sum[1] + sum[2] + sum[3];
}

uint64_t sl_probe_cache_bytes(void)
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
    uint64_t bytes = 2 * sl_probe_cache_bytes();

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
    struct dram d = {.bytes = (size_t)sl_round_down(bytes, LINE)};
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
    rate->beyond_cache = d.bytes > sl_probe_cache_bytes();
    sl_region_fini(&region);
    sl_region_fini(&sums);
    return 0;
}
