#include "config.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cudasim/cudasim.h"
#include "src/base/bytes.h"
#include "tests/exec_rig.h"
#include "tests/gpu_rates.h"
#include "tests/support.h"

/* Whole passes on the simulated GPU: against an implementation of its own,
 * over budgets, divided between CPU and GPU, with every call failing once. */

#define N_IDS 18u

static const struct shape shapes[] = {
    {"f16", 2, 64, 88, 4, 160, true, false, SL_FMT_F16, 0, 0, SL_FMT_F16, 0},
    {"f32", 1, 64, 172, 4, 97, true, false, SL_FMT_F32, 0, 0, SL_FMT_F32, 0},
    {"bf16", 2, 64, 88, 4, 160, true, false, SL_FMT_BF16, 0, 0, SL_FMT_BF16, 0},
    {"2-D", 2, 64, 96, 4, 160, true, true, SL_FMT_F16, 0, 0, SL_FMT_F16, 0},
    {"int8", 2, 64, 96, 4, 160, true, false, SL_FMT_INT8, 0, 0, SL_FMT_F16, 0},
    {"int4", 2, 64, 96, 2, 161, true, false, SL_FMT_INT4, 0, 0, SL_FMT_F16, 0},
    {"int4 in two shards", 2, 64, 128, 2, 160, true, false, SL_FMT_INT4, 0, 2,
     SL_FMT_F16, 0},
    {"int8-g32", 2, 64, 88, 4, 160, true, false, SL_FMT_INT8, 32, 0,
     SL_FMT_INT8, 64},
    {"int4-g64", 2, 96, 160, 3, 200, true, false, SL_FMT_INT4, 64, 0,
     SL_FMT_INT8, 64},
    {"int4-g32 no GLU 2-D", 2, 64, 96, 2, 160, false, true, SL_FMT_INT4, 32, 0,
     SL_FMT_INT8, 64},
};

#define N_SHAPES (sizeof shapes / sizeof *shapes)

/* Large enough that budgets can differ. */
static const struct shape large = {
    "int4-g64", 8,           256, 704, 8,           2048, true,
    false,      SL_FMT_INT4, 64,  0,   SL_FMT_INT8, 64};

static float *steps(const struct sl_runtime_config *config,
                    const struct shape *s)
{
    float *logits = rig_steps(config, s, N_IDS);

    assert_int_equal(cudasim_reset(), 0);
    return logits;
}

static float *one_pass(const struct sl_runtime_config *config,
                       const struct shape *s)
{
    float *logits = rig_one_pass(config, s, N_IDS);

    assert_int_equal(cudasim_reset(), 0);
    return logits;
}

static void logits_match_a_plain_implementation(void **state)
{
    for (size_t i = 0; i < N_SHAPES; i++) {
        const struct shape *s = &shapes[i];
        char path[1100];
        struct sl_runtime_config config =
            rig_on_gpu(rig_model(path, test_dir, s));
        double *want = rig_plain(path, s, N_IDS);
        float *got = one_pass(&config, s);

        rig_assert_near(got, want, (size_t)N_IDS * s->vocab, s->what);
        free(got);
        got = steps(&config, s);
        rig_assert_near(got, want + (size_t)RIG_CONTEXT * s->vocab,
                        (size_t)(N_IDS - RIG_CONTEXT) * s->vocab, s->what);
        free(got);
        free(want);
    }
}

/* --- budgets ------------------------------------------------------------- */

static void the_budget_changes_no_bit(void **state)
{
    const struct shape *s = &large;
    char path[1100];
    struct sl_runtime_config config = rig_on_gpu(rig_model(path, test_dir, s));
    size_t bytes = 4ull * (N_IDS - RIG_CONTEXT) * s->vocab;
    uint64_t streamed;
    struct sl_vram all = rig_planned(&config, N_IDS, &streamed);
    float *want = steps(&config, s);

    assert_int_equal(streamed, 0);
    assert_true(all.residents > 0 && all.ring == 0);
    for (unsigned turn = 0; turn < 4; turn++) {
        struct sl_vram v;
        float *got;

        config.vram_bytes = all.least + turn * ((all.residents / 8) & ~4095ull);
        v = rig_planned(&config, N_IDS, &streamed);
        assert_true(v.total <= config.vram_bytes);
        assert_true(v.residents < all.residents && v.ring > 0);
        got = steps(&config, s);
        assert_memory_equal(got, want, bytes);
        free(got);
    }
    free(want);
}

/* How often a prompt and n_steps tokens behind it wait for the device. */
static uint64_t waits_of(struct sl_runtime *rt, const struct shape *s,
                         uint32_t n_steps, float *logits)
{
    uint64_t before = cudasim_calls("cudaEventSynchronize");
    struct sl_error err;

    assert_ok(rig_run_steps(rt, s, RIG_CONTEXT + 1 + n_steps, logits, &err),
              &err);
    return cudasim_calls("cudaEventSynchronize") - before;
}

/* With nothing streamed, for the logits; no stage is waited for. The one copy
 * from memory that is not pinned is that of the vectors, before the first
 * pass. */
static void a_token_waits_for_the_device_at_its_end_alone(void **state)
{
    struct sl_workload load = rig_one_text(N_IDS);
    const struct shape *s = &large;
    char path[1100];
    struct sl_runtime_config config = rig_on_gpu(rig_model(path, test_dir, s));
    float *logits = malloc(4ull * N_IDS * s->vocab);
    struct sl_runtime *rt;
    uint64_t pageable;

    load.n_sequences = 3;
    rt = rig_start(&config, &load);
    assert_int_equal(sl_runtime_plan_made(rt)->streamed_bytes, 0);
    pageable = cudasim_pageable_copies();
    assert_true(pageable <= 1);
    for (int i = 0; i < 3; i++) /* brings the residents */
        waits_of(rt, s, 0, logits);
    assert_int_equal(waits_of(rt, s, 0, logits), 1);
    assert_int_equal(waits_of(rt, s, 3, logits), 4);
    assert_int_equal(cudasim_pageable_copies(), pageable);
    sl_runtime_close(rt);
    assert_int_equal(cudasim_reset(), 0);
    free(logits);
}

static void a_budget_that_is_too_small_names_the_least(void **state)
{
    const struct sl_workload one_text = rig_one_text(N_IDS);
    char path[1100], text[64];
    struct sl_runtime_config config =
        rig_on_gpu(rig_model(path, test_dir, &large));
    uint64_t streamed;
    uint64_t least = rig_planned(&config, N_IDS, &streamed).least;
    struct sl_runtime *rt;
    struct sl_error err;

    config.vram_bytes = least - (256u << 10);
    assert_ok(sl_runtime_open(&rt, &config, &err), &err);
    assert_int_equal(sl_runtime_plan(rt, &one_text, &err), -1);
    assert_int_equal(err.code, SL_ERR_BUDGET);
    snprintf(text, sizeof text, "(--vram %lluK)",
             (unsigned long long)least >> 10);
    assert_non_null(strstr(err.msg, text));
    sl_runtime_close(rt);
}

static void what_is_free_can_be_shared_with_another_run(void **state)
{
    char path[1100];
    struct sl_runtime_config config =
        rig_on_gpu(rig_model(path, test_dir, &large));
    struct cudasim_config c;
    uint64_t streamed, all;

    cudasim_get_config(&c);
    config.vram_bytes = SL_VRAM_AUTO;
    all = rig_planned(&config, N_IDS, &streamed).budget - c.context_bytes;
    config.vram_parts = 2;
    assert_int_equal(rig_planned(&config, N_IDS, &streamed).budget,
                     c.context_bytes + all / 2);
}

/* What a run takes of the device's memory at any time is within the budget:
 * a device that has no more is enough. */
static void no_more_than_the_budget_is_taken(void **state)
{
    char path[1100];
    struct sl_runtime_config config =
        rig_on_gpu(rig_model(path, test_dir, &large));
    struct cudasim_config before, small;
    uint64_t streamed;
    struct sl_vram v = rig_planned(&config, N_IDS, &streamed);

    cudasim_get_config(&before);
    small = before;
    small.context_bytes = (size_t)(v.context - v.budget / 64);
    config.vram_bytes = v.least;
    small.memory_bytes = v.least;
    cudasim_set_config(&small);
    free(steps(&config, &large));
    cudasim_set_config(&before);
}

/* --- the machine divided ------------------------------------------------- */

/* The cores read faster than PCIe copies, but multiply slowly. */
static const struct sl_rates fast_cores = {
    .disk_bps = 3e9,
    .dram_bps = 40e9,
    .worker[SL_HOST].ops_per_s = 20e9,
    .worker[SL_DEVICE].link_bps = 2e9,
    .worker[SL_DEVICE].link_latency_s = 1e-6,
    .worker[SL_DEVICE].memory_bps = 500e9,
    .worker[SL_DEVICE].ops_per_s = 40e12,
};

/* VRAM for some of the weights, RAM for the others: the CPU decodes these,
 * and a prompt goes through the GPU, which hands keys and values back. */
static struct sl_runtime_config divided(const char *path)
{
    struct sl_runtime_config config = rig_on_gpu(path);
    uint64_t streamed;
    struct sl_vram all = rig_planned(&config, N_IDS, &streamed);

    config.rates = &fast_cores;
    config.engine = SL_ENGINE_RULE_AUTO;
    config.vram_bytes = all.least + ((all.residents / 4) & ~4095ull);
    config.activations = SL_ACTIVATIONS_F32;
    config.kv_set = true;
    return config;
}

static void cpu_and_gpu_share_the_stages(void **state)
{
    const struct sl_workload one_text = rig_one_text(N_IDS);
    static const enum sl_kv_kind kinds[] = {SL_KV_F32, SL_KV_F16, SL_KV_INT8};
    const struct shape *s = &large;
    char path[1100];
    struct sl_runtime_config config = divided(rig_model(path, test_dir, s));
    double *want = rig_plain(path, s, N_IDS);

    for (size_t i = 0; i < 3; i++) {
        struct sl_runtime *rt;
        size_t decode[SL_WORKERS], prefill[SL_WORKERS];
        float *got = malloc(4ull * N_IDS * s->vocab);
        struct sl_error err;

        config.kv = kinds[i];
        rt = rig_start(&config, &one_text);
        rig_count(sl_runtime_plan_made(rt), SL_PHASE_DECODE, decode);
        rig_count(sl_runtime_plan_made(rt), SL_PHASE_PREFILL, prefill);
        assert_true(decode[SL_HOST] > 0 && decode[SL_DEVICE] > 0);
        assert_true(prefill[SL_DEVICE] > decode[SL_DEVICE]);
        assert_true(sl_runtime_plan_made(rt)->prefill_from <= RIG_CONTEXT + 1);
        assert_ok(rig_run_steps(rt, s, N_IDS, got, &err), &err);
        sl_runtime_close(rt);
        assert_int_equal(cudasim_reset(), 0);
        rig_assert_near(got, want + (size_t)RIG_CONTEXT * s->vocab,
                        (size_t)(N_IDS - RIG_CONTEXT) * s->vocab, "divided");
        free(got);
    }
    free(want);
}

static void assert_nearly_same(const float *alone, const float *together,
                               uint32_t vocab)
{
    double scale = 0, off = 0;

    for (uint32_t v = 0; v < vocab; v++) {
        off = fmax(off, fabs(alone[v] - together[v]));
        scale = fmax(scale, fabs(alone[v]));
    }
    assert_true(scale > 0.1 && off <= 2e-3 * scale);
}

/* Several texts in one pass, a fork of one of them, then steps of all: as
 * each alone, but for the order of sums in passes of different sizes. */
static void sequences_do_not_see_each_other(void **state)
{
    const struct shape *s = &shapes[7];
    char path[1100];
    struct sl_runtime_config config = rig_on_gpu(rig_model(path, test_dir, s));

    rig_sequences(&config, s, N_IDS, assert_nearly_same);
    assert_int_equal(cudasim_reset(), 0);
}

/* An interrupted pass leaves the stream, the upload ring and the queues in its
 * midst: what comes next must find them where it begins. */
static void an_interrupted_model_goes_on_with_the_same_bits(void **state)
{
    const struct shape *s = &large;
    char path[1100];
    struct sl_runtime_config config = rig_on_gpu(rig_model(path, test_dir, s));
    uint64_t streamed;

    config.vram_bytes = rig_planned(&config, N_IDS, &streamed).least;
    assert_true(rig_interrupted(&config, s, N_IDS, 2, 3000) > 0);
    assert_int_equal(cudasim_reset(), 0);
    config = divided(path);
    assert_true(rig_interrupted(&config, s, N_IDS, 2, 3000) > 0);
    assert_int_equal(cudasim_reset(), 0);
}

/* --- another thread ------------------------------------------------------ */

struct started {
    struct sl_runtime *rt;
    const struct shape *s;
    float *logits;
};

static void *run_it(void *arg)
{
    struct started *t = arg;
    struct sl_workload load = rig_one_text(N_IDS);
    struct sl_error err;

    assert_ok(sl_runtime_start(t->rt, &load, &err), &err);
    assert_ok(rig_run_steps(t->rt, t->s, N_IDS, t->logits, &err), &err);
    return NULL;
}

/* As a server's runs: who ends it is not who ran it. A thread's device is the
 * first until it says which it wants. */
static void another_thread_ends_what_ran_on_the_second_device(void **state)
{
    const struct shape *s = &shapes[0];
    char path[1100], text[400];
    struct sl_runtime_config config = rig_on_gpu(rig_model(path, test_dir, s));
    size_t bytes = 4ull * (N_IDS - RIG_CONTEXT) * s->vocab;
    struct started t = {.s = s, .logits = malloc(bytes)};
    float *want = steps(&config, s);
    struct cudasim_config machine;
    struct sl_error err;
    pthread_t thread;

    cudasim_get_config(&machine);
    machine.n_devices = 2;
    cudasim_set_config(&machine);
    config.device_ordinal = 1;
    assert_ok(sl_runtime_open(&t.rt, &config, &err), &err);
    assert_int_equal(pthread_create(&thread, NULL, run_it, &t), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    sl_runtime_close(t.rt);
    assert_string_equal(cudasim_fault(text, sizeof text), "");
    assert_memory_equal(t.logits, want, bytes);
    assert_int_equal(cudasim_reset(), 0);
    free(t.logits);
    free(want);
}

/* --- faults -------------------------------------------------------------- */

/* A context with its first answer, and a step. */
static int two_passes(struct sl_runtime *rt, const struct shape *s,
                      float *logits, struct sl_error *err)
{
    return rig_run_steps(rt, s, RIG_CONTEXT + 2, logits, err);
}

/* The same, then a step of the text and of its fork, which begins with a copy
 * of the page that both were to write to. */
static int step_of_a_fork(struct sl_runtime *rt, const struct shape *s,
                          float *logits, struct sl_error *err)
{
    struct text t = text_of(s, 0), other = text_of(s, 1);
    struct sl_lm *lm = sl_runtime_lm(rt);
    struct sl_lm_item items[2];
    uint32_t seq, fork;

    if (lm->ops->seq_create(lm, &seq, err) != 0)
        return -1;
    items[0] = rig_item(s, &t, seq, 0, RIG_CONTEXT + 1, 1);
    if (lm->ops->forward(lm, items, 1, logits, err) != 0 ||
        lm->ops->seq_fork(lm, &fork, seq, err) != 0)
        return -1;
    items[0] = rig_item(s, &t, seq, RIG_CONTEXT + 1, RIG_CONTEXT + 2, 1);
    items[1] = rig_item(s, &other, fork, RIG_CONTEXT + 1, RIG_CONTEXT + 2, 1);
    return lm->ops->forward(lm, items, 2, logits, err);
}

struct faulty_run {
    struct sl_runtime_config config;
    const struct shape *s;
    int (*run)(struct sl_runtime *rt, const struct shape *s, float *logits,
               struct sl_error *err);
};

/* Opens, starts, and makes passes with call n of the runtime failing. True if
 * there was no such call. */
static bool survives(const struct faulty_run *f, uint64_t n)
{
    struct sl_workload load = rig_one_text(N_IDS);
    float *logits = malloc(4ull * N_IDS * f->s->vocab);
    struct sl_runtime *rt = NULL;
    struct sl_error err = {0};
    uint64_t calls;
    int rc;

    load.n_sequences = 2;
    cudasim_reset();
    cudasim_fail(NULL, n, cudaErrorUnknown);
    rc = sl_runtime_open(&rt, &f->config, &err);
    if (rc == 0)
        rc = sl_runtime_start(rt, &load, &err);
    if (rc == 0)
        rc = f->run(rt, f->s, logits, &err);
    calls = cudasim_calls(NULL);
    sl_runtime_close(rt);
    cudasim_fail(NULL, 0, cudaSuccess);
    assert_int_equal(cudasim_reset(), 0);
    if (rc != 0) {
        assert_true(err.code != SL_OK && err.msg[0] != '\0');
        assert_null(strchr(err.msg, '\n'));
    }
    free(logits);
    return calls < n;
}

/* A call that is not needed (pinning, closing) may fail unnoticed; none may
 * leak, hang or crash. */
static void any_call_of_the_device_may_fail(void **state)
{
    const struct shape *s = &shapes[7];
    char path[1100];
    struct sl_runtime_config config = rig_on_gpu(rig_model(path, test_dir, s));
    const struct faulty_run runs[] = {
        {config, s, two_passes},
        {config, s, step_of_a_fork},
    };

    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) {
        uint64_t n = 1;

        while (!survives(&runs[i], n))
            n += n < 60 ? 1 : n < 120 ? 5 : 17;
        assert_true(n > 100);
    }
}

/* Nor where keys and values are handed back and x crosses to the CPU. */
static void any_call_of_a_divided_pass_may_fail(void **state)
{
    char path[1100];
    const struct faulty_run run = {divided(rig_model(path, test_dir, &large)),
                                   &large, two_passes};
    uint64_t n = 1;

    while (!survives(&run, n))
        n += TEST_SANITIZED ? 97 : 17;
    assert_true(n > 100);
}

/* A device that gives less than it had free is planned with anew. */
static void a_failed_allocation_shrinks_the_plan(void **state)
{
    const struct sl_workload one_text = rig_one_text(N_IDS);
    char path[1100];
    struct sl_runtime_config config =
        rig_on_gpu(rig_model(path, test_dir, &large));
    struct sl_runtime *rt;
    struct sl_error err;
    float *logits = malloc(4ull * N_IDS * large.vocab);
    uint64_t streamed;
    struct sl_vram all = rig_planned(&config, N_IDS, &streamed);

    config.vram_bytes = all.total + (all.total >> 4);
    assert_ok(sl_runtime_open(&rt, &config, &err), &err);
    cudasim_fail("cudaMalloc", 1, cudaErrorMemoryAllocation);
    assert_ok(sl_runtime_start(rt, &one_text, &err), &err);
    assert_true(sl_runtime_vram(rt)->budget < config.vram_bytes);
    assert_ok(rig_run_steps(rt, &large, N_IDS, logits, &err), &err);
    sl_runtime_close(rt);
    assert_int_equal(cudasim_reset(), 0);
    free(logits);
}

/* An argument is a pattern of the cases to run. */
int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_match_a_plain_implementation),
        cmocka_unit_test(the_budget_changes_no_bit),
        cmocka_unit_test(a_token_waits_for_the_device_at_its_end_alone),
        cmocka_unit_test(a_budget_that_is_too_small_names_the_least),
        cmocka_unit_test(what_is_free_can_be_shared_with_another_run),
        cmocka_unit_test(no_more_than_the_budget_is_taken),
        cmocka_unit_test(cpu_and_gpu_share_the_stages),
        cmocka_unit_test(sequences_do_not_see_each_other),
        cmocka_unit_test(an_interrupted_model_goes_on_with_the_same_bits),
        cmocka_unit_test(another_thread_ends_what_ran_on_the_second_device),
        cmocka_unit_test(any_call_of_the_device_may_fail),
        cmocka_unit_test(any_call_of_a_divided_pass_may_fail),
        cmocka_unit_test(a_failed_allocation_shrinks_the_plan),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, test_dir_set_up, test_dir_tear_down);
}
