#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "src/text/tokenizer.h"
#include "tests/support.h"
#include "tests/tokens.h"

enum {
    PIECES = 64 + 7744, /* of the demo model: what comes before the specials */
    TAB = PIECES + 8,
    BLANK_2 = TAB + 1,
    BYTE_0 = BLANK_2 + 79,
};

static void encode(struct sl_tokenizer *t, struct sl_ids *ids, const char *text)
{
    struct sl_error err;

    ids->n = 0;
    assert_ok(sl_tokenizer_encode(t, ids, text, strlen(text), &err), &err);
}

static void assert_decodes(struct sl_tokenizer *t, const int32_t *ids, size_t n,
                           const char *want)
{
    struct sl_error err;
    char *text;

    assert_ok(sl_tokenizer_decode(t, ids, n, &text, &err), &err);
    assert_string_equal(text, want);
    test_stream_equals(t, ids, n, want, strlen(want));
    free(text);
}

static bool has(const struct sl_ids *ids, int32_t id)
{
    for (size_t i = 0; i < ids->n; i++) {
        if (ids->v[i] == id)
            return true;
    }
    return false;
}

static void the_model_says_its_own_ids(void **state)
{
    struct sl_hparams hp;
    struct sl_tokenizer *t = test_demo_tokenizer(&hp);

    assert_int_equal(hp.text.special.mask, PIECES);
    assert_int_equal(hp.text.special.gmask, PIECES + 1);
    assert_int_equal(hp.text.special.smask, PIECES + 2);
    assert_int_equal(hp.text.special.sop, PIECES + 4);
    assert_int_equal(hp.text.special.eop, PIECES + 5);
    assert_int_equal(hp.text.special.dblock, PIECES + 7);
    assert_int_equal(hp.text.special.eos, 66);
    assert_int_equal(hp.text.special.unk, 64);
    assert_int_equal(hp.text.n_tokens, 8152);
    sl_tokenizer_destroy(t);
}

static void whitespace_becomes_tokens(void **state)
{
    struct sl_hparams hp;
    struct sl_tokenizer *t = test_demo_tokenizer(&hp);
    struct sl_ids ids = {0};
    char blanks[200];

    encode(t, &ids, "a\n\tb  c");
    assert_true(has(&ids, TAB));
    assert_true(has(&ids, BLANK_2));
    memset(blanks, ' ', 165);
    blanks[165] = '\0';
    encode(t, &ids, blanks);
    assert_true(has(&ids, BLANK_2 + 78));
    assert_true(has(&ids, BLANK_2 + 3));
    sl_ids_fini(&ids);
    sl_tokenizer_destroy(t);
}

static void collapsed_whitespace_is_one_blank(void **state)
{
    struct sl_hparams hp;
    struct sl_tokenizer *t = test_demo_tokenizer(&hp), *plain;
    struct sl_ids a = {0}, b = {0};
    struct sl_error err;
    char path[1024];
    uint8_t *model;
    size_t n;

    sl_tokenizer_destroy(t);
    hp.text.whitespace = SL_WHITESPACE_COLLAPSE;
    hp.text.max_blank = 0;
    hp.text.byte_fallback = false;
    model = test_read_file(test_source(path, "demo/ice_text.model"), &n);
    assert_ok(sl_tokenizer_describe(&hp.text, model, n, &err), &err);
    assert_int_equal(hp.text.n_tokens, PIECES + 8);
    assert_ok(sl_tokenizer_create(&plain, model, n, &hp.text, hp.vocab, &err),
              &err);
    encode(plain, &a, "In the\n\n beginning \t\r\nGod");
    encode(plain, &b, "In the beginning God");
    assert_int_equal(a.n, b.n);
    assert_memory_equal(a.v, b.v, a.n * sizeof *a.v);
    encode(plain, &a, "\xf0\xa0\xae\xb7"); /* no piece, no bytes */
    assert_true(has(&a, hp.text.special.unk));
    for (size_t i = 0; i < a.n; i++)
        assert_in_range(a.v[i], 64, PIECES - 1);
    sl_ids_fini(&a);
    sl_ids_fini(&b);
    sl_tokenizer_destroy(plain);
    free(model);
}

static void any_text_survives_encoding(void **state)
{
    struct sl_hparams hp;
    struct sl_tokenizer *t = test_demo_tokenizer(&hp);
    struct sl_ids ids = {0};
    struct sl_error err;

    encode(t, &ids, "");
    assert_int_equal(ids.n, 0);
    assert_decodes(t, NULL, 0, "");
    encode(t, &ids, "\xff\xfe bad \xe4\xbd");
    assert_true(ids.n > 0);
    ids.n = 0;
    assert_ok(sl_tokenizer_encode(t, &ids, "a\0b", 3, &err), &err);
    assert_true(ids.n > 0);
    encode(t, &ids, "\xf0\x9f\x98\x80 \xf0\xa0\xae\xb7");
    assert_decodes(t, ids.v, ids.n, "\xf0\x9f\x98\x80 \xf0\xa0\xae\xb7");
    sl_ids_fini(&ids);
    sl_tokenizer_destroy(t);
}

static void special_ids_print_in_brackets(void **state)
{
    struct sl_hparams hp;
    struct sl_tokenizer *t = test_demo_tokenizer(&hp);
    struct sl_ids ids = {0};
    struct sl_error err;
    const int32_t ends[] = {hp.text.special.gmask, hp.text.special.eop,
                            hp.text.special.eos, TAB, BLANK_2 + 5};

    encode(t, &ids, "my name");
    assert_ok(sl_ids_append(&ids, ends, 5, &err), &err);
    assert_ok(sl_tokenizer_encode(t, &ids, "is", 2, &err), &err);
    assert_decodes(t, ids.v, ids.n,
                   "my name[[gMASK]][eop][</s>][<t>][<blank_7>]is");
    sl_ids_fini(&ids);
    sl_tokenizer_destroy(t);
}

static void ids_without_meaning_print_nothing(void **state)
{
    struct sl_hparams hp;
    struct sl_tokenizer *t = test_demo_tokenizer(&hp);
    struct sl_ids ids = {0};
    struct sl_error err;
    const int32_t odd[] = {0, 63, 8152, 8191, -5, INT32_MAX, INT32_MIN};

    encode(t, &ids, "light");
    assert_ok(sl_ids_append(&ids, odd, 7, &err), &err);
    assert_ok(sl_tokenizer_encode(t, &ids, "and", 3, &err), &err);
    assert_decodes(t, ids.v, ids.n, "light and");
    assert_decodes(t, odd, 7, "");
    sl_ids_fini(&ids);
    sl_tokenizer_destroy(t);
}

static void bytes_wait_for_their_character(void **state)
{
    struct sl_hparams hp;
    struct sl_tokenizer *t = test_demo_tokenizer(&hp);
    const int32_t smile[] = {BYTE_0 + 0xf0, BYTE_0 + 0x9f, BYTE_0 + 0x98,
                             BYTE_0 + 0x80};
    struct sl_error err;
    struct sl_detok *d;
    const char *text;
    size_t n;

    assert_ok(sl_detok_create(&d, t, &err), &err);
    for (size_t i = 0; i < 4; i++) {
        assert_ok(sl_detok_push(d, smile + i, 1, &text, &n, &err), &err);
        assert_int_equal(n, i < 3 ? 0 : 4);
    }
    assert_memory_equal(text, "\xf0\x9f\x98\x80", 4);
    assert_ok(sl_detok_push(d, smile, 2, &text, &n, &err), &err);
    assert_int_equal(n, 0);
    assert_ok(sl_detok_end(d, &text, &n, &err), &err);
    assert_int_equal(n, 6); /* two replacement characters */
    sl_detok_destroy(d);
    sl_tokenizer_destroy(t);
}

/* Random lists rich in bytes, marks and blanks: whatever way they are cut,
 * the stream says what the whole list says. */
static void any_list_streams_to_the_same_text(void **state)
{
    struct sl_hparams hp;
    struct sl_tokenizer *t = test_demo_tokenizer(&hp);
    struct sl_ids marks = {0};
    struct sl_error err;
    uint32_t x = 1;

    encode(t, &marks, "< n > < | blank _ 2 | > n>tab \xe4\xbd\xa0\n\n a");
    for (int round = 0; round < 300; round++) {
        int32_t ids[12];
        char *text;

        for (size_t i = 0; i < 12; i++) {
            uint32_t r = (x = x * 1664525u + 1013904223u) >> 8;

            if (r % 4 == 0) /* no bytes: the text must hold no zero */
                ids[i] = 64 + (int32_t)(r / 4 % (BYTE_0 - 64));
            else if (r % 4 == 1)
                ids[i] = marks.v[r / 4 % marks.n];
            else
                ids[i] = BYTE_0 + 0x80 + (int32_t)(r / 4 % 128);
        }
        assert_ok(sl_tokenizer_decode(t, ids, 12, &text, &err), &err);
        test_stream_equals(t, ids, 12, text, strlen(text));
        free(text);
    }
    sl_ids_fini(&marks);
    sl_tokenizer_destroy(t);
}

static void marks_spelt_in_small_pieces_become_whitespace(void **state)
{
    struct sl_hparams hp;
    struct sl_tokenizer *t = test_demo_tokenizer(&hp);
    struct sl_ids ids = {0};
    struct sl_error err;

    for (const char *p = "a<n>b<|tab|><|blank_3|>c<|blank_81|><|blank_<n"; *p;
         p++)
        assert_ok(sl_ids_add(&ids, BYTE_0 + (uint8_t)*p, &err), &err);
    assert_decodes(t, ids.v, ids.n, "a\nb\t   c<|blank_81|><|blank_<n");
    sl_ids_fini(&ids);
    sl_tokenizer_destroy(t);
}

static void bad_models_are_refused(void **state)
{
    struct sl_hparams hp, other;
    struct sl_tokenizer *t = test_demo_tokenizer(&hp);
    struct sl_error err;
    char path[1024];
    uint8_t *model;
    size_t n;

    sl_tokenizer_destroy(t);
    t = NULL;
    model = test_read_file(test_source(path, "demo/ice_text.model"), &n);
    assert_int_equal(sl_tokenizer_create(&t, "", 0, &hp.text, hp.vocab, &err),
                     -1);
    assert_int_equal(err.code, SL_ERR_CORRUPT);
    assert_int_equal(
        sl_tokenizer_create(&t, "hello", 5, &hp.text, hp.vocab, &err), -1);
    assert_int_equal(err.code, SL_ERR_CORRUPT);
    assert_int_equal(
        sl_tokenizer_create(&t, model, n / 2 + 1, &hp.text, hp.vocab, &err),
        -1);
    assert_int_equal(err.code, SL_ERR_CORRUPT);
    other = hp;
    other.text.special.sop++;
    assert_int_equal(
        sl_tokenizer_create(&t, model, n, &other.text, other.vocab, &err), -1);
    assert_int_equal(err.code, SL_ERR_CORRUPT);
    other = hp;
    other.text.n_tokens--;
    assert_int_equal(
        sl_tokenizer_create(&t, model, n, &other.text, other.vocab, &err), -1);
    assert_non_null(strstr(err.msg, "8151"));
    other = hp;
    other.vocab = 8151;
    assert_int_equal(
        sl_tokenizer_create(&t, model, n, &other.text, other.vocab, &err), -1);
    assert_null(t);
    free(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_model_says_its_own_ids),
        cmocka_unit_test(whitespace_becomes_tokens),
        cmocka_unit_test(collapsed_whitespace_is_one_blank),
        cmocka_unit_test(any_text_survives_encoding),
        cmocka_unit_test(special_ids_print_in_brackets),
        cmocka_unit_test(ids_without_meaning_print_nothing),
        cmocka_unit_test(bytes_wait_for_their_character),
        cmocka_unit_test(any_list_streams_to_the_same_text),
        cmocka_unit_test(marks_spelt_in_small_pieces_become_whitespace),
        cmocka_unit_test(bad_models_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
