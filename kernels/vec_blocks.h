/*
 * vec_blocks.h - products of ggml's blocks over any vec_<isa>.h
 *
 * Sixteen rows lie side by side (quant/blocks.h), so that a register holds four
 * columns' codes, or one scale, of W rows, and sums stay in their lanes. All
 * formats are one kernel: what a format is stands in a line of constants
 * (quant/block_shape.h), and the compiler makes thirteen of it.
 *
 * By INT8 inputs a run of columns with one scale is summed exactly, in
 * integers, and
 *     total += (sum of code * q - offset * (sum of q)) * scale * q_scale
 * run after run, then the minima by the sums of the inputs. By FP32 inputs
 * every weight is decoded exactly first.
 */
#ifndef SL_KERNELS_VEC_BLOCKS_H
#define SL_KERNELS_VEC_BLOCKS_H

#include "kernels/isa.h"
#include "kernels/kernels.h"
#include "kernels/vec_packed.h"
#include "quant/block_shape.h"

#define BLOCK_RUNS 16 /* scales in a block, at most */
#define QUADS      8  /* of columns in a group of 32 */
/* of W rows, that take turns, at most */
#define ROW_TILES  ((int)SL_PLACES_MOST * PARTS)
#define GROUP_COLS SL_Q8_GROUP

struct shape {
    uint32_t cols, share, run, q_bits;
    int q_off, codes;
    uint32_t sub_bits;
    int sub_off, mins;
};

static const struct shape shapes[SL_FMT_COUNT] = {
#define SHAPE(NAME, name, type, cols, bytes, share, run, q_bits, q_off, codes, \
              sub_bits, sub_off, mins)                                         \
    [SL_FMT_##NAME] = {cols,  share,    run,     q_bits, q_off,                \
                       codes, sub_bits, sub_off, mins},
    SL_BLOCK_SHAPES(SHAPE)
#undef SHAPE
};

/* Runs of a block, and words of its sub codes. */
INLINE int n_runs(const struct shape *s)
{
    return (int)(s->cols / s->run);
}

INLINE size_t sub_words(const struct shape *s)
{
    size_t n = (size_t)n_runs(s) * (s->mins == SL_MINS_CODES ? 2 : 1);

    return s->sub_bits == 8   ? n / 4
           : s->sub_bits == 6 ? n / 8 + n / 16
           : s->sub_bits == 4 ? n / 8
                              : 0;
}

INLINE size_t group_bytes(const struct shape *s)
{
    return (size_t)s->q_bits * UNIT_BYTES;
}

/* Bytes of a block of rows that `cols` columns take. */
INLINE size_t blocks_bytes(const struct shape *s, size_t cols)
{
    size_t n = cols / s->cols;
    size_t words = sub_words(s) + s->cols / GROUP_COLS * s->q_bits;

    return (n * words + (n + s->share - 1) / s->share) * UNIT_BYTES;
}

/* --- scales --------------------------------------------------------------- */

/* d of the b-th block of a tile. */
INLINE vf head_d(vi head, uint32_t b, const struct shape *s)
{
    if (s->share == 1)
        return vf_low_half(head);
    if (s->share == 2)
        return vf_low_half(vi_right(head, b % 2 * 16));
    /* 2^(e - 128); the two least are subnormal */
    head = vi_and(vi_right(head, b % 4 * 8), vi_set(255));
    return vi_as_floats(
        vi_max(vi_left(vi_sub(head, vi_set(1)), 23),
               vi_left(vi_add(vi_min(head, vi_set(1)), vi_set(1)), 21)));
}

/* Sub code i of a block, whose sub words begin at w. */
INLINE vi sub_code(const uint8_t *w, vi head, int i, const struct shape *s)
{
    const int n = n_runs(s) * (s->mins == SL_MINS_CODES ? 2 : 1);
    const unsigned nibble = (unsigned)(i % 4 * 8 + i / 4 % 2 * 4);
    const unsigned pair = (unsigned)(i % 4 * 8 + i / 4 * 2);
    vi v = vi_right(vi_load_bytes(w + i / 8 * UNIT_BYTES), nibble), high;

    v = vi_and(v, vi_set(15));
    if (s->sub_bits == 4)
        return v;
    if (n == 8) { /* in the head's high half */
        high = vi_right(head, (unsigned)(16 + 2 * i - 4));
    } else {
        high = vi_load_bytes(w + n / 8 * UNIT_BYTES);
        high = pair < 4 ? vi_left(high, 4 - pair) : vi_right(high, pair - 4);
    }
    return vi_or(v, vi_and(high, vi_set(0x30)));
}

/* The scale of a block's i-th run, of W rows; w: its sub words, d: head_d. */
INLINE vf run_scale(const uint8_t *w, vi head, vf d, int i,
                    const struct shape *s)
{
    vi c;

    if (s->sub_bits == 0)
        return d;
    if (s->sub_bits == 8)
        return vf_mul(d, vf_byte(vi_load_bytes(w + i / 4 * UNIT_BYTES), i % 4));
    c = sub_code(w, head, i, s);
    if (s->sub_off != 0)
        c = vi_sub(c, vi_set(s->sub_off));
    return vf_mul(d, vi_to_float(c));
}

/* What a block's minima are multiples of. */
INLINE vf head_min(vi head, const struct shape *s)
{
    vf m = vf_set(0);

    if (s->mins != SL_MINS_NONE)
        m = vf_low_half(vi_right(head, 16));
    return s->mins == SL_MINS_CODES ? vf_sub(vf_set(0), m) : m;
}

/* What is added to every weight of the i-th run; m: head_min. */
INLINE vf run_min(const uint8_t *w, vi head, vf m, int i, const struct shape *s)
{
    if (s->mins != SL_MINS_CODES)
        return m;
    return vf_mul(m, vi_to_float(sub_code(w, head, n_runs(s) + i, s)));
}

/* The scales of a block's runs, and what is added for its minima, of W rows;
 * w: its sub words. */
INLINE void make_scales(vf *scale, vf *min, const uint8_t *w, vi head,
                        uint32_t b, const struct shape *s)
{
    vf d = head_d(head, b, s), m = head_min(head, s);

#pragma GCC unroll 16
    for (int i = 0; i < n_runs(s); i++) {
        scale[i] = run_scale(w, head, d, i, s);
        if (s->mins == SL_MINS_CODES)
            min[i] = run_min(w, head, m, i, s);
    }
}

/* The same as a function of a format with sub codes: one for all kernels. */
typedef void scales_fn(vf *scale, vf *min, const uint8_t *w, vi head,
                       uint32_t b);

#define SCALES(NAME, name, ...)                                                \
    static __attribute__((noinline, unused)) void ISA(scales_##name)(          \
        vf * scale, vf * min, const uint8_t *w, vi head, uint32_t b)           \
    {                                                                          \
        make_scales(scale, min, w, head, b, &shapes[SL_FMT_##NAME]);           \
    }
SL_BLOCK_SHAPES(SCALES)
#undef SCALES

/* What a kernel knows of its format. */
struct blocks {
    const struct shape *s;
    scales_fn *scales;
};

INLINE void block_scales(vf *scale, vf *min, const uint8_t *w, vi head,
                         uint32_t b, const struct blocks *f)
{
    if (f->s->sub_bits > 0) {
        f->scales(scale, min, w, head, b);
        return;
    }
    scale[0] = head_d(head, b, f->s);
    min[0] = head_min(head, f->s);
}

/* --- codes ---------------------------------------------------------------- */

/* Bits [from, from + n) of every byte, moved to bit `to`. */
INLINE vi byte_bits(vi v, unsigned from, unsigned n, unsigned to)
{
    v = from > to ? vi_right(v, from - to) : vi_left(v, to - from);
    return vi_and(v, vi_set((int32_t)((((1u << n) - 1) << to) * 0x01010101u)));
}

/* The j-th four columns' codes of a group, one a byte. */
INLINE vi quad_codes(const uint8_t *w, unsigned j, const struct shape *s)
{
    unsigned two = j % 4 * 2;
    vi v;

    if (s->q_bits == 8)
        return vi_load_bytes(w + (size_t)j * UNIT_BYTES);
    if (s->q_bits < 4) {
        v = byte_bits(vi_load_bytes(w + (size_t)(j / 4) * UNIT_BYTES), two, 2,
                      0);
        if (s->q_bits == 3)
            v = vi_or(v, byte_bits(vi_load_bytes(w + 2 * UNIT_BYTES), j, 1, 2));
        return v;
    }
    v = byte_bits(vi_load_bytes(w + (size_t)(j / 2) * UNIT_BYTES), j % 2 * 4, 4,
                  0);
    w += 4 * UNIT_BYTES;
    if (s->q_bits == 5)
        v = vi_or(v, byte_bits(vi_load_bytes(w), j, 1, 4));
    if (s->q_bits == 6)
        v = vi_or(v, byte_bits(vi_load_bytes(w + (size_t)(j / 4) * UNIT_BYTES),
                               two, 2, 4));
    return v;
}

/* Their values, as signed bytes. */
INLINE vi quad_values(const uint8_t *w, unsigned j, const struct shape *s)
{
    vi v = quad_codes(w, j, s);

    if (s->codes == SL_CODES_IQ4)
        return vi_look_up(v, _mm_setr_epi8(SL_IQ4_VALUES));
    if (s->codes == SL_CODES_E2M1)
        return vi_look_up(v, _mm_setr_epi8(SL_E2M1_VALUES));
    return s->q_off != 0 ? vi_sub_bytes(v, s->q_off) : v;
}

/* What the instruction set multiplies: quad_operand, values + dot_offset in
 * bytes, and dot_quad. */
#include BLOCKS_DOT_H

/* --- FP32 inputs ---------------------------------------------------------- */

/* acc[p][i] += columns i, i + 4, ... of a group. */
INLINE void group_f32(vf acc[][4], const uint8_t *w, const vf *scale,
                      const vf *min, const float *x, size_t x_stride,
                      const int n, const struct shape *s)
{
#pragma GCC unroll 8
    for (unsigned j = 0; j < QUADS; j++) {
        vi v = quad_values(w, j, s);
        int run = (int)(j * 4 / s->run);

#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            vf u = vf_signed_byte(v, i);

            u = s->mins == SL_MINS_NONE ? vf_mul(u, scale[run])
                                        : vf_fma(u, scale[run], min[run]);
#pragma GCC unroll 4
            for (int p = 0; p < n; p++)
                acc[p][i] = vf_fma(
                    u, vf_set(x[(size_t)p * x_stride + j * 4 + (unsigned)i]),
                    acc[p][i]);
        }
    }
}

/* Asks for what is used a while after w. */
INLINE void fetch_ahead(const uint8_t *w, size_t bytes)
{
#pragma GCC unroll 8
    for (size_t i = 0; i < bytes; i += UNIT_BYTES)
        _mm_prefetch((const char *)w + i, _MM_HINT_T0);
}

INLINE void blocks_f32(const struct packed *k, const struct sl_acts *a,
                       size_t p0, const int n, const struct blocks *f)
{
    const struct shape *s = f->s;
    const float *x = a->x + p0 * a->x_stride;
    const uint8_t *w = k->w;
    uint32_t n_blocks = k->m->cols / s->cols;
    vf acc[PACKED_TILE][4], scale[BLOCK_RUNS], min[BLOCK_RUNS];
    vi head = vi_set(0);

#pragma GCC unroll 4
    for (int p = 0; p < n; p++)
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++)
            acc[p][i] = vf_set(0);
    for (uint32_t b = 0; b < n_blocks; b++) {
        if (b % s->share == 0) {
            head = vi_load_bytes(w);
            w += UNIT_BYTES;
        }
        block_scales(scale, min, w, head, b, f);
        w += sub_words(s) * UNIT_BYTES;
        for (uint32_t c = 0; c < s->cols; c += GROUP_COLS) {
            if (n == 1)
                fetch_ahead(w + AHEAD, group_bytes(s));
            group_f32(acc, w, scale + c / s->run, min + c / s->run, x,
                      a->x_stride, n, s);
            w += group_bytes(s);
            x += GROUP_COLS;
        }
    }
#pragma GCC unroll 4
    for (int p = 0; p < n; p++)
        packed_store(
            k, p0 + (size_t)p, 0,
            vf_add(vf_add(acc[p][0], acc[p][1]), vf_add(acc[p][2], acc[p][3])));
}

/* --- INT8 inputs ---------------------------------------------------------- */

/* One run: its exact sums, scaled and added; the minima after. sum: of the
 * run's inputs. */
INLINE void run_q8(vf *total, const uint8_t *w, unsigned j, vf scale, vf min,
                   const int8_t *q, const struct sl_acts *a,
                   const float *q_scale, const int32_t *q_sum, const int n,
                   const struct shape *s)
{
    const int offset = dot_offset(s);
    int32_t sum[BLOCKS_TILE];
    vi acc[BLOCKS_TILE], part[BLOCKS_TILE];

#pragma GCC unroll 4
    for (int p = 0; p < n; p++) {
        sum[p] = q_sum[p];
        if (s->run == GROUP_COLS)
            sum[p] += q_sum[(size_t)p + a->group_stride];
        acc[p] = vi_set(-offset * sum[p]);
    }
#pragma GCC unroll 8
    for (unsigned u = 0; u < s->run / 4; u++)
        dot_quad(acc, part, quad_operand(w, j + u, s), q + 4 * (j + u),
                 a->q_stride, n, u, s);
#pragma GCC unroll 4
    for (int p = 0; p < n; p++) {
        total[p] = vf_fma(vf_mul(vi_to_float(acc[p]), scale),
                          vf_set(q_scale[p]), total[p]);
        if (s->mins != SL_MINS_NONE)
            total[p] =
                vf_fma(min, vf_set((float)sum[p] * q_scale[p]), total[p]);
    }
}

#include "kernels/vec_blocks_few.h"
#include "kernels/vec_blocks_panel.h"

/* --- tiles ---------------------------------------------------------------- */

/* All positions for some tiles of W rows, by INT8 inputs in tiles of about the
 * same size. */
INLINE void blocks_rows(const struct packed *k, const int tiles,
                        const struct sl_acts *a, const bool q8,
                        const struct blocks *f)
{
    size_t p = 0, left = q8 ? (a->n + BLOCKS_TILE - 1) / BLOCKS_TILE : 0;

    for (; left > 0; left--) {
        size_t n = (a->n - p + left - 1) / left;

        if (n == 1)
            blocks_few(k, tiles, a, p, 1, f);
        else if (n == 2)
            blocks_few(k, tiles, a, p, 2, f);
        else if (n == 3)
            blocks_few(k, tiles, a, p, 3, f);
        else
            blocks_few(k, tiles, a, p, BLOCKS_TILE, f);
        p += n;
    }
    for (int t = 0; t < tiles && !q8; t++) {
        for (p = 0; a->n - p >= PACKED_TILE; p += PACKED_TILE)
            blocks_f32(k + t, a, p, PACKED_TILE, f);
        for (; p < a->n; p++)
            blocks_f32(k + t, a, p, 1, f);
    }
}

INLINE void matmul_blocks(float *y, size_t y_stride, const struct sl_matrix *m,
                          const uint8_t *w, uint32_t n_rows,
                          const struct sl_acts *a, const bool q8,
                          const struct blocks *f)
{
    const struct shape *s = f->s;
    size_t bytes = blocks_bytes(s, m->cols);
    const int most = (int)reading_of(a)->places * PARTS;

    if (q8 && a->n >= BLOCKS_LEAST) {
        blocks_panel(y, y_stride, m, w, n_rows, a, f);
        return;
    }
    for (uint32_t row = 0; row < n_rows;) {
        struct packed k[ROW_TILES];
        int tiles = 0;

        for (; tiles < most && row < n_rows; row += W)
            k[tiles++] = (struct packed){
                .m = m,
                .w =
                    w + row / SL_BLOCK_ROWS * bytes + 4 * (row % SL_BLOCK_ROWS),
                .y = y + row,
                .y_stride = y_stride,
                .n_rows = n_rows - row,
            };
        blocks_rows(k, tiles, a, q8, f);
    }
}

#define BLOCKS_Q8(NAME, name, ...)                                             \
    static const struct blocks ISA(blocks_##name) = {                          \
        &shapes[SL_FMT_##NAME],                                                \
        ISA(scales_##name),                                                    \
    };                                                                         \
    static void ISA(matmul_##name##_q8)(                                       \
        float *y, size_t y_stride, const struct sl_matrix *m, const void *w,   \
        const uint16_t *scale, uint32_t n_rows, const struct sl_acts *acts)    \
    {                                                                          \
        matmul_blocks(y, y_stride, m, w, n_rows, acts, true,                   \
                      &ISA(blocks_##name));                                    \
    }
SL_BLOCK_SHAPES(BLOCKS_Q8)
#undef BLOCKS_Q8

INLINE void blocks_q8_entries(struct sl_kernels *k)
{
#define BLOCKS_ENTRY(NAME, name, ...)                                          \
    k->matmul[SL_FMT_##NAME][SL_ACT_INT8] = ISA(matmul_##name##_q8);
    SL_BLOCK_SHAPES(BLOCKS_ENTRY)
#undef BLOCKS_ENTRY
}

#endif
