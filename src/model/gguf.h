/*
 * gguf.h - the GGUF container: header, metadata, tensor infos
 *
 * Reader and writer of the part before the tensor data (ggml-org/ggml
 * docs/gguf.md), of our own model files and of those that others publish;
 * versions 2 and 3, which are the same but for big-endian files, are read,
 * version 3 is written. A reader trusts nothing: every count, length and
 * offset is checked against the bytes there are, keys and names are unique and
 * printable, strings hold no zero byte, tensors lie one after another without
 * overlap. A parsed header borrows nothing: strings are copied.
 */
#ifndef SL_GGUF_H
#define SL_GGUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/error.h"

enum sl_gguf_type { /* of metadata values; the numbers are the format's */
                    SL_GGUF_U8 = 0,
                    SL_GGUF_I8 = 1,
                    SL_GGUF_U16 = 2,
                    SL_GGUF_I16 = 3,
                    SL_GGUF_U32 = 4,
                    SL_GGUF_I32 = 5,
                    SL_GGUF_F32 = 6,
                    SL_GGUF_BOOL = 7,
                    SL_GGUF_STRING = 8,
                    SL_GGUF_ARRAY = 9,
                    SL_GGUF_U64 = 10,
                    SL_GGUF_I64 = 11,
                    SL_GGUF_F64 = 12,
};

enum sl_ggml_type { /* of tensors: those that sluice writes */
                    SL_GGML_F32 = 0,
                    SL_GGML_F16 = 1,
                    SL_GGML_I8 = 24,
                    SL_GGML_BF16 = 30,
};

/* What a type of tensors is called, and that so many values of a row (one,
 * where there are no blocks) take so many bytes. */
struct sl_ggml_info {
    const char *name; /* "Q4_K" */
    uint32_t block_values, block_bytes;
};
/* NULL for a number that ggml does not have. */
const struct sl_ggml_info *sl_ggml_type_of(uint32_t type);
/* Of one value; 0 for types of blocks and unknown ones. */
uint64_t sl_ggml_type_bytes(uint32_t type);

struct sl_gguf_tensor {
    char *name;      /* at most 64 bytes in the file */
    uint32_t n_dims; /* 1..4 */
    uint64_t ne[4];  /* ne[0] is the fastest; unused ones are 1 */
    uint32_t type;
    uint64_t off;   /* in the file (data start already added) */
    uint64_t bytes; /* without padding */
};

struct sl_gguf; /* a parsed header, owned by its opener */

/* No header is that long: what claims to be is refused. */
#define SL_GGUF_HEADER_MAX (256u << 20)

/* data: the first n bytes of a file of file_bytes bytes. Returns 0, -1, or 1
 * when n is too small and *need says how many bytes to come back with (twice
 * n at least, where the file has them, so that a reader that starts small
 * parses a linear number of bytes in all). Tensors that reach beyond the
 * file's end are an error; that the last one is padded is not asked for.
 * Errors: SL_ERR_CORRUPT, SL_ERR_UNSUPPORTED (version, big endian, tensor
 * type), SL_ERR_NOMEM. */
int sl_gguf_parse(struct sl_gguf **g, const uint8_t *data, size_t n,
                  uint64_t file_bytes, size_t *need, struct sl_error *err);
void sl_gguf_destroy(struct sl_gguf *g);

size_t sl_gguf_n_tensors(const struct sl_gguf *g);
const struct sl_gguf_tensor *sl_gguf_tensor_at(const struct sl_gguf *g,
                                               size_t i);
const struct sl_gguf_tensor *sl_gguf_find(const struct sl_gguf *g,
                                          const char *name);
uint64_t sl_gguf_data_off(const struct sl_gguf *g); /* first tensor byte */
/* Where the padded tensor data ends: what the file should be long. */
uint64_t sl_gguf_end(const struct sl_gguf *g);
uint32_t sl_gguf_alignment(const struct sl_gguf *g);

/* Metadata. Scalars of any integer width are accepted where they fit. Each
 * returns -1 with SL_ERR_CORRUPT naming the key when it is absent or of
 * another type. Arrays and strings are borrowed until destroy. */
bool sl_gguf_has(const struct sl_gguf *g, const char *key);
/* Where the value of a key of fixed size begins, from the file's beginning;
 * 0 when the key is absent. */
size_t sl_gguf_value_off(const struct sl_gguf *g, const char *key);
int sl_gguf_get_u64(const struct sl_gguf *g, const char *key, uint64_t *v,
                    struct sl_error *err);
int sl_gguf_get_i64(const struct sl_gguf *g, const char *key, int64_t *v,
                    struct sl_error *err);
int sl_gguf_get_f64(const struct sl_gguf *g, const char *key, double *v,
                    struct sl_error *err);
int sl_gguf_get_bool(const struct sl_gguf *g, const char *key, bool *v,
                     struct sl_error *err);
int sl_gguf_get_string(const struct sl_gguf *g, const char *key, const char **v,
                       struct sl_error *err);
int sl_gguf_get_u64_array(const struct sl_gguf *g, const char *key,
                          const uint64_t **v, size_t *n, struct sl_error *err);
int sl_gguf_get_f32_array(const struct sl_gguf *g, const char *key,
                          const float **v, size_t *n, struct sl_error *err);
int sl_gguf_get_string_array(const struct sl_gguf *g, const char *key,
                             const char *const **v, size_t *n,
                             struct sl_error *err);

/* Writer: add metadata and tensors in file order, then take the bytes. A
 * failed addition is remembered and reported by sl_gguf_writer_finish; a
 * writer that could not be created takes additions too. general.alignment is
 * the first key, written by create. */
struct sl_gguf_writer;
struct sl_gguf_writer *sl_gguf_writer_create(uint32_t alignment); /* or NULL */
void sl_gguf_add_u32(struct sl_gguf_writer *w, const char *key, uint32_t v);
void sl_gguf_add_u64(struct sl_gguf_writer *w, const char *key, uint64_t v);
void sl_gguf_add_i32(struct sl_gguf_writer *w, const char *key, int32_t v);
void sl_gguf_add_f32(struct sl_gguf_writer *w, const char *key, float v);
void sl_gguf_add_bool(struct sl_gguf_writer *w, const char *key, bool v);
void sl_gguf_add_string(struct sl_gguf_writer *w, const char *key,
                        const char *v);
void sl_gguf_add_u64_array(struct sl_gguf_writer *w, const char *key,
                           const uint64_t *v, size_t n);
void sl_gguf_add_string_array(struct sl_gguf_writer *w, const char *key,
                              const char *const *v, size_t n);
/* The tensor's offset is the padded running sum of those before it. */
void sl_gguf_add_tensor(struct sl_gguf_writer *w, const char *name,
                        enum sl_ggml_type type, uint32_t n_dims,
                        const uint64_t *ne);
/* The header, padded to the alignment: *bytes is also the file offset of the
 * tensor data. *data is moved to the caller (free). Destroys the writer.
 * Errors: SL_ERR_NOMEM, SL_ERR_CORRUPT naming the key or tensor. */
int sl_gguf_writer_finish(struct sl_gguf_writer *w, uint8_t **data,
                          size_t *bytes, struct sl_error *err);

#endif
