/*
 * pass_times.h - what a pass takes, by the number of its positions
 *
 * Decode passes are timed as they run. The last few of each size are kept, and
 * their median counts, so that a pass that was disturbed does not; sizes that
 * were never seen lie on lines between those that were. Before anything was
 * measured, the shape that was planned holds.
 */
#ifndef SL_PASS_TIMES_H
#define SL_PASS_TIMES_H

#include <stdint.h>

#define SL_PASS_SIZES 64u /* positions of the largest pass that is timed */
#define SL_PASS_KEPT  5u  /* times of a size */

struct sl_pass_times {
    /* (SL_PASS_SIZES + 1) relative to shape[1], which is 1; never less than
     * the size before */
    double shape[SL_PASS_SIZES + 1];
    struct {
        double last[SL_PASS_KEPT]; /* seconds, a ring */
        uint32_t n;                /* that were taken in all */
        double median;
    } of[SL_PASS_SIZES + 1];
    uint32_t largest; /* size that was measured; 0: none */
};

/* Every position after the first costs this part of what the first does. */
void sl_pass_times_init(struct sl_pass_times *t, double more);
/* A pass of n positions took so long. Larger ones than are timed are not. */
void sl_pass_times_note(struct sl_pass_times *t, uint32_t n, double seconds);
/* Seconds of a pass of n > 0 positions, as far as that is known; without any
 * measurement relative to one position's. */
double sl_pass_times_of(const struct sl_pass_times *t, uint32_t n);

#endif
