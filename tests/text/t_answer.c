#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/lines.h"
#include "src/text/answer.h"
#include "tests/support.h"

struct heard {
    struct sl_str content, reasoning;
};

static int listen(void *opaque, bool thinking, const char *text, size_t n,
                  struct sl_error *err)
{
    struct heard *h = opaque;

    return sl_str_append(thinking ? &h->reasoning : &h->content, text, n, err);
}

/* The text of one go, or cut after every so many characters; what is heard on
 * the way must be what there is at the end. */
static void check(const char *name, bool thinking, const char *text,
                  const char *content, const char *reasoning, size_t cut)
{
    struct heard h = {{0}, {0}};
    const struct sl_answer_sink sink = {listen, &h};
    struct sl_answer a;
    struct sl_error err;
    size_t n = strlen(text);

    sl_answer_begin(&a, sl_chat_template_named(name), thinking, &sink);
    for (size_t i = 0, size; i < n; i += size) {
        size = cut > 0 ? sl_utf8_prefix(text + i, n - i, cut) : n;
        assert_ok(sl_answer_push(&a, text + i, size, &err), &err);
    }
    assert_ok(sl_answer_end(&a, &err), &err);
    assert_string_equal(sl_str_text(&a.content), content);
    assert_string_equal(sl_str_text(&a.reasoning), reasoning);
    assert_string_equal(sl_str_text(&h.content), content);
    assert_string_equal(sl_str_text(&h.reasoning), reasoning);
    sl_answer_fini(&a);
    sl_str_fini(&h.content);
    sl_str_fini(&h.reasoning);
}

static void check_cuts(const char *name, bool thinking, const char *text,
                       const char *content, const char *reasoning)
{
    for (size_t cut = 0; cut < 6; cut++)
        check(name, thinking, text, content, reasoning, cut);
}

/* Expected by Python: process_response of ChatGLM-6B's modeling code. */
static void chatglm_6b_speaks_chinese_punctuation(void **state)
{
    static const struct {
        const char *text, *want;
    } cases[] = {
        {"", ""},
        {" \n ", ""},
        {" 你好,世界!\n", "你好，世界！"},
        {"你好, world", "你好， world"},
        {"Hello, 世界", "Hello, 世界"},
        {"Hello,世界", "Hello，世界"},
        {"Hello, world! Yes: no; a?", "Hello, world! Yes: no; a?"},
        {"你,,,好", "你，,，好"},
        {"a,!好", "a,！好"},
        {"你,", "你，"},
        {"a,", "a,"},
        {",你", "，你"},
        {"1:2 比:分?", "1:2 比：分？"},
        {"我在[[训练时间]]训练", "我在2023年训练"},
        {"[[训练时间]],好", "2023年，好"},
        {"a[[训练时间]", "a[[训练时间]"},
        {"[[[训练时间]]", "[2023年"},
        {"你好\u3000\n\nb ?", "你好\u3000\n\nb ?"},
        {"鿿,", "鿿，"},
        {"㐀,a", "㐀,a"},
        {"<think>a</think>b", "<think>a</think>b"},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check_cuts("chatglm-6b", false, cases[i].text, cases[i].want, "");
}

static void later_models_keep_theirs(void **state)
{
    check_cuts("chatglm2", false, "\n你好,[[训练时间]] ", "你好,2023年", "");
    check_cuts("glm-4", false, "\n你好,[[训练时间]]", "你好,[[训练时间]]", "");
}

static void thinking_is_told_from_the_answer(void **state)
{
    static const struct {
        const char *name;
        bool thinking;
        const char *text, *content, *reasoning;
    } cases[] = {
        {"qwen3", false, "<think>\nwell, 你\n</think>\n\nYes.", "Yes.",
         "well, 你"},
        {"qwen3", false, "\n <think></think>Yes <think>", "Yes <think>", ""},
        {"qwen3", false, "<think", "<think", ""},
        {"qwen3", false, "<thin air", "<thin air", ""},
        {"qwen3", false, "Yes </think> no", "Yes </think> no", ""},
        {"qwen3", false, "<think>never ends < ", "", "never ends <"},
        {"glm-z1", true, "so\n</think>\nYes", "Yes", "so"},
        {"glm-z1", true, "so </thin", "", "so </thin"},
        {"glm-4.5", false, "\n<think>a b</think>\n\nYes", "Yes", "a b"},
        {"chatml", false, "<think>a</think>", "<think>a</think>", ""},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check_cuts(cases[i].name, cases[i].thinking, cases[i].text,
                   cases[i].content, cases[i].reasoning);
}

static void the_stop_text_ends_the_answer(void **state)
{
    check_cuts("plain", false, "你好！\n问：再见\n答：", "你好！", "");
    check_cuts("plain", false, "a\n问 b\n", "a\n问 b", "");
    check_cuts("plain", false, "\n问：", "", "");
}

static void what_is_final_comes_at_once(void **state)
{
    struct heard h = {{0}, {0}};
    const struct sl_answer_sink sink = {listen, &h};
    struct sl_answer a;
    struct sl_error err;

    sl_answer_begin(&a, sl_chat_template_named("chatglm-6b"), false, &sink);
    assert_ok(sl_answer_push(&a, "Hello, wor", 10, &err), &err);
    assert_string_equal(sl_str_text(&h.content), "Hello, wor");
    assert_ok(sl_answer_push(&a, "ld!", 3, &err), &err);
    assert_string_equal(sl_str_text(&h.content), "Hello, world");
    assert_ok(sl_answer_push(&a, " ", 1, &err), &err);
    assert_string_equal(sl_str_text(&h.content), "Hello, world!");
    sl_answer_fini(&a);
    sl_str_fini(&h.content);
    sl_str_fini(&h.reasoning);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chatglm_6b_speaks_chinese_punctuation),
        cmocka_unit_test(later_models_keep_theirs),
        cmocka_unit_test(thinking_is_told_from_the_answer),
        cmocka_unit_test(the_stop_text_ends_the_answer),
        cmocka_unit_test(what_is_final_comes_at_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
