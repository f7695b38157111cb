#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/bytes.h"
#include "src/base/mem.h"
#include "src/model/gguf.h"

/* GGUF v3 (ggml-org/ggml docs/gguf.md): magic, version, number of tensors,
 * number of keys; keys; tensor infos; padding. All little-endian, strings as a
 * 64-bit length and bytes. Keys and infos grow apart and are joined at the
 * end. */

#define MAX_KEY  65535u
#define MAX_NAME 64u

struct bytes {
    uint8_t *data;
    size_t n, room;
};

struct sl_gguf_writer {
    struct bytes keys, infos;
    uint64_t n_keys, n_tensors;
    uint64_t next_off; /* of the next tensor, from the data's beginning */
    uint32_t alignment;
    struct sl_error failed; /* of the first addition that failed */
};

/* Room for n bytes more; twice what is needed, so that a header with 150
 * thousand names is moved a few times and not each time. NULL once anything
 * has failed: whoever adds goes on without looking, and the end says it. */
static void *grow(struct sl_gguf_writer *w, struct bytes *b, size_t n)
{
    size_t want, room;
    uint8_t *data;

    if (w->failed.code != SL_OK)
        return NULL;
    if (!sl_add_size(&want, b->n, n))
        want = SIZE_MAX;
    if (want > b->room) {
        room = want < SIZE_MAX / 2 ? 2 * want : want;
        data = realloc(b->data, room);
        if (data == NULL) {
            sl_fail(&w->failed, SL_ERR_NOMEM,
                    "no memory for a GGUF header of %zu bytes", want);
            return NULL;
        }
        b->data = data;
        b->room = room;
    }
    b->n = want;
    return b->data + want - n;
}

static void put_u32(struct sl_gguf_writer *w, struct bytes *b, uint32_t v)
{
    uint8_t *p = grow(w, b, 4);

    if (p != NULL)
        sl_store_u32(p, v);
}

static void put_u64(struct sl_gguf_writer *w, struct bytes *b, uint64_t v)
{
    uint8_t *p = grow(w, b, 8);

    if (p != NULL)
        sl_store_u64(p, v);
}

static void put_string(struct sl_gguf_writer *w, struct bytes *b, const char *s)
{
    size_t n = strlen(s);
    uint8_t *p;

    put_u64(w, b, n);
    p = grow(w, b, n);
    if (p != NULL)
        memcpy(p, s, n);
}

struct sl_gguf_writer *sl_gguf_writer_create(uint32_t alignment)
{
    struct sl_gguf_writer *w = calloc(1, sizeof *w);

    if (w == NULL)
        return NULL;
    w->alignment = alignment;
    if (alignment < 8 || (alignment & (alignment - 1)) != 0)
        sl_fail(&w->failed, SL_ERR_INTERNAL,
                "GGUF alignment %u is no power of two from 8 on", alignment);
    sl_gguf_add_u32(w, "general.alignment", alignment);
    return w;
}

/* Begins a key and its type. False where its value need not follow: nobody
 * writes, or writing has failed. */
static bool put_key(struct sl_gguf_writer *w, const char *key,
                    enum sl_gguf_type type)
{
    if (w == NULL)
        return false;
    if (w->failed.code == SL_OK && (*key == '\0' || strlen(key) > MAX_KEY))
        sl_fail(&w->failed, SL_ERR_CORRUPT,
                "metadata key of %zu bytes; 1 to %u are allowed", strlen(key),
                MAX_KEY);
    put_string(w, &w->keys, key);
    put_u32(w, &w->keys, type);
    w->n_keys++;
    return w->failed.code == SL_OK;
}

void sl_gguf_add_u32(struct sl_gguf_writer *w, const char *key, uint32_t v)
{
    if (put_key(w, key, SL_GGUF_U32))
        put_u32(w, &w->keys, v);
}

void sl_gguf_add_u64(struct sl_gguf_writer *w, const char *key, uint64_t v)
{
    if (put_key(w, key, SL_GGUF_U64))
        put_u64(w, &w->keys, v);
}

void sl_gguf_add_i32(struct sl_gguf_writer *w, const char *key, int32_t v)
{
    if (put_key(w, key, SL_GGUF_I32))
        put_u32(w, &w->keys, (uint32_t)v);
}

void sl_gguf_add_f32(struct sl_gguf_writer *w, const char *key, float v)
{
    uint32_t bits;

    memcpy(&bits, &v, sizeof bits);
    if (put_key(w, key, SL_GGUF_F32))
        put_u32(w, &w->keys, bits);
}

void sl_gguf_add_bool(struct sl_gguf_writer *w, const char *key, bool v)
{
    uint8_t *p;

    if (!put_key(w, key, SL_GGUF_BOOL))
        return;
    p = grow(w, &w->keys, 1);
    if (p != NULL)
        *p = v;
}

void sl_gguf_add_string(struct sl_gguf_writer *w, const char *key,
                        const char *v)
{
    if (put_key(w, key, SL_GGUF_STRING))
        put_string(w, &w->keys, v);
}

static bool put_array(struct sl_gguf_writer *w, const char *key,
                      enum sl_gguf_type type, size_t n)
{
    if (!put_key(w, key, SL_GGUF_ARRAY))
        return false;
    put_u32(w, &w->keys, type);
    put_u64(w, &w->keys, n);
    return w->failed.code == SL_OK;
}

void sl_gguf_add_u64_array(struct sl_gguf_writer *w, const char *key,
                           const uint64_t *v, size_t n)
{
    if (!put_array(w, key, SL_GGUF_U64, n))
        return;
    for (size_t i = 0; i < n; i++)
        put_u64(w, &w->keys, v[i]);
}

void sl_gguf_add_string_array(struct sl_gguf_writer *w, const char *key,
                              const char *const *v, size_t n)
{
    if (!put_array(w, key, SL_GGUF_STRING, n))
        return;
    for (size_t i = 0; i < n; i++)
        put_string(w, &w->keys, v[i]);
}

/* Adds the tensor's bytes, padded, to the running sum. */
static int advance(struct sl_gguf_writer *w, const char *name,
                   enum sl_ggml_type type, uint32_t n_dims, const uint64_t *ne)
{
    uint64_t bytes = sl_ggml_type_bytes(type);

    if (*name == '\0' || strlen(name) > MAX_NAME)
        return sl_fail(&w->failed, SL_ERR_CORRUPT,
                       "tensor name '%s' has %zu bytes; 1 to %u are allowed",
                       name, strlen(name), MAX_NAME);
    if (n_dims < 1 || n_dims > 4)
        return sl_fail(&w->failed, SL_ERR_CORRUPT,
                       "tensor %s has %u dimensions; 1 to 4 are allowed", name,
                       n_dims);
    for (uint32_t i = 0; i < n_dims; i++) {
        if (ne[i] == 0 || __builtin_mul_overflow(bytes, ne[i], &bytes) ||
            bytes > INT64_MAX)
            return sl_fail(&w->failed, SL_ERR_CORRUPT,
                           "tensor %s: size is zero or overflows", name);
    }
    bytes = sl_round_up(bytes, w->alignment);
    if (__builtin_add_overflow(w->next_off, bytes, &w->next_off) ||
        w->next_off > INT64_MAX)
        return sl_fail(&w->failed, SL_ERR_CORRUPT,
                       "tensor %s ends beyond what a file can hold", name);
    return 0;
}

void sl_gguf_add_tensor(struct sl_gguf_writer *w, const char *name,
                        enum sl_ggml_type type, uint32_t n_dims,
                        const uint64_t *ne)
{
    uint64_t off;

    if (w == NULL || w->failed.code != SL_OK)
        return;
    off = w->next_off;
    if (advance(w, name, type, n_dims, ne) != 0)
        return;
    put_string(w, &w->infos, name);
    put_u32(w, &w->infos, n_dims);
    for (uint32_t i = 0; i < n_dims; i++)
        put_u64(w, &w->infos, ne[i]);
    put_u32(w, &w->infos, type);
    put_u64(w, &w->infos, off);
    w->n_tensors++;
}

static int join(const struct sl_gguf_writer *w, uint8_t **data, size_t *bytes,
                struct sl_error *err)
{
    size_t n;
    uint8_t *p;

    if (!sl_add_size(&n, w->keys.n, w->infos.n) ||
        n > SL_GGUF_HEADER_MAX - 24 - w->alignment)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "GGUF header is longer than %u bytes",
                       SL_GGUF_HEADER_MAX);
    n = sl_round_up(24 + n, w->alignment);
    p = calloc(n, 1);
    if (p == NULL)
        return sl_fail(err, SL_ERR_NOMEM,
                       "no memory for a GGUF header of %zu bytes", n);
    memcpy(p, "GGUF", 4);
    sl_store_u32(p + 4, 3);
    sl_store_u64(p + 8, w->n_tensors);
    sl_store_u64(p + 16, w->n_keys);
    memcpy(p + 24, w->keys.data, w->keys.n);
    if (w->infos.n > 0)
        memcpy(p + 24 + w->keys.n, w->infos.data, w->infos.n);
    *data = p;
    *bytes = n;
    return 0;
}

int sl_gguf_writer_finish(struct sl_gguf_writer *w, uint8_t **data,
                          size_t *bytes, struct sl_error *err)
{
    int rc = -1;

    if (w == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory for a GGUF header");
    if (w->failed.code == SL_OK)
        rc = join(w, data, bytes, err);
    else if (err != NULL)
        *err = w->failed;
    free(w->keys.data);
    free(w->infos.data);
    free(w);
    return rc;
}
