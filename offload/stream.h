/*
 * stream.h - weights flowing from disk through a ring of slots
 *
 *   file --reads--> [slot][slot][slot]... --get--> compute --put--> free slot
 *
 * The order of use is known for ever: the plan's (order.h), over and over. A
 * thread of its own reads ahead of use, as far as there are free slots, across
 * the end of a pass into the next. Resident slabs are read the first time the
 * order reaches them and stay. get waits until the slab's bytes are there;
 * put gives the slot back, and the next read starts at once. Slabs whose home
 * is VRAM go through the ring in the first pass only.
 *
 * What goes through the ring is had and put by one thread of each engine (the
 * decode's of the plan), strictly in that order; residents by any thread at
 * any time, as often as it likes.
 * Slabs that are kept compressed are decompressed by get, on all threads of
 * the pool, which must be the caller's then.
 */
#ifndef SL_OFFLOAD_STREAM_H
#define SL_OFFLOAD_STREAM_H

#include "offload/io.h"
#include "offload/plan.h"
#include "offload/slab.h"
#include "offload/trace.h"
#include "src/base/clock.h"
#include "src/base/log.h"
#include "src/base/pool.h"

struct sl_device;
struct sl_stream;

/* Told before anything is read, to say where memory and threads should be. */
struct sl_stream_places {
    void (*ring)(void *arg, uint8_t *base, uint64_t bytes);
    void (*resident)(void *arg, size_t slab, uint8_t *base); /* of each */
    void (*reader)(void *arg); /* called in the reader thread */
    void *arg;
};

struct sl_stream_config {
    const char *path;            /* borrowed for the stream's life */
    struct sl_mirror *mirror;    /* its copy on another disk, too; or NULL */
    const struct sl_slab *slabs; /* borrowed for the stream's life */
    const struct sl_plan *plan;  /* borrowed for the stream's life */
    enum sl_io_kind io;
    bool direct;
    unsigned depth;      /* reads in flight; 0: as many as disks want, or fewer
                          * where they would fill more than half of the ring */
    uint32_t read_bytes; /* of one; 0: 512 KiB to 1 MiB, by the ring */
    const struct sl_log *log;
    struct sl_trace *trace;                /* NULL: none */
    struct sl_clock *clock;                /* NULL: the real one */
    const struct sl_stream_places *places; /* NULL: anywhere */
    /* Copies the slabs on: ring and residents are pinned for it as far as may
     * be. Borrowed for the stream's life; NULL: none. */
    struct sl_device *device;
    unsigned touch_threads; /* that walk ahead of the reader (touch.h) */
    void *io_arg;           /* for io_open, as config->arg */
    struct sl_pool *pool;   /* decompresses; NULL where no slab needs it */
    /* NULL: sl_io_open. A test's double and the model of a machine open
     * something else. */
    int (*io_open)(struct sl_io **io, const struct sl_io_config *config,
                   struct sl_error *err);
};

struct sl_stream_stats {
    uint64_t bytes_read; /* from disk, whole life */
    uint64_t reads;
    uint64_t retries;
    uint64_t wait_ns; /* get waited for the disk */
    uint64_t busy_ns; /* at least one read was in flight */
    uint64_t decompress_ns, decompressed_bytes; /* get decompressed */
    const char *io_name;
    bool direct;
    bool registered; /* buffers registered with the kernel */
    uint64_t pinned_ring_bytes, pinned_resident_bytes; /* for the device */
};

/* Maps ring and residents (plan->at[SL_HOST].ring_bytes +
 * plan->at[SL_HOST].resident_bytes), starts the reader. Errors:
 * SL_ERR_IO, SL_ERR_NOMEM. */
int sl_stream_open(struct sl_stream **st, const struct sl_stream_config *config,
                   struct sl_error *err);
/* The slab's bytes, extent i at base + sl_slab_extent_at(slab, i); borrowed
 * until put, those of a resident until close. What is not resident must be
 * the next of the ring. Errors: SL_ERR_IO naming file, offset and slab;
 * SL_ERR_CORRUPT for a file that ends early, or damaged bytes; what
 * sl_stream_fail said. Of compressed slabs one can be held at a time. */
int sl_stream_get(struct sl_stream *st, size_t slab, const uint8_t **base,
                  struct sl_error *err);
/* The same without waiting: 1 when it was had, 0 when it is not there yet. */
int sl_stream_try(struct sl_stream *st, size_t slab, const uint8_t **base,
                  struct sl_error *err);
/* Whether get would not wait. */
bool sl_stream_ready(struct sl_stream *st, size_t slab);
void sl_stream_put(struct sl_stream *st, size_t slab);

/* For a thread that waits for slabs and for other things at the same time:
 * news counts slabs that have come and pokes; await_news sleeps until it is no
 * longer what it was. Any thread. */
uint64_t sl_stream_news(struct sl_stream *st);
void sl_stream_await_news(struct sl_stream *st, uint64_t seen);
void sl_stream_poke(struct sl_stream *st);
/* Whoever waits for a slab that is not there gets this error, now and later,
 * unless an earlier one. Any thread. */
void sl_stream_fail(struct sl_stream *st, const struct sl_error *failure);

void sl_stream_stats(const struct sl_stream *st, struct sl_stream_stats *stats);
/* Stops reading ahead, waits for reads in flight. NULL is fine. */
void sl_stream_close(struct sl_stream *st);

/* Bytes the stream's own bookkeeping and reader thread take beside ring and
 * residents: what a memory plan must set aside. */
uint64_t sl_stream_overhead_bytes(size_t n_slabs,
                                  const struct sl_mirror *mirror);

#endif
