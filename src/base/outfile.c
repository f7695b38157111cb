#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "src/base/lines.h"
#include "src/base/newfile.h"
#include "src/base/outfile.h"

enum {
    PREFIX_CHARS = 20,
    MAX_ID = NAME_MAX - 32, /* -9999.cut.txt.partial */
    MAX_NAME = NAME_MAX + 1,
    MAX_SAME_NAME = 10000,
};

int sl_outfile_folder(const char *folder, struct sl_error *err)
{
    char *path = strdup(folder);
    struct stat st;
    int rc = 0;

    if (path == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "out of memory");
    for (char *p = path + 1; *path != '\0' && rc == 0; p++) {
        char c = *p;

        if (c != '/' && c != '\0')
            continue;
        *p = '\0';
        if (mkdir(path, 0777) != 0 && errno != EEXIST)
            rc = sl_fail_os(err, errno, "%s: cannot make the folder", path);
        *p = c;
        if (c == '\0')
            break;
    }
    if (rc == 0 && (stat(folder, &st) != 0 || !S_ISDIR(st.st_mode)))
        rc = sl_fail_os(err, ENOTDIR, "%s: cannot write answers there", folder);
    free(path);
    return rc;
}

int sl_outfile_check_id(const char *id, struct sl_error *err)
{
    if (*id == '\0')
        return sl_fail(err, SL_ERR_USAGE,
                       "the query's id is empty: it names the output file");
    if (strchr(id, '/') != NULL || strstr(id, "..") != NULL)
        return sl_fail(err, SL_ERR_USAGE,
                       "id '%s' cannot name a file: '/' and '..' are refused",
                       id);
    if (strlen(id) > MAX_ID)
        return sl_fail(err, SL_ERR_USAGE,
                       "an id of %zu bytes cannot name a file: %d at most",
                       strlen(id), MAX_ID);
    return 0;
}

int sl_outfile_replace(const char *path, const char *text, size_t n,
                       struct sl_error *err)
{
    struct sl_newfile f;

    if (sl_newfile_open(&f, path, err) != 0)
        return -1;
    fwrite(text, 1, n, f.file); /* what failed is seen when it is closed */
    return sl_newfile_close(&f, err);
}

/* The first characters of the query without '/' and control characters. */
static void make_prefix(char *prefix, const char *query, size_t n)
{
    size_t used = 0, chars = 0;

    for (size_t i = 0, size; i < n && chars < PREFIX_CHARS; i += size) {
        unsigned char c = (unsigned char)query[i];

        size = sl_utf8_prefix(query + i, n - i, 1);
        if (c == '/' || c < 0x20 || c == 0x7f)
            continue;
        memcpy(prefix + used, query + i, size);
        used += size;
        chars++;
    }
    prefix[used] = '\0';
}

char *sl_outfile_path(const char *folder, const char *id, bool cut,
                      unsigned number)
{
    char more[16] = "", *path;

    if (number > 1)
        snprintf(more, sizeof more, "-%u", number);
    if (asprintf(&path, "%s/%s%s%s.txt", folder, id, more, cut ? ".cut" : "") <
        0)
        return NULL;
    return path;
}

/* Renames, unless there is a file of that name: EEXIST. Where the system cannot
 * do both in one step, an empty file holds the name. */
static int rename_new(const char *from, const char *to)
{
    int fd;

    if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0)
        return 0;
    if (errno != EINVAL && errno != ENOSYS)
        return -1;
    fd = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0)
        return -1;
    close(fd);
    return rename(from, to);
}

/* The name of what will be written, without a number and an ending. */
static int make_name(char name[MAX_NAME], const struct sl_outfile *o)
{
    char prefix[4 * PREFIX_CHARS + 1], stamp[32];
    time_t now = time(NULL);
    struct tm tm;

    if (o->id != NULL)
        return snprintf(name, MAX_NAME, "%s", o->id);
    make_prefix(prefix, o->query, o->n_query);
    localtime_r(&now, &tm);
    strftime(stamp, sizeof stamp, "%m-%d-%H-%M-%S", &tm);
    return snprintf(name, MAX_NAME, "%s-%s", prefix, stamp);
}

static bool may_replace(const struct sl_outfile *o)
{
    return o->replace && o->id != NULL;
}

/* Gives what was written a name that is free, from *number on; or that of the
 * file that it replaces, where links lead. */
static int settle(struct sl_newfile *f, char **path, unsigned *number,
                  const char *name, const struct sl_outfile *o)
{
    bool replace = may_replace(o);

    for (; *number < MAX_SAME_NAME; ++*number) {
        free(*path);
        *path = sl_outfile_path(o->folder, name, o->cut, *number);
        if (*path == NULL)
            return ENOMEM;
        if ((replace ? rename(f->temp, f->path) : rename_new(f->temp, *path)) ==
            0) {
            free(f->temp);
            f->temp = NULL; /* it is a file of its own now */
            return 0;
        }
        if (replace || errno != EEXIST)
            return errno;
    }
    return EEXIST;
}

static bool is_link(const char *path)
{
    struct stat st;

    return lstat(path, &st) == 0 && S_ISLNK(st.st_mode);
}

int sl_outfile_write(char **path, unsigned *number, const struct sl_outfile *o,
                     const char *text, size_t n, struct sl_error *err)
{
    char name[MAX_NAME], *first, *made = NULL;
    unsigned at = o->number > 0 ? o->number : 1;
    struct sl_newfile f;
    int e, rc;

    make_name(name, o);
    first = sl_outfile_path(o->folder, name, o->cut, at);
    while (first != NULL && !may_replace(o) && is_link(first) &&
           at < MAX_SAME_NAME) {
        free(first); /* taken, whatever it leads to */
        first = sl_outfile_path(o->folder, name, o->cut, ++at);
    }
    if (first == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "out of memory");
    rc = sl_newfile_open(&f, first, err);
    free(first);
    if (rc != 0)
        return -1;
    fwrite(text, 1, n, f.file); /* what failed is seen when it is flushed */
    if (f.temp == NULL)         /* a pipe of that name */
        return sl_newfile_close(&f, err);
    e = sl_newfile_flush(&f);
    if (e == 0)
        e = settle(&f, &made, &at, name, o);
    if (e != 0)
        rc = sl_fail_os(err, e, "%s: cannot write",
                        made != NULL ? made : f.path);
    sl_newfile_drop(&f);
    if (number != NULL)
        *number = at;
    if (rc == 0 && path != NULL) {
        *path = made;
        made = NULL;
    }
    free(made);
    return rc;
}
