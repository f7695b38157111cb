/*
 * interrupt.h - Ctrl-C: the first stops the run, the second kills it
 *
 * SIGINT is blocked in every thread and read by one of its own, so nothing
 * has to be safe in a signal handler and no variable has to be global. Until
 * there is a run to stop, a signal kills as ever. Where SIGINT was ignored
 * from the start (nohup, background jobs) it stays so.
 */
#ifndef SL_INTERRUPT_H
#define SL_INTERRUPT_H

#include <stdbool.h>

#include "src/base/error.h"
#include "src/runtime/runtime.h"

struct sl_interrupt;

/* To be called before any other thread is created. Errors: SL_ERR_IO,
 * SL_ERR_NOMEM. */
int sl_interrupt_create(struct sl_interrupt **i, struct sl_error *err);
void sl_interrupt_destroy(struct sl_interrupt *i); /* NULL is fine */

/* From now on the first signal stops rt, borrowed until this is called with
 * another; with NULL, signals kill again. */
void sl_interrupt_watch(struct sl_interrupt *i, struct sl_runtime *rt);
bool sl_interrupt_came(const struct sl_interrupt *i);
/* What came is done with: rt runs again, and the next signal is the first. */
void sl_interrupt_clear(struct sl_interrupt *i);
/* Becomes readable with the first signal, for poll; -1 if none can come. */
int sl_interrupt_fd(const struct sl_interrupt *i);

#endif
