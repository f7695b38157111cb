#include "config.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/bytes.h"
#include "src/base/mem.h"
#include "src/ckpt/ckpt_zip.h"

#define LOCAL_BYTES    30u
#define LOCAL_SIG      0x04034b50u
#define CENTRAL_BYTES  46u
#define CENTRAL_SIG    0x02014b50u
#define END_BYTES      22u
#define END_SIG        0x06054b50u
#define LOCATOR_BYTES  20u
#define LOCATOR_SIG    0x07064b50u
#define END64_BYTES    56u
#define END64_SIG      0x06064b50u
#define ZIP64_EXTRA    1u
#define COMMENT_MAX    65535u
#define DIR_MAX_BYTES  (64u << 20)
#define FLAG_ENCRYPTED 1u
#define NAME_SHOWN     100 /* bytes of a member's name in messages */
#define METHOD_STORED  0u
#define MISSING_U32    UINT32_MAX
#define MISSING_U16    UINT16_MAX

/* What the end records say of the central directory. */
struct dir_info {
    uint64_t n;
    uint64_t bytes;
    uint64_t off;
    uint64_t end; /* the first end record begins here */
};

/* Finds the end record: the last one whose comment reaches the end exactly. */
static int find_end(struct sl_src *src, uint8_t end[END_BYTES], uint64_t *at,
                    struct sl_error *err)
{
    uint64_t size = sl_src_bytes(src);
    size_t n =
        size < END_BYTES + COMMENT_MAX ? (size_t)size : END_BYTES + COMMENT_MAX;
    uint8_t *tail;
    int rc = -1;

    tail = sl_alloc_array(n, 1);
    if (tail == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "%s: no memory to read it",
                       sl_src_name(src));
    if (sl_src_read(src, tail, size - n, n, err) != 0)
        goto out;
    for (size_t i = n < END_BYTES ? 0 : n - END_BYTES + 1; i-- > 0;) {
        if (sl_load_u32(tail + i) != END_SIG ||
            sl_load_u16(tail + i + 20) != n - i - END_BYTES)
            continue;
        memcpy(end, tail + i, END_BYTES);
        *at = size - n + i;
        rc = 0;
        goto out;
    }
    sl_fail(err, SL_ERR_CORRUPT,
            "%s: %" PRIu64 " bytes without a zip's end record: the file is cut "
            "short or damaged",
            sl_src_name(src), size);
out:
    free(tail);
    return rc;
}

/* Replaces what the plain end record cannot say by the zip64 one's. */
static int read_end64(struct sl_src *src, struct dir_info *d,
                      struct sl_error *err)
{
    uint8_t loc[LOCATOR_BYTES], e[END64_BYTES];
    uint64_t at;

    if (d->end < LOCATOR_BYTES)
        return 0;
    if (sl_src_read(src, loc, d->end - LOCATOR_BYTES, sizeof loc, err) != 0)
        return -1;
    if (sl_load_u32(loc) != LOCATOR_SIG)
        return 0;
    at = sl_load_u64(loc + 8);
    if (at > d->end - LOCATOR_BYTES ||
        d->end - LOCATOR_BYTES - at < END64_BYTES)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "%s: zip64 end record at %" PRIu64
                       ", but its locator lies at %" PRIu64,
                       sl_src_name(src), at, d->end - LOCATOR_BYTES);
    if (sl_src_read(src, e, at, sizeof e, err) != 0)
        return -1;
    if (sl_load_u32(e) != END64_SIG)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "%s: no zip64 end record at offset %" PRIu64,
                       sl_src_name(src), at);
    if (sl_load_u32(e + 16) != 0 || sl_load_u32(e + 20) != 0)
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "%s: a zip spread over several disks", sl_src_name(src));
    d->n = sl_load_u64(e + 32);
    d->bytes = sl_load_u64(e + 40);
    d->off = sl_load_u64(e + 48);
    d->end = at;
    return 0;
}

static int find_dir(struct sl_src *src, struct dir_info *d,
                    struct sl_error *err)
{
    uint8_t end[END_BYTES] = {0};

    if (find_end(src, end, &d->end, err) != 0)
        return -1;
    if ((sl_load_u16(end + 4) != 0 && sl_load_u16(end + 4) != MISSING_U16) ||
        (sl_load_u16(end + 6) != 0 && sl_load_u16(end + 6) != MISSING_U16))
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "%s: a zip spread over several disks", sl_src_name(src));
    d->n = sl_load_u16(end + 10);
    d->bytes = sl_load_u32(end + 12);
    d->off = sl_load_u32(end + 16);
    if (read_end64(src, d, err) != 0)
        return -1;
    if (d->off > d->end || d->bytes > d->end - d->off ||
        d->n > d->bytes / CENTRAL_BYTES)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "%s: zip directory of %" PRIu64 " members in %" PRIu64
                       " bytes at offset %" PRIu64
                       ", but its end record lies at %" PRIu64,
                       sl_src_name(src), d->n, d->bytes, d->off, d->end);
    if (d->bytes > DIR_MAX_BYTES)
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "%s: zip directory of %" PRIu64
                       " bytes; at most %u are read",
                       sl_src_name(src), d->bytes, DIR_MAX_BYTES);
    return 0;
}

/* The zip64 extra field holds, in this order, those of size, packed size and
 * offset that the record itself leaves at 0xffffffff. */
static bool read_extra64(const uint8_t *extra, size_t n, uint64_t *values[3])
{
    for (size_t at = 0; n - at >= 4;) {
        size_t len = sl_load_u16(extra + at + 2);
        const uint8_t *from = extra + at + 4;

        if (len > n - at - 4)
            return false;
        if (sl_load_u16(extra + at) != ZIP64_EXTRA) {
            at += 4 + len;
            continue;
        }
        for (unsigned i = 0; i < 3; i++) {
            if (*values[i] != MISSING_U32)
                continue;
            if (len < 8)
                return false;
            *values[i] = sl_load_u64(from);
            from += 8;
            len -= 8;
        }
        return true;
    }
    return true;
}

/* One central record at rec; *used = its length. */
static int read_member(struct sl_zip *z, struct sl_zip_member *m,
                       const uint8_t *rec, size_t left, size_t *used,
                       struct sl_error *err)
{
    uint64_t packed, *values[3] = {&m->bytes, &packed, &m->header};
    size_t n_extra, n_comment;

    if (left < CENTRAL_BYTES || sl_load_u32(rec) != CENTRAL_SIG)
        goto bad;
    m->name = (const char *)rec + CENTRAL_BYTES;
    m->n_name = sl_load_u16(rec + 28);
    n_extra = sl_load_u16(rec + 30);
    n_comment = sl_load_u16(rec + 32);
    *used = CENTRAL_BYTES + m->n_name + n_extra + n_comment;
    if (*used > left)
        goto bad;
    for (size_t i = 0; i < m->n_name; i++)
        if ((uint8_t)m->name[i] < ' ' || m->name[i] == 0x7f)
            goto bad;
    m->flags = sl_load_u16(rec + 8);
    m->method = sl_load_u16(rec + 10);
    m->crc = sl_load_u32(rec + 16);
    packed = sl_load_u32(rec + 20);
    m->bytes = sl_load_u32(rec + 24);
    m->header = sl_load_u32(rec + 42);
    if (!read_extra64(rec + CENTRAL_BYTES + m->n_name, n_extra, values))
        goto bad;
    if (m->method == METHOD_STORED && packed != m->bytes)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "%s: member %.*s is stored, but %" PRIu64
                       " bytes have become %" PRIu64,
                       sl_src_name(z->src),
                       (int)(m->n_name < NAME_SHOWN ? m->n_name : NAME_SHOWN),
                       m->name, m->bytes, packed);
    return 0;
bad:
    return sl_fail(err, SL_ERR_CORRUPT,
                   "%s: bad record in the zip directory at offset %" PRIu64,
                   sl_src_name(z->src), z->dir_off + (uint64_t)(rec - z->dir));
}

static int compare_names(const char *a, size_t n_a, const char *b, size_t n_b)
{
    int c = memcmp(a, b, n_a < n_b ? n_a : n_b);

    return c != 0 ? c : (n_a > n_b) - (n_a < n_b);
}

static int compare_members(const void *va, const void *vb)
{
    const struct sl_zip_member *a = va, *b = vb;

    return compare_names(a->name, a->n_name, b->name, b->n_name);
}

int sl_zip_open(struct sl_zip *z, struct sl_src *src, struct sl_error *err)
{
    struct sl_zip made = {.src = src};
    struct dir_info d = {0};
    size_t at = 0, used = 0;

    if (find_dir(src, &d, err) != 0)
        return -1;
    made.dir_off = d.off;
    made.n_members = (size_t)d.n;
    made.dir = sl_alloc_array((size_t)d.bytes, 1);
    made.members = sl_zalloc_array(made.n_members, sizeof *made.members);
    if (made.dir == NULL || made.members == NULL) {
        sl_fail(err, SL_ERR_NOMEM, "%s: no memory for its directory",
                sl_src_name(src));
        goto fail;
    }
    if (sl_src_read(src, made.dir, d.off, (size_t)d.bytes, err) != 0)
        goto fail;
    for (size_t i = 0; i < made.n_members; i++, at += used)
        if (read_member(&made, &made.members[i], made.dir + at,
                        (size_t)d.bytes - at, &used, err) != 0)
            goto fail;
    qsort(made.members, made.n_members, sizeof *made.members, compare_members);
    *z = made;
    return 0;
fail:
    sl_zip_close(&made);
    return -1;
}

void sl_zip_close(struct sl_zip *z)
{
    free(z->members);
    free(z->dir);
    memset(z, 0, sizeof *z);
}

const struct sl_zip_member *sl_zip_find(const struct sl_zip *z,
                                        const char *name, size_t n_name)
{
    struct sl_zip_member key = {.name = name, .n_name = n_name};

    return bsearch(&key, z->members, z->n_members, sizeof key, compare_members);
}

int sl_zip_data(const struct sl_zip *z, const struct sl_zip_member *m,
                uint64_t *off, struct sl_error *err)
{
    const char *file = sl_src_name(z->src);
    int shown = (int)(m->n_name < NAME_SHOWN ? m->n_name : NAME_SHOWN);
    uint8_t h[LOCAL_BYTES];
    uint64_t at;

    if (m->method != METHOD_STORED || m->flags & FLAG_ENCRYPTED)
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "%s: member %.*s is compressed or encrypted (method %u, "
                       "flags 0x%04x); torch.save only stores",
                       file, shown, m->name, m->method, m->flags);
    if (m->header > z->dir_off || z->dir_off - m->header < LOCAL_BYTES)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "%s: member %.*s at offset %" PRIu64
                       ", but the zip directory begins at %" PRIu64,
                       file, shown, m->name, m->header, z->dir_off);
    if (sl_src_read(z->src, h, m->header, sizeof h, err) != 0)
        return -1;
    if (sl_load_u32(h) != LOCAL_SIG || sl_load_u16(h + 26) != m->n_name)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "%s: no header of member %.*s at offset %" PRIu64, file,
                       shown, m->name, m->header);
    at = m->header + LOCAL_BYTES + m->n_name + sl_load_u16(h + 28);
    if (at > z->dir_off || m->bytes > z->dir_off - at)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "%s: member %.*s is %" PRIu64 " bytes at offset %" PRIu64
                       ", but the zip directory begins at %" PRIu64,
                       file, shown, m->name, m->bytes, at, z->dir_off);
    *off = at;
    return 0;
}
