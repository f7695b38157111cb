#include "config.h"

#include <stdbool.h>
#include <sys/mman.h>

#include "offload/touch.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* C libraries older than their kernel */
#endif

/* Less than this is there before threads are. */
#define LEAST_BYTES ((size_t)64 << 20)
/* One call's part: long enough that the call does not count, short enough that
   the end of a run does not wait for it. */
#define STEP_BYTES ((size_t)16 << 20)
/* They call madvise and nothing else. */
#define STACK_BYTES (64u << 10)

/* Ends where the kernel does not know the call, or has no page to give: the
 * read that comes there tells of it. */
static void *walk(void *opaque)
{
    struct sl_touch *t = opaque;
    size_t at, bytes;

    while (!atomic_load(&t->stop)) {
        at = atomic_fetch_add(&t->next, STEP_BYTES);
        if (at >= t->region->bytes)
            break;
        bytes = t->region->bytes - at;
        bytes = bytes < STEP_BYTES ? bytes : STEP_BYTES;
        if (madvise(t->region->base + at, bytes, MADV_POPULATE_WRITE) != 0)
            break;
    }
    return NULL;
}

void sl_touch_start(struct sl_touch *t, const struct sl_region *region,
                    unsigned n_threads)
{
    pthread_attr_t attr;

    t->region = region;
    atomic_init(&t->next, 0);
    atomic_init(&t->stop, false);
    t->n_threads = 0;
    if (region->bytes < LEAST_BYTES)
        return;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    while (t->n_threads < n_threads && t->n_threads < SL_TOUCH_THREADS &&
           pthread_create(&t->threads[t->n_threads], &attr, walk, t) == 0)
        t->n_threads++;
    pthread_attr_destroy(&attr);
}

void sl_touch_stop(struct sl_touch *t)
{
    atomic_store(&t->stop, true);
    while (t->n_threads > 0)
        pthread_join(t->threads[--t->n_threads], NULL);
}
