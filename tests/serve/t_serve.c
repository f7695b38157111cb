#include "config.h"

#include <string.h>

#include "src/serve/body.h"
#include "src/serve/calls.h"
#include "src/text/stopper.h"
#include "tests/support.h"

/* --- stop texts -------------------------------------------------------------
 */

static void a_stop_is_found_however_the_text_is_cut(void **state)
{
    static const struct {
        const char *stops[3], *text, *out, *found;
    } cases[] = {
        {{"END"}, "one END two", "one ", "END"},
        {{"END"}, "one EN", "one EN", NULL},
        {{"aab"}, "aaab", "a", "aab"},
        {{"ab", "abc"}, "xabc", "x", "abc"},
        {{"bc", "ab"}, "xabc", "x", "ab"},
        {{"\n\n"}, "a\nb\n\nc", "a\nb", "\n\n"},
        {{"zz"}, "", "", NULL},
    };
    struct sl_error err;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        for (size_t piece = 1; piece < 6; piece++) {
            struct sl_stops stops = {0};
            struct sl_stopper st = {.stops = &stops};
            struct sl_str out = {0};
            size_t n = strlen(cases[i].text);

            for (; cases[i].stops[stops.n] != NULL; stops.n++)
                stops.v[stops.n] = strdup(cases[i].stops[stops.n]);
            for (size_t at = 0; at < n; at += piece)
                assert_ok(sl_stopper_push(&st, &out, cases[i].text + at,
                                          n - at < piece ? n - at : piece,
                                          false, &err),
                          &err);
            assert_ok(sl_stopper_push(&st, &out, "", 0, true, &err), &err);
            assert_string_equal(sl_str_text(&out), cases[i].out);
            if (cases[i].found == NULL)
                assert_null(st.found);
            else if (piece >= 4 || cases[i].stops[1] == NULL)
                assert_string_equal(st.found, cases[i].found);
            sl_stopper_fini(&st);
            sl_stops_fini(&stops);
            sl_str_fini(&out);
        }
    }
}

/* --- calls of tools ---------------------------------------------------------
 */

#define TOOL                                                                   \
    "[{\"type\":\"function\",\"function\":{\"name\":\"sum\",\"parameters\":{"  \
    "\"properties\":{\"a\":{\"type\":\"number\"},\"s\":{\"type\":\"string\"}}" \
    "}}}]"

static void calls_are_read_in_each_form(void **state)
{
    static const struct {
        enum sl_chat_tools kind;
        const char *said, *content, *arguments;
    } cases[] = {
        {SL_TOOLS_QWEN,
         "Let me see. <tool_call>\n{\"name\": \"sum\", \"arguments\": "
         "{\"a\": 1}}\n</tool_call>",
         "Let me see. ", "{\"a\":1}"},
        {SL_TOOLS_QWEN, "<tool_call>no json</tool_call>",
         "<tool_call>no json</tool_call>", NULL},
        {SL_TOOLS_QWEN, "a <tool_cal", "a <tool_cal", NULL},
        {SL_TOOLS_GLM45,
         "<tool_call>sum\n<arg_key>a</arg_key>\n<arg_value>2</arg_value>\n"
         "<arg_key>s</arg_key>\n<arg_value>3</arg_value>\n</tool_call>",
         "", "{\"a\":2,\"s\":\"3\"}"},
        {SL_TOOLS_GLM4, "sum\n{\"a\": 5}", "", "{\"a\":5}"},
        {SL_TOOLS_GLM4, "other\n{\"a\": 5}", "other\n{\"a\": 5}", NULL},
        {SL_TOOLS_CHATGLM3, "sum\n```python\ntool_call(a=1.5, s='x, y')\n```",
         "", "{\"a\":1.5,\"s\":\"x, y\"}"},
        {SL_TOOLS_CHATGLM3, "plain words", "plain words", NULL},
    };
    struct sl_error err;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        for (size_t piece = 1; piece < 64; piece += 9) {
            struct sl_call_reader r = {
                .kind = cases[i].kind,
                .tools = json_loads(TOOL, 0, NULL),
            };
            struct sl_str out = {0};
            json_t *calls = NULL, *f;
            size_t n = strlen(cases[i].said);

            for (size_t at = 0; at < n; at += piece)
                assert_ok(sl_call_reader_push(&r, &out, cases[i].said + at,
                                              n - at < piece ? n - at : piece,
                                              &err),
                          &err);
            assert_ok(sl_call_reader_end(&r, &out, &calls, &err), &err);
            assert_string_equal(sl_str_text(&out), cases[i].content);
            assert_int_equal(json_array_size(calls),
                             cases[i].arguments != NULL);
            f = json_object_get(json_array_get(calls, 0), "function");
            if (f != NULL)
                assert_string_equal(
                    json_string_value(json_object_get(f, "arguments")),
                    cases[i].arguments);
            json_decref(calls);
            sl_call_reader_fini(&r);
            sl_str_fini(&out);
        }
    }
}

/* --- bodies -----------------------------------------------------------------
 */

static void a_body_is_read_strictly(void **state)
{
    static const char *const bad[] = {
        "",  "{",        "[]",  "{\"a\":1,\"a\":2}", "{\"a\":1} x",
        "3", "{\"a\":}", "nul", "\xff\xfe",
    };
    static const char good[] =
        "{\"n\":3,\"f\":2.0,\"x\":null,\"s\":\"t\",\"h\":1.5}";
    struct sl_refusal why;
    json_t *root = NULL;
    int64_t v = 7;
    double d = 1;

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(sl_body_parse(&root, bad[i], strlen(bad[i]), &why),
                         -1);
        assert_int_equal(why.status, 400);
        assert_null(root);
    }
    assert_int_equal(sl_body_parse(&root, good, strlen(good), &why), 0);
    assert_int_equal(sl_body_int(&v, root, "n", 0, 5, &why), 0);
    assert_int_equal(v, 3);
    assert_int_equal(sl_body_int(&v, root, "f", 0, 5, &why), 0);
    assert_int_equal(v, 2);
    assert_int_equal(sl_body_int(&v, root, "x", 0, 5, &why), 0);
    assert_int_equal(sl_body_int(&v, root, "none", 0, 5, &why), 0);
    assert_int_equal(v, 2);
    assert_int_equal(sl_body_int(&v, root, "n", 0, 2, &why), -1);
    assert_string_equal(why.field, "n");
    assert_int_equal(sl_body_int(&v, root, "h", 0, 2, &why), -1);
    assert_int_equal(sl_body_int(&v, root, "s", 0, 2, &why), -1);
    assert_int_equal(sl_body_real(&d, root, "h", 0, 2, &why), 0);
    assert_true(d == 1.5);
    json_decref(root);
}

static void a_body_that_nests_or_lists_too_much_is_refused(void **state)
{
    struct sl_refusal why;
    struct sl_error err;
    struct sl_str text = {0};
    json_t *root = NULL;

    for (int i = 0; i < 100; i++)
        assert_ok(sl_str_add(&text, "[", &err), &err);
    assert_int_equal(sl_body_parse(&root, text.s, text.n, &why), -1);
    assert_int_equal(why.status, 400);
    sl_str_clear(&text);
    for (uint32_t i = 0; i <= 2 * SL_BODY_VALUES; i++)
        assert_ok(sl_str_add(&text, ",", &err), &err);
    assert_int_equal(sl_body_parse(&root, text.s, text.n, &why), -1);
    assert_int_equal(why.status, 413);
    sl_str_fini(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stop_is_found_however_the_text_is_cut),
        cmocka_unit_test(calls_are_read_in_each_form),
        cmocka_unit_test(a_body_is_read_strictly),
        cmocka_unit_test(a_body_that_nests_or_lists_too_much_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
