/*
 * vec_misc.h - norms, activations and conversions over any vec_<isa>.h
 *
 * Included by one .c file an instruction set, after its vec_<isa>.h.
 */
#ifndef SL_KERNELS_VEC_MISC_H
#define SL_KERNELS_VEC_MISC_H

#include "kernels/kernels.h"

/* e^x for x <= 88, relative error below 2e-7; below -87 the result is that
 * of -87, the smallest that is a normal number. Coefficients: Cephes,
 * single/expf.c (Moshier). */
INLINE vf vec_exp(vf x)
{
    vi n;
    vf k, r, p;

    x = vf_max(vf_min(x, vf_set(88.0f)), vf_set(-87.0f));
    n = vf_to_int(vf_mul(x, vf_set(1.44269504f)));
    k = vi_to_float(n);
    r = vf_fma(k, vf_set(-0.693359375f), x);
    r = vf_fma(k, vf_set(2.12194440e-4f), r);
    p = vf_set(1.9875691500e-4f);
    p = vf_fma(p, r, vf_set(1.3981999507e-3f));
    p = vf_fma(p, r, vf_set(8.3334519073e-3f));
    p = vf_fma(p, r, vf_set(4.1665795894e-2f));
    p = vf_fma(p, r, vf_set(1.6666665459e-1f));
    p = vf_fma(p, r, vf_set(5.0000001201e-1f));
    p = vf_fma(p, vf_mul(r, r), vf_add(r, vf_set(1)));
    return vf_mul(p, vf_pow2(n));
}

/* b * Phi(b). With z = |b| / sqrt 2 and t = 1 / (1 + z / 2),
 * erfc(z) = exp(-z^2) t P(t): P was fitted to a relative error of 5e-8 for
 * z < 9.5 by reweighted least squares, which is all that floats can show. */
INLINE vf vec_gelu_erf(vf b)
{
    vf z2 = vf_mul(vf_mul(b, b), vf_set(-0.5f));
    vf t =
        vf_div(vf_set(1), vf_fma(vf_abs(b), vf_set(0.353553391f), vf_set(1)));
    vf p = vf_set(-0.0588907272f);
    vf tail; /* Phi(-|b|) */

    p = vf_fma(p, t, vf_set(0.283701711f));
    p = vf_fma(p, t, vf_set(-0.48538313f));
    p = vf_fma(p, t, vf_set(0.275977435f));
    p = vf_fma(p, t, vf_set(-0.0251772237f));
    p = vf_fma(p, t, vf_set(0.202069587f));
    p = vf_fma(p, t, vf_set(0.243261074f));
    p = vf_fma(p, t, vf_set(0.282353474f));
    p = vf_fma(p, t, vf_set(0.282087677f));
    tail = vf_mul(vf_mul(vec_exp(z2), vf_mul(p, t)), vf_set(0.5f));
    return vf_mul(b,
                  vf_select_less(b, vf_set(0), tail, vf_sub(vf_set(1), tail)));
}

/* x / (1 + exp(-2u)), as the reference. */
INLINE vf vec_gelu_tanh(vf x)
{
    vf x3 = vf_mul(vf_mul(x, x), x);
    vf u = vf_fma(x3, vf_set(0.044715f), x);
    vf e = vec_exp(vf_mul(u, vf_set(-1.59576912f))); /* -2 sqrt(2 / pi) */

    return vf_div(x, vf_add(vf_set(1), e));
}

/* a / (1 + exp(-a)). Below -88 the result is that of -88, near the smallest
 * normal number: where vec_exp stops, a quotient would grow with a again. */
INLINE vf vec_silu(vf a)
{
    vf x = vf_max(vf_set(-88), a);
    vf e = vec_exp(vf_sub(vf_set(0), x));

    return vf_div(x, vf_add(vf_set(1), e));
}

static void ISA(layer_norm)(float *y, const float *x, const float *w,
                            const float *b, uint32_t h, float eps)
{
    uint32_t full = h - h % W, rest = h % W;
    vd low = vd_set(0), high = vd_set(0), mean, inv;
    double m = 0, var = 0;
    vf v;

    for (uint32_t i = 0; i < full; i += W) {
        v = vf_load(x + i);
        low = vd_add(low, vd_low(v));
        high = vd_add(high, vd_high(v));
    }
    for (uint32_t i = full; i < h; i++)
        m += (double)x[i];
    m = (m + vd_sum(vd_add(low, high))) / h;
    mean = vd_set(m);
    low = high = vd_set(0);
    for (uint32_t i = 0; i < full; i += W) {
        vd a, c;

        v = vf_load(x + i);
        a = vd_sub(vd_low(v), mean);
        c = vd_sub(vd_high(v), mean);
        low = vd_add(low, vd_mul(a, a));
        high = vd_add(high, vd_mul(c, c));
    }
    for (uint32_t i = full; i < h; i++)
        var += ((double)x[i] - m) * ((double)x[i] - m);
    var = (var + vd_sum(vd_add(low, high))) / h;
    inv = vd_set(1 / __builtin_sqrt(var + (double)eps));
    for (uint32_t i = 0; i < h; i += W) {
        bool whole = i < full;

        v = whole ? vf_load(x + i) : vf_load_n(x + i, rest);
        v = vf_join(vd_mul(vd_sub(vd_low(v), mean), inv),
                    vd_mul(vd_sub(vd_high(v), mean), inv));
        if (whole)
            vf_store(y + i, vf_fma(v, vf_load(w + i), vf_load(b + i)));
        else
            vf_store_n(
                y + i,
                vf_fma(v, vf_load_n(w + i, rest), vf_load_n(b + i, rest)),
                rest);
    }
}

/* Sums as layer_norm does. */
static void ISA(rms_norm)(float *y, const float *x, const float *w, uint32_t h,
                          float eps)
{
    uint32_t full = h - h % W, rest = h % W;
    vd low = vd_set(0), high = vd_set(0), inv;
    double sum = 0;
    vf v;

    for (uint32_t i = 0; i < full; i += W) {
        vd a, b;

        v = vf_load(x + i);
        a = vd_low(v);
        b = vd_high(v);
        low = vd_add(low, vd_mul(a, a));
        high = vd_add(high, vd_mul(b, b));
    }
    for (uint32_t i = full; i < h; i++)
        sum += (double)x[i] * (double)x[i];
    sum = (sum + vd_sum(vd_add(low, high))) / h;
    inv = vd_set(1 / __builtin_sqrt(sum + (double)eps));
    for (uint32_t i = 0; i < full; i += W) {
        v = vf_load(x + i);
        v = vf_join(vd_mul(vd_low(v), inv), vd_mul(vd_high(v), inv));
        vf_store(y + i, vf_mul(v, vf_load(w + i)));
    }
    if (rest != 0) {
        v = vf_load_n(x + full, rest);
        v = vf_join(vd_mul(vd_low(v), inv), vd_mul(vd_high(v), inv));
        vf_store_n(y + full, vf_mul(v, vf_load_n(w + full, rest)), rest);
    }
}

/* Divides as the reference does, so all instruction sets give its bits. */
static void ISA(quantize_q8)(int8_t *q, float *scale, int32_t *sum,
                             size_t stride, const float *x, uint32_t cols)
{
    enum { N = SL_Q8_GROUP / W };

    for (uint32_t g = 0; g < cols / SL_Q8_GROUP; g++) {
        vf v[N], max = vf_set(0);
        vi total[2] = {vi_set(0), vi_set(0)};
        float s;

#pragma GCC unroll 8
        for (int i = 0; i < N; i++) {
            v[i] = vf_load(x + i * W);
            max = vf_max(vf_abs(v[i]), max);
        }
        s = vf_largest(max) / 127;
#pragma GCC unroll 8
        for (int i = 0; i < N; i++) {
            vf r = vf_div(v[i], vf_set(s > 0 ? s : 1));
            vi n;

            r = vf_min(vf_max(r, vf_set(-127)), vf_set(127));
            n = s > 0 ? vf_to_int(r) : vi_set(0);
            vi_store_i8(q + i * W, n);
            total[2 * i / N] = vi_add(total[2 * i / N], n);
        }
        *scale = s;
        sum[0] = vi_sum(total[0]);
        sum[stride] = vi_sum(total[1]);
        scale += stride;
        sum += 2 * stride;
        q += SL_Q8_GROUP;
        x += SL_Q8_GROUP;
    }
}

INLINE vi quantize(vf v, const struct sl_kv_scale *s)
{
    vf r = vf_div(vf_sub(v, vf_set(s->offset)), vf_set(s->scale));

    r = vf_min(vf_max(r, vf_set(-128)), vf_set(127));
    return s->scale > 0 ? vf_to_int(r) : vi_set(0);
}

/* As the reference, which divides too. */
static void ISA(quantize_row)(int8_t *q, struct sl_kv_scale *scale,
                              const float *x, size_t n)
{
    vf min = vf_set(x[0]), max = min;
    size_t i = 0, rest = n % W;
    int8_t last[W];
    float least;

    for (; i + W <= n; i += W) {
        min = vf_min(vf_load(x + i), min);
        max = vf_max(vf_load(x + i), max);
    }
    least = -vf_largest(vf_sub(vf_set(0), min));
    scale->scale = vf_largest(max);
    for (; i < n; i++) {
        least = x[i] < least ? x[i] : least;
        scale->scale = x[i] > scale->scale ? x[i] : scale->scale;
    }
    scale->scale = (scale->scale - least) / 255;
    scale->offset = least + 128 * scale->scale;
    for (i = 0; i + W <= n; i += W)
        vi_store_i8(q + i, quantize(vf_load(x + i), scale));
    if (rest == 0)
        return;
    vi_store_i8(last, quantize(vf_load_n(x + i, rest), scale));
    memcpy(q + i, last, rest);
}

static void ISA(rope)(float *x, const float *cos, const float *sin,
                      uint32_t half)
{
    float *y = x + half;
    uint32_t i = 0;
    uint32_t rest = half % W;

    for (; i + W <= half; i += W) {
        vf a = vf_load(x + i), b = vf_load(y + i);
        vf c = vf_load(cos + i), s = vf_load(sin + i);

        vf_store(x + i, vf_sub(vf_mul(a, c), vf_mul(b, s)));
        vf_store(y + i, vf_add(vf_mul(b, c), vf_mul(a, s)));
    }
    if (rest != 0) {
        vf a = vf_load_n(x + i, rest), b = vf_load_n(y + i, rest);
        vf c = vf_load_n(cos + i, rest), s = vf_load_n(sin + i, rest);

        vf_store_n(x + i, vf_sub(vf_mul(a, c), vf_mul(b, s)), rest);
        vf_store_n(y + i, vf_add(vf_mul(b, c), vf_mul(a, s)), rest);
    }
}

/* x = (u, v, u, v, ...) turned by the angles of cos and sin, each twice. The
 * roundings are those of the reference. */
INLINE vf vec_turn(vf x, vf cos, vf sin)
{
    return vf_sub_add(vf_mul(x, cos), vf_mul(vf_swap(x), sin));
}

static void ISA(rope_inter)(float *x, const float *cos, const float *sin,
                            uint32_t half)
{
    uint32_t i = 0, rest = half % (W / 2);

    for (; i + W / 2 <= half; i += W / 2)
        vf_store(x + (size_t)2 * i,
                 vec_turn(vf_load(x + (size_t)2 * i), vf_load_twice(cos + i),
                          vf_load_twice(sin + i)));
    if (rest != 0)
        vf_store_n(x + (size_t)2 * i,
                   vec_turn(vf_load_n(x + (size_t)2 * i, (size_t)2 * rest),
                            vf_load_twice_n(cos + i, rest),
                            vf_load_twice_n(sin + i, rest)),
                   (size_t)2 * rest);
}

static void ISA(geglu)(float *y, const float *a, const float *b, size_t n)
{
    size_t i = 0;

    for (; i + W <= n; i += W)
        vf_store(y + i, vf_mul(vf_load(a + i), vec_gelu_erf(vf_load(b + i))));
    n -= i;
    if (n != 0)
        vf_store_n(
            y + i,
            vf_mul(vf_load_n(a + i, n), vec_gelu_erf(vf_load_n(b + i, n))), n);
}

static void ISA(swiglu)(float *y, const float *a, const float *b, size_t n)
{
    size_t i = 0;

    for (; i + W <= n; i += W)
        vf_store(y + i, vf_mul(vec_silu(vf_load(a + i)), vf_load(b + i)));
    n -= i;
    if (n != 0)
        vf_store_n(y + i,
                   vf_mul(vec_silu(vf_load_n(a + i, n)), vf_load_n(b + i, n)),
                   n);
}

static void ISA(gelu_tanh)(float *y, const float *x, size_t n)
{
    size_t i = 0;

    for (; i + W <= n; i += W)
        vf_store(y + i, vec_gelu_tanh(vf_load(x + i)));
    if (i < n)
        vf_store_n(y + i, vec_gelu_tanh(vf_load_n(x + i, n - i)), n - i);
}

static void ISA(add)(float *y, const float *b, size_t n)
{
    size_t i = 0;

    for (; i + W <= n; i += W)
        vf_store(y + i, vf_add(vf_load(y + i), vf_load(b + i)));
    n -= i;
    if (n != 0)
        vf_store_n(y + i, vf_add(vf_load_n(y + i, n), vf_load_n(b + i, n)), n);
}

/* Rounds twice, as the reference. */
static void ISA(scale_add)(float *y, float alpha, const float *x, size_t n)
{
    vf k = vf_set(alpha);
    size_t i = 0;

    for (; i + W <= n; i += W)
        vf_store(y + i, vf_add(vf_mul(k, vf_load(x + i)), vf_load(y + i)));
    n -= i;
    if (n != 0)
        vf_store_n(y + i,
                   vf_add(vf_mul(k, vf_load_n(x + i, n)), vf_load_n(y + i, n)),
                   n);
}

static void ISA(f16_to_f32)(float *y, const uint16_t *x, size_t n)
{
    size_t i = 0;

    for (; i + W <= n; i += W)
        vf_store(y + i, vf_load_half(x + i));
    if (i < n)
        vf_store_n(y + i, vf_load_half_n(x + i, n - i), n - i);
}

static void ISA(f32_to_f16)(uint16_t *y, const float *x, size_t n)
{
    size_t i = 0;

    for (; i + W <= n; i += W)
        vf_store_half(y + i, vf_load(x + i));
    if (i < n)
        vf_store_half_n(y + i, vf_load_n(x + i, n - i), n - i);
}

#endif
