/*
 * runtime_impl.h - what the parts of the runtime share
 *
 *   runtime.c        opening, planning, starting
 *   runtime_numa.c   where its memory and threads are
 *   runtime_floor.c  what it did, and how fast it could
 */
#ifndef SL_RUNTIME_IMPL_H
#define SL_RUNTIME_IMPL_H

#include <stdatomic.h>

#include "kernels/kernels.h"
#include "src/base/pool.h"
#include "src/cut.h"
#include "src/exec.h"
#include "src/exec_cpu.h"
#include "src/kvcache.h"
#include "src/runtime.h"

struct sl_runtime {
    struct sl_runtime_config config;
    struct sl_modelfile mf;
    bool mf_open;
    struct sl_tokenizer *tokenizer;
    struct sl_kernels kernels;
    struct sl_numa *numa; /* NULL: one node */
    unsigned ring_node;
    bool numa_refused; /* the system does not place memory */
    struct sl_stream_places places;
    struct sl_pool *pool;
    struct sl_trace *trace;
    bool int8;
    struct sl_workload load;
    struct sl_cut cut;
    struct sl_plan plan;
    struct sl_memory memory;
    struct sl_kv_config kv_config;
    struct sl_kv *kv;
    struct sl_stream *stream;
    struct sl_vectors vectors;
    struct sl_exec_engine *engines[SL_ENGINE_COUNT];
    struct sl_exec *exec;
    struct sl_prompt_cache *prompt_cache; /* over exec; or NULL */
    atomic_bool stop;
    bool ended; /* stats are those of a run that is over */
    struct sl_run_stats stats;
    bool rates_known;
    struct sl_rates rates;
};

/* Threads on their nodes, and the pool of them. */
int sl_runtime_start_threads(struct sl_runtime *rt, struct sl_error *err);
/* NULL where there is one node. */
const struct sl_stream_places *sl_runtime_places(struct sl_runtime *rt);

/* Gives the memory of the weights and the cache back. */
void sl_runtime_end(struct sl_runtime *rt);

#endif
