#include "config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/convert/synth.h"
#include "src/exec/route_trace.h"
#include "src/runtime/runtime.h"
#include "tests/support.h"

/* Which experts a random mixture chooses. */

static char dir[1024];
static char path[1100];

static int set_up(void **state)
{
    test_temp_dir(dir);
    snprintf(path, sizeof path, "%s/m.gguf", dir);
    return 0;
}

static int tear_down(void **state)
{
    test_remove_tree(dir);
    return 0;
}

#define LAYERS    3u
#define EXPERTS   32u
#define USED      4u
#define PROMPTS   16u
#define POSITIONS 8u

/* GLM-4.5 of one dense layer and LAYERS with experts, as wide as said. */
static void make_mixture(uint32_t hidden, double skew)
{
    struct sl_hparams hp = {
        .n_layers = 1 + LAYERS,
        .hidden = hidden,
        .inner = 64,
        .n_heads = 4,
        .n_kv_heads = 2,
        .head_dim = 64,
        .rope_dims = 32,
        .rope_base = 1e6f,
        .vocab = 512,
        .max_positions = 64,
        .norm_eps = 1e-5f,
        .untied = true,
        .n_experts = EXPERTS,
        .n_experts_used = USED,
        .expert_inner = 32,
        .n_dense_layers = 1,
        .expert_norm = true,
        .text.special = {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1},
    };
    struct sl_config c = {.hp = hp};
    struct sl_synth_options o = {
        .name = "random",
        .output = path,
        .quant = "int4-g64",
        .router_skew = skew,
        .force = true,
        .quiet = true,
    };
    const struct sl_arch *arch;
    struct sl_synth_result r;
    struct sl_error err;

    assert_ok(sl_synth_preset(&c, &arch, "glm-4.5-air", &err), &err);
    c.hp = hp;
    assert_ok(sl_config_finish(&o.hp, arch, &c, &err), &err);
    o.arch = arch;
    assert_ok(sl_synth(&r, &o, &err), &err);
    sl_synth_result_fini(&r);
}

/* Prompts of random ids, each in one pass and then again step by step. */
static void run_prompts(const char *trace)
{
    struct sl_workload load = {.n_sequences = 1,
                               .max_tokens = POSITIONS,
                               .pass_positions = POSITIONS,
                               .pass_logits = 1,
                               .n_texts = 1};
    struct sl_runtime_config config = {.model = path,
                                       .threads = 1,
                                       .quiet = true,
                                       .no_usage = true,
                                       .route_trace = trace};
    struct sl_runtime *rt;
    struct sl_error err;
    struct sl_lm *lm;
    float logits[512];

    assert_ok(sl_runtime_open(&rt, &config, &err), &err);
    assert_ok(sl_runtime_start(rt, &load, &err), &err);
    lm = sl_runtime_lm(rt);
    for (uint32_t p = 0; p < 2 * PROMPTS; p++) {
        int32_t ids[POSITIONS], positions[POSITIONS];
        uint32_t n = p % 2 == 0 ? POSITIONS : 1, seq;

        assert_ok(lm->ops->seq_create(lm, &seq, &err), &err);
        for (uint32_t i = 0; i < POSITIONS; i++) {
            ids[i] = (int32_t)((p / 2 * POSITIONS + i) * 7919 % 512);
            positions[i] = (int32_t)i;
        }
        for (uint32_t i = 0; i < POSITIONS; i += n) {
            struct sl_lm_item item = {.seq = seq,
                                      .ids = ids + i,
                                      .positions = positions + i,
                                      .n = n,
                                      .n_logits = 1};

            assert_ok(lm->ops->forward(lm, &item, 1, logits, &err), &err);
        }
        lm->ops->seq_destroy(lm, seq);
    }
    sl_runtime_close(rt);
}

/* uses: of each expert; the mean number of distinct ones of a prompt, by layer,
 * in one pass and step by step. */
static void read_choices(uint32_t uses[LAYERS][EXPERTS],
                         double distinct[LAYERS][2], const char *trace)
{
    struct sl_route_shape shape;
    struct sl_route_step step;
    uint16_t experts[EXPERTS], n[EXPERTS];
    uint32_t seen[LAYERS][EXPERTS] = {{0}}, prompt[LAYERS] = {0};
    uint32_t position[LAYERS] = {0};
    struct sl_error err;
    FILE *f = fopen(trace, "rb");
    bool end;

    assert_non_null(f);
    assert_ok(sl_route_read_head(f, trace, &shape, &err), &err);
    for (;;) {
        assert_ok(
            sl_route_read_step(f, trace, &shape, &step, experts, n, &end, &err),
            &err);
        if (end)
            break;
        if (position[step.layer] == 0)
            prompt[step.layer]++;
        position[step.layer] =
            (position[step.layer] + step.n_positions) % POSITIONS;
        for (uint32_t i = 0; i < step.n; i++) {
            uint32_t *last = &seen[step.layer][experts[i]];

            uses[step.layer][experts[i]] += n[i];
            distinct[step.layer][1 - prompt[step.layer] % 2] +=
                *last != prompt[step.layer] ? 1.0 / PROMPTS : 0;
            *last = prompt[step.layer];
        }
    }
    fclose(f);
}

/* What grows with the width is plain in the third layer of the second. */
static const uint32_t widths[] = {64, 2048};

static void choose(uint32_t uses[LAYERS][EXPERTS], double distinct[LAYERS][2],
                   uint32_t hidden, double skew)
{
    char trace[1100];

    snprintf(trace, sizeof trace, "%s/trace", dir);
    make_mixture(hidden, skew);
    run_prompts(trace);
    memset(uses, 0, LAYERS * EXPERTS * sizeof(uint32_t));
    memset(distinct, 0, LAYERS * 2 * sizeof(double));
    read_choices(uses, distinct, trace);
}

/* Whatever the width: as many distinct experts as of independent positions, and
 * no expert far from its part of them. */
static void routers_choose_evenly_at_every_width(void **state)
{
    double wanted = EXPERTS * (1 - pow(1 - (double)USED / EXPERTS, POSITIONS));
    uint32_t uses[LAYERS][EXPERTS];
    double distinct[LAYERS][2];

    for (size_t w = 0; w < sizeof widths / sizeof *widths; w++) {
        choose(uses, distinct, widths[w], 0);
        for (uint32_t l = 0; l < LAYERS; l++) {
            double n = PROMPTS * POSITIONS, p = (double)USED / EXPERTS;
            double variance = 0;

            for (uint32_t e = 0; e < EXPERTS; e++)
                variance += pow(uses[l][e] / 2.0 - n * p, 2) / EXPERTS;
            /* of the binomial distribution, but for what routers' rows prefer
             */
            if (fabs(distinct[l][0] / wanted - 1) > 0.08 ||
                fabs(distinct[l][1] / wanted - 1) > 0.08 ||
                variance > 2.5 * n * p * (1 - p))
                fail_msg("width %u layer %u: %.1f and %.1f experts of a "
                         "prompt, not %.1f; %.2f times the variance",
                         widths[w], l, distinct[l][0], distinct[l][1], wanted,
                         variance / (n * p * (1 - p)));
        }
    }
}

static int by_number(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return (x < y) - (x > y);
}

static void skewed_routers_choose_by_zipf_at_every_width(void **state)
{
    const double skew = 0.83;
    double all = 0, wanted = 0;
    uint32_t uses[LAYERS][EXPERTS], n_most = EXPERTS / 5;
    double distinct[LAYERS][2];

    for (uint32_t r = 0; r < EXPERTS; r++)
        all += pow(r + 1, -skew);
    for (uint32_t r = 0; r < n_most; r++)
        wanted += pow(r + 1, -skew) / all;
    for (size_t w = 0; w < sizeof widths / sizeof *widths; w++) {
        choose(uses, distinct, widths[w], skew);
        for (uint32_t l = 0; l < LAYERS; l++) {
            double sum = 0;

            qsort(uses[l], EXPERTS, sizeof uses[l][0], by_number);
            for (uint32_t r = 0; r < n_most; r++)
                sum += uses[l][r] / (2.0 * PROMPTS * POSITIONS * USED);
            if (fabs(sum - wanted) > 0.07)
                fail_msg("width %u layer %u: %u experts have %.2f of all "
                         "choices, not %.2f",
                         widths[w], l, n_most, sum, wanted);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define CASE(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
        CASE(routers_choose_evenly_at_every_width),
        CASE(skewed_routers_choose_by_zipf_at_every_width),
#undef CASE
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
