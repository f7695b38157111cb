/*
 * exec_gpu.h - the engine that computes on a CUDA device
 *
 * Everything of a pass is put on the device's compute queue and runs there
 * while the host goes on: the tables of the pass go up in one copy, slabs
 * arrive through the upload ring, x stays on the device from stage to stage.
 * The host waits where x crosses to the CPU, for the logits, and, in a prefill
 * of layers that the CPU will decode, for the keys and values of the layer
 * before. Caches that have no room on the device wait in RAM, and sequences'
 * pages come to it in turns (kv_turns.h).
 *
 * Types are those of kernels/cuda/cuda.h: x is FP32, inputs of products, keys
 * and values are FP16, sums FP32.
 */
#ifndef SL_EXEC_GPU_H
#define SL_EXEC_GPU_H

#include "kernels/kernels.h"
#include "offload/device.h"
#include "src/base/pool.h"
#include "src/exec/engine.h"
#include "src/exec/experts.h"
#include "src/exec/kvcache.h"
#include "src/exec/partition.h"
#include "src/exec/small_tensors.h"
#include "src/probe/probe.h"

struct sl_cuda;
struct sl_upload;
struct sl_log;
struct sl_trace;

/* What decides how much memory the engine needs. */
struct sl_gpu_shape {
    const struct sl_modelfile *mf;
    uint32_t pass_positions;   /* most positions in one pass, all sequences */
    uint32_t pass_logits;      /* most rows of logits in one pass */
    uint32_t pass_items;       /* most sequences in one pass */
    uint32_t max_tokens;       /* of one sequence */
    uint32_t n_pages;          /* of the KV cache */
    uint32_t n_layers_here;    /* whose cache lies on the device */
    uint32_t n_layers_waiting; /* whose cache waits in RAM (kv_turns.h) */
    uint64_t turn_most_bytes;  /* of buffers of theirs, see kv_turns.h */
    bool may_wait; /* tables have room for those, as long as there may be any */
    unsigned n_threads;  /* of the pool */
    bool write_back;     /* it prefills layers that the CPU decodes */
    uint64_t loan_bytes; /* of an expert in RAM, at most; 0: none is lent */
    /* It has another's vectors, cache and workspace, whose kernels are on the
     * same queue, and needs activations and staging alone. */
    bool beside;
};

/* Bytes of device and host memory, by purpose. */
struct sl_gpu_need {
    uint64_t small;           /* norms, biases, row-wise scales */
    uint64_t activations;     /* everything per position */
    uint64_t workspace;       /* of kernels: with this they run at their best */
    uint64_t workspace_least; /* with this they run */
    uint64_t kv;              /* caches, or buffers that they come to */
    uint64_t kv_host;         /* pinned: caches that wait */
    uint64_t host; /* pinned: tables, logits, keys and values on their way */
};

struct sl_gpu_config {
    /* all borrowed for the engine's life */
    const struct sl_partition *partition;
    const struct sl_plan *plan;
    const struct sl_small_tensors *small;
    const struct sl_kernels *kernels;
    struct sl_pool *pool;
    struct sl_device *device;
    struct sl_cuda *cuda; /* its kernels; the engine gives them workspace */
    struct sl_upload *upload;
    struct sl_kv *kv;
    /* Before it is touched: where memory that the device fills is to lie. */
    void (*place)(void *arg, uint8_t *base, uint64_t bytes); /* or NULL */
    void *place_arg;
    /* (n_layers) its cache is the device's; of these: it waits in RAM */
    const bool *layer_here, *layer_waits;
    struct sl_trace *trace; /* or NULL */
    /* Hears of staging that cannot be pinned; NULL: that is known. */
    const struct sl_log *log;
    struct sl_gpu_shape shape;
    const struct sl_exec_engine *other; /* it is beside this one; or NULL */
    const struct sl_experts *experts;   /* NULL: the model has none */
    /* Of those that lie on the device (sl_experts_device_at). */
    const void *records;
    /* Device memory, aligned to 256 bytes: vectors + activations + kv of
     * sl_gpu_need and the workspace. */
    void *memory;
    uint64_t workspace_bytes;
};

/* Kernels on a device's compute queue, and cuBLAS, which takes memory of
 * device and host when it is loaded; log hears where there is none. Owned by
 * the caller. Errors: SL_ERR_NOMEM, SL_ERR_IO. */
int sl_gpu_load(struct sl_cuda **cuda, struct sl_device *device,
                const struct sl_log *log, struct sl_error *err);
void sl_gpu_unload(struct sl_cuda *cuda); /* NULL is fine */
/* Products of a prefill in small: some 150 us of work for a GPU, 80 MiB. */
#define SL_GPU_MEASURED_SIDE      2048u
#define SL_GPU_MEASURED_POSITIONS 512u
/* FP16 products of side x side weights (side: a multiple of 16) by n
 * positions, and the launches of a stage; cuda has no workspace afterwards.
 * Errors: SL_ERR_NOMEM here or there, SL_ERR_IO. */
int sl_gpu_measure(struct sl_kernel_rates *rates, struct sl_cuda *cuda,
                   struct sl_device *device, uint32_t side, uint32_t n,
                   struct sl_error *err);

/* GPUs are simulated here: slower than anything, with rates that say nothing.
 */
static inline bool sl_gpu_is_simulated(void)
{
#ifdef CUDA_SIM
    return true;
#else
    return false;
#endif
}

struct sl_gpu_need sl_gpu_need(const struct sl_gpu_shape *shape);
/* Copies the vectors up. The calling thread is the one that runs passes.
 * Errors: SL_ERR_NOMEM, SL_ERR_IO. */
int sl_gpu_create(struct sl_exec_engine **e, const struct sl_gpu_config *config,
                  struct sl_error *err);

#endif
