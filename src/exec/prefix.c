#include "config.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "kernels/matmul.h"
#include "src/arch/settings.h"
#include "src/base/mem.h"
#include "src/ckpt/ckpt.h"
#include "src/exec/prefix.h"

/* Rows of a matrix are read and multiplied in pieces of so many values: 256
 * rows of ChatGLM-6B's, so that many threads have some. */
#define PIECE_VALUES (1u << 20)
/* What reading strided rows takes (ckpt.h). */
#define READ_BYTES (1u << 20)

struct sl_prefix {
    const struct sl_modelfile *mf;
    struct sl_ckpt ckpt;
    const struct sl_ckpt_tensor *embed;
    /* NULL: plain */
    const struct sl_ckpt_tensor *w0, *b0, *w2, *b2;
    uint32_t n;     /* positions */
    uint32_t e, m;  /* values of an embedding, and after the first product */
    uint32_t plane; /* values of a layer's keys */
    uint64_t sum;
};

/* --- what is there --------------------------------------------------------
 */

static const char *file_of(const struct sl_prefix *p)
{
    return p->ckpt.shards[0].file;
}

static const struct sl_ckpt_tensor *look(const struct sl_prefix *p,
                                         const char *leaf)
{
    char name[SL_TENSOR_SPEC_NAME];

    snprintf(name, sizeof name, "%s%s", p->mf->arch->prefix, leaf);
    return sl_ckpt_find(&p->ckpt, 0, name);
}

static int find(const struct sl_ckpt_tensor **t, const struct sl_prefix *p,
                const char *leaf, struct sl_error *err)
{
    *t = look(p, leaf);
    if (*t == NULL)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "%s: has no tensor %s%s: not a P-Tuning v2 prefix of "
                       "%s",
                       file_of(p), p->mf->arch->prefix, leaf,
                       p->mf->arch->what);
    switch ((*t)->dtype) {
    case SL_DT_F32:
    case SL_DT_F16:
    case SL_DT_BF16:
    case SL_DT_F64:
        return 0;
    default:
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "%s: tensor %s is %s; a prefix is of floats", file_of(p),
                       (*t)->name, sl_dtype_name((*t)->dtype));
    }
}

/* cols 0: a vector. */
static int check_shape(const struct sl_prefix *p,
                       const struct sl_ckpt_tensor *t, uint64_t rows,
                       uint64_t cols, struct sl_error *err)
{
    uint64_t r = t->n_dims > 0 ? t->shape[0] : 0;
    uint64_t c = t->n_dims > 1 ? t->shape[1] : 0;

    if (t->n_dims == (cols > 0 ? 2u : 1u) && r == rows && c == cols)
        return 0;
    return sl_fail(err, SL_ERR_CORRUPT,
                   "%s: tensor %s is %" PRIu64 " x %" PRIu64 ", not %" PRIu64
                   " x %" PRIu64,
                   file_of(p), t->name, r, c > 0 ? c : 1, rows,
                   cols > 0 ? cols : 1);
}

/* The prefix has keys and values for as many values a position as these. */
static int check_width(const struct sl_prefix *p,
                       const struct sl_ckpt_tensor *t, uint64_t width,
                       struct sl_error *err)
{
    const struct sl_hparams *hp = &p->mf->hp;
    uint64_t want = 2ull * hp->n_layers * p->plane;

    if (width == want)
        return 0;
    return sl_fail(err, SL_ERR_CORRUPT,
                   "%s: tensor %s gives %" PRIu64 " values a position, but %s "
                   "takes %" PRIu64 " (%" PRIu32 " layers, 2 x %" PRIu32
                   " values each): a prefix of another model",
                   file_of(p), t->name, width, p->mf->path, want, hp->n_layers,
                   p->plane);
}

static int find_projection(struct sl_prefix *p, struct sl_error *err)
{
    if (find(&p->w0, p, "trans.0.weight", err) != 0 ||
        find(&p->b0, p, "trans.0.bias", err) != 0 ||
        find(&p->w2, p, "trans.2.weight", err) != 0 ||
        find(&p->b2, p, "trans.2.bias", err) != 0)
        return -1;
    if (p->w0->n_dims != 2 || p->w2->n_dims != 2 || p->w0->shape[0] == 0 ||
        p->w0->shape[0] > INT32_MAX)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "%s: tensors %s and %s are no matrices", file_of(p),
                       p->w0->name, p->w2->name);
    p->m = (uint32_t)p->w0->shape[0];
    if (check_width(p, p->w2, p->w2->shape[0], err) != 0 ||
        check_shape(p, p->w0, p->m, p->e, err) != 0 ||
        check_shape(p, p->b0, p->m, 0, err) != 0 ||
        check_shape(p, p->w2, p->w2->shape[0], p->m, err) != 0)
        return -1;
    return check_shape(p, p->b2, p->w2->shape[0], 0, err);
}

static int find_tensors(struct sl_prefix *p, struct sl_error *err)
{
    if (find(&p->embed, p, "embedding.weight", err) != 0)
        return -1;
    if (p->embed->n_dims != 2 || p->embed->shape[0] == 0 ||
        p->embed->shape[0] > INT32_MAX / 2 || p->embed->shape[1] == 0 ||
        p->embed->shape[1] > INT32_MAX)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "%s: tensor %s is no matrix of positions", file_of(p),
                       p->embed->name);
    p->n = (uint32_t)p->embed->shape[0];
    p->e = (uint32_t)p->embed->shape[1];
    return look(p, "trans.0.weight") != NULL ||
                   look(p, "trans.2.weight") != NULL
               ? find_projection(p, err)
               : check_width(p, p->embed, p->e, err);
}

static int compare_settings(const struct sl_prefix *p,
                            const struct sl_settings *s, struct sl_error *err)
{
    bool projects = p->w0 != NULL, said = projects;
    uint32_t n = p->n;

    if (sl_settings_u32(&n, s, "pre_seq_len", SL_SETTING_OPTIONAL, err) != 0 ||
        sl_settings_bool(&said, s, "prefix_projection", SL_SETTING_OPTIONAL,
                         err) != 0)
        return -1;
    if (n == p->n && said == projects)
        return 0;
    return sl_fail(err, SL_ERR_CORRUPT,
                   "%s: pre_seq_len is %" PRIu32 " and prefix_projection %s, "
                   "but %s has %" PRIu32 " positions and %s projection",
                   sl_settings_file(s), n, said ? "true" : "false", file_of(p),
                   p->n, projects ? "a" : "no");
}

/* What a config.json beside says must be so. */
static int check_settings(const struct sl_prefix *p, const char *path,
                          struct sl_error *err)
{
    struct sl_settings *s;
    char name[1024];
    uint8_t *text;
    size_t n;
    int rc = sl_ckpt_read_file(&p->ckpt, "config.json", &text, &n, err);

    if (rc != 0)
        return rc > 0 ? 0 : -1;
    snprintf(name, sizeof name, "%s/config.json", path);
    rc = sl_settings_parse(&s, (const char *)text, n, name, err);
    free(text);
    if (rc != 0)
        return -1;
    rc = compare_settings(p, s, err);
    sl_settings_close(s);
    return rc;
}

int sl_prefix_open(struct sl_prefix **out, const char *path,
                   const struct sl_modelfile *mf, const struct sl_log *log,
                   struct sl_error *err)
{
    struct sl_prefix *p;

    if (mf->arch->prefix == NULL)
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "--prefix %s: %s is of architecture %s, which takes no "
                       "P-Tuning v2 prefix",
                       path, mf->path, mf->arch->name);
    p = calloc(1, sizeof *p);
    if (p == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "prefix: no memory");
    p->mf = mf;
    p->plane = mf->hp.n_kv_heads * mf->hp.head_dim;
    if (sl_ckpt_open(&p->ckpt, path, log, err) != 0) {
        free(p);
        sl_error_prefix(err, "--prefix: ");
        return -1;
    }
    if (find_tensors(p, err) != 0 || check_settings(p, path, err) != 0) {
        sl_prefix_close(p);
        sl_error_prefix(err, "--prefix: ");
        return -1;
    }
    *out = p;
    return 0;
}

void sl_prefix_close(struct sl_prefix *p)
{
    if (p == NULL)
        return;
    sl_ckpt_close(&p->ckpt);
    free(p);
}

uint32_t sl_prefix_positions(const struct sl_prefix *p)
{
    return p != NULL ? p->n : 0;
}

uint64_t sl_prefix_sum(const struct sl_prefix *p)
{
    return p != NULL ? p->sum : 0;
}

/* --- filling --------------------------------------------------------------
 */

/* What is at hand meanwhile. */
struct work {
    struct sl_prefix *p;
    const struct sl_kernels *k;
    struct sl_pool *pool;
    struct sl_region region;
    float *embedded; /* (n, e); projected only, as is what follows */
    float *hidden;   /* (n, m) */
    float *plane;    /* (n, plane) */
    float *piece;    /* rows of a matrix, or of the embedding's columns */
    uint8_t *raw;    /* the same as they are stored */
    float *bias;     /* of those rows */
};

/* Rows of a matrix with so many columns in a piece, of at most n. */
static uint32_t piece_rows(uint32_t cols, uint32_t n)
{
    uint32_t rows = PIECE_VALUES / cols;

    rows = rows > 1 ? rows : 1;
    return rows < n ? rows : n;
}

/* Of the largest piece of either matrix; plain: of the columns of a plane. */
static uint64_t piece_values(const struct sl_prefix *p)
{
    uint64_t first, second;

    if (p->w0 == NULL)
        return (uint64_t)p->n * p->plane;
    first = (uint64_t)piece_rows(p->e, p->m) * p->e;
    second = (uint64_t)piece_rows(p->m, p->plane) * p->m;
    return first > second ? first : second;
}

/* Of the widest type that one of them is stored in. */
static uint32_t raw_bytes(const struct sl_prefix *p)
{
    const struct sl_ckpt_tensor *all[] = {p->embed, p->w0, p->b0, p->w2, p->b2};
    uint32_t most = 0;

    for (size_t i = 0; i < sizeof all / sizeof *all && all[i] != NULL; i++) {
        uint32_t bytes = sl_dtype_bytes(all[i]->dtype);

        most = bytes > most ? bytes : most;
    }
    return most;
}

static void carve_all(struct work *w, struct sl_carver *c,
                      const struct sl_prefix *p)
{
    bool projects = p->w0 != NULL;

    w->embedded =
        sl_carve(c, projects ? (uint64_t)p->n * p->e : 0, sizeof(float));
    w->hidden =
        sl_carve(c, projects ? (uint64_t)p->n * p->m : 0, sizeof(float));
    w->plane = sl_carve(c, (uint64_t)p->n * p->plane, sizeof(float));
    w->piece = sl_carve(c, piece_values(p), sizeof(float));
    w->raw = sl_carve(c, piece_values(p), raw_bytes(p));
    w->bias = sl_carve(c, projects ? p->m + p->plane : 0, sizeof(float));
}

uint64_t sl_prefix_bytes(const struct sl_prefix *p)
{
    struct sl_carver c = {NULL, 0};
    struct work counted;

    if (p == NULL)
        return 0;
    carve_all(&counted, &c, p);
    return c.used + READ_BYTES;
}

/* (n, n_cols) floats of a block of a tensor; all finite. */
static int read_floats(struct work *w, float *to,
                       const struct sl_ckpt_tensor *t, uint64_t first,
                       uint64_t n, uint64_t first_col, uint64_t n_cols,
                       struct sl_error *err)
{
    uint32_t bytes = sl_dtype_bytes(t->dtype);

    if (sl_ckpt_read_block(t, w->raw, first, n, first_col, n_cols, err) != 0)
        return -1;
    for (uint64_t i = 0; i < n * n_cols; i++) {
        to[i] = sl_dtype_load(w->raw + i * bytes, t->dtype);
        if (!isfinite(to[i]))
            return sl_fail(err, SL_ERR_CORRUPT,
                           "%s: tensor %s has a number that is not finite at "
                           "row %" PRIu64 ", column %" PRIu64,
                           file_of(w->p), t->name, first + i / n_cols,
                           first_col + i % n_cols);
    }
    return 0;
}

/* out (n, n_rows) = in (n, cols) by rows [first, first + n_rows) of t, with
 * their bias. */
static int multiply(struct work *w, float *out, const float *in, uint32_t cols,
                    const struct sl_ckpt_tensor *t,
                    const struct sl_ckpt_tensor *bias, uint64_t first,
                    uint32_t n_rows, struct sl_error *err)
{
    const struct sl_acts acts = {
        .n = w->p->n, .cols = cols, .x = in, .x_stride = cols};
    uint32_t step = piece_rows(cols, n_rows);

    for (uint32_t at = 0; at < n_rows; at += step) {
        uint32_t rows = n_rows - at < step ? n_rows - at : step;
        const struct sl_matrix m = {SL_FMT_F32, rows, cols, 1, 0};
        const struct sl_matmul mm = {
            .m = &m,
            .n_blocks = sl_matrix_segment_blocks(&m),
            .w = {w->piece},
            .bias = w->bias,
        };

        if (read_floats(w, w->piece, t, first + at, rows, 0, cols, err) != 0 ||
            read_floats(w, w->bias, bias, first + at, rows, 0, 1, err) != 0)
            return -1;
        sl_matmul_run(w->k, w->pool, out + at, n_rows, &mm, &acts, SL_ACT_F32);
    }
    return 0;
}

static int make_hidden(struct work *w, struct sl_error *err)
{
    const struct sl_prefix *p = w->p;

    if (p->w0 == NULL)
        return 0;
    for (uint32_t i = 0; i < p->n; i++) {
        if (read_floats(w, w->embedded + (size_t)i * p->e, p->embed, i, 1, 0,
                        p->e, err) != 0)
            return -1;
    }
    if (multiply(w, w->hidden, w->embedded, p->e, p->w0, p->b0, 0, p->m, err))
        return -1;
    for (size_t i = 0; i < (size_t)p->n * p->m; i++)
        w->hidden[i] = tanhf(w->hidden[i]);
    return 0;
}

/* Values [first, first + plane) of all positions. */
static int make_plane(struct work *w, uint64_t first, struct sl_error *err)
{
    const struct sl_prefix *p = w->p;

    if (p->w0 == NULL)
        return read_floats(w, w->plane, p->embed, 0, p->n, first, p->plane,
                           err);
    return multiply(w, w->plane, w->hidden, p->m, p->w2, p->b2, first, p->plane,
                    err);
}

static int fill(struct work *w, struct sl_kv *kv, struct sl_error *err)
{
    struct sl_prefix *p = w->p;
    uint64_t sum = p->n;

    if (make_hidden(w, err) != 0)
        return -1;
    for (uint32_t i = 0; i < 2 * p->mf->hp.n_layers; i++) {
        if (make_plane(w, (uint64_t)i * p->plane, err) != 0 ||
            sl_kv_begin_put(kv, w->k, i / 2, i % 2, w->plane, err) != 0)
            return -1;
        sum = XXH3_64bits_withSeed(
            w->plane, (size_t)p->n * p->plane * sizeof *w->plane, sum);
    }
    p->sum = sum != 0 ? sum : 1;
    return 0;
}

int sl_prefix_fill(struct sl_prefix *p, struct sl_kv *kv,
                   const struct sl_kernels *k, struct sl_pool *pool,
                   struct sl_error *err)
{
    struct work w = {.p = p, .k = k, .pool = pool};
    struct sl_carver counter = {NULL, 0}, carver = {NULL, 0};
    int rc;

    carve_all(&w, &counter, p);
    if (sl_region_init(&w.region, counter.used, "the prefix", err) != 0)
        return -1;
    carver.base = w.region.base;
    carve_all(&w, &carver, p);
    rc = fill(&w, kv, err);
    if (rc == 0)
        rc = sl_ckpt_check_rest(&p->ckpt, err);
    sl_region_fini(&w.region);
    if (rc != 0)
        sl_error_prefix(err, "--prefix: ");
    return rc;
}
