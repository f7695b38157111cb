/*
 * slab_cache_impl.h - the state of a slab cache, shared by its parts
 *
 *   slab_cache.c       what its caller asks for
 *   slab_cache_read.c  who goes, and how records come
 *   cache_policy.c     who should go
 */
#ifndef SL_OFFLOAD_SLAB_CACHE_IMPL_H
#define SL_OFFLOAD_SLAB_CACHE_IMPL_H

#include "offload/io_retry.h"
#include "offload/slab_cache.h"
#include "offload/touch.h"
#include "src/base/mem.h"

#define SL_NOWHERE UINT32_MAX

/*
 *   state    becomes
 *   EMPTY    LOADING  a record that is missing begins
 *   LOADING  READY    its last read has ended
 *   READY    LOADING  it is needed last and another one begins
 */
enum sl_record_state {
    SL_RECORD_EMPTY,
    SL_RECORD_LOADING,
    SL_RECORD_READY,
};

struct sl_cache_place {
    uint32_t record, layer;  /* but while SL_RECORD_EMPTY */
    uint64_t asked, missing; /* of its bytes: asked for, not there yet */
    enum sl_record_state state;
    bool wanted; /* until put: stays */
    bool held;
    bool listed;   /* is still to be got, wanted so that it stays or not */
    bool hinted;   /* read by a hint, and not wanted since */
    bool likely;   /* in the present hint, there before or not */
    bool failed;   /* a read ahead did: what is on its way ends, then it goes */
    double chance; /* while likely: of being wanted next */
};

/* What a hint said of a record. */
struct sl_cache_guess {
    uint32_t record;
    uint8_t rank;
    bool missing; /* so that it would be read */
};

struct sl_cache_request {
    struct sl_io_request read;
    uint32_t place;
    uint64_t begin_ns;
    bool under_way;
    bool ahead; /* of a hint: counted in n_ahead, and may fail */
};

/* Records to be read, the next one first. */
struct sl_cache_queue {
    uint32_t *records; /* (n_records); SL_NOWHERE: was put */
    uint32_t at, n;
    uint32_t place; /* that is being asked for; SL_NOWHERE */
};

struct sl_slab_cache {
    struct sl_slab_cache_config c;
    struct sl_io *io;
    struct sl_region region;
    struct sl_touch touch;         /* of it: places are taken in turn */
    struct sl_cache_place *places; /* (n_places) */
    uint32_t *place_of;            /* (n_records) or SL_NOWHERE */
    struct sl_cache_policy policy;
    struct sl_cache_queue wanted, hinted;
    enum sl_hint hint; /* what is hinted */
    struct sl_cache_guesses {
        struct sl_cache_guess *of; /* (records of a layer) */
        uint32_t n;
        /* of those that were missing, the part that was wanted, of late */
        double right[SL_HINT_RANKS];
    } guesses[SL_HINT_GUESSES];
    uint32_t n_missing; /* that are wanted and being read */
    uint32_t failed;    /* record, of those wanted last, or SL_NOWHERE */
    struct sl_cache_request *requests;
    unsigned *idle; /* (depth) stack of unused requests */
    unsigned n_idle;
    unsigned n_ahead; /* reads in flight of records nobody wants yet */
    struct sl_slab_cache_stats stats;
};

/* The place that can be had: empty, or whose record is not needed for longest;
 * SL_NOWHERE where all are in use. ahead: for a hint, which takes none from
 * what is hinted too, or still to be got. */
uint32_t sl_cache_victim(const struct sl_slab_cache *s, bool ahead);
/* What a hint read was wanted, or was not when it could have been. */
void sl_cache_judge_hint(struct sl_slab_cache *s, struct sl_cache_place *p,
                         bool used);
/* The chance that the i-th record of the present hint is wanted next. */
double sl_cache_hint_chance(const struct sl_slab_cache *s, uint32_t i);
/* No more is asked for of what a hint has begun to read, unless it is likely
 * still, or wanted; what of it is on its way ends. */
void sl_cache_cancel_hinted(struct sl_slab_cache *s);
/* Its record goes where a read ahead has failed, unless somebody holds it or
 * more is on its way. */
void sl_cache_end_failed(struct sl_slab_cache *s, struct sl_cache_place *p);
/* A record begins to be read into a place, whose record goes. */
void sl_cache_begin_at(struct sl_slab_cache *s, uint32_t at, uint32_t record,
                       struct sl_cache_queue *from);
/* Asks for as much as the disk's queue takes: what is wanted first; hints only
 * while nothing that is wanted is missing. Errors: SL_ERR_IO. */
int sl_cache_issue(struct sl_slab_cache *s, struct sl_error *err);
/* Takes what reads have ended, waiting for one where wait is set, and begins
 * others. Errors: SL_ERR_IO, SL_ERR_CORRUPT. */
int sl_cache_advance(struct sl_slab_cache *s, bool wait, struct sl_error *err);
int sl_cache_open_io(struct sl_slab_cache *s, struct sl_error *err);

static inline uint8_t *sl_cache_place_base(const struct sl_slab_cache *s,
                                           uint32_t place)
{
    return s->region.base + place * s->c.place_bytes;
}

#endif
