#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "src/base/mem.h"
#include "src/base/problems.h"
#include "src/ckpt/ckpt_hf.h"
#include "src/ckpt/ckpt_kind.h"
#include "src/ckpt/ckpt_place.h"
#include "src/ckpt/ckpt_shard.h"

/* A Hugging Face folder: one file of weights, or an index of several
 * (huggingface/transformers modeling_utils.py, from_pretrained), in the order
 * in which the original looks for them. The files may be links, as those of
 * its download cache are. */
static const struct {
    const char *file;
    bool index;
} weights[] = {
    {"model.safetensors", false},
    {"model.safetensors.index.json", true},
    {"pytorch_model.bin", false},
    {"pytorch_model.bin.index.json", true},
};
#define N_WEIGHTS (sizeof weights / sizeof *weights)
#define MAX_FILES 4096u

/* Which of them the folder has; N_WEIGHTS: none. A link that leads nowhere
 * counts as there, so that opening it says so. */
static size_t find_weights(const char *path)
{
    char file[SL_CKPT_PATH];
    struct stat st;
    size_t i = 0;

    for (; i < N_WEIGHTS; i++)
        if (sl_place_path(file, path, weights[i].file, NULL) == 0 &&
            lstat(file, &st) == 0)
            break;
    return i;
}

/* A config.json without weights is what a download that was interrupted
 * leaves, or a clone without Git LFS. */
static bool hf_look(char why[SL_CKPT_WHY], const char *path)
{
    char config[SL_CKPT_PATH];
    struct stat st;

    if (stat(path, &st) == 0 && !S_ISDIR(st.st_mode)) {
        snprintf(why, SL_CKPT_WHY, "it is no folder");
        return false;
    }
    if (find_weights(path) < N_WEIGHTS)
        return true;
    snprintf(why, SL_CKPT_WHY, "none is there");
    if (sl_place_path(config, path, "config.json", NULL) == 0 &&
        stat(config, &st) == 0)
        snprintf(why, SL_CKPT_WHY,
                 "only config.json is there: is the download complete?");
    return false;
}

static bool is_safetensors(const char *name)
{
    static const char tail[] = ".safetensors";
    size_t n = strlen(name), n_tail = sizeof tail - 1;

    return n > n_tail && strcmp(name + n - n_tail, tail) == 0;
}

/* Appends one file's tensors to the shard. */
static int add_file(struct sl_ckpt *c, const char *name,
                    const struct sl_log *log, struct sl_error *err)
{
    struct sl_ckpt_shard part;
    struct sl_src *src;
    int rc = sl_place_open(&src, c->impl, "", name, err);

    if (rc > 0)
        return sl_fail(err, SL_ERR_CORRUPT, "%s/%s is missing%s",
                       c->impl->folder, name,
                       c->impl->label != NULL ? ", which the index names" : "");
    if (rc < 0)
        return -1;
    rc = is_safetensors(name) ? sl_safetensors_open(&part, src, err)
                              : sl_torch_open(&part, src, log, err);
    if (rc != 0)
        return -1;
    if (sl_shard_append(&c->shards[0], &part, err) != 0) {
        sl_ckpt_shard_close(&part);
        return -1;
    }
    return 0;
}

/* A name in the index must be that of a file in the folder, whatever it may
 * lead to there. */
static bool is_plain_name(const char *name)
{
    size_t n = strlen(name);

    if (n == 0 || n > 255 || name[0] == '.')
        return false;
    for (size_t i = 0; i < n; i++)
        if (name[i] == '/' || name[i] == '\\' ||
            (unsigned char)name[i] <= ' ' || name[i] == 0x7f)
            return false;
    return true;
}

static int compare_strings(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Fills files with the names that weight_map has, once each and sorted. */
static int list_files(struct sl_hf_index *x, const char *file,
                      struct sl_error *err)
{
    const char *name;
    size_t n = 0, k = 0;
    json_t *v;

    json_object_foreach(x->map, name, v)
    {
        const char *in = json_string_value(v);

        if (in == NULL || !is_plain_name(in)) {
            char key[128];

            snprintf(key, sizeof key, "weight_map.%.100s", name);
            return sl_json_bad_value(err, file, key, v,
                                     "the name of a file in the same folder");
        }
        x->files[n++] = in;
    }
    qsort(x->files, n, sizeof *x->files, compare_strings);
    for (size_t i = 0; i < n; i++)
        if (i == 0 || strcmp(x->files[k - 1], x->files[i]) != 0)
            x->files[k++] = x->files[i];
    x->n_files = k;
    if (k == 0 || k > MAX_FILES)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "%s: names %zu files; 1 to %u are possible", file, k,
                       MAX_FILES);
    return 0;
}

int sl_hf_index_parse(struct sl_hf_index *x, const char *text, size_t n,
                      const char *file, struct sl_error *err)
{
    struct sl_hf_index made = {0};

    if (sl_json_parse(&made.root, text, n, file, err) != 0)
        return -1;
    made.map = json_object_get(made.root, "weight_map");
    if (!json_is_object(made.map)) {
        sl_fail(err, SL_ERR_CORRUPT,
                "%s: has no object weight_map of tensors and files", file);
        goto fail;
    }
    made.files =
        sl_alloc_array(json_object_size(made.map) + 1, sizeof *made.files);
    if (made.files == NULL) {
        sl_fail(err, SL_ERR_NOMEM, "%s: no memory to read it", file);
        goto fail;
    }
    if (list_files(&made, file, err) != 0)
        goto fail;
    *x = made;
    return 0;
fail:
    sl_hf_index_fini(&made);
    return -1;
}

void sl_hf_index_fini(struct sl_hf_index *x)
{
    free(x->files);
    json_decref(x->root);
    memset(x, 0, sizeof *x);
}

/* Every tensor must be in the file that the index says. */
static int check_map(const struct sl_ckpt *c, json_t *map,
                     const struct sl_log *log, struct sl_error *err)
{
    const struct sl_ckpt_shard *shard = &c->shards[0];
    struct sl_problems problems = {.log = log};
    struct sl_error one;
    const char *name;
    json_t *v;

    json_object_foreach(map, name, v)
    {
        const struct sl_ckpt_tensor *t = sl_ckpt_find(c, 0, name);
        const char *file = json_string_value(v), *is, *slash;

        is = t != NULL ? sl_src_name(t->src) : "";
        slash = strrchr(is, '/');
        if (slash != NULL && strcmp(slash + 1, file) == 0)
            continue;
        sl_fail(&one, SL_ERR_CORRUPT,
                "%s/%s: has no tensor %.150s, which the index says is there%s",
                c->impl->folder, file, name,
                t != NULL ? "; another file has it" : "");
        if (sl_problem(&problems, &one) != 0) {
            *err = one;
            return -1;
        }
    }
    return sl_problems_end(&problems, shard->file, err);
}

static int open_files(struct sl_ckpt *c, const struct sl_hf_index *x,
                      const struct sl_log *log, struct sl_error *err)
{
    int rc = 0;

    for (size_t i = 0; i < x->n_files && rc == 0; i++)
        rc = add_file(c, x->files[i], log, err);
    c->shards[0].file = c->impl->label;
    if (rc == 0)
        rc = sl_shard_sort(&c->shards[0], err);
    return rc != 0 ? -1 : check_map(c, x->map, log, err);
}

/* Files are opened as the index names them and not as the folder has them:
 * what other programs put there is no part of the model. */
static int open_index(struct sl_ckpt *c, const char *name,
                      const struct sl_log *log, struct sl_error *err)
{
    struct sl_hf_index x;
    struct sl_src *src;
    uint8_t *text;
    size_t n;
    int rc = sl_place_open(&src, c->impl, "", name, err);

    if (rc > 0)
        return sl_fail(err, SL_ERR_IO, "%s/%s: a link that leads nowhere",
                       c->impl->folder, name);
    if (rc < 0)
        return -1;
    c->impl->label = strdup(sl_src_name(src));
    rc = c->impl->label != NULL
             ? sl_place_read_all(&text, &n, src, err)
             : sl_fail(err, SL_ERR_NOMEM, "no memory to open the checkpoint");
    sl_src_close(src);
    if (rc != 0)
        return -1;
    rc = sl_hf_index_parse(&x, (const char *)text, n, c->impl->label, err);
    free(text);
    if (rc != 0)
        return -1;
    rc = open_files(c, &x, log, err);
    sl_hf_index_fini(&x);
    return rc;
}

static int hf_open(struct sl_ckpt *c, const char *path,
                   const struct sl_log *log, struct sl_error *err)
{
    size_t which = find_weights(path);

    c->impl->folder = strdup(path);
    c->shards = sl_zalloc_array(1, sizeof *c->shards);
    if (c->impl->folder == NULL || c->shards == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory to open the checkpoint");
    c->n_shards = 1;
    if (which == N_WEIGHTS)
        return sl_fail(err, SL_ERR_IO, "%s: its weights have just disappeared",
                       path);
    if (weights[which].index)
        return open_index(c, weights[which].file, log, err);
    if (add_file(c, weights[which].file, log, err) != 0)
        return -1;
    c->shards[0].file = sl_src_name(c->shards[0].srcs[0]);
    return sl_shard_sort(&c->shards[0], err);
}

const struct sl_ckpt_kind sl_ckpt_hf = {
    .name = "hf",
    .what = "a Hugging Face folder",
    .looks_for = "a folder with model.safetensors or pytorch_model.bin, or "
                 "their .index.json",
    .look = hf_look,
    .open = hf_open,
};
