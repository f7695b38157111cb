#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/text/chat.h"
#include "src/text/pretok.h"
#include "src/text/tokenizer.h"
#include "src/text/vocab_build.h"
#include "src/text/vocab_gguf.h"
#include "tests/gguf_maker.h"
#include "tests/support.h"

/* Vocabularies in the metadata of published GGUF files: ids as the publishers'
 * tokenizers give them, whatever a file leaves out. */

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

/* What a file says of a vocabulary's tokens. */
enum told { TOLD_ENDS, TOLD_ALL, TOLD_NOTHING, TOLD_NO_TYPES, N_TOLD };

/* Pieces with scores, merged by score, and all bytes: 8 + byte. */
static void put_pieces(struct gguf_maker *m, bool blank_first, enum told told)
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
    if (told != TOLD_NO_TYPES)
        gguf_i32s(m, "tokenizer.ggml.token_type", types, N);
    if (told != TOLD_NOTHING) {
        gguf_u32(m, "tokenizer.ggml.bos_token_id", 1);
        gguf_u32(m, "tokenizer.ggml.eos_token_id", 2);
    }
    if (told == TOLD_ALL) { /* Llama 2's files; <unk> pads as well */
        gguf_u32(m, "tokenizer.ggml.unknown_token_id", 0);
        gguf_u32(m, "tokenizer.ggml.padding_token_id", 0);
    }
    gguf_bool(m, "tokenizer.ggml.add_space_prefix", blank_first);
}

static void check_pieces(bool blank, enum told told)
{
    int known = blank ? 7 : 6;
    json_t *want = json_pack("[i, i, i]", known, 8 + 0xc3, 8 + 0xa9);
    json_t *ab = json_pack("[i]", known);
    struct gguf_maker m = {0};
    struct sl_tokenizer *t;
    uint8_t *data;
    size_t n;

    put_pieces(&m, blank, told);
    data = gguf_finish(&m, &n);
    open_vocab(&t, data, n);
    if (told != TOLD_NO_TYPES) /* bytes are words of six letters there */
        check_ids(t, "ab\xc3\xa9", 4, want);
    else
        check_ids(t, "ab", 2, ab);
    assert_int_equal(sl_tokenizer_prefix(t)->n, 1); /* <s>, by default */
    assert_int_equal(sl_tokenizer_stops(t)->n, 1);
    sl_tokenizer_destroy(t);
    json_decref(want);
    json_decref(ab);
    free(data);
}

static void pieces_with_scores_are_a_sentencepiece_model(void **state)
{
    for (int blank = 0; blank < 2; blank++) {
        for (int told = 0; told < N_TOLD; told++)
            check_pieces(blank != 0, (enum told)told);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(metadata_gives_the_ids_of_tokenizers),
        cmocka_unit_test(pieces_with_scores_are_a_sentencepiece_model),
        cmocka_unit_test(pre_tokenizers_go_by_their_names),
        cmocka_unit_test(templates_are_told_by_their_text),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
