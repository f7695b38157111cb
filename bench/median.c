#include "config.h"

#include <stdint.h>
#include <stdlib.h>

#include "bench/median.h"
#include "src/base/clock.h"

#define REPEATS 7

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

double bench_median(double *v, size_t n)
{
    qsort(v, n, sizeof *v, compare);
    return v[n / 2];
}

double bench_median_seconds(void (*fn)(void *arg), void *arg)
{
    double t[REPEATS];

    fn(arg);
    for (int i = 0; i < REPEATS; i++) {
        uint64_t begin = sl_clock_ns();

        fn(arg);
        t[i] = (double)(sl_clock_ns() - begin) * 1e-9;
    }
    return bench_median(t, REPEATS);
}
