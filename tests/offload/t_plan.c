#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "offload/plan.h"
#include "tests/support.h"

#define MAX_SLABS 96u

struct list {
    struct sl_slab slabs[MAX_SLABS];
    size_t n;
    uint64_t total, largest;
};

/* xorshift64: the same lists on every machine. */
static uint64_t next(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed;
}

static void add(struct list *l, uint64_t pages)
{
    struct sl_slab *s = &l->slabs[l->n++];

    *s = (struct sl_slab){.n_extents = 1};
    s->extents[0].off = l->total;
    s->extents[0].bytes = pages * SL_PAGE_BYTES;
    l->total += pages * SL_PAGE_BYTES;
    if (pages * SL_PAGE_BYTES > l->largest)
        l->largest = pages * SL_PAGE_BYTES;
}

/* Lists of one size, of a few sizes as in a transformer, of any size, and of
   small slabs with a giant among them. */
static void random_list(struct list *l, uint64_t *seed)
{
    unsigned kind = (unsigned)(next(seed) % 4);
    size_t n = 1 + next(seed) % MAX_SLABS;
    uint64_t a = 1 + next(seed) % 5000, b = 1 + next(seed) % 5000;

    memset(l, 0, sizeof *l);
    for (size_t i = 0; i < n; i++)
        add(l, kind == 0    ? a
               : kind == 1  ? (i % 2 ? a : b)
               : kind == 2  ? 1 + next(seed) % 10000
               : i == n / 2 ? 100000
                            : 1 + next(seed) % 20);
}

static int make(struct sl_plan *plan, const struct list *l, uint64_t bytes,
                uint64_t read_ahead, struct sl_error *err)
{
    struct sl_plan_input in = {
        .slabs = l->slabs,
        .n_slabs = l->n,
        .memory_bytes[SL_HOST] = bytes,
        .read_ahead_bytes = read_ahead,
    };

    return sl_plan_make(plan, &in, err);
}

/* Everything a plan says about itself must follow from its tiers. */
static void check(const struct sl_plan *p, const struct list *l,
                  uint64_t budget)
{
    uint64_t resident = 0, streamed = 0, largest = 0, smallest = UINT64_MAX;

    assert_int_equal(p->n_slabs, l->n);
    for (size_t i = 0; i < l->n; i++) {
        uint64_t bytes = sl_slab_load_bytes(&l->slabs[i]);

        if (p->tier[i] == SL_TIER_RAM) {
            resident += bytes;
            continue;
        }
        streamed += bytes;
        largest = bytes > largest ? bytes : largest;
        smallest = bytes < smallest ? bytes : smallest;
    }
    assert_int_equal(p->at[SL_HOST].resident_bytes, resident);
    assert_int_equal(p->streamed_bytes, streamed);
    assert_int_equal(p->at[SL_HOST].slot_bytes, largest);
    assert_int_equal(p->at[SL_HOST].ring_bytes,
                     p->at[SL_HOST].n_slots * p->at[SL_HOST].slot_bytes);
    assert_true(p->at[SL_HOST].ring_bytes + p->at[SL_HOST].resident_bytes <=
                budget);
    if (streamed == 0) {
        assert_int_equal(p->at[SL_HOST].n_slots, 0);
        return;
    }
    assert_true(p->at[SL_HOST].n_slots >= SL_RING_MIN_SLOTS);
    /* a slab that still had room would be a read for nothing in each pass */
    assert_true(budget - p->at[SL_HOST].ring_bytes -
                    p->at[SL_HOST].resident_bytes <
                smallest);
    /* otherwise everything could have been kept */
    assert_true(streamed > p->at[SL_HOST].ring_bytes);
}

static void every_plan_keeps_the_budget_and_wastes_none(void **state)
{
    uint64_t seed = 88172645463325252u;
    struct sl_error err;
    struct list l;

    for (int turn = 0; turn < 400; turn++) {
        random_list(&l, &seed);
        uint64_t least = sl_plan_least_bytes(l.slabs, l.n, false);

        for (int step = 0; step <= 16; step++) {
            uint64_t budget = least + (l.total - least) / 16 * (uint64_t)step;
            struct sl_plan p;

            assert_ok(make(&p, &l, budget, next(&seed) % (l.total + 1), &err),
                      &err);
            check(&p, &l, budget);
            sl_plan_fini(&p);
        }
    }
}

static void the_least_works_and_one_byte_less_does_not(void **state)
{
    uint64_t seed = 1442695040888963407u;
    struct sl_plan p, before;
    struct sl_error err;
    struct list l;

    memset(&p, 0x5a, sizeof p);
    for (int turn = 0; turn < 2000; turn++) {
        random_list(&l, &seed);
        uint64_t least = sl_plan_least_bytes(l.slabs, l.n, false);

        assert_true(least <= l.total);
        assert_true(least <= 3 * l.largest);
        before = p;
        assert_int_equal(make(&p, &l, least - 1, 0, &err), -1);
        assert_int_equal(err.code, SL_ERR_BUDGET);
        assert_memory_equal(&p, &before, sizeof p);
        assert_ok(make(&p, &l, least, UINT64_MAX, &err), &err);
        check(&p, &l, least);
        sl_plan_fini(&p);
    }
}

/* Slabs that are to be kept are resident, with the others spread over what is
 * left; with a byte less than the least there is no plan. */
static void what_is_to_be_kept_stays(void **state)
{
    uint64_t seed = 88172645463325252u;
    struct sl_error err;
    struct list l;

    for (int turn = 0; turn < 300; turn++) {
        struct sl_plan p;
        uint64_t least;

        random_list(&l, &seed);
        for (size_t i = 0; i < l.n; i++)
            l.slabs[i].keep = turn % 3 == 0 ? i % 2 == 0 : next(&seed) % 4 == 0;
        least = sl_plan_least_bytes(l.slabs, l.n, true);
        assert_true(least >= sl_plan_least_bytes(l.slabs, l.n, false));
        for (int step = 0; step <= 4; step++) {
            uint64_t budget = least + (l.total - least) / 4 * (uint64_t)step;
            struct sl_plan_input in = {
                .slabs = l.slabs,
                .n_slabs = l.n,
                .memory_bytes[SL_HOST] = budget,
                .keep = true,
            };

            assert_ok(sl_plan_make(&p, &in, &err), &err);
            check(&p, &l, budget);
            for (size_t i = 0; i < l.n; i++)
                assert_true(!l.slabs[i].keep || p.tier[i] == SL_TIER_RAM);
            sl_plan_fini(&p);
            in.memory_bytes[SL_HOST] = least - 1;
            assert_int_equal(sl_plan_make(&p, &in, &err), -1);
            assert_int_equal(err.code, SL_ERR_BUDGET);
        }
    }
}

static void a_refusal_names_both_numbers(void **state)
{
    struct sl_plan p;
    struct sl_error err;
    struct list l = {.n = 0};

    for (int i = 0; i < 8; i++)
        add(&l, 256);
    assert_int_equal(make(&p, &l, 1000000, 0, &err), -1);
    assert_non_null(strstr(err.msg, "3145728"));
    assert_non_null(strstr(err.msg, "1000000"));
}

static void more_memory_never_streams_more_but_for_one_slab(void **state)
{
    uint64_t seed = 2463534242u;
    struct sl_error err;
    struct list l;

    for (int turn = 0; turn < 100; turn++) {
        random_list(&l, &seed);
        uint64_t least = sl_plan_least_bytes(l.slabs, l.n, false);
        uint64_t best = UINT64_MAX, step = (l.total - least) / 97 + 1;

        for (uint64_t budget = least; budget <= l.total; budget += step) {
            struct sl_plan p;

            assert_ok(make(&p, &l, budget, 0, &err), &err);
            if (best != UINT64_MAX)
                assert_true(p.streamed_bytes <= best + l.largest);
            if (p.streamed_bytes < best)
                best = p.streamed_bytes;
            sl_plan_fini(&p);
        }
    }
}

static void what_fits_is_kept_whole(void **state)
{
    uint64_t seed = 5u;
    struct sl_error err;
    struct sl_plan p;
    struct list l;

    for (int turn = 0; turn < 50; turn++) {
        random_list(&l, &seed);
        assert_ok(make(&p, &l, l.total, UINT64_MAX, &err), &err);
        assert_int_equal(p.streamed_bytes, 0);
        assert_int_equal(p.at[SL_HOST].n_slots, 0);
        assert_int_equal(p.at[SL_HOST].ring_bytes, 0);
        sl_plan_fini(&p);
    }
}

/* Runs of streamed slabs between residents, across the end of a pass. */
static void residents_are_spread_evenly(void **state)
{
    struct sl_error err;

    for (size_t n = 8; n <= MAX_SLABS; n += 11)
        for (size_t keep = 1; keep + 4 <= n; keep++) {
            struct list l = {.n = 0};
            size_t first = n, last = 0, shortest = n, longest = 0, kept = 0;
            struct sl_plan p;

            while (l.n < n)
                add(&l, 300);
            /* a bit more than keep slabs need, so that rounding matters */
            assert_ok(
                make(&p, &l, (keep + 3) * l.largest + 4096 * keep, 0, &err),
                &err);
            for (size_t i = 0; i < n; i++) {
                if (p.tier[i] != SL_TIER_RAM)
                    continue;
                if (kept++ == 0) {
                    first = last = i;
                    continue;
                }
                shortest = i - last < shortest ? i - last : shortest;
                longest = i - last > longest ? i - last : longest;
                last = i;
            }
            if (first + n - last < shortest)
                shortest = first + n - last;
            if (first + n - last > longest)
                longest = first + n - last;
            assert_true(kept >= keep && kept <= keep + 1);
            assert_true(longest - shortest <= 1);
            sl_plan_fini(&p);
        }
}

static void residents_of_mixed_sizes_keep_pace_with_the_bytes(void **state)
{
    struct list l = {.n = 0};
    struct sl_error err;
    struct sl_plan p;

    while (l.n < 90)
        add(&l, l.n % 3 == 0 ? 1000 : l.n % 3 == 1 ? 350 : 700);
    for (uint64_t part = 2; part <= 8; part++) {
        uint64_t passed = 0, resident = 0;

        assert_ok(make(&p, &l, l.total * part / 10, 0, &err), &err);
        for (size_t i = 0; i < l.n; i++) {
            uint64_t bytes = sl_slab_load_bytes(&l.slabs[i]);
            double off;

            passed += bytes;
            resident += p.tier[i] == SL_TIER_RAM ? bytes : 0;
            off = (double)resident - (double)passed *
                                         (double)p.at[SL_HOST].resident_bytes /
                                         (double)l.total;
            assert_true(off <= 2.0 * (double)l.largest &&
                        off >= -2.0 * (double)l.largest);
        }
        sl_plan_fini(&p);
    }
}

/* One slab of 100 MiB among small ones: streaming it would cost three slots
   of its size, keeping it only one. */
static void a_giant_slab_is_kept_rather_than_given_three_slots(void **state)
{
    struct list l = {.n = 0};
    struct sl_error err;
    struct sl_plan p;

    for (int i = 0; i < 20; i++)
        add(&l, i == 7 ? 25600 : 256);
    assert_int_equal(sl_plan_least_bytes(l.slabs, l.n, false),
                     (25600 + 3 * 256) * 4096ull);
    assert_ok(make(&p, &l, (25600 + 5 * 256) * 4096ull, 0, &err), &err);
    assert_int_equal(p.tier[7], SL_TIER_RAM);
    assert_int_equal(p.at[SL_HOST].slot_bytes, 256 * 4096);
    assert_int_equal(p.streamed_bytes, 17 * 256 * 4096);
    sl_plan_fini(&p);
}

static void the_ring_grows_to_the_read_ahead_where_there_is_room(void **state)
{
    struct list l = {.n = 0};
    struct sl_error err;
    struct sl_plan p;

    while (l.n < 90)
        add(&l, 25);
    assert_ok(make(&p, &l, l.total / 2, l.largest * 5, &err), &err);
    assert_int_equal(p.at[SL_HOST].n_slots, 5);
    sl_plan_fini(&p);
    /* but not at the price of most residents */
    assert_ok(make(&p, &l, l.largest * 8, l.largest * 8, &err), &err);
    assert_int_equal(p.at[SL_HOST].n_slots, 4);
    assert_int_equal(p.at[SL_HOST].resident_bytes, 4 * l.largest);
    sl_plan_fini(&p);
}

/* Sizes of GLM-130B at FP16, cut at 640 MB: no sum may overflow 32 bits. */
static void a_model_of_260_gb_is_planned(void **state)
{
    static const uint64_t stage[] = {604110848, 604110848, 537034752, 537034752,
                                     537034752, 268566528, 537034752};
    struct sl_slab slabs[70 * 7 + 6];
    uint64_t off = 0, total = 0;
    struct sl_plan p;
    struct sl_error err;
    struct sl_plan_input in = {
        .slabs = slabs,
        .n_slabs = sizeof slabs / sizeof *slabs,
        .memory_bytes[SL_HOST] = 48ull << 30,
        .read_ahead_bytes = 256u << 20,
    };

    for (size_t i = 0; i < in.n_slabs; i++) {
        slabs[i] = (struct sl_slab){.n_extents = 1};
        slabs[i].extents[0].off = off;
        slabs[i].extents[0].bytes = stage[i % 7];
        off += stage[i % 7];
        total += sl_slab_load_bytes(&slabs[i]);
    }
    assert_true(total > 250e9);
    assert_ok(sl_plan_make(&p, &in, &err), &err);
    assert_true(p.at[SL_HOST].ring_bytes + p.at[SL_HOST].resident_bytes <=
                in.memory_bytes[SL_HOST]);
    assert_true(p.streamed_bytes > 200e9 && p.streamed_bytes < 216e9);
    assert_int_equal(p.streamed_bytes + p.at[SL_HOST].resident_bytes, total);
    sl_plan_fini(&p);
}

static void no_slabs_need_no_memory(void **state)
{
    struct list l = {.n = 0};
    struct sl_error err;
    struct sl_plan p;

    assert_int_equal(sl_plan_least_bytes(l.slabs, 0, false), 0);
    assert_ok(make(&p, &l, 0, 0, &err), &err);
    assert_int_equal(p.at[SL_HOST].n_slots + p.at[SL_HOST].resident_bytes, 0);
    sl_plan_fini(&p);
}

/* N / B_nvme; (N written and read, R read) / B_dram. */
static void the_floor_is_the_slowest_resource(void **state)
{
    struct sl_rates rates = {.disk_bps = 2e9, .dram_bps = 20e9};
    struct sl_floor f = sl_floor_make(&rates, 10000000000, 40000000000, 1e12);

    assert_float_equal(f.disk_s, 5.0, 1e-9);
    assert_float_equal(f.dram_s, 3.0, 1e-9);
    assert_float_equal(f.worker_s[SL_HOST], 0.0, 0.0);
    assert_float_equal(f.seconds, 5.0, 1e-9);
    assert_string_equal(sl_limit_name(f.limit), "disk");
    rates.disk_bps = 10e9;
    f = sl_floor_make(&rates, 10000000000, 40000000000, 1e12);
    assert_float_equal(f.seconds, 3.0, 1e-9);
    assert_string_equal(sl_limit_name(f.limit), "dram");
    rates.worker[SL_HOST].ops_per_s = 1e11;
    f = sl_floor_make(&rates, 10000000000, 40000000000, 1e12);
    assert_float_equal(f.seconds, 10.0, 1e-9);
    assert_string_equal(sl_limit_name(f.limit), "compute");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_plan_keeps_the_budget_and_wastes_none),
        cmocka_unit_test(the_least_works_and_one_byte_less_does_not),
        cmocka_unit_test(what_is_to_be_kept_stays),
        cmocka_unit_test(a_refusal_names_both_numbers),
        cmocka_unit_test(more_memory_never_streams_more_but_for_one_slab),
        cmocka_unit_test(what_fits_is_kept_whole),
        cmocka_unit_test(residents_are_spread_evenly),
        cmocka_unit_test(residents_of_mixed_sizes_keep_pace_with_the_bytes),
        cmocka_unit_test(a_giant_slab_is_kept_rather_than_given_three_slots),
        cmocka_unit_test(the_ring_grows_to_the_read_ahead_where_there_is_room),
        cmocka_unit_test(a_model_of_260_gb_is_planned),
        cmocka_unit_test(no_slabs_need_no_memory),
        cmocka_unit_test(the_floor_is_the_slowest_resource),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
