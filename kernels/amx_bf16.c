/*
 * Any weights by BF16 inputs in the tile registers of AMX.
 *
 * A tile product is 16 positions by 16 rows by 32 columns; the columns that
 * share a scale are summed in the tile, in FP32. Every number of positions
 * goes this way, so that sums do not depend on it. Weights become BF16 some
 * columns at a time, which packed ones are exactly, and lie as TDPBF16PS wants
 * its second operand: 16 rows of a pair of columns side by side. (Intel SDM
 * volume 1, chapter 18.)
 *
 * Nibbles and bytes come in pairs two columns apart, so that is the order of
 * all: of every four columns 0, 2, 1, 3.
 */
#include "config.h"

#include "kernels/amx.h"
#include "kernels/isa.h"
#include "kernels/vec_avx512.h"
#include "quant/matrix.h"

#define COLS 256u /* unpacked at a time */
#define STEP 32u  /* columns of a tile product */
#define TILE 16u  /* positions, and rows of a block */
/* Sums side by side: a product takes as long as four to begin. */
#define SUMS  4u
#define UNITS (2 * SUMS) /* pairs of a block and a tile of positions */
/* Tile registers beside the sums, 0 to 3. */
#define INPUT  4
#define WEIGHT 5

struct unit {
    const uint8_t *x; /* its first position's inputs */
    const uint16_t *w;
    const uint16_t *scale; /* its block's, or NULL: floats */
};

struct work {
    _Alignas(64) uint16_t w[SUMS][COLS * TILE];
    /* Of the columns that share a scale; of all before. */
    _Alignas(64) float part[UNITS][TILE * TILE], total[UNITS][TILE * TILE];
    struct unit units[UNITS];
    uint32_t n_units;
    uint32_t rows; /* positions of a tile */
    size_t x_stride;
};

static void use_tiles(uint32_t positions)
{
    struct amx_config c = {.palette = 1};

    for (int i = 0; i <= WEIGHT; i++) {
        c.row_bytes[i] = 64;
        c.rows[i] = i == WEIGHT ? TILE : (uint8_t)positions;
    }
    _tile_loadconfig(&c);
}

/* --- weights -------------------------------------------------------------- */

/* 16 columns of two rows' worth: (16 rows) of 16 pairs to (16 pairs) of 16
 * rows. */
INLINE void transpose(vi *r)
{
    vi t[16];

#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    /* Now lane l of r[4 i + j] is pair 4 l + j of rows 4 i to 4 i + 3. */
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        vi a = _mm512_shuffle_i32x4(r[j], r[4 + j], 0x88);
        vi b = _mm512_shuffle_i32x4(r[j], r[4 + j], 0xdd);
        vi c = _mm512_shuffle_i32x4(r[8 + j], r[12 + j], 0x88);
        vi d = _mm512_shuffle_i32x4(r[8 + j], r[12 + j], 0xdd);

        t[j] = _mm512_shuffle_i32x4(a, c, 0x88);
        t[4 + j] = _mm512_shuffle_i32x4(b, d, 0x88);
        t[8 + j] = _mm512_shuffle_i32x4(a, c, 0xdd);
        t[12 + j] = _mm512_shuffle_i32x4(b, d, 0xdd);
    }
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++)
        r[i] = t[i];
}

/* 32 columns of BF16 in the order of pairs. */
INLINE vi order_pairs(vi v)
{
    const vi order = _mm512_setr_epi32(
        0x00020000, 0x00030001, 0x00060004, 0x00070005, 0x000a0008, 0x000b0009,
        0x000e000c, 0x000f000d, 0x00120010, 0x00130011, 0x00160014, 0x00170015,
        0x001a0018, 0x001b0019, 0x001e001c, 0x001f001d);

    return _mm512_permutexvar_epi16(order, v);
}

INLINE vi to_pairs(vf low, vf high)
{
    return order_pairs((vi)_mm512_cvtne2ps_pbh(high, low));
}

/* 32 columns of a row of numbers, as BF16. */
INLINE vi load_pairs(const uint8_t *at, const enum sl_fmt fmt)
{
    if (fmt == SL_FMT_BF16)
        return order_pairs(vi_load_bytes(at));
    if (fmt == SL_FMT_F16)
        return to_pairs(vf_load_half(at), vf_load_half(at + 32));
    return to_pairs(vf_load((const void *)at),
                    vf_load((const void *)(at + 64)));
}

/* Columns [c, c + n) of a block of at most n_rows rows of numbers, the first
 * of which is at w. */
INLINE void unpack_floats(uint16_t *to, const struct sl_matrix *m,
                          const uint8_t *w, uint32_t n_rows, uint32_t c,
                          uint32_t n, const enum sl_fmt fmt)
{
    const size_t size = fmt == SL_FMT_F32 ? 4 : 2, row_bytes = m->cols * size;

    for (uint32_t end = c + n; c < end; c += STEP, to += STEP * TILE) {
        vi r[TILE];

#pragma GCC unroll 16
        for (uint32_t i = 0; i < TILE; i++) {
            const uint8_t *at = w + i * row_bytes + c * size;

            r[i] = i < n_rows ? load_pairs(at, fmt) : vi_set(0);
        }
        transpose(r);
#pragma GCC unroll 16
        for (uint32_t i = 0; i < TILE; i++)
            _mm512_store_si512(to + i * STEP, r[i]);
    }
}

/* Of the five bits that choose, the highest is another nibble's: it may be
 * anything. */
INLINE void unpack_int4(uint16_t *to, const uint8_t *w, uint32_t n)
{
    const __m256i value = _mm256_setr_epi16(
        (short)0xc100, (short)0xc0e0, (short)0xc0c0, (short)0xc0a0,
        (short)0xc080, (short)0xc040, (short)0xc000, (short)0xbf80, 0, 0x3f80,
        0x4000, 0x4040, 0x4080, 0x40a0, 0x40c0, 0x40e0); /* -8 .. 7 */
    const vi table = _mm512_broadcast_i64x4(value);

    for (uint32_t c = 0; c < n; c += 8, w += 64, to += 8 * TILE) {
        vi v = vi_load_bytes(w);

        _mm512_store_si512(to, _mm512_permutexvar_epi16(v, table));
        _mm512_store_si512(
            to + 32, _mm512_permutexvar_epi16(_mm512_srli_epi16(v, 8), table));
        _mm512_store_si512(
            to + 64, _mm512_permutexvar_epi16(_mm512_srli_epi16(v, 4), table));
        _mm512_store_si512(
            to + 96, _mm512_permutexvar_epi16(_mm512_srli_epi16(v, 12), table));
    }
}

/* A small integer's BF16 is the first half of its float. */
INLINE void unpack_int8(uint16_t *to, const uint8_t *w, uint32_t n)
{
    for (uint32_t c = 0; c < n; c += 4, w += 64, to += 4 * TILE) {
        vi v = vi_load_bytes(w);

#pragma GCC unroll 2
        for (int i = 0; i < 2; i++) {
            vi first = _mm512_castps_si512(vf_byte(v, i));
            vi second = _mm512_castps_si512(vf_byte(v, i + 2));

            _mm512_store_si512(
                to + i * 2 * (int)TILE,
                _mm512_or_si512(_mm512_srli_epi32(first, 16), second));
        }
    }
}

/* --- sums ----------------------------------------------------------------- */

#define BEGIN(i)                                                               \
    do {                                                                       \
        if (fresh)                                                             \
            _tile_zero(i);                                                     \
        else                                                                   \
            _tile_loadd(i, k->part[first + (i)], 64);                          \
    } while (0)

#define PRODUCT(i)                                                             \
    do {                                                                       \
        _tile_loadd(INPUT, u[i].x + c * sizeof *u->w, k->x_stride);            \
        _tile_loadd(WEIGHT, u[i].w + (size_t)(c - from) * TILE, 64);           \
        _tile_dpbf16ps(i, INPUT, WEIGHT);                                      \
    } while (0)

/* part of some units += their columns [from, to); fresh: part = these. */
static void add_columns(struct work *k, uint32_t first, uint32_t from,
                        uint32_t to, bool fresh)
{
    const struct unit *u = k->units + first;
    uint32_t n = k->n_units - first;

    BEGIN(0);
    if (n > 1)
        BEGIN(1);
    if (n > 2)
        BEGIN(2);
    if (n > 3)
        BEGIN(3);
    for (size_t c = from; c < to; c += STEP) {
        PRODUCT(0);
        if (n > 1)
            PRODUCT(1);
        if (n > 2)
            PRODUCT(2);
        if (n > 3)
            PRODUCT(3);
    }
    _tile_stored(0, k->part[first], 64);
    if (n > 1)
        _tile_stored(1, k->part[first + 1], 64);
    if (n > 2)
        _tile_stored(2, k->part[first + 2], 64);
    if (n > 3)
        _tile_stored(3, k->part[first + 3], 64);
}

/* total += part by the scales of a group. */
static void add_scaled(struct work *k, uint32_t group)
{
    for (uint32_t i = 0; i < k->n_units; i++) {
        const uint16_t *scale = k->units[i].scale;
        vf s = scale != NULL ? vf_load_half(scale + group * TILE) : vf_set(1);

        for (uint32_t p = 0; p < k->rows * TILE; p += TILE)
            vf_store(k->total[i] + p, vf_fma(vf_load(k->part[i] + p), s,
                                             vf_load(k->total[i] + p)));
    }
}

/* --- products ------------------------------------------------------------- */

/* What one call works on. */
struct call {
    float *y;
    size_t y_stride;
    const struct sl_matrix *m;
    const uint8_t *w;
    const uint16_t *scale;
    uint32_t n_rows;
    const struct sl_acts *a;
};

/* Columns [from, to) of a block to BF16. */
static void unpack(uint16_t *out, const struct call *k, uint32_t block,
                   uint32_t from, uint32_t to)
{
    const struct sl_matrix *m = k->m;
    uint32_t row = block * TILE, left = k->n_rows - row, n = to - from;
    const uint8_t *w = k->w + row * sl_fmt_row_bytes(m->fmt, m->cols);

    switch (m->fmt) {
    case SL_FMT_F32:
        unpack_floats(out, m, w, left, from, n, SL_FMT_F32);
        break;
    case SL_FMT_F16:
        unpack_floats(out, m, w, left, from, n, SL_FMT_F16);
        break;
    case SL_FMT_BF16:
        unpack_floats(out, m, w, left, from, n, SL_FMT_BF16);
        break;
    case SL_FMT_INT8:
        unpack_int8(out, w + (size_t)from * TILE, n);
        break;
    default:
        unpack_int4(out, w + (size_t)from * TILE / 2, n);
        break;
    }
}

/* The units of n_blocks blocks from one on, and n positions from p0 on. */
static void set_units(struct work *k, const struct call *call, uint32_t block,
                      uint32_t n_blocks, size_t p0, uint32_t n_tiles)
{
    const struct sl_matrix *m = call->m;
    bool scales = sl_fmt_has_scales(m->fmt);

    k->n_units = n_blocks * n_tiles;
    for (uint32_t i = 0; i < k->n_units; i++) {
        uint32_t b = i / n_tiles, t = i % n_tiles;

        k->units[i] = (struct unit){
            .x = (const uint8_t *)call->a->bf16 +
                 (p0 + (size_t)t * TILE) * k->x_stride,
            .w = k->w[b],
            .scale = scales ? call->scale + (size_t)(block + b) *
                                                sl_matrix_groups(m) * TILE
                            : NULL,
        };
    }
    memset(k->total, 0, k->n_units * sizeof *k->total);
}

static void store_units(const struct work *k, const struct call *call,
                        uint32_t block, size_t p0, uint32_t n_tiles)
{
    for (uint32_t i = 0; i < k->n_units; i++) {
        uint32_t row = (block + i / n_tiles) * TILE;
        uint32_t left = call->n_rows - row, n = left < TILE ? left : TILE;
        float *y = call->y +
                   (p0 + (size_t)(i % n_tiles) * TILE) * call->y_stride + row;

        for (uint32_t p = 0; p < k->rows; p++)
            vf_store_n(y + p * call->y_stride, vf_load(k->total[i] + p * TILE),
                       n);
    }
}

/* All rows for n_tiles tiles of positions from p0 on: several tiles take a
 * block at a time, one takes several blocks. */
static void run_positions(struct work *k, const struct call *call, size_t p0,
                          uint32_t n_tiles)
{
    const struct sl_matrix *m = call->m;
    uint32_t n_blocks = (call->n_rows + TILE - 1) / TILE;
    uint32_t most = n_tiles > 1 ? 1 : SUMS;
    uint32_t width = sl_fmt_has_scales(m->fmt) && m->group_cols < m->cols
                         ? m->group_cols
                         : m->cols;

    for (uint32_t block = 0; block < n_blocks; block += most) {
        uint32_t n = n_blocks - block < most ? n_blocks - block : most;

        set_units(k, call, block, n, p0, n_tiles);
        for (uint32_t c = 0, to; c < m->cols; c = to) {
            uint32_t end = m->cols - c < width - c % width
                               ? m->cols
                               : c + width - c % width;

            to = end - c < COLS ? end : c + COLS;
            for (uint32_t b = 0; b < n; b++)
                unpack(k->w[b], call, block + b, c, to);
            for (uint32_t i = 0; i < k->n_units; i += SUMS)
                add_columns(k, i, c, to, c % width == 0);
            if (to == end)
                add_scaled(k, c / width);
        }
        store_units(k, call, block, p0, n_tiles);
    }
}

static void matmul_bf16_amx(float *y, size_t y_stride,
                            const struct sl_matrix *m, const void *w,
                            const uint16_t *scale, uint32_t n_rows,
                            const struct sl_acts *a)
{
    const struct call call = {y, y_stride, m, w, scale, n_rows, a};
    struct work k;
    size_t p = 0;

    k.x_stride = a->bf16_stride;
    k.rows = TILE;
    if (a->n >= TILE)
        use_tiles(TILE);
    while (a->n - p >= TILE) {
        size_t tiles = (a->n - p) / TILE;

        tiles = tiles < UNITS ? tiles : UNITS;
        run_positions(&k, &call, p, (uint32_t)tiles);
        p += tiles * TILE;
    }
    if (p < a->n) {
        k.rows = (uint32_t)(a->n - p);
        use_tiles(k.rows);
        run_positions(&k, &call, p, 1);
    }
    _tile_release();
}

static void round_bf16_amx(void *to, const float *x, uint32_t cols)
{
    uint16_t *out = to;

    for (uint32_t c = 0; c < cols; c += STEP)
        _mm512_storeu_si512(out + c,
                            to_pairs(vf_load(x + c), vf_load(x + c + W)));
}

void sl_kernels_init_amx_bf16(struct sl_kernels *k)
{
    for (int f = 0; f < SL_FMT_COUNT; f++)
        k->matmul[f][SL_ACT_BF16] =
            sl_fmt_has_blocks((enum sl_fmt)f) ? NULL : matmul_bf16_amx;
    k->round_bf16 = round_bf16_amx;
    k->bf16_bytes = sizeof(uint16_t);
}
