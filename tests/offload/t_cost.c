#include "config.h"

#include "offload/plan.h"
#include "tests/support.h"

/* A 3090, two channels of DDR5-6000, NVMe. */
static const struct sl_rates b = {
    .disk_bps = 6.6e9,
    .dram_bps = 80e9,
    .worker = {[SL_HOST] = {.memory_bps = 74e9, .ops_per_s = 2.5e12},
               [SL_DEVICE] = {.link_bps = 25e9,
                              .memory_bps = 800e9,
                              .ops_per_s = 60e12}},
};

/* Its 47.6 GB in RAM, 17.7 in VRAM, of which x is copied. */
static struct sl_demand split(double x)
{
    return (struct sl_demand){
        .by[SL_DEVICE].copy_bytes = x,
        .by[SL_HOST].bytes = 47.6e9 - x,
        .by[SL_DEVICE].bytes = 17.7e9 + x,
    };
}

/* GLM-130B in INT4 beyond VRAM: 1.91 s streaming all of it, 0.67 s by the CPU
   alone. */
static void the_floor_is_that_of_the_published_table(void **state)
{
    struct sl_demand d = split(47.6e9);
    struct sl_floor f = sl_floor_of(&b, &d);

    assert_float_equal(f.seconds, 1.91, 0.01);
    assert_string_equal(sl_limit_name(f.limit), "pcie");
    d = split(0);
    f = sl_floor_of(&b, &d);
    assert_float_equal(f.worker_s[SL_HOST], 0.643, 0.001);
    assert_float_equal(f.seconds, 0.67, 0.01);
    assert_string_equal(sl_limit_name(f.limit), "compute");
    /* Mixed, DRAM decides: 47.6 / 80, and a little for the GPU's turn. */
    d = split(14e9);
    f = sl_floor_of(&b, &d);
    assert_true(f.seconds > 0.595 && f.seconds < 0.625);
    assert_string_equal(sl_limit_name(f.limit), "dram");
}

/* Attention comes after its products, so neither hides behind the other. */
static void attention_adds_to_the_products(void **state)
{
    struct sl_demand d = {
        .by[SL_DEVICE].ops = 60e12,
        .by[SL_DEVICE].kv_ops = 30e12,
        .by[SL_HOST].bytes = 74e9,
        .by[SL_HOST].kv_bytes = 37e9,
        .by[SL_HOST].kv_ops = 5e12,
    };

    assert_float_equal(sl_cost_seconds(&b, &d, SL_DEVICE), 1.5, 1e-9);
    assert_float_equal(sl_cost_seconds(&b, &d, SL_HOST), 3, 1e-9);
}

/* A weight of INT4 by 128 positions: two runs of 64, or half a byte read and
   two written, two read and 128 multiply-adds. */
static void packed_weights_go_in_runs_where_these_are_quicker(void **state)
{
    const struct sl_worker *w = &b.worker[SL_DEVICE];
    struct sl_products p = {
        .bytes = 4e9, .wide_bytes = 16e9, .ops = 16e9, .rows = 128};
    struct sl_demand d = {.by[SL_DEVICE].kv_bytes = 0};
    struct sl_worker slow = {.memory_bps = 1e9, .ops_per_s = 30e9};

    assert_int_equal(sl_cost_runs_to(w, 0.5), 256);
    sl_cost_add_products(&d.by[SL_DEVICE], w, &p);
    assert_float_equal(d.by[SL_DEVICE].bytes, 8e9, 0);
    assert_float_equal(d.by[SL_DEVICE].unpack_bytes, 0, 0);
    assert_float_equal(sl_cost_seconds(&b, &d, SL_DEVICE),
                       16e9 * 128 / (0.85 * 60e12), 1e-9);
    /* 300 by unpacked weights; of 67 the last 3 take a tile of 8 */
    d = (struct sl_demand){.by[SL_DEVICE].kv_bytes = 0};
    p.rows = 300;
    sl_cost_add_products(&d.by[SL_DEVICE], w, &p);
    assert_float_equal(d.by[SL_DEVICE].unpack_bytes, 20e9, 0);
    assert_float_equal(sl_cost_seconds(&b, &d, SL_DEVICE),
                       20e9 / 800e9 + 16e9 * 300 / 60e12, 1e-9);
    d = (struct sl_demand){.by[SL_DEVICE].kv_bytes = 0};
    p.rows = 67;
    sl_cost_add_products(&d.by[SL_DEVICE], w, &p);
    assert_float_equal(d.by[SL_DEVICE].ops, 16e9 * 72 / 0.85, 1);
    /* Floats are there already, and 64 are one run. */
    d = (struct sl_demand){.by[SL_DEVICE].kv_bytes = 0};
    p.wide_bytes = 0;
    sl_cost_add_products(&d.by[SL_DEVICE], w, &p);
    assert_float_equal(d.by[SL_DEVICE].bytes, 4e9, 0);
    assert_float_equal(d.by[SL_DEVICE].ops, 16e9 * 67, 0);
    /* 30 operations a byte: a weight takes 15.06 ns by three runs, 15.3 by
       unpacking, and 20.1 by four, 19.6. 10 operations a byte: too few. */
    assert_int_equal(sl_cost_runs_to(&slow, 0.5), 192);
    slow.ops_per_s = 10e9;
    assert_int_equal(sl_cost_runs_to(&slow, 0.5), 64);
    slow.memory_bps = 0;
    assert_int_equal(sl_cost_runs_to(&slow, 0.5), 64);
}

/* The cores, a GPU, and a slower one behind a slower link. */
static void a_third_worker_is_one_more_in_the_list(void **state)
{
    enum { SLOW = SL_DEVICE + 1 };
    struct sl_rates r = b;
    struct sl_demand d = split(12e9);
    struct sl_floor two = sl_floor_of(&r, &d), three;

    r.worker[SLOW] = (struct sl_worker){
        .memory_bps = 400e9, .ops_per_s = 20e12, .link_bps = 5e9};
    three = sl_floor_of(&r, &d);
    assert_float_equal(three.link_s, two.link_s, 0);
    assert_float_equal(three.worker_s[SLOW], 0, 0);
    /* It takes 10 GB off the cores and has them already; workers take turns. */
    d.by[SL_HOST].bytes -= 10e9;
    d.by[SLOW].bytes = 10e9;
    three = sl_floor_of(&r, &d);
    assert_float_equal(three.worker_s[SLOW], 0.025, 1e-12);
    assert_float_equal(three.worker_s[SL_HOST],
                       two.worker_s[SL_HOST] - 10.0 / 74, 1e-9);
    assert_float_equal(three.worker_s[SL_DEVICE], two.worker_s[SL_DEVICE], 0);
    /* Copied in every pass, they cross its link, and DRAM once more. */
    d.by[SLOW].copy_bytes = 10e9;
    three = sl_floor_of(&r, &d);
    assert_float_equal(three.link_s, 2, 1e-9);
    assert_float_equal(three.seconds, 2, 1e-9);
    assert_string_equal(sl_limit_name(three.limit), "pcie");
    /* Computing alone, it is what takes the time. */
    d = (struct sl_demand){.by[SLOW].ops = 40e12};
    three = sl_floor_of(&r, &d);
    assert_float_equal(three.seconds, 2, 1e-9);
    assert_string_equal(sl_limit_name(three.limit), "gpu");
}

/* Four stages of a page: the host's, two of a device, of which one is copied,
   and between these a third worker's, which keeps its own. */
static void a_plan_may_name_a_third_worker(void **state)
{
    enum { N = 4, THIRD = SL_DEVICE + 1 };
    uint8_t worker[N] = {SL_HOST, SL_DEVICE, THIRD, SL_DEVICE};
    enum sl_tier tier[N] = {SL_TIER_RAM, SL_TIER_DISK, sl_tier_of(THIRD),
                            sl_tier_of(SL_DEVICE)};
    uint8_t waits[N] = {0};
    struct sl_plan plan = {
        .tier = tier, .worker = {worker}, .waits = waits, .n_slabs = N};
    struct sl_plan_stage stages[N];
    struct sl_slab slabs[N];
    struct sl_plan_input in = {
        .slabs = slabs,
        .n_slabs = N,
        .stages = stages,
        .n_stages = N,
        .x_bytes = 100,
    };
    struct sl_plan_pass pass = {.positions = 1, .logits = 1, .keys = 10};
    struct sl_demand d;

    for (size_t i = 0; i < N; i++) {
        stages[i] = (struct sl_plan_stage){
            .first_slab = i, .n_slabs = 1, .ops = 1000, .key_ops = 7};
        for (int w = 0; w < SL_WORKERS; w++)
            stages[i].key_bytes[w] = w + 1.0;
        slabs[i] = (struct sl_slab){
            .extents = {{i * SL_PAGE_BYTES, SL_PAGE_BYTES}}, .n_extents = 1};
    }
    d = sl_plan_demand(&plan, &in, SL_PHASE_DECODE, pass);
    assert_float_equal(d.disk_bytes, SL_PAGE_BYTES, 0);
    assert_float_equal(d.by[SL_DEVICE].copy_bytes, SL_PAGE_BYTES, 0);
    assert_float_equal(d.by[THIRD].copy_bytes, 0, 0);
    waits[3] = 1; /* whose keys come with it */
    assert_float_equal(sl_plan_demand(&plan, &in, SL_PHASE_DECODE, pass)
                           .by[SL_DEVICE]
                           .copy_bytes,
                       SL_PAGE_BYTES + 10. * (SL_DEVICE + 1), 0);
    for (int w = 0; w < SL_WORKERS; w++) {
        double n = w == SL_DEVICE ? 2 : w <= THIRD ? 1 : 0;

        assert_float_equal(d.by[w].stages, n, 0);
        assert_float_equal(d.by[w].bytes, n * SL_PAGE_BYTES, 0);
        assert_float_equal(d.by[w].ops, n * 1000, 0);
        assert_float_equal(d.by[w].kv_ops, n * 70, 0);
        assert_float_equal(d.by[w].kv_bytes, n * 10 * (w + 1), 0);
    }
    /* To the device, to the third through both links, and back. */
    assert_float_equal(d.by[SL_HOST].crossings, 0, 0);
    assert_float_equal(d.by[SL_DEVICE].crossings, 3, 0);
    assert_float_equal(d.by[THIRD].crossings, 2, 0);
    assert_float_equal(d.by[THIRD].crossing_bytes, 200, 0);
}

/* --- walks ---------------------------------------------------------------- */

static double walk(struct sl_timeline w, const struct sl_step *steps, size_t n)
{
    double s = 0;

    for (int pass = 0; pass < 3; pass++) {
        s = 0;
        for (size_t i = 0; i < n; i++)
            s += sl_timeline_step(&w, &steps[i]);
    }
    return s;
}

/* A second of the cores, then half a second of the GPU that needs 20 GB. */
static void moving_hides_behind_the_cores_if_there_is_room(void **state)
{
    static const struct sl_step steps[] = {
        {.seconds = 1, .dram_bytes = 50e9},
        {.seconds = 0.5, .moved_bytes = 20e9},
    };
    struct sl_timeline w = {
        .dram_bps = 100e9, .copy_bps = 25e9, .most_copied = 30e9};

    assert_float_equal(walk(w, steps, 2), 1.5, 1e-9);
    /* 10 GB wait; 12.5 come during half a second: nothing is late. */
    w.most_copied = 10e9;
    assert_float_equal(walk(w, steps, 2), 1.5, 1e-9);
    /* Without room the GPU waits for 20 GB. */
    w.most_copied = 0;
    assert_float_equal(walk(w, steps, 2), 1.8, 1e-9);
    w.copy_bps = 0;
    assert_float_equal(walk(w, steps, 2), 1.5, 1e-9);
}

/* The cores want 50 GB/s, the copies 25 of the 60 that there are: these go on
   until the ring is full, the cores with 35 meanwhile. */
static void cores_and_copies_share_dram(void **state)
{
    static const struct sl_step steps[] = {
        {.seconds = 1, .dram_bytes = 50e9},
        {.seconds = 1e-9, .moved_bytes = 10e9},
    };
    struct sl_timeline w = {
        .dram_bps = 60e9, .copy_bps = 25e9, .most_copied = 10e9};
    double copying = 10e9 / 25e9;

    assert_float_equal(walk(w, steps, 2),
                       copying + (50e9 - 35e9 * copying) / 50e9, 1e-6);
    /* An infinite ring: both for ever, and DRAM is full. */
    w.most_copied = 1e15;
    w.copy_bps = 10e9;
    assert_float_equal(walk(w, steps, 2), 1, 1e-6);
}

/* While the cores compute for a second the disk goes on until its ring is full:
   5 of 10 GB; the rest comes while the GPU waits. */
static void a_full_ring_stops_the_disk(void **state)
{
    static const struct sl_step steps[] = {
        {.seconds = 1, .dram_bytes = 1e9},
        {.seconds = 1e-9, .moved_bytes = 10e9},
    };
    struct sl_timeline w = {.dram_bps = 1e12,
                            .disk_bps = 5e9,
                            .copy_bps = 25e9,
                            .from_disk = 1,
                            .most_read = 20e9};

    assert_float_equal(walk(w, steps, 2), 2, 1e-6);
    w.most_read = 2e9;
    assert_float_equal(walk(w, steps, 2), 1 + 8.0 / 5, 0.11);
    w.most_copied = 3e9;
    assert_float_equal(walk(w, steps, 2), 1 + 5.0 / 5, 0.11);
    /* Without a GPU the same ring feeds the cores. */
    w = (struct sl_timeline){
        .dram_bps = 1e12, .disk_bps = 5e9, .from_disk = 1, .most_read = 2e9};
    assert_float_equal(walk(w,
                            &(struct sl_step){.seconds = 1,
                                              .dram_bytes = 10e9,
                                              .moved_bytes = 10e9},
                            1),
                       2, 1e-6);
}

/* 25 GB/s for reads and copies, of which three quarters must be read: of a byte
   copied 0.75 are read at the same time, though a full ring stops the disk. */
static void a_disk_held_back_leaves_dram_to_the_copies(void **state)
{
    struct sl_step step = {.seconds = 0.01, .moved_bytes = 100e9};
    struct sl_timeline w = {.dram_bps = 25e9,
                            .disk_bps = 13e9,
                            .copy_bps = 25e9,
                            .from_disk = 0.75,
                            .most_read = 0.2e9};

    assert_float_equal(walk(w, &step, 1), 100 / (25 / 1.75), 0.1);
}

/* Copies for the GPU's step go on beside the cores' products; only what is
   left of them then meets attention, which reads as much as DRAM gives. */
static void attention_comes_among_the_products(void **state)
{
    static const struct sl_step steps[] = {
        {.seconds = 1, .kv_seconds = 1, .kv_bytes = 40e9},
        {.seconds = 0.5, .moved_bytes = 10e9},
    };
    const struct sl_step more[] = {
        steps[0],
        {.seconds = 1e-9, .moved_bytes = 20e9},
    };
    struct sl_timeline w = {
        .dram_bps = 40e9, .copy_bps = 20e9, .most_copied = 10e9};

    assert_float_equal(walk(w, steps, 2), 2.5, 1e-6);
    /* 15 GB come in 0.75 s, the other 5 share DRAM with attention. */
    w.most_copied = 20e9;
    assert_float_equal(walk(w, more, 2), 2 + 5.0 / 40, 1e-6);
}

/* Whatever the steps, nothing is faster than its floor. */
static void no_walk_is_below_its_floor(void **state)
{
    uint64_t seed = 7;

    for (int i = 0; i < 3000; i++) {
        struct sl_timeline w = {.dram_bps = 80e9, .copy_bps = 25e9};
        double moved = 0, alone = 0, dram = 0;
        struct sl_step steps[20];

        for (int j = 0; j < 20; j++) {
            double v[3];

            for (int k = 0; k < 3; k++) {
                seed = seed * 6364136223846793005u + 1442695040888963407u;
                v[k] = (double)(seed >> 40) / 16777216.0;
            }
            steps[j] = (struct sl_step){.seconds = 0};
            if (v[0] < 0.5) { /* a device's */
                steps[j].seconds = v[1] * 1e-3;
                steps[j].moved_bytes = v[2] * 1e9;
            } else {
                steps[j].dram_bytes = v[1] * 2e9;
                steps[j].seconds = steps[j].dram_bytes / 74e9;
            }
            moved += steps[j].moved_bytes;
            dram += steps[j].moved_bytes + steps[j].dram_bytes;
            alone += steps[j].seconds;
        }
        w.most_copied = (double)(seed >> 40) * 200;
        assert_true(walk(w, steps, 20) >= alone * (1 - 1e-9));
        assert_true(walk(w, steps, 20) >= moved / 25e9 * (1 - 1e-9));
        assert_true(walk(w, steps, 20) >= dram / 80e9 * (1 - 1e-9));
    }
}

/* What streams is read from disk, written to DRAM and read again; what stays is
   read from DRAM. */
static void without_a_gpu_only_disk_memory_and_cores_count(void **state)
{
    struct sl_rates rates = {.disk_bps = 2e9, .dram_bps = 20e9};
    struct sl_floor f = sl_floor_make(&rates, 10000000000, 40000000000, 1e12);

    assert_float_equal(f.seconds, 5.0, 1e-9);
    assert_float_equal(f.dram_s, 3.0, 1e-9);
    assert_float_equal(f.link_s + f.worker_s[SL_DEVICE] + f.worker_s[SL_HOST],
                       0, 0);
    rates.worker[SL_HOST].memory_bps = 5e9;
    f = sl_floor_make(&rates, 10000000000, 40000000000, 1e12);
    assert_float_equal(f.seconds, 10.0, 1e-9);
    assert_string_equal(sl_limit_name(f.limit), "compute");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_floor_is_that_of_the_published_table),
        cmocka_unit_test(attention_adds_to_the_products),
        cmocka_unit_test(packed_weights_go_in_runs_where_these_are_quicker),
        cmocka_unit_test(a_third_worker_is_one_more_in_the_list),
        cmocka_unit_test(a_plan_may_name_a_third_worker),
        cmocka_unit_test(moving_hides_behind_the_cores_if_there_is_room),
        cmocka_unit_test(cores_and_copies_share_dram),
        cmocka_unit_test(a_full_ring_stops_the_disk),
        cmocka_unit_test(a_disk_held_back_leaves_dram_to_the_copies),
        cmocka_unit_test(attention_comes_among_the_products),
        cmocka_unit_test(no_walk_is_below_its_floor),
        cmocka_unit_test(without_a_gpu_only_disk_memory_and_cores_count),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
