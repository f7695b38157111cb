#include "config.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include "src/base/lines.h"
#include "src/base/newfile.h"
#include "src/base/outfile.h"
#include "tests/support.h"

/* A pipe's reading end that gives these bytes, then the end. */
static int feed(const char *bytes, size_t n)
{
    int fds[2];

    assert_int_equal(pipe(fds), 0);
    assert_int_equal(write(fds[1], bytes, n), n);
    close(fds[1]);
    return fds[0];
}

static void lines_come_one_by_one(void **state)
{
    static const char text[] = "one\n\ntwo\0half\nlast";
    struct sl_lines l = {.fd = feed(text, sizeof text - 1), .stop_fd = -1};
    const struct {
        const char *line;
        size_t n;
    } want[] = {{"one", 3}, {"", 0}, {"two\0half", 8}, {"last", 4}};
    struct sl_error err;
    char *line;
    size_t n;

    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(sl_lines_next(&l, &line, &n, &err), 1);
        assert_int_equal(n, want[i].n);
        assert_memory_equal(line, want[i].line, n + 1);
    }
    assert_int_equal(sl_lines_next(&l, &line, &n, &err), 0);
    assert_int_equal(sl_lines_next(&l, &line, &n, &err), 0);
    close(l.fd);
    sl_lines_fini(&l);
}

static void *write_long(void *arg)
{
    FILE *out = fdopen(*(int *)arg, "w");

    for (int i = 0; i < 300000; i++)
        fputc(i % 100000 == 99999 ? '\n' : 'x', out);
    fclose(out);
    return NULL;
}

static void lines_may_be_longer_than_a_read(void **state)
{
    struct sl_lines l = {.stop_fd = -1};
    struct sl_error err;
    pthread_t writer;
    int fds[2];
    char *line;
    size_t n;

    assert_int_equal(pipe(fds), 0);
    l.fd = fds[0];
    assert_int_equal(pthread_create(&writer, NULL, write_long, &fds[1]), 0);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(sl_lines_next(&l, &line, &n, &err), 1);
        assert_int_equal(n, 99999);
        assert_int_equal(strlen(line), n);
    }
    assert_int_equal(sl_lines_next(&l, &line, &n, &err), 0);
    pthread_join(writer, NULL);
    close(fds[0]);
    sl_lines_fini(&l);
}

static void a_line_without_end_takes_no_more_memory_than_is_of_use(void **state)
{
    struct sl_lines l = {.stop_fd = -1, .most = 1000};
    pthread_t writer;
    struct sl_error err;
    char *line;
    int fds[2];
    size_t n;

    assert_int_equal(pipe(fds), 0);
    l.fd = fds[0];
    assert_int_equal(pthread_create(&writer, NULL, write_long, &fds[1]), 0);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(sl_lines_next(&l, &line, &n, &err), 1);
        assert_true(n > 1000 && l.room < 300000);
        for (size_t j = 0; j < 1001; j++)
            assert_int_equal(line[j], 'x');
    }
    assert_int_equal(sl_lines_next(&l, &line, &n, &err), 0);
    pthread_join(writer, NULL);
    close(l.fd);
    sl_lines_fini(&l);
    l = (struct sl_lines){.stop_fd = -1, .most = 1000};
    l.fd = open("/dev/zero", O_RDONLY);
    assert_ok(sl_lines_rest(&l, &line, &n, &err), &err);
    assert_true(n > 1000);
    close(l.fd);
    sl_lines_fini(&l);
}

static void waiting_can_be_stopped(void **state)
{
    struct sl_lines l = {.stop_fd = eventfd(1, 0)};
    struct sl_error err;
    int fds[2];
    char *line;
    size_t n;

    assert_int_equal(pipe(fds), 0);
    l.fd = fds[0];
    assert_int_equal(sl_lines_next(&l, &line, &n, &err), -1);
    assert_int_equal(err.code, SL_ERR_INTERRUPTED);
    close(fds[0]);
    close(fds[1]);
    close(l.stop_fd);
    sl_lines_fini(&l);
}

static void the_rest_is_one_text(void **state)
{
    struct sl_lines l = {.fd = feed("a\nb\n", 4), .stop_fd = -1};
    struct sl_error err;
    char *text;
    size_t n;

    assert_int_equal(sl_lines_next(&l, &text, &n, &err), 1);
    assert_ok(sl_lines_rest(&l, &text, &n, &err), &err);
    assert_int_equal(n, 2);
    assert_string_equal(text, "b\n");
    close(l.fd);
    sl_lines_fini(&l);
    l = (struct sl_lines){.fd = feed("", 0), .stop_fd = -1};
    assert_ok(sl_lines_rest(&l, &text, &n, &err), &err);
    assert_string_equal(text, "");
    close(l.fd);
    sl_lines_fini(&l);
}

static void queries_lose_all_whitespace_at_their_ends(void **state)
{
    const struct {
        const char *text, *want;
    } cases[] = {
        {"  a b\t\r\n", "a b"},
        {"", ""},
        {" \t\xe3\x80\x80\xc2\xa0", ""},
        {"\xe3\x80\x80\xe5\xba\x8a \xe5\x89\x8d\xe2\x80\xa8",
         "\xe5\xba\x8a \xe5\x89\x8d"},
        {"\xa0z\xff", "\xa0z\xff"},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char buf[64], *text = buf;
        size_t n = strlen(cases[i].text);

        strcpy(buf, cases[i].text);
        sl_query_strip(&text, &n);
        assert_int_equal(n, strlen(cases[i].want));
        assert_string_equal(text, cases[i].want);
    }
}

static void characters_are_counted_not_bytes(void **state)
{
    const char text[] = "a\xe5\xba\x8a\xf0\x9f\x98\x80\xff\xe5\xba";

    assert_int_equal(sl_utf8_count(text, sizeof text - 1), 6);
    assert_int_equal(sl_utf8_prefix(text, sizeof text - 1, 0), 0);
    assert_int_equal(sl_utf8_prefix(text, sizeof text - 1, 2), 4);
    assert_int_equal(sl_utf8_prefix(text, sizeof text - 1, 3), 8);
    assert_int_equal(sl_utf8_prefix(text, sizeof text - 1, 99),
                     sizeof text - 1);
}

static void ids_that_lead_elsewhere_are_refused(void **state)
{
    const char *const bad[] = {"", "/etc/x", "a/b", "..", "a..b"};
    struct sl_error err;
    char long_id[400];

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(sl_outfile_check_id(bad[i], &err), -1);
        assert_int_equal(err.code, SL_ERR_USAGE);
    }
    memset(long_id, 'x', sizeof long_id);
    long_id[sizeof long_id - 1] = '\0';
    assert_int_equal(sl_outfile_check_id(long_id, &err), -1);
    assert_ok(sl_outfile_check_id("q-1.\xe5\xba\x8a", &err), &err);
}

static size_t count_files(const char *dir)
{
    char command[1100];
    size_t n = 0;
    FILE *out;

    snprintf(command, sizeof command, "ls -A '%s' | wc -l", dir);
    out = popen(command, "r");
    assert_int_equal(fscanf(out, "%zu", &n), 1);
    pclose(out);
    return n;
}

/* Whatever fails, there is a whole file or none. */
static int keep(const char *folder, const char *id, bool replace,
                const char *text, char name[1200])
{
    struct sl_outfile o = {
        .folder = folder,
        .id = id,
        .query = "x/y",
        .n_query = 3,
        .replace = replace,
    };
    struct sl_error err;
    char *path = NULL;
    int rc = sl_outfile_write(&path, NULL, &o, text, strlen(text), &err);

    if (name != NULL)
        snprintf(name, 1200, "%s", path);
    free(path);
    return rc;
}

static void a_failed_write_leaves_no_file(void **state)
{
    char dir[1024], deep[1100], path[1200];
    struct sl_error err;
    struct rlimit none = {3, RLIM_INFINITY}, all;

    test_temp_dir(dir);
    snprintf(deep, sizeof deep, "%s/a/b", dir);
    assert_ok(sl_outfile_folder(deep, &err), &err);
    assert_ok(sl_outfile_folder(deep, &err), &err);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &all), 0);
    none.rlim_max = all.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &none), 0);
    assert_int_equal(keep(deep, NULL, false, "text\n", NULL), -1);
    assert_int_equal(keep(deep, "id", false, "text\n", NULL), -1);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &all), 0);
    assert_int_equal(count_files(deep), 0);
    assert_int_equal(keep(deep, NULL, false, "text\n", NULL), 0);
    assert_int_equal(keep(deep, NULL, false, "text\n", NULL), 0);
    assert_int_equal(count_files(deep), 2);
    snprintf(path, sizeof path, "%s/id.txt", deep);
    assert_int_equal(sl_outfile_folder(deep, &err), 0);
    assert_int_equal(keep(deep, "id", false, "one", NULL), 0);
    assert_int_equal(sl_outfile_folder(path, &err), -1);
    test_remove_tree(dir);
}

static void an_answer_replaces_another_only_where_that_is_wanted(void **state)
{
    char dir[1024], path[1200], want[1200];
    size_t n;

    test_temp_dir(dir);
    for (unsigned i = 1; i <= 3; i++) {
        snprintf(want, sizeof want, "%s/id%s.txt", dir,
                 i == 1   ? ""
                 : i == 2 ? "-2"
                          : "-3");
        assert_int_equal(keep(dir, "id", false, "first", path), 0);
        assert_string_equal(path, want);
    }
    assert_int_equal(keep(dir, "id", true, "replaced", path), 0);
    snprintf(want, sizeof want, "%s/id.txt", dir);
    assert_string_equal(path, want);
    free(test_read_file(path, &n));
    assert_int_equal(n, 8);
    assert_int_equal(count_files(dir), 3);
    test_remove_tree(dir);
}

/* What is there of a temporary name may be somebody's too. */
static void a_new_file_takes_no_name_that_is_there(void **state)
{
    char dir[1024], path[1100], temp[1200];
    struct sl_newfile f;
    struct sl_error err;
    FILE *mine;
    size_t n;

    test_temp_dir(dir);
    snprintf(path, sizeof path, "%s/out", dir);
    snprintf(temp, sizeof temp, "%s.partial", path);
    mine = fopen(temp, "w");
    assert_non_null(mine);
    fputs("mine", mine);
    fclose(mine);
    assert_ok(sl_newfile_open(&f, path, &err), &err);
    fputs("whole", f.file);
    assert_ok(sl_newfile_close(&f, &err), &err);
    free(test_read_file(temp, &n));
    assert_int_equal(n, 4);
    free(test_read_file(path, &n));
    assert_int_equal(n, 5);
    assert_ok(sl_newfile_open(&f, path, &err), &err);
    fputs("less", f.file);
    sl_newfile_drop(&f);
    free(test_read_file(path, &n));
    assert_int_equal(n, 5);
    assert_int_equal(count_files(dir), 2);
    test_remove_tree(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_come_one_by_one),
        cmocka_unit_test(lines_may_be_longer_than_a_read),
        cmocka_unit_test(
            a_line_without_end_takes_no_more_memory_than_is_of_use),
        cmocka_unit_test(waiting_can_be_stopped),
        cmocka_unit_test(the_rest_is_one_text),
        cmocka_unit_test(queries_lose_all_whitespace_at_their_ends),
        cmocka_unit_test(characters_are_counted_not_bytes),
        cmocka_unit_test(ids_that_lead_elsewhere_are_refused),
        cmocka_unit_test(a_failed_write_leaves_no_file),
        cmocka_unit_test(an_answer_replaces_another_only_where_that_is_wanted),
        cmocka_unit_test(a_new_file_takes_no_name_that_is_there),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
