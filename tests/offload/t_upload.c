#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "src/probe/meminfo.h"
#include "tests/fake_device.h"
#include "tests/fault.h"
#include "tests/faulty_io.h"
#include "tests/upload_rig.h"

#define ALL SIZE_MAX

/* Turn 0 is a fake device, 1 the real or simulated one where there is one. */
static bool open_device(struct upload_rig *r, int turn)
{
    struct fake_device_config plain = {0};
    struct sl_error err;

    if (turn == 0)
        r->dev = fake_device_open(&plain);
    else if (turn > 1 || sl_device_open_cuda(&r->dev, 0, NULL, &err) != 0)
        return false;
    return true;
}

static void fake(struct upload_rig *r, struct fake_device_config config)
{
    r->dev = fake_device_open(&config);
}

static enum sl_phase random_phase(struct upload_rig *r)
{
    return upload_random(r) % 3 == 0 ? SL_PHASE_PREFILL : SL_PHASE_DECODE;
}

/* Bytes that a pass copies, of slabs that do not stay. */
static uint64_t pass_bytes(const struct upload_rig *r, enum sl_phase phase)
{
    uint64_t n = 0;

    for (size_t i = 0; i < r->n; i++)
        if (r->plan.worker[phase][i] == SL_DEVICE &&
            r->plan.tier[i] != SL_TIER_VRAM)
            n += sl_slab_load_bytes(&r->slabs[i]);
    return n;
}

static void every_plan_and_every_order_of_passes_give_the_same_bytes(void **s)
{
    struct upload_rig *r = *s;
    struct sl_error err;

    for (int turn = 0; open_device(r, turn); turn++) {
        for (int i = 0; i < 60; i++) {
            struct sl_stream_stats disk;
            struct sl_upload_stats stats;
            uint64_t up, read;

            upload_random_plan(r, 1 + upload_random(r) % UPLOAD_MAX_SLABS,
                               1 + (uint32_t)(upload_random(r) % 5));
            r->stream_config.io = i % 2 ? SL_IO_PREAD : SL_IO_AUTO;
            assert_ok(upload_open(r, &err), &err);
            up = r->plan.at[SL_DEVICE].resident_bytes;
            for (int pass = 0; pass < 5; pass++) {
                enum sl_phase phase = random_phase(r);

                if (upload_pass(r, phase, ALL, false, &err) != r->n)
                    fail_msg("%s", err.msg);
                up += pass_bytes(r, phase);
            }
            sl_upload_stats(r->upload, &stats);
            sl_stream_stats(r->stream, &disk);
            upload_close(r);
            read = r->plan.at[SL_HOST].resident_bytes +
                   r->plan.at[SL_DEVICE].resident_bytes +
                   5 * r->plan.streamed_bytes;
            /* and what was copied and read ahead; the last copies of the
             * pass may not have been counted yet */
            assert_true(stats.bytes_up <=
                        up + r->plan.at[SL_DEVICE].ring_bytes);
            assert_in_range(disk.bytes_read,
                            read - r->plan.at[SL_HOST].resident_bytes,
                            read + r->plan.at[SL_HOST].ring_bytes +
                                r->plan.at[SL_DEVICE].ring_bytes);
            assert_int_equal(disk.pinned_ring_bytes,
                             r->plan.at[SL_HOST].ring_bytes);
            assert_int_equal(disk.pinned_resident_bytes,
                             r->plan.at[SL_HOST].resident_bytes);
        }
        sl_device_close(r->dev);
    }
}

/* Slabs for the CPU and the GPU by turns, some of which only a prefill gives
 * to the GPU, with as few slots as there may be. */
static void a_prefill_that_was_not_expected_is_made_up_for(void **s)
{
    struct upload_rig *r = *s;
    struct sl_upload_stats stats;
    struct sl_error err;

    for (int turn = 0; open_device(r, turn); turn++) {
        for (uint32_t n = 1; n < 5; n++) {
            upload_slabs(r, 14, 20000);
            upload_plan(r, "DPPDPVDPPPDDPC", n);
            assert_ok(upload_open(r, &err), &err);
            stats.late = 0;
            /* one slot alone is never filled on a guess; with more, the
             * feeder guesses as soon as it gets a turn between passes */
            for (int pass = 0;
                 pass < 12 || (n > 1 && stats.late == 0 && pass < 100000);
                 pass++) {
                enum sl_phase phase =
                    pass % 3 ? SL_PHASE_DECODE : SL_PHASE_PREFILL;

                assert_int_equal(upload_pass(r, phase, ALL, false, &err), 14);
                sl_upload_stats(r->upload, &stats);
            }
            upload_close(r);
            assert_true(n == 1 || stats.late > 0);
        }
        sl_device_close(r->dev);
    }
}

static void what_stays_in_vram_is_copied_once(void **s)
{
    struct upload_rig *r = *s;
    struct sl_stream_stats disk;
    struct sl_upload_stats stats;
    struct sl_error err;

    for (int turn = 0; open_device(r, turn); turn++) {
        upload_slabs(r, 9, 30000);
        upload_plan(r, "VVVVVVVVV", 3);
        assert_ok(upload_open(r, &err), &err);
        for (int pass = 0; pass < 4; pass++)
            assert_int_equal(upload_pass(r, pass % 2, ALL, false, &err), 9);
        sl_stream_stats(r->stream, &disk);
        assert_int_equal(disk.bytes_read, r->plan.at[SL_DEVICE].resident_bytes);
        sl_upload_stats(r->upload, &stats);
        assert_true(stats.bytes_up <= r->plan.at[SL_DEVICE].resident_bytes);
        upload_close(r);
        sl_device_close(r->dev);
    }
}

static void a_slab_that_the_cpu_computes_is_refused(void **s)
{
    struct upload_rig *r = *s;
    struct sl_error err;
    const void *base;

    fake(r, (struct fake_device_config){0});
    upload_slabs(r, 3, 3000);
    upload_plan(r, "DPC", 3);
    assert_ok(upload_open(r, &err), &err);
    assert_int_equal(sl_upload_get(r->upload, 0, &base, &err), -1);
    assert_int_equal(err.code, SL_ERR_INTERNAL); /* before any pass */
    sl_upload_begin(r->upload, SL_PHASE_DECODE);
    assert_int_equal(sl_upload_get(r->upload, 1, &base, &err), -1);
    assert_int_equal(err.code, SL_ERR_INTERNAL);
    assert_int_equal(sl_upload_get(r->upload, 77, &base, &err), -1);
    upload_close(r);
    sl_device_close(r->dev);
}

/* While the device computes nothing, what was put is not written over, and it
 * computes with nothing before it is there. */
static void slots_wait_for_the_kernels_that_use_them(void **s)
{
    struct upload_rig *r = *s;
    struct sl_error err;

    for (unsigned copy_us = 0; copy_us <= 3000; copy_us += 3000) {
        fake(r, (struct fake_device_config){.copy_us = copy_us});
        upload_slabs(r, 6, 20000);
        upload_plan(r, "DGDGDG", 3);
        assert_ok(upload_open(r, &err), &err);
        fake_device_hold(r->dev, SL_QUEUE_COMPUTE, true);
        sl_upload_begin(r->upload, SL_PHASE_DECODE);
        for (size_t i = 0; i < 3; i++) {
            const void *base;

            /* no wait for the device in here, or this would hang */
            assert_ok(sl_upload_get(r->upload, i, &base, &err), &err);
            assert_ok(r->dev->ops->copy_down(
                          r->dev, SL_QUEUE_COMPUTE, r->sink + r->sink_at[i],
                          base, r->sink_at[i + 1] - r->sink_at[i], &err),
                      &err);
            assert_ok(sl_upload_put(r->upload, i, &err), &err);
        }
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
        fake_device_hold(r->dev, SL_QUEUE_COMPUTE, false);
        assert_ok(r->dev->ops->record(r->dev, SL_QUEUE_COMPUTE, r->end, &err),
                  &err);
        assert_ok(r->dev->ops->sync(r->dev, r->end, &err), &err);
        for (size_t i = 0; i < 3; i++) {
            const struct sl_extent *e = &r->slabs[i].extents[0];

            assert_memory_equal(r->sink + r->sink_at[i] +
                                    sl_slab_extent_at(&r->slabs[i], 0),
                                r->data + e->off, e->bytes);
        }
        upload_close(r);
        sl_device_close(r->dev);
    }
}

/* --- slowness ------------------------------------------------------------- */

struct slow_io {
    struct sl_io io;
    struct sl_io *inner;
};

static int slow_submit(struct sl_io *io, const struct sl_io_read *read,
                       struct sl_error *err)
{
    struct sl_io *inner = ((struct slow_io *)io)->inner;

    return inner->ops->submit(inner, read, err);
}

static int slow_wait(struct sl_io *io, struct sl_io_done *done, unsigned max,
                     struct sl_error *err)
{
    struct sl_io *inner = ((struct slow_io *)io)->inner;

    nanosleep(&(struct timespec){.tv_nsec = 500000}, NULL);
    return inner->ops->wait(inner, done, 1, err);
}

static void slow_wake(struct sl_io *io)
{
    struct sl_io *inner = ((struct slow_io *)io)->inner;

    inner->ops->wake(inner);
}

static void slow_close(struct sl_io *io)
{
    struct slow_io *slow = (struct slow_io *)io;

    slow->inner->ops->close(slow->inner);
    free(slow);
}

static int slow_open(struct sl_io **io, const struct sl_io_config *config,
                     struct sl_error *err)
{
    static const struct sl_io_ops ops = {
        .name = "slow",
        .submit = slow_submit,
        .wait = slow_wait,
        .wake = slow_wake,
        .close = slow_close,
    };
    struct slow_io *slow = malloc(sizeof *slow);

    assert_non_null(slow);
    if (sl_io_open(&slow->inner, config, err) != 0) {
        free(slow);
        return -1;
    }
    slow->io = *slow->inner;
    slow->io.ops = &ops;
    *io = &slow->io;
    return 0;
}

static void a_slow_disk_or_device_changes_nothing_but_time(void **s)
{
    struct upload_rig *r = *s;
    struct sl_upload_stats stats;
    struct sl_error err;

    for (int slow = 0; slow < 2; slow++) {
        fake(r, (struct fake_device_config){.copy_us = slow ? 1000 : 0});
        upload_slabs(r, 12, 20000);
        upload_plan(r, "DPVDPGDPVDDP", 3);
        r->stream_config.io_open = slow ? NULL : slow_open;
        assert_ok(upload_open(r, &err), &err);
        for (int pass = 0; pass < 6; pass++)
            assert_int_equal(upload_pass(r, pass % 4 == 0, ALL, false, &err),
                             12);
        sl_upload_stats(r->upload, &stats);
        upload_close(r);
        sl_device_close(r->dev);
        assert_true(slow ? stats.copy_ns > 1000000 * (stats.copies - 3)
                         : stats.disk_wait_ns > 0);
        assert_true(stats.get_wait_ns > 0);
    }
}

/* --- failures ------------------------------------------------------------- */

/* Three passes. Returns whether all came through. */
static bool run_all(struct upload_rig *r, struct sl_error *err)
{
    static const enum sl_phase phases[] = {SL_PHASE_PREFILL, SL_PHASE_DECODE,
                                           SL_PHASE_PREFILL};

    for (int i = 0; i < 3; i++)
        if (upload_pass(r, phases[i], ALL, false, err) != r->n)
            return false;
    return true;
}

static void whatever_call_fails_the_run_ends_with_its_message(void **s)
{
    struct upload_rig *r = *s;
    struct sl_error err;

    upload_slabs(r, 12, 9000);
    upload_plan(r, "DPVCPDCPGVDP", 3);
    for (int lost = 0; lost < 2; lost++) {
        bool failed = true;

        for (long n = 0; failed; n += n < 60 ? 1 : 5) {
            bool ok;

            fake(r, (struct fake_device_config){0});
            fake_device_fail(r->dev, n, lost);
            err = (struct sl_error){.code = SL_OK};
            ok = upload_open(r, &err) == 0 && run_all(r, &err);
            if (!ok)
                assert_non_null(strstr(err.msg, "fake device: "));
            upload_close(r);
            failed = fake_device_failed(r->dev);
            assert_true(failed || ok);
            assert_int_equal(fake_device_objects(r->dev), 0);
            sl_device_close(r->dev);
        }
    }
}

static void a_disk_that_fails_ends_the_run_and_so_does_a_short_file(void **s)
{
    struct upload_rig *r = *s;
    struct sl_error err;

    upload_slabs(r, 12, 9000);
    upload_plan(r, "DPVCPDCPGVDP", 3);
    for (int fault = 0; fault < FAULTY_COUNT; fault++) {
        bool deadly = fault == FAULTY_EIO || fault >= FAULTY_NOTHING;

        for (long n = 0; n < 200; n += 1 + n / 4) {
            bool ok;

            fake(r, (struct fake_device_config){0});
            faulty_set((enum faulty_kind)fault, n);
            r->stream_config.io_open = faulty_open;
            assert_ok(upload_open(r, &err), &err);
            ok = run_all(r, &err);
            assert_true(ok || deadly);
            if (!ok)
                assert_non_null(strstr(err.msg, r->path));
            upload_close(r);
            sl_device_close(r->dev);
        }
    }
}

static void whatever_allocation_fails_opening_ends_cleanly(void **s)
{
    struct upload_rig *r = *s;
    struct sl_error err;
    bool fired = true;

    upload_slabs(r, 12, 9000);
    upload_plan(r, "DPVCPDCPGVDP", 3);
    for (long n = 0; fired; n++) {
        int rc;

        fake(r, (struct fake_device_config){0});
        fault_arm(n);
        rc = upload_open(r, &err);
        fired = fault_fired();
        if (rc == 0) {
            assert_true(run_all(r, &err));
            upload_close(r);
        } else {
            assert_true(fired);
            assert_true(err.code == SL_ERR_NOMEM || err.code == SL_ERR_IO);
        }
        sl_device_close(r->dev);
    }
}

static void closing_is_clean_at_any_moment(void **s)
{
    struct upload_rig *r = *s;
    struct sl_error err;

    for (int turn = 0; open_device(r, turn); turn++) {
        if (turn == 0) {
            sl_device_close(r->dev);
            fake(r, (struct fake_device_config){.copy_us = 300});
        }
        upload_slabs(r, 14, 9000);
        upload_plan(r, "DPVCPDCPGVDPVC", 3);
        for (size_t n = 0; n < 42; n++) {
            size_t pass = n / 14, until = n % 14;

            assert_ok(upload_open(r, &err), &err);
            while (pass-- > 0)
                assert_int_equal(upload_pass(r, pass % 2, ALL, false, &err),
                                 14);
            if (until > 0)
                upload_pass(r, n % 2, until, n % 3 == 0, &err);
            upload_close(r);
        }
        sl_device_close(r->dev);
    }
    sl_upload_close(NULL);
}

/* --- memory --------------------------------------------------------------- */

struct lines {
    int n;
    char last[600];
};

static void keep_line(void *opaque, enum sl_log_level level, const char *line)
{
    struct lines *lines = opaque;

    lines->n++;
    snprintf(lines->last, sizeof lines->last, "%s", line);
}

static void what_cannot_be_pinned_is_copied_all_the_same(void **s)
{
    struct upload_rig *r = *s;
    struct lines lines = {0};
    struct sl_log log = {keep_line, &lines, SL_LOG_INFO};
    uint64_t all, before = UINT64_MAX;
    struct sl_error err;

    upload_slabs(r, 14, 20000);
    upload_plan(r, "DPPDPVDPPPDDPC", 3);
    all = r->plan.at[SL_HOST].ring_bytes + r->plan.at[SL_HOST].resident_bytes;
    r->stream_config.log = &log;
    for (uint64_t limit = all; limit > 0; limit /= 3) {
        struct sl_stream_stats disk;

        fake(r, (struct fake_device_config){.pin_bytes = limit});
        lines.n = 0;
        assert_ok(upload_open(r, &err), &err);
        assert_true(run_all(r, &err));
        sl_stream_stats(r->stream, &disk);
        upload_close(r);
        sl_device_close(r->dev);
        all = disk.pinned_ring_bytes + disk.pinned_resident_bytes;
        assert_true(all <= before);
        assert_int_equal(lines.n,
                         limit >= r->plan.at[SL_HOST].resident_bytes &&
                                 limit >= r->plan.at[SL_HOST].ring_bytes
                             ? 0
                             : 1);
        if (lines.n > 0)
            assert_non_null(strstr(lines.last, "pinned"));
        before = all;
    }
    assert_int_equal(before, 0);
}

static void the_trace_shows_every_copy(void **s)
{
    struct upload_rig *r = *s;
    char path[1200];
    struct sl_trace *trace;
    struct sl_error err;
    size_t i, n = 0;
    json_t *j, *e;

    snprintf(path, sizeof path, "%s/trace.json", r->dir);
    assert_ok(sl_trace_open(&trace, path, &err), &err);
    fake(r, (struct fake_device_config){.copy_us = 100});
    upload_slabs(r, 4, 9000);
    upload_plan(r, "DVDV", 3);
    r->upload_config.trace = trace;
    assert_ok(upload_open(r, &err), &err);
    for (int pass = 0; pass < 3; pass++)
        assert_int_equal(upload_pass(r, SL_PHASE_DECODE, ALL, false, &err), 4);
    upload_close(r);
    sl_device_close(r->dev);
    assert_ok(sl_trace_close(trace, &err), &err);
    j = test_json(path);
    json_array_foreach(json_object_get(j, "traceEvents"), i, e)
    {
        const char *phase = json_string_value(json_object_get(e, "ph"));

        if (strcmp(phase, "X") != 0)
            continue;
        assert_int_equal(json_integer_value(json_object_get(e, "tid")),
                         SL_TRACK_COPIES + 1);
        assert_true(json_number_value(json_object_get(e, "dur")) >= 100);
        n++;
    }
    /* the last one or two may not have been looked at */
    assert_in_range(n, 2 + 3 * 2 - 2, 2 + 4 * 2);
    json_decref(j);
}

#ifndef SL_SANITIZED
static void a_feed_takes_no_more_memory_than_it_says(void **s)
{
    struct upload_rig *r = *s;
    struct sl_error err;
    uint64_t before, after, said;

    upload_slabs(r, 30, 60000);
    upload_plan(r, "DPVCPDCPGVDPVCDPVCPDCPGVDPVCDD", 3);
    fake(r, (struct fake_device_config){0});
    /* once, for the heap and the code */
    for (int turn = 0; turn < 2; turn++) {
        before = sl_meminfo_resident();
        assert_ok(upload_open(r, &err), &err);
        assert_true(run_all(r, &err));
        after = sl_meminfo_resident();
        upload_close(r);
    }
    said =
        r->plan.at[SL_HOST].ring_bytes + r->plan.at[SL_HOST].resident_bytes +
        sl_stream_overhead_bytes(r->n, NULL) + sl_upload_overhead_bytes(r->n) +
        /* the fake device's own memory */
        r->plan.at[SL_DEVICE].ring_bytes + r->plan.at[SL_DEVICE].resident_bytes;
    assert_true(after <= before + said);
    sl_device_close(r->dev);
}
#endif

#define T(name)                                                                \
    cmocka_unit_test_setup_teardown(name, upload_setup, upload_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(every_plan_and_every_order_of_passes_give_the_same_bytes),
        T(a_prefill_that_was_not_expected_is_made_up_for),
        T(what_stays_in_vram_is_copied_once),
        T(a_slab_that_the_cpu_computes_is_refused),
        T(slots_wait_for_the_kernels_that_use_them),
        T(a_slow_disk_or_device_changes_nothing_but_time),
        T(whatever_call_fails_the_run_ends_with_its_message),
        T(a_disk_that_fails_ends_the_run_and_so_does_a_short_file),
        T(whatever_allocation_fails_opening_ends_cleanly),
        T(closing_is_clean_at_any_moment),
        T(what_cannot_be_pinned_is_copied_all_the_same),
        T(the_trace_shows_every_copy),
#ifndef SL_SANITIZED
        T(a_feed_takes_no_more_memory_than_it_says),
#endif
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
