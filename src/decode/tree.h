/*
 * tree.h - what a text feeds: what it said last, and guesses behind that
 *
 * Guesses may stand side by side for the same place of the text, each with
 * what would follow it:
 *
 *   said - the - cat - sat          0 - 1 - 3 - 5     parents: -, 0, 0, 1, 2, 3
 *       `- a   - dog                 `- 2 - 4         depths:  0, 1, 1, 2, 2, 3
 *
 * A pass computes every node as if its ancestors alone had been fed (lm.h); the
 * text then walks from the first along what it draws, and what it did not come
 * by is forgotten. A chain is a tree. Nodes lie in breadth-first order once a
 * drafter (draft.h) has laid them; brothers in the order they were added, the
 * likeliest first.
 */
#ifndef SL_TREE_H
#define SL_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/exec/lm.h"

#define SL_TREE_WIDTH 4u /* brothers, at most */

struct sl_tree {
    uint32_t n, room;            /* nodes; the first was said */
    uint32_t width;              /* brothers that there may be; 1: a chain */
    int32_t *ids;                /* (room) and so all of these */
    uint32_t *parents, *depths;  /* SL_LM_ROOT and 0 of the first */
    int32_t *positions, *blocks; /* of nodes, once they are laid */
    int32_t *position_at, *block_at; /* of depths; set before */
    uint32_t *path;                  /* nodes that the text came by */
    uint32_t n_path;
};

/* Memory of one; room counts the first node. */
size_t sl_tree_bytes(uint32_t room);
/* Errors: SL_ERR_NOMEM. */
int sl_tree_init(struct sl_tree *t, uint32_t room, struct sl_error *err);
void sl_tree_fini(struct sl_tree *t); /* a zeroed one is fine */

/* A new one: what was said last, and no guess. */
void sl_tree_begin(struct sl_tree *t, int32_t last);
/* Another node behind parent, for which there is room; the one that is there
 * already where it has such a child. */
uint32_t sl_tree_add(struct sl_tree *t, uint32_t parent, int32_t id);
/* SL_LM_ROOT where it has no such child. */
uint32_t sl_tree_child(const struct sl_tree *t, uint32_t parent, int32_t id);
uint32_t sl_tree_children(const struct sl_tree *t, uint32_t parent);
bool sl_tree_is_chain(const struct sl_tree *t);
/* Puts nodes into their order and gives them their positions. */
void sl_tree_lay(struct sl_tree *t);

/* It as an item of a pass, with a row of logits for each node. */
struct sl_lm_item sl_tree_item(const struct sl_tree *t, uint32_t seq,
                               uint32_t n_context, bool two_d);
/* The walk: begin stands at the first node; go goes on to the child of this id,
 * if there is one. Returns the node it stands at, or SL_LM_ROOT. */
uint32_t sl_tree_walk_begin(struct sl_tree *t);
uint32_t sl_tree_walk(struct sl_tree *t, int32_t id);
/* Of what passes added to a sequence of n positions leaves a path: (n_path)
 * ascending places in what was added. Errors: those of seq_pick. */
int sl_path_keep(struct sl_lm *lm, uint32_t seq, uint32_t n,
                 const uint32_t *path, uint32_t n_path, struct sl_error *err);
/* The same of a pass with the tree. */
int sl_tree_keep(const struct sl_tree *t, struct sl_lm *lm, uint32_t seq,
                 uint32_t n, struct sl_error *err);

#endif
