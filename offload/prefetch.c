#include "config.h"

#include <assert.h>
#include <stdio.h>
#include <sys/stat.h>

#include "offload/stream_impl.h"

static const struct sl_slab *slab_of(const struct sl_stream *st,
                                     const struct sl_place *p)
{
    return &st->config.slabs[p->slab];
}

/* Of two disks each is to have something of the few slabs that are on their way
 * where the ring is small: so many parts of an extent, but none that are less.
 */
#define MIRROR_PARTS      4u
#define MIRROR_PART_BYTES (64u << 10)

/* Size of one read of an extent: equal parts, so that the last is not tiny. */
static uint32_t chunk_bytes(const struct sl_stream *st, uint64_t extent_bytes)
{
    uint64_t n = sl_div_up(extent_bytes, st->config.read_bytes);
    uint64_t parts = extent_bytes / MIRROR_PART_BYTES;

    if (parts > MIRROR_PARTS)
        parts = MIRROR_PARTS;
    if (st->config.mirror != NULL && n < parts)
        n = parts;
    return (uint32_t)sl_round_up(sl_div_up(extent_bytes, n), SL_PAGE_BYTES);
}

/* Read in place: an extent's pages follow those of the one before in the slot.
 */
static void begin_extent(struct sl_stream *st)
{
    struct sl_cursor *c = &st->cursor;
    const struct sl_slab *s = slab_of(st, c->place);

    c->extent_done = 0;
    c->chunk = chunk_bytes(st, sl_slab_read_extent(s, c->extent).bytes);
}

/* Finds the next slab to read and takes its place. Returns false when there
   is nothing to read now: no slot is empty, or all residents are there. */
static bool begin_slab(struct sl_stream *st)
{
    const struct sl_plan *plan = st->config.plan;
    struct sl_cursor *c = &st->cursor;
    struct sl_place *p = NULL;

    pthread_mutex_lock(&st->mutex);
    for (size_t i = 0; i < st->order.n && p == NULL; i++) {
        size_t slab = sl_order_slab(&st->order, c->next.at);
        bool ring = sl_stream_in_ring(plan, slab, c->next.pass);

        if (ring)
            p = &st->places[c->next_slot];
        else if (plan->tier[slab] == SL_TIER_RAM)
            p = &st->places[st->place_of[slab]];
        if (p != NULL && p->state != SL_PLACE_EMPTY) {
            p = NULL;
            if (ring) {
                st->starved = true;
                break;
            }
        }
        if (p != NULL) {
            p->state = SL_PLACE_LOADING;
            p->slab = slab;
            p->missing_bytes = sl_slab_read_bytes(&st->config.slabs[slab]);
            if (ring)
                c->next_slot = (c->next_slot + 1) % plan->at[SL_HOST].n_slots;
        }
        sl_use_next(&c->next, &st->order);
    }
    pthread_mutex_unlock(&st->mutex);
    if (p == NULL)
        return false;
    c->place = p;
    c->extent = 0;
    c->at = p->base;
    begin_extent(st);
    return true;
}

static bool in_flight(const struct sl_stream *st)
{
    return st->n_idle < st->config.depth;
}

/* Hands the rest of a request to the reader. */
static int submit(struct sl_stream *st, struct sl_request *q,
                  struct sl_error *err)
{
    const struct sl_io_request *r = &q->read;

    if (sl_io_request_submit(st->io, r, (uint64_t)(q - st->requests), err) == 0)
        return 0;
    sl_error_prefix(err, "%s: slab %zu, %u bytes at %llu: ", st->config.path,
                    q->place->slab, r->bytes - r->done,
                    (unsigned long long)(r->off + r->done));
    return -1;
}

/* Asks for the next part of the slab at the cursor. */
static int issue_chunk(struct sl_stream *st, struct sl_error *err)
{
    struct sl_cursor *c = &st->cursor;
    const struct sl_slab *s = slab_of(st, c->place);
    struct sl_extent e = sl_slab_read_extent(s, c->extent);
    uint64_t left = e.bytes - c->extent_done;
    struct sl_request *q = &st->requests[st->idle[st->n_idle - 1]];

    *q = (struct sl_request){
        .read.buf = c->at,
        .read.off = e.off + c->extent_done,
        .read.bytes = left < c->chunk ? (uint32_t)left : c->chunk,
        .place = c->place,
        .begin_ns = sl_clock_now(st->config.clock),
    };
    if (submit(st, q, err) != 0)
        return -1;
    if (!in_flight(st)) {
        pthread_mutex_lock(&st->mutex);
        st->busy_since_ns = q->begin_ns;
        pthread_mutex_unlock(&st->mutex);
    }
    st->n_idle--;
    c->at += q->read.bytes;
    c->extent_done += q->read.bytes;
    if (q->read.bytes < left)
        return 0;
    if (++c->extent < s->n_extents)
        begin_extent(st);
    else
        c->place = NULL;
    return 0;
}

/* Keeps as many reads in flight as there may be. */
static int issue(struct sl_stream *st, struct sl_error *err)
{
    while (st->n_idle > 0 && (st->cursor.place != NULL || begin_slab(st)))
        if (issue_chunk(st, err) != 0)
            return -1;
    return 0;
}

/* A file that was cut short since it was opened is told from a disk that fails:
 * who sees it does different things about the two. */
static int fail_end(const struct sl_request *q, const struct sl_slab *s,
                    const char *path, uint64_t end, struct sl_error *err)
{
    const struct sl_extent *last = &s->extents[s->n_extents - 1];
    struct stat file;

    /* A read all beyond the end does not tell where the end is. */
    if (stat(path, &file) == 0 && (uint64_t)file.st_size < end)
        end = (uint64_t)file.st_size;

    return sl_fail(err, SL_ERR_CORRUPT,
                   "%s: the file ends at byte %llu, but slab %zu goes on to "
                   "%llu: it is cut short",
                   path, (unsigned long long)end, q->place->slab,
                   (unsigned long long)(last->off + last->bytes));
}

static int fail_read(const struct sl_stream *st, const struct sl_request *q,
                     const struct sl_io_done *done, struct sl_error *err)
{
    const struct sl_io_request *r = &q->read;
    const char *path =
        sl_io_path(st->config.path, st->config.mirror, done->file);
    uint64_t at = r->off + r->done;

    if (done->result >= 0)
        return fail_end(q, slab_of(st, q->place), path,
                        at + (unsigned)done->result, err);
    return sl_fail_os(err, -done->result,
                      "%s: reading %u bytes at %llu for slab %zu, %u times",
                      path, r->bytes - r->done, (unsigned long long)at,
                      q->place->slab, r->tries);
}

/* The request's bytes are all there. */
static void complete(struct sl_stream *st, struct sl_request *q,
                     const struct sl_io_done *done)
{
    struct sl_place *p = q->place;
    uint64_t now = sl_clock_now(st->config.clock);
    char name[SL_TRACE_NAME];

    if (st->config.trace != NULL) {
        snprintf(name, sizeof name, "slab %zu", p->slab);
        sl_trace_span(st->config.trace,
                      done->file == 0 ? SL_TRACK_READS : SL_TRACK_MIRROR, name,
                      q->begin_ns, now, q->read.bytes);
    }
    pthread_mutex_lock(&st->mutex);
    st->stats.bytes_read += q->read.bytes;
    st->stats.reads++;
    st->stats.retries += done->tries > 1 ? done->tries - 1 : 0;
    p->missing_bytes -= q->read.bytes;
    if (p->missing_bytes == 0) {
        p->state = SL_PLACE_READY;
        st->news++;
        st->untold = true;
    }
    pthread_mutex_unlock(&st->mutex);
}

/* Gives a request back. */
static void retire(struct sl_stream *st, struct sl_request *q)
{
    st->idle[st->n_idle++] = (unsigned)(q - st->requests);
    if (in_flight(st))
        return;
    pthread_mutex_lock(&st->mutex);
    st->stats.busy_ns += sl_clock_now(st->config.clock) - st->busy_since_ns;
    st->busy_since_ns = 0;
    pthread_mutex_unlock(&st->mutex);
}

/* Takes one ended read. With `last` set nothing is tried again. */
static int take(struct sl_stream *st, const struct sl_io_done *done, bool last,
                struct sl_error *err)
{
    struct sl_request *q = &st->requests[done->tag];
    int rc = sl_io_request_take(&q->read, done);

    if (rc < 0)
        fail_read(st, q, done, err);
    if (rc == 0 && !last) {
        pthread_mutex_lock(&st->mutex);
        st->stats.retries++;
        pthread_mutex_unlock(&st->mutex);
        rc = submit(st, q, err);
        if (rc == 0)
            return 0;
    }
    if (rc == 1)
        complete(st, q, done);
    retire(st, q);
    return rc < 0 ? -1 : 0;
}

/* Waits for reads and takes them all, also after one has failed; that comes
   out in *failed. Returns -1 when there is no more waiting. */
static int collect(struct sl_stream *st, bool last, bool *failed,
                   struct sl_error *err)
{
    struct sl_io_done done[SL_IO_DEPTH];
    struct sl_error later;
    int n = st->io->ops->wait(st->io, done, SL_IO_DEPTH, err);

    *failed = n < 0;
    if (n < 0) {
        sl_error_prefix(err, "%s: ", st->config.path);
        return -1;
    }
    for (int i = 0; i < n; i++)
        if (take(st, &done[i], last || *failed, *failed ? &later : err) != 0)
            *failed = true;
    return 0;
}

/* Tells of the slabs that have come. To wake a thread takes tens of
 * microseconds, in which a disk that gives what it has all at once would have
 * nothing to do: what is read next is asked for before. */
static void tell(struct sl_stream *st)
{
    if (!st->untold)
        return;
    st->untold = false;
    pthread_mutex_lock(&st->mutex);
    sl_clock_broadcast(st->config.clock, &st->ready);
    pthread_mutex_unlock(&st->mutex);
}

static bool stopped(struct sl_stream *st)
{
    bool stop;

    pthread_mutex_lock(&st->mutex);
    stop = st->stop;
    pthread_mutex_unlock(&st->mutex);
    return stop;
}

/* Lets the reads in flight end, whose slabs can still be used, then tells
   get. */
static void report(struct sl_stream *st, const struct sl_error *failure)
{
    struct sl_error later;
    bool failed;

    while (in_flight(st) && !stopped(st)) {
        tell(st);
        if (collect(st, true, &failed, &later) != 0)
            break;
    }
    sl_stream_fail(st, failure);
}

void *sl_prefetch_main(void *arg)
{
    struct sl_stream *st = arg;
    struct sl_error err;
    bool failed = false;

    if (st->config.places != NULL)
        st->config.places->reader(st->config.places->arg);
    while (!failed && !stopped(st)) {
        failed = issue(st, &err) != 0;
        tell(st);
        if (!failed)
            collect(st, false, &failed, &err);
    }
    if (failed)
        report(st, &err);
    return NULL;
}
