/*
 * Norms, activations, rotary positions, conversions and attention of every
 * instruction set, over odd sizes, against sums in double. Arrays end where
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

static void q8(const struct sl_kernels *k, uint32_t n, uint64_t *state)
{
    uint32_t groups = (n + 31) / 32, cols = groups * 32;
    float *x = floats(cols, 1, n % 3 ? 4 : 1e-43f, state);
    float *scale = floats(groups + 1, 0, 0, state), ref_scale[32];
    int8_t *q = malloc(cols + 1), ref_q[1024];
    int32_t sum[33], ref_sum[32], sum_apart[96];
    float apart[96];
    struct sl_kernels ref;

    x[n / 2] *= 50;
    if (n % 5 == 0)
        memset(x, 0, 32 * sizeof *x);
    if (n % 7 == 0)
        x[0] = NAN, x[1] = INFINITY;
    q[cols] = 99;
    scale[groups] = GUARD;
    sum[groups] = 99;
    sl_kernels_init(&ref, SL_ISA_REF);
    k->quantize_q8(q, scale, sum, 1, x, cols);
    ref.quantize_q8(ref_q, ref_scale, ref_sum, 1, x, cols);
    assert_memory_equal(q, ref_q, cols);
    assert_memory_equal(scale, ref_scale, groups * sizeof *scale);
    assert_memory_equal(sum, ref_sum, groups * sizeof *sum);
    assert_true(q[cols] == 99 && sum[groups] == 99 && scale[groups] == GUARD);
    k->quantize_q8(q, apart, sum_apart, 3, x, cols);
    for (uint32_t g = 0; g < groups; g++)
        assert_true(memcmp(&apart[3 * g], &scale[g], 4) == 0 &&
                    sum_apart[3 * g] == sum[g]);
    for (uint32_t g = 0; g < groups && n % 7 != 0; g++) {
        float max = 0;
        int32_t total = 0;

        for (uint32_t c = 32 * g; c < 32 * g + 32; c++) {
            max = fmaxf(max, fabsf(x[c]));
            total += q[c];
            assert_in_range(q[c] + 127, 0, 254);
            near_to((double)q[c] * (double)scale[g], (double)x[c],
                    0.5001 * (double)scale[g] + 1.5e-43, k->isa, c);
        }
        assert_true(scale[g] == max / 127);
        assert_int_equal(sum[g], total);
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

static void pairs_are_rotated(void **state)
{
    each_size(rotate);
}

static double gelu_erf(double x)
{
    return 0.5 * x * erfc(-x / sqrt(2));
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

struct kv {
    void *pages[128];
    uint32_t n_pages;
};

/* Pages that end with their allocation; values also into flat (n, d). */
static void kv_init(struct kv *kv, float *flat, uint32_t n, uint32_t d,
                    uint32_t page_len, enum sl_kv_kind kind, uint64_t *state)
{
    size_t row_bytes = d * (size_t)(kind == SL_KV_F16 ? 2 : 4);

    if (kind == SL_KV_INT8)
        row_bytes = d + sizeof(struct sl_kv_scale);

    kv->n_pages = (n + page_len - 1) / page_len;
    for (uint32_t i = 0; i < kv->n_pages; i++) {
        kv->pages[i] = calloc(page_len, row_bytes);
        assert_non_null(kv->pages[i]);
    }
    for (uint32_t j = 0; j < n; j++) {
        uint8_t *page = kv->pages[j / page_len];
        struct sl_kv_scale scale = {(1 + uniform(state)) / 64, uniform(state)};

        if (kind == SL_KV_INT8)
            memcpy(page + (size_t)page_len * d + j % page_len * sizeof scale,
                   &scale, sizeof scale);
        for (uint32_t i = 0; i < d; i++) {
            size_t at = (size_t)(j % page_len) * d + i;
            float v = 2 * uniform(state);

            if (kind == SL_KV_INT8) {
                int8_t q = (int8_t)(next(state) % 255 - 127);

                memcpy(page + at, &q, 1);
                v = (float)q * scale.scale + scale.offset;
            } else if (kind == SL_KV_F16) {
                uint16_t h = sl_float_to_half(v);

                ((uint16_t *)(void *)page)[at] = h;
                v = sl_half_to_float(h);
            } else {
                ((float *)(void *)page)[at] = v;
            }
            flat[(size_t)j * d + i] = v;
        }
    }
}

static void kv_fini(struct kv *kv)
{
    for (uint32_t i = 0; i < kv->n_pages; i++)
        free(kv->pages[i]);
}

static void check_row(const struct sl_attend_args *a, size_t row,
                      const float *k, const float *v, const char *isa)
{
    double s[128], max = -1e300, total = 0;
    uint32_t n = a->n_keys[row];

    for (uint32_t j = 0; j < n; j++) {
        s[j] = 0;
        for (uint32_t i = 0; i < a->d; i++)
            s[j] += (double)a->q[row * a->q_stride + i] *
                    (double)k[(size_t)j * a->d + i] * (double)a->scale;
        max = fmax(max, s[j]);
    }
    for (uint32_t j = 0; j < n; j++)
        total += s[j] = exp(s[j] - max);
    for (uint32_t i = 0; i < a->d; i++) {
        double want = 0;

        for (uint32_t j = 0; j < n; j++)
            want += s[j] / total * (double)v[(size_t)j * a->d + i];
        near_to((double)a->out[row * a->out_stride + i], want, 5e-6, isa, i);
    }
}

/* The rows of the (n, d) that are in no page, with a gap between. */
static float *new_rows(const float *flat, uint32_t n_paged, uint32_t n,
                       uint32_t d)
{
    float *rows = calloc((size_t)(n - n_paged) * (d + 3) + 1, sizeof *rows);

    assert_non_null(rows);
    for (uint32_t j = n_paged; j < n; j++)
        memcpy(rows + (size_t)(j - n_paged) * (d + 3), flat + (size_t)j * d,
               d * sizeof *rows);
    return rows;
}

static void attend(const struct sl_kernels *kernels, uint32_t d,
                   uint32_t page_len, uint32_t n_paged, enum sl_kv_kind kind,
                   uint64_t *state)
{
    static const uint32_t n_keys[] = {1, 2, 5, 16, 33, 50, 100};
    enum { N = sizeof n_keys / sizeof *n_keys, KEYS = 100 };
    float *k = floats((size_t)KEYS * d, 0, 2, state);
    float *v = floats((size_t)KEYS * d, 0, 2, state);
    float *q = floats((size_t)(N - 1) * (d + 5) + d, 1, 2, state);
    float *out = floats((size_t)N * (d + 1), 1, 0, state);
    float *one = floats(d, 0, 0, state),
          *scores = floats(SL_ATTEND_QUERIES * KEYS, 0, 0, state);
    float *k_new, *v_new;
    struct kv keys, values;
    struct sl_attend_args a = {
        .out = out,
        .out_stride = d + 1,
        .q = q,
        .q_stride = d + 5,
        .n_q = N,
        .n_keys = n_keys,
        .page_len = page_len,
        .d = d,
        .kv_kind = kind,
        .n_paged = n_paged,
        .new_stride = d + 3,
        .scale = 1 / sqrtf((float)d),
        .scores = scores,
    };

    kv_init(&keys, k, n_paged, d, page_len, kind, state);
    kv_init(&values, v, n_paged, d, page_len, kind, state);
    a.k_new = k_new = new_rows(k, n_paged, KEYS, d);
    a.v_new = v_new = new_rows(v, n_paged, KEYS, d);
    a.k_pages = (const void *const *)keys.pages;
    a.v_pages = (const void *const *)values.pages;
    for (size_t i = 0; i < (size_t)N * (d + 1); i++)
        out[i] = GUARD;
    kernels->attend(&a);
    for (size_t row = 0; row < N; row++) {
        struct sl_attend_args b = a;

        check_row(&a, row, k, v, kernels->isa);
        assert_true(out[row * (d + 1) + d] == GUARD);
        b.n_q = 1;
        b.q += row * a.q_stride;
        b.n_keys += row;
        b.out = one;
        kernels->attend(&b);
        assert_memory_equal(one, out + row * (d + 1), d * sizeof *one);
    }
    kv_fini(&keys);
    kv_fini(&values);
    free(k_new);
    free(v_new);
    free(k);
    free(v);
    free(q - 1);
    free(out - 1);
    free(one);
    free(scores);
}

static void attention_is_right(void **state)
{
    static const uint32_t ds[] = {1, 7, 8, 16, 24, 64, 80, 128, 200};
    static const uint32_t pages[] = {1, 3, 16, 128};
    static const uint32_t paged[] = {0, 1, 16, 37, 99, 100};
    uint64_t random = 9;

    for (int isa = SL_ISA_REF; isa <= (int)sl_cpu_best_isa(); isa++) {
        struct sl_kernels k;

        sl_kernels_init(&k, (enum sl_isa)isa);
        for (size_t i = 0; i < sizeof ds / sizeof *ds; i++)
            for (int j = 0; j < 72; j++)
                attend(&k, ds[i], pages[j / 18], paged[j / 3 % 6],
                       (enum sl_kv_kind)(j % 3), &random);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layer_norm_is_right),
        cmocka_unit_test(activations_are_quantised_alike_everywhere),
        cmocka_unit_test(rows_are_quantised_alike_everywhere),
        cmocka_unit_test(pairs_are_rotated),
        cmocka_unit_test(activation_functions_are_right),
        cmocka_unit_test(activation_functions_hold_everywhere),
        cmocka_unit_test(sums_are_right),
        cmocka_unit_test(halves_are_those_of_the_base),
        cmocka_unit_test(attention_is_right),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
