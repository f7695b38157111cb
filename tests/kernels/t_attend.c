/*
 * Attention of every instruction set, over sizes of heads, pages, numbers of
 * keys and groups, against sums in double. Arrays end where their allocation
 * ends; a guard follows each output.
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
    double s[1024], max = -1e300, total = 0;
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

/* The same keys for several heads of queries. */
struct shared {
    struct sl_attend_args a;
    struct kv keys, values;
    float *k, *v, *k_new, *v_new, *q, *out;
};

#define POSITIONS  3
#define GROUP_KEYS 700 /* more than pass by at once where heads are wide */

static void shared_init(struct shared *s, uint32_t d, uint32_t group,
                        enum sl_kv_kind kind, uint64_t *state)
{
    static const uint32_t n_keys[POSITIONS] = {GROUP_KEYS - 3, GROUP_KEYS, 5};
    const uint32_t paged = 530;
    size_t head = d + 3, stride = group * head + 2;

    memset(s, 0, sizeof *s);
    s->k = floats((size_t)GROUP_KEYS * d, 0, 2, state);
    s->v = floats((size_t)GROUP_KEYS * d, 0, 2, state);
    s->q =
        floats((POSITIONS - 1) * stride + (group - 1) * head + d, 1, 2, state);
    s->out = floats(POSITIONS * stride, 1, 0, state);
    for (size_t i = 0; i < POSITIONS * stride; i++)
        s->out[i] = GUARD;
    kv_init(&s->keys, s->k, paged, d, 16, kind, state);
    kv_init(&s->values, s->v, paged, d, 16, kind, state);
    s->k_new = new_rows(s->k, paged, GROUP_KEYS, d);
    s->v_new = new_rows(s->v, paged, GROUP_KEYS, d);
    s->a = (struct sl_attend_args){
        .out = s->out,
        .out_stride = stride,
        .q = s->q,
        .q_stride = stride,
        .n_q = POSITIONS,
        .q_head = head,
        .out_head = head,
        .group = group,
        .n_keys = n_keys,
        .k_pages = (const void *const *)s->keys.pages,
        .v_pages = (const void *const *)s->values.pages,
        .page_len = 16,
        .d = d,
        .kv_kind = kind,
        .n_paged = paged,
        .k_new = s->k_new,
        .v_new = s->v_new,
        .new_stride = d + 3,
        .scale = 1 / sqrtf((float)d),
    };
}

static void shared_fini(struct shared *s)
{
    kv_fini(&s->keys);
    kv_fini(&s->values);
    free(s->k);
    free(s->v);
    free(s->k_new);
    free(s->v_new);
    free(s->q - 1);
    free(s->out - 1);
}

/* Each query of the group has the bits that it has alone, and nothing is
 * written between the heads. */
static void check_shared(const struct sl_kernels *kernels, struct shared *s,
                         uint32_t score_rows, bool with_floats, uint32_t out_d)
{
    struct sl_attend_args *a = &s->a;
    uint32_t rows = score_rows > 0 ? score_rows : SL_ATTEND_QUERIES;
    uint64_t none = 0;
    float *one = floats(a->d, 0, 0, &none);
    float *scores = floats((size_t)rows * GROUP_KEYS, 0, 0, &none);
    float *room = floats(SL_ATTEND_FLOATS, 0, 0, &none);
    uint32_t wanted = out_d > 0 ? out_d : a->d;

    for (size_t i = 0; i < POSITIONS * a->out_stride; i++)
        s->out[i] = GUARD;
    a->scores = scores;
    a->score_rows = score_rows;
    a->floats = room;
    a->n_floats = with_floats ? SL_ATTEND_FLOATS : 0;
    a->out_d = out_d;
    kernels->attend(a);
    for (size_t i = 0; i < POSITIONS * a->out_stride; i++)
        if (i % a->out_stride >= a->group * a->out_head ||
            i % a->out_stride % a->out_head >= wanted)
            assert_true(s->out[i] == GUARD);
    for (size_t i = 0; i < POSITIONS * a->group; i++) {
        struct sl_attend_args b = *a;
        size_t p = i / a->group, head = i % a->group;

        b.n_q = 1;
        b.group = 0;
        b.score_rows = 0;
        b.n_floats = 0;
        b.out_d = 0;
        b.q += p * a->q_stride + head * a->q_head;
        b.n_keys += p;
        b.out = one;
        kernels->attend(&b);
        assert_memory_equal(one,
                            s->out + p * a->out_stride + head * a->out_head,
                            wanted * sizeof *one);
        b.out_stride = 0;
        b.q_stride = 0;
        check_row(&b, 0, s->k, s->v, kernels->isa);
    }
    free(scores);
    free(room);
    free(one);
}

static void heads_that_share_keys_have_the_bits_of_one_alone(void **state)
{
    static const uint32_t ds[] = {8, 24, 75, 80, 128, 256, 576};
    static const uint32_t groups[] = {1, 2, 3, 7, 8, 24};
    static const uint32_t rooms[] = {0, 7, 16, 100};
    uint64_t random = 3;

    for (size_t i = 0; i < sizeof ds / sizeof *ds; i++) {
        for (unsigned j = 0; j < 18; j++) {
            struct shared s;

            shared_init(&s, ds[i], groups[j / 3], (enum sl_kv_kind)(j % 3),
                        &random);
            for (int isa = SL_ISA_REF; isa <= (int)sl_cpu_best_isa(); isa++) {
                struct sl_kernels k;

                sl_kernels_init(&k, (enum sl_isa)isa);
                check_shared(&k, &s, rooms[(i + j + (unsigned)isa) % 4], false,
                             0);
                check_shared(&k, &s, rooms[(i + j + (unsigned)isa) % 4], true,
                             j % 2 == 0 ? ds[i] - ds[i] / 9 : 0);
            }
            shared_fini(&s);
        }
    }
}

static void attention_is_right(void **state)
{
    static const uint32_t ds[] = {1,  7,  8,   16,  24,  64,
                                  80, 96, 112, 128, 200, 256};
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
        cmocka_unit_test(attention_is_right),
        cmocka_unit_test(heads_that_share_keys_have_the_bits_of_one_alone),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
