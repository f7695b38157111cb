#include "config.h"

#include <string.h>

#include "src/decode/json_form.h"
#include "tests/support.h"

#define OBJECT                                                                 \
    "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\"},"     \
    "\"age\":{\"type\":\"integer\"},\"kind\":{\"enum\":[\"cat\",\"car\",1,12," \
    "null]},\"tags\":{\"type\":\"array\",\"items\":{\"type\":\"string\"}}},"   \
    "\"required\":[\"name\",\"kind\"],\"additionalProperties\":false}"

static struct sl_json_form *form_of(const char *schema)
{
    struct sl_json_form *f = NULL;
    struct sl_error err;
    json_t *v = NULL;

    if (schema != NULL) {
        v = json_loads(schema, JSON_DECODE_ANY, NULL);
        assert_non_null(v);
    }
    assert_ok(sl_json_form_create(&f, v, &err), &err);
    json_decref(v);
    return f;
}

/* Bytes that go; all of them and an end: n + 1. */
static size_t goes(const struct sl_json_form *f, const char *text)
{
    struct sl_json_state s;
    size_t n = strlen(text);

    sl_json_state_init(&s, f);
    for (size_t i = 0; i < n; i++) {
        if (!sl_json_state_push(&s, f, (uint8_t)text[i]))
            return i;
    }
    return n + sl_json_state_may_end(&s, f);
}

static void what_the_schema_says_goes(void **state)
{
    static const struct {
        const char *schema, *text;
    } cases[] = {
        {NULL, "{}"},
        {NULL,
         "{\"a\": [1, 2.5e-3, {\"b\": null}, true, \"\\u00e9\xc3\xa9\"]}"},
        {NULL, " {\n \"a\" : -0 }"},
        {OBJECT, "{\"name\":\"x\",\"kind\":\"cat\"}"},
        {OBJECT, "{\"name\":\"x\",\"age\":3,\"kind\":12,\"tags\":[]}"},
        {OBJECT, "{ \"name\" : \"\" , \"kind\" : null , \"tags\" : [ \"a\" , "
                 "\"b\" ] }"},
        {"{\"type\":\"integer\"}", "-12"},
        {"{\"type\":[\"integer\",\"null\"]}", "null"},
        {"{\"type\":\"number\"}", "0.5e+9"},
        {"{\"type\":\"boolean\"}", "false"},
        {"{\"const\":{\"a\":[1]}}", "{\"a\":[1]}"},
        {"{\"type\":\"array\"}", "[{\"x\":[]},[[]],\"\"]"},
        {"{\"type\":\"array\",\"items\":{\"type\":\"array\",\"items\":"
         "{\"type\":\"number\"}}}",
         "[[1,2],[],[3]]"},
        {"{\"enum\":[1,12,123]}", "12"},
        {"true", "\"anything\""},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sl_json_form *f = form_of(cases[i].schema);

        assert_int_equal(goes(f, cases[i].text), strlen(cases[i].text) + 1);
        sl_json_form_destroy(f);
    }
}

static void what_it_does_not_say_stops_at_its_first_byte(void **state)
{
    static const struct {
        const char *schema, *text;
        size_t at;
    } cases[] = {
        {NULL, "[", 0},
        {NULL, "{\"a\":01}", 6},
        {NULL, "{\"a\":1,}", 7},
        {NULL, "{,", 1},
        {NULL, "{\"a\" 1", 5},
        {NULL, "{\"a\":tru}", 8},
        {NULL, "{\"\n", 2},
        {NULL, "{\"\\x", 3},
        {NULL, "{\"\xff", 2},
        {NULL, "{}}", 2},
        {OBJECT, "{}", 1},
        {OBJECT, "{\"age", 2},
        {OBJECT, "{\"name\":3", 8},
        {OBJECT, "{\"name\":\"x\"}", 11},
        {OBJECT, "{\"name\":\"x\",\"kind\":\"cab", 22},
        {OBJECT, "{\"name\":\"x\",\"kind\":13", 20},
        {OBJECT, "{\"name\":\"x\",\"tags\"", 13},
        {OBJECT, "{\"name\":\"x\",\"age\":1.", 19},
        {OBJECT, "{\"name\":\"x\",\"kind\":1,\"name", 22},
        {OBJECT, "{\"name\":\"x\",\"kind\":1,\"tags\":[1", 29},
        {OBJECT, "{\"name\":\"x\",\"kind\":1,\"tags\":[],", 30},
        {"{\"type\":\"integer\"}", "null", 0},
        {"{\"type\":\"integer\"}", "1e", 1},
        {"{\"const\":\"a\"}", "\"ab", 2},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sl_json_form *f = form_of(cases[i].schema);

        if (goes(f, cases[i].text) != cases[i].at)
            fail_msg("%s stops at %zu, not %zu", cases[i].text,
                     goes(f, cases[i].text), cases[i].at);
        sl_json_form_destroy(f);
    }
}

static void what_is_not_complete_may_not_end(void **state)
{
    static const char *const texts[] = {"", "{", "{\"a\"", "{\"a\":1", " "};
    struct sl_json_form *f = form_of(NULL);

    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        assert_int_equal(goes(f, texts[i]), strlen(texts[i]));
    sl_json_form_destroy(f);
}

/* Walks at random and hears what a parser thinks of the end. */
static void all_that_goes_is_json(void **state)
{
    static const char *const schemas[] = {NULL, OBJECT};
    uint32_t x = 1;

    for (int round = 0; round < 400; round++) {
        struct sl_json_form *f = form_of(schemas[round % 2]);
        struct sl_json_state s;
        char text[4096];
        size_t n = 0;

        sl_json_state_init(&s, f);
        while (!sl_json_state_is_over(&s) && n < sizeof text - 1) {
            static const char likely[] = "}]\"\":,}]\"01tfn{[ ae";
            struct sl_json_state next = s;
            uint8_t c;

            x = x * 1664525 + 1013904223;
            c = (x >> 9) % 3 ? (uint8_t)likely[(x >> 16) % (sizeof likely - 1)]
                             : (uint8_t)(0x20 + (x >> 16) % 95);
            if (!sl_json_state_push(&next, f, c))
                continue;
            s = next;
            text[n++] = (char)c;
        }
        if (sl_json_state_is_over(&s)) {
            json_error_t why;
            json_t *v = json_loadb(text, n, JSON_DECODE_ANY, &why);

            text[n] = '\0';
            if (v == NULL)
                fail_msg("%s: %s", text, why.text);
            json_decref(v);
        }
        sl_json_form_destroy(f);
    }
}

static void keywords_that_are_not_kept_to_are_refused_by_name(void **state)
{
    static const struct {
        const char *schema, *what;
    } cases[] = {
        {"{\"anyOf\":[]}", "'anyOf'"},
        {"{\"type\":\"string\",\"pattern\":\"a\"}", "'pattern'"},
        {"{\"properties\":{\"a\":{\"minimum\":1}}}", "'minimum'"},
        {"{\"type\":\"thing\"}", "'type'"},
        {"{\"required\":[\"a\"]}", "'required'"},
        {"{\"enum\":[]}", "'enum'"},
        {"{\"additionalProperties\":true}", "'additionalProperties'"},
        {"3", "an object"},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *v = json_loads(cases[i].schema, JSON_DECODE_ANY, NULL);
        struct sl_json_form *f;
        struct sl_error err;

        assert_int_equal(sl_json_form_create(&f, v, &err), -1);
        assert_int_equal(err.code, SL_ERR_USAGE);
        assert_non_null(strstr(err.msg, cases[i].what));
        json_decref(v);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_the_schema_says_goes),
        cmocka_unit_test(what_it_does_not_say_stops_at_its_first_byte),
        cmocka_unit_test(what_is_not_complete_may_not_end),
        cmocka_unit_test(all_that_goes_is_json),
        cmocka_unit_test(keywords_that_are_not_kept_to_are_refused_by_name),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
