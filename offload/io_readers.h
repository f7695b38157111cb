/*
 * io_readers.h - the readers that sl_io_open chooses from
 *
 * Each takes open files, which are moved to the reader when it succeeds and
 * stay the caller's when it fails. For offload/io.c only.
 */
#ifndef SL_OFFLOAD_IO_READERS_H
#define SL_OFFLOAD_IO_READERS_H

#include "offload/io.h"

struct sl_io_file {
    int fd[SL_IO_FILES];
    unsigned n;  /* of them */
    bool direct; /* all */
    unsigned depth;
};

/* Errors: SL_ERR_UNSUPPORTED where the kernel forbids or lacks io_uring,
 * SL_ERR_NOMEM, SL_ERR_IO. */
int sl_io_uring_open(struct sl_io **io, const struct sl_io_config *config,
                     const struct sl_io_file *file, struct sl_error *err);
/* Errors: SL_ERR_NOMEM; SL_ERR_IO when not even one thread starts. */
int sl_io_pread_open(struct sl_io **io, const struct sl_io_config *config,
                     const struct sl_io_file *file, struct sl_error *err);

/* Drops the pages of a read that went through the page cache. */
void sl_io_drop(const struct sl_io_file *file, unsigned of, uint64_t off,
                uint64_t bytes);
void sl_io_close_files(const struct sl_io_file *file);

#endif
