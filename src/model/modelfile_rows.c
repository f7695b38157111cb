#include "config.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "quant/planes.h"
#include "src/base/bytes.h"
#include "src/model/model_layout.h"
#include "src/model/modelfile_rows.h"

#define RUN_BYTES (4u << 20) /* weights decoded at a time, at least a block */

/* What a compressed section is read through. */
struct plain {
    const struct sl_modelfile *mf;
    uint8_t *kept, *scratch; /* of one chunk; NULL: nothing is compressed */
    struct sl_error *err;
};

/* Memory for the largest chunk of any compressed section, taken once: rows
 * may be asked for in any order. */
static int plain_init(struct plain *p, const struct sl_modelfile *mf,
                      struct sl_error *err)
{
    size_t most = 0;

    *p = (struct plain){.mf = mf, .err = err};
    for (size_t i = 0; mf->compressed != NULL && i < mf->n_sections; i++)
        if (mf->compressed[i].n_chunks > 0 &&
            mf->compressed[i].chunk_bytes > most)
            most = mf->compressed[i].chunk_bytes;
    if (most == 0)
        return 0;
    p->kept = sl_alloc_array(most, 1);
    p->scratch = sl_alloc_array(2 * most, 1);
    if (p->kept != NULL && p->scratch != NULL)
        return 0;
    free(p->kept);
    free(p->scratch);
    return sl_fail(err, SL_ERR_NOMEM, "%s: no memory to read it", mf->path);
}

static void plain_fini(struct plain *p)
{
    free(p->kept);
    free(p->scratch);
}

/* Bytes [off, off + n) of the file as they are meant; all in one section. */
static int plain_read(struct plain *p, void *to, uint64_t off, size_t n)
{
    const struct sl_modelfile *mf = p->mf;
    size_t section = sl_layout_section_at(mf->layout, off);
    const struct sl_compressed *k =
        mf->compressed != NULL ? &mf->compressed[section] : NULL;
    size_t first, last;

    if (k == NULL || k->n_chunks == 0)
        return sl_modelfile_read(mf, to, off, n, p->err);
    first = (size_t)((off - k->off) / k->chunk_bytes);
    last = (size_t)((off + n - 1 - k->off) / k->chunk_bytes);
    for (size_t i = first; i <= last; i++) {
        uint64_t at = k->off + k->at[i];

        if (sl_modelfile_read(mf, p->kept, at,
                              (size_t)(k->at[i + 1] - k->at[i]), p->err) != 0)
            return -1;
        if (!sl_compressed_decode(k, i, off, off + n, to, p->kept, p->scratch))
            return sl_fail(p->err, SL_ERR_CORRUPT,
                           "%s: compressed chunk %zu of section %s, at offset "
                           "%" PRIu64 ", is damaged",
                           mf->path, i, mf->sections[section].name, at);
    }
    return 0;
}

/* What decoding one run of blocks of a matrix takes. */
struct run {
    struct plain plain;
    const struct sl_model_matrix *m;
    uint8_t *w;
    uint8_t *planes; /* as many bytes, of both; NULL: there are none */
    uint16_t *scale; /* NULL: of a float format */
    float *row;
};

/* r->w = n bytes of weights, which begin `at` bytes into the matrix. */
static int read_weights(struct run *r, uint64_t at, size_t n)
{
    const struct sl_model_matrix *m = r->m;

    if (r->planes == NULL)
        return plain_read(&r->plain, r->w, m->off + at, n);
    if (plain_read(&r->plain, r->planes, m->off + at / 2, n / 2) != 0 ||
        plain_read(&r->plain, r->planes + n / 2, m->low_off + at / 2, n / 2) !=
            0)
        return -1;
    sl_planes_join(r->w, r->planes, r->planes + n / 2, n);
    return 0;
}

/* Whole blocks of sixteen rows, which lie together with their scales: one
 * read, whatever row is wanted of them. */
static int take_blocks(struct run *r, uint32_t segment, uint32_t first,
                       uint32_t n, sl_rows_fn *take, void *opaque)
{
    const struct sl_matrix *g = &r->m->geom;
    uint64_t at = sl_matrix_block_offset(g, segment, first);
    uint64_t scale_at = sl_matrix_scale_offset(g, segment, first);
    uint32_t rows = sl_matrix_segment_rows(g) - first * SL_BLOCK_ROWS;

    rows = rows < n * SL_BLOCK_ROWS ? rows : n * SL_BLOCK_ROWS;
    if (read_weights(r, at, (size_t)sl_matrix_block_bytes(g, first, n)) != 0)
        return -1;
    if (r->scale != NULL &&
        plain_read(&r->plain, r->scale, r->m->scale_off + scale_at,
                   (size_t)sl_matrix_scale_block_bytes(g, n)) != 0)
        return -1;
    for (uint32_t i = 0; i < rows; i++) {
        uint32_t block = first + i / SL_BLOCK_ROWS;
        const uint16_t *scale = NULL;

        if (r->scale != NULL)
            scale = r->scale +
                    (sl_matrix_scale_offset(g, segment, block) - scale_at) / 2;
        sl_matrix_decode_row(
            r->row, g, r->w + (sl_matrix_block_offset(g, segment, block) - at),
            scale, i % SL_BLOCK_ROWS);
        if (take(opaque, r->row, g->cols, r->plain.err) != 0)
            return -1;
    }
    return 0;
}

int sl_modelfile_matrix_rows(const struct sl_modelfile *mf,
                             const struct sl_model_matrix *m, sl_rows_fn *take,
                             void *opaque, struct sl_error *err)
{
    const struct sl_matrix *g = &m->geom;
    uint32_t blocks = sl_matrix_segment_blocks(g), step;
    struct run r = {.m = m};
    int rc = 0;

    step = (uint32_t)(RUN_BYTES / sl_matrix_block_bytes(g, 0, 1));
    step = step == 0 ? 1 : step < blocks ? step : blocks;
    if (plain_init(&r.plain, mf, err) != 0)
        return -1;
    r.w = sl_alloc_array((size_t)sl_matrix_block_bytes(g, 0, 1), step);
    r.row = sl_alloc_array(g->cols, sizeof *r.row);
    if (m->scale_bytes > 0)
        r.scale =
            sl_alloc_array((size_t)sl_matrix_scale_block_bytes(g, step), 1);
    if (m->low_bytes > 0)
        r.planes = sl_alloc_array((size_t)sl_matrix_block_bytes(g, 0, 1), step);
    if (r.w == NULL || r.row == NULL ||
        (m->scale_bytes > 0 && r.scale == NULL) ||
        (m->low_bytes > 0 && r.planes == NULL))
        rc = sl_fail(err, SL_ERR_NOMEM, "%s: no memory to read tensor %s",
                     mf->path, m->spec.name);
    for (uint32_t s = 0; s < g->n_segments && rc == 0; s++)
        for (uint32_t b = 0; b < blocks && rc == 0; b += step)
            rc = take_blocks(&r, s, b, blocks - b < step ? blocks - b : step,
                             take, opaque);
    free(r.w);
    free(r.row);
    free(r.planes);
    free(r.scale);
    plain_fini(&r.plain);
    return rc;
}

int sl_modelfile_vector_rows(const struct sl_modelfile *mf,
                             const struct sl_model_small *v, sl_rows_fn *take,
                             void *opaque, struct sl_error *err)
{
    float *values = sl_alloc_array((size_t)v->bytes, 1);
    int rc;

    if (values == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "%s: no memory to read tensor %s",
                       mf->path, v->spec.name);
    rc = sl_modelfile_read(mf, values, v->off, (size_t)v->bytes, err);
    if (rc == 0)
        rc = take(opaque, values, (size_t)v->bytes / sizeof *values, err);
    free(values);
    return rc;
}
