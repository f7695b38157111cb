#include "config.h"

#include <stdio.h>

#include "offload/upload_impl.h"

/* Why nothing can be copied now. */
enum obstacle {
    NOTHING_TO_DO, /* until the next pass begins */
    NO_SLOT,
    NO_BYTES, /* not read yet */
    COPIED,   /* none: a copy was put on the queue */
};

/* What is to be copied next. */
struct job {
    struct sl_use use;
    size_t slab; /* of it */
    struct sl_upload_place *place;
    uint32_t index; /* of the place */
    const uint8_t *from;
};

/* --- what comes next ------------------------------------------------------ */

/* What a pass takes from this ring. */
static bool ours(const struct sl_upload *f, enum sl_phase phase, size_t slab)
{
    return f->config.plan->worker[phase][slab] == f->config.worker;
}

/* Whether the slab must be copied for a pass of a phase. */
static bool wanted(const struct sl_upload *f, enum sl_phase phase, size_t slab)
{
    if (!ours(f, phase, slab))
        return false;
    return f->config.plan->tier[slab] != sl_tier_of(f->config.worker) ||
           f->places[f->tier[slab]].state == SL_UPLOAD_EMPTY;
}

/* Slabs that a decode leaves to the CPU. They come before all others of their
 * pass that are not on the device yet. */
static bool find_late(struct sl_upload *f, struct sl_use *use)
{
    for (; f->late < f->late_end; f->late++) {
        size_t slab = sl_order_slab(&f->order, f->late);

        if (ours(f, SL_PHASE_PREFILL, slab) &&
            !ours(f, SL_PHASE_DECODE, slab)) {
            *use = (struct sl_use){f->passes - 1, f->late};
            return true;
        }
    }
    return false;
}

/* The next use: of the pass under way, then of the one after it, of which is
 * assumed that it is a decode. */
static bool find_use(struct sl_upload *f, struct sl_use *use)
{
    if (find_late(f, use))
        return true;
    while (f->next.pass <= f->passes) {
        enum sl_phase phase =
            f->next.pass < f->passes ? f->phase : SL_PHASE_DECODE;

        if (wanted(f, phase, sl_order_slab(&f->order, f->next.at))) {
            *use = f->next;
            return true;
        }
        sl_use_next(&f->next, &f->order);
    }
    return false;
}

/* The next use is settled. */
static void advance(struct sl_upload *f)
{
    if (f->late < f->late_end)
        f->late++;
    else
        sl_use_next(&f->next, &f->order);
}

/* The empty slot that was given back first, whose kernels end first. Ahead of
 * a pass that has not begun one slot stays empty: it may turn out to want
 * slabs that come before those in the other slots. */
static uint32_t find_slot(const struct sl_upload *f, bool ahead)
{
    uint32_t best = SL_UPLOAD_NOWHERE, n_empty = 0;

    for (uint32_t i = 0; i < f->config.plan->at[f->config.worker].n_slots;
         i++) {
        const struct sl_upload_place *p = &f->places[i];

        if (p->state != SL_UPLOAD_EMPTY)
            continue;
        n_empty++;
        if (best == SL_UPLOAD_NOWHERE || p->freed < f->places[best].freed)
            best = i;
    }
    return n_empty > (ahead && f->may_be_late ? 1 : 0) ? best
                                                       : SL_UPLOAD_NOWHERE;
}

/* Takes a place and the bytes for what comes next; with the mutex. A stream
 * that failed comes out as -1. */
static int find_job(struct sl_upload *f, struct job *job, enum obstacle *why,
                    struct sl_error *err)
{
    const struct sl_plan *plan = f->config.plan;
    int rc;

    *why = NOTHING_TO_DO;
    if (!find_use(f, &job->use))
        return 0;
    job->slab = sl_order_slab(&f->order, job->use.at);
    *why = NO_SLOT;
    job->index = plan->tier[job->slab] == sl_tier_of(f->config.worker)
                     ? f->tier[job->slab]
                     : find_slot(f, job->use.pass >= f->passes);
    if (job->index == SL_UPLOAD_NOWHERE)
        return 0;
    *why = NO_BYTES;
    rc = sl_stream_try(f->config.stream, job->slab, &job->from, err);
    if (rc <= 0)
        return rc;
    *why = COPIED;
    job->place = &f->places[job->index];
    job->place->state = SL_UPLOAD_FILLING;
    f->stats.late += f->late < f->late_end;
    advance(f);
    return 0;
}

/* --- copies --------------------------------------------------------------- */

/* Puts a copy on the queue; without the mutex, as the driver takes its time
 * for memory that is not pinned. */
static int put_on_queue(struct sl_upload *f, const struct job *job,
                        struct sl_upload_copy *c, struct sl_error *err)
{
    struct sl_device *dev = f->config.dev;
    const struct sl_device_ops *ops = dev->ops;
    uint64_t bytes = sl_slab_load_bytes(&f->config.slabs[job->slab]);

    if (job->place->used &&
        ops->queue_wait(dev, SL_QUEUE_UP, job->place->released, err) != 0)
        return -1;
    if (ops->record(dev, SL_QUEUE_UP, c->begin, err) != 0 ||
        ops->copy_up(dev, SL_QUEUE_UP, job->place->base, job->from, bytes,
                     err) != 0 ||
        ops->record(dev, SL_QUEUE_UP, c->end, err) != 0)
        return -1;
    c->place = job->place;
    c->slab = job->slab;
    return 0;
}

/* The place is FILLED when its copy is on the queue, not when it has ended:
 * kernels wait for that on the device. */
static int copy(struct sl_upload *f, const struct job *job,
                struct sl_error *err)
{
    const struct sl_plan *plan = f->config.plan;
    struct sl_upload_copy *c =
        &f->copies[(f->first_copy + f->n_copies) % SL_UPLOAD_COPIES];

    if (put_on_queue(f, job, c, err) != 0)
        return -1;
    f->n_copies++;
    pthread_mutex_lock(&f->mutex);
    job->place->copy = c;
    job->place->state = SL_UPLOAD_FILLED;
    if (plan->tier[job->slab] != sl_tier_of(f->config.worker))
        f->slot_of[(job->use.pass & 1) * plan->n_slabs + job->slab] =
            job->index;
    sl_clock_signal(f->config.clock, &f->filled);
    pthread_mutex_unlock(&f->mutex);
    return 0;
}

/* The oldest copy is done: its bytes on the host are not needed any more. */
static int retire(struct sl_upload *f, struct sl_error *err)
{
    struct sl_upload_copy *c = &f->copies[f->first_copy];
    uint64_t bytes = sl_slab_load_bytes(&f->config.slabs[c->slab]);
    uint64_t begin, length;
    char name[SL_TRACE_NAME];

    if (f->config.dev->ops->span(f->config.dev, c->begin, c->end, &begin,
                                 &length, err) != 0)
        return -1;
    sl_stream_put(f->config.stream, c->slab);
    pthread_mutex_lock(&f->mutex);
    if (c->place->copy == c)
        c->place->copy = NULL;
    f->stats.copies++;
    f->stats.bytes_up += bytes;
    f->stats.copy_ns += length;
    pthread_mutex_unlock(&f->mutex);
    f->first_copy = (f->first_copy + 1) % SL_UPLOAD_COPIES;
    f->n_copies--;
    if (f->config.trace != NULL) {
        snprintf(name, sizeof name, "slab %zu", c->slab);
        sl_trace_span(f->config.trace, SL_TRACK_COPIES, name, begin,
                      begin + length, bytes);
    }
    return 0;
}

/* Retires what is done. */
static int retire_done(struct sl_upload *f, struct sl_error *err)
{
    while (f->n_copies > 0) {
        int rc = f->config.dev->ops->done(f->config.dev,
                                          f->copies[f->first_copy].end, err);

        if (rc <= 0)
            return rc;
        if (retire(f, err) != 0)
            return -1;
    }
    return 0;
}

/* Sleeps until the oldest copy is done. The queue is not empty meanwhile, so
 * nothing is lost if another could be put on it before that. */
static int wait_for_copy(struct sl_upload *f, struct sl_error *err)
{
    if (f->config.dev->ops->sync(f->config.dev, f->copies[f->first_copy].end,
                                 err) != 0)
        return -1;
    return retire(f, err);
}

/* --- the thread ----------------------------------------------------------- */

/* Sleeps until there is news, with an idle queue. */
static void wait_for_news(struct sl_upload *f, uint64_t seen, enum obstacle why)
{
    uint64_t begin = sl_clock_now(f->config.clock), end;

    sl_stream_await_news(f->config.stream, seen);
    end = sl_clock_now(f->config.clock);
    pthread_mutex_lock(&f->mutex);
    if (why == NO_BYTES)
        f->stats.disk_wait_ns += end - begin;
    else if (why == NO_SLOT)
        f->stats.slot_wait_ns += end - begin;
    pthread_mutex_unlock(&f->mutex);
}

/* One step. Returns 1 when told to stop. */
static int step(struct sl_upload *f, struct sl_error *err)
{
    /* Asked for first: what changes from now on ends the wait below. */
    uint64_t seen = sl_stream_news(f->config.stream);
    enum obstacle why = NO_SLOT;
    struct job job;
    bool stop;
    int rc = 0;

    if (retire_done(f, err) != 0)
        return -1;
    pthread_mutex_lock(&f->mutex);
    stop = f->stop;
    if (!stop && f->n_copies < SL_UPLOAD_COPIES)
        rc = find_job(f, &job, &why, err);
    pthread_mutex_unlock(&f->mutex);
    if (stop)
        return 1;
    if (rc != 0)
        return -1;
    if (why == COPIED)
        return copy(f, &job, err);
    if (f->n_copies > 0)
        return wait_for_copy(f, err);
    wait_for_news(f, seen, why);
    return 0;
}

void *sl_upload_main(void *arg)
{
    struct sl_upload *f = arg;
    struct sl_error err;
    int rc;

    rc = f->config.dev->ops->attach(f->config.dev, &err);
    while (rc == 0)
        rc = step(f, &err);
    if (rc > 0)
        return NULL;
    pthread_mutex_lock(&f->mutex);
    f->failed = true;
    f->failure = err;
    sl_clock_signal(f->config.clock, &f->filled);
    pthread_mutex_unlock(&f->mutex);
    /* The CPU may wait for slabs that are read behind ours. */
    sl_stream_fail(f->config.stream, &err);
    return NULL;
}
