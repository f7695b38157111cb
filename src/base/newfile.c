#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "src/base/bytes.h"
#include "src/base/links.h"
#include "src/base/newfile.h"

#define MOST_TEMPS 1000

/* The folder that path lies in; free it. */
static char *folder_of(const char *path)
{
    char *copy = strdup(path), *dir = NULL;

    if (copy != NULL)
        dir = strdup(dirname(copy));
    free(copy);
    return dir;
}

/* Makes path.partial, or path.partial-2 and so on: what is there of such a name
 * is somebody's. */
static int open_temp(struct sl_newfile *f)
{
    struct stat old;
    int fd = -1;

    for (int i = 1; fd < 0 && i < MOST_TEMPS; i++) {
        char more[16] = "";

        if (i > 1)
            snprintf(more, sizeof more, "-%d", i);
        free(f->temp);
        if (asprintf(&f->temp, "%s.partial%s", f->path, more) < 0) {
            f->temp = NULL;
            errno = ENOMEM;
            return -1;
        }
        fd = open(f->temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (fd < 0 && errno != EEXIST)
            break;
    }
    if (fd < 0) {
        free(f->temp);
        f->temp = NULL;
    } else if (stat(f->path, &old) == 0) {
        /* not all file systems have modes */
        (void)!fchmod(fd, old.st_mode & 07777);
    }
    return fd;
}

static int fail_follow(const char *path, struct sl_error *err)
{
    if (errno == ENOMEM)
        return sl_fail(err, SL_ERR_NOMEM, "%s: no memory to write it", path);
    return sl_fail_os(err, errno, "%s: cannot create", path);
}

int sl_newfile_name(char **name, const char *path, struct sl_error *err)
{
    int own;

    *name = sl_link_follow(path, &own);
    return *name != NULL ? 0 : fail_follow(path, err);
}

int sl_newfile_open(struct sl_newfile *f, const char *path,
                    struct sl_error *err)
{
    int own, fd, e;

    *f = (struct sl_newfile){.path = sl_link_follow(path, &own)};
    if (f->path == NULL)
        return fail_follow(path, err);
    if (own >= 0) /* goes on where the caller's is, which opening would not */
        fd = fcntl(own, F_DUPFD_CLOEXEC, 0);
    else if (sl_newfile_in_place(path))
        fd = open(path, O_WRONLY | O_CLOEXEC);
    else
        fd = open_temp(f);
    if (fd >= 0)
        f->file = fdopen(fd, "w");
    if (f->file != NULL)
        return 0;
    e = errno;
    if (fd >= 0)
        close(fd);
    sl_newfile_drop(f);
    return sl_fail_os(err, e, "%s: cannot create", path);
}

int sl_newfile_flush(struct sl_newfile *f)
{
    errno = 0;
    if (fflush(f->file) != 0 || ferror(f->file))
        return errno != 0 ? errno : EIO;
    return sl_sync(fileno(f->file)) == 0 ? 0 : errno;
}

int sl_newfile_close(struct sl_newfile *f, struct sl_error *err)
{
    int e = sl_newfile_flush(f);

    if (fclose(f->file) != 0 && e == 0)
        e = errno;
    f->file = NULL;
    if (e == 0 && f->temp != NULL && rename(f->temp, f->path) != 0)
        e = errno;
    if (e != 0) {
        sl_fail_os(err, e, "%s: cannot write", f->path);
        sl_newfile_drop(f);
        return -1;
    }
    free(f->temp);
    free(f->path);
    *f = (struct sl_newfile){0};
    return 0;
}

void sl_newfile_drop(struct sl_newfile *f)
{
    if (f->file != NULL)
        fclose(f->file);
    if (f->temp != NULL)
        unlink(f->temp);
    free(f->temp);
    free(f->path);
    *f = (struct sl_newfile){0};
}

bool sl_newfile_in_place(const char *name)
{
    struct stat st;
    int own = -1;

    if (stat(name, &st) == 0 && !S_ISREG(st.st_mode))
        return true;
    free(sl_link_follow(name, &own));
    return own >= 0;
}

int sl_newfile_check_kind(const char *name, struct sl_error *err)
{
    struct stat st;

    if (*name == '\0')
        return sl_fail(err, SL_ERR_USAGE,
                       "the file's name is empty: give -o FILE");
    if (!sl_newfile_in_place(name))
        return 0;
    return sl_fail(err, SL_ERR_USAGE,
                   "%s: %s, where a file is to be: give another name", name,
                   stat(name, &st) == 0 && S_ISDIR(st.st_mode)
                       ? "a folder"
                       : "a pipe or device");
}

int sl_newfile_check_place(const char *name, struct sl_error *err)
{
    char *path, *dir;
    struct stat st;
    int failed;

    if (stat(name, &st) == 0 && S_ISDIR(st.st_mode))
        return sl_fail_os(err, EISDIR, "%s: cannot create", name);
    if (sl_newfile_in_place(name)) {
        failed = access(name, W_OK);
    } else {
        if (sl_newfile_name(&path, name, err) != 0)
            return -1;
        dir = folder_of(path);
        free(path);
        if (dir == NULL)
            return sl_fail(err, SL_ERR_NOMEM, "no memory for a path");
        failed = access(dir, W_OK | X_OK);
        free(dir);
    }
    return failed ? sl_fail_os(err, errno, "%s: cannot create", name) : 0;
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

int sl_newfile_lock(int fd, const char *path, struct sl_error *err)
{
    if (flock(fd, LOCK_EX | LOCK_NB) == 0 || errno == ENOTSUP ||
        errno == ENOSYS || errno == EINVAL || errno == ENOLCK)
        return 0;
    if (errno == EWOULDBLOCK)
        return sl_fail(err, SL_ERR_USAGE, "%s: another sluice is writing it",
                       path);
    return sl_fail_os(err, errno, "%s: cannot lock it", path);
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

int sl_sync(int fd)
{
    if (fsync(fd) == 0 || errno == EINVAL || errno == ENOTSUP ||
        errno == ENOSYS || errno == EROFS)
        return 0;
    return -1;
}

/* A folder that may be written need not be readable, nor can every file
 * system sync one: the file is whole all the same. */
static int sync_folder(const char *path, struct sl_error *err)
{
    char *dir = folder_of(path);
    int fd, rc = 0;

    if (dir == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory for a path");
    fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0 && sl_sync(fd) != 0 && (errno == EIO || errno == ENOSPC))
        rc = sl_fail_os(err, errno, "%s: cannot sync the folder", dir);
    if (fd >= 0)
        close(fd);
    free(dir);
    return rc;
}

int sl_newfile_commit(int fd, const char *temp, const char *name,
                      struct sl_error *err)
{
    if (sl_sync(fd) != 0)
        return sl_fail_os(err, errno, "%s: cannot sync to the disk", temp);
    if (rename(temp, name) != 0)
        return sl_fail_os(err, errno, "%s: cannot rename to %s", temp, name);
    return sync_folder(name, err);
}
