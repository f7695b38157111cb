/*
 * pack_block_tmpl.h - the source of sl_pack_block_base and its instruction-set
 * twins
 *
 * SL_PACK_BLOCK names the function. Written with the vector types of GCC and
 * Clang, LANES (8 or 16) wide; without AVX the compiler cuts them in two.
 * Instruction-set files share no inline code with others, so nothing of
 * src/base is used here.
 */
#include <math.h>
#include <string.h>

#include "quant/pack_block.h"

#ifndef LANES
#define LANES 8
#endif

typedef float vf __attribute__((vector_size(4 * LANES)));
typedef int32_t vi __attribute__((vector_size(4 * LANES)));
typedef uint32_t vu __attribute__((vector_size(4 * LANES)));
typedef uint16_t vh __attribute__((vector_size(2 * LANES)));
typedef uint16_t v8h __attribute__((vector_size(16)));

/* Vectors are passed by address, because by value they have another ABI in
 * each instruction set; all of it is inlined. */
#define INLINE static inline __attribute__((always_inline))

/* Columns that are worked on at once. */
#define RUN 256u
/* Added to a float of magnitude below 2^22 it leaves the nearest integer
 * (ties to even) in the low bits of the mantissa. */
#define MAGIC 12582912.0f

#define EIGHT(x) (x), (x), (x), (x), (x), (x), (x), (x)
#if LANES == 8
#define SPLAT(x)                                                               \
    {                                                                          \
        EIGHT(x)                                                               \
    }
#else
#define SPLAT(x)                                                               \
    {                                                                          \
        EIGHT(x), EIGHT(x)                                                     \
    }
#endif
#define PICK(mask, yes, no) ((vf)(((vi)(yes) & (mask)) | ((vi)(no) & ~(mask))))
/* An instruction set may have better; a NaN gives b. */
#ifndef LESSER
#define LESSER(a, b)  PICK((a) < (b), a, b)
#define GREATER(a, b) PICK((a) > (b), a, b)
#endif
#define MAGNITUDE(x) ((vf)((vu)(x)&0x7fffffffu))

/* One column of LANES rows. */
union column {
    vf v;
    float f[LANES];
};

struct work {
    const struct sl_pack_block *p;
    unsigned first; /* of the rows that are worked on: [first, first + LANES) */
    float lo, hi;   /* of the integers */
    float most;     /* what the largest scale and integer hold, rounded */
    vf run[RUN];    /* columns as FP32 */
    vu q[RUN + 8];  /* columns as integers, in the low bits */
    double squared[LANES]; /* by row */
    double source[LANES];
    vf worst;
    vi n_not_finite;
};

/* binary16 to binary32: the exponent moves by 112, twice for infinity and
 * NaN; a subnormal gets an implicit one that is subtracted again. */
INLINE void from_half(vf *out, const vh *h)
{
    const vf one = SPLAT(0x1p-14f);
    vu wide = __builtin_convertvector(*h, vu);
    vu bits = (wide & 0x7fffu) << 13;
    vu exp = bits & 0x0f800000u;
    vu special = (vu)(exp == 0x0f800000u) & (112u << 23);
    vf normal = (vf)(bits + (112u << 23) + special);
    vf small = (vf)(bits + (113u << 23)) - one;
    vf v = PICK((vi)(exp == 0u), small, normal);

    *out = (vf)((vu)v | (wide & 0x8000u) << 16);
}

/* bfloat16 to binary32. */
INLINE void from_bf16(vf *out, const vh *h)
{
    *out = (vf)(__builtin_convertvector(*h, vu) << 16);
}

/* Rounds to the 11 significant bits of binary16, ties to even; right for
 * magnitudes from 2^-14 to 65519. */
INLINE void round_half(vf *x)
{
    vu bits = (vu)*x;

    bits += 0xfffu + (bits >> 13 & 1u);
    *x = (vf)(bits & 0xffffe000u);
}

/* A scale as binary16 holds it: finite, whatever the source holds. */
INLINE void round_scale(vf *s)
{
    const vf most = SPLAT(65504.0f), least = SPLAT(0x1p-14f);
    const vf half = SPLAT(0.5f); /* has FP16's subnormal step as its last bit */
    vf x = LESSER(*s, most);
    vf small = (x + half) - half;
    vf normal = x;

    round_half(&normal);
    *s = PICK(x < least, small, normal);
}

/* The bits of a scale that round_scale made. */
INLINE uint16_t scale_bits(float s)
{
    uint32_t bits;

    if (s < 0x1p-14f)
        return (uint16_t)(s * 0x1p24f);
    memcpy(&bits, &s, sizeof bits);
    return (uint16_t)((bits - (112u << 23)) >> 13);
}

INLINE void inverse_of(vf *out, const vf *s)
{
    const vf zero = SPLAT(0), one = SPLAT(1);

    *out = one / *s;
    *out = PICK(*s > zero, *out, zero);
}

/* The nearest integer within lo .. hi; a NaN becomes hi. */
INLINE void nearest(vf *x, const vf *lo, const vf *hi)
{
    const vf magic = SPLAT(MAGIC);
    vf y = *x;

    y = LESSER(y, *hi);
    y = GREATER(y, *lo);
    *x = (y + magic) - magic;
}

INLINE void add_lanes(double sum[LANES], const vf *x)
{
    for (int i = 0; i < LANES; i++)
        sum[i] += (double)(*x)[i];
}

/* Eight columns of eight rows of two-byte values, turned round. */
INLINE void turn(v8h a[8], const v8h in[8])
{
#define LOW(a, b)  __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11)
#define HIGH(a, b) __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15)
    v8h b[8];

    for (int i = 0; i < 4; i++) {
        a[2 * i] = LOW(in[i], in[i + 4]);
        a[2 * i + 1] = HIGH(in[i], in[i + 4]);
    }
    for (int i = 0; i < 4; i++) {
        b[2 * i] = LOW(a[i], a[i + 4]);
        b[2 * i + 1] = HIGH(a[i], a[i + 4]);
    }
    for (int i = 0; i < 4; i++) {
        a[2 * i] = LOW(b[i], b[i + 4]);
        a[2 * i + 1] = HIGH(b[i], b[i + 4]);
    }
#undef LOW
#undef HIGH
}

/* Eight columns of LANES rows of FP16 or BF16. */
INLINE void load_halves(vf out[8], const v8h in[LANES], bool bf16)
{
    v8h low[8];
#if LANES == 16
    v8h high[8];

    turn(high, in + 8);
#endif
    turn(low, in);
    for (int i = 0; i < 8; i++) {
#if LANES == 16
        vh h = __builtin_shufflevector(low[i], high[i], 0, 1, 2, 3, 4, 5, 6, 7,
                                       8, 9, 10, 11, 12, 13, 14, 15);
#else
        vh h = low[i];
#endif
        if (bf16)
            from_bf16(&out[i], &h);
        else
            from_half(&out[i], &h);
    }
}

/* Columns of two bytes, eight at a time. */
static void load_run_halves(struct work *w, uint32_t col, uint32_t n)
{
    const struct sl_pack_block *p = w->p;
    const uint8_t *const *rows = p->rows + w->first;
    v8h h[LANES];

    for (uint32_t i = 0; i < n; i += 8) {
        uint32_t k = n - i < 8 ? n - i : 8;

        memset(h, 0, sizeof h);
        for (unsigned r = 0; r < LANES; r++) {
            if (rows[r] == NULL)
                continue;
            if (k == 8)
                memcpy(&h[r], rows[r] + (size_t)(col + i) * 2, 16);
            else
                memcpy(&h[r], rows[r] + (size_t)(col + i) * 2, k * 2);
        }
        load_halves(w->run + i, h, p->from == SL_FMT_BF16);
    }
}

static void load_run(struct work *w, uint32_t col, uint32_t n)
{
    const struct sl_pack_block *p = w->p;
    const uint8_t *const *rows = p->rows + w->first;
    union column x;

    if (p->from != SL_FMT_F32) {
        load_run_halves(w, col, n);
        return;
    }
    for (uint32_t i = 0; i < n; i++) {
        for (unsigned r = 0; r < LANES; r++) {
            x.f[r] = 0;
            if (rows[r] != NULL)
                memcpy(&x.f[r], rows[r] + (size_t)(col + i) * 4, 4);
        }
        w->run[i] = x.v;
    }
}

/* One group of each row: columns [col, col + n). Where it fits a run it is
 * there already, from run[at] on. */
struct group {
    uint32_t col, n, at;
    bool loaded;
};

/* The columns [done, done + *n) of the group, loaded. */
static const vf *next_run(struct work *w, const struct group *g, uint32_t done,
                          uint32_t *n)
{
    *n = g->n - done < RUN ? g->n - done : RUN;
    if (g->loaded)
        return w->run + g->at;
    load_run(w, g->col + done, *n);
    return w->run;
}

static void largest(vf *out, struct work *w, const struct group *g)
{
    vf most = SPLAT(0);
    uint32_t n;

    for (uint32_t done = 0; done < g->n; done += n) {
        const vf *run = next_run(w, g, done, &n);

        for (uint32_t i = 0; i < n; i++) {
            vf x = MAGNITUDE(run[i]);

            most = GREATER(x, most);
        }
    }
    *out = most;
}

#include "quant/pack_block_scales.h"

/* The scales of the group of a column, of the rows that are worked on. */
INLINE uint16_t *scales_at(const struct work *w, uint32_t col)
{
    return w->p->scale + (size_t)(col / w->p->group_cols) * SL_BLOCK_ROWS +
           w->first;
}

static void choose_scales(struct work *w, const struct group *g)
{
    uint16_t *out = scales_at(w, g->col);
    vf s;

    largest(&s, w, g);
    s /= w->hi; /* 127 or 7, as GLM's quantiser has it; or 119 */
    round_scale(&s);
    if (w->p->planes)
        plane_scale(&s, w, g);
    else if (w->p->mse)
        mse_scale(&s, w, g);
    for (unsigned r = 0; r < LANES; r++)
        out[r] = scale_bits(s[r]);
}

INLINE void add_error(struct work *w, vf sums[2], const vf *x,
                      const vf *decoded)
{
    const vf most = SPLAT(w->most);
    vf d = *decoded - *x;

    sums[0] += d * d;
    sums[1] += *x * *x;
    d = MAGNITUDE(d);
    w->worst = GREATER(d, w->worst);
    w->n_not_finite -= ~(vi)(MAGNITUDE(*x) < most); /* true is -1 */
}

/* run[at .. at + n) to q, all of one group with scale s. */
static void round_run(struct work *w, uint32_t at, uint32_t n, const vf *s)
{
    const vf lo = SPLAT(w->lo), hi = SPLAT(w->hi), magic = SPLAT(MAGIC);
    const vf zero = SPLAT(0), one = SPLAT(1);
    vf divisor = PICK(*s > zero, *s, one), inverse, sums[2] = {zero, zero};
    bool mse = w->p->mse, f16 = w->p->from == SL_FMT_F16;

    inverse_of(&inverse, s);
    for (uint32_t i = at; i < at + n; i++) {
        vf x = w->run[i], y;

        if (mse) {
            y = x * inverse;
        } else {
            y = x / divisor;
            if (f16)
                round_half(&y);
        }
        nearest(&y, &lo, &hi);
        w->q[i] = (vu)(y + magic);
        y *= *s;
        add_error(w, sums, &x, &y);
    }
    add_lanes(w->squared, &sums[0]);
    add_lanes(w->source, &sums[1]);
}

/* The integers q[0 .. n) as bytes: 4 of each unit for each row. Adding 128
 * modulo 256 flips the top bit of a byte, adding 8 modulo 16 that of four bits.
 */
static uint8_t *store_run(struct work *w, uint8_t *out, uint32_t n)
{
    for (uint32_t i = n; i % 8 != 0; i++)
        w->q[i] = (vu)SPLAT(0);
    for (uint32_t i = 0; i < n; i += 8) {
        const vu *q = w->q + i;
        vu a[2];

        for (int k = 0; k < 2; k++, q += 4)
            a[k] = (q[0] & 255u) | (q[1] & 255u) << 8 | (q[2] & 255u) << 16 |
                   q[3] << 24;
        if (w->p->int4) {
            a[0] = (a[0] & 0x0f0f0f0fu) | (a[1] & 0x0f0f0f0fu) << 4;
            a[0] ^= 0x88888888u;
            memcpy(out, &a[0], sizeof a[0]);
            out += 64;
            continue;
        }
        a[0] ^= 0x80808080u;
        a[1] ^= 0x80808080u;
        memcpy(out, &a[0], sizeof a[0]);
        memcpy(out + 64, &a[1], sizeof a[1]);
        out += 128;
    }
    return out;
}

/* FP16 bits to FP32, of a scale. */
static void load_scales(vf *s, const uint16_t *bits)
{
    vh h;

    memcpy(&h, bits, sizeof h);
    from_half(s, &h);
}

static void round_columns(struct work *w, uint32_t col, uint32_t n)
{
    uint32_t group_cols = w->p->group_cols, k;
    vf s;

    for (uint32_t at = 0; at < n; at += k) {
        uint32_t left = group_cols - (col + at) % group_cols;

        k = n - at < left ? n - at : left;
        load_scales(&s, scales_at(w, col + at));
        round_run(w, at, k, &s);
    }
}

static void choose_in_run(struct work *w, uint32_t col, uint32_t n)
{
    uint32_t group_cols = w->p->group_cols;

    for (uint32_t at = 0; at < n; at += group_cols) {
        uint32_t k = n - at < group_cols ? n - at : group_cols;
        struct group g = {col + at, k, at, true};

        choose_scales(w, &g);
    }
}

static void choose_all(struct work *w)
{
    const struct sl_pack_block *p = w->p;

    for (uint32_t col = 0; col < p->cols; col += p->group_cols) {
        uint32_t n = p->cols - col;
        struct group g = {.col = col,
                          .n = n < p->group_cols ? n : p->group_cols};

        choose_scales(w, &g);
    }
}

static void pack_lanes(const struct sl_pack_block *p, unsigned first,
                       struct sl_pack_block_error *e)
{
    struct work w = {.p = p,
                     .first = first,
                     .hi = p->int4     ? 7
                           : p->planes ? 119
                                       : 127};
    /* Whole groups in a run, where that is possible, need loading once. */
    bool whole = p->group_cols <= RUN && p->group_cols % 8 == 0;
    uint32_t step = whole ? RUN / p->group_cols * p->group_cols : RUN, n;
    uint8_t *out = p->w + first * 4;

    /* -8 comes free with INT4; GLM's quantiser does not use it. */
    w.lo = p->int4 && p->mse ? -8 : -w.hi;
    w.most = 65504.0f * (w.hi + 0.5f);
    if (!whole)
        choose_all(&w);
    for (uint32_t col = 0; col < p->cols; col += n) {
        n = p->cols - col < step ? p->cols - col : step;
        load_run(&w, col, n);
        if (whole)
            choose_in_run(&w, col, n);
        round_columns(&w, col, n);
        out = store_run(&w, out, n);
    }
    for (int r = 0; r < LANES; r++) {
        e->squared += w.squared[r];
        e->source_squared += w.source[r];
        e->worst = w.worst[r] > e->worst ? w.worst[r] : e->worst;
        e->n_not_finite += (uint64_t)w.n_not_finite[r];
    }
}

void SL_PACK_BLOCK(const struct sl_pack_block *p, struct sl_pack_block_error *e)
{
    for (unsigned first = 0; first < SL_BLOCK_ROWS; first += LANES)
        pack_lanes(p, first, e);
}
