/*
 * exec.h - one pass of a model over its slabs, for a list of sequences
 *
 * The executor is a language model (lm.h). A pass takes all new positions of
 * all its sequences through a slab while the slab is there: the engine that
 * the plan names (engine.h) gets it, runs its parts and puts it back. What a
 * stage computes stands in its architecture's tables (arch/layer.h):
 *
 *   x = embedding rows of the ids
 *   per layer:  x = attention stage of x; x = MLP stage of x
 *   logits = head stage of x
 *
 * On the CPU the order of every sum depends on neither cut, budget, batch nor
 * threads.
 */
#ifndef SL_EXEC_H
#define SL_EXEC_H

#include <stdatomic.h>
#include <stdbool.h>

#include "offload/plan.h"
#include "src/base/clock.h"
#include "src/exec/engine.h"
#include "src/exec/kvcache.h"
#include "src/exec/lm.h"
#include "src/exec/partition.h"
#include "src/model/modelfile.h"

struct sl_trace;

struct sl_exec_config {
    /* all borrowed for the executor's life */
    const struct sl_modelfile *mf;
    const struct sl_partition *partition;
    const struct sl_plan *plan;
    struct sl_kv *kv;
    const atomic_bool *stop; /* set from outside: end the pass */
    /* of each worker; NULL where there is none */
    struct sl_exec_engine *engines[SL_WORKERS];
    const float *rope_factors; /* (rope_dims / 2), as sl_rotary_row has them; or
                                * NULL */
    uint32_t pass_positions;   /* most positions in one pass, all sequences */
    uint32_t pass_logits;      /* most rows of logits in one pass */
    uint32_t max_tokens;       /* of one sequence */
    bool guesses; /* the plan keeps all but low planes: guess of lm.h */
    /* For guesses that go on during a forward, of one position: engines of
     * their own beside all above; NULL: there are none. */
    struct sl_exec_engine *ahead[SL_WORKERS];
    struct sl_trace *trace; /* of these, or NULL */
    struct sl_clock *clock; /* of the trace; NULL: sl_clock_ns */
};

struct sl_exec_stats {
    uint64_t passes, prefill_passes; /* prefill: more than one position of
                                      * some sequence, and not apart */
    uint64_t positions;              /* in all passes */
    uint64_t decode_positions;       /* in the others */
    /* In all passes of a kind, each with its sequences: a decode has one
     * position of each, and its drafts. */
    uint64_t prefill_sequences, decode_sequences;
    uint64_t prefill_keys, decode_keys; /* cached positions they read */
    uint64_t prefill_ns, decode_ns;
    uint64_t first_pass_ns;
};

/* Where a pass is. */
struct sl_exec_place {
    uint64_t passes;    /* that have ended */
    uint64_t begin_ns;  /* of the one under way; 0: none */
    uint32_t at;        /* use of the order (offload/order.h) it is at */
    uint32_t positions; /* that it computes */
    uint32_t to_come;   /* as struct sl_lm has it */
};

struct sl_exec;

/* Bytes the executor itself takes: the tables of a pass, and x unless an
 * engine has memory for it; guesses ahead are as a pass of one position. */
uint64_t sl_exec_bytes(const struct sl_modelfile *mf, uint32_t pass_positions,
                       uint32_t pass_logits, bool own_x);

/* Errors: SL_ERR_NOMEM. */
int sl_exec_create(struct sl_exec **x, const struct sl_exec_config *config,
                   struct sl_error *err);
void sl_exec_destroy(struct sl_exec *x);
struct sl_lm *sl_exec_lm(struct sl_exec *x);
/* From any thread; what it tells may be a moment old. */
struct sl_exec_place sl_exec_place(const struct sl_exec *x);
void sl_exec_stats(const struct sl_exec *x, struct sl_exec_stats *stats);

#endif
