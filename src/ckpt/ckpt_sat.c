#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "src/base/mem.h"
#include "src/ckpt/ckpt_kind.h"
#include "src/ckpt/ckpt_parts.h"
#include "src/ckpt/ckpt_place.h"

#define MAX_RANKS   1024
#define TRACKER_MAX 256

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

/* GLM takes the word as it stands for a folder (THUDM/GLM utils.py,
 * get_checkpoint_iteration); it must be one below this one. */
static int parse_tag(char iteration[64], const char *text, size_t n,
                     const char *file, struct sl_error *err)
{
    static const char blanks[] = " \t\r\n\v\f";
    size_t begin = strspn(text, blanks), len;

    len = strspn(text + begin, "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                               "abcdefghijklmnopqrstuvwxyz0123456789._-");
    if (begin + len + strspn(text + begin + len, blanks) != n || len == 0 ||
        len >= 64 || text[begin] == '.')
        return sl_fail(err, SL_ERR_CORRUPT,
                       "%s: should hold the name of a folder beside it, but "
                       "has %zu bytes of something else",
                       file, n);
    snprintf(iteration, 64, "%.*s", (int)len, text + begin);
    return 0;
}

/* Files that name the folder with the shards, in the order they are looked
 * for; none of them: the shards lie in the folder itself. */
static const struct {
    const char *file;
    int (*parse)(char iteration[64], const char *text, size_t n,
                 const char *file, struct sl_error *err);
} trackers[] = {
    {"latest", parse_latest},
    {"latest_checkpointed_iteration.txt", parse_tag},
};
#define N_TRACKERS (sizeof trackers / sizeof *trackers)

static int read_tracker(struct sl_ckpt *c, size_t i, struct sl_src *src,
                        struct sl_error *err)
{
    const char *file = sl_src_name(src);
    uint8_t *text;
    size_t n;
    int rc;

    if (sl_src_bytes(src) > TRACKER_MAX)
        return trackers[i].parse(c->iteration, "", (size_t)sl_src_bytes(src),
                                 file, err);
    if (sl_place_read_all(&text, &n, src, err) != 0)
        return -1;
    rc = trackers[i].parse(c->iteration, (const char *)text, n, file, err);
    free(text);
    return rc;
}

/* Fills iteration; *tracker = the file that names it, NULL: there is none. */
static int find_iteration(struct sl_ckpt *c, const char **tracker,
                          struct sl_error *err)
{
    *tracker = NULL;
    for (size_t i = 0; i < N_TRACKERS; i++) {
        struct sl_src *src;
        int rc = sl_place_open(&src, c->impl, "", trackers[i].file, err);

        if (rc < 0)
            return -1;
        if (rc > 0)
            continue;
        *tracker = trackers[i].file;
        rc = read_tracker(c, i, src, err);
        sl_src_close(src);
        return rc;
    }
    return 0;
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
                       const char *tracker, struct sl_error *err)
{
    char path[SL_CKPT_PATH];
    struct dirent *e;
    DIR *d;

    if (sl_place_path(path, c->impl->folder, c->iteration, err) != 0)
        return -1;
    d = opendir(path);
    if (d == NULL)
        return sl_fail_os(err, errno, "%s: cannot list the folder%s%s", path,
                          tracker != NULL ? " named by " : "",
                          tracker != NULL ? tracker : "");
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
    char head[SL_CKPT_PATH];
    size_t n;

    snprintf(head, sizeof head, "%s%s%s", c->impl->base, c->iteration,
             c->iteration[0] != '\0' ? "/" : "");
    n = strlen(head);
    for (size_t i = 0; i < tar->n_members; i++)
        if (strncmp(tar->members[i].name, head, n) == 0)
            mark_rank(present, tar->members[i].name + n);
}

/* Ranks 0 to the highest must all be there. */
static int count_shards(size_t *n, const struct sl_ckpt *c, const char *tracker,
                        struct sl_error *err)
{
    bool present[MAX_RANKS] = {false};
    const char *where =
        c->impl->archive ? sl_src_name(c->impl->archive) : c->impl->folder;
    const char *slash = c->iteration[0] != '\0' ? "/" : "";
    unsigned found = 0, highest = 0;
    char name[64];

    if (c->impl->archive != NULL)
        list_archive(present, c);
    else if (list_folder(present, c, tracker, err) != 0)
        return -1;
    for (unsigned i = 0; i < MAX_RANKS; i++)
        if (present[i]) {
            found++;
            highest = i;
        }
    if (found == 0)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "%s: no mp_rank_RR_model_states.pt in %s, which "
                       "%s names",
                       where, c->iteration, tracker);
    for (unsigned i = 0; i <= highest; i++) {
        if (present[i])
            continue;
        shard_name(name, i);
        return sl_fail(err, SL_ERR_CORRUPT,
                       "%s: %s%s%s is missing: %u shards found, the highest "
                       "of rank %u",
                       where, c->iteration, slash, name, found, highest);
    }
    *n = found;
    return 0;
}

static int open_shards(struct sl_ckpt *c, const char *tracker,
                       const struct sl_log *log, struct sl_error *err)
{
    size_t n = 0;

    if (count_shards(&n, c, tracker, err) != 0)
        return -1;
    c->shards = sl_zalloc_array(n, sizeof *c->shards);
    if (c->shards == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory for %zu shards", n);
    for (unsigned i = 0; i < n; i++) {
        struct sl_src *src;
        char name[64];
        int rc;

        shard_name(name, i);
        rc = sl_place_open(&src, c->impl, c->iteration, name, err);
        if (rc > 0)
            return sl_fail(err, SL_ERR_IO, "%s/%s has just disappeared",
                           c->iteration, name);
        if (rc < 0 || sl_torch_open(&c->shards[i], src, log, err) != 0)
            return -1;
        c->n_shards++;
    }
    return 0;
}

/* The folder in the archive that holds a file of this name; *found stays NULL
 * when there is none. */
static int find_member(const struct sl_tar_member **found,
                       const struct sl_ckpt_impl *im, const char *tail,
                       struct sl_error *err)
{
    const size_t n_tail = strlen(tail);

    for (size_t i = 0; i < im->tar.n_members; i++) {
        const struct sl_tar_member *m = &im->tar.members[i];
        size_t n = strlen(m->name);

        if (n < n_tail || strcmp(m->name + n - n_tail, tail) != 0 ||
            (n > n_tail && m->name[n - n_tail - 1] != '/'))
            continue;
        if (*found != NULL && strcmp((*found)->name, m->name) != 0)
            return sl_fail(err, SL_ERR_UNSUPPORTED,
                           "%s: holds two checkpoints, %s and %s",
                           sl_src_name(im->archive), (*found)->name, m->name);
        *found = m;
    }
    return 0;
}

static int find_base(struct sl_ckpt_impl *im, struct sl_error *err)
{
    static const char *const tails[] = {
        "latest",
        "latest_checkpointed_iteration.txt",
        "mp_rank_00_model_states.pt",
    };
    const struct sl_tar_member *found = NULL;
    size_t i = 0;

    for (; i < sizeof tails / sizeof *tails && found == NULL; i++)
        if (find_member(&found, im, tails[i], err) != 0)
            return -1;
    if (found == NULL)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "%s: none of the %zu files in the archive is `latest`: "
                       "not a SAT checkpoint",
                       sl_src_name(im->archive), im->tar.n_members);
    im->base = strndup(found->name, strlen(found->name) - strlen(tails[i - 1]));
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

static bool is_archive(const char *name)
{
    size_t n = strlen(name);

    return strstr(name, ".tar.part_") != NULL ||
           (n > 4 && strcmp(name + n - 4, ".tar") == 0);
}

/* Whether a file of this name tells a SAT folder. */
static bool tells(const char *name)
{
    char canonical[64];
    unsigned rank;

    for (size_t i = 0; i < N_TRACKERS; i++)
        if (strcmp(name, trackers[i].file) == 0)
            return true;
    if (sscanf(name, "mp_rank_%4u_model_states.pt", &rank) == 1) {
        shard_name(canonical, rank);
        return strcmp(name, canonical) == 0;
    }
    return is_archive(name);
}

static bool sat_look(char why[SL_CKPT_WHY], const char *path)
{
    const char *slash = strrchr(path, '/');
    struct dirent *e;
    bool found = false;
    DIR *d = opendir(path);

    if (d == NULL) {
        snprintf(why, SL_CKPT_WHY, "the file's name is none of an archive");
        return errno == ENOTDIR && is_archive(slash != NULL ? slash + 1 : path);
    }
    while (!found && (e = readdir(d)) != NULL)
        found = tells(e->d_name);
    closedir(d);
    snprintf(why, SL_CKPT_WHY, "none is there");
    return found;
}

/* A folder with a tracker file or with shards is one, whatever archives lie
 * there too. */
static bool is_unpacked(const char *path)
{
    char file[SL_CKPT_PATH], shard[64];
    struct stat st;

    for (size_t i = 0; i < N_TRACKERS; i++)
        if (sl_place_path(file, path, trackers[i].file, NULL) == 0 &&
            stat(file, &st) == 0)
            return true;
    shard_name(shard, 0);
    return sl_place_path(file, path, shard, NULL) == 0 && stat(file, &st) == 0;
}

static int sat_open(struct sl_ckpt *c, const char *path,
                    const struct sl_log *log, struct sl_error *err)
{
    struct sl_parts parts = {0};
    const char *tracker;
    int rc = 0;

    if (!is_unpacked(path) && sl_parts_find(&parts, path, err) != 0)
        return -1;
    if (parts.n > 0)
        rc = open_archive(c->impl, &parts, err);
    sl_parts_fini(&parts);
    if (rc != 0)
        return -1;
    if (c->impl->folder == NULL)
        c->impl->folder = strdup(path);
    if (c->impl->folder == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory to open the checkpoint");
    if (find_iteration(c, &tracker, err) != 0)
        return -1;
    return open_shards(c, tracker, log, err);
}

const struct sl_ckpt_kind sl_ckpt_sat = {
    .name = "sat",
    .what = "a checkpoint of SwissArmyTransformer or GLM",
    .looks_for = "a folder with `latest`, latest_checkpointed_iteration.txt or "
                 "mp_rank files, or a .tar or its .tar.part_ files",
    .look = sat_look,
    .open = sat_open,
};
