#include "config.h"

#include <stdio.h>
#include <stdlib.h>

#include "offload/device_cuda.h"
#include "src/base/bytes.h"
#include "src/base/clock.h"

/* How far off a device's times may be, and how often that is tried for. */
#define EPOCH_NS    200000u
#define EPOCH_TRIES 100

struct cuda_device {
    struct sl_device dev; /* first */
    cudaStream_t queues[SL_QUEUE_COUNT];
    /* What times of events are counted from, and when that was. */
    cudaEvent_t epoch;
    uint64_t epoch_ns;
};

static struct cuda_device *cuda_of(struct sl_device *dev)
{
    return (struct cuda_device *)dev;
}

/* An event is the runtime's own. */
static cudaEvent_t event_of(struct sl_event *event)
{
    return (cudaEvent_t)(void *)event;
}

/* A thread's calls go to the device that it has chosen: each that calls chooses
 * once. */
static int cuda_attach(struct sl_device *dev, struct sl_error *err)
{
    cudaError_t rc = cudaSetDevice(dev->info.ordinal);

    if (rc != cudaSuccess)
        return sl_cuda_fail(&dev->info, rc, err, "cannot be used by a thread");
    return 0;
}

/* --- memory --------------------------------------------------------------- */

static int cuda_look(struct sl_device *dev, struct sl_error *err)
{
    return sl_cuda_look_at_memory(&dev->info, dev->contexts, err);
}

/* The error is taken out of the runtime: the next call would report it as its
 * own. */
static int cuda_alloc(struct sl_device *dev, void **p, uint64_t bytes,
                      struct sl_error *err)
{
    char want[SL_SIZE_TEXT], have[SL_SIZE_TEXT];
    size_t free_bytes, total;
    cudaError_t rc = cudaMalloc(p, bytes);

    if (rc == cudaSuccess)
        return 0;
    if (rc != cudaErrorMemoryAllocation ||
        cudaMemGetInfo(&free_bytes, &total) != cudaSuccess)
        return sl_cuda_fail(&dev->info, rc, err, "no room for %s",
                            sl_size_format(want, bytes));
    cudaGetLastError();
    return sl_fail(err, SL_ERR_NOMEM,
                   "GPU %d (%s): no room for %s in one piece, %s are free: a "
                   "smaller --vram needs less",
                   dev->info.ordinal, dev->info.name,
                   sl_size_format(want, bytes),
                   sl_size_format(have, free_bytes));
}

static void cuda_free(struct sl_device *dev, void *p)
{
    cudaFree(p);
}

static int cuda_pin(struct sl_device *dev, void *base, uint64_t bytes,
                    struct sl_error *err)
{
    char size[SL_SIZE_TEXT];
    cudaError_t rc = cudaHostRegister(base, bytes, cudaHostRegisterDefault);

    if (rc == cudaSuccess)
        return 0;
    sl_size_format(size, bytes);
    if (rc == cudaErrorMemoryAllocation) { /* the host's, not the device's */
        cudaGetLastError();
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "GPU %d (%s): the driver does not pin %s of memory: "
                       "raise ulimit -l, or the container's memlock (WSL pins "
                       "less than half of RAM)",
                       dev->info.ordinal, dev->info.name, size);
    }
    sl_cuda_fail(&dev->info, rc, err, "the driver does not pin %s of memory",
                 size);
    /* It can be done without, unless there is no driver any more. */
    if (err != NULL && err->code != SL_ERR_IO)
        err->code = SL_ERR_UNSUPPORTED;
    return -1;
}

static void cuda_unpin(struct sl_device *dev, void *base)
{
    cudaHostUnregister(base);
}

/* --- copies --------------------------------------------------------------- */

static int copy(struct sl_device *dev, enum sl_queue queue, void *to,
                const void *from, uint64_t bytes, enum cudaMemcpyKind kind,
                struct sl_error *err)
{
    cudaStream_t stream = cuda_of(dev)->queues[queue];
    cudaError_t rc = cudaMemcpyAsync(to, from, bytes, kind, stream);

    if (rc != cudaSuccess)
        return sl_cuda_fail(&dev->info, rc, err, "copying %llu bytes",
                            (unsigned long long)bytes);
    return 0;
}

static int cuda_copy_up(struct sl_device *dev, enum sl_queue queue, void *to,
                        const void *from, uint64_t bytes, struct sl_error *err)
{
    return copy(dev, queue, to, from, bytes, cudaMemcpyHostToDevice, err);
}

static int cuda_copy_down(struct sl_device *dev, enum sl_queue queue, void *to,
                          const void *from, uint64_t bytes,
                          struct sl_error *err)
{
    return copy(dev, queue, to, from, bytes, cudaMemcpyDeviceToHost, err);
}

static int cuda_copy_within(struct sl_device *dev, enum sl_queue queue,
                            void *to, const void *from, uint64_t bytes,
                            struct sl_error *err)
{
    return copy(dev, queue, to, from, bytes, cudaMemcpyDeviceToDevice, err);
}

/* --- events --------------------------------------------------------------- */

static int cuda_event_create(struct sl_device *dev, struct sl_event **event,
                             bool timed, struct sl_error *err)
{
    /* A thread that waits sleeps: the cores have weights of their own to
       multiply. */
    unsigned flags = cudaEventBlockingSync;
    cudaEvent_t e;
    cudaError_t rc;

    if (!timed)
        flags |= cudaEventDisableTiming;
    rc = cudaEventCreateWithFlags(&e, flags);
    if (rc != cudaSuccess)
        return sl_cuda_fail(&dev->info, rc, err, "no room for an event");
    *event = (struct sl_event *)(void *)e;
    return 0;
}

static void cuda_event_destroy(struct sl_device *dev, struct sl_event *event)
{
    if (event != NULL)
        cudaEventDestroy(event_of(event));
}

static int cuda_record(struct sl_device *dev, enum sl_queue queue,
                       struct sl_event *event, struct sl_error *err)
{
    cudaError_t rc =
        cudaEventRecord(event_of(event), cuda_of(dev)->queues[queue]);

    if (rc != cudaSuccess)
        return sl_cuda_fail(&dev->info, rc, err, "recording an event");
    return 0;
}

static int cuda_queue_wait(struct sl_device *dev, enum sl_queue queue,
                           struct sl_event *event, struct sl_error *err)
{
    cudaError_t rc =
        cudaStreamWaitEvent(cuda_of(dev)->queues[queue], event_of(event), 0);

    if (rc != cudaSuccess)
        return sl_cuda_fail(&dev->info, rc, err, "ordering two queues");
    return 0;
}

/* Not ready is no error, and is not left behind for the next call. */
static int cuda_done(struct sl_device *dev, struct sl_event *event,
                     struct sl_error *err)
{
    cudaError_t rc = cudaEventQuery(event_of(event));

    if (rc == cudaSuccess)
        return 1;
    if (rc != cudaErrorNotReady)
        return sl_cuda_fail(&dev->info, rc, err, "looking at its work");
    cudaGetLastError();
    return 0;
}

static int cuda_sync(struct sl_device *dev, struct sl_event *event,
                     struct sl_error *err)
{
    cudaError_t rc = cudaEventSynchronize(event_of(event));

    if (rc != cudaSuccess)
        return sl_cuda_fail(&dev->info, rc, err, "waiting for its work");
    return 0;
}

/* Milliseconds come as float: a length is exact to a microsecond, the moment
 * it began to 1 part in 2^24 of the time since the device was opened. */
static int cuda_span(struct sl_device *dev, struct sl_event *from,
                     struct sl_event *to, uint64_t *begin_ns,
                     uint64_t *length_ns, struct sl_error *err)
{
    struct cuda_device *d = cuda_of(dev);
    float since = 0, length = 0;
    cudaError_t rc;

    rc = cudaEventElapsedTime(&since, d->epoch, event_of(from));
    if (rc == cudaSuccess)
        rc = cudaEventElapsedTime(&length, event_of(from), event_of(to));
    if (rc != cudaSuccess)
        return sl_cuda_fail(&dev->info, rc, err, "reading times of events");
    *begin_ns = d->epoch_ns + (since > 0 ? (uint64_t)((double)since * 1e6) : 0);
    *length_ns = length > 0 ? (uint64_t)((double)length * 1e6) : 0;
    return 0;
}

/* --- life ----------------------------------------------------------------- */

static void *cuda_native_queue(struct sl_device *dev, enum sl_queue queue)
{
    return cuda_of(dev)->queues[queue];
}

static void cuda_close(struct sl_device *dev)
{
    struct cuda_device *d = cuda_of(dev);

    /* Every call may fail on a lost device; there is nothing left to do. */
    cudaSetDevice(dev->info.ordinal);
    for (int i = 0; i < SL_QUEUE_COUNT; i++)
        if (d->queues[i] != NULL) {
            cudaStreamSynchronize(d->queues[i]);
            cudaStreamDestroy(d->queues[i]);
        }
    if (d->epoch != NULL)
        cudaEventDestroy(d->epoch);
    cudaGetLastError();
    free(d);
}

static const struct sl_device_ops cuda_ops = {
    .name = "cuda",
    .attach = cuda_attach,
    .look = cuda_look,
    .alloc = cuda_alloc,
    .free = cuda_free,
    .pin = cuda_pin,
    .unpin = cuda_unpin,
    .copy_up = cuda_copy_up,
    .copy_down = cuda_copy_down,
    .copy_within = cuda_copy_within,
    .event_create = cuda_event_create,
    .event_destroy = cuda_event_destroy,
    .record = cuda_record,
    .queue_wait = cuda_queue_wait,
    .done = cuda_done,
    .sync = cuda_sync,
    .span = cuda_span,
    .native_queue = cuda_native_queue,
    .close = cuda_close,
};

/* The event happens between two looks at the clock, which on a busy machine may
 * lie far apart: then it is recorded once more. */
static cudaError_t set_epoch(struct cuda_device *d)
{
    for (int i = 0; i < EPOCH_TRIES; i++) {
        uint64_t before = sl_clock_ns(), took;
        cudaError_t rc = cudaEventRecord(d->epoch, d->queues[SL_QUEUE_UP]);

        if (rc == cudaSuccess)
            rc = cudaEventSynchronize(d->epoch);
        if (rc != cudaSuccess)
            return rc;
        took = sl_clock_ns() - before;
        d->epoch_ns = before + took / 2;
        if (took <= EPOCH_NS)
            break;
    }
    return cudaSuccess;
}

static int make_queues(struct cuda_device *d, struct sl_error *err)
{
    cudaError_t rc = cudaSuccess;

    /* Not ordered by the default stream, which nobody uses. */
    for (int i = 0; i < SL_QUEUE_COUNT && rc == cudaSuccess; i++)
        rc = cudaStreamCreateWithFlags(&d->queues[i], cudaStreamNonBlocking);
    if (rc == cudaSuccess)
        rc = cudaEventCreateWithFlags(&d->epoch, cudaEventBlockingSync);
    if (rc == cudaSuccess)
        rc = set_epoch(d);
    if (rc != cudaSuccess)
        return sl_cuda_fail(&d->dev.info, rc, err, "cannot be opened");
    return 0;
}

/* The usable device with most free memory. A context that is in use stays. */
static int find_best(int *ordinal, const struct sl_device_contexts *contexts,
                     struct sl_error *err)
{
    struct sl_error first = {.code = SL_OK};
    uint64_t most = 0;
    int n;

    if (sl_cuda_count(&n, err) != 0)
        return -1;
    *ordinal = -1;
    for (int i = 0; i < n; i++) {
        struct sl_device_info info;
        struct sl_error why;

        if (n == 1) {
            *ordinal = 0;
            return 0;
        }
        if (sl_cuda_look(&info, i, NULL, &why) != 0) {
            if (first.code == SL_OK)
                first = why;
            continue;
        }
        if (contexts == NULL || i >= (int)SL_DEVICE_CONTEXTS ||
            contexts->bytes[i] == 0)
            cudaDeviceReset();
        if (info.vram_free > most) {
            most = info.vram_free;
            *ordinal = i;
        }
    }
    if (*ordinal >= 0)
        return 0;
    if (err != NULL)
        *err = first;
    return -1;
}

static int check_ordinal(int ordinal, struct sl_error *err)
{
    int n;

    if (sl_cuda_count(&n, err) != 0)
        return -1;
    if (ordinal >= 0 && ordinal < n)
        return 0;
    return sl_fail(err, SL_ERR_USAGE,
                   "there is no GPU %d: the last one here is %d ('sluice "
                   "devices' lists them)",
                   ordinal, n - 1);
}

int sl_device_open_cuda(struct sl_device **dev, int ordinal,
                        struct sl_device_contexts *contexts,
                        struct sl_error *err)
{
    struct cuda_device *d;

    if (ordinal == SL_DEVICE_BEST) {
        if (find_best(&ordinal, contexts, err) != 0)
            return -1;
    } else if (check_ordinal(ordinal, err) != 0) {
        return -1;
    }
    d = calloc(1, sizeof *d);
    if (d == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "GPU %d: no memory", ordinal);
    d->dev.ops = &cuda_ops;
    d->dev.contexts = contexts;
    if (sl_cuda_look(&d->dev.info, ordinal, contexts, err) != 0) {
        free(d);
        return -1;
    }
    if (make_queues(d, err) != 0) {
        cuda_close(&d->dev);
        return -1;
    }
    *dev = &d->dev;
    return 0;
}
