#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/arch/sampling.h"
#include "src/arch/settings.h"
#include "src/base/json.h"
#include "tests/support.h"

static struct sl_settings *parse(const char *text)
{
    struct sl_settings *s = NULL;
    struct sl_error err;

    assert_ok(sl_settings_parse(&s, text, strlen(text), "config.json", &err),
              &err);
    return s;
}

static void check_failed(int rc, const struct sl_error *err, enum sl_code code,
                         const char *says)
{
    assert_int_equal(rc, -1);
    if (strstr(err->msg, says) == NULL)
        print_error("%s\n(should say: %s)\n", err->msg, says);
    assert_non_null(strstr(err->msg, says));
    assert_int_equal(err->code, code);
}

static void settings_are_found_by_any_of_their_names(void **state)
{
    struct sl_settings *s =
        parse("{\"num_layers\": 28, \"rope_theta\": 10000, \"eps\": 1.5625e-07,"
              " \"rope_parameters\": {\"rope_theta\": 500000.5, \"deep\": "
              "{\"x\": true}}, \"hidden_act\": \"silu\", \"nothing\": null}");
    struct sl_error err;
    const char *text = NULL;
    uint32_t n = 0;
    bool yes = false;
    double x = 0;

    assert_ok(sl_settings_u32(&n, s, "num_hidden_layers|num_layers",
                              SL_SETTING_REQUIRED, &err),
              &err);
    assert_int_equal(n, 28);
    assert_ok(sl_settings_f64(&x, s, "rope_parameters.rope_theta|rope_theta",
                              SL_SETTING_REQUIRED, &err),
              &err);
    assert_true(x == 500000.5);
    assert_ok(sl_settings_f64(&x, s, "rope_theta", SL_SETTING_REQUIRED, &err),
              &err);
    assert_true(x == 10000);
    assert_ok(sl_settings_bool(&yes, s, "none.x|rope_parameters.deep.x",
                               SL_SETTING_REQUIRED, &err),
              &err);
    assert_true(yes);
    assert_ok(
        sl_settings_string(&text, s, "hidden_act", SL_SETTING_REQUIRED, &err),
        &err);
    assert_string_equal(text, "silu");
    assert_true(sl_settings_has(s, "rope_parameters"));
    assert_false(sl_settings_has(s, "nothing"));
    assert_false(sl_settings_has(s, "nothing.x|num_layers.x|x"));
    assert_true(sl_settings_null(s, "nothing"));
    assert_false(sl_settings_null(s, "nothing.x"));
    assert_false(sl_settings_null(s, "num_layers"));
    assert_false(sl_settings_null(s, "none"));
    assert_string_equal(sl_settings_architecture(s), "");
    assert_string_equal(sl_settings_model_type(s), "");
    assert_string_equal(sl_settings_file(s), "config.json");
    sl_settings_close(s);
}

static void what_is_not_said_leaves_the_default(void **state)
{
    struct sl_settings *s = parse("{\"a\": null, \"b\": {}}");
    struct sl_error err;
    const char *text = "as it was";
    uint32_t n = 5;
    bool yes = true;
    double x = 2.5;

    assert_ok(sl_settings_u32(&n, s, "a|b.c", SL_SETTING_OPTIONAL, &err), &err);
    assert_ok(sl_settings_f64(&x, s, "a", SL_SETTING_OPTIONAL, &err), &err);
    assert_ok(sl_settings_bool(&yes, s, "a", SL_SETTING_OPTIONAL, &err), &err);
    assert_ok(sl_settings_string(&text, s, "a", SL_SETTING_OPTIONAL, &err),
              &err);
    assert_int_equal(n, 5);
    assert_true(x == 2.5);
    assert_true(yes);
    assert_string_equal(text, "as it was");
    check_failed(sl_settings_u32(&n, s, "a|b.c", SL_SETTING_REQUIRED, &err),
                 &err, SL_ERR_CORRUPT, "config.json: does not say a|b.c");
    assert_int_equal(n, 5);
    sl_settings_close(s);
}

enum type { U32, F64, BOOL, STRING };

static int get(enum type type, const struct sl_settings *s, const char *keys,
               struct sl_error *err)
{
    const char *text;
    double x;
    uint32_t n;
    bool yes;

    switch (type) {
    case U32:
        return sl_settings_u32(&n, s, keys, SL_SETTING_OPTIONAL, err);
    case F64:
        return sl_settings_f64(&x, s, keys, SL_SETTING_OPTIONAL, err);
    case BOOL:
        return sl_settings_bool(&yes, s, keys, SL_SETTING_OPTIONAL, err);
    default:
        return sl_settings_string(&text, s, keys, SL_SETTING_OPTIONAL, err);
    }
}

static void a_value_of_another_type_is_named(void **state)
{
    static const struct {
        enum type type;
        const char *value, *says;
    } bad[] = {
        {U32, "\"x\"", "k is \"x\"; a whole number from 0 to 2147483647 is"},
        {U32, "-1", "k is -1; a whole number"},
        {U32, "1.0", "k is 1.0; a whole number"},
        {U32, "2147483648", "k is 2147483648; a whole number"},
        {U32, "true", "k is true; a whole number"},
        {U32, "[1]", "k is [1]; a whole number"},
        {F64, "\"1e-5\"", "k is \"1e-5\"; a number is expected"},
        {F64, "{}", "k is {}; a number is expected"},
        {BOOL, "1", "k is 1; true or false is expected"},
        {BOOL, "\"true\"", "k is \"true\"; true or false is expected"},
        {STRING, "3", "k is 3; a string is expected"},
    };
    struct sl_error err;
    char text[128];

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct sl_settings *s;

        snprintf(text, sizeof text, "{\"k\": %s}", bad[i].value);
        s = parse(text);
        check_failed(get(bad[i].type, s, "j|k", &err), &err, SL_ERR_CORRUPT,
                     bad[i].says);
        assert_ptr_equal(strstr(err.msg, "config.json: "), err.msg);
        sl_settings_close(s);
    }
}

static void sampling_is_read_as_its_publisher_says_it(void **state)
{
    static const struct {
        const char *text;
        struct sl_sampling is;
    } good[] = {
        {"{}", {0}},
        {"{\"eos_token_id\": 2, \"temperature\": null}", {0}},
        {"{\"do_sample\": true, \"temperature\": 0.6, \"top_p\": 0.95}",
         {.given = SL_SAMPLING_TEMPERATURE | SL_SAMPLING_TOP_P,
          .temperature = 0.6,
          .top_p = 0.95}},
        {"{\"top_k\": 20, \"repetition_penalty\": 1.05}",
         {.given = SL_SAMPLING_TOP_K | SL_SAMPLING_PENALTY,
          .top_k = 20,
          .penalty = 1.05}},
        {"{\"top_k\": 0}", {.given = SL_SAMPLING_TOP_K}},
        {"{\"top_k\": -1}", {.given = SL_SAMPLING_TOP_K}},
        {"{\"do_sample\": false, \"top_k\": 50}",
         {.given = SL_SAMPLING_TOP_K, .top_k = 1}},
        {"{\"do_sample\": true, \"temperature\": 0}",
         {.given = SL_SAMPLING_TOP_K, .top_k = 1}},
    };
    static const struct {
        const char *text, *says;
    } bad[] = {
        {"{\"temperature\": -1}", "config.json: temperature is -1"},
        {"{\"temperature\": \"hot\"}", "temperature is \"hot\""},
        {"{\"top_p\": 1.5}", "top_p is 1.5; 0 to 1"},
        {"{\"top_k\": -2}", "top_k is -2"},
        {"{\"top_k\": 1.5}", "top_k is 1.5"},
        {"{\"repetition_penalty\": 0}", "repetition_penalty is 0"},
        {"{\"do_sample\": \"yes\"}", "do_sample is \"yes\""},
    };
    struct sl_sampling is;
    struct sl_error err;

    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        struct sl_settings *s = parse(good[i].text);

        assert_ok(sl_sampling_configure(&is, s, &err), &err);
        assert_int_equal(is.given, good[i].is.given);
        assert_int_equal(is.top_k, good[i].is.top_k);
        assert_true(is.temperature == good[i].is.temperature);
        assert_true(is.top_p == good[i].is.top_p);
        assert_true(is.penalty == good[i].is.penalty);
        sl_settings_close(s);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct sl_settings *s = parse(bad[i].text);

        check_failed(sl_sampling_configure(&is, s, &err), &err, SL_ERR_CORRUPT,
                     bad[i].says);
        sl_settings_close(s);
    }
}

static void foreign_quantisation_is_refused_by_name(void **state)
{
    static const char *const methods[] = {
        "fp8", "gptq", "awq", "bitsandbytes", "compressed-tensors",
    };
    struct sl_settings *s;
    struct sl_error err;
    char text[160];

    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
        snprintf(text, sizeof text,
                 "{\"quantization_config\": {\"quant_method\": \"%s\"}}",
                 methods[i]);
        s = parse(text);
        check_failed(sl_settings_check_quantised(s, &err), &err,
                     SL_ERR_UNSUPPORTED, methods[i]);
        sl_settings_close(s);
    }
    s = parse("{\"quantization_config\": {\"bits\": 4}}");
    check_failed(sl_settings_check_quantised(s, &err), &err, SL_ERR_UNSUPPORTED,
                 "an unnamed scheme");
    sl_settings_close(s);
    s = parse("{\"quantization_config\": null, \"quantization_bit\": 4, "
              "\"architectures\": [\"A\", \"B\"], \"model_type\": \"m\"}");
    assert_ok(sl_settings_check_quantised(s, &err), &err);
    assert_string_equal(sl_settings_architecture(s), "A");
    assert_string_equal(sl_settings_model_type(s), "m");
    sl_settings_close(s);
}

static void what_is_no_object_is_refused(void **state)
{
    static const struct {
        const char *text, *says;
    } bad[] = {
        {"", "config.json:1:0: not JSON"},
        {"[1]", "config.json: holds an array; an object is expected"},
        {"null", "config.json"},
        {"{\"a\": 1", "config.json:1:7: not JSON"},
        {"{\"a\": 1} {", "not JSON: end of file expected"},
        {"{\"a\": 1, \"a\": 2}", "not JSON: duplicate object key"},
        {"{\"a\": NaN}", "not JSON"},
        {"{\"a\": 1e999}", "not JSON"},
        {"{\"a\": \"\x1b[31m\"}", "not JSON"},
        {"{\"a\": \"\xff\"}", "not JSON"},
        {"{\"a\\u0000b\": 1}", "not JSON"},
    };
    struct sl_settings *s = NULL;
    struct sl_error err;

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        int rc = sl_settings_parse(&s, bad[i].text, strlen(bad[i].text),
                                   "config.json", &err);

        check_failed(rc, &err, SL_ERR_CORRUPT, bad[i].says);
        assert_null(strchr(err.msg, '\x1b'));
    }
    assert_null(s);
}

static void depth_and_size_are_limited_before_parsing(void **state)
{
    enum { DEEP = 100000, MANY = SL_JSON_VALUES + 1 };
    char *text = malloc(2 * (size_t)MANY + 2);
    struct sl_error err;
    json_t *root;

    assert_non_null(text);
    memset(text, '[', DEEP);
    check_failed(sl_json_parse(&root, text, DEEP, "f", &err), &err,
                 SL_ERR_CORRUPT, "deeper than 32 at offset 32");
    for (size_t depth = SL_JSON_DEPTH; depth <= SL_JSON_DEPTH + 1; depth++) {
        int rc;

        memset(text, '[', depth);
        memset(text + depth, ']', depth);
        rc = sl_json_parse(&root, text, 2 * depth, "f", &err);
        assert_int_equal(rc, depth > SL_JSON_DEPTH ? -1 : 0);
        if (rc == 0)
            json_decref(root);
    }
    text[0] = '[';
    for (size_t i = 0; i < MANY; i++)
        memcpy(text + 1 + 2 * i, "0,", 2);
    check_failed(sl_json_parse(&root, text, 2 * (size_t)MANY, "f", &err), &err,
                 SL_ERR_UNSUPPORTED, "more than 4194304 values");
    /* Brackets in a string, behind an escaped quote, are text. */
    memcpy(text, "[\"\\\"", 4);
    memset(text + 4, '[', 100);
    memcpy(text + 104, "\"]", 2);
    assert_ok(sl_json_parse(&root, text, 106, "f", &err), &err);
    json_decref(root);
    free(text);
}

static void files_are_opened_or_refused_by_name(void **state)
{
    char dir[1024], path[1200];
    struct sl_settings *s = NULL;
    struct sl_error err;
    FILE *f;

    test_temp_dir(dir);
    check_failed(sl_settings_open(&s, dir, &err), &err, SL_ERR_IO, dir);
    snprintf(path, sizeof path, "%s/config.json", dir);
    check_failed(sl_settings_open(&s, path, &err), &err, SL_ERR_IO,
                 "No such file");
    f = fopen(path, "w");
    assert_non_null(f);
    fputs("{\"hidden_size\": 4096}", f);
    assert_int_equal(fclose(f), 0);
    assert_ok(sl_settings_open(&s, path, &err), &err);
    assert_string_equal(sl_settings_file(s), path);
    assert_true(sl_settings_has(s, "hidden_size"));
    sl_settings_close(s);
    test_remove_tree(dir);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(settings_are_found_by_any_of_their_names),
        cmocka_unit_test(what_is_not_said_leaves_the_default),
        cmocka_unit_test(a_value_of_another_type_is_named),
        cmocka_unit_test(sampling_is_read_as_its_publisher_says_it),
        cmocka_unit_test(foreign_quantisation_is_refused_by_name),
        cmocka_unit_test(what_is_no_object_is_refused),
        cmocka_unit_test(depth_and_size_are_limited_before_parsing),
        cmocka_unit_test(files_are_opened_or_refused_by_name),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
