#include "config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cudasim/cudasim.h"
#include "tests/exec_rig.h"
#include "tests/gpu_rates.h"
#include "tests/logits_run.h"
#include "tests/support.h"

/* Logits of GLM-4.7-Flash's kind (golden/H_family/glm47_flash) with the
 * simulated GPU, which attends to its latents: against the reference
 * implementation's, and against the CPU's where weights are packed. */

/* A trace of routes (src/exec/route_trace.h) as it is in the file. */
struct routes {
    uint8_t *data;
    size_t n;
};

struct ran {
    float *logits; /* (n, vocab) */
    uint32_t vocab;
    struct routes routes;
};

/* With cores so slow that the GPU gets all it can compute. */
static struct sl_runtime_config on_gpu(const char *path)
{
    static struct sl_rates rates;
    struct sl_runtime_config c = rig_on_gpu(path);

    rates = test_gpu_rates;
    rates.dram_bps = 1e8;
    rates.worker[SL_HOST].ops_per_s = 1e9;
    c.rates = &rates;
    c.engine = SL_ENGINE_RULE_AUTO;
    c.no_usage = true;
    return c;
}

static struct sl_runtime_config on_cpu(const char *path)
{
    struct sl_runtime_config c = on_gpu(path);

    c.device = SL_DEVICE_CPU;
    c.activations = SL_ACTIVATIONS_F32;
    return c;
}

/* The first k ids in one pass, the others one by one. */
static struct ran run_ids(struct sl_runtime_config c,
                          const struct test_array *ids, uint32_t k)
{
    uint32_t n = (uint32_t)ids->n, seq;
    const struct sl_workload load = rig_one_text(n);
    struct ran ran = {0};
    struct sl_runtime *rt;
    struct sl_lm *lm;
    struct sl_error err;
    char path[1100];
    int32_t *positions = malloc(n * sizeof *positions);

    snprintf(path, sizeof path, "%s/routes", test_dir);
    c.route_trace = path;
    rt = rig_start(&c, &load);
    assert_int_equal(
        sl_runtime_vram(rt)->n_layers,
        c.device == SL_DEVICE_CUDA ? sl_runtime_modelfile(rt)->hp.n_layers : 0);
    lm = sl_runtime_lm(rt);
    ran.vocab = lm->vocab;
    ran.logits = malloc((size_t)n * lm->vocab * sizeof *ran.logits);
    assert_ok(lm->ops->seq_create(lm, &seq, &err), &err);
    for (uint32_t i = 0; i < n; i++)
        positions[i] = (int32_t)i;
    for (uint32_t at = 0; at < n; at += k, k = 1) {
        struct sl_lm_item it = {.seq = seq,
                                .ids = (const int32_t *)ids->data + at,
                                .positions = positions + at};

        it.n = it.n_logits = k;
        assert_ok(lm->ops->forward(lm, &it, 1,
                                   ran.logits + (size_t)at * lm->vocab, &err),
                  &err);
    }
    sl_runtime_close(rt);
    free(positions);
    ran.routes.data = test_read_file(path, &ran.routes.n);
    assert_int_equal(cudasim_reset(), 0);
    return ran;
}

static void ran_fini(struct ran *ran)
{
    free(ran->logits);
    free(ran->routes.data);
}

/* Rows before the first whose experts are others, with passes of one
 * position: each layer's experts take as many bytes then. A choice is
 * discontinuous: behind it nothing need be near. */
static uint32_t alike(const struct ran *a, const struct ran *b,
                      const struct sl_hparams *hp)
{
    enum { HEAD = 24, STEP = 6, EXPERT = 4 };
    size_t at = HEAD, pass = (size_t)(hp->n_layers - hp->n_dense_layers) *
                             (STEP + EXPERT * hp->n_experts_used);

    assert_true(a->routes.n > HEAD && (a->routes.n - HEAD) % pass == 0);
    assert_int_equal(a->routes.n, b->routes.n);
    while (at < a->routes.n && a->routes.data[at] == b->routes.data[at])
        at++;
    return (uint32_t)((at - HEAD) / pass);
}

static void assert_rows_near(const struct ran *got, const struct ran *want,
                             uint32_t rows, const char *what)
{
    double most = 0, scale = 0;

    for (size_t i = 0; i < (size_t)rows * got->vocab; i++) {
        double off = fabs((double)got->logits[i] - (double)want->logits[i]);

        most = off <= most ? most : off;
        scale = fmax(scale, fabs((double)want->logits[i]));
    }
    if (!(most <= 0.01 * scale))
        print_error("%s: off by %g of %g in %u rows\n", what, most, scale,
                    rows);
    assert_true(rows == 0 || most <= 0.01 * scale);
}

/* Gives the rows whose experts were the CPU's. */
static uint32_t check_case(const char *path, const struct sl_hparams *hp,
                           const struct test_array *ids, const char *what)
{
    uint32_t n = (uint32_t)ids->n, rows;
    struct ran cpu = run_ids(on_cpu(path), ids, 1);
    struct ran gpu = run_ids(on_gpu(path), ids, 1);
    struct ran again = run_ids(on_gpu(path), ids, 1);
    struct ran whole = run_ids(on_gpu(path), ids, n / 2);

    assert_memory_equal(again.logits, gpu.logits, 4ul * n * gpu.vocab);
    rows = alike(&gpu, &cpu, hp);
    assert_rows_near(&gpu, &cpu, rows, what);
    if (rows == n)
        assert_rows_near(&whole, &cpu, n, what);
    ran_fini(&cpu);
    ran_fini(&gpu);
    ran_fini(&again);
    ran_fini(&whole);
    return rows;
}

/* The first n_cases: the third is long. */
static void check_quant(const char *quant, size_t n_cases)
{
    static const char *const cases[] = {"a", "b", "c"};
    char path[1024], file[1100], key[32], what[64];
    uint32_t rows = 0, n = 0;
    struct sl_modelfile mf;
    struct sl_error err;
    struct test_npz *z;

    if (test_variant(path, "golden/H_family/glm47_flash/hf") == NULL)
        return;
    run_sluice(test_dir,
               "convert -q --force --quant %s -o '%s/model.gguf' '%s'", quant,
               test_dir, path);
    z = test_npz_open(
        test_shared(path, "golden/H_family/glm47_flash/cases.npz"));
    snprintf(file, sizeof file, "%s/model.gguf", test_dir);
    assert_ok(sl_modelfile_open(&mf, file, &err), &err);
    for (size_t i = 0; i < n_cases; i++) {
        struct test_array ids;

        snprintf(key, sizeof key, "%s.ids", cases[i]);
        snprintf(what, sizeof what, "%s, case %s", quant, cases[i]);
        test_npz_get(z, key, &ids);
        rows += check_case(file, &mf.hp, &ids, what);
        n += (uint32_t)ids.n;
        test_array_fini(&ids);
    }
    assert_true(rows > n / 2);
    sl_modelfile_close(&mf);
    test_npz_close(z);
}

static void floats_are_near(void **state)
{
    check_quant("f32", TEST_SANITIZED ? 2 : 3);
    if (!TEST_SANITIZED)
        check_quant("bf16", 2);
}

static void packed_weights_are_near(void **state)
{
    static const char *const quants[] = {"int4-g32", "int8", "int8-g32",
                                         "int4"};

    for (size_t i = 0; i < (TEST_SANITIZED ? 1 : 4); i++)
        check_quant(quants[i], 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(floats_are_near),
        cmocka_unit_test(packed_weights_are_near),
    };

    return cmocka_run_group_tests(tests, test_dir_set_up, test_dir_tear_down);
}
