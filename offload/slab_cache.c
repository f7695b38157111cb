#include "config.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "offload/slab_cache.h"
#include "src/base/mem.h"

#define READ_BYTES (2u << 20)
/* As the ring's reader has it (prefetch.c). */
#define RETRIES       2u
#define AGAIN_RETRIES 1000u

#define NOWHERE UINT32_MAX

/*
 *   state    becomes
 *   EMPTY    LOADING  a record that is missing begins
 *   LOADING  READY    its last read has ended
 *   READY    LOADING  it is worth least and another one begins
 */
enum place_state { EMPTY, LOADING, READY };

struct place {
    uint32_t record, layer;  /* but while EMPTY */
    uint64_t asked, missing; /* of its bytes: asked for, not there yet */
    enum place_state state;
    bool wanted; /* until put: stays */
    bool held;
    bool hinted; /* read by a hint, and not wanted since */
};

struct request {
    uint32_t place;
    uint8_t *buf;
    uint64_t off;
    uint32_t bytes, done; /* done: whole pages that are there already */
    unsigned tries;
    uint64_t begin_ns;
};

/* Records to be read, the next one first. */
struct queue {
    uint32_t *records; /* (n_records); NOWHERE: was put */
    uint32_t at, n;
    uint32_t place; /* that is being asked for; NOWHERE */
};

struct sl_slab_cache {
    struct sl_slab_cache_config c;
    struct sl_io *io;
    struct sl_region region;
    struct place *places; /* (n_places) */
    uint32_t *place_of;   /* (n_records) or NOWHERE */
    struct sl_cache_policy policy;
    struct queue wanted, hinted;
    uint32_t n_missing; /* that are wanted and being read */
    struct request *requests;
    unsigned *idle; /* (depth) stack of unused requests */
    unsigned n_idle;
    struct sl_slab_cache_stats stats;
};

uint64_t sl_slab_cache_overhead_bytes(uint32_t n_records, uint32_t n_layers,
                                      uint32_t n_places)
{
    return (uint64_t)n_records * 3 * sizeof(uint32_t) +
           sl_cache_policy_bytes(n_records, n_layers) +
           n_places * sizeof(struct place) + SL_IO_OVERHEAD_BYTES;
}

struct sl_cache_policy *sl_slab_cache_policy(struct sl_slab_cache *s)
{
    return &s->policy;
}

/* --- what stays ----------------------------------------------------------- */

/* The place that can be had: empty, or whose record is not needed for longest;
 * NOWHERE where all are in use. */
static uint32_t victim(const struct sl_slab_cache *s)
{
    uint32_t best = NOWHERE;
    double longest = 0;

    for (uint32_t i = 0; i < s->c.n_places; i++) {
        const struct place *p = &s->places[i];
        double wait;

        if (p->state == EMPTY)
            return i;
        if (p->state == LOADING || p->wanted || p->held)
            continue;
        wait = sl_cache_policy_wait(&s->policy, p->record, p->layer);
        if (best == NOWHERE || wait > longest) {
            longest = wait;
            best = i;
        }
    }
    return best;
}

static void evict(struct sl_slab_cache *s, struct place *p)
{
    if (p->state == EMPTY)
        return;
    if (p->hinted)
        s->stats.hint_wasted_bytes += s->c.records[p->record].bytes;
    s->place_of[p->record] = NOWHERE;
    /* One that is wanted, and was there, has to be read after all. */
    for (uint32_t i = 0; i < s->wanted.at; i++) {
        if (s->wanted.records[i] == p->record)
            s->wanted.at = i;
    }
}

/* --- reading -------------------------------------------------------------- */

static uint8_t *place_base(const struct sl_slab_cache *s, uint32_t place)
{
    return s->region.base + place * s->c.place_bytes;
}

static int submit(struct sl_slab_cache *s, struct request *q,
                  struct sl_error *err)
{
    struct sl_io_read r = {
        .buf = q->buf + q->done,
        .off = q->off + q->done,
        .bytes = q->bytes - q->done,
        .tag = (uint64_t)(q - s->requests),
    };

    if (s->io->ops->submit(s->io, &r, err) == 0)
        return 0;
    sl_error_prefix(err, "%s: %u bytes at %llu: ", s->c.path, r.bytes,
                    (unsigned long long)r.off);
    return -1;
}

/* A record begins to be read into a place. */
static void begin_at(struct sl_slab_cache *s, uint32_t at, uint32_t record,
                     struct queue *from)
{
    struct place *p = &s->places[at];
    bool hinted = from == &s->hinted;

    evict(s, p);
    *p = (struct place){
        .record = record,
        .layer = record / s->policy.per_layer,
        .missing = s->c.records[record].bytes,
        .state = LOADING,
        .wanted = !hinted,
        .hinted = hinted,
    };
    s->place_of[record] = at;
    from->place = at;
    if (hinted)
        return;
    s->stats.demand_bytes += p->missing;
    s->n_missing++;
}

/* The next record of a queue takes a place; false: none is missing, or no
 * place is to be had. */
static bool begin_record(struct sl_slab_cache *s, struct queue *from)
{
    for (; from->at < from->n; from->at++) {
        uint32_t record = from->records[from->at], at;

        if (record == NOWHERE || s->place_of[record] != NOWHERE)
            continue;
        at = victim(s);
        if (at == NOWHERE)
            return false;
        from->at++;
        begin_at(s, at, record, from);
        return true;
    }
    return false;
}

static int issue_one(struct sl_slab_cache *s, struct queue *from,
                     struct sl_error *err)
{
    struct place *p = &s->places[from->place];
    const struct sl_extent *e = &s->c.records[p->record];
    uint64_t left = e->bytes - p->asked;
    struct request *q = &s->requests[s->idle[s->n_idle - 1]];

    *q = (struct request){
        .place = from->place,
        .buf = place_base(s, from->place) + p->asked,
        .off = e->off + p->asked,
        .bytes = left < s->c.read_bytes ? (uint32_t)left : s->c.read_bytes,
        .begin_ns = sl_clock_now(s->c.clock),
    };
    if (submit(s, q, err) != 0)
        return -1;
    s->n_idle--;
    p->asked += q->bytes;
    if (p->asked == e->bytes)
        from->place = NOWHERE;
    return 0;
}

/* Whether a queue has something to ask for. */
static bool has_work(struct sl_slab_cache *s, struct queue *from)
{
    return from->place != NOWHERE || begin_record(s, from);
}

/* What is wanted first; hints only while nothing that is wanted is missing. */
static int issue(struct sl_slab_cache *s, struct sl_error *err)
{
    while (s->n_idle > 0) {
        struct queue *from = &s->wanted;

        if (!has_work(s, from)) {
            /* One that a hint began may be what is wanted now. */
            from = &s->hinted;
            if (from->place == NOWHERE && s->n_missing > 0)
                return 0;
            if (!has_work(s, from))
                return 0;
        }
        if (issue_one(s, from, err) != 0)
            return -1;
    }
    return 0;
}

static int fail_read(const struct sl_slab_cache *s, const struct request *q,
                     int result, struct sl_error *err)
{
    unsigned long long at = q->off + q->done;

    if (result >= 0)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "%s: the file ends at byte %llu, within what is read "
                       "there: it is cut short",
                       s->c.path, at + (unsigned)result);
    return sl_fail_os(err, -result, "%s: reading %u bytes at %llu, %u times",
                      s->c.path, q->bytes - q->done, at, q->tries);
}

/* 1: the request is complete, 0: its rest is to be read. */
static int judge(const struct sl_slab_cache *s, struct request *q, int result,
                 struct sl_error *err)
{
    static const struct timespec pause = {.tv_nsec = 1000000};
    uint32_t got = result > 0 ? (uint32_t)result : 0;
    bool again = result == -EINTR || result == -EAGAIN;

    if (got >= q->bytes - q->done)
        return 1;
    got = (uint32_t)sl_round_down(got, SL_PAGE_BYTES);
    q->done += got;
    q->tries = got > 0 ? 0 : q->tries + 1;
    if (q->tries > (again ? AGAIN_RETRIES : RETRIES))
        return fail_read(s, q, result, err);
    if (again)
        nanosleep(&pause, NULL);
    return 0;
}

static void complete(struct sl_slab_cache *s, struct request *q)
{
    struct place *p = &s->places[q->place];
    char name[SL_TRACE_NAME];

    s->stats.reads++;
    p->missing -= q->bytes;
    if (p->missing == 0) {
        p->state = READY;
        s->n_missing -= p->wanted;
    }
    if (s->c.trace == NULL)
        return;
    snprintf(name, sizeof name, "record %u", p->record);
    sl_trace_span(s->c.trace, SL_TRACK_READS, name, q->begin_ns,
                  sl_clock_now(s->c.clock), q->bytes);
}

static int take(struct sl_slab_cache *s, const struct sl_io_done *done,
                struct sl_error *err)
{
    struct request *q = &s->requests[done->tag];
    int rc = judge(s, q, done->result, err);

    if (rc == 0) {
        s->stats.retries++;
        rc = submit(s, q, err);
        if (rc == 0)
            return 0;
    }
    if (rc == 1)
        complete(s, q);
    s->idle[s->n_idle++] = (unsigned)(q - s->requests);
    return rc < 0 ? -1 : 0;
}

/* Takes what reads have ended, waiting for one where wait is set, and begins
 * others. */
static int advance(struct sl_slab_cache *s, bool wait, struct sl_error *err)
{
    struct sl_io_done done[SL_IO_DEPTH];
    struct sl_error later;
    int n = 0, rc = 0;

    if (s->n_idle < s->c.depth) {
        if (!wait)
            s->io->ops->wake(s->io);
        n = s->io->ops->wait(s->io, done, SL_IO_DEPTH, err);
        if (n < 0) {
            sl_error_prefix(err, "%s: ", s->c.path);
            return -1;
        }
    }
    for (int i = 0; i < n; i++) {
        if (take(s, &done[i], rc == 0 ? err : &later) != 0)
            rc = -1;
    }
    return rc == 0 ? issue(s, err) : -1;
}

/* --- the caller's side ---------------------------------------------------- */

/* What was wanted and not got: an interrupted pass. */
static void forget_wanted(struct sl_slab_cache *s)
{
    for (uint32_t i = 0; i < s->wanted.n; i++) {
        uint32_t of = s->wanted.records[i];
        uint32_t at = of != NOWHERE ? s->place_of[of] : NOWHERE;

        if (at == NOWHERE || !s->places[at].wanted)
            continue;
        s->places[at].wanted = false;
        s->n_missing -= s->places[at].state == LOADING;
    }
    s->wanted.n = s->wanted.at = 0;
}

int sl_slab_cache_want(struct sl_slab_cache *s, const uint32_t *records,
                       uint32_t n, struct sl_error *err)
{
    uint32_t n_kept = 0;

    forget_wanted(s);
    if (n > 0)
        sl_cache_policy_turn(&s->policy, records[0] / s->policy.per_layer);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t record = records[i], at = s->place_of[record];
        uint64_t bytes = s->c.records[record].bytes;

        s->wanted.records[i] = record;
        s->stats.wants++;
        s->stats.wanted_bytes += bytes;
        if (at == NOWHERE)
            continue;
        s->stats.hits++;
        /* The others need places to be read into. */
        if (n_kept++ < s->c.n_places / 2 || n <= s->c.n_places / 2)
            s->places[at].wanted = true;
        s->n_missing += s->places[at].wanted && s->places[at].state == LOADING;
        if (s->places[at].hinted)
            s->stats.hint_used_bytes += bytes;
        s->places[at].hinted = false;
    }
    s->wanted.n = n;
    return advance(s, false, err);
}

int sl_slab_cache_hint(struct sl_slab_cache *s, const uint32_t *records,
                       uint32_t n, struct sl_error *err)
{
    memcpy(s->hinted.records, records, n * sizeof *records);
    s->hinted.at = 0;
    s->hinted.n = n;
    return advance(s, false, err);
}

/* Nothing is read, and the record is not there: those that are wanted later
 * have all the places. One of them has to be read again. */
static int make_room(struct sl_slab_cache *s, uint32_t record,
                     struct sl_error *err)
{
    uint32_t at = victim(s);

    for (uint32_t i = s->wanted.n; i-- > 0 && at == NOWHERE;) {
        uint32_t of = s->wanted.records[i];

        if (of != NOWHERE && s->place_of[of] != NOWHERE)
            at = s->place_of[of];
        if (at != NOWHERE && s->places[at].held)
            at = NOWHERE;
    }
    if (at == NOWHERE)
        return sl_fail(err, SL_ERR_INTERNAL,
                       "record %u is wanted, but all %u places are held",
                       record, s->c.n_places);
    begin_at(s, at, record, &s->wanted);
    return 0;
}

static bool is_wanted(const struct sl_slab_cache *s, uint32_t record)
{
    for (uint32_t i = 0; i < s->wanted.n; i++) {
        if (s->wanted.records[i] == record)
            return true;
    }
    return false;
}

bool sl_slab_cache_there(const struct sl_slab_cache *s, uint32_t record)
{
    uint32_t at = s->place_of[record];

    return at != NOWHERE && s->places[at].state == READY;
}

int sl_slab_cache_get(struct sl_slab_cache *s, uint32_t record,
                      const uint8_t **base, struct sl_error *err)
{
    uint64_t begin = sl_clock_now(s->c.clock);

    while (!sl_slab_cache_there(s, record)) {
        if (issue(s, err) != 0)
            return -1;
        if (s->n_idle < s->c.depth) {
            if (advance(s, true, err) != 0)
                return -1;
            continue;
        }
        if (!is_wanted(s, record))
            return sl_fail(err, SL_ERR_INTERNAL,
                           "record %u was not wanted and is not there", record);
        if (make_room(s, record, err) != 0)
            return -1;
    }
    s->stats.wait_ns += sl_clock_now(s->c.clock) - begin;
    s->places[s->place_of[record]].held = true;
    *base = place_base(s, s->place_of[record]);
    return 0;
}

int sl_slab_cache_put(struct sl_slab_cache *s, uint32_t record, double part,
                      struct sl_error *err)
{
    struct place *p = &s->places[s->place_of[record]];

    assert(p->held && p->record == record);
    p->held = p->wanted = false;
    for (uint32_t i = 0; i < s->wanted.n; i++) {
        if (s->wanted.records[i] == record)
            s->wanted.records[i] = NOWHERE;
    }
    sl_cache_policy_use(&s->policy, record, part);
    return advance(s, false, err);
}

void sl_slab_cache_stats(const struct sl_slab_cache *s,
                         struct sl_slab_cache_stats *stats)
{
    *stats = s->stats;
    stats->io_name = s->io->ops->name;
    stats->direct = s->io->direct;
}

/* --- life ----------------------------------------------------------------- */

static int allocate(struct sl_slab_cache *s, struct sl_error *err)
{
    const struct sl_slab_cache_config *c = &s->c;

    s->places = sl_zalloc_array(c->n_places, sizeof *s->places);
    s->place_of = sl_alloc_array(c->n_records, sizeof *s->place_of);
    s->wanted.records = sl_alloc_array(c->n_records, sizeof(uint32_t));
    s->hinted.records = sl_alloc_array(c->n_records, sizeof(uint32_t));
    s->requests = sl_zalloc_array(c->depth, sizeof *s->requests);
    s->idle = sl_alloc_array(c->depth, sizeof *s->idle);
    if (s->places == NULL || s->place_of == NULL || s->wanted.records == NULL ||
        s->hinted.records == NULL || s->requests == NULL || s->idle == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory to list %u records",
                       c->n_records);
    if (sl_cache_policy_init(&s->policy, c->policy, c->n_records, c->n_layers,
                             err) != 0)
        return -1;
    for (uint32_t i = 0; i < c->n_records; i++)
        s->place_of[i] = NOWHERE;
    for (; s->n_idle < c->depth; s->n_idle++)
        s->idle[s->n_idle] = s->n_idle;
    s->wanted.place = s->hinted.place = NOWHERE;
    return sl_region_init(&s->region, c->n_places * c->place_bytes,
                          "the cache of experts", err);
}

static int open_io(struct sl_slab_cache *s, struct sl_error *err)
{
    const struct sl_slab_cache_config *c = &s->c;
    /* No buffers to register: that would take all of the memory at once. */
    struct sl_io_config io = {
        .path = c->path,
        .kind = c->io,
        .depth = c->depth,
        .direct = c->direct,
        .log = c->log,
        .arg = c->io_arg,
    };

    if ((c->io_open != NULL ? c->io_open : sl_io_open)(&s->io, &io, err) != 0)
        return -1;
    if (s->io->direct)
        return 0;
    /* Little may lie in the page cache. */
    if (s->c.depth > SL_IO_CACHED_DEPTH)
        s->n_idle = s->c.depth = SL_IO_CACHED_DEPTH;
    if (s->c.read_bytes > SL_IO_CACHED_BYTES)
        s->c.read_bytes = SL_IO_CACHED_BYTES;
    return 0;
}

int sl_slab_cache_open(struct sl_slab_cache **cache,
                       const struct sl_slab_cache_config *config,
                       struct sl_error *err)
{
    struct sl_slab_cache *s = calloc(1, sizeof *s);

    if (s == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "the cache of experts: no memory");
    s->c = *config;
    if (s->c.depth == 0 || s->c.depth > SL_IO_DEPTH)
        s->c.depth = SL_IO_DEPTH;
    if (s->c.read_bytes == 0)
        s->c.read_bytes = READ_BYTES;
    if (s->c.n_layers == 0)
        s->c.n_layers = 1;
    if (allocate(s, err) != 0 || open_io(s, err) != 0) {
        sl_slab_cache_close(s);
        return -1;
    }
    *cache = s;
    return 0;
}

void sl_slab_cache_close(struct sl_slab_cache *s)
{
    if (s == NULL)
        return;
    if (s->io != NULL)
        s->io->ops->close(s->io);
    sl_region_fini(&s->region);
    free(s->places);
    free(s->place_of);
    sl_cache_policy_fini(&s->policy);
    free(s->wanted.records);
    free(s->hinted.records);
    free(s->requests);
    free(s->idle);
    free(s);
}
