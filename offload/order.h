/*
 * order.h - in which order passes use the slabs
 *
 *   pass 0: slabs[0], slabs[1] ... slabs[n - 1]   pass 1: slabs[0], ...
 *
 * Every pass is like the one before, which is why reading ahead is no guess.
 * Which slabs, and in which order, is data of the plan: straight through all of
 * them unless it says otherwise. Who walks it (the compute thread and the
 * reader of a stream, the upload ring, the executor) keeps a sl_use, its place
 * in it, and never counts slabs itself.
 */
#ifndef SL_OFFLOAD_ORDER_H
#define SL_OFFLOAD_ORDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/error.h"

struct sl_order {
    const uint32_t *slabs; /* (n) borrowed; NULL: 0, 1, ... n - 1 */
    size_t n;              /* > 0 */
};

/* A place in it. */
struct sl_use {
    uint64_t pass; /* the first is 0 */
    size_t at;     /* < n */
};

static inline size_t sl_order_slab(const struct sl_order *o, size_t at)
{
    return o->slabs != NULL ? o->slabs[at] : at;
}

static inline void sl_use_next(struct sl_use *u, const struct sl_order *o)
{
    if (++u->at < o->n)
        return;
    u->at = 0;
    u->pass++;
}

/* Whether all of its slabs are among n_slabs; `once`: and each of them stands
 * in it once at most, as an upload ring has it. Errors: SL_ERR_INTERNAL. */
int sl_order_check(const struct sl_order *o, size_t n_slabs, bool once,
                   struct sl_error *err);

#endif
