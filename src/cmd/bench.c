#include "config.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "src/base/clock.h"
#include "src/base/mem.h"
#include "src/cmd/bench_impl.h"
#include "src/probe/probe.h"

#define DISK_TIME_NS    200000000u  /* at least; */
#define DISK_MOST_NS    4000000000u /* an eighth of a pass, */
#define DISK_PASS_SHARE 8           /* up to this */
#define DISK_ROOM_BYTES (16u << 20)
#define DISK_ROOM_STEP  (2u << 20) /* large pages */
#define DRAM_TIME_NS    120000000u
#define COMPUTE_TIME_NS 100000000u
/* The reader has nothing left to do when it has read nothing for so long. */
#define QUIET_NS 20000000

struct sl_bench {
    struct sl_runtime_config config;
    uint64_t random;
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
static int forward(struct sl_bench_state *s, uint32_t at, uint32_t n,
                   size_t n_seqs, struct sl_error *err)
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
            .reads = at == 0,
        };
    }
    return s->lm->ops->forward(s->lm, s->items, n_seqs, s->logits, err);
}

static void end_sequences(struct sl_bench_state *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        s->lm->ops->seq_destroy(s->lm, s->seqs[i]);
}

static int begin_sequences(struct sl_bench_state *s, size_t n,
                           struct sl_error *err)
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
static void settle(const struct sl_bench_state *s)
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
static uint64_t disk_time(const struct sl_bench_state *s)
{
    uint64_t ns = s->pass_ns / DISK_PASS_SHARE;

    ns = ns > DISK_MOST_NS ? DISK_MOST_NS : ns;
    return sl_runtime_plan_made(s->rt)->streamed_bytes == 0 || ns < DISK_TIME_NS
               ? DISK_TIME_NS
               : ns;
}

/* Into as much memory as passes read into; 0: as the probe likes. */
static uint64_t disk_room(const struct sl_bench_state *s)
{
    uint64_t ring = sl_runtime_plan_made(s->rt)->at[SL_HOST].ring_bytes;

    return ring < DISK_ROOM_BYTES ? sl_round_up(ring, DISK_ROOM_STEP) : 0;
}

/* All rates of the machine at one moment, between the phases that are judged
 * by them: a machine that slows down (heat, neighbours) slows its floor down
 * too. */
static int measure_rates(struct sl_bench_state *s,
                         double rate[SL_BENCH_N_RATES], struct sl_error *err)
{
    struct sl_probe_disk_config disk = {
        .io = s->b->config.io,
        .buffer_bytes = disk_room(s),
        .time_ns = disk_time(s),
        .issued = &s->probed,
    };
    struct sl_probe_dram_config dram = {
        .pool = sl_runtime_pool(s->rt),
        .time_ns = DRAM_TIME_NS,
    };
    struct sl_dram_rate memory;
    struct sl_rates arithmetic;
    struct sl_extent *extents;
    int rc;

    settle(s);
    sl_runtime_files(s->rt, &disk.path, &disk.mirror);
    if (sl_runtime_read_extents(s->rt, &extents, &disk.n_extents, err) != 0)
        return -1;
    disk.extents = extents;
    rc = sl_probe_disk(&rate[SL_BENCH_DISK_BPS], &disk, err);
    free(extents);
    if (rc != 0 || sl_probe_dram(&memory, &dram, err) != 0 ||
        sl_runtime_measure_arithmetic(s->rt, &arithmetic, COMPUTE_TIME_NS,
                                      err) != 0)
        return -1;
    rate[SL_BENCH_DRAM_BPS] = memory.bps;
    rate[SL_BENCH_OPS_PER_S] = arithmetic.worker[SL_HOST].ops_per_s;
    rate[SL_BENCH_ATTENTION_OPS_PER_S] =
        arithmetic.worker[SL_HOST].attention_ops_per_s;
    s->in_cache = !memory.beyond_cache;
    return 0;
}

/* A pass after a pause, or after one that computed for long, finds the ring
 * full, which others do not: one that is not counted takes that away. */
static int empty_ring(struct sl_bench_state *s, struct sl_error *err)
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

static int begin_decode(struct sl_bench_state *s, struct sl_error *err)
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

static int run_phase(struct sl_bench_state *s, enum sl_bench_phase phase,
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
static int time_phase(struct sl_bench_state *s, struct sl_bench_turn *t,
                      enum sl_bench_phase phase, struct sl_error *err)
{
    uint32_t passes = phase == SL_BENCH_PREFILL ? 1 : s->run->gen;
    double *f = &t->figure[SL_BENCH_FIRST_PHASE + phase * SL_BENCH_A_PHASE];
    struct sl_run_stats before, after;
    uint64_t begin, ns;

    sl_runtime_count_experts_anew(s->rt, phase == SL_BENCH_PREFILL);
    sl_runtime_stats(s->rt, &before);
    begin = sl_clock_ns();
    if (run_phase(s, phase, passes, err) != 0)
        return -1;
    ns = sl_clock_ns() - begin;
    sl_runtime_stats(s->rt, &after);
    s->pass_ns = ns / passes;
    f[SL_BENCH_SECONDS] = (double)ns * 1e-9 / passes;
    f[SL_BENCH_DISK_BYTES] =
        (double)(read_bytes(&after) - read_bytes(&before)) / passes;
    f[SL_BENCH_WAIT_S] =
        (double)(wait_ns(&after) - wait_ns(&before)) * 1e-9 / passes;
    f[SL_BENCH_DEMAND_BYTES] =
        (double)(after.experts.demand_bytes - before.experts.demand_bytes) /
        passes;
    f[SL_BENCH_HINT_BYTES] =
        (double)(after.experts.hint_bytes - before.experts.hint_bytes) / passes;
    f[SL_BENCH_WASTED_BYTES] = (double)(after.experts.hint_wasted_bytes -
                                        before.experts.hint_wasted_bytes) /
                               passes;
    for (unsigned i = 0; i < SL_IO_FILES; i++)
        f[SL_BENCH_FILE_BYTES + i] =
            (double)(after.disks[i].bytes - before.disks[i].bytes) / passes;
    return 0;
}

/* Holds a phase against its floor at the rates before and after it. */
static void judge(const struct sl_bench_state *s, struct sl_bench_turn *t,
                  enum sl_bench_phase phase,
                  const double before[SL_BENCH_N_RATES],
                  const double after[SL_BENCH_N_RATES])
{
    double *f = &t->figure[SL_BENCH_FIRST_PHASE + phase * SL_BENCH_A_PHASE];
    struct sl_rates rates = *sl_runtime_rates(s->rt); /* the GPU's */

    rates.disk_bps = (before[SL_BENCH_DISK_BPS] + after[SL_BENCH_DISK_BPS]) / 2;
    rates.dram_bps = (before[SL_BENCH_DRAM_BPS] + after[SL_BENCH_DRAM_BPS]) / 2;
    rates.worker[SL_HOST].ops_per_s =
        (before[SL_BENCH_OPS_PER_S] + after[SL_BENCH_OPS_PER_S]) / 2;
    rates.worker[SL_HOST].attention_ops_per_s =
        (before[SL_BENCH_ATTENTION_OPS_PER_S] +
         after[SL_BENCH_ATTENTION_OPS_PER_S]) /
        2;
    f[SL_BENCH_EFFICIENCY] =
        sl_runtime_floor_at(s->rt, &rates, sl_bench_pass(s, phase)).seconds /
        f[SL_BENCH_SECONDS];
}

static int time_phases(struct sl_bench_state *s, struct sl_bench_turn *t,
                       double rate[3][SL_BENCH_N_RATES], struct sl_error *err)
{
    if (time_phase(s, t, SL_BENCH_PREFILL, err) != 0 ||
        measure_rates(s, rate[1], err) != 0 || begin_decode(s, err) != 0 ||
        time_phase(s, t, SL_BENCH_DECODE, err) != 0 ||
        measure_rates(s, rate[2], err) != 0)
        return -1;
    return 0;
}

/* Rates before, between and after the two phases; a phase is judged by the
 * two nearest to it. */
static int take_turn(struct sl_bench_state *s, struct sl_bench_turn *t,
                     struct sl_error *err)
{
    double rate[3][SL_BENCH_N_RATES];
    int rc;

    if (measure_rates(s, rate[0], err) != 0 || empty_ring(s, err) != 0 ||
        begin_sequences(s, s->run->batch, err) != 0)
        return -1;
    rc = time_phases(s, t, rate, err);
    end_sequences(s, s->run->batch);
    if (rc != 0)
        return -1;
    for (size_t i = 0; i < SL_BENCH_N_RATES; i++)
        t->figure[i] = (rate[0][i] + rate[1][i] + rate[2][i]) / 3;
    judge(s, t, SL_BENCH_PREFILL, rate[0], rate[1]);
    judge(s, t, SL_BENCH_DECODE, rate[1], rate[2]);
    return 0;
}

/* --- one run -------------------------------------------------------------- */

static int allocate(struct sl_bench_state *s, struct sl_error *err)
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

static void finish(struct sl_bench_state *s)
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
static int warm_up(struct sl_bench_state *s, double *first_token_s,
                   uint64_t begin, struct sl_error *err)
{
    struct sl_bench_turn turn;

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
static int take_memory(struct sl_bench_state *s, struct sl_workload *load,
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

static int start(struct sl_bench_state *s, struct sl_error *err)
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

/* Before anything of the file is read: what a cache below the file system will
 * have of it later, it has not got for the first pass. */
static int measure_cold(double *bps, const struct sl_bench *b,
                        struct sl_error *err)
{
    struct sl_probe_disk_config disk = {
        .path = b->config.model,
        .mirror = b->config.mirror,
        .io = b->config.io,
        .time_ns = DISK_TIME_NS,
    };

    return sl_probe_disk(bps, &disk, err);
}

int sl_bench_run(struct sl_bench *b, struct sl_bench_result *result,
                 const struct sl_bench_run *run, struct sl_error *err)
{
    struct sl_bench_state s = {.b = b, .run = run};
    struct sl_bench_result r = {.run = *run};
    uint64_t begin;
    int rc = -1;

    if (measure_cold(&r.cold_disk_bps, b, err) != 0)
        return -1;
    begin = sl_clock_ns();
    if (start(&s, err) != 0 || warm_up(&s, &r.first_token_s, begin, err) != 0)
        goto out;
    for (uint32_t i = 0; i < run->repeat; i++) {
        if (take_turn(&s, &s.turns[i], err) != 0)
            goto out;
    }
    rc = sl_bench_sum_up(&r, &s, err);
    if (rc == 0)
        *result = r;
out:
    if (rc != 0)
        sl_runtime_spoil(s.rt);
    finish(&s);
    return rc;
}
