#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "offload/stream.h"
#include "src/probe/meminfo.h"
#include "tests/fault.h"
#include "tests/faulty_io.h"
#include "tests/upload_rig.h"

/* Bytes of all slabs. */
static uint64_t total(const struct upload_rig *r)
{
    return r->sink_at[r->n];
}

static void make_plan(struct upload_rig *r, uint64_t bytes)
{
    struct sl_error err;
    struct sl_plan_input in = {
        .slabs = r->slabs,
        .n_slabs = r->n,
        .memory_bytes[SL_HOST] = bytes,
        .read_ahead_bytes = 100000,
    };

    sl_plan_fini(&r->plan);
    assert_ok(sl_plan_make(&r->plan, &in, &err), &err);
}

static uint64_t least(const struct upload_rig *r)
{
    return sl_plan_least_bytes(r->slabs, r->n, false);
}

static struct sl_stream_config config_of(const struct upload_rig *r)
{
    return (struct sl_stream_config){
        .path = r->path,
        .slabs = r->slabs,
        .plan = &r->plan,
        .direct = true,
    };
}

/* Whether every extent of the slab lies where it should. */
static bool intact(const struct upload_rig *r, size_t slab, const uint8_t *base)
{
    const struct sl_slab *s = &r->slabs[slab];

    for (uint32_t e = 0; e < s->n_extents; e++)
        if (memcmp(base + sl_slab_extent_at(s, e), r->data + s->extents[e].off,
                   s->extents[e].bytes) != 0)
            return false;
    return true;
}

/* Goes through the cycle; returns how many slabs were had before an error,
   and checks each. */
static size_t go(const struct upload_rig *r, struct sl_stream *st, size_t n,
                 struct sl_error *err)
{
    for (size_t i = 0; i < n; i++) {
        const uint8_t *base;

        if (sl_stream_get(st, i % r->n, &base, err) != 0)
            return i;
        assert_true(intact(r, i % r->n, base));
        sl_stream_put(st, i % r->n);
    }
    return n;
}

static void every_budget_and_reader_gives_the_same_bytes(void **state)
{
    struct upload_rig *r = *state;
    struct sl_error err;

    for (int turn = 0; turn < 60; turn++) {
        struct sl_stream_config config = config_of(r);
        struct sl_stream *st;
        struct sl_stream_stats stats;
        uint64_t read;

        upload_slabs(r, 1 + upload_random(r) % UPLOAD_MAX_SLABS, 60000);
        make_plan(r, least(r) + upload_random(r) % (total(r) - least(r) + 1));
        config.io = turn % 2 ? SL_IO_PREAD : SL_IO_AUTO;
        config.direct = turn % 3 != 0;
        config.depth = turn % 5 == 0 ? 1 : (unsigned)(upload_random(r) % 20);
        config.read_bytes =
            turn % 4 == 0 ? 0 : (uint32_t)(upload_random(r) % 100000);
        assert_ok(sl_stream_open(&st, &config, &err), &err);
        assert_int_equal(go(r, st, r->n * 5, &err), r->n * 5);
        sl_stream_stats(st, &stats);
        read = r->plan.at[SL_HOST].resident_bytes + 5 * r->plan.streamed_bytes;
        /* what was read ahead into the ring is not used yet */
        assert_in_range(stats.bytes_read, read,
                        read + r->plan.at[SL_HOST].ring_bytes);
        assert_int_equal(stats.retries, 0);
        assert_true(config.direct || !stats.direct);
        sl_stream_close(st);
    }
}

/* One engine's slabs, in turn; those that are not there yet come later. */
struct taker {
    uint8_t engine;
    size_t at, done; /* uses of the cycle looked at; slabs had */
};

static bool take_one(const struct upload_rig *r, struct sl_stream *st,
                     struct taker *t)
{
    size_t slab = t->at % r->n;
    const uint8_t *base;
    struct sl_error err;
    int rc = 1;

    if (r->plan.worker[SL_PHASE_DECODE][slab] == t->engine) {
        rc = sl_stream_try(st, slab, &base, &err);
        assert_true(rc >= 0);
        if (rc == 1) {
            assert_true(intact(r, slab, base));
            sl_stream_put(st, slab);
            t->done++;
        }
    }
    t->at += rc == 1;
    return rc == 1;
}

static void two_engines_take_their_slabs_from_one_ring(void **state)
{
    struct upload_rig *r = *state;
    struct sl_error err;

    for (int turn = 0; turn < 20; turn++) {
        struct taker takers[2] = {{SL_HOST, 0, 0}, {SL_DEVICE, 0, 0}};
        struct sl_stream_config config;
        struct sl_stream *st;

        upload_slabs(r, 2 + upload_random(r) % (UPLOAD_MAX_SLABS - 2), 60000);
        make_plan(r, least(r) + upload_random(r) % (total(r) - least(r) + 1));
        for (size_t i = 0; i < r->n; i++)
            r->plan.worker[SL_PHASE_DECODE][i] = upload_random(r) % 3 == 0;
        config = config_of(r);
        assert_ok(sl_stream_open(&st, &config, &err), &err);
        /* Each as far ahead of the other as the ring lets it. */
        while (takers[0].at < 4 * r->n || takers[1].at < 4 * r->n) {
            uint64_t seen = sl_stream_news(st);
            bool went = false;

            for (int e = 0; e < 2; e++) {
                unsigned n = 1 + upload_random(r) % (2 * (unsigned)r->n);

                while (takers[e].at < 4 * r->n && n-- > 0 &&
                       take_one(r, st, &takers[e]))
                    went = true;
            }
            if (!went && (takers[0].at < 4 * r->n || takers[1].at < 4 * r->n))
                sl_stream_await_news(st, seen);
        }
        assert_int_equal(takers[0].done + takers[1].done, 4 * r->n);
        sl_stream_close(st);
    }
}

/* Backward, some slabs never and some twice. */
static void any_order_of_a_plan_is_gone_through(void **state)
{
    struct upload_rig *r = *state;
    struct sl_error err;

    for (int turn = 0; turn < 20; turn++) {
        uint32_t slabs[2 * UPLOAD_MAX_SLABS];
        struct sl_stream_config config;
        struct sl_stream *st;
        size_t n = 0;

        upload_slabs(r, 2 + upload_random(r) % (UPLOAD_MAX_SLABS - 2), 60000);
        make_plan(r, least(r) + upload_random(r) % (total(r) - least(r) + 1));
        for (size_t i = 0; i < r->n; i++) {
            if (turn % 3 != 1 || i % 3 != 1)
                slabs[n++] = (uint32_t)i;
        }
        for (size_t i = r->n; turn % 3 != 1 && i-- > 0;)
            slabs[n++] = (uint32_t)i;
        r->plan.order = (struct sl_order){slabs, n};
        config = config_of(r);
        assert_ok(sl_stream_open(&st, &config, &err), &err);
        for (size_t i = 0; i < 4 * n; i++) {
            size_t slab = slabs[i % n];
            const uint8_t *base;

            assert_ok(sl_stream_get(st, slab, &base, &err), &err);
            assert_true(intact(r, slab, base));
            sl_stream_put(st, slab);
        }
        sl_stream_close(st);
        r->plan.order.n = 0;
    }
}

static void an_order_of_slabs_that_are_not_there_is_refused(void **state)
{
    uint32_t slabs[] = {0, 1, 5, 1};
    struct sl_order order = {slabs, 4};
    struct sl_error err;

    assert_int_equal(sl_order_check(&order, 5, false, &err), -1);
    assert_non_null(strstr(err.msg, "slab 5"));
    assert_ok(sl_order_check(&order, 6, false, &err), &err);
    assert_int_equal(sl_order_check(&order, 6, true, &err), -1);
    assert_non_null(strstr(err.msg, "slab 1"));
}

static void all_resident_needs_no_ring_and_reads_once(void **state)
{
    struct upload_rig *r = *state;
    struct sl_stream_config config;
    struct sl_stream_stats stats;
    struct sl_stream *st;
    struct sl_error err;

    upload_slabs(r, 12, 50000);
    make_plan(r, total(r));
    config = config_of(r);
    assert_ok(sl_stream_open(&st, &config, &err), &err);
    assert_int_equal(go(r, st, 60, &err), 60);
    sl_stream_stats(st, &stats);
    assert_int_equal(stats.bytes_read, total(r));
    sl_stream_close(st);
}

static void slabs_can_be_held_while_others_are_used(void **state)
{
    struct upload_rig *r = *state;
    struct sl_stream_config config;
    struct sl_stream *st;
    struct sl_error err;
    const uint8_t *a, *b;

    upload_slabs(r, 9, 30000);
    make_plan(r, least(r));
    config = config_of(r);
    assert_ok(sl_stream_open(&st, &config, &err), &err);
    assert_ok(sl_stream_get(st, 0, &a, &err), &err);
    for (size_t i = 1; i < 40; i++) {
        assert_ok(sl_stream_get(st, i % 9, &b, &err), &err);
        assert_true(intact(r, (i - 1) % 9, a));
        assert_true(intact(r, i % 9, b));
        sl_stream_put(st, (i - 1) % 9);
        a = b;
    }
    sl_stream_close(st);
}

static void a_caller_that_holds_every_slot_is_told(void **state)
{
    struct upload_rig *r = *state;
    struct sl_stream_config config;
    struct sl_stream *st;
    struct sl_error err;
    const uint8_t *base;
    size_t got = 0;

    upload_slabs(r, 9, 30000);
    make_plan(r, least(r));
    config = config_of(r);
    assert_ok(sl_stream_open(&st, &config, &err), &err);
    while (sl_stream_get(st, got, &base, &err) == 0)
        got++;
    assert_int_equal(err.code, SL_ERR_INTERNAL);
    assert_in_range(got, 3, 8);
    sl_stream_close(st);
}

static void a_slab_out_of_order_is_refused(void **state)
{
    struct upload_rig *r = *state;
    struct sl_stream_config config;
    struct sl_stream *st;
    struct sl_error err;
    const uint8_t *base;

    upload_slabs(r, 9, 30000);
    make_plan(r, least(r));
    config = config_of(r);
    assert_ok(sl_stream_open(&st, &config, &err), &err);
    assert_int_equal(sl_stream_get(st, 1, &base, &err), -1);
    assert_int_equal(err.code, SL_ERR_INTERNAL);
    assert_int_equal(sl_stream_get(st, 900, &base, &err), -1);
    assert_int_equal(go(r, st, 20, &err), 20);
    sl_stream_close(st);
}

static void closing_is_clean_at_any_moment(void **state)
{
    struct upload_rig *r = *state;
    struct sl_error err;

    upload_slabs(r, 20, 60000);
    for (size_t n = 0; n < 50; n++) {
        struct sl_stream_config config = config_of(r);
        const uint8_t *base;
        struct sl_stream *st;

        make_plan(r, least(r) + (total(r) - least(r)) * (n % 5) / 4);
        config.io = n % 2 ? SL_IO_PREAD : SL_IO_AUTO;
        assert_ok(sl_stream_open(&st, &config, &err), &err);
        assert_int_equal(go(r, st, n, &err), n);
        if (n % 3 == 0) /* in the middle of a stage */
            assert_ok(sl_stream_get(st, n % r->n, &base, &err), &err);
        sl_stream_close(st);
    }
    sl_stream_close(NULL);
}

static void a_missing_file_is_named(void **state)
{
    struct upload_rig *r = *state;
    struct sl_stream_config config;
    struct sl_stream *st = NULL;
    struct sl_error err;

    upload_slabs(r, 9, 30000);
    make_plan(r, least(r));
    config = config_of(r);
    config.path = "/nowhere/model.gguf";
    assert_int_equal(sl_stream_open(&st, &config, &err), -1);
    assert_int_equal(err.code, SL_ERR_IO);
    assert_non_null(strstr(err.msg, "/nowhere/model.gguf"));
    assert_null(st);
}

static void a_file_cut_short_anywhere_is_told_from_a_bad_disk(void **state)
{
    struct upload_rig *r = *state;
    struct sl_error err;

    r->n = 10;
    for (size_t i = 0; i < r->n; i++)
        r->slabs[i] = (struct sl_slab){
            .extents = {{i * 40 * 4096 + 100, 39 * 4096}}, .n_extents = 1};
    for (int pages = 399; pages >= 0; pages -= 21) {
        struct sl_stream_config config = config_of(r);
        uint64_t end = (uint64_t)pages * 4096 - (pages % 3 == 0 ? 0 : 1000);
        char want[80];
        struct sl_stream *st;

        make_plan(r, least(r) + (uint64_t)pages % 4 * 41 * 4096);
        config.io = pages % 2 ? SL_IO_PREAD : SL_IO_AUTO;
        config.direct = pages % 4 < 2;
        config.read_bytes = 65536;
        assert_int_equal(truncate(r->path, (off_t)end), 0);
        assert_ok(sl_stream_open(&st, &config, &err), &err);
        assert_int_equal(go(r, st, 10, &err), end / (40 * 4096));
        assert_int_equal(err.code, SL_ERR_CORRUPT);
        snprintf(want, sizeof want, "ends at byte %llu",
                 (unsigned long long)end);
        assert_non_null(strstr(err.msg, want));
        assert_non_null(strstr(err.msg, r->path));
        sl_stream_close(st);
    }
}

static void check_failure(const struct upload_rig *r, enum faulty_kind fault,
                          const struct sl_error *err)
{
    assert_int_equal(err->code,
                     fault == FAULTY_NOTHING ? SL_ERR_CORRUPT : SL_ERR_IO);
    assert_non_null(strstr(err->msg, r->path));
    if (fault == FAULTY_WAIT)
        return;
    assert_non_null(strstr(err->msg, "slab"));
    if (fault == FAULTY_EIO)
        assert_non_null(strstr(err->msg, "Input/output"));
}

/* One run of three passes; returns whether the fault happened. */
static bool run_with(struct upload_rig *r, enum faulty_kind fault, long n,
                     enum sl_io_kind kind)
{
    bool deadly = fault == FAULTY_EIO || fault >= FAULTY_NOTHING;
    struct sl_stream_config config = config_of(r);
    const uint8_t *base = (const uint8_t *)1;
    struct sl_stream_stats stats;
    struct sl_stream *st;
    struct sl_error err;
    size_t got;

    faulty_set(fault, n);
    config.io_open = faulty_open;
    config.io = kind;
    config.read_bytes = 16384;
    config.depth = 4;
    assert_ok(sl_stream_open(&st, &config, &err), &err);
    got = go(r, st, r->n * 3, &err);
    if (got < r->n * 3) {
        assert_true(deadly);
        check_failure(r, fault, &err);
        /* and it stays so */
        assert_int_equal(sl_stream_get(st, got % r->n, &base, &err), -1);
        check_failure(r, fault, &err);
        assert_ptr_equal(base, (const uint8_t *)1);
    }
    sl_stream_stats(st, &stats);
    sl_stream_close(st);
    if (!faulty_happened())
        return false;
    if (!deadly && n == 0) /* later ones may befall what is read ahead */
        assert_true(stats.retries > 0);
    return true;
}

static void
whatever_read_goes_wrong_the_bytes_are_right_or_it_is_said(void **state)
{
    struct upload_rig *r = *state;

    upload_slabs(r, 7, 20000);
    make_plan(r, least(r) + (total(r) - least(r)) / 2);
    assert_true(r->plan.streamed_bytes > 0 &&
                r->plan.at[SL_HOST].resident_bytes > 0);
    for (int fault = 0; fault < FAULTY_COUNT; fault++)
        for (int kind = SL_IO_AUTO; kind <= SL_IO_PREAD; kind += 2) {
            long n = 0;

            while (
                run_with(r, (enum faulty_kind)fault, n, (enum sl_io_kind)kind))
                n += n < 20 ? 1 : 7;
            assert_true(n > 10);
        }
}

static void whatever_allocation_fails_opening_ends_cleanly(void **state)
{
    struct upload_rig *r = *state;
    struct sl_error err;

    upload_slabs(r, 9, 30000);
    make_plan(r, least(r) + 50000);
    for (int kind = SL_IO_AUTO; kind <= SL_IO_PREAD; kind += 2) {
        bool fired = true;

        for (long n = 0; fired; n++) {
            struct sl_stream_config config = config_of(r);
            struct sl_stream *st = NULL;
            int rc;

            config.io = (enum sl_io_kind)kind;
            err = (struct sl_error){.code = SL_OK};
            fault_arm(n);
            rc = sl_stream_open(&st, &config, &err);
            fired = fault_fired();
            if (rc == 0) {
                /* some can be done without: the bounce page, a thread */
                assert_int_equal(go(r, st, 20, &err), 20);
                sl_stream_close(st);
                continue;
            }
            assert_true(fired);
            assert_null(st);
            assert_true(err.code == SL_ERR_NOMEM || err.code == SL_ERR_IO);
            assert_true(err.msg[0] != '\0');
        }
    }
}

static void plans_and_bounced_reads_survive_failing_allocations(void **state)
{
    struct upload_rig *r = *state;
    struct sl_plan_input in = {.slabs = r->slabs};
    struct sl_error err;
    uint8_t *buf = malloc(9000);
    bool fired = true, direct;
    int fd, rc;

    assert_non_null(buf);
    upload_slabs(r, 9, 30000);
    in.n_slabs = r->n;
    in.memory_bytes[SL_HOST] = least(r);
    for (long n = 0; fired; n++) {
        struct sl_plan plan;

        fault_arm(n);
        rc = sl_plan_make(&plan, &in, &err);
        fired = fault_fired();
        assert_int_equal(rc, fired ? -1 : 0);
        if (rc == 0)
            sl_plan_fini(&plan);
        else
            assert_int_equal(err.code, SL_ERR_NOMEM);
    }
    assert_ok(sl_io_open_file(&fd, &direct, r->path, true, &err), &err);
    fired = true;
    for (long n = 0; fired; n++) {
        fault_arm(n);
        rc = sl_io_read_full(fd, r->path, buf, 77, 9000, &err);
        fired = fault_fired();
        assert_int_equal(rc, fired ? -1 : 0);
        if (rc == 0)
            assert_memory_equal(buf, r->data + 77, 9000);
    }
    close(fd);
    free(buf);
}

#ifndef SL_SANITIZED
static void a_stream_takes_no_more_memory_than_it_says(void **state)
{
    struct upload_rig *r = *state;
    struct sl_error err;
    uint64_t first;

    upload_slabs(r, 30, 100000);
    first = sl_meminfo_resident();
    for (int turn = 0; turn < 6; turn++) {
        struct sl_stream_config config = config_of(r);
        uint64_t before, said;
        struct sl_stream *st;

        make_plan(r, least(r) + (total(r) - least(r)) * (2 - turn % 3u) / 2);
        config.io = turn % 2 ? SL_IO_PREAD : SL_IO_AUTO;
        said = r->plan.at[SL_HOST].ring_bytes +
               r->plan.at[SL_HOST].resident_bytes +
               sl_stream_overhead_bytes(r->n, NULL);
        before = sl_meminfo_resident();
        assert_ok(sl_stream_open(&st, &config, &err), &err);
        assert_int_equal(go(r, st, 90, &err), 90);
        assert_true(sl_meminfo_resident() <= before + said);
        sl_stream_close(st);
    }
    /* and gives it back: every ring is as large as this */
    assert_true(r->plan.at[SL_HOST].ring_bytes >= 400000);
    assert_true(sl_meminfo_resident() <= first + 800000);
}
#endif

#define T(name)                                                                \
    cmocka_unit_test_setup_teardown(name, upload_setup, upload_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(every_budget_and_reader_gives_the_same_bytes),
        T(two_engines_take_their_slabs_from_one_ring),
        T(any_order_of_a_plan_is_gone_through),
        T(an_order_of_slabs_that_are_not_there_is_refused),
        T(all_resident_needs_no_ring_and_reads_once),
        T(slabs_can_be_held_while_others_are_used),
        T(a_caller_that_holds_every_slot_is_told),
        T(a_slab_out_of_order_is_refused),
        T(closing_is_clean_at_any_moment),
        T(a_missing_file_is_named),
        T(a_file_cut_short_anywhere_is_told_from_a_bad_disk),
        T(whatever_read_goes_wrong_the_bytes_are_right_or_it_is_said),
        T(whatever_allocation_fails_opening_ends_cleanly),
        T(plans_and_bounced_reads_survive_failing_allocations),
#ifndef SL_SANITIZED
        T(a_stream_takes_no_more_memory_than_it_says),
#endif
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
