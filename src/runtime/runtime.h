/*
 * runtime.h - puts a model file, a budget and a machine together
 *
 * The only module that knows all others: it opens the model file, cuts its
 * stages into slabs, plans their tiers within the RAM budget, starts the
 * stream and hands out a language model (lm.h) to generate with.
 */
#ifndef SL_RUNTIME_H
#define SL_RUNTIME_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/kernels.h"
#include "offload/device.h"
#include "offload/io.h"
#include "offload/mirror.h"
#include "offload/numa.h"
#include "offload/plan.h"
#include "offload/slab_cache.h"
#include "offload/stream.h"
#include "offload/upload.h"
#include "src/base/log.h"
#include "src/base/pool.h"
#include "src/ckpt/lora.h"
#include "src/exec/expert_floor.h"
#include "src/exec/lm.h"
#include "src/exec/prompt_cache.h"
#include "src/exec/workload.h"
#include "src/model/modelfile.h"
#include "src/text/tokenizer.h"

enum sl_activations {
    SL_ACTIVATIONS_AUTO, /* f32 for float files, int8 for packed ones */
    SL_ACTIVATIONS_F32,  /* and the KV cache FP32, if nothing else was said */
    SL_ACTIVATIONS_INT8, /* INT8 in groups of 32 where shapes allow */
    SL_ACTIVATIONS_BF16, /* and weights that are floats too; where shapes do */
};

/* Where to compute. */
enum sl_device_kind {
    SL_DEVICE_CPU,
    SL_DEVICE_AUTO, /* on a GPU too, where there is one and it helps */
    SL_DEVICE_CUDA, /* the same with this one, which must be there */
};

#define SL_VRAM_AUTO 0 /* what is free on the device, less a margin */

#define SL_RAM_AUTO  0          /* what is free now, less a margin */
#define SL_RAM_LEAST UINT64_MAX /* the least budget that works */
/* Of the model file's bytes: p from 1 to SL_RAM_PERCENT_MOST. */
#define SL_RAM_PERCENT(p)   (UINT64_MAX - 2000 + (uint64_t)(p))
#define SL_RAM_PERCENT_MOST 1000u

struct sl_runtime_config {
    const char *model;   /* path */
    const char *mirror;  /* of its copy on another disk, or NULL */
    uint64_t ram_bytes;  /* or SL_RAM_AUTO, SL_RAM_LEAST */
    uint64_t free_bytes; /* what SL_RAM_AUTO may count on; 0: all that is free
                          * now */
    uint64_t program_bytes; /* what the program had when a runtime that was
                             * closed again planned, so that plans one after
                             * another count alike; 0: measured. With a GPU
                             * always measured */
    unsigned threads;       /* 0: one per CPU */
    bool numa_off; /* threads and memory lie where the system puts them */
    const struct sl_numa_ops *numa; /* NULL: this machine's */
    void *numa_arg;
    enum sl_activations activations;
    bool kv_set; /* else FP16, or FP32 with SL_ACTIVATIONS_F32 */
    enum sl_kv_kind kv;
    enum sl_io_kind io;
    enum sl_device_kind device;
    int device_ordinal;  /* SL_DEVICE_CUDA; or SL_DEVICE_BEST */
    uint64_t vram_bytes; /* all use of the device; or SL_VRAM_AUTO */
    unsigned vram_parts; /* with that, one of so many of it; 0: all of it */
    /* of this process, which opens more than one run with a device; or NULL */
    struct sl_device_contexts *contexts;
    enum sl_engine_rule engine;   /* what computes, where there is a GPU */
    const struct sl_rates *rates; /* of the machine; NULL: measured where a
                                   * GPU makes them matter */
    bool verify;                  /* check every checksum first */
    bool quiet;
    const char *prompt_cache;       /* file (prompt_cache.h), or NULL */
    struct sl_prompt_store prompts; /* dir NULL: no folder of them */
    const char *prefix; /* checkpoint of a P-Tuning v2 prefix, or NULL */
    struct sl_lora_arg lora[SL_LORA_MOST]; /* adapters */
    size_t n_lora;
    const char *trace;             /* file, or NULL */
    struct sl_hit_curve hit_curve; /* what a plan expects of decode */
    bool no_usage; /* neither take nor keep what is learned of experts */
    const char *route_trace;   /* file that keeps which experts are chosen, or
                                * NULL; not of models without */
    bool max_isa_set;          /* restrict the kernels (tests, --isa) */
    int max_isa;               /* enum sl_isa */
    struct sl_reading reading; /* of weights; places 0: the default */
    /* Ends the refusal of a budget that is too small: which options help;
     * NULL: those of generate. */
    const char *needs_less;
    const struct sl_log *log;
};

/* Memory by purpose, bytes. */
struct sl_memory {
    uint64_t program; /* code, libraries, tokenizer, heap: measured */
    uint64_t small;   /* norms, biases, row-wise scales */
    uint64_t adapters;
    uint64_t kv;
    uint64_t activations;
    uint64_t logits;
    uint64_t drafts; /* of guessing what comes next */
    uint64_t ring;
    uint64_t residents;
    uint64_t experts; /* places and lists of those of a mixture */
    uint64_t staging; /* what goes to and from a GPU, beside weights */
    uint64_t other;   /* stream bookkeeping, trace, margin */
    uint64_t total;
    uint64_t budget;
    uint64_t least; /* the smallest budget that works */
};

/* Device memory by purpose, bytes. */
struct sl_vram {
    uint64_t context; /* the driver's, measured; a part for what it adds */
    uint64_t small;
    uint64_t activations; /* and logits, tables */
    uint64_t workspace;
    uint64_t kv; /* of the layers that the GPU decodes; buffers of some */
    uint64_t kv_waiting; /* in RAM, of those that come to these in turns */
    uint32_t n_layers;   /* that it decodes; of these so many wait: */
    uint32_t n_layers_waiting;
    uint64_t ring;
    uint64_t residents;
    uint64_t experts; /* of a mixture, in what is left */
    uint64_t total;
    uint64_t budget;
    uint64_t least; /* with which the GPU can compute everything */
};

struct sl_runtime;

/* First step: the model file and its tokenizer, so that prompts can be
 * tokenised and the workload be known. Errors: as sl_modelfile_open. */
int sl_runtime_open(struct sl_runtime **rt,
                    const struct sl_runtime_config *config,
                    struct sl_error *err);
/* Second step: plan for the workload, take the memory, start the stream.
 * Errors: SL_ERR_BUDGET naming the least that works and what needs it, or what
 * the machine has where the plan would take more, before any weight is read. */
int sl_runtime_start(struct sl_runtime *rt, const struct sl_workload *load,
                     struct sl_error *err);
/* Plans without starting (sluice plan). */
int sl_runtime_plan(struct sl_runtime *rt, const struct sl_workload *load,
                    struct sl_error *err);
/* The run failed: its trace is not kept, and one that was there is. NULL is
 * fine; so is a run that did not start, for which this goes without saying. */
void sl_runtime_spoil(struct sl_runtime *rt);
void sl_runtime_close(struct sl_runtime *rt); /* NULL is fine */

const struct sl_modelfile *sl_runtime_modelfile(const struct sl_runtime *rt);
struct sl_tokenizer *sl_runtime_tokenizer(struct sl_runtime *rt); /* or NULL */
struct sl_lm *sl_runtime_lm(struct sl_runtime *rt); /* after start */
const struct sl_memory *sl_runtime_memory(const struct sl_runtime *rt);
const char *sl_runtime_kv_name(const struct sl_runtime *rt); /* "f16" ... */
/* Guesses that a pass may take along, as planned: 0 where there is no room. */
uint32_t sl_runtime_draft_positions(const struct sl_runtime *rt);
/* As struct sl_workload has it. */
uint32_t sl_runtime_draft_ahead(const struct sl_runtime *rt);
/* Positions that every sequence begins with: a prefix's. */
uint32_t sl_runtime_prefix(const struct sl_runtime *rt);
/* The GPU in use and its memory, after planning; NULL where none is, and *why
 * (may be NULL) says why: "" where nobody wants one. */
const struct sl_device_info *sl_runtime_device(const struct sl_runtime *rt,
                                               const char **why);
const struct sl_vram *sl_runtime_vram(const struct sl_runtime *rt);
/* The machine's rates that the plan was made with; zeros without a GPU. */
const struct sl_rates *sl_runtime_rates(const struct sl_runtime *rt);
/* How many experts have a place in RAM, of how many; 0 of 0: no mixture. */
void sl_runtime_experts(const struct sl_runtime *rt, uint32_t *n_places,
                        uint32_t *n_experts);
uint32_t sl_runtime_device_experts(const struct sl_runtime *rt); /* in VRAM */
/* Beside them those that all positions use, of so many layers. */
uint32_t sl_runtime_device_shared(const struct sl_runtime *rt);
struct sl_expert_demand sl_runtime_expert_demand(const struct sl_runtime *rt,
                                                 struct sl_plan_pass pass);
const struct sl_plan *sl_runtime_plan_made(const struct sl_runtime *rt);

const struct sl_numa *sl_runtime_numa(const struct sl_runtime *rt);
/* Where the ring is; SL_NUMA_UNKNOWN: nowhere in particular. */
unsigned sl_runtime_ring_node(const struct sl_runtime *rt);
/* A plan that takes more than the machine has, as far as that is known
 * (*ram_bytes, else 0). */
bool sl_runtime_beyond_machine(const struct sl_runtime *rt,
                               uint64_t *ram_bytes);
struct sl_pool *sl_runtime_pool(const struct sl_runtime *rt);
const char *sl_runtime_isa(const struct sl_runtime *rt); /* of the kernels */
struct sl_reading sl_runtime_reading(const struct sl_runtime *rt); /* theirs */
const char *sl_runtime_activations(const struct sl_runtime *rt);

/* What nearly all arithmetic is: format, columns a scale (0: a row) and inputs
 * of the layers' products. */
void sl_runtime_arithmetic(const struct sl_runtime *rt, enum sl_fmt *fmt,
                           uint32_t *group_cols, enum sl_act *act);

/* What the run did so far. */
struct sl_run_stats {
    uint64_t passes, prefill_passes;
    uint64_t positions;             /* computed in all passes */
    uint64_t prefill_ns, decode_ns; /* passes with > 1 position a sequence */
    uint64_t decode_positions;
    uint64_t prefill_sequences;         /* in all those passes */
    uint64_t decode_sequences;          /* in all others */
    uint64_t prefill_keys, decode_keys; /* cached positions that they read */
    uint64_t first_pass_ns;
    uint64_t peak_bytes; /* VmHWM + HugetlbPages */
    struct sl_stream_stats stream;
    struct sl_prompt_cache_stats prompt_cache;
    uint32_t kv_pages, kv_pages_held;          /* there are, sequences hold */
    struct sl_mirror_stats disks[SL_IO_FILES]; /* zeros with one disk */
    struct sl_upload_stats upload;             /* zeros without a GPU */
    struct sl_slab_cache_stats experts;        /* zeros without a mixture */
    /* Of passes of generation, whole ones; what their experts were and what of
     * it was not there. */
    uint64_t decode_expert_passes, decode_expert_wanted, decode_expert_read;
    uint64_t decode_expert_hinted; /* read ahead, beside what was read */
    uint64_t lent_expert_bytes;    /* copied to a GPU, for long passes */
};
/* By the thread that runs passes, between them. */
void sl_runtime_stats(const struct sl_runtime *rt, struct sl_run_stats *s);
/* The floor of passes that read a text, or of others, is from here on of what
 * experts do from here on. */
void sl_runtime_count_experts_anew(struct sl_runtime *rt, bool reads);

/* Where a started run is; from any thread, as long as it has not ended. */
struct sl_run_place {
    uint64_t passes;                 /* that have ended */
    uint64_t begin_ns;               /* of the one under way; 0: none */
    uint64_t done_bytes, pass_bytes; /* weights that it is through with, all */
    uint32_t positions;              /* that it computes */
    uint32_t to_come;    /* passes that go on reading the same text */
    uint64_t read_bytes; /* from disk, of all passes */
};
struct sl_run_place sl_runtime_place(const struct sl_runtime *rt);

/* The floor of one pass, from rates measured now on this machine and this file
 * (half a second the first time): disk, DRAM and arithmetic. The measurement
 * needs the memory that the weights had: a run that was started ends here
 * (its statistics stay), and nothing more can be run. Errors: SL_ERR_IO. */
int sl_runtime_floor(struct sl_runtime *rt, struct sl_plan_pass pass,
                     struct sl_floor *floor, struct sl_rates *rates,
                     struct sl_error *err);

/* The files that passes are read from now: the model file and its mirror, NULL
 * where there is none; one alone when the other has failed. */
void sl_runtime_files(const struct sl_runtime *rt, const char **path,
                      const char **mirror);

/* What each pass reads of the file, in its order: extents (*n), moved to the
 * caller; NULL where a pass reads nothing, or there is no plan yet, *n 0.
 * Errors: SL_ERR_NOMEM. */
int sl_runtime_read_extents(const struct sl_runtime *rt,
                            struct sl_extent **extents, size_t *n,
                            struct sl_error *err);

/* The same from rates that were measured otherwise, for a pass whose cached
 * keys and values are read and computed with too (keys 0: not counted); needs
 * a plan, ends nothing. */
struct sl_floor sl_runtime_floor_at(const struct sl_runtime *rt,
                                    const struct sl_rates *rates,
                                    struct sl_plan_pass pass);
/* With a GPU, the seconds that the planner expects of such a pass, full rings
 * and a shared DRAM included; without, 0. */
double sl_runtime_expected_at(const struct sl_runtime *rt,
                              const struct sl_rates *rates,
                              struct sl_plan_pass pass);
/* Sets the rates of arithmetic, for this file's formats, kernels and threads,
 * between passes; time_ns: of each, 0: 100 ms. Takes up to 64 MiB meanwhile.
 * Errors: SL_ERR_NOMEM. */
int sl_runtime_measure_arithmetic(struct sl_runtime *rt, struct sl_rates *rates,
                                  uint64_t time_ns, struct sl_error *err);

/* The rate of memory was measured in no more than the last-level cache holds:
 * it is rather the cache's. */
bool sl_runtime_dram_in_cache(const struct sl_runtime *rt);
/* What the GPU's kernels and hand-overs take was measured; else it is what its
 * kind would. */
bool sl_runtime_gpu_measured(const struct sl_runtime *rt);

/* Asks the run to stop at the next stage: safe in a signal handler. The pass
 * in progress ends with SL_ERR_INTERRUPTED. */
void sl_runtime_interrupt(struct sl_runtime *rt);
/* Takes that back: passes run again. */
void sl_runtime_resume(struct sl_runtime *rt);

#endif
