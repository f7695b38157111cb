/*
 * probe.h - what this machine's disk, memory and arithmetic can do
 *
 * Short measurements for the floor (offload/plan.h): how fast this very file
 * can be read past the page cache, how fast the threads in use read DRAM and
 * how fast they multiply; how fast a GPU's memory is and what fills it. All
 * keep to the time and memory they are given.
 */
#ifndef SL_PROBE_H
#define SL_PROBE_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/kernels.h"
#include "offload/device.h"
#include "offload/io.h"
#include "offload/slab.h"
#include "src/base/clock.h"
#include "src/base/error.h"
#include "src/base/pool.h"

struct sl_probe_disk_config {
    const char *path;
    const char *mirror; /* its copy on another disk, measured next; or NULL */
    double *mirror_bps; /* NULL, or what that one gives */
    enum sl_io_kind io;
    uint64_t buffer_bytes; /* 0: 16 MiB; shared by up to 16 reads of 64 KiB
                            * to 4 MiB each, so 1 MiB is the least that keeps
                            * them all in flight */
    uint32_t read_bytes;   /* of one read; 0: as the stream would be read;
                            * else as many are in flight as the buffer holds */
    uint64_t time_ns;      /* 0: 300 ms */
    uint64_t *issued;      /* NULL: 0. Bytes that earlier measurements asked
                            * for, and this one: it goes on where they ended,
                            * since what was just read is still in a cache
                            * below the file system */
    /* What is read over and over, in this order: whole pages (as
     * sl_slab_read_extent has them). Borrowed for the call; none: the file. */
    const struct sl_extent *extents;
    size_t n_extents;
    struct sl_clock *clock; /* NULL: the real one */
    void *io_arg;           /* for io_open, as config->arg */
    int (*io_open)(struct sl_io **io, const struct sl_io_config *config,
                   struct sl_error *err); /* NULL: sl_io_open */
};

/* Bytes/s at which the disk gives what is read in order, with as many reads in
 * flight as there may be: neither until the first has ended nor when no more
 * are asked for. Of two disks the sum, which is the most that they can give
 * together.
 * Errors: SL_ERR_IO, SL_ERR_NOMEM; SL_ERR_CORRUPT for an empty file. */
int sl_probe_disk(double *bps, const struct sl_probe_disk_config *config,
                  struct sl_error *err);

struct sl_probe_dram_config {
    struct sl_pool *pool;
    void *buffer;        /* page-aligned, overwritten; NULL: taken and freed */
    uint64_t bytes;      /* of buffer; 0: twice the last-level cache */
    uint64_t most_bytes; /* with bytes 0: but no more than this; 0: no bound */
    uint64_t time_ns;    /* 0: 200 ms, after the buffer was written once */
};

struct sl_dram_rate {
    double bps;        /* read by all threads of the pool together */
    uint64_t bytes;    /* the buffer's */
    bool beyond_cache; /* larger than the last-level cache, as far as that
                        * is known: else bps tells more of the cache */
};

/* Errors: SL_ERR_NOMEM. */
int sl_probe_dram(struct sl_dram_rate *rate,
                  const struct sl_probe_dram_config *config,
                  struct sl_error *err);

/* Bytes of the last-level cache; 0 where the system does not tell. */
uint64_t sl_probe_cache_bytes(void);

struct sl_probe_reading_config {
    const struct sl_kernels *kernels;
    struct sl_pool *pool;
    uint64_t bytes; /* of weights, a product's at least; 0: twice the last-level
                     * cache, within 64 and 128 MiB */
    unsigned turns; /* 0, or too many: SL_READING_TURNS */
};

/* The way to read weights (sl_reading) with which products of one position by
 * INT4 weights from memory are fastest: the default unless another one is
 * clearly faster. Some tens of milliseconds, and the time to write the buffer
 * once. Errors: SL_ERR_NOMEM. */
int sl_probe_reading(struct sl_reading *best,
                     const struct sl_probe_reading_config *config,
                     struct sl_error *err);
#define SL_READING_TURNS 15u
/* seconds: (turns, n), turns <= SL_READING_TURNS. The fastest of n by the
 * median of its times by the first one's in the same turn; 0, the first, unless
 * that gains more than 3 % and three turns of four gain something. */
size_t sl_reading_pick(const double *seconds, size_t turns, size_t n);

struct sl_probe_ops_config {
    const struct sl_kernels *kernels;
    struct sl_pool *pool;
    enum sl_fmt fmt;
    uint32_t group_cols; /* of formats with scales; 0: one a row */
    enum sl_act act;
    uint64_t most_bytes; /* to work in, as far as that can be; 0: 64 MiB */
    uint64_t time_ns;    /* 0: 100 ms */
};

/* Operations/s of matrix products, a multiply-add being two: as wide and for
 * as many positions as those that a long prompt is made of, over weights that
 * stay in caches; with little memory narrower ones. Errors: SL_ERR_NOMEM. */
int sl_probe_ops(double *ops_per_s, const struct sl_probe_ops_config *config,
                 struct sl_error *err);

struct sl_probe_attend_config {
    const struct sl_kernels *kernels;
    struct sl_pool *pool;
    uint64_t most_bytes; /* to work in, as far as that can be; 0: no bound */
    uint64_t time_ns;    /* 0: 100 ms */
};

/* Operations/s of attention in FP32: many queries of a head of 128 values for
 * each thread, over keys and values that stay in its cache. Query by key and
 * weight by value count as four a value. Errors: SL_ERR_NOMEM. */
int sl_probe_attend(double *ops_per_s,
                    const struct sl_probe_attend_config *config,
                    struct sl_error *err);

struct sl_device_rates {
    double up_bps;      /* bytes/s from this machine's memory */
    double down_bps;    /* to it */
    double vram_bps;    /* the device's own, read and written */
    double hand_over_s; /* a row goes over: half of what it takes to go there
                         * and come back, waited for */
    bool pinned;        /* the memory here was, as weights will be */
};

/* Copies of so many bytes: more than the device's cache holds; and of a few,
 * for hand-overs. The calling thread is attached to the device. Errors: those
 * of the device's calls, SL_ERR_NOMEM here or there. */
int sl_probe_device(struct sl_device_rates *rates, struct sl_device *dev,
                    uint64_t bytes, struct sl_error *err);

/* Something that a device does again and again. */
struct sl_device_work {
    struct sl_device *dev;
    enum sl_queue queue;
    struct sl_event *begin, *end; /* with times */
    unsigned turns;               /* in a row, after one that warms up */
    unsigned most_rounds;         /* of such rows */
    int (*turn)(void *arg, struct sl_error *err); /* gives one to the queue */
    void *arg;
};

/* Nanoseconds of the turns of the fastest round, at least 1, by the device's
 * own events: the host's clock would have the launches in it. Clocks of an idle
 * device, and its link, come up while it works: so for 25 ms, or as many rounds
 * as may be. Errors: those of the device's calls and of turn; then work may be
 * under way. */
int sl_probe_device_work(uint64_t *ns, const struct sl_device_work *w,
                         struct sl_error *err);

/* What kernels come to; measured by those who have them (src/exec). */
struct sl_kernel_rates {
    double ops_per_s; /* of FP16 products, a multiply-add being two */
    double stage_s;   /* a stage's launches, with next to nothing to do */
};

#endif
