#include "config.h"

#include "quant/matrix.h"
#include "src/base/half.h"
#include "src/base/mem.h"

/* No side of a matrix is longer, so that no size below can overflow 64 bits
 * and no count rounded up to a block can overflow 32 (GLM-130B's longest side
 * is its vocabulary, 150528). */
#define MAX_SIDE (1u << 28)

int sl_matrix_check(const struct sl_matrix *m, struct sl_error *err)
{
    if ((unsigned)m->fmt >= SL_FMT_COUNT)
        return sl_fail(err, SL_ERR_CORRUPT, "matrix format %u is unknown",
                       (unsigned)m->fmt);
    if (m->rows == 0 || m->rows > MAX_SIDE || m->cols == 0 ||
        m->cols > MAX_SIDE)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "a matrix of %u x %u (each side must be 1 .. %u)",
                       m->rows, m->cols, MAX_SIDE);
    if (m->n_segments < 1 || m->n_segments > 2)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "a matrix of %u segments (1 or 2 are possible)",
                       m->n_segments);
    if (m->rows % m->n_segments != 0)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "%u rows cannot be cut into %u segments", m->rows,
                       m->n_segments);
    if (sl_fmt_has_scales(m->fmt)
            ? m->group_cols == 0 || m->group_cols > MAX_SIDE
            : m->group_cols != 0)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "%u columns a scale in a matrix of format %s",
                       m->group_cols, sl_fmt_name(m->fmt));
    if (sl_fmt_has_blocks(m->fmt) && m->cols % sl_fmt_of(m->fmt)->block_cols)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "%u columns are no whole blocks of format %s (%u each)",
                       m->cols, sl_fmt_name(m->fmt),
                       sl_fmt_of(m->fmt)->block_cols);
    return 0;
}

uint32_t sl_matrix_segment_rows(const struct sl_matrix *m)
{
    return m->rows / m->n_segments;
}

uint32_t sl_matrix_segment_blocks(const struct sl_matrix *m)
{
    return (uint32_t)sl_div_up(sl_matrix_segment_rows(m), SL_BLOCK_ROWS);
}

uint32_t sl_matrix_groups(const struct sl_matrix *m)
{
    if (!sl_fmt_has_scales(m->fmt))
        return 0;
    return (uint32_t)sl_div_up(m->cols, m->group_cols);
}

/* Bytes of a segment before its block `block` (its end, if it has no such
 * block). */
static uint64_t bytes_before(const struct sl_matrix *m, uint32_t block)
{
    uint64_t row = (uint64_t)block * SL_BLOCK_ROWS;
    uint32_t n_rows = sl_matrix_segment_rows(m);

    /* Only blocks of rows are filled up. */
    if (sl_fmt_is_float(m->fmt) && row > n_rows)
        row = n_rows;
    return row * sl_fmt_row_bytes(m->fmt, m->cols);
}

uint64_t sl_matrix_block_bytes(const struct sl_matrix *m, uint32_t first,
                               uint32_t n_blocks)
{
    return bytes_before(m, first + n_blocks) - bytes_before(m, first);
}

uint64_t sl_matrix_scale_block_bytes(const struct sl_matrix *m,
                                     uint32_t n_blocks)
{
    return (uint64_t)n_blocks * sl_matrix_groups(m) * SL_BLOCK_ROWS *
           sizeof(uint16_t);
}

uint64_t sl_matrix_block_offset(const struct sl_matrix *m, uint32_t segment,
                                uint32_t block)
{
    return segment * bytes_before(m, sl_matrix_segment_blocks(m)) +
           bytes_before(m, block);
}

uint64_t sl_matrix_scale_offset(const struct sl_matrix *m, uint32_t segment,
                                uint32_t block)
{
    return segment *
               sl_matrix_scale_block_bytes(m, sl_matrix_segment_blocks(m)) +
           sl_matrix_scale_block_bytes(m, block);
}

uint64_t sl_matrix_bytes(const struct sl_matrix *m)
{
    return sl_matrix_block_offset(m, m->n_segments, 0);
}

uint64_t sl_matrix_scale_bytes(const struct sl_matrix *m)
{
    return sl_matrix_scale_offset(m, m->n_segments, 0);
}

void sl_matrix_decode_row(float *out, const struct sl_matrix *m, const void *w,
                          const uint16_t *scale, unsigned row_in_block)
{
    const struct sl_fmt_info *f = sl_fmt_of(m->fmt);
    uint64_t skip = f->is_float
                        ? row_in_block * sl_fmt_row_bytes(m->fmt, m->cols)
                        : (uint64_t)row_in_block * 4;

    f->load(out, (const uint8_t *)w + skip, 0, m->cols);
    if (f->scales != SL_SCALES_BESIDE)
        return;
    scale += row_in_block;
    for (uint32_t c = 0; c < m->cols; scale += SL_BLOCK_ROWS) {
        uint32_t left = m->cols - c;
        uint32_t end = left < m->group_cols ? m->cols : c + m->group_cols;
        float s = sl_half_to_float(*scale);

        for (; c < end; c++)
            out[c] *= s;
    }
}
