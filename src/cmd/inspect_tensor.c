#include "config.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "quant/blocks.h"
#include "src/base/half.h"
#include "src/base/mem.h"
#include "src/cmd/inspect_source.h"
#include "src/cmd/npy.h"
#include "src/convert/convert.h"
#include "src/convert/merge.h"
#include "src/model/modelfile_rows.h"

/* Values converted at a time. */
#define RUN_VALUES (1u << 20)

static int take_values(void *opaque, const float *values, size_t n,
                       struct sl_error *err)
{
    return sl_npy_write(opaque, values, n, err);
}

static const struct sl_model_matrix *find_matrix(const struct sl_modelfile *mf,
                                                 const char *name)
{
    for (size_t i = 0; i < mf->n_matrices; i++)
        if (strcmp(mf->matrices[i].spec.name, name) == 0)
            return &mf->matrices[i];
    return NULL;
}

static const struct sl_model_small *find_vector(const struct sl_modelfile *mf,
                                                const char *name)
{
    for (size_t i = 0; i < mf->n_small; i++)
        if (strcmp(mf->small[i].spec.name, name) == 0)
            return &mf->small[i];
    return NULL;
}

static int no_such_tensor(const char *path, const char *name,
                          struct sl_error *err)
{
    return sl_fail(err, SL_ERR_USAGE,
                   "%s: no tensor is named %.150s; --tensors lists them", path,
                   name);
}

static int from_model(struct sl_npy *npy, const char *path, const char *name,
                      const char *output, struct sl_error *err)
{
    const struct sl_model_matrix *m;
    const struct sl_model_small *v;
    struct sl_modelfile mf;
    uint64_t shape[2];
    int rc;

    if (sl_modelfile_open(&mf, path, err) != 0)
        return -1;
    m = find_matrix(&mf, name);
    v = find_vector(&mf, name);
    if (m == NULL && v == NULL)
        rc = no_such_tensor(path, name, err);
    else {
        shape[0] = m != NULL ? m->geom.rows : v->spec.rows;
        shape[1] = m != NULL ? m->geom.cols : 1;
        rc = sl_npy_open(npy, output, shape, m != NULL ? 2 : 1, err);
    }
    if (rc == 0)
        rc = m != NULL
                 ? sl_modelfile_matrix_rows(&mf, m, take_values, npy, err)
                 : sl_modelfile_vector_rows(&mf, v, take_values, npy, err);
    sl_modelfile_close(&mf);
    return rc;
}

/* Rows and columns of a tensor as it is read, with all but the first of its
 * dimensions one. */
static void count_sides(const struct sl_ckpt_tensor *t, uint64_t *rows,
                        uint64_t *cols)
{
    *rows = t->n_dims > 0 ? t->shape[0] : 1;
    *cols = 1;
    for (uint32_t i = 1; i < t->n_dims; i++)
        *cols *= t->shape[i];
}

/* Rows of ggml's blocks, decoded. */
static int write_blocks(struct sl_npy *npy, const struct sl_ckpt_tensor *t,
                        enum sl_fmt fmt, struct sl_error *err)
{
    uint64_t rows, cols;
    uint8_t *raw;
    float *values;
    int rc = 0;

    count_sides(t, &rows, &cols);
    raw = sl_alloc_array(cols / sl_dtype_block_values(t->dtype),
                         sl_dtype_bytes(t->dtype));
    values = sl_alloc_array(cols, sizeof *values);
    if (raw == NULL || values == NULL)
        rc = sl_fail(err, SL_ERR_NOMEM, "no memory to read tensor %s", t->name);
    for (uint64_t r = 0; r < rows && rc == 0; r++) {
        rc = sl_ckpt_read_rows(t, raw, r, 1, err);
        if (rc != 0)
            break;
        sl_blocks_decode(values, fmt, raw, (uint32_t)cols);
        rc = sl_npy_write(npy, values, cols, err);
    }
    free(raw);
    free(values);
    return rc;
}

static int write_as_stored(struct sl_npy *npy, const struct sl_ckpt_tensor *t,
                           struct sl_error *err)
{
    uint32_t size = sl_dtype_bytes(t->dtype);
    uint8_t *raw = sl_alloc_array(RUN_VALUES, size);
    float *values = sl_alloc_array(RUN_VALUES, sizeof *values);
    uint64_t rows, cols, n_rows, n_cols;
    int rc = 0;

    if (raw == NULL || values == NULL)
        rc = sl_fail(err, SL_ERR_NOMEM, "no memory to read tensor %s", t->name);
    count_sides(t, &rows, &cols);
    n_cols = cols < RUN_VALUES ? cols : RUN_VALUES;
    n_rows = n_cols == 0 ? rows : RUN_VALUES / n_cols;
    n_rows = n_rows == 0 ? 1 : n_rows;
    for (uint64_t r = 0; r < rows && cols > 0 && rc == 0; r += n_rows) {
        uint64_t nr = rows - r < n_rows ? rows - r : n_rows;

        for (uint64_t c = 0; c < cols && rc == 0; c += n_cols) {
            uint64_t nc = cols - c < n_cols ? cols - c : n_cols;

            rc = sl_ckpt_read_block(t, raw, r, nr, c, nc, err);
            for (uint64_t i = 0; i < nr * nc && rc == 0; i++)
                values[i] = sl_dtype_load(raw + i * size, t->dtype);
            if (rc == 0)
                rc = sl_npy_write(npy, values, (size_t)(nr * nc), err);
        }
    }
    free(raw);
    free(values);
    return rc;
}

/* One merged row as floats; scale: (n_groups) FP16 of a quantised one. */
static void merged_row(float *out, const struct sl_merge *m, const uint8_t *row,
                       const uint16_t *scale)
{
    bool is_float = sl_fmt_is_float(m->fmt);
    uint32_t group = m->n_groups > 0 ? m->spec.cols / m->n_groups : 1;

    if (is_float)
        sl_fmt_of(m->fmt)->load(out, row, 0, m->spec.cols);
    for (uint32_t i = 0; i < m->spec.cols; i++) {
        if (!is_float) /* a byte each, INT4 too */
            out[i] = sl_dtype_load(row + i, SL_DT_I8);
        if (m->n_groups > 0)
            out[i] *= sl_half_to_float(scale[i / group]);
    }
}

static int write_merged(struct sl_npy *npy, const struct sl_merge *m,
                        struct sl_error *err)
{
    uint8_t *row = sl_alloc_array((size_t)sl_merge_row_bytes(m), 1);
    uint8_t *scratch = sl_alloc_array((size_t)sl_merge_scratch_bytes(m, 1), 1);
    uint16_t *scale = sl_alloc_array(m->n_groups + 1, sizeof *scale);
    float *values = sl_alloc_array(m->spec.cols, sizeof *values);
    int rc = 0;

    if (row == NULL || scratch == NULL || scale == NULL || values == NULL)
        rc = sl_fail(err, SL_ERR_NOMEM, "no memory to read tensor %s",
                     m->spec.name);
    for (uint32_t r = 0; r < m->spec.rows && rc == 0; r++) {
        rc = sl_merge_read(m, row, m->n_groups > 0 ? scale : NULL, r, 1,
                           scratch, err);
        if (rc != 0)
            break;
        merged_row(values, m, row, scale);
        rc = sl_npy_write(npy, values, m->spec.cols, err);
    }
    free(row);
    free(scratch);
    free(scale);
    free(values);
    return rc;
}

/* The tensor of the model that has this name. Returns 1 when the architecture
 * is not known, or has none. */
static int find_merged(struct sl_merge *m, const struct sl_ckpt *c,
                       const char *path, const char *name, struct sl_error *err)
{
    struct sl_convert_options o;
    const struct sl_arch *arch;
    struct sl_tensor_spec spec;
    struct sl_hparams hp;

    sl_convert_options_init(&o);
    o.source = path;
    if (sl_convert_describe(&arch, &hp, c, &o, err) != 0)
        return 1;
    for (uint32_t i = 0; sl_arch_tensor(arch, &spec, &hp, i); i++) {
        if (strcmp(spec.name, name) != 0)
            continue;
        if (sl_merge_init(m, c, &spec, err) != 0)
            return -1;
        sl_merge_decode(m);
        return 0;
    }
    return 1;
}

/* Scales beside it: the numbers alone are not the weights. */
static bool is_quantised(const struct sl_ckpt *c,
                         const struct sl_ckpt_tensor *t)
{
    char scale[600];

    snprintf(scale, sizeof scale, "%.500s_scale", t->name);
    return t->dtype == SL_DT_I8 && sl_ckpt_find(c, 0, scale) != NULL;
}

static int from_ckpt(struct sl_npy *npy, const struct sl_ckpt *c,
                     const char *path, const char *name, const char *output,
                     struct sl_error *err)
{
    const struct sl_ckpt_tensor *t = sl_ckpt_find(c, 0, name);
    struct sl_merge m;
    enum sl_fmt fmt;
    int rc = 1;

    if (t == NULL || c->n_shards > 1 || is_quantised(c, t))
        rc = find_merged(&m, c, path, name, err);
    if (rc < 0)
        return -1;
    if (rc == 0) {
        const uint64_t shape[] = {m.spec.rows, m.spec.cols};

        if (sl_npy_open(npy, output, shape,
                        m.spec.role == SL_ROLE_VECTOR ? 1 : 2, err) != 0)
            return -1;
        return write_merged(npy, &m, err);
    }
    if (t == NULL)
        return no_such_tensor(path, name, err);
    if (c->n_shards > 1)
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "%s: tensor %.150s is held by %zu shards, and no "
                       "architecture says how they are joined",
                       path, name, c->n_shards);
    if (sl_npy_open(npy, output, t->shape, t->n_dims, err) != 0)
        return -1;
    return sl_dtype_blocks(&fmt, t->dtype) ? write_blocks(npy, t, fmt, err)
                                           : write_as_stored(npy, t, err);
}

static int from_source(struct sl_npy *npy, const char *path, const char *name,
                       const char *output, struct sl_error *err)
{
    struct sl_ckpt c;
    int rc;

    if (sl_ckpt_open(&c, path, NULL, err) != 0)
        return -1;
    rc = from_ckpt(npy, &c, path, name, output, err);
    sl_ckpt_close(&c);
    return rc;
}

int sl_inspect_tensor(const char *path, const char *name, const char *output,
                      struct sl_error *err)
{
    struct sl_npy npy = {0};
    int rc = sl_inspect_is_source(path)
                 ? from_source(&npy, path, name, output, err)
                 : from_model(&npy, path, name, output, err);

    if (rc == 0)
        return sl_npy_close(&npy, err);
    sl_npy_abort(&npy);
    return -1;
}
