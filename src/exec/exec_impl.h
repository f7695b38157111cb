/*
 * exec_impl.h - the state of the executor, shared by its parts
 *
 * exec.c makes passes, exec_guess.c guesses while one waits for the disk.
 */
#ifndef SL_EXEC_IMPL_H
#define SL_EXEC_IMPL_H

#include "src/base/mem.h"
#include "src/exec/exec.h"

struct sl_exec {
    struct sl_lm lm; /* first: the executor is a language model */
    struct sl_exec_config c;
    struct sl_exec_stats stats;

    /* what the pass points to, writable */
    struct sl_region buffers;
    float *x;                 /* (pass_positions, hidden) */
    float *cos, *sin;         /* (pass_positions, rope_dims / 2) */
    uint32_t *n_keys;         /* (pass_positions) */
    uint32_t *rows;           /* (pass_logits) */
    struct sl_pass_item *run; /* (pass_positions) */

    struct sl_pass pass;
    /* where the pass is: told to other threads, orders nothing */
    struct {
        atomic_ullong passes, begin_ns;
        atomic_uint at, positions, to_come;
    } place;

    /* guesses that go on while a pass waits (exec_guess.c): an executor of one
     * position and engines of its own, over the same cache; NULL: there are
     * none */
    struct sl_exec *ahead;
    struct sl_lm_ahead *wish;   /* the next; NULL: none */
    size_t ahead_at;            /* of the order: what it needs next */
    uint32_t ahead_base;        /* what its sequence held before */
    struct sl_exec_engine *now; /* where its x is; NULL: it has not begun */

    bool broken; /* a pass failed half way: nothing can follow */
    bool left;   /* the last pass was interrupted before: */
    size_t left_at;
};

/* exec.c. Lays a pass of items out and begins it: *now has x then. */
int sl_exec_begin(struct sl_exec *x, const struct sl_lm_item *items,
                  size_t n_items, bool high_only, float *logits,
                  struct sl_exec_engine **now, struct sl_error *err);
/* A slab of it by the engine that the plan names, where x goes first. */
int sl_exec_run_slab(struct sl_exec *x, size_t slab,
                     struct sl_exec_engine **now, struct sl_error *err);
int sl_exec_end(struct sl_exec *x, struct sl_error *err);
void sl_exec_stage_name(char name[SL_STAGE_NAME], const struct sl_exec *x,
                        size_t slab);

/* exec_guess.c: goes on with guesses until the slab, which the pass needs next,
 * is there. Errors: those of a pass. */
int sl_exec_guess_meanwhile(struct sl_exec *x, size_t slab,
                            struct sl_error *err);
/* A pass ends: nothing more is guessed, and what was begun is forgotten. */
void sl_exec_guess_end(struct sl_exec *x);
void sl_exec_guess_ahead(struct sl_lm *lm, struct sl_lm_ahead *ahead);

static inline struct sl_exec_engine *sl_exec_engine_of(const struct sl_exec *x,
                                                       size_t slab)
{
    return x->c.engines[x->c.plan->worker[x->pass.phase][slab]];
}

#endif
