#include "config.h"

#include <assert.h>
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "offload/fluid.h"

/* Less than this is rounding. */
#define NOTHING 1e-3

/* Seconds that no run lasts. */
#define NEVER 1e9

static void begin_flow(struct sl_vtimer *timer);
static void end_flows(struct sl_vtimer *timer);

void sl_fluid_init(struct sl_fluid *f, struct sl_vclock *clock,
                   const double pipe_bps[SL_PIPE_COUNT])
{
    *f = (struct sl_fluid){
        .clock = clock,
        .timer = {.fire = end_flows},
    };
    memcpy(f->pipe_bps, pipe_bps, sizeof f->pipe_bps);
}

void sl_fluid_fini(struct sl_fluid *f)
{
    assert(f->flows == NULL);
    sl_vclock_unset(f->clock, &f->timer);
}

static uint64_t now_ns(const struct sl_fluid *f)
{
    return sl_clock_now(sl_vclock_clock(f->clock));
}

/* Moves all flows on to now. */
static void advance(struct sl_fluid *f)
{
    uint64_t now = now_ns(f);
    double s = (double)(now - f->at_ns) * 1e-9;

    for (struct sl_flow *w = f->flows; w != NULL; w = w->next)
        w->bytes -= w->bps * s;
    f->at_ns = now;
}

/* What flow w could get at most, were all unsettled flows alike. */
static double room_for(const struct sl_flow *w,
                       const double left[SL_PIPE_COUNT],
                       const unsigned users[SL_PIPE_COUNT])
{
    double bps = w->most_bps > 0 ? w->most_bps : INFINITY;

    for (unsigned p = 0; p < SL_PIPE_COUNT; p++) {
        if ((w->pipes >> p & 1) != 0 && left[p] / users[p] < bps)
            bps = left[p] / users[p];
    }
    return bps;
}

/* What flow w gets is no longer there for the others of its pipes. */
static void settle(struct sl_flow *w, double bps, double left[SL_PIPE_COUNT],
                   unsigned users[SL_PIPE_COUNT])
{
    w->bps = bps;
    w->settled = true;
    for (unsigned p = 0; p < SL_PIPE_COUNT; p++) {
        if ((w->pipes >> p & 1) == 0)
            continue;
        left[p] -= bps;
        users[p]--;
    }
}

/* Progressive filling: the flow with least room gets it, then the next. */
static void share(struct sl_fluid *f)
{
    double left[SL_PIPE_COUNT];
    unsigned users[SL_PIPE_COUNT] = {0};

    for (unsigned p = 0; p < SL_PIPE_COUNT; p++)
        left[p] = f->pipe_bps[p] > 0 ? f->pipe_bps[p] : INFINITY;
    for (struct sl_flow *w = f->flows; w != NULL; w = w->next) {
        w->settled = false;
        for (unsigned p = 0; p < SL_PIPE_COUNT; p++)
            users[p] += w->pipes >> p & 1;
    }
    for (;;) {
        struct sl_flow *least = NULL;
        double bps = 0;

        for (struct sl_flow *w = f->flows; w != NULL; w = w->next) {
            double room = w->settled ? 0 : room_for(w, left, users);

            if (w->settled || (least != NULL && room >= bps))
                continue;
            least = w;
            bps = room;
        }
        if (least == NULL)
            return;
        settle(least, bps, left, users);
    }
}

/* New rates, and when the first flow ends with them. */
static void plan_ahead(struct sl_fluid *f)
{
    double first = NEVER;

    share(f);
    for (struct sl_flow *w = f->flows; w != NULL; w = w->next) {
        double s = w->bytes > 0 ? w->bytes / w->bps : 0;

        if (s < first)
            first = s;
    }
    if (f->flows == NULL)
        sl_vclock_unset(f->clock, &f->timer);
    else
        sl_vclock_set(f->clock, &f->timer,
                      f->at_ns + (uint64_t)ceil(first * 1e9));
}

/* All that have ended are taken out before the first is told: whoever is told
 * may start another flow, which must find a list that is whole. */
static void end_flows(struct sl_vtimer *timer)
{
    struct sl_fluid *f =
        (struct sl_fluid *)((char *)timer - offsetof(struct sl_fluid, timer));
    struct sl_flow *ended = NULL, **at = &f->flows, **end = &ended;

    advance(f);
    while (*at != NULL) {
        struct sl_flow *w = *at;

        if (w->bytes > NOTHING) {
            at = &w->next;
            continue;
        }
        *at = w->next;
        w->next = NULL;
        *end = w;
        end = &w->next;
    }
    while (ended != NULL) {
        struct sl_flow *w = ended;

        ended = w->next;
        w->done(w);
    }
    plan_ahead(f);
}

/* At the end of the list: flows that end at the same instant end in the order
 * in which they began, so that runs are the same each time. */
static void join_flows(struct sl_fluid *f, struct sl_flow *flow)
{
    struct sl_flow **at = &f->flows;

    advance(f);
    while (*at != NULL)
        at = &(*at)->next;
    flow->next = NULL;
    *at = flow;
    plan_ahead(f);
}

static void begin_flow(struct sl_vtimer *timer)
{
    struct sl_flow *flow =
        (struct sl_flow *)((char *)timer - offsetof(struct sl_flow, delay));

    join_flows(flow->fluid, flow);
}

void sl_fluid_start(struct sl_fluid *f, struct sl_flow *flow)
{
    flow->fluid = f;
    flow->bps = 0;
    flow->delay = (struct sl_vtimer){.fire = begin_flow};
    if (flow->delay_ns > 0)
        sl_vclock_set(f->clock, &flow->delay, now_ns(f) + flow->delay_ns);
    else
        join_flows(f, flow);
}
