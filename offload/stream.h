/*
 * stream.h - weights flowing from disk through a ring of slots
 *
 *   file --reads--> [slot][slot][slot]... --get--> compute --put--> free slot
 *
 * The order of use is known for ever: slab 0, 1, ... n-1, 0, 1, ... A thread
 * of its own reads ahead of use, as far as there are free slots, across the
 * end of a pass into the next. Resident slabs are read the first time the
 * order reaches them and stay. get waits until the slab's bytes are there;
 * put gives the slot back, and the next read starts at once.
 *
 * get and put are called by one thread, strictly in order.
 */
#ifndef SL_OFFLOAD_STREAM_H
#define SL_OFFLOAD_STREAM_H

#include "offload/io.h"
#include "offload/plan.h"
#include "offload/slab.h"
#include "offload/trace.h"
#include "src/base/clock.h"
#include "src/base/log.h"

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
    const struct sl_slab *slabs; /* borrowed for the stream's life */
    const struct sl_plan *plan;  /* borrowed for the stream's life */
    enum sl_io_kind io;
    bool direct;
    unsigned depth;      /* reads in flight; 0: default */
    uint32_t read_bytes; /* size of one read; 0: 1 MiB */
    const struct sl_log *log;
    struct sl_trace *trace;                /* NULL: none */
    struct sl_clock *clock;                /* NULL: the real one */
    const struct sl_stream_places *places; /* NULL: anywhere */
    void *io_arg;                          /* for io_open, as config->arg */
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
    const char *io_name;
    bool direct;
    bool registered; /* buffers registered with the kernel */
};

/* Maps ring and residents (plan->ring_bytes + plan->resident_bytes), starts
 * the reader. Errors: SL_ERR_IO, SL_ERR_NOMEM. */
int sl_stream_open(struct sl_stream **st, const struct sl_stream_config *config,
                   struct sl_error *err);
/* The slab's bytes, extent i at base + sl_slab_extent_at(slab, i); borrowed
 * until put. slab must be the next of the cycle. Errors: SL_ERR_IO naming
 * file, offset and slab; SL_ERR_CORRUPT for a file that ends early. */
int sl_stream_get(struct sl_stream *st, size_t slab, const uint8_t **base,
                  struct sl_error *err);
void sl_stream_put(struct sl_stream *st, size_t slab);
void sl_stream_stats(const struct sl_stream *st, struct sl_stream_stats *stats);
/* Stops reading ahead, waits for reads in flight. NULL is fine. */
void sl_stream_close(struct sl_stream *st);

/* Bytes the stream's own bookkeeping and reader thread take beside ring and
 * residents: what a memory plan must set aside. */
uint64_t sl_stream_overhead_bytes(size_t n_slabs);

#endif
