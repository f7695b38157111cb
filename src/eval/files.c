#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/base/lines.h"
#include "src/base/mem.h"
#include "src/base/str.h"
#include "src/eval/files.h"

/* Folders below one another; links can make circles. */
#define DEPTH_MOST 40u
/* Of a file, which is held in memory: a device may never end. */
#define MOST_BYTES (1u << 30)

int sl_names_add(struct sl_names *names, char *name, struct sl_error *err)
{
    if (name == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "out of memory for a file's name");
    if (!sl_grow((void **)&names->v, &names->room, names->n,
                 sizeof *names->v)) {
        free(name);
        return sl_fail(err, SL_ERR_NOMEM, "out of memory for %zu files",
                       names->n + 1);
    }
    names->v[names->n++] = name;
    return 0;
}

void sl_names_fini(struct sl_names *names)
{
    for (size_t i = 0; i < names->n; i++)
        free(names->v[i]);
    free(names->v);
    *names = (struct sl_names){0};
}

/* One part of a path, which ends at a slash, against one of a pattern. */
static bool match_part(const char *pattern, size_t n_pattern, const char *name,
                       size_t n_name)
{
    char a[512], b[512];

    if (n_pattern >= sizeof a || n_name >= sizeof b)
        return false;
    memcpy(a, pattern, n_pattern);
    memcpy(b, name, n_name);
    a[n_pattern] = b[n_name] = '\0';
    return fnmatch(a, b, FNM_PERIOD | FNM_NOESCAPE) == 0;
}

bool sl_glob_match(const char *pattern, const char *path)
{
    size_t n_pattern = strcspn(pattern, "/"), n_path = strcspn(path, "/");
    const char *rest = pattern + n_pattern, *more = path + n_path;

    if (n_pattern == 2 && memcmp(pattern, "**", 2) == 0) {
        if (*rest == '\0') /* everything below */
            return path[0] != '.';
        if (sl_glob_match(rest + 1, path))
            return true;
        return path[0] != '.' && *more == '/' &&
               sl_glob_match(pattern, more + 1);
    }
    if (!match_part(pattern, n_pattern, path, n_path))
        return false;
    if (*rest == '\0' || *more == '\0')
        return *rest == *more;
    return sl_glob_match(rest + 1, more + 1);
}

char *sl_path_join(const char *folder, const char *name)
{
    size_t n = strlen(folder);
    char *path;

    if (name[0] == '/' || n == 0) /* as Python's join has it */
        return strdup(name);
    if (asprintf(&path, "%s%s%s", folder, folder[n - 1] == '/' ? "" : "/",
                 name) < 0)
        return NULL;
    return path;
}

/* Adds what lies in a folder, `below` of the one where it began. */
static int walk(struct sl_names *names, const char *top, const char *below,
                const char *pattern, unsigned depth, struct sl_error *err)
{
    char *folder = sl_path_join(top, below);
    DIR *dir = folder ? opendir(folder) : NULL;
    struct dirent *entry;
    int rc = 0;

    if (folder == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "out of memory for a file's name");
    if (dir == NULL)
        rc = sl_fail_os(err, errno, "%s: cannot read the folder", folder);
    free(folder);
    while (rc == 0 && (entry = readdir(dir)) != NULL) {
        char *name = sl_path_join(below, entry->d_name);
        char *path = name ? sl_path_join(top, name) : NULL;
        struct stat st;

        if (path == NULL)
            rc = sl_fail(err, SL_ERR_NOMEM, "out of memory for a file's name");
        else if (entry->d_name[0] == '.' || stat(path, &st) != 0)
            rc = 0; /* nothing that a wildcard finds */
        else if (S_ISDIR(st.st_mode) && depth < DEPTH_MOST)
            rc = walk(names, top, name, pattern, depth + 1, err);
        else if (!S_ISDIR(st.st_mode) && sl_glob_match(pattern, name)) {
            rc = sl_names_add(names, name, err);
            name = NULL;
        }
        free(name);
        free(path);
    }
    if (dir != NULL)
        closedir(dir);
    return rc;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

int sl_files_find(struct sl_names *names, const char *folder,
                  const char *pattern, struct sl_error *err)
{
    size_t before = names->n;

    if (walk(names, folder, "", pattern, 0, err) != 0)
        return -1;
    if (names->n > before)
        qsort(names->v + before, names->n - before, sizeof *names->v, by_name);
    return 0;
}

/* Appends the parts of a path that are parts, ".." taking the last away. */
static int add_parts(struct sl_names *parts, const char *path,
                     struct sl_error *err)
{
    while (*path != '\0') {
        size_t n = strcspn(path, "/");
        bool up = n == 2 && memcmp(path, "..", 2) == 0;

        if (up && parts->n > 0)
            free(parts->v[--parts->n]);
        else if (n > 0 && !up && !(n == 1 && path[0] == '.') &&
                 sl_names_add(parts, strndup(path, n), err) != 0)
            return -1;
        path += n;
        path += *path == '/';
    }
    return 0;
}

/* to as seen from `from`, both absolute. */
static int relate(struct sl_str *out, const struct sl_names *from,
                  const struct sl_names *to, struct sl_error *err)
{
    size_t same = 0;

    while (same < from->n && same < to->n &&
           strcmp(from->v[same], to->v[same]) == 0)
        same++;
    for (size_t i = same; i < from->n; i++) {
        if (sl_str_add(out, out->n ? "/.." : "..", err) != 0)
            return -1;
    }
    for (size_t i = same; i < to->n; i++) {
        if ((out->n && sl_str_add(out, "/", err) != 0) ||
            sl_str_add(out, to->v[i], err) != 0)
            return -1;
    }
    return out->n ? 0 : sl_str_add(out, ".", err);
}

char *sl_path_relative(const char *path)
{
    char *here = getcwd(NULL, 0);
    struct sl_names from = {0}, to = {0};
    struct sl_str out = {0};
    struct sl_error ignored;

    if (here == NULL)
        return strdup(path);
    if (add_parts(&from, here, &ignored) != 0 ||
        (path[0] != '/' && add_parts(&to, here, &ignored) != 0) ||
        add_parts(&to, path, &ignored) != 0 ||
        relate(&out, &from, &to, &ignored) != 0)
        sl_str_fini(&out);
    sl_names_fini(&from);
    sl_names_fini(&to);
    free(here);
    return out.s;
}

static bool is_stdin(const char *path)
{
    return strcmp(path, "-") == 0;
}

const char *sl_file_shown(const char *path)
{
    return is_stdin(path) ? "standard input" : path;
}

/* Moves what was read to *text: a byte-order mark may go before it. */
static void take_text(struct sl_lines *in, char **text, const char *rest,
                      size_t n)
{
    if (rest != in->buf)
        memmove(in->buf, rest, n + 1);
    *text = realloc(in->buf, n + 1);
    if (*text == NULL)
        *text = in->buf;
    in->buf = NULL;
}

int sl_file_read(char **text, size_t *n, const char *path, struct sl_error *err)
{
    struct sl_lines in = {.stop_fd = -1, .most = MOST_BYTES};
    char *rest;
    int rc;

    in.fd = is_stdin(path) ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    if (in.fd < 0)
        return sl_fail_os(err, errno, "%s: cannot open it", path);
    rc = sl_lines_rest(&in, &rest, n, err);
    if (rc == 0 && *n > MOST_BYTES)
        rc = sl_fail(err, SL_ERR_UNSUPPORTED,
                     "more than %u MiB, which is more "
                     "than is read of one file",
                     MOST_BYTES >> 20);
    if (rc != 0)
        sl_error_prefix(err, "%s: ", sl_file_shown(path));
    else
        take_text(&in, text, rest, *n);
    if (in.fd != STDIN_FILENO)
        close(in.fd);
    sl_lines_fini(&in);
    return rc;
}
