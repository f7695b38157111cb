/*
 * runtime_impl.h - what the parts of the runtime share
 *
 *   runtime.c        opening, starting
 *   runtime_plan.c   budgets: what lies where in RAM
 *   runtime_vram.c   the same of a device,
 *   runtime_gpu.c    and its part of a run
 *   runtime_experts.c  the same of experts, which come when they are wanted
 *   runtime_numa.c   where its memory and threads are
 *   runtime_rates.c  what it finds here: free memory, rates of disk and GPU
 *   runtime_floor.c  what it did, and how fast it could
 */
#ifndef SL_RUNTIME_IMPL_H
#define SL_RUNTIME_IMPL_H

#include <stdatomic.h>

#include "kernels/kernels.h"
#include "src/base/pool.h"
#include "src/ckpt/lora.h"
#include "src/exec/adapters.h"
#include "src/exec/exec.h"
#include "src/exec/exec_cpu.h"
#include "src/exec/exec_gpu.h"
#include "src/exec/experts.h"
#include "src/exec/kvcache.h"
#include "src/exec/partition.h"
#include "src/exec/prefix.h"
#include "src/runtime/runtime.h"

struct sl_runtime {
    struct sl_runtime_config config;
    struct sl_modelfile mf;
    bool mf_open;
    struct sl_tokenizer *tokenizer;
    struct sl_prefix *prefix; /* or NULL */
    struct sl_lora *lora;     /* or NULL */
    struct sl_adapters adapters;
    struct sl_experts experts; /* no records where the model has none */
    struct sl_kernels kernels;
    struct sl_numa *numa; /* NULL: one node */
    unsigned ring_node;
    bool numa_refused; /* the system does not place memory */
    struct sl_stream_places places;
    struct sl_pool *pool;
    struct sl_trace *trace;
    enum sl_act act;          /* of the products that take it */
    struct sl_workload asked; /* drafts apart from the rest */
    struct sl_workload load;  /* with the drafts there is room for */
    struct sl_partition partition;
    struct sl_plan plan;
    struct sl_memory memory;
    struct sl_kv_config kv_config;
    struct sl_kv *kv;
    struct sl_stream *stream;
    struct sl_small_tensors small;
    struct sl_exec_engine *engines[SL_WORKERS];
    struct sl_exec_engine *ahead[SL_WORKERS]; /* of guesses ahead; or NULL */
    struct sl_exec *exec;
    struct sl_prompt_cache *prompt_cache; /* over exec; or NULL */
    struct sl_device *device;             /* NULL: none in use */
    struct sl_cuda *cuda;                 /* its kernels */
    struct sl_error no_device;            /* why; SL_OK where nobody asked */
    bool has_gpu; /* a GPU is part of the run, even a past one */
    struct sl_device_info gpu;
    struct sl_gpu_shape shape;
    struct sl_vram vram;
    bool *elsewhere; /* (n_layers) the cache is the device's */
    bool *waits;     /* (n_layers) of these: it waits in RAM */
    void *arena;     /* all of the device's memory that a run uses */
    struct sl_upload *upload;
    atomic_bool stop;
    bool traced; /* it started, and nothing failed */
    bool ended;  /* stats are those of a run that is over */
    struct sl_run_stats stats;
    /* Found here, before anything is planned: */
    uint64_t program_bytes;   /* that the program has now */
    uint64_t available_bytes; /* that are free now; 0: unknown */
    uint64_t granted_bytes;   /* the most that groups grant; UINT64_MAX: any */
    bool rates_known;
    struct sl_rates rates;
    bool dram_in_cache; /* their dram_bps was measured in a cache */
    bool gpu_measured;  /* the device's kernels and hand-overs, not guessed */
};

/* runtime_plan.c: plans anew, for rt->load and what rt->vram.budget is. */
int sl_runtime_replan(struct sl_runtime *rt, struct sl_error *err);
enum sl_kv_kind sl_runtime_kv_kind(const struct sl_runtime *rt);
/* The size of slabs of the finest partition. */
uint64_t sl_runtime_least_cap(const struct sl_runtime *rt);

/* runtime_experts.c; nothing for models without experts. */
int sl_runtime_open_experts(struct sl_runtime *rt, struct sl_error *err);
int sl_runtime_start_experts(struct sl_runtime *rt, struct sl_error *err);
/* Closes their cache; keeps what a run learned that nothing failed in, */
void sl_runtime_end_experts(struct sl_runtime *rt);
/* and its trace. */
void sl_runtime_close_experts(struct sl_runtime *rt);
void sl_runtime_experts_stats(const struct sl_runtime *rt,
                              struct sl_run_stats *s);

/* runtime_gpu.c. Opens the device that is wanted, if any, and learns the
 * machine's rates. */
int sl_runtime_open_device(struct sl_runtime *rt, struct sl_error *err);
/* A run goes on without its device; why says why. */
void sl_runtime_drop_device(struct sl_runtime *rt, const struct sl_error *why);
static inline bool sl_runtime_must_have_gpu(const struct sl_runtime_config *c)
{
    return c->device == SL_DEVICE_CUDA || c->engine == SL_ENGINE_RULE_GPU;
}

/* runtime_vram.c. What the engine needs, with that of guesses ahead, whose
 * engine has a shape of its own; bytes beside weights, ring and caches; of
 * buffers for caches that wait in RAM, 0 where none may. */
struct sl_gpu_need sl_runtime_gpu_need(const struct sl_runtime *rt);
struct sl_gpu_shape sl_runtime_ahead_shape(const struct sl_runtime *rt);
uint64_t sl_runtime_vram_fixed(const struct sl_runtime *rt);
/* After planning: what is left for experts. */
uint64_t sl_runtime_expert_vram(const struct sl_runtime *rt);
uint64_t sl_runtime_turn_bytes(const struct sl_runtime *rt);
/* What of the budget goes to other things than weights and caches. */
int sl_runtime_count_vram(struct sl_runtime *rt, struct sl_error *err);
/* What a plan with the GPU must know; *stages (owned by the caller, free) is
 * borrowed by in. Nothing without a GPU. */
int sl_runtime_add_gpu(struct sl_runtime *rt, struct sl_plan_input *in,
                       const struct sl_partition *partition,
                       struct sl_plan_stage **stages, struct sl_error *err);
/* After planning: where caches lie. *dropped: the GPU has nothing to do and
 * is closed; the plan is to be made anew. */
int sl_runtime_count_gpu(struct sl_runtime *rt, bool *dropped,
                         struct sl_error *err);
int sl_runtime_refuse_vram(const struct sl_runtime *rt, struct sl_error *err);
/* Takes the device's memory; plans with less where there is less. */
int sl_runtime_take_vram(struct sl_runtime *rt, struct sl_error *err);
/* As sl_runtime_floor_at and sl_runtime_expected_at, for a plan with a GPU;
 * false without memory. */
bool sl_runtime_floor_gpu(struct sl_floor *floor, double *expected_s,
                          const struct sl_runtime *rt,
                          const struct sl_rates *rates,
                          struct sl_plan_pass pass);
int sl_runtime_start_gpu(struct sl_runtime *rt, struct sl_error *err);
/* The engine of guesses ahead beside it. */
int sl_runtime_start_gpu_ahead(struct sl_runtime *rt, struct sl_error *err);
void sl_runtime_end_gpu(struct sl_runtime *rt);

/* runtime_rates.c: what is free now, and what the program has; disk, DRAM and
 * arithmetic of this machine, measured with buffers of no more than room
 * bytes; all of these and rt->device's. */
void sl_runtime_measure_memory(struct sl_runtime *rt);
int sl_runtime_measure_rates(struct sl_runtime *rt, uint64_t room,
                             struct sl_error *err);
int sl_runtime_measure_device(struct sl_runtime *rt, struct sl_error *err);

/* runtime_numa.c. Threads on their nodes, and the pool of them. */
int sl_runtime_start_threads(struct sl_runtime *rt, struct sl_error *err);
/* What a GPU fills lies on the node that it is on; arg: the runtime. */
void sl_runtime_place_staging(void *arg, uint8_t *base, uint64_t bytes);
/* NULL where there is one node. */
const struct sl_stream_places *sl_runtime_places(struct sl_runtime *rt);

/* Gives the memory of the weights and the cache back. */
void sl_runtime_end(struct sl_runtime *rt);

#endif
