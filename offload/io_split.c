/* A reader of two files that are alike (mirror.h) over one that is told which:
   what a disk does not give is read from the other. */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "offload/io_retry.h"
#include "offload/mirror.h"
#include "src/base/mem.h"

struct part {
    struct sl_io_request read;
    uint64_t tag;
    unsigned file;
    unsigned failures; /* tries that did not bring the rest */
};

struct split {
    struct sl_io io;
    struct sl_io_ops ops; /* by the name of inner's */
    struct sl_io *inner;
    struct sl_mirror *mirror;
    unsigned depth;
    struct part *parts; /* (depth) */
    unsigned *free;     /* (depth) stack of unused parts */
    unsigned n_free;
};

static int submit(struct split *s, const struct part *p, struct sl_error *err)
{
    struct sl_io_read r = {
        .buf = p->read.buf + p->read.done,
        .off = p->read.off + p->read.done,
        .bytes = p->read.bytes - p->read.done,
        .tag = (uint64_t)(p - s->parts),
        .file = p->file,
    };

    return s->inner->ops->submit(s->inner, &r, err);
}

static int split_submit(struct sl_io *io, const struct sl_io_read *read,
                        struct sl_error *err)
{
    struct split *s = (struct split *)io;
    struct part *p;

    if (s->n_free == 0)
        return sl_fail(err, SL_ERR_INTERNAL, "more reads than there may be");
    p = &s->parts[s->free[s->n_free - 1]];
    *p = (struct part){
        .read = {.buf = read->buf, .off = read->off, .bytes = read->bytes},
        .tag = read->tag,
        .file = sl_mirror_begin(s->mirror, read->bytes),
    };
    if (submit(s, p, err) != 0) {
        sl_mirror_end(s->mirror, p->file, read->bytes, false);
        return -1;
    }
    s->n_free--;
    return 0;
}

/* A file has failed: whether the other one is to serve the rest. */
static bool change(struct split *s, struct part *p, int result)
{
    unsigned long long at = p->read.off + p->read.done;
    const char *path = sl_mirror_path(s->mirror, p->file);
    struct sl_error why;

    if (result >= 0)
        sl_fail(&why, SL_ERR_CORRUPT, "%s: ends at byte %llu, cut short", path,
                at + (unsigned)result);
    else
        sl_fail_os(&why, -result, "%s: reading %u bytes at %llu, %u times",
                   path, p->read.bytes - p->read.done, at, p->read.tries);
    if (!sl_mirror_leave_out(s->mirror, p->file, why.msg))
        return false;
    sl_mirror_end(s->mirror, p->file, p->read.bytes, false);
    p->file = sl_mirror_begin(s->mirror, p->read.bytes);
    p->read.tries = 0;
    return true;
}

/* What a read has come to, for whoever asked for it: gives it back. */
static void finish(struct split *s, struct part *p, int result,
                   struct sl_io_done *done)
{
    bool came = result >= 0 && (uint32_t)result >= p->read.bytes;

    sl_mirror_end(s->mirror, p->file, p->read.bytes, came);
    *done = (struct sl_io_done){
        .tag = p->tag,
        .result = result,
        .file = p->file,
        .tries = came ? p->failures + 1 : p->read.tries,
    };
    s->free[s->n_free++] = (unsigned)(p - s->parts);
}

/* Returns 1 when *done is set, 0 when the rest is being read. */
static int take(struct split *s, const struct sl_io_done *from,
                struct sl_io_done *done, struct sl_error *err)
{
    struct part *p = &s->parts[from->tag];
    uint32_t before = p->read.done;
    int rc = sl_io_request_take(&p->read, from);

    if (rc == 1) {
        finish(s, p, (int)p->read.bytes, done);
        return 1;
    }
    p->failures++;
    /* One that is out is not asked again. */
    if (rc < 0 ||
        (p->read.done == before && sl_mirror_is_out(s->mirror, p->file)))
        rc = change(s, p, from->result) ? 0 : -1;
    if (rc == 0)
        return submit(s, p, err);
    finish(s, p,
           from->result < 0 ? from->result : (int)p->read.done + from->result,
           done);
    return 1;
}

static int split_wait(struct sl_io *io, struct sl_io_done *done, unsigned max,
                      struct sl_error *err)
{
    struct split *s = (struct split *)io;
    struct sl_io_done ended[SL_IO_DEPTH];
    int n, given = 0;

    n = s->inner->ops->wait(s->inner, ended,
                            max < SL_IO_DEPTH ? max : SL_IO_DEPTH, err);
    for (int i = 0; i < n; i++) {
        int rc = take(s, &ended[i], &done[given], err);

        if (rc < 0)
            return -1;
        given += rc;
    }
    return n < 0 ? -1 : given;
}

static void split_wake(struct sl_io *io)
{
    struct split *s = (struct split *)io;

    s->inner->ops->wake(s->inner);
}

static void split_free(struct split *s)
{
    free(s->parts);
    free(s->free);
    free(s);
}

/* What is still in flight will not be taken, and keeps no disk busy. */
static void split_close(struct sl_io *io)
{
    struct split *s = (struct split *)io;

    s->inner->ops->close(s->inner);
    for (unsigned i = 0; i < s->n_free; i++)
        s->parts[s->free[i]].read.bytes = 0;
    for (unsigned i = 0; i < s->depth; i++) {
        const struct part *p = &s->parts[i];

        if (p->read.bytes > 0)
            sl_mirror_end(s->mirror, p->file, p->read.bytes, false);
    }
    split_free(s);
}

int sl_io_start(struct sl_io **io, const struct sl_io_config *config,
                int (*open)(struct sl_io **io,
                            const struct sl_io_config *config,
                            struct sl_error *err),
                struct sl_error *err)
{
    struct split *s;

    if (open == NULL)
        open = sl_io_open;
    if (config->mirror == NULL)
        return open(io, config, err);
    s = calloc(1, sizeof *s);
    if (s == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory for a reader");
    s->mirror = config->mirror;
    s->depth = config->depth > 0 ? config->depth : SL_IO_DEPTH;
    s->parts = sl_zalloc_array(s->depth, sizeof *s->parts);
    s->free = sl_alloc_array(s->depth, sizeof *s->free);
    if (s->parts == NULL || s->free == NULL) {
        sl_fail(err, SL_ERR_NOMEM, "no memory for %u reads", s->depth);
        split_free(s);
        return -1;
    }
    if (open(&s->inner, config, err) != 0) {
        split_free(s);
        return -1;
    }
    for (; s->n_free < s->depth; s->n_free++)
        s->free[s->n_free] = s->n_free;
    s->ops = (struct sl_io_ops){
        .name = s->inner->ops->name,
        .submit = split_submit,
        .wait = split_wait,
        .wake = split_wake,
        .close = split_close,
    };
    s->io = (struct sl_io){
        .ops = &s->ops,
        .direct = s->inner->direct,
        .registered = s->inner->registered,
    };
    *io = &s->io;
    return 0;
}
