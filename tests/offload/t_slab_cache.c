#include "config.h"

#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "offload/sim_machine.h"
#include "tests/cache_rig.h"
#include "tests/fault.h"
#include "tests/faulty_io.h"

static void records_come_whole_whatever_the_places_and_the_reader(void **state)
{
    static const struct {
        uint32_t places;
        enum sl_io_kind io;
        enum sl_cache_policy_kind policy;
    } ways[] = {
        {1, SL_IO_AUTO, SL_CACHE_EXPECTED},
        {3, SL_IO_PREAD, SL_CACHE_LRU},
        {7, SL_IO_AUTO, SL_CACHE_LRU},
        {16, SL_IO_PREAD, SL_CACHE_EXPECTED},
        {N_RECORDS, SL_IO_PREAD, SL_CACHE_EXPECTED},
    };

    for (size_t w = 0; w < sizeof ways / sizeof *ways; w++) {
        struct sl_slab_cache_config config = config_of(ways[w].places);
        struct sl_slab_cache_stats stats;
        struct sl_slab_cache *c;
        struct sl_error err;
        uint64_t bytes = 0;

        config.io = ways[w].io;
        config.policy = ways[w].policy;
        c = open_cache(&config);
        for (unsigned round = 0; round < 60; round++) {
            uint32_t list[8], n = 1 + draw(8);

            draw_list(list, n);
            want(c, list, n);
            for (uint32_t i = 0; i < n; i++) {
                assert_ok(use(c, list[i], 1, &err), &err);
                bytes += rig->records[list[i]].bytes;
            }
        }
        sl_slab_cache_stats(c, &stats);
        assert_int_equal(stats.wanted_bytes, bytes);
        if (ways[w].places >= 16)
            assert_true(stats.demand_bytes <= bytes);
        if (ways[w].places == N_RECORDS)
            assert_int_equal(stats.demand_bytes, rig->bytes);
        sl_slab_cache_close(c);
    }
}

/* With room for all of them what was wanted can be had in any order. */
static void what_is_wanted_stays_until_it_is_put(void **state)
{
    struct sl_slab_cache_config config = config_of(6);
    struct sl_slab_cache *c = open_cache(&config);
    struct sl_error err;

    for (unsigned round = 0; round < 30; round++) {
        struct sl_slab_cache_stats before, after;
        uint32_t list[6];

        draw_list(list, 6);
        want(c, list, 6);
        sl_slab_cache_stats(c, &before);
        for (uint32_t i = 6; i-- > 0;)
            assert_ok(use(c, list[i], 1, &err), &err);
        sl_slab_cache_stats(c, &after);
        assert_int_equal(after.wants, before.wants);
        assert_int_equal(after.hits, before.hits);
    }
    sl_slab_cache_close(c);
}

static void a_want_that_was_given_up_does_not_stand_in_the_way(void **state)
{
    struct sl_slab_cache_config config = config_of(3);
    struct sl_slab_cache *c = open_cache(&config);
    struct sl_error err;

    for (unsigned round = 0; round < 40; round++) {
        uint32_t list[8];

        draw_list(list, 8);
        want(c, list, 8);
        for (uint32_t i = 0; i < round % 8; i++)
            assert_ok(use(c, list[i], 1, &err), &err);
    }
    sl_slab_cache_close(c);
}

static void what_was_used_last_stays_where_that_is_the_policy(void **state)
{
    struct sl_slab_cache_config config = config_of(3);
    struct sl_slab_cache *c;

    config.policy = SL_CACHE_LRU;
    c = open_cache(&config);
    for (uint32_t i = 0; i < 3; i++)
        assert_true(reads(c, i, 1));
    assert_false(reads(c, 0, 1));
    assert_true(reads(c, 3, 1)); /* in place of 1 */
    assert_false(reads(c, 2, 1));
    assert_false(reads(c, 0, 1));
    assert_true(reads(c, 1, 1)); /* in place of 3 */
    assert_true(reads(c, 3, 1)); /* in place of 2 */
    assert_false(reads(c, 0, 1));
    sl_slab_cache_close(c);
}

static void what_is_used_often_outlives_what_is_used_once(void **state)
{
    struct sl_slab_cache_config config = config_of(4);
    struct sl_slab_cache *c = open_cache(&config);

    for (unsigned round = 0; round < 4; round++) {
        for (uint32_t i = 0; i < 3; i++)
            assert_int_equal(reads(c, i, 1), round == 0);
    }
    for (uint32_t i = 3; i + 1 < N_RECORDS; i += 2) {
        assert_true(reads(c, i, 1));
        assert_true(reads(c, i + 1, 1));
        for (uint32_t k = 0; k < 3; k++)
            assert_false(reads(c, k, 1));
    }
    sl_slab_cache_close(c);
}

static void old_use_is_forgotten_and_little_use_counts_little(void **state)
{
    struct sl_slab_cache_config config = config_of(2);
    struct sl_slab_cache *c = open_cache(&config);

    for (unsigned i = 0; i < 8; i++)
        reads(c, 0, 1);
    for (unsigned i = 0; i < 60; i++)
        reads(c, 1 + i % 3, 1);
    assert_true(reads(c, 0, 1));
    sl_slab_cache_close(c);

    c = open_cache(&config);
    for (unsigned i = 0; i < 20; i++) {
        assert_int_equal(reads(c, 0, 1), i == 0);
        reads(c, 1, 0.125);
        reads(c, 2, 0.125);
    }
    sl_slab_cache_close(c);
}

/* Of records that are used as often, what the next layer has stays. */
static void whose_layer_has_had_its_turn_goes_first(void **state)
{
    struct sl_slab_cache_config config = config_of(6);
    struct sl_slab_cache *c;

    config.n_layers = 4;
    c = open_cache(&config);
    for (unsigned round = 0; round < 3; round++) {
        for (uint32_t layer = 0; layer < 4; layer++)
            assert_int_equal(reads(c, layer * 6, 1), round == 0);
    }
    /* Two places are left; then one of layer 3 goes, whose turn it was. */
    assert_true(reads(c, 1, 1));
    assert_true(reads(c, 6, 0) == false);
    assert_true(reads(c, 12 + 1, 1));
    assert_true(reads(c, 18 + 1, 1));
    for (uint32_t layer = 0; layer < 4; layer++)
        assert_false(reads(c, layer * 6, 1));
    sl_slab_cache_close(c);
}

/* What was learned in one life is known in the next. */
static void what_was_learned_can_be_taken_along(void **state)
{
    struct sl_slab_cache_config config = config_of(4);
    struct sl_slab_cache *c = open_cache(&config);
    float parts[N_RECORDS], turns;

    for (unsigned i = 0; i < 40; i++)
        reads(c, i % 2 == 0 ? 5 : 6 + i % 3, 1);
    sl_cache_policy_learned(sl_slab_cache_policy(c), parts, &turns);
    assert_in_range(turns, 30, 40);
    assert_true(parts[5] > 2 * parts[6] && parts[6] > parts[0]);
    sl_slab_cache_close(c);

    for (int knows = 0; knows < 2; knows++) {
        c = open_cache(&config);
        if (knows)
            sl_cache_policy_take(sl_slab_cache_policy(c), parts, turns);
        reads(c, 5, 1);
        for (uint32_t i = 9; i < 9 + 6; i++)
            reads(c, i, 1);
        assert_int_equal(reads(c, 5, 1), !knows);
        sl_slab_cache_close(c);
    }
}

/* Records 0 to 7 of 32 are used by turns of four, then others: the horizon that
 * was best for the one is too long right after. */
static void a_change_of_subject_is_noticed(void **state)
{
    struct sl_cache_policy p;
    struct sl_error err;
    unsigned longest = 0;

    assert_ok(sl_cache_policy_init(&p, SL_CACHE_EXPECTED, 32, 1, &err), &err);
    for (unsigned turn = 0; turn < 600; turn++) {
        uint32_t first = turn < 500 ? 0 : 16;

        sl_cache_policy_turn(&p, 0);
        for (unsigned i = 0; i < 4; i++)
            sl_cache_policy_use(&p, first + (i * 2 + draw(2)), 1);
        if (turn == 499)
            longest = p.best;
    }
    assert_true(p.best < longest);
    for (uint32_t r = 0; r < 8; r++)
        assert_true(sl_cache_policy_wait(&p, r, 0) >
                    4 * sl_cache_policy_wait(&p, 16 + r, 0));
    sl_cache_policy_fini(&p);
}

static void assert_soon(const struct sl_cache_policy *p, uint32_t r, double n)
{
    double turns =
        r / 8 > p->layer ? r / 8 - p->layer - 1 : r / 8 + 4 - p->layer - 1;
    double wait = p->wait[r];

    if (r / 8 > p->layer && n > 1 && wait > 1)
        wait = 1 / (1 - pow(1 - 1 / wait, n));
    assert_true(fabs(sl_cache_policy_wait(p, r, r / 8) - wait - turns / 4) <
                1e-9);
}

/* Of 4 layers of 8 records: whatever came before, a turn, a use, another number
 * of positions or what earlier runs learned. */
static void layers_to_come_are_used_by_all_positions(void **state)
{
    static const uint32_t positions[] = {1, 7, 300, 7, 1};
    struct sl_cache_policy p;
    struct sl_error err;
    float parts[32];

    assert_ok(sl_cache_policy_init(&p, SL_CACHE_EXPECTED, 32, 4, &err), &err);
    for (unsigned i = 0; i < 32; i++)
        parts[i] = (float)draw(8) / 8;
    for (unsigned i = 0; i < 60; i++) {
        uint32_t n = positions[i / 6 % 5], layer = i % 4;

        sl_cache_policy_pass(&p, n);
        if (i == 33)
            sl_cache_policy_take(&p, parts, 20);
        sl_cache_policy_turn(&p, layer);
        sl_cache_policy_use(&p, layer * 8 + draw(8), 0.5);
        for (uint32_t r = 0; r < 32; r++)
            assert_soon(&p, r, n);
    }
    sl_cache_policy_fini(&p);
}

/* By virtual time: a record of 80 reads, of a disk that does one a second. */
static void the_first_of_a_record_need_not_wait_for_the_rest(void **state)
{
    struct sl_machine_spec spec = {
        .rates = {.disk_bps = 1e6, .dram_bps = 1e12}};
    struct sl_extent record = {0, 80000000};
    struct sl_slab_cache_config config = config_of(1);
    struct sl_sim_machine m;
    struct sl_slab_cache *c;
    const uint8_t *base;
    struct sl_error err;
    uint32_t r = 0;

    assert_ok(sl_sim_machine_init(&m, &spec, &err), &err);
    config.records = &record;
    config.n_records = 1;
    config.place_bytes = record.bytes;
    config.read_bytes = 1000000;
    config.clock = m.clock;
    config.io_arg = &m;
    config.io_open = sl_io_open_sim;
    c = open_cache(&config);
    want(c, &r, 1);
    for (unsigned s = 10; s <= 80; s += 7) {
        assert_ok(sl_slab_cache_get_first(c, r, s * 1000000ull, &base, &err),
                  &err);
        assert_int_equal(sl_clock_now(m.clock) / 1000000, s * 1000);
    }
    assert_ok(sl_slab_cache_get(c, r, &base, &err), &err);
    assert_int_equal(sl_clock_now(m.clock) / 1000000, 80000);
    assert_ok(sl_slab_cache_put(c, r, 1, &err), &err);
    sl_slab_cache_close(c);
    sl_sim_machine_fini(&m);
}

static void what_was_not_wanted_is_refused(void **state)
{
    struct sl_slab_cache_config config = config_of(2);
    struct sl_slab_cache *c = open_cache(&config);
    const uint8_t *base;
    struct sl_error err;

    assert_int_equal(sl_slab_cache_get(c, 3, &base, &err), -1);
    assert_int_equal(err.code, SL_ERR_INTERNAL);
    sl_slab_cache_close(c);
}

/* --- faults --------------------------------------------------------------- */

/* The record that could not be read is the one where the message says. */
static void assert_named(const struct sl_slab_cache *c, const char *msg,
                         const struct sl_extent *records)
{
    const char *at = strstr(msg, " at ");
    unsigned long long off = 0;
    uint32_t r;

    assert_non_null(at);
    if (sscanf(at, " at byte %llu", &off) != 1)
        assert_int_equal(sscanf(at, " at %llu", &off), 1);
    assert_true(sl_slab_cache_failed(c, &r));
    assert_in_range(off, records[r].off, records[r].off + records[r].bytes - 1);
}

/* Whether the fault happened. */
static bool run_with(enum faulty_kind fault, long n, enum sl_io_kind io)
{
    bool deadly = fault == FAULTY_EIO || fault >= FAULTY_NOTHING;
    struct sl_slab_cache_config config = config_of(5);
    struct sl_slab_cache *c;
    struct sl_error err;
    int rc = 0;

    faulty_set(fault, n);
    config.io = io;
    config.io_open = faulty_open;
    c = open_cache(&config);
    for (unsigned round = 0; round < 6 && rc == 0; round++) {
        uint32_t list[4];

        draw_list(list, 4);
        rc = sl_slab_cache_want(c, list, 4, &err);
        for (uint32_t i = 0; i < 4 && rc == 0; i++)
            rc = use(c, list[i], 1, &err);
    }
    if (rc != 0) {
        assert_true(deadly);
        assert_non_null(strstr(err.msg, rig->path));
        assert_int_equal(err.code,
                         fault == FAULTY_NOTHING ? SL_ERR_CORRUPT : SL_ERR_IO);
        if (fault != FAULTY_WAIT)
            assert_named(c, err.msg, config.records);
    }
    sl_slab_cache_close(c);
    return faulty_happened();
}

static void
whatever_read_goes_wrong_the_bytes_are_right_or_it_is_said(void **state)
{
    for (enum faulty_kind fault = 0; fault < FAULTY_COUNT; fault++) {
        for (long n = 0; n < 6; n++) {
            bool happened = run_with(fault, n, SL_IO_AUTO);

            assert_true(happened || n > 0);
        }
        assert_true(run_with(fault, 0, SL_IO_PREAD));
    }
}

static size_t pages_there(const uint8_t *base, uint64_t bytes)
{
    size_t n = bytes / SL_PAGE_BYTES, there = 0;
    unsigned char *in = malloc(n);

    assert_non_null(in);
    assert_int_equal(mincore((void *)base, bytes, in), 0);
    for (size_t i = 0; i < n; i++)
        there += in[i] & 1;
    free(in);
    return there;
}

/* Without a read; Linux before 5.14 leaves that to the reads. */
static void all_places_come_by_themselves(void **state)
{
    struct sl_slab_cache_config config = config_of(5);
    struct sl_slab_cache *c;
    uint64_t bytes;
    uint8_t *base;

    config.place_bytes = 16 << 20;
    config.touch_threads = 2;
    c = open_cache(&config);
    base = sl_slab_cache_memory(c, &bytes);
    assert_int_equal(bytes, 5 * config.place_bytes);
    while (madvise(base, SL_PAGE_BYTES, 23 /* MADV_POPULATE_WRITE */) == 0 &&
           pages_there(base, bytes) < bytes / SL_PAGE_BYTES)
        sched_yield();
    assert_true(reads(c, 1, 1));
    sl_slab_cache_close(c);
}

static void no_memory_is_an_error_and_leaks_nothing(void **state)
{
    struct sl_slab_cache_config config = config_of(5);
    bool fired = true;

    for (long n = 0; fired; n++) {
        struct sl_slab_cache *c;
        struct sl_error err;
        int rc;

        fault_arm(n);
        rc = sl_slab_cache_open(&c, &config, &err);
        fired = fault_fired();
        if (rc == 0) {
            assert_true(reads(c, 1, 1));
            sl_slab_cache_close(c);
        } else {
            assert_true(fired);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(records_come_whole_whatever_the_places_and_the_reader),
        cmocka_unit_test(what_is_wanted_stays_until_it_is_put),
        cmocka_unit_test(a_want_that_was_given_up_does_not_stand_in_the_way),
        cmocka_unit_test(what_was_used_last_stays_where_that_is_the_policy),
        cmocka_unit_test(what_is_used_often_outlives_what_is_used_once),
        cmocka_unit_test(old_use_is_forgotten_and_little_use_counts_little),
        cmocka_unit_test(whose_layer_has_had_its_turn_goes_first),
        cmocka_unit_test(what_was_learned_can_be_taken_along),
        cmocka_unit_test(a_change_of_subject_is_noticed),
        cmocka_unit_test(layers_to_come_are_used_by_all_positions),
        cmocka_unit_test(the_first_of_a_record_need_not_wait_for_the_rest),
        cmocka_unit_test(what_was_not_wanted_is_refused),
        cmocka_unit_test(
            whatever_read_goes_wrong_the_bytes_are_right_or_it_is_said),
        cmocka_unit_test(all_places_come_by_themselves),
        cmocka_unit_test(no_memory_is_an_error_and_leaks_nothing),
    };

    return cmocka_run_group_tests(tests, cache_rig_set_up, cache_rig_tear_down);
}
