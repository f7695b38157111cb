#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "src/text/prompt.h"
#include "src/text/tokenizer.h"
#include "tests/support.h"
#include "tests/tokens.h"

/* demo/golden.json: ids and texts computed by reference.py beside it. */

struct fixture {
    json_t *golden;
    struct sl_hparams hp;
    struct sl_tokenizer *t;
};

static int open_fixture(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    char path[1024];

    assert_non_null(f);
    f->golden = test_json(test_source(path, "demo/golden.json"));
    f->t = test_demo_tokenizer(&f->hp);
    *state = f;
    return 0;
}

static int close_fixture(void **state)
{
    struct fixture *f = *state;

    json_decref(f->golden);
    sl_tokenizer_destroy(f->t);
    free(f);
    return 0;
}

static void check_prompt(struct fixture *f, json_t *c)
{
    json_t *want = json_object_get(c, "prompt_ids");
    const char *text = json_string_value(json_object_get(c, "text"));
    json_t *gmask = json_object_get(c, "use_gmask");
    struct sl_prompt p;
    struct sl_error err;

    assert_ok(sl_prompt_make(&p, f->t, &f->hp.text, text, strlen(text), &err),
              &err);
    assert_int_equal(json_array_size(want), p.ids.n);
    for (size_t i = 0; i < p.ids.n; i++)
        assert_int_equal(json_integer_value(json_array_get(want, i)),
                         p.ids.v[i]);
    if (gmask != NULL)
        assert_int_equal(p.gmask, json_is_true(gmask));
    sl_prompt_fini(&p);
}

static void prompts_encode_to_the_reference_ids(void **state)
{
    struct fixture *f = *state;
    json_t *c;
    size_t i;

    json_array_foreach(json_object_get(f->golden, "greedy"), i, c)
        check_prompt(f, c);
    assert_int_equal(i, 28);
    json_array_foreach(json_object_get(f->golden, "beam_search"), i, c)
        check_prompt(f, c);
    assert_int_equal(i, 7);
}

static void check_answer(struct fixture *f, json_t *ids_json, const char *want)
{
    struct sl_error err;
    struct sl_ids ids = {0};
    char *text;

    test_json_ids(&ids, ids_json);
    if (ids.n > 0 && ids.v[ids.n - 1] == f->hp.text.special.eos)
        ids.n--;
    assert_ok(sl_tokenizer_decode(f->t, ids.v, ids.n, &text, &err), &err);
    assert_string_equal(text, want);
    free(text);
    test_stream_equals(f->t, ids.v, ids.n, want, strlen(want));
    sl_ids_fini(&ids);
}

static void answers_decode_to_the_reference_texts(void **state)
{
    struct fixture *f = *state;
    json_t *c;
    size_t i;

    json_array_foreach(json_object_get(f->golden, "greedy"), i, c)
        check_answer(f, json_object_get(c, "output_ids"),
                     json_string_value(json_object_get(c, "answer")));
    assert_int_equal(i, 28);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prompts_encode_to_the_reference_ids),
        cmocka_unit_test(answers_decode_to_the_reference_texts),
    };

    return cmocka_run_group_tests(tests, open_fixture, close_fixture);
}
