#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/model/config_json.h"
#include "tests/support.h"

static int parse(struct sl_config *c, const char *text, struct sl_error *err)
{
    return sl_config_parse(c, text, strlen(text), "config.json", err);
}

static void finish(struct sl_hparams *hp, const char *text)
{
    struct sl_config c;
    struct sl_error err;

    assert_ok(parse(&c, text, &err), &err);
    assert_ok(sl_config_finish(hp, &sl_arch_glm130b, &c, &err), &err);
}

#define SIZES                                                                  \
    "\"num_layers\": 3, \"hidden_size\": 64, \"num_attention_heads\": 4, "     \
    "\"vocab_size\": 512, \"max_sequence_length\": 64"

static void the_demo_says_everything(void **state)
{
    char path[1024];
    struct sl_config c;
    struct sl_hparams hp;
    struct sl_error err;
    uint8_t *text;
    size_t n;

    assert_non_null(test_source(path, "demo/config.json"));
    text = test_read_file(path, &n);
    assert_ok(sl_config_parse(&c, (char *)text, n, path, &err), &err);
    assert_ok(sl_config_finish(&hp, &sl_arch_glm130b, &c, &err), &err);
    free(text);
    assert_int_equal(hp.n_layers, 8);
    assert_int_equal(hp.hidden, 256);
    assert_int_equal(hp.inner, 704);
    assert_int_equal(hp.n_heads, 8);
    assert_int_equal(hp.vocab, 8192);
    assert_int_equal(hp.max_positions, 512);
    assert_true(hp.norm_eps == 1e-5f);
    assert_false(hp.position_2d);
    assert_true(hp.glu);
    assert_int_equal(hp.rotary, SL_ROTARY_EXACT);
    assert_int_equal(hp.text.whitespace, SL_WHITESPACE_TOKENS);
    assert_int_equal(hp.text.n_image_tokens, 64);
    assert_int_equal(hp.text.max_blank, 80);
    assert_true(hp.text.byte_fallback);
    assert_int_equal(hp.text.special.mask, 7808);
    assert_int_equal(hp.text.special.dblock, 7815);
    assert_int_equal(hp.text.special.eos, 66);
    assert_int_equal(hp.text.special.unk, 64);
}

static void the_preset_is_glm_130b(void **state)
{
    struct sl_config c;
    struct sl_hparams hp;
    struct sl_error err;

    assert_ok(sl_config_preset(&c, "glm-130b", &err), &err);
    assert_ok(sl_config_finish(&hp, &sl_arch_glm130b, &c, &err), &err);
    assert_int_equal(hp.n_layers, 70);
    assert_int_equal(hp.hidden, 12288);
    assert_int_equal(hp.inner, 32768);
    assert_int_equal(hp.n_heads, 96);
    assert_int_equal(hp.vocab, 150528);
    assert_int_equal(hp.max_positions, 2048);
    assert_int_equal(hp.rotary, SL_ROTARY_F16);
    assert_int_equal(hp.text.whitespace, SL_WHITESPACE_COLLAPSE);
    assert_int_equal(hp.text.n_image_tokens, 20000);
    assert_int_equal(hp.text.max_blank, 0);
    assert_int_equal(hp.text.special.mask, 150000);
    assert_int_equal(hp.text.special.eop, 150005);
    assert_int_equal(hp.text.special.eos, 20002);
    assert_int_equal(sl_config_preset(&c, "glm-10b", &err), -1);
    assert_int_equal(err.code, SL_ERR_USAGE);
    assert_non_null(strstr(err.msg, "glm-130b"));
}

static void what_is_not_said_has_defaults(void **state)
{
    struct sl_hparams hp;

    finish(&hp, "{" SIZES "}");
    assert_int_equal(hp.inner, 256);
    assert_true(hp.norm_eps == 1e-5f);
    assert_true(hp.glu);
    assert_int_equal(hp.rotary, SL_ROTARY_EXACT);
    assert_int_equal(hp.text.whitespace, SL_WHITESPACE_COLLAPSE);
    assert_int_equal(hp.text.n_image_tokens, 0);
    assert_int_equal(hp.text.special.mask, -1);
    assert_int_equal(hp.text.special.unk, -1);
    finish(&hp, "{" SIZES ", \"max_blank_length\": 80, \"no_glu\": true, "
                "\"inner_hidden_size\": null}");
    assert_int_equal(hp.text.whitespace, SL_WHITESPACE_TOKENS);
    assert_false(hp.glu);
    assert_int_equal(hp.inner, 256);
    finish(&hp, "{" SIZES ", \"rotary_precision\": \"inv-freq-f16\", "
                "\"whitespace\": \"tokens\"}");
    assert_int_equal(hp.rotary, SL_ROTARY_INV_FREQ_F16);
    assert_int_equal(hp.text.whitespace, SL_WHITESPACE_TOKENS);
}

/* SAT writes nothing of the rotary table; these can only be its weights. */
static void a_sat_config_of_glm_130bs_size_is_glm_130b(void **state)
{
    struct sl_hparams hp;

    finish(&hp, "{\"num_layers\": 70, \"hidden_size\": 12288, "
                "\"inner_hidden_size\": 32768, \"num_attention_heads\": 96, "
                "\"vocab_size\": 150528, \"max_sequence_length\": 2048}");
    assert_int_equal(hp.rotary, SL_ROTARY_F16);
    assert_int_equal(hp.text.n_image_tokens, 20000);
}

static void arguments_may_be_nested(void **state)
{
    struct sl_hparams hp;

    finish(&hp, "{\"args\": {" SIZES "}, \"num_layers\": 5}");
    assert_int_equal(hp.n_layers, 5);
    assert_int_equal(hp.hidden, 64);
}

static void flags_win(void **state)
{
    struct sl_config c, flags;
    struct sl_hparams hp;
    struct sl_error err;

    assert_ok(parse(&c,
                    "{" SIZES ", \"layernorm_epsilon\": 0.001, "
                    "\"position_encoding_2d\": true}",
                    &err),
              &err);
    sl_config_init(&flags);
    flags.hp.n_layers = 9;
    flags.hp.rotary = SL_ROTARY_F16;
    flags.hp.vocab = 7; /* not marked */
    sl_config_mark(&flags, SL_CONFIG_LAYERS);
    sl_config_mark(&flags, SL_CONFIG_ROTARY);
    sl_config_overlay(&c, &flags);
    assert_ok(sl_config_finish(&hp, &sl_arch_glm130b, &c, &err), &err);
    assert_int_equal(hp.n_layers, 9);
    assert_int_equal(hp.rotary, SL_ROTARY_F16);
    assert_int_equal(hp.vocab, 512);
    assert_true(hp.norm_eps == 0.001f);
    assert_true(hp.position_2d);
}

static void what_is_missing_is_named_as_flags(void **state)
{
    struct sl_config c;
    struct sl_hparams hp;
    struct sl_error err;

    assert_ok(parse(&c, "{\"num_layers\": 3, \"vocab_size\": 512}", &err),
              &err);
    assert_int_equal(sl_config_finish(&hp, &sl_arch_glm130b, &c, &err), -1);
    assert_int_equal(err.code, SL_ERR_USAGE);
    assert_non_null(strstr(err.msg, "--hidden-size, --num-attention-heads, "
                                    "--max-sequence-length"));
    assert_null(strstr(err.msg, "--num-layers"));
    assert_non_null(strstr(err.msg, "--preset glm-130b"));
}

static void bad_files_are_refused(void **state)
{
    static const struct {
        const char *text, *word;
        enum sl_code code;
    } bad[] = {
        {"", "not JSON", SL_ERR_CORRUPT},
        {"{\"num_layers\": 3", "not JSON", SL_ERR_CORRUPT},
        {"[1]", "array", SL_ERR_CORRUPT},
        {"{\"num_layers\": \"3\"}", "num_layers is \"3\"", SL_ERR_CORRUPT},
        {"{\"num_layers\": 3.5}", "num_layers is 3.5", SL_ERR_CORRUPT},
        {"{\"num_layers\": -3}", "num_layers is -3", SL_ERR_CORRUPT},
        {"{\"vocab_size\": 99999999999}", "vocab_size", SL_ERR_CORRUPT},
        {"{\"layernorm_epsilon\": true}", "layernorm_epsilon is true",
         SL_ERR_CORRUPT},
        {"{\"no_glu\": 1}", "no_glu is 1", SL_ERR_CORRUPT},
        {"{\"rotary_precision\": \"half\"}", "inv-freq-f16", SL_ERR_CORRUPT},
        {"{\"whitespace\": 1}", "collapse", SL_ERR_CORRUPT},
        {"{\"special_tokens\": []}", "special_tokens", SL_ERR_CORRUPT},
        {"{\"special_tokens\": {\"[MASK]\": \"a\"}}", "[MASK]", SL_ERR_CORRUPT},
        {"{\"layernorm_order\": \"pre\"}", "\"pre\"", SL_ERR_UNSUPPORTED},
        {"{\"num_multi_query_heads\": 2}", "num_multi_query_heads is 2",
         SL_ERR_UNSUPPORTED},
    };
    struct sl_error err;
    struct sl_config c;

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        sl_config_init(&c);
        assert_int_equal(parse(&c, bad[i].text, &err), -1);
        assert_int_equal(err.code, bad[i].code);
        if (strstr(err.msg, bad[i].word) == NULL ||
            strstr(err.msg, "config.json") == NULL)
            fail_msg("%s: %s", bad[i].text, err.msg);
        assert_int_equal(c.given, 0);
    }
}

static void sizes_that_cannot_be_are_refused(void **state)
{
    static const char *const bad[] = {
        "{" SIZES ", \"inner_hidden_size\": 0}",
        "{" SIZES ", \"layernorm_epsilon\": 0}",
        "{" SIZES ", \"num_image_tokens\": 600}",
        "{" SIZES ", \"special_tokens\": {\"[MASK]\": 512}}",
        ("{\"num_layers\": 3, \"hidden_size\": 64, \"num_attention_heads\": 5, "
         "\"vocab_size\": 512, \"max_sequence_length\": 64}"),
    };
    struct sl_hparams hp;
    struct sl_error err;
    struct sl_config c;

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_ok(parse(&c, bad[i], &err), &err);
        assert_int_equal(sl_config_finish(&hp, &sl_arch_glm130b, &c, &err), -1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_demo_says_everything),
        cmocka_unit_test(the_preset_is_glm_130b),
        cmocka_unit_test(what_is_not_said_has_defaults),
        cmocka_unit_test(a_sat_config_of_glm_130bs_size_is_glm_130b),
        cmocka_unit_test(arguments_may_be_nested),
        cmocka_unit_test(flags_win),
        cmocka_unit_test(what_is_missing_is_named_as_flags),
        cmocka_unit_test(bad_files_are_refused),
        cmocka_unit_test(sizes_that_cannot_be_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
