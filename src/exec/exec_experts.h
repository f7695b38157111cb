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
#include "src/exec/engine.h"
#include "src/exec/experts.h"
#include "src/exec/partition.h"

/* Of passes of more positions each one's guesses would cost too much. */
#define SL_AHEAD_POSITIONS 4u

/* Up to so many positions a pass has room for what every pair gives, and
 * computes what has come first from the disk. */
#define SL_SMALL_PASS 16u

/* Experts of a position, with the one that all use. */
static inline uint32_t sl_mixture_each(const struct sl_hparams *hp)
{
    return hp->n_experts_used + 1;
}

/* Pairs that there is room for in a pass of n positions at most. */
static inline uint32_t sl_mixture_pairs(const struct sl_hparams *hp, uint64_t n)
{
    uint64_t small =
        (n < SL_SMALL_PASS ? n : SL_SMALL_PASS) * sl_mixture_each(hp);

    return (uint32_t)(small > n ? small : n);
}

/* A layer's router that stays in RAM; base NULL: none, or not read yet. */
struct sl_cpu_router {
    const uint8_t *base; /* of its slab */
    const struct sl_part *part;
};

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
    uint32_t *swept;   /* (E) those of the next layer, of a long pass */
    double *chances;   /* (E) */
    uint32_t n_used;
    /* Those on a device (exec_mix.c): (E + 1) as parts of a mix, the shared one
     * first, the others ascending; of which [mix_from, mix_to) are being
     * computed. */
    struct sl_mix_part *parts;
    uint32_t n_parts, mix_from, mix_to;
    bool shared_waits;      /* what the shared one gives has not been taken */
    uint32_t *mix_row;      /* (n_out) */
    uint32_t lent[SL_LENT]; /* experts of RAM that it has, the oldest first */
    uint32_t n_lent;
    float *score;    /* (threads, 2 E) */
    float *gathered; /* (n, hidden) an expert's inputs */
    float *out;      /* (n_out, hidden) */
    uint32_t n_out;  /* at least n; all pairs of a small pass */
    /* Of guesses (exec_ahead.c), (SL_AHEAD_POSITIONS, ...). */
    struct sl_cpu_router *routers; /* (layers) */
    const float *ahead_norm_weight;
    float *ahead_norm;        /* (hidden) */
    float *ahead_route;       /* (E) */
    uint32_t *likely;         /* (k) best first */
    uint32_t *likely_records; /* (k) all of them, each once */
    uint8_t *likely_ranks;    /* (k) the best rank of each */
};

/* An expert in RAM, and the positions that an engine computes it for. */
struct sl_loan {
    const struct sl_model_matrix *m[2]; /* gate and up in one; down */
    struct sl_part part[2];             /* where they lie from base */
    const uint8_t *base;
    uint64_t bytes;  /* from there, that are copied */
    const float *in; /* f32 rows, stride apart */
    size_t stride;
    const uint32_t *row; /* (n_rows) which of them; NULL: the first */
    uint32_t n_rows;
};

/* An expert's two, and where they lie in its record; n_experts: those of the
 * shared one, in its extent. */
void sl_expert_matrices(const struct sl_experts *e, uint32_t layer,
                        uint32_t expert, const struct sl_model_matrix *m[2],
                        struct sl_part part[2]);
/* Where the i-th matrix of an expert lies in its record, which begins with the
 * matrix `first`. */
struct sl_part sl_expert_part(const struct sl_experts *e,
                              const struct sl_model_matrix *first, uint32_t i);

/* Carves the arrays for n positions; nothing where there are no experts. */
void sl_cpu_mixture_carve(struct sl_cpu_mixture *m, struct sl_carver *c,
                          const struct sl_hparams *hp, uint64_t n,
                          uint32_t n_threads);

#endif
