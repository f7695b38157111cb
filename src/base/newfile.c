#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "src/base/bytes.h"
#include "src/base/newfile.h"

/* The folder that path lies in; free it. */
static char *folder_of(const char *path)
{
    char *copy = strdup(path), *dir = NULL;

    if (copy != NULL)
        dir = strdup(dirname(copy));
    free(copy);
    return dir;
}

bool sl_newfile_in_place(const char *name)
{
    struct stat st;

    return stat(name, &st) == 0 && !S_ISREG(st.st_mode);
}

int sl_newfile_check_kind(const char *name, struct sl_error *err)
{
    struct stat st;

    if (*name == '\0')
        return sl_fail(err, SL_ERR_USAGE,
                       "the model file's name is empty: give -o FILE");
    if (stat(name, &st) != 0 || S_ISREG(st.st_mode))
        return 0;
    return sl_fail(err, SL_ERR_USAGE,
                   "%s: %s, where a model file is to be: give -o FILE", name,
                   S_ISDIR(st.st_mode) ? "a folder" : "a pipe or device");
}

int sl_newfile_check_space(const char *temp, const char *name, uint64_t bytes,
                           struct sl_error *err)
{
    char text[2][SL_SIZE_TEXT], *dir = folder_of(temp);
    uint64_t need = bytes, have, taken = 0;
    struct statvfs fs;
    struct stat st;
    int rc;

    if (dir == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory for a path");
    rc = statvfs(dir, &fs);
    if (rc != 0)
        rc =
            sl_fail_os(err, errno, "%s: cannot make files in that folder", dir);
    if (rc == 0) {
        if (stat(temp, &st) == 0)
            taken = (uint64_t)st.st_blocks * 512;
        need -= taken < need ? taken : need;
        have = (uint64_t)fs.f_bavail * fs.f_frsize;
        if (have < need)
            rc = sl_fail(err, SL_ERR_NOSPACE,
                         "%s: %s will take %s more, but only %s are free on "
                         "that disk",
                         dir, name, sl_size_format(text[0], need),
                         sl_size_format(text[1], have));
    }
    free(dir);
    return rc;
}

int sl_newfile_reserve(int fd, const char *path, uint64_t bytes,
                       struct sl_error *err)
{
    if (fallocate(fd, 0, 0, (off_t)bytes) == 0)
        return 0;
    /* Not every file system can; then the file just grows. */
    if (errno != EOPNOTSUPP && errno != ENOSYS)
        return sl_fail_os(err, errno, "%s: cannot reserve %" PRIu64 " bytes",
                          path, bytes);
    if (ftruncate(fd, (off_t)bytes) != 0)
        return sl_fail_os(err, errno, "%s: cannot make it %" PRIu64 " bytes",
                          path, bytes);
    return 0;
}

static int sync_folder(const char *path, struct sl_error *err)
{
    char *dir = folder_of(path);
    int fd, rc = 0;

    if (dir == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory for a path");
    fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) != 0)
        rc = sl_fail_os(err, errno, "%s: cannot sync the folder", dir);
    if (fd >= 0)
        close(fd);
    free(dir);
    return rc;
}

int sl_newfile_commit(int fd, const char *temp, const char *name,
                      struct sl_error *err)
{
    if (fsync(fd) != 0)
        return sl_fail_os(err, errno, "%s: cannot sync to the disk", temp);
    if (rename(temp, name) != 0)
        return sl_fail_os(err, errno, "%s: cannot rename to %s", temp, name);
    return sync_folder(name, err);
}
