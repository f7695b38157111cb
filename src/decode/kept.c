#include "config.h"

#include <stdlib.h>

#include "src/base/mem.h"
#include "src/decode/kept.h"

/* Less in common is not worth a sequence that another might need. */
enum { LEAST_COMMON = 8 };

int sl_kept_init(struct sl_kept *k, struct sl_lm *lm, size_t room,
                 struct sl_error *err)
{
    *k = (struct sl_kept){.lm = lm, .room = room};
    k->left = sl_zalloc_array(room, sizeof *k->left);
    if (k->left != NULL)
        return 0;
    return sl_fail(err, SL_ERR_NOMEM, "out of memory for %zu texts", room);
}

/* Out of the list, not out of the cache. */
static void forget(struct sl_kept *k, size_t at)
{
    sl_ids_fini(&k->left[at].ids);
    k->left[at] = k->left[--k->n];
}

static void drop_oldest(struct sl_kept *k)
{
    size_t oldest = 0;

    for (size_t i = 1; i < k->n; i++) {
        if (k->left[i].used < k->left[oldest].used)
            oldest = i;
    }
    k->lm->ops->seq_destroy(k->lm, k->left[oldest].seq);
    forget(k, oldest);
}

void sl_kept_fini(struct sl_kept *k)
{
    while (k->n > 0)
        drop_oldest(k);
    free(k->left);
    *k = (struct sl_kept){0};
}

static size_t common(const struct sl_ids *a, const int32_t *ids, size_t n)
{
    size_t k = 0;

    while (k < a->n && k < n && a->v[k] == ids[k])
        k++;
    return k;
}

/* From the first n ids of a text. What it holds beyond them stays while there
 * is room. */
static void go_on(struct sl_kept *k, size_t at, uint32_t n, uint32_t *seq)
{
    struct sl_left *left = &k->left[at];
    struct sl_error ignored;

    if (n < left->ids.n && k->n_others + k->n < k->room &&
        k->lm->ops->seq_fork(k->lm, seq, left->seq, &ignored) == 0) {
        left->used = k->clock++;
    } else {
        *seq = left->seq;
        forget(k, at);
    }
    k->lm->ops->seq_cut(k->lm, *seq, n);
}

int sl_kept_begin(struct sl_kept *k, uint32_t *seq, uint32_t *held,
                  const int32_t *ids, size_t n, size_t most,
                  struct sl_error *err)
{
    size_t best = 0, at = 0;

    for (size_t i = 0; i < k->n; i++) {
        size_t same = common(&k->left[i].ids, ids, n);

        if (same > best) {
            best = same;
            at = i;
        }
    }
    if (best > most)
        best = most;
    *held = 0;
    if (best >= LEAST_COMMON) {
        go_on(k, at, (uint32_t)best, seq);
        *held = (uint32_t)best;
    } else {
        while (k->n > 0 && k->n_others + k->n >= k->room)
            drop_oldest(k);
        if (k->lm->ops->seq_create(k->lm, seq, err) != 0)
            return -1;
    }
    k->n_others++;
    return 0;
}

void sl_kept_end(struct sl_kept *k, uint32_t seq, const int32_t *ids, size_t n,
                 const int32_t *more, size_t n_more)
{
    struct sl_left left = {.seq = seq, .used = k->clock++};
    struct sl_error ignored;

    k->n_others--;
    if (n + n_more >= LEAST_COMMON && k->n < k->room &&
        k->n_others + k->n < k->room &&
        sl_ids_append(&left.ids, ids, n, &ignored) == 0 &&
        sl_ids_append(&left.ids, more, n_more, &ignored) == 0) {
        k->left[k->n++] = left;
        return;
    }
    sl_ids_fini(&left.ids);
    k->lm->ops->seq_destroy(k->lm, seq);
}
