#include "config.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "src/convert/convert_impl.h"

/* Of each of the two tensors, read at a time. */
#define PIECE_BYTES (1u << 20)

struct difference {
    uint64_t n, of;
    double worst;
};

static void compare(struct difference *d, const uint8_t *a, enum sl_dtype dt_a,
                    const uint8_t *b, enum sl_dtype dt_b, uint64_t n)
{
    uint32_t step_a = sl_dtype_bytes(dt_a), step_b = sl_dtype_bytes(dt_b);

    for (uint64_t i = 0; i < n; i++) {
        float x = sl_dtype_load(a + i * step_a, dt_a);
        float y = sl_dtype_load(b + i * step_b, dt_b);
        double by = fabs((double)x - (double)y);

        if (x == y || (isnan(x) && isnan(y)))
            continue;
        d->n++;
        if (!(by <= d->worst)) /* no number is the worst of all */
            d->worst = by;
    }
    d->of += n;
}

static bool same_shape(const struct sl_ckpt_tensor *a,
                       const struct sl_ckpt_tensor *b)
{
    bool same = a->n_dims == b->n_dims;

    for (uint32_t i = 0; same && i < a->n_dims; i++)
        same = a->shape[i] == b->shape[i];
    return same;
}

static int compare_tensors(struct difference *d, const struct sl_ckpt_tensor *a,
                           const struct sl_ckpt_tensor *b, struct sl_error *err)
{
    uint64_t cols = a->n_dims == 2 ? a->shape[1] : 1, rows = a->shape[0];
    uint64_t step = PIECE_BYTES / (cols * 8) + 1;
    uint8_t *at[2] = {sl_alloc_array(step * cols, sl_dtype_bytes(a->dtype)),
                      sl_alloc_array(step * cols, sl_dtype_bytes(b->dtype))};
    int rc = 0;

    if (at[0] == NULL || at[1] == NULL)
        rc = sl_fail(err, SL_ERR_NOMEM, "no memory to compare %s", a->name);
    for (uint64_t first = 0; rc == 0 && first < rows; first += step) {
        uint64_t n = rows - first < step ? rows - first : step;

        if (sl_ckpt_read_rows(a, at[0], first, n, err) != 0 ||
            sl_ckpt_read_rows(b, at[1], first, n, err) != 0)
            rc = -1;
        else
            compare(d, at[0], a->dtype, at[1], b->dtype, n * cols);
    }
    free(at[0]);
    free(at[1]);
    return rc;
}

/* One of the checkpoint's tensors, which every shard has whole. */
static int check_tensor(const struct sl_convert *cv, const char *name,
                        struct sl_error *err)
{
    const struct sl_ckpt_tensor *first = sl_ckpt_find(&cv->ckpt, 0, name), *t;

    for (size_t shard = 1; shard < cv->ckpt.n_shards; shard++) {
        struct difference d = {0};
        bool same;

        t = sl_ckpt_find(&cv->ckpt, shard, name);
        if (first == NULL || t == NULL || t->n_dims == 0 || t->n_dims > 2)
            continue;
        same = same_shape(first, t);
        if (same && compare_tensors(&d, first, t, err) != 0)
            return -1;
        if (!same)
            sl_log(cv->o->log, SL_LOG_WARN,
                   "tensor %s has another shape in %s than in %s, whose is "
                   "taken",
                   name, cv->ckpt.shards[shard].file, cv->ckpt.shards[0].file);
        else if (d.n > 0)
            sl_log(cv->o->log, SL_LOG_WARN,
                   "tensor %s: %" PRIu64 " of %" PRIu64 " values are others in "
                   "%s than in %s, by up to %g; the latter's are taken",
                   name, d.n, d.of, cv->ckpt.shards[shard].file,
                   cv->ckpt.shards[0].file, d.worst);
    }
    return 0;
}

static int check_merge(const struct sl_convert *cv, const struct sl_merge *m,
                       struct sl_error *err)
{
    if (m->spec.split != SL_SPLIT_NONE)
        return 0;
    for (unsigned i = 0; i < m->n_sources; i++)
        if (check_tensor(cv, m->source[i].name, err) != 0)
            return -1;
    return 0;
}

int sl_convert_check_replicas(const struct sl_convert *cv, struct sl_error *err)
{
    for (size_t i = 0; i < cv->n_small; i++)
        if (check_merge(cv, &cv->small[i], err) != 0)
            return -1;
    for (size_t i = 0; i < cv->n_matrices; i++)
        if (check_merge(cv, &cv->matrices[i].merge, err) != 0)
            return -1;
    return 0;
}
