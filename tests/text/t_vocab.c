#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/bytes.h"
#include "src/text/sp_proto.h"
#include "src/text/vocab_build.h"
#include "tests/tokens.h"
#include "tests/vocabs.h"

/* Vocabularies on their own: what must hold for every kind, blobs that are
 * damaged, folders that say odd things. The kinds are these. */

struct form {
    const char *name, *file, *path;
    enum sl_vocab_family family;
    bool exact; /* every text comes back as it is */
};

static const struct form forms[] = {
    {"llama3", "tokenizer.json", "tests/golden/tokenizers/llama3.json",
     SL_FAMILY_PLAIN, true},
    {"smollm", "tokenizer.json", "tests/golden/tokenizers/smollm.json",
     SL_FAMILY_PLAIN, true},
    {"ranks", "tokenizer.model", "tests/golden/tokenizers/ranks.model",
     SL_FAMILY_GLM4, true},
    {"qwen", "tokenizer.json", "tests/golden/tokenizers/qwen.json",
     SL_FAMILY_PLAIN, false},
    {"llama2", "tokenizer.json", "tests/golden/tokenizers/llama2.json",
     SL_FAMILY_PLAIN, false},
    {"bert", "tokenizer.json", "tests/golden/tokenizers/bert.json",
     SL_FAMILY_PLAIN, false},
    {"sentencepiece", "tokenizer.model", "demo/ice_text.model", SL_FAMILY_PLAIN,
     false},
    {"chatglm2", "tokenizer.model", "demo/ice_text.model", SL_FAMILY_CHATGLM2,
     false},
    {"icetk", "ice_text.model", "demo/ice_text.model", SL_FAMILY_CHATGLM,
     false},
};

enum { N_FORMS = sizeof forms / sizeof *forms };

static void compile(struct sl_vocab_made *made, const struct form *form)
{
    struct sl_vocab_options o = {.family = form->family};
    char path[1024];
    struct test_file files[] = {
        {form->file, test_source(path, form->path), NULL}, {NULL}};
    struct sl_vocab_source source = {test_files_read, files};
    struct sl_error err;

    assert_ok(sl_vocab_compile(made, &source, &o, &err), &err);
}

static char *decode(struct sl_tokenizer *t, const struct sl_ids *ids, size_t *n)
{
    struct sl_error err;
    char *text;

    assert_ok(sl_tokenizer_decode_as(t, SL_SPECIALS_SHOWN, ids->v, ids->n,
                                     &text, n, &err),
              &err);
    return text;
}

static bool has_unk(const struct sl_ids *ids, int32_t unk)
{
    for (size_t i = 0; i < ids->n; i++) {
        if (ids->v[i] == unk)
            return true;
    }
    return false;
}

/* decode(encode(x)) = x, or else a text that stays as it is when that is done
 * again. Returns false for one with an unknown piece, whose sign is not its
 * own text. */
static bool check_round(struct sl_tokenizer *t, bool exact, int32_t unk,
                        const char *text, size_t n)
{
    struct sl_ids ids = {0};
    size_t n_once, n_twice;
    char *once, *twice;
    bool known;

    test_encode(t, &ids, text, n, true);
    known = !has_unk(&ids, unk);
    once = decode(t, &ids, &n_once);
    assert_true(sl_utf8_valid(once, n_once));
    test_stream_equals(t, ids.v, ids.n, once, n_once);
    if (exact) {
        assert_int_equal(n_once, n);
        assert_memory_equal(once, text, n);
    } else if (known) {
        test_encode(t, &ids, once, n_once, true);
        twice = decode(t, &ids, &n_twice);
        if (n_twice != n_once || memcmp(once, twice, n_once) != 0)
            print_error("'%.*s' -> '%s' -> '%s'\n", (int)n, text, once, twice);
        assert_int_equal(n_once, n_twice);
        assert_memory_equal(once, twice, n_once);
        free(twice);
    }
    free(once);
    sl_ids_fini(&ids);
    return known;
}

/* $SLUICE_TEXTS sets how many: a million takes a while. */
static size_t n_texts(void)
{
    const char *said = getenv("SLUICE_TEXTS");

    return said != NULL ? (size_t)atol(said) : TEST_SANITIZED ? 1800 : 9000;
}

static void random_texts_come_back(void **state)
{
    uint64_t seed = 20261129;
    char text[512];

    for (size_t k = 0; k < N_FORMS; k++) {
        struct sl_vocab_made made;
        struct sl_tokenizer *t;
        size_t known = 0, n = n_texts() / N_FORMS;
        int32_t unk;

        compile(&made, &forms[k]);
        unk = made.text.special.unk;
        t = test_vocab_open(&made);
        for (size_t i = 0; i < n; i++) {
            size_t size = test_random_text(&seed, text, sizeof text, false);

            known += check_round(t, forms[k].exact, unk, text, size);
        }
        assert_in_range(known, n / 20 + 1, n); /* BERT's is small */
        sl_tokenizer_destroy(t);
    }
}

/* What is no UTF-8 is replaced as Python's errors="replace" does (The Unicode
 * Standard 15, table 3-11 and before). */
static void bad_bytes_are_replaced_as_python_replaces_them(void **state)
{
    static const struct {
        const char *bytes, *text;
    } cases[] = {
        {"a\xff"
         "b",
         "a\ufffdb"},
        {"\xe4\xbd", "\ufffd"},
        {"\xe4\xbd\xa0\xe5\xa5", "你\ufffd"},
        {"\xc0\xaf\xe0\x80\xbf\xf0\x81\x82\x41",
         "\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd\ufffdA"},
        {"\xed\xa0\x80\xed\xbf\xbf\xed\xaf\x41",
         "\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd\ufffdA"},
        {"\xf4\x91\x92\x93\xff\x41\x80\xbf\x42",
         "\ufffd\ufffd\ufffd\ufffd\ufffdA\ufffd\ufffdB"},
        {"\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41", "\ufffd\ufffd\ufffd\ufffdA"},
    };

    for (size_t k = 0; k < N_FORMS; k++) {
        struct sl_vocab_made made;
        struct sl_tokenizer *t;
        struct sl_ids bad = {0}, good = {0};

        compile(&made, &forms[k]);
        t = test_vocab_open(&made);
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            test_encode(t, &bad, cases[i].bytes, strlen(cases[i].bytes), false);
            test_encode(t, &good, cases[i].text, strlen(cases[i].text), false);
            assert_int_equal(bad.n, good.n);
            if (good.n > 0)
                assert_memory_equal(bad.v, good.v, bad.n * sizeof *bad.v);
        }
        sl_ids_fini(&bad);
        sl_ids_fini(&good);
        sl_tokenizer_destroy(t);
    }
}

/* --- blobs -----------------------------------------------------------------
 */

/* Opens what may be damaged, and uses it if it opens. */
static bool try_blob(const uint8_t *blob, size_t n,
                     const struct sl_text_params *like)
{
    struct sl_text_params tp = *like;
    struct sl_tokenizer *t = NULL;
    struct sl_ids ids = {0};
    struct sl_error err = {0};
    char *text;

    if (sl_tokenizer_describe(&tp, blob, n, &err) != 0 ||
        sl_tokenizer_create(&t, blob, n, &tp, tp.n_tokens, &err) != 0) {
        assert_true(err.code == SL_ERR_CORRUPT ||
                    err.code == SL_ERR_UNSUPPORTED);
        assert_true(strlen(err.msg) > 10);
        return false;
    }
    if (sl_tokenizer_encode_special(t, &ids, "The 1st 你好 <sop> e\u0301", 23,
                                    &err) == 0 &&
        sl_tokenizer_decode(t, ids.v, ids.n, &text, &err) == 0)
        free(text);
    sl_ids_fini(&ids);
    sl_tokenizer_destroy(t);
    return true;
}

static void a_blob_cut_off_anywhere_is_refused(void **state)
{
    for (size_t k = 0; k < N_FORMS; k++) {
        struct sl_vocab_made made;
        uint8_t *copy;

        compile(&made, &forms[k]);
        copy = malloc(made.n);
        assert_non_null(copy);
        for (size_t n = 0; n < made.n; n += 1 + n / 200) {
            /* In memory of its own, so that a read behind it is found; then
             * once more with a head that admits to be shorter. */
            uint8_t *cut = malloc(n > 0 ? n : 1);
            struct sl_text_params tp = {0};

            assert_non_null(cut);
            memcpy(cut, made.blob, n);
            assert_false(try_blob(cut, n, &tp));
            if (n >= SL_VOCAB_HEAD) {
                sl_store_u64(cut + 24, n);
                assert_false(try_blob(cut, n, &tp));
            }
            free(cut);
        }
        free(copy);
        sl_vocab_made_fini(&made);
    }
}

static void a_damaged_blob_is_refused_or_works(void **state)
{
    uint64_t seed = 7;
    size_t refused = 0, n = TEST_SANITIZED ? 40 : 160;

    for (size_t k = 0; k < N_FORMS; k++) {
        struct sl_vocab_made made;

        compile(&made, &forms[k]);
        for (size_t i = 0; i < n; i++) {
            /* Most damage where it matters: head and table. */
            size_t within = i % 2 == 0 && made.n > 400 ? 400 : made.n;
            size_t at = test_random(&seed) % within;
            uint8_t was = made.blob[at];

            made.blob[at] ^= (uint8_t)(1u << test_random(&seed) % 8);
            refused += !try_blob(made.blob, made.n, &made.text);
            made.blob[at] = was;
        }
        assert_true(try_blob(made.blob, made.n, &made.text));
        sl_vocab_made_fini(&made);
    }
    assert_in_range(refused, N_FORMS * n / 4, N_FORMS * n);
}

static void every_kind_is_in_the_table_once(void **state)
{
    const struct sl_vocab_kind *kind;

    for (size_t i = 0; (kind = sl_vocab_kind_at(i)) != NULL; i++) {
        assert_ptr_equal(sl_vocab_kind_find(kind->name), kind);
        assert_ptr_equal(sl_vocab_kind_of(kind->code), kind);
    }
    assert_null(sl_vocab_kind_find("unigram"));
    assert_null(sl_vocab_kind_of(0));
}

/* --- the builder: a GGUF's metadata ----------------------------------------
 */

static void add(struct sl_vocab_builder *b, uint32_t id, const char *s,
                enum sl_piece_type type)
{
    struct sl_error err;

    assert_ok(sl_vocab_add_piece(b, id, s, strlen(s), type, &err), &err);
}

static struct sl_tokenizer *finish(struct sl_vocab_builder *b)
{
    struct sl_vocab_made made = {0};
    struct sl_error err;

    assert_ok(sl_vocab_builder_finish(b, &made.blob, &made.n, &err), &err);
    assert_ok(sl_tokenizer_describe(&made.text, made.blob, made.n, &err), &err);
    sl_vocab_builder_destroy(b);
    return test_vocab_open(&made);
}

static void check_ids(struct sl_tokenizer *t, const char *text,
                      const int32_t *want, size_t n)
{
    struct sl_ids ids = {0};

    test_encode(t, &ids, text, strlen(text), true);
    assert_int_equal(ids.n, n);
    assert_memory_equal(ids.v, want, n * sizeof *want);
    sl_ids_fini(&ids);
}

static void tokens_types_and_merges_make_a_byte_level_vocabulary(void **state)
{
    struct sl_vocab_builder *b;
    struct sl_tokenizer *t;
    struct sl_error err;
    char piece[16];

    assert_ok(sl_vocab_builder_create(&b, "byte-bpe", &err), &err);
    add(b, 0, "a", SL_PIECE_NORMAL);
    add(b, 1, "b", SL_PIECE_NORMAL);
    add(b, 2, "Ġ", SL_PIECE_NORMAL);
    add(b, 3, "ab", SL_PIECE_NORMAL);
    add(b, 4, "Ġab", SL_PIECE_NORMAL);
    assert_int_equal(sl_vocab_add_piece(b, 4, "x", 1, SL_PIECE_NORMAL, &err),
                     -1);
    assert_non_null(strstr(err.msg, "4"));
    assert_int_equal(sl_vocab_add_merge(b, "b", 1, "x", 1, &err), -1);
    assert_non_null(strstr(err.msg, "'b x'"));
    assert_ok(sl_vocab_add_merge(b, "a", 1, "b", 1, &err), &err);
    assert_ok(sl_vocab_add_merge(b, "Ġ", 2, "ab", 2, &err), &err);
    assert_ok(sl_vocab_add_added(b, 7, "<end>", 5, SL_ADDED_SPECIAL, &err),
              &err);
    assert_int_equal(sl_vocab_set_pre(b, "no-such", &err), -1);
    assert_non_null(strstr(err.msg, "no-such"));
    assert_ok(sl_vocab_set_pre(b, "qwen2", &err), &err);
    assert_ok(sl_vocab_add_id(b, SL_VOCAB_STOPS, 7, &err), &err);
    assert_ok(sl_vocab_add_id(b, SL_VOCAB_STOPS, 7, &err), &err);
    t = finish(b);
    assert_int_equal(sl_tokenizer_n_tokens(t), 8);
    assert_int_equal(sl_tokenizer_stops(t)->n, 1);
    check_ids(t, "ab ab ba<end>", (int32_t[]){3, 4, 2, 1, 0, 7}, 6);
    assert_int_equal(sl_tokenizer_piece(t, 4, piece, sizeof piece), 4);
    assert_string_equal(piece, "Ġab");
    assert_int_equal(sl_tokenizer_piece(t, 5, piece, sizeof piece), 0);
    assert_int_equal(sl_tokenizer_piece(t, 4, piece, 3), 4);
    assert_string_equal(piece, "Ġ");
    assert_true(sl_tokenizer_is_special(t, 7));
    assert_false(sl_tokenizer_is_special(t, 3));
    assert_int_equal(sl_tokenizer_find(t, "<end>"), 7);
    assert_int_equal(sl_tokenizer_find(t, "ab"), -1);
    sl_tokenizer_destroy(t);
}

/* Scores alone say what merges first: Llama's sentencepiece in a GGUF. */
static void pieces_and_scores_make_a_sentencepiece_vocabulary(void **state)
{
    static const struct {
        const char *s;
        float score;
        enum sl_piece_type type;
    } pieces[] = {
        {"<unk>", 0, SL_PIECE_UNKNOWN}, {"<s>", 0, SL_PIECE_CONTROL},
        {"</s>", 0, SL_PIECE_CONTROL},  {"<0xE4>", 0, SL_PIECE_BYTE},
        {"<0xBD>", 0, SL_PIECE_BYTE},   {"<0xA0>", 0, SL_PIECE_BYTE},
        {"▁", -9, SL_PIECE_NORMAL},     {"a", -9, SL_PIECE_NORMAL},
        {"b", -9, SL_PIECE_NORMAL},     {"c", -9, SL_PIECE_NORMAL},
        {"bc", -1, SL_PIECE_NORMAL},    {"ab", -2, SL_PIECE_NORMAL},
        {"▁a", -3, SL_PIECE_NORMAL},
    };
    struct sl_vocab_builder *b;
    struct sl_tokenizer *t;
    struct sl_error err;
    struct sl_ids ids = {0};
    char *text;

    assert_ok(sl_vocab_builder_create(&b, "sentencepiece", &err), &err);
    for (uint32_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        add(b, i, pieces[i].s, pieces[i].type);
        assert_ok(sl_vocab_set_score(b, i, pieces[i].score, &err), &err);
    }
    /* All 256 bytes must be there for the library. */
    for (unsigned i = 0, id = 13; i < 256; i++) {
        char name[8];

        snprintf(name, sizeof name, "<0x%02X>", i);
        if (sl_vocab_find(b, name, 6) < 0)
            add(b, id++, name, SL_PIECE_BYTE);
    }
    sl_vocab_set_number(b, SL_VOCAB_STRIP_BLANK, 1); /* add_space_prefix */
    t = finish(b);
    check_ids(t, "abc", (int32_t[]){12, 10}, 2); /* ▁a bc */
    check_ids(t, "a 你", (int32_t[]){12, 6, 3, 4, 5}, 5);
    test_encode(t, &ids, "abc  a 你", 11, false);
    assert_ok(sl_tokenizer_decode(t, ids.v, ids.n, &text, &err), &err);
    assert_string_equal(text, "abc  a 你");
    free(text);
    sl_ids_fini(&ids);
    sl_tokenizer_destroy(t);
}

static void long_words_take_no_longer_than_they_must(void **state)
{
    enum { LONG = 400000 };
    struct sl_vocab_made made;
    struct sl_tokenizer *t;
    struct sl_ids ids = {0};
    char *text = malloc(LONG);

    assert_non_null(text);
    compile(&made, &forms[0]);
    t = test_vocab_open(&made);
    /* Quadratic merging would take minutes. */
    memset(text, 'e', LONG);
    test_encode(t, &ids, text, LONG, false);
    assert_in_range(ids.n, LONG / 64, LONG);
    memset(text, ' ', LONG);
    test_encode(t, &ids, text, LONG, false);
    sl_ids_fini(&ids);
    sl_tokenizer_destroy(t);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_is_in_the_table_once),
        cmocka_unit_test(random_texts_come_back),
        cmocka_unit_test(bad_bytes_are_replaced_as_python_replaces_them),
        cmocka_unit_test(a_blob_cut_off_anywhere_is_refused),
        cmocka_unit_test(a_damaged_blob_is_refused_or_works),
        cmocka_unit_test(tokens_types_and_merges_make_a_byte_level_vocabulary),
        cmocka_unit_test(pieces_and_scores_make_a_sentencepiece_vocabulary),
        cmocka_unit_test(long_words_take_no_longer_than_they_must),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
