#include "config.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/ckpt/ckpt.h"
#include "tests/ckpt_maker.h"
#include "tests/support.h"

#define VARIANTS "golden/E_pickle_variants"
#define TINY     "demo"

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
        sl_ckpt_shard_close(&shard);
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

static void folders_open_with_all_shards_and_shapes(void **state)
{
    static const struct {
        const char *folder, *iteration;
        size_t n_shards, n_tensors;
        enum sl_dtype dtype;
        uint64_t rows, cols; /* of layer 0's query_key_value in a shard */
    } want[] = {
        {"golden/A_glm130b/g130_a/tp1", "100", 1, 42, SL_DT_F32, 192, 64},
        {"golden/A_glm130b/g130_a/tp1_satsave", "100", 1, 40, SL_DT_F32, 192,
         64},
        {"golden/A_glm130b/g130_a/tp2", "100", 2, 42, SL_DT_F32, 96, 64},
        {"golden/A_glm130b/g130_a/tp4", "100", 4, 42, SL_DT_F32, 48, 64},
        {"golden/A_glm130b/g130_a/int8_tp1", "100", 1, 54, SL_DT_I8, 192, 64},
        {"golden/A_glm130b/g130_a/int8_tp2", "100", 2, 54, SL_DT_I8, 96, 64},
        {"golden/A_glm130b/g130_a/int8_tp4", "100", 4, 54, SL_DT_I8, 48, 64},
        {"golden/A_glm130b/g130_a/int4_tp1", "100", 1, 54, SL_DT_I8, 192, 32},
        {"golden/A_glm130b/g130_a/int4_tp2", "100", 2, 54, SL_DT_I8, 96, 32},
        {TINY, "49300", 2, 107, SL_DT_F16, 384, 256},
    };
    struct sl_error err;
    char path[1024];

    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        struct sl_ckpt c;

        if (test_source(path, want[i].folder) == NULL &&
            test_variant(path, want[i].folder) == NULL)
            continue;
        assert_ok(sl_ckpt_open(&c, path, NULL, &err), &err);
        assert_string_equal(c.iteration, want[i].iteration);
        assert_int_equal(c.n_shards, want[i].n_shards);
        for (size_t r = 0; r < c.n_shards; r++) {
            const struct sl_ckpt_tensor *t = sl_ckpt_find(
                &c, r, "transformer.layers.0.attention.query_key_value.weight");

            assert_int_equal(c.shards[r].n_tensors, want[i].n_tensors);
            assert_non_null(t);
            assert_int_equal(t->dtype, want[i].dtype);
            assert_int_equal(t->n_dims, 2);
            assert_int_equal(t->shape[0], want[i].rows);
            assert_int_equal(t->shape[1], want[i].cols);
        }
        sl_ckpt_close(&c);
    }
}

static void add_file(struct maker_buf *tar, const char *name)
{
    char path[1024], from[300], to[300];
    uint8_t *data;
    size_t n;

    snprintf(from, sizeof from, TINY "/%s", name);
    snprintf(to, sizeof to, "glm-tiny/%s", name);
    assert_non_null(test_source(path, from));
    data = test_read_file(path, &n);
    maker_tar_member(tar, to, data, n, false);
    free(data);
}

static void check_same(const struct sl_ckpt *a, const struct sl_ckpt *b)
{
    struct sl_error err;

    assert_int_equal(a->n_shards, b->n_shards);
    for (size_t r = 0; r < a->n_shards; r++) {
        assert_int_equal(a->shards[r].n_tensors, b->shards[r].n_tensors);
        for (size_t i = 0; i < a->shards[r].n_tensors; i++) {
            const struct sl_ckpt_tensor *t = &a->shards[r].tensors[i];
            const struct sl_ckpt_tensor *u = &b->shards[r].tensors[i];
            size_t n = sl_dtype_bytes(t->dtype) * t->shape[0] *
                       (t->n_dims > 1 ? t->shape[1] : 1);
            uint8_t *x = malloc(n), *y = malloc(n);

            assert_string_equal(t->name, u->name);
            assert_ok(sl_ckpt_read_rows(t, x, 0, t->shape[0], &err), &err);
            assert_ok(sl_ckpt_read_rows(u, y, 0, u->shape[0], &err), &err);
            assert_memory_equal(x, y, n);
            free(x);
            free(y);
        }
    }
}

static void write_parts(const char *dir, const struct maker_buf *tar,
                        size_t part_bytes)
{
    char path[1200];

    for (size_t i = 0; i * part_bytes < tar->n; i++) {
        size_t left = tar->n - i * part_bytes;

        snprintf(path, sizeof path, "%s/glm-tiny.tar.part_%03zu", dir, i);
        maker_file(path, tar->at + i * part_bytes,
                   left < part_bytes ? left : part_bytes);
    }
}

static void the_split_archive_gives_the_folders_bytes(void **state)
{
    struct maker_buf tar = {0};
    struct sl_ckpt folder, archive;
    struct sl_error err;
    size_t sizes[] = {40961, 5000000, 0, 0};
    uint8_t *data;
    char path[1024], dir[1024];
    size_t n;

    add_file(&tar, "latest");
    add_file(&tar, "49300/mp_rank_00_model_states.pt");
    sizes[2] = tar.n + 100; /* in the middle of a header */
    sizes[3] = tar.n + 512; /* and just after it */
    add_file(&tar, "49300/mp_rank_01_model_states.pt");
    add_file(&tar, "config.json");
    maker_tar_end(&tar);
    assert_non_null(test_source(path, TINY));
    assert_ok(sl_ckpt_open(&folder, path, NULL, &err), &err);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        test_temp_dir(dir);
        write_parts(dir, &tar, sizes[i]);
        assert_ok(sl_ckpt_open(&archive, dir, NULL, &err), &err);
        check_same(&folder, &archive);
        assert_ok(sl_ckpt_read_file(&archive, "config.json", &data, &n, &err),
                  &err);
        assert_int_equal(n, 722);
        free(data);
        sl_ckpt_close(&archive);
        test_remove_tree(dir);
    }
    sl_ckpt_close(&folder);
    maker_fini(&tar);
}

static void hugging_face_folders_open_with_all_files(void **state)
{
    static const struct {
        const char *folder;
        size_t n_files, n_tensors;
        const char *name;
        enum sl_dtype dtype;
        uint64_t rows, cols;
    } want[] = {
        {"golden/C_chatglm6b/c6_a/hf", 1, 43, "lm_head.weight", SL_DT_F16, 300,
         64},
        {"golden/C_chatglm6b/c6_a/hf_sharded", 2, 43, "lm_head.weight",
         SL_DT_F16, 300, 64},
        {"golden/C_chatglm6b/c6_a/hf_int8", 1, 55,
         "transformer.layers.2.mlp.dense_h_to_4h.weight", SL_DT_I8, 256, 64},
        {"golden/C_chatglm6b/c6_a/hf_int4", 1, 55,
         "transformer.layers.2.mlp.dense_h_to_4h.weight", SL_DT_I8, 256, 32},
        {"golden/C_chatglm6b/c6_a/hf_int4_qe", 1, 57, "lm_head.weight",
         SL_DT_I8, 300, 32},
        {"golden/H_family/chatglm3/hf", 2, 25,
         "transformer.output_layer.weight", SL_DT_F16, 480, 64},
        {"golden/H_family/glm4_9b_hf/hf", 2, 36, "lm_head.weight", SL_DT_BF16,
         480, 64},
        {"golden/H_family/llama/hf", 1, 30, "lm_head.weight", SL_DT_F32, 480,
         64},
    };
    struct sl_error err;
    char path[1024];

    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        const struct sl_ckpt_tensor *t;
        struct sl_ckpt c;

        if (test_shared(path, want[i].folder) == NULL)
            continue;
        assert_ok(sl_ckpt_open(&c, path, NULL, &err), &err);
        assert_int_equal(c.n_shards, 1);
        assert_int_equal(c.shards[0].n_srcs, want[i].n_files);
        assert_int_equal(c.shards[0].n_tensors, want[i].n_tensors);
        t = sl_ckpt_find(&c, 0, want[i].name);
        assert_non_null(t);
        assert_int_equal(t->dtype, want[i].dtype);
        assert_int_equal(t->n_dims, 2);
        assert_int_equal(t->shape[0], want[i].rows);
        assert_int_equal(t->shape[1], want[i].cols);
        sl_ckpt_close(&c);
    }
}

static void shards_of_a_folder_hold_what_its_one_file_does(void **state)
{
    static const char one[] = "golden/C_chatglm6b/c6_a/hf";
    static const char many[] = "golden/C_chatglm6b/c6_a/hf_sharded";
    struct sl_ckpt a, b;
    struct sl_error err;
    char path[1024];

    if (test_shared(path, many) == NULL)
        return; /* the tree has the one file alone */
    assert_ok(sl_ckpt_open(&b, path, NULL, &err), &err);
    assert_non_null(test_shared(path, one));
    assert_ok(sl_ckpt_open(&a, path, NULL, &err), &err);
    check_same(&a, &b);
    sl_ckpt_close(&a);
    sl_ckpt_close(&b);
}

/* GLM's folders by either of their two trackers, and the shards' own. */
static void glm_folders_open_by_each_of_their_trackers(void **state)
{
    static const char *const hide[] = {"", "latest"};
    struct sl_ckpt want, got;
    struct sl_error err;
    char path[1024], dir[1024], from[1200], to[1200];

    assert_non_null(test_shared(path, "golden/D_glm/glm_a/tp2"));
    assert_ok(sl_ckpt_open(&want, path, NULL, &err), &err);
    assert_int_equal(want.n_shards, 2);
    test_temp_dir(dir);
    snprintf(from, sizeof from, "%s/1000", path);
    snprintf(to, sizeof to, "%s/1000", dir);
    assert_int_equal(symlink(from, to), 0);
    for (size_t i = 0; i < 2; i++) {
        snprintf(to, sizeof to, "%s/%s", dir,
                 i == 0 ? "latest" : "latest_checkpointed_iteration.txt");
        maker_file(to, "1000", 4);
        if (*hide[i] != '\0') {
            snprintf(to, sizeof to, "%s/%s", dir, hide[i]);
            assert_int_equal(unlink(to), 0);
        }
        assert_ok(sl_ckpt_open(&got, dir, NULL, &err), &err);
        check_same(&want, &got);
        sl_ckpt_close(&got);
    }
    assert_ok(sl_ckpt_open(&got, from, NULL, &err), &err);
    check_same(&want, &got);
    sl_ckpt_close(&got);
    sl_ckpt_close(&want);
    snprintf(to, sizeof to, "%s/1000", dir);
    assert_int_equal(unlink(to), 0); /* not what it leads to */
    test_remove_tree(dir);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_variant_gives_the_tensors_torch_gave),
        cmocka_unit_test(malformed_files_are_refused_by_name),
        cmocka_unit_test(folders_open_with_all_shards_and_shapes),
        cmocka_unit_test(the_split_archive_gives_the_folders_bytes),
        cmocka_unit_test(hugging_face_folders_open_with_all_files),
        cmocka_unit_test(shards_of_a_folder_hold_what_its_one_file_does),
        cmocka_unit_test(glm_folders_open_by_each_of_their_trackers),
    };
    char path[1024];

    if (test_shared(path, VARIANTS) == NULL)
        test_skip_all("no golden data");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
