#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/bytes.h"
#include "src/base/mem.h"
#include "src/model/gguf_index.h"

/* GGUF v2 and v3 (ggml-org/ggml docs/gguf.md, src/gguf.cpp). Memory taken is a
 * small multiple of the bytes that are really there: counts are believed only
 * when the smallest thing of that kind would fit that often. */

#define LEAST_KEY_BYTES    14u /* length, a character, type, a byte */
#define LEAST_TENSOR_BYTES 33u /* length, a character, 1-D info */
#define MAX_KEY            65535u
#define MAX_NAME           64u
#define MAX_DEPTH          4u /* of arrays in arrays */
#define DEFAULT_ALIGNMENT  32u

struct cursor {
    const uint8_t *data;
    size_t n, pos;
    uint64_t file_bytes;
    size_t need; /* 0 until bytes are missing that the file has */
};

/* Bytes a fixed-size value takes; 0: it has no fixed size or is unknown. */
static size_t value_bytes(uint32_t type)
{
    static const uint8_t sizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

    return type < sizeof sizes ? sizes[type] : 0;
}

/* Makes sure of the next bytes. Returns 0, -1, or 1 when the file has them
 * and the buffer has not. */
static int want(struct cursor *c, uint64_t bytes, struct sl_error *err)
{
    uint64_t end;

    if (bytes <= c->n - c->pos)
        return 0;
    if (__builtin_add_overflow(c->pos, bytes, &end) || end > c->file_bytes)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "the header needs %llu bytes at byte %zu and the file "
                       "ends at %llu: it was cut short or is damaged",
                       (unsigned long long)bytes, c->pos,
                       (unsigned long long)c->file_bytes);
    if (end > SL_GGUF_HEADER_MAX)
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "a header of more than %u bytes is not read",
                       SL_GGUF_HEADER_MAX);
    if (end < 2 * (uint64_t)c->n)
        end = 2 * (uint64_t)c->n;
    if (end > c->file_bytes)
        end = c->file_bytes;
    c->need = end < SL_GGUF_HEADER_MAX ? (size_t)end : SL_GGUF_HEADER_MAX;
    return 1;
}

static int take_u32(struct cursor *c, uint32_t *v, struct sl_error *err)
{
    int rc = want(c, 4, err);

    if (rc != 0)
        return rc;
    *v = sl_load_u32(c->data + c->pos);
    c->pos += 4;
    return 0;
}

static int take_u64(struct cursor *c, uint64_t *v, struct sl_error *err)
{
    int rc = want(c, 8, err);

    if (rc != 0)
        return rc;
    *v = sl_load_u64(c->data + c->pos);
    c->pos += 8;
    return 0;
}

/* A copy that ends in a zero, as all users of names take it: so a string
 * with a zero inside, which would show but its begin, is refused. */
static int take_string(struct cursor *c, char **s, struct sl_error *err)
{
    size_t at = c->pos;
    uint64_t n;
    int rc = take_u64(c, &n, err);

    if (rc == 0)
        rc = want(c, n, err);
    if (rc != 0)
        return rc;
    if (memchr(c->data + c->pos, 0, (size_t)n) != NULL)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "the string at byte %zu holds a zero byte", at);
    *s = malloc((size_t)n + 1);
    if (*s == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory for a string");
    memcpy(*s, c->data + c->pos, (size_t)n);
    (*s)[n] = '\0';
    c->pos += (size_t)n;
    return 0;
}

/* A key or a tensor's name: printable, for it appears in messages. */
static int take_name(struct cursor *c, char **s, size_t max, const char *what,
                     struct sl_error *err)
{
    size_t at = c->pos;
    uint64_t n;
    int rc = want(c, 8, err);

    if (rc != 0)
        return rc;
    n = sl_load_u64(c->data + at);
    if (n == 0 || n > max)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "the %s at byte %zu has %llu bytes; 1 to %zu are "
                       "allowed",
                       what, at, (unsigned long long)n, max);
    rc = want(c, 8 + n, err);
    if (rc != 0)
        return rc;
    for (size_t i = 0; i < n; i++) {
        uint8_t ch = c->data[at + 8 + i];

        if (ch < 0x20 || ch >= 0x7f)
            return sl_fail(err, SL_ERR_CORRUPT,
                           "the %s at byte %zu is not plain ASCII", what, at);
    }
    return take_string(c, s, err);
}

/* Of any width, a sign carried through all 64 bits: who asks for a value
 * need not know how some writer kept it. */
static uint64_t load_integer(const uint8_t *p, uint32_t type)
{
    switch (type) {
    case SL_GGUF_I8:
        return (uint64_t)(int64_t)(int8_t)*p;
    case SL_GGUF_U16:
        return sl_load_u16(p);
    case SL_GGUF_I16:
        return (uint64_t)(int64_t)(int16_t)sl_load_u16(p);
    case SL_GGUF_U32:
        return sl_load_u32(p);
    case SL_GGUF_I32:
        return (uint64_t)(int64_t)(int32_t)sl_load_u32(p);
    case SL_GGUF_U64:
    case SL_GGUF_I64:
        return sl_load_u64(p);
    default: /* U8 and bool */
        return *p;
    }
}

/* The same of floats, which become doubles. */
static int take_scalar(struct cursor *c, struct sl_gguf_value *v,
                       struct sl_error *err)
{
    const uint8_t *p = c->data + c->pos;
    int rc = want(c, value_bytes(v->type), err);
    uint64_t bits64;
    uint32_t bits;
    float f;

    if (rc != 0)
        return rc;
    c->pos += value_bytes(v->type);
    if (v->type == SL_GGUF_F32) {
        bits = sl_load_u32(p);
        memcpy(&f, &bits, sizeof f);
        v->f = f;
    } else if (v->type == SL_GGUF_F64) {
        bits64 = sl_load_u64(p);
        memcpy(&v->f, &bits64, sizeof v->f);
    } else {
        v->u = load_integer(p, v->type);
        if (v->type == SL_GGUF_BOOL && v->u > 1)
            return sl_fail(err, SL_ERR_CORRUPT,
                           "metadata '%s' is a bool of value %llu", v->key,
                           (unsigned long long)v->u);
    }
    return 0;
}

static int take_strings(struct cursor *c, struct sl_gguf_value *v,
                        struct sl_error *err)
{
    int rc = 0;

    v->strings = sl_zalloc_array(v->n, sizeof *v->strings);
    if (v->strings == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory for metadata '%s'",
                       v->key);
    for (size_t i = 0; i < v->n && rc == 0; i++)
        rc = take_string(c, &v->strings[i], err);
    return rc;
}

static int take_integers(struct cursor *c, struct sl_gguf_value *v,
                         struct sl_error *err)
{
    size_t size = value_bytes(v->item_type);

    v->u64 = sl_alloc_array(v->n, sizeof *v->u64);
    if (v->u64 == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory for metadata '%s'",
                       v->key);
    for (size_t i = 0; i < v->n; i++) {
        v->u64[i] = load_integer(c->data + c->pos, v->item_type);
        v->negative |=
            sl_gguf_is_signed(v->item_type) && (int64_t)v->u64[i] < 0;
        c->pos += size;
    }
    return 0;
}

static int take_floats(struct cursor *c, struct sl_gguf_value *v,
                       struct sl_error *err)
{
    v->f32 = sl_alloc_array(v->n, sizeof *v->f32);
    if (v->f32 == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory for metadata '%s'",
                       v->key);
    for (size_t i = 0; i < v->n; i++) {
        uint32_t bits = sl_load_u32(c->data + c->pos);

        memcpy(&v->f32[i], &bits, sizeof bits);
        c->pos += sizeof bits;
    }
    return 0;
}

/* The head of an array, and that n of its smallest items fit. */
static int take_array_head(struct cursor *c, const char *key, uint32_t *type,
                           uint64_t *n, struct sl_error *err)
{
    size_t least;
    int rc = take_u32(c, type, err);

    if (rc == 0)
        rc = take_u64(c, n, err);
    if (rc != 0)
        return rc;
    if (*type > SL_GGUF_F64)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "metadata '%s' is an array of type %u, which GGUF does "
                       "not have",
                       key, *type);
    least = *type == SL_GGUF_ARRAY    ? 12
            : *type == SL_GGUF_STRING ? 8
                                      : value_bytes(*type);
    if (*n > UINT64_MAX / least)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "metadata '%s' claims %llu items: it is damaged", key,
                       (unsigned long long)*n);
    return want(c, *n * least, err);
}

/* Arrays in arrays are checked and passed over. */
static int skip_array(struct cursor *c, const char *key, unsigned depth,
                      struct sl_error *err)
{
    uint32_t type;
    uint64_t n, length;
    int rc;

    if (depth > MAX_DEPTH)
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "metadata '%s' has arrays more than %u deep", key,
                       MAX_DEPTH);
    rc = take_array_head(c, key, &type, &n, err);
    if (rc != 0)
        return rc;
    if (value_bytes(type) != 0) {
        c->pos += (size_t)n * value_bytes(type);
        return 0;
    }
    for (uint64_t i = 0; i < n && rc == 0; i++) {
        if (type == SL_GGUF_ARRAY) {
            rc = skip_array(c, key, depth + 1, err);
            continue;
        }
        rc = take_u64(c, &length, err);
        if (rc == 0)
            rc = want(c, length, err);
        if (rc == 0)
            c->pos += (size_t)length;
    }
    return rc;
}

/* Items of which nobody asks anything are stepped over, but must be whole:
 * what follows is found behind them. */
static int take_array(struct cursor *c, struct sl_gguf_value *v,
                      struct sl_error *err)
{
    size_t at = c->pos;
    uint64_t n;
    int rc = take_array_head(c, v->key, &v->item_type, &n, err);

    if (rc != 0)
        return rc;
    v->n = (size_t)n;
    if (v->item_type == SL_GGUF_STRING)
        return take_strings(c, v, err);
    if (sl_gguf_is_integer(v->item_type))
        return take_integers(c, v, err);
    if (v->item_type == SL_GGUF_F32)
        return take_floats(c, v, err);
    c->pos = at;
    return skip_array(c, v->key, 1, err);
}

static int take_value(struct cursor *c, struct sl_gguf_value *v,
                      struct sl_error *err)
{
    int rc = take_name(c, &v->key, MAX_KEY, "metadata key", err);

    if (rc == 0)
        rc = take_u32(c, &v->type, err);
    if (rc != 0)
        return rc;
    v->off = c->pos;
    if (v->type == SL_GGUF_STRING)
        return take_string(c, &v->s, err);
    if (v->type == SL_GGUF_ARRAY)
        return take_array(c, v, err);
    if (value_bytes(v->type) == 0)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "metadata '%s' has type %u, which GGUF does not have",
                       v->key, v->type);
    return take_scalar(c, v, err);
}

/* Bytes of a tensor: rows of whole blocks. */
static int count_bytes(struct sl_gguf_tensor *t, struct sl_error *err)
{
    const struct sl_ggml_info *info = sl_ggml_type_of(t->type);

    if (info == NULL)
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "tensor %s has ggml type %u, which is not known",
                       t->name, t->type);
    if (t->ne[0] % info->block_values != 0)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "tensor %s: rows of %llu values are no blocks of %u, as "
                       "%s has them",
                       t->name, (unsigned long long)t->ne[0],
                       info->block_values, info->name);
    t->bytes = t->ne[0] / info->block_values;
    if (__builtin_mul_overflow(t->bytes, info->block_bytes, &t->bytes))
        t->bytes = 0;
    for (uint32_t i = 1; i < t->n_dims; i++) {
        if (__builtin_mul_overflow(t->bytes, t->ne[i], &t->bytes))
            t->bytes = 0;
    }
    if (t->bytes == 0 || t->bytes > INT64_MAX)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "tensor %s: its size is zero or overflows", t->name);
    return 0;
}

/* Data lie in the order of this list, without holes or overlaps, as GGUF's
 * writers are told to put them: then an offset is right or wrong by itself,
 * and no list of what is taken is needed. */
static int take_tensor(struct cursor *c, struct sl_gguf *g,
                       struct sl_gguf_tensor *t, uint64_t *next,
                       struct sl_error *err)
{
    int rc = take_name(c, &t->name, MAX_NAME, "tensor name", err);

    if (rc == 0)
        rc = take_u32(c, &t->n_dims, err);
    if (rc != 0)
        return rc;
    if (t->n_dims < 1 || t->n_dims > 4)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "tensor %s has %u dimensions; 1 to 4 are allowed",
                       t->name, t->n_dims);
    for (uint32_t i = 0; i < 4; i++) {
        t->ne[i] = 1;
        if (i < t->n_dims && rc == 0)
            rc = take_u64(c, &t->ne[i], err);
    }
    if (rc == 0)
        rc = take_u32(c, &t->type, err);
    if (rc == 0)
        rc = take_u64(c, &t->off, err);
    if (rc == 0)
        rc = count_bytes(t, err);
    if (rc != 0)
        return rc;
    if (t->off != *next)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "tensor %s lies at %llu of the data, not at %llu where "
                       "the one before it ends",
                       t->name, (unsigned long long)t->off,
                       (unsigned long long)*next);
    *next += sl_round_up(t->bytes, g->alignment);
    if (*next > INT64_MAX)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "tensor %s ends beyond what a file can hold", t->name);
    return 0;
}

/* Counts are believed as far as the file has bytes for so many of the
 * shortest there could be: so what is allocated for them is bounded by the
 * file. */
static int take_head(struct cursor *c, struct sl_gguf *g, struct sl_error *err)
{
    uint32_t version = 0;
    uint64_t n_tensors = 0, n_values = 0;
    int rc = want(c, 4, err);

    if (rc != 0)
        return rc;
    if (memcmp(c->data, "GGUF", 4) != 0)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "it does not begin with 'GGUF': not a model file");
    c->pos = 4;
    rc = take_u32(c, &version, err);
    if (rc != 0)
        return rc;
    if (version == 0x03000000u || version == 0x02000000u)
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "it is a big-endian GGUF file; only little-endian ones "
                       "are read");
    if (version != 2 && version != 3)
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "it is GGUF version %u; versions 2 and 3 are read",
                       version);
    rc = take_u64(c, &n_tensors, err);
    if (rc == 0)
        rc = take_u64(c, &n_values, err);
    if (rc != 0)
        return rc;
    if (n_tensors > UINT32_MAX || n_values > UINT32_MAX)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "it claims %llu tensors and %llu metadata keys: it is "
                       "damaged",
                       (unsigned long long)n_tensors,
                       (unsigned long long)n_values);
    rc = want(c, n_tensors * LEAST_TENSOR_BYTES + n_values * LEAST_KEY_BYTES,
              err);
    if (rc != 0)
        return rc;
    g->values = sl_zalloc_array((size_t)n_values, sizeof *g->values);
    g->tensors = sl_zalloc_array((size_t)n_tensors, sizeof *g->tensors);
    if (g->values == NULL || g->tensors == NULL)
        return sl_fail(err, SL_ERR_NOMEM,
                       "no memory for %llu tensors and %llu metadata keys",
                       (unsigned long long)n_tensors,
                       (unsigned long long)n_values);
    g->n_values = (size_t)n_values;
    g->n_tensors = (size_t)n_tensors;
    return 0;
}

static int find_alignment(struct sl_gguf *g, struct sl_error *err)
{
    uint64_t v = DEFAULT_ALIGNMENT;

    if (sl_gguf_has(g, "general.alignment") &&
        sl_gguf_get_u64(g, "general.alignment", &v, err) != 0)
        return -1;
    if (v < 8 || v > 1u << 30 || (v & (v - 1)) != 0)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "general.alignment is %llu, no power of two from 8 on",
                       (unsigned long long)v);
    g->alignment = (uint32_t)v;
    return 0;
}

/* From offsets in the data to offsets in the file. */
static int place_tensors(struct sl_gguf *g, const struct cursor *c,
                         uint64_t data_bytes, struct sl_error *err)
{
    g->data_off = sl_round_up(c->pos, g->alignment);
    g->end = g->data_off + data_bytes;
    for (size_t i = 0; i < g->n_tensors; i++) {
        struct sl_gguf_tensor *t = &g->tensors[i];

        t->off += g->data_off;
        if (t->off > c->file_bytes || t->bytes > c->file_bytes - t->off)
            return sl_fail(err, SL_ERR_CORRUPT,
                           "the file ends at %llu and needs %llu: it was cut "
                           "short; convert again or copy again",
                           (unsigned long long)c->file_bytes,
                           (unsigned long long)g->end);
    }
    return 0;
}

static int parse(struct sl_gguf *g, struct cursor *c, struct sl_error *err)
{
    uint64_t next = 0;
    int rc = take_head(c, g, err);

    for (size_t i = 0; i < g->n_values && rc == 0; i++)
        rc = take_value(c, &g->values[i], err);
    if (rc == 0)
        rc = sl_gguf_index_values(g, err);
    if (rc == 0)
        rc = find_alignment(g, err);
    for (size_t i = 0; i < g->n_tensors && rc == 0; i++)
        rc = take_tensor(c, g, &g->tensors[i], &next, err);
    if (rc == 0)
        rc = sl_gguf_index_tensors(g, err);
    return rc == 0 ? place_tensors(g, c, next, err) : rc;
}

int sl_gguf_parse(struct sl_gguf **g, const uint8_t *data, size_t n,
                  uint64_t file_bytes, size_t *need, struct sl_error *err)
{
    struct cursor c = {.data = data, .n = n, .file_bytes = file_bytes};
    struct sl_gguf *made = calloc(1, sizeof *made);
    int rc;

    if (made == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory for a GGUF header");
    rc = parse(made, &c, err);
    if (rc == 0) {
        *g = made;
        return 0;
    }
    if (rc == 1)
        *need = c.need;
    sl_gguf_destroy(made);
    return rc;
}
