#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "offload/io.h"
#include "offload/io_readers.h"
#include "offload/mirror.h"

void sl_io_drop(const struct sl_io_file *file, unsigned of, uint64_t off,
                uint64_t bytes)
{
    if (!file->direct)
        posix_fadvise(file->fd[of], (off_t)off, (off_t)bytes,
                      POSIX_FADV_DONTNEED);
}

void sl_io_close_files(const struct sl_io_file *file)
{
    for (unsigned i = 0; i < file->n; i++)
        close(file->fd[i]);
}

const char *sl_io_path(const char *path, const struct sl_mirror *mirror,
                       unsigned file)
{
    return file == 0 ? path : sl_mirror_path(mirror, file);
}

unsigned sl_io_depth(const struct sl_mirror *mirror, bool direct)
{
    return (direct ? SL_IO_DEPTH : SL_IO_CACHED_DEPTH) *
           (mirror != NULL ? SL_IO_FILES : 1);
}

static int open_uring(struct sl_io **io, const struct sl_io_config *config,
                      const struct sl_io_file *file, struct sl_error *err)
{
#ifdef HAVE_LIBURING
    return sl_io_uring_open(io, config, file, err);
#else
    return sl_fail(err, SL_ERR_UNSUPPORTED,
                   "this sluice was built without io_uring");
#endif
}

static int open_reader(struct sl_io **io, const struct sl_io_config *config,
                       const struct sl_io_file *file, struct sl_error *err)
{
    if (config->kind == SL_IO_URING)
        return open_uring(io, config, file, err);
    if (config->kind == SL_IO_AUTO && file->direct) {
        if (open_uring(io, config, file, err) == 0)
            return 0;
        if (err->code != SL_ERR_UNSUPPORTED)
            return -1;
        sl_log(config->log, SL_LOG_WARN, "%s: reading with threads instead",
               err->msg);
    }
    return sl_io_pread_open(io, config, file, err);
}

uint64_t sl_io_overhead_bytes(const struct sl_mirror *mirror)
{
    return (uint64_t)SL_IO_OVERHEAD_BYTES * (mirror != NULL ? SL_IO_FILES : 1);
}

/* Whether reads are direct is the same for both files. */
static int open_files(struct sl_io_file *file,
                      const struct sl_io_config *config, bool direct,
                      struct sl_error *err)
{
    unsigned n = config->mirror != NULL ? SL_IO_FILES : 1;

    file->direct = direct;
    for (file->n = 0; file->n < n; file->n++) {
        const char *path = sl_io_path(config->path, config->mirror, file->n);
        bool now;

        if (sl_io_open_file(&file->fd[file->n], &now, path, direct, err) != 0) {
            sl_io_close_files(file);
            return -1;
        }
        if (now == direct)
            continue;
        sl_log(config->log, SL_LOG_WARN,
               "%s: its file system has no direct reads: reading through the "
               "page cache, which is slower, and dropping every page read",
               path);
        file->n++;
        sl_io_close_files(file);
        return open_files(file, config, false, err);
    }
    return 0;
}

int sl_io_open(struct sl_io **io, const struct sl_io_config *config,
               struct sl_error *err)
{
    struct sl_io_file file = {
        .depth = config->depth ? config->depth : SL_IO_DEPTH,
    };
    struct sl_error e;

    if (open_files(&file, config, config->direct, err) != 0)
        return -1;
    if (open_reader(io, config, &file, &e) == 0)
        return 0;
    sl_io_close_files(&file);
    if (err != NULL)
        *err = e;
    return -1;
}

#ifndef HAVE_LIBURING
int sl_io_uring_features(uint32_t *features)
{
    return -ENOSYS;
}
#endif
