#include "config.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "src/base/clock.h"
#include "src/base/mem.h"
#include "src/cmd/bench.h"
#include "src/cmd/bench_texts.h"
#include "src/probe/probe.h"

#define DISK_TIME_NS    200000000u  /* at least; */
#define DISK_MOST_NS    4000000000u /* an eighth of a pass, */
#define DISK_PASS_SHARE 8           /* up to this */
#define DRAM_TIME_NS    120000000u
#define COMPUTE_TIME_NS 100000000u
/* The reader has nothing left to do when it has read nothing for so long. */
#define QUIET_NS 20000000

struct sl_bench {
    struct sl_runtime_config config;
    uint64_t random;
};

/* What a turn finds: the machine's rates, then for each phase ... */
enum {
    DISK_BPS,
    DRAM_BPS,
    OPS_PER_S,
    ATTENTION_OPS_PER_S,
    N_RATES,
    FIRST_PHASE = N_RATES
};
enum { /* of a pass */
       SECONDS,
       DISK_BYTES,
       WAIT_S,
       EFFICIENCY,
       DEMAND_BYTES,
       HINT_BYTES,
       WASTED_BYTES,
       A_PHASE
};
enum { N_FIGURES = FIRST_PHASE + SL_BENCH_PHASES * A_PHASE };

struct turn {
    double figure[N_FIGURES];
};

/* A run in progress. */
struct state {
    struct sl_bench *b;
    const struct sl_bench_run *run;
    struct sl_runtime *rt;
    struct sl_lm *lm;
    uint32_t *seqs;           /* (batch) */
    struct sl_lm_item *items; /* (batch) */
    int32_t *ids;             /* (batch, prompt) */
    int32_t *positions;       /* (prompt + 1 + gen) */
    int32_t *blocks;          /* the same, or NULL for a 1-D model */
    float *logits;            /* (batch, vocab) */
    struct turn *turns;       /* (repeat) */
    uint64_t probed;          /* bytes of the file, to measure the disk */
    uint64_t pass_ns;         /* of the last pass that was timed */
    bool in_cache;            /* memory was measured in what a cache holds */
    /* of a run that guesses */
    struct sl_drafts drafts;
    struct sl_draft_file draft_file;
    struct sl_bench_texts *texts;    /* NULL: it does not */
    struct sl_gate_counts warmed_up; /* when the first turn had ended */
};

const char *sl_bench_phase_name(enum sl_bench_phase phase)
{
    return phase == SL_BENCH_PREFILL ? "prefill" : "decode";
}

int sl_bench_create(struct sl_bench **b, const struct sl_runtime_config *config,
                    struct sl_error *err)
{
    struct sl_bench *made = sl_zalloc_array(1, sizeof *made);

    if (made == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory to measure with");
    made->config = *config;
    made->random = 1;
    *b = made;
    return 0;
}

void sl_bench_destroy(struct sl_bench *b)
{
    free(b);
}

/* --- passes --------------------------------------------------------------- */

/* Any ids do, but the same rows of the embedding each time would not. */
static int32_t random_id(struct sl_bench *b, uint32_t vocab)
{
    b->random = b->random * UINT64_C(6364136223846793005) +
                UINT64_C(1442695040888963407);
    return (int32_t)((b->random >> 33) % vocab);
}

/* Positions [at, at + n) of every sequence in one pass. */
static int forward(struct state *s, uint32_t at, uint32_t n, size_t n_seqs,
                   struct sl_error *err)
{
    for (size_t i = 0; i < n_seqs; i++) {
        int32_t *ids = s->ids + i * s->run->prompt;

        for (uint32_t k = 0; k < n; k++)
            ids[k] = random_id(s->b, s->lm->vocab);
        s->items[i] = (struct sl_lm_item){
            .seq = s->seqs[i],
            .ids = ids,
            .positions = s->positions + at,
            .blocks = s->blocks != NULL ? s->blocks + at : NULL,
            .n = n,
            .n_context = at == 0 ? n : s->run->prompt,
            .n_logits = 1,
        };
    }
    return s->lm->ops->forward(s->lm, s->items, n_seqs, s->logits, err);
}

static void end_sequences(struct state *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        s->lm->ops->seq_destroy(s->lm, s->seqs[i]);
}

static int begin_sequences(struct state *s, size_t n, struct sl_error *err)
{
    for (size_t i = 0; i < n; i++) {
        if (s->lm->ops->seq_create(s->lm, &s->seqs[i], err) != 0) {
            end_sequences(s, i);
            return -1;
        }
    }
    return 0;
}

/* The reads that were begun ahead of use are over: the disk is free. */
static void settle(const struct state *s)
{
    const struct timespec pause = {0, QUIET_NS};
    struct sl_run_stats before, now;

    sl_runtime_stats(s->rt, &now);
    do {
        before = now;
        nanosleep(&pause, NULL);
        sl_runtime_stats(s->rt, &now);
    } while (now.stream.bytes_read != before.stream.bytes_read);
}

/* A disk may give more for a moment than it does for long. */
static uint64_t disk_time(const struct state *s)
{
    uint64_t ns = s->pass_ns / DISK_PASS_SHARE;

    ns = ns > DISK_MOST_NS ? DISK_MOST_NS : ns;
    return sl_runtime_plan_made(s->rt)->streamed_bytes == 0 || ns < DISK_TIME_NS
               ? DISK_TIME_NS
               : ns;
}

static int measure_rates(struct state *s, double rate[N_RATES],
                         struct sl_error *err)
{
    struct sl_probe_disk_config disk = {
        .path = s->b->config.model,
        .io = s->b->config.io,
        .time_ns = disk_time(s),
        .issued = &s->probed,
    };
    struct sl_probe_dram_config dram = {
        .pool = sl_runtime_pool(s->rt),
        .time_ns = DRAM_TIME_NS,
    };
    struct sl_dram_rate memory;
    struct sl_rates arithmetic;

    settle(s);
    if (sl_probe_disk(&rate[DISK_BPS], &disk, err) != 0 ||
        sl_probe_dram(&memory, &dram, err) != 0 ||
        sl_runtime_measure_arithmetic(s->rt, &arithmetic, COMPUTE_TIME_NS,
                                      err) != 0)
        return -1;
    rate[DRAM_BPS] = memory.bps;
    rate[OPS_PER_S] = arithmetic.ops_per_s;
    rate[ATTENTION_OPS_PER_S] = arithmetic.attention_ops_per_s;
    s->in_cache = !memory.beyond_cache;
    return 0;
}

/* A pass after a pause, or after one that computed for long, finds the ring
 * full, which others do not: one that is not counted takes that away. */
static int empty_ring(struct state *s, struct sl_error *err)
{
    int rc;

    if (sl_runtime_plan_made(s->rt)->streamed_bytes == 0)
        return 0;
    if (begin_sequences(s, 1, err) != 0)
        return -1;
    rc = forward(s, 0, 1, 1, err);
    end_sequences(s, 1);
    return rc;
}

static int begin_decode(struct state *s, struct sl_error *err)
{
    if (s->texts != NULL)
        return sl_bench_texts_begin(s->texts, s->seqs, s->ids, s->logits, err);
    if (sl_runtime_plan_made(s->rt)->streamed_bytes == 0)
        return 0;
    return forward(s, s->run->prompt, 1, s->run->batch, err);
}

static uint64_t read_bytes(const struct sl_run_stats *s)
{
    return s->stream.bytes_read + s->experts.demand_bytes +
           s->experts.hint_bytes;
}

static uint64_t wait_ns(const struct sl_run_stats *s)
{
    return s->stream.wait_ns + s->experts.wait_ns;
}

static int run_phase(struct state *s, enum sl_bench_phase phase,
                     uint32_t passes, struct sl_error *err)
{
    bool prefill = phase == SL_BENCH_PREFILL;
    uint32_t n = prefill ? s->run->prompt : 1;
    uint32_t at = prefill ? 0 : s->run->prompt + 1;

    if (!prefill && s->texts != NULL)
        return sl_bench_texts_run(s->texts, passes, err);
    for (uint32_t i = 0; i < passes; i++) {
        if (forward(s, at + i, n, s->run->batch, err) != 0)
            return -1;
    }
    return 0;
}

/* What a pass of a phase took; with guesses, a token of each text. */
static int time_phase(struct state *s, struct turn *t,
                      enum sl_bench_phase phase, struct sl_error *err)
{
    uint32_t passes = phase == SL_BENCH_PREFILL ? 1 : s->run->gen;
    double *f = &t->figure[FIRST_PHASE + phase * A_PHASE];
    struct sl_run_stats before, after;
    uint64_t begin, ns;

    sl_runtime_stats(s->rt, &before);
    begin = sl_clock_ns();
    if (run_phase(s, phase, passes, err) != 0)
        return -1;
    ns = sl_clock_ns() - begin;
    sl_runtime_stats(s->rt, &after);
    s->pass_ns = ns / passes;
    f[SECONDS] = (double)ns * 1e-9 / passes;
    f[DISK_BYTES] = (double)(read_bytes(&after) - read_bytes(&before)) / passes;
    f[WAIT_S] = (double)(wait_ns(&after) - wait_ns(&before)) * 1e-9 / passes;
    f[DEMAND_BYTES] =
        (double)(after.experts.demand_bytes - before.experts.demand_bytes) /
        passes;
    f[HINT_BYTES] =
        (double)(after.experts.hint_bytes - before.experts.hint_bytes) / passes;
    f[WASTED_BYTES] = (double)(after.experts.hint_wasted_bytes -
                               before.experts.hint_wasted_bytes) /
                      passes;
    return 0;
}

/* What a pass of a phase is, on average. A context is visible to all its
 * positions. */
static struct sl_plan_pass pass_of(const struct state *s,
                                   enum sl_bench_phase phase)
{
    const struct sl_bench_run *run = s->run;

    if (phase == SL_BENCH_PREFILL)
        return (struct sl_plan_pass){run->batch * run->prompt, run->batch,
                                     run->prompt};
    return (struct sl_plan_pass){run->batch, run->batch,
                                 run->prompt + 1 + run->gen / 2};
}

/* Holds a phase against its floor at the rates before and after it. */
static void judge(const struct state *s, struct turn *t,
                  enum sl_bench_phase phase, const double before[N_RATES],
                  const double after[N_RATES])
{
    double *f = &t->figure[FIRST_PHASE + phase * A_PHASE];
    struct sl_rates rates = *sl_runtime_rates(s->rt); /* the GPU's */

    rates.disk_bps = (before[DISK_BPS] + after[DISK_BPS]) / 2;
    rates.dram_bps = (before[DRAM_BPS] + after[DRAM_BPS]) / 2;
    rates.ops_per_s = (before[OPS_PER_S] + after[OPS_PER_S]) / 2;
    rates.attention_ops_per_s =
        (before[ATTENTION_OPS_PER_S] + after[ATTENTION_OPS_PER_S]) / 2;
    f[EFFICIENCY] =
        sl_runtime_floor_at(s->rt, &rates, pass_of(s, phase)).seconds /
        f[SECONDS];
}

static int time_phases(struct state *s, struct turn *t, double rate[3][N_RATES],
                       struct sl_error *err)
{
    if (time_phase(s, t, SL_BENCH_PREFILL, err) != 0 ||
        measure_rates(s, rate[1], err) != 0 || begin_decode(s, err) != 0 ||
        time_phase(s, t, SL_BENCH_DECODE, err) != 0 ||
        measure_rates(s, rate[2], err) != 0)
        return -1;
    return 0;
}

static int take_turn(struct state *s, struct turn *t, struct sl_error *err)
{
    double rate[3][N_RATES];
    int rc;

    if (measure_rates(s, rate[0], err) != 0 || empty_ring(s, err) != 0 ||
        begin_sequences(s, s->run->batch, err) != 0)
        return -1;
    rc = time_phases(s, t, rate, err);
    end_sequences(s, s->run->batch);
    if (rc != 0)
        return -1;
    for (size_t i = 0; i < N_RATES; i++)
        t->figure[i] = (rate[0][i] + rate[1][i] + rate[2][i]) / 3;
    judge(s, t, SL_BENCH_PREFILL, rate[0], rate[1]);
    judge(s, t, SL_BENCH_DECODE, rate[1], rate[2]);
    return 0;
}

/* --- results -------------------------------------------------------------- */

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
static struct sl_bench_spread spread_of(const struct state *s, double *v,
                                        size_t figure)
{
    for (uint32_t i = 0; i < s->run->repeat; i++)
        v[i] = s->turns[i].figure[figure];
    return sl_bench_spread_of(v, s->run->repeat);
}

static void sum_up_phase(struct sl_bench_result *r, const struct state *s,
                         enum sl_bench_phase phase, double *v)
{
    struct sl_bench_phase_result *p = &r->phase[phase];
    size_t at = FIRST_PHASE + (size_t)phase * A_PHASE;
    struct sl_plan_pass pass = pass_of(s, phase);

    p->positions = pass.positions;
    p->seconds = spread_of(s, v, at + SECONDS);
    p->efficiency = spread_of(s, v, at + EFFICIENCY);
    p->disk_bytes = spread_of(s, v, at + DISK_BYTES).median;
    p->wait_s = spread_of(s, v, at + WAIT_S).median;
    p->demand_bytes = spread_of(s, v, at + DEMAND_BYTES).median;
    p->hint_bytes = spread_of(s, v, at + HINT_BYTES).median;
    p->wasted_bytes = spread_of(s, v, at + WASTED_BYTES).median;
    p->floor = sl_runtime_floor_at(s->rt, &r->rates, pass);
    p->dram_bytes = (double)r->resident_bytes + (double)r->memory.small +
                    2 * (double)r->streamed_bytes;
}

static void sum_up_drafts(struct sl_bench_drafts *d, const struct state *s)
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
    }
    if (passes > 0)
        d->tokens_per_pass =
            (double)(now->tokens - was->tokens) / (double)passes;
}

static int sum_up(struct sl_bench_result *r, const struct state *s,
                  struct sl_error *err)
{
    const struct sl_plan *plan = sl_runtime_plan_made(s->rt);
    const char *why;
    const struct sl_device_info *device = sl_runtime_device(s->rt, &why);
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
    r->resident_bytes = plan->resident_bytes;
    r->io = stats.stream.io_name;
    r->isa = sl_runtime_isa(s->rt);
    r->activations = sl_runtime_activations(s->rt);
    r->rates.disk_bps = spread_of(s, v, DISK_BPS).median;
    r->rates.dram_bps = spread_of(s, v, DRAM_BPS).median;
    r->rates.ops_per_s = spread_of(s, v, OPS_PER_S).median;
    r->rates.attention_ops_per_s = spread_of(s, v, ATTENTION_OPS_PER_S).median;
    r->dram_in_cache = s->in_cache;
    for (int p = 0; p < SL_BENCH_PHASES; p++)
        sum_up_phase(r, s, (enum sl_bench_phase)p, v);
    free(v);
    sum_up_drafts(&r->drafts, s);
    /* What will stay in memory is read once too, on the way. */
    r->first_token_floor_s =
        sl_floor_make(&r->rates,
                      plan->streamed_bytes + plan->resident_bytes +
                          plan->vram_bytes,
                      0, 0)
            .seconds;
    compute_s = r->phase[SL_BENCH_PREFILL].floor.compute_s;
    if (r->first_token_floor_s < compute_s)
        r->first_token_floor_s = compute_s;
    return 0;
}

/* --- one run -------------------------------------------------------------- */

static int allocate(struct state *s, struct sl_error *err)
{
    const struct sl_modelfile *mf = sl_runtime_modelfile(s->rt);
    uint32_t n = s->run->prompt + 1 + s->run->gen, batch = s->run->batch;
    size_t ids, logits;

    if (!sl_mul_size(&ids, batch, s->run->prompt) ||
        !sl_mul_size(&logits, batch, mf->hp.vocab))
        return sl_fail(err, SL_ERR_NOMEM, "a batch of %u is too large", batch);
    s->seqs = sl_zalloc_array(batch, sizeof *s->seqs);
    s->items = sl_zalloc_array(batch, sizeof *s->items);
    s->ids = sl_zalloc_array(ids, sizeof *s->ids);
    s->positions = sl_zalloc_array(n, sizeof *s->positions);
    s->logits = sl_zalloc_array(logits, sizeof *s->logits);
    s->turns = sl_zalloc_array(s->run->repeat, sizeof *s->turns);
    if (mf->hp.position_2d)
        s->blocks = sl_zalloc_array(n, sizeof *s->blocks);
    if (s->seqs == NULL || s->items == NULL || s->ids == NULL ||
        s->positions == NULL || s->logits == NULL || s->turns == NULL ||
        (mf->hp.position_2d && s->blocks == NULL))
        return sl_fail(err, SL_ERR_NOMEM, "no memory for a batch of %u", batch);
    for (uint32_t i = 0; i < n; i++)
        s->positions[i] = (int32_t)i;
    return 0;
}

static void finish(struct state *s)
{
    sl_bench_texts_destroy(s->texts);
    sl_draft_file_close(&s->draft_file);
    sl_runtime_close(s->rt);
    free(s->seqs);
    free(s->items);
    free(s->ids);
    free(s->positions);
    free(s->blocks);
    free(s->logits);
    free(s->turns);
}

/* From a file on disk to the first logits, then a whole turn: caches, pages
 * and clocks are as they will be. */
static int warm_up(struct state *s, double *first_token_s, uint64_t begin,
                   struct sl_error *err)
{
    struct turn turn;

    if (begin_sequences(s, s->run->batch, err) != 0)
        return -1;
    if (forward(s, 0, s->run->prompt, s->run->batch, err) != 0) {
        end_sequences(s, s->run->batch);
        return -1;
    }
    *first_token_s = (double)(sl_clock_ns() - begin) * 1e-9;
    end_sequences(s, s->run->batch);
    if (take_turn(s, &turn, err) != 0)
        return -1;
    s->warmed_up = s->drafts.gate.counts;
    return 0;
}

static struct sl_runtime_config config_of(const struct sl_runtime_config *from,
                                          const struct sl_bench_run *run)
{
    struct sl_runtime_config config = *from;

    config.ram_bytes = run->ram_bytes;
    config.threads = run->threads;
    config.vram_bytes = run->vram_bytes;
    return config;
}

/* Plans, takes the memory, and what guesses take of it. */
static int take_memory(struct state *s, struct sl_workload *load,
                       struct sl_error *err)
{
    const struct sl_bench_run *run = s->run;
    struct sl_draft_file *file = &s->draft_file;
    struct sl_runtime_config config = config_of(&s->b->config, run);

    sl_drafts_workload(&s->drafts, load);
    if (sl_draft_file_plan(file, load, s->rt, &config, err) != 0 ||
        sl_runtime_start(s->rt, load, err) != 0 ||
        sl_draft_file_start(file, s->rt, err) != 0)
        return -1;
    s->lm = sl_runtime_lm(s->rt);
    if (s->drafts.n == 0)
        return 0;
    if (sl_runtime_draft_positions(s->rt) == 0)
        sl_drafts_stop(&s->drafts);
    return sl_bench_texts_create(&s->texts, s->lm, &s->drafts, run->batch,
                                 run->prompt, s->blocks != NULL, err);
}

int sl_bench_open(struct sl_runtime **rt, const struct sl_runtime_config *from,
                  const struct sl_bench_run *run, uint32_t n_behind,
                  struct sl_error *err)
{
    struct sl_runtime_config config = config_of(from, run);
    uint32_t most;

    if (sl_runtime_open(rt, &config, err) != 0)
        return -1;
    most = sl_runtime_modelfile(*rt)->hp.max_positions;
    if (run->prompt < most && n_behind < most - run->prompt)
        return 0;
    sl_runtime_close(*rt);
    *rt = NULL;
    return sl_fail(err, SL_ERR_USAGE,
                   "--prompt %u and %u tokens after it are more than the %u "
                   "positions of this model",
                   run->prompt, n_behind, most);
}

static int start(struct state *s, struct sl_error *err)
{
    const struct sl_bench_run *run = s->run;
    struct sl_workload load = {
        .n_sequences = 1,
        .max_tokens = run->prompt + 1 + run->gen,
        .pass_positions = run->prompt * run->batch,
        .pass_logits = run->batch,
        .n_texts = run->batch,
    };

    if (sl_bench_open(&s->rt, &s->b->config, run, run->gen, err) != 0)
        return -1;
    if (run->draft != NULL &&
        sl_drafts_open(&s->drafts, &s->draft_file, run->draft, err) != 0)
        return -1;
    if (allocate(s, err) != 0)
        return -1;
    return take_memory(s, &load, err);
}

int sl_bench_run(struct sl_bench *b, struct sl_bench_result *result,
                 const struct sl_bench_run *run, struct sl_error *err)
{
    struct state s = {.b = b, .run = run};
    struct sl_bench_result r = {.run = *run};
    uint64_t begin = sl_clock_ns();
    int rc = -1;

    if (start(&s, err) != 0 || warm_up(&s, &r.first_token_s, begin, err) != 0)
        goto out;
    for (uint32_t i = 0; i < run->repeat; i++) {
        if (take_turn(&s, &s.turns[i], err) != 0)
            goto out;
    }
    rc = sum_up(&r, &s, err);
    if (rc == 0)
        *result = r;
out:
    if (rc != 0)
        sl_runtime_spoil(s.rt);
    finish(&s);
    return rc;
}
