/*
 * exec.h - one pass of a GLM-130B over its slabs, for a list of sequences
 *
 * The executor is a language model (lm.h). A pass takes all new positions of
 * all its sequences through a slab while the slab is there: get, run its
 * parts, put. Between matrices it does what the architecture says (norms,
 * rotation, attention, GEGLU, DeepNorm residuals):
 *
 *   x = E[ids]
 *   per layer:  a = LN1(x); x = alpha * a + attention(a)
 *               a = LN2(x); x = alpha * a + mlp(a)
 *   logits = LN(x) . E^T          alpha = sqrt(2 * n_layers)
 *
 * (formats.md 2; SwissArmyTransformer model/official/glm130b_model.py). The
 * order of every sum depends on neither cut, budget, batch nor threads.
 */
#ifndef SL_EXEC_H
#define SL_EXEC_H

#include <stdatomic.h>
#include <stdbool.h>

#include "kernels/kernels.h"
#include "offload/stream.h"
#include "offload/trace.h"
#include "src/base/pool.h"
#include "src/cut.h"
#include "src/kvcache.h"
#include "src/lm.h"
#include "src/modelfile.h"

struct sl_exec_config {
    /* all borrowed for the executor's life */
    const struct sl_modelfile *mf;
    const struct sl_cut *cut;
    const struct sl_plan *plan;
    const struct sl_kernels *kernels;
    struct sl_pool *pool;
    struct sl_stream *stream;
    struct sl_kv *kv;
    struct sl_trace *trace;  /* or NULL */
    const atomic_bool *stop; /* set from outside: end the pass */
    bool int8_activations;
    bool kv_f16;             /* as the cache was made */
    uint32_t pass_positions; /* most positions in one pass, all sequences */
    uint32_t pass_logits;    /* most rows of logits in one pass */
    uint32_t max_tokens;     /* of one sequence */
};

struct sl_exec_stats {
    uint64_t passes, prefill_passes; /* prefill: more than one position of
                                      * some sequence */
    uint64_t positions;              /* in all passes */
    uint64_t decode_positions;       /* in the others */
    uint64_t prefill_ns, decode_ns;
    uint64_t first_pass_ns;
};

struct sl_exec;

/* Bytes the executor will take beside the KV cache, by purpose. */
struct sl_exec_need {
    uint64_t vectors;     /* norms, biases, row-wise scales */
    uint64_t activations; /* everything per position, scores, tables */
};
struct sl_exec_need sl_exec_need(const struct sl_modelfile *mf,
                                 uint32_t pass_positions, uint32_t pass_logits,
                                 uint32_t max_tokens, bool int8_activations,
                                 unsigned n_threads);

/* True if some matrix of the file can take INT8 activations. */
bool sl_exec_takes_int8(const struct sl_modelfile *mf,
                        const struct sl_kernels *k);

/* Loads the vectors. Errors: SL_ERR_NOMEM, SL_ERR_IO. */
int sl_exec_create(struct sl_exec **x, const struct sl_exec_config *config,
                   struct sl_error *err);
void sl_exec_destroy(struct sl_exec *x);
struct sl_lm *sl_exec_lm(struct sl_exec *x);
void sl_exec_stats(const struct sl_exec *x, struct sl_exec_stats *stats);

#endif
