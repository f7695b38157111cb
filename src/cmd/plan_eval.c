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
    struct sl_floor f, last;
    uint32_t rest;

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
                 (double)(tokens / e->positions);
    e->limit = f.limit;
    rest = (uint32_t)(tokens % e->positions);
    if (rest > 0)
        e->seconds += pass_seconds(rt, rates, rest, e->question, &last);
}

/* --- on a machine that is not there --------------------------------------- */

/* A pass of so many questions. */
static int rehearse(struct sl_rehearsed *pass,
                    const struct sl_rehearsal_config *base, uint32_t n,
                    struct sl_error *err)
{
    struct sl_rehearsal_config c = *base;
    struct sl_rehearsal r;

    c.n_texts = n;
    if (sl_rehearse(&r, &c, err) != 0)
        return -1;
    *pass = r.phase[SL_PHASE_PREFILL];
    sl_rehearsal_fini(&r);
    return 0;
}

static uint32_t questions_of(const struct sl_rehearsal_config *base,
                             uint64_t positions)
{
    return positions > base->prompt ? (uint32_t)(positions / base->prompt) : 1;
}

static int rehearsed_floor(struct sl_floor *floor, void *opaque,
                           struct sl_plan_pass pass, struct sl_error *err)
{
    const struct sl_rehearsal_config *base = opaque;
    uint32_t questions = questions_of(base, pass.positions);
    struct sl_rehearsed r;

    if (rehearse(&r, base, questions, err) != 0)
        return -1;
    *floor = r.floor;
    /* as if parts of a question filled the pass */
    floor->seconds *= pass.positions / ((double)questions * base->prompt);
    return 0;
}

/* As many as 'sluice eval' would take, or what the memory holds of them. */
static int rehearse_packed(struct sl_rehearsed *pass,
                           struct sl_rehearsal_config *base, uint64_t tokens,
                           struct sl_error *err)
{
    uint32_t positions = base->prompt, n;

    if (sl_eval_positions_by(&positions, rehearsed_floor, base, err) != 0) {
        if (err->code != SL_ERR_BUDGET)
            return -1;
        positions = SL_EVAL_POSITIONS_MOST;
    }
    if (positions > tokens)
        positions = (uint32_t)tokens;
    for (n = questions_of(base, positions);; n /= 2) {
        if (rehearse(pass, base, n, err) == 0)
            return 0;
        if (err->code != SL_ERR_BUDGET || n == 1)
            return -1;
    }
}

int sl_plan_eval_rehearse(struct sl_plan_eval *e, struct sl_rehearsed *pass,
                          struct sl_rehearsal_config base, uint64_t tokens,
                          uint32_t question, struct sl_error *err)
{
    struct sl_rehearsed one, last;
    uint64_t rest;

    base.context = base.prompt = question;
    base.prefill_only = true;
    base.trace = NULL;
    if (rehearse(&one, &base, 1, err) != 0 ||
        rehearse_packed(pass, &base, tokens, err) != 0)
        return -1;
    *e = (struct sl_plan_eval){
        .tokens = tokens,
        .question = question,
        .positions = (uint32_t)pass->tokens,
        .seconds = pass->seconds * floor((double)tokens / pass->tokens),
        .one_by_one = one.seconds * ceil((double)tokens / question),
        .limit = pass->floor.limit,
    };
    rest = tokens % e->positions;
    if (rest == 0)
        return 0;
    if (rehearse(&last, &base, questions_of(&base, rest), err) != 0)
        return -1;
    e->seconds += last.seconds;
    return 0;
}

/* --- telling -------------------------------------------------------------- */

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
