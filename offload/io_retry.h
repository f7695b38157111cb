/*
 * io_retry.h - a read that may end in parts, or bring nothing at first
 */
#ifndef SL_OFFLOAD_IO_RETRY_H
#define SL_OFFLOAD_IO_RETRY_H

#include "offload/io.h"

struct sl_io_request {
    uint8_t *buf; /* page-aligned, as are off and bytes */
    uint64_t off;
    uint32_t bytes;
    uint32_t done;  /* whole pages that are there already */
    unsigned tries; /* since the last page that came */
};

/* Hands the rest of a request to the reader. Errors: the reader's. */
int sl_io_request_submit(struct sl_io *io, const struct sl_io_request *q,
                         uint64_t tag, struct sl_error *err);

/* Takes note of how a read of the rest ended. Returns 1 when the request is
 * complete, 0 when its rest is to be read, -1 when it was tried often enough,
 * by the reader itself where it does so. Sleeps for a moment where the system
 * was busy. */
int sl_io_request_take(struct sl_io_request *q, const struct sl_io_done *done);

#endif
