#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "src/base/bytes.h"
#include "src/base/mem.h"
#include "src/model/model_hparams.h"
#include "src/model/model_meta.h"

#define KEY_HEADER_SUM "sluice.header.xxh3"
#define KEY_PLANES     "sluice.section.planes"
#define KEY_CHAT       "sluice.chat.template"
#define KEY_NO_TEXT    "sluice.tokenizer.missing"
/* The format of an INT8 matrix in two planes, which is none of quant/fmt.h. */
#define FORMAT_PLANES "int8-planes"

/* The architecture's name comes first, as GGUF asks for it: readers name all
 * other keys by it. */
static void write_model(struct sl_gguf_writer *w, const struct sl_layout *l)
{
    sl_gguf_add_string(w, "general.architecture", l->arch->name);
    sl_gguf_add_string(w, "general.name", l->name);
    sl_model_hparams_write(w, l->arch, &l->hp);
    sl_gguf_add_u32(w, "sluice.version",
                    l->tables ? SL_MODEL_VERSION_COMPRESSED : SL_MODEL_VERSION);
    sl_gguf_add_string(w, "sluice.layout", SL_LAYOUT_NAME);
    sl_gguf_add_string(w, "sluice.quantization", l->quant);
    if (l->chat != NULL)
        sl_gguf_add_string(w, KEY_CHAT, l->chat);
    if (l->no_text != NULL)
        sl_gguf_add_string(w, KEY_NO_TEXT, l->no_text);
    sl_model_text_write(w, &l->hp.text);
    sl_model_sampling_write(w, &l->hp.sampling);
}

/* The columns of a table, each an array of the metadata. */
struct columns {
    const char **name, **format;
    uint64_t *v[5];
};

static bool columns_init(struct columns *c, size_t n)
{
    bool ok;

    c->name = sl_alloc_array(n, sizeof *c->name);
    c->format = sl_alloc_array(n, sizeof *c->format);
    ok = c->name != NULL && c->format != NULL;
    for (size_t i = 0; i < 5; i++) {
        c->v[i] = sl_alloc_array(n, sizeof **c->v);
        ok = ok && c->v[i] != NULL;
    }
    return ok;
}

static void columns_fini(struct columns *c)
{
    free(c->name);
    free(c->format);
    for (size_t i = 0; i < 5; i++)
        free(c->v[i]);
}

static void write_matrices(struct sl_gguf_writer *w, const struct sl_layout *l,
                           struct columns *c)
{
    size_t n = l->n_matrices;

    for (size_t i = 0; i < n; i++) {
        const struct sl_model_matrix *m = &l->matrices[i];

        c->name[i] = m->spec.name;
        c->format[i] =
            m->low_bytes > 0 ? FORMAT_PLANES : sl_fmt_name(m->geom.fmt);
        c->v[0][i] = m->geom.rows;
        c->v[1][i] = m->geom.cols;
        c->v[2][i] = m->geom.n_segments;
        c->v[3][i] = m->geom.group_cols;
        c->v[4][i] = m->scale_resident;
    }
    sl_gguf_add_string_array(w, "sluice.matrix.name", c->name, n);
    sl_gguf_add_string_array(w, "sluice.matrix.format", c->format, n);
    sl_gguf_add_u64_array(w, "sluice.matrix.rows", c->v[0], n);
    sl_gguf_add_u64_array(w, "sluice.matrix.cols", c->v[1], n);
    sl_gguf_add_u64_array(w, "sluice.matrix.segments", c->v[2], n);
    sl_gguf_add_u64_array(w, "sluice.matrix.group_cols", c->v[3], n);
    sl_gguf_add_u64_array(w, "sluice.matrix.scale_resident", c->v[4], n);
}

static void write_sections(struct sl_gguf_writer *w, const struct sl_layout *l,
                           struct columns *c)
{
    size_t n = l->n_sections;

    for (size_t i = 0; i < n; i++) {
        c->name[i] = l->sections[i].name;
        c->v[0][i] = l->sections[i].off;
        c->v[1][i] = l->sections[i].bytes;
        c->v[2][i] = l->sections[i].xxh3;
        c->v[3][i] = l->sections[i].planes;
    }
    sl_gguf_add_string_array(w, "sluice.section.name", c->name, n);
    sl_gguf_add_u64_array(w, "sluice.section.offset", c->v[0], n);
    sl_gguf_add_u64_array(w, "sluice.section.bytes", c->v[1], n);
    sl_gguf_add_u64_array(w, "sluice.section.xxh3", c->v[2], n);
    if (l->tables)
        sl_gguf_add_u64_array(w, KEY_PLANES, c->v[3], n);
}

/* data is what was just written, with a checksum of zero. */
static int sign(uint8_t *data, size_t bytes, struct sl_error *err)
{
    struct sl_gguf *g;
    size_t need, at;
    int rc;

    /* The tensors' data is not looked at: any length will do for it. */
    rc = sl_gguf_parse(&g, data, bytes, INT64_MAX, &need, err);
    if (rc != 0)
        return rc > 0 ? sl_fail(err, SL_ERR_INTERNAL, "the header is cut short")
                      : -1;
    at = sl_gguf_value_off(g, KEY_HEADER_SUM);
    sl_gguf_destroy(g);
    sl_store_u64(data + at, XXH3_64bits(data, bytes));
    return 0;
}

int sl_model_meta_write(const struct sl_layout *l, uint8_t **data,
                        size_t *bytes, struct sl_error *err)
{
    size_t n = l->n_matrices > l->n_sections ? l->n_matrices : l->n_sections;
    struct sl_gguf_writer *w = sl_gguf_writer_create(SL_MODEL_ALIGNMENT);
    struct columns c;
    bool room = columns_init(&c, n);
    int rc;

    if (room) {
        write_model(w, l);
        write_matrices(w, l, &c);
        write_sections(w, l, &c);
        sl_gguf_add_u64(w, KEY_HEADER_SUM, 0);
        for (size_t i = 0; i < l->n_tensors; i++) {
            const struct sl_layout_tensor *t = &l->tensors[i];

            sl_gguf_add_tensor(w, t->name, t->type, t->n_dims, t->ne);
        }
    }
    columns_fini(&c);
    rc = sl_gguf_writer_finish(w, data, bytes, err);
    if (rc == 0 && room)
        rc = sign(*data, *bytes, err);
    else if (rc == 0)
        rc = sl_fail(err, SL_ERR_NOMEM, "no memory for a header of %zu tensors",
                     l->n_tensors);
    else
        return rc;
    if (rc != 0)
        free(*data);
    return rc;
}

bool sl_model_meta_is_ours(const struct sl_gguf *g)
{
    return sl_gguf_has(g, "sluice.version");
}

int sl_model_meta_check(const struct sl_gguf *g, const struct sl_arch **arch,
                        struct sl_error *err)
{
    const char *name, *layout;
    uint64_t version;

    if (sl_gguf_get_string(g, "general.architecture", &name, err) != 0)
        return -1;
    *arch = sl_arch_find(name);
    if (*arch == NULL)
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "architecture '%.64s' is not one that sluice runs",
                       name);
    if (sl_gguf_get_u64(g, "sluice.version", &version, err) != 0 ||
        sl_gguf_get_string(g, "sluice.layout", &layout, err) != 0)
        return -1;
    if (version != SL_MODEL_VERSION && version != SL_MODEL_VERSION_COMPRESSED)
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "it is a model file of version %llu; this sluice reads "
                       "versions %u and %u: convert again, or use a newer "
                       "sluice",
                       (unsigned long long)version, SL_MODEL_VERSION,
                       SL_MODEL_VERSION_COMPRESSED);
    if ((version == SL_MODEL_VERSION_COMPRESSED) != sl_gguf_has(g, KEY_PLANES))
        return sl_fail(err, SL_ERR_CORRUPT,
                       "metadata '%s' is what version %u has, and this is "
                       "version %llu",
                       KEY_PLANES, SL_MODEL_VERSION_COMPRESSED,
                       (unsigned long long)version);
    if (strcmp(layout, SL_LAYOUT_NAME) != 0)
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "its weights are laid out as '%.64s'; this sluice reads "
                       "'%s': convert again, or use a newer sluice",
                       layout, SL_LAYOUT_NAME);
    if (sl_gguf_alignment(g) != SL_MODEL_ALIGNMENT)
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "its alignment is %u; a model file has %u",
                       sl_gguf_alignment(g), SL_MODEL_ALIGNMENT);
    return 0;
}

int sl_model_meta_sum(const struct sl_gguf *g, uint64_t *sum,
                      struct sl_error *err)
{
    return sl_gguf_get_u64(g, KEY_HEADER_SUM, sum, err);
}

int sl_model_meta_check_sum(const struct sl_gguf *g, const uint8_t *data,
                            size_t bytes, struct sl_error *err)
{
    static const uint8_t zero[8];
    size_t at = sl_gguf_value_off(g, KEY_HEADER_SUM);
    uint64_t want, have;
    XXH3_state_t *state;

    if (sl_model_meta_sum(g, &want, err) != 0)
        return -1;
    if (at > bytes - sizeof zero)
        return sl_fail(err, SL_ERR_CORRUPT, "metadata '%s' is damaged",
                       KEY_HEADER_SUM);
    state = XXH3_createState();
    if (state == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory for a checksum");
    XXH3_64bits_reset(state);
    XXH3_64bits_update(state, data, at);
    XXH3_64bits_update(state, zero, sizeof zero);
    XXH3_64bits_update(state, data + at + 8, bytes - at - 8);
    have = XXH3_64bits_digest(state);
    XXH3_freeState(state);
    if (have == want)
        return 0;
    return sl_fail(err, SL_ERR_CORRUPT,
                   "the header (bytes 0 to %zu) is damaged: its checksum is "
                   "%016llx and should be %016llx; convert again or copy again",
                   bytes, (unsigned long long)have, (unsigned long long)want);
}

/* Two arrays of a table must be equally long. */
static int same_length(const char *key, size_t n, size_t want,
                       struct sl_error *err)
{
    if (n == want)
        return 0;
    return sl_fail(err, SL_ERR_CORRUPT,
                   "metadata '%s' has %zu items; %zu were to be expected", key,
                   n, want);
}

/* A column of a table of the file, of which every item is within bounds
 * before anybody computes with it. */
static int read_column(const struct sl_gguf *g, const char *key, size_t want,
                       uint64_t max, const uint64_t **v, struct sl_error *err)
{
    size_t n;

    if (sl_gguf_get_u64_array(g, key, v, &n, err) != 0 ||
        same_length(key, n, want, err) != 0)
        return -1;
    for (size_t i = 0; i < n; i++) {
        if ((*v)[i] > max)
            return sl_fail(err, SL_ERR_CORRUPT,
                           "metadata '%s': item %zu is %llu, more than %llu",
                           key, i, (unsigned long long)(*v)[i],
                           (unsigned long long)max);
    }
    return 0;
}

static int find_format(struct sl_layout_matrix *m, const char *tensor,
                       const char *name, struct sl_error *err)
{
    m->planes = strcmp(name, FORMAT_PLANES) == 0;
    if (sl_fmt_find(&m->geom.fmt, m->planes ? "int8" : name))
        return 0;
    return sl_fail(err, SL_ERR_UNSUPPORTED,
                   "tensor %.64s has format '%.64s', which this sluice does "
                   "not know: use a newer one",
                   tensor, name);
}

/* *matrices is the caller's to free. */
static int read_matrices(struct sl_layout_matrix **matrices, size_t *n,
                         const struct sl_gguf *g, struct sl_error *err)
{
    const uint64_t *rows, *cols, *segments, *group, *resident;
    const char *const *names, *const *formats;
    struct sl_layout_matrix *m;
    size_t n_formats;

    if (sl_gguf_get_string_array(g, "sluice.matrix.name", &names, n, err) ||
        sl_gguf_get_string_array(g, "sluice.matrix.format", &formats,
                                 &n_formats, err) ||
        same_length("sluice.matrix.format", n_formats, *n, err) ||
        read_column(g, "sluice.matrix.rows", *n, UINT32_MAX, &rows, err) ||
        read_column(g, "sluice.matrix.cols", *n, UINT32_MAX, &cols, err) ||
        read_column(g, "sluice.matrix.segments", *n, 2, &segments, err) ||
        read_column(g, "sluice.matrix.group_cols", *n, UINT32_MAX, &group,
                    err) ||
        read_column(g, "sluice.matrix.scale_resident", *n, 1, &resident, err))
        return -1;
    m = sl_zalloc_array(*n, sizeof *m);
    if (m == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory for %zu matrices", *n);
    *matrices = m;
    for (size_t i = 0; i < *n; i++) {
        if (find_format(&m[i], names[i], formats[i], err) != 0)
            return -1;
        m[i].geom.rows = (uint32_t)rows[i];
        m[i].geom.cols = (uint32_t)cols[i];
        m[i].geom.n_segments = (uint32_t)segments[i];
        m[i].geom.group_cols = (uint32_t)group[i];
        m[i].scale_resident = resident[i] != 0;
    }
    return 0;
}

/* Nothing is bound by these names; that they are the same shows that this
 * program's tables have the order of those that the file was written by. */
static int check_names(const struct sl_layout *l, const struct sl_gguf *g,
                       struct sl_error *err)
{
    const char *const *names;
    size_t n;

    if (sl_gguf_get_string_array(g, "sluice.matrix.name", &names, &n, err) != 0)
        return -1;
    for (size_t i = 0; i < n; i++) {
        if (strcmp(names[i], l->matrices[i].spec.name) != 0)
            return sl_fail(err, SL_ERR_CORRUPT,
                           "matrix %zu is '%.80s'; %s has %s there", i,
                           names[i], l->arch->name, l->matrices[i].spec.name);
    }
    return 0;
}

/* All places follow from the layout. That the list has the same ones shows
 * that other GGUF programs, which go by the list, see the bytes that sluice
 * does. */
static int check_tensors(const struct sl_layout *l, const struct sl_gguf *g,
                         struct sl_error *err)
{
    for (size_t i = 0; i < l->n_tensors; i++) {
        const struct sl_layout_tensor *want = &l->tensors[i];
        const struct sl_gguf_tensor *have = sl_gguf_find(g, want->name);

        if (have == NULL)
            return sl_fail(err, SL_ERR_CORRUPT, "tensor %s is missing",
                           want->name);
        if (have->type != want->type || have->ne[0] != want->ne[0] ||
            have->ne[1] != want->ne[1] || have->bytes != want->bytes)
            return sl_fail(
                err, SL_ERR_CORRUPT,
                "tensor %s has type %u, %llu x %llu; the model needs type %u, "
                "%llu x %llu",
                want->name, have->type, (unsigned long long)have->ne[0],
                (unsigned long long)have->ne[1], want->type,
                (unsigned long long)want->ne[0],
                (unsigned long long)want->ne[1]);
        if (have->off != want->off)
            return sl_fail(err, SL_ERR_CORRUPT,
                           "tensor %s lies at %llu; its place is %llu",
                           want->name, (unsigned long long)have->off,
                           (unsigned long long)want->off);
    }
    if (sl_gguf_n_tensors(g) != l->n_tensors)
        return sl_fail(err, SL_ERR_CORRUPT, "it has %zu tensors, not %zu",
                       sl_gguf_n_tensors(g), l->n_tensors);
    return 0;
}

/* Names, places and lengths follow from the layout and must be the same;
 * checksums and planes are the file's own. */
static int read_sections(struct sl_layout *l, const struct sl_gguf *g,
                         struct sl_error *err)
{
    const uint64_t *off, *bytes, *xxh3, *planes = NULL;
    const char *const *names;
    size_t n;

    if (sl_gguf_get_string_array(g, "sluice.section.name", &names, &n, err) ||
        same_length("sluice.section.name", n, l->n_sections, err) ||
        read_column(g, "sluice.section.offset", n, UINT64_MAX, &off, err) ||
        read_column(g, "sluice.section.bytes", n, UINT64_MAX, &bytes, err) ||
        read_column(g, "sluice.section.xxh3", n, UINT64_MAX, &xxh3, err) ||
        (l->tables && read_column(g, KEY_PLANES, n, 4, &planes, err)))
        return -1;
    for (size_t i = 0; i < n; i++) {
        struct sl_model_section *s = &l->sections[i];

        if (strcmp(names[i], s->name) != 0 || off[i] != s->off ||
            bytes[i] != s->bytes)
            return sl_fail(
                err, SL_ERR_CORRUPT,
                "section %zu is '%.64s', %llu bytes at %llu; the model needs "
                "'%s', %llu bytes at %llu",
                i, names[i], (unsigned long long)bytes[i],
                (unsigned long long)off[i], s->name,
                (unsigned long long)s->bytes, (unsigned long long)s->off);
        s->xxh3 = xxh3[i];
        if (planes == NULL || planes[i] == 0)
            continue;
        if (s->table_bytes == 0 || planes[i] == 3)
            return sl_fail(err, SL_ERR_CORRUPT,
                           "section %zu, '%s', cannot be compressed in %llu "
                           "planes",
                           i, s->name, (unsigned long long)planes[i]);
        s->planes = (uint32_t)planes[i];
    }
    return 0;
}

int sl_model_meta_read(struct sl_layout *l, const struct sl_gguf *g,
                       const struct sl_arch *arch, struct sl_error *err)
{
    const struct sl_gguf_tensor *tokenizer = sl_gguf_find(g, "tokenizer.model");
    struct sl_layout_matrix *matrices = NULL;
    struct sl_hparams hp = {0};
    struct sl_layout_config config = {
        .arch = arch,
        .hp = &hp,
        .tokenizer_bytes = tokenizer != NULL ? tokenizer->bytes : 0,
        .tables = sl_gguf_has(g, KEY_PLANES),
        .header_bytes = sl_gguf_data_off(g),
    };
    struct sl_layout made = {0};
    int rc = -1;

    if ((sl_gguf_has(g, KEY_CHAT) &&
         sl_gguf_get_string(g, KEY_CHAT, &config.chat, err) != 0) ||
        (sl_gguf_has(g, KEY_NO_TEXT) &&
         sl_gguf_get_string(g, KEY_NO_TEXT, &config.no_text, err) != 0))
        return -1;
    if (sl_gguf_get_string(g, "general.name", &config.name, err) == 0 &&
        sl_gguf_get_string(g, "sluice.quantization", &config.quant, err) == 0 &&
        sl_model_hparams_read(&hp, g, arch, err) == 0 &&
        read_matrices(&matrices, &config.n_matrices, g, err) == 0) {
        config.matrices = matrices;
        rc = sl_layout_init(&made, &config, err);
    }
    free(matrices);
    if (rc == 0 &&
        (check_names(&made, g, err) != 0 || check_tensors(&made, g, err) != 0 ||
         read_sections(&made, g, err) != 0)) {
        sl_layout_fini(&made);
        rc = -1;
    }
    if (rc == 0)
        *l = made;
    return rc;
}
