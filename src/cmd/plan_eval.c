#include "config.h"

#include <math.h>
#include <stdio.h>

#include "src/cmd/eval_model.h"
#include "src/cmd/plan_eval.h"

static double pass_seconds(const struct sl_runtime *rt,
                           const struct sl_rates *rates, uint32_t positions,
                           uint32_t question, struct sl_floor *f)
{
    struct sl_plan_pass pass = {positions, positions / (question + 1) + 1,
                                question / 2};
    double expected = sl_runtime_expected_at(rt, rates, pass);

    *f = sl_runtime_floor_at(rt, rates, pass);
    return expected > f->seconds ? expected : f->seconds;
}

void sl_plan_eval_make(struct sl_plan_eval *e, const struct sl_runtime *rt,
                       const struct sl_rates *rates, uint64_t tokens,
                       uint32_t question)
{
    struct sl_floor f;

    *e = (struct sl_plan_eval){
        .tokens = tokens,
        .question = question > 0 ? question : 1,
        .positions = sl_eval_positions(rt, rates),
    };
    if (e->positions > tokens)
        e->positions = (uint32_t)tokens;
    e->one_by_one = pass_seconds(rt, rates, e->question, e->question, &f) *
                    ceil((double)tokens / e->question);
    e->seconds = pass_seconds(rt, rates, e->positions, e->question, &f) *
                 ceil((double)tokens / e->positions);
    e->limit = f.limit;
}

static void print_time(const char *what, double seconds)
{
    if (seconds < 3600)
        printf("  %-28s %9.1f s ", what, seconds);
    else
        printf("  %-28s %9.1f h ", what, seconds / 3600);
}

void sl_plan_eval_print(const struct sl_plan_eval *e)
{
    char text[64];

    snprintf(text, sizeof text, "evaluation, %llu tokens",
             (unsigned long long)e->tokens);
    print_time(text, e->seconds);
    printf("  %u positions a pass, limited by %s\n", e->positions,
           sl_limit_name(e->limit));
    snprintf(text, sizeof text, "  questions of %u one by one", e->question);
    print_time(text, e->one_by_one);
    printf("  %.1f times as long\n", e->one_by_one / e->seconds);
}

json_t *sl_plan_eval_json(const struct sl_plan_eval *e)
{
    return json_pack("{sI sI sI sf sf ss}", "tokens", (json_int_t)e->tokens,
                     "question_tokens", (json_int_t)e->question,
                     "pass_positions", (json_int_t)e->positions, "seconds",
                     e->seconds, "one_by_one_seconds", e->one_by_one, "limit",
                     sl_limit_name(e->limit));
}
