#include "config.h"

#include <assert.h>
#include <stdlib.h>

#include "offload/upload_impl.h"
#include "src/base/mem.h"

/* Address space of a thread that calls the driver, about whose depth nothing is
 * promised: what it has in any program is 8 MiB. */
#define STACK_BYTES (8u << 20)
/* Of the stack, what the thread really touches, and what malloc keeps around
   small objects. */
#define SLACK_BYTES (48u << 10)

static uint32_t count_residents(const struct sl_plan *plan, uint32_t worker)
{
    uint32_t n = 0;

    for (size_t i = 0; i < plan->n_slabs; i++)
        n += plan->tier[i] == sl_tier_of(worker);
    return n;
}

/* A slab has a place of its own or goes through slots, of which there are no
 * more than slabs, but for the least ring. */
uint64_t sl_upload_overhead_bytes(size_t n_slabs)
{
    return sizeof(struct sl_upload) +
           (n_slabs + SL_RING_MIN_SLOTS) * sizeof(struct sl_upload_place) +
           3 * n_slabs * sizeof(uint32_t) + SLACK_BYTES;
}

/* --- opening -------------------------------------------------------------- */

/* Residents lie behind one another in the order of slabs, as the stream has
 * them in RAM. */
static int place_slabs(struct sl_upload *f, struct sl_error *err)
{
    const struct sl_plan *plan = f->config.plan;
    uint32_t n = plan->at[f->config.worker].n_slots;
    uint64_t at = 0;

    f->n_places = n + count_residents(plan, f->config.worker);
    f->places = sl_zalloc_array(f->n_places, sizeof *f->places);
    f->tier = sl_alloc_array(plan->n_slabs, sizeof *f->tier);
    f->slot_of = sl_alloc_array(plan->n_slabs, 2 * sizeof *f->slot_of);
    if (f->places == NULL || f->tier == NULL || f->slot_of == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory for %u device slots", n);
    for (uint32_t i = 0; i < n; i++)
        f->places[i].base = (uint8_t *)f->config.ring +
                            i * plan->at[f->config.worker].slot_bytes;
    for (size_t i = 0; i < plan->n_slabs; i++) {
        f->tier[i] = f->slot_of[i] = f->slot_of[plan->n_slabs + i] =
            SL_UPLOAD_NOWHERE;
        f->may_be_late |= plan->worker[SL_PHASE_PREFILL][i] !=
                          plan->worker[SL_PHASE_DECODE][i];
        if (plan->tier[i] != sl_tier_of(f->config.worker))
            continue;
        f->places[n].base = (uint8_t *)f->config.residents + at;
        at += sl_slab_load_bytes(&f->config.slabs[i]);
        f->tier[i] = n++;
    }
    assert(at == plan->at[f->config.worker].resident_bytes);
    return 0;
}

/* Those of copies are timed, for the trace and what is said of the link's rate;
 * those of slots only order the two queues. */
static int make_events(struct sl_upload *f, struct sl_error *err)
{
    struct sl_device *dev = f->config.dev;
    const struct sl_device_ops *ops = dev->ops;

    if (ops->attach(dev, err) != 0)
        return -1;
    for (uint32_t i = 0; i < f->config.plan->at[f->config.worker].n_slots; i++)
        if (ops->event_create(dev, &f->places[i].released, false, err) != 0)
            return -1;
    for (unsigned i = 0; i < SL_UPLOAD_COPIES; i++)
        if (ops->event_create(dev, &f->copies[i].begin, true, err) != 0 ||
            ops->event_create(dev, &f->copies[i].end, true, err) != 0)
            return -1;
    return 0;
}

/* Whatever opening came to: events that were not made are NULL, and destroying
 * them does nothing. */
static void feed_free(struct sl_upload *f)
{
    struct sl_device *dev = f->config.dev;

    for (uint32_t i = 0; f->places != NULL && i < f->n_places; i++)
        dev->ops->event_destroy(dev, f->places[i].released);
    for (unsigned i = 0; i < SL_UPLOAD_COPIES; i++) {
        dev->ops->event_destroy(dev, f->copies[i].begin);
        dev->ops->event_destroy(dev, f->copies[i].end);
    }
    pthread_mutex_destroy(&f->mutex);
    pthread_cond_destroy(&f->filled);
    free(f->places);
    free(f->tier);
    free(f->slot_of);
    free(f);
}

static int start_thread(struct sl_upload *f, struct sl_error *err)
{
    pthread_attr_t attr;
    int rc;

    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    rc = sl_clock_thread(f->config.clock, &f->thread, &attr, sl_upload_main, f);
    pthread_attr_destroy(&attr);
    if (rc != 0)
        return sl_fail_os(err, rc, "cannot start the copying thread");
    return 0;
}

int sl_upload_open(struct sl_upload **upload,
                   const struct sl_upload_config *config, struct sl_error *err)
{
    struct sl_upload *f = calloc(1, sizeof *f);

    if (f == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory for an upload ring");
    f->config = *config;
    pthread_mutex_init(&f->mutex, NULL);
    pthread_cond_init(&f->filled, NULL);
    f->order = sl_plan_order(config->plan);
    if (sl_order_check(&f->order, config->plan->n_slabs, true, err) != 0 ||
        place_slabs(f, err) != 0 || make_events(f, err) != 0 ||
        start_thread(f, err) != 0) {
        feed_free(f);
        return -1;
    }
    *upload = f;
    return 0;
}

void sl_upload_close(struct sl_upload *f)
{
    const struct sl_error stopped = {
        .code = SL_ERR_INTERRUPTED,
        .msg = "the upload ring was closed",
    };
    struct sl_event *last;
    struct sl_error later;

    if (f == NULL)
        return;
    pthread_mutex_lock(&f->mutex);
    f->stop = true;
    pthread_mutex_unlock(&f->mutex);
    sl_stream_fail(f->config.stream, &stopped);
    sl_clock_join(f->config.clock, f->thread);
    /* The device still reads host memory that is about to go, also for a copy
       whose own event could not be recorded. A lost one reads no more. */
    for (; f->n_copies > 0; f->n_copies--) {
        last = f->copies[f->first_copy].end;
        f->config.dev->ops->sync(f->config.dev, last, &later);
        f->first_copy = (f->first_copy + 1) % SL_UPLOAD_COPIES;
    }
    last = f->copies[0].end;
    if (f->config.dev->ops->record(f->config.dev, SL_QUEUE_UP, last, &later) ==
        0)
        f->config.dev->ops->sync(f->config.dev, last, &later);
    feed_free(f);
}

/* --- passes --------------------------------------------------------------- */

void sl_upload_begin(struct sl_upload *f, enum sl_phase phase)
{
    pthread_mutex_lock(&f->mutex);
    f->phase = phase;
    /* Of the pass before, nothing that is wanted can be left. */
    if (f->next.pass < f->passes)
        f->next = (struct sl_use){f->passes, 0};
    /* What the copier went past, taking the pass for a decode. */
    f->late = f->late_end = 0;
    if (phase == SL_PHASE_PREFILL)
        f->late_end = f->next.pass > f->passes ? f->order.n : f->next.at;
    f->passes++;
    pthread_mutex_unlock(&f->mutex);
    sl_stream_poke(f->config.stream);
}

/* The place of the slab in the present pass, NULL until it has one; with the
 * mutex. */
static struct sl_upload_place *place_of(const struct sl_upload *f, size_t slab)
{
    size_t n = f->config.plan->n_slabs;
    uint32_t i = f->config.plan->tier[slab] == sl_tier_of(f->config.worker)
                     ? f->tier[slab]
                     : f->slot_of[((f->passes - 1) & 1) * n + slab];

    return i == SL_UPLOAD_NOWHERE ? NULL : &f->places[i];
}

/* Waits for the slab's copy to be on its queue; with the mutex. */
static struct sl_upload_place *wait_filled(struct sl_upload *f, size_t slab,
                                           struct sl_error *err)
{
    struct sl_upload_place *p = place_of(f, slab);
    uint64_t begin;

    if (p == NULL || p->state < SL_UPLOAD_FILLED) {
        begin = sl_clock_now(f->config.clock);
        while ((p == NULL || p->state < SL_UPLOAD_FILLED) && !f->failed) {
            sl_clock_wait(f->config.clock, &f->filled, &f->mutex);
            p = place_of(f, slab);
        }
        f->stats.get_wait_ns += sl_clock_now(f->config.clock) - begin;
    }
    if (p != NULL && p->state >= SL_UPLOAD_FILLED)
        return p;
    if (err != NULL)
        *err = f->failure;
    return NULL;
}

int sl_upload_get(struct sl_upload *f, size_t slab, const void **base,
                  struct sl_error *err)
{
    const struct sl_plan *plan = f->config.plan;
    struct sl_device *dev = f->config.dev;
    struct sl_upload_place *p;
    int rc = -1;

    pthread_mutex_lock(&f->mutex);
    if (f->passes == 0 || slab >= plan->n_slabs ||
        plan->worker[f->phase][slab] != f->config.worker) {
        pthread_mutex_unlock(&f->mutex);
        return sl_fail(err, SL_ERR_INTERNAL,
                       "slab %zu asked for on the device, where this pass "
                       "does not compute it",
                       slab);
    }
    p = wait_filled(f, slab, err);
    if (p != NULL)
        rc = p->copy == NULL ? 0
                             : dev->ops->queue_wait(dev, SL_QUEUE_COMPUTE,
                                                    p->copy->end, err);
    if (rc == 0) {
        if (plan->tier[slab] != sl_tier_of(f->config.worker))
            p->state = SL_UPLOAD_HELD;
        *base = p->base;
    }
    pthread_mutex_unlock(&f->mutex);
    return rc;
}

bool sl_upload_ready(struct sl_upload *f, size_t slab)
{
    struct sl_upload_place *p;
    bool ready;

    pthread_mutex_lock(&f->mutex);
    p = f->passes > 0 ? place_of(f, slab) : NULL;
    ready = f->failed || (p != NULL && p->state >= SL_UPLOAD_FILLED);
    pthread_mutex_unlock(&f->mutex);
    return ready;
}

int sl_upload_put(struct sl_upload *f, size_t slab, struct sl_error *err)
{
    const struct sl_plan *plan = f->config.plan;
    struct sl_device *dev = f->config.dev;
    struct sl_upload_place *p;
    int rc;

    if (plan->tier[slab] == sl_tier_of(f->config.worker))
        return 0;
    pthread_mutex_lock(&f->mutex);
    p = place_of(f, slab);
    assert(p != NULL && p->state == SL_UPLOAD_HELD);
    rc = dev->ops->record(dev, SL_QUEUE_COMPUTE, p->released, err);
    p->used = true;
    p->state = SL_UPLOAD_EMPTY;
    p->freed = ++f->puts;
    f->slot_of[((f->passes - 1) & 1) * plan->n_slabs + slab] =
        SL_UPLOAD_NOWHERE;
    pthread_mutex_unlock(&f->mutex);
    sl_stream_poke(f->config.stream);
    return rc;
}

void sl_upload_stats(const struct sl_upload *f, struct sl_upload_stats *stats)
{
    pthread_mutex_t *mutex = (pthread_mutex_t *)&f->mutex;

    pthread_mutex_lock(mutex);
    *stats = f->stats;
    pthread_mutex_unlock(mutex);
}
