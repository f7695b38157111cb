/*
 * ckpt.h - a published checkpoint, as lists of tensors
 *
 * One face for every kind (ckpt_kind.h) and container. Kinds: a SAT
 * checkpoint, folder or split archive read in place; a Hugging Face folder; a
 * published GGUF file; one file on its own. Containers: safetensors; torch.save
 * files, zip or legacy, whose pickle is read by a restricted machine that
 * executes nothing (ckpt_pickle.h).
 */
#ifndef SL_CKPT_H
#define SL_CKPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "quant/block_shape.h"
#include "quant/fmt.h"
#include "src/base/error.h"
#include "src/base/log.h"
#include "src/ckpt/ckpt_src.h"

enum sl_dtype {
    SL_DT_F32,
    SL_DT_F16,
    SL_DT_BF16,
    SL_DT_F64,
    SL_DT_I8,
    SL_DT_U8,
    SL_DT_I16,
    SL_DT_I32,
    SL_DT_I64,
    SL_DT_BOOL,
    SL_DT_U16,
    SL_DT_U32,
    SL_DT_U64,
    SL_DT_F8_E4M3,
    SL_DT_F8_E5M2,
/* ggml's blocks: SL_DT_Q4_0 ... SL_DT_MXFP4 */
#define SL_DT_OF_BLOCKS(NAME, ...) SL_DT_##NAME,
    SL_BLOCK_SHAPES(SL_DT_OF_BLOCKS)
#undef SL_DT_OF_BLOCKS
        SL_DT_COUNT,
};

/* Of one element, or of a block of sl_dtype_block_values: those lie along a
 * row, whose length is a multiple. */
uint32_t sl_dtype_bytes(enum sl_dtype dt);
uint32_t sl_dtype_block_values(enum sl_dtype dt);
/* The format of a type of blocks; false: it is a type of single elements. */
bool sl_dtype_blocks(enum sl_fmt *fmt, enum sl_dtype dt);
const char *sl_dtype_name(enum sl_dtype dt);  /* "float16" */
const char *sl_dtype_short(enum sl_dtype dt); /* "F16" */
/* One element (not of a block), little-endian at p, as the nearest float. */
float sl_dtype_load(const void *p, enum sl_dtype dt);
/* By the name in a safetensors header ("F16"), or in GGML ("Q4_K"); false when
 * there is none. */
bool sl_dtype_find(enum sl_dtype *dt, const char *short_name);

#define SL_CKPT_DIMS 8

struct sl_ckpt_tensor {
    char *name;
    enum sl_dtype dtype;
    uint32_t n_dims;
    uint64_t shape[SL_CKPT_DIMS];
    uint64_t stride[SL_CKPT_DIMS]; /* elements */
    struct sl_src *src;            /* borrowed from the checkpoint */
    uint64_t off;                  /* of the first element, in src */
};

/* Rows [first, first + n) of a 2-D tensor (or elements of a 1-D one) as
 * dense little-endian elements of the tensor's own type, whatever its
 * strides, or its blocks; takes at most 1 MiB of memory. A tensor of more
 * dimensions counts as a matrix of shape[0] rows, one of none as a single
 * element. Errors: SL_ERR_IO or SL_ERR_CORRUPT naming file and offset,
 * SL_ERR_NOMEM, SL_ERR_USAGE (rows the tensor has not), SL_ERR_UNSUPPORTED
 * (more than two dimensions whose rows are no even series). */
int sl_ckpt_read_rows(const struct sl_ckpt_tensor *t, void *out, uint64_t first,
                      uint64_t n, struct sl_error *err);
/* As above, columns [first_col, first_col + n_cols) only, dense; of blocks
 * whole ones. */
int sl_ckpt_read_block(const struct sl_ckpt_tensor *t, void *out,
                       uint64_t first, uint64_t n, uint64_t first_col,
                       uint64_t n_cols, struct sl_error *err);

/* Bytes of src from the first element to the end of the last one. */
uint64_t sl_ckpt_extent(const struct sl_ckpt_tensor *t);

/* What one rank of tensor parallelism holds, in one file or in several. */
struct sl_ckpt_shard {
    const char *file;               /* for messages; of several their index */
    struct sl_ckpt_tensor *tensors; /* sorted by name */
    size_t n_tensors;
    struct sl_src **srcs; /* owned: what the tensors' src point to */
    size_t n_srcs;
};

struct sl_ckpt {
    const struct sl_ckpt_kind *kind;
    struct sl_ckpt_shard *shards; /* by rank; n_shards = TP degree */
    size_t n_shards;
    char iteration[64]; /* SAT: the folder below; "" when there is none */
    struct sl_ckpt_impl *impl;
};

/* path: what one of the kinds looks for. Errors: SL_ERR_IO, SL_ERR_USAGE (no
 * checkpoint: says what each kind looks for), SL_ERR_CORRUPT (truncated part,
 * bad header or pickle, missing shard, with names and numbers),
 * SL_ERR_UNSUPPORTED. */
int sl_ckpt_open(struct sl_ckpt *c, const char *path, const struct sl_log *log,
                 struct sl_error *err);
void sl_ckpt_close(struct sl_ckpt *c);

/* Is it one of the checkpoint's files of tensors that st is of? */
bool sl_ckpt_is(const struct sl_ckpt *c, const struct stat *st);

/* Nothing is held against a container's checksums any more. */
void sl_ckpt_trust(struct sl_ckpt *c);
/* Reads what is missing of all that was begun and has a checksum: for the end,
 * when all that matters was read. Errors: SL_ERR_CORRUPT naming file, tensor
 * and offset; SL_ERR_IO, SL_ERR_NOMEM. */
int sl_ckpt_check_rest(struct sl_ckpt *c, struct sl_error *err);

/* NULL if the shard has no such tensor. */
const struct sl_ckpt_tensor *sl_ckpt_find(const struct sl_ckpt *c, size_t shard,
                                          const char *name);

/* A small file beside the checkpoint (config.json, ice_text.model), in the
 * folder or in the archive, beside `latest` or the shards or at the archive's
 * root, last in the folder that holds the archive. *data is moved
 * to the caller (free) and ends with a zero byte not counted in *n. Returns
 * 1 when there is no such file. */
int sl_ckpt_read_file(const struct sl_ckpt *c, const char *name, uint8_t **data,
                      size_t *n, struct sl_error *err);

struct sl_gguf;
/* The header of a published GGUF file (of a split one's first part), borrowed
 * until close; NULL: the checkpoint is none. */
const struct sl_gguf *sl_ckpt_gguf(const struct sl_ckpt *c);

/* One torch.save file on its own: the tensors found under "module", or at the
 * top level where there is no such key. src is moved,
 * also when the call fails. Entries that are no tensors, or of an element
 * type not listed above, are left out with a word to log. Errors:
 * SL_ERR_CORRUPT, SL_ERR_UNSUPPORTED, SL_ERR_IO, SL_ERR_NOMEM, with file,
 * tensor and numbers. */
int sl_torch_open(struct sl_ckpt_shard *shard, struct sl_src *src,
                  const struct sl_log *log, struct sl_error *err);
/* The same of a safetensors file (ckpt_safetensors.c). */
int sl_safetensors_open(struct sl_ckpt_shard *shard, struct sl_src *src,
                        struct sl_error *err);
void sl_ckpt_shard_close(struct sl_ckpt_shard *shard);

#endif
