/*
 * touch.h - memory that is there before the reader comes to it
 *
 * The kernel finds and clears a page when it is first written to, and for a
 * direct read it does so in the thread that submits it, one page after the
 * other: 0.35 s a GiB, some 2.5 s where a virtual machine's host has to give
 * the page first. While a model is read for the first time cores have little
 * to do, so threads of their own walk ahead of the reader through what is to
 * be read into (MADV_POPULATE_WRITE, madvise(2), since Linux 5.14; elsewhere
 * the reads do it as ever). They change no byte of it and take no memory that
 * the reader would not have taken.
 */
#ifndef SL_OFFLOAD_TOUCH_H
#define SL_OFFLOAD_TOUCH_H

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/mem.h"

#define SL_TOUCH_THREADS 4

struct sl_touch {
    const struct sl_region *region;
    atomic_size_t next; /* the byte from which on nobody has asked */
    atomic_bool stop;
    pthread_t threads[SL_TOUCH_THREADS];
    unsigned n_threads;
};

/* Begins at the start of a region, which is borrowed until the stop, with at
 * most so many threads. With none for a small region, or where threads cannot
 * be had: nothing but time depends on it. */
void sl_touch_start(struct sl_touch *t, const struct sl_region *region,
                    unsigned n_threads);
/* Before the region goes: returns once nobody walks any more. One that is all
 * zeros is fine. */
void sl_touch_stop(struct sl_touch *t);

#endif
