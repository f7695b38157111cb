#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/base/mem.h"
#include "src/base/problems.h"
#include "src/ckpt/ckpt_kind.h"
#include "src/ckpt/ckpt_place.h"
#include "src/ckpt/ckpt_shard.h"
#include "src/ckpt/gguf_config.h"
#include "src/model/gguf.h"

/* A GGUF file as llama.cpp and its relatives write it, on its own or cut into
 * parts (ggml-org/llama.cpp tools/gguf-split, src/llama-impl.cpp
 * llama_split_path): name-00001-of-00003.gguf and so on, the metadata in the
 * first. Our own model files are GGUF files too, and no checkpoints. */

#define FIRST_READ_BYTES (64u << 10)
#define MAX_PARTS        9999u
#define MAX_EXPERTS      4096u
#define EXPERTS_TAIL     "_exps.weight"

/* --- is it one? ----------------------------------------------------------- */

static bool ends_in(const char *name, const char *tail)
{
    size_t n = strlen(name), n_tail = strlen(tail);

    return n > n_tail && strcmp(name + n - n_tail, tail) == 0;
}

/* The first bytes of a regular file; 0 where they cannot be had. */
static size_t read_beginning(void *to, size_t n, const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    ssize_t got = fd >= 0 ? read(fd, to, n) : -1;

    if (fd >= 0)
        close(fd);
    return got > 0 ? (size_t)got : 0;
}

/* A model file of ours says so within its first metadata, of which there is
 * little before. */
static bool is_ours(const char *data, size_t n)
{
    static const char key[] = "sluice.version";

    return memmem(data, n, key, sizeof key - 1) != NULL;
}

/* By what the file begins with, since GGUF files go by many names; a file
 * too short to tell goes by its name, so that it is a damaged one and no
 * unknown kind. What sluice itself has written is no source. */
static bool gguf_look(char why[SL_CKPT_WHY], const char *path)
{
    static const size_t beginning = 16384;
    char *data = NULL;
    struct stat st;
    size_t n;
    bool is;

    if (stat(path, &st) != 0 || !S_ISREG(st.st_mode)) {
        snprintf(why, SL_CKPT_WHY, "it is no regular file");
        return false;
    }
    data = sl_alloc_array(beginning, 1);
    n = data != NULL ? read_beginning(data, beginning, path) : 0;
    is = n >= 4 ? memcmp(data, "GGUF", 4) == 0 : ends_in(path, ".gguf");
    if (!is)
        snprintf(why, SL_CKPT_WHY, "it does not begin with 'GGUF'");
    else if (is_ours(data, n))
        snprintf(why, SL_CKPT_WHY, "it is a model file that was converted");
    is = is && !is_ours(data, n);
    free(data);
    return is;
}

/* --- one file ------------------------------------------------------------- */

/* Types of single elements have the names that safetensors gives them. */
static bool find_dtype(enum sl_dtype *dtype, uint32_t ggml)
{
    const struct sl_ggml_info *info = sl_ggml_type_of(ggml);

    return info != NULL && sl_dtype_find(dtype, info->name);
}

/* The list is that of the formats' table: what is read there is said here. */
static int unknown_type(const struct sl_gguf_tensor *t, const char *file,
                        struct sl_error *err)
{
    char list[160] = "F32, F16, BF16";
    size_t n = strlen(list);
    enum sl_dtype dt;

    for (uint32_t type = 0; type < 64 && n < sizeof list; type++) {
        const struct sl_ggml_info *info = sl_ggml_type_of(type);

        if (info != NULL && info->block_values > 1 &&
            sl_dtype_find(&dt, info->name))
            n +=
                (size_t)snprintf(list + n, sizeof list - n, ", %s", info->name);
    }
    return sl_fail(err, SL_ERR_UNSUPPORTED,
                   "%s: tensor %s is of type %s; those that are read: %s", file,
                   t->name, sl_ggml_type_of(t->type)->name, list);
}

/* Rows of a GGUF are the fastest dimension: the order is the other way
 * round. Matrices of heads, one behind the other in a third dimension, are one
 * matrix of all their rows. */
static int take_tensor(struct sl_ckpt_tensor *to,
                       const struct sl_gguf_tensor *from, struct sl_src *src,
                       struct sl_error *err)
{
    struct sl_gguf_tensor flat = *from;
    uint64_t stride = 1;

    if (!find_dtype(&to->dtype, from->type))
        return unknown_type(from, sl_src_name(src), err);
    if (from->n_dims < 2 && sl_dtype_block_values(to->dtype) > 1)
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "%s: tensor %s, of one dimension, is in blocks (%s)",
                       sl_src_name(src), from->name, sl_dtype_short(to->dtype));
    if (flat.n_dims == 3) {
        flat.ne[1] *= flat.ne[2];
        flat.n_dims = 2;
    }
    to->n_dims = flat.n_dims;
    for (uint32_t i = 0; i < flat.n_dims; i++) {
        to->shape[flat.n_dims - 1 - i] = flat.ne[i];
        to->stride[flat.n_dims - 1 - i] = stride;
        stride *= flat.ne[i];
    }
    to->src = src;
    to->off = from->off;
    return sl_shard_name(&to->name, from->name, strlen(from->name),
                         sl_src_name(src), err);
}

/* The experts of a layer lie one behind the other in a tensor of three
 * dimensions. */
static bool holds_experts(const struct sl_gguf_tensor *t)
{
    return t->n_dims == 3 && ends_in(t->name, EXPERTS_TAIL) && t->ne[2] > 0 &&
           t->ne[2] <= MAX_EXPERTS && t->bytes % t->ne[2] == 0;
}

/* "blk.3.ffn_up_exps.weight", of expert 7 "blk.3.ffn_up_exps.7.weight": a
 * matrix of its own. */
static int take_expert(struct sl_ckpt_tensor *to,
                       const struct sl_gguf_tensor *from, uint32_t expert,
                       struct sl_src *src, struct sl_error *err)
{
    static const char tail[] = ".weight";
    char name[96];
    struct sl_gguf_tensor one = *from;

    snprintf(name, sizeof name, "%.*s.%u%s",
             (int)(strlen(from->name) - strlen(tail)), from->name, expert,
             tail);
    one.name = name;
    one.n_dims = 2;
    one.bytes = from->bytes / from->ne[2];
    one.off = from->off + expert * one.bytes;
    return take_tensor(to, &one, src, err);
}

static size_t count_tensors(const struct sl_gguf *g)
{
    size_t n = 0;

    for (size_t i = 0; i < sl_gguf_n_tensors(g); i++) {
        const struct sl_gguf_tensor *t = sl_gguf_tensor_at(g, i);

        n += holds_experts(t) ? (size_t)t->ne[2] : 1;
    }
    return n;
}

/* llama.cpp keeps a layer's experts in one tensor of three dimensions; here
 * each is a tensor of its own, as other checkpoints have them. */
static int take_tensors(struct sl_ckpt_shard *shard, const struct sl_gguf *g,
                        struct sl_error *err)
{
    size_t n = count_tensors(g);

    shard->tensors = sl_zalloc_array(n, sizeof *shard->tensors);
    if (shard->tensors == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "%s: no memory for %zu tensors",
                       shard->file, n);
    for (size_t i = 0; i < sl_gguf_n_tensors(g); i++) {
        const struct sl_gguf_tensor *t = sl_gguf_tensor_at(g, i);
        uint32_t parts = holds_experts(t) ? (uint32_t)t->ne[2] : 1;

        for (uint32_t e = 0; e < parts; e++) {
            struct sl_ckpt_tensor *to = &shard->tensors[shard->n_tensors];
            int rc = holds_experts(t)
                         ? take_expert(to, t, e, shard->srcs[0], err)
                         : take_tensor(to, t, shard->srcs[0], err);

            if (rc != 0)
                return -1;
            shard->n_tensors++;
        }
    }
    return 0;
}

/* Reads as much of the file as its header turns out to take. */
static int read_header(struct sl_gguf **g, struct sl_src *src,
                       struct sl_error *err)
{
    uint64_t bytes = sl_src_bytes(src);
    size_t need = FIRST_READ_BYTES;
    uint8_t *data = NULL;
    int rc;

    do {
        size_t n = bytes < need ? (size_t)bytes : need;

        free(data);
        data = sl_alloc_array(n, 1);
        if (data == NULL)
            return sl_fail(err, SL_ERR_NOMEM,
                           "%s: no memory for a header of %zu bytes",
                           sl_src_name(src), n);
        rc = sl_src_read(src, data, 0, n, err);
        if (rc == 0) {
            rc = sl_gguf_parse(g, data, n, bytes, &need, err);
            if (rc < 0)
                sl_error_prefix(err, "%s: ", sl_src_name(src));
        }
    } while (rc > 0);
    free(data);
    return rc;
}

/* *g is owned. */
static int open_file(struct sl_ckpt_shard *shard, struct sl_gguf **g,
                     const char *path, struct sl_error *err)
{
    struct sl_src *src;

    *g = NULL;
    if (sl_src_open(&src, &path, 1, err) != 0 ||
        sl_shard_init(shard, src, err) != 0)
        return -1;
    if (read_header(g, src, err) == 0 && take_tensors(shard, *g, err) == 0)
        return 0;
    sl_gguf_destroy(*g);
    *g = NULL;
    sl_ckpt_shard_close(shard);
    return -1;
}

/* --- parts ---------------------------------------------------------------- */

/* name-00002-of-00003.gguf: part 1 of 3. */
struct split {
    char stem[SL_CKPT_PATH];
    unsigned no, count;
};

static bool read_digits(unsigned *v, const char *s)
{
    *v = 0;
    for (int i = 0; i < 5; i++) {
        if (s[i] < '0' || s[i] > '9')
            return false;
        *v = *v * 10 + (unsigned)(s[i] - '0');
    }
    return true;
}

/* llama.cpp's gguf-split names the parts of a model
 * STEM-00001-of-00003.gguf; any of them may be given. */
static bool is_split(struct split *sp, const char *path)
{
    static const char pattern[] = "-00000-of-00000.gguf";
    size_t n = strlen(path), n_tail = sizeof pattern - 1;
    const char *tail = path + n - n_tail;
    unsigned no, count;

    if (n <= n_tail || n >= SL_CKPT_PATH || tail[0] != '-' ||
        strncmp(tail + 6, "-of-", 4) != 0 || !ends_in(path, ".gguf") ||
        !read_digits(&no, tail + 1) || !read_digits(&count, tail + 10) ||
        no < 1 || no > count || count > MAX_PARTS)
        return false;
    *sp = (struct split){.no = no - 1, .count = count};
    memcpy(sp->stem, path, n - n_tail);
    return true;
}

static int part_path(char path[SL_CKPT_PATH], const struct split *sp,
                     unsigned no, struct sl_error *err)
{
    int n = snprintf(path, SL_CKPT_PATH, "%s-%05u-of-%05u.gguf", sp->stem,
                     no + 1, sp->count);

    return n < SL_CKPT_PATH ? 0
                            : sl_fail(err, SL_ERR_USAGE,
                                      "%.60s...: a path too long", sp->stem);
}

/* All parts are looked for before any is read, so that one message has the
 * number of those that are missing. */
static int check_there(const struct split *sp, struct sl_error *err)
{
    char path[SL_CKPT_PATH], first[SL_CKPT_PATH] = "";
    unsigned missing = 0;
    struct stat st;

    for (unsigned i = 0; i < sp->count; i++) {
        if (part_path(path, sp, i, err) != 0)
            return -1;
        if (stat(path, &st) == 0)
            continue;
        if (missing++ == 0)
            memcpy(first, path, sizeof first);
    }
    if (missing == 0)
        return 0;
    return sl_fail(err, SL_ERR_CORRUPT,
                   "%.150s is missing: %u of the model's %u parts %s not there",
                   first, missing, sp->count, missing == 1 ? "is" : "are");
}

static int check_number(const struct sl_gguf *g, const char *key,
                        uint64_t wanted, const char *file, struct sl_error *err)
{
    uint64_t v;

    if (sl_gguf_get_u64(g, key, &v, err) != 0) {
        sl_error_prefix(err, "%s: by its name a part of a model, but ", file);
        return -1;
    }
    if (v == wanted)
        return 0;
    return sl_fail(err, SL_ERR_CORRUPT,
                   "%s: metadata '%s' is %llu and should be %llu: its parts "
                   "are of different models",
                   file, key, (unsigned long long)v,
                   (unsigned long long)wanted);
}

/* Appends a part to the shard; the first one's metadata is the model's. */
static int add_part(struct sl_ckpt *c, size_t *n_tensors,
                    const struct split *sp, unsigned no, struct sl_error *err)
{
    struct sl_ckpt_shard part;
    char path[SL_CKPT_PATH];
    struct sl_gguf *g;
    uint64_t total;
    int rc;

    if (part_path(path, sp, no, err) != 0 ||
        open_file(&part, &g, path, err) != 0)
        return -1;
    if (no == 0)
        c->impl->gguf = g;
    rc = check_number(g, "split.no", no, path, err);
    if (rc == 0)
        rc = check_number(g, "split.count", sp->count, path, err);
    if (rc == 0 && no > 0)
        rc = sl_gguf_get_u64(c->impl->gguf, "split.tensors.count", &total, err);
    if (rc == 0 && no > 0)
        rc = check_number(g, "split.tensors.count", total, path, err);
    *n_tensors += sl_gguf_n_tensors(g);
    if (rc == 0)
        rc = sl_shard_append(&c->shards[0], &part, err);
    if (rc != 0)
        sl_ckpt_shard_close(&part);
    if (no > 0)
        sl_gguf_destroy(g);
    return rc;
}

/* The first part says how many tensors all parts hold: a part of another
 * model of as many parts, which their numbers do not tell, shows there. */
static int open_parts(struct sl_ckpt *c, const struct split *sp,
                      struct sl_error *err)
{
    struct sl_ckpt_shard *all = &c->shards[0];
    uint64_t total;
    size_t n = 0;

    if (check_there(sp, err) != 0)
        return -1;
    for (unsigned i = 0; i < sp->count; i++) {
        if (add_part(c, &n, sp, i, err) != 0)
            return -1;
        if (i == 0)
            all->file = sl_src_name(all->srcs[0]);
    }
    if (sl_gguf_get_u64(c->impl->gguf, "split.tensors.count", &total, err) != 0)
        return -1;
    if (total != n)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "%s: the model has %llu tensors, its %u parts hold %zu",
                       all->file, (unsigned long long)total, sp->count, n);
    return 0;
}

/* --- the kind ------------------------------------------------------------- */

/* A GGUF file stands alone: nothing of the folder that it lies in belongs to
 * it. */
static int gguf_open(struct sl_ckpt *c, const char *path,
                     const struct sl_log *log, struct sl_error *err)
{
    struct split sp;
    int rc;

    c->shards = sl_zalloc_array(1, sizeof *c->shards);
    c->impl->folder = strdup("");
    if (c->shards == NULL || c->impl->folder == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory to open the checkpoint");
    c->n_shards = 1;
    rc = is_split(&sp, path)
             ? open_parts(c, &sp, err)
             : open_file(&c->shards[0], &c->impl->gguf, path, err);
    if (rc == 0)
        rc = sl_shard_sort(&c->shards[0], err);
    return rc;
}

/* What stands beside a GGUF file may be anything's: all there is to know is in
 * it. */
static int gguf_read_file(const struct sl_ckpt *c, const char *name,
                          uint8_t **data, size_t *n, struct sl_error *err)
{
    char *text;

    if (strcmp(name, "config.json") != 0)
        return 1;
    if (sl_gguf_config(&text, c->impl->gguf, c, err) != 0)
        return -1;
    *data = (uint8_t *)text;
    *n = strlen(text);
    return 0;
}

const struct sl_gguf *sl_ckpt_gguf(const struct sl_ckpt *c)
{
    return c->impl->gguf;
}

const struct sl_ckpt_kind sl_ckpt_gguf_kind = {
    .name = "gguf",
    .what = "a published GGUF file",
    .looks_for = "a .gguf file, or one of its parts",
    .look = gguf_look,
    .open = gguf_open,
    .read_file = gguf_read_file,
};
