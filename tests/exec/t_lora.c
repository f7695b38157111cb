#include "config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/model/modelfile_rows.h"
#include "src/runtime/runtime.h"
#include "tests/logits_run.h"
#include "tests/lora_maker.h"
#include "tests/support.h"

/* LoRA adapters, added to products at run time and merged at conversion,
 * against weights that were merged here, in double precision. */

static char dir[1024];

struct model {
    const char *golden; /* folder of the checkpoint */
    uint32_t n_layers;
    bool causal;
};

static const struct model llama = {"golden/H_family/llama/hf", 3, true};
static const struct model qwen3 = {"golden/H_family/qwen3/hf", 2, true};
static const struct model chatglm3 = {"golden/H_family/chatglm3/hf", 3, true};
static const struct model glm4 = {"golden/H_family/glm4_0414/hf", 3, true};
static const struct model chatglm6b = {"golden/C_chatglm6b/c6_a/hf", 3, false};

#define LLAMA "model.layers.%u."

static const struct maker_adapter everywhere = {
    .config = "{\"peft_type\":\"LORA\",\"r\":4,\"lora_alpha\":6}",
    .scale = 6.0 / 4,
    .r = 4,
    .dtype = SL_DT_F32,
    .modules =
        {
            {LLAMA "self_attn.q_proj", 64, 64},
            {LLAMA "self_attn.k_proj", 64, 32},
            {LLAMA "self_attn.v_proj", 64, 32},
            {LLAMA "self_attn.o_proj", 64, 64},
            {LLAMA "mlp.gate_proj", 64, 160},
            {LLAMA "mlp.up_proj", 64, 160},
            {LLAMA "mlp.down_proj", 160, 64},
        },
};

/* One part of the fused matrix, of odd rank. */
static const struct maker_adapter values_alone = {
    .config = "{\"peft_type\":\"LORA\",\"r\":9,\"lora_alpha\":6,\"bias\":"
              "\"none\",\"use_rslora\":true,\"use_dora\":false,"
              "\"modules_to_save\":null,\"init_lora_weights\":true}",
    .scale = 6.0 / 3,
    .r = 9,
    .dtype = SL_DT_F16,
    .torch = true,
    .modules = {{LLAMA "self_attn.v_proj", 64, 32}},
};

static const struct maker_adapter patterns = {
    .config = "{\"peft_type\":\"LORA\",\"r\":2,\"lora_alpha\":3,"
              "\"rank_pattern\":{\"mlp.up_proj\":7},"
              "\"alpha_pattern\":{\"up_proj\":21,\"proj\":99}}",
    .scale = 3.0 / 2,
    .r = 2,
    .dtype = SL_DT_BF16,
    .other = "up_proj",
    .other_r = 7,
    .other_scale = 3,
    .modules = {{LLAMA "self_attn.q_proj", 64, 64},
                {LLAMA "mlp.up_proj", 64, 160}},
};

static const struct maker_adapter qwen = {
    .config = "{\"peft_type\":\"LORA\",\"r\":16,\"lora_alpha\":32}",
    .scale = 2,
    .r = 16,
    .dtype = SL_DT_F32,
    .modules = {{LLAMA "self_attn.q_proj", 64, 128},
                {LLAMA "self_attn.k_proj", 64, 64},
                {LLAMA "mlp.gate_proj", 64, 160}},
};

#define OWN "transformer.encoder.layers.%u."

/* Fused matrices under names of their own. */
static const struct maker_adapter chatglm = {
    .config = "{\"peft_type\":\"LORA\",\"r\":3,\"lora_alpha\":6}",
    .scale = 2,
    .r = 3,
    .dtype = SL_DT_F16,
    .modules = {{OWN "self_attention.query_key_value", 64, 128},
                {OWN "self_attention.dense", 64, 64},
                {OWN "mlp.dense_h_to_4h", 64, 320}},
};

/* One fused, one in parts. */
static const struct maker_adapter sandwich = {
    .config = "{\"peft_type\":\"LORA\",\"r\":6,\"lora_alpha\":12}",
    .scale = 2,
    .r = 6,
    .dtype = SL_DT_BF16,
    .modules = {{LLAMA "self_attn.k_proj", 64, 64},
                {LLAMA "self_attn.o_proj", 128, 64},
                {LLAMA "mlp.gate_up_proj", 64, 320}},
};

#define GLM "transformer.layers.%u."

static const struct maker_adapter glm = {
    .config = "{\"peft_type\":\"LORA\",\"r\":8,\"lora_alpha\":32}",
    .scale = 4,
    .r = 8,
    .dtype = SL_DT_F32,
    .torch = true,
    .modules = {{GLM "attention.query_key_value", 64, 192},
                {GLM "mlp.dense_h_to_4h", 64, 256},
                {GLM "mlp.dense_4h_to_h", 256, 64}},
};

static const struct test {
    const struct model *model;
    const struct maker_adapter *adapters[3];
    double scales[3]; /* the user's; NAN: not said */
} tests_of_sums[] = {
    {&llama, {&everywhere}, {NAN}},
    {&llama, {&everywhere}, {-0.5}},
    {&llama, {&values_alone}, {1.5}},
    {&llama, {&patterns}, {NAN}},
    {&llama, {&everywhere, &values_alone, &patterns}, {0.25, NAN, -1}},
    {&qwen3, {&qwen}, {NAN}},
    {&chatglm3, {&chatglm}, {NAN}},
    {&glm4, {&sandwich}, {0.5}},
    {&chatglm6b, {&glm}, {0.5}},
};

/* --- logits --------------------------------------------------------------- */

static void write_input(const struct model *m)
{
    static const int32_t ids[] = {7,   45, 101, 33, 260, 12, 88, 191, 5,
                                  270, 66, 143, 9,  231, 17, 52, 29,  111};
    static const int32_t positions[2][12] = {
        {0, 1, 2, 3, 4, 5, 6, 7, 7, 7, 7, 7},
        {0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4},
    };

    if (m->causal)
        write_logits_input(dir, json_pack("{so}", "ids", json_of_ids(ids, 18)));
    else
        write_logits_input(dir, json_pack("{so so s[oo]}", "context",
                                          json_of_ids(ids, 8), "answer",
                                          json_of_ids(ids + 8, 4), "positions",
                                          json_of_ids(positions[0], 12),
                                          json_of_ids(positions[1], 12)));
}

static double apart(const struct test_array *a, const struct test_array *b)
{
    const float *v = a->data, *w = b->data;
    double most = 0;

    assert_int_equal(a->n, b->n);
    for (size_t i = 0; i < a->n; i++)
        most = fmax(most, fabs((double)v[i] - (double)w[i]));
    return most;
}

static double largest(const struct test_array *a)
{
    const float *v = a->data;
    double most = 1;

    for (size_t i = 0; i < a->n; i++)
        most = fmax(most, fabs((double)v[i]));
    return most;
}

static void near(const struct test_array *got, const struct test_array *want,
                 const char *what)
{
    double far = apart(got, want), bound = 1e-4 * largest(want);

    if (far <= bound)
        return;
    print_error("%s: %g away, %g allowed\n", what, far, bound);
    fail();
}

static void same_bits(const struct test_array *a, const struct test_array *b,
                      const char *what)
{
    assert_int_equal(a->n, b->n);
    if (memcmp(a->data, b->data, a->n * sizeof(float)) == 0)
        return;
    print_error("other bits with %s\n", what);
    fail();
}

static void same_in_every_way(const struct test_array *want, const char *flags)
{
    static const char *const ways[] = {
        "--step-by-step",
        "--ram least",
        "--threads 1",
        "--threads 3 --step-by-step --ram least",
    };

    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        struct test_array got;
        char all[4000];

        snprintf(all, sizeof all, "%s %s", flags, ways[i]);
        run_logits(dir, &got, all);
        same_bits(&got, want, ways[i]);
        test_array_fini(&got);
    }
}

static void convert(const char *source, const char *flags)
{
    run_sluice(dir, "convert -q --force %s -o '%s/model.gguf' '%s'", flags, dir,
               source);
}

/* --- cases ---------------------------------------------------------------- */

/* Makes a test's adapters, adds them to w; flags: their options. */
static void make_adapters(char flags[3000], struct maker_model *w,
                          const struct test *t)
{
    char folder[1100];
    size_t n = 0;

    for (size_t i = 0; i < 3 && t->adapters[i] != NULL; i++) {
        bool said = !isnan(t->scales[i]);

        snprintf(folder, sizeof folder, "%s/adapter%zu", dir, i);
        test_remove_tree(folder);
        maker_adapter(folder, t->adapters[i], t->model->n_layers, w,
                      said ? t->scales[i] : 1);
        n += (size_t)snprintf(flags + n, 3000 - n, " --lora '%s", folder);
        n += said ? (size_t)snprintf(flags + n, 3000 - n, ":%g'", t->scales[i])
                  : (size_t)snprintf(flags + n, 3000 - n, "'");
    }
}

/* Makes them and dir/merged. Returns the checkpoint's path, NULL where it is
 * not there. */
static const char *prepare(char source[1024], char flags[3000],
                           const struct test *t)
{
    struct maker_model w;
    char folder[1100];

    if (test_variant(source, t->model->golden) == NULL)
        return NULL;
    maker_model_load(&w, source);
    make_adapters(flags, &w, t);
    snprintf(folder, sizeof folder, "%s/merged", dir);
    maker_model_save(&w, source, folder);
    maker_model_fini(&w);
    return source;
}

static void check_sum(const struct test *t)
{
    struct test_array none, want, got;
    char source[1024], lora[3000], flags[3200], merged[1100];

    if (prepare(source, lora, t) == NULL)
        return;
    write_input(t->model);
    snprintf(merged, sizeof merged, "%s/merged", dir);
    convert(merged, "--quant f32");
    run_logits(dir, &want, "--activations f32");

    snprintf(flags, sizeof flags, "--quant f32 %s", lora);
    convert(source, flags);
    run_logits(dir, &got, "--activations f32");
    near(&got, &want, "merged at conversion");
    test_array_fini(&got);

    convert(source, "--quant f32");
    run_logits(dir, &none, "--activations f32");
    assert_true(apart(&none, &want) > 0.05);
    snprintf(flags, sizeof flags, "--activations f32 %s", lora);
    run_logits(dir, &got, flags);
    near(&got, &want, "added at run time");
    same_in_every_way(&got, flags);
    test_array_fini(&got);
    test_array_fini(&none);
    test_array_fini(&want);
}

static void adapters_give_what_merged_weights_give(void **state)
{
    for (size_t i = 0; i < sizeof tests_of_sums / sizeof *tests_of_sums; i++)
        check_sum(&tests_of_sums[i]);
}

struct filling {
    float *to;
};

static int take_rows(void *opaque, const float *values, size_t n,
                     struct sl_error *err)
{
    struct filling *f = opaque;

    memcpy(f->to, values, n * sizeof *values);
    f->to += n;
    return 0;
}

/* w's matrices become what the model file has made of them. */
static void take_quantised(struct maker_model *w)
{
    struct sl_modelfile mf;
    struct sl_error err;
    char path[1100];

    snprintf(path, sizeof path, "%s/model.gguf", dir);
    assert_ok(sl_modelfile_open(&mf, path, &err), &err);
    for (size_t i = 0; i < mf.n_matrices; i++) {
        const struct sl_model_matrix *m = &mf.matrices[i];
        const struct sl_ckpt_tensor *t =
            sl_ckpt_find(&w->ckpt, 0, m->spec.name);
        struct filling f;

        assert_non_null(t);
        f.to = w->of[t - w->ckpt.shards[0].tensors];
        assert_ok(sl_modelfile_matrix_rows(&mf, m, take_rows, &f, &err), &err);
    }
    sl_modelfile_close(&mf);
}

/* Files stay quantised; what is added is not rounded: the same as weights that
 * were quantised first and merged into then. */
static void quantised_files_take_adapters(void **state)
{
    static const char *const quants[] = {"int8-g32", "int4-g32", "int4", "f16"};
    static const struct test t = {&chatglm6b, {&glm}, {0.5}};
    struct test_array want, got;
    char source[1024], lora[3000], flags[3200], merged[1100];
    struct maker_model w;

    if (test_variant(source, t.model->golden) == NULL)
        return;
    write_input(t.model);
    snprintf(merged, sizeof merged, "%s/merged", dir);
    for (size_t i = 0; i < sizeof quants / sizeof *quants; i++) {
        snprintf(flags, sizeof flags, "--quant %s", quants[i]);
        convert(source, flags);
        maker_model_load(&w, source);
        take_quantised(&w);
        make_adapters(lora, &w, &t);
        maker_model_save(&w, source, merged);
        maker_model_fini(&w);
        /* inputs in INT8 */
        snprintf(flags, sizeof flags, "--kv f32 %s", lora);
        run_logits(dir, &got, flags);
        same_in_every_way(&got, flags);
        test_array_fini(&got);
        snprintf(flags, sizeof flags, "--activations f32 %s", lora);
        run_logits(dir, &got, flags);
        same_in_every_way(&got, flags);
        convert(merged, "--quant f32");
        run_logits(dir, &want, "--activations f32");
        near(&got, &want, quants[i]);
        test_array_fini(&got);
        test_array_fini(&want);
    }
}

/* A GGUF has the rows of q and k in another order than the publisher's
 * checkpoint that the adapter was made for. */
static void adapters_go_with_gguf_files(void **state)
{
    static const struct model model = {"golden/H_family/llama3_rope/hf", 2,
                                       true};
    static const struct maker_adapter narrow = {
        .config = "{\"peft_type\":\"LORA\",\"r\":4,\"lora_alpha\":6}",
        .scale = 6.0 / 4,
        .r = 4,
        .dtype = SL_DT_F32,
        .modules = {{LLAMA "self_attn.q_proj", 64, 128},
                    {LLAMA "self_attn.k_proj", 64, 64},
                    {LLAMA "self_attn.v_proj", 64, 64},
                    {LLAMA "mlp.up_proj", 64, 128}},
    };
    static const struct test t = {&model, {&narrow}, {NAN}};
    struct test_array want, got;
    char source[1024], file[1024], lora[3000], flags[3200];

    if (prepare(source, lora, &t) == NULL ||
        test_variant(file, "golden/H_family/llama3_rope/gguf/"
                           "llama3_rope-F16.gguf") == NULL)
        return;
    write_input(&model);
    snprintf(flags, sizeof flags, "--activations f32 %s", lora);
    convert(source, "--quant f32");
    run_logits(dir, &want, flags);
    convert(file, "");
    run_logits(dir, &got, flags);
    near(&got, &want, "a GGUF file");
    test_array_fini(&got);
    snprintf(flags, sizeof flags, "--quant f32 %s", lora);
    convert(file, flags);
    run_logits(dir, &got, "--activations f32");
    near(&got, &want, "merged into a GGUF file");
    test_array_fini(&got);
    test_array_fini(&want);
}

static void scale_0_is_no_adapter(void **state)
{
    static const struct test t = {&llama, {&everywhere}, {0}};
    struct test_array none, got;
    char source[1024], lora[3000], flags[3200], path[1100];
    uint8_t *a, *b;
    size_t n_a, n_b;

    if (prepare(source, lora, &t) == NULL)
        return;
    write_input(&llama);
    convert(source, "--quant int4-g32");
    snprintf(path, sizeof path, "%s/model.gguf", dir);
    a = test_read_file(path, &n_a);
    run_logits(dir, &none, "");
    run_logits(dir, &got, lora);
    same_bits(&got, &none, "scale 0");
    snprintf(flags, sizeof flags, "--quant int4-g32 %s", lora);
    convert(source, flags);
    b = test_read_file(path, &n_b);
    assert_int_equal(n_a, n_b);
    assert_memory_equal(a, b, n_a);
    free(a);
    free(b);
    test_array_fini(&none);
    test_array_fini(&got);
}

/* FP16 weights stay FP16 with --quant keep. */
static void merged_weights_keep_their_format(void **state)
{
    static const struct test t = {&chatglm6b, {&glm}, {NAN}};
    struct sl_error err;
    char source[1024], lora[3000], flags[3200], path[1100];
    struct sl_modelfile mf;

    if (prepare(source, lora, &t) == NULL)
        return;
    snprintf(flags, sizeof flags, "--quant keep %s", lora);
    convert(source, flags);
    snprintf(path, sizeof path, "%s/model.gguf", dir);
    assert_ok(sl_modelfile_open(&mf, path, &err), &err);
    for (size_t i = 0; i < mf.n_matrices; i++)
        assert_int_equal(mf.matrices[i].geom.fmt, SL_FMT_F16);
    sl_modelfile_close(&mf);
}

/* Logits of one pass, with a prompt cache; how much of it came from there. */
static uint64_t run_cached(float *logits, const char *model, size_t n_lora)
{
    static const int32_t ids[6] = {7, 45, 101, 33, 260, 12};
    static const int32_t positions[6] = {0, 1, 2, 3, 4, 5};
    static const struct sl_workload load = {
        .n_sequences = 1,
        .max_tokens = 20,
        .pass_positions = 8,
        .pass_logits = 1,
    };
    struct sl_lm_item item = {
        .ids = ids, .positions = positions, .n = 6, .n_logits = 1};
    char folder[1100], cache[1100];
    struct sl_runtime_config config = {
        .model = model,
        .ram_bytes = SL_RAM_LEAST,
        .quiet = true,
        .prompt_cache = cache,
        .lora = {{folder, 1}},
        .n_lora = n_lora,
    };
    struct sl_run_stats stats;
    struct sl_runtime *rt;
    struct sl_error err;
    struct sl_lm *lm;

    snprintf(folder, sizeof folder, "%s/adapter0", dir);
    snprintf(cache, sizeof cache, "%s/kept", dir);
    assert_ok(sl_runtime_open(&rt, &config, &err), &err);
    assert_ok(sl_runtime_start(rt, &load, &err), &err);
    lm = sl_runtime_lm(rt);
    assert_ok(lm->ops->seq_create(lm, &item.seq, &err), &err);
    assert_ok(lm->ops->forward(lm, &item, 1, logits, &err), &err);
    sl_runtime_stats(rt, &stats);
    sl_runtime_close(rt);
    return stats.prompt_cache.restored;
}

static void a_kept_prompt_goes_with_its_adapters(void **state)
{
    static const struct test t = {&llama, {&everywhere}, {NAN}};
    static const size_t n_lora[] = {1, 1, 0, 0, 1};
    static const uint64_t restored[] = {0, 6, 0, 6, 0};
    char source[1024], lora[3000], path[1100];
    float logits[5][480];

    if (prepare(source, lora, &t) == NULL)
        return;
    convert(source, "--quant int8-g32");
    snprintf(path, sizeof path, "%s/model.gguf", dir);
    for (size_t i = 0; i < 5; i++) {
        assert_int_equal(run_cached(logits[i], path, n_lora[i]), restored[i]);
        assert_memory_equal(logits[i], logits[n_lora[i] ? 0 : 2],
                            sizeof logits[i]);
    }
    assert_memory_not_equal(logits[0], logits[2], sizeof logits[0]);
}

static void the_plan_counts_adapters(void **state)
{
    static const struct test t = {&llama, {&everywhere}, {NAN}};
    static const struct sl_workload load = {
        .n_sequences = 1,
        .max_tokens = 20,
        .pass_positions = 8,
        .pass_logits = 1,
    };
    struct sl_runtime_config config = {.ram_bytes = SL_RAM_LEAST,
                                       .quiet = true};
    char source[1024], lora[3000], path[1100], folder[1100];
    struct sl_runtime *rt;
    struct sl_error err;
    uint64_t bytes = 0;

    if (prepare(source, lora, &t) == NULL)
        return;
    convert(source, "--quant f32");
    snprintf(path, sizeof path, "%s/model.gguf", dir);
    snprintf(folder, sizeof folder, "%s/adapter0", dir);
    config.model = path;
    config.lora[0] = (struct sl_lora_arg){folder, 1};
    for (config.n_lora = 0; config.n_lora < 2; config.n_lora++) {
        assert_ok(sl_runtime_open(&rt, &config, &err), &err);
        assert_ok(sl_runtime_plan(rt, &load, &err), &err);
        bytes = sl_runtime_memory(rt)->adapters;
        assert_true(config.n_lora > 0 || bytes == 0);
        sl_runtime_close(rt);
    }
    /* all A: 7 modules of 64 or 160 inputs; B of at least as many rows */
    assert_true(bytes > 3 * 4 * (6 * 64 + 160 + 576) * sizeof(float));
}

static int make_dir(void **state)
{
    test_temp_dir(dir);
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
        cmocka_unit_test(adapters_give_what_merged_weights_give),
        cmocka_unit_test(quantised_files_take_adapters),
        cmocka_unit_test(adapters_go_with_gguf_files),
        cmocka_unit_test(scale_0_is_no_adapter),
        cmocka_unit_test(merged_weights_keep_their_format),
        cmocka_unit_test(a_kept_prompt_goes_with_its_adapters),
        cmocka_unit_test(the_plan_counts_adapters),
    };
    char path[1024];

    if (test_shared(path, llama.golden) == NULL)
        test_skip_all("no golden data");
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
