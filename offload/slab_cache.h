/*
 * slab_cache.h - records in any order of use, as many of them kept as fit
 *
 *   want --> reads --> [place][place]... --get--> compute --put--> may be
 *   hint --> reads       of a few          there       evicted
 *            while idle  it is not known
 *                        before which
 *
 * A ring (stream.h) knows the order of use for ever. Which experts of a layer
 * a position takes is known only when its router has spoken: then all that are
 * missing are wanted at once, are read with as deep a queue as the disk likes,
 * and are computed where they were read. Who has to go for them is who will
 * not be needed for longest, as far as can be told (cache_policy.h); uses
 * count whether a record was there or not.
 *
 * One thread calls; reads go on between calls as far as the queue is deep.
 */
#ifndef SL_OFFLOAD_SLAB_CACHE_H
#define SL_OFFLOAD_SLAB_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "offload/cache_policy.h"
#include "offload/io.h"
#include "offload/slab.h"
#include "offload/trace.h"
#include "src/base/clock.h"

struct sl_slab_cache_config {
    const char *path;         /* borrowed for the cache's life */
    struct sl_mirror *mirror; /* its copy on another disk, too; or NULL */
    const struct sl_extent *records; /* whole pages; borrowed likewise */
    uint32_t n_records;
    uint32_t n_layers;    /* that take turns, with as many each; 0: one */
    uint32_t n_places;    /* at least one */
    uint64_t place_bytes; /* of the largest record, whole pages */
    enum sl_cache_policy_kind policy;
    enum sl_io_kind io;
    bool direct;
    unsigned depth;         /* reads in flight; 0: as many as disks want */
    uint32_t read_bytes;    /* size of one read; 0: 2 MiB */
    unsigned touch_threads; /* that walk ahead of the reads (touch.h) */
    const struct sl_log *log;
    struct sl_trace *trace; /* NULL: none */
    struct sl_clock *clock; /* NULL: the real one */
    void *io_arg;           /* for io_open, as config->arg */
    /* NULL: sl_io_open. */
    int (*io_open)(struct sl_io **io, const struct sl_io_config *config,
                   struct sl_error *err);
};

struct sl_slab_cache_stats {
    uint64_t wants;        /* records that were wanted */
    uint64_t hits;         /* of these there already, or on their way */
    uint64_t wanted_bytes; /* of all of them */
    uint64_t demand_bytes; /* read because they were wanted */
    uint64_t hint_bytes;   /* read because of a hint; what became of them: */
    uint64_t hint_used_bytes, hint_wasted_bytes;
    uint64_t reads, retries;
    uint64_t wait_ns; /* get waited for the disk */
    const char *io_name;
    bool direct;
};

struct sl_slab_cache;

/* Maps n_places * place_bytes, opens the reader. Errors: SL_ERR_IO,
 * SL_ERR_NOMEM. */
int sl_slab_cache_open(struct sl_slab_cache **cache,
                       const struct sl_slab_cache_config *config,
                       struct sl_error *err);
void sl_slab_cache_close(struct sl_slab_cache *cache); /* NULL is fine */
/* Bytes beside the places. */
uint64_t sl_slab_cache_overhead_bytes(uint32_t n_records, uint32_t n_layers,
                                      uint32_t n_places,
                                      const struct sl_mirror *mirror);
/* All places, side by side. */
void *sl_slab_cache_memory(struct sl_slab_cache *cache, uint64_t *bytes);
/* Who stays: to take what was learned, and to keep it. */
struct sl_cache_policy *sl_slab_cache_policy(struct sl_slab_cache *cache);

/* n records of a layer are needed, each once, in about this order: those that
 * are there stay until they are put, reads of the others begin. What was wanted
 * before and never got is forgotten; nothing must be held. Errors: SL_ERR_IO.
 */
int sl_slab_cache_want(struct sl_slab_cache *cache, const uint32_t *records,
                       uint32_t n, struct sl_error *err);
enum sl_hint {
    SL_HINT_EARLY, /* a guess, in part of the disk's queue */
    SL_HINT_LATE,  /* the same, of the same layer, by who knows more */
    SL_HINT_SWEEP, /* nearly all of a layer's, as long texts use them: always,
                    * and with all of the queue */
};
#define SL_HINT_GUESSES 2u
#define SL_HINT_RANKS   32u /* that are told apart */

/* n records of a layer, each once, are likely to be wanted next: read while
 * nothing that is wanted is missing, the first of them first. Takes the place
 * of the last hint; the next want ends it. What guesses of a kind and rank are
 * worth is how often such a one was right of late where its record was missing:
 * too seldom and it is left out; else it takes the place only of what is needed
 * less than the chance says of it, and keeps its own for as long. ranks: (n),
 * from 0; NULL in a sweep. Errors: SL_ERR_IO. */
int sl_slab_cache_hint(struct sl_slab_cache *cache, enum sl_hint kind,
                       const uint32_t *records, const uint8_t *ranks,
                       uint32_t n, struct sl_error *err);
/* Keeps the disk busy with what was hinted, if nothing that is wanted is
 * missing: for a caller that computes something else for long. What fails is
 * met again by who wants it. */
void sl_slab_cache_go_on(struct sl_slab_cache *cache);
/* Whether get of a wanted record would not wait. */
bool sl_slab_cache_there(const struct sl_slab_cache *cache, uint32_t record);
/* The bytes of a wanted record, borrowed until put. Errors: SL_ERR_IO naming
 * file and offset, SL_ERR_CORRUPT for a file that ends early. */
int sl_slab_cache_get(struct sl_slab_cache *cache, uint32_t record,
                      const uint8_t **base, struct sl_error *err);
/* The same, but waits for so many bytes from its first on alone; get follows
 * before it is put, or the next want. */
int sl_slab_cache_get_first(struct sl_slab_cache *cache, uint32_t record,
                            uint64_t bytes, const uint8_t **base,
                            struct sl_error *err);
/* part: of what goes through the layer, that used it. Errors: SL_ERR_IO. */
int sl_slab_cache_put(struct sl_slab_cache *cache, uint32_t record, double part,
                      struct sl_error *err);

/* Whether a call has failed since the last want because a record could not be
 * read, which is any of those that were wanted: the first of them. */
bool sl_slab_cache_failed(const struct sl_slab_cache *cache, uint32_t *record);

/* What was done until now counts no more. */
void sl_slab_cache_count_anew(struct sl_slab_cache *cache);
void sl_slab_cache_stats(const struct sl_slab_cache *cache,
                         struct sl_slab_cache_stats *stats);

#endif
