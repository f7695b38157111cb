#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/base/bytes.h"
#include "src/ckpt/ckpt_tar.h"
#include "tests/ckpt_maker.h"
#include "tests/support.h"

#define N_DATA 96
#define RANKS  3

/* Each rank holds its own numbers. */
struct made {
    uint16_t data[RANKS][N_DATA];
    struct maker_tensor tensors[RANKS][2];
};

static void make(struct made *m)
{
    for (unsigned r = 0; r < RANKS; r++) {
        for (unsigned i = 0; i < N_DATA; i++)
            m->data[r][i] = (uint16_t)(r * 1000 + i);
        m->tensors[r][0] = (struct maker_tensor){.name = "w",
                                                 .dtype = SL_DT_F16,
                                                 .n_dims = 2,
                                                 .shape = {8, 12},
                                                 .data = m->data[r]};
        m->tensors[r][1] = (struct maker_tensor){.name = "bias",
                                                 .dtype = SL_DT_F16,
                                                 .n_dims = 1,
                                                 .shape = {12},
                                                 .data = m->data[r]};
    }
}

static void make_folder(const char *dir, const char *iteration)
{
    struct maker_options o = {0};
    struct made m;

    make(&m);
    for (unsigned r = 0; r < RANKS; r++) {
        o.legacy = r == 1;
        maker_shard(dir, iteration, r, m.tensors[r], 2, &o);
    }
}

/* The same as an archive, with names of all three kinds. */
static void make_archive(struct maker_buf *tar, const char *top, bool pax)
{
    struct maker_options o = {0};
    char name[400];
    struct made m;

    make(&m);
    maker_tar_member(tar, "notes.txt", "about\n", 6, pax);
    snprintf(name, sizeof name, "%slatest", top);
    maker_tar_member(tar, name, "77\n", 3, pax);
    for (unsigned r = 0; r < RANKS; r++) {
        struct maker_buf b = {0};

        o.legacy = r == 1;
        maker_torch(&b, m.tensors[r], 2, &o);
        snprintf(name, sizeof name, "%s77/mp_rank_%02u_model_states.pt", top,
                 r);
        maker_tar_member(tar, name, b.at, b.n, pax);
        maker_fini(&b);
    }
    snprintf(name, sizeof name, "%sconfig.json", top);
    maker_tar_member(tar, name, "{}", 2, pax);
    maker_tar_end(tar);
}

static void write_parts(const char *dir, const struct maker_buf *tar,
                        size_t part_bytes)
{
    char path[1200];

    for (size_t i = 0; i * part_bytes < tar->n; i++) {
        size_t left = tar->n - i * part_bytes;

        snprintf(path, sizeof path, "%s/made.tar.part_%c%c%c", dir,
                 (int)('a' + i / 676), (int)('a' + i / 26 % 26),
                 (int)('a' + i % 26));
        maker_file(path, tar->at + i * part_bytes,
                   left < part_bytes ? left : part_bytes);
    }
}

static void check_shards(const struct sl_ckpt *c)
{
    struct sl_error err;
    struct made m;

    make(&m);
    assert_int_equal(c->n_shards, RANKS);
    for (unsigned r = 0; r < RANKS; r++) {
        const struct sl_ckpt_tensor *t = sl_ckpt_find(c, r, "w");
        uint16_t got[N_DATA];

        assert_int_equal(c->shards[r].n_tensors, 2);
        assert_non_null(t);
        assert_ok(sl_ckpt_read_rows(t, got, 0, 8, &err), &err);
        assert_memory_equal(got, m.data[r], sizeof got);
        assert_null(sl_ckpt_find(c, r, "nothing"));
    }
}

static void check_file(const struct sl_ckpt *c, const char *name,
                       const char *text)
{
    struct sl_error err;
    uint8_t *data;
    size_t n;

    assert_ok(sl_ckpt_read_file(c, name, &data, &n, &err), &err);
    assert_int_equal(n, strlen(text));
    assert_string_equal((char *)data, text);
    free(data);
}

static void open_ok(const char *path, const char *iteration)
{
    struct sl_error err;
    struct sl_ckpt c;

    assert_ok(sl_ckpt_open(&c, path, NULL, &err), &err);
    assert_string_equal(c.iteration, iteration);
    check_shards(&c);
    sl_ckpt_close(&c);
}

static void open_fails(const char *path, enum sl_code code, const char *says,
                       const char *also)
{
    struct sl_error err;
    struct sl_ckpt c;

    assert_int_equal(sl_ckpt_open(&c, path, NULL, &err), -1);
    if (strstr(err.msg, says) == NULL || strstr(err.msg, also) == NULL)
        print_error("%s\n", err.msg);
    assert_non_null(strstr(err.msg, says));
    assert_non_null(strstr(err.msg, also));
    assert_int_equal(err.code, code);
}

static void files_end_to_end_read_as_one(void **state)
{
    static const char text[] = "abcdefghijklmno";
    static const size_t sizes[] = {5, 0, 1, 0, 0, 9, 0};
    char dir[1024], path[7][1200], got[16];
    const char *paths[7];
    struct sl_src *src, *part;
    struct sl_error err;
    size_t at = 0;

    test_temp_dir(dir);
    for (size_t i = 0; i < 7; at += sizes[i++]) {
        snprintf(path[i], sizeof path[i], "%s/%zu", dir, i);
        maker_file(path[i], text + at, sizes[i]);
        paths[i] = path[i];
    }
    assert_ok(sl_src_open(&src, paths, 7, &err), &err);
    assert_ok(sl_src_slice(&part, src, 3, 10, "part", &err), &err);
    assert_int_equal(sl_src_bytes(src), 15);
    for (size_t i = 0; i <= 15; i++)
        for (size_t n = 0; n <= 15 - i; n++) {
            assert_ok(sl_src_read(src, got, i, n, &err), &err);
            assert_memory_equal(got, text + i, n);
            assert_int_equal(sl_src_read(part, got, i, n, &err),
                             i + n <= 10 ? 0 : -1);
            if (i + n <= 10)
                assert_memory_equal(got, text + 3 + i, n);
        }
    assert_int_equal(sl_src_read(src, got, 14, 2, &err), -1);
    assert_int_equal(err.code, SL_ERR_CORRUPT);
    assert_string_equal(sl_src_where(part, 4).file, path[5]);
    assert_int_equal(sl_src_where(part, 4).off, 1);
    sl_src_close(part);
    sl_src_close(src);
    test_remove_tree(dir);
}

static void a_folder_opens_as_latest_says(void **state)
{
    char dir[1024], path[1200];
    struct sl_error err;
    struct sl_ckpt c;
    uint8_t *data;
    size_t n;

    test_temp_dir(dir);
    make_folder(dir, "500");
    make_folder(dir, "release");
    snprintf(path, sizeof path, "%s/latest", dir);
    open_ok(dir, "release");
    maker_file(path, " \t0500\r\n\n", 9);
    open_ok(dir, "500");
    snprintf(path, sizeof path, "%s/500/beside.json", dir);
    maker_file(path, "[]", 2);
    snprintf(path, sizeof path, "%s/config.json", dir);
    maker_file(path, "{}", 2);
    assert_ok(sl_ckpt_open(&c, dir, NULL, &err), &err);
    check_file(&c, "config.json", "{}");
    check_file(&c, "beside.json", "[]");
    assert_int_equal(sl_ckpt_read_file(&c, "none", &data, &n, &err), 1);
    sl_ckpt_close(&c);
    test_remove_tree(dir);
}

/* THUDM/GLM names the folder in another file; and somebody may give the
 * folder with the shards itself. */
static void trackers_of_glm_and_bare_folders_open(void **state)
{
    static const char *const bad[] = {"", "../5", "a/b", ".", "5 6", ".."};
    char dir[1024], path[1200];

    test_temp_dir(dir);
    make_folder(dir, "blocklm-large.5");
    snprintf(path, sizeof path, "%s/latest", dir);
    assert_int_equal(unlink(path), 0);
    snprintf(path, sizeof path, "%s/blocklm-large.5", dir);
    open_ok(path, "");
    snprintf(path, sizeof path, "%s/latest_checkpointed_iteration.txt", dir);
    maker_file(path, "blocklm-large.5\n", 16);
    open_ok(dir, "blocklm-large.5");
    maker_file(path, "none", 4);
    open_fails(dir, SL_ERR_IO, "/none", "latest_checkpointed_iteration.txt");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        maker_file(path, bad[i], strlen(bad[i]));
        open_fails(dir, SL_ERR_CORRUPT, path, "name of a folder");
    }
    test_remove_tree(dir);
}

static void a_bad_latest_is_refused(void **state)
{
    static const char *const bad[] = {
        "",    "  \n",    "0",    "-5", "5 6",
        "1e3", "Release", "../5", "5x", "99999999999999999999"};
    char dir[1024], path[1200];

    test_temp_dir(dir);
    make_folder(dir, "5");
    snprintf(path, sizeof path, "%s/latest", dir);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        maker_file(path, bad[i], strlen(bad[i]));
        open_fails(dir, SL_ERR_CORRUPT, path, "iteration above 0");
    }
    maker_file(path, "6", 1);
    open_fails(dir, SL_ERR_IO, "/6", "latest");
    test_remove_tree(dir);
}

static void a_missing_shard_is_named(void **state)
{
    char dir[1024], path[1200], cut[16];
    struct stat st;

    test_temp_dir(dir);
    make_folder(dir, "5");
    snprintf(path, sizeof path, "%s/5/mp_rank_02_model_states.pt", dir);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(truncate(path, st.st_size - 9), 0);
    snprintf(cut, sizeof cut, "%d", (int)st.st_size - 9);
    open_fails(dir, SL_ERR_CORRUPT, path, cut);
    snprintf(path, sizeof path, "%s/5/mp_rank_01_model_states.pt", dir);
    assert_int_equal(unlink(path), 0);
    open_fails(dir, SL_ERR_CORRUPT, "mp_rank_01_model_states.pt is missing",
               dir);
    snprintf(path, sizeof path, "%s/5", dir);
    open_fails(path, SL_ERR_CORRUPT, ": mp_rank_01_model_states.pt is missing",
               path);
    test_remove_tree(dir);
}

static void a_path_that_is_no_checkpoint_is_refused(void **state)
{
    char dir[1024], path[1200];

    test_temp_dir(dir);
    open_fails(dir, SL_ERR_USAGE, dir, "latest");
    snprintf(path, sizeof path, "%s/none", dir);
    open_fails(path, SL_ERR_IO, path, "No such file");
    snprintf(path, sizeof path, "%s/x.pt", dir);
    maker_file(path, "x", 1);
    open_fails(path, SL_ERR_CORRUPT, path, "too short");
    snprintf(path, sizeof path, "%s/x.txt", dir);
    maker_file(path, "x", 1);
    open_fails(path, SL_ERR_USAGE, path, "latest");
    snprintf(path, sizeof path, "%s/a.tar", dir);
    maker_file(path, "x", 1);
    open_fails(path, SL_ERR_CORRUPT, path, "512 bytes");
    snprintf(path, sizeof path, "%s/b.tar", dir);
    maker_file(path, "x", 1);
    open_fails(dir, SL_ERR_USAGE, "a.tar", "b.tar");
    test_remove_tree(dir);
}

static void a_split_archive_reads_like_the_folder(void **state)
{
    static const size_t sizes[] = {100, 511, 512, 700, 4096, 1u << 30};
    char long_top[320] = "./";
    struct sl_error err;
    struct sl_ckpt c;

    memset(long_top + 2, 'x', 200);
    strcpy(long_top + 202, "/deep/");
    for (unsigned kind = 0; kind < 3; kind++) {
        struct maker_buf tar = {0};

        make_archive(&tar, kind == 0 ? "top/" : long_top, kind == 2);
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            char dir[1024], path[1200];

            test_temp_dir(dir);
            write_parts(dir, &tar, sizes[i]);
            open_ok(dir, "77");
            snprintf(path, sizeof path, "%s/made.tar.part_aaa", dir);
            open_ok(path, "77");
            snprintf(path, sizeof path, "%s/tokenizer", dir);
            maker_file(path, "beside", 6);
            assert_ok(sl_ckpt_open(&c, dir, NULL, &err), &err);
            check_file(&c, "config.json", "{}");
            check_file(&c, "notes.txt", "about\n");
            check_file(&c, "tokenizer", "beside");
            sl_ckpt_close(&c);
            test_remove_tree(dir);
        }
        maker_fini(&tar);
    }
}

static void one_tar_opens_by_itself_or_by_its_folder(void **state)
{
    struct maker_buf tar = {0};
    char dir[1024], path[1200];

    test_temp_dir(dir);
    make_archive(&tar, "", false);
    snprintf(path, sizeof path, "%s/made.tar", dir);
    maker_file(path, tar.at, tar.n);
    open_ok(dir, "77");
    open_ok(path, "77");
    maker_fini(&tar);
    test_remove_tree(dir);
}

static void a_missing_or_short_part_is_named(void **state)
{
    struct maker_buf tar = {0};
    char dir[1024], path[1200], other[1200];

    test_temp_dir(dir);
    make_archive(&tar, "top/", false);
    write_parts(dir, &tar, 1000);
    snprintf(path, sizeof path, "%s/made.tar.part_aad", dir);
    snprintf(other, sizeof other, "%s/gone", dir);
    assert_int_equal(rename(path, other), 0);
    open_fails(dir, SL_ERR_CORRUPT, "made.tar.part_aad is missing", dir);
    maker_file(path, tar.at + 3000, 999);
    open_fails(dir, SL_ERR_CORRUPT, "made.tar.part_aad has 999 bytes, ",
               "other parts 1000");
    assert_int_equal(rename(other, path), 0);
    open_ok(dir, "77");
    snprintf(path, sizeof path, "%s/made.tar.part_aaa", dir);
    assert_int_equal(rename(path, other), 0);
    open_fails(dir, SL_ERR_CORRUPT, "made.tar.part_aab", "first part");
    assert_int_equal(rename(other, path), 0);
    snprintf(path, sizeof path, "%s/other.tar.part_aaa", dir);
    maker_file(path, "x", 1);
    open_fails(dir, SL_ERR_USAGE, "other.tar.part_aaa", "several archives");
    test_remove_tree(dir);

    test_temp_dir(dir);
    write_parts(dir, &tar, 1000);
    snprintf(path, sizeof path, "%s/made.tar.part_aa%c", dir,
             (int)('a' + (tar.n - 1) / 1000));
    assert_int_equal(unlink(path), 0);
    open_fails(dir, SL_ERR_CORRUPT, dir, "parts after it are missing");
    maker_fini(&tar);
    test_remove_tree(dir);
}

static void a_tar_cut_anywhere_is_refused_by_name(void **state)
{
    struct maker_buf tar = {0};
    struct sl_error err;
    struct sl_tar t;

    make_archive(&tar, "top/", true);
    for (size_t cut = 0; cut <= tar.n - 1024; cut++) {
        uint8_t *copy = malloc(cut + 1);
        struct sl_src *src;

        memcpy(copy, tar.at, cut);
        assert_ok(sl_src_open_memory(&src, copy, cut, "made.tar", &err), &err);
        assert_int_equal(sl_tar_open(&t, src, &err), -1);
        assert_int_equal(err.code, SL_ERR_CORRUPT);
        assert_non_null(strstr(err.msg, "made.tar"));
        sl_src_close(src);
        free(copy);
    }
    maker_fini(&tar);
}

/* Puts a number or text in a header's field and repairs its checksum. */
static void patch(uint8_t *h, size_t at, const void *data, size_t n)
{
    unsigned sum = 0;

    memcpy(h + at, data, n);
    memset(h + 148, ' ', 8);
    for (size_t i = 0; i < 512; i++)
        sum += h[i];
    snprintf((char *)h + 148, 8, "%06o", sum);
}

static int open_tar(struct sl_tar *t, struct sl_src **src,
                    const struct maker_buf *b, struct sl_error *err)
{
    assert_ok(sl_src_open_memory(src, b->at, b->n, "made.tar", err), err);
    return sl_tar_open(t, *src, err);
}

static void tar_headers_of_all_kinds_are_read(void **state)
{
    static const uint8_t base256[12] = {0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5};
    static const uint8_t huge[12] = {0x80, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0};
    static const uint8_t minus[12] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
                                      0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    static const char old[8] = "ustar  ";
    struct maker_buf b = {0};
    struct sl_error err;
    struct sl_src *src;
    struct sl_tar t;

    maker_tar_member(&b, "size", "12345", 5, false);
    patch(b.at, 124, base256, 12);
    patch(b.at, 345, "some/where", 10);
    maker_tar_member(&b, "folder/", NULL, 0, false);
    patch(b.at + 1024, 156, "5", 1);
    maker_tar_member(&b, "gnu", "1", 1, false);
    patch(b.at + 1536, 257, old, 8);
    patch(b.at + 1536, 345, "123", 3);
    maker_tar_end(&b);
    assert_ok(open_tar(&t, &src, &b, &err), &err);
    assert_int_equal(t.n_members, 2);
    assert_string_equal(t.members[0].name, "some/where/size");
    assert_int_equal(t.members[0].bytes, 5);
    assert_int_equal(t.members[0].off, 512);
    assert_string_equal(t.members[1].name, "gnu");
    assert_int_equal(t.members[1].off, 2048);
    sl_tar_close(&t);
    sl_src_close(src);

    patch(b.at, 124, huge, 12);
    assert_int_equal(open_tar(&t, &src, &b, &err), -1);
    assert_non_null(strstr(err.msg, "72057594037927936 bytes"));
    sl_src_close(src);
    patch(b.at, 124, minus, 12);
    assert_int_equal(open_tar(&t, &src, &b, &err), -1);
    assert_non_null(strstr(err.msg, "no tar header at offset 0"));
    sl_src_close(src);
    patch(b.at, 124, base256, 12);
    patch(b.at, 156, "S", 1);
    assert_int_equal(open_tar(&t, &src, &b, &err), -1);
    assert_int_equal(err.code, SL_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "sparse"));
    sl_src_close(src);
    memset(b.at, 0, 512);
    assert_int_equal(open_tar(&t, &src, &b, &err), -1);
    assert_non_null(strstr(err.msg, "not a tar archive"));
    sl_src_close(src);
    b.at[100] ^= 1;
    assert_int_equal(open_tar(&t, &src, &b, &err), -1);
    assert_non_null(strstr(err.msg, "no tar header at offset 0"));
    sl_src_close(src);
    maker_fini(&b);
}

static void a_pax_size_counts_and_a_broken_one_is_refused(void **state)
{
    static const struct {
        const char *record;
        bool good;
    } cases[] = {
        {"10 size=5\n", true},
        {"10 mine=5\n", true},
        {"10 size=x\n", false},
        {"11 size=5\n", false},
        {"9 size=5\n", true},
        {"size=5\n", false},
        {" size=5\n", false},
        {"10 size 5\n", false},
        {"99999999999999999999 a=b\n", false},
        {"30 size=99999999999999999999\n", false},
        {"22 GNU.sparse.major=1\n", false},
        {"3 \n", false},
        {"11 path=\001x\n", false},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct maker_buf b = {0};
        struct sl_error err;
        struct sl_src *src;
        struct sl_tar t;
        int rc;

        maker_tar_member(&b, "pax", cases[i].record, strlen(cases[i].record),
                         false);
        patch(b.at, 156, "x", 1);
        maker_tar_member(&b, "data", "12345", 5, false);
        maker_tar_end(&b);
        if (i == 0)
            patch(b.at + 1024, 124, "00000000000", 11);
        rc = open_tar(&t, &src, &b, &err);
        if ((rc == 0) != cases[i].good)
            print_error("case %zu: %s\n", i, rc ? err.msg : "accepted");
        assert_int_equal(rc == 0, cases[i].good);
        if (rc == 0) {
            assert_int_equal(t.n_members, 1);
            assert_int_equal(t.members[0].bytes, 5);
            sl_tar_close(&t);
        }
        sl_src_close(src);
        maker_fini(&b);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_end_to_end_read_as_one),
        cmocka_unit_test(a_folder_opens_as_latest_says),
        cmocka_unit_test(trackers_of_glm_and_bare_folders_open),
        cmocka_unit_test(a_bad_latest_is_refused),
        cmocka_unit_test(a_missing_shard_is_named),
        cmocka_unit_test(a_path_that_is_no_checkpoint_is_refused),
        cmocka_unit_test(a_split_archive_reads_like_the_folder),
        cmocka_unit_test(one_tar_opens_by_itself_or_by_its_folder),
        cmocka_unit_test(a_missing_or_short_part_is_named),
        cmocka_unit_test(a_tar_cut_anywhere_is_refused_by_name),
        cmocka_unit_test(tar_headers_of_all_kinds_are_read),
        cmocka_unit_test(a_pax_size_counts_and_a_broken_one_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
