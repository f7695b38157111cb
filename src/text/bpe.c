#include "config.h"

#include <stdlib.h>

#include "src/base/mem.h"
#include "src/text/bpe.h"

void sl_bpe_fini(struct sl_bpe *b)
{
    sl_merge_map_fini(&b->merges);
    free(b->symbols);
    free(b->heap);
    *b = (struct sl_bpe){0};
}

void sl_bpe_begin(struct sl_bpe *b)
{
    b->n = b->n_heap = 0;
}

static int grow(void **v, size_t *room, size_t n, size_t size,
                struct sl_error *err)
{
    if (n > INT32_MAX / 2 || !sl_grow(v, room, n, size))
        return sl_fail(err, SL_ERR_NOMEM, "no memory for a word of %zu symbols",
                       n + 1);
    return 0;
}

int sl_bpe_add(struct sl_bpe *b, uint32_t id, struct sl_error *err)
{
    if (grow((void **)&b->symbols, &b->room, b->n, sizeof *b->symbols, err) !=
        0)
        return -1;
    b->symbols[b->n] = (struct sl_bpe_symbol){id, (int32_t)b->n - 1, -1};
    if (b->n > 0)
        b->symbols[b->n - 1].next = (int32_t)b->n;
    b->n++;
    return 0;
}

static bool before(const struct sl_bpe_pair *a, const struct sl_bpe_pair *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->at < b->at;
}

static int heap_push(struct sl_bpe *b, struct sl_bpe_pair pair,
                     struct sl_error *err)
{
    size_t i = b->n_heap;

    if (grow((void **)&b->heap, &b->heap_room, i, sizeof *b->heap, err) != 0)
        return -1;
    b->n_heap++;
    while (i > 0 && before(&pair, &b->heap[(i - 1) / 2])) {
        b->heap[i] = b->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    b->heap[i] = pair;
    return 0;
}

/* The pair that merges first: of the least rank, and of those the one
 * farthest to the left. */
static struct sl_bpe_pair heap_pop(struct sl_bpe *b)
{
    struct sl_bpe_pair top = b->heap[0], last = b->heap[--b->n_heap];
    size_t i = 0, child;

    while ((child = 2 * i + 1) < b->n_heap) {
        if (child + 1 < b->n_heap &&
            before(&b->heap[child + 1], &b->heap[child]))
            child++;
        if (!before(&b->heap[child], &last))
            break;
        b->heap[i] = b->heap[child];
        i = child;
    }
    if (b->n_heap > 0)
        b->heap[i] = last;
    return top;
}

/* Makes a candidate of the symbol at and the next one, if they merge. */
static int offer(struct sl_bpe *b, int32_t at, struct sl_error *err)
{
    const struct sl_bpe_symbol *left = &b->symbols[at];
    const struct sl_merge_entry *e;

    if (left->next < 0)
        return 0;
    e = sl_merge_map_find(&b->merges, left->id, b->symbols[left->next].id);
    if (e == NULL)
        return 0;
    return heap_push(b,
                     (struct sl_bpe_pair){e->rank, (uint32_t)at, e->left,
                                          e->right, e->result},
                     err);
}

/* A symbol that was merged into its neighbour keeps no id: UINT32_MAX is none,
 * so that candidates which name it are recognised as stale. */
static int merge(struct sl_bpe *b, const struct sl_bpe_pair *pair,
                 struct sl_error *err)
{
    struct sl_bpe_symbol *left = &b->symbols[pair->at];
    struct sl_bpe_symbol *right;

    if (left->id != pair->left || left->next < 0)
        return 0;
    right = &b->symbols[left->next];
    if (right->id != pair->right)
        return 0;
    left->id = pair->result;
    right->id = UINT32_MAX;
    left->next = right->next;
    if (left->next >= 0)
        b->symbols[left->next].prev = (int32_t)pair->at;
    if (left->prev >= 0 && offer(b, left->prev, err) != 0)
        return -1;
    return offer(b, (int32_t)pair->at, err);
}

int sl_bpe_end(struct sl_bpe *b, struct sl_ids *ids, struct sl_error *err)
{
    if (b->n == 0)
        return 0;
    for (size_t i = 0; i + 1 < b->n; i++) {
        if (offer(b, (int32_t)i, err) != 0)
            return -1;
    }
    while (b->n_heap > 0) {
        struct sl_bpe_pair pair = heap_pop(b);

        if (merge(b, &pair, err) != 0)
            return -1;
    }
    for (int32_t i = 0; i >= 0; i = b->symbols[i].next) {
        if (sl_ids_add(ids, (int32_t)b->symbols[i].id, err) != 0)
            return -1;
    }
    return 0;
}
