/*
 * pack_block_scales.h - the scale of least squared error for a group of each
 * row
 *
 * A part of pack_block_tmpl.h, which includes it.
 */
#ifndef SL_QUANT_PACK_BLOCK_SCALES_H
#define SL_QUANT_PACK_BLOCK_SCALES_H

/* Scales that the MSE rule tries first; a multiple of three. */
#define TRIES       6u
#define PLANE_TRIES 18u /* those of planes; a multiple of it */

/* planes: of the high plane of q, which the low one rounds to. */
INLINE void add_square(vf *sum, const vf *x, const vf *inverse, const vf *s,
                       const vf *lo, const vf *hi, bool planes)
{
    const vf half = SPLAT(0.5f);
    vf q = *x * *inverse;

    nearest(&q, lo, hi);
    if (planes) {
        q = (q + half) * 0.0625f;
        nearest(&q, lo, hi);
        q *= 16.0f;
    }
    q = *x - q * *s;
    *sum += q * q;
}

/* err[k]: the squared error by row with scale s[k]. Three side by side keep
 * the arithmetic units busy and fit the registers. */
INLINE void add_squares(double err[3][LANES], const struct work *w,
                        const vf *run, uint32_t n, const vf s[3], bool planes)
{
    const vf lo = SPLAT(w->lo), hi = SPLAT(w->hi);
    const vf s0 = s[0], s1 = s[1], s2 = s[2];
    vf sum0 = SPLAT(0), sum1 = sum0, sum2 = sum0, inv0, inv1, inv2;

    inverse_of(&inv0, &s0);
    inverse_of(&inv1, &s1);
    inverse_of(&inv2, &s2);
    for (uint32_t i = 0; i < n; i++) {
        vf x = run[i];

        add_square(&sum0, &x, &inv0, &s0, &lo, &hi, planes);
        add_square(&sum1, &x, &inv1, &s1, &lo, &hi, planes);
        add_square(&sum2, &x, &inv2, &s2, &lo, &hi, planes);
    }
    add_lanes(err[0], &sum0);
    add_lanes(err[1], &sum1);
    add_lanes(err[2], &sum2);
}

struct sums {
    double wq[LANES]; /* sum w q */
    double qq[LANES]; /* sum q q: wq / qq is the best scale for these q */
};

static void add_sums(struct sums *t, struct work *w, const struct group *g,
                     const vf *s)
{
    const vf lo = SPLAT(w->lo), hi = SPLAT(w->hi);
    vf inverse;
    uint32_t n;

    inverse_of(&inverse, s);
    memset(t, 0, sizeof *t);
    for (uint32_t done = 0; done < g->n; done += n) {
        const vf *run = next_run(w, g, done, &n);
        vf wq = SPLAT(0), qq = SPLAT(0);

        for (uint32_t i = 0; i < n; i++) {
            vf x = run[i], q = x * inverse;

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
static void try_scales(vf *best, double least[LANES], struct work *w,
                       const struct group *g, const vf *tries, unsigned n_tries)
{
    double err[TRIES][LANES] = {{0}};
    uint32_t n;

    for (uint32_t done = 0; done < g->n; done += n) {
        const vf *run = next_run(w, g, done, &n);

        for (unsigned k = 0; k < n_tries && !w->p->planes; k += 3)
            add_squares(err + k, w, run, n, tries + k, false);
        for (unsigned k = 0; k < n_tries && w->p->planes; k += 3)
            add_squares(err + k, w, run, n, tries + k, true);
    }
    for (unsigned k = 0; k < n_tries; k++) {
        for (int r = 0; r < LANES; r++) {
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
static void mse_scale(vf *best, struct work *w, const struct group *g)
{
    static const float part[TRIES] = {1, 0.955f, 0.915f, 0.88f, 0.84f, 0.8f};
    double least[LANES];
    vf tries[TRIES], squares = *best;
    struct sums t;

    for (unsigned k = 0; k < TRIES; k++) {
        tries[k] = *best * part[k];
        round_scale(&tries[k]);
    }
    for (int r = 0; r < LANES; r++)
        least[r] = INFINITY;
    try_scales(best, least, w, g, tries, TRIES);
    add_sums(&t, w, g, best);
    for (int r = 0; r < LANES; r++)
        squares[r] = t.qq[r] > 0 && t.wq[r] > 0 ? (float)(t.wq[r] / t.qq[r])
                                                : (*best)[r];
    tries[0] = squares;
    tries[1] = squares * 0.99f;
    tries[2] = squares * 1.01f;
    for (unsigned k = 0; k < 3; k++)
        round_scale(&tries[k]);
    try_scales(best, least, w, g, tries, 3);
}

/* From the scale that holds the largest value up, in steps of a fiftieth: a
 * smaller one would clip what the two planes hold together. */
static void plane_scale(vf *best, struct work *w, const struct group *g)
{
    const vf least_scale = *best;
    double least[LANES];
    vf tries[TRIES];

    for (int r = 0; r < LANES; r++)
        least[r] = INFINITY;
    for (unsigned round = 0; round < PLANE_TRIES; round += TRIES) {
        for (unsigned k = 0; k < TRIES; k++) {
            tries[k] = least_scale * (1 + 0.02f * (float)(round + k));
            round_scale(&tries[k]);
        }
        try_scales(best, least, w, g, tries, TRIES);
    }
}

#endif
