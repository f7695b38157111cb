#include "config.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/bytes.h"
#include "tests/hf_maker.h"
#include "tests/support.h"

#define HEADER_BYTES 65536

static const char *const type_names[SL_DT_COUNT] = {
    [SL_DT_F32] = "F32",         [SL_DT_F16] = "F16",
    [SL_DT_BF16] = "BF16",       [SL_DT_F64] = "F64",
    [SL_DT_I8] = "I8",           [SL_DT_U8] = "U8",
    [SL_DT_I16] = "I16",         [SL_DT_I32] = "I32",
    [SL_DT_I64] = "I64",         [SL_DT_BOOL] = "BOOL",
    [SL_DT_U16] = "U16",         [SL_DT_U32] = "U32",
    [SL_DT_U64] = "U64",         [SL_DT_F8_E4M3] = "F8_E4M3",
    [SL_DT_F8_E5M2] = "F8_E5M2",
};

static size_t tensor_bytes(const struct maker_tensor *t)
{
    size_t n = sl_dtype_bytes(t->dtype);

    for (uint32_t i = 0; i < t->n_dims; i++)
        n *= t->shape[i];
    return n;
}

void maker_safetensors_raw(struct maker_buf *b, const char *header,
                           const void *data, size_t n)
{
    uint8_t length[8];

    sl_store_u64(length, strlen(header));
    maker_put(b, length, sizeof length);
    maker_put(b, header, strlen(header));
    maker_put(b, data, n);
}

void maker_safetensors(struct maker_buf *b, const struct maker_tensor *tensors,
                       size_t n_tensors)
{
    char *head = malloc(HEADER_BYTES);
    struct maker_buf data = {0};
    size_t n;

    assert_non_null(head);
    n = (size_t)sprintf(head, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (size_t i = 0; i < n_tensors; i++) {
        const struct maker_tensor *t = &tensors[i];

        assert_true(n + 512 < HEADER_BYTES);
        n += (size_t)sprintf(head + n, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[",
                             t->name, type_names[t->dtype]);
        for (uint32_t d = 0; d < t->n_dims; d++)
            n += (size_t)sprintf(head + n, "%s%" PRIu64, d > 0 ? "," : "",
                                 t->shape[d]);
        n += (size_t)sprintf(head + n, "],\"data_offsets\":[%zu,%zu]}", data.n,
                             data.n + tensor_bytes(t));
        maker_put(&data, t->data, tensor_bytes(t));
    }
    head[n++] = '}';
    while (n % 8 != 0)
        head[n++] = ' ';
    head[n] = '\0';
    maker_safetensors_raw(b, head, data.at, data.n);
    maker_fini(&data);
    free(head);
}

char *maker_hf_name(char name[64], enum maker_weights kind, unsigned file,
                    unsigned n_files)
{
    const char *stem = kind == MAKER_SAFETENSORS ? "model" : "pytorch_model";
    const char *tail = kind == MAKER_SAFETENSORS ? "safetensors" : "bin";

    if (n_files == 1)
        snprintf(name, 64, "%s.%s", stem, tail);
    else
        snprintf(name, 64, "%s-%05u-of-%05u.%s", stem, file + 1, n_files, tail);
    return name;
}

static void write_weights(const char *dir, const struct maker_tensor *tensors,
                          size_t n, enum maker_weights kind, unsigned file,
                          unsigned n_files)
{
    static const struct maker_options bare = {.bare = true};
    struct maker_buf b = {0};
    char name[64], path[1200];

    if (kind == MAKER_SAFETENSORS)
        maker_safetensors(&b, tensors, n);
    else
        maker_torch(&b, tensors, n, &bare);
    snprintf(path, sizeof path, "%s/%s", dir,
             maker_hf_name(name, kind, file, n_files));
    maker_file(path, b.at, b.n);
    maker_fini(&b);
}

static void write_index(const char *dir, const struct maker_tensor *tensors,
                        size_t n_tensors, enum maker_weights kind,
                        unsigned n_files)
{
    char *text = malloc(HEADER_BYTES), name[64], path[1200];
    size_t n;

    assert_non_null(text);
    n = (size_t)sprintf(text, "{\"metadata\": {\"total_size\": 1}, "
                              "\"weight_map\": {");
    for (size_t i = 0; i < n_tensors; i++) {
        assert_true(n + 512 < HEADER_BYTES);
        n += (size_t)sprintf(
            text + n, "%s\"%s\": \"%s\"", i > 0 ? ", " : "", tensors[i].name,
            maker_hf_name(name, kind, (unsigned)i % n_files, n_files));
    }
    n += (size_t)sprintf(text + n, "}}");
    snprintf(path, sizeof path, "%s/%s.index.json", dir,
             maker_hf_name(name, kind, 0, 1));
    maker_file(path, text, n);
    free(text);
}

void maker_hf(const char *dir, const struct maker_tensor *tensors,
              size_t n_tensors, enum maker_weights kind, unsigned n_files)
{
    struct maker_tensor *part = calloc(n_tensors, sizeof *part);

    assert_non_null(part);
    for (unsigned f = 0; f < n_files; f++) {
        size_t n = 0;

        for (size_t i = f; i < n_tensors; i += n_files)
            part[n++] = tensors[i];
        write_weights(dir, part, n, kind, f, n_files);
    }
    if (n_files > 1)
        write_index(dir, tensors, n_tensors, kind, n_files);
    free(part);
}
