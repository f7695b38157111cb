#include "config.h"

#include "offload/order.h"

/* Orders are short and looked at once, when a run begins: no memory for it. */
static bool stands_before(const struct sl_order *o, size_t at)
{
    for (size_t i = 0; i < at; i++) {
        if (o->slabs[i] == o->slabs[at])
            return true;
    }
    return false;
}

int sl_order_check(const struct sl_order *o, size_t n_slabs, bool once,
                   struct sl_error *err)
{
    if (o->n == 0 || (o->slabs == NULL && o->n > n_slabs))
        return sl_fail(err, SL_ERR_INTERNAL,
                       "a pass uses %zu slabs of %zu in a row", o->n, n_slabs);
    for (size_t i = 0; o->slabs != NULL && i < o->n; i++) {
        if (o->slabs[i] >= n_slabs)
            return sl_fail(err, SL_ERR_INTERNAL,
                           "use %zu of a pass is of slab %u, but there are %zu",
                           i, o->slabs[i], n_slabs);
        if (once && stands_before(o, i))
            return sl_fail(err, SL_ERR_INTERNAL,
                           "use %zu of a pass is of slab %u, which it has used "
                           "already",
                           i, o->slabs[i]);
    }
    return 0;
}
