#include "config.h"

#include <math.h>
#include <string.h>

#include "kernels/cuda/attend.h"
#include "src/base/mem.h"

static uint64_t part_bytes(uint64_t n, uint32_t n_heads, uint32_t values,
                           uint32_t most_keys)
{
    uint64_t splits = sl_div_up(most_keys, SL_SPLIT_KEYS);

    if (splits <= 1)
        return 0;
    return n * n_heads * splits * (values + 2) * sizeof(float);
}

uint64_t sl_cuda_attend_workspace(uint32_t n, uint32_t n_heads,
                                  uint32_t head_dim, uint32_t most_keys)
{
    return sl_round_up(part_bytes(n, n_heads, head_dim, most_keys), 256);
}

/* Rows [first, first + n) of short items, as many at a time as the workspace
 * holds the parts of. */
static int attend_rows(const struct sl_cuda *c, struct sl_attention *a,
                       uint32_t first, uint32_t n, uint32_t most_keys,
                       struct sl_error *err)
{
    uint64_t one = part_bytes(1, a->n_heads, a->values, most_keys);
    uint64_t room = one ? c->workspace_bytes / one : n;

    if (room == 0)
        return sl_fail(err, SL_ERR_BUDGET,
                       "attention over %u keys needs a workspace of %llu "
                       "bytes, %llu were granted",
                       most_keys, (unsigned long long)one,
                       (unsigned long long)c->workspace_bytes);
    a->n_splits = (uint32_t)sl_div_up(most_keys, SL_SPLIT_KEYS);
    a->part = c->workspace;
    if (room > 65535) /* the third dimension of a grid */
        room = 65535;
    for (uint32_t i = 0; i < n; i += (uint32_t)room) {
        a->first = first + i;
        a->n = n - i < room ? n - i : (uint32_t)room;
        if ((a->latent ? sl_attend_latent_rows_launch
                       : sl_attend_rows_launch)(c, a, err) != 0)
            return -1;
    }
    return 0;
}

/* Rows of a tile look at the same keys, which those of a tree do not. */
static bool tiled(const struct sl_cuda_item *it, const struct sl_attention *a)
{
    return (a->latent || a->kv.head_dim <= SL_TILE_HEAD) &&
           it->n >= SL_TILE_FROM && !it->tree;
}

/* All rows, item by item. */
static int attend(const struct sl_cuda *c, struct sl_attention *a,
                  const struct sl_cuda_rows *rows, struct sl_error *err)
{
    for (size_t i = 0; i < rows->n_items;) {
        const struct sl_cuda_item *it = &rows->items[i];
        uint32_t n = 0, most = 0;

        if (tiled(it, a)) {
            a->first = it->row;
            a->n = it->n;
            if ((a->latent ? sl_attend_latent_tiles_launch
                           : sl_attend_tiles_launch)(c, a, err) != 0)
                return -1;
            i++;
            continue;
        }
        /* All short items that follow one another together. */
        for (; i < rows->n_items; i++) {
            const struct sl_cuda_item *next = &rows->items[i];

            if (next->row != it->row + n || tiled(next, a))
                break;
            n += next->n;
            if (next->most_keys > most)
                most = next->most_keys;
        }
        if (attend_rows(c, a, it->row, n, most, err) != 0)
            return -1;
    }
    return 0;
}

int sl_cuda_attend(const struct sl_cuda *c, uint16_t *out, size_t out_stride,
                   const uint16_t *q, size_t q_stride,
                   const struct sl_cuda_kv *kv, const struct sl_cuda_rows *rows,
                   struct sl_error *err)
{
    return sl_cuda_attend_shared(c, out, out_stride, q, q_stride, kv->n_heads,
                                 kv, rows, err);
}

/* What does not depend on where values lie. */
static struct sl_attention attention(uint16_t *out, size_t out_stride,
                                     const uint16_t *q, size_t q_stride,
                                     uint32_t n_heads,
                                     const struct sl_cuda_kv *kv,
                                     const struct sl_cuda_rows *rows)
{
    struct sl_attention a;

    memset(&a, 0, sizeof a);
    a.out = out;
    a.out_stride = out_stride;
    a.q = q;
    a.q_stride = q_stride;
    a.kv = *kv;
    a.n_heads = n_heads;
    a.group = n_heads / kv->n_heads;
    a.n_keys = rows->n_keys;
    a.table = rows->table;
    a.pages = rows->pages;
    a.fork = rows->fork;
    a.path = rows->path;
    return a;
}

int sl_cuda_attend_shared(const struct sl_cuda *c, uint16_t *out,
                          size_t out_stride, const uint16_t *q, size_t q_stride,
                          uint32_t n_heads, const struct sl_cuda_kv *kv,
                          const struct sl_cuda_rows *rows, struct sl_error *err)
{
    struct sl_attention a =
        attention(out, out_stride, q, q_stride, n_heads, kv, rows);

    if (kv->head_dim > SL_CUDA_MAX_HEAD)
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "heads of %u values (at most %u on a GPU)", kv->head_dim,
                       SL_CUDA_MAX_HEAD);
    a.values = kv->head_dim;
    a.scale = (float)(M_LOG2E / sqrt((double)kv->head_dim));
    return attend(c, &a, rows, err);
}

int sl_cuda_attend_latent(const struct sl_cuda *c, uint16_t *out,
                          size_t out_stride, const uint16_t *q, size_t q_stride,
                          uint32_t n_heads, const struct sl_cuda_kv *kv,
                          uint32_t values, float scale,
                          const struct sl_cuda_rows *rows, struct sl_error *err)
{
    struct sl_attention a =
        attention(out, out_stride, q, q_stride, n_heads, kv, rows);

    if (values > SL_CUDA_MAX_LATENT || kv->head_dim > SL_CUDA_MAX_JOINED)
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "latents of %u values, %u with those that are rotated "
                       "(at most %u and %u on a GPU)",
                       values, kv->head_dim, SL_CUDA_MAX_LATENT,
                       SL_CUDA_MAX_JOINED);
    a.values = values;
    a.latent = 1;
    a.scale = (float)(M_LOG2E * (double)scale);
    return attend(c, &a, rows, err);
}
