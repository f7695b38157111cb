#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "src/text/prompt.h"
#include "tests/support.h"
#include "tests/tokens.h"
#include "tests/vocabs.h"

struct fixture {
    struct sl_hparams hp;
    struct sl_tokenizer *t;
};

static int open_fixture(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);

    assert_non_null(f);
    f->t = test_demo_tokenizer(&f->hp);
    *state = f;
    return 0;
}

static int close_fixture(void **state)
{
    struct fixture *f = *state;

    sl_tokenizer_destroy(f->t);
    free(f);
    return 0;
}

static struct sl_prompt make(struct fixture *f, const char *text)
{
    struct sl_prompt p;
    struct sl_error err;

    assert_ok(sl_prompt_make(&p, f->t, &f->hp.text, text, strlen(text), &err),
              &err);
    return p;
}

static int32_t last(const struct sl_prompt *p)
{
    return p->ids.v[p->ids.n - 1];
}

static void a_text_without_a_mark_gets_gmask(void **state)
{
    struct fixture *f = *state;
    struct sl_prompt p = make(f, "In the");

    assert_string_equal(p.text, "In the [gMASK]");
    assert_int_equal(p.n_text, strlen(p.text));
    assert_int_equal(last(&p), f->hp.text.special.gmask);
    assert_int_equal(p.mask, f->hp.text.special.gmask);
    assert_true(p.gmask && p.english && sl_prompt_has_blank(&p));
    sl_prompt_fini(&p);
    p = make(f, "");
    assert_int_equal(p.ids.n, 1);
    assert_string_equal(p.text, " [gMASK]");
    sl_prompt_fini(&p);
}

static void the_kind_of_mark_is_mask_then_smask_then_gmask(void **state)
{
    struct fixture *f = *state;
    const struct {
        const char *text;
        int32_t mark;
        bool gmask;
    } cases[] = {
        {"a [gMASK] b [sMASK] c [MASK] d", f->hp.text.special.mask, false},
        {"a [gMASK] b [sMASK] c", f->hp.text.special.smask, false},
        {"a [gMASK] b", f->hp.text.special.gmask, true},
    };

    for (size_t i = 0; i < 3; i++) {
        struct sl_prompt p = make(f, cases[i].text);

        assert_int_equal(p.mask, cases[i].mark);
        assert_int_equal(p.gmask, cases[i].gmask);
        assert_string_equal(p.text, cases[i].text);
        sl_prompt_fini(&p);
    }
}

static void an_end_token_follows_unless_a_mark_ends_the_text(void **state)
{
    struct fixture *f = *state;
    struct sl_prompt p = make(f, "light [MASK]");

    assert_int_equal(last(&p), f->hp.text.special.mask);
    sl_prompt_fini(&p);
    p = make(f, "light [MASK].");
    assert_int_equal(last(&p), f->hp.text.special.eos);
    sl_prompt_fini(&p);
    p = make(f, "light [MASK] ");
    assert_int_equal(last(&p), f->hp.text.special.eos);
    sl_prompt_fini(&p);
}

static void a_mark_of_no_kind_is_plain_text(void **state)
{
    struct fixture *f = *state;
    struct sl_prompt p = make(f, "a [xMASK]"), q;

    assert_false(sl_prompt_has_blank(&p));
    assert_string_equal(p.text, "a [xMASK]");
    assert_int_not_equal(last(&p), f->hp.text.special.eos);
    q = make(f, "a [xMASK] b");
    assert_int_equal(last(&q), f->hp.text.special.eos);
    sl_prompt_fini(&p);
    sl_prompt_fini(&q);
}

static void chinese_is_not_english(void **state)
{
    struct prompt_case {
        const char *text;
        bool english;
    } cases[] = {{"abc", true}, {"\xe5\xba\x8a", false}};

    for (size_t i = 0; i < 2; i++) {
        struct sl_prompt p = make(*state, cases[i].text);

        assert_int_equal(p.english, cases[i].english);
        sl_prompt_fini(&p);
    }
}

/* BERT's vocabulary as GLM extends it: [PAD] 0 [UNK] 1 [CLS] 2 [SEP] 3 [MASK] 4
 * a 5 b 6 sop 7 eop 8, with task masks [gMASK] 9 [sMASK] 10. */
static struct sl_tokenizer *open_glm(struct sl_text_params *tp, bool task_mask)
{
    static const struct test_file files[] = {
        {"vocab.txt", NULL, "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\n"},
        {NULL}};
    struct sl_vocab_options o = {
        .family = SL_FAMILY_GLM,
        .glm_task_mask = task_mask,
    };
    struct sl_vocab_source source = {test_files_read, (void *)files};
    struct sl_vocab_made made;
    struct sl_error err;

    assert_ok(sl_vocab_compile(&made, &source, &o, &err), &err);
    *tp = made.text;
    return test_vocab_open(&made);
}

static void glm_begins_with_cls_and_fills_marks_of_every_kind(void **state)
{
    static const struct {
        const char *text, *shown;
        int32_t ids[8];
        size_t n;
        int32_t mask;
        enum sl_prompt_style style;
        bool task_mask;
    } cases[] = {
        {"a", "a [gMASK]", {2, 5, 9}, 3, 9, SL_STYLE_GLM, true},
        {"a", "a [MASK]", {2, 5, 4, 0}, 4, 4, SL_STYLE_GLM, false},
        {"a [MASK]", "a [MASK]", {2, 5, 4, 0}, 4, 4, SL_STYLE_GLM, true},
        {"a [MASK]", "a [MASK]", {2, 5, 4}, 3, 4, SL_STYLE_GLM_130B, true},
        {"[sMASK] a [MASK] b",
         "[sMASK] a [MASK] b",
         {2, 10, 5, 4, 6, 0},
         6,
         10,
         SL_STYLE_GLM,
         true},
        {"a [gMASK]", "a [gMASK]", {2, 5, 9}, 3, 9, SL_STYLE_GLM, true},
        {"a[SEP]b [gMASK] a",
         "a[SEP]b [gMASK] a",
         {2, 5, 3, 6, 9, 5, 0},
         7,
         9,
         SL_STYLE_GLM_130B,
         true},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sl_text_params tp;
        struct sl_tokenizer *t = open_glm(&tp, cases[i].task_mask);
        struct sl_prompt p;
        struct sl_error err;

        assert_ok(sl_prompt_make_glm(&p, t, &tp, cases[i].style, cases[i].text,
                                     strlen(cases[i].text), &err),
                  &err);
        assert_string_equal(p.text, cases[i].shown);
        assert_int_equal(p.ids.n, cases[i].n);
        assert_memory_equal(p.ids.v, cases[i].ids, p.ids.n * sizeof(int32_t));
        assert_int_equal(p.mask, cases[i].mask);
        assert_true(sl_prompt_has_blank(&p));
        assert_false(sl_prompt_fills(&p, 5));
        sl_prompt_fini(&p);
        sl_tokenizer_destroy(t);
    }
}

/* 你好 of the published vocabulary is 5 74874 130001 130004 (its tokenizer, sop
 * included); here the pieces are the demo's. */
static void chatglm_6b_has_gmask_behind_every_text(void **state)
{
    char path[1024];
    const struct test_file files[] = {
        {"ice_text.model", test_source(path, "demo/ice_text.model"), NULL},
        {NULL}};
    static const struct {
        const char *text, *mask; /* of the text's own */
        int n_gmask;             /* in it */
    } cases[] = {
        {"In the", NULL, 0},    {"In the [MASK] of", "[MASK]", 0},
        {"", NULL, 0},          {"床前\n明月光", NULL, 0},
        {"a[gMASK]b", NULL, 1},
    };
    struct sl_vocab_options o = {.family = SL_FAMILY_CHATGLM};
    struct sl_vocab_source source = {test_files_read, (void *)files};
    struct sl_vocab_made made;
    struct sl_text_params tp;
    struct sl_tokenizer *t;
    struct sl_error err;

    assert_ok(sl_vocab_compile(&made, &source, &o, &err), &err);
    tp = made.text;
    t = test_vocab_open(&made);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *text = cases[i].text;
        int32_t gmask = tp.special.gmask;
        struct sl_ids plain = {0};
        struct sl_prompt p;
        int n_gmask = 0, n_mask = 0;

        test_encode(t, &plain, text, strlen(text), true);
        assert_ok(sl_prompt_make_chatglm(&p, t, &tp, text, strlen(text), &err),
                  &err);
        assert_string_equal(p.text, text);
        assert_int_equal(p.ids.n, plain.n + (cases[i].n_gmask == 0));
        assert_memory_equal(p.ids.v, plain.v, plain.n * sizeof *plain.v);
        for (size_t k = 0; k < p.ids.n; k++) {
            n_gmask += p.ids.v[k] == gmask;
            n_mask += p.ids.v[k] == tp.special.mask;
        }
        assert_int_equal(n_gmask, 1);
        assert_int_equal(n_mask, cases[i].mask != NULL);
        if (cases[i].n_gmask == 0)
            assert_int_equal(last(&p), gmask);
        assert_int_equal(p.mask, gmask);
        assert_true(p.gmask && sl_prompt_has_blank(&p));
        assert_false(sl_prompt_fills(&p, tp.special.mask));
        sl_prompt_fini(&p);
        sl_ids_fini(&plain);
    }
    sl_tokenizer_destroy(t);
}

static void a_vocabulary_without_marks_fills_no_blanks(void **state)
{
    struct fixture *f = *state;
    struct sl_text_params tp = f->hp.text;
    struct sl_prompt p;
    struct sl_error err;

    tp.special.mask = tp.special.gmask = tp.special.smask = -1;
    assert_int_equal(
        sl_prompt_make_glm(&p, f->t, &tp, SL_STYLE_GLM, "a", 1, &err), -1);
    assert_int_equal(err.code, SL_ERR_UNSUPPORTED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_text_without_a_mark_gets_gmask),
        cmocka_unit_test(the_kind_of_mark_is_mask_then_smask_then_gmask),
        cmocka_unit_test(an_end_token_follows_unless_a_mark_ends_the_text),
        cmocka_unit_test(a_mark_of_no_kind_is_plain_text),
        cmocka_unit_test(chinese_is_not_english),
        cmocka_unit_test(glm_begins_with_cls_and_fills_marks_of_every_kind),
        cmocka_unit_test(chatglm_6b_has_gmask_behind_every_text),
        cmocka_unit_test(a_vocabulary_without_marks_fills_no_blanks),
    };

    return cmocka_run_group_tests(tests, open_fixture, close_fixture);
}
