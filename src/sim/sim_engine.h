/*
 * sim_engine.h - engines that take a modelled machine's time
 *
 * They ask stream and upload ring for every slab, as the real ones do, and wait
 * for what its products and its attention would take; they compute nothing. Of
 * a mixture's experts, which its router asks for, the CPU takes the time.
 */
#ifndef SL_SIM_ENGINE_H
#define SL_SIM_ENGINE_H

#include "offload/sim_machine.h"
#include "offload/trace.h"
#include "offload/upload.h"
#include "src/exec/engine.h"
#include "src/exec/partition.h"
#include "src/model/modelfile.h"
#include "src/sim/sim_mixture.h"

struct sl_sim_config {
    /* all borrowed for the engine's life */
    struct sl_sim_machine *machine;
    const struct sl_modelfile *mf;
    const struct sl_partition *partition;
    const struct sl_plan_stage *stages; /* of the plan */
    size_t n_stages;
    const struct sl_plan *plan;
    uint64_t turn_bytes;            /* of the plan's input */
    struct sl_stream *stream;       /* the CPU's */
    struct sl_sim_mixture *mixture; /* the CPU's; NULL: no experts */
    struct sl_device *dev;          /* the GPU's, with its upload ring */
    struct sl_upload *upload;
    struct sl_trace *trace; /* or NULL */
};

/* Errors: SL_ERR_NOMEM. */
int sl_sim_cpu_create(struct sl_exec_engine **e,
                      const struct sl_sim_config *config, struct sl_error *err);
int sl_sim_gpu_create(struct sl_exec_engine **e,
                      const struct sl_sim_config *config, struct sl_error *err);

#endif
