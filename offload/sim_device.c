#include "config.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "offload/sim_machine.h"
#include "src/base/mem.h"

enum kind {
    FLOW,   /* a copy or a kernel */
    RECORD, /* the event is done when this is reached */
    WAIT,   /* nothing goes on before the event's version is done */
};

struct op {
    struct sl_flow flow; /* first: done finds the op */
    struct op *next;
    struct model_device *dev;
    enum sl_queue queue;
    enum kind kind;
    bool begun;
    struct sl_event *event;
    uint64_t version;
};

struct sl_event {
    uint64_t recorded, done; /* versions: how often */
    uint64_t at_ns;          /* of done */
};

struct arena {
    struct sl_region region;
    struct arena *next;
};

/* Fields belong to whoever has the clock's turn. */
struct model_device {
    struct sl_device dev;
    struct sl_sim_machine *machine;
    struct {
        struct op *first, **last;
    } queues[SL_QUEUE_COUNT];
    struct arena *arenas;
    uint64_t used_bytes;
    pthread_mutex_t mutex;
    pthread_cond_t news; /* an op has ended */
};

static const struct sl_worker *rates_of(const struct sl_device *dev)
{
    const struct model_device *m = (const struct model_device *)dev;

    return &m->machine->spec.rates.worker[SL_DEVICE];
}

/* --- queues --------------------------------------------------------------- */

/* Runs what can run at the head of a queue. True if it got anywhere. */
static bool pump_queue(struct model_device *m, enum sl_queue queue)
{
    struct op *op = m->queues[queue].first;

    if (op == NULL || op->begun ||
        (op->kind == WAIT && op->event->done < op->version))
        return false;
    if (op->kind == FLOW) {
        op->begun = true;
        sl_fluid_start(&m->machine->fluid, &op->flow);
        return true;
    }
    if (op->kind == RECORD) {
        op->event->done = op->version;
        op->event->at_ns = sl_clock_now(m->machine->clock);
    }
    m->queues[queue].first = op->next;
    if (op->next == NULL)
        m->queues[queue].last = &m->queues[queue].first;
    free(op);
    return true;
}

/* What one queue records another may wait for: round and round until nothing
 * moves. */
static void pump(struct model_device *m)
{
    bool moved = true;

    while (moved) {
        moved = false;
        for (int q = 0; q < SL_QUEUE_COUNT; q++)
            moved |= pump_queue(m, (enum sl_queue)q);
    }
    sl_clock_broadcast(m->machine->clock, &m->news);
}

/* The fluid says so in the clock's turn: nobody else touches the queues then.
 */
static void flow_done(struct sl_flow *flow)
{
    struct op *op = (struct op *)flow;
    struct model_device *m = op->dev;

    assert(m->queues[op->queue].first == op);
    m->queues[op->queue].first = op->next;
    if (op->next == NULL)
        m->queues[op->queue].last = &m->queues[op->queue].first;
    free(op);
    pump(m);
}

static int put(struct sl_device *dev, enum sl_queue queue, struct op made,
               struct sl_error *err)
{
    struct model_device *m = (struct model_device *)dev;
    struct op *op = malloc(sizeof *op);

    if (op == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "%s: no memory for a queue",
                       dev->info.name);
    *op = made;
    op->dev = m;
    op->queue = queue;
    op->flow.done = flow_done;
    *m->queues[queue].last = op;
    m->queues[queue].last = &op->next;
    pump(m);
    return 0;
}

/* Through the link and through DRAM, which others use at the same time. */
static int model_copy(struct sl_device *dev, enum sl_queue queue,
                      uint64_t bytes, enum sl_pipe pipe, struct sl_error *err)
{
    const struct sl_worker *w = rates_of(dev);
    struct op op = {
        .kind = FLOW,
        .flow = {.bytes = (double)bytes,
                 .pipes = 1u << pipe | 1u << SL_PIPE_DRAM,
                 .delay_ns = (uint64_t)(w->link_latency_s * 1e9)},
    };

    return put(dev, queue, op, err);
}

static int model_copy_up(struct sl_device *dev, enum sl_queue queue, void *to,
                         const void *from, uint64_t bytes, struct sl_error *err)
{
    (void)to, (void)from;
    return model_copy(dev, queue, bytes, SL_PIPE_UP, err);
}

static int model_copy_down(struct sl_device *dev, enum sl_queue queue, void *to,
                           const void *from, uint64_t bytes,
                           struct sl_error *err)
{
    (void)to, (void)from;
    return model_copy(dev, queue, bytes, SL_PIPE_DOWN, err);
}

/* Time that nothing is shared with: a flow of its own, through no pipe. */
static int put_seconds(struct sl_device *dev, enum sl_queue queue, double s,
                       struct sl_error *err)
{
    struct op op = {
        .kind = FLOW,
        .flow = {.bytes = s * 1e9, .most_bps = 1e9},
    };

    return s > 0 ? put(dev, queue, op, err) : 0;
}

/* Each byte is read and written. */
static int model_copy_within(struct sl_device *dev, enum sl_queue queue,
                             void *to, const void *from, uint64_t bytes,
                             struct sl_error *err)
{
    const struct sl_worker *w = rates_of(dev);

    (void)to, (void)from;
    return put_seconds(dev, queue, 2 * (double)bytes / w->memory_bps, err);
}

int sl_device_model_launch(struct sl_device *dev, double bytes, double ops,
                           double extra_s, struct sl_error *err)
{
    const struct sl_worker *w = rates_of(dev);
    double read_s = bytes / w->memory_bps, ops_s = ops / w->ops_per_s;

    return put_seconds(dev, SL_QUEUE_COMPUTE,
                       extra_s + (read_s > ops_s ? read_s : ops_s), err);
}

/* --- events --------------------------------------------------------------- */

static int model_event_create(struct sl_device *dev, struct sl_event **event,
                              bool timed, struct sl_error *err)
{
    struct sl_event *e = calloc(1, sizeof *e);

    (void)timed;
    if (e == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "%s: no memory for an event",
                       dev->info.name);
    *event = e;
    return 0;
}

static void model_event_destroy(struct sl_device *dev, struct sl_event *event)
{
    (void)dev;
    assert(event == NULL || event->recorded == event->done);
    free(event);
}

static int model_record(struct sl_device *dev, enum sl_queue queue,
                        struct sl_event *event, struct sl_error *err)
{
    struct op op = {
        .kind = RECORD,
        .event = event,
        .version = event->recorded + 1,
    };

    event->recorded++;
    if (put(dev, queue, op, err) == 0)
        return 0;
    event->recorded--;
    return -1;
}

/* For what was recorded until now, as CUDA has it. */
static int model_queue_wait(struct sl_device *dev, enum sl_queue queue,
                            struct sl_event *event, struct sl_error *err)
{
    struct op op = {
        .kind = WAIT,
        .event = event,
        .version = event->recorded,
    };

    return event->done < event->recorded ? put(dev, queue, op, err) : 0;
}

static int model_done(struct sl_device *dev, struct sl_event *event,
                      struct sl_error *err)
{
    (void)dev, (void)err;
    return event->done >= event->recorded;
}

static int model_sync(struct sl_device *dev, struct sl_event *event,
                      struct sl_error *err)
{
    struct model_device *m = (struct model_device *)dev;
    uint64_t version = event->recorded;

    (void)err;
    pthread_mutex_lock(&m->mutex);
    while (event->done < version)
        sl_clock_wait(m->machine->clock, &m->news, &m->mutex);
    pthread_mutex_unlock(&m->mutex);
    return 0;
}

static int model_span(struct sl_device *dev, struct sl_event *from,
                      struct sl_event *to, uint64_t *begin_ns,
                      uint64_t *length_ns, struct sl_error *err)
{
    (void)dev, (void)err;
    *begin_ns = from->at_ns;
    *length_ns = to->at_ns - from->at_ns;
    return 0;
}

/* --- memory --------------------------------------------------------------- */

static int model_attach(struct sl_device *dev, struct sl_error *err)
{
    (void)dev, (void)err;
    return 0;
}

/* Addresses without memory behind them, as long as nobody touches it. */
static int model_alloc(struct sl_device *dev, void **p, uint64_t bytes,
                       struct sl_error *err)
{
    struct model_device *m = (struct model_device *)dev;
    struct arena *a;

    if (bytes > dev->info.vram_bytes - m->used_bytes)
        return sl_fail(
            err, SL_ERR_NOMEM, "%s: %llu bytes of VRAM wanted, %llu are left",
            dev->info.name, (unsigned long long)bytes,
            (unsigned long long)(dev->info.vram_bytes - m->used_bytes));
    a = calloc(1, sizeof *a);
    if (a == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "%s: no memory", dev->info.name);
    if (sl_region_init(&a->region, bytes, "the model of VRAM", err) != 0) {
        free(a);
        return -1;
    }
    a->next = m->arenas;
    m->arenas = a;
    m->used_bytes += bytes;
    *p = a->region.base;
    return 0;
}

static void model_free(struct sl_device *dev, void *p)
{
    struct model_device *m = (struct model_device *)dev;

    for (struct arena **at = &m->arenas; *at != NULL; at = &(*at)->next) {
        struct arena *a = *at;

        if (a->region.base != p)
            continue;
        *at = a->next;
        m->used_bytes -= a->region.bytes;
        sl_region_fini(&a->region);
        free(a);
        return;
    }
}

static int model_pin(struct sl_device *dev, void *base, uint64_t bytes,
                     struct sl_error *err)
{
    (void)dev, (void)base, (void)bytes, (void)err;
    return 0;
}

static void model_unpin(struct sl_device *dev, void *base)
{
    (void)dev, (void)base;
}

static int model_look(struct sl_device *dev, struct sl_error *err)
{
    (void)dev, (void)err;
    return 0;
}

static void *model_native_queue(struct sl_device *dev, enum sl_queue queue)
{
    (void)dev, (void)queue;
    return NULL;
}

/* --- life ----------------------------------------------------------------- */

static bool idle(const struct model_device *m)
{
    for (int q = 0; q < SL_QUEUE_COUNT; q++) {
        if (m->queues[q].first != NULL)
            return false;
    }
    return true;
}

/* What is on the queues ends first: its flows point into it. */
static void model_close(struct sl_device *dev)
{
    struct model_device *m = (struct model_device *)dev;

    pthread_mutex_lock(&m->mutex);
    while (!idle(m))
        sl_clock_wait(m->machine->clock, &m->news, &m->mutex);
    pthread_mutex_unlock(&m->mutex);
    while (m->arenas != NULL)
        model_free(dev, m->arenas->region.base);
    pthread_cond_destroy(&m->news);
    pthread_mutex_destroy(&m->mutex);
    free(m);
}

static const struct sl_device_ops model_ops = {
    .name = "model",
    .attach = model_attach,
    .look = model_look,
    .alloc = model_alloc,
    .free = model_free,
    .pin = model_pin,
    .unpin = model_unpin,
    .copy_up = model_copy_up,
    .copy_down = model_copy_down,
    .copy_within = model_copy_within,
    .event_create = model_event_create,
    .event_destroy = model_event_destroy,
    .record = model_record,
    .queue_wait = model_queue_wait,
    .done = model_done,
    .sync = model_sync,
    .span = model_span,
    .native_queue = model_native_queue,
    .close = model_close,
};

int sl_device_open_sim(struct sl_device **dev, struct sl_sim_machine *m,
                       struct sl_error *err)
{
    struct model_device *d = calloc(1, sizeof *d);

    if (d == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory for the model of a GPU");
    d->machine = m;
    d->dev.ops = &model_ops;
    d->dev.info.vram_bytes = d->dev.info.vram_free =
        m->spec.memory_bytes[SL_DEVICE];
    d->dev.info.vram_bps = (uint64_t)m->spec.rates.worker[SL_DEVICE].memory_bps;
    snprintf(d->dev.info.name, sizeof d->dev.info.name, "%s", m->spec.name);
    for (int q = 0; q < SL_QUEUE_COUNT; q++)
        d->queues[q].last = &d->queues[q].first;
    pthread_mutex_init(&d->mutex, NULL);
    pthread_cond_init(&d->news, NULL);
    *dev = &d->dev;
    return 0;
}
