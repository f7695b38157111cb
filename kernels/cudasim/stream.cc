/* Streams and events. */
#include "config.h"

#include <deque>
#include <memory>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <vector>

#include "kernels/cudasim/sim.h"

#define ANY_DEVICE -1 /* the NULL stream's: whichever is current */

/* A point in a stream, reached or not. */
struct mark {
    pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    pthread_cond_t reached = PTHREAD_COND_INITIALIZER;
    bool done = false;
    uint64_t ns = 0;
    char order = 0;
};
typedef std::shared_ptr<mark> mark_ref;

struct CUevent_st {
    mark_ref last; /* the last record, or NULL */
    bool timed;
    int device;
};

struct CUstream_st {
    pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
    std::deque<sim_op *> queue;
    uint64_t n_put = 0, n_done = 0;
    bool closing = false, held = false;
    pthread_t thread;
    int device = ANY_DEVICE;
    char order = 0;
};

struct streams {
    std::vector<cudaStream_t> all; /* the NULL stream's first, if made */
    std::vector<cudaEvent_t> events;
    cudaStream_t null = nullptr;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* The lock is held. Never destroyed: streams may outlive main. */
static struct streams *get(void)
{
    static struct streams *s;

    if (!s)
        s = new streams();
    return s;
}

/* --- the worker ---------------------------------------------------------- */

/* The stream's next operation; NULL: the stream is closed. */
static struct sim_op *next_op(cudaStream_t s)
{
    struct sim_lock held(&s->lock);
    struct sim_op *op;

    while ((s->queue.empty() && !s->closing) || s->held)
        pthread_cond_wait(&s->changed, &s->lock);
    if (s->queue.empty())
        return nullptr;
    op = s->queue.front();
    s->queue.pop_front();
    return op;
}

static void *worker_main(void *arg)
{
    cudaStream_t s = static_cast<cudaStream_t>(arg);
    struct sim_block *block = sim_block_create();
    struct sim_op *op;

    sim_open_memory(true);
    while ((op = next_op(s)) != nullptr) {
        sim_acquire(op);
        if (!block)
            sim_set_fault(cudaErrorMemoryAllocation, "no memory for a stream");
        if (!sim_fault_error())
            op->run(block);
        else
            op->skip();
        sim_release(&s->order);
        delete op;
        struct sim_lock held(&s->lock);
        s->n_done++;
        pthread_cond_broadcast(&s->changed);
    }
    sim_block_destroy(block);
    return nullptr;
}

static cudaError_t make_stream(cudaStream_t *stream)
{
    cudaStream_t s = new CUstream_st();
    int rc;
    {
        struct sim_hidden hidden;

        rc = pthread_create(&s->thread, nullptr, worker_main, s);
    }
    if (rc != 0) {
        delete s;
        return cudaErrorMemoryAllocation;
    }
    *stream = s;
    return cudaSuccess;
}

cudaStream_t sim_find_stream(cudaStream_t stream)
{
    struct sim_lock held(&lock);
    struct streams *all = get();

    if (!stream) {
        if (!all->null && make_stream(&all->null) == cudaSuccess)
            all->all.push_back(all->null);
        return all->null;
    }
    for (cudaStream_t s : all->all)
        if (s == stream)
            return s;
    return nullptr;
}

cudaError_t sim_check_stream(const char *call, cudaStream_t stream, int device)
{
    cudaStream_t s = sim_find_stream(stream);

    if (s && s->device != ANY_DEVICE && s->device != device)
        return sim_refuse(cudaErrorInvalidResourceHandle,
                          "%s: a stream of device %d, for device %d", call,
                          s->device, device);
    return cudaSuccess;
}

cudaError_t sim_enqueue(const char *call, cudaStream_t stream,
                        std::unique_ptr<sim_op> op)
{
    cudaStream_t s = sim_find_stream(stream);
    struct sim_op *taken = op.release();

    if (!s) {
        delete taken;
        return sim_refuse(cudaErrorInvalidResourceHandle,
                          "%s: there is no stream %p", call,
                          static_cast<void *>(stream));
    }
    sim_release(taken);
    struct sim_lock held(&s->lock);
    s->queue.push_back(taken);
    s->n_put++;
    pthread_cond_broadcast(&s->changed);
    return cudaSuccess;
}

void sim_wait_idle(cudaStream_t s)
{
    {
        struct sim_lock held(&s->lock);
        uint64_t n = s->n_put;

        while (s->n_done < n)
            pthread_cond_wait(&s->changed, &s->lock);
    }
    sim_acquire(&s->order);
}

void sim_drain(void)
{
    std::vector<cudaStream_t> all;
    {
        struct sim_lock held(&lock);

        all = get()->all;
    }
    for (cudaStream_t s : all)
        sim_wait_idle(s);
}

size_t sim_live_streams(void)
{
    struct sim_lock held(&lock);
    struct streams *s = get();

    return s->all.size() - (s->null != nullptr) + s->events.size();
}

void cudasim_hold(cudaStream_t stream)
{
    cudaStream_t s = sim_find_stream(stream);
    struct sim_lock held(&s->lock);

    s->held = true;
}

void cudasim_release(cudaStream_t stream)
{
    cudaStream_t s = sim_find_stream(stream);
    struct sim_lock held(&s->lock);

    s->held = false;
    pthread_cond_broadcast(&s->changed);
}

/* --- streams ------------------------------------------------------------- */

static cudaError_t create_stream(const char *call, cudaStream_t *stream,
                                 unsigned int flags)
{
    cudaError_t e = sim_enter(call);

    if (e)
        return sim_leave(e);
    if (flags != cudaStreamNonBlocking)
        return sim_refuse(cudaErrorNotSupported,
                          "%s: cudasim has no streams that wait for the NULL "
                          "stream; say cudaStreamNonBlocking",
                          call);
    e = make_stream(stream);
    if (e)
        return sim_leave(e);
    (*stream)->device = sim_device();
    struct sim_lock held(&lock);
    get()->all.push_back(*stream);
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned int flags)
{
    return create_stream("cudaStreamCreateWithFlags", stream, flags);
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream,
                                         unsigned int flags, int priority)
{
    return create_stream("cudaStreamCreateWithPriority", stream, flags);
}

cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest)
{
    *least = 0;
    *greatest = -5;
    return sim_leave(sim_enter("cudaDeviceGetStreamPriorityRange"));
}

/* The stream's work is still done, as on a device. */
cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    cudaError_t e = sim_enter("cudaStreamDestroy");
    cudaStream_t s = stream ? sim_find_stream(stream) : nullptr;

    if (!s)
        return sim_refuse(cudaErrorInvalidResourceHandle,
                          "cudaStreamDestroy: there is no stream %p",
                          static_cast<void *>(stream));
    {
        struct sim_lock held(&lock);
        std::vector<cudaStream_t> &all = get()->all;

        for (size_t i = 0; i < all.size(); i++)
            if (all[i] == s) {
                all.erase(all.begin() + (ptrdiff_t)i);
                break;
            }
    }
    {
        struct sim_lock held(&s->lock);

        s->closing = true;
        s->held = false;
        pthread_cond_broadcast(&s->changed);
    }
    {
        struct sim_hidden hidden;

        pthread_join(s->thread, nullptr);
        delete s;
    }
    return sim_leave(e);
}

cudaError_t cudaStreamQuery(cudaStream_t stream)
{
    cudaError_t e = sim_enter("cudaStreamQuery");
    cudaStream_t s = sim_find_stream(stream);
    bool idle;

    if (e)
        return sim_leave(e);
    if (!s)
        return sim_leave(cudaErrorInvalidResourceHandle);
    {
        struct sim_lock held(&s->lock);

        idle = s->n_done == s->n_put;
    }
    if (!idle)
        return cudaErrorNotReady;
    sim_acquire(&s->order);
    return sim_leave(sim_fault_error());
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    cudaError_t e = sim_enter("cudaStreamSynchronize");
    cudaStream_t s = sim_find_stream(stream);

    if (e)
        return sim_leave(e);
    if (!s)
        return sim_leave(cudaErrorInvalidResourceHandle);
    sim_wait_idle(s);
    return sim_leave(sim_fault_error());
}

cudaError_t cudaDeviceSynchronize(void)
{
    cudaError_t e = sim_enter("cudaDeviceSynchronize");

    if (e)
        return sim_leave(e);
    sim_drain();
    return sim_leave(sim_fault_error());
}

cudaError_t cudaDeviceReset(void)
{
    cudaError_t e = sim_enter_always("cudaDeviceReset");

    if (!e && sim_has_memory(sim_device()))
        return sim_refuse(cudaErrorInvalidValue,
                          "cudaDeviceReset: memory of device %d is in use",
                          sim_device());
    if (!e)
        sim_drop_context();
    return sim_leave(e);
}

/* --- events -------------------------------------------------------------- */

static void reach(struct mark *m)
{
    struct timespec t;

    sim_release(&m->order);
    struct sim_lock held(&m->lock);
    clock_gettime(CLOCK_MONOTONIC, &t);
    m->ns = (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
    m->done = true;
    pthread_cond_broadcast(&m->reached);
}

static void wait_for(struct mark *m)
{
    {
        struct sim_lock held(&m->lock);

        while (!m->done)
            pthread_cond_wait(&m->reached, &m->lock);
    }
    sim_acquire(&m->order);
}

static bool is_reached(struct mark *m)
{
    struct sim_lock held(&m->lock);

    return m->done;
}

struct record_op : sim_op {
    mark_ref m;

    void run(struct sim_block *block) override
    {
        reach(m.get());
    }
    void skip() override
    {
        reach(m.get());
    }
};

struct wait_op : sim_op {
    mark_ref m;

    void run(struct sim_block *block) override
    {
        wait_for(m.get());
    }
};

/* The event's last record; *known says whether there is such an event. */
static mark_ref last_of(cudaEvent_t event, bool *known)
{
    struct sim_lock held(&lock);

    *known = false;
    for (cudaEvent_t e : get()->events)
        if (e == event) {
            *known = true;
            return e->last;
        }
    return nullptr;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned int flags)
{
    cudaError_t e = sim_enter("cudaEventCreateWithFlags");

    if (e)
        return sim_leave(e);
    struct sim_lock held(&lock);
    *event = new CUevent_st();
    (*event)->timed = !(flags & cudaEventDisableTiming);
    (*event)->device = sim_device();
    get()->events.push_back(*event);
    return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t *event)
{
    return cudaEventCreateWithFlags(event, cudaEventDefault);
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    cudaError_t e = sim_enter("cudaEventDestroy");
    bool found = false;
    {
        struct sim_lock held(&lock);
        std::vector<cudaEvent_t> &events = get()->events;

        for (size_t i = 0; i < events.size() && !found; i++)
            if (events[i] == event) {
                found = true;
                delete event;
                events.erase(events.begin() + (ptrdiff_t)i);
            }
    }
    if (!found)
        return sim_refuse(cudaErrorInvalidResourceHandle,
                          "cudaEventDestroy: there is no event %p",
                          static_cast<void *>(event));
    return sim_leave(e);
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    cudaError_t e = sim_enter("cudaEventRecord");
    std::unique_ptr<record_op> op(new record_op());
    mark_ref m = std::make_shared<mark>();
    bool known;

    if (e)
        return sim_leave(e);
    last_of(event, &known);
    if (!known)
        return sim_leave(cudaErrorInvalidResourceHandle);
    op->m = m;
    e = sim_check_stream("cudaEventRecord", stream, event->device);
    if (e)
        return e;
    e = sim_enqueue("cudaEventRecord", stream, std::move(op));
    if (e)
        return e;
    struct sim_lock held(&lock);
    event->last = m;
    return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event,
                                unsigned int flags)
{
    cudaError_t e = sim_enter("cudaStreamWaitEvent");
    std::unique_ptr<wait_op> op(new wait_op());
    bool known;

    if (e)
        return sim_leave(e);
    op->m = last_of(event, &known);
    if (!known)
        return sim_leave(cudaErrorInvalidResourceHandle);
    if (!op->m) /* never recorded: nothing to wait for, says CUDA */
        return cudaSuccess;
    return sim_enqueue("cudaStreamWaitEvent", stream, std::move(op));
}

cudaError_t cudaEventQuery(cudaEvent_t event)
{
    cudaError_t e = sim_enter("cudaEventQuery");
    bool known;
    mark_ref m = last_of(event, &known);

    if (e)
        return sim_leave(e);
    if (!known)
        return sim_leave(cudaErrorInvalidResourceHandle);
    if (m && !is_reached(m.get()))
        return cudaErrorNotReady;
    if (m)
        sim_acquire(&m->order);
    return sim_leave(sim_fault_error());
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    cudaError_t e = sim_enter("cudaEventSynchronize");
    bool known;
    mark_ref m = last_of(event, &known);

    if (e)
        return sim_leave(e);
    if (!known)
        return sim_leave(cudaErrorInvalidResourceHandle);
    if (m)
        wait_for(m.get());
    return sim_leave(sim_fault_error());
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to)
{
    cudaError_t e = sim_enter("cudaEventElapsedTime");
    bool known_from, known_to;
    mark_ref a = last_of(from, &known_from), b = last_of(to, &known_to);

    if (e)
        return sim_leave(e);
    if (!a || !b || !from->timed || !to->timed)
        return sim_leave(cudaErrorInvalidResourceHandle);
    if (!is_reached(a.get()) || !is_reached(b.get()))
        return sim_leave(cudaErrorNotReady);
    *ms = (float)((double)((int64_t)(b->ns - a->ns)) * 1e-6);
    return cudaSuccess;
}
