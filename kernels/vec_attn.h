/*
 * vec_attn.h - attention over any vec_<isa>.h
 *
 * A score is summed W lanes at a time along d, an output along the keys in
 * their order: both the same whatever else is computed beside them.
 */
#ifndef SL_KERNELS_VEC_ATTN_H
#define SL_KERNELS_VEC_ATTN_H

#include <math.h>

#include "kernels/vec_misc.h"

#define KEYS   4 /* scored together */
#define PIECES 8 /* vectors of an output kept in registers */

INLINE vf attn_load(const void *row, uint32_t i, const bool f16)
{
    return f16 ? vf_load_half((const uint16_t *)row + i)
               : vf_load((const float *)row + i);
}

INLINE vf attn_load_n(const void *row, uint32_t i, uint32_t n, const bool f16)
{
    return f16 ? vf_load_half_n((const uint16_t *)row + i, n)
               : vf_load_n((const float *)row + i, n);
}

/* Key (value) j of a page, or of the list of pages. */
INLINE const void *attn_row(const struct sl_attend_args *a,
                            const void *const *pages, uint32_t j)
{
    size_t at = (size_t)(j % a->page_len) * a->d;

    return (const uint8_t *)pages[j / a->page_len] + at * (a->kv_f16 ? 2 : 4);
}

INLINE void attn_score(const struct sl_attend_args *a, const float *q,
                       uint32_t j, const int n, const bool f16)
{
    uint32_t full = a->d - a->d % W, rest = a->d % W;
    const void *k[KEYS];
    vf dot[KEYS];

#pragma GCC unroll 4
    for (int i = 0; i < n; i++) {
        k[i] = attn_row(a, a->k_pages, j + (uint32_t)i);
        dot[i] = vf_set(0);
    }
    for (uint32_t c = 0; c < full; c += W) {
        vf x = vf_load(q + c);

#pragma GCC unroll 4
        for (int i = 0; i < n; i++)
            dot[i] = vf_fma(x, attn_load(k[i], c, f16), dot[i]);
    }
    if (rest != 0) {
        vf x = vf_load_n(q + full, rest);

#pragma GCC unroll 4
        for (int i = 0; i < n; i++)
            dot[i] = vf_fma(x, attn_load_n(k[i], full, rest, f16), dot[i]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < n; i++)
        a->scores[j + (uint32_t)i] = vf_sum(dot[i]) * a->scale;
}

/* scores <- exp(scores - largest); returns their sum. */
INLINE float attn_softmax(float *scores, uint32_t n)
{
    vf largest = vf_set(-INFINITY), sum = vf_set(0), v;
    uint32_t i = 0, rest = n % W;
    float max;

    for (; i + W <= n; i += W)
        largest = vf_max(vf_load(scores + i), largest);
    max = vf_largest(largest);
    for (; i < n; i++)
        max = scores[i] > max ? scores[i] : max;
    largest = vf_set(max);
    for (i = 0; i + W <= n; i += W) {
        v = vec_exp(vf_sub(vf_load(scores + i), largest));
        vf_store(scores + i, v);
        sum = vf_add(sum, v);
    }
    if (rest != 0) {
        v = vec_exp(vf_sub(vf_load_n(scores + i, rest), largest));
        vf_store_n(scores + i, v, rest);
        sum = vf_add(sum, vf_load_n(scores + i, rest));
    }
    return vf_sum(sum);
}

/* Values [c, c + n * W) of the output; with rest != 0 the rest < W at c. */
INLINE void attn_output(const struct sl_attend_args *a, float *out,
                        uint32_t n_keys, float sum, uint32_t c, const int n,
                        uint32_t rest, const bool f16)
{
    vf acc[PIECES];

#pragma GCC unroll 8
    for (int i = 0; i < n; i++)
        acc[i] = vf_set(0);
    for (uint32_t j = 0; j < n_keys; j++) {
        const void *v = attn_row(a, a->v_pages, j);
        vf p = vf_set(a->scores[j]);

        if (rest != 0)
            acc[0] = vf_fma(p, attn_load_n(v, c, rest, f16), acc[0]);
        else
#pragma GCC unroll 8
            for (int i = 0; i < n; i++)
                acc[i] =
                    vf_fma(p, attn_load(v, c + (uint32_t)i * W, f16), acc[i]);
    }
    if (rest != 0) {
        vf_store_n(out + c, vf_div(acc[0], vf_set(sum)), rest);
        return;
    }
#pragma GCC unroll 8
    for (int i = 0; i < n; i++)
        vf_store(out + c + i * W, vf_div(acc[i], vf_set(sum)));
}

INLINE void attend_any(const struct sl_attend_args *a, const bool f16)
{
    for (size_t row = 0; row < a->n_q; row++) {
        const float *q = a->q + row * a->q_stride;
        float *out = a->out + row * a->out_stride;
        uint32_t n = a->n_keys[row], j = 0, c = 0;
        float sum;

        for (; j + KEYS <= n; j += KEYS)
            attn_score(a, q, j, KEYS, f16);
        for (; j < n; j++)
            attn_score(a, q, j, 1, f16);
        sum = attn_softmax(a->scores, n);
        for (; c + PIECES * W <= a->d; c += PIECES * W)
            attn_output(a, out, n, sum, c, PIECES, 0, f16);
        for (; c + 4 * W <= a->d; c += 4 * W)
            attn_output(a, out, n, sum, c, 4, 0, f16);
        for (; c + W <= a->d; c += W)
            attn_output(a, out, n, sum, c, 1, 0, f16);
        if (c < a->d)
            attn_output(a, out, n, sum, c, 1, a->d - c, f16);
    }
}

static void ISA(attend)(const struct sl_attend_args *args)
{
    if (args->kv_f16)
        attend_any(args, true);
    else
        attend_any(args, false);
}

#undef KEYS
#undef PIECES

#endif
