#include "config.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/bytes.h"
#include "src/base/mem.h"
#include "src/ckpt/ckpt_shard.h"
#include "src/ckpt/ckpt_sums.h"
#include "src/ckpt/ckpt_torch.h"

#define LOCAL_SIG    0x04034b50u /* a zip's first bytes */
#define MEMBER_BYTES 512         /* of the name of a zip's member */
#define TENSOR_ITEMS 4           /* storage, offset, size, stride */
#define VIEW_ITEMS   7           /* ..., metadata being the last */

/* torch/storage.py. The last ones only have a size: a legacy file cannot be
 * walked without. */
static const struct {
    const char *name;
    uint32_t bytes;
    int dtype;
} storages[] = {
    {"FloatStorage", 4, SL_DT_F32},
    {"HalfStorage", 2, SL_DT_F16},
    {"BFloat16Storage", 2, SL_DT_BF16},
    {"DoubleStorage", 8, SL_DT_F64},
    {"CharStorage", 1, SL_DT_I8},
    {"ByteStorage", 1, SL_DT_U8},
    {"ShortStorage", 2, SL_DT_I16},
    {"IntStorage", 4, SL_DT_I32},
    {"LongStorage", 8, SL_DT_I64},
    {"BoolStorage", 1, SL_DT_BOOL},
    {"ComplexFloatStorage", 8, -1},
    {"ComplexDoubleStorage", 16, -1},
    {"QInt8Storage", 1, -1},
    {"QUInt8Storage", 1, -1},
    {"QInt32Storage", 4, -1},
    {"QUInt4x2Storage", 1, -1},
    {"QUInt2x4Storage", 1, -1},
    {"UntypedStorage", 1, -1},
};

/* An open torch.save file on the way to its tensors. */
struct torch_file {
    struct sl_src *src;
    bool zipped;
    struct sl_zip zip;
    char *prefix; /* of the zip's members */
    struct sl_legacy legacy;
    struct sl_pickle pickle;
    const struct sl_log *log;
};

/* A size, offset or stride. */
static bool get_count(uint64_t *n, const struct sl_pickle *p, uint32_t node)
{
    const struct sl_pk_node *v = sl_pk_at(p, node);

    if (v->kind != SL_PK_INT || v->i < 0)
        return false;
    *n = (uint64_t)v->i;
    return true;
}

static int parse_type(struct sl_torch_storage *s, const struct sl_pickle *p,
                      uint32_t node, struct sl_error *err)
{
    const struct sl_pk_node *g = sl_pk_at(p, node);
    char label[SL_PK_LABEL];

    if (g->kind == SL_PK_GLOBAL) {
        const struct sl_pk_node *module = sl_pk_at(p, g->global.module);
        const struct sl_pk_node *name = sl_pk_at(p, g->global.name);
        bool torch = sl_pk_text_is(p, module, "torch") ||
                     sl_pk_text_is(p, module, "torch.cuda") ||
                     sl_pk_text_is(p, module, "torch.storage");

        for (size_t i = 0; torch && i < sizeof storages / sizeof *storages;
             i++) {
            if (!sl_pk_text_is(p, name, storages[i].name))
                continue;
            s->elem_bytes = storages[i].bytes;
            s->dtype = storages[i].dtype;
            return 0;
        }
    }
    return sl_fail(err, SL_ERR_UNSUPPORTED, "%s: a storage of unknown type: %s",
                   sl_src_name(p->src), sl_pk_label(label, p, node));
}

int sl_torch_storage_parse(struct sl_torch_storage *s,
                           const struct sl_pickle *p, uint32_t node,
                           struct sl_error *err)
{
    uint32_t item[6] = {0, 0, 0, 0, 0, SL_PK_NIL}, part[3], n;
    const struct sl_pk_node *key, *view = NULL;

    n = sl_pk_items(p, sl_pk_at(p, sl_pk_at(p, node)->ref), item, 6);
    key = sl_pk_at(p, item[2]);
    if (key->kind != SL_PK_STR || !get_count(&s->n, p, item[4]))
        goto bad;
    s->key = sl_pk_text(p, key);
    s->n_key = key->n;
    for (size_t i = 0; i < s->n_key; i++)
        if (s->key[i] < '!' || s->key[i] > '~')
            goto bad;
    if (parse_type(s, p, item[1], err) != 0)
        return -1;
    s->view_off = 0;
    s->view_n = s->n;
    if (n >= 6 && sl_pk_at(p, item[5])->kind == SL_PK_TUPLE)
        view = sl_pk_at(p, item[5]);
    if (view == NULL)
        return 0;
    if (sl_pk_items(p, view, part, 3) != 3 ||
        !get_count(&s->view_off, p, part[1]) ||
        !get_count(&s->view_n, p, part[2]) || s->view_off > s->n ||
        s->view_n > s->n - s->view_off)
        goto bad;
    return 0;
bad:
    return sl_fail(err, SL_ERR_CORRUPT,
                   "%s: a storage's name is not what torch.save writes",
                   sl_src_name(p->src));
}

/* The member that ends in /data.pkl is the object; its folder holds the rest.
 */
static int find_prefix(struct torch_file *f, const struct sl_zip_member **pkl,
                       struct sl_error *err)
{
    static const char tail[] = "/data.pkl";
    const size_t n = sizeof tail - 1;
    const struct sl_zip *z = &f->zip;
    const char *file = sl_src_name(f->src);

    *pkl = NULL;
    for (size_t i = 0; i < z->n_members; i++) {
        const struct sl_zip_member *m = &z->members[i];

        if (m->n_name <= n || memcmp(m->name + m->n_name - n, tail, n) != 0)
            continue;
        if (*pkl != NULL)
            return sl_fail(err, SL_ERR_CORRUPT,
                           "%s: two members that end in /data.pkl", file);
        *pkl = m;
    }
    if (*pkl == NULL)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "%s: a zip of %zu members, but none ends in /data.pkl: "
                       "not written by torch.save",
                       file, z->n_members);
    f->prefix = strndup((*pkl)->name, (*pkl)->n_name - n);
    if (f->prefix == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "%s: no memory to read it", file);
    return 0;
}

/* Where a member's bytes are, which will be summed when they are read. */
static int find_data(const struct torch_file *f, const struct sl_zip_member *m,
                     const char *what, uint64_t *off, struct sl_error *err)
{
    char name[256];

    if (sl_zip_data(&f->zip, m, off, err) != 0)
        return -1;
    if (what == NULL)
        snprintf(name, sizeof name, "member %.*s",
                 (int)(m->n_name < 200 ? m->n_name : 200), m->name);
    else
        snprintf(name, sizeof name, "tensor %s", what);
    return sl_sums_add(sl_src_sums(f->src), *off, m->bytes, m->crc, name, err);
}

/* A storage or another member by its name below the prefix. */
static const struct sl_zip_member *find_member(const struct torch_file *f,
                                               const char *folder,
                                               const char *key, size_t n_key)
{
    char name[MEMBER_BYTES];
    size_t n_prefix = strlen(f->prefix), n_folder = strlen(folder);

    if (n_prefix > sizeof name || n_folder > sizeof name - n_prefix ||
        n_key > sizeof name - n_prefix - n_folder)
        return NULL;
    memcpy(name, f->prefix, n_prefix);
    memcpy(name + n_prefix, folder, n_folder);
    memcpy(name + n_prefix + n_folder, key, n_key);
    return sl_zip_find(&f->zip, name, n_prefix + n_folder + n_key);
}

/* Newer torch says in which byte order it wrote. */
static int check_byteorder(const struct torch_file *f, struct sl_error *err)
{
    const struct sl_zip_member *m = find_member(f, "/byteorder", "", 0);
    char text[6];
    uint64_t off;

    if (m == NULL)
        return 0;
    if (find_data(f, m, NULL, &off, err) != 0)
        return -1;
    if (m->bytes == 3 && sl_src_read(f->src, text, off, 3, err) != 0)
        return -1;
    if (m->bytes == 3 && memcmp(text, "big", 3) == 0)
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "%s: was written on a big-endian machine",
                       sl_src_name(f->src));
    return 0;
}

static int open_zip(struct torch_file *f, struct sl_error *err)
{
    struct sl_sums *sums = sl_sums_create(sl_src_name(f->src));
    const struct sl_zip_member *pkl = NULL;
    struct sl_src *part;
    char name[1200];
    uint64_t off = 0;
    int rc;

    if (sums == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "%s: no memory to read it",
                       sl_src_name(f->src));
    sl_src_set_sums(f->src, sums);
    if (sl_zip_open(&f->zip, f->src, err) != 0 ||
        find_prefix(f, &pkl, err) != 0 || check_byteorder(f, err) != 0 ||
        find_data(f, pkl, NULL, &off, err) != 0)
        return -1;
    snprintf(name, sizeof name, "%s: %s/data.pkl", sl_src_name(f->src),
             f->prefix);
    if (sl_src_slice(&part, f->src, off, pkl->bytes, name, err) != 0)
        return -1;
    rc = sl_pickle_read(&f->pickle, part, 0, err);
    f->pickle.src = f->src; /* only its name is asked for from here on */
    sl_src_close(part);
    return rc;
}

/* *off = where the storage begins in the file, with all its bytes there. */
static int locate(const struct torch_file *f, const struct sl_torch_storage *s,
                  const char *tensor, uint64_t *off, struct sl_error *err)
{
    const struct sl_zip_member *m;
    uint64_t bytes;

    if (!f->zipped)
        return sl_legacy_find(&f->legacy, s, off, err);
    m = find_member(f, "/data/", s->key, s->n_key);
    if (m == NULL)
        return sl_fail(err, SL_ERR_CORRUPT, "no member %s/data/%.*s in the zip",
                       f->prefix, (int)(s->n_key < 40 ? s->n_key : 40), s->key);
    if (__builtin_mul_overflow(s->n, s->elem_bytes, &bytes) ||
        bytes != m->bytes)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "member %.*s should hold %" PRIu64
                       " elements of %u bytes, but has %" PRIu64 " bytes",
                       (int)m->n_name, m->name, s->n, s->elem_bytes, m->bytes);
    return find_data(f, m, tensor, off, err);
}

/* Fills shape and stride, and *need = how many elements of the storage the
 * tensor reaches over, counted from its first. */
static int parse_shape(struct sl_ckpt_tensor *t, uint64_t *need,
                       const struct sl_pickle *p, uint32_t size,
                       uint32_t stride, struct sl_error *err)
{
    const struct sl_pk_node *sv = sl_pk_at(p, size), *dv = sl_pk_at(p, stride);
    uint32_t dims[SL_CKPT_DIMS], steps[SL_CKPT_DIMS];
    uint64_t bytes = sl_dtype_bytes(t->dtype), last = 0;
    bool empty = false;

    if (sv->kind != SL_PK_TUPLE || dv->kind != SL_PK_TUPLE || sv->n != dv->n)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "its sizes and strides are not tuples of one length");
    if (sv->n > SL_CKPT_DIMS)
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "%u dimensions; at most %d are read", sv->n,
                       SL_CKPT_DIMS);
    t->n_dims = sv->n;
    sl_pk_items(p, sv, dims, SL_CKPT_DIMS);
    sl_pk_items(p, dv, steps, SL_CKPT_DIMS);
    for (uint32_t i = 0; i < t->n_dims; i++) {
        uint64_t reach;

        if (!get_count(&t->shape[i], p, dims[i]) ||
            !get_count(&t->stride[i], p, steps[i]))
            return sl_fail(err, SL_ERR_CORRUPT,
                           "size or stride of dimension %u is no count", i);
        empty = empty || t->shape[i] == 0;
        if (t->shape[i] == 0)
            continue;
        if (__builtin_mul_overflow(bytes, t->shape[i], &bytes) ||
            __builtin_mul_overflow(t->shape[i] - 1, t->stride[i], &reach) ||
            __builtin_add_overflow(last, reach, &last) || bytes > INT64_MAX)
            return sl_fail(err, SL_ERR_CORRUPT,
                           "size %" PRIu64 " and stride %" PRIu64
                           " of dimension %u overflow",
                           t->shape[i], t->stride[i], i);
    }
    if (!empty && last == UINT64_MAX)
        return sl_fail(err, SL_ERR_CORRUPT, "sizes and strides overflow");
    *need = empty ? 0 : last + 1;
    return 0;
}

static const char *view_name(const struct sl_pickle *p, uint32_t key)
{
    const struct sl_pk_node *k = sl_pk_at(p, key);

    if (sl_pk_text_is(p, k, "neg"))
        return "negated";
    return sl_pk_text_is(p, k, "conj") ? "conjugated" : "unknown metadata";
}

/* torch/_utils.py and torch/_tensor.py: what a view does to the elements of its
 * storage is in a dict behind all else: 'conj' and 'neg'. */
static int check_view(const struct sl_pickle *p, const uint32_t *item,
                      uint32_t n, struct sl_error *err)
{
    const struct sl_pk_node *more;
    uint32_t cell;

    if (n < VIEW_ITEMS)
        return 0;
    more = sl_pk_at(p, item[VIEW_ITEMS - 1]);
    if (n == VIEW_ITEMS && more->kind == SL_PK_NONE)
        return 0;
    if (n > VIEW_ITEMS || more->kind != SL_PK_DICT)
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "a view with unknown metadata (%u things make it): save "
                       "it again as a plain tensor",
                       n);
    cell = more->n > 0 ? more->list.first : SL_PK_NIL;
    while (cell != SL_PK_NIL) {
        const struct sl_pk_cell *k = &p->cells.at[cell];
        const struct sl_pk_cell *v = &p->cells.at[k->next];
        const struct sl_pk_node *value = sl_pk_at(p, v->node);

        if (value->kind != SL_PK_BOOL || value->i != 0)
            return sl_fail(err, SL_ERR_UNSUPPORTED,
                           "a view that torch has not worked out yet (%s): "
                           "save it again after resolve_neg() and "
                           "resolve_conj()",
                           view_name(p, k->node));
        cell = v->next;
    }
    return 0;
}

/* torch/_utils.py: _rebuild_tensor_v2(storage, offset, size, stride, ...).
 * Returns 1 when the elements are of a type that no tensor here can have. */
static int parse_tensor(struct sl_ckpt_tensor *t, const struct torch_file *f,
                        uint32_t args, struct sl_error *err)
{
    const struct sl_pickle *p = &f->pickle;
    uint32_t item[VIEW_ITEMS], n;
    struct sl_torch_storage s;
    uint64_t first, need = 0, off = 0;

    n = sl_pk_items(p, sl_pk_at(p, args), item, VIEW_ITEMS);
    if (n < TENSOR_ITEMS || sl_pk_at(p, item[0])->kind != SL_PK_STORAGE ||
        !get_count(&first, p, item[1]))
        return sl_fail(err, SL_ERR_CORRUPT,
                       "not made of storage, offset, size and stride");
    if (sl_torch_storage_parse(&s, p, item[0], err) != 0)
        return -1;
    if (s.dtype < 0)
        return 1;
    if (check_view(p, item, n, err) != 0)
        return -1;
    t->dtype = (enum sl_dtype)s.dtype;
    t->src = f->src;
    if (parse_shape(t, &need, p, item[2], item[3], err) != 0 ||
        locate(f, &s, t->name, &off, err) != 0)
        return -1;
    if (need == 0) {
        t->off = off;
        return 0;
    }
    if (first > s.view_n || need > s.view_n - first)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "reaches over %" PRIu64 " elements from element %" PRIu64
                       " on, but storage %.*s has %" PRIu64,
                       need, first, (int)(s.n_key < 40 ? s.n_key : 40), s.key,
                       s.view_n);
    t->off = off + (s.view_off + first) * s.elem_bytes;
    return 0;
}

/* The dict of tensors: under "module", or the object itself. */
static int find_dict(const struct torch_file *f, uint32_t *dict,
                     struct sl_error *err)
{
    const struct sl_pickle *p = &f->pickle;
    const char *what = "the object in it";
    char label[SL_PK_LABEL];

    *dict = p->root;
    if (sl_pk_at(p, *dict)->kind == SL_PK_DICT) {
        uint32_t module = sl_pk_get(p, sl_pk_at(p, *dict), "module");

        if (module != SL_PK_NIL) {
            *dict = module;
            what = "what it has under 'module'";
        }
    }
    if (sl_pk_at(p, *dict)->kind != SL_PK_DICT)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "%s: %s is %s, not a dict of tensors",
                       sl_src_name(f->src), what, sl_pk_label(label, p, *dict));
    return 0;
}

/* Something that torch makes a tensor of (torch/_utils.py, _rebuild_...), but
 * not one of those that are read: no weights may be left out for that. */
static bool is_rebuilt(const struct sl_pickle *p, const struct sl_pk_node *v)
{
    static const char start[] = "_rebuild";
    const size_t n = sizeof start - 1;
    const struct sl_pk_node *g, *name;

    if (v->kind != SL_PK_OPAQUE || v->ref == SL_PK_NIL)
        return false;
    g = sl_pk_at(p, v->ref);
    if (g->kind != SL_PK_GLOBAL)
        return false;
    name = sl_pk_at(p, g->global.name);
    return name->n > n && memcmp(sl_pk_text(p, name), start, n) == 0;
}

/* One entry of the dict; what is no tensor is passed over. */
static int add_entry(struct sl_ckpt_shard *shard, const struct torch_file *f,
                     uint32_t key, uint32_t value, struct sl_error *err)
{
    const char *file = sl_src_name(f->src);
    const struct sl_pk_node *k = sl_pk_at(&f->pickle, key);
    const struct sl_pk_node *v = sl_pk_at(&f->pickle, value);
    struct sl_ckpt_tensor t = {0};
    char label[SL_PK_LABEL];
    int rc;

    if (k->kind != SL_PK_STR)
        return 0;
    if (sl_shard_name(&t.name, sl_pk_text(&f->pickle, k), k->n, file, err) != 0)
        return -1;
    if (is_rebuilt(&f->pickle, v)) {
        sl_fail(err, SL_ERR_UNSUPPORTED,
                "%s: tensor %s is made by %s, which is not read: save it as a "
                "plain tensor",
                file, t.name, sl_pk_label(label, &f->pickle, value));
        free(t.name);
        return -1;
    }
    if (v->kind != SL_PK_TENSOR) {
        sl_log(f->log, SL_LOG_INFO, "%s: %s is %s, not a tensor: ignored", file,
               t.name, sl_pk_label(label, &f->pickle, value));
        free(t.name);
        return 0;
    }
    rc = parse_tensor(&t, f, v->ref, err);
    if (rc == 0) {
        shard->tensors[shard->n_tensors++] = t;
        return 0;
    }
    if (rc > 0)
        sl_log(f->log, SL_LOG_WARN,
               "%s: tensor %s has elements of a type that is not read: ignored",
               file, t.name);
    else
        sl_error_prefix(err, "%s: tensor %s: ", file, t.name);
    free(t.name);
    return rc > 0 ? 0 : -1;
}

static int list_tensors(struct sl_ckpt_shard *shard, const struct torch_file *f,
                        struct sl_error *err)
{
    const struct sl_pickle *p = &f->pickle;
    const struct sl_pk_node *dict;
    uint32_t node, cell;

    if (find_dict(f, &node, err) != 0)
        return -1;
    dict = sl_pk_at(p, node);
    shard->tensors = sl_zalloc_array(dict->n / 2, sizeof *shard->tensors);
    if (shard->tensors == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "%s: no memory for %u tensors",
                       sl_src_name(f->src), dict->n / 2);
    cell = dict->n ? dict->list.first : SL_PK_NIL;
    while (cell != SL_PK_NIL) {
        const struct sl_pk_cell *k = &p->cells.at[cell];
        const struct sl_pk_cell *v = &p->cells.at[k->next];

        if (add_entry(shard, f, k->node, v->node, err) != 0)
            return -1;
        cell = v->next;
    }
    return sl_shard_sort(shard, err);
}

/* Nothing in the pickle is ever run; who would run it should know. */
static void warn_suspects(const struct torch_file *f)
{
    char label[SL_PK_LABEL];
    uint32_t at = 0;

    if (sl_pk_next_suspect(&f->pickle, &at))
        sl_log(f->log, SL_LOG_WARN,
               "%s: refers to %s, which has no place in a checkpoint: not run, "
               "but do not load this file with Python",
               sl_src_name(f->src), sl_pk_label(label, &f->pickle, at));
}

static int open_file(struct torch_file *f, struct sl_error *err)
{
    uint8_t magic[4];

    if (sl_src_bytes(f->src) < sizeof magic)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "%s: %" PRIu64 " bytes: too short for a checkpoint",
                       sl_src_name(f->src), sl_src_bytes(f->src));
    if (sl_src_read(f->src, magic, 0, sizeof magic, err) != 0)
        return -1;
    f->zipped = sl_load_u32(magic) == LOCAL_SIG;
    if (f->zipped)
        return open_zip(f, err);
    return sl_legacy_open(&f->legacy, &f->pickle, f->src, err);
}

int sl_torch_open(struct sl_ckpt_shard *shard, struct sl_src *src,
                  const struct sl_log *log, struct sl_error *err)
{
    struct sl_ckpt_shard made;
    struct torch_file f = {.src = src, .log = log};
    int rc;

    if (sl_shard_init(&made, src, err) != 0)
        return -1;
    rc = open_file(&f, err);
    if (rc == 0) {
        warn_suspects(&f);
        rc = list_tensors(&made, &f, err);
    }
    sl_pickle_fini(&f.pickle);
    sl_legacy_close(&f.legacy);
    sl_zip_close(&f.zip);
    free(f.prefix);
    if (rc != 0) {
        sl_ckpt_shard_close(&made);
        return -1;
    }
    *shard = made;
    return 0;
}
