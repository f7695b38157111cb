#include "config.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "offload/sim_machine.h"
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

/* --- disks that are not there --------------------------------------------- */

struct notes {
    const struct sl_extent *parts; /* three */
    uint32_t at;                   /* the part being read, */
    uint64_t next;                 /* its byte that must come next */
    uint64_t asked;
};

/* Holds what it is asked for against what must come, and has it at once. */
struct noted {
    struct sl_io io;
    struct notes *notes;
    struct sl_io_done done[SL_IO_DEPTH];
    unsigned n;
};

static int note_submit(struct sl_io *io, const struct sl_io_read *r,
                       struct sl_error *err)
{
    struct noted *d = (struct noted *)io;
    struct notes *k = d->notes;
    const struct sl_extent *e = &k->parts[k->at];

    (void)err;
    assert_int_equal(r->off, e->off + k->next);
    assert_int_equal(r->off % SL_PAGE_BYTES, 0);
    assert_in_range(r->bytes, 1, 1 << 20);
    assert_true(r->off + r->bytes <= e->off + e->bytes);
    k->asked += r->bytes;
    k->next += r->bytes;
    if (k->next == e->bytes) {
        k->next = 0;
        k->at = (k->at + 1) % 3;
    }
    d->done[d->n++] =
        (struct sl_io_done){.tag = r->tag, .result = (int)r->bytes};
    return 0;
}

static int note_wait(struct sl_io *io, struct sl_io_done *done, unsigned max,
                     struct sl_error *err)
{
    struct noted *d = (struct noted *)io;
    unsigned n = d->n;

    (void)err;
    assert_true(n <= max);
    memcpy(done, d->done, n * sizeof *done);
    d->n = 0;
    return (int)n;
}

static void note_close(struct sl_io *io)
{
    free(io);
}

static int note_open(struct sl_io **io, const struct sl_io_config *config,
                     struct sl_error *err)
{
    static const struct sl_io_ops ops = {
        .submit = note_submit, .wait = note_wait, .close = note_close};
    struct noted *made = calloc(1, sizeof *made);

    (void)err;
    assert_non_null(made);
    made->io = (struct sl_io){.ops = &ops, .direct = true};
    made->notes = config->arg;
    *io = &made->io;
    return 0;
}

/* As passes read them; and a measurement goes on where the last one ended. */
static void parts_of_a_file_are_read_in_order_over_and_over(void **state)
{
    static const struct sl_extent parts[] = {
        {9 << 20, 5 << 20}, {1 << 20, 4096}, {40 << 20, (1 << 20) + 8192}};
    struct notes k = {.parts = parts};
    uint64_t issued = 0;

    for (int i = 0; i < 3; i++) {
        struct sl_probe_disk_config config = {
            .path = "/nowhere",
            .time_ns = 1000000,
            .issued = &issued,
            .extents = parts,
            .n_extents = 3,
            .io_arg = &k,
            .io_open = note_open,
        };
        struct sl_error err;
        double bps = -1;

        assert_ok(sl_probe_disk(&bps, &config, &err), &err);
        assert_true(isfinite(bps) && bps > 0);
        assert_int_equal(issued, k.asked);
    }
}

/* Latency and the last reads would take a tenth of so short a time. */
static void neither_beginning_nor_end_of_a_measurement_counts(void **state)
{
    static const struct sl_extent file = {0, UINT64_C(64) << 30};
    struct sl_machine_spec spec = {.rates = {.disk_bps = 1e9,
                                             .dram_bps = 40e9,
                                             .worker[SL_HOST].ops_per_s = 1e12,
                                             .worker[SL_HOST].memory_bps = 30e9,
                                             .disk_latency_s = 0.006},
                                   .memory_bytes[SL_HOST] = UINT64_C(16) << 30};
    struct sl_sim_machine m;
    struct sl_error err;
    double bps = -1;

    assert_ok(sl_sim_machine_init(&m, &spec, &err), &err);
    for (uint64_t ms = 60; ms <= 960; ms *= 4) {
        struct sl_probe_disk_config config = {
            .path = "/nowhere",
            .time_ns = ms * 1000000,
            .extents = &file,
            .n_extents = 1,
            .clock = m.clock,
            .io_arg = &m,
            .io_open = sl_io_open_sim,
        };

        assert_ok(sl_probe_disk(&bps, &config, &err), &err);
        assert_float_equal(bps * 1e-9, 1, 0.002);
    }
    sl_sim_machine_fini(&m);
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

/* Turns of three ways: t[turn][way]. */
static void noise_chooses_no_other_reading(void **state)
{
    static const double same[][3] = {
        {10, 9.8, 10.1}, {10, 9.9, 9.8}, {10, 10.2, 10}};
    static const double two_lucky[][3] = {
        {20, 10, 10}, {20, 11, 11}, {10, 10, 10}, {10, 10, 10}, {10, 11, 10}};
    static const double once_slow[][3] = {
        {10, 9, 8}, {10, 9.1, 30}, {10, 9, 8.1}, {10, 8.9, 8}, {30, 9, 8}};

    assert_int_equal(sl_reading_pick(same[0], 3, 3), 0);
    assert_int_equal(sl_reading_pick(two_lucky[0], 5, 3), 0);
    assert_int_equal(sl_reading_pick(once_slow[0], 5, 3), 2);
}

static void a_reading_is_one_of_those_there_are(void **state)
{
    struct sl_kernels k;
    struct sl_reading best;
    struct sl_pool *pool;
    struct sl_error err;

    sl_kernels_init(&k, sl_cpu_best_isa());
    assert_ok(sl_pool_create(&pool, 2, &err), &err);
    for (unsigned turns = 0; turns < 3; turns++) {
        const struct sl_probe_reading_config config = {
            .kernels = &k, .pool = pool, .bytes = 1, .turns = turns};

        assert_ok(sl_probe_reading(&best, &config, &err), &err);
        assert_in_range(best.places, 1, SL_PLACES_MOST);
        assert_in_range(best.ahead, 64, 4096);
    }
    sl_pool_destroy(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arithmetic_is_measured_for_every_format),
        cmocka_unit_test(noise_chooses_no_other_reading),
        cmocka_unit_test(a_reading_is_one_of_those_there_are),
        T(any_file_and_buffer_gives_a_rate),
        T(a_file_that_cannot_be_measured_is_named),
        T(parts_of_a_file_are_read_in_order_over_and_over),
        T(neither_beginning_nor_end_of_a_measurement_counts),
        T(memory_is_measured_with_what_there_is),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
