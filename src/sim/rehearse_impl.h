/*
 * rehearse_impl.h - a rehearsal under way, shared by its parts
 *
 *   rehearse_plan.c  memory, and the plan for it
 *   rehearse.c       the run
 */
#ifndef SL_REHEARSE_IMPL_H
#define SL_REHEARSE_IMPL_H

#include "src/exec/exec.h"
#include "src/exec/expert_floor.h"
#include "src/exec/stages.h"
#include "src/sim/rehearse.h"
#include "src/sim/sim_engine.h"

/* Passes that fill memory and settle the rings, and those that count; of a
 * mixture's decodes, no two of which are alike, more count. */
#define SL_REHEARSED_WARM    2u
#define SL_REHEARSED_PASSES  3u
#define SL_REHEARSED_MIXTURE 16u

struct sl_rehearsal_run {
    const struct sl_rehearsal_config *c;
    struct sl_sim_machine machine;
    struct sl_mirror *mirror; /* of a machine with two disks */
    struct sl_trace *trace;
    struct sl_partition partition;
    struct sl_experts experts; /* no records where the model has none */
    uint64_t vram_experts;     /* bytes of those that lie there */
    struct sl_sim_mixture mixture;
    struct sl_plan_stage *stages;
    struct sl_plan_input in;
    struct sl_plan *plan; /* the result's */
    struct sl_kv_config kv_config;
    struct sl_kv *kv;
    struct sl_device *dev;
    struct sl_stream *stream;
    struct sl_upload *upload;
    struct sl_exec_engine *engines[SL_WORKERS], *ahead[SL_WORKERS];
    struct sl_exec *exec;
    atomic_bool stop;
    int32_t *ids;
    struct sl_lm_item *items; /* (n_texts) */
    double guess_ns;          /* of a guess */
    struct sl_lm_ahead wish;  /* guesses ahead, and how many of them were */
    uint32_t wished;          /* made in the present pass, */
    double n_ahead;           /* and in one of those that count */
    /* that the experts are expected to add to a pass */
    double experts_s[SL_PHASE_COUNT];
};

/* Positions of a text in a decode; as many rows of logits. */
static inline uint32_t sl_rehearsed_decode(const struct sl_rehearsal_config *c)
{
    return 1 + c->guesses;
}

/* Decodes that count. */
static inline uint32_t sl_rehearsed_passes(const struct sl_rehearsal_config *c)
{
    return c->mf->hp.n_experts > 0 ? SL_REHEARSED_MIXTURE : SL_REHEARSED_PASSES;
}

/* Positions of a pass at most; of a text. */
uint32_t sl_rehearsed_positions(const struct sl_rehearsal_config *c);
uint32_t sl_rehearsed_tokens(const struct sl_rehearsal_config *c);

/* Adds what experts take to the floor of a pass: as they were used, or as is
 * expected before any was. */
void sl_rehearsed_experts(struct sl_floor *floor,
                          const struct sl_rehearsal_run *r,
                          enum sl_phase phase);

/* Partition, stages, experts' places, plan: as a run's. Errors: SL_ERR_BUDGET
 * with what is too little, SL_ERR_NOMEM. */
int sl_rehearse_plan(struct sl_rehearsal_run *r, struct sl_rehearsal *out,
                     struct sl_error *err);

#endif
