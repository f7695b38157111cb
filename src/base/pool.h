/*
 * pool.h - a fork-join thread pool
 *
 * One pool serves the whole program. Work is split by output rows or heads,
 * never along a sum, so results do not depend on the number of threads.
 * Threads without work spin for a tenth of a millisecond (not if there are
 * more threads than CPUs) and then sleep.
 * sl_pool_for may be called from one thread at a time and not from inside
 * a job.
 */
#ifndef SL_BASE_POOL_H
#define SL_BASE_POOL_H

#include <stddef.h>

#include "src/base/error.h"

struct sl_pool;

/* Does items [begin, end). worker is below sl_pool_threads(): an index for
 * per-thread scratch memory. */
typedef void sl_pool_fn(void *arg, size_t begin, size_t end, unsigned worker);

/* CPUs this process may run on. */
unsigned sl_pool_cpus(void);

/* n_threads counts the caller, which works too; 0 means one per CPU this
 * process may run on. Errors: SL_ERR_NOMEM, SL_ERR_IO (no thread). */
int sl_pool_create(struct sl_pool **pool, unsigned n_threads,
                   struct sl_error *err);
/* The same; each worker but the caller's (0) calls begin first of all. */
int sl_pool_create_with(struct sl_pool **pool, unsigned n_threads,
                        void (*begin)(void *arg, unsigned worker), void *arg,
                        struct sl_error *err);
void sl_pool_destroy(struct sl_pool *pool);

unsigned sl_pool_threads(const struct sl_pool *pool);

/* Calls fn over [0, n) in chunks that begin at multiples of grain and hold at
 * most grain items; returns when all are done. What the chunks wrote is
 * visible to the caller. Each worker begins with the chunks of its share
 * (sl_pool_share), in order, and then helps the others: the same n is split
 * the same way each time, so that a thread comes back to the same memory. */
void sl_pool_for(struct sl_pool *pool, size_t n, size_t grain, sl_pool_fn *fn,
                 void *arg);

/* Something that cannot wait for the end of a long job, as asking a disk for
 * more: the caller calls fn between its chunks, no more often than once in a
 * millisecond. fn begins no job. NULL: nothing, as at first. Between jobs. */
void sl_pool_set_errand(struct sl_pool *pool, void (*fn)(void *arg), void *arg);

/* The items [*begin, *end) that a worker begins with: as many chunks as the
 * others have, or one more; whole chunks but for the end of n. */
void sl_pool_share(size_t *begin, size_t *end, size_t n, size_t grain,
                   unsigned worker, unsigned n_threads);

#endif
