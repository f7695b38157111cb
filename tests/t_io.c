#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "offload/io.h"
#include "src/base/mem.h"
#include "tests/support.h"

#define FILE_BYTES (3u << 20)

/* A file of bytes that tell where they lie. */
struct file {
    char dir[1024], path[1100];
    uint8_t *data;
    size_t bytes;
};

static uint8_t byte_at(uint64_t off)
{
    return (uint8_t)(off * 167 + (off >> 8) * 59 + (off >> 16) * 13);
}

static void write_file(struct file *f, size_t bytes)
{
    FILE *out = fopen(f->path, "wb");

    assert_non_null(out);
    f->bytes = bytes;
    assert_int_equal(fwrite(f->data, 1, bytes, out), bytes);
    assert_int_equal(fclose(out), 0);
}

static int setup(void **state)
{
    struct file *f = malloc(sizeof *f);

    assert_non_null(f);
    test_temp_dir(f->dir);
    snprintf(f->path, sizeof f->path, "%s/data", f->dir);
    f->data = malloc(FILE_BYTES);
    assert_non_null(f->data);
    for (size_t i = 0; i < FILE_BYTES; i++)
        f->data[i] = byte_at(i);
    write_file(f, FILE_BYTES);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct file *f = *state;

    test_remove_tree(f->dir);
    free(f->data);
    free(f);
    return 0;
}

static void any_range_is_read_into_any_memory(void **state)
{
    static const struct {
        uint64_t off;
        size_t bytes;
    } ranges[] = {
        {0, 1},         {0, 4096},       {4095, 2},
        {1, 4095},      {8192, 65536},   {777, 300000},
        {4096, 262144}, {4097, 262144},  {FILE_BYTES - 1, 1},
        {5, 0},         {FILE_BYTES, 0}, {FILE_BYTES - 5000, 5000},
        {13, 2000000},  {0, FILE_BYTES},
    };
    struct file *f = *state;
    struct sl_error err;
    struct sl_region r;

    assert_ok(sl_region_init(&r, FILE_BYTES + 8192, "test", &err), &err);
    for (int direct = 0; direct < 2; direct++) {
        bool is_direct;
        int fd;

        assert_ok(sl_io_open_file(&fd, &is_direct, f->path, direct, &err),
                  &err);
        assert_true(direct || !is_direct);
        for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
            for (size_t shift = 0; shift < 4096; shift += 1365) {
                uint8_t *buf = r.base + shift;

                memset(r.base, 0xee, ranges[i].bytes + 4096);
                assert_ok(sl_io_read_full(fd, f->path, buf, ranges[i].off,
                                          ranges[i].bytes, &err),
                          &err);
                assert_memory_equal(buf, f->data + ranges[i].off,
                                    ranges[i].bytes);
                if (shift > 0)
                    assert_int_equal(buf[-1], 0xee);
                if (ranges[i].bytes + shift < 4096)
                    assert_int_equal(buf[ranges[i].bytes], 0xee);
            }
        close(fd);
    }
    sl_region_fini(&r);
}

static void the_end_of_the_file_is_told_to_the_byte(void **state)
{
    static const size_t sizes[] = {0, 1, 4095, 4096, 4097, 10000, 300001};
    struct file *f = *state;
    struct sl_error err;

    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int direct = 0; direct < 2; direct++) {
            uint8_t *buf = malloc(sizes[i] + 1);
            char want[64];
            bool is_direct;
            int fd;

            assert_non_null(buf);
            write_file(f, sizes[i]);
            assert_ok(sl_io_open_file(&fd, &is_direct, f->path, direct, &err),
                      &err);
            assert_ok(sl_io_read_full(fd, f->path, buf, 0, sizes[i], &err),
                      &err);
            assert_memory_equal(buf, f->data, sizes[i]);
            assert_int_equal(
                sl_io_read_full(fd, f->path, buf, 0, sizes[i] + 1, &err), -1);
            assert_int_equal(err.code, SL_ERR_CORRUPT);
            snprintf(want, sizeof want, "ends at byte %zu,", sizes[i]);
            assert_non_null(strstr(err.msg, want));
            assert_non_null(strstr(err.msg, f->path));
            close(fd);
            free(buf);
        }
}

static void a_range_beyond_any_file_is_refused(void **state)
{
    struct file *f = *state;
    struct sl_error err;
    bool direct;
    int fd;

    assert_ok(sl_io_open_file(&fd, &direct, f->path, true, &err), &err);
    assert_int_equal(
        sl_io_read_full(fd, f->path, f->data, UINT64_MAX - 10, 8, &err), -1);
    assert_int_equal(err.code, SL_ERR_CORRUPT);
    assert_int_equal(
        sl_io_read_full(fd, f->path, f->data, 10, SIZE_MAX - 5, &err), -1);
    assert_int_equal(err.code, SL_ERR_CORRUPT);
    close(fd);
}

static void a_file_that_is_not_there_is_named(void **state)
{
    struct sl_error err;
    bool direct;
    int fd = -7;

    assert_int_equal(
        sl_io_open_file(&fd, &direct, "/nowhere/a.gguf", true, &err), -1);
    assert_int_equal(err.code, SL_ERR_IO);
    assert_int_equal(err.os_errno, ENOENT);
    assert_int_equal(fd, -7);
    assert_non_null(strstr(err.msg, "/nowhere/a.gguf"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(any_range_is_read_into_any_memory,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(the_end_of_the_file_is_told_to_the_byte,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(a_range_beyond_any_file_is_refused,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(a_file_that_is_not_there_is_named,
                                        setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
