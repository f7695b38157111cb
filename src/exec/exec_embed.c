#include "config.h"

#include <stdatomic.h>

#include "src/exec/exec_cpu_impl.h"

/* Embedding rows out of the head's matrix. */

static uint64_t padded(uint64_t bytes)
{
    return sl_round_up(bytes, 64);
}

static const struct sl_model_matrix *embedding(const struct sl_modelfile *mf)
{
    return &mf->matrices[mf->n_matrices - 1];
}

uint64_t sl_cpu_lookup_bytes(const struct sl_modelfile *mf)
{
    const struct sl_matrix *g = &embedding(mf)->geom;

    return padded(sl_matrix_block_bytes(g, 0, 1)) +
           padded(sl_matrix_scale_block_bytes(g, 1));
}

struct embed_job {
    struct sl_cpu *x;
    const int32_t *ids; /* of one item */
    uint32_t row;
    atomic_bool failed;
    struct sl_error *err; /* written once, by whoever sets failed */
};

/* Bytes of the block that holds an id, if they are in RAM. */
static const uint8_t *resident_block(const struct sl_cpu *x, uint32_t block,
                                     const uint16_t **scale)
{
    const struct sl_model_matrix *m = embedding(x->c.mf);
    const struct sl_cut *cut = x->c.cut;
    size_t lo = x->first_head_slab, hi = cut->n_slabs;
    const struct sl_part *part;
    const uint8_t *base;
    uint32_t into;

    while (hi - lo > 1) {
        size_t mid = lo + (hi - lo) / 2;

        if (cut->parts[cut->first_part[mid]].first_block <= block)
            lo = mid;
        else
            hi = mid;
    }
    base = x->head_base[lo - x->first_head_slab];
    if (base == NULL)
        return NULL;
    part = &cut->parts[cut->first_part[lo]];
    into = block - part->first_block;
    *scale = NULL;
    if (m->scale_bytes != 0 && !m->scale_resident)
        *scale = (const void *)(base + part->scale_at[0] +
                                sl_matrix_scale_block_bytes(&m->geom, into));
    return base + part->weight_at[0] +
           (sl_matrix_block_offset(&m->geom, 0, block) -
            sl_matrix_block_offset(&m->geom, 0, part->first_block));
}

/* The same from disk, into the thread's scratch memory. Of a float matrix
 * only the row itself is read. */
static const uint8_t *read_block(const struct sl_cpu *x, uint32_t id,
                                 unsigned worker, const uint16_t **scale,
                                 struct sl_error *err)
{
    const struct sl_model_matrix *m = embedding(x->c.mf);
    const struct sl_matrix *g = &m->geom;
    uint32_t block = id / SL_BLOCK_ROWS;
    uint64_t bytes = sl_matrix_block_bytes(g, block, 1), skip = 0;
    uint8_t *buf = x->lookup + worker * x->lookup_bytes;

    if (!sl_fmt_packed(g->fmt)) {
        bytes = (uint64_t)g->cols * (g->fmt == SL_FMT_F16 ? 2 : 4);
        skip = id % SL_BLOCK_ROWS * bytes;
    }
    if (sl_modelfile_read(x->c.mf, buf + skip,
                          m->off + sl_matrix_block_offset(g, 0, block) + skip,
                          bytes, err) != 0)
        return NULL;
    *scale = NULL;
    if (m->scale_bytes != 0 && !m->scale_resident) {
        uint8_t *s = buf + padded(sl_matrix_block_bytes(g, 0, 1));

        if (sl_modelfile_read(
                x->c.mf, s, m->scale_off + sl_matrix_scale_offset(g, 0, block),
                sl_matrix_scale_block_bytes(g, 1), err) != 0)
            return NULL;
        *scale = (const uint16_t *)s;
    }
    return buf;
}

static void embed_rows(void *arg, size_t begin, size_t end, unsigned worker)
{
    struct embed_job *job = arg;
    struct sl_cpu *x = job->x;
    const struct sl_model_matrix *m = embedding(x->c.mf);
    struct sl_error err;

    for (size_t i = begin; i < end; i++) {
        uint32_t id = (uint32_t)job->ids[i];
        uint32_t block = id / SL_BLOCK_ROWS;
        const uint16_t *scale;
        const uint8_t *w = resident_block(x, block, &scale);

        if (w == NULL)
            w = read_block(x, id, worker, &scale, &err);
        if (w == NULL) {
            if (!atomic_exchange(&job->failed, true))
                *job->err = err;
            return;
        }
        if (m->scale_resident)
            scale = x->c.vectors->scales[x->c.mf->n_matrices - 1] +
                    sl_matrix_scale_offset(&m->geom, 0, block) / 2;
        sl_matrix_decode_row(x->pass->x + (job->row + i) * x->hidden, &m->geom,
                             w, scale, id % SL_BLOCK_ROWS);
    }
}

int sl_cpu_embed(struct sl_cpu *x, struct sl_error *err)
{
    struct sl_error ignored;
    struct embed_job job = {.x = x, .err = err ? err : &ignored};

    atomic_init(&job.failed, false);
    for (size_t i = 0; i < x->pass->n_items; i++) {
        job.ids = x->pass->items[i].ids;
        job.row = x->pass->run[i].row;
        sl_pool_for(x->c.pool, x->pass->items[i].n, 1, embed_rows, &job);
        if (atomic_load(&job.failed)) {
            sl_error_prefix(err, "embedding: ");
            return -1;
        }
    }
    return 0;
}
