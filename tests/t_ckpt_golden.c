#include "config.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/ckpt.h"
#include "tests/ckpt_maker.h"
#include "tests/support.h"

#define VARIANTS "golden/E_pickle_variants"

/* The paths of a folder's files that end in tail, at most max of them. */
static size_t list_files(char path[][1024], size_t max, const char *folder,
                         const char *tail)
{
    char dir[1024];
    struct dirent *e;
    size_t n = 0;
    DIR *d;

    assert_non_null(test_shared(dir, folder));
    d = opendir(dir);
    assert_non_null(d);
    while ((e = readdir(d)) != NULL) {
        size_t len = strlen(e->d_name);

        if (len < strlen(tail) ||
            strcmp(e->d_name + len - strlen(tail), tail) != 0)
            continue;
        assert_true(n < max);
        snprintf(path[n++], 1024, "%.700s/%.300s", dir, e->d_name);
    }
    closedir(d);
    return n;
}

static int open_torch(struct sl_ckpt_shard *shard, const char *path,
                      struct sl_error *err)
{
    struct sl_src *src;

    if (sl_src_open(&src, &path, 1, err) != 0)
        return -1;
    return sl_torch_open(shard, src, NULL, err);
}

static const char *numpy_type(enum sl_dtype dt)
{
    static const char *const types[SL_DT_COUNT] = {
        [SL_DT_F32] = "<f4",  [SL_DT_F16] = "<f2", [SL_DT_BF16] = "<u2",
        [SL_DT_F64] = "<f8",  [SL_DT_I8] = "|i1",  [SL_DT_U8] = "|u1",
        [SL_DT_I16] = "<i2",  [SL_DT_I32] = "<i4", [SL_DT_I64] = "<i8",
        [SL_DT_BOOL] = "|b1",
    };

    return types[dt];
}

/* Whole, row by row, and a block from the middle. */
static void check_tensor(const struct sl_ckpt_tensor *t,
                         const struct test_array *want)
{
    size_t size = sl_dtype_bytes(t->dtype), cols = 1;
    size_t rows = t->n_dims ? t->shape[0] : 1;
    uint8_t *got = calloc(want->n + 1, size);
    const uint8_t *data = want->data;
    struct sl_error err;

    assert_string_equal(numpy_type(t->dtype), want->dtype);
    assert_int_equal(t->n_dims, want->n_dims);
    for (uint32_t i = 0; i < t->n_dims; i++) {
        assert_int_equal(t->shape[i], want->shape[i]);
        cols *= i ? t->shape[i] : 1;
    }
    assert_ok(sl_ckpt_read_rows(t, got, 0, rows, &err), &err);
    assert_memory_equal(got, data, want->n * size);
    for (size_t r = 0; r < rows; r++) {
        assert_ok(sl_ckpt_read_rows(t, got, r, 1, &err), &err);
        assert_memory_equal(got, data + r * cols * size, cols * size);
    }
    if (rows > 2 && cols > 2) {
        size_t n = cols - 2;

        assert_ok(sl_ckpt_read_block(t, got, 1, rows - 1, 1, n, &err), &err);
        for (size_t r = 1; r < rows; r++)
            assert_memory_equal(got + (r - 1) * n * size,
                                data + (r * cols + 1) * size, n * size);
    }
    assert_int_equal(sl_ckpt_read_rows(t, got, rows, 1, &err), -1);
    free(got);
}

static void every_variant_gives_the_tensors_torch_gave(void **state)
{
    char path[32][1024], npz[1100];
    size_t n = list_files(path, 32, VARIANTS, ".pt"), tensors = 0;
    struct sl_ckpt_shard shard;
    struct sl_error err;

    assert_true(n >= 8);
    for (size_t i = 0; i < n; i++) {
        struct test_npz *z;

        snprintf(npz, sizeof npz, "%s.expected.npz", path[i]);
        z = test_npz_open(npz);
        assert_ok(open_torch(&shard, path[i], &err), &err);
        for (size_t k = 0; k < shard.n_tensors; k++, tensors++) {
            struct test_array want;

            test_npz_get(z, shard.tensors[k].name, &want);
            check_tensor(&shard.tensors[k], &want);
            test_array_fini(&want);
        }
        sl_torch_close(&shard);
        test_npz_close(z);
    }
    assert_int_equal(tensors, 55);
}

static void malformed_files_are_refused_by_name(void **state)
{
    char path[32][1024];
    size_t n = list_files(path, 32, VARIANTS "/bad", ".pt");
    struct sl_ckpt_shard shard;
    struct sl_error err;

    assert_true(n >= 4);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(open_torch(&shard, path[i], &err), -1);
        assert_int_equal(err.code, SL_ERR_CORRUPT);
        assert_non_null(strstr(err.msg, path[i]));
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_variant_gives_the_tensors_torch_gave),
        cmocka_unit_test(malformed_files_are_refused_by_name),
    };
    char path[1024];

    if (test_shared(path, VARIANTS) == NULL)
        test_skip_all("no golden data in ../shared");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
