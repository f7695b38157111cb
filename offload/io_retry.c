#include "config.h"

#include <errno.h>
#include <time.h>

#include "offload/io_retry.h"
#include "src/base/mem.h"

/* A read that brings nothing is tried again this often: a disk may recover
 * from one bad read, and a network file system may be slow to agree on a
 * file's length. */
#define RETRIES 2u
/* EINTR and EAGAIN are no failures, but not for ever. */
#define AGAIN_RETRIES 1000u

int sl_io_request_submit(struct sl_io *io, const struct sl_io_request *q,
                         uint64_t tag, struct sl_error *err)
{
    struct sl_io_read r = {
        .buf = q->buf + q->done,
        .off = q->off + q->done,
        .bytes = q->bytes - q->done,
        .tag = tag,
    };

    return io->ops->submit(io, &r, err);
}

/* Only whole pages count: a direct read cannot go on from within one. */
int sl_io_request_take(struct sl_io_request *q, const struct sl_io_done *done)
{
    static const struct timespec pause = {.tv_nsec = 1000000};
    int result = done->result;
    uint32_t got = result > 0 ? (uint32_t)result : 0;
    bool again = result == -EINTR || result == -EAGAIN;

    if (got >= q->bytes - q->done)
        return 1;
    if (done->tries > 0) {
        q->tries = done->tries;
        return -1;
    }
    if (got >= SL_PAGE_BYTES) {
        q->done += (uint32_t)sl_round_down(got, SL_PAGE_BYTES);
        q->tries = 0;
        return 0;
    }
    if (q->tries++ >= (again ? AGAIN_RETRIES : RETRIES))
        return -1;
    if (again)
        nanosleep(&pause, NULL);
    return 0;
}
