#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/converting.h"
#include "tests/fault.h"
#include "tests/support.h"

/* Which call of the file system fails with which error; counted down by the
 * one thread that writes. */
static struct {
    long left;
    int error;
    bool fired;
} disk = {.left = -1};

ssize_t __real_pwrite(int fd, const void *data, size_t n, off_t off);
int __real_fdatasync(int fd);
int __real_rename(const char *from, const char *to);
int __real_fallocate(int fd, int mode, off_t off, off_t n);
ssize_t __wrap_pwrite(int fd, const void *data, size_t n, off_t off);
int __wrap_fdatasync(int fd);
int __wrap_rename(const char *from, const char *to);
int __wrap_fallocate(int fd, int mode, off_t off, off_t n);

static bool fails(void)
{
    if (disk.left < 0 || disk.left-- != 0)
        return false;
    disk.fired = true;
    errno = disk.error;
    return true;
}

ssize_t __wrap_pwrite(int fd, const void *data, size_t n, off_t off)
{
    return fails() ? -1 : __real_pwrite(fd, data, n, off);
}

int __wrap_fdatasync(int fd)
{
    return fails() ? -1 : __real_fdatasync(fd);
}

int __wrap_rename(const char *from, const char *to)
{
    return fails() ? -1 : __real_rename(from, to);
}

int __wrap_fallocate(int fd, int mode, off_t off, off_t n)
{
    return fails() ? -1 : __real_fallocate(fd, mode, off, n);
}

/* 1: the n-th call failed and the conversion with it, 0: there was none. */
static int convert_on_bad_disk(struct fixture *f, long n, int error)
{
    struct sl_convert_result r;
    struct sl_error err;
    int rc;

    disk.left = n;
    disk.error = error;
    disk.fired = false;
    rc = sl_convert(&r, &f->o, &err);
    disk.left = -1;
    if (!disk.fired) {
        assert_ok(rc, &err);
        sl_convert_result_fini(&r);
        return 0;
    }
    assert_int_equal(rc, -1);
    assert_int_equal(err.code, error == ENOSPC ? SL_ERR_NOSPACE : SL_ERR_IO);
    if (strstr(err.msg, "model.gguf") == NULL)
        fail_msg("'%s' names no file", err.msg);
    assert_false(file_exists(f->out, ""));
    return 1;
}

static void a_disk_that_fails_loses_nothing(void **state)
{
    static const int errors[] = {ENOSPC, EIO};
    struct fixture *f = *state;
    struct bytes want;
    long n = 0;

    glm_maker_write(&f->g, f->source);
    convert(f, "int8");
    want = take_file(f->out);
    unlink(f->out);
    f->o.force = false;
    for (; convert_on_bad_disk(f, n, errors[n % 2]) == 1; n++) {
        f->o.resume = true;
        convert(f, "int8");
        assert_same_file(want, f->out);
        assert_false(file_exists(f->out, ".partial"));
        f->o.resume = false;
        unlink(f->out);
    }
    assert_true(n > 30); /* sections, their syncs and the rename */
    free(want.data);
}

static void memory_that_runs_out_is_an_error(void **state)
{
    struct fixture *f = *state;
    struct sl_convert_result r;
    struct sl_error err;
    bool fired = true;
    long n = 0;

    f->g.shards = 2;
    f->g.hp.n_layers = 1;
    glm_maker_write(&f->g, f->source);
    f->o.quant = "int4-g32";
    for (; fired; n++) {
        int rc;

        err.msg[0] = '\0';
        fault_arm(n);
        rc = sl_convert(&r, &f->o, &err);
        fired = fault_fired();
        if (rc == 0) {
            sl_convert_result_fini(&r);
            continue; /* what failed was not needed, or nothing did */
        }
        assert_true(fired);
        assert_true(err.msg[0] != '\0');
        if (err.code != SL_ERR_NOMEM && err.code != SL_ERR_IO)
            fail_msg("allocation %ld: code %d: %s", n, err.code, err.msg);
    }
    assert_true(n > 50);
    convert(f, "int4-g32");
    assert_weights(f, 0.2);
}

int main(void)
{
#define CASE(f)                                                                \
    cmocka_unit_test_setup_teardown(f, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        CASE(a_disk_that_fails_loses_nothing),
        CASE(memory_that_runs_out_is_an_error),
    };
#undef CASE

    return cmocka_run_group_tests(tests, NULL, NULL);
}
