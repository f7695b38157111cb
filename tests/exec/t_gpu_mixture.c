#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cudasim/cudasim.h"
#include "tests/arch_models.h"
#include "tests/exec_rig.h"
#include "tests/gpu_rates.h"
#include "tests/support.h"

/* Mixtures of experts with the simulated GPU: who computes which experts, and
 * that it changes nothing but roundings. */

#define N_IDS    18u
#define N_LAYERS 8u /* more experts than "the least" is rounded by */

struct ran {
    uint32_t n, n_shared;  /* experts that the GPU had; with those all use */
    uint64_t cached, lent; /* bytes that the cache was asked for, and those
                            * that were copied to the GPU */
};

/* Logits of N_IDS ids, so many of them in one pass. */
static struct ran run_mixture(const struct sl_runtime_config *config,
                              uint32_t k, float *logits)
{
    const struct sl_workload one_text = rig_one_text(N_IDS);
    struct sl_runtime *rt = rig_start(config, &one_text);
    const struct sl_plan *plan = sl_runtime_plan_made(rt);
    struct ran ran = {sl_runtime_device_experts(rt),
                      sl_runtime_device_shared(rt), 0, 0};
    struct sl_lm *lm = sl_runtime_lm(rt);
    size_t n[SL_WORKERS];
    struct sl_run_stats stats;
    struct sl_error err;
    uint32_t seq;

    assert_int_equal(plan->uses_device, config->device == SL_DEVICE_CUDA);
    for (int p = 0; plan->uses_device && p < SL_PHASE_COUNT; p++) {
        rig_count(plan, (enum sl_phase)p, n);
        assert_true(n[SL_HOST] > 0 && n[SL_DEVICE] > 0);
    }
    assert_ok(lm->ops->seq_create(lm, &seq, &err), &err);
    for (uint32_t at = 0; at < N_IDS; at += k, k = 1) {
        int32_t ids[N_IDS], positions[N_IDS];
        struct sl_lm_item it = {.seq = seq, .ids = ids, .positions = positions};

        it.n = it.n_logits = k;
        for (uint32_t i = 0; i < k; i++) {
            positions[i] = (int32_t)(at + i);
            ids[i] = positions[i] * 7 % (int32_t)lm->vocab;
        }
        assert_ok(lm->ops->forward(lm, &it, 1, logits + at * lm->vocab, &err),
                  &err);
    }
    sl_runtime_stats(rt, &stats);
    ran.cached = stats.experts.wanted_bytes;
    ran.lent = stats.lent_expert_bytes;
    sl_runtime_close(rt);
    assert_int_equal(cudasim_reset(), 0);
    return ran;
}

/* A model of N_LAYERS layers, all but a dense one with 7 experts, in a file;
 * VRAM that has places for about half of them, and for few. */
struct gpu_mixture {
    char path[ARCH_PATH];
    struct sl_runtime_config config;
    uint64_t half;
    uint64_t shared[3]; /* with those all use of few, of some, of all layers */
    uint32_t n_experts, n_mixtures; /* layers */
    size_t n_logits;
    double row_s; /* of an expert, on the cores */
    struct sl_rates slow_cores;
};

static uint32_t planned_shared(const struct sl_runtime_config *config)
{
    const struct sl_workload one_text = rig_one_text(N_IDS);
    struct sl_runtime *rt;
    struct sl_error err;
    uint32_t n;

    assert_ok(sl_runtime_open(&rt, config, &err), &err);
    assert_ok(sl_runtime_plan(rt, &one_text, &err), &err);
    n = sl_runtime_device_shared(rt);
    sl_runtime_close(rt);
    return n;
}

/* From what there is on as much as has those of so many layers. */
static uint64_t give_vram(struct gpu_mixture *x, uint32_t least)
{
    while (planned_shared(&x->config) < least)
        x->config.vram_bytes += 8u << 10;
    return x->config.vram_bytes;
}

static void make_mixture(struct gpu_mixture *x, const char *arch)
{
    struct test_model m = arch_model(sl_arch_find(arch), 0);
    struct sl_vram v;
    uint64_t streamed;

    m.hp.n_layers = N_LAYERS;
    arch_model_write(x->path, test_dir, &m);
    x->n_mixtures = N_LAYERS - m.hp.n_dense_layers;
    x->n_experts = x->n_mixtures * m.hp.n_experts;
    x->n_logits = (size_t)N_IDS * m.hp.vocab;
    x->slow_cores = test_gpu_rates;
    x->slow_cores.dram_bps = 1e8;
    x->slow_cores.worker[SL_HOST].ops_per_s = 1e9;
    x->row_s = 6.0 * m.hp.hidden * m.hp.expert_inner / 1e9;
    x->config = rig_on_gpu(x->path);
    x->config.engine = SL_ENGINE_RULE_AUTO;
    x->config.no_usage = true;
    x->config.rates = &x->slow_cores;
    v = rig_planned(&x->config, N_IDS, &streamed);
    assert_true(v.experts > 0);
    assert_int_equal(v.n_layers, N_LAYERS);
    x->config.vram_bytes = v.least;
    x->shared[0] = give_vram(x, 0);
    x->shared[1] = give_vram(x, 1);
    x->shared[2] = give_vram(x, x->n_mixtures);
    do
        x->config.vram_bytes += 32u << 10;
    while (rig_planned(&x->config, N_IDS, &streamed).experts < v.experts / 4);
    x->half = x->config.vram_bytes;
    x->config.vram_bytes = SL_VRAM_AUTO;
}

/* What only the CPU computes. */
static void the_gpu_alone_takes_no_mixture(void **state)
{
    struct gpu_mixture x;
    struct sl_runtime *rt;
    struct sl_error err;

    make_mixture(&x, "glm4moe");
    x.config.engine = SL_ENGINE_RULE_GPU;
    assert_ok(sl_runtime_open(&rt, &x.config, &err), &err);
    assert_int_equal(
        sl_runtime_plan(rt, &(struct sl_workload){.n_sequences = 1}, &err), -1);
    assert_int_equal(err.code, SL_ERR_UNSUPPORTED);
    sl_runtime_close(rt);
}

/* Attention, the dense layer and the head are the GPU's, and the experts that
 * have room in VRAM: all of them, some, and with less those that all positions
 * use, of all layers, of some, of none. In a pass that has room for all pairs
 * others are computed where they lie, in one that has not they are copied. */
static void mix_in_vram(const char *arch)
{
    static const uint32_t passes[] = {N_IDS / 2, N_IDS};
    struct gpu_mixture x;
    float *got;
    double *exact;

    make_mixture(&x, arch);
    got = malloc(x.n_logits * sizeof *got);
    exact = malloc(x.n_logits * sizeof *exact);
    for (int p = 0; p < 2; p++) {
        struct sl_runtime_config c = x.config;
        struct ran all, ran;

        c.engine = SL_ENGINE_RULE_CPU;
        c.device = SL_DEVICE_CPU;
        all = run_mixture(&c, passes[p], got);
        assert_true(all.n == 0 && all.n_shared == 0 && all.lent == 0);
        for (size_t i = 0; i < x.n_logits; i++)
            exact[i] = (double)got[i];
        ran = run_mixture(&x.config, passes[p], got);
        assert_int_equal(ran.n, x.n_experts);
        assert_int_equal(ran.n_shared, x.n_mixtures);
        assert_true(ran.cached == 0 && ran.lent == 0);
        rig_assert_near(got, exact, x.n_logits, "all in VRAM");
        c = x.config;
        c.vram_bytes = x.half;
        ran = run_mixture(&c, passes[p], got);
        assert_true(ran.n > 0 && ran.n < x.n_experts);
        assert_int_equal(ran.n_shared, x.n_mixtures);
        assert_true(ran.cached > 0 && ran.cached < all.cached);
        assert_int_equal(ran.lent > 0, p == 1);
        assert_true(ran.lent <= ran.cached);
        rig_assert_near(got, exact, x.n_logits, "some in VRAM");
        for (uint32_t n = 0; n <= 2; n++) {
            c.vram_bytes = x.shared[n];
            ran = run_mixture(&c, passes[p], got);
            assert_int_equal(ran.n_shared, planned_shared(&c));
            assert_int_equal(ran.lent > 0, p == 1);
            rig_assert_near(got, exact, x.n_logits, "those used by all");
        }
    }
    free(got);
    free(exact);
}

static void a_mixture_has_experts_in_vram(void **state)
{
    mix_in_vram("glm4moe");
}

/* One plane of each layer's cache lies in VRAM with its attention. */
static void the_gpu_attends_to_latents(void **state)
{
    mix_in_vram("glm4moelite");
}

/* --- branches --------------------------------------------------------------
 */

enum { BEGIN = 11, NODES = 5, ROWS = NODES + 3 };

static void branch_item(struct sl_lm_item *it, uint32_t seq, uint32_t from,
                        uint32_t n, int32_t *ids, int32_t *positions)
{
    *it = (struct sl_lm_item){.seq = seq, .ids = ids, .positions = positions};
    it->n = n;
    for (uint32_t i = 0; i < n; i++) {
        positions[i] = (int32_t)(from + i);
        ids[i] = (int32_t)((from + i) * 7 + seq) % 61;
    }
}

/* A text, a fork of it in the middle of a page, a step of both in one pass;
 * then a tree behind the fork, of which a path that is no run of places is
 * kept, and a step behind that. Logits: (ROWS, vocab). */
static void run_branches(const struct sl_runtime_config *config, float *logits)
{
    static const uint32_t parents[NODES] = {SL_LM_ROOT, 0, 0, 1, 2};
    static const int32_t depth[NODES] = {0, 1, 1, 2, 2};
    static const uint32_t kept[] = {0, 2, 4};
    struct sl_workload load = rig_one_text(N_IDS);
    struct sl_runtime *rt;
    struct sl_lm *lm;
    struct sl_lm_item it[2];
    int32_t ids[2][N_IDS], positions[2][N_IDS];
    uint32_t seq, fork;
    struct sl_error err;

    load.n_sequences = 2;
    load.draft_positions = NODES;
    rt = rig_start(config, &load);
    lm = sl_runtime_lm(rt);
    assert_int_equal(sl_runtime_vram(rt)->n_layers,
                     config->device == SL_DEVICE_CUDA ? N_LAYERS : 0);
    assert_ok(lm->ops->seq_create(lm, &seq, &err), &err);
    branch_item(&it[0], seq, 0, BEGIN, ids[0], positions[0]);
    assert_ok(lm->ops->forward(lm, it, 1, logits, &err), &err);
    assert_ok(lm->ops->seq_fork(lm, &fork, seq, &err), &err);
    branch_item(&it[0], seq, BEGIN, 1, ids[0], positions[0]);
    branch_item(&it[1], fork, BEGIN, 1, ids[1], positions[1]);
    it[0].n_logits = it[1].n_logits = 1;
    assert_ok(lm->ops->forward(lm, it, 2, logits, &err), &err);
    branch_item(&it[0], fork, BEGIN + 1, NODES, ids[0], positions[0]);
    for (uint32_t i = 0; i < NODES; i++)
        positions[0][i] = (int32_t)BEGIN + 1 + depth[i];
    it[0].n_logits = NODES;
    it[0].apart = true;
    it[0].parents = parents;
    logits += 2 * lm->vocab;
    assert_ok(lm->ops->forward(lm, it, 1, logits, &err), &err);
    assert_ok(lm->ops->seq_pick(lm, fork, BEGIN + 1, kept, 3, &err), &err);
    branch_item(&it[0], fork, BEGIN + 4, 1, ids[0], positions[0]);
    it[0].n_logits = 1;
    logits += NODES * lm->vocab;
    assert_ok(lm->ops->forward(lm, it, 1, logits, &err), &err);
    sl_runtime_close(rt);
    assert_int_equal(cudasim_reset(), 0);
}

static void latents_in_vram_are_forked_and_moved(void **state)
{
    struct gpu_mixture x;
    size_t n;
    float *got;
    double *want;

    make_mixture(&x, "glm4moelite");
    n = x.n_logits / N_IDS * ROWS;
    got = malloc(n * sizeof *got);
    want = malloc(n * sizeof *want);
    for (int kv = SL_KV_F16; kv <= SL_KV_INT8; kv++) {
        struct sl_runtime_config c = x.config;

        c.engine = SL_ENGINE_RULE_CPU;
        c.device = SL_DEVICE_CPU;
        run_branches(&c, got);
        for (size_t i = 0; i < n; i++)
            want[i] = (double)got[i];
        /* on the device it is FP16, whatever the CPU's would be */
        c = x.config;
        c.kv_set = true;
        c.kv = (enum sl_kv_kind)kv;
        run_branches(&c, got);
        rig_assert_near(got, want, n, "branches");
    }
    free(got);
    free(want);
}

/* --- texts of unlike length, and one that is kept ----------------------------
 */

enum { PIECE = 7, OTHER = 9 };

/* The first piece of a text; the rest of it beside all of a shorter one; a step
 * of both. Logits: the last of each of the five, (5, vocab). */
static void run_pieces(const struct sl_runtime_config *config, float *logits)
{
    struct sl_workload load = rig_one_text(N_IDS + 1);
    int32_t ids[2][N_IDS], positions[2][N_IDS];
    struct sl_lm_item it[2];
    struct sl_runtime *rt;
    struct sl_lm *lm;
    struct sl_error err;
    uint32_t seq[2];

    load.n_sequences = 2;
    load.pass_positions = N_IDS - PIECE + OTHER;
    load.pass_logits = 2;
    rt = rig_start(config, &load);
    lm = sl_runtime_lm(rt);
    assert_ok(lm->ops->seq_create(lm, &seq[0], &err), &err);
    assert_ok(lm->ops->seq_create(lm, &seq[1], &err), &err);
    branch_item(&it[0], seq[0], 0, PIECE, ids[0], positions[0]);
    it[0].n_logits = 1;
    assert_ok(lm->ops->forward(lm, it, 1, logits, &err), &err);
    branch_item(&it[0], seq[0], PIECE, N_IDS - PIECE, ids[0], positions[0]);
    branch_item(&it[1], seq[1], 0, OTHER, ids[1], positions[1]);
    it[0].n_logits = it[1].n_logits = 1;
    assert_ok(lm->ops->forward(lm, it, 2, logits + lm->vocab, &err), &err);
    branch_item(&it[0], seq[0], N_IDS, 1, ids[0], positions[0]);
    branch_item(&it[1], seq[1], OTHER, 1, ids[1], positions[1]);
    it[0].n_logits = it[1].n_logits = 1;
    assert_ok(lm->ops->forward(lm, it, 2, logits + 3 * lm->vocab, &err), &err);
    sl_runtime_close(rt);
    assert_int_equal(cudasim_reset(), 0);
}

static void latents_of_pieces_and_of_two_texts(void **state)
{
    struct gpu_mixture x;
    struct sl_runtime_config c;
    double *want;
    float *got;
    size_t n;

    make_mixture(&x, "glm4moelite");
    n = 5 * x.n_logits / N_IDS;
    got = malloc(n * sizeof *got);
    want = malloc(n * sizeof *want);
    c = x.config;
    c.engine = SL_ENGINE_RULE_CPU;
    c.device = SL_DEVICE_CPU;
    run_pieces(&c, got);
    for (size_t i = 0; i < n; i++)
        want[i] = (double)got[i];
    run_pieces(&x.config, got);
    rig_assert_near(got, want, n, "pieces");
    free(got);
    free(want);
}

/* A prompt and a step behind it; gives the positions that came from the file.
 * Logits: (2, vocab). */
static uint64_t run_kept(const struct sl_runtime_config *config, float *logits)
{
    const struct sl_workload load = rig_one_text(N_IDS);
    int32_t ids[N_IDS], positions[N_IDS];
    struct sl_run_stats stats;
    struct sl_runtime *rt = rig_start(config, &load);
    struct sl_lm *lm = sl_runtime_lm(rt);
    struct sl_lm_item it;
    struct sl_error err;
    uint32_t seq;

    assert_int_equal(sl_runtime_vram(rt)->n_layers, N_LAYERS);
    assert_ok(lm->ops->seq_create(lm, &seq, &err), &err);
    branch_item(&it, seq, 0, N_IDS - 1, ids, positions);
    it.n_logits = 1;
    assert_ok(lm->ops->forward(lm, &it, 1, logits, &err), &err);
    branch_item(&it, seq, N_IDS - 1, 1, ids, positions);
    it.n_logits = 1;
    assert_ok(lm->ops->forward(lm, &it, 1, logits + lm->vocab, &err), &err);
    sl_runtime_stats(rt, &stats);
    sl_runtime_close(rt);
    assert_int_equal(cudasim_reset(), 0);
    return stats.prompt_cache.restored;
}

static void latents_in_vram_are_kept_in_a_file(void **state)
{
    struct gpu_mixture x;
    float *first, *again;
    char path[1100];
    size_t n;

    make_mixture(&x, "glm4moelite");
    snprintf(path, sizeof path, "%s/kept", test_dir);
    x.config.prompt_cache = path;
    n = 2 * x.n_logits / N_IDS;
    first = malloc(n * sizeof *first);
    again = malloc(n * sizeof *again);
    assert_int_equal(run_kept(&x.config, first), 0);
    assert_int_equal(run_kept(&x.config, again), N_IDS - 1);
    assert_memory_equal(again, first, n * sizeof *first);
    free(first);
    free(again);
}

/* --- the same bits -----------------------------------------------------------
 */

/* Which experts lie in VRAM is fixed, and who is lent is told by positions;
 * what the cache holds changes no bit. */
static void same_bits(struct gpu_mixture *x, uint64_t vram_bytes)
{
    static const uint32_t passes[] = {N_IDS / 2, N_IDS};
    float *want = malloc(x->n_logits * sizeof *want);
    float *got = malloc(x->n_logits * sizeof *got);

    x->config.vram_bytes = vram_bytes;
    for (int p = 0; p < 2; p++) {
        struct sl_runtime_config c = x->config;
        struct ran first = run_mixture(&c, passes[p], want), ran;

        assert_true(first.n < x->n_experts);
        assert_true(p == 0 ? first.lent == 0
                           : first.lent > 0 && first.lent < first.cached);
        c.ram_bytes = SL_RAM_LEAST;
        for (c.threads = 2; c.threads <= 3; c.threads++) {
            ran = run_mixture(&c, passes[p], got);
            assert_memory_equal(&ran, &first, sizeof ran);
            assert_memory_equal(got, want, x->n_logits * sizeof *got);
        }
    }
    free(want);
    free(got);
}

static void a_mixture_in_vram_and_ram_has_the_same_bits(void **state)
{
    struct gpu_mixture x;

    make_mixture(&x, "glm4moe");
    x.config.vram_bytes = x.shared[0];
    assert_int_equal(planned_shared(&x.config), 0);
    x.config.vram_bytes = x.shared[1];
    assert_true(planned_shared(&x.config) < x.n_mixtures);
    /* so that some are lent, and some are not */
    x.slow_cores.worker[SL_DEVICE].stage_s = 4 * x.row_s;
    same_bits(&x, x.half);
    same_bits(&x, x.shared[1]);
}

struct lines {
    unsigned n;
    char last[256];
};

static void keep_line(void *opaque, enum sl_log_level level, const char *line)
{
    struct lines *lines = opaque;

    lines->n++;
    snprintf(lines->last, sizeof lines->last, "%s", line);
}

/* The cache's memory comes last of what is pinned. */
static void experts_that_are_not_pinned_are_said_to_be_slow(void **state)
{
    const struct sl_workload load = rig_one_text(N_IDS);
    struct lines lines = {0};
    struct sl_log log = {keep_line, &lines, SL_LOG_WARN};
    struct gpu_mixture x;
    struct ran ran;
    uint64_t n;
    float *logits;

    make_mixture(&x, "glm4moe");
    x.config.vram_bytes = x.half;
    x.config.log = &log;
    logits = malloc(x.n_logits * sizeof *logits);
    cudasim_reset();
    sl_runtime_close(rig_start(&x.config, &load));
    n = cudasim_calls("cudaHostRegister");
    assert_true(n > 0);
    assert_int_equal(lines.n, 0);
    cudasim_reset();
    cudasim_fail("cudaHostRegister", n, cudaErrorMemoryAllocation);
    ran = run_mixture(&x.config, N_IDS, logits);
    cudasim_fail(NULL, 0, cudaSuccess);
    assert_true(ran.lent > 0);
    assert_int_equal(lines.n, 1);
    assert_non_null(strstr(lines.last, "of experts are not pinned"));
    free(logits);
}

/* One text with the n-th call of the device failing; false: it makes fewer. */
static bool fail_call(const struct sl_runtime_config *config, uint64_t n,
                      bool *failed)
{
    const struct sl_workload load = rig_one_text(N_IDS);
    int32_t ids[N_IDS] = {0}, positions[N_IDS];
    struct sl_lm_item it = {.ids = ids, .positions = positions};
    struct sl_runtime *rt;
    struct sl_error err = {0};
    struct sl_lm *lm;
    uint64_t calls;
    int rc;

    it.n = N_IDS;
    it.n_logits = 1;
    for (int32_t i = 0; i < (int32_t)it.n; i++)
        positions[i] = i;
    cudasim_reset();
    cudasim_fail(NULL, n, cudaErrorUnknown);
    rc = sl_runtime_open(&rt, config, &err);
    if (rc == 0)
        rc = sl_runtime_start(rt, &load, &err);
    if (rc == 0) {
        lm = sl_runtime_lm(rt);
        rc = lm->ops->seq_create(lm, &it.seq, &err);
        if (rc == 0) {
            float *logits = malloc(4ull * lm->vocab);

            rc = lm->ops->forward(lm, &it, 1, logits, &err);
            free(logits);
        }
    }
    calls = cudasim_calls(NULL);
    sl_runtime_close(rt);
    cudasim_fail(NULL, 0, cudaSuccess);
    assert_int_equal(cudasim_reset(), 0);
    *failed = rc != 0;
    if (rc != 0)
        assert_true(err.code != SL_OK && err.msg[0] != '\0');
    return calls >= n;
}

/* While experts are loaded or lent, rows go up, products run, what they give
 * comes down. A call that is not needed may fail unnoticed; none may leak, hang
 * or crash. */
static void fail_calls(const char *arch)
{
    struct gpu_mixture x;
    uint64_t n = 1, n_failed = 0;
    bool failed;

    make_mixture(&x, arch);
    x.config.vram_bytes = x.half;
    for (; fail_call(&x.config, n, &failed);
         n += 1 + n / (TEST_SANITIZED ? 2 : 6))
        n_failed += failed;
    assert_true(n_failed > 5);
}

static void any_call_for_a_mixture_may_fail(void **state)
{
    fail_calls("glm4moe");
}

static void any_call_for_latents_may_fail(void **state)
{
    fail_calls("glm4moelite");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_gpu_alone_takes_no_mixture),
        cmocka_unit_test(a_mixture_has_experts_in_vram),
        cmocka_unit_test(the_gpu_attends_to_latents),
        cmocka_unit_test(latents_in_vram_are_forked_and_moved),
        cmocka_unit_test(latents_of_pieces_and_of_two_texts),
        cmocka_unit_test(latents_in_vram_are_kept_in_a_file),
        cmocka_unit_test(a_mixture_in_vram_and_ram_has_the_same_bits),
        cmocka_unit_test(experts_that_are_not_pinned_are_said_to_be_slow),
        cmocka_unit_test(any_call_for_a_mixture_may_fail),
        cmocka_unit_test(any_call_for_latents_may_fail),
    };

    return cmocka_run_group_tests(tests, test_dir_set_up, test_dir_tear_down);
}
