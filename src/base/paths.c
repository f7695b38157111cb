#include "config.h"

#include <dirent.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/base/paths.h"

/* A folder that is read holds its files at once or, in the cache of a
 * download, some levels below. */
#define MOST_LEVELS 8

static bool is_data(const struct stat *st)
{
    return S_ISREG(st->st_mode) || S_ISBLK(st->st_mode);
}

static bool same(const struct stat *a, const struct stat *b)
{
    if (S_ISBLK(a->st_mode) && S_ISBLK(b->st_mode))
        return a->st_rdev == b->st_rdev;
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

/* Is it called as what a checkpoint is made of? A trace that lies there too is
 * nobody's weights. */
static bool is_checkpoints(const char *name)
{
    static const char *const ends[] = {
        ".safetensors", ".bin", ".pt", ".pth", ".model", ".txt", ".tiktoken",
    };
    static const char *const within[] = {
        "config", "index", "tokenizer", "vocab", "merges", "special", ".tar",
    };
    size_t n = strlen(name);

    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        size_t n_end = strlen(ends[i]);

        if (n > n_end && strcmp(name + n - n_end, ends[i]) == 0)
            return true;
    }
    for (size_t i = 0; i < sizeof within / sizeof *within; i++)
        if (strstr(name, within[i]) != NULL)
            return true;
    return strchr(name, '.') == NULL; /* latest, and blobs of a cache */
}

/* Is there the file st in this folder or one below it? What cannot be looked
 * at will not be read either. */
static bool holds(const char *folder, const struct stat *st, int levels)
{
    DIR *dir = opendir(folder);
    bool found = false;
    struct dirent *e;

    while (dir != NULL && !found && (e = readdir(dir)) != NULL) {
        struct stat in;
        char *path;

        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 ||
            fstatat(dirfd(dir), e->d_name, &in, 0) != 0)
            continue;
        found = is_data(&in) && same(&in, st) && is_checkpoints(e->d_name);
        if (!S_ISDIR(in.st_mode) || levels == 0 ||
            asprintf(&path, "%s/%s", folder, e->d_name) < 0)
            continue;
        found = holds(path, st, levels - 1);
        free(path);
    }
    if (dir != NULL)
        closedir(dir);
    return found;
}

/* Neither is there yet: the same name in the same folder. */
static bool same_place(const char *a, const char *b)
{
    char *copy[4] = {strdup(a), strdup(b), strdup(a), strdup(b)};
    bool all = copy[0] && copy[1] && copy[2] && copy[3];
    struct stat in[2];
    bool found = all && stat(dirname(copy[0]), &in[0]) == 0 &&
                 stat(dirname(copy[1]), &in[1]) == 0 && same(&in[0], &in[1]) &&
                 strcmp(basename(copy[2]), basename(copy[3])) == 0;

    for (size_t i = 0; i < 4; i++)
        free(copy[i]);
    return found;
}

static bool beside_it(const char *path, const struct stat *st)
{
    char *copy = strdup(path);
    bool found = copy != NULL && holds(dirname(copy), st, 0);

    free(copy);
    return found;
}

/* Whether what is about to be written is what is read: the same file by
 * another name, a file within a folder that is read, or one that is read
 * beside it. */
static bool read_there(const struct sl_path_use *use, const struct stat *st)
{
    struct stat in;

    if (strcmp(use->path, "-") == 0)
        return fstat(STDIN_FILENO, &in) == 0 && is_data(&in) && same(&in, st);
    if (stat(use->path, &in) != 0)
        return false;
    if (S_ISDIR(in.st_mode))
        return holds(use->path, st, MOST_LEVELS);
    if (is_data(&in) && same(&in, st))
        return true;
    return use->beside && beside_it(use->path, st);
}

static bool written_there(const struct sl_path_use *use, const char *path,
                          const struct stat *st)
{
    struct stat in;

    if (stat(use->path, &in) == 0)
        return st != NULL && is_data(&in) && same(&in, st);
    return st == NULL && same_place(use->path, path);
}

/* st: the file that out will replace, NULL where there is none. */
static int check_pair(const struct sl_path_use *out, const struct stat *st,
                      const struct sl_path_use *use, struct sl_error *err)
{
    if (use->written && written_there(use, out->path, st))
        return sl_fail(err, SL_ERR_USAGE,
                       "%s and %s are the same file, %s: give another name for "
                       "one of them",
                       use->option, out->option, out->path);
    if (!use->written && st != NULL && read_there(use, st))
        return sl_fail(err, SL_ERR_USAGE,
                       "%s %s would replace what %s reads (%s): give another "
                       "name",
                       out->option, out->path, use->option, use->path);
    return 0;
}

int sl_paths_check(const struct sl_path_use *uses, size_t n,
                   struct sl_error *err)
{
    for (size_t i = 0; i < n; i++) {
        const struct sl_path_use *out = &uses[i];
        struct stat st;
        bool there;

        if (!out->written || out->path == NULL)
            continue;
        there = stat(out->path, &st) == 0;
        if (there && !is_data(&st))
            continue;
        for (size_t k = 0; k < n; k++) {
            const struct sl_path_use *use = &uses[k];

            if (use->path == NULL || k == i || (use->written && k > i))
                continue;
            if (check_pair(out, there ? &st : NULL, use, err) != 0)
                return -1;
        }
    }
    return 0;
}

/* The path is moved; NULL: there was no memory for it. */
static void add(struct sl_paths *p, const char *option, char *path,
                bool written)
{
    struct sl_path_use *more =
        path != NULL ? realloc(p->use, (p->n + 1) * sizeof *more) : NULL;

    if (more == NULL) {
        p->failed = true;
        free(path);
        return;
    }
    p->use = more;
    p->use[p->n++] = (struct sl_path_use){
        .option = option,
        .path = path,
        .written = written,
    };
}

void sl_paths_read(struct sl_paths *p, const char *option, const char *path)
{
    if (path != NULL)
        add(p, option, strdup(path), false);
}

void sl_paths_write(struct sl_paths *p, const char *option, const char *path)
{
    if (path != NULL)
        add(p, option, strdup(path), true);
}

void sl_paths_write_in(struct sl_paths *p, const char *option,
                       const char *folder, const char *name)
{
    char *path;

    if (folder == NULL)
        return;
    if (asprintf(&path, "%s/%s", folder, name) < 0)
        path = NULL;
    add(p, option, path, true);
}

int sl_paths_end(struct sl_paths *p, struct sl_error *err)
{
    int rc = p->failed ? sl_fail(err, SL_ERR_NOMEM, "no memory for paths")
                       : sl_paths_check(p->use, p->n, err);

    for (size_t i = 0; i < p->n; i++)
        free((char *)p->use[i].path);
    free(p->use);
    *p = (struct sl_paths){0};
    return rc;
}
