#include "config.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "offload/device.h"
#include "offload/mirror.h"
#include "offload/stream_impl.h"
#include "src/base/bytes.h"

#define STACK_BYTES (256u << 10)
/* Of the stack, what the reader really touches (counted generously), and
   what malloc keeps around small objects. */
#define SLACK_BYTES (64u << 10)

/* Where not all residents can be pinned, half of them are tried, and so on. */
#define PIN_HALVINGS 4u

/* Most devices split larger reads anyway, and smaller ones let a slab be ready
   sooner. All that are in flight take half of the ring; where that would make
   them small there are fewer, since each has its price. */
#define MOST_DEFAULT_BYTES  (1u << 20)
#define LEAST_DEFAULT_BYTES (512u << 10)
#define MAX_READ_BYTES      (256u << 20)

uint64_t sl_stream_overhead_bytes(size_t n_slabs,
                                  const struct sl_mirror *mirror)
{
    uint64_t per_slab = sizeof(struct sl_place) + sizeof(uint32_t);

    return sizeof(struct sl_stream) + n_slabs * per_slab +
           sl_io_depth(mirror, true) *
               (sizeof(struct sl_request) + sizeof(unsigned)) +
           sl_io_overhead_bytes(mirror) + SLACK_BYTES;
}

static void stream_free(struct sl_stream *st)
{
    sl_touch_stop(&st->touch);
    if (st->io != NULL)
        st->io->ops->close(st->io);
    if (st->stats.pinned_ring_bytes > 0)
        st->config.device->ops->unpin(st->config.device, st->ring.base);
    if (st->stats.pinned_resident_bytes > 0)
        st->config.device->ops->unpin(st->config.device, st->residents.base);
    sl_region_fini(&st->memory);
    pthread_mutex_destroy(&st->mutex);
    pthread_cond_destroy(&st->ready);
    sl_decompress_destroy(st->decompress);
    free(st->places);
    free(st->place_of);
    free(st->requests);
    free(st->idle);
    free(st);
}

/* Before anything is read: memory goes where it is touched first. */
static void place_memory(struct sl_stream *st)
{
    const struct sl_stream_places *to = st->config.places;
    const struct sl_plan *plan = st->config.plan;

    if (to == NULL)
        return;
    if (plan->at[SL_HOST].ring_bytes > 0)
        to->ring(to->arg, st->ring.base, st->ring.bytes);
    for (size_t i = 0; i < plan->n_slabs; i++) {
        if (plan->tier[i] == SL_TIER_RAM)
            to->resident(to->arg, i, st->places[st->place_of[i]].base);
    }
}

/* Who takes a slab from the ring: what copies slabs to the device, or the
 * cores. */
static uint32_t taker(const struct sl_stream *st, size_t slab)
{
    return st->config.plan->worker[SL_PHASE_DECODE][slab];
}

/* Goes on from its place to the next of its worker's, itself included where
 * `here`; slots go round with all that pass through the ring. */
static void find_next(const struct sl_stream *st, struct sl_ring_at *at,
                      bool here)
{
    const struct sl_plan *plan = st->config.plan;
    bool passed = at->found;

    at->found = false;
    /* twice round: the last of the first pass may be followed by one at the
     * end of the second */
    for (size_t i = 0; i < 2 * st->order.n && !at->found; i++) {
        if (!here)
            sl_use_next(&at->use, &st->order);
        here = false;
        if (passed)
            at->slot = (at->slot + 1) % plan->at[SL_HOST].n_slots;
        at->slab = sl_order_slab(&st->order, at->use.at);
        passed = sl_stream_in_ring(plan, at->slab, at->use.pass);
        at->found = passed && taker(st, at->slab) == at->worker;
    }
}

static void advance(const struct sl_stream *st, struct sl_ring_at *at)
{
    find_next(st, at, false);
}

/* The first slab of a worker that goes through the ring. */
static void begin_ring(const struct sl_stream *st, struct sl_ring_at *at,
                       uint32_t worker)
{
    *at = (struct sl_ring_at){.worker = worker};
    find_next(st, at, true);
}

/* Gives every slot and every resident its memory. */
static int place_slabs(struct sl_stream *st, struct sl_error *err)
{
    const struct sl_plan *plan = st->config.plan;
    const struct sl_plan_memory *host = &plan->at[SL_HOST];
    uint32_t n = host->n_slots;
    uint64_t at = 0;

    for (size_t i = 0; i < plan->n_slabs; i++)
        n += plan->tier[i] == SL_TIER_RAM;
    st->places = sl_zalloc_array(n, sizeof *st->places);
    st->place_of = sl_zalloc_array(plan->n_slabs, sizeof *st->place_of);
    if (st->places == NULL || st->place_of == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory for %u slots", n);
    if (host->ring_bytes + host->resident_bytes > 0 &&
        sl_region_init(&st->memory, host->ring_bytes + host->resident_bytes,
                       "the ring and resident weights", err) != 0)
        return -1;
    st->ring.base = st->memory.base;
    st->ring.bytes = host->ring_bytes;
    st->residents.base = st->memory.base + host->ring_bytes;
    st->residents.bytes = host->resident_bytes;
    for (n = 0; n < host->n_slots; n++)
        st->places[n].base = st->ring.base + n * host->slot_bytes;
    for (size_t i = 0; i < plan->n_slabs; i++) {
        if (plan->tier[i] != SL_TIER_RAM)
            continue;
        st->places[n].base = st->residents.base + at;
        at += sl_slab_load_bytes(&st->config.slabs[i]);
        st->place_of[i] = n++;
    }
    assert(at == host->resident_bytes);
    place_memory(st);
    for (uint32_t w = 0; w < SL_WORKERS; w++) {
        begin_ring(st, &st->get[w], w);
        begin_ring(st, &st->put[w], w);
    }
    return 0;
}

/* The most bytes of whole residents, from the first on, within a limit: a
 * copy may not begin in pinned memory and end beyond it. */
static uint64_t whole_residents(const struct sl_stream *st, uint64_t limit)
{
    const struct sl_plan *plan = st->config.plan;
    uint64_t at = 0;

    for (size_t i = 0; i < plan->n_slabs; i++) {
        uint64_t bytes = sl_slab_load_bytes(&st->config.slabs[i]);

        if (plan->tier[i] != SL_TIER_RAM)
            continue;
        if (bytes > limit - at)
            break;
        at += bytes;
    }
    return at;
}

/* Pins the ring, and as many of the residents as may be: drivers and
 * containers limit it. What is not pinned is copied all the same. */
static void pin(struct sl_stream *st)
{
    struct sl_device *dev = st->config.device;
    struct sl_stream_stats *stats = &st->stats;
    uint64_t ring = st->ring.bytes, residents = st->residents.bytes;
    struct sl_error err = {.code = SL_OK};
    char have[SL_SIZE_TEXT], want[SL_SIZE_TEXT];

    if (ring > 0 && dev->ops->pin(dev, st->ring.base, ring, &err) == 0)
        stats->pinned_ring_bytes = ring;
    for (unsigned i = 0; i <= PIN_HALVINGS; i++) {
        uint64_t bytes = whole_residents(st, residents >> i);

        if (bytes == 0 ||
            dev->ops->pin(dev, st->residents.base, bytes, &err) != 0)
            continue;
        stats->pinned_resident_bytes = bytes;
        break;
    }
    if (stats->pinned_ring_bytes + stats->pinned_resident_bytes <
        ring + residents)
        sl_log(st->config.log, SL_LOG_WARN,
               "%s: %s of %s are pinned, copies of the rest to the GPU are "
               "slower",
               err.msg,
               sl_size_format(have, stats->pinned_ring_bytes +
                                        stats->pinned_resident_bytes),
               sl_size_format(want, ring + residents));
}

/* Where reads are not direct they are small and few, so that little of the page
 * cache is ever theirs. */
static int open_reader(struct sl_stream *st, struct sl_error *err)
{
    struct sl_stream_config *c = &st->config;
    struct sl_io_buffer ring = {st->ring.base, st->ring.bytes};
    struct sl_io_config config = {
        .path = c->path,
        .mirror = c->mirror,
        .kind = c->io,
        .depth = c->depth,
        .direct = c->direct,
        .buffers = &ring,
        .n_buffers = ring.bytes > 0,
        .log = c->log,
        .arg = c->io_arg,
    };

    if (sl_io_start(&st->io, &config, c->io_open, err) != 0)
        return -1;
    st->stats.io_name = st->io->ops->name;
    st->stats.direct = st->io->direct;
    st->stats.registered = st->io->registered;
    if (st->io->direct)
        return 0;
    if (c->read_bytes > SL_IO_CACHED_BYTES)
        c->read_bytes = SL_IO_CACHED_BYTES;
    if (c->depth > sl_io_depth(c->mirror, false))
        c->depth = sl_io_depth(c->mirror, false);
    return 0;
}

static int make_requests(struct sl_stream *st, unsigned depth,
                         struct sl_error *err)
{
    st->requests = sl_zalloc_array(depth, sizeof *st->requests);
    st->idle = sl_alloc_array(depth, sizeof *st->idle);
    if (st->requests == NULL || st->idle == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory for %u reads", depth);
    while (st->n_idle < depth) {
        st->idle[st->n_idle] = st->n_idle;
        st->n_idle++;
    }
    return 0;
}

/* A small stack, which the plan has counted (STACK_BYTES). */
static int start_thread(struct sl_stream *st, struct sl_error *err)
{
    pthread_attr_t attr;
    int rc;

    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    rc = sl_clock_thread(st->config.clock, &st->thread, &attr, sl_prefetch_main,
                         st);
    pthread_attr_destroy(&attr);
    if (rc != 0)
        return sl_fail_os(err, rc, "cannot start the reader thread");
    return 0;
}

static uint32_t default_read_bytes(const struct sl_stream_config *c)
{
    uint64_t ring = c->plan->at[SL_HOST].ring_bytes;
    uint64_t bytes = ring / (2 * c->depth);

    if (ring == 0 || bytes > MOST_DEFAULT_BYTES)
        return MOST_DEFAULT_BYTES;
    return bytes < LEAST_DEFAULT_BYTES ? LEAST_DEFAULT_BYTES : (uint32_t)bytes;
}

/* As many as disks want, but no fewer than half of them where the ring is
 * small. */
static unsigned default_depth(const struct sl_stream_config *c, unsigned most)
{
    uint64_t ring = c->plan->at[SL_HOST].ring_bytes;
    uint64_t n = ring / 2 / c->read_bytes;

    if (ring == 0 || n > most)
        return most;
    return n > most / 2 ? (unsigned)n : most / 2;
}

/* Settles what the caller left to us. */
static void settle(struct sl_stream_config *c)
{
    bool given = c->depth > 0;

    if (!given)
        c->depth = sl_io_depth(c->mirror, true);
    if (c->read_bytes == 0)
        c->read_bytes = default_read_bytes(c);
    if (c->read_bytes > MAX_READ_BYTES)
        c->read_bytes = MAX_READ_BYTES;
    c->read_bytes = (uint32_t)sl_round_up(c->read_bytes, SL_PAGE_BYTES);
    if (!given)
        c->depth = default_depth(c, c->depth);
}

/* Compressed slabs are for the thread that has the pool; what copies slabs to
 * a device is another one. */
static int create_decompress(struct sl_stream *st, struct sl_error *err)
{
    const struct sl_stream_config *c = &st->config;

    if (sl_decompress_create(&st->decompress, c->slabs, c->plan->n_slabs,
                             c->pool, err) != 0)
        return -1;
    if (st->decompress == NULL || c->device == NULL)
        return 0;
    return sl_fail(err, SL_ERR_UNSUPPORTED,
                   "%s: has compressed stages, which are decompressed for the "
                   "CPU alone: convert again with --compress none for a GPU",
                   c->path);
}

int sl_stream_open(struct sl_stream **stream,
                   const struct sl_stream_config *config, struct sl_error *err)
{
    struct sl_stream *st = calloc(1, sizeof *st);

    if (st == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory for a stream");
    pthread_mutex_init(&st->mutex, NULL);
    pthread_cond_init(&st->ready, NULL);
    st->config = *config;
    settle(&st->config);
    st->order = sl_plan_order(config->plan);
    if (sl_order_check(&st->order, config->plan->n_slabs, false, err) != 0 ||
        place_slabs(st, err) != 0) {
        stream_free(st);
        return -1;
    }
    /* Before the reader registers the ring with the kernel: memory that is
       pinned first can be registered, the reverse fails on some. */
    if (config->device != NULL)
        pin(st);
    sl_touch_start(&st->touch, &st->residents, config->touch_threads);
    if (create_decompress(st, err) != 0 || open_reader(st, err) != 0 ||
        make_requests(st, st->config.depth, err) != 0 ||
        start_thread(st, err) != 0) {
        stream_free(st);
        return -1;
    }
    *stream = st;
    return 0;
}

void sl_stream_close(struct sl_stream *st)
{
    if (st == NULL)
        return;
    pthread_mutex_lock(&st->mutex);
    st->stop = true;
    pthread_mutex_unlock(&st->mutex);
    st->io->ops->wake(st->io);
    sl_clock_join(st->config.clock, st->thread);
    stream_free(st);
}

/* Whether the place has the slab: what comes after it may be waited for while
 * the other engine still has what came before. */
static bool has(const struct sl_place *p, size_t slab)
{
    return p->state == SL_PLACE_READY && p->slab == slab;
}

/* Waits for the place to be filled; called and returns with the mutex. */
static int wait_ready(struct sl_stream *st, struct sl_place *p, size_t slab,
                      struct sl_error *err)
{
    uint64_t begin, end;
    char name[SL_TRACE_NAME];

    if (!has(p, slab) && !st->failed) {
        begin = sl_clock_now(st->config.clock);
        while (!has(p, slab) && !st->failed)
            sl_clock_wait(st->config.clock, &st->ready, &st->mutex);
        end = sl_clock_now(st->config.clock);
        st->stats.wait_ns += end - begin;
        if (st->config.trace != NULL) {
            snprintf(name, sizeof name, "slab %zu", slab);
            sl_trace_span(st->config.trace, SL_TRACK_WAITS, name, begin, end,
                          0);
        }
    }
    if (has(p, slab))
        return 0;
    if (err != NULL)
        *err = st->failure;
    return -1;
}

/* What get hands out of a place that it holds. */
static int unpack(struct sl_stream *st, struct sl_place *p, size_t slab,
                  const uint8_t **base, struct sl_error *err)
{
    const struct sl_slab *s = &st->config.slabs[slab];
    const struct sl_mirror *mirror = st->config.mirror; /* either's bytes */
    uint64_t begin = sl_clock_now(st->config.clock);
    uint8_t *to;

    if (s->compressed == NULL || p->decompressed)
        return 0;
    if (sl_decompress_run(st->decompress, s, p->base, &to, err) != 0 &&
        !sl_stream_mend(st, p, &to)) {
        sl_error_prefix(err, "%s%s%s: slab %zu: ", st->config.path,
                        mirror != NULL ? " or " : "",
                        mirror != NULL ? sl_mirror_path(mirror, 1) : "", slab);
        return -1;
    }
    if (st->config.plan->tier[slab] != SL_TIER_RAM) {
        *base = to;
    } else {
        memcpy(p->base, to, (size_t)sl_slab_load_bytes(s));
        p->decompressed = true;
    }
    pthread_mutex_lock(&st->mutex);
    st->stats.decompress_ns += sl_clock_now(st->config.clock) - begin;
    st->stats.decompressed_bytes += sl_slab_load_bytes(s);
    pthread_mutex_unlock(&st->mutex);
    return 0;
}

/* The place of a slab that is asked for; NULL when it is not its turn. */
static struct sl_place *find_place(struct sl_stream *st, size_t slab,
                                   struct sl_error *err)
{
    const struct sl_plan *plan = st->config.plan;
    const struct sl_ring_at *next;

    if (slab < plan->n_slabs && plan->tier[slab] == SL_TIER_RAM)
        return &st->places[st->place_of[slab]];
    next = &st->get[slab < plan->n_slabs ? taker(st, slab) : SL_HOST];
    if (next->found && slab == next->slab)
        return &st->places[next->slot];
    sl_fail(err, SL_ERR_INTERNAL, "slab %zu asked for, but slab %zu is next",
            slab, next->slab);
    return NULL;
}

/* Takes a slab, once it is there if `wait`. Returns 1 when it was taken. */
static int take(struct sl_stream *st, size_t slab, bool wait,
                const uint8_t **base, struct sl_error *err)
{
    struct sl_place *p = find_place(st, slab, err);
    bool ring;
    int rc;

    if (p == NULL)
        return -1;
    ring = st->config.plan->tier[slab] != SL_TIER_RAM;
    pthread_mutex_lock(&st->mutex);
    if (!wait && !has(p, slab) && !st->failed) {
        pthread_mutex_unlock(&st->mutex);
        return 0;
    }
    if (p->state == SL_PLACE_HELD && taker(st, p->slab) == taker(st, slab) &&
        !st->failed) {
        pthread_mutex_unlock(&st->mutex);
        return sl_fail(err, SL_ERR_INTERNAL,
                       "slab %zu asked for while slab %zu holds its place",
                       slab, p->slab);
    }
    rc = wait_ready(st, p, slab, err);
    if (rc == 0) {
        *base = p->base;
        if (ring)
            p->state = SL_PLACE_HELD;
    }
    pthread_mutex_unlock(&st->mutex);
    if (rc != 0)
        return -1;
    if (ring)
        advance(st, &st->get[taker(st, slab)]);
    return unpack(st, p, slab, base, err) == 0 ? 1 : -1;
}

int sl_stream_get(struct sl_stream *st, size_t slab, const uint8_t **base,
                  struct sl_error *err)
{
    return take(st, slab, true, base, err) == 1 ? 0 : -1;
}

int sl_stream_try(struct sl_stream *st, size_t slab, const uint8_t **base,
                  struct sl_error *err)
{
    return take(st, slab, false, base, err);
}

bool sl_stream_ready(struct sl_stream *st, size_t slab)
{
    struct sl_error ignored;
    struct sl_place *p = find_place(st, slab, &ignored);
    bool ready;

    if (p == NULL)
        return true; /* get says what is wrong */
    pthread_mutex_lock(&st->mutex);
    ready = has(p, slab) || st->failed;
    pthread_mutex_unlock(&st->mutex);
    return ready;
}

void sl_stream_put(struct sl_stream *st, size_t slab)
{
    struct sl_ring_at *next = &st->put[taker(st, slab)];
    struct sl_place *p;
    bool wake;

    if (st->config.plan->tier[slab] == SL_TIER_RAM)
        return;
    assert(next->found && slab == next->slab);
    p = &st->places[next->slot];
    pthread_mutex_lock(&st->mutex);
    assert(p->state == SL_PLACE_HELD && p->slab == slab);
    p->state = SL_PLACE_EMPTY;
    wake = st->starved;
    st->starved = false;
    pthread_mutex_unlock(&st->mutex);
    if (wake)
        st->io->ops->wake(st->io);
    advance(st, next);
}

/* --- for those who wait for more than one thing --------------------------- */

uint64_t sl_stream_news(struct sl_stream *st)
{
    uint64_t news;

    pthread_mutex_lock(&st->mutex);
    news = st->news;
    pthread_mutex_unlock(&st->mutex);
    return news;
}

void sl_stream_await_news(struct sl_stream *st, uint64_t seen)
{
    pthread_mutex_lock(&st->mutex);
    while (st->news == seen)
        sl_clock_wait(st->config.clock, &st->ready, &st->mutex);
    pthread_mutex_unlock(&st->mutex);
}

void sl_stream_poke(struct sl_stream *st)
{
    pthread_mutex_lock(&st->mutex);
    st->news++;
    sl_clock_broadcast(st->config.clock, &st->ready);
    pthread_mutex_unlock(&st->mutex);
}

void sl_stream_fail(struct sl_stream *st, const struct sl_error *failure)
{
    pthread_mutex_lock(&st->mutex);
    if (!st->failed)
        st->failure = *failure;
    st->failed = true;
    st->news++;
    sl_clock_broadcast(st->config.clock, &st->ready);
    pthread_mutex_unlock(&st->mutex);
}

void sl_stream_stats(const struct sl_stream *st, struct sl_stream_stats *stats)
{
    pthread_mutex_t *mutex = (pthread_mutex_t *)&st->mutex;

    pthread_mutex_lock(mutex);
    *stats = st->stats;
    if (st->busy_since_ns != 0)
        stats->busy_ns += sl_clock_now(st->config.clock) - st->busy_since_ns;
    pthread_mutex_unlock(mutex);
}
