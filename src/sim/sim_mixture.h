/*
 * sim_mixture.h - a router that chooses by chance, and experts that take time
 *
 * The cache of a run (offload/slab_cache.h) is asked for what the router of a
 * model with random weights would choose: k different experts of a layer for
 * each position, all alike, the same in every rehearsal. Where a hit curve says
 * how much of what is wanted a cache of this size serves, a decode chooses with
 * that chance among those that are there, in RAM or on a device, and else among
 * the others. No router
 * guesses the next one's choice.
 */
#ifndef SL_SIM_MIXTURE_H
#define SL_SIM_MIXTURE_H

#include "offload/sim_machine.h"
#include "src/decode/sampler.h"
#include "src/exec/experts.h"

struct sl_sim_mixture {
    struct sl_sim_machine *machine; /* borrowed, as are the experts */
    struct sl_experts *experts;
    struct sl_rng rng;
    double served;            /* by the curve; below 0: all are chosen alike */
    double ops;               /* of an expert, for a position */
    uint32_t small_positions; /* as passes of a run (exec_experts.h) */
    uint32_t *n_rows;         /* (E) positions that chose it */
    uint32_t *records;        /* (E) */
    uint32_t *among;          /* (E) */
    uint32_t *swept;          /* (E) */
    double *chances;          /* (E) */
    uint32_t n_used;
    struct sl_mix_part *parts; /* (E + 1) on the device */
    uint32_t n_parts;
    uint32_t lent[SL_LENT]; /* records of RAM that it has, the oldest first */
    uint32_t n_lent;
};

/* Experts as they were placed; pass_positions: most of a pass. Errors:
 * SL_ERR_NOMEM. */
int sl_sim_mixture_init(struct sl_sim_mixture *m, struct sl_experts *experts,
                        struct sl_sim_machine *machine, uint32_t pass_positions,
                        struct sl_error *err);
void sl_sim_mixture_fini(struct sl_sim_mixture *m); /* zeroed is fine */

/* Fills all places, with as many of each layer. Errors: SL_ERR_IO. */
int sl_sim_mixture_fill(struct sl_sim_mixture *m, struct sl_error *err);

/* A pass of n positions begins. Errors: SL_ERR_IO. */
int sl_sim_mixture_begin(struct sl_sim_mixture *m, uint32_t n,
                         struct sl_error *err);
/* Computes, while what is read ahead goes on as in a run. */
void sl_sim_compute(struct sl_sim_mixture *m, double bytes, double ops,
                    uint32_t n);

/* A layer's choice for n positions, of a text that is read or not; then their
 * experts. Errors: SL_ERR_IO. */
int sl_sim_route(struct sl_sim_mixture *m, uint32_t layer, uint32_t n,
                 bool reads, struct sl_error *err);
/* The expert that all of n positions use, where that goes to a GPU (gate and
 * up; down). Errors: the device's. */
bool sl_sim_lends_shared(const struct sl_sim_mixture *m, uint32_t n);
int sl_sim_lend_shared(struct sl_sim_mixture *m,
                       const struct sl_model_matrix *const matrices[2],
                       uint32_t n, struct sl_error *err);
int sl_sim_mix(struct sl_sim_mixture *m, uint32_t layer, uint32_t n, bool reads,
               struct sl_error *err);

#endif
