#include "config.h"

#include <string.h>

#include "quant/matrix.h"
#include "src/base/bytes.h"
#include "src/base/half.h"
#include "src/base/mem.h"

/* No side of a matrix is longer, so that no size below can overflow 64 bits
 * and no count rounded up to a block can overflow 32 (GLM-130B's longest side
 * is its vocabulary, 150528). */
#define MAX_SIDE (1u << 28)

const char *sl_fmt_name(enum sl_fmt fmt)
{
    static const char *const names[SL_FMT_COUNT] = {
        [SL_FMT_F32] = "f32",
        [SL_FMT_F16] = "f16",
        [SL_FMT_INT8] = "int8",
        [SL_FMT_INT4] = "int4",
    };

    return names[fmt];
}

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
    if (sl_fmt_packed(m->fmt) ? m->group_cols == 0 || m->group_cols > MAX_SIDE
                              : m->group_cols != 0)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "%u columns a scale in a matrix of format %s",
                       m->group_cols, sl_fmt_name(m->fmt));
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
    if (!sl_fmt_packed(m->fmt))
        return 0;
    return (uint32_t)sl_div_up(m->cols, m->group_cols);
}

/* Of a row of a float matrix, of a whole block of a packed one. */
static uint64_t unit_bytes(const struct sl_matrix *m)
{
    uint64_t padded = sl_round_up(m->cols, 8);

    switch (m->fmt) {
    case SL_FMT_F32:
        return (uint64_t)m->cols * 4;
    case SL_FMT_F16:
        return (uint64_t)m->cols * 2;
    case SL_FMT_INT8:
        return padded * SL_BLOCK_ROWS;
    default:
        return padded * SL_BLOCK_ROWS / 2;
    }
}

/* Bytes of a segment before its block `block` (its end, if it has no such
 * block). */
static uint64_t bytes_before(const struct sl_matrix *m, uint32_t block)
{
    uint64_t row = (uint64_t)block * SL_BLOCK_ROWS;
    uint32_t n_rows = sl_matrix_segment_rows(m);

    if (sl_fmt_packed(m->fmt))
        return block * unit_bytes(m);
    return (row < n_rows ? row : n_rows) * unit_bytes(m);
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
    const uint8_t *row = (const uint8_t *)w;

    if (!sl_fmt_packed(m->fmt)) {
        row += row_in_block * unit_bytes(m);
        if (m->fmt == SL_FMT_F32) {
            memcpy(out, row, unit_bytes(m));
            return;
        }
        for (uint32_t c = 0; c < m->cols; c++)
            out[c] = sl_half_to_float(sl_load_u16(row + (size_t)c * 2));
        return;
    }
    row += (size_t)row_in_block * 4;
    for (uint32_t c = 0; c < m->cols; c++) {
        size_t group = c / m->group_cols;
        float s = sl_half_to_float(scale[group * SL_BLOCK_ROWS + row_in_block]);
        int q;

        if (m->fmt == SL_FMT_INT8)
            q = row[(size_t)(c / 4) * 64 + c % 4] - 128;
        else
            q = (row[(size_t)(c / 8) * 64 + c % 4] >> (c % 8 & 4) & 15) - 8;
        out[c] = (float)q * s;
    }
}
