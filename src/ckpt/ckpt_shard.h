/*
 * ckpt_shard.h - putting a shard's list of tensors together
 *
 * For the readers of containers and kinds of checkpoints alone.
 */
#ifndef SL_CKPT_SHARD_H
#define SL_CKPT_SHARD_H

#include "src/ckpt/ckpt.h"

#define SL_TENSOR_NAME_BYTES 512 /* of a name, its zero byte included */

/* An empty shard that owns src, which is moved, also when the call fails.
 * Errors: SL_ERR_CORRUPT (a Git LFS pointer), SL_ERR_NOMEM. */
int sl_shard_init(struct sl_ckpt_shard *shard, struct sl_src *src,
                  struct sl_error *err);

/* A tensor's name, checked: printable, neither empty nor too long. *out is
 * owned. file is for messages. */
int sl_shard_name(char **out, const char *text, size_t n, const char *file,
                  struct sl_error *err);

/* Sorts by name. Errors: SL_ERR_CORRUPT: no tensors, or one that stands twice,
 * with the files that hold it. */
int sl_shard_sort(struct sl_ckpt_shard *shard, struct sl_error *err);

/* Moves what from has to the end of to's lists; from is zeroed. Sort after.
 * On failure (SL_ERR_NOMEM) both are as they were. */
int sl_shard_append(struct sl_ckpt_shard *to, struct sl_ckpt_shard *from,
                    struct sl_error *err);

#endif
