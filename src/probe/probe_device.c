#include "config.h"

#include <string.h>

#include "src/base/mem.h"
#include "src/probe/probe.h"

#define COPIES      4u
#define MOST_ROUNDS 8u
#define RAMP_NS     25000000u
/* As many as a row of a model has, or so. */
#define ROW_BYTES 16384u

/* The same copies again and again. */
struct device_probe {
    struct sl_device *dev;
    struct sl_region host;
    bool pinned;
    uint64_t bytes;
    void *there[2];
    struct sl_event *begin, *end, *came;
    enum sl_queue queue;
};

static void probe_fini(struct device_probe *p)
{
    const struct sl_device_ops *ops = p->dev->ops;

    if (p->begin != NULL)
        ops->event_destroy(p->dev, p->begin);
    if (p->end != NULL)
        ops->event_destroy(p->dev, p->end);
    if (p->came != NULL)
        ops->event_destroy(p->dev, p->came);
    ops->free(p->dev, p->there[0]);
    ops->free(p->dev, p->there[1]);
    if (p->pinned)
        ops->unpin(p->dev, p->host.base);
    sl_region_fini(&p->host);
}

/* Memory that cannot be pinned is copied from all the same, at the rate that
 * a run would have then. */
static int probe_init(struct device_probe *p, struct sl_error *err)
{
    const struct sl_device_ops *ops = p->dev->ops;
    struct sl_error ignored;

    if (ops->attach(p->dev, err) != 0 ||
        sl_region_init(&p->host, (size_t)p->bytes, "measuring copies", err) !=
            0 ||
        ops->alloc(p->dev, &p->there[0], p->bytes, err) != 0 ||
        ops->alloc(p->dev, &p->there[1], p->bytes, err) != 0 ||
        ops->event_create(p->dev, &p->begin, true, err) != 0 ||
        ops->event_create(p->dev, &p->end, true, err) != 0 ||
        ops->event_create(p->dev, &p->came, false, err) != 0)
        return -1;
    p->pinned = ops->pin(p->dev, p->host.base, p->host.bytes, &ignored) == 0;
    memset(p->host.base, 1, p->host.bytes);
    return 0;
}

static int copy(void *arg, struct sl_error *err)
{
    struct device_probe *p = arg;
    const struct sl_device_ops *ops = p->dev->ops;

    switch (p->queue) {
    case SL_QUEUE_UP:
        return ops->copy_up(p->dev, p->queue, p->there[0], p->host.base,
                            p->bytes, err);
    case SL_QUEUE_DOWN:
        return ops->copy_down(p->dev, p->queue, p->host.base, p->there[0],
                              p->bytes, err);
    default:
        return ops->copy_within(p->dev, p->queue, p->there[1], p->there[0],
                                p->bytes, err);
    }
}

/* There and back, as where the device computes a stage between two of the
 * host's: the host sleeps until the row has come. */
static int hand_over(void *arg, struct sl_error *err)
{
    struct device_probe *p = arg;
    const struct sl_device_ops *ops = p->dev->ops;
    uint64_t bytes = p->bytes < ROW_BYTES ? p->bytes : ROW_BYTES;

    if (ops->copy_up(p->dev, p->queue, p->there[0], p->host.base, bytes, err) !=
            0 ||
        ops->copy_down(p->dev, p->queue, p->host.base, p->there[0], bytes,
                       err) != 0 ||
        ops->record(p->dev, p->queue, p->came, err) != 0)
        return -1;
    return ops->sync(p->dev, p->came, err);
}

static int one_round(uint64_t *ns, const struct sl_device_work *w,
                     struct sl_error *err)
{
    const struct sl_device_ops *ops = w->dev->ops;
    uint64_t begin_ns;

    for (unsigned i = 0; i <= w->turns; i++) {
        if (i == 1 && ops->record(w->dev, w->queue, w->begin, err) != 0)
            return -1;
        if (w->turn(w->arg, err) != 0)
            return -1;
    }
    if (ops->record(w->dev, w->queue, w->end, err) != 0 ||
        ops->sync(w->dev, w->end, err) != 0)
        return -1;
    return ops->span(w->dev, w->begin, w->end, &begin_ns, ns, err);
}

int sl_probe_device_work(uint64_t *ns, const struct sl_device_work *w,
                         struct sl_error *err)
{
    uint64_t all = 0, once;

    *ns = UINT64_MAX;
    for (unsigned i = 0; i < w->most_rounds && all < RAMP_NS; i++) {
        if (one_round(&once, w, err) != 0)
            return -1;
        *ns = once < *ns ? once : *ns;
        all += once;
    }
    *ns = *ns > 0 ? *ns : 1;
    return 0;
}

/* Seconds of a turn. */
static int measure(double *seconds, struct device_probe *p, enum sl_queue queue,
                   int (*turn)(void *arg, struct sl_error *err),
                   struct sl_error *err)
{
    const struct sl_device_work w = {
        .dev = p->dev,
        .queue = queue,
        .begin = p->begin,
        .end = p->end,
        .turns = COPIES,
        .most_rounds = MOST_ROUNDS,
        .turn = turn,
        .arg = p,
    };
    const struct sl_device_ops *ops = p->dev->ops;
    struct sl_error ignored;
    uint64_t ns;

    p->queue = queue;
    if (sl_probe_device_work(&ns, &w, err) == 0) {
        *seconds = (double)ns * 1e-9 / COPIES;
        return 0;
    }
    /* Copies may be under way, from memory that is given back now. */
    if (ops->record(p->dev, queue, p->end, &ignored) == 0)
        ops->sync(p->dev, p->end, &ignored);
    return -1;
}

int sl_probe_device(struct sl_device_rates *rates, struct sl_device *dev,
                    uint64_t bytes, struct sl_error *err)
{
    struct device_probe p = {.dev = dev, .bytes = bytes};
    double up, down, within, both;
    int rc = -1;

    if (probe_init(&p, err) == 0 &&
        measure(&up, &p, SL_QUEUE_UP, copy, err) == 0 &&
        measure(&down, &p, SL_QUEUE_DOWN, copy, err) == 0 &&
        measure(&within, &p, SL_QUEUE_COMPUTE, copy, err) == 0 &&
        measure(&both, &p, SL_QUEUE_COMPUTE, hand_over, err) == 0)
        rc = 0;
    if (rc == 0)
        *rates = (struct sl_device_rates){
            .up_bps = (double)bytes / up,
            .down_bps = (double)bytes / down,
            .vram_bps = 2 * (double)bytes / within, /* read and written */
            .hand_over_s = both / 2,
            .pinned = p.pinned,
        };
    probe_fini(&p);
    return rc;
}
