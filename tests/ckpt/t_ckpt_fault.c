#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/fault.h"
#include "tests/hf_maker.h"
#include "tests/support.h"

#define N_DATA 96

/* What happens to the n-th pread of this program's own objects. */
enum how {
    READ_FAILS,       /* EIO */
    READ_INTERRUPTED, /* EINTR */
    READ_SHORT,       /* one byte */
    READ_ENDS,        /* nothing: the file has shrunk */
};

static struct {
    long left; /* reads until the one; below 0: past it or unarmed */
    enum how how;
    bool fired;
} reads = {.left = -1};

ssize_t __real_pread(int fd, void *buf, size_t n, off_t off);
ssize_t __wrap_pread(int fd, void *buf, size_t n, off_t off);

ssize_t __wrap_pread(int fd, void *buf, size_t n, off_t off)
{
    if (reads.left < 0 || reads.left-- != 0)
        return __real_pread(fd, buf, n, off);
    reads.fired = true;
    if (reads.how == READ_SHORT)
        return __real_pread(fd, buf, 1, off);
    if (reads.how == READ_ENDS)
        return 0;
    errno = reads.how == READ_FAILS ? EIO : EINTR;
    return -1;
}

static void make(const char *dir, uint16_t data[N_DATA])
{
    struct maker_tensor t[] = {
        {.name = "dense", .n_dims = 2, .shape = {8, 12}},
        {.name = "turned",
         .n_dims = 2,
         .shape = {12, 8},
         .stride = {1, 12},
         .shares = 1},
    };

    for (size_t i = 0; i < N_DATA; i++)
        data[i] = (uint16_t)(i * 3);
    for (size_t i = 0; i < 2; i++) {
        t[i].dtype = SL_DT_F16;
        t[i].data = data;
    }
    for (unsigned r = 0; r < 2; r++) {
        struct maker_options o = {.legacy = r == 1};

        maker_shard(dir, "5", r, t, 2, &o);
    }
}

/* The same in two parts of an archive. */
static void archive(const char *to, const char *from)
{
    static const char *const files[] = {"latest",
                                        "5/mp_rank_00_model_states.pt",
                                        "5/mp_rank_01_model_states.pt"};
    struct maker_buf tar = {0};
    char path[1200];

    for (size_t i = 0; i < 3; i++) {
        uint8_t *data;
        size_t n;

        snprintf(path, sizeof path, "%s/%s", from, files[i]);
        data = test_read_file(path, &n);
        maker_tar_member(&tar, files[i], data, n, i == 1);
        free(data);
    }
    maker_tar_end(&tar);
    snprintf(path, sizeof path, "%s/x.tar.part_aa", to);
    maker_file(path, tar.at, 3000);
    snprintf(path, sizeof path, "%s/x.tar.part_ab", to);
    maker_file(path, tar.at + 3000, tar.n - 3000);
    maker_fini(&tar);
}

/* A Hugging Face folder of two files and their index, in either container. */
static void make_hf(const char *dir, const uint16_t data[N_DATA],
                    enum maker_weights kind)
{
    static const struct maker_tensor t = {
        .name = "dense", .dtype = SL_DT_F16, .n_dims = 2, .shape = {8, 12}};
    struct maker_tensor both[2] = {t, t};

    both[1].name = "other";
    both[0].data = both[1].data = data;
    maker_hf(dir, both, 2, kind, 2);
}

/* Opens, reads everything, closes. */
static int go(const char *path, const uint16_t data[N_DATA],
              struct sl_error *err)
{
    struct sl_ckpt c;
    uint16_t got[N_DATA];
    int rc = 0;

    if (sl_ckpt_open(&c, path, NULL, err) != 0)
        return -1;
    for (size_t r = 0; r < c.n_shards && rc == 0; r++) {
        const struct sl_ckpt_tensor *turned = sl_ckpt_find(&c, r, "turned");

        rc = sl_ckpt_read_rows(sl_ckpt_find(&c, r, "dense"), got, 0, 8, err);
        if (rc == 0)
            assert_memory_equal(got, data, sizeof got);
        if (turned == NULL)
            continue;
        if (rc == 0)
            rc = sl_ckpt_read_rows(turned, got, 0, 12, err);
        for (size_t i = 0; i < N_DATA && rc == 0; i++)
            assert_int_equal(got[i], data[i % 8 * 12 + i / 8]);
    }
    sl_ckpt_close(&c);
    return rc;
}

static void each_read(const char *path, const char *in,
                      const uint16_t data[N_DATA], enum how how)
{
    struct sl_error err;
    long n = 0;

    for (;; n++) {
        int rc;

        reads.left = n;
        reads.how = how;
        reads.fired = false;
        rc = go(path, data, &err);
        reads.left = -1;
        if (!reads.fired)
            break;
        if (how == READ_INTERRUPTED || how == READ_SHORT) {
            /* A one-byte read of the last byte wanted is no short read. */
            assert_ok(rc, &err);
            continue;
        }
        assert_int_equal(rc, -1);
        assert_int_equal(err.code, SL_ERR_IO);
        assert_non_null(strstr(err.msg, in));
        assert_non_null(strstr(err.msg, "offset"));
    }
    assert_true(n > 6);
}

static void a_read_that_fails_is_retried_or_reported(void **state)
{
    char dir[1024], parts[1024], hf[2][1024];
    uint16_t data[N_DATA];

    test_temp_dir(dir);
    test_temp_dir(parts);
    make(dir, data);
    archive(parts, dir);
    for (unsigned k = 0; k < 2; k++) {
        test_temp_dir(hf[k]);
        make_hf(hf[k], data, (enum maker_weights)k);
    }
    for (unsigned how = READ_FAILS; how <= READ_ENDS; how++) {
        each_read(dir, dir, data, (enum how)how);
        each_read(parts, "x.tar.part_a", data, (enum how)how);
        for (unsigned k = 0; k < 2; k++)
            each_read(hf[k], hf[k], data, (enum how)how);
    }
    for (unsigned k = 0; k < 2; k++)
        test_remove_tree(hf[k]);
    test_remove_tree(dir);
    test_remove_tree(parts);
}

static void each_allocation(const char *path, const uint16_t data[N_DATA])
{
    struct sl_error err;
    long n = 0;

    for (;; n++) {
        int rc;

        fault_arm(n);
        rc = go(path, data, &err);
        if (!fault_fired())
            break;
        assert_int_equal(rc, -1);
        assert_int_equal(err.code, SL_ERR_NOMEM);
    }
    assert_true(n > 12);
}

static void an_allocation_that_fails_is_reported(void **state)
{
    char dir[1024], parts[1024];
    uint16_t data[N_DATA];

    test_temp_dir(dir);
    test_temp_dir(parts);
    make(dir, data);
    archive(parts, dir);
    each_allocation(dir, data);
    each_allocation(parts, data);
    for (unsigned k = 0; k < 2; k++) {
        char hf[1024];

        test_temp_dir(hf);
        make_hf(hf, data, (enum maker_weights)k);
        each_allocation(hf, data);
        test_remove_tree(hf);
    }
    test_remove_tree(dir);
    test_remove_tree(parts);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_read_that_fails_is_retried_or_reported),
        cmocka_unit_test(an_allocation_that_fails_is_reported),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
