#include "config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/kernels.h"
#include "tests/exec_rig.h"
#include "tests/support.h"

#define N_IDS RIG_IDS

static const struct shape shapes[] = {
    {"f16", 2, 64, 88, 4, 160, true, false, SL_FMT_F16, 0, 0, SL_FMT_F16, 0},
    {"f32", 1, 64, 172, 4, 97, true, false, SL_FMT_F32, 0, 0, SL_FMT_F32, 0},
    {"bf16", 2, 64, 88, 4, 160, true, false, SL_FMT_BF16, 0, 0, SL_FMT_BF16, 0},
    {"odd", 2, 60, 37, 5, 33, true, false, SL_FMT_F16, 0, 0, SL_FMT_F16, 0},
    {"odd bf16", 2, 60, 37, 5, 33, true, false, SL_FMT_BF16, 0, 0, SL_FMT_BF16,
     0},
    {"2-D", 2, 64, 96, 4, 160, true, true, SL_FMT_F16, 0, 0, SL_FMT_F16, 0},
    {"no GLU", 2, 64, 96, 4, 160, false, false, SL_FMT_F32, 0, 0, SL_FMT_F32,
     0},
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
    {"q4_0", 2, 64, 96, 2, 161, true, false, SL_FMT_Q4_0, 0, 0, SL_FMT_Q8_0, 0},
    {"q5_1 no GLU 2-D", 2, 96, 160, 3, 200, false, true, SL_FMT_Q5_1, 0, 0,
     SL_FMT_MXFP4, 0},
    {"q4_k", 2, 256, 512, 8, 170, true, false, SL_FMT_Q4_K, 0, 0, SL_FMT_Q6_K,
     0},
    {"q3_k", 2, 256, 256, 4, 160, true, false, SL_FMT_Q3_K, 0, 0, SL_FMT_Q2_K,
     0},
    {"iq4_xs", 1, 256, 256, 4, 160, true, false, SL_FMT_IQ4_XS, 0, 0,
     SL_FMT_Q5_K, 0},
};

#define N_SHAPES (sizeof shapes / sizeof *shapes)

/* Large enough that the least budget streams most of the weights. */
static const struct shape streamed_shapes[] = {
    {"f16", 5, 256, 704, 8, 4096, true, false, SL_FMT_F16, 0, 0, SL_FMT_F16, 0},
    {"int8", 5, 256, 704, 8, 4099, true, false, SL_FMT_INT8, 0, 2, SL_FMT_F16,
     0},
    {"int4-g64", 8, 256, 704, 8, 8192, true, false, SL_FMT_INT4, 64, 0,
     SL_FMT_INT8, 64},
    {"q6_k", 5, 256, 768, 8, 4099, true, false, SL_FMT_Q6_K, 0, 0, SL_FMT_Q4_K,
     0},
};

#define N_STREAMED (sizeof streamed_shapes / sizeof *streamed_shapes)

static double worst(const float *a, const double *b, size_t n, double *scale)
{
    double most = 0;

    *scale = 0;
    for (size_t i = 0; i < n; i++) {
        most = fmax(most, fabs(a[i] - b[i]));
        *scale = fmax(*scale, fabs(b[i]));
    }
    return most;
}

static void logits_match_a_plain_implementation(void **state)
{
    for (size_t i = 0; i < N_SHAPES; i++) {
        for (int isa = 0; isa <= (int)sl_cpu_best_isa(); isa++) {
            char path[1100];
            struct sl_runtime_config config = {
                .model = rig_model(path, test_dir, &shapes[i]),
                .threads = 2,
                .activations = SL_ACTIVATIONS_F32,
                .max_isa_set = true,
                .max_isa = isa,
                .ram_bytes = SL_RAM_LEAST,
            };
            double *want = rig_plain(path, &shapes[i], N_IDS), scale, off;
            float *got = rig_one_pass(&config, &shapes[i], N_IDS);
            uint32_t vocab = shapes[i].vocab;

            off = worst(got, want, (size_t)N_IDS * vocab, &scale);
            if (off > 2e-5 * scale)
                print_error("%s isa %d: off by %g of %g\n", shapes[i].what, isa,
                            off, scale);
            assert_true(scale > 0.5 && off <= 2e-5 * scale);
            free(got);
            got = rig_steps(&config, &shapes[i], N_IDS);
            off = worst(got, want + (size_t)RIG_CONTEXT * vocab,
                        (size_t)(N_IDS - RIG_CONTEXT) * vocab, &scale);
            if (off > 2e-5 * scale)
                print_error("%s isa %d steps: off by %g of %g\n",
                            shapes[i].what, isa, off, scale);
            assert_true(off <= 2e-5 * scale);
            free(got);
            free(want);
        }
    }
}

static void check_near(enum sl_activations act)
{
    for (size_t i = 0; i < N_SHAPES; i++) {
        char path[1100];
        struct sl_runtime_config config = {
            .model = rig_model(path, test_dir, &shapes[i]),
            .threads = 1,
            .ram_bytes = SL_RAM_LEAST,
            .activations = act,
            .kv_set = true,
            .kv = SL_KV_F32,
        };
        double *want, scale, off;
        float *got;

        /* with BF16 not every CPU has products of blocks */
        if (act == SL_ACTIVATIONS_INT8 ? sl_fmt_is_float(shapes[i].fmt)
                                       : sl_fmt_has_blocks(shapes[i].fmt))
            continue;
        if (shapes[i].hidden % 32 != 0)
            continue;
        want = rig_plain(path, &shapes[i], N_IDS);
        got = rig_one_pass(&config, &shapes[i], N_IDS);
        off = worst(got, want, (size_t)N_IDS * shapes[i].vocab, &scale);
        if (!(off > 0 && off < 0.05 * scale))
            print_error("%s: off by %g of %g\n", shapes[i].what, off, scale);
        assert_true(off > 1e-6 * scale && off < 0.05 * scale);
        free(got);
        free(want);
    }
}

/* Rounded activations are an approximation: near, and not the same. */
static void rounded_activations_stay_near(void **state)
{
    check_near(SL_ACTIVATIONS_INT8);
    check_near(SL_ACTIVATIONS_BF16);
}

/* Least budget, and what is streamed then. */
static uint64_t least_budget(struct sl_runtime_config config,
                             uint64_t *streamed)
{
    const struct sl_workload one_text = rig_one_text(N_IDS);
    struct sl_runtime *rt;
    struct sl_error err;
    uint64_t least;

    config.ram_bytes = SL_RAM_LEAST;
    assert_ok(sl_runtime_open(&rt, &config, &err), &err);
    assert_ok(sl_runtime_plan(rt, &one_text, &err), &err);
    least = sl_runtime_memory(rt)->least;
    *streamed = sl_runtime_plan_made(rt)->streamed_bytes;
    sl_runtime_close(rt);
    return least;
}

/* From the least budget in the first turn to all resident in the last. The
 * least is asked for anew in each turn, since this process itself grows; a
 * sanitizer makes it grow so fast that only the least is certain to do. */
static uint64_t budget_of_turn(struct sl_runtime_config config, unsigned turn)
{
    uint64_t streamed;

#ifdef SL_SANITIZED
    turn = 0;
#endif
    if (turn == 0)
        return SL_RAM_LEAST;
    return least_budget(config, &streamed) + (1u << 20) + turn * (streamed / 7);
}

static void budget_threads_and_reader_change_no_bit(void **state)
{
    for (size_t p = 0; p < N_STREAMED; p++) {
        const struct shape *s = &streamed_shapes[p];
        char path[1100];
        struct sl_runtime_config config = {
            .model = rig_model(path, test_dir, s),
            .threads = 1,
            .ram_bytes = 1ull << 32,
        };
        size_t bytes = 4ull * N_IDS * s->vocab;
        float *want = rig_one_pass(&config, s, N_IDS);
        float *steps = rig_steps(&config, s, N_IDS);
        uint64_t streamed;

        least_budget(config, &streamed);
        assert_true(streamed > 1u << 20);
        for (unsigned turn = 0; turn < 8; turn++) {
            float *got;

            config.ram_bytes = budget_of_turn(config, turn);
            config.threads = 1 + turn % 4;
            config.io = turn % 2 ? SL_IO_PREAD : SL_IO_AUTO;
            got = rig_one_pass(&config, s, N_IDS);
            assert_memory_equal(got, want, bytes);
            free(got);
            got = rig_steps(&config, s, N_IDS);
            assert_memory_equal(got, steps,
                                4ull * (N_IDS - RIG_CONTEXT) * s->vocab);
            free(got);
        }
        free(want);
        free(steps);
    }
}

static void assert_same(const float *alone, const float *together,
                        uint32_t vocab)
{
    assert_memory_equal(alone, together, 4ull * vocab);
}

/* Several texts in one pass, forks of one of them, then steps of all: the
 * same bits as each alone. */
static void sequences_do_not_see_each_other(void **state)
{
    const struct shape *s = &shapes[9];
    char path[1100];
    struct sl_runtime_config config = {
        .model = rig_model(path, test_dir, s),
        .threads = 2,
        .ram_bytes = SL_RAM_LEAST,
    };

    rig_sequences(&config, s, N_IDS, assert_same);
}

static void what_was_not_planned_for_is_refused(void **state)
{
    const struct sl_workload one_text = rig_one_text(N_IDS);
    const struct shape *s = &shapes[0];
    struct text t = text_of(s, 0);
    char path[1100];
    struct sl_runtime_config config = {
        .model = rig_model(path, test_dir, s),
        .threads = 1,
        .ram_bytes = SL_RAM_LEAST,
    };
    float *logits = malloc(4ull * (N_IDS + 1) * s->vocab);
    struct sl_runtime *rt = rig_start(&config, &one_text);
    struct sl_lm *lm = sl_runtime_lm(rt);
    struct sl_lm_item it;
    struct sl_error err;
    uint32_t seq;

    assert_ok(lm->ops->seq_create(lm, &seq, &err), &err);
    t.ids[3] = (int32_t)s->vocab;
    it = rig_item(s, &t, seq, 0, N_IDS, 1);
    assert_int_equal(lm->ops->forward(lm, &it, 1, logits, &err), -1);
    assert_int_equal(err.code, SL_ERR_USAGE);
    t.ids[3] = 0;
    assert_ok(lm->ops->forward(lm, &it, 1, logits, &err), &err);
    it = rig_item(s, &t, seq, 0, 1, 1);
    assert_int_equal(lm->ops->forward(lm, &it, 1, logits, &err), -1);
    assert_int_equal(err.code, SL_ERR_BUDGET);
    sl_runtime_close(rt);
    free(logits);
}

/* The floor of a pass counts what attention reads of the cache. */
static void cached_positions_that_passes_read_are_counted(void **state)
{
    const struct sl_workload one_text = rig_one_text(N_IDS);
    const struct shape *s = &shapes[0];
    char path[1100];
    struct sl_runtime_config config = {
        .model = rig_model(path, test_dir, s),
        .threads = 1,
        .ram_bytes = SL_RAM_LEAST,
    };
    float *logits = malloc(4ull * N_IDS * s->vocab);
    struct sl_runtime *rt = rig_start(&config, &one_text);
    struct sl_floor with, without;
    struct sl_run_stats stats;
    struct sl_rates rates;
    uint64_t keys = 0;
    struct sl_error err;

    assert_ok(rig_run_steps(rt, s, N_IDS, logits, &err), &err);
    for (uint32_t n = RIG_CONTEXT + 2; n <= N_IDS; n++)
        keys += n;
    sl_runtime_stats(rt, &stats);
    assert_int_equal(stats.prefill_sequences, 1);
    assert_int_equal(stats.prefill_keys, RIG_CONTEXT + 1);
    assert_int_equal(stats.decode_keys, keys);
    assert_ok(sl_runtime_floor(rt, (struct sl_plan_pass){1, 1, 1 << 24}, &with,
                               &rates, &err),
              &err);
    without = sl_runtime_floor_at(rt, &rates, (struct sl_plan_pass){1, 1, 0});
    assert_true(with.dram_s > without.dram_s);
    sl_runtime_close(rt);
    free(logits);
}

static void a_budget_that_is_too_small_is_refused_with_the_least(void **state)
{
    const struct sl_workload one_text = rig_one_text(N_IDS);
    const struct shape *s = &shapes[0];
    char path[1100], text[64];
    struct sl_runtime_config config = {
        .model = rig_model(path, test_dir, s),
        .threads = 1,
        .ram_bytes = 1u << 20,
    };
    struct sl_runtime *rt;
    struct sl_error err;

    assert_ok(sl_runtime_open(&rt, &config, &err), &err);
    assert_int_equal(sl_runtime_start(rt, &one_text, &err), -1);
    assert_int_equal(err.code, SL_ERR_BUDGET);
    snprintf(text, sizeof text, "(--ram %lluK)",
             (unsigned long long)sl_runtime_memory(rt)->least >> 10);
    assert_non_null(strstr(err.msg, text));
    sl_runtime_close(rt);
}

static void an_interrupt_ends_the_pass(void **state)
{
    const struct sl_workload one_text = rig_one_text(N_IDS);
    const struct shape *s = &shapes[0];
    struct text t = text_of(s, 0);
    char path[1100];
    struct sl_runtime_config config = {
        .model = rig_model(path, test_dir, s),
        .threads = 1,
        .ram_bytes = SL_RAM_LEAST,
    };
    float *logits = malloc(4ull * s->vocab);
    struct sl_runtime *rt = rig_start(&config, &one_text);
    struct sl_lm *lm = sl_runtime_lm(rt);
    struct sl_lm_item it;
    struct sl_error err;
    uint32_t seq;

    assert_ok(lm->ops->seq_create(lm, &seq, &err), &err);
    it = rig_item(s, &t, seq, 0, N_IDS, 1);
    sl_runtime_interrupt(rt);
    assert_int_equal(lm->ops->forward(lm, &it, 1, logits, &err), -1);
    assert_int_equal(err.code, SL_ERR_INTERRUPTED);
    sl_runtime_close(rt);
    free(logits);
}

static void an_interrupted_model_goes_on_with_the_same_bits(void **state)
{
    const struct shape *s = &streamed_shapes[2];
    char path[1100];
    struct sl_runtime_config config = {
        .model = rig_model(path, test_dir, s),
        .threads = 2,
        .ram_bytes = SL_RAM_LEAST,
    };

    assert_true(rig_interrupted(&config, s, N_IDS, 12, 100) > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_match_a_plain_implementation),
        cmocka_unit_test(rounded_activations_stay_near),
        cmocka_unit_test(budget_threads_and_reader_change_no_bit),
        cmocka_unit_test(sequences_do_not_see_each_other),
        cmocka_unit_test(what_was_not_planned_for_is_refused),
        cmocka_unit_test(cached_positions_that_passes_read_are_counted),
        cmocka_unit_test(a_budget_that_is_too_small_is_refused_with_the_least),
        cmocka_unit_test(an_interrupt_ends_the_pass),
        cmocka_unit_test(an_interrupted_model_goes_on_with_the_same_bits),
    };

    return cmocka_run_group_tests(tests, test_dir_set_up, test_dir_tear_down);
}
