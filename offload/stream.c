#include "config.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "offload/stream_impl.h"

#define STACK_BYTES (256u << 10)
/* Of the stack, what the reader really touches (counted generously), and
   what malloc keeps around small objects. */
#define SLACK_BYTES (64u << 10)

/* Most devices split larger reads anyway, and smaller ones let a slab be ready
   sooner. */
#define DEFAULT_READ_BYTES (1u << 20)
#define MAX_READ_BYTES     (256u << 20)

uint64_t sl_stream_overhead_bytes(size_t n_slabs)
{
    uint64_t per_slab = sizeof(struct sl_place) + sizeof(uint32_t);

    return sizeof(struct sl_stream) + n_slabs * per_slab +
           SL_IO_DEPTH * (sizeof(struct sl_request) + sizeof(unsigned)) +
           SL_IO_OVERHEAD_BYTES + SLACK_BYTES;
}

static void stream_free(struct sl_stream *st)
{
    if (st->io != NULL)
        st->io->ops->close(st->io);
    sl_region_fini(&st->ring);
    sl_region_fini(&st->residents);
    pthread_mutex_destroy(&st->mutex);
    pthread_cond_destroy(&st->ready);
    free(st->places);
    free(st->place_of);
    free(st->requests);
    free(st->idle);
    free(st);
}

static void place_memory(struct sl_stream *st)
{
    const struct sl_stream_places *to = st->config.places;
    const struct sl_plan *plan = st->config.plan;

    if (to == NULL)
        return;
    if (plan->ring_bytes > 0)
        to->ring(to->arg, st->ring.base, st->ring.bytes);
    for (size_t i = 0; i < plan->n_slabs; i++) {
        if (plan->home[i] == SL_HOME_RAM)
            to->resident(to->arg, i, st->places[st->place_of[i]].base);
    }
}

/* Gives every slot and every resident its memory. */
static int place_slabs(struct sl_stream *st, struct sl_error *err)
{
    const struct sl_plan *plan = st->config.plan;
    uint32_t n = plan->n_slots;
    uint64_t at = 0;

    for (size_t i = 0; i < plan->n_slabs; i++)
        n += plan->home[i] == SL_HOME_RAM;
    st->places = sl_zalloc_array(n, sizeof *st->places);
    st->place_of = sl_zalloc_array(plan->n_slabs, sizeof *st->place_of);
    if (st->places == NULL || st->place_of == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory for %u slots", n);
    if (plan->ring_bytes > 0 &&
        sl_region_init(&st->ring, plan->ring_bytes, "the ring", err) != 0)
        return -1;
    if (plan->resident_bytes > 0 &&
        sl_region_init(&st->residents, plan->resident_bytes, "resident weights",
                       err) != 0)
        return -1;
    for (n = 0; n < plan->n_slots; n++)
        st->places[n].base = st->ring.base + n * plan->slot_bytes;
    for (size_t i = 0; i < plan->n_slabs; i++) {
        if (plan->home[i] != SL_HOME_RAM)
            continue;
        st->places[n].base = st->residents.base + at;
        at += sl_slab_load_bytes(&st->config.slabs[i]);
        st->place_of[i] = n++;
    }
    assert(at == plan->resident_bytes);
    place_memory(st);
    return 0;
}

static int open_reader(struct sl_stream *st, struct sl_error *err)
{
    struct sl_stream_config *c = &st->config;
    struct sl_io_buffer ring = {st->ring.base, st->ring.bytes};
    struct sl_io_config config = {
        .path = c->path,
        .kind = c->io,
        .depth = c->depth,
        .direct = c->direct,
        .buffers = &ring,
        .n_buffers = ring.bytes > 0,
        .log = c->log,
        .arg = c->io_arg,
    };

    if ((c->io_open ? c->io_open : sl_io_open)(&st->io, &config, err) != 0)
        return -1;
    st->stats.io_name = st->io->ops->name;
    st->stats.direct = st->io->direct;
    st->stats.registered = st->io->registered;
    if (st->io->direct)
        return 0;
    if (c->read_bytes > SL_IO_CACHED_BYTES)
        c->read_bytes = SL_IO_CACHED_BYTES;
    if (c->depth > SL_IO_CACHED_DEPTH)
        c->depth = SL_IO_CACHED_DEPTH;
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

/* Settles what the caller left to us. */
static void settle(struct sl_stream_config *c)
{
    if (c->depth == 0)
        c->depth = SL_IO_DEPTH;
    if (c->read_bytes == 0)
        c->read_bytes = DEFAULT_READ_BYTES;
    if (c->read_bytes > MAX_READ_BYTES)
        c->read_bytes = MAX_READ_BYTES;
    c->read_bytes = (uint32_t)sl_round_up(c->read_bytes, SL_PAGE_BYTES);
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
    if (place_slabs(st, err) != 0 || open_reader(st, err) != 0 ||
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

static bool streamed(const struct sl_stream *st, size_t slab)
{
    return st->config.plan->home[slab] == SL_HOME_DISK;
}

static struct sl_place *place_for(struct sl_stream *st, size_t slab,
                                  uint32_t slot)
{
    return &st->places[streamed(st, slab) ? slot : st->place_of[slab]];
}

/* The slab after this one in the cycle; slots go round likewise. */
static void advance(const struct sl_stream *st, size_t *slab, uint32_t *slot)
{
    if (streamed(st, *slab))
        *slot = (*slot + 1) % st->config.plan->n_slots;
    *slab = (*slab + 1) % st->config.plan->n_slabs;
}

/* Waits for the place to be filled; called and returns with the mutex. */
static int wait_ready(struct sl_stream *st, struct sl_place *p, size_t slab,
                      struct sl_error *err)
{
    uint64_t begin, end;
    char name[SL_TRACE_NAME];

    if (p->state != SL_PLACE_READY && !st->failed) {
        begin = sl_clock_now(st->config.clock);
        while (p->state != SL_PLACE_READY && !st->failed)
            sl_clock_wait(st->config.clock, &st->ready, &st->mutex);
        end = sl_clock_now(st->config.clock);
        st->stats.wait_ns += end - begin;
        if (st->config.trace != NULL) {
            snprintf(name, sizeof name, "slab %zu", slab);
            sl_trace_span(st->config.trace, SL_TRACK_WAITS, name, begin, end,
                          0);
        }
    }
    if (p->state == SL_PLACE_READY)
        return 0;
    if (err != NULL)
        *err = st->failure;
    return -1;
}

int sl_stream_get(struct sl_stream *st, size_t slab, const uint8_t **base,
                  struct sl_error *err)
{
    struct sl_place *p;
    int rc;

    if (slab >= st->config.plan->n_slabs || slab != st->get_slab)
        return sl_fail(err, SL_ERR_INTERNAL,
                       "slab %zu asked for, but slab %zu is next", slab,
                       st->get_slab);
    p = place_for(st, slab, st->get_slot);
    pthread_mutex_lock(&st->mutex);
    if (p->state == SL_PLACE_HELD) {
        pthread_mutex_unlock(&st->mutex);
        return sl_fail(err, SL_ERR_INTERNAL,
                       "slab %zu asked for while slab %zu holds its place",
                       slab, p->slab);
    }
    rc = wait_ready(st, p, slab, err);
    if (rc == 0) {
        p->state = SL_PLACE_HELD;
        *base = p->base;
    }
    pthread_mutex_unlock(&st->mutex);
    if (rc == 0)
        advance(st, &st->get_slab, &st->get_slot);
    return rc;
}

void sl_stream_put(struct sl_stream *st, size_t slab)
{
    struct sl_place *p = place_for(st, slab, st->put_slot);
    bool wake;

    assert(slab == st->put_slab);
    pthread_mutex_lock(&st->mutex);
    assert(p->state == SL_PLACE_HELD && p->slab == slab);
    p->state = streamed(st, slab) ? SL_PLACE_EMPTY : SL_PLACE_READY;
    wake = st->starved && p->state == SL_PLACE_EMPTY;
    if (wake)
        st->starved = false;
    pthread_mutex_unlock(&st->mutex);
    if (wake)
        st->io->ops->wake(st->io);
    advance(st, &st->put_slab, &st->put_slot);
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
