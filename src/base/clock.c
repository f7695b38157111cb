#include "config.h"

#include <time.h>

#include "src/base/clock.h"

uint64_t sl_clock_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t sl_clock_now(struct sl_clock *clock)
{
    return clock == NULL ? sl_clock_ns() : clock->ops->now(clock);
}

void sl_clock_wait(struct sl_clock *clock, pthread_cond_t *cond,
                   pthread_mutex_t *mutex)
{
    if (clock == NULL)
        pthread_cond_wait(cond, mutex);
    else
        clock->ops->wait(clock, cond, mutex);
}

void sl_clock_signal(struct sl_clock *clock, pthread_cond_t *cond)
{
    if (clock == NULL)
        pthread_cond_signal(cond);
    else
        clock->ops->signal(clock, cond);
}

void sl_clock_broadcast(struct sl_clock *clock, pthread_cond_t *cond)
{
    if (clock == NULL)
        pthread_cond_broadcast(cond);
    else
        clock->ops->broadcast(clock, cond);
}

int sl_clock_thread(struct sl_clock *clock, pthread_t *thread,
                    const pthread_attr_t *attr, void *(*run)(void *), void *arg)
{
    if (clock == NULL)
        return pthread_create(thread, attr, run, arg);
    return clock->ops->create(clock, thread, attr, run, arg);
}

void sl_clock_join(struct sl_clock *clock, pthread_t thread)
{
    if (clock == NULL)
        pthread_join(thread, NULL);
    else
        clock->ops->join(clock, thread);
}
