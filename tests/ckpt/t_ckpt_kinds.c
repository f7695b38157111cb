#include "config.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/ckpt/ckpt_kind.h"
#include "src/model/gguf.h"
#include "tests/hf_maker.h"
#include "tests/support.h"

#define N_TENSORS 5
#define N_DATA    96

/* The same tensors, in every kind of checkpoint. */
struct made {
    uint16_t data[N_DATA];
    struct maker_tensor t[N_TENSORS];
};

static void make(struct made *m)
{
    static const struct maker_tensor tensors[N_TENSORS] = {
        {.name = "w", .dtype = SL_DT_F16, .n_dims = 2, .shape = {8, 12}},
        {.name = "a.bias", .dtype = SL_DT_BF16, .n_dims = 1, .shape = {12}},
        {.name = "b.weight", .dtype = SL_DT_F32, .n_dims = 2, .shape = {4, 3}},
        {.name = "q", .dtype = SL_DT_I8, .n_dims = 2, .shape = {5, 7}},
        {.name = "z", .dtype = SL_DT_I64, .n_dims = 1, .shape = {2}},
    };

    for (unsigned i = 0; i < N_DATA; i++)
        m->data[i] = (uint16_t)(i * 257 + 3);
    memcpy(m->t, tensors, sizeof tensors);
    for (size_t i = 0; i < N_TENSORS; i++)
        m->t[i].data = m->data;
}

static void make_sat(const char *dir, const struct made *m)
{
    char path[1200];

    maker_shard(dir, "12", 0, m->t, N_TENSORS, NULL);
    snprintf(path, sizeof path, "%s/config.json", dir);
    maker_file(path, "{}", 2);
}

static void make_bare_sat(const char *dir, const struct made *m)
{
    static const struct maker_options legacy = {.legacy = true};
    struct maker_buf b = {0};
    char path[1200];

    maker_torch(&b, m->t, N_TENSORS, &legacy);
    snprintf(path, sizeof path, "%s/mp_rank_00_model_states.pt", dir);
    maker_file(path, b.at, b.n);
    maker_fini(&b);
}

static void make_one_safetensors(const char *dir, const struct made *m)
{
    maker_hf(dir, m->t, N_TENSORS, MAKER_SAFETENSORS, 1);
}

static void make_many_safetensors(const char *dir, const struct made *m)
{
    maker_hf(dir, m->t, N_TENSORS, MAKER_SAFETENSORS, 3);
}

static void make_one_bin(const char *dir, const struct made *m)
{
    maker_hf(dir, m->t, N_TENSORS, MAKER_TORCH, 1);
}

static void make_many_bins(const char *dir, const struct made *m)
{
    maker_hf(dir, m->t, N_TENSORS, MAKER_TORCH, 2);
}

static void make_other_name(const char *dir, const struct made *m)
{
    char from[1200], to[1200];

    make_one_safetensors(dir, m);
    snprintf(from, sizeof from, "%s/model.safetensors", dir);
    snprintf(to, sizeof to, "%s/model.fp16.safetensors", dir);
    assert_int_equal(rename(from, to), 0);
}

static void make_pt(const char *dir, const struct made *m)
{
    struct maker_buf b = {0};
    char path[1200];

    maker_torch(&b, m->t, N_TENSORS, NULL);
    snprintf(path, sizeof path, "%s/x.pt", dir);
    maker_file(path, b.at, b.n);
    maker_fini(&b);
}

/* As llama.cpp writes it: the fastest dimension first, an alignment of 32. */
static void make_gguf(const char *dir, const struct made *m)
{
    static const enum sl_ggml_type types[N_TENSORS] = {1, 30, 0, 24, 27};
    struct sl_gguf_writer *w = sl_gguf_writer_create(32);
    struct maker_buf b = {0};
    struct sl_error err;
    uint8_t *head;
    char path[1200];
    size_t n;

    sl_gguf_add_string(w, "general.architecture", "llama");
    for (size_t i = 0; i < N_TENSORS; i++) {
        const uint64_t *s = m->t[i].shape;
        const uint64_t ne[] = {m->t[i].n_dims > 1 ? s[1] : s[0], s[0]};

        sl_gguf_add_tensor(w, m->t[i].name, types[i], m->t[i].n_dims, ne);
    }
    assert_ok(sl_gguf_writer_finish(w, &head, &n, &err), &err);
    maker_put(&b, head, n);
    for (size_t i = 0; i < N_TENSORS; i++) {
        static const uint8_t zeros[32];
        size_t bytes = sl_dtype_bytes(m->t[i].dtype);

        for (uint32_t d = 0; d < m->t[i].n_dims; d++)
            bytes *= m->t[i].shape[d];
        maker_put(&b, m->data, bytes);
        maker_put(&b, zeros, (32 - bytes % 32) % 32);
    }
    snprintf(path, sizeof path, "%s/x.gguf", dir);
    maker_file(path, b.at, b.n);
    free(head);
    maker_fini(&b);
}

static const struct source {
    const char *kind;
    void (*make)(const char *dir, const struct made *m);
    const char *file; /* below the folder; "": the folder itself */
} sources[] = {
    {"sat", make_sat, ""},
    {"sat", make_bare_sat, ""},
    {"file", make_bare_sat,
     "/mp_rank_00_model_states.pt"}, /* one of its shards */
    {"hf", make_one_safetensors, ""},
    {"hf", make_many_safetensors, ""},
    {"hf", make_one_bin, ""},
    {"hf", make_many_bins, ""},
    {"file", make_one_safetensors, "/model.safetensors"},
    {"file", make_one_bin, "/pytorch_model.bin"},
    {"file", make_other_name, "/model.fp16.safetensors"},
    {"file", make_pt, "/x.pt"},
    {"gguf", make_gguf, "/x.gguf"},
};
#define N_SOURCES (sizeof sources / sizeof *sources)

static void check_tensors(const struct sl_ckpt *c, const struct made *m)
{
    struct sl_error err;

    assert_int_equal(c->n_shards, 1);
    assert_int_equal(c->shards[0].n_tensors, N_TENSORS);
    for (size_t i = 0; i < N_TENSORS; i++) {
        const struct sl_ckpt_tensor *t = sl_ckpt_find(c, 0, m->t[i].name);
        size_t bytes = sl_dtype_bytes(m->t[i].dtype);
        uint8_t got[sizeof m->data];

        assert_non_null(t);
        assert_int_equal(t->dtype, m->t[i].dtype);
        assert_int_equal(t->n_dims, m->t[i].n_dims);
        for (uint32_t d = 0; d < t->n_dims; d++) {
            assert_int_equal(t->shape[d], m->t[i].shape[d]);
            bytes *= t->shape[d];
        }
        assert_ok(sl_ckpt_read_rows(t, got, 0, t->shape[0], &err), &err);
        assert_memory_equal(got, m->data, bytes);
    }
    assert_null(sl_ckpt_find(c, 0, "nothing"));
}

static void check_fails(const char *path, enum sl_code code, const char *says,
                        const char *also)
{
    struct sl_error err;
    struct sl_ckpt c;

    assert_int_equal(sl_ckpt_open(&c, path, NULL, &err), -1);
    if (strstr(err.msg, says) == NULL || strstr(err.msg, also) == NULL)
        print_error("%s\n(should say: %s ... %s)\n", err.msg, says, also);
    assert_non_null(strstr(err.msg, says));
    assert_non_null(strstr(err.msg, also));
    assert_int_equal(err.code, code);
}

static void every_kind_gives_the_same_tensors(void **state)
{
    const struct sl_ckpt_kind *kind;
    struct made m;

    make(&m);
    for (size_t i = 0; i < N_SOURCES; i++) {
        char dir[1024], path[1200];
        struct sl_error err;
        struct sl_ckpt c;
        uint8_t *data;
        size_t n;

        test_temp_dir(dir);
        sources[i].make(dir, &m);
        snprintf(path, sizeof path, "%s/beside.json", dir);
        maker_file(path, "[1]", 3);
        snprintf(path, sizeof path, "%s%s", dir, sources[i].file);
        assert_ok(sl_ckpt_open(&c, path, NULL, &err), &err);
        assert_string_equal(c.kind->name, sources[i].kind);
        check_tensors(&c, &m);
        if (strcmp(c.kind->name, "gguf") != 0) {
            assert_ok(sl_ckpt_read_file(&c, "beside.json", &data, &n, &err),
                      &err);
            assert_int_equal(n, 3);
            free(data);
        } else { /* what lies beside it is nothing of it */
            assert_int_equal(
                sl_ckpt_read_file(&c, "beside.json", &data, &n, &err), 1);
        }
        assert_int_equal(sl_ckpt_read_file(&c, "none", &data, &n, &err), 1);
        sl_ckpt_close(&c);
        test_remove_tree(dir);
    }
    for (size_t k = 0; (kind = sl_ckpt_kind_at(k)) != NULL; k++) {
        bool tried = false;

        for (size_t i = 0; i < N_SOURCES; i++)
            tried = tried || strcmp(sources[i].kind, kind->name) == 0;
        assert_true(tried);
    }
}

/* Every file below dir that holds a checkpoint's bytes. */
static size_t list_files(char path[][1400], size_t max, const char *dir)
{
    struct dirent *e;
    size_t n = 0;
    DIR *d = opendir(dir);

    assert_non_null(d);
    while ((e = readdir(d)) != NULL) {
        char sub[1400];
        struct stat st;

        if (e->d_name[0] == '.' || strcmp(e->d_name, "config.json") == 0)
            continue;
        assert_true(n < max);
        snprintf(path[n], 1400, "%.1000s/%.255s", dir, e->d_name);
        assert_int_equal(stat(path[n], &st), 0);
        if (!S_ISDIR(st.st_mode)) {
            n++;
            continue;
        }
        memcpy(sub, path[n], sizeof sub);
        n += list_files(path + n, max - n, sub);
    }
    closedir(d);
    return n;
}

static void every_file_cut_anywhere_is_refused(void **state)
{
    static char path[16][1400];
    struct made m;

    make(&m);
    for (size_t i = 0; i < N_SOURCES; i++) {
        char dir[1024], open_path[1200];
        size_t n;

        test_temp_dir(dir);
        sources[i].make(dir, &m);
        snprintf(open_path, sizeof open_path, "%s%s", dir, sources[i].file);
        n = list_files(path, 16, dir);
        for (size_t f = 0; f < n; f++) {
            uint8_t *data;
            size_t bytes;

            if (strstr(path[f], "/latest") != NULL)
                continue;
            data = test_read_file(path[f], &bytes);
            for (size_t cut = 0; cut < bytes; cut += 1 + cut / 8) {
                maker_file(path[f], data, cut);
                check_fails(open_path, SL_ERR_CORRUPT, path[f], "");
            }
            maker_file(path[f], data, bytes);
            free(data);
        }
        test_remove_tree(dir);
    }
}

static void an_unknown_source_is_told_what_there_is(void **state)
{
    const struct sl_ckpt_kind *kind;
    char dir[1024], path[1200];

    test_temp_dir(dir);
    for (size_t k = 0; (kind = sl_ckpt_kind_at(k)) != NULL; k++)
        check_fails(dir, SL_ERR_USAGE, kind->looks_for, dir);
    snprintf(path, sizeof path, "%s/notes.txt", dir);
    maker_file(path, "x", 1);
    for (size_t k = 0; (kind = sl_ckpt_kind_at(k)) != NULL; k++)
        check_fails(path, SL_ERR_USAGE, kind->looks_for, path);
    check_fails(path, SL_ERR_USAGE, "not a checkpoint", "it is no folder");
    snprintf(path, sizeof path, "%s/config.json", dir);
    maker_file(path, "{}", 2);
    check_fails(dir, SL_ERR_USAGE, dir, "is the download complete?");
    snprintf(path, sizeof path, "%s/none", dir);
    check_fails(path, SL_ERR_IO, path, "No such file");
    test_remove_tree(dir);
}

/* As huggingface_hub keeps them: snapshots/REVISION/FILE are links. */
static void links_of_a_download_cache_are_followed(void **state)
{
    char dir[1024], blobs[1100], snapshot[1100], from[1200], to[1300];
    struct sl_error err;
    struct sl_ckpt c;
    struct made m;

    make(&m);
    for (unsigned kind = 0; kind < 2; kind++) {
        char name[64];

        test_temp_dir(dir);
        snprintf(blobs, sizeof blobs, "%s/blobs", dir);
        snprintf(snapshot, sizeof snapshot, "%s/snapshots/abc", dir);
        snprintf(to, sizeof to, "%s/x", blobs);
        maker_file(to, "", 0);
        snprintf(to, sizeof to, "%s/config.json", snapshot);
        maker_file(to, "{}", 2);
        maker_hf(blobs, m.t, N_TENSORS, (enum maker_weights)kind, 2);
        for (unsigned f = 0; f < 3; f++) {
            maker_hf_name(name, (enum maker_weights)kind, f, f < 2 ? 2 : 1);
            snprintf(from, sizeof from, "../../blobs/%s%s", name,
                     f < 2 ? "" : ".index.json");
            snprintf(to, sizeof to, "%s/%s%s", snapshot, name,
                     f < 2 ? "" : ".index.json");
            assert_int_equal(symlink(from, to), 0);
        }
        assert_ok(sl_ckpt_open(&c, snapshot, NULL, &err), &err);
        check_tensors(&c, &m);
        sl_ckpt_close(&c);
        /* a blob that was never loaded */
        snprintf(from, sizeof from, "%s/%s", blobs,
                 maker_hf_name(name, (enum maker_weights)kind, 1, 2));
        assert_int_equal(unlink(from), 0);
        check_fails(snapshot, SL_ERR_CORRUPT, name, "is missing");
        test_remove_tree(dir);
    }
}

static void write_text(const char *dir, const char *name, const char *text)
{
    char path[1200];

    snprintf(path, sizeof path, "%s/%s", dir, name);
    maker_file(path, text, strlen(text));
}

static void a_bad_index_is_refused_by_name(void **state)
{
    static const struct {
        const char *text, *says;
    } bad[] = {
        {"", "not JSON"},
        {"[]", "has no object weight_map"},
        {"{\"metadata\": {}}", "has no object weight_map"},
        {"{\"weight_map\": []}", "has no object weight_map"},
        {"{\"weight_map\": {}}", "names 0 files"},
        {"{\"weight_map\": {\"w\": 3}}",
         "weight_map.w is 3; the name of a file in the same folder is"},
        {"{\"weight_map\": {\"w\": \"../m.safetensors\"}}",
         "weight_map.w is \"../m.safetensors\"; the name"},
        {"{\"weight_map\": {\"w\": \"/etc/passwd\"}}", "the name of a file"},
        {"{\"weight_map\": {\"w\": \"a/b.safetensors\"}}",
         "the name of a file"},
        {"{\"weight_map\": {\"w\": \"..\"}}", "the name of a file"},
        {"{\"weight_map\": {\"w\": \".\"}}", "the name of a file"},
        {"{\"weight_map\": {\"w\": \"\"}}", "the name of a file"},
        {"{\"weight_map\": {\"w\": \"a\\u001b[31m\"}}", "the name of a file"},
        {"{\"weight_map\": {\"w\": \"m.safetensors\", \"w\": \"n\"}}",
         "duplicate object key"},
        {"{\"weight_map\": {\"w\": \"m.safetensors\"}}",
         "m.safetensors is missing, which the index names"},
        {"{\"weight_map\": [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
         "nests deeper than 32"},
    };
    char dir[1024];

    test_temp_dir(dir);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_text(dir, "model.safetensors.index.json", bad[i].text);
        check_fails(dir, SL_ERR_CORRUPT, bad[i].says, dir);
    }
    test_remove_tree(dir);
}

static void keep_lines(void *opaque, enum sl_log_level level, const char *line)
{
    struct maker_buf *b = opaque;

    maker_put(b, line, strlen(line));
    maker_put(b, "\n", 1);
}

static void an_index_must_agree_with_its_files(void **state)
{
    struct maker_buf lines = {0};
    const struct sl_log log = {keep_lines, &lines, SL_LOG_INFO};
    char dir[1024], text[4096];
    struct sl_error err;
    struct sl_ckpt c;
    struct made m;
    size_t n;

    make(&m);
    test_temp_dir(dir);
    make_many_safetensors(dir, &m);
    /* "w" lies in the first file. */
    write_text(dir, "model.safetensors.index.json",
               "{\"weight_map\": {\"w\": \"model-00002-of-00003.safetensors\","
               " \"z\": \"model-00001-of-00003.safetensors\"}}");
    check_fails(dir, SL_ERR_CORRUPT, "2 problems; the first: ", dir);
    write_text(dir, "model.safetensors.index.json",
               "{\"weight_map\": {\"w\": \"model-00001-of-00003.safetensors\","
               " \"gone\": \"model-00001-of-00003.safetensors\"}}");
    check_fails(dir, SL_ERR_CORRUPT,
                "model-00001-of-00003.safetensors: has no tensor gone, which "
                "the index says is there",
                dir);
    /* Of many that are missing ten are named. */
    n = (size_t)sprintf(text, "{\"weight_map\": {");
    for (unsigned i = 0; i < 14; i++)
        n += (size_t)sprintf(
            text + n, "%s\"gone%u\": \"model-00001-of-00003.safetensors\"",
            i > 0 ? ", " : "", i);
    sprintf(text + n, "}}");
    write_text(dir, "model.safetensors.index.json", text);
    assert_int_equal(sl_ckpt_open(&c, dir, &log, &err), -1);
    assert_non_null(strstr(err.msg, "14 problems; the first: "));
    maker_put(&lines, "", 1);
    n = 0;
    for (const char *p = (char *)lines.at; (p = strstr(p, "gone")) != NULL; p++)
        n++;
    assert_int_equal(n, 10);
    assert_non_null(strstr((char *)lines.at, "and more"));
    maker_fini(&lines);
    test_remove_tree(dir);
}

static void a_tensor_in_two_files_is_named(void **state)
{
    char dir[1024], from[1200], to[1200];
    struct made m;
    uint8_t *data;
    size_t n;

    make(&m);
    test_temp_dir(dir);
    make_many_safetensors(dir, &m);
    snprintf(from, sizeof from, "%s/model-00001-of-00003.safetensors", dir);
    snprintf(to, sizeof to, "%s/model-00002-of-00003.safetensors", dir);
    data = test_read_file(from, &n);
    maker_file(to, data, n);
    free(data);
    check_fails(dir, SL_ERR_CORRUPT, "00001-of-00003.safetensors",
                "00002-of-00003.safetensors");
    check_fails(dir, SL_ERR_CORRUPT, "holds tensor", "holds too");
    test_remove_tree(dir);
}

static void weights_are_looked_for_in_the_originals_order(void **state)
{
    char dir[1024];
    struct sl_error err;
    struct sl_ckpt c;
    struct made m;

    make(&m);
    test_temp_dir(dir);
    make_sat(dir, &m);
    write_text(dir, "pytorch_model.bin.index.json", "worst");
    write_text(dir, "pytorch_model.bin", "bad");
    write_text(dir, "model.safetensors.index.json", "bad");
    check_fails(dir, SL_ERR_CORRUPT, "model.safetensors.index.json", "JSON");
    make_one_safetensors(dir, &m);
    assert_ok(sl_ckpt_open(&c, dir, NULL, &err), &err);
    assert_string_equal(c.kind->name, "hf");
    check_tensors(&c, &m);
    sl_ckpt_close(&c);
    test_remove_tree(dir);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_gives_the_same_tensors),
        cmocka_unit_test(every_file_cut_anywhere_is_refused),
        cmocka_unit_test(an_unknown_source_is_told_what_there_is),
        cmocka_unit_test(links_of_a_download_cache_are_followed),
        cmocka_unit_test(a_bad_index_is_refused_by_name),
        cmocka_unit_test(an_index_must_agree_with_its_files),
        cmocka_unit_test(a_tensor_in_two_files_is_named),
        cmocka_unit_test(weights_are_looked_for_in_the_originals_order),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
