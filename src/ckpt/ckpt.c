#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "src/base/mem.h"
#include "src/ckpt/ckpt.h"
#include "src/ckpt/ckpt_parts.h"
#include "src/ckpt/ckpt_tar.h"

#define MAX_RANKS      1024
#define MAX_FILE_BYTES (256u << 20) /* of a file beside the checkpoint */
#define LATEST_MAX     256
#define PATH_BYTES     4096

/* Where the files are: in a folder, or in an archive (archive != NULL) below
 * base. folder is then the one that holds the archive. */
struct sl_ckpt_impl {
    char *folder;
    struct sl_src *archive;
    struct sl_tar tar;
    char *base; /* "" or "glm-130b-sat/": what is in front of `latest` */
};

static int make_path(char out[PATH_BYTES], const char *folder, const char *name,
                     struct sl_error *err)
{
    int n =
        snprintf(out, PATH_BYTES, "%s%s%s", folder, *folder ? "/" : "", name);

    if (n < 0 || n >= PATH_BYTES)
        return sl_fail(err, SL_ERR_USAGE, "%.100s...: the path is too long",
                       folder);
    return 0;
}

/* A name in the archive: base, an optional folder, and name. */
static const struct sl_tar_member *
in_archive(const struct sl_ckpt_impl *im, const char *folder, const char *name)
{
    char path[PATH_BYTES];
    int n = snprintf(path, sizeof path, "%s%s%s%s", im->base, folder,
                     *folder ? "/" : "", name);

    return n < 0 || n >= PATH_BYTES ? NULL : sl_tar_find(&im->tar, path);
}

/* A source of a file of the checkpoint. Returns 1 when there is none. */
static int open_file(struct sl_src **src, const struct sl_ckpt_impl *im,
                     const char *folder, const char *name, struct sl_error *err)
{
    char path[PATH_BYTES], below[PATH_BYTES];
    const struct sl_tar_member *m;
    const char *paths[] = {path};
    struct stat st;

    if (im->archive != NULL) {
        m = in_archive(im, folder, name);
        if (m == NULL)
            return 1;
        snprintf(path, sizeof path, "%.1000s: %.2000s",
                 sl_src_name(im->archive), m->name);
        return sl_src_slice(src, im->archive, m->off, m->bytes, path, err);
    }
    if (make_path(below, im->folder, folder, err) != 0 ||
        make_path(path, *folder ? below : im->folder, name, err) != 0)
        return -1;
    if (stat(path, &st) != 0 && (errno == ENOENT || errno == ENOTDIR))
        return 1;
    return sl_src_open(src, paths, 1, err);
}

/* All of a source, zero-terminated; moved to the caller. */
static int read_all(uint8_t **data, size_t *n, struct sl_src *src,
                    struct sl_error *err)
{
    uint64_t bytes = sl_src_bytes(src);
    uint8_t *made;

    if (bytes > MAX_FILE_BYTES)
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "%s: %" PRIu64 " bytes; at most %u are read",
                       sl_src_name(src), bytes, MAX_FILE_BYTES);
    made = sl_alloc_array((size_t)bytes + 1, 1);
    if (made == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "%s: no memory for %" PRIu64 " bytes",
                       sl_src_name(src), bytes);
    if (sl_src_read(src, made, 0, (size_t)bytes, err) != 0) {
        free(made);
        return -1;
    }
    made[bytes] = '\0';
    *data = made;
    *n = (size_t)bytes;
    return 0;
}

/* SAT's load_checkpoint: the text is stripped, and either an integer above 0
 * or `release`; the folder is named by the integer, not by its digits. */
static int parse_latest(char iteration[64], const char *text, size_t n,
                        const char *file, struct sl_error *err)
{
    static const char blanks[] = " \t\r\n\v\f";
    char word[64];
    size_t begin = strspn(text, blanks), len;
    uint64_t v = 0;

    len = strcspn(text + begin, blanks);
    if (begin + len + strspn(text + begin + len, blanks) != n || len == 0 ||
        len >= sizeof word)
        goto bad;
    memcpy(word, text + begin, len);
    word[len] = '\0';
    if (strcmp(word, "release") == 0) {
        memcpy(iteration, word, len + 1);
        return 0;
    }
    for (size_t i = 0; i < len; i++) {
        if (word[i] < '0' || word[i] > '9' || len > 18)
            goto bad;
        v = v * 10 + (uint64_t)(word[i] - '0');
    }
    if (v == 0)
        goto bad;
    snprintf(iteration, 64, "%" PRIu64, v);
    return 0;
bad:
    return sl_fail(err, SL_ERR_CORRUPT,
                   "%s: should hold an iteration above 0 or the word release, "
                   "but has %zu bytes of something else",
                   file, n);
}

static int read_latest(struct sl_ckpt *c, struct sl_error *err)
{
    struct sl_src *src;
    uint8_t *text;
    size_t n;
    int rc;

    rc = open_file(&src, c->impl, "", "latest", err);
    if (rc > 0)
        return sl_fail(err, SL_ERR_USAGE,
                       "%s: holds neither `latest` nor a .tar or .tar.part_ "
                       "file: give the folder above the one with the "
                       "mp_rank files",
                       c->impl->folder);
    if (rc < 0)
        return -1;
    if (sl_src_bytes(src) > LATEST_MAX)
        rc = parse_latest(c->iteration, "", (size_t)sl_src_bytes(src),
                          sl_src_name(src), err);
    else
        rc = read_all(&text, &n, src, err);
    if (rc == 0) {
        rc = parse_latest(c->iteration, (const char *)text, n, sl_src_name(src),
                          err);
        free(text);
    }
    sl_src_close(src);
    return rc;
}

static void shard_name(char out[64], unsigned rank)
{
    snprintf(out, 64, "mp_rank_%02u_model_states.pt", rank);
}

/* Marks the rank that a file's name stands for. */
static void mark_rank(bool present[MAX_RANKS], const char *name)
{
    char canonical[64];
    unsigned rank;

    if (sscanf(name, "mp_rank_%4u_model_states.pt", &rank) != 1 ||
        rank >= MAX_RANKS)
        return;
    shard_name(canonical, rank);
    if (strcmp(name, canonical) == 0)
        present[rank] = true;
}

static int list_folder(bool present[MAX_RANKS], const struct sl_ckpt *c,
                       struct sl_error *err)
{
    char path[PATH_BYTES];
    struct dirent *e;
    DIR *d;

    if (make_path(path, c->impl->folder, c->iteration, err) != 0)
        return -1;
    d = opendir(path);
    if (d == NULL)
        return sl_fail_os(
            err, errno, "%s: cannot list the folder that `latest` names", path);
    for (errno = 0; (e = readdir(d)) != NULL; errno = 0)
        mark_rank(present, e->d_name);
    if (errno != 0) {
        sl_fail_os(err, errno, "%s: cannot list the folder", path);
        closedir(d);
        return -1;
    }
    closedir(d);
    return 0;
}

static void list_archive(bool present[MAX_RANKS], const struct sl_ckpt *c)
{
    const struct sl_tar *tar = &c->impl->tar;
    char head[PATH_BYTES];
    size_t n;

    snprintf(head, sizeof head, "%s%s/", c->impl->base, c->iteration);
    n = strlen(head);
    for (size_t i = 0; i < tar->n_members; i++)
        if (strncmp(tar->members[i].name, head, n) == 0)
            mark_rank(present, tar->members[i].name + n);
}

/* Ranks 0 to the highest must all be there. */
static int count_shards(size_t *n, const struct sl_ckpt *c,
                        struct sl_error *err)
{
    bool present[MAX_RANKS] = {false};
    const char *where =
        c->impl->archive ? sl_src_name(c->impl->archive) : c->impl->folder;
    unsigned found = 0, highest = 0;
    char name[64];

    if (c->impl->archive != NULL)
        list_archive(present, c);
    else if (list_folder(present, c, err) != 0)
        return -1;
    for (unsigned i = 0; i < MAX_RANKS; i++)
        if (present[i]) {
            found++;
            highest = i;
        }
    if (found == 0)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "%s: no mp_rank_RR_model_states.pt in %s, which "
                       "`latest` names",
                       where, c->iteration);
    for (unsigned i = 0; i <= highest; i++) {
        if (present[i])
            continue;
        shard_name(name, i);
        return sl_fail(err, SL_ERR_CORRUPT,
                       "%s: %s/%s is missing: %u shards found, the highest "
                       "of rank %u",
                       where, c->iteration, name, found, highest);
    }
    *n = found;
    return 0;
}

static int open_shards(struct sl_ckpt *c, const struct sl_log *log,
                       struct sl_error *err)
{
    size_t n = 0;

    if (count_shards(&n, c, err) != 0)
        return -1;
    c->shards = sl_zalloc_array(n, sizeof *c->shards);
    if (c->shards == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory for %zu shards", n);
    for (unsigned i = 0; i < n; i++) {
        struct sl_src *src;
        char name[64];
        int rc;

        shard_name(name, i);
        rc = open_file(&src, c->impl, c->iteration, name, err);
        if (rc > 0)
            return sl_fail(err, SL_ERR_IO, "%s/%s has just disappeared",
                           c->iteration, name);
        if (rc < 0 || sl_torch_open(&c->shards[i], src, log, err) != 0)
            return -1;
        c->n_shards++;
    }
    return 0;
}

/* The folder in the archive that holds `latest`. */
static int find_base(struct sl_ckpt_impl *im, struct sl_error *err)
{
    static const char tail[] = "latest";
    const size_t n_tail = sizeof tail - 1;
    const struct sl_tar_member *found = NULL;

    for (size_t i = 0; i < im->tar.n_members; i++) {
        const struct sl_tar_member *m = &im->tar.members[i];
        size_t n = strlen(m->name);

        if (n < n_tail || strcmp(m->name + n - n_tail, tail) != 0 ||
            (n > n_tail && m->name[n - n_tail - 1] != '/'))
            continue;
        if (found != NULL && strcmp(found->name, m->name) != 0)
            return sl_fail(err, SL_ERR_UNSUPPORTED,
                           "%s: holds two checkpoints, %s and %s",
                           sl_src_name(im->archive), found->name, m->name);
        found = m;
    }
    if (found == NULL)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "%s: none of the %zu files in the archive is `latest`: "
                       "not a SAT checkpoint",
                       sl_src_name(im->archive), im->tar.n_members);
    im->base = strndup(found->name, strlen(found->name) - n_tail);
    if (im->base == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory to open the checkpoint");
    return 0;
}

static int open_archive(struct sl_ckpt_impl *im, const struct sl_parts *parts,
                        struct sl_error *err)
{
    const char *slash = strrchr(parts->paths[0], '/');
    size_t n = (size_t)(slash - parts->paths[0]);

    im->folder = strndup(parts->paths[0], n > 0 ? n : 1);
    if (im->folder == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory to open the checkpoint");
    if (sl_src_open(&im->archive, (const char *const *)parts->paths, parts->n,
                    err) != 0)
        return -1;
    if (sl_tar_open(&im->tar, im->archive, err) != 0) {
        if (err->code == SL_ERR_CORRUPT)
            sl_parts_explain(im->archive, err);
        return -1;
    }
    return find_base(im, err);
}

static int open_impl(struct sl_ckpt_impl *im, const char *path,
                     struct sl_error *err)
{
    struct sl_parts parts = {0};
    char latest[PATH_BYTES];
    struct stat st;
    int rc = 0;

    if (make_path(latest, path, "latest", err) != 0)
        return -1;
    if (stat(latest, &st) != 0) {
        if (sl_parts_find(&parts, path, err) != 0)
            return -1;
        if (parts.n > 0)
            rc = open_archive(im, &parts, err);
        sl_parts_fini(&parts);
        if (rc != 0 || im->archive != NULL)
            return rc;
    }
    im->folder = strdup(path);
    if (im->folder == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory to open the checkpoint");
    return 0;
}

int sl_ckpt_open(struct sl_ckpt *c, const char *path, const struct sl_log *log,
                 struct sl_error *err)
{
    struct sl_ckpt made = {0};

    made.impl = sl_zalloc_array(1, sizeof *made.impl);
    if (made.impl == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory to open the checkpoint");
    if (open_impl(made.impl, path, err) != 0 || read_latest(&made, err) != 0 ||
        open_shards(&made, log, err) != 0) {
        sl_ckpt_close(&made);
        return -1;
    }
    *c = made;
    return 0;
}

void sl_ckpt_close(struct sl_ckpt *c)
{
    for (size_t i = 0; i < c->n_shards; i++)
        sl_torch_close(&c->shards[i]);
    free(c->shards);
    if (c->impl != NULL) {
        sl_tar_close(&c->impl->tar);
        sl_src_close(c->impl->archive);
        free(c->impl->base);
        free(c->impl->folder);
    }
    free(c->impl);
    memset(c, 0, sizeof *c);
}

static int compare_name(const void *name, const void *t)
{
    return strcmp(name, ((const struct sl_ckpt_tensor *)t)->name);
}

const struct sl_ckpt_tensor *sl_ckpt_find(const struct sl_ckpt *c, size_t shard,
                                          const char *name)
{
    const struct sl_ckpt_shard *s = &c->shards[shard];

    return bsearch(name, s->tensors, s->n_tensors, sizeof *s->tensors,
                   compare_name);
}

int sl_ckpt_read_file(const struct sl_ckpt *c, const char *name, uint8_t **data,
                      size_t *n, struct sl_error *err)
{
    const struct sl_ckpt_impl beside = {.folder = c->impl->folder};
    struct sl_ckpt_impl root = *c->impl;
    const struct {
        const struct sl_ckpt_impl *in;
        const char *folder;
    } places[] = {
        {c->impl, ""},
        {c->impl, c->iteration},
        {&root, ""},
        {&beside, ""},
    };
    struct sl_src *src;
    int rc = 1;

    root.base = "";
    for (size_t i = 0; rc > 0 && i < sizeof places / sizeof *places; i++)
        rc = open_file(&src, places[i].in, places[i].folder, name, err);
    if (rc != 0)
        return rc;
    rc = read_all(data, n, src, err);
    sl_src_close(src);
    return rc;
}
