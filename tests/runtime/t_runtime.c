#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/runtime/runtime.h"
#include "tests/fault.h"
#include "tests/model_maker.h"
#include "tests/support.h"

static char dir[1024], path[1100];
static uint32_t vocab;

/* A whole run: open, plan, start, a pass over a prompt and one step more.
 * Returns 0, or -1 with the first failure. */
static int whole_run(float *logits, struct sl_error *err)
{
    static const struct sl_workload load = {
        .n_sequences = 2,
        .max_tokens = 20,
        .pass_positions = 8,
        .pass_logits = 2,
    };
    static const int32_t ids[8] = {3, 1, 4, 1, 5, 9, 2, 6};
    static const int32_t positions[8] = {0, 1, 2, 3, 4, 5, 6, 7};
    struct sl_runtime_config config = {
        .model = path,
        .threads = 2,
        .ram_bytes = SL_RAM_LEAST,
        .quiet = true,
    };
    struct sl_lm_item prompt = {
        .ids = ids,
        .positions = positions,
        .n = 7,
        .n_context = 6,
        .n_logits = 1,
    };
    struct sl_lm_item step[2] = {{
        .ids = ids + 7,
        .positions = positions + 7,
        .n = 1,
        .n_context = 6,
        .n_logits = 1,
    }};
    struct sl_runtime *rt = NULL;
    struct sl_lm *lm;
    int rc = sl_runtime_open(&rt, &config, err);

    if (rc == 0)
        rc = sl_runtime_start(rt, &load, err);
    if (rc == 0) {
        lm = sl_runtime_lm(rt);
        rc = lm->ops->seq_create(lm, &prompt.seq, err);
        if (rc == 0)
            rc = lm->ops->forward(lm, &prompt, 1, logits, err);
        step[1] = step[0];
        step[0].seq = prompt.seq;
        if (rc == 0)
            rc = lm->ops->seq_fork(lm, &step[1].seq, prompt.seq, err);
        if (rc == 0)
            rc = lm->ops->forward(lm, step, 2, logits, err);
    }
    sl_runtime_close(rt);
    return rc;
}

static void any_allocation_may_fail(void **state)
{
    float *want = malloc(8ull * vocab), *got = malloc(8ull * vocab);
    struct sl_error err;
    bool fired = true;
    long n;

    assert_ok(whole_run(want, &err), &err);
    for (n = 0; fired; n++) {
        int rc;

        err.msg[0] = '\0';
        fault_arm(n);
        rc = whole_run(got, &err);
        fired = fault_fired();
        /* A failure says what it was; where the program can do without what
         * it asked for, the result is the same. */
        if (rc != 0)
            assert_true(fired && err.msg[0] != '\0');
        else
            assert_memory_equal(got, want, 8ull * vocab);
    }
    assert_true(n > 20);
    free(want);
    free(got);
}

static void a_file_that_is_cut_short_later_is_reported(void **state)
{
    float *logits = malloc(8ull * vocab);
    struct sl_error err;
    size_t bytes;
    uint8_t *image = test_read_file(path, &bytes);

    for (size_t cut = 1; cut < bytes / 4096; cut += 7) {
        test_write_file(path, image, bytes - cut * 4096);
        assert_int_equal(whole_run(logits, &err), -1);
        assert_int_equal(err.code, SL_ERR_CORRUPT);
    }
    test_write_file(path, image, bytes);
    free(image);
    free(logits);
}

/* With few slots the reader waits for one in every round. */
static void the_ring_is_a_small_part_in_many_slots(void **state)
{
    static const struct sl_workload load = {
        .n_sequences = 1,
        .max_tokens = 20,
        .pass_positions = 8,
        .pass_logits = 1,
    };
    struct sl_runtime_config config = {.threads = 2, .quiet = true};
    char large[1100];
    struct test_model m;
    struct sl_runtime *rt;
    struct sl_error err;
    uint64_t least;

    if (TEST_SANITIZED) /* whose program has grown when it is opened again */
        return;
    snprintf(large, sizeof large, "%s/large.gguf", dir);
    test_model_init(&m);
    m.hp.n_layers = 6;
    m.hp.hidden = 512;
    m.hp.inner = 1408;
    m.hp.n_heads = 8;
    m.fmt = SL_FMT_F32;
    test_model_write(large, &m);
    config.model = large;
    config.ram_bytes = SL_RAM_LEAST;
    assert_ok(sl_runtime_open(&rt, &config, &err), &err);
    assert_ok(sl_runtime_plan(rt, &load, &err), &err);
    least = sl_runtime_memory(rt)->least;
    sl_runtime_close(rt);
    for (uint64_t mib = 20; mib <= 50; mib += 10) {
        const struct sl_plan *p;
        uint64_t room;

        config.ram_bytes = least + (mib << 20);
        assert_ok(sl_runtime_open(&rt, &config, &err), &err);
        assert_ok(sl_runtime_plan(rt, &load, &err), &err);
        p = sl_runtime_plan_made(rt);
        room = p->at[SL_HOST].ring_bytes + p->at[SL_HOST].resident_bytes;
        assert_true(p->streamed_bytes > 0);
        assert_true(p->at[SL_HOST].n_slots >= 8);
        assert_true(p->at[SL_HOST].ring_bytes <=
                    room / 8 + p->at[SL_HOST].slot_bytes);
        sl_runtime_close(rt);
    }
}

/* A plan of a budget, with guesses that nobody asked for or without. */
struct planned {
    uint64_t read; /* of a pass */
    uint64_t program, least;
    uint32_t n; /* guesses there is room for */
};

static struct planned plan_drafts(const char *model, uint64_t ram, bool drafts)
{
    const struct sl_workload load = {
        .n_sequences = 1,
        .max_tokens = 128,
        .pass_positions = 8,
        .pass_logits = 1,
        .draft_positions = drafts ? 31 : 0,
        .draft_bytes = drafts ? 4096 : 0,
        .draft_optional = drafts,
    };
    const struct sl_runtime_config config = {
        .model = model,
        .threads = 2,
        .ram_bytes = ram,
        .quiet = true,
    };
    const struct sl_memory *m;
    struct sl_runtime *rt;
    struct sl_error err;
    struct planned p;

    assert_ok(sl_runtime_open(&rt, &config, &err), &err);
    assert_ok(sl_runtime_plan(rt, &load, &err), &err);
    m = sl_runtime_memory(rt);
    assert_true(m->total <= m->budget);
    p = (struct planned){
        .read = sl_runtime_plan_made(rt)->streamed_bytes,
        .program = m->program,
        .least = m->least,
        .n = sl_runtime_draft_positions(rt),
    };
    sl_runtime_close(rt);
    return p;
}

/* The plan without guesses of a budget that leaves no more beside the program,
 * which has some pages more or less each time. */
static struct planned plan_without(const char *model, uint64_t ram,
                                   uint64_t program)
{
    for (;;) {
        struct planned p = plan_drafts(model, ram, false);

        if (p.program >= program)
            return p;
        ram -= program - p.program;
        program = p.program;
    }
}

static void guesses_that_nobody_asked_for_make_no_pass_read_more(void **state)
{
    const uint64_t step = 1100 << 10;
    struct planned without, with;
    uint32_t n_full = 0, n_some = 0, most = 0;
    uint64_t least;
    char model[1100];
    struct test_model m;

    if (TEST_SANITIZED) /* whose program grows by more than guesses take */
        return;
    snprintf(model, sizeof model, "%s/wide.gguf", dir);
    test_model_init(&m);
    m.hp.n_layers = 6;
    m.hp.hidden = 256;
    m.hp.inner = 704;
    m.hp.vocab = 8192;
    test_model_write(model, &m);
    least = plan_drafts(model, SL_RAM_LEAST, false).least;
    assert_true(plan_drafts(model, SL_RAM_LEAST, true).least <=
                least + (256 << 10));
    for (uint64_t ram = least + (512 << 10); n_full == 0; ram += step) {
        assert_true(ram < least + (64 << 20));
        with = plan_drafts(model, ram, true);
        without = plan_without(model, ram, with.program);
        assert_true((double)with.read <= 1.005 * (double)without.read);
        n_some += with.n > 0;
        n_full += with.n == 31 && with.read == 0;
        most = with.n > most ? with.n : most;
    }
    assert_true(n_some > 1);
    assert_int_equal(most, 31);
}

/* Of 256 texts' keys and values. Returns what sl_runtime_plan does. */
static int plan_keys(struct sl_memory *m, uint64_t ram, bool int8,
                     struct sl_error *err)
{
    const struct sl_workload load = {
        .n_sequences = 1,
        .max_tokens = 256,
        .pass_positions = 256,
        .pass_logits = 256,
        .n_texts = 256,
    };
    const struct sl_runtime_config config = {
        .model = path,
        .threads = 2,
        .ram_bytes = ram,
        .kv_set = int8,
        .kv = SL_KV_INT8,
        .quiet = true,
    };
    struct sl_runtime *rt;
    int rc;

    assert_ok(sl_runtime_open(&rt, &config, err), err);
    rc = sl_runtime_plan(rt, &load, err);
    *m = *sl_runtime_memory(rt);
    sl_runtime_close(rt);
    return rc;
}

static void a_refusal_says_when_int8_keys_would_fit(void **state)
{
    struct sl_memory f16, int8;
    struct sl_error err;
    uint64_t between;

    assert_ok(plan_keys(&f16, SL_RAM_LEAST, false, &err), &err);
    assert_ok(plan_keys(&int8, SL_RAM_LEAST, true, &err), &err);
    between = (f16.least + int8.least) / 2;
    /* more than the program's own pages differ by */
    assert_true(f16.least - int8.least > 2 << 20);
    assert_int_equal(plan_keys(&f16, between, false, &err), -1);
    assert_int_equal(err.code, SL_ERR_BUDGET);
    assert_non_null(strstr(err.msg, "; --kv int8 is enough, or a smaller"));
    assert_ok(plan_keys(&int8, between, true, &err), &err);
    /* where it would not be, nothing is said of it */
    for (int i = 0; i < 2; i++) {
        assert_int_equal(plan_keys(&f16, int8.least - (1 << 20), i, &err), -1);
        assert_null(strstr(err.msg, "--kv"));
    }
}

static int set_up(void **state)
{
    struct test_model m;

    test_temp_dir(dir);
    snprintf(path, sizeof path, "%s/model.gguf", dir);
    test_model_init(&m);
    m.fmt = SL_FMT_INT4;
    m.group_cols = 32;
    vocab = m.hp.vocab;
    test_model_write(path, &m);
    return 0;
}

static int tear_down(void **state)
{
    test_remove_tree(dir);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_allocation_may_fail),
        cmocka_unit_test(a_file_that_is_cut_short_later_is_reported),
        cmocka_unit_test(the_ring_is_a_small_part_in_many_slots),
        cmocka_unit_test(guesses_that_nobody_asked_for_make_no_pass_read_more),
        cmocka_unit_test(a_refusal_says_when_int8_keys_would_fit),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
