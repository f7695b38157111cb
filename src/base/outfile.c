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
#include "src/base/outfile.h"

enum { PREFIX_CHARS = 20, MAX_ID = NAME_MAX - 16, MAX_SAME_SECOND = 10000 };

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

static int write_all(int fd, const char *text, size_t n)
{
    while (n > 0) {
        ssize_t done = write(fd, text, n);

        if (done < 0 && errno != EINTR)
            return -1;
        if (done > 0) {
            text += done;
            n -= (size_t)done;
        }
    }
    return 0;
}

int sl_outfile_replace(const char *path, const char *text, size_t n,
                       struct sl_error *err)
{
    struct stat old;
    char *temp = NULL;
    int fd, rc = 0;

    if (asprintf(&temp, "%s.part", path) < 0)
        return sl_fail(err, SL_ERR_NOMEM, "out of memory");
    fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) {
        rc = sl_fail_os(err, errno, "%s: cannot create", temp);
        goto out;
    }
    if ((stat(path, &old) == 0 && fchmod(fd, old.st_mode & 07777) != 0) ||
        write_all(fd, text, n) != 0 || fsync(fd) != 0)
        rc = sl_fail_os(err, errno, "%s: cannot write %zu bytes", path, n);
    if (close(fd) != 0 && rc == 0)
        rc = sl_fail_os(err, errno, "%s: cannot write %zu bytes", path, n);
    if (rc == 0 && rename(temp, path) != 0)
        rc = sl_fail_os(err, errno, "%s: cannot rename to its place", temp);
    if (rc != 0)
        unlink(temp);
out:
    free(temp);
    return rc;
}

/* A name no file has yet, reserved by an empty file. */
static int reserve(char **path, const char *folder, const char *prefix,
                   struct sl_error *err)
{
    time_t now = time(NULL);
    char stamp[32], more[16] = "";
    struct tm tm;
    int fd;

    localtime_r(&now, &tm);
    strftime(stamp, sizeof stamp, "%m-%d-%H-%M-%S", &tm);
    for (int i = 2; i < MAX_SAME_SECOND; i++) {
        if (asprintf(path, "%s/%s-%s%s.txt", folder, prefix, stamp, more) < 0) {
            *path = NULL;
            return sl_fail(err, SL_ERR_NOMEM, "out of memory");
        }
        fd = open(*path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (fd >= 0) {
            close(fd);
            return 0;
        }
        if (errno != EEXIST)
            break;
        free(*path);
        *path = NULL;
        snprintf(more, sizeof more, "-%d", i);
    }
    sl_fail_os(err, errno, "%s: cannot create", *path ? *path : folder);
    free(*path);
    *path = NULL;
    return -1;
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

int sl_outfile_write(const char *folder, const char *id, const char *query,
                     size_t n_query, const char *text, size_t n,
                     struct sl_error *err)
{
    char prefix[4 * PREFIX_CHARS + 1], *path = NULL;
    int rc;

    if (id == NULL) {
        make_prefix(prefix, query, n_query);
        if (reserve(&path, folder, prefix, err) != 0)
            return -1;
    } else if (asprintf(&path, "%s/%s.txt", folder, id) < 0) {
        return sl_fail(err, SL_ERR_NOMEM, "out of memory");
    }
    rc = sl_outfile_replace(path, text, n, err);
    if (rc != 0 && id == NULL)
        unlink(path);
    free(path);
    return rc;
}
