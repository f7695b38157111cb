/*
 * rehearse.h - a run on a machine that is not there
 *
 * The planner makes its plan for the machine's rates; stream, upload ring and
 * executor then run passes on its model (offload/sim_machine.h) under
 * virtual time, with engines that only take time. What comes out is what the
 * machine could do, waits, hand-overs and full rings included, beside what
 * the plan promised.
 */
#ifndef SL_REHEARSE_H
#define SL_REHEARSE_H

#include "offload/plan.h"
#include "offload/sim_machine.h"
#include "src/exec/experts.h"
#include "src/exec/kvcache.h"
#include "src/model/modelfile.h"

struct sl_rehearsal_config {
    /* borrowed for the call */
    const struct sl_modelfile *mf; /* sl_modelfile_imagine's will do */
    const struct sl_machine_spec *machine;
    uint64_t ram_bytes;  /* of the whole process */
    uint64_t vram_bytes; /* 0: the machine has no GPU to use */
    enum sl_engine_rule engine;
    uint32_t n_texts; /* at the same time */
    uint32_t context; /* positions that each holds when it is continued */
    uint32_t prompt;  /* positions of each that a prefill takes */
    bool decode_only; /* the prefill is planned for, but not run */
    /* Nothing is decoded: an evaluation, whose cache holds the questions of two
     * passes, since some wait for the next. */
    bool prefill_only;
    uint32_t guesses; /* that each text's pass of a decode takes along */
    /* They are the model's own: high planes stay (draft_self.h). A decode is of
     * one text then, and goes on guessing while its pass waits if `ahead`. */
    bool self, ahead;
    enum sl_kv_kind kv;
    struct sl_hit_curve hit_curve; /* of experts (sim_mixture.h) */
    const char *trace;             /* file, or NULL */
};

/* Passes of one kind, one after another, the first left out. */
struct sl_rehearsed {
    double seconds; /* of a pass */
    double tokens;  /* of a pass; all its positions but guesses */
    struct sl_demand demand;
    struct sl_floor floor;
    double expected_s; /* by the plan */
    double efficiency; /* floor / seconds */
    /* of a pass; of what is wanted, what lies in VRAM, and what is read */
    double expert_wanted_bytes, expert_device_bytes, expert_read_bytes;
};

struct sl_rehearsal {
    struct sl_plan plan;               /* owned */
    uint64_t host_bytes, device_bytes; /* beside weights, rings and caches */
    uint64_t kv_bytes[SL_WORKERS];
    uint32_t n_waiting;    /* layers whose cache waits in RAM for the GPU */
    uint64_t expert_bytes; /* in RAM, for so many of so many experts */
    uint32_t n_expert_places, n_experts;
    uint64_t device_expert_bytes; /* of those that lie in VRAM */
    uint32_t n_device_experts;
    uint64_t device_shared_bytes; /* of those that all positions use beside, */
    uint32_t n_device_shared;     /* one of so many layers each */
    struct sl_rehearsed phase[SL_PHASE_COUNT];
    double guess_s; /* of a guess of its own, between passes */
    double ahead;   /* guesses that were made while a pass waited */
};

/* Errors: SL_ERR_BUDGET, SL_ERR_NOMEM, SL_ERR_IO (the trace). */
int sl_rehearse(struct sl_rehearsal *r, const struct sl_rehearsal_config *c,
                struct sl_error *err);
void sl_rehearsal_fini(struct sl_rehearsal *r);

#endif
