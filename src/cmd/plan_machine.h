/*
 * plan_machine.h - sluice plan for a machine that is not there
 */
#ifndef SL_PLAN_MACHINE_H
#define SL_PLAN_MACHINE_H

#include <stdbool.h>
#include <stdint.h>

#include "src/runtime/runtime.h"

#define SL_MACHINE_VRAM UINT64_MAX /* what a driver leaves of it */

struct sl_machine_question {
    /* borrowed */
    const char *machine; /* a name or a file; NULL: this one, as it is known */
    const char *model;   /* a model file; NULL: the preset's shape */
    const char *preset;
    const char *quant;   /* of the preset; NULL: int4-g128 */
    const char *trace;   /* file, or NULL */
    uint64_t ram_bytes;  /* SL_RAM_AUTO: the machine's, less what others need */
    uint64_t vram_bytes; /* or SL_MACHINE_VRAM */
    enum sl_engine_rule engine;
    bool needs_gpu;  /* a machine without one is refused */
    uint32_t tokens; /* of a text, prompt and answer */
    enum sl_kv_kind kv;
    struct sl_hit_curve hit_curve; /* of experts */
    /* The chance that a guess is right where those before it are; 0: nothing is
     * guessed. A pass takes at most so many. */
    double accept;
    uint32_t most_guesses;
    double mirror_bps;      /* of a second disk; 0: what the machine has */
    uint64_t eval;          /* tokens of an evaluation; 0: none */
    uint32_t eval_question; /* of one of its questions */
    bool measure;           /* this machine anew */
    bool json;
    const struct sl_log *log;
};

/* An option of a run here that a rehearsal does not ask for; NULL: none. */
const char *sl_machine_ignores(const struct sl_runtime_config *run);

/* Rehearses a decode, a prefill of 1024 positions and a batch of 32, with
 * accept also passes that take guesses, as many as give most tokens a second,
 * with eval also those of an evaluation; prints what came out. Errors:
 * SL_ERR_USAGE, SL_ERR_BUDGET, SL_ERR_NOMEM, SL_ERR_IO, those of the model
 * file. */
int sl_plan_machine(const struct sl_machine_question *q, struct sl_error *err);

#endif
