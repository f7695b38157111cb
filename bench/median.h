/*
 * median.h - how the micro-benchmarks measure one thing
 */
#ifndef SL_BENCH_MEDIAN_H
#define SL_BENCH_MEDIAN_H

/* Seconds that fn(arg) takes: the median of seven turns after one to warm
 * up. */
double bench_median_seconds(void (*fn)(void *arg), void *arg);

#endif
