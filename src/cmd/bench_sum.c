/* What the turns of a run have found, as spreads. */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>

#include "src/base/mem.h"
#include "src/cmd/bench_impl.h"

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

struct sl_bench_spread sl_bench_spread_of(double *v, size_t n)
{
    qsort(v, n, sizeof *v, compare);
    return (struct sl_bench_spread){
        .median = (v[(n - 1) / 2] + v[n / 2]) / 2,
        .least = v[0],
        .most = v[n - 1],
    };
}

/* Of one figure over the turns; v: (repeat) to work in. */
static struct sl_bench_spread spread_of(const struct sl_bench_state *s,
                                        double *v, size_t figure)
{
    for (uint32_t i = 0; i < s->run->repeat; i++)
        v[i] = s->turns[i].figure[figure];
    return sl_bench_spread_of(v, s->run->repeat);
}

struct sl_plan_pass sl_bench_pass(const struct sl_bench_state *s,
                                  enum sl_bench_phase phase)
{
    const struct sl_bench_run *run = s->run;

    if (phase == SL_BENCH_PREFILL)
        return (struct sl_plan_pass){run->batch * run->prompt, run->batch,
                                     run->prompt};
    return (struct sl_plan_pass){run->batch, run->batch,
                                 run->prompt + 1 + run->gen / 2};
}

static void sum_up_phase(struct sl_bench_result *r,
                         const struct sl_bench_state *s,
                         enum sl_bench_phase phase, double *v)
{
    struct sl_bench_phase_result *p = &r->phase[phase];
    size_t at = SL_BENCH_FIRST_PHASE + (size_t)phase * SL_BENCH_A_PHASE;
    struct sl_plan_pass pass = sl_bench_pass(s, phase);

    p->positions = pass.positions;
    p->seconds = spread_of(s, v, at + SL_BENCH_SECONDS);
    p->efficiency = spread_of(s, v, at + SL_BENCH_EFFICIENCY);
    p->disk_bytes = spread_of(s, v, at + SL_BENCH_DISK_BYTES).median;
    p->wait_s = spread_of(s, v, at + SL_BENCH_WAIT_S).median;
    p->demand_bytes = spread_of(s, v, at + SL_BENCH_DEMAND_BYTES).median;
    p->hint_bytes = spread_of(s, v, at + SL_BENCH_HINT_BYTES).median;
    p->wasted_bytes = spread_of(s, v, at + SL_BENCH_WASTED_BYTES).median;
    for (size_t i = 0; i < SL_IO_FILES; i++)
        p->file_bytes[i] = spread_of(s, v, at + SL_BENCH_FILE_BYTES + i).median;
    p->floor = sl_runtime_floor_at(s->rt, &r->rates, pass);
    p->dram_bytes = (double)r->resident_bytes + (double)r->memory.small +
                    2 * (double)r->streamed_bytes;
}

/* Without what the passes that warmed up have guessed. */
static void sum_up_drafts(struct sl_bench_drafts *d,
                          const struct sl_bench_state *s)
{
    const struct sl_gate_counts *was = &s->warmed_up;
    const struct sl_gate_counts *now = &s->drafts.gate.counts;
    uint64_t passes = now->passes - was->passes;

    *d = (struct sl_bench_drafts){0};
    for (; d->n < SL_DRAFT_SOURCES && s->drafts.sources[d->n].kind != NULL;
         d->n++) {
        d->of[d->n].name = s->drafts.sources[d->n].kind->name;
        d->of[d->n].drafted = now->drafted[d->n] - was->drafted[d->n];
        d->of[d->n].accepted = now->accepted[d->n] - was->accepted[d->n];
        d->of[d->n].beside = now->beside[d->n] - was->beside[d->n];
        d->of[d->n].beside_accepted =
            now->beside_accepted[d->n] - was->beside_accepted[d->n];
        d->of[d->n].ahead = now->ahead[d->n] - was->ahead[d->n];
        d->of[d->n].discarded = now->discarded[d->n] - was->discarded[d->n];
    }
    if (passes > 0)
        d->tokens_per_pass =
            (double)(now->tokens - was->tokens) / (double)passes;
}

/* Of a prompt, when none has a place yet. */
static uint64_t expert_bytes(const struct sl_bench_state *s)
{
    struct sl_plan_pass pass = sl_bench_pass(s, SL_BENCH_PREFILL);

    return (uint64_t)sl_runtime_expert_demand(s->rt, pass).wanted_bytes;
}

int sl_bench_sum_up(struct sl_bench_result *r, const struct sl_bench_state *s,
                    struct sl_error *err)
{
    const struct sl_plan *plan = sl_runtime_plan_made(s->rt);
    const char *why;
    const struct sl_device_info *device = sl_runtime_device(s->rt, &why);
    struct sl_rates cold;
    double *v = sl_alloc_array(s->run->repeat, sizeof *v), compute_s;
    struct sl_run_stats stats;

    if (v == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory for %u turns",
                       s->run->repeat);
    sl_runtime_stats(s->rt, &stats);
    r->run.threads = sl_pool_threads(sl_runtime_pool(s->rt));
    r->memory = *sl_runtime_memory(s->rt);
    snprintf(r->no_device, sizeof r->no_device, "%s", why);
    if (device != NULL) {
        snprintf(r->device, sizeof r->device, "%s", device->name);
        r->vram = *sl_runtime_vram(s->rt);
    }
    r->rates = *sl_runtime_rates(s->rt);
    r->streamed_bytes = plan->streamed_bytes;
    r->resident_bytes = plan->at[SL_HOST].resident_bytes;
    r->io = stats.stream.io_name;
    r->isa = sl_runtime_isa(s->rt);
    r->reading = sl_runtime_reading(s->rt);
    r->activations = sl_runtime_activations(s->rt);
    r->rates.disk_bps = spread_of(s, v, SL_BENCH_DISK_BPS).median;
    r->rates.dram_bps = spread_of(s, v, SL_BENCH_DRAM_BPS).median;
    r->rates.worker[SL_HOST].ops_per_s =
        spread_of(s, v, SL_BENCH_OPS_PER_S).median;
    r->rates.worker[SL_HOST].attention_ops_per_s =
        spread_of(s, v, SL_BENCH_ATTENTION_OPS_PER_S).median;
    r->dram_in_cache = s->in_cache;
    for (int p = 0; p < SL_BENCH_PHASES; p++)
        sum_up_phase(r, s, (enum sl_bench_phase)p, v);
    free(v);
    sum_up_drafts(&r->drafts, s);
    /* What will stay in memory is read once too, on the way. */
    cold = r->rates;
    cold.disk_bps = r->cold_disk_bps;
    r->first_token_floor_s =
        sl_floor_make(&cold,
                      plan->streamed_bytes + plan->at[SL_HOST].resident_bytes +
                          plan->at[SL_DEVICE].resident_bytes + expert_bytes(s),
                      0, 0)
            .seconds;
    compute_s = r->phase[SL_BENCH_PREFILL].floor.worker_s[SL_HOST];
    if (r->first_token_floor_s < compute_s)
        r->first_token_floor_s = compute_s;
    return 0;
}
