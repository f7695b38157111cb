#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "offload/io.h"
#include "offload/io_readers.h"

void sl_io_drop(const struct sl_io_file *file, uint64_t off, uint64_t bytes)
{
    if (!file->direct)
        posix_fadvise(file->fd, (off_t)off, (off_t)bytes, POSIX_FADV_DONTNEED);
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

int sl_io_open(struct sl_io **io, const struct sl_io_config *config,
               struct sl_error *err)
{
    struct sl_io_file file = {
        .depth = config->depth ? config->depth : SL_IO_DEPTH,
    };
    struct sl_error e;

    if (sl_io_open_file(&file.fd, &file.direct, config->path, config->direct,
                        err) != 0)
        return -1;
    if (config->direct && !file.direct)
        sl_log(config->log, SL_LOG_WARN,
               "%s: its file system has no direct reads: reading through the "
               "page cache, which is slower, and dropping every page read",
               config->path);
    if (open_reader(io, config, &file, &e) == 0)
        return 0;
    close(file.fd);
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
