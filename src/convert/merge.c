#include "config.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "quant/blocks.h"
#include "src/base/bytes.h"
#include "src/base/half.h"
#include "src/convert/merge.h"
#include "src/convert/published.h"

#define NAME_ROOM 96

static bool is_float(enum sl_dtype dt)
{
    return dt == SL_DT_F16 || dt == SL_DT_F32 || dt == SL_DT_BF16 ||
           dt == SL_DT_F64;
}

/* "…weight" -> "…weight_scale" */
static void scale_name(char name[NAME_ROOM], const struct sl_merge_source *s)
{
    snprintf(name, NAME_ROOM, "%s_scale", s->name);
}

/* Runs of rows of which every shard holds an equal part. */
static uint32_t divisions(const struct sl_tensor_spec *s)
{
    return s->split == SL_SPLIT_GLU ? 2 : s->split == SL_SPLIT_QKV ? 3 : 1;
}

/* How much of a source's rows and columns each of n shards holds. */
static int share(uint64_t *rows, uint64_t *cols, const struct sl_merge *m,
                 const struct sl_merge_source *source, struct sl_error *err)
{
    const struct sl_tensor_spec *s = &m->spec;
    uint64_t n = m->ckpt->n_shards;
    uint64_t cut =
        s->split == SL_SPLIT_COLS ? s->cols : source->rows / divisions(s);

    *rows = source->rows;
    *cols = sl_merge_by_heads(s) ? s->part_rows[2] : s->cols;
    if (s->split == SL_SPLIT_NONE || sl_merge_by_heads(s))
        return 0;
    if (cut % n != 0)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "tensor %s: %" PRIu64 " %s cannot be held in equal "
                       "parts by %" PRIu64 " shards",
                       source->name, cut,
                       s->split == SL_SPLIT_COLS ? "columns" : "rows", n);
    if (s->split == SL_SPLIT_COLS)
        *cols /= n;
    else
        *rows /= n;
    return 0;
}

static void print_shape(char text[128], const struct sl_ckpt_tensor *t)
{
    size_t n = 0;

    text[0] = '\0';
    for (uint32_t i = 0; i < t->n_dims && n < 100; i++)
        n += (size_t)snprintf(text + n, 128 - n, "%s%" PRIu64, i ? " x " : "",
                              t->shape[i]);
}

static int wrong_shape(const struct sl_merge *m, size_t shard,
                       const struct sl_ckpt_tensor *t, uint64_t rows,
                       uint64_t cols, struct sl_error *err)
{
    char shape[128], want[64];

    print_shape(shape, t);
    if (cols > 0)
        snprintf(want, sizeof want, "%" PRIu64 " x %" PRIu64, rows, cols);
    else
        snprintf(want, sizeof want, "%" PRIu64, rows);
    return sl_fail(err, SL_ERR_CORRUPT,
                   "%s: tensor %s is %s; a shard of %zu must have %s. Are the "
                   "model's sizes right?",
                   m->ckpt->shards[shard].file, t->name, shape,
                   m->ckpt->n_shards, want);
}

/* cols 0: a tensor of one dimension. */
static bool has_shape(const struct sl_ckpt_tensor *t, uint64_t rows,
                      uint64_t cols)
{
    if (cols == 0)
        return t->n_dims == 1 && t->shape[0] == rows;
    return t->n_dims == 2 && t->shape[0] == rows && t->shape[1] == cols;
}

static int find(const struct sl_ckpt_tensor **t, const struct sl_merge *m,
                size_t shard, const char *name, struct sl_error *err)
{
    *t = sl_ckpt_find(m->ckpt, shard, name);
    if (*t != NULL)
        return 0;
    return sl_fail(err, SL_ERR_CORRUPT,
                   "%s: tensor %s is missing (the file has %zu tensors). Is "
                   "the number of layers right?",
                   m->ckpt->shards[shard].file, name,
                   m->ckpt->shards[shard].n_tensors);
}

static int check_scale(const struct sl_merge *m,
                       const struct sl_merge_source *source, size_t shard,
                       uint64_t rows, struct sl_error *err)
{
    const struct sl_ckpt_tensor *t;
    char name[NAME_ROOM];

    scale_name(name, source);
    if (find(&t, m, shard, name, err) != 0)
        return -1;
    if (!has_shape(t, rows, 0))
        return wrong_shape(m, shard, t, rows, 0, err);
    if (t->dtype != SL_DT_F16)
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "%s: tensor %s is %s; scales of a quantised checkpoint "
                       "are f16",
                       m->ckpt->shards[shard].file, name,
                       sl_dtype_name(t->dtype));
    return 0;
}

static bool has_scale(const struct sl_merge *m,
                      const struct sl_merge_source *source, size_t shard)
{
    char name[NAME_ROOM];

    scale_name(name, source);
    return sl_ckpt_find(m->ckpt, shard, name) != NULL;
}

/* Of so many values of a row as they are stored. */
static uint64_t wire_bytes(enum sl_dtype dt, uint64_t cols)
{
    return cols / sl_dtype_block_values(dt) * sl_dtype_bytes(dt);
}

/* One shard's part of a source: shape and type; *fmt is what it is on its
 * own. */
static int check_part(enum sl_fmt *fmt, struct sl_merge *m,
                      const struct sl_merge_source *source, size_t shard,
                      uint64_t rows, uint64_t cols, struct sl_error *err)
{
    bool vector = m->spec.role == SL_ROLE_VECTOR;
    const struct sl_ckpt_tensor *t;
    uint64_t wire;

    if (find(&t, m, shard, source->name, err) != 0)
        return -1;
    wire = wire_bytes(t->dtype, cols);
    m->wire_bytes = wire > m->wire_bytes ? wire : m->wire_bytes;
    if (sl_dtype_blocks(fmt, t->dtype) && !vector)
        return has_shape(t, rows, cols)
                   ? 0
                   : wrong_shape(m, shard, t, rows, cols, err);
    if (is_float(t->dtype)) {
        *fmt = t->dtype == SL_DT_F16    ? SL_FMT_F16
               : t->dtype == SL_DT_BF16 ? SL_FMT_BF16
                                        : SL_FMT_F32;
        if (!has_shape(t, rows, vector ? 0 : cols))
            return wrong_shape(m, shard, t, rows, vector ? 0 : cols, err);
        return 0;
    }
    if (t->dtype != SL_DT_I8 || vector ||
        (m->spec.role == SL_ROLE_EMBED && !has_scale(m, source, shard)))
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "%s: tensor %s is of type %s; %s are needed",
                       m->ckpt->shards[shard].file, t->name,
                       sl_dtype_name(t->dtype),
                       vector ? "f16, f32, bf16 or f64"
                              : "f16, f32, bf16, f64, or int8 with scales");
    *fmt = SL_FMT_INT8;
    if (cols % 2 == 0 && has_shape(t, rows, cols / 2))
        *fmt = SL_FMT_INT4;
    else if (!has_shape(t, rows, cols))
        return wrong_shape(m, shard, t, rows, cols, err);
    return check_scale(m, source, shard, rows, err);
}

static bool has(const struct sl_ckpt *c, const char *of,
                const struct sl_tensor_spec *spec)
{
    char name[SL_TENSOR_SPEC_NAME];

    sl_arch_spec_name(name, of, spec);
    return sl_ckpt_find(c, 0, name) != NULL;
}

/* The names that a row of the table can have in this checkpoint. */
struct names {
    const char *whole[3]; /* NULL: none */
    const char *const *parts;
};

static struct names names_of(const struct sl_ckpt *c,
                             const struct sl_tensor_row *row)
{
    if (sl_ckpt_gguf(c) != NULL)
        return (struct names){{row->gguf[0], row->gguf[1]}, row->gguf_parts};
    return (struct names){{row->name, row->alias[0], row->alias[1]},
                          row->parts};
}

static void take_parts(struct sl_merge *m, const char *const *parts)
{
    while (m->n_sources < SL_SOURCES && parts[m->n_sources] != NULL) {
        sl_arch_spec_name(m->source[m->n_sources].name, parts[m->n_sources],
                          &m->spec);
        m->source[m->n_sources].rows = m->spec.part_rows[m->n_sources];
        m->n_sources++;
    }
}

/* Under which names the checkpoint holds the tensor: the first that it has;
 * its parts, or else the first name, where it has none, which is then
 * missed. (A GGUF's ffn_up is all of the matrix where there is no
 * ffn_gate.) */
static void find_sources(struct sl_merge *m)
{
    const struct sl_tensor_spec *s = &m->spec;
    const struct names names = names_of(m->ckpt, s->row);
    const char *name = NULL;

    for (unsigned i = 0; i < 3; i++) {
        if (name == NULL && names.whole[i] != NULL &&
            has(m->ckpt, names.whole[i], s))
            name = names.whole[i];
    }
    if (names.parts[0] != NULL &&
        (name == NULL || has(m->ckpt, names.parts[0], s))) {
        take_parts(m, names.parts);
        return;
    }
    m->n_sources = 1;
    m->source[0].rows = sl_merge_by_heads(s) ? sl_merge_head_rows(s) : s->rows;
    sl_arch_spec_name(m->source[0].name, name != NULL ? name : names.whole[0],
                      s);
}

/* INT8 or INT4 with scales of their own. */
static bool is_scaled(enum sl_fmt fmt)
{
    return sl_fmt_has_scales(fmt);
}

/* What all parts so far are, and one more. */
static int add_format(struct sl_merge *m, enum sl_fmt fmt, bool first,
                      const struct sl_merge_source *source, size_t shard,
                      struct sl_error *err)
{
    if (first)
        m->fmt = fmt;
    if (fmt == m->fmt)
        return 0;
    if (is_scaled(fmt) || is_scaled(m->fmt))
        return sl_fail(err, SL_ERR_CORRUPT,
                       "%s: tensor %s is quantised otherwise than %s in %s",
                       m->ckpt->shards[shard].file, source->name,
                       m->source[0].name, m->ckpt->shards[0].file);
    m->mixed_blocks |= sl_fmt_has_blocks(fmt) || sl_fmt_has_blocks(m->fmt);
    m->fmt = SL_FMT_F32; /* which holds all others, blocks too */
    return 0;
}

/* How many shards have a part of it; where each has all, the first counts. */
static size_t n_shards(const struct sl_merge *m)
{
    bool one = m->spec.split == SL_SPLIT_NONE || sl_merge_by_heads(&m->spec);

    return one ? 1 : m->ckpt->n_shards;
}

static int check_sources(struct sl_merge *m, struct sl_error *err)
{
    size_t n = n_shards(m);
    uint64_t rows, cols;

    for (unsigned i = 0; i < m->n_sources; i++) {
        const struct sl_merge_source *source = &m->source[i];

        if (share(&rows, &cols, m, source, err) != 0)
            return -1;
        for (size_t shard = 0; shard < n; shard++) {
            enum sl_fmt fmt = SL_FMT_F32;

            if (check_part(&fmt, m, source, shard, rows, cols, err) != 0 ||
                add_format(m, fmt, i == 0 && shard == 0, source, shard, err))
                return -1;
        }
    }
    return 0;
}

int sl_merge_init(struct sl_merge *m, const struct sl_ckpt *c,
                  const struct sl_tensor_spec *spec, struct sl_error *err)
{
    struct sl_merge made = {.ckpt = c, .spec = *spec};

    /* A GGUF file has keys and values of heads apart already. */
    if (sl_ckpt_gguf(c) != NULL && sl_merge_by_heads(spec))
        made.spec.split = SL_SPLIT_NONE;
    find_sources(&made);
    if (check_sources(&made, err) != 0)
        return -1;
    if (!sl_fmt_is_float(made.fmt) && sl_merge_by_heads(&made.spec))
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "tensor %s is quantised: of keys and values of heads, "
                       "numbers are needed",
                       made.source[0].name);
    if (is_scaled(made.fmt))
        made.n_groups =
            spec->split == SL_SPLIT_COLS ? (uint32_t)c->n_shards : 1;
    *m = made;
    return 0;
}

size_t sl_merge_n_parts(const struct sl_merge *m)
{
    return m->n_sources * n_shards(m) * (m->n_groups > 0 ? 2 : 1);
}

const struct sl_ckpt_tensor *sl_merge_part(const struct sl_merge *m, size_t i,
                                           size_t *shard)
{
    size_t n = n_shards(m), all = m->n_sources * n;
    const struct sl_merge_source *source = &m->source[i % all / n];
    char name[NAME_ROOM];

    *shard = i % n;
    if (i < all)
        return sl_ckpt_find(m->ckpt, *shard, source->name);
    scale_name(name, source);
    return sl_ckpt_find(m->ckpt, *shard, name);
}

/* As handed out: of INT4 a byte, too. */
static uint32_t element_bytes(const struct sl_merge *m)
{
    return sl_fmt_of(m->fmt)->elem_bytes;
}

void sl_merge_decode(struct sl_merge *m)
{
    if (sl_fmt_has_blocks(m->fmt))
        m->fmt = SL_FMT_F32;
}

uint64_t sl_merge_row_bytes(const struct sl_merge *m)
{
    if (sl_fmt_has_blocks(m->fmt))
        return sl_published_bytes(m->fmt, m->spec.cols);
    return (uint64_t)m->spec.cols * element_bytes(m);
}

uint64_t sl_merge_scratch_bytes(const struct sl_merge *m, uint64_t n)
{
    /* A head's rows come together. */
    if (sl_merge_by_heads(&m->spec) && n < m->spec.part_rows[0])
        n = m->spec.part_rows[0];
    return n * (m->wire_bytes > 2 ? m->wire_bytes : 2); /* 2: of a scale */
}

/* n elements as stored to n elements as handed out. in and out may be the
 * same where neither side is wider. */
static void convert(uint8_t *out, const uint8_t *in, uint64_t n,
                    enum sl_dtype dt, enum sl_fmt fmt)
{
    if (fmt == SL_FMT_INT4) {
        for (uint64_t i = 0; i < n; i++) {
            uint8_t four = in[i / 2] >> (i % 2 ? 0 : 4) & 15;

            out[i] = (uint8_t)((four ^ 8) - 8); /* the sign, to all bits */
        }
        return;
    }
    if (fmt != SL_FMT_F32 || dt == SL_DT_F32) {
        memcpy(out, in, n * sl_fmt_of(fmt)->elem_bytes);
        return;
    }
    for (uint64_t i = 0; i < n; i++) {
        float f = sl_dtype_load(in + i * sl_dtype_bytes(dt), dt);

        memcpy(out + i * 4, &f, sizeof f);
    }
}

/* Rows of blocks, as they are or decoded. */
static int read_blocks(const struct sl_merge *m, const struct sl_ckpt_tensor *t,
                       enum sl_fmt fmt, uint8_t *out, uint64_t first,
                       uint64_t n, uint8_t *scratch, struct sl_error *err)
{
    bool decodes = m->fmt != fmt;
    uint8_t *to = decodes ? scratch : out;
    uint32_t cols = m->spec.cols;
    uint64_t wire = wire_bytes(t->dtype, cols), bad;

    if (sl_ckpt_read_rows(t, to, first, n, err) != 0)
        return -1;
    for (uint64_t r = 0; r < n; r++) {
        if (!sl_published_finite(&bad, fmt, to + r * wire, cols))
            return sl_fail(err, SL_ERR_CORRUPT,
                           "%s: tensor %s: in row %" PRIu64
                           " the scales of column %" PRIu64
                           " and those behind it are infinite or no numbers",
                           sl_src_name(t->src), t->name, first + r, bad);
        if (decodes)
            sl_blocks_decode((float *)(void *)(out + r * cols * sizeof(float)),
                             fmt, to + r * wire, cols);
    }
    return 0;
}

/* Rows [first, first + n) of one shard's part of a source, to columns from
 * col on. */
static int read_part(const struct sl_merge *m,
                     const struct sl_merge_source *source, uint8_t *out,
                     uint64_t col, size_t shard, uint64_t first, uint64_t n,
                     uint8_t *scratch, struct sl_error *err)
{
    const struct sl_ckpt_tensor *t = sl_ckpt_find(m->ckpt, shard, source->name);
    uint64_t cols = t->n_dims == 2 ? t->shape[1] : 1;
    uint64_t wire = cols * sl_dtype_bytes(t->dtype);
    uint64_t row = sl_merge_row_bytes(m), part;
    enum sl_fmt blocks;
    bool same =
        m->fmt != SL_FMT_INT4 && sl_dtype_bytes(t->dtype) == element_bytes(m);

    if (sl_dtype_blocks(&blocks, t->dtype))
        return read_blocks(m, t, blocks, out, first, n, scratch, err);
    if (m->fmt == SL_FMT_INT4)
        cols *= 2;
    part = cols * element_bytes(m);
    if (same && part == row)
        return sl_ckpt_read_rows(t, out, first, n, err);
    if (sl_ckpt_read_rows(t, scratch, first, n, err) != 0)
        return -1;
    out += col * element_bytes(m);
    for (uint64_t r = 0; r < n; r++)
        convert(out + r * row, scratch + r * wire, cols, t->dtype, m->fmt);
    return 0;
}

/* One scale that is no number would spoil a row without a word. */
static int check_scales(const struct sl_ckpt_tensor *t, const uint8_t *scale,
                        uint64_t first, uint64_t n, struct sl_error *err)
{
    for (uint64_t i = 0; i < n; i++) {
        uint16_t bits = sl_load_u16(scale + 2 * i);

        if ((bits & 0x7c00) == 0x7c00 || (bits > 0x8000))
            return sl_fail(err, SL_ERR_CORRUPT,
                           "%s: tensor %s: value %" PRIu64
                           " is %g; a scale must be a number from 0 on",
                           sl_src_name(t->src), t->name, first + i,
                           (double)sl_half_to_float(bits));
    }
    return 0;
}

/* The scales of the same rows, as group `group` of n_groups. */
static int read_scales(const struct sl_merge *m,
                       const struct sl_merge_source *source, uint16_t *out,
                       uint32_t group, size_t shard, uint64_t first, uint64_t n,
                       uint8_t *scratch, struct sl_error *err)
{
    const struct sl_ckpt_tensor *t;
    char name[NAME_ROOM];

    scale_name(name, source);
    t = sl_ckpt_find(m->ckpt, shard, name);
    if (sl_ckpt_read_rows(t, scratch, first, n, err) != 0 ||
        check_scales(t, scratch, first, n, err) != 0)
        return -1;
    for (uint64_t r = 0; r < n; r++)
        memcpy(&out[r * m->n_groups + group], scratch + r * 2, 2);
    return 0;
}

static int read_columns(const struct sl_merge *m, uint8_t *out, uint16_t *scale,
                        uint64_t first, uint64_t n, uint8_t *scratch,
                        struct sl_error *err)
{
    uint64_t cols = m->spec.cols / m->ckpt->n_shards;

    for (size_t shard = 0; shard < m->ckpt->n_shards; shard++) {
        if (read_part(m, m->source, out, shard * cols, shard, first, n, scratch,
                      err) != 0)
            return -1;
        if (scale != NULL && read_scales(m, m->source, scale, (uint32_t)shard,
                                         shard, first, n, scratch, err) != 0)
            return -1;
    }
    return 0;
}

/* Where a row of the merged tensor is. */
struct place {
    const struct sl_merge_source *source;
    size_t shard;
    uint64_t local; /* row of the shard's part */
    uint64_t run;   /* rows that follow there, this one counted */
};

static struct place locate(const struct sl_merge *m, uint64_t row)
{
    uint64_t n = m->spec.split == SL_SPLIT_NONE ? 1 : m->ckpt->n_shards;
    const struct sl_merge_source *s = m->source;
    uint64_t run, part, which, within;

    for (; row >= s->rows; s++)
        row -= s->rows;
    run = s->rows / divisions(&m->spec);
    part = run / n;
    which = row / run;
    within = row % run;
    return (struct place){
        .source = s,
        .shard = (size_t)(within / part),
        .local = which * part + within % part,
        .run = part - within % part,
    };
}

static int read_rows(const struct sl_merge *m, uint8_t *out, uint16_t *scale,
                     uint64_t first, uint64_t n, uint8_t *scratch,
                     struct sl_error *err)
{
    while (n > 0) {
        struct place at = locate(m, first);
        uint64_t run = at.run < n ? at.run : n;

        if (read_part(m, at.source, out, 0, at.shard, at.local, run, scratch,
                      err) != 0)
            return -1;
        out += run * sl_merge_row_bytes(m);
        if (scale != NULL) {
            if (read_scales(m, at.source, scale, 0, at.shard, at.local, run,
                            scratch, err) != 0)
                return -1;
            scale += run * m->n_groups;
        }
        first += run;
        n -= run;
    }
    return 0;
}

int sl_merge_read(const struct sl_merge *m, void *out, uint16_t *scale,
                  uint64_t first, uint64_t n, void *scratch,
                  struct sl_error *err)
{
    int rc;

    if (sl_merge_by_heads(&m->spec))
        rc = sl_merge_read_heads(m, out, first, n, scratch, err);
    else if (m->spec.split == SL_SPLIT_COLS)
        rc = read_columns(m, out, scale, first, n, scratch, err);
    else
        rc = read_rows(m, out, scale, first, n, scratch, err);
    if (rc != 0)
        sl_error_prefix(err, "tensor %s: ", m->spec.name);
    return rc;
}
