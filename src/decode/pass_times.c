#include "config.h"

#include <string.h>

#include "src/decode/pass_times.h"

void sl_pass_times_init(struct sl_pass_times *t, double more)
{
    memset(t, 0, sizeof *t);
    for (uint32_t n = 1; n <= SL_PASS_SIZES; n++)
        t->shape[n] = 1 + (n - 1) * more;
}

static double median_of(const double *v, uint32_t n)
{
    double sorted[SL_PASS_KEPT];

    for (uint32_t i = 0; i < n; i++) {
        uint32_t k = i;

        for (; k > 0 && sorted[k - 1] > v[i]; k--)
            sorted[k] = sorted[k - 1];
        sorted[k] = v[i];
    }
    return (sorted[(n - 1) / 2] + sorted[n / 2]) / 2;
}

void sl_pass_times_note(struct sl_pass_times *t, uint32_t n, double seconds)
{
    uint32_t kept;

    if (n == 0 || n > SL_PASS_SIZES || !(seconds > 0))
        return;
    t->of[n].last[t->of[n].n++ % SL_PASS_KEPT] = seconds;
    kept = t->of[n].n < SL_PASS_KEPT ? t->of[n].n : SL_PASS_KEPT;
    t->of[n].median = median_of(t->of[n].last, kept);
    if (n > t->largest)
        t->largest = n;
}

/* Beyond all that was measured: on, as steeply as between the last two sizes
 * or as planned, whichever is more. A disturbed pass may have made the last
 * step flat or steep; the plan alone may be wrong by far. */
static double beyond(const struct sl_pass_times *t, uint32_t below, uint32_t n)
{
    double last = t->of[below].median, planned, seen = 0;

    planned = last * (t->shape[n] / t->shape[below] - 1);
    for (uint32_t k = below - 1; k > 0; k--) {
        if (t->of[k].n == 0)
            continue;
        seen = (last - t->of[k].median) / (below - k) * (n - below);
        return last + (seen > planned / 4 ? seen : planned / 4);
    }
    return last + planned;
}

double sl_pass_times_of(const struct sl_pass_times *t, uint32_t n)
{
    uint32_t below, above;
    double part;

    if (n > SL_PASS_SIZES)
        return sl_pass_times_of(t, SL_PASS_SIZES) * n / SL_PASS_SIZES;
    if (t->of[n].n > 0)
        return t->of[n].median;
    for (below = n; below > 0 && t->of[below].n == 0;)
        below--;
    for (above = n; above <= SL_PASS_SIZES && t->of[above].n == 0;)
        above++;
    if (below == 0 && above > SL_PASS_SIZES)
        return t->shape[n];
    if (below == 0)
        return t->of[above].median * t->shape[n] / t->shape[above];
    if (above > SL_PASS_SIZES)
        return beyond(t, below, n);
    part = (double)(n - below) / (above - below);
    return t->of[below].median * (1 - part) + t->of[above].median * part;
}
