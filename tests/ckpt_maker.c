#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "src/base/bytes.h"
#include "src/base/crc32.h"
#include "tests/ckpt_maker.h"
#include "tests/support.h"

#define ALIGN 64 /* torch aligns each member's data to this */

static const char *const storage_types[SL_DT_COUNT] = {
    [SL_DT_F32] = "FloatStorage",     [SL_DT_F16] = "HalfStorage",
    [SL_DT_BF16] = "BFloat16Storage", [SL_DT_F64] = "DoubleStorage",
    [SL_DT_I8] = "CharStorage",       [SL_DT_U8] = "ByteStorage",
    [SL_DT_I16] = "ShortStorage",     [SL_DT_I32] = "IntStorage",
    [SL_DT_I64] = "LongStorage",      [SL_DT_BOOL] = "BoolStorage",
};

void maker_put(struct maker_buf *b, const void *data, size_t n)
{
    if (b->n + n > b->cap) {
        b->cap = (b->n + n) * 2;
        b->at = realloc(b->at, b->cap);
        assert_non_null(b->at);
    }
    if (n > 0)
        memcpy(b->at + b->n, data, n);
    b->n += n;
}

void maker_fini(struct maker_buf *b)
{
    free(b->at);
    memset(b, 0, sizeof *b);
}

static void put_text(struct maker_buf *b, const char *text)
{
    maker_put(b, text, strlen(text));
}

static void put_uint(struct maker_buf *b, uint64_t v, size_t n)
{
    uint8_t bytes[8];

    sl_store_u64(bytes, v);
    maker_put(b, bytes, n);
}

/* BINUNICODE */
static void put_str(struct maker_buf *b, const char *text)
{
    put_text(b, "X");
    put_uint(b, strlen(text), 4);
    put_text(b, text);
}

/* BININT1, BININT2, BININT or LONG1, as Python picks them */
static void put_int(struct maker_buf *b, uint64_t v)
{
    if (v < 256) {
        put_text(b, "K");
        put_uint(b, v, 1);
    } else if (v < 65536) {
        put_text(b, "M");
        put_uint(b, v, 2);
    } else if (v < 1u << 31) {
        put_text(b, "J");
        put_uint(b, v, 4);
    } else {
        put_text(b, "\x8a\x08");
        put_uint(b, v, 8);
    }
}

static void put_tuple(struct maker_buf *b, const uint64_t *v, uint32_t n)
{
    put_text(b, "(");
    for (uint32_t i = 0; i < n; i++)
        put_int(b, v[i]);
    put_text(b, "t");
}

static uint64_t tensor_elements(const struct maker_tensor *t)
{
    uint64_t n = 1;

    for (uint32_t i = 0; i < t->n_dims; i++)
        n *= t->shape[i];
    return n;
}

static uint64_t storage_elements(const struct maker_tensor *tensors, size_t i)
{
    const struct maker_tensor *t = &tensors[i];

    if (t->shares)
        return storage_elements(tensors, t->shares - 1);
    return t->n_elements ? t->n_elements : tensor_elements(t);
}

/* GLOBAL torch._utils _rebuild_tensor_v2 on its seven arguments */
static void put_tensor(struct maker_buf *b, const struct maker_tensor *tensors,
                       size_t i, const struct maker_options *o)
{
    const struct maker_tensor *t = &tensors[i];
    uint64_t stride[4] = {0}, step = 1;
    bool dense = !t->expanded;
    char key[24];

    snprintf(key, sizeof key, "%zu", t->shares ? t->shares - 1 : i);
    for (uint32_t d = 0; d < t->n_dims; d++)
        dense = dense && t->stride[d] == 0;
    for (uint32_t d = t->n_dims; d-- > 0;) {
        stride[d] = dense ? step : t->stride[d];
        step *= t->shape[d];
    }
    if (t->made_by != NULL) {
        put_text(b, "c");
        put_text(b, t->made_by);
        put_text(b, "(");
    } else if (o->parameters) {
        put_text(b, "ctorch._utils\n_rebuild_parameter\n(");
    }
    put_text(b, "ctorch._utils\n_rebuild_tensor_v2\n((");
    put_str(b, "storage");
    put_text(b, "ctorch\n");
    put_text(b, storage_types[t->dtype]);
    put_text(b, "\n");
    put_str(b, key);
    put_str(b, "cpu");
    put_int(b, storage_elements(tensors, i));
    put_text(b, o->legacy ? "NtQ" : "tQ");
    put_int(b, t->offset);
    put_tuple(b, t->shape, t->n_dims);
    put_tuple(b, stride, t->n_dims);
    put_text(b, "\x89"
                "ccollections\nOrderedDict\n)R");
    if (t->view != NULL && *t->view == '\0') {
        put_text(b, "]");
    } else if (t->view != NULL) {
        put_text(b, "}(");
        put_str(b, t->view);
        put_text(b, "\x88u");
    }
    put_text(b, "tR");
    if (t->made_by != NULL)
        put_text(b, "\x88"
                    "ccollections\nOrderedDict\n)R}tR");
    else if (o->parameters)
        put_text(b, "\x88"
                    "ccollections\nOrderedDict\n)RtR");
}

static void put_object(struct maker_buf *b, const struct maker_tensor *tensors,
                       size_t n, const struct maker_options *o)
{
    put_text(b, "\x80\x02");
    if (!o->bare) {
        put_text(b, "}(");
        if (o->extra != NULL) {
            put_str(b, "extra");
            maker_put(b, o->extra, o->n_extra);
        }
        put_str(b, "module");
    }
    put_text(b, "ccollections\nOrderedDict\n)Rq");
    put_uint(b, 0, 1);
    put_text(b, "(");
    for (size_t i = 0; i < n; i++) {
        put_str(b, tensors[i].name);
        put_tensor(b, tensors, i, o);
    }
    put_text(b, o->bare ? "u." : "uu.");
}

/* A zip on its way; dir is its central directory. */
struct zip_maker {
    struct maker_buf *out;
    struct maker_buf dir;
    size_t begin; /* of the zip in out */
    unsigned n;
    bool zip64;
    bool unsummed;
};

/* Local headers without sizes, as torch leaves them, and an extra field that
 * aligns the data. */
static void put_member(struct zip_maker *z, const char *name, const void *data,
                       size_t n)
{
    size_t header = z->out->n - z->begin, n_name = strlen(name), pad;

    put_uint(z->out, 0x04034b50, 4);
    put_uint(z->out, 0x08080000, 4);
    put_uint(z->out, 0, 8);
    put_uint(z->out, 0, 8);
    put_uint(z->out, 0, 2);
    put_uint(z->out, n_name, 2);
    pad = ALIGN - (header + 30 + n_name + 4) % ALIGN;
    put_uint(z->out, pad + 4, 2);
    put_text(z->out, name);
    put_text(z->out, "FB");
    put_uint(z->out, pad, 2);
    for (size_t i = 0; i < pad; i++)
        put_text(z->out, "Z");
    maker_put(z->out, data, n);

    put_uint(&z->dir, 0x02014b50, 4);
    put_uint(&z->dir, 0, 4);
    put_uint(&z->dir, 0x0808, 4);
    put_uint(&z->dir, 0, 4);
    put_uint(&z->dir, z->unsummed ? 0 : sl_crc32(0, data, n), 4);
    put_uint(&z->dir, z->zip64 ? UINT32_MAX : n, 4);
    put_uint(&z->dir, z->zip64 ? UINT32_MAX : n, 4);
    put_uint(&z->dir, n_name, 2);
    put_uint(&z->dir, z->zip64 ? 28 : 0, 2);
    put_uint(&z->dir, 0, 8);
    put_uint(&z->dir, 0, 2);
    put_uint(&z->dir, z->zip64 ? UINT32_MAX : header, 4);
    put_text(&z->dir, name);
    if (z->zip64) {
        put_uint(&z->dir, 1 | 24u << 16, 4);
        put_uint(&z->dir, n, 8);
        put_uint(&z->dir, n, 8);
        put_uint(&z->dir, header, 8);
    }
    z->n++;
}

static void put_zip_end(struct zip_maker *z)
{
    size_t at = z->out->n - z->begin, end;

    maker_put(z->out, z->dir.at, z->dir.n);
    end = z->out->n - z->begin;
    if (z->zip64) {
        put_uint(z->out, 0x06064b50, 4);
        put_uint(z->out, 44, 8);
        put_uint(z->out, 45 | 45u << 16, 4);
        put_uint(z->out, 0, 8);
        put_uint(z->out, z->n, 8);
        put_uint(z->out, z->n, 8);
        put_uint(z->out, z->dir.n, 8);
        put_uint(z->out, at, 8);
        put_uint(z->out, 0x07064b50, 4);
        put_uint(z->out, 0, 4);
        put_uint(z->out, end, 8);
        put_uint(z->out, 1, 4);
    }
    put_uint(z->out, 0x06054b50, 4);
    put_uint(z->out, 0, 4);
    put_uint(z->out, z->zip64 ? UINT16_MAX : z->n, 2);
    put_uint(z->out, z->zip64 ? UINT16_MAX : z->n, 2);
    put_uint(z->out, z->zip64 ? UINT32_MAX : z->dir.n, 4);
    put_uint(z->out, z->zip64 ? UINT32_MAX : at, 4);
    put_uint(z->out, 0, 2);
    maker_fini(&z->dir);
}

static void put_zip(struct maker_buf *b, const struct maker_buf *pickle,
                    const struct maker_tensor *tensors, size_t n,
                    const struct maker_options *o)
{
    const char *prefix = o->prefix ? o->prefix : "archive";
    struct zip_maker z = {
        .out = b,
        .begin = b->n,
        .zip64 = o->zip64,
        .unsummed = o->unsummed,
    };
    char name[256];

    snprintf(name, sizeof name, "%s/data.pkl", prefix);
    put_member(&z, name, pickle->at, pickle->n);
    for (size_t i = 0; i < n; i++) {
        if (tensors[i].shares)
            continue;
        snprintf(name, sizeof name, "%s/data/%zu", prefix, i);
        put_member(&z, name, tensors[i].data,
                   storage_elements(tensors, i) *
                       sl_dtype_bytes(tensors[i].dtype));
    }
    snprintf(name, sizeof name, "%s/version", prefix);
    put_member(&z, name, "3\n", 2);
    put_zip_end(&z);
}

/* torch sorts the storages by their keys as strings. */
static int compare_keys(const void *a, const void *b)
{
    char x[24], y[24];

    snprintf(x, sizeof x, "%zu", *(const size_t *)a);
    snprintf(y, sizeof y, "%zu", *(const size_t *)b);
    return strcmp(x, y);
}

static void put_legacy(struct maker_buf *b, const struct maker_buf *pickle,
                       const struct maker_tensor *tensors, size_t n)
{
    static const uint8_t magic[] = {0x80, 2,    0x8a, 10,   0x6c, 0xfc, 0x9c,
                                    0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19,
                                    '.',  0x80, 2,    'M',  0xe9, 0x03, '.',
                                    0x80, 2,    '}',  '('};
    size_t *order = calloc(n + 1, sizeof *order), n_keys = 0;
    char key[24];

    assert_non_null(order);
    maker_put(b, magic, sizeof magic);
    put_str(b, "protocol_version");
    put_int(b, 1001);
    put_str(b, "little_endian");
    put_text(b, "\x88u.");
    maker_put(b, pickle->at, pickle->n);
    put_text(b, "\x80\x02](");
    for (size_t i = 0; i < n; i++)
        if (!tensors[i].shares)
            order[n_keys++] = i;
    qsort(order, n_keys, sizeof *order, compare_keys);
    for (size_t i = 0; i < n_keys; i++) {
        snprintf(key, sizeof key, "%zu", order[i]);
        put_str(b, key);
    }
    put_text(b, "e.");
    for (size_t i = 0; i < n_keys; i++) {
        uint64_t count = storage_elements(tensors, order[i]);

        put_uint(b, count, 8);
        maker_put(b, tensors[order[i]].data,
                  count * sl_dtype_bytes(tensors[order[i]].dtype));
    }
    free(order);
}

void maker_torch(struct maker_buf *b, const struct maker_tensor *tensors,
                 size_t n_tensors, const struct maker_options *options)
{
    static const struct maker_options none;
    struct maker_buf pickle = {0};

    if (options == NULL)
        options = &none;
    put_object(&pickle, tensors, n_tensors, options);
    if (options->legacy)
        put_legacy(b, &pickle, tensors, n_tensors);
    else
        put_zip(b, &pickle, tensors, n_tensors, options);
    maker_fini(&pickle);
}

void maker_zip_pickle(struct maker_buf *b, const void *pickle, size_t n)
{
    static const struct maker_options none;
    struct maker_buf p = {0};

    maker_put(&p, pickle, n);
    put_zip(b, &p, NULL, 0, &none);
    maker_fini(&p);
}

void maker_file(const char *path, const void *data, size_t n)
{
    char folder[1024];
    FILE *f;

    for (const char *slash = strchr(path + 1, '/'); slash != NULL;
         slash = strchr(slash + 1, '/')) {
        snprintf(folder, sizeof folder, "%.*s", (int)(slash - path), path);
        mkdir(folder, 0777);
    }
    f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

void maker_shard(const char *dir, const char *iteration, unsigned rank,
                 const struct maker_tensor *tensors, size_t n_tensors,
                 const struct maker_options *options)
{
    struct maker_buf b = {0};
    char path[1200];

    snprintf(path, sizeof path, "%s/latest", dir);
    maker_file(path, iteration, strlen(iteration));
    snprintf(path, sizeof path, "%s/%s/mp_rank_%02u_model_states.pt", dir,
             iteration, rank);
    maker_torch(&b, tensors, n_tensors, options);
    maker_file(path, b.at, b.n);
    maker_fini(&b);
}

/* One 512-byte header; the checksum counts its own field as blanks. */
static void put_tar_header(struct maker_buf *b, const char *name, size_t n,
                           char type)
{
    char h[512] = {0};
    unsigned sum = 0;

    snprintf(h, 100, "%s", name);
    snprintf(h + 100, 8, "%07o", 0644);
    snprintf(h + 108, 8, "%07o", 0);
    snprintf(h + 116, 8, "%07o", 0);
    snprintf(h + 124, 12, "%011zo", n);
    snprintf(h + 136, 12, "%011o", 0);
    memset(h + 148, ' ', 8);
    h[156] = type;
    memcpy(h + 257, "ustar", 6);
    memcpy(h + 263, "00", 2);
    for (size_t i = 0; i < sizeof h; i++)
        sum += (unsigned char)h[i];
    snprintf(h + 148, 8, "%06o", sum);
    maker_put(b, h, sizeof h);
}

static void put_padded(struct maker_buf *b, const void *data, size_t n)
{
    static const char zeros[512];

    maker_put(b, data, n);
    maker_put(b, zeros, (512 - n % 512) % 512);
}

void maker_tar_member(struct maker_buf *b, const char *name, const void *data,
                      size_t n, bool pax)
{
    char record[1200];
    int len = 0, used;

    if (pax) {
        /* The length at its head counts its own digits too. */
        for (;; len = used) {
            used = snprintf(record, sizeof record, "%d path=%s\n", len, name);
            if (used == len)
                break;
        }
        put_tar_header(b, "pax", (size_t)len, 'x');
        put_padded(b, record, (size_t)len);
        put_tar_header(b, "short", n, '0');
    } else if (strlen(name) >= 100) {
        put_tar_header(b, "././@LongLink", strlen(name) + 1, 'L');
        put_padded(b, name, strlen(name) + 1);
        put_tar_header(b, name, n, '0');
    } else {
        put_tar_header(b, name, n, '0');
    }
    put_padded(b, data, n);
}

void maker_tar_end(struct maker_buf *b)
{
    static const char zeros[1024];

    maker_put(b, zeros, sizeof zeros);
}
