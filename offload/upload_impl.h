/*
 * upload_impl.h - what the two threads of an upload ring share
 *
 * upload.c is the side of the thread that computes (begin, get, put),
 * upload_copy.c the thread that copies.
 */
#ifndef SL_OFFLOAD_UPLOAD_IMPL_H
#define SL_OFFLOAD_UPLOAD_IMPL_H

#include <pthread.h>

#include "offload/upload.h"

/* Copies on the queue at most: enough that the device never waits for the
 * host between two small ones. */
#define SL_UPLOAD_COPIES  16u
#define SL_UPLOAD_NOWHERE UINT32_MAX

/*
 *   state      owner      becomes
 *   EMPTY      copier     FILLING  it takes the place for a slab
 *   FILLING    copier     FILLED   the copy is on its queue
 *   FILLED     nobody     HELD     get of a slot; a resident stays as it is
 *   HELD       compute    EMPTY    put; `released` is recorded
 */
enum sl_upload_state {
    SL_UPLOAD_EMPTY,
    SL_UPLOAD_FILLING,
    SL_UPLOAD_FILLED,
    SL_UPLOAD_HELD,
};

struct sl_upload_copy {
    struct sl_event *begin, *end; /* timed */
    struct sl_upload_place *place;
    size_t slab;
};

/* Room for one slab on the device. */
struct sl_upload_place {
    uint8_t *base;
    enum sl_upload_state state;
    struct sl_upload_copy *copy; /* into it, unless known to be done */
    struct sl_event *released;   /* of slots: compute is done with it */
    bool used;                   /* released was recorded */
    uint64_t freed;              /* by which put; 0: never used */
};

struct sl_upload {
    struct sl_upload_config config;
    struct sl_order order; /* of the plan */
    pthread_t thread;
    bool may_be_late; /* a prefill wants slabs that a decode does not */

    /* the copier's */
    struct sl_upload_copy copies[SL_UPLOAD_COPIES]; /* on the queue: a FIFO */
    unsigned first_copy, n_copies;

    pthread_mutex_t mutex;          /* guards what follows */
    pthread_cond_t filled;          /* a place became FILLED, or failed */
    struct sl_upload_place *places; /* (n_places) slots, then residents */
    uint32_t n_places;
    uint32_t *tier; /* (n_slabs) the places of residents */
    /* (2, n_slabs) the slots of slabs for passes of even and odd number:
     * two passes at most are under way. */
    uint32_t *slot_of;
    struct sl_use next;    /* the first that was not looked at */
    uint64_t passes;       /* begun */
    enum sl_phase phase;   /* of the last of them */
    size_t late, late_end; /* of the order [late, late_end): slabs that the
                            * guess may have left out of it */
    uint64_t puts;
    bool stop, failed;
    struct sl_error failure; /* the first one, if failed */
    struct sl_upload_stats stats;
};

/* The copying thread. arg: struct sl_upload. */
void *sl_upload_main(void *arg);

#endif
