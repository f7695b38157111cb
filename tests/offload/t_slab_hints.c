#include "config.h"

#include "offload/sim_machine.h"
#include "tests/cache_rig.h"
#include "tests/fault.h"
#include "tests/faulty_io.h"

/* What a slab cache makes of being told what is likely. */

static void hint(struct sl_slab_cache *c, enum sl_hint kind,
                 const uint32_t *records, uint32_t n)
{
    static const uint8_t ranks[] = {0, 1, 2, 3, 4, 5, 6, 7};
    struct sl_error err;

    assert_true(n <= sizeof ranks);
    assert_ok(sl_slab_cache_hint(c, kind, records, ranks, n, &err), &err);
}

static void hints_are_read_while_nothing_is_missing(void **state)
{
    struct sl_slab_cache_config config = config_of(8);
    struct sl_slab_cache_stats stats;
    struct sl_slab_cache *c;
    struct sl_error err;
    uint32_t list[] = {0, 1, 2}, likely[] = {3, 4, 5};

    config.depth = 16;
    c = open_cache(&config);
    want(c, list, 3);
    hint(c, SL_HINT_LATE, likely, 3);
    for (uint32_t i = 0; i < 3; i++)
        assert_ok(use(c, list[i], 1, &err), &err);
    /* wanted on their way, or there */
    want(c, likely, 2);
    for (uint32_t i = 0; i < 2; i++)
        assert_ok(use(c, likely[i], 1, &err), &err);
    sl_slab_cache_stats(c, &stats);
    assert_int_equal(stats.hint_used_bytes,
                     rig->records[3].bytes + rig->records[4].bytes);
    assert_int_equal(stats.hits, 2);
    for (uint32_t i = 6; i < N_RECORDS; i++)
        assert_true(reads(c, i, 1));
    sl_slab_cache_stats(c, &stats);
    assert_int_equal(stats.hint_wasted_bytes, rig->records[5].bytes);
    sl_slab_cache_close(c);
}

/* Guesses of rank 0 are right, those of rank 1 wrong, later the other way: what
 * a rank was worth of late says whether its records are read, and those that
 * are not read can win that back. */
static void a_guess_is_worth_what_its_rank_was(void **state)
{
    static const enum sl_hint kinds[] = {SL_HINT_EARLY, SL_HINT_LATE};
    enum { ROUNDS = 800 }; /* of each way */

    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        struct sl_slab_cache_config config = config_of(6);
        struct sl_slab_cache *c;
        unsigned read[2][2] = {{0}}; /* of the last half, by way and rank */

        config.depth = 32; /* more than a guess takes, right behind another */
        c = open_cache(&config);
        for (unsigned round = 0; round < 2 * ROUNDS; round++) {
            uint8_t rank = round % 2;
            unsigned way = round / ROUNDS;
            uint32_t list[2] = {round % 2, 2 + round % 3};
            uint32_t likely = 10 + round % 13;
            struct sl_slab_cache_stats before, after;
            struct sl_error err;

            want(c, list, 2);
            for (uint32_t i = 0; i < 2; i++)
                assert_ok(use(c, list[i], 1, &err), &err);
            sl_slab_cache_stats(c, &before);
            assert_ok(sl_slab_cache_hint(c, kinds[k], &likely, &rank, 1, &err),
                      &err);
            sl_slab_cache_stats(c, &after);
            if (round % ROUNDS >= ROUNDS / 2)
                read[way][rank] += after.hint_bytes > before.hint_bytes;
            if (rank != way)
                likely = list[0];
            want(c, &likely, 1);
            assert_ok(use(c, likely, 1, &err), &err);
        }
        assert_true(read[0][0] > ROUNDS / 5 && read[0][1] < ROUNDS / 20);
        assert_true(read[1][1] > ROUNDS / 5 && read[1][0] < ROUNDS / 20);
        sl_slab_cache_close(c);
    }
}

/* Nothing is read in place of what is used always, however good the guess of
 * something that never is. */
static void a_guess_takes_no_place_of_what_is_needed_more(void **state)
{
    struct sl_slab_cache_config config = config_of(3);
    struct sl_slab_cache *c = open_cache(&config);
    struct sl_slab_cache_stats stats;
    uint32_t list[3] = {0, 1, 2};
    struct sl_error err;

    for (uint32_t round = 0; round < 40; round++) {
        uint32_t wrong = 8 + round % 4;

        want(c, list, 3);
        for (uint32_t i = 0; i < 3; i++)
            assert_ok(use(c, list[i], 1, &err), &err);
        if (round >= 20)
            hint(c, SL_HINT_LATE, &wrong, 1);
    }
    sl_slab_cache_stats(c, &stats);
    assert_int_equal(stats.hint_bytes, 0);
    assert_int_equal(stats.hits, 3 * 39);
    sl_slab_cache_close(c);
}

/* What a wrong guess has begun to read is not read to its end. */
static void what_was_guessed_in_vain_is_read_no_further(void **state)
{
    struct sl_slab_cache_config config = config_of(4);
    struct sl_slab_cache_stats stats;
    uint32_t first = 0, large = 0, other;
    struct sl_slab_cache *c;
    struct sl_error err;

    while (rig->records[large].bytes < MOST * PAGE)
        large++;
    other = (large + 1) % N_RECORDS;
    config.depth = 2;
    config.read_bytes = PAGE;
    c = open_cache(&config);
    first = (large + 2) % N_RECORDS;
    assert_true(reads(c, first, 1));
    hint(c, SL_HINT_LATE, &large, 1); /* one page of five */
    want(c, &other, 1);
    assert_ok(use(c, other, 1, &err), &err);
    sl_slab_cache_stats(c, &stats);
    assert_int_equal(stats.hint_bytes, PAGE);
    assert_int_equal(stats.hint_wasted_bytes, PAGE);
    assert_true(reads(c, large, 1));
    assert_false(reads(c, other, 1));
    sl_slab_cache_close(c);
}

/* Hints may be wrong, of what is held, or more than there is room for. */
static void hints_change_no_byte(void **state)
{
    for (uint32_t places = 1; places < 12; places += 5) {
        struct sl_slab_cache_config config = config_of(places);
        struct sl_slab_cache *c = open_cache(&config);
        struct sl_error err;

        for (unsigned round = 0; round < 60; round++) {
            uint32_t list[8], likely[8], n = 1 + draw(8);

            draw_list(list, n);
            draw_list(likely, 8);
            want(c, list, n);
            for (uint32_t i = 0; i < n; i++) {
                if (i == n / 2)
                    hint(c, SL_HINT_LATE, likely, 8);
                assert_ok(use(c, list[i], 1, &err), &err);
            }
        }
        sl_slab_cache_close(c);
    }
}

/* Only who wants what cannot be read hears of it, and hears of it: not who was
 * told that it may be wanted. */
static void what_a_hint_cannot_read_is_no_error(void **state)
{
    for (int wanted = 0; wanted < 3; wanted++) {
        struct sl_slab_cache_config config = config_of(8);
        struct sl_slab_cache_stats stats;
        struct sl_slab_cache *c;
        uint32_t first[] = {0}, likely[] = {3, 4}, others[] = {5, 6};
        struct sl_error err;

        config.io_open = faulty_open;
        config.depth = 8;
        faulty_set(FAULTY_COUNT, 0);
        c = open_cache(&config);
        assert_true(reads(c, 0, 1));
        faulty_change(FAULTY_EIO, 0);
        want(c, first, 1);
        hint(c, SL_HINT_LATE, likely, 2);
        assert_ok(use(c, 0, 1, &err), &err);
        if (wanted == 1) { /* while it is on its way, on a disk that fails */
            int rc = sl_slab_cache_want(c, likely, 2, &err);

            if (rc == 0)
                rc = use(c, 3, 1, &err);
            assert_int_equal(rc, -1);
            assert_int_equal(err.code, SL_ERR_IO);
        } else {
            for (int i = 0; i < 100000 && !faulty_happened(); i++)
                hint(c, SL_HINT_LATE, likely, 2);
            assert_true(faulty_happened());
            faulty_change(FAULTY_COUNT, 0);
            want(c, wanted == 0 ? likely : others, 2);
            for (uint32_t i = 0; i < 2; i++)
                assert_ok(use(c, (wanted == 0 ? likely : others)[i], 1, &err),
                          &err);
            sl_slab_cache_stats(c, &stats);
            assert_true(stats.hint_used_bytes == 0 || wanted == 0);
        }
        for (uint32_t i = 0; i < N_RECORDS && wanted != 1; i++)
            (void)reads(c, i, 1);
        sl_slab_cache_close(c);
    }
}

/* By virtual time: what was hinted in vain keeps all of the disk's queue, and
 * when it has ended what is wanted looks for places. */
static void what_was_got_in_part_keeps_its_place(void **state)
{
    struct sl_machine_spec spec = {
        .rates = {.disk_bps = 1e6, .dram_bps = 1e12}};
    struct sl_slab_cache_config config = config_of(5);
    struct sl_extent records[8];
    struct sl_sim_machine m;
    struct sl_slab_cache *c;
    const uint8_t *base, *whole;
    struct sl_error err;
    uint32_t list[] = {0, 1, 2, 3, 4, 5}, vain = 7;

    assert_ok(sl_sim_machine_init(&m, &spec, &err), &err);
    for (uint64_t i = 0; i < 8; i++)
        records[i] = (struct sl_extent){i << 20, i == 7 ? 2 << 20 : 1 << 20};
    config.records = records;
    config.n_records = 8;
    config.place_bytes = 2 << 20;
    config.read_bytes = 1 << 20;
    config.depth = 2;
    config.clock = m.clock;
    config.io_arg = &m;
    config.io_open = sl_io_open_sim;
    c = open_cache(&config);
    want(c, list, 4);
    for (uint32_t i = 0; i < 4; i++) {
        assert_ok(sl_slab_cache_get(c, i, &base, &err), &err);
        assert_ok(sl_slab_cache_put(c, i, 1, &err), &err);
    }
    assert_ok(sl_slab_cache_hint(c, SL_HINT_SWEEP, &vain, NULL, 1, &err), &err);
    want(c, list, 6);
    assert_ok(sl_slab_cache_get(c, 2, &base, &err), &err);
    assert_ok(sl_slab_cache_get_first(c, 3, 1000, &base, &err), &err);
    sl_machine_compute(&m, 1e13, 0); /* ten seconds */
    sl_slab_cache_go_on(c);
    assert_true(sl_slab_cache_there(c, 3));
    assert_ok(sl_slab_cache_get(c, 3, &whole, &err), &err);
    assert_ptr_equal(whole, base);
    for (uint32_t i = 2; i < 6; i++) {
        assert_ok(sl_slab_cache_get(c, i, &base, &err), &err);
        assert_ok(sl_slab_cache_put(c, i, 1, &err), &err);
    }
    sl_slab_cache_close(c);
    sl_sim_machine_fini(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hints_are_read_while_nothing_is_missing),
        cmocka_unit_test(a_guess_is_worth_what_its_rank_was),
        cmocka_unit_test(a_guess_takes_no_place_of_what_is_needed_more),
        cmocka_unit_test(what_was_guessed_in_vain_is_read_no_further),
        cmocka_unit_test(hints_change_no_byte),
        cmocka_unit_test(what_a_hint_cannot_read_is_no_error),
        cmocka_unit_test(what_was_got_in_part_keeps_its_place),
    };

    return cmocka_run_group_tests(tests, cache_rig_set_up, cache_rig_tear_down);
}
