#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/base/mem.h"
#include "src/ckpt/ckpt.h"
#include "src/ckpt/lora.h"
#include "src/ckpt/lora_config.h"

#define BASE "base_model.model."
#define A    ".lora_A.weight"
#define B    ".lora_B.weight"

#define NAME_ROOM 160
/* Names that a matrix or its parts can have in a checkpoint. */
#define SOURCES (3 + SL_SOURCES)
/* Elements that are read at a time, or a row. */
#define PIECE 65536u

struct adapter {
    const char *path;
    float scale; /* the user's */
    struct sl_ckpt ckpt;
    struct sl_lora_config config;
    bool *used; /* (tensors) */
};

/* What one adapter adds to some rows of a matrix. */
struct pair {
    enum sl_slot slot;
    uint32_t layer;
    uint32_t matrix_rows, first_row, r;
    /* A GGUF's rows of q and k are in another order than the adapter's, a head
     * of so many at a time, of which the first so many are rotated; 0: they
     * are not. */
    uint32_t head_rows, rope_rows;
    float scale; /* all in all */
    const struct sl_ckpt_tensor *a, *b;
};

struct sl_lora {
    const struct sl_arch *arch;
    const struct sl_hparams *hp;
    const char *model;
    struct adapter adapters[SL_LORA_MOST];
    size_t n_adapters;
    struct pair *pairs; /* matrix by matrix, then adapter by adapter */
    size_t n_pairs;
};

/* --- opening -------------------------------------------------------------- */

static int read_config(struct adapter *ad, struct sl_error *err)
{
    char file[1100];
    uint8_t *text;
    size_t n;
    int rc =
        sl_ckpt_read_file(&ad->ckpt, "adapter_config.json", &text, &n, err);

    if (rc > 0)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "%s: has no adapter_config.json, which says what the "
                       "adapter counts",
                       ad->path);
    if (rc < 0)
        return -1;
    snprintf(file, sizeof file, "%s/adapter_config.json", ad->path);
    rc = sl_lora_config_parse(&ad->config, (const char *)text, n, file, err);
    free(text);
    return rc;
}

static int open_adapter(struct adapter *ad, const struct sl_lora_arg *arg,
                        const struct sl_log *log, struct sl_error *err)
{
    static const char *const files[] = {"adapter_model.safetensors",
                                        "adapter_model.bin"};
    char path[1100];
    struct stat st;
    size_t i = 0;

    ad->path = arg->path;
    ad->scale = arg->scale;
    for (; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", arg->path, files[i]);
        if (access(path, F_OK) == 0)
            break;
    }
    if (i == 2 && stat(arg->path, &st) != 0)
        return sl_fail_os(err, errno, "%s: no adapter", arg->path);
    if (i == 2 && !S_ISDIR(st.st_mode))
        return sl_fail(err, SL_ERR_USAGE,
                       "%s: not an adapter: that is a folder, with %s or %s",
                       arg->path, files[0], files[1]);
    if (i == 2)
        return sl_fail(err, SL_ERR_USAGE,
                       "%s: not an adapter: there is no %s and no %s in it",
                       arg->path, files[0], files[1]);
    if (sl_ckpt_open(&ad->ckpt, path, log, err) != 0 ||
        read_config(ad, err) != 0)
        return -1;
    ad->used = sl_zalloc_array(ad->ckpt.shards[0].n_tensors + 1, 1);
    return ad->used != NULL
               ? 0
               : sl_fail(err, SL_ERR_NOMEM, "no memory for an adapter");
}

/* --- which matrices ------------------------------------------------------- */

static const struct sl_ckpt_tensor *use(struct adapter *ad, const char *module,
                                        const char *leaf)
{
    const struct sl_ckpt_shard *shard = &ad->ckpt.shards[0];
    const struct sl_ckpt_tensor *t;
    char name[NAME_ROOM];

    snprintf(name, sizeof name, BASE "%s%s", module, leaf);
    t = sl_ckpt_find(&ad->ckpt, 0, name);
    if (t != NULL)
        ad->used[t - shard->tensors] = true;
    return t;
}

static bool is_float(enum sl_dtype dt)
{
    return dt == SL_DT_F32 || dt == SL_DT_F16 || dt == SL_DT_BF16 ||
           dt == SL_DT_F64;
}

static int check_tensor(const struct sl_lora *l, const struct adapter *ad,
                        const struct sl_ckpt_tensor *t, uint64_t rows,
                        uint64_t cols, struct sl_error *err)
{
    if (!is_float(t->dtype))
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "%s: tensor %s is %s; an adapter is of floats", ad->path,
                       t->name, sl_dtype_name(t->dtype));
    if (t->n_dims == 2 && t->shape[0] == rows && t->shape[1] == cols)
        return 0;
    return sl_fail(err, SL_ERR_CORRUPT,
                   "%s: tensor %s is %" PRIu64 " x %" PRIu64
                   ", but %s and r take %" PRIu64 " x %" PRIu64
                   ": is it of another model?",
                   ad->path, t->name, t->n_dims > 0 ? t->shape[0] : 1,
                   t->n_dims > 1 ? t->shape[1] : 1, l->model, rows, cols);
}

/* Whether neighbours are rotated where the architecture's other checkpoints,
 * and so its adapters, rotate halves. */
static bool is_reordered(const struct sl_lora *l)
{
    struct sl_hparams usual = *l->hp;

    usual.rope = SL_ROPE_NONE;
    sl_arch_derive(l->arch, &usual);
    return usual.rope == SL_ROPE_HALF && l->hp->rope == SL_ROPE_INTERLEAVED;
}

/* q or k, and not all of q, k and v? */
static bool is_rotated(const struct sl_lora *l,
                       const struct sl_tensor_spec *spec, uint32_t first,
                       uint32_t rows)
{
    uint32_t v_at = sl_arch_qkv_row(l->hp).v_at;

    return spec->slot == SL_SLOT_Q || spec->slot == SL_SLOT_K ||
           (spec->slot == SL_SLOT_QKV && first + rows <= v_at);
}

/* A module of rows [first, first + rows) of a matrix, if the adapter has it. */
static int add_module(struct sl_lora *l, struct adapter *ad, const char *module,
                      const struct sl_tensor_spec *spec, uint32_t first,
                      uint32_t rows, struct sl_error *err)
{
    struct pair p = {
        .slot = spec->slot,
        .layer = spec->layer,
        .matrix_rows = spec->rows,
        .first_row = first,
        .a = use(ad, module, A),
        .b = use(ad, module, B),
    };
    double scale;

    if (p.a == NULL && p.b == NULL)
        return 0;
    if (p.a == NULL || p.b == NULL)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "%s: module %s has no lora_%s.weight", ad->path, module,
                       p.a == NULL ? "A" : "B");
    scale = sl_lora_config_scale(&ad->config, module, &p.r);
    if (check_tensor(l, ad, p.a, p.r, spec->cols, err) != 0 ||
        check_tensor(l, ad, p.b, rows, p.r, err) != 0)
        return -1;
    p.scale = (float)(scale * (double)ad->scale);
    if (is_reordered(l) && is_rotated(l, spec, first, rows)) {
        p.head_rows = l->hp->head_dim;
        p.rope_rows = l->hp->rope_dims;
    }
    if (p.scale != 0)
        l->pairs[l->n_pairs++] = p;
    return 0;
}

/* A checkpoint's name of a matrix without its ".weight". */
static void module_name(char name[SL_TENSOR_SPEC_NAME], const char *of,
                        uint32_t layer)
{
    char *tail;

    sl_arch_source_name(name, of, layer);
    tail = strstr(name, ".weight");
    if (tail != NULL)
        *tail = '\0';
}

/* All modules that the rows of a matrix can be. */
static int add_matrix(struct sl_lora *l, struct adapter *ad,
                      const struct sl_tensor_spec *spec, struct sl_error *err)
{
    const struct sl_tensor_row *row = spec->row;
    const char *const whole[] = {row->name, row->alias[0], row->alias[1]};
    char module[SL_TENSOR_SPEC_NAME];
    uint32_t first = 0;

    for (size_t i = 0; i < 3; i++) {
        if (whole[i] == NULL)
            continue;
        module_name(module, whole[i], spec->layer);
        if (add_module(l, ad, module, spec, 0, spec->rows, err) != 0)
            return -1;
    }
    for (size_t i = 0; i < SL_SOURCES && row->parts[i] != NULL; i++) {
        module_name(module, row->parts[i], spec->layer);
        if (add_module(l, ad, module, spec, first, spec->part_rows[i], err) !=
            0)
            return -1;
        first += spec->part_rows[i];
    }
    return 0;
}

/* Whether a tensor belongs to the head or an embedding. */
static bool is_of_vocabulary(const struct sl_lora *l, const char *name)
{
    struct sl_tensor_spec spec;
    char module[SL_TENSOR_SPEC_NAME];

    if (strstr(name, "lora_embedding_") != NULL)
        return true;
    for (uint32_t i = 0; sl_arch_tensor(l->arch, &spec, l->hp, i); i++) {
        const char *const names[] = {spec.row->name, spec.row->alias[0],
                                     spec.row->alias[1]};

        for (size_t k = 0; spec.role == SL_ROLE_EMBED && k < 3; k++) {
            if (names[k] == NULL)
                continue;
            module_name(module, names[k], spec.layer);
            if (strstr(name, module) != NULL)
                return true;
        }
    }
    return false;
}

static int check_all_used(const struct sl_lora *l, const struct adapter *ad,
                          struct sl_error *err)
{
    const struct sl_ckpt_shard *shard = &ad->ckpt.shards[0];

    for (size_t i = 0; i < shard->n_tensors; i++) {
        const char *name = shard->tensors[i].name;

        if (ad->used[i])
            continue;
        if (is_of_vocabulary(l, name))
            return sl_fail(err, SL_ERR_UNSUPPORTED,
                           "%s: tensor %.120s adapts an embedding or the "
                           "output head, which sluice does not",
                           ad->path, name);
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "%s: tensor %.120s belongs to no matrix of a layer of "
                       "%s (%s)",
                       ad->path, name, l->model, l->arch->name);
    }
    if (shard->n_tensors == 0)
        return sl_fail(err, SL_ERR_CORRUPT, "%s: has no tensors", ad->path);
    return 0;
}

static int find_pairs(struct sl_lora *l, struct sl_error *err)
{
    struct sl_tensor_spec spec;
    uint32_t n = 0;

    while (sl_arch_tensor(l->arch, &spec, l->hp, n))
        n++;
    l->pairs =
        sl_alloc_array((size_t)n * SOURCES * l->n_adapters, sizeof *l->pairs);
    if (l->pairs == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory for adapters");
    for (uint32_t i = 0; i < n; i++) {
        sl_arch_tensor(l->arch, &spec, l->hp, i);
        for (size_t k = 0; spec.role == SL_ROLE_LINEAR && k < l->n_adapters;
             k++) {
            if (add_matrix(l, &l->adapters[k], &spec, err) != 0)
                return -1;
        }
    }
    for (size_t k = 0; k < l->n_adapters; k++) {
        if (check_all_used(l, &l->adapters[k], err) != 0)
            return -1;
    }
    return 0;
}

int sl_lora_open(struct sl_lora **out, const struct sl_lora_arg *args, size_t n,
                 const struct sl_arch *arch, const struct sl_hparams *hp,
                 const char *model, const struct sl_log *log,
                 struct sl_error *err)
{
    struct sl_lora *l = calloc(1, sizeof *l);
    int rc = 0;

    if (l == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory for adapters");
    l->arch = arch;
    l->hp = hp;
    l->model = model;
    while (rc == 0 && l->n_adapters < n) {
        rc = open_adapter(&l->adapters[l->n_adapters], &args[l->n_adapters],
                          log, err);
        l->n_adapters++;
    }
    if (rc != 0 || find_pairs(l, err) != 0) {
        sl_lora_close(l);
        sl_error_prefix(err, "--lora: ");
        return -1;
    }
    *out = l;
    return 0;
}

void sl_lora_close(struct sl_lora *l)
{
    if (l == NULL)
        return;
    for (size_t i = 0; i < l->n_adapters; i++) {
        struct adapter *ad = &l->adapters[i];

        if (ad->ckpt.kind != NULL)
            sl_ckpt_close(&ad->ckpt);
        sl_lora_config_fini(&ad->config);
        free(ad->used);
    }
    free(l->pairs);
    free(l);
}

/* --- numbers -------------------------------------------------------------- */

static bool is_of(const struct pair *p, enum sl_slot slot, uint32_t layer)
{
    return p->slot == slot && p->layer == layer;
}

uint32_t sl_lora_rank(const struct sl_lora *l, enum sl_slot slot,
                      uint32_t layer)
{
    uint32_t rank = 0;

    for (size_t i = 0; l != NULL && i < l->n_pairs; i++)
        rank += is_of(&l->pairs[i], slot, layer) ? l->pairs[i].r : 0;
    return rank;
}

/* Where row i of an adapter's B belongs: row r of a head goes to 2 r, behind it
 * the one that it is rotated with. */
static uint64_t row_of(const struct pair *p, uint64_t i)
{
    uint64_t r, half = p->rope_rows / 2;

    if (p->head_rows == 0)
        return i;
    r = i % p->head_rows;
    if (r >= p->rope_rows)
        return i;
    return i - r + (r < half ? 2 * r : 2 * (r - half) + 1);
}

/* A tensor times scale to rows that are stride floats apart; p: whose B it is,
 * NULL: an A. */
static int read_scaled(float *to, size_t stride, const struct sl_ckpt_tensor *t,
                       float scale, const struct pair *p, struct sl_error *err)
{
    uint64_t cols = t->shape[1], step = PIECE / cols;
    uint32_t bytes = sl_dtype_bytes(t->dtype);
    uint8_t *raw;
    int rc = 0;

    step = step > 1 ? step : 1;
    raw = sl_alloc_array(step * cols, bytes);
    if (raw == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory to read %s", t->name);
    for (uint64_t first = 0; rc == 0 && first < t->shape[0]; first += step) {
        uint64_t left = t->shape[0] - first, n = left < step ? left : step;

        rc = sl_ckpt_read_rows(t, raw, first, n, err);
        for (uint64_t i = 0; rc == 0 && i < n * cols; i++) {
            float v = sl_dtype_load(raw + i * bytes, t->dtype);

            uint64_t row = first + i / cols;

            to[(p != NULL ? row_of(p, row) : row) * stride + i % cols] =
                scale * v;
            if (!isfinite(scale * v))
                rc = sl_fail(err, SL_ERR_CORRUPT,
                             "%s: tensor %s has a number that is not finite "
                             "at row %" PRIu64 ", column %" PRIu64,
                             sl_src_name(t->src), t->name, first + i / cols,
                             i % cols);
        }
    }
    free(raw);
    return rc;
}

int sl_lora_read(const struct sl_lora *l, enum sl_slot slot, uint32_t layer,
                 float *a, float *b, struct sl_error *err)
{
    uint32_t rank = sl_lora_rank(l, slot, layer), at = 0;

    for (size_t i = 0; i < l->n_pairs; i++) {
        const struct pair *p = &l->pairs[i];

        if (!is_of(p, slot, layer))
            continue;
        if (at == 0)
            memset(b, 0, (size_t)p->matrix_rows * rank * sizeof *b);
        if (read_scaled(a + (size_t)at * p->a->shape[1], (size_t)p->a->shape[1],
                        p->a, 1, NULL, err) != 0 ||
            read_scaled(b + (size_t)p->first_row * rank + at, rank, p->b,
                        p->scale, p, err) != 0) {
            sl_error_prefix(err, "--lora: ");
            return -1;
        }
        at += p->r;
    }
    return 0;
}
