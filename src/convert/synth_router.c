#include "config.h"

#include <math.h>

#include "src/convert/synth_router.h"

/* What is chosen in at most this part of all cases, however skewed. */
#define MOST 0.98

/* z with that part of a normal distribution above it. */
static double quantile_above(double part)
{
    double lo = -10, hi = 10;

    for (int i = 0; i < 60; i++) {
        double z = (lo + hi) / 2;

        if (erfc(z / sqrt(2)) / 2 > part)
            lo = z;
        else
            hi = z;
    }
    return (lo + hi) / 2;
}

/* How often the expert of a rank is chosen where the first is `first` times. */
static double part_of(uint32_t rank, double first, double skew)
{
    return fmin(MOST, first * pow(rank + 1.0, -skew));
}

/* Such that all parts together are the experts that a position takes. */
static double first_part(const struct sl_hparams *hp, double skew)
{
    double lo = 0, hi = 1;

    for (int i = 0; i < 200; i++) {
        double first = i < 100 ? hi : (lo + hi) / 2, sum = 0;

        for (uint32_t r = 0; r < hp->n_experts; r++)
            sum += part_of(r, first, skew);
        if (i < 100) { /* far enough up first */
            if (sum >= hp->n_experts_used)
                i = 99;
            else
                hi *= 2;
            continue;
        }
        if (sum < hp->n_experts_used)
            lo = first;
        else
            hi = first;
    }
    return hi;
}

/* Ranks that differ for all experts of a layer: as many times a step that has
 * no divisor in common with their number. */
static uint32_t rank_of(uint32_t expert, uint32_t n, uint32_t layer)
{
    uint32_t step = (layer * 37 + 11) % n, a = 0, b = 0;

    do {
        step = step % n + 1;
        for (a = n, b = step; b != 0;) {
            uint32_t rest = a % b;

            a = b;
            b = rest;
        }
    } while (a != 1);
    return (uint32_t)(((uint64_t)expert * step + layer * 101ull) % n);
}

void sl_synth_router_bias(float *bias, const struct sl_hparams *hp,
                          uint32_t layer, double skew)
{
    double first = first_part(hp, skew);

    for (uint32_t e = 0; e < hp->n_experts; e++) {
        double part = part_of(rank_of(e, hp->n_experts, layer), first, skew);

        /* sigmoid(logit) + bias is above 0 so often */
        bias[e] = (float)(-1 / (1 + exp(-quantile_above(part))));
    }
}
