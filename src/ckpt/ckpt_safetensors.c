#include "config.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/bytes.h"
#include "src/base/json.h"
#include "src/base/mem.h"
#include "src/ckpt/ckpt_shard.h"

/* A safetensors file (huggingface/safetensors README.md, "Format"):
 *
 *     u64 N, little-endian
 *     N bytes of JSON: {"NAME": {"dtype": "F16", "shape": [2, 3],
 *                                "data_offsets": [BEGIN, END]}, ...,
 *                       "__metadata__": {...}}
 *     the tensors' elements, row-major; offsets count from here
 *
 * The tensors cover the rest of the file without overlaps and without holes.
 * N is at most 100 MB, as the format's own reader has it. */

#define LENGTH_BYTES 8u
#define MAX_HEADER   100000000u

struct header {
    const char *file;
    json_t *root;
    uint64_t data_off;   /* where the elements begin in the file */
    uint64_t data_bytes; /* from there to its end */
};

/* The format's own limit of 100 MB comes before the file's length: a file of
 * another kind has any number there, and the message says that it is none. */
static int header_length(uint64_t *n, struct sl_src *src, struct sl_error *err)
{
    uint64_t bytes = sl_src_bytes(src);
    const char *file = sl_src_name(src);
    uint8_t word[LENGTH_BYTES];

    if (bytes < LENGTH_BYTES)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "%s: %" PRIu64 " bytes: too short for a safetensors "
                       "file",
                       file, bytes);
    if (sl_src_read(src, word, 0, sizeof word, err) != 0)
        return -1;
    *n = sl_load_u64(word);
    if (*n > MAX_HEADER)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "%s: a header of %" PRIu64 " bytes, but at most %u are "
                       "allowed: not a safetensors file",
                       file, *n, MAX_HEADER);
    if (*n > bytes - LENGTH_BYTES)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "%s: the header has %" PRIu64 " bytes, but the file "
                       "ends at %" PRIu64 ": is it complete?",
                       file, *n, bytes);
    return 0;
}

/* The format wants the object to begin at byte 8 at once; blanks before it
 * would be JSON all the same, and are refused by other readers, too. */
static int read_header(struct header *h, struct sl_src *src,
                       struct sl_error *err)
{
    uint64_t n = 0;
    char *text;
    int rc;

    if (header_length(&n, src, err) != 0)
        return -1;
    text = sl_alloc_array((size_t)n + 1, 1);
    if (text == NULL)
        return sl_fail(err, SL_ERR_NOMEM,
                       "%s: no memory for a header of %" PRIu64 " bytes",
                       h->file, n);
    rc = sl_src_read(src, text, LENGTH_BYTES, (size_t)n, err);
    if (rc == 0 && (n == 0 || text[0] != '{'))
        rc = sl_fail(err, SL_ERR_CORRUPT,
                     "%s: no safetensors file: byte 8 begins no JSON object",
                     h->file);
    if (rc == 0)
        rc = sl_json_parse(&h->root, text, (size_t)n, h->file, err);
    free(text);
    h->data_off = LENGTH_BYTES + n;
    h->data_bytes = sl_src_bytes(src) - h->data_off;
    return rc;
}

static bool get_count(uint64_t *n, const json_t *v)
{
    if (!json_is_integer(v) || json_integer_value(v) < 0)
        return false;
    *n = (uint64_t)json_integer_value(v);
    return true;
}

/* Fills shape and dense strides, and *bytes = what the elements take. */
static int take_shape(struct sl_ckpt_tensor *t, uint64_t *bytes,
                      const json_t *shape, struct sl_error *err)
{
    uint64_t step = 1;
    bool empty = false;

    if (!json_is_array(shape))
        return sl_fail(err, SL_ERR_CORRUPT, "has no list of sizes as shape");
    if (json_array_size(shape) > SL_CKPT_DIMS)
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "%zu dimensions; at most %d are read",
                       json_array_size(shape), SL_CKPT_DIMS);
    t->n_dims = (uint32_t)json_array_size(shape);
    for (uint32_t i = 0; i < t->n_dims; i++) {
        if (!get_count(&t->shape[i], json_array_get(shape, i)))
            return sl_fail(err, SL_ERR_CORRUPT,
                           "the size of dimension %" PRIu32 " is no count", i);
        empty = empty || t->shape[i] == 0;
    }
    for (uint32_t i = t->n_dims; i-- > 0;) {
        t->stride[i] = step;
        if (__builtin_mul_overflow(step, t->shape[i] > 0 ? t->shape[i] : 1,
                                   &step) ||
            step > INT64_MAX / 8)
            return sl_fail(err, SL_ERR_CORRUPT,
                           "size %" PRIu64 " of dimension %" PRIu32
                           " overflows",
                           t->shape[i], i);
    }
    *bytes = empty ? 0 : step * sl_dtype_bytes(t->dtype);
    return 0;
}

static int take_dtype(struct sl_ckpt_tensor *t, const json_t *dtype,
                      struct sl_error *err)
{
    const char *name = json_string_value(dtype);

    if (name == NULL)
        return sl_fail(err, SL_ERR_CORRUPT, "has no dtype");
    if (!sl_dtype_find(&t->dtype, name) || sl_dtype_block_values(t->dtype) > 1)
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "elements of type %.20s are not read", name);
    return 0;
}

/* Where the elements lie, checked against type, shape and file. */
static int take_offsets(struct sl_ckpt_tensor *t, const struct header *h,
                        const json_t *offsets, uint64_t bytes,
                        struct sl_error *err)
{
    uint64_t begin, end;

    if (!json_is_array(offsets) || json_array_size(offsets) != 2 ||
        !get_count(&begin, json_array_get(offsets, 0)) ||
        !get_count(&end, json_array_get(offsets, 1)) || begin > end)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "data_offsets are not a beginning and an end");
    if (end > h->data_bytes)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "ends at offset %" PRIu64 ", but the file at %" PRIu64
                       ": is it complete?",
                       end > UINT64_MAX - h->data_off ? end : h->data_off + end,
                       h->data_off + h->data_bytes);
    if (end - begin != bytes)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "its shape takes %" PRIu64 " bytes as %s, but it has "
                       "%" PRIu64,
                       bytes, sl_dtype_name(t->dtype), end - begin);
    t->off = h->data_off + begin;
    return 0;
}

/* What is wrong is said with file and tensor, whichever of the three fields
 * it was. */
static int add_tensor(struct sl_ckpt_shard *shard, const struct header *h,
                      const char *name, const json_t *v, struct sl_error *err)
{
    struct sl_ckpt_tensor t = {.src = shard->srcs[0]};
    uint64_t bytes = 0;

    if (sl_shard_name(&t.name, name, strlen(name), h->file, err) != 0)
        return -1;
    if (!json_is_object(v))
        sl_fail(err, SL_ERR_CORRUPT, "is described by %s, not an object",
                sl_json_kind(v));
    else if (take_dtype(&t, json_object_get(v, "dtype"), err) == 0 &&
             take_shape(&t, &bytes, json_object_get(v, "shape"), err) == 0 &&
             take_offsets(&t, h, json_object_get(v, "data_offsets"), bytes,
                          err) == 0) {
        shard->tensors[shard->n_tensors++] = t;
        return 0;
    }
    sl_error_prefix(err, "%s: tensor %.200s: ", h->file, t.name);
    free(t.name);
    return -1;
}

static uint64_t tensor_bytes(const struct sl_ckpt_tensor *t)
{
    uint64_t n = sl_dtype_bytes(t->dtype);

    for (uint32_t i = 0; i < t->n_dims; i++)
        n *= t->shape[i];
    return n;
}

/* Empty tensors come before the one that begins where they do. */
static int compare_places(const void *va, const void *vb)
{
    const struct sl_ckpt_tensor *a = va, *b = vb;
    uint64_t na = tensor_bytes(a), nb = tensor_bytes(b);

    if (a->off != b->off)
        return a->off < b->off ? -1 : 1;
    return (na > nb) - (na < nb);
}

/* Tensors fill the data without holes and overlaps (safetensors' README,
 * "Format"): bytes that no tensor has could hide anything, bytes that two
 * have are a sign of a damaged header. */
static int check_cover(struct sl_ckpt_shard *shard, const struct header *h,
                       struct sl_error *err)
{
    uint64_t at = h->data_off, end = h->data_off + h->data_bytes;
    const char *before = "the header";

    if (shard->n_tensors > 0)
        qsort(shard->tensors, shard->n_tensors, sizeof *shard->tensors,
              compare_places);
    for (size_t i = 0; i < shard->n_tensors; i++) {
        const struct sl_ckpt_tensor *t = &shard->tensors[i];

        if (t->off != at)
            return sl_fail(err, SL_ERR_CORRUPT,
                           "%s: tensor %.150s begins at offset %" PRIu64
                           ", but %.150s ends at %" PRIu64 ": %s",
                           h->file, t->name, t->off, before, at,
                           t->off < at ? "they overlap"
                                       : "there is a hole between them");
        at += tensor_bytes(t);
        before = t->name;
    }
    if (at != end)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "%s: the last tensor ends at offset %" PRIu64
                       ", but the file at %" PRIu64,
                       h->file, at, end);
    return 0;
}

static int list_tensors(struct sl_ckpt_shard *shard, const struct header *h,
                        struct sl_error *err)
{
    const char *name;
    json_t *v;

    if (!json_is_object(h->root))
        return sl_fail(err, SL_ERR_CORRUPT, "%s: its header is %s", h->file,
                       sl_json_kind(h->root));
    shard->tensors =
        sl_zalloc_array(json_object_size(h->root), sizeof *shard->tensors);
    if (shard->tensors == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "%s: no memory for %zu tensors",
                       h->file, json_object_size(h->root));
    json_object_foreach(h->root, name, v)
    {
        if (strcmp(name, "__metadata__") == 0)
            continue;
        if (add_tensor(shard, h, name, v, err) != 0)
            return -1;
    }
    if (check_cover(shard, h, err) != 0)
        return -1;
    return sl_shard_sort(shard, err);
}

int sl_safetensors_open(struct sl_ckpt_shard *shard, struct sl_src *src,
                        struct sl_error *err)
{
    struct header h = {.file = sl_src_name(src)};
    struct sl_ckpt_shard made;
    int rc;

    if (sl_shard_init(&made, src, err) != 0)
        return -1;
    rc = read_header(&h, src, err);
    if (rc == 0)
        rc = list_tensors(&made, &h, err);
    json_decref(h.root);
    if (rc != 0) {
        sl_ckpt_shard_close(&made);
        return -1;
    }
    *shard = made;
    return 0;
}
