#include "config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "offload/trace.h"
#include "src/convert/synth.h"
#include "src/sim/rehearse.h"
#include "tests/support.h"

#define GB 1000000000ull

static void imagine(struct sl_modelfile *mf, const char *preset,
                    const char *quant)
{
    struct sl_error err;

    *mf = (struct sl_modelfile){.fd = -1};
    assert_ok(sl_synth_imagine(mf, preset, quant, &err), &err);
}

/* --- the end of a pass ---------------------------------------------------- */

/* What a trace tells of one track, in order of time. */
struct span {
    double begin_s, end_s;
    unsigned slab; /* of reads and copies */
    bool head;     /* of computing */
};

struct track {
    struct span *spans;
    size_t n;
    bool named;
};

static int by_begin(const void *a, const void *b)
{
    double x = ((const struct span *)a)->begin_s;
    double y = ((const struct span *)b)->begin_s;

    return x < y ? -1 : x > y;
}

static struct span *add_span(struct track *t, json_t *event)
{
    const char *name = json_string_value(json_object_get(event, "name"));
    struct span *s;

    if (t->n % 4096 == 0) {
        t->spans = realloc(t->spans, (t->n + 4096) * sizeof *t->spans);
        assert_non_null(t->spans);
    }
    s = &t->spans[t->n++];
    *s = (struct span){
        .begin_s = json_number_value(json_object_get(event, "ts")) * 1e-6,
        .head = strcmp(name, "head") == 0,
    };
    sscanf(name, "slab %u", &s->slab);
    return s;
}

/* Reads are pairs of events told apart by their id, others have a length. */
static void take_event(struct track tracks[SL_TRACK_COUNT], json_t *event)
{
    const char *phase = json_string_value(json_object_get(event, "ph"));
    json_int_t id = json_integer_value(json_object_get(event, "tid"));
    struct span *s;

    if (*phase == 'M') {
        if (json_object_get(event, "tid") != NULL)
            tracks[id - 1].named = true;
        return;
    }
    assert_in_range(id, 1, SL_TRACK_COUNT);
    if (*phase == 'X' || *phase == 'b') {
        s = add_span(&tracks[id - 1], event);
        s->end_s = s->begin_s;
        if (*phase == 'X')
            s->end_s += json_number_value(json_object_get(event, "dur")) * 1e-6;
        return;
    }
    /* An end comes right behind its beginning. */
    s = &tracks[id - 1].spans[tracks[id - 1].n - 1];
    s->end_s = json_number_value(json_object_get(event, "ts")) * 1e-6;
}

static void load_trace(struct track tracks[SL_TRACK_COUNT], const char *path)
{
    json_t *root = test_json(path), *event;
    size_t i;

    assert_int_equal(json_integer_value(json_object_get(
                         json_object_get(root, "otherData"), "dropped")),
                     0);
    json_array_foreach(json_object_get(root, "traceEvents"), i, event)
        take_event(tracks, event);
    for (int t = 0; t < SL_TRACK_COUNT; t++) {
        if (tracks[t].n > 0)
            qsort(tracks[t].spans, tracks[t].n, sizeof *tracks[t].spans,
                  by_begin);
    }
    json_decref(root);
}

/* Seconds of [from, to) in which nothing of the track was under way. */
static double idle_s(const struct track *t, double from, double to)
{
    double idle = 0, busy_to = from;

    for (size_t i = 0; i < t->n && t->spans[i].begin_s < to; i++) {
        if (t->spans[i].begin_s > busy_to)
            idle += t->spans[i].begin_s - busy_to;
        if (t->spans[i].end_s > busy_to)
            busy_to = t->spans[i].end_s;
    }
    return busy_to < to ? idle + to - busy_to : idle;
}

/* Ends of passes, that is of their last part of the head. */
static size_t find_ends(double *ends, size_t most,
                        const struct track tracks[SL_TRACK_COUNT])
{
    struct track all = {.n = 0};
    size_t n = 0;

    for (int t = SL_TRACK_STAGES; t <= SL_TRACK_KERNELS; t++) {
        if (t == SL_TRACK_COPIES || tracks[t].n == 0)
            continue;
        all.spans =
            realloc(all.spans, (all.n + tracks[t].n) * sizeof *all.spans);
        assert_non_null(all.spans);
        memcpy(all.spans + all.n, tracks[t].spans,
               tracks[t].n * sizeof *all.spans);
        all.n += tracks[t].n;
    }
    qsort(all.spans, all.n, sizeof *all.spans, by_begin);
    for (size_t i = 0; i < all.n; i++) {
        if (all.spans[i].head && (i + 1 == all.n || !all.spans[i + 1].head)) {
            assert_true(n < most);
            ends[n++] = all.spans[i].end_s;
        }
    }
    free(all.spans);
    return n;
}

/* Whether the last bytes that were moved before an end were for the pass
   behind it: slabs come in ascending order. */
static bool goes_on_across(const struct track *t, double end, size_t n_slabs)
{
    size_t i = 0;

    while (i < t->n && t->spans[i].begin_s < end)
        i++;
    return i > 0 && t->spans[i - 1].slab < n_slabs / 2;
}

#define MOST_ENDS 16

struct run {
    struct track tracks[SL_TRACK_COUNT];
    double ends[MOST_ENDS];
    size_t n_ends;
    struct sl_rehearsal result;
};

/* Decodes GLM-130B, and looks at the trace. */
static void rehearse(struct run *run, struct sl_rehearsal_config config)
{
    struct sl_modelfile mf;
    struct sl_error err;
    char dir[1024], path[1100];

    memset(run, 0, sizeof *run);
    test_temp_dir(dir);
    snprintf(path, sizeof path, "%s/trace.json", dir);
    imagine(&mf, "glm-130b", "int4-g128");
    config.mf = &mf;
    config.n_texts = 1;
    config.context = config.prompt = 256;
    config.decode_only = true;
    config.kv = SL_KV_F16;
    config.trace = path;
    assert_ok(sl_rehearse(&run->result, &config, &err), &err);
    load_trace(run->tracks, path);
    run->n_ends = find_ends(run->ends, MOST_ENDS, run->tracks);
    assert_in_range(run->n_ends, 3, MOST_ENDS);
    sl_modelfile_close(&mf);
    test_remove_tree(dir);
}

static void run_fini(struct run *run)
{
    for (int t = 0; t < SL_TRACK_COUNT; t++)
        free(run->tracks[t].spans);
    sl_rehearsal_fini(&run->result);
}

/* Each token takes what one takes on the average. */
static void assert_steady(const struct run *run)
{
    double pass_s = run->result.phase[SL_PHASE_DECODE].seconds;

    for (size_t i = 1; i < run->n_ends; i++) {
        double s = run->ends[i] - run->ends[i - 1];

        if (fabs(s - pass_s) > 0.002 * pass_s)
            print_error("token %zu takes %g s, others %g\n", i, s, pass_s);
        assert_true(fabs(s - pass_s) <= 0.002 * pass_s);
    }
}

/* Copies and cores limit: while the head is computed and the next token
   begins, the GPU's next slabs come. */
static void copies_go_on_from_token_to_token(void **state)
{
    struct run run;

    rehearse(&run, (struct sl_rehearsal_config){
                       .machine = sl_machine_spec_find("rtx3090-ddr5"),
                       .ram_bytes = 58ull << 30,
                       .vram_bytes = 22ull << 30,
                   });
    assert_steady(&run);
    for (int t = SL_TRACK_STAGES; t <= SL_TRACK_KERNELS; t++)
        assert_true(run.tracks[t].named && run.tracks[t].n > 100);
    for (size_t i = 0; i + 1 < run.n_ends; i++)
        assert_true(goes_on_across(&run.tracks[SL_TRACK_COPIES], run.ends[i],
                                   run.result.plan.n_slabs));
    assert_true(run.result.phase[SL_PHASE_DECODE].efficiency >= 0.97);
    run_fini(&run);
}

/* The disk limits: it never stops. */
static void the_disk_never_stops_between_tokens(void **state)
{
    struct run run;
    double from, to, idle;

    rehearse(&run, (struct sl_rehearsal_config){
                       .machine = sl_machine_spec_find("rtx3060-ddr4-nvme"),
                       .ram_bytes = 27 * GB,
                       .vram_bytes = 12 * GB,
                   });
    assert_steady(&run);
    from = run.ends[0];
    to = run.ends[run.n_ends - 1];
    idle = idle_s(&run.tracks[SL_TRACK_READS], from, to);
    if (!(idle < 1e-4 * (to - from)))
        print_error("%g of %g s without a read\n", idle, to - from);
    assert_true(idle < 1e-4 * (to - from));
    run_fini(&run);
}

/* --- promises ------------------------------------------------------------- */

#define DDR4 .dram_bps = 43e9, .worker[SL_HOST].memory_bps = 40e9
#define DDR5 .dram_bps = 80e9, .worker[SL_HOST].memory_bps = 74e9
#define PCIE3                                                                  \
    .worker[SL_DEVICE].link_bps = 12.5e9,                                      \
    .worker[SL_DEVICE].link_latency_s = 1e-5,                                  \
    .worker[SL_DEVICE].stage_s = 43e-6
#define PCIE4                                                                  \
    .worker[SL_DEVICE].link_bps = 25e9,                                        \
    .worker[SL_DEVICE].link_latency_s = 1e-5,                                  \
    .worker[SL_DEVICE].stage_s = 43e-6
#define PCIE5                                                                  \
    .worker[SL_DEVICE].link_bps = 53e9,                                        \
    .worker[SL_DEVICE].link_latency_s = 1e-5,                                  \
    .worker[SL_DEVICE].stage_s = 43e-6
#define SMALL_GPU                                                              \
    .worker[SL_DEVICE].memory_bps = 190e9, .worker[SL_DEVICE].ops_per_s = 10e12
#define LARGE_GPU                                                              \
    .worker[SL_DEVICE].memory_bps = 860e9, .worker[SL_DEVICE].ops_per_s = 130e12
#define SATA  .disk_bps = 0.5e9, .disk_latency_s = 200e-6
#define NVME3 .disk_bps = 3.3e9, .disk_latency_s = 100e-6
#define NVME4 .disk_bps = 6.6e9, .disk_latency_s = 80e-6
#define NVMES .disk_bps = 13e9, .disk_latency_s = 80e-6

/* Small, large and odd machines. */
static const struct sl_rates small = {NVME3, DDR4, PCIE3, SMALL_GPU,
                                      .worker[SL_HOST].ops_per_s = 0.4e12};
static const struct sl_rates large = {NVME4, DDR5, PCIE4, LARGE_GPU,
                                      .worker[SL_HOST].ops_per_s = 1.6e12};
static const struct sl_rates uneven = {NVME4, DDR4, PCIE4, LARGE_GPU,
                                       .worker[SL_HOST].ops_per_s = 0.8e12};
static const struct sl_rates fast = {NVMES, DDR5, PCIE5, LARGE_GPU,
                                     .worker[SL_HOST].ops_per_s = 2.5e12};
static const struct sl_rates slow_disk = {SATA, DDR4, PCIE4, SMALL_GPU,
                                          .worker[SL_HOST].ops_per_s = 0.8e12};
static const struct sl_rates weak_cores = {NVME4, DDR4, PCIE4, LARGE_GPU,
                                           .worker[SL_HOST].ops_per_s = 0.1e12};
/* For decoding the GPU is no use. */
static const struct sl_rates fast_ram = {NVME4, PCIE4, SMALL_GPU,
                                         .dram_bps = 200e9,
                                         .worker[SL_HOST].ops_per_s = 1e12};
static const struct sl_rates slow_dram = {NVMES, PCIE4, LARGE_GPU,
                                          .dram_bps = 25e9,
                                          .worker[SL_HOST].ops_per_s = 2e12};
static const struct sl_rates no_gpu = {NVME3, DDR4,
                                       .worker[SL_HOST].ops_per_s = 0.8e12};

/* Budgets in GB. */
static const struct box {
    const char *name;
    const struct sl_rates *rates;
    double ram, vram;
    const char *preset, *quant;
    uint32_t texts; /* of one a prompt is taken, too */
} boxes[] = {
    {"6 GB and 16 GB", &small, 11, 5, "glm-130b", "int4-g128", 1},
    {"24 GB and 64 GB", &large, 58, 23, "glm-130b", "int4", 1},
    {"no RAM to spare", &uneven, 2, 23, "glm-130b", "int4-g128", 1},
    {"no VRAM to spare", &uneven, 58, 2, "glm-130b", "int4-g128", 1},
    {"all is fast", &fast, 16, 30, "glm-130b", "int8", 1},
    {"a slow disk", &slow_disk, 24, 11, "glm-130b", "int4-g128", 1},
    {"weak cores", &weak_cores, 58, 23, "glm-130b", "int4-g128", 1},
    {"all in VRAM", &large, 20, 23, "glm-10b", "int8", 1},
    {"packed weights, many positions", &large, 20, 23, "7b", "int4", 128},
    {"all in RAM", &small, 60, 5, "glm-10b", "f16", 1},
    {"RAM like VRAM", &fast_ram, 90, 8, "7b", "int8", 1},
    {"disk and DRAM", &slow_dram, 37, 4.2, "glm-130b", "int8", 1},
    {"much attention", &uneven, 120, 8, "glm-130b", "int4", 32},
    {"no GPU", &no_gpu, 20, 0, "glm-130b", "int4-g128", 1},
    {"no GPU, all in RAM", &no_gpu, 60, 0, "7b", "f16", 1},
    {"no GPU, little RAM", &no_gpu, 3, 0, "7b", "int4-g64", 1},
};

/* Whatever the machine, a pass takes what the plan says, within a tenth, and
   nothing is faster than its floor. */
static void keep_promise(const struct sl_rehearsal_config *c, double *worst)
{
    struct sl_rehearsal r;
    struct sl_error err;
    bool kept = true;

    assert_ok(sl_rehearse(&r, c, &err), &err);
    for (int p = 0; p < (c->decode_only ? 1 : SL_PHASE_COUNT); p++) {
        const struct sl_rehearsed *j = &r.phase[p];
        double off = j->expected_s / j->seconds - 1;

        if (fabs(off) > *worst)
            *worst = fabs(off);
        if (!(fabs(off) <= 0.1) || !(j->efficiency <= 1.0001)) {
            print_error("%s, RAM %.1f GB, VRAM %.1f GB, %u texts, %s: "
                        "%.4g s, %.4g planned, floor %.4g\n",
                        c->machine->name, (double)c->ram_bytes / 1e9,
                        (double)c->vram_bytes / 1e9, c->n_texts,
                        p == SL_PHASE_DECODE ? "decode" : "prefill", j->seconds,
                        j->expected_s, j->floor.seconds);
            kept = false;
        }
    }
    sl_rehearsal_fini(&r);
    assert_true(kept);
}

static void plans_keep_their_promises(void **state)
{
    double worst = 0;

    for (size_t i = 0; i < sizeof boxes / sizeof *boxes; i++) {
        struct sl_modelfile mf;
        const struct box *b = &boxes[i];
        struct sl_machine_spec spec = {
            .rates = *b->rates,
            .memory_bytes[SL_DEVICE] = (uint64_t)(b->vram * 1e9),
            .memory_bytes[SL_HOST] = (uint64_t)(b->ram * 1e9),
        };
        struct sl_rehearsal_config c = {
            .mf = &mf,
            .machine = &spec,
            .ram_bytes = spec.memory_bytes[SL_HOST],
            .vram_bytes = spec.memory_bytes[SL_DEVICE],
            .n_texts = b->texts,
            .context = 256,
            .prompt = b->texts > 1 ? 256 : 1024,
            .decode_only = b->texts > 1,
            .kv = SL_KV_F16,
        };

        snprintf(spec.name, sizeof spec.name, "%s", b->name);
        imagine(&mf, b->preset, b->quant);
        keep_promise(&c, &worst);
        sl_modelfile_close(&mf);
    }
    print_message("# at most %.1f %% off\n", 100 * worst);
}

/* How many of the caches of texts of GLM-130B wait in RAM for the GPU. */
static uint32_t n_waiting(const struct sl_rates *rates, double ram, double vram,
                          enum sl_engine_rule engine, double *worst)
{
    struct sl_modelfile mf;
    struct sl_machine_spec spec = {
        .name = "caches",
        .rates = *rates,
        .memory_bytes[SL_DEVICE] = (uint64_t)(vram * 1e9),
        .memory_bytes[SL_HOST] = (uint64_t)(ram * 1e9),
    };
    const struct sl_rehearsal_config c = {
        .mf = &mf,
        .machine = &spec,
        .ram_bytes = spec.memory_bytes[SL_HOST],
        .vram_bytes = spec.memory_bytes[SL_DEVICE],
        .n_texts = 8,
        .context = 256,
        .prompt = 256,
        .decode_only = true,
        .kv = SL_KV_F16,
        .engine = engine,
    };
    struct sl_rehearsal r;
    struct sl_error err;
    uint32_t n;

    imagine(&mf, "glm-130b", "int4-g128");
    assert_ok(sl_rehearse(&r, &c, &err), &err);
    n = r.n_waiting;
    assert_int_equal(n > 0 && r.kv_bytes[SL_HOST] == 0, 0);
    sl_rehearsal_fini(&r);
    keep_promise(&c, worst);
    sl_modelfile_close(&mf);
    return n;
}

/* Of 8 texts they take 7.5 GB: as many wait as must, and none where the cores
 * are good at attention. */
static void caches_wait_where_they_must(void **state)
{
    double worst = 0;
    uint32_t few = n_waiting(&uneven, 58, 8, SL_ENGINE_RULE_GPU, &worst);
    uint32_t many = n_waiting(&uneven, 58, 4, SL_ENGINE_RULE_GPU, &worst);

    assert_int_equal(n_waiting(&uneven, 58, 12, SL_ENGINE_RULE_GPU, &worst), 0);
    assert_in_range(few, 1, 30);
    assert_in_range(many, 31, 70);
    assert_int_equal(n_waiting(&large, 58, 4, SL_ENGINE_RULE_AUTO, &worst), 0);
    print_message("# at most %.1f %% off\n", 100 * worst);
}

/* --- mixtures ------------------------------------------------------------- */

/* A decode of GLM-4.7-Flash by the cores of a 3060's box, with so much RAM. */
static struct sl_rehearsed mixture(double *resident, uint64_t ram_bytes,
                                   const struct sl_hit_curve *curve)
{
    struct sl_modelfile mf;
    struct sl_rehearsal_config c = {
        .mf = &mf,
        .machine = sl_machine_spec_find("rtx3060-ddr4-nvme"),
        .ram_bytes = ram_bytes,
        .n_texts = 1,
        .context = 64,
        .prompt = 64,
        .decode_only = true,
        .kv = SL_KV_F16,
    };
    struct sl_rehearsed decode;
    struct sl_rehearsal r;
    struct sl_error err;

    if (curve != NULL)
        c.hit_curve = *curve;
    imagine(&mf, "glm-4.7-flash", "int4-g64");
    assert_ok(sl_rehearse(&r, &c, &err), &err);
    decode = r.phase[SL_PHASE_DECODE];
    *resident = (double)r.n_expert_places / r.n_experts;
    sl_rehearsal_fini(&r);
    sl_modelfile_close(&mf);
    return decode;
}

/* Four of 64 experts of 46 layers: 2944 choices in all that count. */
static void assert_share(const struct sl_rehearsed *j, double read)
{
    double share = j->expert_read_bytes / j->expert_wanted_bytes;

    if (!(fabs(share - read) <= 0.03))
        print_error("%.4f is read, not %.4f\n", share, read);
    assert_true(fabs(share - read) <= 0.03);
    assert_true(fabs(j->expected_s / j->seconds - 1) <= 0.1);
    /* The shared expert is computed while others are read, which a floor
     * does not count on. */
    assert_true(j->efficiency <= 1.01);
}

static void a_mixture_reads_what_has_no_place(void **state)
{
    double resident;
    struct sl_rehearsed a = mixture(&resident, 6 * GB, NULL);
    struct sl_rehearsed b = mixture(&resident, 6 * GB, NULL);

    assert_true(resident > 0.2 && resident < 0.5);
    assert_share(&a, 1 - resident);
    assert_true(a.seconds == b.seconds);
    a = mixture(&resident, 18 * GB, NULL);
    assert_true(resident == 1);
    assert_true(a.expert_read_bytes == 0);
    assert_true(a.efficiency > 0.9);
}

static void a_hit_curve_says_what_a_mixture_reads(void **state)
{
    const struct sl_hit_curve curve = {
        .point = {{0.1, 0.5}, {0.2, 0.8}, {0.5, 0.9}},
        .n = 3,
    };
    double resident;
    struct sl_rehearsed j = mixture(&resident, 6 * GB, &curve);

    assert_true(resident > 0.2 && resident < 0.5);
    assert_share(&j, 0.2 - 0.1 * (resident - 0.2) / 0.3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(copies_go_on_from_token_to_token),
        cmocka_unit_test(the_disk_never_stops_between_tokens),
        cmocka_unit_test(plans_keep_their_promises),
        cmocka_unit_test(caches_wait_where_they_must),
        cmocka_unit_test(a_mixture_reads_what_has_no_place),
        cmocka_unit_test(a_hit_curve_says_what_a_mixture_reads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
