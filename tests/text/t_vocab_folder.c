#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "tests/vocabs.h"

/* Folders of publishers: what is in them, what they say, and what is wrong with
 * them. */

static bool has_id(const struct sl_ids *ids, int32_t id)
{
    for (size_t i = 0; i < ids->n; i++) {
        if (ids->v[i] == id)
            return true;
    }
    return false;
}

static int try_files(const struct test_file *files,
                     const struct sl_vocab_options *o, struct sl_error *err)
{
    struct sl_vocab_source source = {test_files_read, (void *)files};
    struct sl_vocab_made made;
    int rc = sl_vocab_compile(&made, &source, o, err);

    if (rc == 0)
        sl_vocab_made_fini(&made);
    return rc;
}

static void all_that_is_not_supported_is_named_at_once(void **state)
{
    static const char text[] =
        "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": "
        "[], \"end_of_word_suffix\": \"</w>\"}, \"normalizer\": {\"type\": "
        "\"Sequence\", \"normalizers\": [{\"type\": \"NFC\"}, {\"type\": "
        "\"Precompiled\"}]}, \"pre_tokenizer\": {\"type\": \"UnicodeScripts\"},"
        " \"decoder\": {\"type\": \"CTC\"}, \"post_processor\": {\"type\": "
        "\"Nonsense\"}}";
    struct sl_vocab_options o = {.rows = 0};
    struct sl_error err;

    assert_int_equal(
        try_files((struct test_file[]){{"tokenizer.json", NULL, text}, {NULL}},
                  &o, &err),
        -1);
    assert_int_equal(err.code, SL_ERR_UNSUPPORTED);
    for (size_t i = 0; i < 6; i++) {
        static const char *const names[] = {"tokenizer.json",   "Precompiled",
                                            "UnicodeScripts",   "CTC",
                                            "end_of_word_suff", "Nonsense"};

        assert_non_null(strstr(err.msg, names[i]));
    }
}

static void bad_files_are_named(void **state)
{
#define MODEL(rest)                                                            \
    "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 1, "         \
    "\"ab\": 2}, \"merges\": [\"a b\"]}, \"decoder\": {\"type\": "             \
    "\"ByteLevel\"}" rest "}"
    static const struct {
        const char *name, *text, *says;
        enum sl_code code;
    } cases[] = {
        {"tokenizer.json", "[1]", "model", SL_ERR_UNSUPPORTED},
        {"tokenizer.json",
         "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": "
         "-1}, \"merges\": []}}",
         "'a'", SL_ERR_CORRUPT},
        {"tokenizer.json",
         "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": "
         "99999999}, \"merges\": []}}",
         "'a'", SL_ERR_CORRUPT},
        {"tokenizer.json",
         "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": "
         "0, \"b\": 0}, \"merges\": []}}",
         "id 0", SL_ERR_CORRUPT},
        {"tokenizer.json",
         MODEL(", \"added_tokens\": [{\"id\": 5000000000, \"content\": "
               "\"x\"}]"),
         "added token 0", SL_ERR_CORRUPT},
        {"tokenizer.json",
         MODEL(", \"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": "
               "{\"Regex\": \"a(\"}, \"behavior\": \"Isolated\"}"),
         "PCRE2", SL_ERR_UNSUPPORTED},
        {"tokenizer.json",
         MODEL(", \"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": "
               "{\"Regex\": \"[a-z&&[^b]]\"}, \"behavior\": \"Isolated\"}"),
         "set operations", SL_ERR_UNSUPPORTED},
        {"tokenizer.json",
         MODEL(", \"post_processor\": {\"type\": \"TemplateProcessing\", "
               "\"single\": [{\"SpecialToken\": {\"id\": \"<x>\"}}]}"),
         "<x>", SL_ERR_CORRUPT},
        {"tokenizer.model", "what is this", "tokenizer.model", SL_ERR_CORRUPT},
        {"tokenizer.model", "YQ== 0\nYg== x\n", "line 2", SL_ERR_CORRUPT},
        {"tokenizer.model", "YQ== 0\nYQ== 0\n", "id 0", SL_ERR_CORRUPT},
        {"vocab.json", "{\"a\": 0}", "merges.txt", SL_ERR_CORRUPT},
        {"vocab.txt", "a\nb\n", "[UNK]", SL_ERR_CORRUPT},
        {"vocab.txt", "[UNK]\na\xff\n", "line 2", SL_ERR_CORRUPT},
        {"tokenizer_config.json", "[]", "tokenizer_config.json",
         SL_ERR_CORRUPT},
        {"config.json", "{", "config.json", SL_ERR_CORRUPT},
        {"tokenizer.json", "", "empty", SL_ERR_CORRUPT},
    };
    struct sl_vocab_options o = {.rows = 0};

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sl_error err = {0};

        assert_int_equal(
            try_files((struct test_file[]){{cases[i].name, NULL, cases[i].text},
                                           {NULL}},
                      &o, &err),
            -1);
        if (strstr(err.msg, cases[i].says) == NULL)
            print_error("case %zu: %s\n", i, err.msg);
        assert_non_null(strstr(err.msg, cases[i].says));
        assert_int_equal(err.code, cases[i].code);
    }
    assert_int_equal(try_files((struct test_file[]){{NULL}}, &o, NULL), 1);
}

static void more_ids_than_rows_are_refused(void **state)
{
    struct sl_vocab_options o = {.rows = 3};
    static const struct test_file files[] = {
        {"tokenizer.json", NULL,
         MODEL(", \"added_tokens\": [{\"id\": 3, \"content\": \"<e>\", "
               "\"special\": true}]")},
        {NULL}};
    struct sl_error err;

    assert_int_equal(try_files(files, &o, &err), -1);
    assert_int_equal(err.code, SL_ERR_CORRUPT);
    assert_non_null(strstr(err.msg, "4 ids"));
    assert_non_null(strstr(err.msg, "3 rows"));
    o.rows = 4;
    assert_ok(try_files(files, &o, &err), &err);
}

static void an_end_that_the_vocabulary_does_not_have_is_refused(void **state)
{
    struct sl_vocab_options o = {.rows = 0};
    struct sl_error err;

    assert_int_equal(
        try_files((struct test_file[]){{"tokenizer.json", NULL, MODEL("")},
                                       {"generation_config.json", NULL,
                                        "{\"eos_token_id\": [2, 420]}"},
                                       {NULL}},
                  &o, &err),
        -1);
    assert_int_equal(err.code, SL_ERR_CORRUPT);
    assert_non_null(strstr(err.msg, "420"));
    assert_non_null(strstr(err.msg, "has 3"));
}

static void settings_say_where_texts_begin_and_end(void **state)
{
    static const char model[] =
        MODEL(", \"added_tokens\": [{\"id\": 3, \"content\": \"<s>\", "
              "\"special\": true}, {\"id\": 4, \"content\": \"</s>\", "
              "\"special\": true}, {\"id\": 5, \"content\": \"<t>\"}]");
    static const struct {
        const char *tokenizer, *generation, *config;
        size_t n_prefix, n_stops;
        int32_t stops[3];
    } cases[] = {
        {"{}", "{}", "{}", 0, 0, {0}},
        {"{\"eos_token\": \"</s>\"}", "{}", "{}", 0, 1, {4}},
        {"{\"eos_token\": {\"content\": \"</s>\"}, \"bos_token\": \"<s>\", "
         "\"add_bos_token\": true}",
         "{\"eos_token_id\": [5, 4]}",
         "{\"eos_token_id\": 1}",
         1,
         2,
         {5, 4}},
        {"{\"bos_token\": \"<s>\"}", "{}", "{\"eos_token_id\": 5}", 0, 1, {5}},
    };
    struct sl_vocab_options o = {.rows = 0};

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sl_tokenizer *t = test_vocab_files(
            (struct test_file[]){
                {"tokenizer.json", NULL, model},
                {"tokenizer_config.json", NULL, cases[i].tokenizer},
                {"generation_config.json", NULL, cases[i].generation},
                {"config.json", NULL, cases[i].config},
                {NULL}},
            &o);

        assert_int_equal(sl_tokenizer_prefix(t)->n, cases[i].n_prefix);
        assert_int_equal(sl_tokenizer_stops(t)->n, cases[i].n_stops);
        for (size_t k = 0; k < cases[i].n_stops; k++)
            assert_int_equal(sl_tokenizer_stops(t)->v[k], cases[i].stops[k]);
        assert_false(sl_tokenizer_is_special(t, 5)); /* added, but text */
        sl_tokenizer_destroy(t);
    }
}

static void chatglm_counts_its_ids_in_two_ways(void **state)
{
    /* 7744 pieces, then [MASK] [gMASK] [sMASK] <eod> <sop> <eop> */
    static const struct {
        const char *config;
        int32_t offset;
    } cases[] = {
        {"{\"model_type\": \"chatglm\", \"vocab_size\": 8192}", 0},
        {"{\"model_type\": \"chatglm\", \"vocab_size\": 28672}", 20000},
        {"{\"model_type\": \"chatglm\", \"vocab_size\": 28672, "
         "\"bos_token_id\": 7748}",
         0},
    };
    struct sl_vocab_options o = {.rows = 0};
    char path[1024];

    assert_non_null(test_source(path, "demo/ice_text.model"));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int32_t first = 7744 + cases[i].offset;
        struct sl_tokenizer *t = test_vocab_files(
            (struct test_file[]){{"ice_text.model", path, NULL},
                                 {"config.json", NULL, cases[i].config},
                                 {NULL}},
            &o);
        struct sl_ids ids = {0};
        struct sl_error err;
        char *text;
        size_t n;

        assert_string_equal(sl_tokenizer_kind(t), "icetk");
        assert_int_equal(sl_tokenizer_find(t, "[gMASK]"), first + 1);
        assert_int_equal(sl_tokenizer_find(t, "<sop>"), first + 4);
        assert_int_equal(sl_tokenizer_suffix(t)->n, 2);
        assert_int_equal(sl_tokenizer_suffix(t)->v[1], first + 4);
        assert_int_equal(sl_tokenizer_stops(t)->n, 1);
        assert_int_equal(sl_tokenizer_stops(t)->v[0], first + 5);
        test_encode(t, &ids, "a\n\tb   c", 8, false);
        assert_true(has_id(&ids, first + 8));  /* <|tab|> */
        assert_true(has_id(&ids, first + 10)); /* <|blank_3|> */
        assert_ok(sl_ids_append(&ids, sl_tokenizer_suffix(t)->v, 2, &err),
                  &err);
        assert_ok(sl_tokenizer_decode_as(t, SL_SPECIALS_HIDDEN, ids.v, ids.n,
                                         &text, &n, &err),
                  &err);
        assert_string_equal(text, "a\n\tb   c");
        free(text);
        sl_ids_fini(&ids);
        sl_tokenizer_destroy(t);
    }
}

static void chatglm2_adds_the_names_that_its_program_knows(void **state)
{
    struct sl_vocab_options o = {.rows = 0};
    char path[1024];
    struct sl_tokenizer *t;

    assert_non_null(test_source(path, "demo/ice_text.model"));
    t = test_vocab_files(
        (struct test_file[]){
            {"tokenizer.model", path, NULL},
            {"config.json", NULL,
             "{\"model_type\": \"chatglm\", \"eos_token_id\": 2}"},
            {"tokenizer_config.json", NULL,
             "{\"tokenizer_class\": \"ChatGLMTokenizer\"}"},
            {NULL}},
        &o);
    assert_string_equal(sl_tokenizer_kind(t), "sentencepiece");
    assert_int_equal(sl_tokenizer_find(t, "[gMASK]"), 7745);
    assert_int_equal(sl_tokenizer_find(t, "<|observation|>"), 7752);
    assert_int_equal(sl_tokenizer_prefix(t)->n, 2);
    assert_int_equal(sl_tokenizer_prefix(t)->v[0], 7745);
    assert_int_equal(sl_tokenizer_prefix(t)->v[1], 7747);
    assert_int_equal(sl_tokenizer_stops(t)->n, 3);
    sl_tokenizer_destroy(t);
}

static void llamas_sentencepiece_begins_with_bos(void **state)
{
    static const struct {
        const char *config;
        size_t n;
    } cases[] = {
        {"{\"tokenizer_class\": \"LlamaTokenizer\"}", 1},
        {"{\"tokenizer_class\": \"LlamaTokenizer\", \"add_bos_token\": false}",
         0},
    };
    struct sl_vocab_options o = {.rows = 0};
    char path[1024];

    assert_non_null(test_source(path, "demo/ice_text.model"));
    for (size_t i = 0; i < 2; i++) {
        struct sl_tokenizer *t = test_vocab_files(
            (struct test_file[]){
                {"tokenizer.model", path, NULL},
                {"tokenizer_config.json", NULL, cases[i].config},
                {NULL}},
            &o);

        assert_int_equal(sl_tokenizer_prefix(t)->n, cases[i].n);
        assert_int_equal(sl_tokenizer_stops(t)->v[0], 2);
        sl_tokenizer_destroy(t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_that_is_not_supported_is_named_at_once),
        cmocka_unit_test(bad_files_are_named),
        cmocka_unit_test(more_ids_than_rows_are_refused),
        cmocka_unit_test(an_end_that_the_vocabulary_does_not_have_is_refused),
        cmocka_unit_test(settings_say_where_texts_begin_and_end),
        cmocka_unit_test(chatglm_counts_its_ids_in_two_ways),
        cmocka_unit_test(chatglm2_adds_the_names_that_its_program_knows),
        cmocka_unit_test(llamas_sentencepiece_begins_with_bos),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
