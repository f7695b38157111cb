#include "config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "offload/plan.h"
#include "tests/support.h"

/* GLM-130B with four bits a weight: 70 layers of 312 and 623 MB, a head. */
#define LAYERS      70u
#define ATT_SLABS   5u
#define MLP_SLABS   10u
#define HEAD_SLABS  16u
#define SLABS       (LAYERS * (ATT_SLABS + MLP_SLABS) + HEAD_SLABS)
#define STAGES      (2 * LAYERS + 1)
#define SLAB_PAGES  15300u
#define KEY_BYTES   (4.0 * 12288)
#define HIDDEN      12288.0
#define A_GB        1000000000ull
#define WHOLE_BYTES ((uint64_t)SLABS * SLAB_PAGES * SL_PAGE_BYTES)

/* The links of the machines below: NVMe of 7 GB/s nominal, PCIe 4.0 x16. */
#define LINKS                                                                  \
    .disk_bps = 6.6e9, .disk_latency_s = 8e-5,                                 \
    .worker[SL_DEVICE].link_bps = 25e9,                                        \
    .worker[SL_DEVICE].link_latency_s = 1e-5,                                  \
    .worker[SL_DEVICE].stage_s = 43e-6
#define DDR5 .dram_bps = 80e9, .worker[SL_HOST].memory_bps = 74e9
#define DDR4 .dram_bps = 43e9, .worker[SL_HOST].memory_bps = 40e9
#define RTX3090                                                                \
    .worker[SL_DEVICE].memory_bps = 800e9, .worker[SL_DEVICE].ops_per_s = 60e12
#define RTX3060                                                                \
    .worker[SL_DEVICE].memory_bps = 300e9, .worker[SL_DEVICE].ops_per_s = 20e12

static const struct sl_rates machines[] = {
    {LINKS, DDR5, RTX3090, .worker[SL_HOST].ops_per_s = 2.5e12},
    {LINKS, DDR4, RTX3090, .worker[SL_HOST].ops_per_s = 0.8e12},
    {LINKS, DDR4, RTX3060, .worker[SL_HOST].ops_per_s = 0.6e12},
};

struct model {
    struct sl_slab slabs[SLABS];
    struct sl_plan_stage stages[STAGES];
    uint64_t at;
    size_t n_slabs, n_stages;
};

static void add_stage(struct model *m, size_t slabs, double ops, uint32_t keys)
{
    struct sl_plan_stage *s = &m->stages[m->n_stages++];

    *s = (struct sl_plan_stage){
        .first_slab = m->n_slabs,
        .n_slabs = slabs,
        .ops = ops,
    };
    for (int e = 0; e < SL_WORKERS && keys > 0; e++) {
        s->key_bytes[e] = KEY_BYTES;
        s->kv_bytes[e] = (uint64_t)(keys * KEY_BYTES);
        s->key_ops = 4 * HIDDEN;
    }
    for (size_t i = 0; i < slabs; i++) {
        struct sl_slab *slab = &m->slabs[m->n_slabs++];

        *slab = (struct sl_slab){.n_extents = 1};
        slab->extents[0].off = m->at;
        slab->extents[0].bytes = (uint64_t)SLAB_PAGES * SL_PAGE_BYTES;
        m->at += slab->extents[0].bytes;
    }
}

/* keys: positions that the cache holds. */
static struct model *model_make(uint32_t keys)
{
    struct model *m = calloc(1, sizeof *m);

    assert_non_null(m);
    for (unsigned i = 0; i < LAYERS; i++) {
        add_stage(m, ATT_SLABS, 8 * HIDDEN * HIDDEN, keys);
        add_stage(m, MLP_SLABS, 16 * HIDDEN * HIDDEN, 0);
    }
    add_stage(m, HEAD_SLABS, 2 * HIDDEN * 150528, 0);
    m->stages[m->n_stages - 1].head = true;
    return m;
}

static struct sl_plan_input input(const struct model *m, unsigned machine,
                                  uint64_t vram, uint64_t ram, uint32_t keys)
{
    return (struct sl_plan_input){
        .slabs = m->slabs,
        .n_slabs = m->n_slabs,
        .memory_bytes[SL_HOST] = ram,
        .read_ahead_bytes = 256u << 20,
        .memory_bytes[SL_DEVICE] = vram,
        .stages = m->stages,
        .n_stages = m->n_stages,
        .pass = {{1, 1, keys}, {1024, 1, 1024}},
        .x_bytes = 4 * 12288,
        .rates = machines[machine],
    };
}

static double decode_s(const struct sl_plan *p, const struct sl_plan_input *in)
{
    return sl_plan_seconds(p, in, SL_PHASE_DECODE, in->pass[SL_PHASE_DECODE]);
}

static double prefill_s(const struct sl_plan *p, const struct sl_plan_input *in)
{
    return sl_plan_seconds(p, in, SL_PHASE_PREFILL, in->pass[SL_PHASE_PREFILL]);
}

/* --- what every plan must be ---------------------------------------------- */

static void check_slab(const struct sl_plan *p, const struct sl_plan_input *in,
                       size_t i, size_t first)
{
    uint8_t decode = p->worker[SL_PHASE_DECODE][i];
    uint8_t prefill = p->worker[SL_PHASE_PREFILL][i];

    assert_int_equal(decode, p->worker[SL_PHASE_DECODE][first]);
    assert_int_equal(prefill, p->worker[SL_PHASE_PREFILL][first]);
    if (!p->uses_device) {
        assert_int_equal(decode + prefill, 2 * SL_HOST);
        assert_true(p->tier[i] != SL_TIER_VRAM);
        return;
    }
    if (in->keep && in->slabs[i].keep)
        assert_int_equal(p->tier[i],
                         decode == SL_DEVICE ? SL_TIER_VRAM : SL_TIER_RAM);
    if (p->tier[i] == SL_TIER_VRAM || (!in->keep && p->tier[i] != SL_TIER_RAM))
        assert_int_equal(decode, SL_DEVICE);
    if (in->keep)
        assert_int_equal(prefill, decode);
    if (decode == SL_DEVICE)
        assert_int_equal(prefill, SL_DEVICE);
}

static void check(const struct sl_plan *p, const struct sl_plan_input *in)
{
    uint64_t bytes[3] = {0}, kv[SL_WORKERS] = {0}, only = 0;

    for (size_t s = 0; s < in->n_stages; s++) {
        const struct sl_plan_stage *stage = &in->stages[s];
        uint8_t e = p->worker[SL_PHASE_DECODE][stage->first_slab];

        if (p->uses_device && stage->host_only)
            assert_int_equal(e + p->worker[SL_PHASE_PREFILL][stage->first_slab],
                             2 * SL_HOST);

        kv[e] += stage->kv_bytes[e];
        for (size_t i = 0; i < stage->n_slabs; i++) {
            size_t slab = stage->first_slab + i;

            check_slab(p, in, slab, stage->first_slab);
            bytes[p->tier[slab]] += sl_slab_load_bytes(&in->slabs[slab]);
            only += stage->host_only ? sl_slab_load_bytes(&in->slabs[slab]) : 0;
        }
    }
    assert_int_equal(p->streamed_bytes, bytes[SL_TIER_DISK]);
    assert_int_equal(p->at[SL_HOST].resident_bytes, bytes[SL_TIER_RAM]);
    assert_int_equal(p->at[SL_DEVICE].resident_bytes, bytes[SL_TIER_VRAM]);
    assert_true(p->at[SL_HOST].resident_bytes + p->at[SL_HOST].ring_bytes +
                    kv[SL_HOST] <=
                in->memory_bytes[SL_HOST]);
    assert_true(p->at[SL_DEVICE].resident_bytes + p->at[SL_DEVICE].ring_bytes +
                    kv[SL_DEVICE] <=
                in->memory_bytes[SL_DEVICE]);
    assert_int_equal(p->at[SL_HOST].ring_bytes,
                     p->at[SL_HOST].n_slots * p->at[SL_HOST].slot_bytes);
    assert_int_equal(p->at[SL_DEVICE].ring_bytes,
                     p->at[SL_DEVICE].n_slots * p->at[SL_DEVICE].slot_bytes);
    if (p->streamed_bytes + p->at[SL_DEVICE].resident_bytes > 0)
        assert_true(p->at[SL_HOST].n_slots >= SL_RING_MIN_SLOTS);
    if (p->uses_device)
        for (int e = 0; e < SL_WORKERS; e++)
            assert_int_equal(p->at[e].kv_bytes, kv[e]);
    if (p->uses_device &&
        p->streamed_bytes + p->at[SL_HOST].resident_bytes > only)
        assert_true(p->at[SL_DEVICE].n_slots >= SL_RING_MIN_SLOTS);
}

static void every_plan_keeps_both_budgets_and_its_rules(void **state)
{
    static const uint32_t keys[] = {256, 2048, 32 * 256};

    for (unsigned k = 0; k < 3; k++) {
        struct model *m = model_make(keys[k]);

        for (unsigned i = 0; i < 3 * 4 * 4; i++) {
            struct sl_plan_input in =
                input(m, i % 3, (i / 3 % 4) * 8 * A_GB + 1,
                      (1 + i / 12 * 22) * A_GB, keys[k]);
            struct sl_plan p;
            struct sl_error err;

            if (sl_plan_make(&p, &in, &err) != 0) {
                assert_int_equal(err.code, SL_ERR_BUDGET);
                continue;
            }
            check(&p, &in);
            sl_plan_fini(&p);
        }
        free(m);
    }
}

/* Layers with experts: their MLPs are never the GPU's, and take nothing from
 * its ring where all the others fit. */
static void what_the_cpu_alone_computes_stays_with_it(void **state)
{
    struct model *m = model_make(2048);
    unsigned n_with_gpu = 0, n_without_ring = 0;

    for (unsigned i = 1; i < LAYERS; i++)
        m->stages[2 * i + 1].host_only = true;
    for (unsigned i = 0; i < 3 * 5 * 3; i++) {
        struct sl_plan_input in = input(m, i % 3, (i / 3 % 5) * 8 * A_GB + 1,
                                        (20 + i / 15 * 25) * A_GB, 2048);
        struct sl_plan p;
        struct sl_error err;

        if (sl_plan_make(&p, &in, &err) != 0) {
            assert_int_equal(err.code, SL_ERR_BUDGET);
            continue;
        }
        check(&p, &in);
        n_with_gpu += p.uses_device;
        n_without_ring += p.uses_device && p.at[SL_DEVICE].n_slots == 0;
        sl_plan_fini(&p);
    }
    assert_true(n_with_gpu > 10 && n_without_ring > 0);
    free(m);
}

static void no_plan_is_slower_than_the_gpu_or_the_cpu_alone(void **state)
{
    struct model *m = model_make(1024);

    for (unsigned i = 0; i < 3 * 3 * 3; i++) {
        struct sl_plan_input in = input(m, i % 3, (2 + i / 3 % 3 * 10) * A_GB,
                                        (5 + i / 9 * 26) * A_GB, 1024);
        struct sl_plan p, alone;
        struct sl_error err;
        double s;

        assert_ok(sl_plan_make(&p, &in, &err), &err);
        s = decode_s(&p, &in);
        for (int rule = SL_ENGINE_RULE_CPU; rule <= SL_ENGINE_RULE_GPU;
             rule++) {
            in.engine = (enum sl_engine_rule)rule;
            if (sl_plan_make(&alone, &in, &err) != 0)
                continue;
            assert_true(s <= decode_s(&alone, &in) * 1.001);
            sl_plan_fini(&alone);
        }
        sl_plan_fini(&p);
    }
    free(m);
}

/* How slabs fall into their places is a third of a percent either way. */
static void the_search_finds_what_trying_every_number_does(void **state)
{
    struct model *m = model_make(256);

    for (unsigned i = 0; i < 3 * 3 * 2; i++) {
        struct sl_plan_input in = input(m, i % 3, (8 + i / 3 % 3 * 8) * A_GB,
                                        (30 + i / 9 * 20) * A_GB, 256);
        struct sl_plan p, every;
        struct sl_error err;

        assert_ok(sl_plan_make(&p, &in, &err), &err);
        in.every_number = true;
        assert_ok(sl_plan_make(&every, &in, &err), &err);
        assert_true(decode_s(&p, &in) <= decode_s(&every, &in) * 1.003);
        assert_true(prefill_s(&p, &in) <= prefill_s(&every, &in) * 1.003);
        sl_plan_fini(&p);
        sl_plan_fini(&every);
    }
    free(m);
}

/* Slabs are 63 MB, so a little more may be of no use, or round badly. */
static void more_memory_never_makes_a_plan_slower(void **state)
{
    struct model *m = model_make(512);

    for (unsigned machine = 0; machine < 3; machine++) {
        for (unsigned which = 0; which < 2; which++) {
            double best = 1e9;

            for (uint64_t i = 2; i < 60; i += 4) {
                uint64_t vram = (which ? 12 : i) * A_GB;
                uint64_t ram = (which ? i : 30) * A_GB;
                struct sl_plan_input in = input(m, machine, vram, ram, 512);
                struct sl_plan p;
                struct sl_error err;

                assert_ok(sl_plan_make(&p, &in, &err), &err);
                assert_true(decode_s(&p, &in) <= best * 1.01);
                if (decode_s(&p, &in) < best)
                    best = decode_s(&p, &in);
                sl_plan_fini(&p);
            }
        }
    }
    free(m);
}

/* In any tenth of the pass each kind has about a tenth of its bytes. */
static void every_kind_is_spread_evenly(void **state)
{
    static const uint64_t sizes[][3] = {
        {0, 21 * A_GB, 50 * A_GB},
        {1, 21 * A_GB, 50 * A_GB},
        {2, 10 * A_GB, 26 * A_GB},
    };
    struct model *m = model_make(256);

    for (size_t c = 0; c < 3; c++) {
        struct sl_plan_input in =
            input(m, (unsigned)sizes[c][0], sizes[c][1], sizes[c][2], 256);
        double all[4] = {0}, part[10][4] = {{0}};
        struct sl_plan p;
        struct sl_error err;

        assert_ok(sl_plan_make(&p, &in, &err), &err);
        for (size_t i = 0; i < p.n_slabs; i++) {
            int kind =
                p.worker[SL_PHASE_DECODE][i] == SL_HOST ? 3 : (int)p.tier[i];

            all[kind]++;
            part[i * 10 / p.n_slabs][kind]++;
        }
        for (int kind = 0; kind < 4; kind++) {
            for (int t = 0; t < 10; t++)
                assert_true(fabs(part[t][kind] - all[kind] / 10) <= 10);
        }
        sl_plan_fini(&p);
    }
    free(m);
}

/* --- what is chosen ------------------------------------------------------- */

/* The 3090 beside DDR5 takes about 0.6 s, of which the CPU has more than
   half; DRAM decides. */
static void decode_is_shared_and_prefill_is_the_gpus(void **state)
{
    struct model *m = model_make(256);
    struct sl_plan_input in = input(m, 0, 21 * A_GB, 52 * A_GB, 256);
    struct sl_demand d;
    struct sl_floor f;
    struct sl_plan p;
    struct sl_error err;

    assert_ok(sl_plan_make(&p, &in, &err), &err);
    assert_true(p.uses_device);
    assert_int_equal(p.streamed_bytes, 0);
    d = sl_plan_demand(&p, &in, SL_PHASE_DECODE, in.pass[SL_PHASE_DECODE]);
    assert_true(d.by[SL_HOST].bytes > 25e9 && d.by[SL_HOST].bytes < 38e9);
    f = sl_floor_of(&in.rates, &d);
    assert_true(f.seconds > 0.55 && f.seconds < 0.66);
    assert_true(decode_s(&p, &in) < f.seconds * 1.03);
    d = sl_plan_demand(&p, &in, SL_PHASE_PREFILL, in.pass[SL_PHASE_PREFILL]);
    assert_float_equal(d.by[SL_HOST].bytes, 0, 0);
    f = sl_floor_of(&in.rates, &d);
    assert_true(f.seconds > 4.2 && f.seconds < 4.7);
    assert_string_equal(sl_limit_name(f.limit), "gpu");
    /* Copies pay off from where the cores take as long as the link does. */
    assert_in_range(p.prefill_from, 5, 50);
    sl_plan_fini(&p);
    free(m);
}

/* RAM as fast as VRAM, beside it: the GPU decodes nothing, but takes prompts.
 */
static void a_gpu_may_be_of_use_for_prompts_alone(void **state)
{
    struct model *m = model_make(256);
    struct sl_plan_input in = input(m, 0, 4 * A_GB, 90 * A_GB, 256);
    struct sl_plan p;
    struct sl_error err;
    double prefill;

    in.rates.dram_bps = in.rates.worker[SL_HOST].memory_bps = 2000e9;
    in.rates.worker[SL_HOST].ops_per_s = 10e12;
    assert_ok(sl_plan_make(&p, &in, &err), &err);
    check(&p, &in);
    prefill =
        sl_plan_seconds(&p, &in, SL_PHASE_PREFILL, in.pass[SL_PHASE_PREFILL]);
    assert_true(p.uses_device && prefill < 6);
    assert_int_equal(p.at[SL_DEVICE].resident_bytes, 0);
    for (size_t i = 0; i < p.n_slabs; i++)
        assert_int_equal(p.worker[SL_PHASE_DECODE][i], SL_HOST);
    sl_plan_fini(&p);
    free(m);
}

static void what_does_not_fit_streams_and_the_disk_decides(void **state)
{
    struct model *m = model_make(256);
    struct sl_plan_input in = input(m, 2, 10 * A_GB, 26 * A_GB, 256);
    struct sl_demand d;
    struct sl_plan p;
    struct sl_error err;

    assert_ok(sl_plan_make(&p, &in, &err), &err);
    assert_true(p.streamed_bytes > 30 * A_GB && p.streamed_bytes < 34 * A_GB);
    d = sl_plan_demand(&p, &in, SL_PHASE_DECODE, in.pass[SL_PHASE_DECODE]);
    assert_int_equal(sl_floor_of(&in.rates, &d).limit, SL_LIMIT_DISK);
    assert_true(decode_s(&p, &in) < 5.1);
    sl_plan_fini(&p);
    free(m);
}

/* A cache as large as the weights does not push them all out of VRAM. */
static void a_large_cache_finds_a_place(void **state)
{
    struct model *m = model_make(32 * 256);
    struct sl_plan_input in = input(m, 0, 21 * A_GB, 58 * A_GB, 256);
    struct sl_plan p;
    struct sl_error err;

    in.pass[SL_PHASE_DECODE] = (struct sl_plan_pass){32, 32, 256};
    assert_ok(sl_plan_make(&p, &in, &err), &err);
    check(&p, &in);
    assert_true(decode_s(&p, &in) < 5);
    sl_plan_fini(&p);
    free(m);
}

static void what_fits_in_vram_is_kept_there_whole(void **state)
{
    struct model *m = model_make(256);
    struct sl_plan_input in = input(m, 0, WHOLE_BYTES + A_GB, 10 * A_GB, 256);
    struct sl_plan p;
    struct sl_error err;

    assert_ok(sl_plan_make(&p, &in, &err), &err);
    assert_int_equal(p.at[SL_DEVICE].resident_bytes, WHOLE_BYTES);
    assert_int_equal(p.at[SL_DEVICE].n_slots, 0);
    assert_int_equal(p.prefill_from, 1);
    assert_true(decode_s(&p, &in) < 0.1);
    sl_plan_fini(&p);
    free(m);
}

/* --- without a GPU, or with a bad one ------------------------------------- */

static void without_a_gpu_the_plan_is_that_of_ram_alone(void **state)
{
    struct model *m = model_make(256);
    struct sl_plan_input plain = input(m, 0, 0, 30 * A_GB, 256);
    struct sl_plan expected;
    struct sl_error err;
    uint64_t kv = 0;

    for (size_t i = 0; i < m->n_stages; i++)
        kv += m->stages[i].kv_bytes[SL_HOST];
    plain.stages = NULL;
    plain.n_stages = 0;
    plain.memory_bytes[SL_HOST] -= kv;
    assert_ok(sl_plan_make(&expected, &plain, &err), &err);
    for (int i = 0; i < 4; i++) {
        struct sl_plan_input in = input(m, 0, 12 * A_GB, 30 * A_GB, 256);
        struct sl_plan p;

        if (i == 0)
            in.memory_bytes[SL_DEVICE] = 0;
        if (i == 1)
            in.engine = SL_ENGINE_RULE_CPU;
        if (i == 2)
            in.rates.worker[SL_DEVICE].link_bps = 0;
        if (i == 3) /* a GPU that is not worth it */
            in.rates.worker[SL_DEVICE].memory_bps =
                in.rates.worker[SL_DEVICE].link_bps = 1e9;
        assert_ok(sl_plan_make(&p, &in, &err), &err);
        assert_false(p.uses_device);
        assert_int_equal(p.at[SL_HOST].ring_bytes,
                         expected.at[SL_HOST].ring_bytes);
        assert_int_equal(p.at[SL_HOST].resident_bytes,
                         expected.at[SL_HOST].resident_bytes);
        assert_memory_equal(p.tier, expected.tier, p.n_slabs * sizeof *p.tier);
        sl_plan_fini(&p);
    }
    sl_plan_fini(&expected);
    free(m);
}

/* Every other slab, as high planes are. */
static void what_is_to_stay_stays_with_its_engine(void **state)
{
    static const unsigned gb[][2] = {{23, 35}, {12, 58}, {2, 40}, {44, 20}};
    struct model *m = model_make(256);

    for (size_t i = 0; i < m->n_slabs; i += 2)
        m->slabs[i].keep = true;
    for (size_t i = 0; i < sizeof gb / sizeof *gb; i++) {
        struct sl_plan_input in =
            input(m, 0, gb[i][0] * A_GB, gb[i][1] * A_GB, 256);
        struct sl_error err;
        struct sl_plan p, cpu;

        in.keep = true;
        assert_ok(sl_plan_make(&p, &in, &err), &err);
        assert_true(p.uses_device);
        check(&p, &in);
        /* nothing is left over while something streams */
        if (p.streamed_bytes > 0)
            assert_true(p.at[SL_HOST].resident_bytes +
                            p.at[SL_DEVICE].resident_bytes + 4 * A_GB >
                        (gb[i][0] + gb[i][1]) * A_GB);
        /* and VRAM is for what guesses */
        in.engine = SL_ENGINE_RULE_CPU;
        if (sl_plan_make(&cpu, &in, &err) == 0) {
            assert_true(sl_plan_guess_seconds(&p, &in) <
                        sl_plan_guess_seconds(&cpu, &in));
            sl_plan_fini(&cpu);
        }
        sl_plan_fini(&p);
    }
    free(m);
}

static void what_is_to_stay_and_does_not_fit_is_refused(void **state)
{
    struct model *m = model_make(256);
    struct sl_plan_input in;
    struct sl_error err;
    struct sl_plan p;

    for (size_t i = 0; i < m->n_slabs; i += 2)
        m->slabs[i].keep = true;
    in = input(m, 0, 12 * A_GB, 20 * A_GB, 256);
    in.keep = true;
    assert_int_equal(sl_plan_make(&p, &in, &err), -1);
    assert_int_equal(err.code, SL_ERR_BUDGET);
    free(m);
}

static void too_little_vram_is_refused_if_the_gpu_must(void **state)
{
    struct model *m = model_make(256);
    struct sl_plan_input in = input(m, 0, A_GB / 10, 30 * A_GB, 256);
    struct sl_plan p;
    struct sl_error err;

    in.engine = SL_ENGINE_RULE_GPU;
    assert_int_equal(sl_plan_make(&p, &in, &err), -1);
    assert_int_equal(err.code, SL_ERR_BUDGET);
    assert_non_null(strstr(err.msg, "for three slots, the KV cache"));
    in.engine = SL_ENGINE_RULE_AUTO;
    assert_ok(sl_plan_make(&p, &in, &err), &err);
    assert_false(p.uses_device);
    sl_plan_fini(&p);
    free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_plan_keeps_both_budgets_and_its_rules),
        cmocka_unit_test(what_the_cpu_alone_computes_stays_with_it),
        cmocka_unit_test(no_plan_is_slower_than_the_gpu_or_the_cpu_alone),
        cmocka_unit_test(the_search_finds_what_trying_every_number_does),
        cmocka_unit_test(more_memory_never_makes_a_plan_slower),
        cmocka_unit_test(every_kind_is_spread_evenly),
        cmocka_unit_test(decode_is_shared_and_prefill_is_the_gpus),
        cmocka_unit_test(a_gpu_may_be_of_use_for_prompts_alone),
        cmocka_unit_test(what_does_not_fit_streams_and_the_disk_decides),
        cmocka_unit_test(a_large_cache_finds_a_place),
        cmocka_unit_test(what_fits_in_vram_is_kept_there_whole),
        cmocka_unit_test(without_a_gpu_the_plan_is_that_of_ram_alone),
        cmocka_unit_test(what_is_to_stay_stays_with_its_engine),
        cmocka_unit_test(what_is_to_stay_and_does_not_fit_is_refused),
        cmocka_unit_test(too_little_vram_is_refused_if_the_gpu_must),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
