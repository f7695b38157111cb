/*
 * attend.h - attention as its kernels take it
 */
#ifndef SL_KERNELS_CUDA_ATTEND_H
#define SL_KERNELS_CUDA_ATTEND_H

#include "kernels/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Keys of one split. The same whatever the batch, and so the sums' order. */
#define SL_SPLIT_KEYS 256u
/* Rows of an item from which tiles pay. */
#define SL_TILE_FROM 8u
#define SL_TILE_HEAD 128u /* widest head in tiles */

struct sl_attention {
    uint16_t *out; /* rows of the pass, as q */
    size_t out_stride;
    const uint16_t *q;
    size_t q_stride;
    struct sl_cuda_kv kv;
    const uint32_t *n_keys, *table, *pages;
    const uint32_t *fork; /* as struct sl_cuda_rows has them; or NULL */
    const uint64_t *path;
    float *part; /* (n, n_heads, n_splits, values + 2); unused with 1 split */
    uint32_t n_heads, group; /* of queries; of these to a head of keys */
    uint32_t first, n;       /* rows to be done */
    uint32_t n_splits;
    uint32_t values; /* of a head in out: kv.head_dim, or of a latent */
    uint32_t latent; /* 1: values are the first of keys, kv.v is nothing */
    float scale;     /* of scores, to the base of 2: log2(e) / sqrt(d) */
};

/* Every row on its own, split over keys; rows of trees too. kv.n_heads * group
 * is n_heads. */
int sl_attend_rows_launch(const struct sl_cuda *c, const struct sl_attention *a,
                          struct sl_error *err);
/* The parts of all splits become rows of out. */
int sl_attend_merge_launch(const struct sl_cuda *c,
                           const struct sl_attention *a, struct sl_error *err);
/* Rows of one sequence, in tiles. */
int sl_attend_tiles_launch(const struct sl_cuda *c,
                           const struct sl_attention *a, struct sl_error *err);
/* The same two where keys are latents. */
int sl_attend_latent_rows_launch(const struct sl_cuda *c,
                                 const struct sl_attention *a,
                                 struct sl_error *err);
int sl_attend_latent_tiles_launch(const struct sl_cuda *c,
                                  const struct sl_attention *a,
                                  struct sl_error *err);

#ifdef __cplusplus
}
#endif

#endif
