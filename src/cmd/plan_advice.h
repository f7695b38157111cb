/*
 * plan_advice.h - what takes the time of a planned token, and what would help
 */
#ifndef SL_PLAN_ADVICE_H
#define SL_PLAN_ADVICE_H

#include "src/sim/rehearse.h"

/* One line on standard output. curve: how much of what is wanted places for
 * experts serve, as the rehearsal had it; disk_bps: bytes a second. */
void sl_plan_advise(const struct sl_rehearsal *r,
                    const struct sl_hit_curve *curve, double disk_bps);

#endif
