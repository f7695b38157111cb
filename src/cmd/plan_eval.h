/*
 * plan_eval.h - how long an evaluation takes
 */
#ifndef SL_PLAN_EVAL_H
#define SL_PLAN_EVAL_H

#include <jansson.h>

#include "src/runtime/runtime.h"
#include "src/sim/rehearse.h"

struct sl_plan_eval {
    uint64_t tokens;
    uint32_t question;   /* tokens of one */
    uint32_t positions;  /* of a pass */
    double seconds;      /* many questions a pass */
    double one_by_one;   /* seconds, each in passes of its own */
    enum sl_limit limit; /* of a pass */
};

/* For so many tokens in questions of that length, in passes as large as
 * 'sluice eval' makes them. rt has a plan. */
void sl_plan_eval_make(struct sl_plan_eval *e, const struct sl_runtime *rt,
                       const struct sl_rates *rates, uint64_t tokens,
                       uint32_t question);
/* The same on the machine of a rehearsal, of which machine, model, memory,
 * engine and keys count; *pass: one of its passes. Errors: as sl_rehearse. */
int sl_plan_eval_rehearse(struct sl_plan_eval *e, struct sl_rehearsed *pass,
                          struct sl_rehearsal_config base, uint64_t tokens,
                          uint32_t question, struct sl_error *err);
void sl_plan_eval_print(const struct sl_plan_eval *e);
json_t *sl_plan_eval_json(const struct sl_plan_eval *e);

#endif
