#include "config.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/bytes.h"
#include "src/base/mem.h"
#include "src/ckpt/ckpt_torch.h"

#define PROTOCOL_VERSION 1001
#define KEY_SHOWN        40 /* bytes of a storage's key in messages */

/* torch/serialization.py, MAGIC_NUMBER: in binary, and as protocol 0 has it. */
static const uint8_t magic_bytes[] = {0x6c, 0xfc, 0x9c, 0x46, 0xf9,
                                      0x20, 0x6a, 0xa8, 0x50, 0x19};
static const char magic_text[] = "119547037146038801333356";

static bool is_magic(const struct sl_pickle *p)
{
    const struct sl_pk_node *v = sl_pk_at(p, p->root);
    size_t n = v->big_text ? sizeof magic_text - 1 : sizeof magic_bytes;
    const void *want = v->big_text ? (const void *)magic_text : magic_bytes;

    return v->kind == SL_PK_BIG && v->n == n &&
           memcmp(sl_pk_text(p, v), want, n) == 0;
}

/* The three small pickles in front; *off moves behind them. */
static int read_head(struct sl_src *src, uint64_t *off, struct sl_error *err)
{
    const char *file = sl_src_name(src);
    struct sl_pickle p = {0};
    const struct sl_pk_node *v;
    uint32_t little;
    int rc;

    rc = sl_pickle_read(&p, src, *off, err);
    if (rc != 0 && err->code != SL_ERR_CORRUPT &&
        err->code != SL_ERR_UNSUPPORTED)
        return -1;
    if (rc != 0 || !is_magic(&p)) {
        sl_pickle_fini(&p);
        return sl_fail(err, SL_ERR_CORRUPT,
                       "%s: not a torch.save file: it begins neither as a zip "
                       "nor with torch's magic number (%" PRIu64 " bytes)",
                       file, sl_src_bytes(src));
    }
    *off = p.end;
    sl_pickle_fini(&p);

    if (sl_pickle_read(&p, src, *off, err) != 0)
        return -1;
    v = sl_pk_at(&p, p.root);
    if (v->kind != SL_PK_INT || v->i != PROTOCOL_VERSION) {
        rc = sl_fail(err, SL_ERR_UNSUPPORTED,
                     "%s: torch.save protocol %" PRId64 ", but %d is expected",
                     file, v->kind == SL_PK_INT ? v->i : -1, PROTOCOL_VERSION);
        sl_pickle_fini(&p);
        return rc;
    }
    *off = p.end;
    sl_pickle_fini(&p);

    if (sl_pickle_read(&p, src, *off, err) != 0)
        return -1;
    v = sl_pk_at(&p, p.root);
    little =
        v->kind == SL_PK_DICT ? sl_pk_get(&p, v, "little_endian") : SL_PK_NIL;
    if (little != SL_PK_NIL && sl_pk_at(&p, little)->kind == SL_PK_BOOL &&
        !sl_pk_at(&p, little)->i)
        rc = sl_fail(err, SL_ERR_UNSUPPORTED,
                     "%s: was written on a big-endian machine", file);
    *off = p.end;
    sl_pickle_fini(&p);
    return rc;
}

static int compare_entries(const void *va, const void *vb)
{
    const struct sl_legacy_entry *a = va, *b = vb;
    int c = memcmp(a->key, b->key, a->n_key < b->n_key ? a->n_key : b->n_key);

    return c != 0 ? c : (a->n_key > b->n_key) - (a->n_key < b->n_key);
}

/* Every storage the object speaks of, once: their sizes say how far apart
 * they lie. */
static int list_storages(struct sl_legacy *l, const struct sl_pickle *p,
                         struct sl_error *err)
{
    struct sl_torch_storage s;
    size_t n = 0, kept = 0;

    for (uint32_t i = 0; i < p->nodes.n; i++)
        n += sl_pk_at(p, i)->kind == SL_PK_STORAGE;
    l->entries = sl_zalloc_array(n, sizeof *l->entries);
    if (l->entries == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "%s: no memory for %zu storages",
                       sl_src_name(p->src), n);
    for (uint32_t i = 0; i < p->nodes.n; i++) {
        if (sl_pk_at(p, i)->kind != SL_PK_STORAGE)
            continue;
        if (sl_torch_storage_parse(&s, p, i, err) != 0)
            return -1;
        l->entries[l->n_entries++] = (struct sl_legacy_entry){
            s.key, s.n_key, s.elem_bytes, s.n, 0,
        };
    }
    qsort(l->entries, n, sizeof *l->entries, compare_entries);
    for (size_t i = 0; i < n; i++) {
        const struct sl_legacy_entry *e = &l->entries[i], *k;

        k = kept > 0 ? &l->entries[kept - 1] : NULL;
        if (k == NULL || compare_entries(k, e) != 0) {
            l->entries[kept++] = *e;
            continue;
        }
        if (k->elem_bytes != e->elem_bytes || k->n != e->n)
            return sl_fail(err, SL_ERR_CORRUPT,
                           "%s: storage %.*s is %" PRIu64 " x %u bytes here, "
                           "%" PRIu64 " x %u there",
                           sl_src_name(p->src),
                           (int)(e->n_key < KEY_SHOWN ? e->n_key : KEY_SHOWN),
                           e->key, k->n, k->elem_bytes, e->n, e->elem_bytes);
    }
    l->n_entries = kept;
    return 0;
}

static struct sl_legacy_entry *find_entry(const struct sl_legacy *l,
                                          const char *key, size_t n_key)
{
    struct sl_legacy_entry want = {.key = key, .n_key = n_key};

    return bsearch(&want, l->entries, l->n_entries, sizeof want,
                   compare_entries);
}

/* One storage at *off: a 64-bit count of elements, then its data. */
static int place_storage(struct sl_legacy_entry *e, struct sl_src *src,
                         uint64_t *off, struct sl_error *err)
{
    int shown = (int)(e->n_key < KEY_SHOWN ? e->n_key : KEY_SHOWN);
    uint64_t size = sl_src_bytes(src), n, bytes;
    uint8_t count[8];

    if (size - *off < sizeof count)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "%s: storage %.*s should begin at offset %" PRIu64
                       ", but the file ends at %" PRIu64,
                       sl_src_name(src), shown, e->key, *off, size);
    if (sl_src_read(src, count, *off, sizeof count, err) != 0)
        return -1;
    *off += sizeof count;
    n = sl_load_u64(count);
    if (n != e->n)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "%s: storage %.*s has %" PRIu64
                       " elements at offset %" PRIu64 ", but %" PRIu64
                       " by its name",
                       sl_src_name(src), shown, e->key, n, *off, e->n);
    if (__builtin_mul_overflow(n, e->elem_bytes, &bytes) || bytes > size - *off)
        return sl_fail(
            err, SL_ERR_CORRUPT,
            "%s: storage %.*s is %" PRIu64 " x %u bytes at offset %" PRIu64
            ", but the file ends at %" PRIu64,
            sl_src_name(src), shown, e->key, n, e->elem_bytes, *off, size);
    e->off = *off;
    *off += bytes;
    return 0;
}

/* The list of keys gives the order in which the storages lie. */
static int place_storages(struct sl_legacy *l, struct sl_src *src, uint64_t off,
                          struct sl_error *err)
{
    struct sl_legacy_entry *e;
    struct sl_pickle p = {0};
    const struct sl_pk_node *v;
    uint32_t cell;
    int rc = -1;

    if (sl_pickle_read(&p, src, off, err) != 0)
        return -1;
    v = sl_pk_at(&p, p.root);
    off = p.end;
    if (v->kind != SL_PK_LIST) {
        sl_fail(err, SL_ERR_CORRUPT,
                "%s: no list of storages at offset %" PRIu64, sl_src_name(src),
                p.begin);
        goto out;
    }
    cell = v->n ? v->list.first : SL_PK_NIL;
    for (; cell != SL_PK_NIL; cell = p.cells.at[cell].next) {
        v = sl_pk_at(&p, p.cells.at[cell].node);
        e = v->kind == SL_PK_STR ? find_entry(l, sl_pk_text(&p, v), v->n)
                                 : NULL;
        if (e == NULL || e->off != 0) {
            sl_fail(
                err, SL_ERR_CORRUPT,
                "%s: the list of storages at offset %" PRIu64 " names one %s",
                sl_src_name(src), p.begin, e ? "twice" : "that no tensor uses");
            goto out;
        }
        if (place_storage(e, src, &off, err) != 0)
            goto out;
    }
    rc = 0;
out:
    sl_pickle_fini(&p);
    return rc;
}

int sl_legacy_open(struct sl_legacy *l, struct sl_pickle *object,
                   struct sl_src *src, struct sl_error *err)
{
    struct sl_legacy made = {0};
    struct sl_pickle p = {0};
    uint64_t off = 0;

    if (read_head(src, &off, err) != 0 ||
        sl_pickle_read(&p, src, off, err) != 0)
        return -1;
    if (list_storages(&made, &p, err) != 0 ||
        place_storages(&made, src, p.end, err) != 0) {
        sl_legacy_close(&made);
        sl_pickle_fini(&p);
        return -1;
    }
    *l = made;
    *object = p;
    return 0;
}

void sl_legacy_close(struct sl_legacy *l)
{
    free(l->entries);
    memset(l, 0, sizeof *l);
}

int sl_legacy_find(const struct sl_legacy *l, const struct sl_torch_storage *s,
                   uint64_t *off, struct sl_error *err)
{
    const struct sl_legacy_entry *e = find_entry(l, s->key, s->n_key);

    if (e == NULL || e->off == 0)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "storage %.*s is not in the file's list of storages",
                       (int)(s->n_key < KEY_SHOWN ? s->n_key : KEY_SHOWN),
                       s->key);
    *off = e->off;
    return 0;
}
