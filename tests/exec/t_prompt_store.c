#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "src/exec/prompt_store.h"
#include "tests/support.h"

/* A folder of files that stand for prompts. */

static void write_file(const char *dir, const char *name, size_t bytes,
                       time_t used)
{
    struct timespec times[2] = {{used, 0}, {used, 0}};
    char path[1200];
    FILE *f;

    snprintf(path, sizeof path, "%s/%s", dir, name);
    f = fopen(path, "w");
    assert_non_null(f);
    for (size_t i = 0; i < bytes; i++)
        fputc('x', f);
    fclose(f);
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
}

static bool is_there(const char *dir, const char *name)
{
    char path[1200];

    snprintf(path, sizeof path, "%s/%s", dir, name);
    return access(path, F_OK) == 0;
}

static void what_was_of_no_use_for_longest_goes(void **state)
{
    const char *dir = *state;
    struct sl_prompt_store s = {dir, 250, 1};
    struct sl_error err;
    char path[1200];

    assert_in_range(sl_prompt_store_path_bytes(&s), 1, sizeof path);
    write_file(dir, "0000000000000001.prompt", 100, 1000);
    write_file(dir, "0000000000000002.prompt", 100, 2000);
    write_file(dir, "00000000000000ff.prompt", 100, 3000);
    sl_prompt_store_path(path, &s, 1);
    sl_prompt_store_touch(path);
    assert_ok(sl_prompt_store_trim(&s, &err), &err);
    assert_true(is_there(dir, "0000000000000001.prompt"));
    assert_false(is_there(dir, "0000000000000002.prompt"));
    assert_true(is_there(dir, "00000000000000ff.prompt"));
    s.most_bytes = 0;
    assert_ok(sl_prompt_store_trim(&s, &err), &err);
    assert_false(is_there(dir, "0000000000000001.prompt"));
}

static void nothing_else_is_touched(void **state)
{
    static const char *const others[] = {
        "notes.prompt", "0000000000000001.prompt.bak", "model.gguf",
        "000000000000000g.prompt"};
    const char *dir = *state;
    struct sl_prompt_store s = {dir, 0, 1};
    struct sl_error err;

    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        write_file(dir, others[i], 100, 1000);
    /* one that is being written, and one that nobody writes any more */
    write_file(dir, "0000000000000003.prompt.AbCdEf", 100, time(NULL));
    write_file(dir, "0000000000000004.prompt.AbCdEf", 100, 1000);
    assert_ok(sl_prompt_store_open(&s, &err), &err);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        assert_true(is_there(dir, others[i]));
    assert_true(is_there(dir, "0000000000000003.prompt.AbCdEf"));
    assert_false(is_there(dir, "0000000000000004.prompt.AbCdEf"));
}

static void a_folder_is_made_for_its_owner_alone(void **state)
{
    char dir[1100];
    struct sl_prompt_store s = {dir, 0, 1};
    struct sl_error err;
    struct stat st;

    snprintf(dir, sizeof dir, "%s/new", (const char *)*state);
    assert_ok(sl_prompt_store_open(&s, &err), &err);
    assert_int_equal(stat(dir, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    snprintf(dir, sizeof dir, "%s/none/new", (const char *)*state);
    assert_int_equal(sl_prompt_store_open(&s, &err), -1);
    assert_int_equal(err.os_errno, ENOENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_of_no_use_for_longest_goes),
        cmocka_unit_test(nothing_else_is_touched),
        cmocka_unit_test(a_folder_is_made_for_its_owner_alone),
    };

    return cmocka_run_group_tests(tests, test_dir_set_up, test_dir_tear_down);
}
