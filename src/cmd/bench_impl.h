/*
 * bench_impl.h - a run in progress: bench.c makes it, bench_sum.c sums it up
 */
#ifndef SL_BENCH_IMPL_H
#define SL_BENCH_IMPL_H

#include "src/cmd/bench.h"
#include "src/cmd/bench_texts.h"

/* What a turn finds: the machine's rates, then for each phase ... */
enum {
    SL_BENCH_DISK_BPS,
    SL_BENCH_DRAM_BPS,
    SL_BENCH_OPS_PER_S,
    SL_BENCH_ATTENTION_OPS_PER_S,
    SL_BENCH_N_RATES,
    SL_BENCH_FIRST_PHASE = SL_BENCH_N_RATES
};
enum { /* of a pass */
       SL_BENCH_SECONDS,
       SL_BENCH_DISK_BYTES,
       SL_BENCH_WAIT_S,
       SL_BENCH_EFFICIENCY,
       SL_BENCH_DEMAND_BYTES,
       SL_BENCH_HINT_BYTES,
       SL_BENCH_WASTED_BYTES,
       SL_BENCH_FILE_BYTES, /* of disk_bytes, of each of two disks */
       SL_BENCH_A_PHASE = SL_BENCH_FILE_BYTES + SL_IO_FILES
};
enum {
    SL_BENCH_N_FIGURES =
        SL_BENCH_FIRST_PHASE + SL_BENCH_PHASES * SL_BENCH_A_PHASE
};

struct sl_bench_turn {
    double figure[SL_BENCH_N_FIGURES];
};

/* A run in progress. */
struct sl_bench_state {
    struct sl_bench *b;
    const struct sl_bench_run *run;
    struct sl_runtime *rt;
    struct sl_lm *lm;
    uint32_t *seqs;              /* (batch) */
    struct sl_lm_item *items;    /* (batch) */
    int32_t *ids;                /* (batch, prompt) */
    int32_t *positions;          /* (prompt + 1 + gen) */
    int32_t *blocks;             /* the same, or NULL for a 1-D model */
    float *logits;               /* (batch, vocab) */
    struct sl_bench_turn *turns; /* (repeat) */
    uint64_t probed;             /* bytes of the file, to measure the disk */
    uint64_t pass_ns;            /* of the last pass that was timed */
    bool in_cache;               /* memory was measured in what a cache holds */
    /* of a run that guesses */
    struct sl_drafts drafts;
    struct sl_draft_file draft_file;
    struct sl_bench_texts *texts;    /* NULL: it does not */
    struct sl_gate_counts warmed_up; /* when the first turn had ended */
};

/* What a pass of a phase is, on average. A context is visible to all its
 * positions. */
struct sl_plan_pass sl_bench_pass(const struct sl_bench_state *s,
                                  enum sl_bench_phase phase);
/* All turns. Errors: SL_ERR_NOMEM. */
int sl_bench_sum_up(struct sl_bench_result *r, const struct sl_bench_state *s,
                    struct sl_error *err);

#endif
