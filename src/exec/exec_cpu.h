/*
 * exec_cpu.h - the engine that computes with this machine's cores
 */
#ifndef SL_EXEC_CPU_H
#define SL_EXEC_CPU_H

#include "kernels/kernels.h"
#include "offload/stream.h"
#include "src/base/pool.h"
#include "src/exec/adapters.h"
#include "src/exec/engine.h"
#include "src/exec/experts.h"
#include "src/exec/kvcache.h"
#include "src/exec/partition.h"
#include "src/exec/small_tensors.h"

struct sl_cpu_config {
    /* all borrowed for the engine's life */
    const struct sl_modelfile *mf;
    const struct sl_small_tensors *small;
    const struct sl_adapters *adapters; /* or NULL */
    const struct sl_partition *partition;
    const struct sl_plan *plan;
    const struct sl_kernels *kernels;
    struct sl_pool *pool;
    struct sl_stream *stream;
    struct sl_experts *experts; /* NULL: the model has none */
    struct sl_kv *kv;
    struct sl_trace *trace;  /* or NULL */
    enum sl_act act;         /* of the products that take it, else FP32 */
    enum sl_kv_kind kv_kind; /* as the cache was made */
    uint32_t pass_positions; /* most positions in one pass, all sequences */
    uint32_t max_tokens;     /* of one sequence */
    uint32_t tree_positions; /* most of a tree; 0: there are none */
    enum sl_io_kind io;      /* how rows of the embedding are read */
};

/* True if some matrix of the file can take such activations. */
bool sl_cpu_takes(const struct sl_modelfile *mf, const struct sl_kernels *k,
                  enum sl_act act);

/* Bytes of memory the engine will take: everything per position, scores.
 * kernels may be NULL where act is not BF16. */
uint64_t sl_cpu_bytes(const struct sl_modelfile *mf, uint32_t pass_positions,
                      uint32_t max_tokens, uint32_t tree_positions,
                      const struct sl_kernels *kernels, enum sl_act act,
                      unsigned n_threads);

/* Errors: SL_ERR_NOMEM. */
int sl_cpu_create(struct sl_exec_engine **e, const struct sl_cpu_config *config,
                  struct sl_error *err);

#endif
