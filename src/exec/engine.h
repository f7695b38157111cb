/*
 * engine.h - what the executor asks of an engine
 *
 * An engine computes stages: the CPU with its threads (exec_cpu.h), a GPU.
 * The executor walks the slabs of a pass and hands each to the engine that
 * the plan names; a stage (a layer's attention, a layer's MLP, the head) is
 * whole in one engine. Between stages nothing lives but x, the residual
 * stream; it crosses between engines through the pass's host memory:
 *
 *   begin (all engines) - embed - run, run, ...
 *       .. store (old) - load (new) where the engine changes ..
 *   - run - end (all engines, the last one last)
 *
 * An engine may return from anything but store and end before the work is
 * done; these two wait. One thread calls.
 */
#ifndef SL_ENGINE_H
#define SL_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "offload/plan.h"
#include "src/base/error.h"
#include "src/exec/lm.h"

/* One sequence's share of a pass: rows [row, row + n) of the activations. */
struct sl_pass_item {
    uint32_t seq;
    uint32_t row, n;
    uint32_t base;      /* positions the sequence held before */
    uint32_t n_context; /* as the item's, and those that it began with */
    uint32_t n_logits;
    bool apart; /* as the item's, and so is the tree */
    const uint32_t *parents;
    uint32_t n_tree;
};

/* The ancestors of an item's position j and itself, as bits by their places in
 * its tree. */
static inline uint64_t sl_pass_path(const struct sl_pass_item *it, uint32_t j)
{
    uint64_t path = 0;

    for (uint32_t at = it->n_tree + j; at != SL_LM_ROOT; at = it->parents[at])
        path |= UINT64_C(1) << at;
    return path;
}

/* A pass as engines see it; borrowed until it ends. */
struct sl_pass {
    const struct sl_lm_item *items;
    const struct sl_pass_item *run; /* (n_items) */
    size_t n_items;
    enum sl_phase phase;    /* which engines run it */
    bool reads;             /* some item reads a text */
    bool high_only;         /* of planes the high ones alone */
    uint32_t n;             /* positions */
    uint32_t n_rows;        /* of logits */
    const float *cos, *sin; /* (n, rope_dims / 2) f32 */
    const uint32_t *n_keys; /* (n) keys each position sees */
    const uint32_t *rows;   /* (n_rows) positions whose logits are wanted */
    float *x;               /* (n, hidden) f32: x where it crosses */
    float *logits;          /* (n_rows, vocab) f32 */
};

/* Experts of a layer that an engine has in its memory (experts.h), and the
 * positions that have chosen them, expert by expert. */
struct sl_mix_part {
    uint32_t expert;   /* as many as there are: the one that all use */
    uint32_t first, n; /* rows of the mix */
};

struct sl_mix {
    uint32_t layer;
    const float *in; /* f32 rows of pass->n positions, stride apart */
    size_t stride;
    const uint32_t *row; /* (n_rows) which of them */
    uint32_t n_rows;
    const struct sl_mix_part *parts;
    uint32_t n_parts;
};

/* Experts in RAM that are computed at the same time (exec_experts.h). */
struct sl_loan;
#define SL_LENT 2u

struct sl_exec_engine {
    const struct sl_engine_ops *ops;
};

/* Every engine embeds struct sl_exec_engine first. Errors: SL_ERR_IO, others as
 * engines have them; a pass is over after one. */
struct sl_engine_ops {
    const char *name; /* "cpu" "cuda" */
    /* Memory for pass->x out of which the engine can copy well, for as many
     * positions as it was made for. NULL: any will do. */
    float *(*host_x)(struct sl_exec_engine *e);
    /* A pass begins; its positions have their places in the KV cache. */
    int (*begin)(struct sl_exec_engine *e, const struct sl_pass *pass,
                 struct sl_error *err);
    /* x = embedding rows of all ids, if the engine has the matrix; *done tells.
     * The CPU can always do it. */
    int (*embed)(struct sl_exec_engine *e, bool *done, struct sl_error *err);
    /* Takes x out of pass->x; puts it there, and has when it returns. An
     * engine that computes in pass->x has neither (NULL). */
    int (*load)(struct sl_exec_engine *e, struct sl_error *err);
    int (*store)(struct sl_exec_engine *e, struct sl_error *err);
    /* Whether run would not wait for the slab's bytes. NULL: it never tells. */
    bool (*ready)(const struct sl_exec_engine *e, size_t slab);
    /* Gets the slab's bytes, runs its parts, gives them back. */
    int (*run)(struct sl_exec_engine *e, size_t slab, struct sl_error *err);
    /* Gets them and gives them back: the rest of a pass that was interrupted,
     * which has no logits. */
    int (*skip)(struct sl_exec_engine *e, size_t slab, struct sl_error *err);
    /* pass->logits are there when it returns (if the head ran here). NULL:
     * nothing to do. */
    int (*end)(struct sl_exec_engine *e, struct sl_error *err);
    /* Begins what experts in its memory give; all but the parts' rows may be
     * written again when it returns. mixed waits: *out (n_rows, hidden) f32 of
     * the last mix, borrowed until the next. While the CPU computes a stage, in
     * which the engine has nothing else to do. NULL: it computes none. */
    int (*mix)(struct sl_exec_engine *e, const struct sl_mix *mix,
               struct sl_error *err);
    int (*mixed)(struct sl_exec_engine *e, const float **out,
                 struct sl_error *err);
    /* The same of one in RAM, whose matrices are copied: they stay there until
     * lent has returned, which waits for the oldest of those under way, SL_LENT
     * at most. *out: borrowed until as many more have been lent. */
    int (*lend)(struct sl_exec_engine *e, const struct sl_loan *loan,
                struct sl_error *err);
    int (*lent)(struct sl_exec_engine *e, const float **out,
                struct sl_error *err);
    void (*destroy)(struct sl_exec_engine *e);
};

#endif
