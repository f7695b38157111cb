/*
 * median.h - how the micro-benchmarks measure one thing
 */
#ifndef SL_BENCH_MEDIAN_H
#define SL_BENCH_MEDIAN_H

#include <stddef.h>

/* The median of n > 0 values, which are sorted for it. */
double bench_median(double *v, size_t n);
/* Seconds that fn(arg) takes: the median of seven turns after one to warm
 * up. */
double bench_median_seconds(void (*fn)(void *arg), void *arg);

#endif
