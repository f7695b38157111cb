#include "config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/logits_run.h"
#include "tests/support.h"

/* Logits of every architecture against the reference implementations:
 * golden/H_family (transformers), C_chatglm6b (ChatGLM-6B's own code), D_glm
 * (THUDM/GLM's). Everything goes through the commands. */

static char dir[1024];

/* Ways to run that may not change a bit. */
static const char *const ways[] = {
    "",
    "--step-by-step",
    "--ram least",
    "--threads 1",
    "--threads 3 --step-by-step --ram least",
};

static double largest(const float *v, size_t n)
{
    double most = 0;

    for (size_t i = 0; i < n; i++)
        most = fmax(most, fabs((double)v[i]));
    return most;
}

/* The last rows of want are those of got. Within 1e-4 of the largest logit. */
static void compare(const struct test_array *got, const struct test_array *want,
                    const char *model, const char *which)
{
    const float *w = (const float *)want->data + (want->n - got->n);
    const float *g = got->data;
    double bound = 1e-4 * fmax(1, largest(w, got->n)), most = 0;

    assert_in_range(got->n, 1, want->n);
    for (size_t i = 0; i < got->n; i++)
        most = fmax(most, fabs((double)g[i] - (double)w[i]));
    if (most <= bound)
        return;
    print_error("%s, case %s: %g away, %g allowed\n", model, which, most,
                bound);
    fail();
}

/* What is in dir/input.json, in every way there is: first[] gives the reference
 * logits, the others the same bits. */
static void same_in_every_way(struct test_array *first, const char *model,
                              const char *more)
{
    char flags[1400];

    snprintf(flags, sizeof flags, "--activations f32 %s", more);
    run_logits(dir, first, flags);
    for (size_t i = 1; i < sizeof ways / sizeof *ways; i++) {
        struct test_array again;

        snprintf(flags, sizeof flags, "--activations f32 %s %s", more, ways[i]);
        run_logits(dir, &again, flags);
        assert_int_equal(again.n, first->n);
        if (memcmp(again.data, first->data, first->n * sizeof(float)) != 0) {
            print_error("%s: other bits with %s\n", model, ways[i]);
            fail();
        }
        test_array_fini(&again);
    }
}

static void get(struct test_array *a, const struct test_npz *z,
                const char *name, const char *leaf)
{
    char key[96];

    snprintf(key, sizeof key, "%s.%s", name, leaf);
    test_npz_get(z, key, a);
}

/* --- causal models of Hugging Face --------------------------------------- */

/* Where the continuation's margins are wide, greedy choice must agree. */
static void check_argmax(const struct test_array *got,
                         const struct test_array *want, const char *model)
{
    size_t vocab = want->shape[1];
    const float *g = got->data, *w = want->data;

    for (size_t row = 0; row < want->shape[0]; row++, g += vocab, w += vocab) {
        size_t a = 0, b = 0;

        for (size_t i = 1; i < vocab; i++) {
            a = g[i] > g[a] ? i : a;
            b = w[i] > w[b] ? i : b;
        }
        if (a != b && (double)(w[b] - w[a]) > 1e-3) {
            print_error("%s: row %zu prefers %zu to %zu\n", model, row, a, b);
            fail();
        }
    }
}

static void check_causal(const char *model, const char *quant)
{
    static const char *const cases[] = {"a", "b", "c"};
    char path[1024], name[128];
    struct test_npz *z;

    snprintf(name, sizeof name, "golden/H_family/%s/hf", model);
    if (test_variant(path, name) == NULL)
        return;
    run_sluice(dir, "convert -q --force --quant %s -o '%s/model.gguf' '%s'",
               quant, dir, path);
    snprintf(name, sizeof name, "golden/H_family/%s/cases.npz", model);
    z = test_npz_open(test_shared(path, name));
    for (size_t i = 0; i < 3; i++) {
        struct test_array ids, want, got;

        get(&ids, z, cases[i], "ids");
        get(&want, z, cases[i], "logits");
        write_logits_input(
            dir, json_pack("{so}", "ids", json_of_ids(ids.data, ids.n)));
        same_in_every_way(&got, model, "");
        compare(&got, &want, model, cases[i]);
        check_argmax(&got, &want, model);
        test_array_fini(&ids);
        test_array_fini(&want);
        test_array_fini(&got);
    }
    test_npz_close(z);
}

static void glm45_moe_gives_the_reference_logits(void **state)
{
    check_causal("glm45_moe", "f32");
}

static void mixtures_choose_within_groups_of_experts(void **state)
{
    check_causal("glm45_moe_groups", "f32");
}

static void glm47_flash_gives_the_reference_logits(void **state)
{
    check_causal("glm47_flash", "f32");
}

static void llama_gives_the_reference_logits(void **state)
{
    check_causal("llama", "f32");
    check_causal("llama3_rope", "f32");
}

static void mistral_gives_the_reference_logits(void **state)
{
    check_causal("mistral", "f32");
    check_causal("mistral", "keep");
}

static void qwen_gives_the_reference_logits(void **state)
{
    check_causal("qwen2", "f32");
    check_causal("qwen3", "f32");
}

static void glm4_gives_the_reference_logits(void **state)
{
    check_causal("glm4_9b_hf", "f32");
    check_causal("glm4_0414", "f32");
}

static void chatglm3_gives_the_reference_logits(void **state)
{
    check_causal("chatglm3", "f32");
}

/* The golden weights are exact in FP16 too. */
static void fp16_files_give_the_reference_logits(void **state)
{
    static const char *const models[] = {
        "llama3_rope", "qwen3",     "glm4_9b_hf", "glm4_0414",
        "chatglm3",    "glm45_moe", "glm47_flash"};

    for (size_t i = 0; i < sizeof models / sizeof *models; i++)
        check_causal(models[i], "f16");
}

/* --- models whose context sees all of itself -------------------------------
 */

/* sop: whether the context that is counted ends with it; more: options of every
 * run. */
static void check_prefix_with(const char *folder, const char *variant,
                              const char *flags, const char *more,
                              const char *leaf, size_t sop)
{
    char path[1024], name[160];
    struct test_npz *z;
    json_t *cases, *c;
    size_t i;

    snprintf(name, sizeof name, "%s/%s", folder, variant);
    if (test_variant(path, name) == NULL)
        return;
    run_sluice(dir, "convert -q --force %s -o '%s/model.gguf' '%s'", flags, dir,
               path);
    snprintf(name, sizeof name, "%s/cases.npz", folder);
    z = test_npz_open(test_shared(path, name));
    snprintf(name, sizeof name, "%s/cases.json", folder);
    cases = test_json(test_shared(path, name));
    json_array_foreach(json_object_get(cases, "cases"), i, c)
    {
        const char *which = json_string_value(json_object_get(c, "name"));
        size_t context =
            (size_t)json_integer_value(json_object_get(c, "context_length"));
        struct test_array ids, pos, want, got;
        int32_t *id;

        snprintf(name, sizeof name, "%s.%s", which, leaf);
        if (!test_npz_has(z, name) || strstr(which, "leftpad") != NULL ||
            strstr(which, "oldrelease") != NULL)
            continue;
        get(&ids, z, which, "ids");
        get(&pos, z, which, "pos");
        get(&want, z, which, leaf);
        id = ids.data;
        context -= sop;
        write_logits_input(
            dir, json_pack("{so so s[oo]}", "context", json_of_ids(id, context),
                           "answer", json_of_ids(id + context, ids.n - context),
                           "positions", json_of_ids(pos.data, ids.n),
                           json_of_ids((int32_t *)pos.data + ids.n, ids.n)));
        same_in_every_way(&got, variant, more);
        compare(&got, &want, variant, which);
        test_array_fini(&ids);
        test_array_fini(&pos);
        test_array_fini(&want);
        test_array_fini(&got);
    }
    json_decref(cases);
    test_npz_close(z);
}

static void check_prefix(const char *folder, const char *variant,
                         const char *flags, const char *leaf, size_t sop)
{
    check_prefix_with(folder, variant, flags, "", leaf, sop);
}

#define C6 "golden/C_chatglm6b/c6_a"

static void chatglm_6b_gives_the_reference_logits(void **state)
{
    check_prefix(C6, "hf", "--quant f32", "logits_f32", 1);
    check_prefix(C6, "hf_sharded", "--quant f32", "logits_f32", 1);
}

static void quantised_chatglm_6b_gives_the_reference_logits(void **state)
{
    check_prefix(C6, "hf_int8", "", "logitsB_hf_int8", 1);
    check_prefix(C6, "hf_int4", "", "logitsB_hf_int4", 1);
    check_prefix(C6, "hf_int4_qe", "", "logitsB_hf_int4_qe", 1);
}

/* P-Tuning v2: initial keys and values of every layer. */
static void prefixes_give_the_reference_logits(void **state)
{
    static const char *const variants[] = {"hf_ptuning", "hf_ptuning_proj"};

    for (size_t i = 0; i < sizeof variants / sizeof *variants; i++) {
        char name[96], path[1024], more[1100], leaf[64];

        snprintf(name, sizeof name, "%s/%s", C6, variants[i]);
        snprintf(leaf, sizeof leaf, "logitsB_%s", variants[i]);
        if (test_variant(path, name) == NULL)
            continue;
        snprintf(more, sizeof more, "--prefix '%s'", path);
        check_prefix_with(C6, "hf", "--quant f32", more, leaf, 1);
    }
}

static void glm_gives_the_reference_logits(void **state)
{
    static const char heads[] = "--quant f32 --num-attention-heads 4";

    check_prefix("golden/D_glm/glm_a", "tp1", heads, "logits_f32", 0);
    check_prefix("golden/D_glm/glm_a", "tp2", heads, "logits_f32", 0);
}

#ifdef HAVE_CUDA
/* The GPU rounds inputs of products to FP16, and these models have outlier
 * channels: of the largest logit, as in t_arch_logits. */
#define NEAR 1e-2

static void on_the_gpu(const char *source, const char *flags, const char *quant)
{
    struct test_array cpu, gpu;
    char path[1024], all[300];
    double bound;

    if (test_variant(path, source) == NULL)
        return;
    run_sluice(dir, "convert -q --force %s --quant %s -o '%s/model.gguf' '%s'",
               flags, quant, dir, path);
    run_logits(dir, &cpu, "--activations f32");
    bound = NEAR * largest(cpu.data, cpu.n);
    for (int steps = 0; steps < 2; steps++) {
        double most = 0;

        snprintf(all, sizeof all, "--device cuda --engine gpu --vram 128M %s",
                 steps ? "--step-by-step" : "");
        run_logits(dir, &gpu, all);
        assert_int_equal(gpu.n, cpu.n);
        for (size_t i = 0; i < cpu.n; i++)
            most = fmax(most, fabs((double)((float *)gpu.data)[i] -
                                   (double)((float *)cpu.data)[i]));
        if (most > bound) {
            print_error("%s as %s: the GPU is %g away, %g allowed\n", source,
                        quant, most, bound);
            fail();
        }
        test_array_fini(&gpu);
    }
    test_array_fini(&cpu);
}

static void a_gpu_gives_nearly_the_same_for_causal_models(void **state)
{
    static const char *const models[] = {
        "golden/H_family/llama3_rope/hf", "golden/H_family/qwen2/hf",
        "golden/H_family/qwen3/hf",       "golden/H_family/glm4_9b_hf/hf",
        "golden/H_family/glm4_0414/hf",   "golden/H_family/chatglm3/hf"};
    static const char *const quants[] = {"f16", "bf16", "int8", "int4-g32"};
    int32_t ids[24];

    for (int32_t i = 0; i < 24; i++)
        ids[i] = (i * 89 + 17) % 420;
    write_logits_input(dir, json_pack("{so}", "ids", json_of_ids(ids, 24)));
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        for (size_t q = i % 2; q < sizeof quants / sizeof *quants; q += 2)
            on_the_gpu(models[i], "", quants[q]);
    }
}

/* Positions of two dimensions; sop is the id behind the context. */
static void a_gpu_gives_nearly_the_same_for_prefix_models(void **state)
{
    int32_t ids[20], pos[2][20];

    for (int32_t i = 0; i < 20; i++) {
        ids[i] = (i * 89 + 17) % 280;
        pos[0][i] = i < 12 ? i : 5;
        pos[1][i] = i < 12 ? 0 : i - 11;
    }
    write_logits_input(
        dir, json_pack("{so so s[oo]}", "context", json_of_ids(ids, 12),
                       "answer", json_of_ids(ids + 12, 8), "positions",
                       json_of_ids(pos[0], 20), json_of_ids(pos[1], 20)));
    on_the_gpu(C6 "/hf", "", "f16");
    on_the_gpu(C6 "/hf", "", "int4-g32");
    on_the_gpu("golden/D_glm/glm_a/tp1", "--num-attention-heads 4", "f16");
    on_the_gpu("golden/D_glm/glm_a/tp1", "--num-attention-heads 4", "int8");
}
#endif

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
        cmocka_unit_test(glm45_moe_gives_the_reference_logits),
        cmocka_unit_test(mixtures_choose_within_groups_of_experts),
        cmocka_unit_test(glm47_flash_gives_the_reference_logits),
        cmocka_unit_test(llama_gives_the_reference_logits),
        cmocka_unit_test(mistral_gives_the_reference_logits),
        cmocka_unit_test(qwen_gives_the_reference_logits),
        cmocka_unit_test(glm4_gives_the_reference_logits),
        cmocka_unit_test(chatglm3_gives_the_reference_logits),
        cmocka_unit_test(fp16_files_give_the_reference_logits),
        cmocka_unit_test(chatglm_6b_gives_the_reference_logits),
        cmocka_unit_test(quantised_chatglm_6b_gives_the_reference_logits),
        cmocka_unit_test(prefixes_give_the_reference_logits),
        cmocka_unit_test(glm_gives_the_reference_logits),
#ifdef HAVE_CUDA
        cmocka_unit_test(a_gpu_gives_nearly_the_same_for_causal_models),
        cmocka_unit_test(a_gpu_gives_nearly_the_same_for_prefix_models),
#endif
    };
    size_t n = sizeof tests / sizeof *tests;
    char path[1024];

    if (test_shared(path, "golden/H_family/llama/hf") == NULL)
        test_skip_all("no golden data");
#ifdef HAVE_CUDA
    n -= test_has_gpu() ? 0 : 2;
#endif
    return _cmocka_run_group_tests("tests", tests, n, make_dir, remove_dir);
}
