#include "config.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/cmd/hit_curve.h"
#include "src/convert/synth_router.h"
#include "src/exec/expert_usage.h"
#include "src/exec/route_trace.h"
#include "tests/arch_models.h"
#include "tests/exec_rig.h"
#include "tests/support.h"

/* Mixtures of experts beside their logits, which t_arch_logits.c has: where
 * experts lie, what is read of them, and who is named when one is bad. */

/* Of two layers, the second with 7 experts. */
static struct test_model mixture(char path[ARCH_PATH])
{
    struct test_model m = arch_model(sl_arch_find("glm4moe"), 0);

    arch_model_write(path, test_dir, &m);
    return m;
}

static void an_expert_is_one_run_of_pages_and_a_section(void **state)
{
    char path[ARCH_PATH], name[SL_STAGE_NAME];
    struct sl_modelfile mf;
    struct sl_error err;
    uint64_t end = 0;

    mixture(path);
    assert_ok(sl_modelfile_open(&mf, path, &err), &err);
    for (uint32_t e = 0; e < mf.hp.n_experts; e++) {
        const struct sl_model_matrix *m = sl_modelfile_expert(&mf, 1, e);
        const struct sl_model_section *s = &mf.sections[m->section];

        assert_int_equal(m[0].spec.slot, SL_SLOT_EXPERT_IN);
        assert_int_equal(m[1].spec.slot, SL_SLOT_EXPERT_OUT);
        assert_int_equal(m[1].section, m->section);
        assert_int_equal(m->spec.expert, e);
        assert_int_equal(m->off % SL_MODEL_ALIGNMENT, 0);
        assert_int_equal(s->off, m->off);
        assert_int_equal(s->bytes, sl_modelfile_record_bytes(&mf, m));
        assert_true(m[1].off + m[1].bytes <= s->off + s->bytes);
        snprintf(name, sizeof name, "layer 1 expert %u", e);
        assert_string_equal(s->name, name);
        if (e > 0)
            assert_int_equal(m->off, end); /* side by side */
        end = s->off + s->bytes;
    }
    for (size_t i = 0; i < mf.n_matrices; i++) {
        if (mf.matrices[i].spec.role != SL_ROLE_EXPERT)
            assert_true(mf.matrices[i].off <
                        sl_modelfile_expert(&mf, 1, 0)->off);
    }
    sl_modelfile_close(&mf);
}

static void a_flipped_bit_names_layer_and_expert(void **state)
{
    char path[ARCH_PATH];
    struct sl_modelfile mf;
    struct sl_error err;
    uint64_t at;
    uint8_t byte;
    int fd;

    mixture(path);
    assert_ok(sl_modelfile_open(&mf, path, &err), &err);
    at = sl_modelfile_expert(&mf, 1, 3)[1].off + 5;
    assert_ok(sl_modelfile_verify(&mf, true, &err), &err);
    fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, (off_t)at), 1);
    byte ^= 4;
    assert_int_equal(pwrite(fd, &byte, 1, (off_t)at), 1);
    close(fd);
    assert_int_equal(sl_modelfile_verify(&mf, true, &err), -1);
    assert_int_equal(err.code, SL_ERR_CORRUPT);
    assert_non_null(strstr(err.msg, "layer 1 expert 3"));
    sl_modelfile_close(&mf);
}

#define STEPS 12u

/* One text, step by step, so often; logits (may be NULL): of the last step. */
static void run_texts(struct sl_runtime *rt, unsigned rounds, float *logits)
{
    struct sl_lm *lm = sl_runtime_lm(rt);
    float *room = logits != NULL ? logits : malloc(4ull * lm->vocab);
    struct sl_error err;

    assert_non_null(room);
    for (unsigned r = 0; r < rounds; r++) {
        uint32_t seq;

        assert_ok(lm->ops->seq_create(lm, &seq, &err), &err);
        for (int32_t i = 0; i < (int32_t)STEPS; i++) {
            int32_t id = (i * 7 + 3) % (int32_t)lm->vocab;
            struct sl_lm_item it = {
                .seq = seq, .ids = &id, .positions = &i, .n = 1, .n_logits = 1};

            assert_ok(lm->ops->forward(lm, &it, 1, room, &err), &err);
        }
        lm->ops->seq_destroy(lm, seq);
    }
    if (logits == NULL)
        free(room);
}

/* The same with a runtime of its own; *last (owned, may be NULL): the logits of
 * the last step. */
static void run_to(struct sl_run_stats *s, struct sl_memory *memory,
                   const struct sl_runtime_config *config, unsigned rounds,
                   uint32_t *n_places, float **last)
{
    const struct sl_workload load = rig_one_text(STEPS);
    struct sl_runtime *rt = rig_start(config, &load);
    float *logits = malloc(4ull * sl_runtime_lm(rt)->vocab);
    uint32_t n_experts;

    assert_non_null(logits);
    run_texts(rt, rounds, logits);
    sl_runtime_stats(rt, s);
    sl_runtime_experts(rt, n_places, &n_experts);
    assert_true(n_experts > 0 && n_experts % 7 == 0);
    *memory = *sl_runtime_memory(rt);
    assert_true(memory->total <= memory->budget);
    sl_runtime_close(rt);
    if (last != NULL)
        *last = logits;
    else
        free(logits);
}

static void run(struct sl_run_stats *s, const struct sl_runtime_config *config,
                unsigned rounds, uint32_t *n_places)
{
    struct sl_memory memory;

    run_to(s, &memory, config, rounds, n_places, NULL);
}

static void experts_that_have_a_place_are_read_once(void **state)
{
    char path[ARCH_PATH];
    struct test_model m = mixture(path);
    struct sl_runtime_config config = {.ram_bytes = 1ull << 30, .threads = 2};
    struct sl_run_stats s;
    struct sl_modelfile mf;
    struct sl_error err;
    uint64_t record;
    uint32_t n_places;

    config.model = path;
    assert_ok(sl_modelfile_open(&mf, path, &err), &err);
    record = sl_modelfile_record_bytes(&mf, sl_modelfile_expert(&mf, 1, 0));
    sl_modelfile_close(&mf);
    run(&s, &config, 3, &n_places);
    assert_int_equal(n_places, 7);
    assert_int_equal(s.experts.wants, 3 * STEPS * m.hp.n_experts_used);
    assert_true(s.experts.demand_bytes <= 7 * record);
    assert_int_equal(s.experts.wanted_bytes, s.experts.wants * record);
    assert_int_equal(s.decode_expert_passes, 3 * STEPS);
    assert_int_equal(s.decode_expert_wanted, s.experts.wanted_bytes);
    assert_int_equal(s.decode_expert_read, s.experts.demand_bytes);

    config.ram_bytes = SL_RAM_LEAST;
    run(&s, &config, 3, &n_places);
    assert_in_range(n_places, 3, 7);
    assert_int_equal(s.experts.wants, 3 * STEPS * m.hp.n_experts_used);
}

static void write_at(const char *path, long at, const char *bytes, size_t n)
{
    FILE *f = fopen(path, "r+b");

    assert_non_null(f);
    assert_int_equal(fseek(f, at, SEEK_SET), 0);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static void count_lines(void *arg, enum sl_log_level level, const char *text)
{
    unsigned *n = arg;

    *n += strstr(text, ".usage is ignored") != NULL;
}

static void what_runs_learn_lies_beside_the_model(void **state)
{
    char path[ARCH_PATH], usage[ARCH_PATH + 16];
    unsigned n_ignored = 0;
    struct sl_log log = {count_lines, &n_ignored, SL_LOG_INFO};
    struct sl_runtime_config config = {
        .ram_bytes = 1ull << 30, .threads = 2, .model = path, .log = &log};
    float parts[7], again[7], turns = 0, sum = 0;
    struct test_model m = mixture(path);
    struct sl_modelfile mf, other;
    struct sl_run_stats s;
    struct sl_error err;
    uint32_t n_places;

    snprintf(usage, sizeof usage, "%s.usage", path);
    unlink(usage);
    config.no_usage = true;
    run(&s, &config, 2, &n_places);
    assert_int_equal(access(usage, F_OK), -1);
    config.no_usage = false;
    run(&s, &config, 2, &n_places);
    assert_ok(sl_modelfile_open(&mf, path, &err), &err);
    assert_true(sl_expert_usage_read(parts, &turns, &mf, 7, &log));
    assert_in_range(turns, 2 * STEPS - 1, 2 * STEPS);
    for (int e = 0; e < 7; e++)
        sum += parts[e];
    assert_true(fabsf(sum - (float)m.hp.n_experts_used) < 1e-3f);
    run(&s, &config, 2, &n_places);
    assert_true(sl_expert_usage_read(again, &turns, &mf, 7, &log));
    assert_in_range(turns, 2 * STEPS, 4 * STEPS);
    assert_int_equal(n_ignored, 0);

    /* Another model's, damaged, cut, something else: as none, with a line. */
    other = mf;
    other.file_bytes++;
    assert_false(sl_expert_usage_read(again, &turns, &other, 7, &log));
    write_at(usage, 40, "x", 1);
    assert_false(sl_expert_usage_read(again, &turns, &mf, 7, &log));
    assert_int_equal(truncate(usage, 44), 0);
    assert_false(sl_expert_usage_read(again, &turns, &mf, 7, &log));
    write_at(usage, 0, "????", 4);
    assert_false(sl_expert_usage_read(again, &turns, &mf, 7, &log));
    assert_int_equal(n_ignored, 4);
    run(&s, &config, 1, &n_places);
    assert_int_equal(n_ignored, 5);
    assert_int_equal(unlink(usage), 0);
    assert_int_equal(mkfifo(usage, 0600), 0);
    assert_false(sl_expert_usage_read(again, &turns, &mf, 7, &log));
    assert_int_equal(n_ignored, 6);
    assert_int_equal(unlink(usage), 0); /* which is a stranger's, and stays */
    run(&s, &config, 1, &n_places);
    assert_true(sl_expert_usage_read(again, &turns, &mf, 7, &log));
    sl_modelfile_close(&mf);
}

static int read_curve(struct sl_hit_curve *curve, const char *text,
                      struct sl_error *err)
{
    char path[ARCH_PATH];
    FILE *f;

    snprintf(path, sizeof path, "%s/curve.json", test_dir);
    f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
    return sl_hit_curve_read(curve, path, err);
}

static void a_plan_expects_what_a_hit_curve_says(void **state)
{
    static const char *const bad[] = {
        "",
        "{}",
        "[]",
        "[[0.5]]",
        "[[0.5, 2]]",
        "[[0.5, -1]]",
        "[[\"a\", 1]]",
        "[[0.5, 0.5], [0.4, 0.6]]",
        "[[0.5, 0.5], [0.6, 0.4]]",
    };
    const struct sl_workload load = rig_one_text(STEPS);
    char path[ARCH_PATH];
    struct sl_runtime_config config = {
        .ram_bytes = SL_RAM_LEAST, .threads = 1, .model = path};
    struct test_model m = arch_model(sl_arch_find("glm4moe"), 0);
    struct sl_expert_demand d[2], prompt;
    struct sl_runtime *rt;
    struct sl_error err;
    uint32_t places, all;
    double share[2], served; /* the program may have grown in between */

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(read_curve(&config.hit_curve, bad[i], &err), -1);
    assert_int_equal(config.hit_curve.n, 0);
    m.hp.n_layers = 6;
    arch_model_write(path, test_dir, &m);
    for (int i = 0; i < 2; i++) {
        assert_ok(sl_runtime_open(&rt, &config, &err), &err);
        assert_ok(sl_runtime_plan(rt, &load, &err), &err);
        d[i] = sl_runtime_expert_demand(rt, (struct sl_plan_pass){1, 1, 0});
        prompt = sl_runtime_expert_demand(rt, (struct sl_plan_pass){9, 1, 0});
        sl_runtime_experts(rt, &places, &all);
        share[i] = (double)places / all;
        assert_true(share[i] > 0.05 && share[i] < 0.95);
        sl_runtime_close(rt);
        assert_int_equal(prompt.by_curve, false);
        assert_ok(
            read_curve(&config.hit_curve, "[[0.05, 0.5], [0.95, 0.95]]", &err),
            &err);
    }
    served = 0.5 + 0.45 * (share[1] - 0.05) / 0.9;
    assert_false(d[0].by_curve);
    assert_true(d[1].by_curve);
    assert_true(fabs(d[0].disk_bytes - (1 - share[0]) * d[0].wanted_bytes) < 1);
    assert_true(fabs(d[1].disk_bytes - (1 - served) * d[1].wanted_bytes) < 1);
}

static double floor_at(const struct sl_runtime *rt, double disk_bps,
                       double dram_bps)
{
    const struct sl_rates rates = {.disk_bps = disk_bps, .dram_bps = dram_bps};

    return sl_runtime_floor_at(rt, &rates, (struct sl_plan_pass){1, 1, 0})
        .seconds;
}

/* All stays but some experts. What the program itself takes changes. */
static struct sl_runtime *plan_for_some(struct sl_runtime_config *config)
{
    const struct sl_workload load = rig_one_text(STEPS);

    config->ram_bytes = SL_RAM_LEAST;
    for (int tries = 0; tries < 1000; tries++) {
        uint32_t n_places, n_experts;
        struct sl_runtime *rt = NULL;
        struct sl_error err;

        if (sl_runtime_open(&rt, config, &err) != 0 ||
            sl_runtime_plan(rt, &load, &err) != 0) {
            assert_int_equal(err.code, SL_ERR_BUDGET);
            config->ram_bytes += 65536;
        } else {
            sl_runtime_experts(rt, &n_places, &n_experts);
            if (n_places < n_experts &&
                sl_runtime_plan_made(rt)->streamed_bytes == 0)
                return rt;
            config->ram_bytes = sl_runtime_memory(rt)->budget + 65536;
            if (n_places >= n_experts)
                config->ram_bytes = SL_RAM_LEAST;
        }
        sl_runtime_close(rt);
    }
    assert_true(false);
    return NULL;
}

/* What k experts take on average, each missing by chance, at one rate. */
static void a_plan_expects_layers_to_differ(void **state)
{
    const double bps = 1e6, missing = 0.4;
    char path[ARCH_PATH];
    struct sl_runtime_config config = {
        .threads = 1,
        .model = path,
        .hit_curve = {{{0.01, 1 - missing}, {0.99, 1 - missing}}, 2}};
    struct test_model m = arch_model(sl_arch_find("glm4moe"), 0);
    struct sl_expert_demand d;
    struct sl_runtime *rt;
    double want = 0, rest, k = m.hp.n_experts_used;

    if (TEST_SANITIZED) /* whose program grows by more than experts take */
        return;
    m.hp.n_layers = 6;
    arch_model_write(path, test_dir, &m);
    rt = plan_for_some(&config);
    d = sl_runtime_expert_demand(rt, (struct sl_plan_pass){1, 1, 0});
    assert_true(fabs(d.disk_bytes / d.wanted_bytes - missing) < 1e-9);
    rest = floor_at(rt, 0, bps) - (1 - missing) * d.wanted_bytes / bps;
    for (uint32_t i = 0; i <= (uint32_t)k; i++)
        want += tgamma(k + 1) / tgamma(i + 1) / tgamma(k - i + 1) *
                pow(missing, i) * pow(1 - missing, k - i) * fmax(i, k - i) / k *
                d.wanted_bytes / bps;
    assert_true(want > 0.6 * d.wanted_bytes / bps);
    assert_true(fabs(floor_at(rt, bps, bps) - rest - want) < 1e-6 * want);
    sl_runtime_close(rt);
}

/* Where all have a place everything is missing at first, and later nothing. */
static void a_floor_sums_up_what_layers_did(void **state)
{
    const struct sl_workload load = rig_one_text(STEPS);
    const double bps = 1e6;
    char path[ARCH_PATH];
    struct sl_runtime_config config = {
        .ram_bytes = 1ull << 30, .threads = 1, .model = path, .no_usage = true};
    struct test_model m = arch_model(sl_arch_find("glm4moe"), 0);
    struct sl_run_stats s;
    struct sl_runtime *rt;
    double read, there, rest, took;

    m.hp.n_layers = 6;
    arch_model_write(path, test_dir, &m);
    rt = rig_start(&config, &load);
    run_texts(rt, 1, NULL);
    sl_runtime_stats(rt, &s);
    assert_int_equal(s.experts.hint_bytes, 0);
    read = (double)s.decode_expert_read / STEPS / bps;
    there = (double)s.decode_expert_wanted / STEPS / bps - read;
    assert_true(read > 0 && there > 0);
    rest = floor_at(rt, 0, bps) - there;
    took = floor_at(rt, bps, bps) - rest;
    assert_true(took > 1.001 * fmax(read, there));
    assert_true(took < 1.000001 * (read + there));
    /* of what comes from here on alone */
    sl_runtime_count_experts_anew(rt, false);
    run_texts(rt, 1, NULL);
    took = floor_at(rt, bps, bps) - rest;
    assert_true(fabs(took - read - there) < 1e-6 * took);
    sl_runtime_close(rt);
}

/* With room for all that is always used and half of the experts, the next
 * layer's are guessed and read ahead: that is told, and changes no bit. */
static void guesses_are_read_ahead_and_change_no_bit(void **state)
{
    char path[ARCH_PATH];
    struct test_model m = arch_model(sl_arch_find("glm4moe"), 0);
    struct sl_runtime_config config = {
        .ram_bytes = 1ull << 30, .threads = 2, .model = path};
    struct sl_run_stats all, half;
    struct sl_memory memory;
    float *want, *got;
    uint32_t n_places;
    uint64_t step;

    if (TEST_SANITIZED) /* whose program grows by more than experts take */
        return;
    m.hp.n_layers = 6;
    arch_model_write(path, test_dir, &m);
    run_to(&all, &memory, &config, 2, &n_places, &want);
    assert_int_equal(n_places, 7 * 5);
    assert_int_equal(all.experts.hint_bytes, 0);
    step = memory.experts / 4;
    config.ram_bytes = SL_RAM_LEAST;
    run_to(&half, &memory, &config, 2, &n_places, NULL);
    /* What the program itself takes is not the same each time. */
    for (config.ram_bytes = memory.total + step;; config.ram_bytes += step) {
        run_to(&half, &memory, &config, 2, &n_places, &got);
        if (n_places >= 10)
            break;
        free(got);
    }
    assert_true(n_places < 7 * 5);
    assert_memory_equal(got, want, m.hp.vocab * sizeof *got);
    assert_true(half.experts.hint_bytes > 0);
    assert_true(half.experts.hint_used_bytes > 0);
    assert_true(half.experts.hint_used_bytes + half.experts.hint_wasted_bytes <=
                half.experts.hint_bytes);
    assert_int_equal(half.experts.wanted_bytes, all.experts.wanted_bytes);
    free(want);
    free(got);
}

/* A trace has every layer of every pass, prompts and steps alike. */
static void the_choice_of_experts_can_be_kept(void **state)
{
    char path[ARCH_PATH], trace[ARCH_PATH + 16];
    struct sl_runtime_config config = {
        .ram_bytes = SL_RAM_LEAST, .model = path, .route_trace = trace};
    struct test_model m = mixture(path);
    uint16_t experts[7], uses[7];
    struct sl_route_shape shape;
    struct sl_route_step step;
    struct sl_run_stats s;
    struct sl_error err;
    uint32_t n_places, n_steps = 0, n_wants = 0;
    bool end = false;
    FILE *f;

    snprintf(trace, sizeof trace, "%s.route", path);
    run(&s, &config, 2, &n_places);
    f = fopen(trace, "r+b");
    assert_non_null(f);
    assert_ok(sl_route_read_head(f, trace, &shape, &err), &err);
    assert_int_equal(shape.n_layers, 1);
    assert_int_equal(shape.n_experts, 7);
    assert_int_equal(shape.n_used, m.hp.n_experts_used);
    while (!end) {
        assert_ok(sl_route_read_step(f, trace, &shape, &step, experts, uses,
                                     &end, &err),
                  &err);
        if (end)
            break;
        assert_int_equal(step.layer, 0);
        assert_int_equal(step.n_positions, 1);
        assert_int_equal(step.n, m.hp.n_experts_used);
        assert_int_equal(uses[0], 1);
        n_steps++;
        n_wants += step.n;
    }
    assert_int_equal(n_steps, 2 * STEPS);
    assert_int_equal(n_wants, s.experts.wants);
    /* One that is cut short, or none at all. */
    assert_int_equal(ftruncate(fileno(f), 24 + 8), 0);
    assert_int_equal(fseek(f, 24, SEEK_SET), 0);
    assert_int_equal(
        sl_route_read_step(f, trace, &shape, &step, experts, uses, &end, &err),
        -1);
    assert_int_equal(err.code, SL_ERR_CORRUPT);
    assert_int_equal(fseek(f, 8, SEEK_SET), 0);
    assert_int_equal(sl_route_read_head(f, trace, &shape, &err), -1);
    assert_int_equal(err.code, SL_ERR_CORRUPT);
    fclose(f);
}

/* By chance, so often; the part of all choices that the first n ranks have. */
static double part_of_first(const float *bias, const struct sl_hparams *hp,
                            uint32_t n)
{
    unsigned *chosen = calloc(hp->n_experts, sizeof *chosen);
    float *c = malloc(hp->n_experts * sizeof *c);
    uint64_t seed = 9;
    unsigned first = 0;

    assert_non_null(chosen);
    assert_non_null(c);
    for (unsigned t = 0; t < 2000; t++) {
        for (uint32_t e = 0; e < hp->n_experts; e++) {
            double z = -6; /* of twelve draws: nearly normal */

            for (int i = 0; i < 12; i++) {
                seed = seed * 6364136223846793005u + 1442695040888963407u;
                z += (double)(seed >> 40) * 0x1p-24;
            }
            c[e] = (float)(1 / (1 + exp(-z))) + bias[e];
        }
        for (uint32_t k = 0; k < hp->n_experts_used; k++) {
            uint32_t best = 0;

            for (uint32_t e = 1; e < hp->n_experts; e++)
                best = c[e] > c[best] ? e : best;
            c[best] = -10;
            chosen[best]++;
        }
    }
    for (uint32_t r = 0; r < n; r++) {
        uint32_t best = 0;

        for (uint32_t e = 1; e < hp->n_experts; e++)
            best = chosen[e] > chosen[best] ? e : best;
        first += chosen[best];
        chosen[best] = 0;
    }
    free(chosen);
    free(c);
    return (double)first / (2000.0 * hp->n_experts_used);
}

/* 1 / r^S of 128 experts: what a fifth of them has of all choices. */
static void skewed_routers_choose_as_they_are_told(void **state)
{
    static const struct {
        double skew, least, most;
    } want[] = {{0.2, 0.22, 0.34}, {0.8, 0.52, 0.68}, {1.2, 0.68, 0.90}};
    struct sl_hparams hp = {.n_experts = 128, .n_experts_used = 8};
    float bias[128];

    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        double part;

        sl_synth_router_bias(bias, &hp, 3, want[i].skew);
        part = part_of_first(bias, &hp, 26);
        if (!(part >= want[i].least && part <= want[i].most))
            print_error("skew %g gives a fifth %g\n", want[i].skew, part);
        assert_true(part >= want[i].least && part <= want[i].most);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_expert_is_one_run_of_pages_and_a_section),
        cmocka_unit_test(a_flipped_bit_names_layer_and_expert),
        cmocka_unit_test(experts_that_have_a_place_are_read_once),
        cmocka_unit_test(what_runs_learn_lies_beside_the_model),
        cmocka_unit_test(a_plan_expects_what_a_hit_curve_says),
        cmocka_unit_test(a_plan_expects_layers_to_differ),
        cmocka_unit_test(a_floor_sums_up_what_layers_did),
        cmocka_unit_test(guesses_are_read_ahead_and_change_no_bit),
        cmocka_unit_test(the_choice_of_experts_can_be_kept),
        cmocka_unit_test(skewed_routers_choose_as_they_are_told),
    };

    return cmocka_run_group_tests(tests, test_dir_set_up, test_dir_tear_down);
}
