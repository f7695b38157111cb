#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef CUDA_SIM
#include <cudasim.h>

#include "kernels/cuda/cuda.h"

#include "offload/device_cuda.h"
#endif

#include "src/base/clock.h"
#include "src/exec/exec_gpu.h"
#include "src/probe/probe.h"
#include "tests/fake_device.h"
#include "tests/upload_rig.h"

#define BYTES ((size_t)3 << 20)

/* Turn 0 is a fake device, 1 the real or simulated one where there is one. */
static bool open_device(struct sl_device **dev, int turn)
{
    struct fake_device_config plain = {0};
    struct sl_error err;

    if (turn == 0)
        *dev = fake_device_open(&plain);
    else if (turn > 1 ||
             sl_device_open_cuda(dev, SL_DEVICE_BEST, NULL, &err) != 0)
        return false;
    assert_ok((*dev)->ops->attach(*dev, &err), &err);
    return true;
}

static void what_is_copied_up_comes_down_again(void **state)
{
    uint8_t *host = aligned_alloc(4096, BYTES), *back = malloc(BYTES);
    struct sl_device *dev;
    struct sl_error err;

    assert_non_null(host);
    assert_non_null(back);
    for (int turn = 0; open_device(&dev, turn); turn++) {
        const struct sl_device_ops *ops = dev->ops;
        struct sl_event *up, *within, *down;
        uint64_t begin, length, start = sl_clock_ns();
        void *a, *b;

        for (size_t i = 0; i < BYTES; i++)
            host[i] = (uint8_t)(i * 2654435761u >> 13);
        memset(back, 0, BYTES);
        assert_ok(ops->pin(dev, host, BYTES, &err), &err);
        assert_ok(ops->alloc(dev, &a, BYTES, &err), &err);
        assert_ok(ops->alloc(dev, &b, BYTES, &err), &err);
        assert_int_equal((uintptr_t)a % 256, 0);
        assert_ok(ops->event_create(dev, &up, true, &err), &err);
        assert_ok(ops->event_create(dev, &within, false, &err), &err);
        assert_ok(ops->event_create(dev, &down, true, &err), &err);
        /* what was never recorded is done */
        assert_int_equal(ops->done(dev, down, &err), 1);
        assert_ok(ops->sync(dev, down, &err), &err);
        /* three queues, ordered by events alone */
        assert_ok(ops->copy_up(dev, SL_QUEUE_UP, a, host, BYTES, &err), &err);
        assert_ok(ops->record(dev, SL_QUEUE_UP, up, &err), &err);
        assert_ok(ops->queue_wait(dev, SL_QUEUE_COMPUTE, up, &err), &err);
        assert_ok(ops->copy_within(dev, SL_QUEUE_COMPUTE, b, a, BYTES, &err),
                  &err);
        assert_ok(ops->record(dev, SL_QUEUE_COMPUTE, within, &err), &err);
        assert_ok(ops->queue_wait(dev, SL_QUEUE_DOWN, within, &err), &err);
        assert_ok(ops->copy_down(dev, SL_QUEUE_DOWN, back, b, BYTES, &err),
                  &err);
        assert_ok(ops->record(dev, SL_QUEUE_DOWN, down, &err), &err);
        assert_ok(ops->sync(dev, down, &err), &err);
        assert_int_equal(ops->done(dev, down, &err), 1);
        assert_memory_equal(host, back, BYTES);
        assert_ok(ops->span(dev, up, down, &begin, &length, &err), &err);
        assert_true(begin + length <= sl_clock_ns() + 1000000);
        assert_true(begin + 1000000 >= start);
        ops->event_destroy(dev, up);
        ops->event_destroy(dev, within);
        ops->event_destroy(dev, down);
        ops->event_destroy(dev, NULL);
        ops->free(dev, a);
        ops->free(dev, b);
        ops->free(dev, NULL);
        ops->unpin(dev, host);
        sl_device_close(dev);
    }
    sl_device_close(NULL);
    free(host);
    free(back);
}

static void rates_of_copies_are_measured(void **state)
{
    struct sl_device_rates r;
    struct sl_device *dev;
    struct sl_error err;

    for (int turn = 0; open_device(&dev, turn); turn++) {
        assert_ok(sl_probe_device(&r, dev, BYTES, &err), &err);
        assert_true(r.up_bps > 0 && r.down_bps > 0 && r.vram_bps > 0);
        assert_true(r.hand_over_s > 0);
        assert_true(r.pinned);
        sl_device_close(dev);
    }
}

static void whatever_call_fails_while_measuring_is_reported(void **state)
{
    struct fake_device_config small = {.pin_bytes = 4096};
    struct sl_device_rates r = {.up_bps = -1};
    struct sl_device *dev = fake_device_open(&small);
    struct sl_error err;
    bool ok = false;

    /* memory that cannot be pinned is measured as it is */
    assert_ok(sl_probe_device(&r, dev, BYTES, &err), &err);
    assert_false(r.pinned);
    for (long n = 0; !ok; n++) {
        assert_true(n < 1000);
        r.up_bps = -1;
        fake_device_fail(dev, n, false);
        ok = sl_probe_device(&r, dev, 8192, &err) == 0;
        assert_true(ok || strlen(err.msg) > 5);
        assert_true(ok == (r.up_bps > 0));
        assert_int_equal(fake_device_objects(dev), 0);
        ok = ok && !fake_device_failed(dev);
    }
    sl_device_close(dev);
}

#ifdef CUDA_SIM
/* 0: the nth call, which failed, was reported; 1: there were fewer. */
static int kernel_rates(struct sl_kernel_rates *rates, uint64_t nth)
{
    struct sl_device *dev = NULL;
    struct sl_cuda *cuda = NULL;
    struct sl_error err;
    uint64_t calls;
    int rc;

    assert_ok(sl_device_open_cuda(&dev, SL_DEVICE_BEST, NULL, &err), &err);
    assert_ok(sl_gpu_load(&cuda, dev, NULL, &err), &err);
    /* By what the device is, for weights that would have to be unpacked. */
    assert_int_equal(cuda->runs_to[SL_FMT_INT4], 256);
    assert_int_equal(cuda->runs_to[SL_FMT_F16], 0);
    cudasim_fail(NULL, nth, cudaErrorUnknown);
    calls = cudasim_calls(NULL);
    rc = sl_gpu_measure(rates, cuda, dev, 128, 96, &err);
    calls = cudasim_calls(NULL) - calls;
    cudasim_fail(NULL, 0, cudaSuccess);
    assert_true(rc == 0 || strlen(err.msg) > 5);
    sl_gpu_unload(cuda);
    sl_device_close(dev);
    assert_int_equal(cudasim_reset(), 0);
    return rc == 0 && (nth == 0 || calls < nth);
}

static void products_and_launches_are_measured(void **state)
{
    struct sl_kernel_rates rates = {0};

    assert_true(kernel_rates(&rates, 0));
    assert_true(rates.ops_per_s > 0 && rates.stage_s > 0);
    for (uint64_t n = 1; !kernel_rates(&rates, n); n++)
        assert_true(n < 1000);
}
#endif

static void what_cannot_be_had_is_said_in_one_line(void **state)
{
    struct sl_device_info infos[4];
    struct sl_device *dev = NULL;
    struct sl_error err = {.code = SL_OK};
    size_t n = 77;

    if (sl_device_list(infos, 4, &n, &err) == 0) {
        assert_true(n > 0);
        return;
    }
    assert_int_equal(n, 0);
    assert_int_equal(err.code, SL_ERR_UNSUPPORTED);
    assert_null(strchr(err.msg, '\n'));
    assert_true(strlen(err.msg) > 20);
    for (int ordinal = SL_DEVICE_BEST; ordinal < 2; ordinal++) {
        assert_int_equal(sl_device_open_cuda(&dev, ordinal, NULL, &err), -1);
        assert_int_equal(err.code, SL_ERR_UNSUPPORTED);
        assert_null(dev);
    }
}

static void versions_read_as_people_write_them(void **state)
{
    char text[SL_VERSION_TEXT];

    assert_string_equal(sl_device_version(text, 12040), "12.4");
    assert_string_equal(sl_device_version(text, 13000), "13.0");
    assert_string_equal(sl_device_version(text, 11080), "11.8");
}

#ifdef CUDA_SIM
static struct cudasim_config defaults(void)
{
    struct cudasim_config c;

    cudasim_reset();
    cudasim_get_config(&c);
    return c;
}

/* Neither can be listed or opened as it is; the line holds the words. */
static void check_refusal(const struct cudasim_config *c, const char *words,
                          bool listed)
{
    struct sl_device_info infos[4];
    struct sl_device *dev = NULL;
    struct sl_error err;
    size_t n;

    cudasim_set_config(c);
    if (listed) {
        assert_ok(sl_device_list(infos, 4, &n, &err), &err);
        assert_int_equal(infos[0].why_not.code, SL_ERR_UNSUPPORTED);
        assert_non_null(strstr(infos[0].why_not.msg, words));
    } else {
        assert_int_equal(sl_device_list(infos, 4, &n, &err), -1);
        assert_non_null(strstr(err.msg, words));
    }
    for (int ordinal = SL_DEVICE_BEST; ordinal < 1; ordinal++) {
        assert_int_equal(sl_device_open_cuda(&dev, ordinal, NULL, &err), -1);
        assert_int_equal(err.code, SL_ERR_UNSUPPORTED);
        assert_non_null(strstr(err.msg, words));
        assert_null(strchr(err.msg, '\n'));
    }
    assert_int_equal(cudasim_reset(), 0);
}

static void every_reason_for_no_device_has_its_line(void **state)
{
    struct cudasim_config c = defaults();

    c.driver = 0;
    check_refusal(&c, "no NVIDIA driver is installed", false);
    c = defaults();
    c.driver = 11040;
    check_refusal(&c, "too old: it knows CUDA 11.4", false);
    c = defaults();
    c.n_devices = 0;
    check_refusal(&c, "no GPU that it may use", false);
    c = defaults();
    c.cc_major = 6;
    c.cc_minor = 1;
    check_refusal(&c, "compute capability 6.1", true);
    defaults();
}

static void devices_are_listed_with_what_they_have(void **state)
{
    struct cudasim_config c = defaults();
    struct sl_device_info infos[2];
    struct sl_device *dev = NULL;
    struct sl_error err;
    size_t n;

    c.n_devices = 3;
    cudasim_set_config(&c);
    assert_ok(sl_device_list(infos, 2, &n, &err), &err);
    assert_int_equal(n, 3);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(infos[i].ordinal, i);
        assert_int_equal(infos[i].why_not.code, SL_OK);
        assert_true(infos[i].name[0] != '\0');
        assert_int_equal(infos[i].cc_major, 8);
        assert_int_equal(infos[i].cc_minor, 6);
        assert_int_equal(infos[i].vram_bytes, c.memory_bytes);
        assert_in_range(infos[i].vram_free, c.memory_bytes / 2,
                        c.memory_bytes - infos[i].context_bytes);
        assert_int_equal(infos[i].driver, c.driver);
    }
    assert_int_equal(sl_device_open_cuda(&dev, 3, NULL, &err), -1);
    assert_int_equal(err.code, SL_ERR_USAGE);
    assert_ok(sl_device_open_cuda(&dev, 2, NULL, &err), &err);
    assert_int_equal(dev->info.ordinal, 2);
    sl_device_close(dev);
    defaults();
}

static void memory_that_is_not_there_is_told_with_its_size(void **state)
{
    struct sl_device *dev;
    struct sl_error err;
    void *p;

    defaults();
    assert_ok(sl_device_open_cuda(&dev, 0, NULL, &err), &err);
    assert_int_equal(dev->ops->alloc(dev, &p, dev->info.vram_bytes + 1, &err),
                     -1);
    assert_int_equal(err.code, SL_ERR_NOMEM);
    assert_non_null(strstr(err.msg, "GPU 0"));
    assert_non_null(strstr(err.msg, "1.0 GiB"));
    assert_non_null(strstr(err.msg, "--vram"));
    /* and what is there still can be had */
    assert_ok(dev->ops->alloc(dev, &p, dev->info.vram_bytes / 2, &err), &err);
    dev->ops->free(dev, p);
    sl_device_close(dev);
    assert_int_equal(cudasim_reset(), 0);
}

/* Some it can do without: the link, the clocks, NVML. */
static void whatever_call_fails_while_opening_is_reported(void **state)
{
    struct sl_device *dev;
    struct sl_error err;
    uint64_t calls = 1, refused = 0;

    for (uint64_t n = 1; n <= calls; n++) {
        int rc;

        defaults();
        cudasim_fail(NULL, n, cudaErrorUnknown);
        rc = sl_device_open_cuda(&dev, 0, NULL, &err);
        calls = cudasim_calls(NULL);
        cudasim_fail(NULL, 0, cudaSuccess);
        if (rc == 0)
            sl_device_close(dev);
        else
            assert_true(strlen(err.msg) > 20);
        refused += rc != 0;
        calls = rc == 0 ? calls : n + 1;
        assert_int_equal(cudasim_reset(), 0);
    }
    assert_in_range(refused, 9, calls - 7);
}

/* A machine of 8 GiB, of which others have so many, the driver 300 MiB and 64
 * more for a library. */
static struct cudasim_config busy_machine(uint64_t others, bool library)
{
    struct cudasim_config c = defaults();

    c.memory_bytes = (size_t)8 << 30;
    c.context_bytes = (library ? 364u : 300u) << 20;
    c.others_bytes = others;
    cudasim_set_config(&c);
    return c;
}

/* What an opened device says of its memory. */
static struct sl_device *open_first(struct sl_device_contexts *contexts)
{
    struct sl_device *dev;
    struct sl_error err;

    assert_ok(sl_device_open_cuda(&dev, 0, contexts, &err), &err);
    return dev;
}

static void what_other_programs_have_is_not_the_contexts(void **state)
{
    static const char *const nvml[] = {
        NULL,
        "nvmlInit_v2",
        "nvmlDeviceGetHandleByPciBusId_v2",
        "nvmlDeviceGetMemoryInfo",
    };

    for (size_t i = 0; i < 2 * sizeof nvml / sizeof *nvml; i++) {
        const char *fails = nvml[i / 2];
        uint64_t others = i % 2 == 0 ? 3ull << 30 : 1u << 20;
        struct cudasim_config c = busy_machine(others, false);
        uint64_t took = 300u << 20;
        struct sl_device *dev;
        struct sl_error err;

        cudaDeviceReset();   /* there is no context yet */
        if (fails != NULL) { /* what is in use, or a bound */
            cudasim_fail(fails, 1, cudaErrorUnknown);
            took = others < took ? others + took : 1u << 30;
        }
        dev = open_first(NULL);
        assert_int_equal(dev->info.context_bytes, took);
        busy_machine(others, true); /* a library was loaded */
        assert_ok(dev->ops->look(dev, &err), &err);
        assert_int_equal(dev->info.context_bytes, took + (64u << 20));
        assert_int_equal(dev->info.vram_free,
                         c.memory_bytes - c.others_bytes - (364u << 20));
        sl_device_close(dev);
        assert_int_equal(cudasim_reset(), 0);
    }
    defaults();
}

static void the_context_of_before_is_told_in_turn_and_at_once(void **state)
{
    struct sl_device_contexts contexts = {0};
    struct sl_device *first, *second;
    struct sl_error err;
    void *memory;

    busy_machine(3ull << 30, false);
    cudaDeviceReset();
    sl_device_close(open_first(&contexts));
    /* in turn, NVML or not */
    cudasim_fail("nvmlInit_v2", 1, cudaErrorUnknown);
    first = open_first(&contexts);
    assert_int_equal(first->info.context_bytes, 300u << 20);
    cudasim_fail(NULL, 0, cudaSuccess);
    busy_machine(3ull << 30, true);
    assert_ok(first->ops->look(first, &err), &err);
    assert_int_equal(first->info.context_bytes, 364u << 20);
    /* at once: what the first has is its own */
    assert_ok(first->ops->alloc(first, &memory, 1u << 30, &err), &err);
    second = open_first(&contexts);
    assert_int_equal(second->info.context_bytes, 364u << 20);
    assert_ok(second->ops->look(second, &err), &err);
    assert_int_equal(second->info.context_bytes, 364u << 20);
    assert_int_equal(second->info.vram_free, (4ull << 30) - (364u << 20));
    sl_device_close(second);
    first->ops->free(first, memory);
    sl_device_close(first);
    assert_int_equal(cudasim_reset(), 0);
    defaults();
}

/* To tell which of two has more memory free, contexts are made; the one that is
 * in use is left. */
static void looking_for_the_best_leaves_what_is_in_use(void **state)
{
    struct cudasim_config c = defaults();
    struct sl_device_contexts contexts = {0};
    struct sl_device *first, *second;
    char fault[200];
    struct sl_error err;
    void *memory;

    c.n_devices = 2;
    cudasim_set_config(&c);
    first = open_first(&contexts);
    assert_ok(first->ops->alloc(first, &memory, 1u << 20, &err), &err);
    assert_ok(sl_device_open_cuda(&second, SL_DEVICE_BEST, &contexts, &err),
              &err);
    assert_int_equal(second->info.ordinal, 1);
    assert_string_equal(cudasim_fault(fault, sizeof fault), "");
    sl_device_close(second);
    assert_ok(first->ops->attach(first, &err), &err);
    first->ops->free(first, memory);
    sl_device_close(first);
    assert_int_equal(cudasim_reset(), 0);
    defaults();
}

static void code_runs_where_its_kind_is_known(void **state)
{
    static const struct {
        const char *archs;
        int ptx, cc;
        bool runs;
    } cases[] = {
        {"75 80 86", 80, 75, true},
        {"75 80 86", 80, 86, true},
        {"75 80 86", 80, 90, true},
        {"75 80 86", 80, 72, false},
        {"89", 80, 86, true},
        {"89", 80, 89, true},
        {"89", 80, 120, true},
        {"89", 80, 75, false},
        {"75", 75, 86, true},
        {"90 120", 80, 121, true},
        {"100 103 110", 80, 103, true},
        {"80", 80, 80, true},
        {"80", 80, 75, false},
        {"", 75, 75, true},
        {"", 75, 61, false},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(
            sl_cuda_has_kernels(cases[i].archs, cases[i].ptx, cases[i].cc),
            cases[i].runs);
}

/* Of the thread that copies, too. */
static void calls_of_the_driver_may_go_deep(void **state)
{
    struct upload_rig *r = *state;
    struct cudasim_config c = defaults();
    struct sl_error err;

    upload_slabs(r, 10, 9000);
    upload_plan(r, "DPVCPDGVDP", 3);
    c.stack_bytes = 1u << 20;
    cudasim_set_config(&c);
    assert_ok(sl_device_open_cuda(&r->dev, 0, NULL, &err), &err);
    assert_ok(upload_open(r, &err), &err);
    for (int pass = 0; pass < 2; pass++)
        assert_int_equal(upload_pass(r, true, SIZE_MAX, false, &err), 10);
    upload_close(r);
    sl_device_close(r->dev);
    assert_int_equal(cudasim_reset(), 0);
}

static void whatever_call_fails_a_run_ends_with_its_line(void **state)
{
    static const cudaError_t errors[] = {cudaErrorLaunchFailure,
                                         cudaErrorMemoryAllocation};
    struct upload_rig *r = *state;
    struct sl_error err;

    upload_slabs(r, 10, 9000);
    upload_plan(r, "DPVCPDGVDP", 3);
    for (int e = 0; e < 2; e++) {
        for (uint64_t n = 1; n < 200; n += n < 40 ? 1 : 9) {
            bool ok = true;

            defaults();
            assert_ok(sl_device_open_cuda(&r->dev, 0, NULL, &err), &err);
            cudasim_fail(NULL, n, errors[e]);
            if (upload_open(r, &err) != 0) {
                ok = false;
            } else {
                for (int pass = 0; ok && pass < 3; pass++)
                    ok = upload_pass(r, pass != 1, SIZE_MAX, false, &err) ==
                         r->n;
                upload_close(r);
            }
            if (!ok)
                assert_non_null(strstr(err.msg, "GPU 0"));
            if (!ok && e == 0)
                assert_non_null(strstr(err.msg, "lost"));
            cudasim_fail(NULL, 0, cudaSuccess);
            sl_device_close(r->dev);
        }
    }
    defaults();
}

static void pages_beyond_the_limit_stay_unpinned(void **state)
{
    struct upload_rig *r = *state;
    struct cudasim_config c = defaults();
    struct sl_stream_stats stats;
    struct sl_error err;

    upload_slabs(r, 10, 20000);
    upload_plan(r, "DPPCPDGPDP", 3);
    c.pin_bytes =
        r->plan.at[SL_HOST].ring_bytes + r->plan.at[SL_HOST].resident_bytes / 3;
    cudasim_set_config(&c);
    assert_ok(sl_device_open_cuda(&r->dev, 0, NULL, &err), &err);
    assert_ok(upload_open(r, &err), &err);
    for (int pass = 0; pass < 3; pass++)
        assert_int_equal(upload_pass(r, pass != 1, SIZE_MAX, false, &err), 10);
    sl_stream_stats(r->stream, &stats);
    assert_int_equal(stats.pinned_ring_bytes, r->plan.at[SL_HOST].ring_bytes);
    assert_in_range(stats.pinned_resident_bytes, 1,
                    r->plan.at[SL_HOST].resident_bytes / 3);
    upload_close(r);
    sl_device_close(r->dev);
    assert_int_equal(cudasim_reset(), 0);
}
#endif

#define T(name)                                                                \
    cmocka_unit_test_setup_teardown(name, upload_setup, upload_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_copied_up_comes_down_again),
#ifdef CUDA_SIM
        cmocka_unit_test(products_and_launches_are_measured),
#endif
        cmocka_unit_test(what_cannot_be_had_is_said_in_one_line),
        cmocka_unit_test(rates_of_copies_are_measured),
        cmocka_unit_test(whatever_call_fails_while_measuring_is_reported),
        cmocka_unit_test(versions_read_as_people_write_them),
#ifdef CUDA_SIM
        cmocka_unit_test(every_reason_for_no_device_has_its_line),
        cmocka_unit_test(devices_are_listed_with_what_they_have),
        cmocka_unit_test(memory_that_is_not_there_is_told_with_its_size),
        cmocka_unit_test(whatever_call_fails_while_opening_is_reported),
        cmocka_unit_test(what_other_programs_have_is_not_the_contexts),
        cmocka_unit_test(the_context_of_before_is_told_in_turn_and_at_once),
        cmocka_unit_test(looking_for_the_best_leaves_what_is_in_use),
        cmocka_unit_test(code_runs_where_its_kind_is_known),
        T(calls_of_the_driver_may_go_deep),
        T(whatever_call_fails_a_run_ends_with_its_line),
        T(pages_beyond_the_limit_stay_unpinned),
#endif
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
