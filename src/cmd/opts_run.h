/*
 * opts_run.h - the options of commands that run a model
 *
 * sl_run_argp is all of them. Its parts are for commands that have some of
 * them otherwise, as bench, whose budgets are lists. As an argp child the input
 * of each is a struct sl_runtime_config.
 */
#ifndef SL_OPTS_RUN_H
#define SL_OPTS_RUN_H

#include "src/base/paths.h"
#include "src/cmd/opts.h"
#include "src/runtime/runtime.h"

/* -m (required; $SLUICE_MODEL), --mirror, --prefix, --lora, --trace. */
extern const struct argp sl_source_argp;
/* --ram, --vram ($SLUICE_RAM, $SLUICE_VRAM), --bminf-memory-limit, --threads:
 * opts_memory.c. */
extern const struct argp sl_memory_argp;
/* --device, --engine, --numa, --activations, --kv, --io, --isa:
 * opts_compute.c. */
extern const struct argp sl_compute_argp;
/* These three and --verify. */
extern const struct argp sl_run_argp;

/* The values of --ram (bytes, SL_RAM_PERCENT, SL_RAM_LEAST or SL_RAM_AUTO),
 * --vram (bytes or SL_VRAM_AUTO) and --threads (0: auto). */
uint64_t sl_opt_ram(struct argp_state *state, const char *arg);
uint64_t sl_opt_vram(struct argp_state *state, const char *arg);
/* What nobody wants to say again and again ($SLUICE_RAM, $SLUICE_VRAM), where
 * no option has said it: that one is NULL. */
void sl_opt_environment(uint64_t *ram, uint64_t *vram,
                        struct argp_state *state);
unsigned sl_opt_threads(struct argp_state *state, const char *arg);
/* --lora DIR[:SCALE] into the next of the n args there are, of SL_LORA_MOST;
 * arg is cut where the scale begins. */
void sl_opt_lora(struct sl_lora_arg *args, size_t *n, struct argp_state *state,
                 char *arg);

/* What the run of a model reads and writes. */
void sl_run_paths(struct sl_paths *p, const struct sl_runtime_config *c);

#endif
