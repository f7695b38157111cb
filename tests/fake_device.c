#include "config.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "src/base/clock.h"
#include "tests/fake_device.h"
#include "tests/support.h"

/* Something on a queue: a copy, or an event to reach or to wait for. */
struct item {
    struct item *next;
    void *to;
    const void *from;
    uint64_t bytes;
    struct event *record, *wait;
    uint64_t turn; /* which recording of the event */
};

/* Recordings are counted: a wait is for those made before it. */
struct event {
    uint64_t recorded, reached;
    uint64_t ns; /* when it was reached last */
    bool timed;
    unsigned n_items; /* on queues that refer to it */
    bool dead;        /* destroyed: freed with the last of them */
};

struct queue {
    struct fake *fake;
    pthread_t thread;
    struct item *first, **last;
    bool hold;
};

struct fake {
    struct sl_device dev;
    struct fake_device_config config;
    pthread_mutex_t mutex; /* guards all that follows */
    pthread_cond_t changed;
    struct queue queues[SL_QUEUE_COUNT];
    unsigned n_objects;
    long left; /* calls until one fails; below 0: none does */
    bool lasting, failed, lost, stop;
    unsigned n_running; /* copies; a lost device has none */
};

static struct fake *fake_of(struct sl_device *dev)
{
    return (struct fake *)dev;
}

static void sleep_us(unsigned us)
{
    struct timespec t = {.tv_nsec = (long)us * 1000};

    if (us > 0)
        nanosleep(&t, NULL);
}

/* Memory that never fails, not even where a test lets malloc do so. */
static void *take(size_t bytes)
{
    void *p = aligned_alloc(256, (bytes + 255) / 256 * 256);

    assert_non_null(p);
    memset(p, 0xee, bytes);
    return p;
}

/* --- queues --------------------------------------------------------------- */

/* Does what comes first on the queue; with the mutex, which copies give up. */
static void run_item(struct fake *f, struct item *item)
{
    if (item->bytes > 0 && !f->lost) {
        f->n_running++;
        pthread_mutex_unlock(&f->mutex);
        sleep_us(f->config.copy_us);
        memcpy(item->to, item->from, item->bytes);
        pthread_mutex_lock(&f->mutex);
        f->n_running--;
    }
    if (item->record != NULL) {
        item->record->reached = item->turn;
        item->record->ns = sl_clock_ns();
    }
}

static bool runnable(const struct queue *q)
{
    const struct item *item = q->first;

    if (item == NULL || q->hold)
        return false;
    return item->wait == NULL || item->wait->reached >= item->turn;
}

static void forget(struct event *e)
{
    if (e != NULL && --e->n_items == 0 && e->dead)
        free(e);
}

static void *queue_main(void *arg)
{
    struct queue *q = arg;
    struct fake *f = q->fake;

    pthread_mutex_lock(&f->mutex);
    for (;;) {
        struct item *item;

        while (!runnable(q) && !(f->stop && q->first == NULL))
            pthread_cond_wait(&f->changed, &f->mutex);
        item = q->first;
        if (item == NULL)
            break;
        run_item(f, item);
        q->first = item->next;
        if (q->first == NULL)
            q->last = &q->first;
        forget(item->record);
        forget(item->wait);
        free(item);
        pthread_cond_broadcast(&f->changed);
    }
    pthread_mutex_unlock(&f->mutex);
    return NULL;
}

/* With the mutex. */
static void put(struct fake *f, enum sl_queue queue, struct item what)
{
    struct queue *q = &f->queues[queue];
    struct item *item = take(sizeof *item);

    *item = what;
    item->next = NULL;
    if (item->record != NULL)
        item->record->n_items++;
    if (item->wait != NULL)
        item->wait->n_items++;
    *q->last = item;
    q->last = &item->next;
    pthread_cond_broadcast(&f->changed);
}

/* --- failures ------------------------------------------------------------- */

/* Whether this call fails; with the mutex. */
static int fails(struct fake *f, const char *call, struct sl_error *err)
{
    if (f->left == 0) {
        f->failed = true;
        f->lost = f->lasting;
    }
    while (f->lost && f->n_running > 0)
        pthread_cond_wait(&f->changed, &f->mutex);
    if (f->left >= 0 && f->left-- == 0)
        return sl_fail(err, SL_ERR_IO, "fake device: %s failed", call);
    if (f->lost)
        return sl_fail(err, SL_ERR_IO, "fake device: it is lost (%s)", call);
    return 0;
}

static int enter(struct fake *f, const char *call, struct sl_error *err)
{
    pthread_mutex_lock(&f->mutex);
    if (fails(f, call, err) == 0)
        return 0;
    pthread_mutex_unlock(&f->mutex);
    return -1;
}

static void leave(struct fake *f)
{
    pthread_mutex_unlock(&f->mutex);
}

void fake_device_fail(struct sl_device *dev, long n, bool lost)
{
    struct fake *f = fake_of(dev);

    pthread_mutex_lock(&f->mutex);
    f->left = n;
    f->lasting = lost;
    f->failed = f->lost = false;
    pthread_mutex_unlock(&f->mutex);
}

bool fake_device_failed(struct sl_device *dev)
{
    struct fake *f = fake_of(dev);
    bool failed;

    pthread_mutex_lock(&f->mutex);
    f->left = -1;
    failed = f->failed;
    pthread_mutex_unlock(&f->mutex);
    return failed;
}

void fake_device_hold(struct sl_device *dev, enum sl_queue queue, bool hold)
{
    struct fake *f = fake_of(dev);

    pthread_mutex_lock(&f->mutex);
    f->queues[queue].hold = hold;
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->mutex);
}

unsigned fake_device_objects(struct sl_device *dev)
{
    struct fake *f = fake_of(dev);
    unsigned n;

    pthread_mutex_lock(&f->mutex);
    n = f->n_objects;
    pthread_mutex_unlock(&f->mutex);
    return n;
}

static void count_object(struct fake *f, int by)
{
    pthread_mutex_lock(&f->mutex);
    f->n_objects += (unsigned)by;
    pthread_mutex_unlock(&f->mutex);
}

/* --- the table ------------------------------------------------------------ */

static int fake_attach(struct sl_device *dev, struct sl_error *err)
{
    if (enter(fake_of(dev), "attach", err) != 0)
        return -1;
    leave(fake_of(dev));
    return 0;
}

static int fake_alloc(struct sl_device *dev, void **p, uint64_t bytes,
                      struct sl_error *err)
{
    if (enter(fake_of(dev), "alloc", err) != 0)
        return -1;
    fake_of(dev)->n_objects++;
    leave(fake_of(dev));
    *p = take(bytes);
    return 0;
}

static void fake_free(struct sl_device *dev, void *p)
{
    if (p != NULL)
        count_object(fake_of(dev), -1);
    free(p);
}

static int fake_pin(struct sl_device *dev, void *base, uint64_t bytes,
                    struct sl_error *err)
{
    struct fake *f = fake_of(dev);

    assert_int_equal((uintptr_t)base % 4096, 0);
    if (enter(f, "pin", err) != 0)
        return -1;
    if (f->config.pin_bytes > 0 && bytes > f->config.pin_bytes) {
        leave(f);
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "fake device: it does not pin %llu bytes",
                       (unsigned long long)bytes);
    }
    f->n_objects++;
    leave(f);
    return 0;
}

static void fake_unpin(struct sl_device *dev, void *base)
{
    count_object(fake_of(dev), -1);
}

static int fake_copy(struct sl_device *dev, enum sl_queue queue, void *to,
                     const void *from, uint64_t bytes, struct sl_error *err)
{
    if (enter(fake_of(dev), "copy", err) != 0)
        return -1;
    put(fake_of(dev), queue,
        (struct item){.to = to, .from = from, .bytes = bytes});
    leave(fake_of(dev));
    return 0;
}

static int fake_event_create(struct sl_device *dev, struct sl_event **event,
                             bool timed, struct sl_error *err)
{
    struct event *e;

    if (enter(fake_of(dev), "event_create", err) != 0)
        return -1;
    fake_of(dev)->n_objects++;
    leave(fake_of(dev));
    e = take(sizeof *e);
    *e = (struct event){.timed = timed};
    *event = (struct sl_event *)e;
    return 0;
}

static void fake_event_destroy(struct sl_device *dev, struct sl_event *event)
{
    struct event *e = (struct event *)event;
    struct fake *f = fake_of(dev);

    if (e == NULL)
        return;
    pthread_mutex_lock(&f->mutex);
    f->n_objects--;
    e->dead = true;
    if (e->n_items == 0)
        free(e);
    pthread_mutex_unlock(&f->mutex);
}

static int fake_record(struct sl_device *dev, enum sl_queue queue,
                       struct sl_event *event, struct sl_error *err)
{
    struct event *e = (struct event *)event;

    if (enter(fake_of(dev), "record", err) != 0)
        return -1;
    e->recorded++;
    put(fake_of(dev), queue, (struct item){.record = e, .turn = e->recorded});
    leave(fake_of(dev));
    return 0;
}

static int fake_queue_wait(struct sl_device *dev, enum sl_queue queue,
                           struct sl_event *event, struct sl_error *err)
{
    struct event *e = (struct event *)event;

    if (enter(fake_of(dev), "queue_wait", err) != 0)
        return -1;
    put(fake_of(dev), queue, (struct item){.wait = e, .turn = e->recorded});
    leave(fake_of(dev));
    return 0;
}

static int fake_done(struct sl_device *dev, struct sl_event *event,
                     struct sl_error *err)
{
    struct event *e = (struct event *)event;
    int done;

    if (enter(fake_of(dev), "done", err) != 0)
        return -1;
    done = e->reached == e->recorded;
    leave(fake_of(dev));
    return done;
}

static int fake_sync(struct sl_device *dev, struct sl_event *event,
                     struct sl_error *err)
{
    struct event *e = (struct event *)event;
    struct fake *f = fake_of(dev);

    if (enter(f, "sync", err) != 0)
        return -1;
    while (e->reached != e->recorded)
        pthread_cond_wait(&f->changed, &f->mutex);
    if (f->lost) {
        leave(f);
        return sl_fail(err, SL_ERR_IO, "fake device: it is lost (sync)");
    }
    leave(f);
    return 0;
}

static int fake_span(struct sl_device *dev, struct sl_event *from,
                     struct sl_event *to, uint64_t *begin_ns,
                     uint64_t *length_ns, struct sl_error *err)
{
    struct event *a = (struct event *)from, *b = (struct event *)to;

    if (enter(fake_of(dev), "span", err) != 0)
        return -1;
    assert_true(a->timed && b->timed);
    assert_true(a->reached == a->recorded && b->reached == b->recorded);
    *begin_ns = a->ns;
    *length_ns = b->ns - a->ns;
    leave(fake_of(dev));
    return 0;
}

static int fake_look(struct sl_device *dev, struct sl_error *err)
{
    return 0;
}

static void *fake_native_queue(struct sl_device *dev, enum sl_queue queue)
{
    return NULL;
}

static void fake_close(struct sl_device *dev)
{
    struct fake *f = fake_of(dev);

    pthread_mutex_lock(&f->mutex);
    f->stop = true;
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->mutex);
    for (int i = 0; i < SL_QUEUE_COUNT; i++)
        pthread_join(f->queues[i].thread, NULL);
    assert_int_equal(f->n_objects, 0);
    pthread_mutex_destroy(&f->mutex);
    pthread_cond_destroy(&f->changed);
    free(f);
}

static const struct sl_device_ops fake_ops = {
    .name = "fake",
    .attach = fake_attach,
    .look = fake_look,
    .alloc = fake_alloc,
    .free = fake_free,
    .pin = fake_pin,
    .unpin = fake_unpin,
    .copy_up = fake_copy,
    .copy_down = fake_copy,
    .copy_within = fake_copy,
    .event_create = fake_event_create,
    .event_destroy = fake_event_destroy,
    .record = fake_record,
    .queue_wait = fake_queue_wait,
    .done = fake_done,
    .sync = fake_sync,
    .span = fake_span,
    .native_queue = fake_native_queue,
    .close = fake_close,
};

struct sl_device *fake_device_open(const struct fake_device_config *config)
{
    struct fake *f = calloc(1, sizeof *f);

    assert_non_null(f);
    f->dev.ops = &fake_ops;
    f->config = *config;
    f->left = -1;
    pthread_mutex_init(&f->mutex, NULL);
    pthread_cond_init(&f->changed, NULL);
    for (int i = 0; i < SL_QUEUE_COUNT; i++) {
        struct queue *q = &f->queues[i];

        q->fake = f;
        q->last = &q->first;
        assert_int_equal(pthread_create(&q->thread, NULL, queue_main, q), 0);
    }
    return &f->dev;
}
