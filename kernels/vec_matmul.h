/*
 * vec_matmul.h - matrix products by FP32 and by rounded inputs over any
 * vec_<isa>.h
 *
 * A product of row and position is always summed the same way: in the lanes
 * (floats: columns c, c + W, ...; packed: by group), in the order of the
 * columns. Rows and positions are taken several at a time only to use what
 * was loaded more than once.
 */
#ifndef SL_KERNELS_VEC_MATMUL_H
#define SL_KERNELS_VEC_MATMUL_H

#include "kernels/isa.h"
#include "kernels/kernels.h"
#include "kernels/vec_packed.h"
#include "kernels/vec_panel_f32.h"

/* Rows that are read in turn for one position. */
#define FLOAT_PLACES 4

/* Rows of numbers: how they are stored, and whether they are rounded. */
enum float_kind { FROM_F32, FROM_HALF, FROM_BF16, TO_BF16 = 4 };

INLINE size_t float_bytes(const int kind)
{
    return kind % TO_BF16 == FROM_F32 ? 4 : 2;
}

INLINE vf float_load(const uint8_t *w, size_t c, const int kind)
{
    const void *at = w + c * float_bytes(kind);
    vf v = kind % TO_BF16 == FROM_HALF   ? vf_load_half(at)
           : kind % TO_BF16 == FROM_BF16 ? vf_load_bf16(at)
                                         : vf_load((const float *)at);

    return kind & TO_BF16 ? vf_round_bf16(v) : v;
}

INLINE vf float_load_n(const uint8_t *w, size_t c, size_t n, const int kind)
{
    const void *at = w + c * float_bytes(kind);
    vf v = kind % TO_BF16 == FROM_HALF   ? vf_load_half_n(at, n)
           : kind % TO_BF16 == FROM_BF16 ? vf_load_bf16_n(at, n)
                                         : vf_load_n((const float *)at, n);

    return kind & TO_BF16 ? vf_round_bf16(v) : v;
}

/* acc += columns [c, end) of some rows, whole vectors. */
INLINE void float_cols(vf acc[][FLOAT_TILE], const uint8_t *w, size_t row_bytes,
                       const int n_rows, const float *x, size_t x_stride,
                       const int n, size_t c, size_t end, const int kind)
{
    for (; c < end; c += W) {
        vf v[FLOAT_TILE];

#pragma GCC unroll 4
        for (int p = 0; p < n; p++)
            v[p] = vf_load(x + (size_t)p * x_stride + c);
#pragma GCC unroll 4
        for (int r = 0; r < n_rows; r++) {
            vf u = float_load(w + (size_t)r * row_bytes, c, kind);

#pragma GCC unroll 4
            for (int p = 0; p < n; p++)
                acc[r][p] = vf_fma(u, v[p], acc[r][p]);
        }
    }
}

/* n_rows x n products of dense rows. ahead: how far they are asked for, line
 * by line in turn; 0: they are near. */
INLINE void float_tile(float *y, size_t y_stride, const uint8_t *w,
                       size_t row_bytes, const int n_rows, const float *x,
                       size_t x_stride, const int n, size_t cols, size_t ahead,
                       const int kind)
{
    const size_t line = UNIT_BYTES / float_bytes(kind);
    size_t full = cols - cols % W, rest = cols % W, c = 0;
    vf acc[FLOAT_PLACES][FLOAT_TILE];

#pragma GCC unroll 4
    for (int r = 0; r < n_rows; r++)
#pragma GCC unroll 4
        for (int p = 0; p < n; p++)
            acc[r][p] = vf_set(0);
    for (; ahead > 0 && full - c >= line; c += line) {
        const char *at = (const char *)w + c * float_bytes(kind) + ahead;

        /* At a row's end, of the one that takes its place. */
        if (c * float_bytes(kind) + ahead >= row_bytes)
            at += (size_t)(n_rows - 1) * row_bytes;
#pragma GCC unroll 4
        for (int r = 0; r < n_rows; r++)
            _mm_prefetch(at + (size_t)r * row_bytes, _MM_HINT_T0);
        float_cols(acc, w, row_bytes, n_rows, x, x_stride, n, c, c + line,
                   kind);
    }
    float_cols(acc, w, row_bytes, n_rows, x, x_stride, n, c, full, kind);
    if (rest != 0) {
#pragma GCC unroll 4
        for (int r = 0; r < n_rows; r++) {
            vf u = float_load_n(w + (size_t)r * row_bytes, full, rest, kind);

#pragma GCC unroll 4
            for (int p = 0; p < n; p++)
                acc[r][p] =
                    vf_fma(u, vf_load_n(x + (size_t)p * x_stride + full, rest),
                           acc[r][p]);
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < n_rows; r++)
#pragma GCC unroll 4
        for (int p = 0; p < n; p++)
            y[(size_t)p * y_stride + r] = vf_sum(acc[r][p]);
}

INLINE void matmul_float(float *y, size_t y_stride, const struct sl_matrix *m,
                         const uint8_t *w, uint32_t n_rows,
                         const struct sl_acts *a, const int kind)
{
    size_t row_bytes = m->cols * float_bytes(kind);

    /* A block of rows at a time, so that its weights stay near while the
     * positions pass. */
    for (uint32_t first = 0; first < n_rows; first += SL_BLOCK_ROWS) {
        uint32_t end =
            n_rows - first < SL_BLOCK_ROWS ? n_rows : first + SL_BLOCK_ROWS;

        for (size_t p = 0; p < a->n;) {
            bool tile = a->n - p >= FLOAT_TILE;
            const uint32_t most = tile ? FLOAT_ROWS : FLOAT_PLACES;
            const float *x = a->x + p * a->x_stride;
            size_t ahead = p == 0 ? reading_of(a)->ahead : 0;

            for (uint32_t r = first; r < end;) {
                bool rows = end - r >= most;
                const uint8_t *wr = w + r * row_bytes;
                float *yr = y + p * y_stride + r;

                if (rows && tile)
                    float_tile(yr, y_stride, wr, row_bytes, FLOAT_ROWS, x,
                               a->x_stride, FLOAT_TILE, m->cols, ahead, kind);
                else if (rows)
                    float_tile(yr, y_stride, wr, row_bytes, FLOAT_PLACES, x,
                               a->x_stride, 1, m->cols, ahead, kind);
                else if (tile)
                    float_tile(yr, y_stride, wr, row_bytes, 1, x, a->x_stride,
                               FLOAT_TILE, m->cols, ahead, kind);
                else
                    float_tile(yr, y_stride, wr, row_bytes, 1, x, a->x_stride,
                               1, m->cols, ahead, kind);
                r += rows ? most : 1;
            }
            p += tile ? FLOAT_TILE : 1;
        }
    }
}

static void ISA(matmul_f32)(float *y, size_t y_stride,
                            const struct sl_matrix *m, const void *w,
                            const uint16_t *scale, uint32_t n_rows,
                            const struct sl_acts *acts)
{
    matmul_float(y, y_stride, m, w, n_rows, acts, FROM_F32);
}

static void ISA(matmul_f16)(float *y, size_t y_stride,
                            const struct sl_matrix *m, const void *w,
                            const uint16_t *scale, uint32_t n_rows,
                            const struct sl_acts *acts)
{
    matmul_float(y, y_stride, m, w, n_rows, acts, FROM_HALF);
}

static void ISA(matmul_bf16)(float *y, size_t y_stride,
                             const struct sl_matrix *m, const void *w,
                             const uint16_t *scale, uint32_t n_rows,
                             const struct sl_acts *acts)
{
    matmul_float(y, y_stride, m, w, n_rows, acts, FROM_BF16);
}

static void ISA(matmul_f32_bf16)(float *y, size_t y_stride,
                                 const struct sl_matrix *m, const void *w,
                                 const uint16_t *scale, uint32_t n_rows,
                                 const struct sl_acts *acts)
{
    struct sl_acts a = sl_acts_rounded(acts);

    matmul_float(y, y_stride, m, w, n_rows, &a, FROM_F32 | TO_BF16);
}

static void ISA(matmul_f16_bf16)(float *y, size_t y_stride,
                                 const struct sl_matrix *m, const void *w,
                                 const uint16_t *scale, uint32_t n_rows,
                                 const struct sl_acts *acts)
{
    struct sl_acts a = sl_acts_rounded(acts);

    matmul_float(y, y_stride, m, w, n_rows, &a, FROM_HALF | TO_BF16);
}

static void ISA(matmul_bf16_bf16)(float *y, size_t y_stride,
                                  const struct sl_matrix *m, const void *w,
                                  const uint16_t *scale, uint32_t n_rows,
                                  const struct sl_acts *acts)
{
    struct sl_acts a = sl_acts_rounded(acts);

    matmul_float(y, y_stride, m, w, n_rows, &a, FROM_BF16);
}

/* acc[p][i] += columns i and, in INT4, i + 4 of one unit. */
INLINE void unit_f32(vf acc[][4], const uint8_t *w, const float *x,
                     size_t x_stride, const int n, const bool int4)
{
    vi v = vi_load_bytes(w);

#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        vf u = int4 ? vf_nibble(v, 8 * i) : vf_byte(v, i);

#pragma GCC unroll 4
        for (int p = 0; p < n; p++)
            acc[p][i] =
                vf_fma(u, vf_set(x[(size_t)p * x_stride + i]), acc[p][i]);
    }
    if (!int4)
        return;
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        vf u = vf_nibble(v, 8 * i + 4);

#pragma GCC unroll 4
        for (int p = 0; p < n; p++)
            acc[p][i] =
                vf_fma(u, vf_set(x[(size_t)p * x_stride + 4 + i]), acc[p][i]);
    }
}

/* The same of `parts` vectors of rows. */
INLINE void parts_f32(vf acc[][PACKED_TILE][4], const uint8_t *w,
                      const float *x, size_t x_stride, const int n,
                      const int parts, const bool int4)
{
#pragma GCC unroll 2
    for (int h = 0; h < parts; h++)
        unit_f32(acc[h], w + h * PART_BYTES, x, x_stride, n, int4);
}

/* A unit of which only columns [from, to) belong to the group: the others
 * count as zero and their inputs are not read. */
INLINE void parts_f32_cut(vf acc[][PACKED_TILE][4], const uint8_t *w,
                          const float *x, size_t x_stride, uint32_t from,
                          uint32_t to, const int n, const int parts,
                          const bool int4)
{
    float cut[PACKED_TILE * 8] = {0};

    for (int p = 0; p < n; p++)
        for (uint32_t i = from; i < to; i++)
            cut[p * 8 + (int)i] = x[(size_t)p * x_stride + i];
    parts_f32(acc, w, cut, 8, n, parts, int4);
}

/* Columns [c, end), a group: acc += their products. */
INLINE void group_cols_f32(vf acc[][PACKED_TILE][4], const uint8_t *block,
                           const float *x, size_t x_stride, uint32_t c,
                           uint32_t end, const int n, const int parts,
                           const bool int4)
{
    const uint32_t unit = int4 ? 8 : 4;

    while (c < end) {
        uint32_t from = c % unit;
        const uint8_t *w = block + (size_t)(c / unit) * UNIT_BYTES;
        uint32_t to = end - c < unit - from ? from + end - c : unit;

        if (to - from < unit) {
            parts_f32_cut(acc, w, x + (c - from), x_stride, from, to, n, parts,
                          int4);
            c += to - from;
            continue;
        }
        for (; end - c >= unit; c += unit, w += UNIT_BYTES) {
            if (n == 1)
                _mm_prefetch((const char *)w + AHEAD, _MM_HINT_T0);
            parts_f32(acc, w, x + c, x_stride, n, parts, int4);
        }
    }
}

/* `parts` vectors of rows from the h0-th on. */
INLINE void packed_f32(const struct packed *k, const struct sl_acts *a,
                       size_t p0, const int n, int h0, const int parts,
                       const bool int4)
{
    const float *x = a->x + p0 * a->x_stride;
    const uint8_t *w = k->w + h0 * PART_BYTES;
    const uint16_t *scale = k->scale + h0 * W;
    uint32_t cols = k->m->cols, width = k->m->group_cols;
    vf total[PARTS][PACKED_TILE];

#pragma GCC unroll 2
    for (int h = 0; h < parts; h++)
#pragma GCC unroll 4
        for (int p = 0; p < n; p++)
            total[h][p] = vf_set(0);
    for (uint32_t c = 0, end; c < cols; c = end, scale += SL_BLOCK_ROWS) {
        vf acc[PARTS][PACKED_TILE][4];

        end = cols - c < width ? cols : c + width;
#pragma GCC unroll 2
        for (int h = 0; h < parts; h++)
#pragma GCC unroll 4
            for (int p = 0; p < n; p++)
#pragma GCC unroll 4
                for (int i = 0; i < 4; i++)
                    acc[h][p][i] = vf_set(0);
        group_cols_f32(acc, w, x, a->x_stride, c, end, n, parts, int4);
#pragma GCC unroll 2
        for (int h = 0; h < parts; h++) {
            vf s = vf_load_half(scale + h * W);

#pragma GCC unroll 4
            for (int p = 0; p < n; p++)
                total[h][p] = vf_fma(vf_add(vf_add(acc[h][p][0], acc[h][p][1]),
                                            vf_add(acc[h][p][2], acc[h][p][3])),
                                     s, total[h][p]);
        }
    }
#pragma GCC unroll 2
    for (int h = 0; h < parts; h++)
#pragma GCC unroll 4
        for (int p = 0; p < n; p++)
            packed_store(k, p0 + (size_t)p, h0 + h, total[h][p]);
}

INLINE void matmul_packed_f32(float *y, size_t y_stride,
                              const struct sl_matrix *m, const uint8_t *w,
                              const uint16_t *scale, uint32_t n_rows,
                              const struct sl_acts *a, const bool int4)
{
    if (a->n >= PANEL_F32_LEAST && panel_takes_f32(m)) {
        matmul_panel_f32(y, y_stride, m, w, scale, n_rows, a, int4);
        return;
    }
    for (uint32_t row = 0; row < n_rows; row += SL_BLOCK_ROWS) {
        struct packed k =
            packed_block(y, y_stride, m, w, scale, n_rows, row, int4);
        size_t p = 0;

        for (; a->n - p >= PACKED_TILE; p += PACKED_TILE)
            for (int h = 0; h < PARTS; h++)
                packed_f32(&k, a, p, PACKED_TILE, h, 1, int4);
        for (; p < a->n; p++)
            packed_f32(&k, a, p, 1, 0, PARTS, int4);
    }
}

static void ISA(matmul_int8_f32)(float *y, size_t y_stride,
                                 const struct sl_matrix *m, const void *w,
                                 const uint16_t *scale, uint32_t n_rows,
                                 const struct sl_acts *acts)
{
    matmul_packed_f32(y, y_stride, m, w, scale, n_rows, acts, false);
}

static void ISA(matmul_int4_f32)(float *y, size_t y_stride,
                                 const struct sl_matrix *m, const void *w,
                                 const uint16_t *scale, uint32_t n_rows,
                                 const struct sl_acts *acts)
{
    matmul_packed_f32(y, y_stride, m, w, scale, n_rows, acts, true);
}

/* Packed weights are exact in BF16. */
static void ISA(matmul_int8_bf16)(float *y, size_t y_stride,
                                  const struct sl_matrix *m, const void *w,
                                  const uint16_t *scale, uint32_t n_rows,
                                  const struct sl_acts *acts)
{
    struct sl_acts a = sl_acts_rounded(acts);

    matmul_packed_f32(y, y_stride, m, w, scale, n_rows, &a, false);
}

static void ISA(matmul_int4_bf16)(float *y, size_t y_stride,
                                  const struct sl_matrix *m, const void *w,
                                  const uint16_t *scale, uint32_t n_rows,
                                  const struct sl_acts *acts)
{
    struct sl_acts a = sl_acts_rounded(acts);

    matmul_packed_f32(y, y_stride, m, w, scale, n_rows, &a, true);
}

static void ISA(round_bf16)(void *to, const float *x, uint32_t cols)
{
    float *y = to;

    for (uint32_t i = 0; i < cols; i += W)
        vf_store(y + i, vf_round_bf16(vf_load(x + i)));
}

#endif
