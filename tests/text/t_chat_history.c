#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "src/text/chat_history.h"
#include "tests/support.h"

static char dir[1024];

static void put_file(char *path, const char *name, const char *text)
{
    FILE *f;

    snprintf(path, 1100, "%s/%s", dir, name);
    f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void parse(struct sl_chat_history *h, const char *text)
{
    struct sl_error err;

    assert_ok(sl_chat_history_parse(h, text, strlen(text), &err), &err);
}

static void openai_messages_are_read(void **state)
{
    struct sl_chat_history h = {0};

    parse(&h, "[{\"role\":\"developer\",\"content\":\"s\"},"
              "{\"role\":\"user\",\"content\":[{\"type\":\"text\","
              "\"text\":\"a\"},{\"type\":\"text\",\"text\":\"b\"}]},"
              "{\"role\":\"assistant\",\"content\":null,"
              "\"reasoning_content\":\"r\",\"tool_calls\":[{\"id\":\"1\"}]},"
              "{\"role\":\"tool\",\"content\":\"t\",\"tool_call_id\":\"1\"}]");
    assert_int_equal(h.n, 4);
    assert_int_equal(h.v[0].role, SL_CHAT_SYSTEM);
    assert_string_equal(h.v[1].content, "ab");
    assert_string_equal(h.v[2].content, "");
    assert_string_equal(h.v[2].reasoning, "r");
    assert_int_equal(json_array_size(h.v[2].calls), 1);
    assert_int_equal(h.v[3].role, SL_CHAT_TOOL);
    assert_string_equal(
        json_string_value(json_object_get(h.v[3].others, "tool_call_id")), "1");
    parse(&h, "{\"model\":\"m\",\"messages\":[]}");
    assert_int_equal(h.n, 0);
    sl_chat_history_fini(&h);
}

static void what_is_no_conversation_is_refused_with_its_place(void **state)
{
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"", "no JSON"},
        {"[", "line 1"},
        {"{}", "\"messages\""},
        {"3", "no JSON"},
        {"[3]", "message 1 is no object"},
        {"[{\"role\":\"user\",\"content\":\"\"},{\"content\":\"\"}]",
         "message 2 has no \"role\""},
        {"[{\"role\":\"robot\",\"content\":\"\"}]", "role 'robot'"},
        {"[{\"role\":\"user\"}]", "no text as \"content\""},
        {"[{\"role\":\"user\",\"content\":null}]", "no text as \"content\""},
        {"[{\"role\":\"user\",\"content\":4}]", "no text as \"content\""},
        {"[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}]",
         "a part of its content"},
        {"[{\"role\":\"user\",\"content\":\"a\\u0000b\"}]", "no JSON"},
        {"[{\"role\":\"user\",\"content\":\"a\",\"role\":\"user\"}]",
         "no JSON"},
        {"[{\"role\":\"assistant\",\"content\":\"a\",\"tool_calls\":1}]",
         "tool_calls"},
        {"[{\"role\":\"assistant\",\"content\":\"a\","
         "\"reasoning_content\":1}]",
         "reasoning_content"},
        {"[{\"role\":\"user\",\"content\":\"\xff\"}]", "no JSON"},
    };
    struct sl_chat_history h = {0};
    struct sl_error err;

    assert_ok(sl_chat_history_add(&h, SL_CHAT_USER, "kept", NULL, &err), &err);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(sl_chat_history_parse(&h, cases[i].text,
                                               strlen(cases[i].text), &err),
                         -1);
        assert_int_equal(err.code, SL_ERR_USAGE);
        if (strstr(err.msg, cases[i].says) == NULL)
            print_error("%s: %s\n", cases[i].text, err.msg);
        assert_non_null(strstr(err.msg, cases[i].says));
        assert_int_equal(h.n, 1);
    }
    sl_chat_history_fini(&h);
}

static void a_file_comes_back_as_it_was_written(void **state)
{
    static const char text[] =
        "{\"model\":\"m\",\"messages\":["
        "{\"role\":\"system\",\"content\":\"s\",\"name\":\"n\"},"
        "{\"role\":\"assistant\",\"content\":\"\\n\\\"你\","
        "\"reasoning_content\":\"r\","
        "\"tool_calls\":[{\"function\":{\"name\":\"f\"}}]}]}";
    struct sl_chat_history h = {0};
    json_t *want = json_loads(text, 0, NULL), *got;
    char path[1100];
    struct sl_error err;
    struct stat st;

    put_file(path, "talk.json", text);
    assert_int_equal(chmod(path, 0600), 0);
    assert_ok(sl_chat_history_read(&h, path, &err), &err);
    assert_ok(sl_chat_history_write(&h, path, &err), &err);
    got = test_json(path);
    assert_true(json_equal(got, want));
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_ok(sl_chat_history_add(&h, SL_CHAT_USER, "a\xff", NULL, &err), &err);
    assert_ok(sl_chat_history_write(&h, path, &err), &err);
    assert_ok(sl_chat_history_read(&h, path, &err), &err);
    assert_int_equal(h.n, 3);
    assert_string_equal(h.v[2].content, "a\xef\xbf\xbd");
    json_decref(got);
    json_decref(want);
    sl_chat_history_fini(&h);
}

static void other_files_are_left_as_they_are(void **state)
{
    struct sl_chat_history h = {0};
    char path[1100];
    struct sl_error err;
    uint8_t *left;
    size_t n;

    put_file(path, "model.gguf", "GGUF and what follows");
    assert_int_equal(sl_chat_history_write(&h, path, &err), -1);
    assert_int_equal(err.code, SL_ERR_USAGE);
    left = test_read_file(path, &n);
    assert_string_equal((char *)left, "GGUF and what follows");
    free(left);
    put_file(path, "empty.json", "");
    assert_ok(sl_chat_history_write(&h, path, &err), &err);
    assert_int_equal(sl_chat_history_write(&h, dir, &err), -1);
    snprintf(path, sizeof path, "%s/none/talk.json", dir);
    assert_int_equal(sl_chat_history_write(&h, path, &err), -1);
    assert_int_equal(err.code, SL_ERR_IO);
    assert_int_equal(sl_chat_history_read(&h, path, &err), -1);
    assert_int_equal(err.code, SL_ERR_IO);
    sl_chat_history_fini(&h);
}

static void turns_and_system_message_are_found(void **state)
{
    struct sl_chat_history h = {0};
    struct sl_error err;

    parse(&h, "[{\"role\":\"user\",\"content\":\"a\"},"
              "{\"role\":\"assistant\",\"content\":\"b\"},"
              "{\"role\":\"tool\",\"content\":\"c\"},"
              "{\"role\":\"assistant\",\"content\":\"d\"},"
              "{\"role\":\"user\",\"content\":\"e\"}]");
    assert_int_equal(sl_chat_history_first_turn(&h), 0);
    assert_int_equal(sl_chat_history_next_turn(&h, 0), 4);
    assert_int_equal(sl_chat_history_next_turn(&h, 4), 5);
    assert_ok(sl_chat_history_set_system(&h, "s", &err), &err);
    assert_int_equal(sl_chat_history_first_turn(&h), 1);
    assert_string_equal(h.v[1].content, "a");
    assert_ok(sl_chat_history_set_system(&h, "t", &err), &err);
    assert_int_equal(h.n, 6);
    assert_string_equal(h.v[0].content, "t");
    sl_chat_history_clear(&h);
    assert_int_equal(h.n, 1);
    assert_ok(sl_chat_history_set_system(&h, "", &err), &err);
    assert_int_equal(h.n, 0);
    sl_chat_history_fini(&h);
}

static int setup(void **state)
{
    test_temp_dir(dir);
    return 0;
}

static int teardown(void **state)
{
    test_remove_tree(dir);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(openai_messages_are_read),
        cmocka_unit_test(what_is_no_conversation_is_refused_with_its_place),
        cmocka_unit_test(a_file_comes_back_as_it_was_written),
        cmocka_unit_test(other_files_are_left_as_they_are),
        cmocka_unit_test(turns_and_system_message_are_found),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
