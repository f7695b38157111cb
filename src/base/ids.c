#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/ids.h"
#include "src/base/mem.h"

int sl_ids_append(struct sl_ids *ids, const int32_t *v, size_t n,
                  struct sl_error *err)
{
    size_t room, bytes;
    int32_t *grown;

    if (n > ids->room - ids->n) {
        if (!sl_add_size(&room, ids->room * 2 + 16, n) ||
            !sl_mul_size(&bytes, room, sizeof *v) ||
            (grown = realloc(ids->v, bytes)) == NULL)
            return sl_fail(err, SL_ERR_NOMEM,
                           "out of memory for a list of %zu ids", ids->n + n);
        ids->v = grown;
        ids->room = room;
    }
    if (n > 0)
        memcpy(ids->v + ids->n, v, n * sizeof *v);
    ids->n += n;
    return 0;
}

int sl_ids_add(struct sl_ids *ids, int32_t id, struct sl_error *err)
{
    return sl_ids_append(ids, &id, 1, err);
}

void sl_ids_fini(struct sl_ids *ids)
{
    free(ids->v);
    *ids = (struct sl_ids){0};
}
