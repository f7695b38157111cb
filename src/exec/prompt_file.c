#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <xxhash.h>

#include "src/base/bytes.h"
#include "src/base/lz.h"
#include "src/base/mem.h"
#include "src/base/newfile.h"
#include "src/exec/prompt_file.h"

#define MAGIC "SLPROMPT"

/* The key's fixed part; ids, positions, blocks and its checksum follow.
 *    0  magic                     8  u32 version    12  u32 kind of cache
 *   16  u64 model's checksum     24  u64 its bytes
 *   32  u32 layers, heads, values a head, vocabulary
 *   48  u32 ids, context, rows of logits, flags
 *   64  program's version, 16    80  kernels, 16    96  u64 engines
 *  104  u64 checksum of prefix and adapters
 *  112  u64 checksum of what the sequence holds before, 120 u32 its ids */
enum {
    FILE_VERSION = 4,
    FIXED_BYTES = 124,
    FLAG_INT8 = 1,   /* activations */
    FLAG_BLOCKS = 2, /* second positions */
    FLAG_BF16 = 4,   /* activations */
};

/* Before each block: u32 bytes, u32 bytes kept, u64 XXH3-64 of the bytes. */
enum { BLOCK_HEADER = 16 };

struct sl_prompt_file {
    struct sl_prompt_file_config c;
    size_t block_bytes;  /* the most of one */
    uint64_t before_sum; /* of what the sequence holds before the item */
    uint32_t n_before;
    struct sl_region buffers;
    uint8_t *key, *found;           /* (key room) */
    uint8_t *raw, *packed, *planed; /* one block: as it is, kept, by planes */
    size_t key_bytes;
};

static uint64_t key_room(uint32_t max_tokens)
{
    return FIXED_BYTES + 12ull * max_tokens + 8;
}

static void carve_all(struct sl_prompt_file *f, struct sl_carver *c,
                      const struct sl_kv_config *kv)
{
    /* Layers that lie elsewhere are FP16; they may yet be chosen. */
    size_t here = (size_t)sl_kv_plane_bytes(kv, kv->kind);
    size_t there = (size_t)sl_kv_plane_bytes(kv, SL_KV_F16);
    size_t block = here > there ? here : there;

    f->key = sl_carve(c, 1, key_room(kv->max_tokens));
    f->found = sl_carve(c, 1, key_room(kv->max_tokens));
    f->raw = sl_carve(c, 1, block);
    f->packed = sl_carve(c, 1, sl_lz_bound(block));
    f->planed = sl_carve(c, 1, block);
    f->block_bytes = block;
}

uint64_t sl_prompt_file_bytes(const struct sl_kv_config *kv)
{
    struct sl_carver counter = {NULL, 0};
    struct sl_prompt_file f;

    carve_all(&f, &counter, kv);
    /* LZ4's tables and the buffer of a stream are on stack and heap. */
    return counter.used + sizeof f + (64u << 10);
}

int sl_prompt_file_create(struct sl_prompt_file **out,
                          const struct sl_prompt_file_config *config,
                          struct sl_error *err)
{
    struct sl_carver counter = {NULL, 0}, carver = {NULL, 0};
    struct sl_prompt_file *f = calloc(1, sizeof *f);

    if (f == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "prompt cache: no memory");
    f->c = *config;
    carve_all(f, &counter, config->kv_config);
    if (sl_region_init(&f->buffers, counter.used, "the prompt cache", err) !=
        0) {
        sl_prompt_file_destroy(f);
        return -1;
    }
    carver.base = f->buffers.base;
    carve_all(f, &carver, config->kv_config);
    *out = f;
    return 0;
}

void sl_prompt_file_destroy(struct sl_prompt_file *f)
{
    if (f == NULL)
        return;
    sl_region_fini(&f->buffers);
    free(f);
}

/* --- the key ---------------------------------------------------------------
 */

static uint8_t *put_ids(uint8_t *to, const int32_t *ids, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++, to += 4)
        sl_store_u32(to, (uint32_t)ids[i]);
    return to;
}

/* Whatever changes one bit of what would be computed is in it: model, ids,
 * positions, kernels, formats, engines, and this program's version. */
static void make_key(struct sl_prompt_file *f, const struct sl_lm_item *item)
{
    const struct sl_kv_config *kv = f->c.kv_config;
    const uint32_t numbers[] = {
        kv->n_layers,
        kv->n_heads,
        kv->head_dim,
        f->c.vocab,
        item->n,
        item->n_context,
        item->n_logits,
        (f->c.act == SL_ACT_INT8 ? FLAG_INT8 : 0u) |
            (f->c.act == SL_ACT_BF16 ? FLAG_BF16 : 0u) |
            (item->blocks != NULL ? FLAG_BLOCKS : 0u),
    };
    uint8_t *k = f->key, *end;

    memset(k, 0, FIXED_BYTES);
    memcpy(k, MAGIC, 8);
    sl_store_u32(k + 8, FILE_VERSION);
    sl_store_u32(k + 12, (uint32_t)kv->kind);
    sl_store_u64(k + 16, f->c.model_sum);
    sl_store_u64(k + 24, f->c.model_bytes);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        sl_store_u32(k + 32 + 4 * i, numbers[i]);
    snprintf((char *)k + 64, 16, "%s", PACKAGE_VERSION);
    snprintf((char *)k + 80, 16, "%s", f->c.isa);
    sl_store_u64(k + 96, f->c.engines);
    sl_store_u64(k + 104, f->c.more_sum);
    sl_store_u64(k + 112, f->before_sum);
    sl_store_u32(k + 120, f->n_before);
    end = put_ids(k + FIXED_BYTES, item->ids, item->n);
    end = put_ids(end, item->positions, item->n);
    if (item->blocks != NULL)
        end = put_ids(end, item->blocks, item->n);
    sl_store_u64(end, XXH3_64bits(k, (size_t)(end - k)));
    f->key_bytes = (size_t)(end - k) + 8;
}

void sl_prompt_file_after(struct sl_prompt_file *f, uint32_t n, uint64_t sum)
{
    f->n_before = n;
    f->before_sum = sum;
}

uint64_t sl_prompt_file_sum(struct sl_prompt_file *f,
                            const struct sl_lm_item *item)
{
    make_key(f, item);
    return sl_load_u64(f->key + f->key_bytes - 8);
}

static const char *kind_of(mode_t mode)
{
    if (S_ISREG(mode))
        return "another kind of file";
    if (S_ISDIR(mode))
        return "a folder";
    return S_ISFIFO(mode) ? "a pipe" : "a device";
}

static enum sl_prompt_found foreign(const struct sl_prompt_file *f, mode_t mode,
                                    struct sl_error *why)
{
    sl_fail(why, SL_ERR_UNSUPPORTED, "%s: no prompt cache but %s", f->c.path,
            kind_of(mode));
    return SL_PROMPT_FOREIGN;
}

static enum sl_prompt_found unreadable(const struct sl_prompt_file *f,
                                       int os_errno, struct sl_error *why)
{
    sl_fail_os(why, os_errno, "%s: cannot be read", f->c.path);
    return SL_PROMPT_FOREIGN;
}

enum sl_prompt_found sl_prompt_file_find(struct sl_prompt_file *f,
                                         const struct sl_lm_item *item,
                                         struct sl_error *why)
{
    int fd = open(f->c.path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    int os_errno = 0;
    struct stat st;
    ssize_t n = 0;

    if (fd < 0)
        return errno == ENOENT ? SL_PROMPT_NONE : unreadable(f, errno, why);
    make_key(f, item);
    if (fstat(fd, &st) != 0)
        os_errno = errno;
    else if (S_ISREG(st.st_mode) &&
             (n = pread(fd, f->found, f->key_bytes, 0)) < 0)
        os_errno = errno;
    close(fd);
    if (os_errno != 0)
        return unreadable(f, os_errno, why);
    if (!S_ISREG(st.st_mode))
        return foreign(f, st.st_mode, why);
    if (n == 0)
        return SL_PROMPT_OTHER; /* as mktemp leaves it: nobody's */
    if (n < 8 || memcmp(f->found, MAGIC, 8) != 0)
        return foreign(f, st.st_mode, why);
    return (size_t)n == f->key_bytes && memcmp(f->found, f->key, (size_t)n) == 0
               ? SL_PROMPT_SAME
               : SL_PROMPT_OTHER;
}

/* --- blocks ----------------------------------------------------------------
 */

/* A file being read or written, for messages too. */
struct stream {
    struct sl_prompt_file *f;
    FILE *file;
    const char *path;
    uint64_t at;
};

static int write_bytes(struct stream *s, const void *data, size_t n,
                       struct sl_error *err)
{
    errno = 0;
    if (fwrite(data, 1, n, s->file) != n)
        return sl_fail_os(err, errno ? errno : EIO,
                          "%s: cannot write %zu bytes at %llu", s->f->c.path, n,
                          (unsigned long long)s->at);
    s->at += n;
    return 0;
}

/* Each block has a checksum of its own, of what it stands for: damage is found
 * before anything of it is used. */
static int write_block(struct stream *s, const void *data, size_t n,
                       unsigned planes, struct sl_error *err)
{
    struct sl_prompt_file *f = s->f;
    size_t kept = sl_lz_encode(f->packed, data, n, planes, f->planed);
    uint8_t head[BLOCK_HEADER];

    sl_store_u32(head, (uint32_t)n);
    sl_store_u32(head + 4, (uint32_t)(kept ? kept : n));
    sl_store_u64(head + 8, XXH3_64bits(data, n));
    if (write_bytes(s, head, sizeof head, err) != 0)
        return -1;
    return write_bytes(s, kept ? f->packed : data, kept ? kept : n, err);
}

static int read_bytes(struct stream *s, void *data, size_t n,
                      struct sl_error *err)
{
    errno = 0;
    if (fread(data, 1, n, s->file) == n) {
        s->at += n;
        return 0;
    }
    if (ferror(s->file))
        return sl_fail_os(err, errno ? errno : EIO,
                          "%s: cannot read %zu bytes at %llu", s->path, n,
                          (unsigned long long)s->at);
    return sl_fail(err, SL_ERR_CORRUPT,
                   "%s: ends within the %zu bytes at %llu: cut short", s->path,
                   n, (unsigned long long)s->at);
}

/* n bytes to f->raw. */
static int read_block(struct stream *s, size_t n, unsigned planes,
                      struct sl_error *err)
{
    struct sl_prompt_file *f = s->f;
    uint64_t at = s->at;
    uint8_t head[BLOCK_HEADER];
    uint32_t bytes, kept;
    bool good;

    if (read_bytes(s, head, sizeof head, err) != 0)
        return -1;
    bytes = sl_load_u32(head);
    kept = sl_load_u32(head + 4);
    if (bytes != n || kept == 0 || kept > n)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "%s: the block at %llu has %u bytes kept as %u, not %zu",
                       s->path, (unsigned long long)at, bytes, kept, n);
    if (read_bytes(s, kept < n ? f->packed : f->raw, kept, err) != 0)
        return -1;
    good = kept == n ||
           sl_lz_decode(f->raw, n, f->packed, kept, planes, f->planed);
    if (!good || XXH3_64bits(f->raw, n) != sl_load_u64(head + 8))
        return sl_fail(err, SL_ERR_CORRUPT,
                       "%s: the block of %zu bytes at %llu is damaged", s->path,
                       n, (unsigned long long)at);
    return 0;
}

/* A plane of a layer's keys or values: its bytes, and those of a value. */
static size_t plane_of(const struct sl_prompt_file *f, uint32_t layer,
                       unsigned *value_bytes)
{
    enum sl_kv_kind kind = sl_kv_layer_kind(f->c.kv_config, layer);

    *value_bytes = kind == SL_KV_F32 ? 4 : kind == SL_KV_F16 ? 2 : 1;
    return (size_t)sl_kv_plane_bytes(f->c.kv_config, kind);
}

/* --- load ------------------------------------------------------------------
 */

/* In blocks as long as those of the cache, which the buffers are made for. */
static int load_logits(struct stream *s, const struct sl_lm_item *item,
                       float *logits, struct sl_error *err)
{
    uint64_t left = (uint64_t)item->n_logits * s->f->c.vocab * sizeof *logits;
    uint8_t *to = (uint8_t *)logits;

    while (left > 0) {
        size_t n = left < s->f->block_bytes ? (size_t)left : s->f->block_bytes;

        if (read_block(s, n, sizeof *logits, err) != 0)
            return -1;
        memcpy(to, s->f->raw, n);
        to += n;
        left -= n;
    }
    return 0;
}

/* Pages before it hold nothing but what all sequences begin with, and what the
 * item's held before. */
static uint32_t first_page(const struct sl_prompt_file *f)
{
    return (sl_kv_n_begin(f->c.kv) + f->n_before) / SL_KV_PAGE_LEN;
}

/* What is behind the item is not its own. */
static uint32_t end_of(const struct sl_prompt_file *f,
                       const struct sl_lm_item *item)
{
    return sl_kv_n_begin(f->c.kv) + f->n_before + item->n;
}

/* In the order in which they are written, so that the file is read from front
 * to back. */
static int load_pages(struct stream *s, uint32_t seq, struct sl_error *err)
{
    struct sl_prompt_file *f = s->f;
    unsigned value_bytes;
    uint32_t n_pages;
    const uint32_t *pages = sl_kv_pages(f->c.kv, seq, &n_pages);

    for (uint32_t p = first_page(f); p < n_pages; p++) {
        for (uint32_t l = 0; l < f->c.kv_config->n_layers; l++) {
            for (unsigned value = 0; value < 2; value++) {
                size_t bytes = plane_of(f, l, &value_bytes);

                if (read_block(s, bytes, value_bytes, err) != 0 ||
                    sl_kv_plane_put(f->c.kv, l, pages[p], value, f->raw, err) !=
                        0)
                    return -1;
            }
        }
    }
    return 0;
}

int sl_prompt_file_load(struct sl_prompt_file *f, const struct sl_lm_item *item,
                        float *logits, uint64_t *bytes, struct sl_error *err)
{
    struct stream s = {.f = f, .path = f->c.path};
    int rc;

    make_key(f, item);
    if (sl_kv_extend(f->c.kv, item->seq, item->n, err) != 0)
        return -1;
    s.file = fopen(f->c.path, "rbe");
    if (s.file == NULL) {
        rc = sl_fail_os(err, errno, "%s: cannot open", f->c.path);
        goto out;
    }
    rc = read_bytes(&s, f->found, f->key_bytes, err);
    if (rc == 0 && memcmp(f->found, f->key, f->key_bytes) != 0)
        rc = sl_fail(err, SL_ERR_CORRUPT, "%s: has changed meanwhile", s.path);
    if (rc == 0)
        rc = load_logits(&s, item, logits, err);
    if (rc == 0)
        rc = load_pages(&s, item->seq, err);
    if (rc == 0 && getc(s.file) != EOF)
        rc = sl_fail(err, SL_ERR_CORRUPT, "%s: goes on behind its end at %llu",
                     s.path, (unsigned long long)s.at);
    fclose(s.file);
out:
    if (rc != 0)
        sl_kv_seq_cut(f->c.kv, item->seq, sl_kv_n_begin(f->c.kv) + f->n_before);
    *bytes = s.at;
    return rc;
}

/* --- save ------------------------------------------------------------------
 */

static int save_logits(struct stream *s, const struct sl_lm_item *item,
                       const float *logits, struct sl_error *err)
{
    uint64_t left = (uint64_t)item->n_logits * s->f->c.vocab * sizeof *logits;
    const uint8_t *from = (const uint8_t *)logits;

    while (left > 0) {
        size_t n = left < s->f->block_bytes ? (size_t)left : s->f->block_bytes;

        if (write_block(s, from, n, sizeof *logits, err) != 0)
            return -1;
        from += n;
        left -= n;
    }
    return 0;
}

/* Pages of the prefix are left out: whoever reads the file begins with them
 * too. */
static int save_pages(struct stream *s, const struct sl_lm_item *item,
                      struct sl_error *err)
{
    struct sl_prompt_file *f = s->f;
    unsigned value_bytes;
    uint32_t n_pages, end = end_of(f, item);
    const uint32_t *pages = sl_kv_pages(f->c.kv, item->seq, &n_pages);

    for (uint32_t p = first_page(f); p * SL_KV_PAGE_LEN < end; p++) {
        uint32_t used = end - p * SL_KV_PAGE_LEN;

        for (uint32_t l = 0; l < f->c.kv_config->n_layers; l++) {
            for (unsigned value = 0; value < 2; value++) {
                size_t bytes = plane_of(f, l, &value_bytes);

                if (sl_kv_plane_get(f->c.kv, l, pages[p], value, used, f->raw,
                                    err) != 0 ||
                    write_block(s, f->raw, bytes, value_bytes, err) != 0)
                    return -1;
            }
        }
    }
    return 0;
}

/* The name appears only when everything is on the disk: a run that is killed
 * leaves the file that was there. */
static int save_all(struct stream *s, const struct sl_lm_item *item,
                    const float *logits, struct sl_error *err)
{
    if (write_bytes(s, s->f->key, s->f->key_bytes, err) != 0 ||
        save_logits(s, item, logits, err) != 0 || save_pages(s, item, err) != 0)
        return -1;
    if (fflush(s->file) != 0)
        return sl_fail_os(err, errno, "%s: cannot write to its end at %llu",
                          s->f->c.path, (unsigned long long)s->at);
    return sl_newfile_commit(fileno(s->file), s->path, s->f->c.path, err);
}

int sl_prompt_file_save(struct sl_prompt_file *f, const struct sl_lm_item *item,
                        const float *logits, uint64_t *bytes,
                        struct sl_error *err)
{
    struct stream s = {.f = f};
    char *temp = NULL;
    int fd, rc;

    /* Only its owner may read what was asked: mkstemp's mode. */
    if (asprintf(&temp, "%s.XXXXXX", f->c.path) < 0)
        return sl_fail(err, SL_ERR_NOMEM, "%s: no memory to write it",
                       f->c.path);
    fd = mkostemp(temp, O_CLOEXEC);
    if (fd < 0) {
        rc = sl_fail_os(err, errno, "%s: cannot be made", f->c.path);
        free(temp);
        return rc;
    }
    s.path = temp;
    s.file = fdopen(fd, "wb");
    if (s.file == NULL) {
        rc = sl_fail_os(err, errno, "%s: cannot write", f->c.path);
        close(fd);
    } else {
        make_key(f, item);
        rc = save_all(&s, item, logits, err);
        fclose(s.file);
    }
    if (rc != 0)
        unlink(temp);
    free(temp);
    *bytes = s.at;
    return rc;
}
