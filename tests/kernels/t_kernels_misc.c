/*
 * Norms, activations, rotary positions and conversions of every instruction
 * set, over odd sizes, against sums in double. Arrays end where
 * their allocation ends; a guard follows each output.
 */
#include "config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/kernels.h"
#include "src/base/half.h"
#include "tests/support.h"

#define GUARD 1e30f

static uint32_t next(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33);
}

static float uniform(uint64_t *state) /* -1 .. 1 */
{
    return (float)((double)next(state) / (double)(1u << 30) - 1);
}

/* n floats in -range .. range, off floats after an aligned address. */
static float *floats(size_t n, size_t off, float range, uint64_t *state)
{
    float *p = malloc((n + off) * sizeof *p);

    assert_non_null(p);
    for (size_t i = 0; i < n; i++)
        p[off + i] = range * uniform(state);
    return p + off;
}

static void near_to(double got, double want, double limit, const char *what,
                    size_t i)
{
    if (!(fabs(got - want) <= limit))
        fail_msg("%s, element %zu: %.9g, not %.9g", what, i, got, want);
}

/* Runs test for every instruction set and for n of 1 .. 67 and some more. */
static void each_size(void (*test)(const struct sl_kernels *k, uint32_t n,
                                   uint64_t *state))
{
    static const uint32_t large[] = {128, 172, 255, 1000};
    uint64_t state = 5;

    for (int isa = SL_ISA_REF; isa <= (int)sl_cpu_best_isa(); isa++) {
        struct sl_kernels k;

        sl_kernels_init(&k, (enum sl_isa)isa);
        for (uint32_t n = 1; n <= 67; n++)
            test(&k, n, &state);
        for (size_t i = 0; i < sizeof large / sizeof *large; i++)
            test(&k, large[i], &state);
    }
}

static void norm(const struct sl_kernels *k, uint32_t h, uint64_t *state)
{
    float *x = floats(h, 1, 3, state), *w = floats(h, 1, 2, state);
    float *b = floats(h, 1, 1, state), *y = floats(h + 1, 1, 0, state);
    double mean = 0, var = 0;

    for (uint32_t i = 0; i < h; i++) {
        x[i] += 100; /* far from zero: where sloppy sums fail */
        mean += (double)x[i] / h;
    }
    for (uint32_t i = 0; i < h; i++)
        var += ((double)x[i] - mean) * ((double)x[i] - mean) / h;
    y[h] = GUARD;
    k->layer_norm(y, x, w, b, h, 1e-5f);
    assert_true(y[h] == GUARD);
    for (uint32_t i = 0; i < h; i++) {
        double n = ((double)x[i] - mean) / sqrt(var + (double)1e-5f);

        near_to((double)y[i], n * (double)w[i] + (double)b[i],
                1e-6 * (1 + fabs(n)), k->isa, i);
    }
    k->layer_norm(x, x, w, b, h, 1e-5f);
    assert_memory_equal(x, y, h * sizeof *x);
    free(x - 1);
    free(w - 1);
    free(b - 1);
    free(y - 1);
}

static void layer_norm_is_right(void **state)
{
    each_size(norm);
}

static void rms(const struct sl_kernels *k, uint32_t h, uint64_t *state)
{
    float *x = floats(h, 1, 3, state), *w = floats(h, 1, 2, state);
    float *y = floats(h + 1, 1, 0, state);
    float eps = h % 2 ? 1e-5f : 0.25f;
    double sum = 0;

    x[h / 2] *= h % 3 ? 1 : 1e4f; /* as outliers of a residual stream are */
    for (uint32_t i = 0; i < h; i++)
        sum += (double)x[i] * (double)x[i] / h;
    y[h] = GUARD;
    k->rms_norm(y, x, w, h, eps);
    assert_true(y[h] == GUARD);
    for (uint32_t i = 0; i < h; i++) {
        double n = (double)x[i] / sqrt(sum + (double)eps) * (double)w[i];

        near_to((double)y[i], n, 1.5e-7 * fabs(n), k->isa, i);
    }
    k->rms_norm(x, x, w, h, eps);
    assert_memory_equal(x, y, h * sizeof *x);
    memset(x, 0, h * sizeof *x);
    k->rms_norm(y, x, w, h, eps);
    for (uint32_t i = 0; i < h; i++)
        assert_true(y[i] == 0);
    free(x - 1);
    free(w - 1);
    free(y - 1);
}

static void rms_norm_is_right(void **state)
{
    each_size(rms);
}

static void q8(const struct sl_kernels *k, uint32_t n, uint64_t *state)
{
    uint32_t groups = (n + 31) / 32, cols = groups * 32;
    float *x = floats(cols, 1, n % 3 ? 4 : 1e-43f, state);
    float *scale = floats(groups + 1, 0, 0, state), ref_scale[32];
    int8_t *q = malloc(cols + 1), ref_q[1024];
    int32_t sum[65], ref_sum[64], sum_apart[192];
    float apart[96];
    struct sl_kernels ref;

    x[n / 2] *= 50;
    if (n % 5 == 0)
        memset(x, 0, 32 * sizeof *x);
    if (n % 7 == 0)
        x[0] = NAN, x[1] = INFINITY;
    q[cols] = 99;
    scale[groups] = GUARD;
    sum[2 * groups] = 99;
    sl_kernels_init(&ref, SL_ISA_REF);
    k->quantize_q8(q, scale, sum, 1, x, cols);
    ref.quantize_q8(ref_q, ref_scale, ref_sum, 1, x, cols);
    assert_memory_equal(q, ref_q, cols);
    assert_memory_equal(scale, ref_scale, groups * sizeof *scale);
    assert_memory_equal(sum, ref_sum, 2 * groups * sizeof *sum);
    assert_true(q[cols] == 99 && sum[2 * groups] == 99 &&
                scale[groups] == GUARD);
    k->quantize_q8(q, apart, sum_apart, 3, x, cols);
    for (uint32_t g = 0; g < groups; g++)
        assert_true(memcmp(&apart[3 * g], &scale[g], 4) == 0 &&
                    sum_apart[6 * g] == sum[2 * g] &&
                    sum_apart[6 * g + 3] == sum[2 * g + 1]);
    for (uint32_t g = 0; g < groups && n % 7 != 0; g++) {
        float max = 0;
        int32_t total[2] = {0, 0};

        for (uint32_t c = 32 * g; c < 32 * g + 32; c++) {
            max = fmaxf(max, fabsf(x[c]));
            total[c % 32 / 16] += q[c];
            assert_in_range(q[c] + 127, 0, 254);
            near_to((double)q[c] * (double)scale[g], (double)x[c],
                    0.5001 * (double)scale[g] + 1.5e-43, k->isa, c);
        }
        assert_true(scale[g] == max / 127);
        assert_memory_equal(sum + (size_t)2 * g, total, sizeof total);
    }
    free(x - 1);
    free(scale);
    free(q);
}

static void quantize_row(const struct sl_kernels *k, uint32_t n,
                         uint64_t *state)
{
    float *x = floats(n, 1, n % 3 ? 4 : 1e-30f, state), min, max;
    int8_t *q = malloc(n + 1), *ref_q = malloc(n);
    struct sl_kv_scale scale, ref_scale;
    struct sl_kernels ref;

    x[n / 2] *= 50;
    if (n % 5 == 0)
        memset(x, 0, n * sizeof *x);
    else if (n % 4 == 0)
        x[0] += 1000;
    min = max = x[0];
    for (uint32_t i = 1; i < n; i++) {
        min = fminf(min, x[i]);
        max = fmaxf(max, x[i]);
    }
    q[n] = 99;
    sl_kernels_init(&ref, SL_ISA_REF);
    k->quantize_row(q, &scale, x, n);
    ref.quantize_row(ref_q, &ref_scale, x, n);
    assert_memory_equal(q, ref_q, n);
    assert_memory_equal(&scale, &ref_scale, sizeof scale);
    assert_int_equal(q[n], 99);
    assert_true(scale.scale == (max - min) / 255);
    for (uint32_t i = 0; i < n; i++) {
        double v = (double)q[i] * (double)scale.scale + (double)scale.offset;

        near_to(v, (double)x[i], 0.501 * (double)scale.scale, k->isa, i);
        assert_true(scale.scale > 0 || v == (double)x[i]);
        assert_true(x[i] != min || scale.scale == 0 || q[i] == -128);
        assert_true(x[i] != max || scale.scale == 0 || q[i] == 127);
    }
    free(x - 1);
    free(q);
    free(ref_q);
}

static void rows_are_quantised_alike_everywhere(void **state)
{
    each_size(quantize_row);
}

static void activations_are_quantised_alike_everywhere(void **state)
{
    each_size(q8);
}

static void rotate(const struct sl_kernels *k, uint32_t half, uint64_t *state)
{
    float *x = floats(2 * half + 1, 1, 2, state),
          *c = floats(half, 1, 1, state);
    float *s = floats(half, 1, 1, state), *old = floats(2 * half, 1, 0, state);

    memcpy(old, x, 2 * half * sizeof *x);
    x[2 * half] = GUARD;
    k->rope(x, c, s, half);
    assert_true(x[2 * half] == GUARD);
    for (uint32_t i = 0; i < half; i++) {
        double a = (double)old[i], b = (double)old[i + half];

        near_to((double)x[i], a * (double)c[i] - b * (double)s[i], 5e-7, k->isa,
                i);
        near_to((double)x[i + half], b * (double)c[i] + a * (double)s[i], 5e-7,
                k->isa, i);
    }
    free(x - 1);
    free(c - 1);
    free(s - 1);
    free(old - 1);
}

/* Neighbours turn as distant pairs do, bit by bit, and what lies behind the
 * rotated part stays. */
static void rotate_neighbours(const struct sl_kernels *k, uint32_t half,
                              uint64_t *state)
{
    float *x = floats(2 * half + 1, 1, 2, state),
          *apart = floats(2 * half, 1, 0, state);
    float *c = floats(half, 1, 1, state), *s = floats(half, 1, 1, state);
    struct sl_kernels ref;

    sl_kernels_init(&ref, SL_ISA_REF);
    for (uint32_t i = 0; i < half; i++) {
        apart[i] = x[2 * i];
        apart[i + half] = x[2 * i + 1];
    }
    x[2 * half] = GUARD;
    k->rope_inter(x, c, s, half);
    ref.rope(apart, c, s, half);
    assert_true(x[2 * half] == GUARD);
    for (uint32_t i = 0; i < half; i++)
        if (x[2 * i] != apart[i] || x[2 * i + 1] != apart[i + half])
            fail_msg("%s: pair %u of %u is (%g, %g), not (%g, %g)", k->isa, i,
                     half, (double)x[2 * i], (double)x[2 * i + 1],
                     (double)apart[i], (double)apart[i + half]);
    free(x - 1);
    free(apart - 1);
    free(c - 1);
    free(s - 1);
}

static void pairs_are_rotated(void **state)
{
    each_size(rotate);
    each_size(rotate_neighbours);
}

static double gelu_erf(double x)
{
    return 0.5 * x * erfc(-x / sqrt(2));
}

static double silu(double x)
{
    return x / (1 + exp(-x));
}

static double gelu_tanh(double x)
{
    return 0.5 * x * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
}

static void activate(const struct sl_kernels *k, uint32_t n, uint64_t *state)
{
    float *a = floats(n, 1, 2, state), *b = floats(n, 1, 12, state);
    float *y = floats(n + 1, 1, 0, state), *z = floats(n, 1, 0, state);

    y[n] = GUARD;
    k->geglu(y, a, b, n);
    assert_true(y[n] == GUARD);
    for (uint32_t i = 0; i < n; i++) {
        double g = gelu_erf((double)b[i]);

        near_to((double)y[i], (double)a[i] * g, 2e-7 * (0.5 + fabs(g)) * 2,
                k->isa, i);
    }
    memcpy(z, a, n * sizeof *z);
    k->geglu(z, z, b, n);
    assert_memory_equal(z, y, n * sizeof *z);
    memcpy(z, b, n * sizeof *z);
    k->geglu(z, a, z, n);
    assert_memory_equal(z, y, n * sizeof *z);

    k->swiglu(y, b, a, n);
    assert_true(y[n] == GUARD);
    for (uint32_t i = 0; i < n; i++) {
        double g = silu((double)b[i]) * (double)a[i];

        near_to((double)y[i], g, 5e-7 * fabs(g), k->isa, i);
    }
    memcpy(z, b, n * sizeof *z);
    k->swiglu(z, z, a, n);
    assert_memory_equal(z, y, n * sizeof *z);
    memcpy(z, a, n * sizeof *z);
    k->swiglu(z, b, z, n);
    assert_memory_equal(z, y, n * sizeof *z);

    k->gelu_tanh(y, b, n);
    assert_true(y[n] == GUARD);
    for (uint32_t i = 0; i < n; i++) {
        double g = gelu_tanh((double)b[i]);

        near_to((double)y[i], g, 4e-7 * (0.5 + fabs(g)), k->isa, i);
    }
    k->gelu_tanh(b, b, n);
    assert_memory_equal(b, y, n * sizeof *b);
    free(a - 1);
    free(b - 1);
    free(y - 1);
    free(z - 1);
}

static void activation_functions_are_right(void **state)
{
    each_size(activate);
}

/* The whole range, the far ends included, where a product must neither
 * overflow nor become NaN. */
static void activation_functions_hold_everywhere(void **state)
{
    static const float ends[] = {-3e38f, -1e20f, -1e4f, -100, -20,  -1e-40f,
                                 0,      1e-40f, 20,    1e4f, 1e18f};
    size_t n = 40001;

    for (int isa = SL_ISA_REF; isa <= (int)sl_cpu_best_isa(); isa++) {
        float *x = malloc(n * sizeof *x), *y = malloc(n * sizeof *x);
        float *one = malloc(n * sizeof *one);
        struct sl_kernels k;

        sl_kernels_init(&k, (enum sl_isa)isa);
        for (size_t i = 0; i < n; i++) {
            x[i] = i < sizeof ends / sizeof *ends ? ends[i]
                                                  : ((float)i - 20000) / 2000;
            one[i] = 1;
        }
        k.geglu(y, one, x, n);
        for (size_t i = 0; i < n; i++)
            near_to((double)y[i], gelu_erf((double)x[i]),
                    2e-7 * fmax(0.5, fabs((double)x[i])), k.isa, i);
        k.gelu_tanh(y, x, n);
        for (size_t i = 0; i < n; i++)
            near_to((double)y[i], gelu_tanh((double)x[i]),
                    2e-7 * fmax(1, fabs((double)x[i])), k.isa, i);
        /* Relatively, down to where floats become denormal. */
        k.swiglu(y, x, one, n);
        for (size_t i = 0; i < n; i++)
            near_to((double)y[i], silu((double)x[i]),
                    5e-7 * fabs(silu((double)x[i])) + 2e-36, k.isa, i);
        free(x);
        free(y);
        free(one);
    }
}

static void sum(const struct sl_kernels *k, uint32_t n, uint64_t *state)
{
    float *y = floats(n + 1, 1, 2, state), *b = floats(n, 1, 2, state);
    float *old = floats(n, 0, 0, state);

    y[n] = GUARD;
    memcpy(old, y, n * sizeof *old);
    k->add(y, b, n);
    for (uint32_t i = 0; i < n; i++)
        assert_true(y[i] == old[i] + b[i]);
    memcpy(old, y, n * sizeof *old);
    k->scale_add(y, 11.832f, b, n);
    for (uint32_t i = 0; i < n; i++)
        near_to((double)y[i], 11.832 * (double)b[i] + (double)old[i], 4e-6,
                k->isa, i);
    memcpy(old, y, n * sizeof *old);
    k->scale_add(y, 1, b, n);
    for (uint32_t i = 0; i < n; i++)
        assert_true(y[i] == b[i] + old[i]);
    assert_true(y[n] == GUARD);
    free(y - 1);
    free(b - 1);
    free(old);
}

static void sums_are_right(void **state)
{
    each_size(sum);
}

static void halves(const struct sl_kernels *k, uint32_t n, uint64_t *state)
{
    float *x = floats(n, 1, 4, state), *y = floats(n + 1, 1, 0, state);
    uint16_t *h = malloc((n + 1) * sizeof *h);
    static const float special[] = {65519.0f, 65520.0f, -INFINITY, -0.0f,
                                    6e-8f,    2e-8f,    1e-5f};

    for (uint32_t i = 0; i < n; i++)
        if (next(state) % 4 == 0)
            x[i] = special[next(state) % 7];
    h[n] = 0x1234;
    y[n] = GUARD;
    k->f32_to_f16(h, x, n);
    k->f16_to_f32(y, h, n);
    assert_true(h[n] == 0x1234 && y[n] == GUARD);
    for (uint32_t i = 0; i < n; i++) {
        assert_int_equal(h[i], sl_float_to_half(x[i]));
        assert_true(y[i] == sl_half_to_float(h[i]));
    }
    free(x - 1);
    free(y - 1);
    free(h);
}

static void halves_are_those_of_the_base(void **state)
{
    each_size(halves);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layer_norm_is_right),
        cmocka_unit_test(rms_norm_is_right),
        cmocka_unit_test(activations_are_quantised_alike_everywhere),
        cmocka_unit_test(rows_are_quantised_alike_everywhere),
        cmocka_unit_test(pairs_are_rotated),
        cmocka_unit_test(activation_functions_are_right),
        cmocka_unit_test(activation_functions_hold_everywhere),
        cmocka_unit_test(sums_are_right),
        cmocka_unit_test(halves_are_those_of_the_base),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
