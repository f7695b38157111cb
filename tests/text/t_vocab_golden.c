#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "tests/tokens.h"
#include "tests/vocabs.h"

/* What tokenizers and sentencepiece make of texts: golden/G_tokenizers over
 * the publishers' own vocabularies (which only ../shared has), and
 * golden/H_family/tokenizer over two small ones of GLM's form. */

struct publisher {
    const char *key;         /* of cases.json */
    const char *files[2][2]; /* name in a folder, path */
    enum sl_vocab_family family;
    const char *kind;
};

static const struct publisher publishers[] = {
    {"bert_uncased",
     {{"vocab.txt", "data/tokenizers/bert-base-uncased-vocab.txt"}},
     SL_FAMILY_PLAIN,
     "wordpiece"},
    {"gpt2",
     {{"vocab.json", "data/tokenizers/gpt2-vocab.json"},
      {"merges.txt", "data/tokenizers/gpt2-merges.txt"}},
     SL_FAMILY_PLAIN,
     "byte-bpe"},
    {"roberta",
     {{"vocab.json", "data/tokenizers/roberta-vocab.json"},
      {"merges.txt", "data/tokenizers/roberta-merges.txt"}},
     SL_FAMILY_PLAIN,
     "byte-bpe"},
    {"cog_pretrain",
     {{"cog-pretrain.model", "data/tokenizers/cog-pretrain.model"}},
     SL_FAMILY_PLAIN,
     "sentencepiece"},
};

/* Opens a publisher's vocabulary; NULL where its files are not at hand. */
static struct sl_tokenizer *open_publisher(const struct publisher *p,
                                           enum sl_vocab_family family)
{
    struct sl_vocab_options o = {.family = family};
    char path[2][1024];
    struct test_file files[3] = {{NULL}};

    for (int i = 0; i < 2 && p->files[i][0] != NULL; i++) {
        if (test_shared(path[i], p->files[i][1]) == NULL)
            return NULL;
        files[i] = (struct test_file){p->files[i][0], path[i], NULL};
    }
    return test_vocab_files(files, &o);
}

static void check_decode(struct sl_tokenizer *t, const struct sl_ids *ids,
                         enum sl_specials specials, const json_t *want)
{
    size_t n_want = json_string_length(want), n;
    struct sl_error err;
    char *text;

    assert_non_null(json_string_value(want));
    assert_ok(
        sl_tokenizer_decode_as(t, specials, ids->v, ids->n, &text, &n, &err),
        &err);
    assert_int_equal(n, n_want);
    assert_memory_equal(text, json_string_value(want), n);
    free(text);
    if (specials == SL_SPECIALS_SHOWN)
        test_stream_equals(t, ids->v, ids->n, json_string_value(want), n_want);
}

static void publishers_vocabularies_give_the_reference_ids(void **state)
{
    json_t *golden = *state, *texts = json_object_get(golden, "texts");

    for (size_t k = 0; k < sizeof publishers / sizeof *publishers; k++) {
        const struct publisher *p = &publishers[k];
        struct sl_tokenizer *t = open_publisher(p, p->family);
        struct sl_ids ids = {0};
        json_t *text;
        size_t i;

        if (t == NULL)
            continue;
        assert_string_equal(sl_tokenizer_kind(t), p->kind);
        json_array_foreach(texts, i, text)
        {
            json_t *c = json_array_get(json_object_get(golden, p->key), i);
            const json_t *want = json_object_get(c, "decode");

            test_encode(t, &ids, json_string_value(text),
                        json_string_length(text), false);
            test_same_ids(&ids, json_object_get(c, "ids"),
                          json_string_value(text));
            if (want != NULL)
                check_decode(t, &ids, SL_SPECIALS_SHOWN, want);
        }
        assert_int_equal(i, 174);
        sl_ids_fini(&ids);
        sl_tokenizer_destroy(t);
    }
}

/* Ids of THUDM/GLM's checkpoints (data_utils/tokenization.py run over the
 * published vocabularies). */
static void glm_puts_its_command_tokens_behind_every_vocabulary(void **state)
{
    static const char *const names[] = {
        "[CLS]",          "[MASK]",  "[SEP]",   "[UNK]", "<|startofpiece|>",
        "<|endofpiece|>", "[gMASK]", "[sMASK]",
    };
    static const int32_t ids[][8] = {
        {101, 103, 102, 100, 30522, 30523, -1, -1},
        {50259, 50260, 50261, 50262, 50257, 50258, 50263, 50264},
        {0, 50264, 2, 3, 50265, 50266, -1, -1},
        {50002, 50003, 50001, 50004, 50006, 50007, 50009, 50008},
    };
    static const int32_t eos[] = {0, 50256, 2, 50000};
    static const uint32_t n_tokens[] = {30524, 50265, 50267, 50010};

    for (size_t k = 0; k < 4; k++) {
        struct sl_tokenizer *t = open_publisher(&publishers[k], SL_FAMILY_GLM);

        if (t == NULL)
            continue;
        for (size_t i = 0; i < 8; i++)
            assert_int_equal(sl_tokenizer_find(t, names[i]), ids[k][i]);
        assert_int_equal(sl_tokenizer_n_tokens(t), n_tokens[k]);
        assert_int_equal(sl_tokenizer_prefix(t)->v[0], ids[k][0]);
        assert_int_equal(sl_tokenizer_suffix(t)->v[0], eos[k]);
        assert_int_equal(sl_tokenizer_stops(t)->n, 2);
        assert_int_equal(sl_tokenizer_stops(t)->v[0], ids[k][5]);
        assert_int_equal(sl_tokenizer_stops(t)->v[1], eos[k]);
        sl_tokenizer_destroy(t);
    }
}

static void glm_takes_the_blanks_before_a_mask_along(void **state)
{
    struct sl_tokenizer *t = open_publisher(&publishers[1], SL_FAMILY_GLM);
    struct sl_ids with = {0}, without = {0};

    if (t == NULL)
        return;
    test_encode(t, &with, "Ng is \n [MASK] at", 17, true);
    test_encode(t, &without, "Ng is[MASK] at", 14, true);
    assert_int_equal(with.n, without.n);
    assert_memory_equal(with.v, without.v, with.n * sizeof *with.v);
    assert_int_equal(with.v[with.n - 2], 50260);
    sl_ids_fini(&with);
    sl_ids_fini(&without);
    sl_tokenizer_destroy(t);
}

/* --- GLM's form ------------------------------------------------------------
 */

static struct sl_tokenizer *open_small(const char *name)
{
    struct sl_vocab_options o = {.family = SL_FAMILY_AUTO};
    char key[128], path[1024];

    snprintf(key, sizeof key, "golden/H_family/tokenizer/%s", name);
    assert_non_null(test_shared(path, key));
    return test_vocab_files(
        (struct test_file[]){{"tokenizer.json", path, NULL}, {NULL}}, &o);
}

static void check_tokens(struct sl_tokenizer *t, const struct sl_ids *ids,
                         const json_t *tokens)
{
    char piece[256];

    for (size_t i = 0; i < ids->n; i++) {
        sl_tokenizer_piece(t, ids->v[i], piece, sizeof piece);
        assert_string_equal(piece,
                            json_string_value(json_array_get(tokens, i)));
    }
}

static void check_small_case(struct sl_tokenizer *t, const json_t *c)
{
    const json_t *text = json_object_get(c, "text");
    struct sl_ids ids = {0};

    test_encode(t, &ids, json_string_value(text), json_string_length(text),
                true);
    test_same_ids(&ids, json_object_get(c, "ids"), json_string_value(text));
    check_tokens(t, &ids, json_object_get(c, "tokens"));
    check_decode(t, &ids, SL_SPECIALS_SHOWN,
                 json_object_get(c, "decoded_keep_special"));
    check_decode(t, &ids, SL_SPECIALS_HIDDEN,
                 json_object_get(c, "decoded_skip_special"));
    sl_ids_fini(&ids);
}

static void small_glm_tokenizers_give_the_reference_ids_and_pieces(void **state)
{
    char path[1024];
    json_t *golden, *of, *c, *prefix;
    const char *key;

    assert_non_null(test_shared(path, "golden/H_family/tokenizer/cases.json"));
    golden = test_json(path);
    json_object_foreach(json_object_get(golden, "byte_level_bpe"), key, of)
    {
        struct sl_tokenizer *t =
            open_small(json_string_value(json_object_get(of, "tokenizer")));
        struct sl_ids ids = {0};
        struct sl_error err;
        size_t i;

        json_array_foreach(json_object_get(of, "cases"), i, c)
            check_small_case(t, c);
        assert_int_equal(i, 25);
        prefix = json_object_get(of, "with_special_prefix");
        assert_ok(sl_ids_append(&ids, sl_tokenizer_prefix(t)->v,
                                sl_tokenizer_prefix(t)->n, &err),
                  &err);
        assert_ok(sl_tokenizer_encode(t, &ids, "Hello", 5, &err), &err);
        test_same_ids(&ids, json_object_get(prefix, "ids"), "Hello");
        sl_ids_fini(&ids);
        sl_tokenizer_destroy(t);
    }
    json_decref(golden);
}

/* --- every form ------------------------------------------------------------
 */

static void check_form(struct sl_tokenizer *t, const json_t *cases)
{
    struct sl_ids ids = {0};
    json_t *c;
    size_t i;

    json_array_foreach(cases, i, c)
    {
        const json_t *text = json_object_get(c, "text");
        const json_t *plain = json_object_get(c, "decode_plain");

        test_encode(t, &ids, json_string_value(text), json_string_length(text),
                    true);
        test_same_ids(&ids, json_object_get(c, "ids"), json_string_value(text));
        check_decode(t, &ids, SL_SPECIALS_SHOWN, json_object_get(c, "decode"));
        if (plain != NULL)
            check_decode(t, &ids, SL_SPECIALS_HIDDEN, plain);
    }
    assert_int_equal(i, 72);
    sl_ids_fini(&ids);
}

static void small_tokenizers_of_all_forms_give_the_reference_ids(void **state)
{
    static const struct {
        const char *name, *file, *kind;
    } forms[] = {
        {"qwen", "tokenizer.json", "byte-bpe"},
        {"llama3", "tokenizer.json", "byte-bpe"},
        {"smollm", "tokenizer.json", "byte-bpe"},
        {"flags", "tokenizer.json", "byte-bpe"},
        {"llama2", "tokenizer.json", "char-bpe"},
        {"metaspace", "tokenizer.json", "char-bpe"},
        {"bert", "tokenizer.json", "wordpiece"},
        {"ranks", "tokenizer.model", "byte-bpe"},
    };
    struct sl_vocab_options o = {.family = SL_FAMILY_AUTO};
    char path[1024], name[128];
    json_t *golden;

    golden = test_json(test_source(path, "tests/golden/tokenizers/cases.json"));
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        bool json = strcmp(forms[i].file, "tokenizer.json") == 0;
        struct sl_tokenizer *t;

        snprintf(name, sizeof name, "tests/golden/tokenizers/%s.%s",
                 forms[i].name, json ? "json" : "model");
        t = test_vocab_files(
            (struct test_file[]){{forms[i].file, test_source(path, name), NULL},
                                 {NULL}},
            &o);
        assert_string_equal(sl_tokenizer_kind(t), forms[i].kind);
        check_form(t, json_object_get(golden, forms[i].name));
        sl_tokenizer_destroy(t);
    }
    json_decref(golden);
}

static void a_folder_says_where_answers_end(void **state)
{
    static const struct {
        const char *dir;
        size_t n;
        int32_t stops[3];
    } folders[] = {
        {"golden/H_family/glm4_0414/hf", 3, {420, 427, 429}},
        {"golden/H_family/qwen3/hf", 1, {420}},
        {"golden/H_family/llama3_rope/hf", 3, {420, 427, 429}},
    };
    struct sl_vocab_options o = {.rows = 480};
    char path[1024];

    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        struct sl_tokenizer *t;

        assert_non_null(test_shared(path, folders[i].dir));
        t = test_vocab_dir(path, &o);
        assert_int_equal(sl_tokenizer_stops(t)->n, folders[i].n);
        assert_memory_equal(sl_tokenizer_stops(t)->v, folders[i].stops,
                            folders[i].n * sizeof(int32_t));
        assert_true(sl_tokenizer_is_special(t, 427));
        assert_int_equal(sl_tokenizer_find(t, "<|user|>"), 427);
        sl_tokenizer_destroy(t);
    }
}

static int open_golden(void **state)
{
    char path[1024];

    if (test_shared(path, "golden/G_tokenizers/cases.json") == NULL)
        test_skip_all("no golden/G_tokenizers here");
    *state = test_json(path);
    return 0;
}

static int close_golden(void **state)
{
    json_decref(*state);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(publishers_vocabularies_give_the_reference_ids),
        cmocka_unit_test(glm_puts_its_command_tokens_behind_every_vocabulary),
        cmocka_unit_test(glm_takes_the_blanks_before_a_mask_along),
        cmocka_unit_test(
            small_glm_tokenizers_give_the_reference_ids_and_pieces),
        cmocka_unit_test(small_tokenizers_of_all_forms_give_the_reference_ids),
        cmocka_unit_test(a_folder_says_where_answers_end),
    };

    return cmocka_run_group_tests(tests, open_golden, close_golden);
}
