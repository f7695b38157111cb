#include "config.h"

#include "offload/plan.h"
#include "tests/support.h"

/* peers-and-physics 3.2: a 3090, two channels of DDR5-6000, NVMe. */
static const struct sl_rates b = {
    .disk_bps = 6.6e9,
    .dram_bps = 80e9,
    .ops_per_s = 2.5e12,
    .pcie_bps = 25e9,
    .vram_bps = 800e9,
    .gpu_ops_per_s = 60e12,
    .cpu_dram_bps = 74e9,
};

/* Its 47.6 GB in RAM, 17.7 in VRAM, of which x is copied. */
static struct sl_demand split(double x)
{
    return (struct sl_demand){
        .copy_bytes = x,
        .cpu_bytes = 47.6e9 - x,
        .gpu_bytes = 17.7e9 + x,
    };
}

/* 3.3, row B: 1.91 s streaming all, 0.67 s by the CPU alone. */
static void the_floor_is_that_of_the_published_table(void **state)
{
    struct sl_demand d = split(47.6e9);
    struct sl_floor f = sl_floor_of(&b, &d);

    assert_float_equal(f.seconds, 1.91, 0.01);
    assert_string_equal(sl_limit_name(f.limit), "pcie");
    d = split(0);
    f = sl_floor_of(&b, &d);
    assert_float_equal(f.compute_s, 0.643, 0.001);
    assert_float_equal(f.seconds, 0.67, 0.01);
    assert_string_equal(sl_limit_name(f.limit), "compute");
    /* Mixed, DRAM decides: 47.6 / 80, and a little for the GPU's turn. */
    d = split(14e9);
    f = sl_floor_of(&b, &d);
    assert_true(f.seconds > 0.595 && f.seconds < 0.625);
    assert_string_equal(sl_limit_name(f.limit), "dram");
}

static void a_mix_beats_streaming_and_the_cpu_alone(void **state)
{
    struct sl_demand all = split(47.6e9), none = split(0), some = split(13e9);
    double mixed = sl_cost_seconds(&b, &some);

    assert_true(mixed < sl_cost_seconds(&b, &none) * 0.96);
    assert_true(mixed < sl_cost_seconds(&b, &all) * 0.4);
}

/* Whatever is asked, nothing is expected to be faster than its floor. */
static void no_cost_is_below_its_floor(void **state)
{
    uint64_t seed = 7;

    for (int i = 0; i < 100000; i++) {
        double v[8];
        struct sl_demand d;
        double floor, cost;

        for (int j = 0; j < 8; j++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            v[j] = (double)(seed >> 40) * 4e3;
            if (seed >> 32 & 1)
                v[j] = 0;
        }
        d = (struct sl_demand){
            .disk_bytes = v[0],
            .copy_bytes = v[1] > 0 ? v[0] + v[1] : 0,
            .cpu_bytes = v[1] > 0 ? v[2] : v[0] + v[2],
            .gpu_bytes = v[1] > 0 ? v[0] + v[1] + v[3] : 0,
            .cpu_ops = v[4] * 30,
            .gpu_ops = v[5] * 500,
            .gpu_stages = v[1] > 0,
        };
        floor = sl_floor_of(&b, &d).seconds;
        cost = sl_cost_seconds(&b, &d);
        assert_true(cost >= floor * (1 - 1e-9));
        assert_true(cost <= floor * 2);
    }
}

/* 3.1 with no GPU: N / B_nvme; (N written and read, R read) / B_dram. */
static void without_a_gpu_only_disk_memory_and_cores_count(void **state)
{
    struct sl_rates rates = {.disk_bps = 2e9, .dram_bps = 20e9};
    struct sl_floor f = sl_floor_make(&rates, 10000000000, 40000000000, 1e12);

    assert_float_equal(f.seconds, 5.0, 1e-9);
    assert_float_equal(f.dram_s, 3.0, 1e-9);
    assert_float_equal(f.pcie_s + f.gpu_s + f.compute_s, 0, 0);
    rates.cpu_dram_bps = 5e9;
    f = sl_floor_make(&rates, 10000000000, 40000000000, 1e12);
    assert_float_equal(f.seconds, 10.0, 1e-9);
    assert_string_equal(sl_limit_name(f.limit), "compute");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_floor_is_that_of_the_published_table),
        cmocka_unit_test(a_mix_beats_streaming_and_the_cpu_alone),
        cmocka_unit_test(no_cost_is_below_its_floor),
        cmocka_unit_test(without_a_gpu_only_disk_memory_and_cores_count),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
