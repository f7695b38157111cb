#include "config.h"

#include <malloc.h>
#include <netinet/in.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "src/base/json.h"
#include "src/decode/draft.h"
#include "src/serve/body.h"
#include "src/serve/calls.h"
#include "src/serve/server.h"
#include "src/text/stopper.h"
#include "tests/model_maker.h"
#include "tests/tokens.h"

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

static void must_add(struct sl_str *to, const char *a, const char *b)
{
    struct sl_error err;

    assert_ok(sl_str_add(to, a, &err), &err);
    assert_ok(sl_str_add(to, b, &err), &err);
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

static size_t heap_bytes(void)
{
#if defined __GLIBC__ && __GLIBC_PREREQ(2, 33)
    struct mallinfo2 heap = mallinfo2();

    return heap.uordblks + heap.hblkhd;
#else
    return 0;
#endif
}

/* What jansson really takes; other heaps, as sanitizers', tell nothing. */
static void a_body_takes_no_more_than_is_expected_of_it(void **state)
{
    static const char *const items[] = {
        "1",
        "1234567",
        "1.5",
        "null",
        "\"\"",
        "\"text\"",
        "{}",
        "{\"a\":1}",
        "[]",
        "[1,2,3]",
        "[[[]]]",
        "\"\\\"[\"",
        "{\"ab\":\"cd\"}",
        "{\"a\":{},\"b\":[]}",
    };

    for (size_t i = 0; i < sizeof items / sizeof *items; i++) {
        for (size_t n = 1; n <= 65537; n = n * 4 + 1) {
            struct sl_str text = {0};
            struct sl_error err;
            size_t before, took, cost;
            json_t *v;

            assert_ok(sl_str_add(&text, "[", &err), &err);
            for (size_t k = 0; k < n; k++)
                must_add(&text, k > 0 ? "," : "", items[i]);
            assert_ok(sl_str_add(&text, "]", &err), &err);
            cost = sl_json_cost(text.s, text.n);
            before = heap_bytes();
            v = json_loadb(text.s, text.n, 0, NULL);
            took = heap_bytes() - before;
            assert_non_null(v);
            assert_true(took <= cost && (took == 0 || cost < 16 * took));
            json_decref(v);
            sl_str_fini(&text);
        }
    }
}

/* --- a server that loads ----------------------------------------------------
 */

/* A model of the demo's words, whose loading takes as long as the test likes.
 */
struct loading {
    char dir[1024], path[1100];
    sem_t goes_on;
    struct sl_drafts drafts;
    struct sl_log log;
    struct sl_serve_config c;
    struct sl_server s;
};

static int wait_to_go_on(void *arg, struct sl_workload *load,
                         struct sl_runtime *rt, struct sl_error *err)
{
    struct loading *f = arg;

    while (sem_wait(&f->goes_on) != 0)
        ;
    return 0;
}

static int begin_nothing(void *arg, struct sl_runtime *rt, struct sl_error *err)
{
    return 0;
}

static void write_demo_words(const char *path)
{
    struct sl_hparams demo;
    struct test_model m;
    char words[1024];
    uint8_t *blob;

    sl_tokenizer_destroy(test_demo_tokenizer(&demo));
    assert_non_null(test_source(words, "demo/ice_text.model"));
    test_model_init(&m);
    blob = test_read_file(words, &m.tokenizer_bytes);
    m.tokenizer = blob;
    m.hp.vocab = demo.vocab;
    m.hp.text = demo.text;
    test_model_write(path, &m);
    free(blob);
}

static void start_to_load(struct loading *f)
{
    struct sl_error err;

    *f = (struct loading){0};
    test_temp_dir(f->dir);
    snprintf(f->path, sizeof f->path, "%s/model.sluice", f->dir);
    write_demo_words(f->path);
    assert_int_equal(sem_init(&f->goes_on, 0, 0), 0);
    sl_drafts_init(&f->drafts, 0, 0);
    sl_serve_config_init(&f->c);
    f->c.run.model = f->path;
    f->c.run.ram_bytes = 1u << 30; /* sanitizers take much */
    f->c.run.threads = 1;
    f->c.run.device = SL_DEVICE_CPU;
    f->c.log = f->c.run.log = &f->log;
    f->c.port = 0;
    f->c.parallel = 1;
    f->c.drafts = &f->drafts;
    f->c.plan_drafts = wait_to_go_on;
    f->c.start_drafts = begin_nothing;
    f->c.drafts_arg = f;
    assert_ok(sl_server_start(&f->s, &f->c, &err), &err);
}

static void end_loading(struct loading *f)
{
    sl_server_stop(&f->s);
    sem_destroy(&f->goes_on);
    test_remove_tree(f->dir);
}

/* The whole answer, head and all, in `to`; its status. */
static int ask(struct sl_server *s, const char *first_line, const char *body,
               char *to, size_t room)
{
    struct sockaddr_in at = {.sin_family = AF_INET};
    char address[320], request[1024];
    size_t n = 0;
    ssize_t got;
    int fd = socket(AF_INET, SOCK_STREAM, 0), size;

    sl_server_address(s, address, sizeof address);
    at.sin_port = htons((uint16_t)atoi(strrchr(address, ':') + 1));
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof at), 0);
    size = snprintf(request, sizeof request,
                    "%s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                    "Content-Length: %zu\r\n\r\n%s",
                    first_line, strlen(body), body);
    assert_in_range(size, 1, sizeof request - 1);
    assert_int_equal(write(fd, request, (size_t)size), size);
    while ((got = read(fd, to + n, room - 1 - n)) > 0)
        n += (size_t)got;
    close(fd);
    to[n] = '\0';
    assert_true(strncmp(to, "HTTP/1.1 ", 9) == 0);
    return atoi(to + 9);
}

static void who_asks_while_it_loads_is_told_to_come_again(void **state)
{
    static const struct {
        const char *line, *body;
        bool waits; /* for the model */
        const char *said;
    } cases[] = {
        {"GET /health", "", true, "{\"error\":{\"message\":\"the model is "},
        {"POST /v1/completions", "{\"prompt\":\"a\",\"max_tokens\":2}", true,
         "\"type\":\"service_unavailable\""},
        {"POST /v1/chat/completions",
         "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],"
         "\"max_tokens\":2}",
         true, "{\"error\":{\"message\":\"the model is being loaded\""},
        {"POST /v1/messages",
         "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],"
         "\"max_tokens\":2}",
         true, "{\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\""},
        {"GET /v1/models", "", false, "\"object\":\"list\""},
        {"GET /metrics", "", false, "sluice_up 0"},
        {"GET /openapi.json", "", false, "\"openapi\""},
    };
    static const size_t room = 1 << 20;
    char *got = malloc(room);
    struct loading *f = malloc(sizeof *f);
    struct sl_error err;

    assert_non_null(got);
    assert_non_null(f);
    start_to_load(f);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int status = ask(&f->s, cases[i].line, cases[i].body, got, room);

        assert_int_equal(status, cases[i].waits ? 503 : 200);
        assert_non_null(strstr(got, cases[i].said));
        if (cases[i].waits)
            assert_non_null(strstr(got, "Retry-After: 5\r\n"));
    }
    sem_post(&f->goes_on);
    assert_ok(sl_server_loaded(&f->s, &err), &err);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(ask(&f->s, cases[i].line, cases[i].body, got, room),
                         200);
        assert_null(strstr(got, "Retry-After"));
    }
    end_loading(f);
    free(f);
    free(got);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stop_is_found_however_the_text_is_cut),
        cmocka_unit_test(calls_are_read_in_each_form),
        cmocka_unit_test(a_body_is_read_strictly),
        cmocka_unit_test(a_body_that_nests_or_lists_too_much_is_refused),
        cmocka_unit_test(a_body_takes_no_more_than_is_expected_of_it),
        cmocka_unit_test(who_asks_while_it_loads_is_told_to_come_again),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
