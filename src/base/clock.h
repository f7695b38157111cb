/*
 * clock.h - monotonic time, and waiting for things to happen in it
 *
 * Code that waits for other threads does so through a clock: the real one
 * (NULL), or a virtual one (vclock.h) in which waiting takes no time and the
 * same code runs as on a machine that is not there.
 */
#ifndef SL_BASE_CLOCK_H
#define SL_BASE_CLOCK_H

#include <pthread.h>
#include <stdint.h>

/* Nanoseconds since some fixed point; never goes back. */
uint64_t sl_clock_ns(void);

struct sl_clock {
    const struct sl_clock_ops *ops;
};

/* A virtual clock embeds struct sl_clock first. */
struct sl_clock_ops {
    uint64_t (*now)(struct sl_clock *clock);
    void (*wait)(struct sl_clock *clock, pthread_cond_t *cond,
                 pthread_mutex_t *mutex);
    void (*signal)(struct sl_clock *clock, pthread_cond_t *cond);
    void (*broadcast)(struct sl_clock *clock, pthread_cond_t *cond);
    int (*create)(struct sl_clock *clock, pthread_t *thread,
                  const pthread_attr_t *attr, void *(*run)(void *), void *arg);
    void (*join)(struct sl_clock *clock, pthread_t thread);
};

/* clock NULL: sl_clock_ns and what pthreads do. */
uint64_t sl_clock_now(struct sl_clock *clock);
void sl_clock_wait(struct sl_clock *clock, pthread_cond_t *cond,
                   pthread_mutex_t *mutex);
void sl_clock_signal(struct sl_clock *clock, pthread_cond_t *cond);
void sl_clock_broadcast(struct sl_clock *clock, pthread_cond_t *cond);
/* A thread that may wait by this clock. Returns 0 or an errno. */
int sl_clock_thread(struct sl_clock *clock, pthread_t *thread,
                    const pthread_attr_t *attr, void *(*run)(void *),
                    void *arg);
void sl_clock_join(struct sl_clock *clock, pthread_t thread);

#endif
