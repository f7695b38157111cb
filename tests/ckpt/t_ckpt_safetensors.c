#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/bytes.h"
#include "tests/hf_maker.h"
#include "tests/support.h"

static int open_bytes(struct sl_ckpt_shard *shard, const void *data, size_t n,
                      struct sl_error *err)
{
    struct sl_src *src;

    assert_ok(sl_src_open_memory(&src, data, n, "m.safetensors", err), err);
    return sl_safetensors_open(shard, src, err);
}

static const struct sl_ckpt_tensor *find(const struct sl_ckpt_shard *shard,
                                         const char *name)
{
    for (size_t i = 0; i < shard->n_tensors; i++)
        if (strcmp(shard->tensors[i].name, name) == 0)
            return &shard->tensors[i];
    return NULL;
}

/* Opens a header over n bytes of data and expects this complaint. */
static void check_refused(const char *header, size_t n, enum sl_code code,
                          const char *says)
{
    uint8_t *data = calloc(n + 1, 1);
    struct maker_buf b = {0};
    struct sl_ckpt_shard shard;
    struct sl_error err;

    assert_non_null(data);
    maker_safetensors_raw(&b, header, data, n);
    assert_int_equal(open_bytes(&shard, b.at, b.n, &err), -1);
    if (strstr(err.msg, says) == NULL)
        print_error("%s\n(should say: %s)\n", err.msg, says);
    assert_non_null(strstr(err.msg, says));
    assert_ptr_equal(strstr(err.msg, "m.safetensors"), err.msg);
    assert_int_equal(err.code, code);
    maker_fini(&b);
    free(data);
}

#define N_DATA 24
/* Those of Hugging Face: what follows are ggml's blocks. */
#define N_TYPES ((size_t)SL_DT_F8_E5M2 + 1)

static size_t make_all_types(struct maker_tensor t[N_TYPES + 3],
                             char names[N_TYPES][32], const uint8_t *data)
{
    size_t n = 0;

    for (; n < N_TYPES; n++) {
        snprintf(names[n], 32, "of.%s", sl_dtype_name((enum sl_dtype)n));
        t[n] = (struct maker_tensor){.name = names[n],
                                     .dtype = (enum sl_dtype)n,
                                     .n_dims = 2,
                                     .shape = {3, 4},
                                     .data = data};
    }
    t[n++] = (struct maker_tensor){.name = "scalar", .data = data};
    t[n++] = (struct maker_tensor){
        .name = "empty", .n_dims = 2, .shape = {0, 7}, .data = data};
    t[n++] = (struct maker_tensor){
        .name = "deep", .n_dims = 4, .shape = {2, 1, 3, 1}, .data = data};
    return n;
}

static void every_type_and_shape_is_read(void **state)
{
    struct maker_tensor t[N_TYPES + 3];
    char names[N_TYPES][32];
    uint8_t data[N_DATA * 8], got[N_DATA * 8];
    struct maker_buf b = {0};
    struct sl_ckpt_shard shard;
    struct sl_error err;
    size_t n;

    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 7 + 1);
    n = make_all_types(t, names, data);
    maker_safetensors(&b, t, n);
    assert_ok(open_bytes(&shard, b.at, b.n, &err), &err);
    assert_int_equal(shard.n_tensors, n);
    for (size_t i = 0; i < n; i++) {
        const struct sl_ckpt_tensor *is = find(&shard, t[i].name);
        uint64_t rows = t[i].n_dims > 0 ? t[i].shape[0] : 1, bytes = 1;

        assert_non_null(is);
        assert_int_equal(is->dtype, t[i].dtype);
        assert_int_equal(is->n_dims, t[i].n_dims);
        for (uint32_t d = 0; d < t[i].n_dims; d++) {
            assert_int_equal(is->shape[d], t[i].shape[d]);
            bytes *= t[i].shape[d];
        }
        bytes *= sl_dtype_bytes(t[i].dtype);
        assert_ok(sl_ckpt_read_rows(is, got, 0, rows, &err), &err);
        assert_memory_equal(got, data, bytes);
        if (rows > 1) {
            assert_ok(sl_ckpt_read_rows(is, got, 1, 1, &err), &err);
            assert_memory_equal(got, data + bytes / rows, bytes / rows);
        }
    }
    for (size_t i = 1; i < n; i++)
        assert_true(strcmp(shard.tensors[i - 1].name, shard.tensors[i].name) <
                    0);
    sl_ckpt_shard_close(&shard);
    maker_fini(&b);
}

static void tensors_may_be_listed_in_any_order(void **state)
{
    static const char header[] =
        "{\"b\":{\"dtype\":\"I8\",\"shape\":[2],\"data_offsets\":[3,5]},"
        "\"none\":{\"shape\":[0],\"data_offsets\":[3,3],\"dtype\":\"F64\"},"
        "\"a\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]}}";
    struct maker_buf b = {0};
    struct sl_ckpt_shard shard;
    struct sl_error err;
    char got[3];

    maker_safetensors_raw(&b, header, "abcde", 5);
    assert_ok(open_bytes(&shard, b.at, b.n, &err), &err);
    assert_int_equal(shard.n_tensors, 3);
    assert_ok(sl_ckpt_read_rows(find(&shard, "b"), got, 0, 2, &err), &err);
    assert_memory_equal(got, "de", 2);
    assert_ok(sl_ckpt_read_rows(find(&shard, "a"), got, 0, 3, &err), &err);
    assert_memory_equal(got, "abc", 3);
    sl_ckpt_shard_close(&shard);
    maker_fini(&b);
}

#define T(name, dtype, shape, offsets)                                         \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape                   \
    ",\"data_offsets\":" offsets "}"

static void what_does_not_fit_together_is_refused_by_name(void **state)
{
    static const struct {
        const char *header;
        size_t n;
        enum sl_code code;
        const char *says;
    } bad[] = {
        {"{" T("w", "F16", "[2,2]", "[0,6]") "}", 8, SL_ERR_CORRUPT,
         "tensor w: its shape takes 8 bytes as float16, but it has 6"},
        {"{" T("w", "F16", "[2,2]", "[0,10]") "}", 10, SL_ERR_CORRUPT,
         "its shape takes 8 bytes as float16, but it has 10"},
        {"{" T("w", "F16", "[2,2]", "[0,8]") "}", 7, SL_ERR_CORRUPT,
         "tensor w: ends at offset 72, but the file at 71: is it complete?"},
        {"{" T("w", "F16", "[2,2]", "[0,8]") "}", 9, SL_ERR_CORRUPT,
         "the last tensor ends at offset 72, but the file at 73"},
        {"{" T("w", "I8", "[2]", "[2,0]") "}", 2, SL_ERR_CORRUPT,
         "tensor w: data_offsets are not a beginning and an end"},
        {"{" T("w", "I8", "[2]", "[0]") "}", 2, SL_ERR_CORRUPT,
         "data_offsets are not"},
        {"{" T("w", "I8", "[2]", "[-2,0]") "}", 2, SL_ERR_CORRUPT,
         "data_offsets are not"},
        {"{" T("w", "I8", "[2]", "[0,2.0]") "}", 2, SL_ERR_CORRUPT,
         "data_offsets are not"},
        {"{" T("w", "I8", "[2]", "\"0,2\"") "}", 2, SL_ERR_CORRUPT,
         "data_offsets are not"},
        {"{" T("w", "I8", "[2]", "[0,9223372036854775807]") "}", 2,
         SL_ERR_CORRUPT, "tensor w: ends at offset"},
        {"{" T("w", "I8", "[2]", "[0,9223372036854775808]") "}", 2,
         SL_ERR_CORRUPT, "not JSON: too big integer"},
        {"{" T("a", "I8", "[2]", "[0,2]") "," T("b", "I8", "[2]", "[1,3]") "}",
         3, SL_ERR_CORRUPT,
         "tensor b begins at offset 114, but a ends at 115: they overlap"},
        {"{" T("a", "I8", "[2]", "[0,2]") "," T("b", "I8", "[2]", "[0,2]") "}",
         2, SL_ERR_CORRUPT, "they overlap"},
        {"{" T("a", "I8", "[2]", "[0,2]") "," T("b", "I8", "[2]", "[3,5]") "}",
         5, SL_ERR_CORRUPT, "there is a hole between them"},
        {"{" T("a", "I8", "[2]", "[1,3]") "}", 3, SL_ERR_CORRUPT,
         "but the header ends at"},
        {"{" T("a", "I8", "[2]", "[0,2]") "," T("a", "I8", "[2]", "[2,4]") "}",
         4, SL_ERR_CORRUPT, "duplicate object key"},
        {"{" T("w", "F4", "[2]", "[0,1]") "}", 1, SL_ERR_UNSUPPORTED,
         "tensor w: elements of type F4 are not read"},
        {"{" T("w", "float16", "[2]", "[0,4]") "}", 4, SL_ERR_UNSUPPORTED,
         "elements of type float16 are not read"},
        {"{\"w\":{\"dtype\":3,\"shape\":[2],\"data_offsets\":[0,2]}}", 2,
         SL_ERR_CORRUPT, "tensor w: has no dtype"},
        {"{\"w\":{\"dtype\":\"I8\",\"data_offsets\":[0,2]}}", 2, SL_ERR_CORRUPT,
         "tensor w: has no list of sizes"},
        {"{" T("w", "I8", "[2,-1]", "[0,2]") "}", 2, SL_ERR_CORRUPT,
         "the size of dimension 1 is no count"},
        {"{" T("w", "I8", "[1.5]", "[0,2]") "}", 2, SL_ERR_CORRUPT,
         "the size of dimension 0 is no count"},
        {"{" T("w", "F64", "[4611686018427387904,4]", "[0,0]") "}", 0,
         SL_ERR_CORRUPT, "overflows"},
        {"{" T("w", "F64", "[9223372036854775807,0,9]", "[0,0]") "}", 0,
         SL_ERR_CORRUPT, "overflows"},
        {"{" T("w", "I8", "[1,1,1,1,1,1,1,1,1]", "[0,1]") "}", 1,
         SL_ERR_UNSUPPORTED, "9 dimensions; at most 8"},
        {"{\"w\":[1]}", 0, SL_ERR_CORRUPT,
         "tensor w: is described by an array, not an object"},
        {"{\"w\":null}", 0, SL_ERR_CORRUPT, "described by null"},
        {"{" T("", "I8", "[1]", "[0,1]") "}", 1, SL_ERR_CORRUPT,
         "a tensor's name of 0 bytes"},
        {"{" T("a\\u001b[31m", "I8", "[1]", "[0,1]") "}", 1, SL_ERR_CORRUPT,
         "not printable"},
        {"{}", 0, SL_ERR_CORRUPT, "holds no tensors"},
        {"{\"__metadata__\":{\"a\":\"b\"}}", 0, SL_ERR_CORRUPT,
         "holds no tensors"},
        {"{\"__metadata__\":{\"a\":\"b\"}}", 4, SL_ERR_CORRUPT,
         "the last tensor ends at"},
        {"[1]", 0, SL_ERR_CORRUPT, "byte 8 begins no JSON object"},
        {"", 0, SL_ERR_CORRUPT, "byte 8 begins no JSON object"},
        {"{\"a\":", 0, SL_ERR_CORRUPT, "not JSON"},
        {"{} {}", 0, SL_ERR_CORRUPT, "not JSON: end of file expected"},
    };

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        check_refused(bad[i].header, bad[i].n, bad[i].code, bad[i].says);
}

static void deep_or_long_headers_are_refused_unread(void **state)
{
    static const struct {
        uint64_t n;
        const char *says;
    } lengths[] = {
        {9, "the header has 9 bytes, but the file ends at 16"},
        {100000000, "the header has 100000000 bytes, but the file ends at 16"},
        {100000001, "a header of 100000001 bytes, but at most 100000000"},
        {UINT64_MAX, "a header of 18446744073709551615 bytes"},
    };
    struct sl_ckpt_shard shard;
    struct sl_error err;
    uint8_t file[16];
    char *deep;

    memcpy(file + 8, "{      }", 8);
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        sl_store_u64(file, lengths[i].n);
        assert_int_equal(open_bytes(&shard, file, sizeof file, &err), -1);
        assert_int_equal(err.code, SL_ERR_CORRUPT);
        assert_non_null(strstr(err.msg, lengths[i].says));
    }
    deep = malloc(1000001);
    assert_non_null(deep);
    memset(deep, '[', 1000000);
    deep[1000000] = '\0';
    memcpy(deep, "{\"a\":", 5);
    check_refused(deep, 0, SL_ERR_CORRUPT, "nests deeper than 32");
    free(deep);
}

static void a_file_cut_anywhere_is_refused(void **state)
{
    struct maker_tensor t[N_TYPES + 3];
    char names[N_TYPES][32];
    uint8_t data[N_DATA * 8] = {0};
    struct maker_buf b = {0};
    struct sl_ckpt_shard shard;
    struct sl_error err;

    maker_safetensors(&b, t, make_all_types(t, names, data));
    for (size_t cut = 0; cut < b.n; cut++) {
        uint8_t *copy = malloc(cut + 1);

        memcpy(copy, b.at, cut);
        assert_int_equal(open_bytes(&shard, copy, cut, &err), -1);
        assert_int_equal(err.code, SL_ERR_CORRUPT);
        assert_non_null(strstr(err.msg, "m.safetensors"));
        free(copy);
    }
    maker_fini(&b);
}

static void a_git_lfs_pointer_is_told_from_weights(void **state)
{
    static const char pointer[] =
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n";
    struct sl_ckpt_shard shard;
    struct sl_error err;
    struct sl_src *src;

    assert_int_equal(open_bytes(&shard, pointer, sizeof pointer - 1, &err), -1);
    assert_non_null(strstr(err.msg, "git lfs pull"));
    assert_ok(
        sl_src_open_memory(&src, pointer, sizeof pointer - 1, "m.bin", &err),
        &err);
    assert_int_equal(sl_torch_open(&shard, src, NULL, &err), -1);
    assert_non_null(strstr(err.msg, "git lfs pull"));
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_and_shape_is_read),
        cmocka_unit_test(tensors_may_be_listed_in_any_order),
        cmocka_unit_test(what_does_not_fit_together_is_refused_by_name),
        cmocka_unit_test(deep_or_long_headers_are_refused_unread),
        cmocka_unit_test(a_file_cut_anywhere_is_refused),
        cmocka_unit_test(a_git_lfs_pointer_is_told_from_weights),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
