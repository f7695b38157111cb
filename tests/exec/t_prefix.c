#include "config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/runtime/runtime.h"
#include "tests/gpu_rates.h"
#include "tests/hf_maker.h"
#include "tests/logits_run.h"
#include "tests/support.h"

/* P-Tuning v2 prefixes where the logits of golden cases (t_family_golden.c) do
 * not reach: forks, cuts, the prompt cache, budgets, bad checkpoints. */

#define C6 "golden/C_chatglm6b/c6_a"

/* Of the golden model. */
enum { LAYERS = 3, HIDDEN = 64, POSITIONS = 5, WIDTH = 2 * LAYERS * HIDDEN };
enum { CONTEXT = 9, MOST = 40, VOCAB = 300 };

static char dir[1024], model[1100], prefix[1024], projected[1024];

static const struct sl_workload load = {
    .n_sequences = 2,
    .max_tokens = MOST,
    .shared_tokens = CONTEXT,
    .pass_positions = CONTEXT,
    .pass_logits = 2,
};

static struct sl_runtime *start(const struct sl_runtime_config *config)
{
    struct sl_runtime *rt;
    struct sl_error err;

    assert_ok(sl_runtime_open(&rt, config, &err), &err);
    assert_ok(sl_runtime_start(rt, &load, &err), &err);
    return rt;
}

static struct sl_runtime_config config_of(const char *folder)
{
    return (struct sl_runtime_config){
        .model = model,
        .prefix = folder,
        .threads = 2,
        .ram_bytes = SL_RAM_LEAST,
        .activations = SL_ACTIVATIONS_F32,
        .quiet = true,
    };
}

static void feed(struct sl_lm *lm, uint32_t seq, const int32_t *ids,
                 uint32_t first, uint32_t n, float *logits)
{
    int32_t positions[MOST], blocks[MOST];
    struct sl_error err;
    struct sl_lm_item item = {
        .seq = seq,
        .ids = ids,
        .positions = positions,
        .blocks = blocks,
        .n = n,
        .n_context = CONTEXT - 1,
        .n_logits = 1,
    };

    for (uint32_t i = 0; i < n; i++) {
        uint32_t at = first + i;

        positions[i] = (int32_t)(at < CONTEXT - 2 ? at : CONTEXT - 2);
        blocks[i] = at < CONTEXT - 1 ? 0 : (int32_t)(at - CONTEXT + 2);
    }
    assert_ok(lm->ops->forward(lm, &item, 1, logits, &err), &err);
}

static const int32_t context[CONTEXT] = {212, 265, 53,  125, 193,
                                         103, 246, 291, 294};

static uint32_t begin(struct sl_lm *lm, float *logits)
{
    struct sl_error err;
    uint32_t seq;

    assert_ok(lm->ops->seq_create(lm, &seq, &err), &err);
    feed(lm, seq, context, 0, CONTEXT, logits);
    return seq;
}

static void same(const float *a, const float *b)
{
    assert_memory_equal(a, b, VOCAB * sizeof *a);
}

static void different(const float *a, const float *b)
{
    double most = 0;

    for (size_t i = 0; i < VOCAB; i++)
        most = fmax(most, fabs((double)a[i] - (double)b[i]));
    assert_true(most > 1e-2);
}

static void forks_and_cuts_keep_the_prefix(void **state)
{
    static const int32_t ids[] = {207, 115, 258, 238};
    struct sl_runtime_config config = config_of(prefix);
    struct sl_runtime *rt = start(&config);
    struct sl_lm *lm = sl_runtime_lm(rt);
    float first[VOCAB], want[4][VOCAB], got[VOCAB];
    uint32_t a, b;
    struct sl_error err;

    assert_int_equal(lm->max_tokens, MOST);
    assert_int_equal(sl_runtime_prefix(rt), POSITIONS);
    a = begin(lm, first);
    for (uint32_t i = 0; i < 4; i++)
        feed(lm, a, ids + i, CONTEXT + i, 1, want[i]);
    lm->ops->seq_cut(lm, a, CONTEXT + 1);
    assert_ok(lm->ops->seq_fork(lm, &b, a, &err), &err);
    for (uint32_t i = 1; i < 4; i++) {
        feed(lm, b, ids + i, CONTEXT + i, 1, got);
        same(got, want[i]);
    }
    lm->ops->seq_cut(lm, a, 0);
    feed(lm, a, context, 0, CONTEXT, got);
    same(got, first);
    lm->ops->seq_destroy(lm, b);
    lm->ops->seq_destroy(lm, a);
    a = begin(lm, got);
    same(got, first);
    /* all that was planned for has room */
    for (uint32_t i = CONTEXT; i < MOST; i++)
        feed(lm, a, ids + i % 4, i, 1, got);
    sl_runtime_close(rt);
}

static void all_texts_of_a_batch_have_room(void **state)
{
    struct sl_runtime_config config = config_of(prefix);
    struct sl_workload many = load;
    struct sl_runtime *rt;
    struct sl_error err;
    struct sl_lm *lm;
    float logits[VOCAB];
    uint32_t seqs[6];

    many.n_texts = 3;
    many.pass_positions = 3 * CONTEXT;
    assert_ok(sl_runtime_open(&rt, &config, &err), &err);
    assert_ok(sl_runtime_start(rt, &many, &err), &err);
    lm = sl_runtime_lm(rt);
    for (unsigned t = 0; t < 3; t++) {
        seqs[t] = begin(lm, logits);
        assert_ok(lm->ops->seq_fork(lm, &seqs[t + 3], seqs[t], &err), &err);
    }
    for (uint32_t i = CONTEXT; i < MOST; i++)
        for (unsigned t = 0; t < 6; t++)
            feed(lm, seqs[t], context + i % CONTEXT, i, 1, logits);
    sl_runtime_close(rt);
}

/* What a run gives first, and how much of it came from the file. */
static uint64_t run_cached(const char *folder, const char *cache, float *logits)
{
    static const int32_t next = 207;
    struct sl_runtime_config config = config_of(folder);
    struct sl_run_stats stats;
    struct sl_runtime *rt;
    uint32_t seq;

    config.prompt_cache = cache;
    rt = start(&config);
    seq = begin(sl_runtime_lm(rt), logits);
    feed(sl_runtime_lm(rt), seq, &next, CONTEXT, 1, logits + VOCAB);
    sl_runtime_stats(rt, &stats);
    sl_runtime_close(rt);
    return stats.prompt_cache.restored;
}

static void a_kept_prompt_goes_with_its_prefix(void **state)
{
    const char *const folders[] = {NULL, prefix, projected};
    float want[3][2 * VOCAB], got[2 * VOCAB];
    char cache[1100];

    for (size_t i = 0; i < 3; i++) {
        snprintf(cache, sizeof cache, "%s/kept%zu", dir, i);
        assert_int_equal(run_cached(folders[i], cache, want[i]), 0);
        assert_int_equal(run_cached(folders[i], cache, got), CONTEXT);
        same(got, want[i]);
        same(got + VOCAB, want[i] + VOCAB);
        if (i > 0)
            different(want[i], want[i - 1]);
    }
    /* the last file is the projected one's */
    assert_int_equal(run_cached(prefix, cache, got), 0);
    same(got, want[1]);
    same(got + VOCAB, want[1] + VOCAB);
}

#ifdef HAVE_CUDA
/* Steps behind a context, and a cut, with caches on the device, whatever it
 * computes of the layers; *least: the device memory with which it can compute
 * all. Whether both engines do. */
static bool check_gpu(uint64_t *least, enum sl_engine_rule rule,
                      uint64_t vram_bytes, const float *want)
{
    static const int32_t next = 207;
    struct sl_runtime_config config = config_of(prefix);
    struct sl_runtime *rt;
    float got[2 * VOCAB];
    const struct sl_plan *plan;
    bool by[SL_WORKERS] = {false};
    struct sl_lm *lm;
    uint32_t seq;

    config.device = SL_DEVICE_CUDA;
    config.device_ordinal = SL_DEVICE_BEST;
    config.engine = rule;
    config.vram_bytes = vram_bytes;
    config.ram_bytes = 1u << 30;
    config.rates = &test_gpu_rates;
    rt = start(&config);
    lm = sl_runtime_lm(rt);
    seq = begin(lm, got);
    for (int turn = 0; turn < 2; turn++) {
        feed(lm, seq, &next, CONTEXT, 1, got + VOCAB);
        for (size_t i = 0; i < sizeof got / sizeof *got; i++)
            assert_true(fabsf(got[i] - want[i]) < 0.02f);
        lm->ops->seq_cut(lm, seq, turn == 0 ? 0 : CONTEXT);
        if (turn == 0)
            feed(lm, seq, context, 0, CONTEXT, got);
    }
    plan = sl_runtime_plan_made(rt);
    for (size_t i = 0; i < plan->n_slabs; i++)
        by[plan->worker[SL_PHASE_DECODE][i]] = true;
    *least = sl_runtime_vram(rt)->least;
    sl_runtime_close(rt);
    return by[SL_HOST] && by[SL_DEVICE];
}

static void a_gpu_begins_with_the_prefix_too(void **state)
{
    float want[2 * VOCAB];
    bool divided = false;
    uint64_t least, ignored;
    char cache[1100];

    if (!test_has_gpu())
        return;
    snprintf(cache, sizeof cache, "%s/cpu", dir);
    run_cached(prefix, cache, want);
    check_gpu(&least, SL_ENGINE_RULE_GPU, SL_VRAM_AUTO, want);
    for (uint64_t more = 0; more < 1u << 20; more += 64u << 10)
        divided |= check_gpu(&ignored, SL_ENGINE_RULE_AUTO, least + more, want);
    assert_true(divided);
}
#endif

static void the_plan_counts_the_prefix(void **state)
{
    struct sl_runtime_config config = config_of(NULL);
    uint64_t kv[2], other[2];

    for (size_t i = 0; i < 2; i++) {
        struct sl_runtime *rt;
        struct sl_error err;

        config.prefix = i == 0 ? NULL : projected;
        assert_ok(sl_runtime_open(&rt, &config, &err), &err);
        assert_ok(sl_runtime_plan(rt, &load, &err), &err);
        kv[i] = sl_runtime_memory(rt)->kv;
        other[i] = sl_runtime_memory(rt)->other;
        sl_runtime_close(rt);
    }
    /* A page of 16 positions at least, in F32. */
    assert_true(kv[1] >= kv[0] + 16ull * WIDTH * 4);
    assert_true(other[1] > other[0]);
}

/* --- checkpoints that are none -------------------------------------------- */

static float numbers[WIDTH * HIDDEN];

#define E  "transformer.prefix_encoder.embedding.weight"
#define T0 "transformer.prefix_encoder.trans.0."
#define T2 "transformer.prefix_encoder.trans.2."

#define T(name_, type_, n_, ...)                                               \
    {                                                                          \
        .name = (name_), .dtype = (type_), .n_dims = (n_),                     \
        .shape = {__VA_ARGS__}, .data = numbers                                \
    }

static const struct bad {
    const char *want;   /* in the message */
    const char *config; /* text of config.json, or NULL */
    struct maker_tensor t[5];
} bads[] = {
    {"has no tensor " E, NULL, {T("other", SL_DT_F32, 1, 4)}},
    {"gives 380 values a position, but ",
     NULL,
     {T(E, SL_DT_F32, 2, POSITIONS, 380)}},
    {"takes 384 (3 layers, 2 x 64 values each): a prefix of another model",
     NULL,
     {T(E, SL_DT_F16, 2, POSITIONS, 512)}},
    {"no matrix of positions", NULL, {T(E, SL_DT_F32, 1, WIDTH)}},
    {"is int8; a prefix is of floats",
     NULL,
     {T(E, SL_DT_I8, 2, POSITIONS, WIDTH)}},
    {"pre_seq_len is 7 and prefix_projection false",
     "{\"pre_seq_len\": 7}",
     {T(E, SL_DT_F32, 2, POSITIONS, WIDTH)}},
    {"5 positions and no projection",
     "{\"pre_seq_len\": 5, \"prefix_projection\": true}",
     {T(E, SL_DT_F32, 2, POSITIONS, WIDTH)}},
    {"has no tensor " T2 "weight",
     NULL,
     {T(E, SL_DT_F32, 2, POSITIONS, HIDDEN),
      T(T0 "weight", SL_DT_F32, 2, HIDDEN, HIDDEN),
      T(T0 "bias", SL_DT_F32, 1, HIDDEN)}},
    {T0 "weight is 64 x 32, not 64 x 64",
     NULL,
     {T(E, SL_DT_F32, 2, POSITIONS, HIDDEN),
      T(T0 "weight", SL_DT_F32, 2, HIDDEN, 32),
      T(T0 "bias", SL_DT_F32, 1, HIDDEN),
      T(T2 "weight", SL_DT_F32, 2, WIDTH, HIDDEN),
      T(T2 "bias", SL_DT_F32, 1, WIDTH)}},
    {"gives 256 values a position",
     NULL,
     {T(E, SL_DT_F32, 2, POSITIONS, HIDDEN),
      T(T0 "weight", SL_DT_F32, 2, HIDDEN, HIDDEN),
      T(T0 "bias", SL_DT_F32, 1, HIDDEN),
      T(T2 "weight", SL_DT_F32, 2, 256, HIDDEN),
      T(T2 "bias", SL_DT_F32, 1, 256)}},
};

static void write_folder(char folder[1100], const struct bad *b)
{
    static unsigned n;
    char file[1200];
    size_t n_tensors = 0;

    snprintf(folder, 1100, "%s/bad%u", dir, n++);
    while (n_tensors < 5 && b->t[n_tensors].name != NULL)
        n_tensors++;
    maker_hf(folder, b->t, n_tensors, MAKER_SAFETENSORS, 1);
    snprintf(file, sizeof file, "%s/config.json", folder);
    if (b->config != NULL)
        maker_file(file, b->config, strlen(b->config));
}

static void what_does_not_fit_is_named(void **state)
{
    for (size_t i = 0; i < sizeof bads / sizeof *bads; i++) {
        struct sl_runtime_config config;
        struct sl_runtime *rt;
        struct sl_error err;
        char folder[1100];

        write_folder(folder, &bads[i]);
        config = config_of(folder);
        if (sl_runtime_open(&rt, &config, &err) != -1 ||
            strstr(err.msg, bads[i].want) == NULL) {
            print_error("%s: not in: %s\n", bads[i].want, err.msg);
            fail();
        }
    }
}

static void numbers_that_are_none_are_found(void **state)
{
    static const float wrong[] = {NAN, INFINITY, -INFINITY};
    const struct bad b = {.t = {T(E, SL_DT_F32, 2, POSITIONS, WIDTH)}};

    for (size_t i = 0; i < 3; i++) {
        struct sl_runtime_config config;
        struct sl_runtime *rt;
        struct sl_error err;
        char folder[1100];

        numbers[3 * WIDTH + 70] = wrong[i];
        write_folder(folder, &b);
        numbers[3 * WIDTH + 70] = 0;
        config = config_of(folder);
        assert_ok(sl_runtime_open(&rt, &config, &err), &err);
        assert_int_equal(sl_runtime_start(rt, &load, &err), -1);
        assert_int_equal(err.code, SL_ERR_CORRUPT);
        assert_non_null(strstr(err.msg, "not finite at row 3, column 70"));
        sl_runtime_close(rt);
    }
}

static int make_dir(void **state)
{
    char source[1024];

    test_temp_dir(dir);
    snprintf(model, sizeof model, "%s/model.gguf", dir);
    run_sluice(dir, "convert -q --quant f32 -o '%s' '%s'", model,
               test_shared(source, C6 "/hf"));
    return 0;
}

static int remove_dir(void **state)
{
    test_remove_tree(dir);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forks_and_cuts_keep_the_prefix),
        cmocka_unit_test(all_texts_of_a_batch_have_room),
        cmocka_unit_test(a_kept_prompt_goes_with_its_prefix),
#ifdef HAVE_CUDA
        cmocka_unit_test(a_gpu_begins_with_the_prefix_too),
#endif
        cmocka_unit_test(the_plan_counts_the_prefix),
        cmocka_unit_test(what_does_not_fit_is_named),
        cmocka_unit_test(numbers_that_are_none_are_found),
    };

    if (test_shared(prefix, C6 "/hf_ptuning") == NULL ||
        test_shared(projected, C6 "/hf_ptuning_proj") == NULL)
        test_skip_all("no golden data");
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
