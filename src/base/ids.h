/*
 * ids.h - a growing list of token ids
 */
#ifndef SL_IDS_H
#define SL_IDS_H

#include <stddef.h>
#include <stdint.h>

#include "src/base/error.h"

#ifdef __cplusplus
extern "C" {
#endif

struct sl_ids { /* zeroed to begin with, owned */
    int32_t *v;
    size_t n, room;
};

/* Append one id or n of them. Errors: SL_ERR_NOMEM. */
int sl_ids_add(struct sl_ids *ids, int32_t id, struct sl_error *err);
int sl_ids_append(struct sl_ids *ids, const int32_t *v, size_t n,
                  struct sl_error *err);
void sl_ids_fini(struct sl_ids *ids); /* leaves it zeroed */

#ifdef __cplusplus
}
#endif

#endif
