#include "config.h"

#include <stdio.h>

#include "src/cmd/plan_advice.h"
#include "src/exec/expert_floor.h"

#define GIB ((double)(1ull << 30))

/* Bytes a token that need not be read where RAM holds a GiB more: of weights
 * that all tokens use all of it, of experts what is chosen of so many more. */
static double spared_bytes(const struct sl_rehearsal *r,
                           const struct sl_hit_curve *curve)
{
    double wanted = r->phase[SL_PHASE_DECODE].expert_wanted_bytes;
    double places, each, have, more;

    if (r->plan.streamed_bytes > 0 || r->n_expert_places == 0)
        return GIB;
    places = r->n_expert_places;
    each = (double)r->expert_bytes / places;
    have = (places + r->n_device_experts) / r->n_experts;
    more = have + GIB / each / r->n_experts;
    return wanted * (sl_hit_curve_served(curve, more < 1 ? more : 1) -
                     sl_hit_curve_served(curve, have));
}

void sl_plan_advise(const struct sl_rehearsal *r,
                    const struct sl_hit_curve *curve, double disk_bps)
{
    switch (r->phase[SL_PHASE_DECODE].floor.limit) {
    case SL_LIMIT_DISK:
        printf("The disk is what takes the time: each GiB more of RAM saves "
               "%.2g s a token.\n",
               spared_bytes(r, curve) / disk_bps);
        return;
    case SL_LIMIT_DRAM:
        puts("Reading memory is what takes the time: fewer bits a weight "
             "(--quant) would help, or guesses that are right (--draft).");
        return;
    case SL_LIMIT_LINK:
        puts("Copies to the GPU are what takes the time: more --vram would "
             "help.");
        return;
    default:
        puts("Computing is what takes the time.");
    }
}
