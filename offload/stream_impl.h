/*
 * stream_impl.h - what the two threads of a stream share
 *
 * stream.c is the compute thread's side (get and put), prefetch.c the reader
 * thread. A place holds one slab: a slot of the ring, or a resident's home.
 * Both threads walk the same order (order.h) and the slots in turn, so neither
 * ever has to search.
 */
#ifndef SL_OFFLOAD_STREAM_IMPL_H
#define SL_OFFLOAD_STREAM_IMPL_H

#include <pthread.h>

#include "offload/decompress.h"
#include "offload/io_retry.h"
#include "offload/stream.h"
#include "offload/touch.h"
#include "src/base/mem.h"

/*
 *   state      owner                  becomes
 *   EMPTY      reader                 LOADING  the reader begins a slab
 *   LOADING    reader and kernel      READY    its last read has ended
 *   READY      nobody                 HELD     get of a slot
 *              everybody              (READY)  residents stay so
 *   HELD       who got it             EMPTY    put of a slot
 */
enum sl_place_state {
    SL_PLACE_EMPTY,
    SL_PLACE_LOADING,
    SL_PLACE_READY,
    SL_PLACE_HELD,
};

struct sl_place {
    uint8_t *base;
    size_t slab;            /* from LOADING on */
    uint64_t missing_bytes; /* while LOADING: reads that have not ended */
    enum sl_place_state state;
    bool decompressed; /* a resident that is in its tier as it is meant */
};

/* A read in flight. */
struct sl_request {
    struct sl_io_request read;
    struct sl_place *place;
    uint64_t begin_ns; /* of the first try */
};

/* Where the reader is. */
struct sl_cursor {
    struct sl_use next;     /* to begin */
    uint32_t next_slot;     /* to begin it in, if it is streamed */
    struct sl_place *place; /* being read; NULL: between slabs */
    uint32_t extent;
    uint64_t extent_done; /* bytes of the extent's pages asked for */
    uint32_t chunk;       /* size of one read of this extent */
    uint8_t *at;          /* where the next read goes */
};

/* Where somebody is in the order of the ring: use after use, those of
 * residents and of other workers' slabs left out. */
struct sl_ring_at {
    struct sl_use use;
    size_t slab; /* of it */
    uint32_t slot;
    uint32_t worker; /* whose slabs */
    bool found; /* false: nothing of these goes through the ring any more */
};

/* Whether a slab goes through the ring in a pass. */
static inline bool sl_stream_in_ring(const struct sl_plan *plan, size_t slab,
                                     uint64_t pass)
{
    return plan->tier[slab] == SL_TIER_DISK ||
           (plan->tier[slab] == SL_TIER_VRAM && pass == 0);
}

struct sl_stream {
    struct sl_stream_config config; /* depth and read_bytes settled */
    struct sl_order order;          /* of the plan */
    struct sl_io *io;
    pthread_t thread;
    /* One region, which begins with the ring, so that neither has an end on
     * small pages. */
    struct sl_region memory;
    struct sl_region ring, residents; /* parts of it */
    struct sl_touch touch;            /* of residents */
    struct sl_place *places; /* (n_slots) the ring, then the residents */
    uint32_t *place_of;      /* (n_slabs) the places of residents */

    /* the reader's */
    struct sl_cursor cursor;
    struct sl_request *requests; /* (depth) */
    unsigned *idle;              /* (depth) stack of unused requests */
    unsigned n_idle;
    bool untold; /* slabs have come, and nobody was woken */

    struct sl_decompress *decompress; /* NULL where nothing is compressed */
    /* next of each, of the thread that takes a worker's slabs from the ring */
    struct sl_ring_at get[SL_WORKERS], put[SL_WORKERS];

    pthread_mutex_t mutex; /* guards the places' states and what follows */
    pthread_cond_t ready;  /* news: a place became READY, or failed, or poke */
    uint64_t news;         /* how often */
    bool starved;          /* the reader waits for an empty slot */
    bool stop, failed;
    struct sl_error failure; /* the first one, if failed */
    struct sl_stream_stats stats;
    uint64_t busy_since_ns; /* 0: nothing in flight */
};

/* Reads a compressed slab again that was damaged in its place, from the file
 * and from its mirror: true with *to set as by sl_decompress_run when one of
 * them has it whole; the other one is left out then. */
bool sl_stream_mend(struct sl_stream *st, struct sl_place *p, uint8_t **to);

/* The reader thread. arg: struct sl_stream. */
void *sl_prefetch_main(void *arg);

#endif
