#include "config.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "offload/io.h"
#include "src/base/direct.h"
#include "tests/support.h"

/* What ext4 says of a file that it keeps in the page cache (data=journal). */
static bool cached_by_its_file_system;

int __real_statx(int dir, const char *path, int flags, unsigned mask,
                 struct statx *s);
int __wrap_statx(int dir, const char *path, int flags, unsigned mask,
                 struct statx *s);

int __wrap_statx(int dir, const char *path, int flags, unsigned mask,
                 struct statx *s)
{
    int rc = __real_statx(dir, path, flags, mask, s);

#ifdef STATX_DIOALIGN
    if (cached_by_its_file_system) {
        s->stx_mask |= STATX_DIOALIGN;
        s->stx_dio_mem_align = 0;
    }
#endif
    return rc;
}

/* It takes O_DIRECT, and nothing is read past the page cache. */
static void a_file_system_that_only_says_direct_is_not_believed(void **state)
{
    char dir[1024], path[1100], data[8192] = "";
    struct sl_error err;
    bool direct, plain;
    FILE *out;
    int fd;

    test_temp_dir(dir);
    snprintf(path, sizeof path, "%s/data", dir);
    out = fopen(path, "wb");
    assert_non_null(out);
    assert_int_equal(fwrite(data, sizeof data, 1, out), 1);
    assert_int_equal(fclose(out), 0);
    assert_ok(sl_io_open_file(&fd, &plain, path, true, &err), &err);
    close(fd);
    cached_by_its_file_system = true;
    assert_ok(sl_io_open_file(&fd, &direct, path, true, &err), &err);
    cached_by_its_file_system = false;
#ifdef STATX_DIOALIGN
    assert_false(direct);
    assert_int_equal(fcntl(fd, F_GETFL) & O_DIRECT, 0);
#else
    assert_int_equal(direct, plain);
#endif
    close(fd);
    test_remove_tree(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_system_that_only_says_direct_is_not_believed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
