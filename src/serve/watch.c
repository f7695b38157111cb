#include "config.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <time.h>

#include "src/base/clock.h"
#include "src/serve/http.h"

/* A client that has left is noticed within this time. */
#define LOOK_EVERY_NS 200000000L
/* An answer that is there is taken at least so fast. */
#define LEAST_BPS 32768u

/* libmicrohttpd looks at no connection that is suspended. A client that has
 * closed its side is one that has left, as for most servers. */
static bool has_left(const struct sl_req *r)
{
    struct pollfd fd = {r->conn->fd, POLLRDHUP, 0};

    return poll(&fd, 1, 0) > 0 &&
           (fd.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

static void look_after(struct sl_req *r, uint64_t now_ns)
{
    uint64_t silence_ns = (uint64_t)r->s->c->progress_s * 1000000000u;

    if (!r->suspended)
        return;
    if (has_left(r)) {
        r->gone = true;
        if (r->job != NULL) {
            struct sl_job *job = r->job;

            r->job = NULL;
            sl_job_leave(job);
        }
        sl_http_wake_one(r);
    } else if (now_ns - r->said_ns >= silence_ns) {
        r->tick = true;
        r->said_ns = now_ns;
        sl_http_wake_one(r);
    }
}

/* Does the client take an answer that is there, byte by byte perhaps, more
 * slowly than any does that wants it? (Of one that takes nothing at all
 * libmicrohttpd knows.) */
static bool dawdles(const struct sl_req *r, uint64_t now_ns, uint64_t idle_ns)
{
    uint64_t from_ns = r->begun_ns, room_ns = idle_ns;

    if (r->job == NULL || !sl_job_ended(r->job))
        return false;
    if (r->job->ended_ns > from_ns)
        from_ns = r->job->ended_ns;
    room_ns += r->job->bytes * (1000000000u / LEAST_BPS);
    return now_ns > from_ns && now_ns - from_ns > room_ns;
}

/* Connections that bring no whole request: idle ones, and those that send one
 * byte now and then; and readers of that kind. */
static void close_idle(struct sl_server *s, uint64_t now_ns)
{
    uint64_t idle_ns = (uint64_t)s->c->idle_s * 1000000000u;

    for (struct sl_conn *c = s->conns; c != NULL; c = c->after) {
        if (idle_ns > 0 && c->busy == 0 && now_ns - c->since_ns > idle_ns)
            shutdown(c->fd, SHUT_RDWR);
    }
    for (struct sl_req *r = s->reqs; r != NULL; r = r->after) {
        if (idle_ns > 0 && ((!r->handled && now_ns - r->begun_ns > idle_ns) ||
                            dawdles(r, now_ns, idle_ns)))
            shutdown(r->conn->fd, SHUT_RDWR);
    }
}

void *sl_watch(void *server)
{
    struct sl_server *s = server;
    struct timespec pause = {0, LOOK_EVERY_NS};
    bool on = true;

    while (on) {
        uint64_t now_ns;

        pthread_mutex_lock(&s->lock);
        now_ns = sl_clock_ns(); /* no earlier than what is in the lists */
        on = s->state != SL_SERVE_ENDING;
        for (struct sl_req *r = s->reqs; r != NULL && on; r = r->after)
            look_after(r, now_ns);
        close_idle(s, now_ns);
        sl_jobs_tidy(s, now_ns);
        /* A pass that has begun meanwhile, or an interrupt that a pass's
         * beginning has swallowed. */
        if (s->batcher != NULL && s->rt != NULL && sl_batcher_idle(s->batcher))
            sl_runtime_interrupt(s->rt);
        pthread_mutex_unlock(&s->lock);
        nanosleep(&pause, NULL);
    }
    return NULL;
}
