#include "config.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/mem.h"
#include "src/ckpt/ckpt_tar.h"

#define BLOCK          512u
#define MAX_MEMBERS    (1u << 20)
#define MAX_NAME       (64u << 10) /* bytes of an 'L' or 'x' header's data */
#define NAME_AT        0u
#define NAME_BYTES     100u
#define SIZE_AT        124u
#define SIZE_BYTES     12u
#define CHECKSUM_AT    148u
#define CHECKSUM_BYTES 8u
#define TYPE_AT        156u
#define MAGIC_AT       257u
#define PREFIX_AT      345u
#define PREFIX_BYTES   155u

/* Going through an archive; name and size override the next header's. */
struct walk {
    struct sl_tar *tar;
    struct sl_src *src;
    size_t cap;
    uint64_t off;
    char *name;
    bool has_size;
    uint64_t size;
    struct sl_error *err;
};

static const char *last_name(const struct walk *w)
{
    size_t n = w->tar->n_members;

    return n > 0 ? w->tar->members[n - 1].name : "the beginning";
}

/* Octal digits, or with the top bit set a number in base 256. */
static bool parse_number(uint64_t *v, const uint8_t *field, size_t n)
{
    uint64_t r = 0;
    size_t i = 0;

    if (field[0] & 0x80) {
        r = field[0] & 0x7f;
        for (i = 1; i < n; i++) {
            if (r >> 55)
                return false; /* negative, or beyond 63 bits */
            r = r << 8 | field[i];
        }
        *v = r;
        return true;
    }
    while (i < n && field[i] == ' ')
        i++;
    for (; i < n && field[i] != ' ' && field[i] != '\0'; i++) {
        if (field[i] < '0' || field[i] > '7')
            return false;
        r = r << 3 | (uint64_t)(field[i] - '0');
    }
    *v = r;
    return true;
}

/* The sum of all bytes, the checksum's own counted as blanks. */
static bool checksum_ok(const uint8_t h[BLOCK])
{
    uint64_t want, sum = 0;

    for (size_t i = 0; i < BLOCK; i++)
        sum += i - CHECKSUM_AT < CHECKSUM_BYTES ? ' ' : h[i];
    return parse_number(&want, h + CHECKSUM_AT, CHECKSUM_BYTES) && want == sum;
}

static bool is_zero(const uint8_t h[BLOCK])
{
    for (size_t i = 0; i < BLOCK; i++)
        if (h[i] != 0)
            return false;
    return true;
}

/* Where the archive should go on, but does not. */
static int fail_header(const struct walk *w)
{
    struct sl_src_place at = sl_src_where(w->src, w->off);

    return sl_fail(w->err, SL_ERR_CORRUPT,
                   "%s: no tar header at offset %" PRIu64
                   ", where the archive should go on after %s%s",
                   at.file, at.off, last_name(w),
                   w->off > 0 ? ": this part or one before it is missing, cut "
                                "short or damaged"
                              : ": not a tar archive, or its first part is "
                                "missing");
}

static int fail_end(const struct walk *w, const char *name, uint64_t bytes)
{
    uint64_t end = sl_src_bytes(w->src);
    struct sl_src_place at = sl_src_where(w->src, end);

    return sl_fail(w->err, SL_ERR_CORRUPT,
                   "%s: %.200s is %" PRIu64 " bytes at offset %" PRIu64
                   " of the archive, which ends at %" PRIu64
                   " with this file of %" PRIu64
                   " bytes: it is cut short, or parts after it are missing",
                   at.file, name, bytes, w->off, end, at.bytes);
}

/* The data of an 'L' or 'x' header, zero-terminated; free it. */
static char *read_text(struct walk *w, uint64_t n)
{
    char *text;

    if (n > MAX_NAME) {
        sl_fail(w->err, SL_ERR_CORRUPT,
                "%s: a name of %" PRIu64 " bytes after %s; at most %u are read",
                sl_src_where(w->src, w->off).file, n, last_name(w), MAX_NAME);
        return NULL;
    }
    text = sl_zalloc_array((size_t)n + 1, 1);
    if (text == NULL) {
        sl_fail(w->err, SL_ERR_NOMEM, "%s: no memory for its members",
                sl_src_name(w->src));
        return NULL;
    }
    if (sl_src_read(w->src, text, w->off, (size_t)n, w->err) != 0) {
        free(text);
        return NULL;
    }
    return text;
}

static int set_name(struct walk *w, const char *name, size_t n)
{
    free(w->name);
    w->name = strndup(name, n);
    if (w->name == NULL)
        return sl_fail(w->err, SL_ERR_NOMEM, "%s: no memory for its members",
                       sl_src_name(w->src));
    for (const char *c = w->name; *c != '\0'; c++)
        if ((uint8_t)*c < ' ' || *c == 0x7f)
            return fail_header(w);
    return 0;
}

static bool key_is(const char *key, size_t n, const char *want)
{
    return n == strlen(want) && memcmp(key, want, n) == 0;
}

/* One value of a pax header. */
static int pax_value(struct walk *w, const char *key, size_t n_key,
                     const char *value, size_t n)
{
    if (key_is(key, n_key, "path"))
        return set_name(w, value, n);
    if (n_key >= 11 && memcmp(key, "GNU.sparse.", 11) == 0)
        return sl_fail(w->err, SL_ERR_UNSUPPORTED,
                       "%s: the member after %s is sparse",
                       sl_src_where(w->src, w->off).file, last_name(w));
    if (!key_is(key, n_key, "size"))
        return 0;
    w->size = 0;
    w->has_size = true;
    for (size_t i = 0; i < n; i++)
        if (value[i] < '0' || value[i] > '9' ||
            __builtin_mul_overflow(w->size, 10, &w->size) ||
            __builtin_add_overflow(w->size, value[i] - '0', &w->size))
            return fail_header(w);
    return 0;
}

/* Records "LENGTH KEY=VALUE\n", the length counting all of itself. */
static int parse_pax(struct walk *w, const char *text, size_t n)
{
    while (n > 0) {
        size_t len = 0, i = 0;
        const char *key, *eq;

        for (; i < n && text[i] >= '0' && text[i] <= '9' && len <= n; i++)
            len = len * 10 + (size_t)(text[i] - '0');
        if (i == 0 || i >= n || text[i] != ' ' || len > n || len < i + 2 ||
            text[len - 1] != '\n')
            return fail_header(w);
        key = text + i + 1;
        eq = memchr(key, '=', len - i - 2);
        if (eq == NULL)
            return fail_header(w);
        if (pax_value(w, key, (size_t)(eq - key), eq + 1,
                      (size_t)(text + len - 1 - (eq + 1))) != 0)
            return -1;
        text += len;
        n -= len;
    }
    return 0;
}

/* The name in the header itself; ustar has its beginning in another field. */
static int header_name(struct walk *w, const uint8_t h[BLOCK])
{
    char name[PREFIX_BYTES + 1 + NAME_BYTES + 1] = "";
    const char *prefix = (const char *)h + PREFIX_AT;
    const char *own = (const char *)h + NAME_AT;
    size_t n = 0;

    if (memcmp(h + MAGIC_AT,
               "ustar\0"
               "00",
               8) == 0 &&
        *prefix != '\0') {
        n = strnlen(prefix, PREFIX_BYTES);
        memcpy(name, prefix, n);
        name[n++] = '/';
    }
    memcpy(name + n, own, strnlen(own, NAME_BYTES));
    return set_name(w, name, sizeof name - 1);
}

/* A regular file of w->name at w->off. */
static int add_member(struct walk *w, uint64_t bytes)
{
    struct sl_tar *tar = w->tar;
    const char *name = w->name;

    if (tar->n_members == MAX_MEMBERS)
        return sl_fail(w->err, SL_ERR_UNSUPPORTED, "%s: more than %u members",
                       sl_src_name(w->src), MAX_MEMBERS);
    if (tar->n_members == w->cap) {
        size_t cap = w->cap ? w->cap * 2 : 16;
        void *grown = realloc(tar->members, cap * sizeof *tar->members);

        if (grown == NULL)
            return sl_fail(w->err, SL_ERR_NOMEM,
                           "%s: no memory for %zu members", sl_src_name(w->src),
                           cap);
        tar->members = grown;
        w->cap = cap;
    }
    while (name[0] == '.' && name[1] == '/')
        name += 2;
    memmove(w->name, name, strlen(name) + 1);
    tar->members[tar->n_members++] =
        (struct sl_tar_member){w->name, w->off, bytes};
    w->name = NULL;
    return 0;
}

/* An 'L' or 'x' header: about the next one. */
static int read_about_next(struct walk *w, uint64_t bytes, char type)
{
    char *text = read_text(w, bytes);
    int rc;

    if (text == NULL)
        return -1;
    rc = type == 'L' ? set_name(w, text, (size_t)bytes)
                     : parse_pax(w, text, (size_t)bytes);
    free(text);
    return rc;
}

/* What the header h says, w->off being just behind it. */
static int read_entry(struct walk *w, const uint8_t h[BLOCK], uint64_t bytes)
{
    char type = (char)h[TYPE_AT];
    int rc = 0;

    if (type == 'L' || type == 'x')
        return read_about_next(w, bytes, type);
    if (type == 'g' || type == 'K')
        return 0;
    if (type == 'S')
        return sl_fail(w->err, SL_ERR_UNSUPPORTED, "%s: %s is sparse",
                       sl_src_where(w->src, w->off).file, w->name);
    if (type == '0' || type == '\0' || type == '7')
        rc = add_member(w, bytes);
    free(w->name);
    w->name = NULL;
    w->has_size = false;
    return rc;
}

/* One header and what follows it. Returns 1 at the archive's end. */
static int step(struct walk *w)
{
    uint64_t end = sl_src_bytes(w->src), bytes = 0;
    uint8_t h[BLOCK];
    bool meta;
    char type;

    if (end - w->off < BLOCK)
        return fail_end(w, "the next header", BLOCK);
    if (sl_src_read(w->src, h, w->off, BLOCK, w->err) != 0)
        return -1;
    if (is_zero(h))
        return w->off > 0 ? 1 : fail_header(w);
    if (!checksum_ok(h) || !parse_number(&bytes, h + SIZE_AT, SIZE_BYTES))
        return fail_header(w);
    w->off += BLOCK;
    type = (char)h[TYPE_AT];
    meta = type == 'L' || type == 'x' || type == 'K' || type == 'g';
    if (!meta && w->has_size)
        bytes = w->size;
    if (!meta && w->name == NULL && header_name(w, h) != 0)
        return -1;
    if (type >= '1' && type <= '6')
        bytes = 0; /* links, devices and folders have no data */
    if (bytes > end - w->off)
        return fail_end(w, w->name ? w->name : "a member's long name", bytes);
    if (read_entry(w, h, bytes) != 0)
        return -1;
    w->off += bytes;
    w->off += end - w->off < BLOCK - 1 ? 0 : (BLOCK - bytes % BLOCK) % BLOCK;
    return 0;
}

int sl_tar_open(struct sl_tar *tar, struct sl_src *src, struct sl_error *err)
{
    struct sl_tar made = {.src = src};
    struct walk w = {.tar = &made, .src = src, .err = err};
    int rc;

    do
        rc = step(&w);
    while (rc == 0);
    free(w.name);
    if (rc < 0) {
        sl_tar_close(&made);
        return -1;
    }
    *tar = made;
    return 0;
}

void sl_tar_close(struct sl_tar *tar)
{
    for (size_t i = 0; i < tar->n_members; i++)
        free(tar->members[i].name);
    free(tar->members);
    memset(tar, 0, sizeof *tar);
}

const struct sl_tar_member *sl_tar_find(const struct sl_tar *tar,
                                        const char *name)
{
    for (size_t i = tar->n_members; i-- > 0;)
        if (strcmp(tar->members[i].name, name) == 0)
            return &tar->members[i];
    return NULL;
}
