#include "config.h"

#include <stdio.h>

#include "src/probe/meminfo.h"
#include "tests/support.h"

static void put(const char *dir, const char *name, const char *text)
{
    char path[1200];
    FILE *f;

    snprintf(path, sizeof path, "%s/%s", dir, name);
    f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

static void a_group_grants_what_pages_of_files_take(void **state)
{
    char dir[1024];

    test_temp_dir(dir);
    assert_true(sl_meminfo_group_left(dir) == UINT64_MAX);
    put(dir, "memory.max", "max\n");
    put(dir, "memory.current", "900\n");
    assert_true(sl_meminfo_group_left(dir) == UINT64_MAX);
    put(dir, "memory.max", "1000\n");
    assert_int_equal(sl_meminfo_group_left(dir), 100);
    put(dir, "memory.stat",
        "anon 50\nfile 850\ninactive_file 600\nactive_file 200\n");
    assert_int_equal(sl_meminfo_group_left(dir), 900);
    put(dir, "memory.current", "1000\n");
    put(dir, "memory.stat", "anon 1000\n");
    assert_int_equal(sl_meminfo_group_left(dir), 0);
    test_remove_tree(dir);
}

static void groups_of_version_1_count_those_below(void **state)
{
    char dir[1024];

    test_temp_dir(dir);
    put(dir, "memory.limit_in_bytes", "1000\n");
    put(dir, "memory.usage_in_bytes", "950\n");
    put(dir, "memory.stat",
        "inactive_file 1\ntotal_inactive_file 300\ntotal_active_file 50\n");
    assert_int_equal(sl_meminfo_group_left(dir), 400);
    assert_int_equal(sl_meminfo_group_limit(dir), 1000);
    put(dir, "memory.limit_in_bytes", "9223372036854771712\n"); /* none */
    assert_true(sl_meminfo_group_limit(dir) == UINT64_MAX);
    assert_true(sl_meminfo_group_left(dir) == UINT64_MAX);
    test_remove_tree(dir);
}

static void this_process_and_this_machine_have_memory(void **state)
{
    /* Read in this order: a sanitizer makes the process grow in between. */
    uint64_t resident = sl_meminfo_resident();
    uint64_t peak = sl_meminfo_peak();

    assert_true(resident > 0);
    assert_true(peak >= resident);
    assert_true(sl_meminfo_available() > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_group_grants_what_pages_of_files_take),
        cmocka_unit_test(groups_of_version_1_count_those_below),
        cmocka_unit_test(this_process_and_this_machine_have_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
