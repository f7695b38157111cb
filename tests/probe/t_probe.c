#include "config.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/base/mem.h"
#include "src/probe/probe.h"
#include "tests/support.h"

struct temp {
    char dir[1024], path[1100];
};

static int setup(void **state)
{
    struct temp *t = malloc(sizeof *t);
    FILE *f;

    assert_non_null(t);
    test_temp_dir(t->dir);
    snprintf(t->path, sizeof t->path, "%s/model", t->dir);
    f = fopen(t->path, "wb");
    assert_non_null(f);
    for (int i = 0; i < 40 << 10; i++) {
        char page[1024];

        memset(page, i, sizeof page);
        assert_int_equal(fwrite(page, sizeof page, 1, f), 1);
    }
    assert_int_equal(fclose(f), 0);
    *state = t;
    return 0;
}

static int teardown(void **state)
{
    struct temp *t = *state;

    test_remove_tree(t->dir);
    free(t);
    return 0;
}

static void any_file_and_buffer_gives_a_rate(void **state)
{
    static const uint64_t sizes[] = {1,       4096,     100000,
                                     1 << 20, 33 << 20, (40 << 20) - 4096};
    static const uint64_t buffers[] = {0, 1, 4096, 300000, 1 << 20, 8 << 20};
    struct temp *t = *state;
    struct sl_error err;

    for (int i = 5; i >= 0; i--) {
        assert_int_equal(truncate(t->path, (off_t)sizes[i]), 0);
        for (int b = 0; b < 6; b++)
            for (int kind = SL_IO_AUTO; kind <= SL_IO_PREAD; kind += 2) {
                struct sl_probe_disk_config config = {
                    .path = t->path,
                    .io = (enum sl_io_kind)kind,
                    .buffer_bytes = buffers[b],
                    .time_ns = 1000000,
                };
                double bps = -1;

                assert_ok(sl_probe_disk(&bps, &config, &err), &err);
                assert_true(isfinite(bps) && bps > 0);
            }
    }
}

static void a_file_that_cannot_be_measured_is_named(void **state)
{
    struct temp *t = *state;
    struct sl_probe_disk_config config = {.path = "/nowhere/model"};
    struct sl_error err;
    double bps = -1;

    assert_int_equal(sl_probe_disk(&bps, &config, &err), -1);
    assert_int_equal(err.os_errno, ENOENT);
    assert_non_null(strstr(err.msg, "/nowhere/model"));
    config.path = t->path;
    assert_int_equal(truncate(t->path, 0), 0);
    assert_int_equal(sl_probe_disk(&bps, &config, &err), -1);
    assert_int_equal(err.code, SL_ERR_CORRUPT);
    assert_non_null(strstr(err.msg, t->path));
    assert_true(bps == -1);
}

static void memory_is_measured_with_what_there_is(void **state)
{
    static const uint64_t sizes[] = {64, 4096, 1000000, 3 << 20};
    struct sl_region r;
    struct sl_error err;

    assert_ok(sl_region_init(&r, 3 << 20, "test", &err), &err);
    for (unsigned threads = 1; threads <= 3; threads++) {
        struct sl_pool *pool;

        assert_ok(sl_pool_create(&pool, threads, &err), &err);
        for (int i = 0; i < 8; i++) {
            struct sl_probe_dram_config config = {
                .pool = pool,
                .buffer = i % 2 ? r.base : NULL,
                .bytes = sizes[i / 2],
                .time_ns = 1000000,
            };
            struct sl_dram_rate rate = {0};

            assert_ok(sl_probe_dram(&rate, &config, &err), &err);
            assert_true(isfinite(rate.bps) && rate.bps > 0);
            assert_true(rate.bytes <= sizes[i / 2]);
            assert_true(rate.bytes > 0);
        }
        sl_pool_destroy(pool);
    }
    sl_region_fini(&r);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

static void arithmetic_is_measured_for_every_format(void **state)
{
    struct sl_kernels k;
    struct sl_pool *pool;
    struct sl_error err;

    sl_kernels_init(&k, sl_cpu_best_isa());
    assert_ok(sl_pool_create(&pool, 2, &err), &err);
    for (int i = 0; i < SL_FMT_COUNT; i++) {
        struct sl_probe_ops_config config = {
            .kernels = &k,
            .pool = pool,
            .fmt = (enum sl_fmt)i,
            .group_cols = 16 * (uint32_t)i, /* of those that have groups */
            .act = sl_fmt_is_float((enum sl_fmt)i) ? SL_ACT_F32 : SL_ACT_INT8,
            .most_bytes = i % 2 ? 1 : 0, /* the least there is */
            .time_ns = 1,
        };
        double rate = 0;

        assert_ok(sl_probe_ops(&rate, &config, &err), &err);
        assert_true(rate > 1e6);
    }
    sl_pool_destroy(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arithmetic_is_measured_for_every_format),
        T(any_file_and_buffer_gives_a_rate),
        T(a_file_that_cannot_be_measured_is_named),
        T(memory_is_measured_with_what_there_is),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
