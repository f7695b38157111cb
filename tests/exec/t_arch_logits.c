#include "config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/arch_models.h"
#include "tests/exec_rig.h"
#include "tests/gpu_rates.h"
#include "tests/plain_lm.h"
#include "tests/support.h"

/* What is computed of every architecture's table is what plain_lm.c computes
 * from its own knowledge. A new architecture is in it by being in the table,
 * and needs a row in plain_kinds.c. */

#define N_IDS   19u
#define CONTEXT 11u /* of them, in models that read it as a whole */

struct passage {
    int32_t ids[N_IDS], positions[N_IDS], blocks[N_IDS];
};

/* A text with a blank at position 4; causal ones just go on. */
static struct passage text_for(const struct sl_hparams *hp)
{
    struct passage t;

    for (uint32_t i = 0; i < N_IDS; i++) {
        bool answer = !hp->causal && i >= CONTEXT;

        t.ids[i] = (int32_t)((i * 37 + 5) % hp->vocab);
        t.positions[i] = answer ? 4 : (int32_t)(hp->causal ? 5 * i : i);
        t.blocks[i] = answer ? (int32_t)(i - CONTEXT) + 1 : 0;
    }
    return t;
}

/* The logits of all positions: a first pass of CONTEXT + 1, the rest by so
 * many at once. (N_IDS, vocab), free it. */
static float *run(const struct sl_runtime_config *config,
                  const struct sl_hparams *hp, uint32_t at_once)
{
    const struct sl_workload load = rig_one_text(N_IDS);
    struct passage t = text_for(hp);
    float *logits = malloc(4ull * N_IDS * hp->vocab);
    struct sl_runtime *rt = rig_start(config, &load);
    struct sl_lm *lm = sl_runtime_lm(rt);
    struct sl_error err;
    uint32_t seq, n = at_once > 1 ? N_IDS : CONTEXT + 1;

    assert_ok(lm->ops->seq_create(lm, &seq, &err), &err);
    for (uint32_t at = 0; at < N_IDS; at += n, n = at_once) {
        struct sl_lm_item it = {
            .seq = seq,
            .ids = t.ids + at,
            .positions = t.positions + at,
            .blocks = hp->position_2d ? t.blocks + at : NULL,
            .n = n,
            .n_context = hp->causal ? 0 : CONTEXT,
            .n_logits = n,
        };

        assert_ok(
            lm->ops->forward(lm, &it, 1, logits + (size_t)at * hp->vocab, &err),
            &err);
    }
    sl_runtime_close(rt);
    return logits;
}

static double *run_plain(const char *path, const struct sl_hparams *hp)
{
    double *logits = malloc(8ull * N_IDS * hp->vocab);
    struct plain_lm *m = plain_lm_open(path);
    struct passage t = text_for(hp);

    assert_int_equal(plain_lm_causal(m), hp->causal);
    plain_lm_forward(m, logits, t.ids, t.positions,
                     hp->position_2d ? t.blocks : NULL, N_IDS,
                     hp->causal ? 0 : CONTEXT);
    if (plain_lm_unread(m) != NULL)
        print_error("plain_kinds.c does not know %s\n", plain_lm_unread(m));
    assert_null(plain_lm_unread(m));
    plain_lm_close(m);
    return logits;
}

/* Within that part of the largest logit. */
static void assert_near(const float *got, const double *want, size_t n,
                        double part, const char *what)
{
    double most = 0, scale = 0;

    for (size_t i = 0; i < n; i++) {
        /* NaN is not <= either */
        most = fabs(got[i] - want[i]) <= most ? most : fabs(got[i] - want[i]);
        scale = fmax(scale, fabs(want[i]));
    }
    if (!(scale > 0.5 && most <= part * scale))
        print_error("%s: off by %g of %g\n", what, most, scale);
    assert_true(scale > 0.5 && most <= part * scale);
}

/* All in one pass, and the answer step by step. */
static void check_logits(const struct test_model *m, size_t n,
                         struct sl_runtime_config config, double part)
{
    struct sl_hparams hp = m->hp;
    char path[ARCH_PATH], what[80];
    double *want;

    config.model = arch_model_write(path, test_dir, m);
    sl_arch_derive(m->arch, &hp);
    want = run_plain(path, &hp);
    for (uint32_t at_once = 1; at_once <= N_IDS; at_once += N_IDS - 1) {
        float *got = run(&config, &hp, at_once);

        snprintf(what, sizeof what, "%s, model %zu in %s, by %u", m->arch->name,
                 n, sl_fmt_name(m->fmt), at_once);
        assert_near(got, want, (size_t)N_IDS * hp.vocab, part, what);
        free(got);
    }
    free(want);
}

static void check_on_the_cpu(const struct test_model *m, size_t n)
{
    struct sl_runtime_config config = {
        .threads = 1 + n % 3,
        .activations = SL_ACTIVATIONS_F32,
        .ram_bytes = n % 2 ? 1ull << 32 : SL_RAM_LEAST,
    };

    check_logits(m, n, config, 1e-4);
}

static void logits_are_those_of_a_plain_implementation(void **state)
{
    const struct sl_arch *arch;

    for (size_t i = 0; (arch = sl_arch_at(i / ARCH_MODELS)) != NULL; i++) {
        struct test_model m = arch_model(arch, i % ARCH_MODELS);

        check_on_the_cpu(&m, i % ARCH_MODELS);
    }
}

static const struct format {
    enum sl_fmt fmt;
    uint32_t group_cols;
    enum sl_fmt head_fmt;
    uint32_t head_group;
} formats[] = {
    {SL_FMT_F16, 0, SL_FMT_F16, 0},     {SL_FMT_BF16, 0, SL_FMT_BF16, 0},
    {SL_FMT_INT8, 0, SL_FMT_F16, 0},    {SL_FMT_INT8, 32, SL_FMT_INT8, 64},
    {SL_FMT_INT4, 0, SL_FMT_INT8, 64},  {SL_FMT_INT4, 64, SL_FMT_INT8, 64},
    {SL_FMT_INT4, 32, SL_FMT_INT8, 64},
};

#define N_FORMATS (sizeof formats / sizeof *formats)

static struct test_model stored_as(struct test_model m, const struct format *f)
{
    m.fmt = f->fmt;
    m.group_cols = f->group_cols;
    m.head_fmt = f->head_fmt;
    m.head_group = f->head_group;
    return m;
}

/* Both know the same decoded weights. A sanitizer finds in some of the formats
 * what it finds in all. */
static void so_they_are_in_every_format(void **state)
{
    const struct sl_arch *arch;

    for (size_t a = 0; (arch = sl_arch_at(a)) != NULL; a++) {
        for (size_t f = 0; f < N_FORMATS; f += TEST_SANITIZED ? 3 : 1) {
            size_t n = (a + f) % ARCH_MODELS;
            struct test_model m = stored_as(arch_model(arch, n), &formats[f]);

            check_on_the_cpu(&m, n);
        }
    }
}

static void check_ways(const struct sl_runtime_config *config,
                       const struct sl_hparams *hp)
{
    static const struct {
        uint64_t ram_bytes;
        unsigned threads;
        enum sl_io_kind io;
    } ways[] = {
        {1ull << 32, 1, SL_IO_AUTO},
        {SL_RAM_LEAST, 1, SL_IO_PREAD},
        {SL_RAM_LEAST, 3, SL_IO_AUTO},
        {1ull << 32, 2, SL_IO_PREAD},
    };
    float *first[2] = {NULL, NULL};

    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        struct sl_runtime_config c = *config;

        c.ram_bytes = ways[i].ram_bytes;
        c.threads = ways[i].threads;
        c.io = ways[i].io;
        for (uint32_t steps = 0; steps < 2; steps++) {
            float *got = run(&c, hp, steps ? 1 : N_IDS);

            if (first[steps] == NULL) {
                first[steps] = got;
                continue;
            }
            assert_memory_equal(got, first[steps], 4ull * N_IDS * hp->vocab);
            free(got);
        }
    }
    free(first[0]);
    free(first[1]);
}

static void budgets_threads_and_readers_change_no_bit(void **state)
{
    const struct sl_arch *arch;

    for (size_t a = 0; (arch = sl_arch_at(a)) != NULL; a++) {
        for (size_t f = 0; f < N_FORMATS; f += TEST_SANITIZED ? 6 : 3) {
            struct test_model m =
                stored_as(arch_model(arch, (a + f) % ARCH_MODELS), &formats[f]);
            struct sl_hparams hp = m.hp;
            char path[ARCH_PATH];
            struct sl_runtime_config config = {
                .model = arch_model_write(path, test_dir, &m)};

            sl_arch_derive(arch, &hp);
            check_ways(&config, &hp);
        }
    }
}

#ifdef HAVE_CUDA
/* It rounds inputs of products to FP16: within a hundredth of the largest
 * logit, as in t_gpu. */
static void a_gpu_gives_nearly_the_same(void **state)
{
    static const size_t in[] = {0, 3, 6}; /* of formats */
    const struct sl_runtime_config config = {
        .threads = 2,
        .ram_bytes = 1ull << 32,
        .device = SL_DEVICE_CUDA,
        .engine = SL_ENGINE_RULE_GPU,
        .rates = &test_gpu_rates,
    };
    const struct sl_arch *arch;

    /* A sanitizer has a fiber for each thread: other models of each. */
    for (size_t i = 0; (arch = sl_arch_at(i / ARCH_MODELS)) != NULL;
         i += TEST_SANITIZED ? ARCH_MODELS + 1 : 1) {
        size_t n = i % ARCH_MODELS;
        struct test_model m = arch_model(arch, n);

        if (m.hp.n_experts > 0)
            continue; /* not by --engine gpu: t_gpu_mixture has them */
        m = stored_as(m, &formats[in[i % 3]]);
        check_logits(&m, n, config, 0.01);
    }
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_are_those_of_a_plain_implementation),
        cmocka_unit_test(so_they_are_in_every_format),
        cmocka_unit_test(budgets_threads_and_readers_change_no_bit),
#ifdef HAVE_CUDA
        cmocka_unit_test(a_gpu_gives_nearly_the_same),
#endif
    };
    size_t n = sizeof tests / sizeof *tests;

#ifdef HAVE_CUDA
    n -= test_has_gpu() ? 0 : 1;
#endif
    return _cmocka_run_group_tests("tests", tests, n, test_dir_set_up,
                                   test_dir_tear_down);
}
