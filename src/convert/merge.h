/*
 * merge.h - one tensor of the model, put together from those of a checkpoint
 *
 * A checkpoint has it under its own name or an alias, or has its rows in
 * several tensors (q, k, v), one after another. Each of them a tensor-parallel
 * checkpoint cuts into shards:
 *
 *   SL_SPLIT_NONE  every shard has all of it: the first one's is taken
 *   SL_SPLIT_ROWS  shard after shard along the rows
 *   SL_SPLIT_COLS  side by side along the columns
 *   SL_SPLIT_GLU   shard r holds the r-th part of each half: all first
 *                  halves, then all second halves
 *   SL_SPLIT_QKV   the same of q, k and v, thirds
 *
 * A GGUF file's matrix may be in ggml's blocks (quant/blocks.h). They are
 * handed out as they are, or decoded where that is asked for or where the parts
 * of one matrix differ.
 *
 * A matrix may come quantised (THUDM/GLM-130B quantization/layers.py): int8
 * "X.weight" of [out, in], or of [out, in / 2] bytes with the even column in
 * the high four bits, and FP16 "X.weight_scale" of [out], for each shard on
 * its own; so a matrix split by columns has a scale for each row and shard.
 *
 * Reads are thread-safe: the same struct may serve several threads that have
 * scratch memory of their own.
 */
#ifndef SL_MERGE_H
#define SL_MERGE_H

#include <stdbool.h>
#include <stdint.h>

#include "quant/fmt.h"
#include "src/arch/arch.h"
#include "src/ckpt/ckpt.h"

struct sl_merge {
    const struct sl_ckpt *ckpt;
    struct sl_tensor_spec spec;
    /* What all shards have it in; numbers of several types, and FP64, are
     * handed out as FP32. INT8 and INT4: quantised already. A format of
     * blocks: rows of them. */
    enum sl_fmt fmt;
    uint32_t n_groups;   /* quantised: scales a row */
    bool mixed_blocks;   /* parts in different ones, or in one and numbers */
    uint64_t wire_bytes; /* of the widest row of a shard as it is stored */
    /* The checkpoint's tensors, rows in order. */
    struct sl_merge_source {
        char name[SL_TENSOR_SPEC_NAME];
        uint32_t rows;
    } source[SL_SOURCES];
    unsigned n_sources;
};

/* Finds the tensor in all shards and checks types and shapes. Borrows the
 * checkpoint. Errors: SL_ERR_CORRUPT (missing, wrong shape),
 * SL_ERR_UNSUPPORTED (type); each names file, tensor and numbers. */
int sl_merge_init(struct sl_merge *m, const struct sl_ckpt *c,
                  const struct sl_tensor_spec *spec, struct sl_error *err);

/* The checkpoint's tensors that it is put together from, scales of quantised
 * ones too; *shard is whose one of them is. */
size_t sl_merge_n_parts(const struct sl_merge *m);
const struct sl_ckpt_tensor *sl_merge_part(const struct sl_merge *m, size_t i,
                                           size_t *shard);

/* What it comes in is blocks: hand it out as FP32, exactly. */
void sl_merge_decode(struct sl_merge *m);

/* Bytes of a merged row as sl_merge_read hands it out. */
uint64_t sl_merge_row_bytes(const struct sl_merge *m);
/* Bytes of scratch that reading n rows takes. */
uint64_t sl_merge_scratch_bytes(const struct sl_merge *m, uint64_t n);

/* Rows [first, first + n) of the merged tensor.
 * out: (n, cols) of numbers in fmt; quantised: (n, cols) int8, one byte a
 * weight, for INT4 too.
 * scale: (n, n_groups) FP16, each finite and not negative; quantised only,
 * else NULL.
 * Errors: SL_ERR_IO, SL_ERR_CORRUPT (a bad scale, of a block too), with the
 * tensor's name in front. */
int sl_merge_read(const struct sl_merge *m, void *out, uint16_t *scale,
                  uint64_t first, uint64_t n, void *scratch,
                  struct sl_error *err);

/* merge_heads.c: SL_SPLIT_HEAD_KEYS and _VALUES. Rows of what they are part
 * of; what sl_merge_read does. */
static inline bool sl_merge_by_heads(const struct sl_tensor_spec *s)
{
    return s->split == SL_SPLIT_HEAD_KEYS || s->split == SL_SPLIT_HEAD_VALUES;
}
uint32_t sl_merge_head_rows(const struct sl_tensor_spec *s);
int sl_merge_read_heads(const struct sl_merge *m, uint8_t *out, uint64_t first,
                        uint64_t n, uint8_t *scratch, struct sl_error *err);

#endif
