#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "offload/io.h"
#include "offload/mirror.h"
#include "src/base/bytes.h"
#include "src/base/mem.h"
#include "src/model/modelfile.h"

/* Of both files, side by side. */
#define PIECE_BYTES (64u << 10)
/* Of the first and of the last section: a copy that ended early, or is still
 * under way, differs at its end. */
#define ENDS_BYTES (1u << 20)

struct pair {
    struct sl_modelfile *mf;
    const char *path; /* of the copy */
    int fd;
    uint8_t *pieces; /* (2, PIECE_BYTES) page-aligned */
};

/* At *at the first byte in [off, off + bytes) that differs; *at = off + bytes:
 * none does. */
static int compare(const struct pair *p, uint64_t off, uint64_t bytes,
                   uint64_t *at, struct sl_error *err)
{
    uint8_t *a = p->pieces, *b = p->pieces + PIECE_BYTES;

    for (uint64_t done = 0; done < bytes; done += PIECE_BYTES) {
        size_t n =
            bytes - done < PIECE_BYTES ? (size_t)(bytes - done) : PIECE_BYTES;

        *at = off + done;
        if (sl_io_read_full(p->mf->fd, p->mf->path, a, *at, n, err) != 0 ||
            sl_io_read_full(p->fd, p->path, b, *at, n, err) != 0)
            return -1;
        if (memcmp(a, b, n) == 0)
            continue;
        for (size_t i = 0; a[i] == b[i]; i++)
            ++*at;
        return 0;
    }
    *at = off + bytes;
    return 0;
}

/* What kind of file it is instead. */
static int refuse_header(const struct pair *p, struct sl_error *err)
{
    struct sl_modelfile other;
    int rc = -1;

    if (sl_modelfile_open(&other, p->path, err) != 0)
        return -1;
    sl_fail(err, SL_ERR_USAGE,
            "%s holds another model (%s, %s) than %s (%s, %s), or one that was "
            "converted otherwise: a mirror is a copy of the file",
            p->path, other.name, other.quant, p->mf->path, p->mf->name,
            p->mf->quant);
    sl_modelfile_close(&other);
    return rc;
}

static int check_bytes(const struct pair *p, struct sl_error *err)
{
    const struct sl_modelfile *mf = p->mf;
    uint64_t header = mf->sections[0].off, at;
    uint64_t first = mf->sections[0].bytes, last;

    if (compare(p, 0, header, &at, err) != 0)
        return -1;
    if (at < header)
        return refuse_header(p, err);
    first = first < ENDS_BYTES ? first : ENDS_BYTES;
    last = mf->file_bytes - header;
    last = last < ENDS_BYTES ? last : ENDS_BYTES;
    if (compare(p, header, first, &at, err) != 0)
        return -1;
    if (at == header + first &&
        compare(p, mf->file_bytes - last, last, &at, err) != 0)
        return -1;
    if (at == mf->file_bytes)
        return 0;
    return sl_fail(err, SL_ERR_CORRUPT,
                   "%s differs from %s at byte %llu: a copy that is not "
                   "complete, or damaged; copy it again",
                   p->path, mf->path, (unsigned long long)at);
}

static int check_file(const struct pair *p, const struct sl_log *log,
                      struct sl_error *err)
{
    char have[SL_SIZE_TEXT], want[SL_SIZE_TEXT];
    struct stat own, copy;

    if (fstat(p->mf->fd, &own) != 0 || fstat(p->fd, &copy) != 0)
        return sl_fail_os(err, errno, "%s: cannot tell the file's length",
                          p->path);
    if (own.st_dev == copy.st_dev && own.st_ino == copy.st_ino)
        return sl_fail(err, SL_ERR_USAGE,
                       "%s is the model file itself: a mirror is a copy of it "
                       "on another disk",
                       p->path);
    if ((uint64_t)copy.st_size != p->mf->file_bytes)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "%s is no copy of %s: it has %llu bytes (%s) of %llu "
                       "(%s); copy it again",
                       p->path, p->mf->path, (unsigned long long)copy.st_size,
                       sl_size_format(have, (uint64_t)copy.st_size),
                       (unsigned long long)p->mf->file_bytes,
                       sl_size_format(want, p->mf->file_bytes));
    if (own.st_dev == copy.st_dev)
        sl_log(log, SL_LOG_WARN,
               "%s and its mirror %s are on one disk, which is no faster for "
               "that",
               p->mf->path, p->path);
    return check_bytes(p, err);
}

/* Before it is opened: opening a pipe waits until somebody writes to it. */
static int open_copy(struct pair *p, struct sl_error *err)
{
    struct stat st;
    bool direct;

    if (stat(p->path, &st) == 0 && !S_ISREG(st.st_mode))
        return sl_fail(err, SL_ERR_USAGE, "%s is no file", p->path);
    return sl_io_open_file(&p->fd, &direct, p->path, true, err);
}

int sl_modelfile_add_mirror(struct sl_modelfile *mf, const char *path,
                            const struct sl_log *log, struct sl_error *err)
{
    struct sl_mirror_config config = {.path = {mf->path, path}, .log = log};
    struct pair p = {.mf = mf, .path = path, .fd = -1};
    void *pieces = NULL;
    int rc = -1;

    if (posix_memalign(&pieces, SL_PAGE_BYTES, (size_t)2 * PIECE_BYTES) != 0)
        return sl_fail(err, SL_ERR_NOMEM, "--mirror: no memory");
    p.pieces = pieces;
    if (open_copy(&p, err) == 0 && check_file(&p, log, err) == 0)
        rc = sl_mirror_create(&mf->mirror, &config, err);
    free(pieces);
    if (rc == 0) {
        mf->mirror_fd = p.fd;
        return 0;
    }
    if (p.fd >= 0)
        close(p.fd);
    sl_error_prefix(err, "--mirror: ");
    return -1;
}

void sl_modelfile_close_mirror(struct sl_modelfile *mf)
{
    if (mf->mirror == NULL)
        return;
    close(mf->mirror_fd);
    sl_mirror_destroy(mf->mirror);
    mf->mirror = NULL;
}

static int read_from(const struct sl_modelfile *mf, unsigned file, void *buf,
                     uint64_t off, size_t bytes, struct sl_error *err)
{
    int fd = file == 0 ? mf->fd : mf->mirror_fd;

    return sl_io_read_full(fd, sl_io_path(mf->path, mf->mirror, file), buf, off,
                           bytes, err);
}

int sl_modelfile_read(const struct sl_modelfile *mf, void *buf, uint64_t off,
                      size_t bytes, struct sl_error *err)
{
    struct sl_error why;
    unsigned file;

    if (mf->mirror == NULL)
        return read_from(mf, 0, buf, off, bytes, err);
    for (;;) {
        int rc;

        file = sl_mirror_begin(mf->mirror, bytes);
        rc = read_from(mf, file, buf, off, bytes, &why);
        sl_mirror_end(mf->mirror, file, bytes, rc == 0);
        if (rc == 0)
            return 0;
        if (why.code == SL_ERR_NOMEM ||
            !sl_mirror_leave_out(mf->mirror, file, why.msg))
            break;
    }
    if (err != NULL)
        *err = why;
    return -1;
}
