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

/* What a position's row is the sum of. */
enum table { IDS, POSITIONS, BLOCKS, TABLES };

struct tables {
    const struct sl_model_matrix *of[TABLES]; /* NULL: the model has none */
    /* of a row's pieces where many are gathered: those of a table are its
     * weights', then its scales' if they are not in RAM */
    uint32_t piece[TABLES];
    uint32_t pieces; /* in all */
};

struct embed_job {
    struct sl_cpu *x;
    struct tables tables;
    uint32_t first; /* row of the pass, of those that were gathered */
    bool gathered;
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

/* Where a row's weights are in the file: of a float matrix the row itself, of
 * others its block. */
static uint64_t weights_at(const struct sl_model_matrix *m, uint32_t row,
                           uint64_t *bytes)
{
    const struct sl_matrix *g = &m->geom;
    uint32_t block = row / SL_BLOCK_ROWS;
    uint64_t off = m->off + sl_matrix_block_offset(g, 0, block);

    *bytes = sl_matrix_block_bytes(g, block, 1);
    if (!sl_fmt_is_float(g->fmt))
        return off;
    *bytes = sl_fmt_row_bytes(g->fmt, g->cols);
    return off + row % SL_BLOCK_ROWS * *bytes;
}

/* Likewise its scales; 0 bytes where they are in RAM, or there are none. */
static uint64_t scales_at(const struct sl_model_matrix *m, uint32_t row,
                          uint64_t *bytes)
{
    *bytes = m->scale_bytes == 0 || m->scale_resident
                 ? 0
                 : sl_matrix_scale_block_bytes(&m->geom, 1);
    return m->scale_off +
           sl_matrix_scale_offset(&m->geom, 0, row / SL_BLOCK_ROWS);
}

static struct tables tables_of(const struct sl_modelfile *mf)
{
    uint32_t of_model = mf->hp.n_layers;
    struct tables t = {
        .of = {
            sl_modelfile_embedding(mf),
            sl_modelfile_matrix(mf, SL_SLOT_EMBED_POSITIONS, of_model),
            sl_modelfile_matrix(mf, SL_SLOT_EMBED_BLOCKS, of_model),
        }};
    uint64_t scale_bytes;

    for (int i = 0; i < TABLES; i++) {
        t.piece[i] = t.pieces;
        if (t.of[i] == NULL)
            continue;
        scales_at(t.of[i], 0, &scale_bytes);
        t.pieces += scale_bytes > 0 ? 2 : 1;
    }
    return t;
}

/* Weights and scales from disk, into the thread's scratch memory. */
static const uint8_t *read_row(const struct sl_cpu *x,
                               const struct sl_model_matrix *m, uint32_t row,
                               unsigned worker, const uint16_t **scale,
                               struct sl_error *err)
{
    uint8_t *buf = x->lookup + worker * x->lookup_bytes;
    uint8_t *s = buf + padded(sl_matrix_block_bytes(&m->geom, 0, 1));
    uint64_t bytes, off = weights_at(m, row, &bytes);

    if (sl_modelfile_read(x->c.mf, buf, off, bytes, err) != 0)
        return NULL;
    *scale = NULL;
    off = scales_at(m, row, &bytes);
    if (bytes == 0)
        return buf;
    if (sl_modelfile_read(x->c.mf, s, off, bytes, err) != 0)
        return NULL;
    *scale = (const uint16_t *)s;
    return buf;
}

/* --- many at once -------------------------------------------------------- */

/* Fewer rows than this are read as fast one by one, by the threads. */
#define LEAST_GATHERED 64u
/* So many rows are in flight or wait to be added at a time, in so much memory.
 */
#define MOST_GATHERED 64u
#define GATHER_BYTES  (2ull << 20)

/* Bytes of the largest piece. */
static uint64_t largest_piece(const struct tables *t)
{
    uint64_t most = 0, bytes;

    for (int i = 0; i < TABLES; i++) {
        if (t->of[i] == NULL)
            continue;
        weights_at(t->of[i], 0, &bytes);
        most = bytes > most ? bytes : most;
        scales_at(t->of[i], 0, &bytes);
        most = bytes > most ? bytes : most;
    }
    return sl_gather_place_bytes(most);
}

uint32_t sl_cpu_gathered(const struct sl_modelfile *mf, uint32_t pass_positions,
                         uint64_t *piece_bytes)
{
    struct tables t = tables_of(mf);
    uint64_t n;

    *piece_bytes = largest_piece(&t);
    n = GATHER_BYTES / (t.pieces * *piece_bytes);
    if (pass_positions < LEAST_GATHERED || n < 2)
        return 0;
    return t.pieces * (uint32_t)(n < MOST_GATHERED ? n : MOST_GATHERED);
}

/* The position's place in a table. */
static int32_t place_in(const struct sl_pass *pass, enum table t, uint32_t row)
{
    size_t lo = 0, hi = pass->n_items;
    const struct sl_lm_item *it;
    uint32_t j;

    while (hi - lo > 1) { /* the item that has the row */
        size_t mid = lo + (hi - lo) / 2;

        if (pass->run[mid].row <= row)
            lo = mid;
        else
            hi = mid;
    }
    it = &pass->items[lo];
    j = row - pass->run[lo].row;
    if (t == IDS)
        return it->ids[j];
    if (t == POSITIONS)
        return it->positions[j];
    return it->blocks != NULL ? it->blocks[j] : 0;
}

static bool is_in_ram(const struct sl_cpu *x, const struct sl_model_matrix *m,
                      uint32_t row)
{
    const uint16_t *scale;

    return m->spec.slot == SL_SLOT_HEAD &&
           resident_block(x, m, row / SL_BLOCK_ROWS, &scale) != NULL;
}

static void want_row(struct sl_cpu *x, const struct tables *t, uint32_t first,
                     uint32_t row)
{
    for (int i = 0; i < TABLES; i++) {
        const struct sl_model_matrix *m = t->of[i];
        uint32_t piece = t->pieces * (row - first) + t->piece[i];
        uint64_t bytes, off, scale_bytes, scale_off;
        int32_t at;

        if (m == NULL)
            continue;
        at = place_in(x->pass, (enum table)i, row);
        if (at < 0 || (uint32_t)at >= m->geom.rows) /* refused later */
            at = 0;
        off = weights_at(m, (uint32_t)at, &bytes);
        scale_off = scales_at(m, (uint32_t)at, &scale_bytes);
        if (scale_bytes > 0)
            sl_gather_want(&x->gather, piece + 1, scale_off,
                           is_in_ram(x, m, (uint32_t)at) ? 0 : scale_bytes);
        sl_gather_want(&x->gather, piece, off,
                       is_in_ram(x, m, (uint32_t)at) ? 0 : bytes);
    }
}

/* Reads what rows [first, end) need of the disk. */
static void gather_rows(struct sl_cpu *x, const struct tables *t,
                        uint32_t first, uint32_t end)
{
    for (uint32_t row = first; row < end; row++)
        want_row(x, t, first, row);
    sl_gather_run(&x->gather, t->pieces * (end - first));
}

/* The weights of a row of the pass if they were gathered, else NULL. */
static const uint8_t *gathered(const struct embed_job *job, enum table t,
                               uint32_t row, const uint16_t **scale)
{
    const struct sl_model_matrix *m = job->tables.of[t];
    uint32_t piece =
        job->tables.pieces * (row - job->first) + job->tables.piece[t];
    uint64_t bytes;

    *scale = NULL;
    if (!job->gathered)
        return NULL;
    scales_at(m, 0, &bytes);
    if (bytes > 0) {
        *scale = (const void *)sl_gather_get(&job->x->gather, piece + 1);
        if (*scale == NULL)
            return NULL;
    }
    return sl_gather_get(&job->x->gather, piece);
}

/* --- rows ---------------------------------------------------------------- */

/* out = a table's row for a row of the pass: from RAM, from what was gathered,
 * or read now. */
static int look_up(const struct embed_job *job, float *out, enum table t,
                   uint32_t row, uint32_t at, unsigned worker,
                   struct sl_error *err)
{
    const struct sl_cpu *x = job->x;
    const struct sl_model_matrix *m = job->tables.of[t];
    uint32_t block = at / SL_BLOCK_ROWS, in_block = at % SL_BLOCK_ROWS;
    const uint16_t *scale;
    const uint8_t *w = NULL;

    if (m->spec.slot == SL_SLOT_HEAD)
        w = resident_block(x, m, block, &scale);
    if (w == NULL) {
        w = gathered(job, t, row, &scale);
        if (w == NULL)
            w = read_row(x, m, at, worker, &scale, err);
        if (w == NULL)
            return -1;
        if (sl_fmt_is_float(m->geom.fmt))
            in_block = 0; /* it came alone */
    }
    if (m->scale_resident)
        scale = x->c.small->scales[m - x->c.mf->matrices] +
                sl_matrix_scale_offset(&m->geom, 0, block) / 2;
    sl_matrix_decode_row(out, &m->geom, w, scale, in_block);
    return 0;
}

/* out += row of a table; a place beyond its end is refused. */
static int add_row(const struct embed_job *job, float *out, enum table t,
                   uint32_t row, unsigned worker, struct sl_error *err)
{
    const struct sl_cpu *x = job->x;
    const struct sl_model_matrix *table = job->tables.of[t];
    int32_t at = place_in(x->pass, t, row);
    float *more = (float *)(void *)(x->lookup + (worker + 1) * x->lookup_bytes -
                                    padded(x->hidden * sizeof(float)));

    if (at < 0 || (uint32_t)at >= table->geom.rows)
        return sl_fail(err, SL_ERR_USAGE,
                       "position %d: the model has embeddings of positions 0 "
                       "to %u (%s): a shorter text is needed",
                       (int)at, table->geom.rows - 1, table->spec.name);
    if (look_up(job, more, t, row, (uint32_t)at, worker, err) != 0)
        return -1;
    x->c.kernels->add(out, more, x->hidden);
    return 0;
}

static int embed_row(const struct embed_job *job, uint32_t row, unsigned worker,
                     struct sl_error *err)
{
    const struct sl_cpu *x = job->x;
    float *out = x->pass->x + (size_t)row * x->hidden;

    if (look_up(job, out, IDS, row, (uint32_t)place_in(x->pass, IDS, row),
                worker, err) != 0)
        return -1;
    for (int t = POSITIONS; t < TABLES; t++) {
        if (job->tables.of[t] != NULL &&
            add_row(job, out, (enum table)t, row, worker, err) != 0)
            return -1;
    }
    return 0;
}

static void embed_rows(void *arg, size_t begin, size_t end, unsigned worker)
{
    struct embed_job *job = arg;
    struct sl_error err;

    for (size_t i = begin; i < end; i++) {
        if (embed_row(job, job->first + (uint32_t)i, worker, &err) == 0)
            continue;
        if (!atomic_exchange(&job->failed, true))
            *job->err = err;
        return;
    }
}

int sl_cpu_embed(struct sl_cpu *x, struct sl_error *err)
{
    struct tables tables = tables_of(x->c.mf);
    uint32_t n = x->pass->n, step = x->gather.n / tables.pieces;
    struct sl_error ignored;
    struct embed_job job = {
        .x = x,
        .tables = tables,
        .gathered = x->gather.io != NULL && n >= LEAST_GATHERED,
        .err = err ? err : &ignored,
    };

    atomic_init(&job.failed, false);
    for (uint32_t end; job.first < n; job.first = end) {
        end = job.gathered && n - job.first > step ? job.first + step : n;
        if (job.gathered)
            gather_rows(x, &job.tables, job.first, end);
        sl_pool_for(x->c.pool, end - job.first, 1, embed_rows, &job);
        if (atomic_load(&job.failed)) {
            sl_error_prefix(err, "embedding: ");
            return -1;
        }
    }
    return 0;
}
