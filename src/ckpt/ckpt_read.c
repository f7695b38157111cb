#include "config.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/mem.h"
#include "src/ckpt/ckpt.h"

/* Strided elements are read in spans of the file of at most this, gaps and
 * all, and picked out in memory. */
#define SPAN_BYTES (1u << 20)
/* Rather two reads than one that drags this much along for nothing. */
#define GAP_BYTES (64u << 10)

/* One direction of a block: how many, and how far apart in elements in the
 * file (from) and in the output (to). */
struct axis {
    uint64_t n;
    uint64_t from;
    uint64_t to;
};

uint64_t sl_ckpt_extent(const struct sl_ckpt_tensor *t)
{
    uint64_t last = 0;

    for (uint32_t i = 0; i < t->n_dims; i++) {
        if (t->shape[i] == 0)
            return 0;
        last += (t->shape[i] - 1) * t->stride[i];
    }
    return (last / sl_dtype_block_values(t->dtype) + 1) *
           sl_dtype_bytes(t->dtype);
}

/* Copies n elements that lie from elements apart to places to apart. */
static void scatter(uint8_t *out, uint64_t to, const uint8_t *in, uint64_t from,
                    uint64_t n, uint32_t size)
{
    if (from == 1 && to == 1) {
        memcpy(out, in, n * size);
        return;
    }
    for (uint64_t i = 0; i < n; i++)
        memcpy(out + i * to * size, in + i * from * size, size);
}

/* As many runs of the outer axis at a time as one span holds. */
static int read_runs(const struct sl_ckpt_tensor *t, uint8_t *out,
                     uint8_t *span, struct axis a, struct axis b, uint64_t off,
                     struct sl_error *err)
{
    uint32_t size = sl_dtype_bytes(t->dtype);
    uint64_t run = ((b.n - 1) * b.from + 1) * size, step, batch = 1;

    /* Both fit: the tensor's whole extent was checked against the file. */
    step = a.from * size;
    if (a.n > 1 && step < run + GAP_BYTES)
        batch = step == 0 ? a.n : (SPAN_BYTES - run) / step + 1;
    for (uint64_t i = 0; i < a.n; i += batch) {
        uint64_t n = a.n - i < batch ? a.n - i : batch;

        if (sl_src_read(t->src, span, off + i * step,
                        (size_t)((n - 1) * step + run), err) != 0)
            return -1;
        for (uint64_t k = 0; k < n; k++)
            scatter(out + (i + k) * a.to * size, b.to, span + k * step, b.from,
                    b.n, size);
    }
    return 0;
}

/* A block whose inner axis b is the one with the smaller step in the file. */
static int read_strided(const struct sl_ckpt_tensor *t, uint8_t *out,
                        struct axis a, struct axis b, uint64_t off,
                        struct sl_error *err)
{
    uint32_t size = sl_dtype_bytes(t->dtype);
    uint64_t piece = SPAN_BYTES / size, step;
    uint64_t all = ((a.n - 1) * a.from + (b.n - 1) * b.from + 1) * size;
    uint8_t *span = sl_alloc_array(all < SPAN_BYTES ? all : SPAN_BYTES, 1);
    int rc = 0;

    if (span == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "%s: no memory to read it",
                       sl_src_name(t->src));
    if (b.from > 0)
        piece = (piece - 1) / b.from + 1;
    for (uint64_t i = 0; i < b.n && rc == 0; i += step) {
        struct axis part = b;

        step = b.n - i < piece || b.from == 0 ? b.n - i : piece;
        part.n = step;
        rc = read_runs(t, out + i * b.to * size, span, a, part,
                       off + i * b.from * size, err);
    }
    free(span);
    return rc;
}

/* Rows that are dense in the file go straight to the output. */
static int read_dense_rows(const struct sl_ckpt_tensor *t, uint8_t *out,
                           struct axis rows, uint64_t n_cols, uint64_t off,
                           struct sl_error *err)
{
    uint32_t size = sl_dtype_bytes(t->dtype);

    if (rows.from == n_cols || rows.n == 1)
        return sl_src_read(t->src, out, off, (size_t)(rows.n * n_cols * size),
                           err);
    for (uint64_t i = 0; i < rows.n; i++)
        if (sl_src_read(t->src, out + i * n_cols * size,
                        off + i * rows.from * size, (size_t)(n_cols * size),
                        err) != 0)
            return -1;
    return 0;
}

/* The tensor as a matrix. The columns of one with more dimensions must lie
 * an even step apart. */
static int as_matrix(const struct sl_ckpt_tensor *t, struct axis *rows,
                     struct axis *cols, struct sl_error *err)
{
    uint32_t d = t->n_dims;

    *rows = (struct axis){d > 0 ? t->shape[0] : 1, d > 0 ? t->stride[0] : 0, 0};
    *cols = (struct axis){1, 1, 1};
    for (; d > 1; d--) {
        uint64_t n = t->shape[d - 1], step = t->stride[d - 1];

        if (n == 1)
            continue;
        if (cols->n == 1)
            cols->from = step;
        else if (n > 0 && cols->n > 0 && step != cols->from * cols->n)
            return sl_fail(err, SL_ERR_UNSUPPORTED,
                           "%s: tensor %s: the %" PRIu32
                           " dimensions of a row do not lie evenly",
                           sl_src_name(t->src), t->name, t->n_dims - 1);
        cols->n *= n;
    }
    rows->to = cols->n;
    return 0;
}

/* Three ways to read a part of a matrix, by how it lies: rows that follow
 * each other or lie far apart in one read each; else the axis with the
 * smaller step inside, so that each read covers most of what it brings. */
static int read_elements(const struct sl_ckpt_tensor *t, void *out,
                         uint64_t first, uint64_t n, uint64_t first_col,
                         uint64_t n_cols, struct sl_error *err)
{
    struct axis rows, cols;
    uint64_t off;
    uint32_t size = sl_dtype_bytes(t->dtype);

    if (as_matrix(t, &rows, &cols, err) != 0)
        return -1;
    if (first > rows.n || n > rows.n - first || first_col > cols.n ||
        n_cols > cols.n - first_col)
        return sl_fail(err, SL_ERR_USAGE,
                       "%s: tensor %s is %" PRIu64 " x %" PRIu64
                       ", but %" PRIu64 " x %" PRIu64
                       " are wanted from %" PRIu64 ", %" PRIu64 " on",
                       sl_src_name(t->src), t->name, rows.n, cols.n, n, n_cols,
                       first, first_col);
    if (n == 0 || n_cols == 0)
        return 0;
    off = t->off + (first * rows.from + first_col * cols.from) * size;
    rows.n = n;
    rows.to = n_cols;
    cols.n = n_cols;
    if (n_cols == 1) { /* one column is one row of as many elements */
        cols = (struct axis){n, rows.from, 1};
        rows = (struct axis){1, 0, n};
    }
    if (cols.from == 1 && (rows.n == 1 || rows.from == cols.n ||
                           rows.from * size >= cols.n * size + GAP_BYTES))
        return read_dense_rows(t, out, rows, cols.n, off, err);
    if (rows.from < cols.from)
        return read_strided(t, out, cols, rows, off, err);
    return read_strided(t, out, rows, cols, off, err);
}

/* Blocks lie dense along a row: the same, block by block. */
static int read_blocks(const struct sl_ckpt_tensor *t, void *out,
                       uint64_t first, uint64_t n, uint64_t first_col,
                       uint64_t n_cols, struct sl_error *err)
{
    uint64_t values = sl_dtype_block_values(t->dtype);
    struct sl_ckpt_tensor blocks = *t;
    uint32_t d = t->n_dims;

    if (d < 2 || t->shape[d - 1] % values != 0 || first_col % values != 0 ||
        n_cols % values != 0)
        return sl_fail(err, SL_ERR_USAGE,
                       "%s: tensor %s: part of a block of %" PRIu64 " values",
                       sl_src_name(t->src), t->name, values);
    blocks.shape[d - 1] /= values;
    for (uint32_t i = 0; i + 1 < d; i++)
        blocks.stride[i] /= values;
    return read_elements(&blocks, out, first, n, first_col / values,
                         n_cols / values, err);
}

int sl_ckpt_read_block(const struct sl_ckpt_tensor *t, void *out,
                       uint64_t first, uint64_t n, uint64_t first_col,
                       uint64_t n_cols, struct sl_error *err)
{
    return (sl_dtype_block_values(t->dtype) > 1 ? read_blocks : read_elements)(
        t, out, first, n, first_col, n_cols, err);
}

int sl_ckpt_read_rows(const struct sl_ckpt_tensor *t, void *out, uint64_t first,
                      uint64_t n, struct sl_error *err)
{
    struct axis rows, cols;

    if (as_matrix(t, &rows, &cols, err) != 0)
        return -1;
    return sl_ckpt_read_block(t, out, first, n, 0, cols.n, err);
}
