/*
 * exec_experts.h - what the CPU engine keeps of a mixture of experts
 *
 * A pair is an expert and a position that it computes. Pairs stand expert by
 * expert, within an expert by position; what experts give is summed up in
 * that order, whatever came first from the disk, so that all budgets give the
 * same bits.
 */
#ifndef SL_EXEC_EXPERTS_H
#define SL_EXEC_EXPERTS_H

#include "src/arch/hparams.h"
#include "src/base/mem.h"

struct sl_cpu_mixture {
    uint32_t k; /* experts a position */
    /* (n, k), experts ascending */
    uint32_t *chosen;
    float *weight;
    uint32_t *pair_of;
    /* (n k) the pairs */
    uint32_t *row;
    float *pair_weight;
    uint32_t *first;   /* (E + 1) an expert's first pair */
    uint32_t *records; /* (E) those used, ascending */
    uint32_t n_used;
    float *score;    /* (threads, 2 E) */
    float *gathered; /* (n, hidden) an expert's inputs */
    float *out;      /* (n_out, hidden) */
    uint32_t n_out;  /* at least n; all pairs of a small pass */
    /* What the cache had counted before the layer. */
    uint64_t wanted_before, read_before;
};

/* Carves the arrays for n positions; nothing where there are no experts. */
void sl_cpu_mixture_carve(struct sl_cpu_mixture *m, struct sl_carver *c,
                          const struct sl_hparams *hp, uint64_t n,
                          uint32_t n_threads);

#endif
