#include "config.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/convert/convert.h"
#include "src/model/modelfile.h"
#include "tests/gguf_maker.h"
#include "tests/logits_run.h"
#include "tests/support.h"

/* Published GGUF files: logits of llama.cpp's own files by exact arithmetic
 * (golden/H_family), files made here for what goes otherwise. */

static char dir[1024];

/* --- logits --------------------------------------------------------------- */

/* Ways to run that may not change a bit. */
static const char *const ways[] = {
    "",
    "--step-by-step",
    "--ram least",
    "--threads 1",
    "--threads 3 --step-by-step --ram least",
};

static void compare(const struct test_array *got, const struct test_array *want,
                    const char *file)
{
    const float *g = got->data, *w = want->data;
    double most = 0;

    assert_int_equal(got->n, want->n);
    for (size_t i = 0; i < got->n; i++)
        most = fmax(most, fabs((double)g[i] - (double)w[i]));
    if (most <= 1e-3)
        return;
    print_error("%s: %g away, 0.001 allowed\n", file, most);
    fail();
}

/* Whether the file is there. */
static bool check_file(const char *model, const char *type)
{
    struct test_array ids, want, got, again;
    char path[1024], name[160];
    struct test_npz *z;

    snprintf(name, sizeof name, "golden/H_family/%s/gguf/%s-%s.gguf", model,
             model, type);
    if (test_variant(path, name) == NULL)
        return false;
    run_sluice(dir, "convert -q --force -o '%s/model.gguf' '%s'", dir, path);
    snprintf(name, sizeof name, "golden/H_family/%s/cases.npz", model);
    z = test_npz_open(test_shared(path, name));
    test_npz_get(z, "b.ids", &ids);
    test_npz_close(z);
    snprintf(name, sizeof name, "golden/H_family/%s/gguf_cases.npz", model);
    z = test_npz_open(test_shared(path, name));
    snprintf(name, sizeof name, "%s.exact", type);
    test_npz_get(z, name, &want);
    test_npz_close(z);
    write_logits_input(dir,
                       json_pack("{so}", "ids", json_of_ids(ids.data, ids.n)));
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        char flags[200];

        snprintf(flags, sizeof flags, "--activations f32 %s", ways[i]);
        run_logits(dir, i == 0 ? &got : &again, flags);
        if (i == 0)
            continue;
        assert_int_equal(again.n, got.n);
        if (memcmp(again.data, got.data, got.n * sizeof(float)) != 0)
            fail_msg("%s-%s: other bits with %s", model, type, ways[i]);
        test_array_fini(&again);
    }
    compare(&got, &want, name);
    test_array_fini(&ids);
    test_array_fini(&want);
    test_array_fini(&got);
    return true;
}

static void every_type_gives_the_exact_logits(void **state)
{
    static const struct {
        const char *model;
        const char *types[6];
    } files[] = {
        {"glm4_0414", {"Q4_0", "Q8_0", "F16", NULL}},
        {"llama3_rope", {"F16", NULL}},
        {"llama", {"F16", NULL}},
        {"qwen2", {"F16", NULL}},
        {"qwen3", {"F16", NULL}},
        {"chatglm3", {"F16", "Q8_0", NULL}},
        {"glm4_9b_hf", {"F16", "Q4_0", NULL}},
        {"glm45_moe", {"F16", "Q4_0", NULL}},
        {"glm45_moe_groups", {"F16", "Q8_0", NULL}},
        {"glm45_moe_k256", {"Q4_K_M", "Q2_K", NULL}},
        {"glm47_flash", {"F16", NULL}},
        {"glm4_0414_k256", {"ZOO", "Q2_K", "Q4_K_M", "Q5_K_M", "Q6_K", NULL}},
    };
    unsigned n = 0;

    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        for (size_t k = 0; files[i].types[k] != NULL; k++)
            n += check_file(files[i].model, files[i].types[k]);
    assert_true(n >= 2); /* the repository has as many */
}

/* --- files ---------------------------------------------------------------- */

static void write_tiny(char path[1200], const char *name,
                       const struct tiny_llama *t)
{
    size_t n;
    uint8_t *data = tiny_llama_file(t, &n);

    snprintf(path, 1200, "%s/%s", dir, name);
    maker_file(path, data, n);
    free(data);
}

/* Converts by the library; *said ends with what was wrong. */
static int convert(const char *source, const char *quant, struct sl_error *err)
{
    struct sl_convert_result r;
    struct sl_convert_options o;
    char out[1200];
    int rc;

    snprintf(out, sizeof out, "%s/out.gguf", dir);
    sl_convert_options_init(&o);
    o.source = source;
    o.output = out;
    o.name = "tiny";
    o.quant = quant;
    o.threads = 2;
    o.force = true;
    o.quiet = true;
    rc = sl_convert(&r, &o, err);
    if (rc == 0)
        sl_convert_result_fini(&r);
    return rc;
}

static uint8_t *converted(size_t *n)
{
    char out[1200];

    snprintf(out, sizeof out, "%s/out.gguf", dir);
    return test_read_file(out, n);
}

static void refuse(const char *source, enum sl_code code, const char *says,
                   const char *also)
{
    struct sl_error err;
    char out[1200];

    snprintf(out, sizeof out, "%s/out.gguf", dir);
    unlink(out);
    assert_int_equal(convert(source, NULL, &err), -1);
    if (strstr(err.msg, says) == NULL || strstr(err.msg, also) == NULL)
        fail_msg("'%s' and '%s' are not in: %s", says, also, err.msg);
    assert_int_equal(err.code, code);
    assert_null(strchr(err.msg, '\n'));
    assert_int_not_equal(access(out, F_OK), 0);
}

static void a_split_file_is_found_by_any_of_its_parts(void **state)
{
    char path[1200], name[64];
    struct sl_error err;
    uint8_t *whole;
    size_t n, n_whole;

    write_tiny(path, "whole.gguf", &(struct tiny_llama){.type = 8});
    assert_ok(convert(path, NULL, &err), &err);
    whole = converted(&n_whole);
    for (unsigned i = 0; i < 3; i++) {
        snprintf(name, sizeof name, "cut-%05u-of-00003.gguf", i + 1);
        write_tiny(path, name,
                   &(struct tiny_llama){.type = 8, .part = i, .n_parts = 3});
    }
    for (unsigned i = 0; i < 3; i++) {
        uint8_t *data;

        snprintf(path, sizeof path, "%s/cut-%05u-of-00003.gguf", dir, i + 1);
        assert_ok(convert(path, NULL, &err), &err);
        data = converted(&n);
        assert_int_equal(n, n_whole);
        assert_memory_equal(data, whole, n);
        free(data);
    }
    free(whole);
    /* One that is not there; one of another model. */
    snprintf(path, sizeof path, "%s/cut-00002-of-00003.gguf", dir);
    unlink(path);
    snprintf(path, sizeof path, "%s/cut-00003-of-00003.gguf", dir);
    refuse(path, SL_ERR_CORRUPT, "cut-00002-of-00003.gguf is missing",
           "1 of the model's 3 parts is not there");
    write_tiny(
        path, "cut-00002-of-00003.gguf",
        &(struct tiny_llama){.type = 8, .part = 1, .n_parts = 3, .total = 99});
    refuse(path, SL_ERR_CORRUPT, "cut-00002-of-00003.gguf",
           "parts are of different models");
    write_tiny(path, "cut-00002-of-00003.gguf",
               &(struct tiny_llama){.type = 8, .part = 2, .n_parts = 3});
    refuse(path, SL_ERR_CORRUPT, "split.no", "different models");
}

static void another_quantisation_decodes_first(void **state)
{
    char path[1200];
    struct sl_error err;
    uint8_t *a, *b;
    size_t n_a, n_b;

    /* Values that Q8_0 holds exactly: FP32 of either is the same. */
    write_tiny(path, "q8.gguf", &(struct tiny_llama){.type = 8});
    assert_ok(convert(path, "f32", &err), &err);
    a = converted(&n_a);
    write_tiny(path, "f16.gguf", &(struct tiny_llama){.type = 1});
    assert_ok(convert(path, "f32", &err), &err);
    b = converted(&n_b);
    assert_int_equal(n_a, n_b);
    assert_memory_equal(a, b, n_a);
    free(b);
    /* A matrix of parts in different formats: FP32 holds all. */
    write_tiny(path, "mixed.gguf",
               &(struct tiny_llama){.type = 8, .up_type = 1});
    assert_ok(convert(path, NULL, &err), &err);
    assert_ok(convert(path, "f32", &err), &err);
    b = converted(&n_b);
    assert_int_equal(n_a, n_b);
    assert_memory_equal(a, b, n_a);
    free(a);
    free(b);
}

static void what_cannot_be_run_is_refused_by_name(void **state)
{
    static const struct {
        struct tiny_llama t;
        enum sl_code code;
        const char *says, *also;
    } bad[] = {
        {{.type = 0, .arch = "gpt-oss"},
         SL_ERR_UNSUPPORTED,
         "architecture 'gpt-oss'",
         "llama"},
        {{.type = 0, .other_type = 18},
         SL_ERR_CORRUPT,
         "blk.1.ffn_down.weight",
         "IQ3_XXS"},
        {{.type = 0, .other_type = 9},
         SL_ERR_UNSUPPORTED,
         "blk.1.ffn_down.weight is of type Q8_1",
         "F32, F16, BF16, Q4_0"},
        {{.type = 0, .n_tokens = 64}, SL_ERR_CORRUPT, "64 ids", "48 rows"},
        {{.type = 8, .nan_scale = true},
         SL_ERR_CORRUPT,
         "blk.1.ffn_down.weight",
         "row 1"},
    };

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char path[1200];

        write_tiny(path, "bad.gguf", &bad[i].t);
        refuse(path, bad[i].code, bad[i].says, bad[i].also);
    }
}

/* What goes by deepseek2's name is not all GLM-4.7-Flash. */
static void another_deepseek_is_refused(void **state)
{
    static const struct {
        const char *key; /* whose u32 becomes value; or which becomes rename */
        uint32_t value;
        const char *rename, *says;
        enum sl_code code;
    } changes[] = {
        {"expert_gating_func", 1, NULL, "expert_gating_func is 1",
         SL_ERR_UNSUPPORTED},
        {"expert_gating_func", 0, "expert_gating_fumm",
         "expert_gating_func is 1", SL_ERR_UNSUPPORTED},
        {"attention.key_length_mla", 0, "attention.key_length_mma",
         "deepseek2.attention.key_length_mla", SL_ERR_CORRUPT},
        {"attention.key_length_mla", 8, NULL, "8 values", SL_ERR_CORRUPT},
        {"attention.q_lora_rank", 0, "attention.q_lora_runk", "q_lora_rank",
         SL_ERR_CORRUPT},
    };
    char path[1200];

    if (test_variant(path, "golden/H_family/glm47_flash/gguf/"
                           "glm47_flash-F16.gguf") == NULL)
        return;
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        size_t n, n_key = strlen(changes[i].key);
        uint8_t *data = test_read_file(path, &n);
        uint8_t *at = memmem(data, n, changes[i].key, n_key);
        char changed[1200];

        assert_non_null(at);
        if (changes[i].rename != NULL)
            memcpy(at, changes[i].rename, n_key);
        else
            memcpy(at + n_key + 4, &changes[i].value, 4);
        snprintf(changed, sizeof changed, "%s/changed.gguf", dir);
        maker_file(changed, data, n);
        refuse(changed, changes[i].code, changes[i].says, "");
        free(data);
    }
}

static void an_unknown_pre_tokenizer_leaves_logits(void **state)
{
    struct sl_modelfile mf;
    struct sl_error err;
    char path[1200];

    write_tiny(path, "pre.gguf",
               &(struct tiny_llama){.type = 1, .pre = "superbpe"});
    assert_ok(convert(path, NULL, &err), &err);
    snprintf(path, sizeof path, "%s/out.gguf", dir);
    assert_ok(sl_modelfile_open(&mf, path, &err), &err);
    assert_int_equal(mf.tokenizer_bytes, 0);
    assert_non_null(mf.no_text);
    assert_non_null(strstr(mf.no_text, "superbpe"));
    sl_modelfile_close(&mf);
}

static void a_published_file_as_a_model_says_what_to_do(void **state)
{
    struct sl_modelfile mf;
    struct sl_error err;
    char path[1200];

    write_tiny(path, "published.gguf", &(struct tiny_llama){.type = 1});
    assert_int_equal(sl_modelfile_open(&mf, path, &err), -1);
    assert_non_null(strstr(err.msg, "sluice convert "));
    assert_non_null(strstr(err.msg, "more on the disk"));
}

/* A tensor under its own name, decoded; one of the model's, put together. */
static void inspect_shows_what_is_in_it(void **state)
{
    char path[1200], out[1200];
    struct test_array blocks, numbers;
    static const char *const names[] = {
        "blk.1.ffn_down.weight", "model.layers.0.self_attn.qkv_proj.weight"};

    for (size_t i = 0; i < 2; i++) {
        uint8_t *data;
        size_t n;

        for (uint32_t type = 0; type <= 8; type += 8) {
            write_tiny(path, "look.gguf", &(struct tiny_llama){.type = type});
            snprintf(out, sizeof out, "%s/look.npy", dir);
            unlink(out);
            run_sluice(dir, "inspect '%s' --tensor %s --output '%s'", path,
                       names[i], out);
            data = test_read_file(out, &n);
            test_npy_parse(data, n, type == 0 ? &numbers : &blocks);
            free(data);
        }
        assert_int_equal(blocks.n, numbers.n);
        assert_int_equal(blocks.shape[0], i == 0 ? 32 : 64);
        assert_memory_equal(blocks.data, numbers.data,
                            blocks.n * sizeof(float));
        test_array_fini(&blocks);
        test_array_fini(&numbers);
    }
    run_sluice(dir, "inspect --tensors '%s'", path);
}

/* Cut off at any byte of the header, and here and there behind it; and with
 * any one byte of the header changed. */
static void damaged_files_are_refused_or_work(void **state)
{
    static const struct tiny_llama tiny = {.type = 8};
    char path[1200];
    size_t n;
    uint8_t *data = tiny_llama_file(&tiny, &n);
    size_t header = gguf_header_bytes(data, n);
    struct sl_error err;

    snprintf(path, sizeof path, "%s/cut.gguf", dir);
    for (size_t at = 4; at < n; at += at < header ? 17 : 997) {
        maker_file(path, data, at);
        err.msg[0] = '\0';
        assert_int_equal(convert(path, NULL, &err), -1);
        assert_null(strchr(err.msg, '\n'));
        assert_true(err.msg[0] != '\0');
    }
    for (size_t at = 4; at < header; at += 13) {
        data[at] ^= 0x81;
        maker_file(path, data, n);
        if (convert(path, NULL, &err) != 0)
            assert_null(strchr(err.msg, '\n'));
        data[at] ^= 0x81;
    }
    free(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_gives_the_exact_logits),
        cmocka_unit_test(a_split_file_is_found_by_any_of_its_parts),
        cmocka_unit_test(another_quantisation_decodes_first),
        cmocka_unit_test(what_cannot_be_run_is_refused_by_name),
        cmocka_unit_test(another_deepseek_is_refused),
        cmocka_unit_test(an_unknown_pre_tokenizer_leaves_logits),
        cmocka_unit_test(a_published_file_as_a_model_says_what_to_do),
        cmocka_unit_test(inspect_shows_what_is_in_it),
        cmocka_unit_test(damaged_files_are_refused_or_work),
    };
    int rc;

    test_temp_dir(dir);
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    test_remove_tree(dir);
    return rc;
}
