#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "offload/mirror.h"
#include "offload/sim_machine.h"
#include "offload/slab_cache.h"
#include "offload/stream.h"
#include "tests/fault.h"
#include "tests/faulty_io.h"
#include "tests/upload_rig.h"

/* What was said, to be found again. */
struct said {
    unsigned n;
    char line[400]; /* the last one */
};

static void note(void *opaque, enum sl_log_level level, const char *line)
{
    struct said *s = opaque;

    (void)level;
    /* what else a system has to say of reading here is not looked for */
    if (strstr(line, "left out") == NULL)
        return;
    s->n++;
    snprintf(s->line, sizeof s->line, "%s", line);
}

/* A file, its copy, and slabs of them. */
struct rig {
    struct upload_rig *u;
    char copy[1100];
    struct said said;
    struct sl_log log;
    struct sl_mirror *mirror;
};

static void copy_file(const struct rig *r, size_t bytes)
{
    FILE *f = fopen(r->copy, "wb");

    assert_non_null(f);
    assert_int_equal(fwrite(r->u->data, 1, bytes, f), bytes);
    assert_int_equal(fclose(f), 0);
}

static void open_mirror(struct rig *r)
{
    struct sl_mirror_config config = {
        .path = {r->u->path, r->copy},
        .log = &r->log,
    };
    struct sl_error err;

    r->said = (struct said){0};
    r->log = (struct sl_log){note, &r->said, SL_LOG_INFO};
    assert_ok(sl_mirror_create(&r->mirror, &config, &err), &err);
}

static int setup(void **state)
{
    struct rig *r = calloc(1, sizeof *r);
    void *u;

    assert_non_null(r);
    assert_int_equal(upload_setup(&u), 0);
    r->u = u;
    snprintf(r->copy, sizeof r->copy, "%s/copy", r->u->dir);
    copy_file(r, UPLOAD_FILE_BYTES);
    *state = r;
    return 0;
}

static int teardown(void **state)
{
    struct rig *r = *state;
    void *u = r->u;

    upload_teardown(&u);
    free(r);
    return 0;
}

static void plan_slabs(struct upload_rig *u, uint64_t bytes)
{
    struct sl_error err;
    struct sl_plan_input in = {
        .slabs = u->slabs,
        .n_slabs = u->n,
        .memory_bytes[SL_HOST] = bytes,
        .read_ahead_bytes = bytes,
    };

    sl_plan_fini(&u->plan);
    assert_ok(sl_plan_make(&u->plan, &in, &err), &err);
}

static struct sl_stream_config config_of(const struct rig *r)
{
    return (struct sl_stream_config){
        .path = r->u->path,
        .mirror = r->mirror,
        .slabs = r->u->slabs,
        .plan = &r->u->plan,
        .direct = true,
        .log = &r->log,
    };
}

/* Slabs that were had before an error; their bytes are checked. */
static size_t go(const struct rig *r, struct sl_stream *st, size_t n,
                 struct sl_error *err)
{
    for (size_t i = 0; i < n; i++) {
        size_t slab = i % r->u->n;
        const struct sl_slab *s = &r->u->slabs[slab];
        const uint8_t *base;

        if (sl_stream_get(st, slab, &base, err) != 0)
            return i;
        for (uint32_t e = 0; e < s->n_extents; e++)
            assert_memory_equal(base + sl_slab_extent_at(s, e),
                                r->u->data + s->extents[e].off,
                                s->extents[e].bytes);
        sl_stream_put(st, slab);
    }
    return n;
}

static void both_files_give_the_bytes_of_one(void **state)
{
    struct rig *r = *state;
    struct sl_mirror_stats disks[SL_IO_FILES];
    struct sl_error err;

    for (int turn = 0; turn < 24; turn++) {
        struct sl_stream_config config;
        struct sl_stream_stats stats;
        struct sl_stream *st;
        uint64_t least;

        open_mirror(r);
        upload_slabs(r->u, 2 + upload_random(r->u) % 20, 60000);
        least = sl_plan_least_bytes(r->u->slabs, r->u->n, false);
        plan_slabs(r->u, least + turn % 4 * least / 2);
        config = config_of(r);
        config.io = turn % 2 ? SL_IO_PREAD : SL_IO_AUTO;
        config.direct = turn % 3 != 0;
        config.depth = turn % 5;
        config.read_bytes = 16384;
        assert_ok(sl_stream_open(&st, &config, &err), &err);
        assert_int_equal(go(r, st, r->u->n * 3, &err), r->u->n * 3);
        sl_stream_stats(st, &stats);
        assert_int_equal(stats.retries, 0);
        sl_stream_close(st);
        sl_mirror_stats(r->mirror, disks);
        assert_true(disks[0].bytes > 0 && disks[1].bytes > 0);
        assert_true(disks[0].bytes + disks[1].bytes >= stats.bytes_read);
        assert_false(disks[0].out || disks[1].out);
        assert_int_equal(r->said.n, 0);
        sl_mirror_destroy(r->mirror);
    }
}

/* --- speed ---------------------------------------------------------------- */

#define MB 1000000.

/* A disk and a second one, of so many bytes a second. */
static void machine_init(struct sl_sim_machine *m, double first, double second)
{
    struct sl_machine_spec spec = {
        .name = "two disks",
        .rates = {.disk_bps = first + second,
                  .mirror_bps = second,
                  .disk_latency_s = 100e-6,
                  .dram_bps = 1e12,
                  .worker[SL_HOST] = {.memory_bps = 10 * first,
                                      .ops_per_s = 1}},
    };
    struct sl_error err;

    assert_ok(sl_sim_machine_init(m, &spec, &err), &err);
}

/* Seconds of two hundred slabs of so many bytes in n slots, each of which takes
 * the cores a tenth of what it takes the first disk. */
static double stream_seconds(struct rig *r, double first, double second,
                             uint64_t bytes, unsigned n,
                             struct sl_mirror_stats disks[SL_IO_FILES])
{
    struct sl_mirror_config two = {.path = {"one", "two"}};
    struct sl_sim_machine m;
    struct sl_stream_config config;
    struct sl_stream *st;
    struct sl_error err;
    const uint8_t *base;
    uint64_t begin = 0;
    double seconds;

    machine_init(&m, first, second);
    two.clock = m.clock;
    r->mirror = NULL;
    if (second > 0)
        assert_ok(sl_mirror_create(&r->mirror, &two, &err), &err);
    r->u->n = 40;
    for (size_t i = 0; i < r->u->n; i++)
        r->u->slabs[i] = (struct sl_slab){
            .extents = {{i * bytes, bytes}},
            .n_extents = 1,
        };
    plan_slabs(r->u, n * bytes);
    config = config_of(r);
    config.clock = m.clock;
    config.io_arg = &m;
    config.io_open = sl_io_open_sim;
    assert_ok(sl_stream_open(&st, &config, &err), &err);
    for (size_t i = 0; i < 260; i++) {
        if (i == 60)
            begin = sl_clock_now(m.clock);
        assert_ok(sl_stream_get(st, i % 40, &base, &err), &err);
        sl_machine_compute(&m, (double)bytes, 0);
        sl_stream_put(st, i % 40);
    }
    seconds = (double)(sl_clock_now(m.clock) - begin) * 1e-9;
    if (r->mirror != NULL)
        sl_mirror_stats(r->mirror, disks);
    sl_stream_close(st);
    sl_mirror_destroy(r->mirror);
    r->mirror = NULL;
    sl_sim_machine_fini(&m);
    return seconds;
}

static void two_disks_give_the_sum_of_their_rates(void **state)
{
    static const double seconds_bps[] = {3000 * MB, 1000 * MB, 300 * MB,
                                         9000 * MB};
    struct rig *r = *state;
    struct sl_mirror_stats disks[SL_IO_FILES];
    double alone = stream_seconds(r, 3000 * MB, 0, 8u << 20, 24, disks);

    for (size_t i = 0; i < sizeof seconds_bps / sizeof *seconds_bps; i++) {
        double more = seconds_bps[i];
        double both = stream_seconds(r, 3000 * MB, more, 8u << 20, 24, disks);
        double share = more / (3000 * MB + more);

        assert_true(alone / both >= 0.95 / (1 - share));
        assert_float_equal((double)disks[1].bytes /
                               (double)(disks[0].bytes + disks[1].bytes),
                           share, 0.03);
    }
}

/* With the least memory not all reads that the disks could do at a time have
 * room, and it is more than one disk all the same. */
static void the_least_memory_has_use_for_two_disks(void **state)
{
    struct rig *r = *state;
    struct sl_mirror_stats disks[SL_IO_FILES];

    for (uint64_t bytes = 256u << 10; bytes <= 1u << 20; bytes *= 2) {
        double alone = stream_seconds(r, 500 * MB, 0, bytes, 3, disks);
        double both = stream_seconds(r, 500 * MB, 500 * MB, bytes, 3, disks);

        assert_true(alone / both >= 1.9);
    }
}

/* Seconds until a hundred layers of eight records of 4 MiB have come. */
static double cache_seconds(double first, double second)
{
    struct sl_mirror_config two = {.path = {"one", "two"}};
    struct sl_extent *records = calloc(800, sizeof *records);
    struct sl_slab_cache_config config = {
        .path = "one",
        .records = records,
        .n_records = 800,
        .n_layers = 100,
        .n_places = 10,
        .place_bytes = 4u << 20,
        .direct = true,
        .io_open = sl_io_open_sim,
    };
    struct sl_mirror *mirror = NULL;
    struct sl_slab_cache *cache;
    struct sl_sim_machine m;
    struct sl_error err;
    double seconds;

    assert_non_null(records);
    machine_init(&m, first, second);
    two.clock = config.clock = m.clock;
    config.io_arg = &m;
    if (second > 0)
        assert_ok(sl_mirror_create(&mirror, &two, &err), &err);
    config.mirror = mirror;
    for (uint64_t i = 0; i < 800; i++)
        records[i] = (struct sl_extent){i << 22, 4u << 20};
    assert_ok(sl_slab_cache_open(&cache, &config, &err), &err);
    for (uint32_t layer = 0; layer < 100; layer++) {
        uint32_t wanted[8];
        const uint8_t *base;

        for (uint32_t i = 0; i < 8; i++)
            wanted[i] = layer * 8 + i;
        assert_ok(sl_slab_cache_want(cache, wanted, 8, &err), &err);
        for (uint32_t i = 0; i < 8; i++) {
            assert_ok(sl_slab_cache_get(cache, wanted[i], &base, &err), &err);
            assert_ok(sl_slab_cache_put(cache, wanted[i], 1, &err), &err);
        }
    }
    seconds = (double)sl_clock_now(m.clock) * 1e-9;
    sl_slab_cache_close(cache);
    sl_mirror_destroy(mirror);
    sl_sim_machine_fini(&m);
    free(records);
    return seconds;
}

static void experts_come_from_both_disks(void **state)
{
    double alone = cache_seconds(3000 * MB, 0);

    (void)state;
    assert_true(alone / cache_seconds(3000 * MB, 3000 * MB) >= 1.9);
    assert_true(alone / cache_seconds(3000 * MB, 1500 * MB) >= 1.9 * 0.75);
}

/* --- faults --------------------------------------------------------------- */

/* Three passes in which one file's reads go wrong from the n-th on; returns
 * whether they did. */
static bool survive(struct rig *r, unsigned file, enum faulty_kind fault,
                    long n, enum sl_io_kind kind)
{
    bool once = fault != FAULTY_EIO && fault != FAULTY_NOTHING;
    const char *bad = file == 0 ? r->u->path : r->copy;
    const char *good = file == 0 ? r->copy : r->u->path;
    struct sl_mirror_stats disks[SL_IO_FILES];
    struct sl_stream_config config;
    struct sl_stream *st;
    struct sl_error err;

    open_mirror(r);
    config = config_of(r);
    config.io_open = faulty_open;
    config.io = kind;
    config.read_bytes = 16384;
    config.depth = 4;
    faulty_set(fault, n);
    faulty_only(file);
    assert_ok(sl_stream_open(&st, &config, &err), &err);
    assert_int_equal(go(r, st, r->u->n * 3, &err), r->u->n * 3);
    sl_stream_close(st);
    sl_mirror_stats(r->mirror, disks);
    assert_false(disks[1 - file].out);
    assert_int_equal(r->said.n, disks[file].out);
    if (disks[file].out) {
        assert_false(once);
        assert_non_null(strstr(r->said.line, bad));
        assert_non_null(strstr(r->said.line, good));
        assert_non_null(strstr(r->said.line, "left out"));
        assert_non_null(strstr(r->said.line, fault == FAULTY_EIO
                                                 ? "Input/output"
                                                 : "ends at byte"));
    }
    sl_mirror_destroy(r->mirror);
    return faulty_happened();
}

static void a_disk_that_fails_is_left_out_and_the_run_goes_on(void **state)
{
    struct rig *r = *state;

    upload_slabs(r->u, 7, 20000);
    plan_slabs(r->u, sl_plan_least_bytes(r->u->slabs, r->u->n, false));
    for (int fault = 0; fault < FAULTY_SUBMIT; fault++)
        for (unsigned file = 0; file < SL_IO_FILES; file++)
            for (int kind = SL_IO_AUTO; kind <= SL_IO_PREAD; kind += 2) {
                long n = 0;

                while (survive(r, file, (enum faulty_kind)fault, n,
                               (enum sl_io_kind)kind))
                    n += n < 8 ? 1 : 5;
                assert_true(n > 5);
            }
}

static void where_both_fail_the_error_names_one(void **state)
{
    static const enum faulty_kind faults[] = {FAULTY_EIO, FAULTY_NOTHING};
    struct rig *r = *state;

    upload_slabs(r->u, 7, 20000);
    plan_slabs(r->u, sl_plan_least_bytes(r->u->slabs, r->u->n, false));
    for (size_t i = 0; i < 2; i++) {
        struct sl_stream_config config;
        struct sl_stream *st;
        struct sl_error err;
        bool first;

        open_mirror(r);
        config = config_of(r);
        config.io_open = faulty_open;
        config.read_bytes = 16384;
        faulty_set(faults[i], 10);
        assert_ok(sl_stream_open(&st, &config, &err), &err);
        assert_true(go(r, st, r->u->n * 3, &err) < r->u->n * 3);
        assert_int_equal(err.code, i == 0 ? SL_ERR_IO : SL_ERR_CORRUPT);
        assert_non_null(strstr(err.msg, "slab"));
        /* one was left out, what remained is what the error is about */
        assert_int_equal(r->said.n, 1);
        first = strstr(r->said.line, r->u->path) == r->said.line;
        assert_true(strstr(err.msg, first ? r->copy : r->u->path) == err.msg);
        sl_stream_close(st);
        sl_mirror_destroy(r->mirror);
    }
}

/* Records of a page. */
static void experts_survive_a_disk_too(void **state)
{
    struct rig *r = *state;

    for (unsigned file = 0; file < SL_IO_FILES; file++)
        for (long n = 0; n < 12; n++) {
            struct sl_extent records[24];
            struct sl_slab_cache_config config = {
                .path = r->u->path,
                .records = records,
                .n_records = 24,
                .n_places = 5,
                .place_bytes = 8192,
                .direct = true,
                .depth = 4,
                .io_open = faulty_open,
            };
            struct sl_slab_cache *cache;
            struct sl_error err;

            open_mirror(r);
            config.mirror = r->mirror;
            for (uint64_t i = 0; i < 24; i++)
                records[i] = (struct sl_extent){i * 12288, 8192};
            faulty_set(FAULTY_EIO, n);
            faulty_only(file);
            assert_ok(sl_slab_cache_open(&cache, &config, &err), &err);
            for (uint32_t i = 0; i < 48; i += 4) {
                const uint32_t wanted[] = {i % 24, i % 24 + 1, i % 24 + 2,
                                           i % 24 + 3};

                assert_ok(sl_slab_cache_want(cache, wanted, 4, &err), &err);
                for (int k = 0; k < 4; k++) {
                    const uint8_t *base;

                    assert_ok(sl_slab_cache_get(cache, wanted[k], &base, &err),
                              &err);
                    assert_memory_equal(
                        base, r->u->data + records[wanted[k]].off, 8192);
                    assert_ok(sl_slab_cache_put(cache, wanted[k], 1, &err),
                              &err);
                }
            }
            assert_true(faulty_happened());
            assert_int_equal(r->said.n, 1);
            sl_slab_cache_close(cache);
            sl_mirror_destroy(r->mirror);
        }
}

static void a_missing_copy_is_named(void **state)
{
    struct rig *r = *state;
    struct sl_stream_config config;
    struct sl_stream *st;
    struct sl_error err;

    open_mirror(r);
    upload_slabs(r->u, 7, 20000);
    plan_slabs(r->u, sl_plan_least_bytes(r->u->slabs, r->u->n, false));
    config = config_of(r);
    assert_int_equal(unlink(r->copy), 0);
    assert_int_equal(sl_stream_open(&st, &config, &err), -1);
    assert_int_equal(err.code, SL_ERR_IO);
    assert_non_null(strstr(err.msg, r->copy));
    sl_mirror_destroy(r->mirror);
}

static void whatever_allocation_fails_opening_ends_cleanly(void **state)
{
    struct rig *r = *state;

    upload_slabs(r->u, 9, 30000);
    plan_slabs(r->u, sl_plan_least_bytes(r->u->slabs, r->u->n, false));
    for (int kind = SL_IO_AUTO; kind <= SL_IO_PREAD; kind += 2) {
        bool fired = true;

        for (long n = 0; fired; n++) {
            struct sl_mirror_config two = {.path = {r->u->path, r->copy}};
            struct sl_stream_config config;
            struct sl_stream *st = NULL;
            struct sl_error err = {.code = SL_OK};
            int rc;

            r->mirror = NULL;
            fault_arm(n);
            rc = sl_mirror_create(&r->mirror, &two, &err);
            config = config_of(r);
            config.io = (enum sl_io_kind)kind;
            if (rc == 0)
                rc = sl_stream_open(&st, &config, &err);
            fired = fault_fired();
            if (rc == 0) {
                assert_int_equal(go(r, st, 20, &err), 20);
                sl_stream_close(st);
            } else {
                assert_true(fired);
                assert_true(err.code == SL_ERR_NOMEM || err.code == SL_ERR_IO);
                assert_true(err.msg[0] != '\0');
            }
            sl_mirror_destroy(r->mirror);
        }
    }
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(both_files_give_the_bytes_of_one),
        T(two_disks_give_the_sum_of_their_rates),
        T(the_least_memory_has_use_for_two_disks),
        T(experts_come_from_both_disks),
        T(a_disk_that_fails_is_left_out_and_the_run_goes_on),
        T(where_both_fail_the_error_names_one),
        T(experts_survive_a_disk_too),
        T(a_missing_copy_is_named),
        T(whatever_allocation_fails_opening_ends_cleanly),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
