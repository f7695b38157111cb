#include "config.h"

#include <errno.h>
#include <string.h>

#include "tests/faulty_io.h"
#include "tests/support.h"

struct faulty {
    struct sl_io io;
    struct sl_io *inner;
    struct sl_io_read reads[64]; /* by tag */
    enum faulty_kind fault;
    long left; /* reads or calls until it happens */
    bool happened;
    bool of_one; /* file: else any's */
    unsigned file;
};

/* sl_stream_config.io_open takes no argument of ours. */
static struct faulty faulty;

void faulty_set(enum faulty_kind fault, long n)
{
    faulty = (struct faulty){.fault = fault, .left = n};
}

void faulty_change(enum faulty_kind fault, long n)
{
    faulty.fault = fault;
    faulty.left = n;
    faulty.happened = false;
}

void faulty_only(unsigned file)
{
    faulty.of_one = true;
    faulty.file = file;
}

bool faulty_happened(void)
{
    return faulty.happened;
}

static bool is_meant(unsigned file)
{
    return !faulty.of_one || file == faulty.file;
}

static bool is_now(enum faulty_kind fault, unsigned file)
{
    if (faulty.fault != fault || !is_meant(file))
        return false;
    return faulty.left-- == 0;
}

static int faulty_submit(struct sl_io *io, const struct sl_io_read *read,
                         struct sl_error *err)
{
    struct faulty *f = (struct faulty *)io;

    assert_true(read->tag < 64);
    assert_true(read->bytes > 0 && read->bytes % 4096 == 0);
    assert_true(read->off % 4096 == 0 && (uintptr_t)read->buf % 4096 == 0);
    f->reads[read->tag] = *read;
    if (is_now(FAULTY_SUBMIT, read->file)) {
        f->happened = true;
        return sl_fail_os(err, ENXIO, "no more reads");
    }
    return f->inner->ops->submit(f->inner, read, err);
}

/* What was not read must not be there. */
static void cut(const struct sl_io_read *read, struct sl_io_done *done,
                int result)
{
    memset((uint8_t *)read->buf + (result > 0 ? result : 0), 0xdd,
           read->bytes - (uint32_t)(result > 0 ? result : 0));
    done->result = result;
}

static void spoil(struct faulty *f, struct sl_io_done *done)
{
    const struct sl_io_read *read = &f->reads[done->tag];
    bool now = f->left <= 0, first = f->left == 0;

    if (!is_meant(read->file))
        return;
    f->left--;
    if (!now)
        return;
    switch (f->fault) {
    case FAULTY_EIO:
        cut(read, done, -EIO);
        break;
    case FAULTY_NOTHING:
        cut(read, done, 0);
        break;
    case FAULTY_EAGAIN:
        if (f->left < -4)
            return;
        cut(read, done, -EAGAIN);
        break;
    case FAULTY_EIO_ONCE:
    case FAULTY_EINTR:
        if (!first)
            return;
        cut(read, done, f->fault == FAULTY_EINTR ? -EINTR : -EIO);
        break;
    case FAULTY_SHORT:
        if (!first || read->bytes < 8192) {
            f->left += first;
            return;
        }
        cut(read, done, (int)(read->bytes / 2 + 17));
        break;
    case FAULTY_SLIVER:
    default:
        if (!first)
            return;
        cut(read, done, 100);
        break;
    }
    f->happened = true;
}

static int faulty_wait(struct sl_io *io, struct sl_io_done *done, unsigned max,
                       struct sl_error *err)
{
    struct faulty *f = (struct faulty *)io;
    int n;

    if (f->fault == FAULTY_WAIT && f->left-- <= 0) {
        f->happened = true;
        return sl_fail_os(err, ENXIO, "no more waiting");
    }
    n = f->inner->ops->wait(f->inner, done, max, err);
    for (int i = 0; i < n && f->fault < FAULTY_SUBMIT; i++)
        spoil(f, &done[i]);
    return n;
}

static void faulty_wake(struct sl_io *io)
{
    struct faulty *f = (struct faulty *)io;

    f->inner->ops->wake(f->inner);
}

static void faulty_close(struct sl_io *io)
{
    struct faulty *f = (struct faulty *)io;

    f->inner->ops->close(f->inner);
}

int faulty_open(struct sl_io **io, const struct sl_io_config *config,
                struct sl_error *err)
{
    static const struct sl_io_ops ops = {
        .name = "faulty",
        .submit = faulty_submit,
        .wait = faulty_wait,
        .wake = faulty_wake,
        .close = faulty_close,
    };

    if (sl_io_open(&faulty.inner, config, err) != 0)
        return -1;
    faulty.io = *faulty.inner;
    faulty.io.ops = &ops;
    *io = &faulty.io;
    return 0;
}
