#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "src/base/mem.h"
#include "src/ckpt/ckpt_parts.h"

#define PART_MARK ".tar.part_"

static int add_path(struct sl_parts *p, const char *folder, const char *name,
                    struct sl_error *err)
{
    char **grown = realloc(p->paths, (p->n + 1) * sizeof *grown);
    size_t n = strlen(folder) + 1 + strlen(name) + 1;

    if (grown == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "%s: no memory to list it", folder);
    p->paths = grown;
    grown[p->n] = sl_alloc_array(n, 1);
    if (grown[p->n] == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "%s: no memory to list it", folder);
    snprintf(grown[p->n++], n, "%s/%s", folder, name);
    return 0;
}

static int compare_paths(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool ends_in(const char *name, const char *tail)
{
    size_t n = strlen(name), n_tail = strlen(tail);

    return n > n_tail && strcmp(name + n - n_tail, tail) == 0;
}

/* The length of a part's name up to what tells it from its siblings; 0 for
 * what is no part. */
static size_t stem_length(const char *name)
{
    const char *mark = strstr(name, PART_MARK);

    if (mark == NULL || mark[strlen(PART_MARK)] == '\0')
        return 0;
    return (size_t)(mark - name) + strlen(PART_MARK);
}

/* All names in folder that are parts, of the archive stem if given (n_stem
 * bytes), or .tar files; in the shell's order. */
static int list(struct sl_parts *p, const char *folder, bool parts,
                const char *stem, size_t n_stem, struct sl_error *err)
{
    DIR *d = opendir(folder);
    struct dirent *e;
    int rc = 0;

    if (d == NULL)
        return sl_fail_os(err, errno, "%s: cannot list the folder", folder);
    for (errno = 0; rc == 0 && (e = readdir(d)) != NULL; errno = 0) {
        const char *name = e->d_name;

        if (parts ? stem_length(name) == 0 : !ends_in(name, ".tar"))
            continue;
        if (stem != NULL &&
            (stem_length(name) != n_stem || strncmp(name, stem, n_stem) != 0))
            continue;
        rc = add_path(p, folder, name, err);
    }
    if (rc == 0 && errno != 0)
        rc = sl_fail_os(err, errno, "%s: cannot list the folder", folder);
    closedir(d);
    if (rc == 0 && p->n > 0)
        qsort(p->paths, p->n, sizeof *p->paths, compare_paths);
    return rc;
}

static bool all_within(const char *text, char first, char last)
{
    for (; *text != '\0'; text++)
        if (*text < first || *text > last)
            return false;
    return true;
}

/* What `split` names the part after this one: digits or letters counted up,
 * in place. False where that cannot be told. */
static bool count_up(char *suffix)
{
    bool digits = all_within(suffix, '0', '9');
    char first = digits ? '0' : 'a', last = digits ? '9' : 'z';

    if (!digits && !all_within(suffix, 'a', 'z'))
        return false;
    for (size_t i = strlen(suffix); i-- > 0;) {
        if (suffix[i] != last) {
            suffix[i]++;
            return true;
        }
        suffix[i] = first;
    }
    return false;
}

/* One archive only, and no part missing between two others. */
static int check_names(const struct sl_parts *p, struct sl_error *err)
{
    for (size_t i = 1; i < p->n; i++) {
        const char *a = p->paths[i - 1], *b = p->paths[i];
        size_t n = stem_length(a);
        char *next;
        bool gap;

        if (stem_length(b) != n || strncmp(a, b, n) != 0)
            return sl_fail(err, SL_ERR_USAGE,
                           "several archives in one folder (%s and %s): give "
                           "a part of the one you mean",
                           a, b);
        if (strlen(a) != strlen(b))
            continue; /* split makes names longer when it runs out of them */
        next = strdup(a);
        if (next == NULL)
            return sl_fail(err, SL_ERR_NOMEM, "%s: no memory to list it", a);
        gap = count_up(next + n) && strcmp(next, b) != 0;
        if (gap)
            sl_fail(err, SL_ERR_CORRUPT,
                    "%s is missing: after %s comes %s (%zu parts found)", next,
                    a, b, p->n);
        free(next);
        if (gap)
            return -1;
    }
    return 0;
}

/* Parts go before whole archives: who joined them may have both, and either
 * will do. */
static int find_in_folder(struct sl_parts *p, const char *folder,
                          struct sl_error *err)
{
    if (list(p, folder, true, NULL, 0, err) != 0)
        return -1;
    if (p->n > 0)
        return check_names(p, err);
    if (list(p, folder, false, NULL, 0, err) != 0)
        return -1;
    if (p->n > 1)
        return sl_fail(err, SL_ERR_USAGE,
                       "several archives in one folder (%s and %s): give the "
                       "one you mean",
                       p->paths[0], p->paths[1]);
    return 0;
}

/* Of a part that is given all the others with its stem are taken; a whole
 * archive is alone. */
static int find_siblings(struct sl_parts *p, const char *path,
                         struct sl_error *err)
{
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    char *folder = slash
                       ? strndup(path, (size_t)(slash - path) + (slash == path))
                       : strdup(".");
    size_t n_stem = stem_length(name);
    int rc;

    if (folder == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "%s: no memory to list it", path);
    if (n_stem > 0) {
        rc = list(p, folder, true, name, n_stem, err);
        if (rc == 0)
            rc = check_names(p, err);
    } else if (ends_in(name, ".tar")) {
        rc = add_path(p, folder, name, err);
    } else {
        rc = sl_fail(err, SL_ERR_USAGE,
                     "%s: not a checkpoint: give the folder that holds "
                     "`latest`, or a .tar, or one of its .tar.part_ files",
                     path);
    }
    free(folder);
    return rc;
}

int sl_parts_find(struct sl_parts *parts, const char *path,
                  struct sl_error *err)
{
    struct sl_parts made = {0};
    struct stat st;
    int rc;

    if (stat(path, &st) != 0)
        return sl_fail_os(err, errno, "%s: cannot open the checkpoint", path);
    rc = S_ISDIR(st.st_mode) ? find_in_folder(&made, path, err)
                             : find_siblings(&made, path, err);
    if (rc != 0) {
        sl_parts_fini(&made);
        return -1;
    }
    *parts = made;
    return 0;
}

void sl_parts_fini(struct sl_parts *parts)
{
    for (size_t i = 0; i < parts->n; i++)
        free(parts->paths[i]);
    free(parts->paths);
    memset(parts, 0, sizeof *parts);
}

void sl_parts_explain(const struct sl_src *src, struct sl_error *err)
{
    size_t n = sl_src_n_parts(src);
    uint64_t usual;

    /* `split` makes all but the last equally long. */
    if (n < 3)
        return;
    usual = sl_src_part(src, 0).bytes;
    if (n > 3 && sl_src_part(src, 1).bytes == sl_src_part(src, 2).bytes)
        usual = sl_src_part(src, 1).bytes;
    for (size_t i = 0; i + 1 < n; i++) {
        struct sl_src_place part = sl_src_part(src, i);

        if (part.bytes == usual)
            continue;
        sl_error_prefix(err,
                        "%s has %" PRIu64 " bytes, other parts %" PRIu64 "; ",
                        part.file, part.bytes, usual);
        return;
    }
}
