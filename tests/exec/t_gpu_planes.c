#include "config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cudasim/cudasim.h"
#include "tests/exec_rig.h"
#include "tests/support.h"

/* Weights in two planes on the simulated GPU: against the same integers in one
 * piece, and guesses of the high ones against the CPU's. */

#define N_IDS 18u

static const struct shape shapes[] = {
    {"int8-g64", 6, 256, 704, 8, 512, true, false, SL_FMT_INT8, 64, 0,
     SL_FMT_INT8, 64},
    {"int8", 2, 64, 96, 4, 160, true, false, SL_FMT_INT8, 0, 0, SL_FMT_F16, 0},
    {"int8-g32", 2, 64, 88, 4, 160, true, false, SL_FMT_INT8, 32, 0,
     SL_FMT_INT8, 64},
};

static float *steps(const struct sl_runtime_config *config,
                    const struct shape *s)
{
    float *logits = rig_steps(config, s, N_IDS);

    assert_int_equal(cudasim_reset(), 0);
    return logits;
}

static uint64_t least_vram(const struct sl_runtime_config *config, bool ahead)
{
    struct sl_workload one_text = rig_one_text(N_IDS);
    struct sl_runtime *rt;
    struct sl_error err;
    uint64_t least;

    one_text.draft_positions = one_text.draft_ahead = ahead;
    assert_ok(sl_runtime_open(&rt, config, &err), &err);
    assert_ok(sl_runtime_plan(rt, &one_text, &err), &err);
    least = sl_runtime_vram(rt)->least;
    sl_runtime_close(rt);
    return least;
}

/* FP16 inputs and sums in another order. */
static void assert_near(const float *got, const float *want, uint32_t n)
{
    double scale = 0, off = 0;

    for (uint32_t i = 0; i < n; i++) {
        off = fmax(off, fabs(got[i] - want[i]));
        scale = fmax(scale, fabs(want[i]));
    }
    assert_true(scale > 0.1 && off <= 0.02 * scale);
}

static void two_planes_give_the_bits_of_one_piece(void **state)
{
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const struct shape *s = &shapes[i];
        size_t n = (size_t)(N_IDS - RIG_CONTEXT) * s->vocab;
        char path[1100];
        struct sl_runtime_config config =
            rig_on_gpu(rig_planes(path, test_dir, s, false));
        float *one = steps(&config, s), *two;

        config = rig_on_gpu(rig_planes(path, test_dir, s, true));
        two = steps(&config, s);
        assert_memory_equal(one, two, n * sizeof *one);
        free(two);
        config.vram_bytes = least_vram(&config, false);
        two = steps(&config, s);
        assert_memory_equal(one, two, n * sizeof *one);
        free(one);
        free(two);
    }
}

/* Steps of a plan that keeps high planes; between them as many guesses, whose
 * logits come out in guesses unless it is NULL. */
static float *guessed(const struct sl_runtime_config *config,
                      const struct shape *s, float *guesses)
{
    struct text t = text_of(s, 0), other = text_of(s, 1);
    struct sl_workload load = rig_one_text(N_IDS);
    float *logits = malloc(4ull * N_IDS * s->vocab);
    struct sl_runtime *rt;
    struct sl_error err;
    struct sl_lm *lm;
    uint32_t seq;

    load.draft_keeps = true;
    load.draft_positions = load.draft_ahead = 1;
    rt = rig_start(config, &load);
    lm = sl_runtime_lm(rt);
    assert_ok(lm->ops->seq_create(lm, &seq, &err), &err);
    for (uint32_t at = RIG_CONTEXT; at + 1 < N_IDS; at++) {
        size_t row = (size_t)(at - RIG_CONTEXT) * s->vocab;
        struct sl_lm_item it =
            rig_item(s, &t, seq, at == RIG_CONTEXT ? 0 : at, at + 1, 1);

        assert_ok(lm->ops->forward(lm, &it, 1, logits + row, &err), &err);
        if (guesses == NULL)
            continue;
        it = rig_item(s, &other, seq, at + 1, at + 2, 1);
        it.apart = true;
        assert_int_equal(lm->ops->guess(lm, &it, 1, guesses + row, &err), 0);
        lm->ops->seq_cut(lm, seq, at + 1);
    }
    sl_runtime_close(rt);
    assert_int_equal(cudasim_reset(), 0);
    return logits;
}

static bool made(void *arg)
{
    ++*(uint32_t *)arg;
    return false;
}

/* The same steps, and the guesses but for the last made while they run, on a
 * sequence of their own: as far as slabs are late (late: of so many questions
 * one finds them). Returns how many. */
static uint32_t guessed_ahead(float *logits, float *guesses,
                              const struct sl_runtime_config *config,
                              const struct shape *s, uint32_t late)
{
    struct text t = text_of(s, 0), other = text_of(s, 1);
    struct sl_workload load = rig_one_text(N_IDS);
    struct rig_late workers[SL_WORKERS];
    struct sl_runtime *rt;
    uint32_t seq, n = 0;
    struct sl_error err;
    struct sl_lm *lm;

    load.draft_keeps = true;
    load.draft_positions = load.draft_ahead = 1;
    rt = rig_start(config, &load);
    for (unsigned i = 0; i < SL_WORKERS; i++)
        rig_be_late(&workers[i], rt, i, late);
    lm = sl_runtime_lm(rt);
    assert_ok(lm->ops->seq_create(lm, &seq, &err), &err);
    for (uint32_t at = RIG_CONTEXT; at + 1 < N_IDS; at++) {
        size_t row = (size_t)(at - RIG_CONTEXT) * s->vocab;
        bool first = at == RIG_CONTEXT;
        struct sl_lm_item it = rig_item(s, &t, seq, first ? 0 : at, at + 1, 1);
        struct sl_lm_ahead ahead = {.made = made, .arg = &n};

        if (!first) {
            assert_ok(lm->ops->seq_fork(lm, &ahead.item.seq, seq, &err), &err);
            ahead.item = rig_item(s, &other, ahead.item.seq, at, at + 1, 1);
            ahead.item.apart = true;
            ahead.logits = guesses + row - s->vocab;
            lm->ops->guess_ahead(lm, &ahead);
        }
        assert_ok(lm->ops->forward(lm, &it, 1, logits + row, &err), &err);
        if (!first)
            lm->ops->seq_destroy(lm, ahead.item.seq);
    }
    sl_runtime_close(rt);
    assert_int_equal(cudasim_reset(), 0);
    return n;
}

/* Guesses made meanwhile are those made between, and change nothing either. */
static void check_ahead(const struct sl_runtime_config *config,
                        const struct shape *s, const float *plain,
                        const float *guesses)
{
    size_t n = (size_t)(N_IDS - 1 - RIG_CONTEXT) * s->vocab;
    float *logits = malloc(n * sizeof *logits);
    float *ahead = malloc(n * sizeof *ahead);

    assert_int_equal(guessed_ahead(logits, ahead, config, s, UINT32_MAX),
                     N_IDS - 2 - RIG_CONTEXT);
    assert_memory_equal(plain, logits, n * sizeof *plain);
    assert_memory_equal(guesses, ahead, (n - s->vocab) * sizeof *ahead);
    guessed_ahead(logits, ahead, config, s, 4);
    assert_memory_equal(plain, logits, n * sizeof *plain);
    free(logits);
    free(ahead);
}

/* Whoever interrupts one finds the device done with what it was given. */
static void an_interrupted_guess_waits_for_the_device(void **state)
{
    const struct shape *s = &shapes[1];
    char path[1100];
    struct sl_runtime_config config =
        rig_on_gpu(rig_planes(path, test_dir, s, true));
    struct text t = text_of(s, 0);
    struct sl_workload load = rig_one_text(N_IDS);
    float *logits = malloc(4ull * s->vocab), *again = malloc(4ull * s->vocab);
    struct sl_runtime *rt;
    struct sl_lm_item it;
    struct sl_error err;
    struct sl_lm *lm;
    uint64_t waits;
    uint32_t seq;

    load.draft_keeps = true;
    load.draft_positions = load.draft_ahead = 1;
    rt = rig_start(&config, &load);
    lm = sl_runtime_lm(rt);
    assert_ok(lm->ops->seq_create(lm, &seq, &err), &err);
    it = rig_item(s, &t, seq, 0, RIG_CONTEXT + 1, 1);
    assert_ok(lm->ops->forward(lm, &it, 1, logits, &err), &err);
    it = rig_item(s, &t, seq, RIG_CONTEXT + 1, RIG_CONTEXT + 2, 1);
    it.apart = true;
    assert_int_equal(lm->ops->guess(lm, &it, 1, logits, &err), 0);
    lm->ops->seq_cut(lm, seq, RIG_CONTEXT + 1);
    waits = cudasim_calls("cudaEventSynchronize");
    sl_runtime_interrupt(rt);
    assert_int_equal(lm->ops->guess(lm, &it, 1, again, &err), -1);
    assert_int_equal(err.code, SL_ERR_INTERRUPTED);
    assert_true(cudasim_calls("cudaEventSynchronize") > waits);
    sl_runtime_resume(rt);
    lm->ops->seq_cut(lm, seq, RIG_CONTEXT + 1);
    assert_int_equal(lm->ops->guess(lm, &it, 1, again, &err), 0);
    assert_memory_equal(logits, again, 4ull * s->vocab);
    sl_runtime_close(rt);
    assert_int_equal(cudasim_reset(), 0);
    free(logits);
    free(again);
}

/* With all the memory there is, and with little of it. */
static void high_planes_guess_and_change_no_bit(void **state)
{
    const struct shape *s = &shapes[0];
    size_t n = (size_t)(N_IDS - 1 - RIG_CONTEXT) * s->vocab;
    float *guesses = malloc(n * sizeof *guesses);
    float *cpu_guesses = malloc(n * sizeof *guesses);
    char path[1100];
    struct sl_runtime_config config = rig_on_gpu(
                                 rig_planes(path, test_dir, s, true)),
                             cpu = config;

    cpu.device = SL_DEVICE_CPU;
    cpu.engine = SL_ENGINE_RULE_AUTO;
    free(guessed(&cpu, s, cpu_guesses));
    for (int little = 0; little < 2; little++) {
        float *plain, *with;

        if (little) {
            config.engine = SL_ENGINE_RULE_AUTO;
            config.ram_bytes = SL_RAM_LEAST;
            config.vram_bytes = least_vram(&config, true);
        }
        plain = guessed(&config, s, NULL);
        with = guessed(&config, s, guesses);
        assert_memory_equal(plain, with, n * sizeof *plain);
        for (size_t row = 0; row < n; row += s->vocab)
            assert_near(guesses + row, cpu_guesses + row, s->vocab);
        check_ahead(&config, s, plain, guesses);
        free(plain);
        free(with);
    }
    free(guesses);
    free(cpu_guesses);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_planes_give_the_bits_of_one_piece),
        cmocka_unit_test(an_interrupted_guess_waits_for_the_device),
        cmocka_unit_test(high_planes_guess_and_change_no_bit),
    };

    return cmocka_run_group_tests(tests, test_dir_set_up, test_dir_tear_down);
}
