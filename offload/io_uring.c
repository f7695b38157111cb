#include "config.h"

#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "offload/io_readers.h"
#include "src/base/bytes.h"
#include "src/base/mem.h"

/* The kernel refuses to register more in one piece (io_uring_register(2)). */
#define PIECE_BYTES (1ull << 30)
/* Older kernels take at most UIO_MAXIOV pieces. */
#define MAX_PIECES 1024u
/* user_data of the poll that wake ends, and of what the kernel would not
   take; others are indices of reads. */
#define WAKE    UINT64_MAX
#define NOTHING (UINT64_MAX - 1)
/* A busy kernel (EAGAIN, EBUSY) is asked again this often, 1 ms apart. */
#define SUBMIT_TRIES 1000

struct pending {
    uint64_t tag, off;
    uint32_t bytes;
    unsigned file;
};

struct uring {
    struct sl_io io;
    struct sl_io_file file;
    struct io_uring ring;
    int event; /* wake writes to it */
    bool fixed_files;
    struct iovec *pieces; /* registered */
    unsigned n_pieces;
    struct pending *pending; /* (depth) */
    unsigned *free;          /* (depth) stack of unused pending */
    unsigned n_free;
};

/* A kernel that is short of memory for requests says so for a moment; a run of
 * hours must not end of that. */
static int submit_all(struct uring *u, struct sl_error *err)
{
    static const struct timespec pause = {.tv_nsec = 1000000};
    int rc = 0;

    for (int i = 0; i < SUBMIT_TRIES; i++) {
        rc = io_uring_submit(&u->ring);
        if (rc >= 0)
            return 0;
        if (rc != -EAGAIN && rc != -EBUSY && rc != -EINTR)
            break;
        nanosleep(&pause, NULL);
    }
    return sl_fail_os(err, -rc, "io_uring takes no more reads");
}

/* wake comes from any thread, and the ring is this one's alone: a poll on an
 * eventfd brings it in as one completion more. */
static int arm_wake(struct uring *u, struct sl_error *err)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);

    if (sqe == NULL)
        return sl_fail(err, SL_ERR_INTERNAL, "io_uring: queue is full");
    io_uring_prep_poll_add(sqe, u->event, POLLIN);
    io_uring_sqe_set_data64(sqe, WAKE);
    return submit_all(u, err);
}

/* The registered piece that holds the whole read, or -1. */
static int find_piece(const struct uring *u, const struct sl_io_read *r)
{
    const uint8_t *buf = r->buf;

    for (unsigned i = 0; i < u->n_pieces; i++) {
        const uint8_t *base = u->pieces[i].iov_base;

        if (buf >= base && buf + r->bytes <= base + u->pieces[i].iov_len)
            return (int)i;
    }
    return -1;
}

/* Buffers and file that are registered spare the kernel looking up pages and
 * file for every read, which counts with fast disks. */
static int uring_submit(struct sl_io *io, const struct sl_io_read *r,
                        struct sl_error *err)
{
    struct uring *u = (struct uring *)io;
    int piece = find_piece(u, r);
    int fd = u->fixed_files ? (int)r->file : u->file.fd[r->file];
    struct io_uring_sqe *sqe;
    unsigned i;

    if (u->n_free == 0 || (sqe = io_uring_get_sqe(&u->ring)) == NULL)
        return sl_fail(err, SL_ERR_INTERNAL, "io_uring: queue is full");
    i = u->free[u->n_free - 1];
    u->pending[i] = (struct pending){r->tag, r->off, r->bytes, r->file};
    if (piece >= 0)
        io_uring_prep_read_fixed(sqe, fd, r->buf, r->bytes, r->off, piece);
    else
        io_uring_prep_read(sqe, fd, r->buf, r->bytes, r->off);
    if (u->fixed_files)
        io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
    io_uring_sqe_set_data64(sqe, i);
    if (submit_all(u, err) != 0) {
        /* It stays in the queue and goes with the next submit. */
        io_uring_prep_nop(sqe);
        io_uring_sqe_set_data64(sqe, NOTHING);
        return -1;
    }
    u->n_free--;
    return 0;
}

/* Dropped at once, so that no more than what is in flight lies in the page
 * cache where reads are not direct. */
static void reap(struct uring *u, const struct io_uring_cqe *cqe,
                 struct sl_io_done *done)
{
    unsigned i = (unsigned)cqe->user_data;
    const struct pending *p = &u->pending[i];

    sl_io_drop(&u->file, p->file, p->off, p->bytes);
    *done =
        (struct sl_io_done){.tag = p->tag, .result = cqe->res, .file = p->file};
    u->free[u->n_free++] = i;
}

static int uring_wait(struct sl_io *io, struct sl_io_done *done, unsigned max,
                      struct sl_error *err)
{
    struct uring *u = (struct uring *)io;
    struct io_uring_cqe *cqe;
    bool woken = false;
    unsigned n = 0;
    uint64_t count;
    int rc;

    do {
        rc = io_uring_wait_cqe(&u->ring, &cqe);
    } while (rc == -EINTR || rc == -EAGAIN);
    if (rc != 0)
        return sl_fail_os(err, -rc, "waiting for io_uring");
    while (n < max && io_uring_peek_cqe(&u->ring, &cqe) == 0) {
        if (cqe->user_data == WAKE)
            woken = true;
        else if (cqe->user_data != NOTHING)
            reap(u, cqe, &done[n++]);
        io_uring_cqe_seen(&u->ring, cqe);
    }
    if (woken) {
        /* Emptied before the poll is armed again: a wake in between ends the
           new poll at once, so none is lost. */
        if (read(u->event, &count, sizeof count) < 0 && errno != EAGAIN)
            return sl_fail_os(err, errno, "io_uring: eventfd");
        if (arm_wake(u, err) != 0)
            return -1;
    }
    return (int)n;
}

static void uring_wake(struct sl_io *io)
{
    struct uring *u = (struct uring *)io;
    static const uint64_t one = 1;

    /* Fails only when 2^64 - 2 wakes are pending: then one is. */
    if (write(u->event, &one, sizeof one) < 0)
        return;
}

static void uring_fini(struct uring *u)
{
    if (u->event >= 0)
        close(u->event);
    free(u->pieces);
    free(u->pending);
    free(u->free);
    free(u);
}

/* Waits for reads in flight: the kernel goes on writing into their buffers,
 * whatever becomes of the ring. */
static void uring_close(struct sl_io *io)
{
    struct uring *u = (struct uring *)io;
    struct io_uring_cqe *cqe;
    struct sl_io_done done;

    while (u->n_free < u->file.depth) {
        int rc = io_uring_wait_cqe(&u->ring, &cqe);

        if (rc == -EINTR || rc == -EAGAIN)
            continue;
        if (rc != 0)
            break;
        if (cqe->user_data < NOTHING)
            reap(u, cqe, &done);
        io_uring_cqe_seen(&u->ring, cqe);
    }
    /* Closing alone gives the locked pages back later; the next stream may
       need them at once. */
    if (u->io.registered)
        io_uring_unregister_buffers(&u->ring);
    io_uring_queue_exit(&u->ring);
    sl_io_close_files(&u->file);
    uring_fini(u);
}

static const struct sl_io_ops uring_ops = {
    .name = "io_uring",
    .submit = uring_submit,
    .wait = uring_wait,
    .wake = uring_wake,
    .close = uring_close,
};

/* Cuts the buffers into pieces. Returns their bytes, 0 when there are none,
   too many, or no memory to list them. */
static uint64_t cut_buffers(struct uring *u, const struct sl_io_config *c)
{
    uint64_t n = 0, total = 0;

    for (size_t i = 0; i < c->n_buffers; i++)
        n += sl_div_up(c->buffers[i].bytes, PIECE_BYTES);
    if (n == 0 || n > MAX_PIECES)
        return 0;
    u->pieces = sl_alloc_array((size_t)n, sizeof *u->pieces);
    if (u->pieces == NULL)
        return 0;
    for (size_t i = 0; i < c->n_buffers; i++) {
        uint8_t *base = c->buffers[i].base;
        size_t left = c->buffers[i].bytes;

        while (left > 0) {
            size_t bytes = left < PIECE_BYTES ? left : PIECE_BYTES;

            u->pieces[u->n_pieces++] = (struct iovec){base, bytes};
            base += bytes;
            left -= bytes;
            total += bytes;
        }
    }
    return total;
}

/* Only where the limit on locked memory is the reason is there something to be
 * done about it. */
static void say_unregistered(const struct sl_log *log, uint64_t bytes, int rc)
{
    char need[SL_SIZE_TEXT], have[SL_SIZE_TEXT];
    struct rlimit limit;

    if ((rc != -ENOMEM && rc != -EPERM) ||
        getrlimit(RLIMIT_MEMLOCK, &limit) != 0 ||
        limit.rlim_cur == RLIM_INFINITY) {
        sl_log(log, SL_LOG_WARN,
               "the kernel does not register %s of read buffers (%s): reading "
               "into them unregistered, a little slower",
               sl_size_format(need, bytes), strerror(-rc));
        return;
    }
    sl_log(log, SL_LOG_WARN,
           "the kernel may not lock %s of read buffers (limit %s): reading "
           "into them unregistered, a little slower; `ulimit -l %llu` or more "
           "would help",
           sl_size_format(need, bytes), sl_size_format(have, limit.rlim_cur),
           (unsigned long long)sl_div_up(bytes, 1024));
}

/* Of use but not needed: where the kernel refuses, plain reads do the same. */
static void register_buffers(struct uring *u, const struct sl_io_config *config)
{
    uint64_t bytes = cut_buffers(u, config);
    int rc;

    if (bytes == 0)
        return;
    rc = io_uring_register_buffers(&u->ring, u->pieces, u->n_pieces);
    u->io.registered = rc == 0;
    if (rc == 0)
        return;
    u->n_pieces = 0; /* plain reads from now on */
    say_unregistered(config->log, bytes, rc);
}

/* Undoes everything but the file, which stays the caller's. */
static int give_up(struct uring *u, bool ring)
{
    if (ring)
        io_uring_queue_exit(&u->ring);
    uring_fini(u);
    return -1;
}

int sl_io_uring_open(struct sl_io **io, const struct sl_io_config *config,
                     const struct sl_io_file *file, struct sl_error *err)
{
    struct uring *u = calloc(1, sizeof *u);
    int rc;

    if (u == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "io_uring: no memory");
    u->io = (struct sl_io){.ops = &uring_ops, .direct = file->direct};
    u->file = *file;
    u->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    u->pending = sl_alloc_array(file->depth, sizeof *u->pending);
    u->free = sl_alloc_array(file->depth, sizeof *u->free);
    if (u->event < 0) {
        sl_fail_os(err, errno, "io_uring: eventfd");
        return give_up(u, false);
    }
    if (u->pending == NULL || u->free == NULL) {
        sl_fail(err, SL_ERR_NOMEM, "io_uring: no memory");
        return give_up(u, false);
    }
    while (u->n_free < file->depth) {
        u->free[u->n_free] = u->n_free;
        u->n_free++;
    }
    /* one more than reads: the poll for wake */
    rc = io_uring_queue_init(file->depth + 1, &u->ring, 0);
    if (rc != 0) {
        /* EPERM: sysctl kernel.io_uring_disabled or a container's filter;
           ENOMEM: kernels before 5.12 count the ring as locked memory */
        sl_fail_os(err, -rc, "io_uring cannot be used here");
        err->code = SL_ERR_UNSUPPORTED;
        return give_up(u, false);
    }
    if (arm_wake(u, err) != 0)
        return give_up(u, true);
    u->fixed_files =
        io_uring_register_files(&u->ring, u->file.fd, u->file.n) == 0;
    register_buffers(u, config);
    *io = &u->io;
    return 0;
}

int sl_io_uring_features(uint32_t *features)
{
    struct io_uring_params params = {0};
    struct io_uring ring;
    int rc = io_uring_queue_init_params(4, &ring, &params);

    if (rc != 0)
        return rc;
    *features = params.features;
    io_uring_queue_exit(&ring);
    return 0;
}
