#include "config.h"

#include <stdatomic.h>

#include "src/exec/exec_cpu_impl.h"

/* Embeddings: rows of the matrix that ids are looked up in, which may be the
 * head's, plus rows of position tables where the model has such. */

static uint64_t padded(uint64_t bytes)
{
    return sl_round_up(bytes, 64);
}

static bool is_lookup(const struct sl_model_matrix *m)
{
    return m->spec.role == SL_ROLE_EMBED;
}

static bool has_positions(const struct sl_modelfile *mf)
{
    return sl_modelfile_matrix(mf, SL_SLOT_EMBED_POSITIONS, mf->hp.n_layers) !=
           NULL;
}

/* A thread's: a block of rows with its scales, and a row to be added. */
uint64_t sl_cpu_lookup_bytes(const struct sl_modelfile *mf)
{
    uint64_t most = 0;

    for (size_t i = 0; i < mf->n_matrices; i++) {
        const struct sl_matrix *g = &mf->matrices[i].geom;
        uint64_t bytes = padded(sl_matrix_block_bytes(g, 0, 1)) +
                         padded(sl_matrix_scale_block_bytes(g, 1));

        if (is_lookup(&mf->matrices[i]) && bytes > most)
            most = bytes;
    }
    return most +
           (has_positions(mf) ? padded(mf->hp.hidden * sizeof(float)) : 0);
}

struct embed_job {
    struct sl_cpu *x;
    const struct sl_model_matrix *ids_in, *positions_in, *blocks_in;
    const struct sl_lm_item *item;
    uint32_t row;
    atomic_bool failed;
    struct sl_error *err; /* written once, by whoever sets failed */
};

/* Bytes of the head's block that holds a row, if they are in RAM. */
static const uint8_t *resident_block(const struct sl_cpu *x,
                                     const struct sl_model_matrix *m,
                                     uint32_t block, const uint16_t **scale)
{
    const struct sl_partition *partition = x->c.partition;
    size_t lo = x->first_head_slab, hi = partition->n_slabs;
    const struct sl_part *part;
    const uint8_t *base;
    uint32_t into;

    while (hi - lo > 1) {
        size_t mid = lo + (hi - lo) / 2;

        if (partition->parts[partition->first_part[mid]].first_block <= block)
            lo = mid;
        else
            hi = mid;
    }
    base = x->head_base[lo - x->first_head_slab];
    if (base == NULL)
        return NULL;
    part = &partition->parts[partition->first_part[lo]];
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
static const uint8_t *read_block(const struct sl_cpu *x,
                                 const struct sl_model_matrix *m, uint32_t row,
                                 unsigned worker, const uint16_t **scale,
                                 struct sl_error *err)
{
    const struct sl_matrix *g = &m->geom;
    uint32_t block = row / SL_BLOCK_ROWS;
    uint64_t bytes = sl_matrix_block_bytes(g, block, 1), skip = 0;
    uint8_t *buf = x->lookup + worker * x->lookup_bytes;

    if (sl_fmt_is_float(g->fmt)) {
        bytes = sl_fmt_row_bytes(g->fmt, g->cols);
        skip = row % SL_BLOCK_ROWS * bytes;
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

/* out = row `row` of m. */
static int look_up(const struct sl_cpu *x, float *out,
                   const struct sl_model_matrix *m, uint32_t row,
                   unsigned worker, struct sl_error *err)
{
    uint32_t block = row / SL_BLOCK_ROWS;
    const uint16_t *scale;
    const uint8_t *w = NULL;

    if (m->spec.slot == SL_SLOT_HEAD)
        w = resident_block(x, m, block, &scale);
    if (w == NULL)
        w = read_block(x, m, row, worker, &scale, err);
    if (w == NULL)
        return -1;
    if (m->scale_resident)
        scale = x->c.small->scales[m - x->c.mf->matrices] +
                sl_matrix_scale_offset(&m->geom, 0, block) / 2;
    sl_matrix_decode_row(out, &m->geom, w, scale, row % SL_BLOCK_ROWS);
    return 0;
}

/* out += row `at` of a table; a place beyond its end is refused. */
static int add_row(const struct embed_job *job, float *out,
                   const struct sl_model_matrix *table, int32_t at,
                   unsigned worker, struct sl_error *err)
{
    const struct sl_cpu *x = job->x;
    float *row = (float *)(void *)(x->lookup + (worker + 1) * x->lookup_bytes -
                                   padded(x->hidden * sizeof(float)));

    if (at < 0 || (uint32_t)at >= table->geom.rows)
        return sl_fail(err, SL_ERR_USAGE,
                       "position %d: the model has embeddings of positions 0 "
                       "to %u (%s): a shorter text is needed",
                       (int)at, table->geom.rows - 1, table->spec.name);
    if (look_up(x, row, table, (uint32_t)at, worker, err) != 0)
        return -1;
    x->c.kernels->add(out, row, x->hidden);
    return 0;
}

static int embed_row(const struct embed_job *job, size_t i, unsigned worker,
                     struct sl_error *err)
{
    const struct sl_cpu *x = job->x;
    const struct sl_lm_item *it = job->item;
    float *out = x->pass->x + (job->row + i) * x->hidden;

    if (look_up(x, out, job->ids_in, (uint32_t)it->ids[i], worker, err) != 0)
        return -1;
    if (job->positions_in != NULL &&
        add_row(job, out, job->positions_in, it->positions[i], worker, err))
        return -1;
    if (job->blocks_in != NULL &&
        add_row(job, out, job->blocks_in,
                it->blocks != NULL ? it->blocks[i] : 0, worker, err))
        return -1;
    return 0;
}

static void embed_rows(void *arg, size_t begin, size_t end, unsigned worker)
{
    struct embed_job *job = arg;
    struct sl_error err;

    for (size_t i = begin; i < end; i++) {
        if (embed_row(job, i, worker, &err) == 0)
            continue;
        if (!atomic_exchange(&job->failed, true))
            *job->err = err;
        return;
    }
}

int sl_cpu_embed(struct sl_cpu *x, struct sl_error *err)
{
    const struct sl_modelfile *mf = x->c.mf;
    uint32_t of_model = mf->hp.n_layers;
    struct sl_error ignored;
    struct embed_job job = {
        .x = x,
        .ids_in = sl_modelfile_embedding(mf),
        .positions_in =
            sl_modelfile_matrix(mf, SL_SLOT_EMBED_POSITIONS, of_model),
        .blocks_in = sl_modelfile_matrix(mf, SL_SLOT_EMBED_BLOCKS, of_model),
        .err = err ? err : &ignored,
    };

    atomic_init(&job.failed, false);
    for (size_t i = 0; i < x->pass->n_items; i++) {
        job.item = &x->pass->items[i];
        job.row = x->pass->run[i].row;
        sl_pool_for(x->c.pool, job.item->n, 1, embed_rows, &job);
        if (atomic_load(&job.failed)) {
            sl_error_prefix(err, "embedding: ");
            return -1;
        }
    }
    return 0;
}
