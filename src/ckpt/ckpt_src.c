#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/base/mem.h"
#include "src/ckpt/ckpt_src.h"
#include "src/ckpt/ckpt_sums.h"

/* Of a gap that is read for its checksum alone. */
#define GAP_BYTES (1u << 20)

struct part {
    char *path;
    int fd;
    uint64_t begin; /* in the source */
    uint64_t bytes;
};

/* Exactly one of parts, mem and parent is set. */
struct sl_src {
    char *name;
    uint64_t bytes;
    struct part *parts;
    size_t n_parts;
    const uint8_t *mem;
    struct sl_src *parent;
    uint64_t parent_off;
    struct sl_sums *sums; /* or NULL */
};

static int src_new(struct sl_src **out, const char *name, struct sl_error *err)
{
    struct sl_src *s = sl_zalloc_array(1, sizeof *s);

    if (s != NULL)
        s->name = strdup(name);
    if (s == NULL || s->name == NULL) {
        free(s);
        return sl_fail(err, SL_ERR_NOMEM, "%s: no memory to open it", name);
    }
    *out = s;
    return 0;
}

static int open_part(struct part *p, const char *path, struct sl_error *err)
{
    struct stat st;

    p->path = strdup(path);
    if (p->path == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "%s: no memory to open it", path);
    /* Before it is opened: opening a pipe waits until somebody writes to it. */
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode))
        return sl_fail(err, SL_ERR_IO, "%s: not a regular file", path);
    p->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (p->fd < 0)
        return sl_fail_os(err, errno, "%s: cannot open", path);
    if (fstat(p->fd, &st) != 0)
        return sl_fail_os(err, errno, "%s: cannot stat", path);
    p->bytes = (uint64_t)st.st_size;
    /* No readahead: what is read beyond a request would stay in the page
       cache, which the memory budget counts. */
    posix_fadvise(p->fd, 0, 0, POSIX_FADV_RANDOM);
    return 0;
}

int sl_src_open(struct sl_src **src, const char *const *paths, size_t n_paths,
                struct sl_error *err)
{
    char name[1200];
    struct sl_src *s;

    if (n_paths == 0)
        return sl_fail(err, SL_ERR_USAGE, "no file given to read from");
    snprintf(name, sizeof name, "%s", paths[0]);
    if (n_paths > 1)
        snprintf(name, sizeof name, "%s and %zu more parts", paths[0],
                 n_paths - 1);
    if (src_new(&s, name, err) != 0)
        return -1;
    s->parts = sl_zalloc_array(n_paths, sizeof *s->parts);
    if (s->parts == NULL) {
        sl_fail(err, SL_ERR_NOMEM, "%s: no memory to open it", name);
        goto fail;
    }
    for (; s->n_parts < n_paths; s->n_parts++)
        s->parts[s->n_parts].fd = -1;
    for (size_t i = 0; i < n_paths; i++) {
        struct part *p = &s->parts[i];

        p->begin = s->bytes;
        if (open_part(p, paths[i], err) != 0)
            goto fail;
        if (__builtin_add_overflow(s->bytes, p->bytes, &s->bytes)) {
            sl_fail(err, SL_ERR_CORRUPT, "%s: sizes overflow", name);
            goto fail;
        }
    }
    *src = s;
    return 0;
fail:
    sl_src_close(s);
    return -1;
}

int sl_src_open_memory(struct sl_src **src, const void *data, size_t n,
                       const char *name, struct sl_error *err)
{
    struct sl_src *s;

    if (src_new(&s, name, err) != 0)
        return -1;
    s->mem = data;
    s->bytes = n;
    *src = s;
    return 0;
}

int sl_src_slice(struct sl_src **src, struct sl_src *parent, uint64_t off,
                 uint64_t bytes, const char *name, struct sl_error *err)
{
    struct sl_src *s;

    if (off > parent->bytes || bytes > parent->bytes - off)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "%s: should be %" PRIu64 " bytes at offset %" PRIu64
                       " of %s, which ends at %" PRIu64,
                       name, bytes, off, parent->name, parent->bytes);
    if (src_new(&s, name, err) != 0)
        return -1;
    s->parent = parent;
    s->parent_off = off;
    s->bytes = bytes;
    *src = s;
    return 0;
}

void sl_src_close(struct sl_src *src)
{
    if (src == NULL)
        return;
    for (size_t i = 0; i < src->n_parts; i++) {
        if (src->parts[i].fd >= 0)
            close(src->parts[i].fd);
        free(src->parts[i].path);
    }
    sl_sums_destroy(src->sums);
    free(src->parts);
    free(src->name);
    free(src);
}

uint64_t sl_src_bytes(const struct sl_src *src)
{
    return src->bytes;
}

const char *sl_src_name(const struct sl_src *src)
{
    return src->name;
}

/* The last part that begins at or before off. */
static const struct part *part_at(const struct sl_src *src, uint64_t off)
{
    size_t lo = 0, hi = src->n_parts;

    while (hi - lo > 1) {
        size_t mid = lo + (hi - lo) / 2;

        if (src->parts[mid].begin <= off)
            lo = mid;
        else
            hi = mid;
    }
    return &src->parts[lo];
}

struct sl_src_place sl_src_where(const struct sl_src *src, uint64_t off)
{
    const struct part *p;

    for (; src->parent != NULL; src = src->parent)
        off += src->parent_off;
    if (src->n_parts == 0)
        return (struct sl_src_place){src->name, off, src->bytes};
    p = part_at(src, off);
    return (struct sl_src_place){p->path, off - p->begin, p->bytes};
}

size_t sl_src_n_parts(const struct sl_src *src)
{
    return src->n_parts;
}

struct sl_src_place sl_src_part(const struct sl_src *src, size_t i)
{
    const struct part *p = &src->parts[i];

    return (struct sl_src_place){p->path, p->begin, p->bytes};
}

bool sl_src_is(const struct sl_src *src, const struct stat *st)
{
    struct stat in;

    for (; src->parent != NULL; src = src->parent)
        continue;
    for (size_t i = 0; i < src->n_parts; i++) {
        if (fstat(src->parts[i].fd, &in) == 0 && in.st_dev == st->st_dev &&
            in.st_ino == st->st_ino)
            return true;
    }
    return false;
}

static int read_part(const struct part *p, uint8_t *buf, uint64_t off, size_t n,
                     struct sl_error *err)
{
    uint64_t from = sl_round_down(off, SL_PAGE_BYTES);
    uint64_t to = sl_round_up(off + n, SL_PAGE_BYTES);

    for (size_t done = 0; done < n;) {
        ssize_t got = pread(p->fd, buf + done, n - done, (off_t)(off + done));

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return sl_fail_os(err, errno,
                              "%s: cannot read %zu bytes at offset %" PRIu64,
                              p->path, n - done, off + done);
        if (got == 0)
            return sl_fail(err, SL_ERR_IO,
                           "%s: ends at offset %" PRIu64 ", but had %" PRIu64
                           " bytes when it was opened",
                           p->path, off + done, p->bytes);
        done += (size_t)got;
    }
    /* Whole pages: the kernel keeps those a range covers only in part. */
    posix_fadvise(p->fd, (off_t)from, (off_t)(to - from), POSIX_FADV_DONTNEED);
    return 0;
}

static int read_bytes(struct sl_src *src, void *buf, uint64_t off, size_t n,
                      struct sl_error *err)
{
    const struct part *p;
    uint8_t *to = buf;

    if (off > src->bytes || n > src->bytes - off)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "%s: ends at %" PRIu64 " bytes, but %zu are wanted at "
                       "offset %" PRIu64,
                       src->name, src->bytes, n, off);
    for (; src->parent != NULL; src = src->parent)
        off += src->parent_off;
    if (n == 0)
        return 0;
    if (src->mem != NULL) {
        memcpy(buf, src->mem + off, n);
        return 0;
    }
    for (p = part_at(src, off); n > 0; p++) {
        uint64_t in_part = off - p->begin;
        size_t take = p->bytes - in_part < n ? (size_t)(p->bytes - in_part) : n;

        if (take > 0 && read_part(p, to, in_part, take, err) != 0)
            return -1;
        to += take;
        off += take;
        n -= take;
    }
    return 0;
}

int sl_src_read(struct sl_src *src, void *buf, uint64_t off, size_t n,
                struct sl_error *err)
{
    if (read_bytes(src, buf, off, n, err) != 0)
        return -1;
    for (; src != NULL; src = src->parent) {
        if (src->sums != NULL && n > 0 &&
            sl_sums_take(src->sums, buf, off, n, err) != 0)
            return -1;
        off += src->parent_off;
    }
    return 0;
}

void sl_src_set_sums(struct sl_src *src, struct sl_sums *sums)
{
    sl_sums_destroy(src->sums);
    src->sums = sums;
}

struct sl_sums *sl_src_sums(const struct sl_src *src)
{
    return src->sums;
}

int sl_src_read_gaps(struct sl_src *src, struct sl_error *err)
{
    uint64_t off, bytes;
    uint8_t *buf;
    int rc = 0;

    if (src->sums == NULL || !sl_sums_gap(src->sums, &off, &bytes))
        return 0;
    buf = sl_alloc_array(GAP_BYTES, 1);
    if (buf == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "%s: no memory to read it",
                       src->name);
    do
        rc = sl_src_read(src, buf, off,
                         bytes < GAP_BYTES ? (size_t)bytes : GAP_BYTES, err);
    while (rc == 0 && sl_sums_gap(src->sums, &off, &bytes));
    free(buf);
    return rc;
}
