#include "config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/runtime/runtime.h"
#include "tests/logits_run.h"
#include "tests/lora_maker.h"
#include "tests/support.h"

/* Adapters that are not for this model, or not for sluice. */

#define LLAMA "golden/H_family/llama/hf"

static char dir[1024], model[1100];

static float zeros[64 * 64];

#define T(name_, type_, rows, cols)                                            \
    {                                                                          \
        .name = "base_model.model." name_, .dtype = (type_), .n_dims = 2,      \
        .shape = {(rows), (cols)}, .data = zeros                               \
    }
#define Q  "model.layers.1.self_attn.q_proj."
#define R2 "\"peft_type\":\"LORA\",\"r\":2,\"lora_alpha\":2"
#define GOOD                                                                   \
    {                                                                          \
        T(Q "lora_A.weight", SL_DT_F32, 2, 64),                                \
            T(Q "lora_B.weight", SL_DT_F32, 64, 2)                             \
    }

static const struct bad {
    const char *want, *config;
    struct maker_tensor t[3];
} bads[] = {
    {"has no adapter_config.json", NULL, GOOD},
    {"peft_type is \"IA3\"", "{\"peft_type\":\"IA3\"}", GOOD},
    {"use_dora is true: sluice adds", "{" R2 ",\"use_dora\":true}", GOOD},
    {"bias is \"all\"", "{" R2 ",\"bias\":\"all\"}", GOOD},
    {"modules_to_save is [\"lm_head\"]",
     "{" R2 ",\"modules_to_save\":[\"lm_head\"]}", GOOD},
    {"init_lora_weights is \"pissa_niter_4\"",
     "{" R2 ",\"init_lora_weights\":\"pissa_niter_4\"}", GOOD},
    {"no regular expressions",
     "{" R2 ",\"rank_pattern\":{\"layers.(0|1).*\":4}}", GOOD},
    {"a rank from 1", "{\"peft_type\":\"LORA\",\"r\":0,\"lora_alpha\":1}",
     GOOD},
    {"lora_alpha is", "{\"peft_type\":\"LORA\",\"r\":2}", GOOD},
    {"q_proj.lora_A.weight is 2 x 64, but ",
     "{\"peft_type\":\"LORA\",\"r\":4,\"lora_alpha\":1}", GOOD},
    {"take 2 x 64: is it of another model?",
     "{" R2 "}",
     {T(Q "lora_A.weight", SL_DT_F32, 2, 32),
      T(Q "lora_B.weight", SL_DT_F32, 64, 2)}},
    {"has no lora_B.weight",
     "{" R2 "}",
     {T(Q "lora_A.weight", SL_DT_F32, 2, 64)}},
    {"is int8; an adapter is of floats",
     "{" R2 "}",
     {T(Q "lora_A.weight", SL_DT_I8, 2, 64),
      T(Q "lora_B.weight", SL_DT_F32, 64, 2)}},
    {"belongs to no matrix of a layer of",
     "{" R2 "}",
     {T("model.layers.3.self_attn.q_proj.lora_A.weight", SL_DT_F32, 2, 64)}},
    {"adapts an embedding or the output head",
     "{" R2 "}",
     {T("lm_head.lora_A.weight", SL_DT_F32, 2, 64)}},
    {"adapts an embedding or the output head",
     "{" R2 "}",
     {T("model.embed_tokens.lora_embedding_A", SL_DT_F32, 2, 64)}},
};

static void what_does_not_fit_is_named(void **state)
{
    struct sl_runtime_config config = {.model = model, .quiet = true};
    char folder[1100];

    config.n_lora = 1;
    config.lora[0] = (struct sl_lora_arg){folder, 1};
    for (size_t i = 0; i < sizeof bads / sizeof *bads; i++) {
        struct sl_runtime *rt;
        struct sl_error err;
        size_t n = 0;

        snprintf(folder, sizeof folder, "%s/bad%zu", dir, i);
        while (n < 3 && bads[i].t[n].name != NULL)
            n++;
        maker_adapter_files(folder, bads[i].config, bads[i].t, n, i % 2);
        if (sl_runtime_open(&rt, &config, &err) != -1 ||
            strstr(err.msg, bads[i].want) == NULL) {
            print_error("%s: not in: %s\n", bads[i].want, err.msg);
            fail();
        }
    }
}

/* Runs a command that must fail, with this in its one line. */
static void fails(const char *want, const char *args)
{
    const char *sluice = getenv("SLUICE");
    char command[9000], log[1100];
    char *text;
    size_t n;

    snprintf(log, sizeof log, "%s/log", dir);
    snprintf(command, sizeof command,
             "sluice=$(realpath '%s') && cd '%s' && $sluice %s >log 2>&1",
             sluice ? sluice : "./sluice", dir, args);
    assert_true(system(command) != 0);
    text = (char *)test_read_file(log, &n);
    if (strstr(text, want) == NULL || strchr(text, '\n') != text + n - 1) {
        print_error("%s: not in: %s\n", want, text);
        fail();
    }
    free(text);
}

static void what_cannot_be_done_is_said_in_one_line(void **state)
{
    static const struct maker_tensor good[] = GOOD;
    static const struct {
        const char *want, *more;
    } cases[] = {
        {"adapters are applied by the CPU alone", "--device cuda --lora A"},
        {"--lora takes DIR[:SCALE]", "--lora A:much"},
        {"--lora takes DIR[:SCALE]", "--lora A:inf"},
        {"not an adapter: there is no adapter_model.safetensors", "--lora ."},
        {"no more than 16", "--lora A --lora A --lora A --lora A --lora A "
                            "--lora A --lora A --lora A --lora A --lora A "
                            "--lora A --lora A --lora A --lora A --lora A "
                            "--lora A --lora A"},
    };
    char folder[1100], args[2000];

    snprintf(folder, sizeof folder, "%s/A", dir);
    maker_adapter_files(folder, "{" R2 "}", good, 2, false);
    write_logits_input(dir, json_pack("{s[ii]}", "ids", 1, 2));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(args, sizeof args,
                 "logits -q -m model.gguf -i input.json -o o.npy %s",
                 cases[i].more);
        fails(cases[i].want, args);
    }
}

static void quantised_checkpoints_are_not_merged_into(void **state)
{
    static const struct maker_tensor t[] = {
        T("transformer.layers.2.attention.dense.lora_A.weight", SL_DT_F32, 2,
          64),
        T("transformer.layers.2.attention.dense.lora_B.weight", SL_DT_F32, 64,
          2),
    };
    char source[1024], folder[1100], args[3000], *whole;

    if (test_variant(source, "golden/C_chatglm6b/c6_a/hf_int8") == NULL)
        return;
    snprintf(folder, sizeof folder, "%s/B", dir);
    maker_adapter_files(folder, "{" R2 "}", t, 2, false);
    whole = realpath(source, NULL);
    assert_non_null(whole);
    snprintf(args, sizeof args, "convert -q -o x.gguf '%s' --lora B", whole);
    free(whole);
    fails("is quantised already (int8), and cannot be changed", args);
}

static void numbers_that_are_none_are_found(void **state)
{
    const struct maker_tensor good[] = GOOD;
    static const struct sl_workload load = {
        .n_sequences = 1,
        .max_tokens = 20,
        .pass_positions = 8,
        .pass_logits = 1,
    };
    struct sl_runtime_config config = {.model = model, .quiet = true};
    struct sl_runtime *rt;
    struct sl_error err;
    char folder[1100];

    snprintf(folder, sizeof folder, "%s/nan", dir);
    zeros[3] = NAN;
    maker_adapter_files(folder, "{" R2 "}", good, 2, false);
    zeros[3] = 0;
    config.n_lora = 1;
    config.lora[0] = (struct sl_lora_arg){folder, 1};
    assert_ok(sl_runtime_open(&rt, &config, &err), &err);
    assert_int_equal(sl_runtime_start(rt, &load, &err), -1);
    assert_int_equal(err.code, SL_ERR_CORRUPT);
    assert_non_null(strstr(err.msg, "not finite at row 0, column 3"));
    sl_runtime_close(rt);
}

static int make_dir(void **state)
{
    char source[1024];

    test_temp_dir(dir);
    snprintf(model, sizeof model, "%s/model.gguf", dir);
    run_sluice(dir, "convert -q --quant f32 -o '%s' '%s'", model,
               test_shared(source, LLAMA));
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
        cmocka_unit_test(what_does_not_fit_is_named),
        cmocka_unit_test(what_cannot_be_done_is_said_in_one_line),
        cmocka_unit_test(quantised_checkpoints_are_not_merged_into),
        cmocka_unit_test(numbers_that_are_none_are_found),
    };
    char path[1024];

    if (test_shared(path, LLAMA) == NULL)
        test_skip_all("no golden data");
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
