#include "config.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/convert/convert.h"
#include "src/model/modelfile.h"
#include "src/text/chat.h"
#include "src/text/pretok.h"
#include "src/text/tokenizer.h"
#include "src/text/vocab_build.h"
#include "src/text/vocab_gguf.h"
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
        {"glm4_0414_k256", {"ZOO", "Q2_K", "Q4_K_M", "Q5_K_M", "Q6_K", NULL}},
    };
    unsigned n = 0;

    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        for (size_t k = 0; files[i].types[k] != NULL; k++)
            n += check_file(files[i].model, files[i].types[k]);
    assert_true(n >= 2); /* the repository has as many */
}

/* --- texts ---------------------------------------------------------------- */

static void open_vocab(struct sl_tokenizer **t, const uint8_t *data, size_t n)
{
    struct sl_vocab_made made;
    struct sl_error err;
    struct sl_gguf *g;
    size_t need;

    assert_ok(sl_gguf_parse(&g, data, n, n, &need, &err), &err);
    assert_ok(sl_vocab_compile_gguf(&made, g, 0, &err), &err);
    assert_ok(sl_tokenizer_create(t, made.blob, made.n, &made.text,
                                  made.text.n_tokens, &err),
              &err);
    sl_vocab_made_fini(&made);
    sl_gguf_destroy(g);
}

static void check_ids(struct sl_tokenizer *t, const char *text, size_t n,
                      const json_t *want)
{
    struct sl_ids ids = {0};
    struct sl_error err;

    assert_ok(sl_tokenizer_encode_special(t, &ids, text, n, &err), &err);
    assert_int_equal(ids.n, json_array_size(want));
    for (size_t i = 0; i < ids.n; i++)
        assert_int_equal(ids.v[i], json_integer_value(json_array_get(want, i)));
    sl_ids_fini(&ids);
}

/* The small models carry the tokenizer whose ids are in tokenizer/cases.json,
 * as tokenizers gives them. */
static void metadata_gives_the_ids_of_tokenizers(void **state)
{
    char path[1024];
    json_t *root, *cases, *c;
    struct sl_tokenizer *t;
    uint8_t *data;
    size_t i, n;

    test_shared(path, "golden/H_family/glm4_0414/gguf/glm4_0414-Q4_0.gguf");
    data = test_read_file(path, &n);
    open_vocab(&t, data, n);
    free(data);
    root = test_json(test_shared(path, "golden/H_family/tokenizer/cases.json"));
    cases = json_object_get(
        json_object_get(json_object_get(root, "byte_level_bpe"), "glm4"),
        "cases");
    assert_true(json_array_size(cases) > 5);
    json_array_foreach(cases, i, c)
    {
        const json_t *text = json_object_get(c, "text");

        check_ids(t, json_string_value(text), json_string_length(text),
                  json_object_get(c, "ids"));
    }
    /* eos, eot and eom, or the names that a GLM has. */
    assert_int_equal(sl_tokenizer_stops(t)->n, 3);
    assert_int_equal(sl_tokenizer_prefix(t)->n, 2);
    sl_tokenizer_destroy(t);
    json_decref(root);
}

/* Pieces with scores, merged by score, and all bytes: 8 + byte. */
static void put_pieces(struct gguf_maker *m, bool blank_first)
{
    enum { OWN = 8, N = OWN + 256 };
    static const char *const own[OWN] = {"<unk>",
                                         "<s>",
                                         "</s>",
                                         "\xe2\x96\x81",
                                         "a",
                                         "b",
                                         "ab",
                                         "\xe2\x96\x81"
                                         "ab"};
    static const float own_scores[OWN] = {0, 0, 0, -9, -8, -7, -2, -1};
    static const int32_t own_types[OWN] = {2, 3, 3, 1, 1, 1, 1, 1};
    const char *tokens[N];
    float scores[N] = {0};
    int32_t types[N];
    char text[N][8];

    for (int i = 0; i < N; i++) {
        snprintf(text[i], sizeof *text, "<0x%02X>", (unsigned)(i - OWN) & 255);
        tokens[i] = i < OWN ? own[i] : text[i];
        scores[i] = i < OWN ? own_scores[i] : 0;
        types[i] = i < OWN ? own_types[i] : 6;
    }
    gguf_string(m, "tokenizer.ggml.model", "llama");
    gguf_strings(m, "tokenizer.ggml.tokens", tokens, N);
    gguf_f32s(m, "tokenizer.ggml.scores", scores, N);
    gguf_i32s(m, "tokenizer.ggml.token_type", types, N);
    gguf_u32(m, "tokenizer.ggml.bos_token_id", 1);
    gguf_u32(m, "tokenizer.ggml.eos_token_id", 2);
    gguf_bool(m, "tokenizer.ggml.add_space_prefix", blank_first);
}

static void pieces_with_scores_are_a_sentencepiece_model(void **state)
{
    for (int blank = 0; blank < 2; blank++) {
        struct gguf_maker m = {0};
        struct sl_tokenizer *t;
        json_t *want = blank ? json_pack("[i, i, i]", 7, 8 + 0xc3, 8 + 0xa9)
                             : json_pack("[i, i, i]", 6, 8 + 0xc3, 8 + 0xa9);
        uint8_t *data;
        size_t n;

        put_pieces(&m, blank);
        data = gguf_finish(&m, &n);
        open_vocab(&t, data, n);
        check_ids(t, "ab\xc3\xa9", 4, want);
        assert_int_equal(sl_tokenizer_prefix(t)->n, 1); /* <s>, by default */
        assert_int_equal(sl_tokenizer_stops(t)->n, 1);
        sl_tokenizer_destroy(t);
        json_decref(want);
        free(data);
    }
}

/* Words of "1234 x!!y". */
static size_t count_words(const char *pre)
{
    static const char text[] = "1234 x!!y";
    struct sl_vocab_builder *b;
    struct sl_pretok_words words;
    struct sl_pretok *p;
    struct sl_vocab v;
    struct sl_error err;
    uint8_t *blob;
    size_t n;

    assert_ok(sl_vocab_builder_create(&b, "byte-bpe", &err), &err);
    assert_ok(sl_vocab_add_piece(b, 0, "a", 1, SL_PIECE_NORMAL, &err), &err);
    assert_ok(sl_vocab_set_pre(b, pre, &err), &err);
    assert_ok(sl_vocab_builder_finish(b, &blob, &n, &err), &err);
    assert_ok(sl_vocab_parse(&v, blob, n, &err), &err);
    assert_ok(sl_pretok_create(&p, &v.part[SL_VOCAB_SPLITS], &err), &err);
    assert_ok(sl_pretok_run(p, &words, text, strlen(text), true, &err), &err);
    n = words.n;
    sl_pretok_destroy(p);
    sl_vocab_builder_destroy(b);
    free(blob);
    return n;
}

/* Digits one by one, in threes or all together. */
static void pre_tokenizers_go_by_their_names(void **state)
{
    static const struct {
        const char *pre;
        size_t n_words;
    } names[] = {
        {"default", 5},   {"gpt-2", 4}, {"smollm", 7},      {"qwen2", 7},
        {"llama-bpe", 5}, {"glm4", 5},  {"chatglm-bpe", 5},
    };

    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        assert_int_equal(count_words(names[i].pre), names[i].n_words);
    assert_null(sl_pretok_named("superbpe"));
}

static void templates_are_told_by_their_text(void **state)
{
    static const struct {
        const char *arch, *text, *name; /* NULL: none of ours */
    } texts[] = {
        {"llama",
         "'<|im_start|>system\nYou are a helpful AI assistant named SmolLM",
         "smollm2"},
        {"qwen2", "<|im_start|> You are Qwen, created by Alibaba <tools>",
         "qwen2.5"},
        {"qwen3", "<|im_start|> ... </think> <tools>", "qwen3"},
        {"llama", "<|im_start|> <|im_end|>", "chatml"},
        {"llama", "<|start_header_id|> <|eot_id|> Cutting Knowledge Date",
         "llama-3.1"},
        {"llama", "<|start_header_id|> <|eot_id|>", "llama-3"},
        {"glm4", "[gMASK]<sop><|user|><|assistant|>", "glm-4-0414"},
        {"chatglm", "[gMASK]<sop><|user|><|assistant|>", "glm-4"},
        {"llama", "### Instruction:", NULL},
    };

    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        const struct sl_chat_template *t =
            sl_chat_recognise(texts[i].text, texts[i].arch);

        if (texts[i].name == NULL)
            assert_null(t);
        else
            assert_string_equal(t->name, texts[i].name);
    }
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
    size_t n, header;
    uint8_t *data = tiny_llama_file(&tiny, &n);
    struct sl_error err;
    struct sl_gguf *g;

    assert_ok(sl_gguf_parse(&g, data, n, n, &header, &err), &err);
    header = (size_t)sl_gguf_data_off(g);
    sl_gguf_destroy(g);
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
        cmocka_unit_test(metadata_gives_the_ids_of_tokenizers),
        cmocka_unit_test(pieces_with_scores_are_a_sentencepiece_model),
        cmocka_unit_test(pre_tokenizers_go_by_their_names),
        cmocka_unit_test(templates_are_told_by_their_text),
        cmocka_unit_test(a_split_file_is_found_by_any_of_its_parts),
        cmocka_unit_test(another_quantisation_decodes_first),
        cmocka_unit_test(what_cannot_be_run_is_refused_by_name),
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
