#include "config.h"

#include <assert.h>
#include <stdlib.h>

#include "src/base/mem.h"
#include "src/decode/tree.h"

enum { ARRAYS = 8 }; /* of 32 bits a node */

size_t sl_tree_bytes(uint32_t room)
{
    return (size_t)room * ARRAYS * sizeof(int32_t);
}

int sl_tree_init(struct sl_tree *t, uint32_t room, struct sl_error *err)
{
    int32_t *at = sl_alloc_array(room, ARRAYS * sizeof *at);

    *t = (struct sl_tree){.room = room};
    if (at == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory for %u guesses", room);
    t->ids = at;
    t->positions = at + room;
    t->blocks = at + 2 * (size_t)room;
    t->position_at = at + 3 * (size_t)room;
    t->block_at = at + 4 * (size_t)room;
    t->parents = (uint32_t *)(at + 5 * (size_t)room);
    t->depths = t->parents + room;
    t->path = t->depths + room;
    return 0;
}

void sl_tree_fini(struct sl_tree *t)
{
    free(t->ids);
    *t = (struct sl_tree){0};
}

void sl_tree_begin(struct sl_tree *t, int32_t last)
{
    t->n = 1;
    t->width = 1;
    t->n_path = 0;
    t->ids[0] = last;
    t->parents[0] = SL_LM_ROOT;
    t->depths[0] = 0;
}

uint32_t sl_tree_child(const struct sl_tree *t, uint32_t parent, int32_t id)
{
    for (uint32_t i = parent + 1; i < t->n; i++) {
        if (t->parents[i] == parent && t->ids[i] == id)
            return i;
    }
    return SL_LM_ROOT;
}

uint32_t sl_tree_children(const struct sl_tree *t, uint32_t parent)
{
    uint32_t n = 0;

    for (uint32_t i = parent + 1; i < t->n; i++)
        n += t->parents[i] == parent;
    return n;
}

uint32_t sl_tree_add(struct sl_tree *t, uint32_t parent, int32_t id)
{
    uint32_t at = sl_tree_child(t, parent, id);

    if (at != SL_LM_ROOT)
        return at;
    at = t->n++;
    assert(at < t->room && parent < at);
    t->ids[at] = id;
    t->parents[at] = parent;
    t->depths[at] = t->depths[parent] + 1;
    return at;
}

bool sl_tree_is_chain(const struct sl_tree *t)
{
    for (uint32_t i = 1; i < t->n; i++) {
        if (t->parents[i] != i - 1)
            return false;
    }
    return true;
}

/* Parents come before their children already: by depth, those of a depth in
 * the order of their parents, then as they came. Insertion, of few nodes that
 * are nearly in order. */
static void sort(struct sl_tree *t)
{
    for (uint32_t i = 1; i < t->n; i++) {
        int32_t id = t->ids[i];
        uint32_t up = t->parents[i], depth = t->depths[i], at = i;

        while (t->depths[at - 1] > depth ||
               (t->depths[at - 1] == depth && t->parents[at - 1] > up)) {
            t->ids[at] = t->ids[at - 1];
            t->parents[at] = t->parents[at - 1];
            t->depths[at] = t->depths[at - 1];
            at--;
        }
        t->ids[at] = id;
        t->parents[at] = up;
        t->depths[at] = depth;
        /* who lay from there on has moved, and so have their children's
         * parents; children of i come later */
        for (uint32_t k = 1; at < i && k < t->n; k++) {
            uint32_t p = t->parents[k];

            if (p == i)
                t->parents[k] = at;
            else if (p != SL_LM_ROOT && p >= at && p < i)
                t->parents[k] = p + 1;
        }
    }
}

void sl_tree_lay(struct sl_tree *t)
{
    sort(t);
    for (uint32_t i = 0; i < t->n; i++) {
        t->positions[i] = t->position_at[t->depths[i]];
        t->blocks[i] = t->block_at[t->depths[i]];
    }
}

struct sl_lm_item sl_tree_item(const struct sl_tree *t, uint32_t seq,
                               uint32_t n_context, bool two_d)
{
    return (struct sl_lm_item){
        .seq = seq,
        .ids = t->ids,
        .positions = t->positions,
        .blocks = two_d ? t->blocks : NULL,
        .n = t->n,
        .n_context = n_context,
        .n_logits = t->n,
        .apart = t->n > 1,
        .parents = sl_tree_is_chain(t) ? NULL : t->parents,
    };
}

uint32_t sl_tree_walk_begin(struct sl_tree *t)
{
    t->path[0] = 0;
    t->n_path = 1;
    return 0;
}

uint32_t sl_tree_walk(struct sl_tree *t, int32_t id)
{
    uint32_t next = sl_tree_child(t, t->path[t->n_path - 1], id);

    if (next != SL_LM_ROOT)
        t->path[t->n_path++] = next;
    return next;
}

int sl_path_keep(struct sl_lm *lm, uint32_t seq, uint32_t n,
                 const uint32_t *path, uint32_t n_path, struct sl_error *err)
{
    if (n_path > 0 && path[n_path - 1] != n_path - 1)
        return lm->ops->seq_pick(lm, seq, n, path, n_path, err);
    lm->ops->seq_cut(lm, seq, n + n_path);
    return 0;
}

int sl_tree_keep(const struct sl_tree *t, struct sl_lm *lm, uint32_t seq,
                 uint32_t n, struct sl_error *err)
{
    if (t->n_path == t->n)
        return 0;
    return sl_path_keep(lm, seq, n, t->path, t->n_path, err);
}
