/*
 * pack8_tmpl.h - the source of sl_pack8_base and its instruction-set twins
 *
 * SL_PACK8 names the function. Written with the vector types of GCC and
 * Clang, eight lanes wide; without AVX the compiler cuts them in two.
 * Instruction-set files share no inline code with others, so nothing of
 * src/base is used here.
 */
#include <math.h>
#include <string.h>

#include "quant/pack8.h"

typedef float v8f __attribute__((vector_size(32)));
typedef int32_t v8i __attribute__((vector_size(32)));
typedef uint32_t v8u __attribute__((vector_size(32)));
typedef uint16_t v8h __attribute__((vector_size(16)));

/* Vectors are passed by address, because by value they have another ABI in
 * each instruction set; all of it is inlined. */
#define INLINE static inline __attribute__((always_inline))

/* Columns that are worked on at once. */
#define RUN 256u
/* Scales that the MSE rule tries first; a multiple of three. */
#define TRIES 6u
/* Added to a float of magnitude below 2^22 it leaves the nearest integer
 * (ties to even) in the low bits of the mantissa. */
#define MAGIC 12582912.0f

#define SPLAT(x)                                                               \
    {                                                                          \
        (x), (x), (x), (x), (x), (x), (x), (x)                                 \
    }
#define PICK(mask, yes, no)                                                    \
    ((v8f)(((v8i)(yes) & (mask)) | ((v8i)(no) & ~(mask))))
/* An instruction set may have better; a NaN gives b. */
#ifndef LESSER
#define LESSER(a, b)  PICK((a) < (b), a, b)
#define GREATER(a, b) PICK((a) > (b), a, b)
#endif
#define MAGNITUDE(x) ((v8f)((v8u)(x)&0x7fffffffu))

/* One column of eight rows. */
union column {
    v8f v;
    float f[8];
};

struct work {
    const struct sl_pack8 *p;
    float lo, hi;      /* of the integers */
    v8f run[RUN];      /* columns as FP32 */
    v8u q[RUN + 8];    /* columns as integers, in the low bits */
    double squared[8]; /* by row */
    double source[8];
    v8f worst;
    v8i n_not_finite;
};

/* binary16 to binary32: the exponent moves by 112, twice for infinity and
 * NaN; a subnormal gets an implicit one that is subtracted again. */
INLINE void from_half(v8f *out, const v8h *h)
{
    const v8f one = SPLAT(0x1p-14f);
    v8u wide = __builtin_convertvector(*h, v8u);
    v8u bits = (wide & 0x7fffu) << 13;
    v8u exp = bits & 0x0f800000u;
    v8u special = (v8u)(exp == 0x0f800000u) & (112u << 23);
    v8f normal = (v8f)(bits + (112u << 23) + special);
    v8f small = (v8f)(bits + (113u << 23)) - one;
    v8f v = PICK((v8i)(exp == 0u), small, normal);

    *out = (v8f)((v8u)v | (wide & 0x8000u) << 16);
}

/* Rounds to the 11 significant bits of binary16, ties to even; right for
 * magnitudes from 2^-14 to 65519. */
INLINE void round_half(v8f *x)
{
    v8u bits = (v8u)*x;

    bits += 0xfffu + (bits >> 13 & 1u);
    *x = (v8f)(bits & 0xffffe000u);
}

/* A scale as binary16 holds it: finite, whatever the source holds. */
INLINE void round_scale(v8f *s)
{
    const v8f most = SPLAT(65504.0f), least = SPLAT(0x1p-14f);
    const v8f half =
        SPLAT(0.5f); /* has FP16's subnormal step as its last bit */
    v8f x = LESSER(*s, most);
    v8f small = (x + half) - half;
    v8f normal = x;

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

INLINE void inverse_of(v8f *out, const v8f *s)
{
    const v8f zero = SPLAT(0), one = SPLAT(1);

    *out = one / *s;
    *out = PICK(*s > zero, *out, zero);
}

/* The nearest integer within lo .. hi; a NaN becomes hi. */
INLINE void nearest(v8f *x, const v8f *lo, const v8f *hi)
{
    const v8f magic = SPLAT(MAGIC);
    v8f y = *x;

    y = LESSER(y, *hi);
    y = GREATER(y, *lo);
    *x = (y + magic) - magic;
}

INLINE void add_lanes(double sum[8], const v8f *x)
{
    for (int i = 0; i < 8; i++)
        sum[i] += (double)(*x)[i];
}

/* Eight columns of eight FP16 rows, turned round. */
INLINE void load_halves(v8f out[8], const v8h in[8])
{
#define LOW(a, b)  __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11)
#define HIGH(a, b) __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15)
    v8h a[8], b[8];

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
    for (int i = 0; i < 8; i++)
        from_half(&out[i], &a[i]);
#undef LOW
#undef HIGH
}

static void load_run(struct work *w, uint32_t col, uint32_t n)
{
    const struct sl_pack8 *p = w->p;
    union column x;
    v8h h[8];

    for (uint32_t i = 0; p->f16 && i < n; i += 8) {
        uint32_t k = n - i < 8 ? n - i : 8;

        memset(h, 0, sizeof h);
        for (unsigned r = 0; r < SL_PACK8_ROWS; r++) {
            if (p->rows[r] == NULL)
                continue;
            if (k == 8)
                memcpy(&h[r], p->rows[r] + (size_t)(col + i) * 2, 16);
            else
                memcpy(&h[r], p->rows[r] + (size_t)(col + i) * 2, k * 2);
        }
        load_halves(w->run + i, h);
    }
    for (uint32_t i = 0; !p->f16 && i < n; i++) {
        for (unsigned r = 0; r < SL_PACK8_ROWS; r++) {
            x.f[r] = 0;
            if (p->rows[r] != NULL)
                memcpy(&x.f[r], p->rows[r] + (size_t)(col + i) * 4, 4);
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
static const v8f *next_run(struct work *w, const struct group *g, uint32_t done,
                           uint32_t *n)
{
    *n = g->n - done < RUN ? g->n - done : RUN;
    if (g->loaded)
        return w->run + g->at;
    load_run(w, g->col + done, *n);
    return w->run;
}

static void largest(v8f *out, struct work *w, const struct group *g)
{
    v8f most = SPLAT(0);
    uint32_t n;

    for (uint32_t done = 0; done < g->n; done += n) {
        const v8f *run = next_run(w, g, done, &n);

        for (uint32_t i = 0; i < n; i++) {
            v8f x = MAGNITUDE(run[i]);

            most = GREATER(x, most);
        }
    }
    *out = most;
}

INLINE void add_square(v8f *sum, const v8f *x, const v8f *inverse, const v8f *s,
                       const v8f *lo, const v8f *hi)
{
    v8f q = *x * *inverse;

    nearest(&q, lo, hi);
    q = *x - q * *s;
    *sum += q * q;
}

/* err[k]: the squared error by row with scale s[k]. Three side by side keep
 * the arithmetic units busy and fit the registers. */
static void add_squares(double err[3][8], const struct work *w, const v8f *run,
                        uint32_t n, const v8f s[3])
{
    const v8f lo = SPLAT(w->lo), hi = SPLAT(w->hi);
    const v8f s0 = s[0], s1 = s[1], s2 = s[2];
    v8f sum0 = SPLAT(0), sum1 = sum0, sum2 = sum0, inv0, inv1, inv2;

    inverse_of(&inv0, &s0);
    inverse_of(&inv1, &s1);
    inverse_of(&inv2, &s2);
    for (uint32_t i = 0; i < n; i++) {
        v8f x = run[i];

        add_square(&sum0, &x, &inv0, &s0, &lo, &hi);
        add_square(&sum1, &x, &inv1, &s1, &lo, &hi);
        add_square(&sum2, &x, &inv2, &s2, &lo, &hi);
    }
    add_lanes(err[0], &sum0);
    add_lanes(err[1], &sum1);
    add_lanes(err[2], &sum2);
}

struct sums {
    double wq[8]; /* sum w q */
    double qq[8]; /* sum q q: wq / qq is the best scale for these q */
};

static void add_sums(struct sums *t, struct work *w, const struct group *g,
                     const v8f *s)
{
    const v8f lo = SPLAT(w->lo), hi = SPLAT(w->hi);
    v8f inverse;
    uint32_t n;

    inverse_of(&inverse, s);
    memset(t, 0, sizeof *t);
    for (uint32_t done = 0; done < g->n; done += n) {
        const v8f *run = next_run(w, g, done, &n);
        v8f wq = SPLAT(0), qq = SPLAT(0);

        for (uint32_t i = 0; i < n; i++) {
            v8f x = run[i], q = x * inverse;

            nearest(&q, &lo, &hi);
            wq += x * q;
            qq += q * q;
        }
        add_lanes(t->wq, &wq);
        add_lanes(t->qq, &qq);
    }
}

/* The squared error of every try; its best goes to best where it is less than
 * least. */
static void try_scales(v8f *best, double least[8], struct work *w,
                       const struct group *g, const v8f *tries,
                       unsigned n_tries)
{
    double err[TRIES][8] = {{0}};
    uint32_t n;

    for (uint32_t done = 0; done < g->n; done += n) {
        const v8f *run = next_run(w, g, done, &n);

        for (unsigned k = 0; k < n_tries; k += 3)
            add_squares(err + k, w, run, n, tries + k);
    }
    for (unsigned k = 0; k < n_tries; k++) {
        for (int r = 0; r < 8; r++) {
            if (err[k][r] >= least[r])
                continue;
            /* Errors are sums of floats, and among equals the absmax scale
             * wins: what is not clearly better is not. */
            least[r] = err[k][r] * (1 - 1e-5);
            (*best)[r] = tries[k][r];
        }
    }
}

/* Tries the absmax scale and some below, down to four fifths of it, then the
 * least-squares scale for the integers that the best of them gives, and one
 * on either side of that. */
static void mse_scale(v8f *best, struct work *w, const struct group *g)
{
    static const float part[TRIES] = {1, 0.955f, 0.915f, 0.88f, 0.84f, 0.8f};
    double least[8];
    v8f tries[TRIES], squares = *best;
    struct sums t;

    for (unsigned k = 0; k < TRIES; k++) {
        tries[k] = *best * part[k];
        round_scale(&tries[k]);
    }
    for (int r = 0; r < 8; r++)
        least[r] = INFINITY;
    try_scales(best, least, w, g, tries, TRIES);
    add_sums(&t, w, g, best);
    for (int r = 0; r < 8; r++)
        squares[r] = t.qq[r] > 0 && t.wq[r] > 0 ? (float)(t.wq[r] / t.qq[r])
                                                : (*best)[r];
    tries[0] = squares;
    tries[1] = squares * 0.99f;
    tries[2] = squares * 1.01f;
    for (unsigned k = 0; k < 3; k++)
        round_scale(&tries[k]);
    try_scales(best, least, w, g, tries, 3);
}

static void choose_scales(struct work *w, const struct group *g)
{
    uint16_t *out = w->p->scale + (size_t)(g->col / w->p->group_cols) * 16;
    v8f s;

    largest(&s, w, g);
    s /= w->hi; /* 127 or 7, as GLM's quantiser has it */
    round_scale(&s);
    if (w->p->mse)
        mse_scale(&s, w, g);
    for (unsigned r = 0; r < SL_PACK8_ROWS; r++)
        out[r] = scale_bits(s[r]);
}

INLINE void add_error(struct work *w, v8f sums[2], const v8f *x,
                      const v8f *decoded)
{
    const v8f infinite = SPLAT(INFINITY);
    v8f d = *decoded - *x;

    sums[0] += d * d;
    sums[1] += *x * *x;
    d = MAGNITUDE(d);
    w->worst = GREATER(d, w->worst);
    w->n_not_finite -= ~(v8i)(MAGNITUDE(*x) < infinite); /* true is -1 */
}

/* run[at .. at + n) to q, all of one group with scale s. */
static void round_run(struct work *w, uint32_t at, uint32_t n, const v8f *s)
{
    const v8f lo = SPLAT(w->lo), hi = SPLAT(w->hi), magic = SPLAT(MAGIC);
    const v8f zero = SPLAT(0), one = SPLAT(1);
    v8f divisor = PICK(*s > zero, *s, one), inverse, sums[2] = {zero, zero};
    bool mse = w->p->mse, f16 = w->p->f16;

    inverse_of(&inverse, s);
    for (uint32_t i = at; i < at + n; i++) {
        v8f x = w->run[i], y;

        if (mse) {
            y = x * inverse;
        } else {
            y = x / divisor;
            if (f16)
                round_half(&y);
        }
        nearest(&y, &lo, &hi);
        w->q[i] = (v8u)(y + magic);
        y *= *s;
        add_error(w, sums, &x, &y);
    }
    add_lanes(w->squared, &sums[0]);
    add_lanes(w->source, &sums[1]);
}

/* The integers q[0 .. n) as bytes: 32 of each unit. Adding 128 modulo 256
 * flips the top bit of a byte, adding 8 modulo 16 that of four bits. */
static uint8_t *store_run(struct work *w, uint8_t *out, uint32_t n)
{
    for (uint32_t i = n; i % 8 != 0; i++)
        w->q[i] = (v8u)SPLAT(0);
    for (uint32_t i = 0; i < n; i += 8) {
        const v8u *q = w->q + i;
        v8u a[2];

        for (int k = 0; k < 2; k++, q += 4)
            a[k] = (q[0] & 255u) | (q[1] & 255u) << 8 | (q[2] & 255u) << 16 |
                   q[3] << 24;
        if (w->p->int4) {
            a[0] = (a[0] & 0x0f0f0f0fu) | (a[1] & 0x0f0f0f0fu) << 4;
            a[0] ^= 0x88888888u;
            memcpy(out, &a[0], 32);
            out += 64;
            continue;
        }
        a[0] ^= 0x80808080u;
        a[1] ^= 0x80808080u;
        memcpy(out, &a[0], 32);
        memcpy(out + 64, &a[1], 32);
        out += 128;
    }
    return out;
}

/* FP16 bits to FP32, of a scale. */
static void load_scales(v8f *s, const uint16_t *bits)
{
    v8h h;

    memcpy(&h, bits, sizeof h);
    from_half(s, &h);
}

static void round_columns(struct work *w, uint32_t col, uint32_t n)
{
    uint32_t group_cols = w->p->group_cols, k;
    v8f s;

    for (uint32_t at = 0; at < n; at += k) {
        uint32_t left = group_cols - (col + at) % group_cols;

        k = n - at < left ? n - at : left;
        load_scales(&s, w->p->scale + (size_t)((col + at) / group_cols) * 16);
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
    const struct sl_pack8 *p = w->p;

    for (uint32_t col = 0; col < p->cols; col += p->group_cols) {
        uint32_t n = p->cols - col;
        struct group g = {.col = col,
                          .n = n < p->group_cols ? n : p->group_cols};

        choose_scales(w, &g);
    }
}

void SL_PACK8(const struct sl_pack8 *p, struct sl_pack8_error *e)
{
    struct work w = {.p = p, .hi = p->int4 ? 7 : 127};
    /* Whole groups in a run, where that is possible, need loading once. */
    bool whole = p->group_cols <= RUN && p->group_cols % 8 == 0;
    uint32_t step = whole ? RUN / p->group_cols * p->group_cols : RUN, n;
    uint8_t *out = p->w;

    /* -8 comes free with INT4; GLM's quantiser does not use it. */
    w.lo = p->int4 && p->mse ? -8 : -w.hi;
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
    for (int r = 0; r < 8; r++) {
        e->squared += w.squared[r];
        e->source_squared += w.source[r];
        e->worst = w.worst[r] > e->worst ? w.worst[r] : e->worst;
        e->n_not_finite += (uint64_t)w.n_not_finite[r];
    }
}
