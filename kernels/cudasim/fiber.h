/*
 * fiber.h - stacks that one host thread changes between
 *
 * A fiber runs its function again and again: each time it is switched to
 * after the function ended, it starts anew. AddressSanitizer and
 * ThreadSanitizer are told of every change; for the latter two fibers are as
 * unordered as two threads.
 */
#ifndef SL_CUDASIM_FIBER_H
#define SL_CUDASIM_FIBER_H

#include <stddef.h>

struct sim_fiber;

typedef void sim_fiber_fn(void *arg);

/* The calling thread's own stack, to change from and to. */
struct sim_fiber *sim_fiber_of_thread(void);
/* NULL if there is no memory. */
struct sim_fiber *sim_fiber_create(sim_fiber_fn *fn);
void sim_fiber_destroy(struct sim_fiber *fiber);

/* Goes on with `to` until it switches to `from`, the running one. */
void sim_fiber_switch(struct sim_fiber *from, struct sim_fiber *to);
/* What the function is called with when the fiber starts, and whom it
 * switches to when the function ends. */
void sim_fiber_start(struct sim_fiber *fiber, void *arg,
                     struct sim_fiber *after);
/* Forgets what a fiber was doing; it may be started again. */
void sim_fiber_abandon(struct sim_fiber *fiber);

#endif
