/*
 * bench.h - how fast a model runs here, beside how fast it could
 *
 * One run is a budget, a prompt, a batch and a number of threads. It is taken
 * in turns: the machine's rates are measured, the prompt goes through the
 * model, they are measured again, tokens are decoded, and they are measured
 * once more; so a floor comes from what was seen right before and right after
 * what is held against it, on a machine whose rates drift. While a rate is
 * measured, some memory is taken beside the budget (twice the last-level cache,
 * at most 512 MiB).
 */
#ifndef SL_BENCH_H
#define SL_BENCH_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "src/cmd/opts_draft.h"
#include "src/probe/machine.h"
#include "src/runtime/runtime.h"

struct sl_bench_run {
    uint64_t ram_bytes;  /* or SL_RAM_AUTO, SL_RAM_LEAST */
    uint64_t vram_bytes; /* or SL_VRAM_AUTO */
    uint32_t prompt;     /* positions of each sequence */
    uint32_t gen;        /* tokens decoded in a turn */
    uint32_t batch;      /* sequences in a pass */
    unsigned threads;    /* 0: one per CPU */
    uint32_t repeat;     /* turns, after one to warm up */
    /* What passes that decode take guesses from (borrowed); NULL: they take
     * none, and decode any tokens. */
    const struct sl_draft_options *draft;
};

enum sl_bench_phase { SL_BENCH_PREFILL, SL_BENCH_DECODE, SL_BENCH_PHASES };

const char *sl_bench_phase_name(enum sl_bench_phase phase);

struct sl_bench_spread {
    double median, least, most;
};

/* Of one phase, over the turns; passes are those of a turn, averaged. */
struct sl_bench_phase_result {
    struct sl_bench_spread seconds; /* of a pass */
    struct sl_bench_spread efficiency;
    struct sl_floor floor; /* of a pass, medians of the turns' */
    double positions;      /* of a pass, all sequences */
    double disk_bytes;     /* read in a pass */
    /* of disk_bytes: experts that were wanted, guessed, and that in vain */
    double demand_bytes, hint_bytes, wasted_bytes;
    double file_bytes[SL_IO_FILES]; /* of disk_bytes, where there are two */
    double dram_bytes;              /* that cross memory in a pass, at least */
    double wait_s;                  /* of a pass, waiting for the disk */
};

/* What came of guesses in the turns that count. A pass of the decode is then
 * what it takes to go on by one token, which may be less than a pass. */
struct sl_bench_drafts {
    uint32_t n; /* sources */
    struct {
        const char *name;
        uint64_t drafted, accepted;
        uint64_t beside, beside_accepted; /* beside likelier ones */
        uint64_t ahead, discarded;        /* while passes ran; of no use */
    } of[SL_DRAFT_SOURCES];
    double tokens_per_pass; /* of all texts together */
};

struct sl_bench_result {
    struct sl_bench_run run;     /* threads and repeat as they were */
    struct sl_memory memory;     /* budget and what became of it */
    char device[SL_DEVICE_NAME]; /* the GPU in use, or "" */
    struct sl_vram vram;         /* of it */
    char no_device[480];         /* why none is in use, or "" */
    uint64_t streamed_bytes, resident_bytes;
    double first_token_s;       /* from opening the file, nothing in memory */
    double first_token_floor_s; /* all weights read once, and the pass */
    double cold_disk_bps;       /* of the disk before, which that rests on */
    struct sl_rates rates;      /* medians of the turns' */
    bool dram_in_cache;         /* their dram_bps was measured in a cache */
    const char *isa, *io;
    struct sl_reading reading;
    const char *activations;
    struct sl_bench_phase_result phase[SL_BENCH_PHASES];
    struct sl_bench_drafts drafts;
};

struct sl_bench;

/* config is copied; its ram_bytes, vram_bytes and threads are those of the
 * runs. Errors:
 * SL_ERR_NOMEM. */
int sl_bench_create(struct sl_bench **b, const struct sl_runtime_config *config,
                    struct sl_error *err);
void sl_bench_destroy(struct sl_bench *b); /* NULL is fine */

/* Errors: those of sl_runtime_open and sl_runtime_start; SL_ERR_USAGE for a
 * prompt that is too long. */
int sl_bench_run(struct sl_bench *b, struct sl_bench_result *result,
                 const struct sl_bench_run *run, struct sl_error *err);

/* How every run begins: opens the model within a run's budgets and sees to it
 * that it takes its prompt, a token and n_behind more. Errors: those of
 * sl_runtime_open; SL_ERR_USAGE. */
int sl_bench_open(struct sl_runtime **rt, const struct sl_runtime_config *from,
                  const struct sl_bench_run *run, uint32_t n_behind,
                  struct sl_error *err);

/* Median, least and most of n > 0 values, which it sorts. */
struct sl_bench_spread sl_bench_spread_of(double *v, size_t n);

/* What a page of results says of where they come from. */
struct sl_bench_origin {
    const char *model, *name, *quant; /* path, general.name, --quant */
    uint64_t file_bytes;
    struct sl_machine machine;
    const char *command; /* the line that was typed */
};

/* bench_print.c: a line of the table, or of JSON, for each phase. */
void sl_bench_print_origin(FILE *f, const struct sl_bench_origin *origin);
void sl_bench_print_head(FILE *f, const struct sl_bench_origin *origin);
void sl_bench_print(FILE *f, const struct sl_bench_result *r);
int sl_bench_print_json(FILE *f, const struct sl_bench_result *r,
                        const struct sl_bench_origin *origin,
                        struct sl_error *err);

/* bench_plot.c: speed and efficiency against the budget, an SVG file. Errors:
 * SL_ERR_IO, SL_ERR_NOSPACE. */
int sl_bench_plot(const char *path, const struct sl_bench_result *results,
                  size_t n, const struct sl_bench_origin *origin,
                  struct sl_error *err);

/* bench_positions.c: what a pass takes, by the number of its positions. */
#define SL_BENCH_SIZES 64u
struct sl_bench_positions {
    struct sl_memory memory;
    uint64_t streamed_bytes;
    unsigned threads;
    struct sl_bench_spread seconds[SL_BENCH_SIZES]; /* of a pass of each size */
};

/* Of a run's prompt, memory and threads, one sequence: gen / 4 passes of each
 * size in each of its turns. Errors: as sl_bench_run. */
int sl_bench_positions(struct sl_bench_positions *p,
                       const struct sl_runtime_config *config,
                       const struct sl_bench_run *run, const uint32_t *sizes,
                       size_t n_sizes, struct sl_error *err);
/* A table, a line of JSON, an SVG file. */
void sl_bench_print_positions(FILE *f, const struct sl_bench_positions *p,
                              const struct sl_bench_run *run,
                              const uint32_t *sizes, size_t n_sizes);
int sl_bench_positions_json(FILE *f, const struct sl_bench_positions *p,
                            const struct sl_bench_run *run,
                            const uint32_t *sizes, size_t n_sizes,
                            const struct sl_bench_origin *origin,
                            struct sl_error *err);
int sl_bench_plot_positions(const char *path,
                            const struct sl_bench_positions *p,
                            const uint32_t *sizes, size_t n_sizes,
                            struct sl_error *err);

#endif
