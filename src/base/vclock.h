/*
 * vclock.h - a clock that stands still while anybody works
 *
 * Threads made with sl_clock_thread, and the one that made the clock, take
 * turns: one runs until it waits, then the one that has been ready longest.
 * When all wait, time jumps to the next timer, whose callback may signal. So
 * a run comes out the same each time, to the nanosecond, and is as fast as
 * its bookkeeping.
 *
 * A thread must not wait while it holds another mutex than the condition's.
 * Those threads alone may use the clock, its timers and their callbacks; what
 * only they touch needs no lock.
 */
#ifndef SL_BASE_VCLOCK_H
#define SL_BASE_VCLOCK_H

#include <stdbool.h>

#include "src/base/clock.h"
#include "src/base/error.h"

struct sl_vclock;

struct sl_vtimer {
    uint64_t at_ns;
    void (*fire)(struct sl_vtimer *timer); /* now == at_ns; may not wait */
    struct sl_vtimer *next;                /* the clock's */
    bool set;                              /* the clock's */
};

/* Begins at zero; the caller is its first thread. Errors: SL_ERR_NOMEM. */
int sl_vclock_create(struct sl_vclock **clock, struct sl_error *err);
/* All other threads must have been joined. NULL is fine. */
void sl_vclock_destroy(struct sl_vclock *clock);
struct sl_clock *sl_vclock_clock(struct sl_vclock *clock);

/* Sets the timer, again or anew; a time that is past is now. Timers of the
 * same time fire in the order in which they were set. */
void sl_vclock_set(struct sl_vclock *clock, struct sl_vtimer *timer,
                   uint64_t at_ns);
void sl_vclock_unset(struct sl_vclock *clock, struct sl_vtimer *timer);

#endif
