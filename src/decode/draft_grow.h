/*
 * draft_grow.h - a tree of what a model finds likeliest
 *
 * A model that guesses is asked level by level: of the nodes that the tree
 * could have, those that are likeliest to be come by are fed together, and say
 * what might follow them. A node's chance is the product of what the model
 * gave it and its ancestors, so that the n likeliest are a tree (Svirschevski
 * and others, arXiv 2406.02532, algorithm 2). Of width 1 it is what the model
 * would say by itself, one guess a pass.
 */
#ifndef SL_DRAFT_GROW_H
#define SL_DRAFT_GROW_H

#include "src/decode/tree.h"

struct sl_grower {
    /* Feeds n nodes, the first of which was fed never before, and finds their
     * rows of logits: (n, stride). parents: of all nodes fed so far, these
     * among them, places in that list; SL_LM_ROOT of what stands before the
     * first guess, which is fed first and alone. depths: from 0. Returns 1
     * where there is no answer. */
    int (*feed)(void *opaque, const int32_t *ids, const uint32_t *parents,
                const uint32_t *depths, uint32_t n_before, uint32_t n,
                const float **rows, struct sl_error *err);
    void *opaque;
    uint32_t vocab, stride;
    const int32_t *words; /* (vocab) an id as the tree has it, or -1 for one
                           * that is not said; NULL: as it is */
    uint32_t most_rows;   /* that feed takes at a time, > 0 */
};

/* Adds up to n < SL_LM_TREE nodes, and feeds as many at most, with what stands
 * before the first. Errors: those of feed; the tree is fine then. */
int sl_tree_grow(struct sl_tree *t, uint32_t n, const struct sl_grower *g,
                 struct sl_error *err);

#endif
