#include "config.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "src/base/vclock.h"

/*
 *   state    where               becomes
 *   READY    ready list          RUNNING  its turn has come
 *   RUNNING  clock->running      READY / WAITING / ENDED, by its own doing
 *   WAITING  waiting list        READY    its condition is signalled
 *   ENDED    ended list          freed by join
 */
struct thread {
    struct thread *next; /* of the list it is in */
    const void *awaits;  /* while WAITING: a condition, or a thread */
    pthread_cond_t turn; /* it runs */
    pthread_t id;
    struct sl_vclock *clock;
    void *(*run)(void *);
    void *arg;
};

struct list {
    struct thread *first, **end;
};

struct sl_vclock {
    struct sl_clock clock;
    pthread_mutex_t mutex; /* guards all that follows */
    uint64_t now_ns;
    struct thread *running;
    struct list ready, waiting, ended;
    struct sl_vtimer *timers; /* earliest first */
    struct thread first;
};

static void list_init(struct list *l)
{
    l->first = NULL;
    l->end = &l->first;
}

static void append(struct list *l, struct thread *t)
{
    t->next = NULL;
    *l->end = t;
    l->end = &t->next;
}

static struct thread *take(struct list *l, struct thread **at)
{
    struct thread *t = *at;

    *at = t->next;
    if (t->next == NULL)
        l->end = at;
    return t;
}

/* Makes those ready that await something. Returns how many. */
static unsigned rouse(struct sl_vclock *c, const void *what, unsigned most)
{
    struct thread **at = &c->waiting.first;
    unsigned n = 0;

    while (*at != NULL && n < most) {
        if ((*at)->awaits == what) {
            append(&c->ready, take(&c->waiting, at));
            n++;
        } else {
            at = &(*at)->next;
        }
    }
    return n;
}

/* Gives the turn away, to whoever has been ready longest. Until somebody is,
   time passes. */
static void pass_turn(struct sl_vclock *c)
{
    c->running = NULL;
    while (c->ready.first == NULL) {
        struct sl_vtimer *t = c->timers;

        assert(t != NULL); /* all wait for each other */
        if (t == NULL)
            return;
        c->timers = t->next;
        t->set = false;
        if (t->at_ns > c->now_ns)
            c->now_ns = t->at_ns;
        pthread_mutex_unlock(&c->mutex);
        t->fire(t);
        pthread_mutex_lock(&c->mutex);
    }
    c->running = take(&c->ready, &c->ready.first);
    pthread_cond_signal(&c->running->turn);
}

static void await_turn(struct sl_vclock *c, struct thread *self)
{
    while (c->running != self)
        pthread_cond_wait(&self->turn, &c->mutex);
}

static void await(struct sl_vclock *c, const void *what)
{
    struct thread *self = c->running;

    self->awaits = what;
    append(&c->waiting, self);
    pass_turn(c);
    await_turn(c, self);
}

static uint64_t vclock_now(struct sl_clock *clock)
{
    struct sl_vclock *c = (struct sl_vclock *)clock;
    uint64_t now;

    pthread_mutex_lock(&c->mutex);
    now = c->now_ns;
    pthread_mutex_unlock(&c->mutex);
    return now;
}

static void vclock_wait(struct sl_clock *clock, pthread_cond_t *cond,
                        pthread_mutex_t *mutex)
{
    struct sl_vclock *c = (struct sl_vclock *)clock;

    pthread_mutex_lock(&c->mutex);
    pthread_mutex_unlock(mutex);
    await(c, cond);
    pthread_mutex_unlock(&c->mutex);
    pthread_mutex_lock(mutex);
}

static void vclock_signal(struct sl_clock *clock, pthread_cond_t *cond)
{
    struct sl_vclock *c = (struct sl_vclock *)clock;

    pthread_mutex_lock(&c->mutex);
    rouse(c, cond, 1);
    pthread_mutex_unlock(&c->mutex);
}

static void vclock_broadcast(struct sl_clock *clock, pthread_cond_t *cond)
{
    struct sl_vclock *c = (struct sl_vclock *)clock;

    pthread_mutex_lock(&c->mutex);
    rouse(c, cond, UINT32_MAX);
    pthread_mutex_unlock(&c->mutex);
}

/* A thread runs only while it has the clock's turn, from its first line to
 * its last. */
static void *thread_main(void *arg)
{
    struct thread *self = arg;
    struct sl_vclock *c = self->clock;
    void *result;

    pthread_mutex_lock(&c->mutex);
    await_turn(c, self);
    pthread_mutex_unlock(&c->mutex);
    result = self->run(self->arg);
    pthread_mutex_lock(&c->mutex);
    append(&c->ended, self);
    rouse(c, self, UINT32_MAX);
    pass_turn(c);
    pthread_mutex_unlock(&c->mutex);
    return result;
}

/* The new thread waits in the line of those that are ready before anybody
 * else can look: the lock is held until it is there. */
static int vclock_create(struct sl_clock *clock, pthread_t *id,
                         const pthread_attr_t *attr, void *(*run)(void *),
                         void *arg)
{
    struct sl_vclock *c = (struct sl_vclock *)clock;
    struct thread *t = calloc(1, sizeof *t);
    int rc;

    if (t == NULL)
        return ENOMEM;
    pthread_cond_init(&t->turn, NULL);
    t->clock = c;
    t->run = run;
    t->arg = arg;
    pthread_mutex_lock(&c->mutex);
    rc = pthread_create(&t->id, attr, thread_main, t);
    if (rc == 0)
        append(&c->ready, t);
    *id = t->id;
    pthread_mutex_unlock(&c->mutex);
    if (rc == 0)
        return 0;
    pthread_cond_destroy(&t->turn);
    free(t);
    return rc;
}

static struct thread **find(struct list *l, pthread_t id)
{
    struct thread **at = &l->first;

    while (*at != NULL && !pthread_equal((*at)->id, id))
        at = &(*at)->next;
    return at;
}

/* Waits in the clock's time for a thread that must end by its own, then for
 * the system's, which it does at once. */
static void vclock_join(struct sl_clock *clock, pthread_t id)
{
    struct sl_vclock *c = (struct sl_vclock *)clock;
    struct thread **at, *t;

    pthread_mutex_lock(&c->mutex);
    while (*(at = find(&c->ended, id)) == NULL) {
        at = find(&c->ready, id);
        await(c, *at != NULL ? *at : *find(&c->waiting, id));
    }
    t = take(&c->ended, at);
    pthread_mutex_unlock(&c->mutex);
    pthread_join(id, NULL);
    pthread_cond_destroy(&t->turn);
    free(t);
}

static const struct sl_clock_ops vclock_ops = {
    .now = vclock_now,
    .wait = vclock_wait,
    .signal = vclock_signal,
    .broadcast = vclock_broadcast,
    .create = vclock_create,
    .join = vclock_join,
};

int sl_vclock_create(struct sl_vclock **out, struct sl_error *err)
{
    struct sl_vclock *c = calloc(1, sizeof *c);

    if (c == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory for a clock");
    c->clock.ops = &vclock_ops;
    pthread_mutex_init(&c->mutex, NULL);
    list_init(&c->ready);
    list_init(&c->waiting);
    list_init(&c->ended);
    pthread_cond_init(&c->first.turn, NULL);
    c->first.id = pthread_self();
    c->running = &c->first;
    *out = c;
    return 0;
}

void sl_vclock_destroy(struct sl_vclock *c)
{
    if (c == NULL)
        return;
    assert(c->ready.first == NULL && c->waiting.first == NULL);
    pthread_cond_destroy(&c->first.turn);
    pthread_mutex_destroy(&c->mutex);
    free(c);
}

struct sl_clock *sl_vclock_clock(struct sl_vclock *c)
{
    return &c->clock;
}

/* --- timers --------------------------------------------------------------- */

static void unset(struct sl_vclock *c, struct sl_vtimer *timer)
{
    struct sl_vtimer **at = &c->timers;

    if (!timer->set)
        return;
    while (*at != timer)
        at = &(*at)->next;
    *at = timer->next;
    timer->set = false;
}

void sl_vclock_set(struct sl_vclock *c, struct sl_vtimer *timer, uint64_t at_ns)
{
    struct sl_vtimer **at = &c->timers;

    pthread_mutex_lock(&c->mutex);
    unset(c, timer);
    while (*at != NULL && (*at)->at_ns <= at_ns)
        at = &(*at)->next;
    timer->at_ns = at_ns;
    timer->next = *at;
    timer->set = true;
    *at = timer;
    pthread_mutex_unlock(&c->mutex);
}

void sl_vclock_unset(struct sl_vclock *c, struct sl_vtimer *timer)
{
    pthread_mutex_lock(&c->mutex);
    unset(c, timer);
    pthread_mutex_unlock(&c->mutex);
}
