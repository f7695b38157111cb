#include "config.h"

#include <stdlib.h>

#include "offload/sim_machine.h"
#include "src/base/mem.h"

struct model_read {
    struct sl_flow flow;
    struct model_io *io;
    struct model_read *next; /* of the list it is in */
    uint64_t ready_ns;       /* it can be served from then on */
    uint64_t tag;
    uint32_t bytes;
    unsigned file; /* the disk that it is on */
};

/* Reads that wait for a disk, the first is being served. */
struct model_disk {
    struct model_read *asked, **last_asked;
};

/* A disk serves one read after another, at its full rate; the latency of
   those that wait passes meanwhile. Fields belong to whoever has the clock's
   turn. */
struct model_io {
    struct sl_io io;
    struct sl_sim_machine *machine;
    struct model_read *reads; /* (depth) */
    struct model_read *idle;
    struct model_disk disks[SL_IO_FILES];
    struct model_read *ended, **last_ended;
    bool woken;
    pthread_mutex_t mutex;
    pthread_cond_t news; /* a read has ended, or wake */
};

/* Starts the read at the head of a queue. What is left of its latency passes
 * first: a real disk has looked for it while it served those before. */
static void serve(struct model_io *m, const struct model_disk *d)
{
    struct model_read *r = d->asked;
    uint64_t now = sl_clock_now(m->machine->clock);

    if (r == NULL)
        return;
    r->flow.delay_ns = r->ready_ns > now ? r->ready_ns - now : 0;
    sl_fluid_start(&m->machine->fluid, &r->flow);
}

/* Called by the fluid in the clock's turn, so that the lists need no lock. */
static void read_ended(struct sl_flow *flow)
{
    struct model_read *r = (struct model_read *)flow;
    struct model_io *m = r->io;
    struct model_disk *d = &m->disks[r->file];

    d->asked = r->next;
    if (d->asked == NULL)
        d->last_asked = &d->asked;
    r->next = NULL;
    *m->last_ended = r;
    m->last_ended = &r->next;
    sl_clock_broadcast(m->machine->clock, &m->news);
    serve(m, d);
}

static int model_submit(struct sl_io *io, const struct sl_io_read *read,
                        struct sl_error *err)
{
    struct model_io *m = (struct model_io *)io;
    struct model_disk *d = &m->disks[read->file];
    enum sl_pipe pipe = read->file == 0 ? SL_PIPE_DISK : SL_PIPE_MIRROR;
    struct model_read *r = m->idle;
    double latency_s = m->machine->spec.rates.disk_latency_s;

    if (r == NULL)
        return sl_fail(err, SL_ERR_INTERNAL, "more reads than there may be");
    m->idle = r->next;
    r->next = NULL;
    r->tag = read->tag;
    r->bytes = read->bytes;
    r->file = read->file;
    r->ready_ns = sl_clock_now(m->machine->clock) + (uint64_t)(latency_s * 1e9);
    r->flow = (struct sl_flow){
        .bytes = read->bytes,
        .pipes = 1u << pipe | 1u << SL_PIPE_DRAM,
        .done = read_ended,
    };
    *d->last_asked = r;
    d->last_asked = &r->next;
    if (d->asked == r)
        serve(m, d);
    return 0;
}

static int model_wait(struct sl_io *io, struct sl_io_done *done, unsigned max,
                      struct sl_error *err)
{
    struct model_io *m = (struct model_io *)io;
    unsigned n = 0;

    (void)err;
    pthread_mutex_lock(&m->mutex);
    while (m->ended == NULL && !m->woken)
        sl_clock_wait(m->machine->clock, &m->news, &m->mutex);
    m->woken = false;
    while (m->ended != NULL && n < max) {
        struct model_read *r = m->ended;

        m->ended = r->next;
        if (m->ended == NULL)
            m->last_ended = &m->ended;
        done[n++] = (struct sl_io_done){
            .tag = r->tag, .result = (int)r->bytes, .file = r->file};
        r->next = m->idle;
        m->idle = r;
    }
    pthread_mutex_unlock(&m->mutex);
    return (int)n;
}

static void model_wake(struct sl_io *io)
{
    struct model_io *m = (struct model_io *)io;

    m->woken = true;
    sl_clock_broadcast(m->machine->clock, &m->news);
}

/* Reads in flight end first: their flows point into m. */
static void model_close(struct sl_io *io)
{
    struct model_io *m = (struct model_io *)io;

    pthread_mutex_lock(&m->mutex);
    for (unsigned i = 0; i < SL_IO_FILES; i++) {
        while (m->disks[i].asked != NULL)
            sl_clock_wait(m->machine->clock, &m->news, &m->mutex);
    }
    pthread_mutex_unlock(&m->mutex);
    pthread_cond_destroy(&m->news);
    pthread_mutex_destroy(&m->mutex);
    free(m->reads);
    free(m);
}

static const struct sl_io_ops model_ops = {
    .name = "model",
    .submit = model_submit,
    .wait = model_wait,
    .wake = model_wake,
    .close = model_close,
};

int sl_io_open_sim(struct sl_io **io, const struct sl_io_config *config,
                   struct sl_error *err)
{
    unsigned depth = config->depth > 0 ? config->depth : SL_IO_DEPTH;
    struct model_io *m = calloc(1, sizeof *m);

    if (m != NULL)
        m->reads = sl_zalloc_array(depth, sizeof *m->reads);
    if (m == NULL || m->reads == NULL) {
        free(m);
        return sl_fail(err, SL_ERR_NOMEM, "no memory for the model of a disk");
    }
    m->io = (struct sl_io){&model_ops, true, true};
    m->machine = config->arg;
    m->last_ended = &m->ended;
    for (unsigned i = 0; i < SL_IO_FILES; i++)
        m->disks[i].last_asked = &m->disks[i].asked;
    for (unsigned i = 0; i < depth; i++) {
        m->reads[i].io = m;
        m->reads[i].next = m->idle;
        m->idle = &m->reads[i];
    }
    pthread_mutex_init(&m->mutex, NULL);
    pthread_cond_init(&m->news, NULL);
    *io = &m->io;
    return 0;
}
