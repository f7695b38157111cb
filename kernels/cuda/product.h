/*
 * product.h - one matrix product as its kernels take it
 *
 * product.c turns a struct sl_cuda_matmul into one of these for each segment
 * (of a GLU: for both together), chooses a way and calls its launcher. What
 * kernels take as arguments has no padding (see launch.cuh).
 */
#ifndef SL_KERNELS_CUDA_PRODUCT_H
#define SL_KERNELS_CUDA_PRODUCT_H

#include "kernels/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What is done with finished sums. Row 0 and column 0 of y are those of the
 * part's first row. */
struct sl_product_out {
    void *y; /* (n, y_stride) */
    size_t y_stride;
    const float *bias[2]; /* GLU: of A and B; NULL for none */
    const float *residual;
    size_t residual_stride;
    enum sl_cuda_type type;
    enum sl_cuda_epilogue epilogue;
    uint32_t pairs; /* GLU: 1, rows of A go with those of B */
    float alpha;
};

struct sl_product {
    const uint8_t *w[2]; /* GLU: rows of A and B; else w[0] alone */
    const uint16_t *scale[2];
    const uint16_t *x; /* (n, x_stride) f16 */
    size_t x_stride;
    /* Products of several heads alike (sl_cuda_multiply_heads) are the third
     * dimension of a grid: so many rows of weights and columns of y, a
     * multiple of SL_BLOCK_ROWS, and values of x are from one to the next.
     * Else one head, and zeros. */
    size_t head_x;
    uint32_t head_rows, n_heads;
    enum sl_fmt fmt;
    uint32_t n;
    uint32_t n_rows;       /* of each, of a head */
    uint32_t segment_rows; /* of each, were it not cut */
    uint32_t cols;
    uint32_t units; /* blocks of rows: runs of 64 bytes in one */
    uint32_t groups, group_cols;
    struct sl_product_out out;
};

/* Sums that wait for their epilogue: split s of output o of position p is
 * sums[s * split_stride + p * stride + slot(o)]. The slot of row r is r, and
 * its partner's in B second + r; interleaved: blocks of A and B alternate. */
struct sl_product_sums {
    const float *sums;
    size_t split_stride, stride, second;
    uint32_t n_splits;
    uint32_t interleaved;
};

static inline bool sl_product_pairs(const struct sl_product *p)
{
    return p->out.pairs != 0;
}

/* 1 to SL_CUDA_FEW positions on CUDA cores: packed weights whose groups are
 * whole units of 8 columns (ggml's blocks by the second); floats and all that
 * is odd. */
bool sl_matvec_takes(const struct sl_product *p);
int sl_matvec_launch(const struct sl_cuda *c, const struct sl_product *p,
                     struct sl_error *err);
int sl_matvec_blocks_launch(const struct sl_cuda *c, const struct sl_product *p,
                            struct sl_error *err);
int sl_matvec_rows_launch(const struct sl_cuda *c, const struct sl_product *p,
                          struct sl_error *err);

/* 1 to SL_CUDA_SOME positions by mma.sync. */
bool sl_mma_takes(const struct sl_product *p);
uint64_t sl_mma_workspace(const struct sl_product *p);
/* Into how many parts (1 to most) the columns of a matrix of so many tiles of
 * rows are split, each a thread block's: by the bytes that the multiprocessor
 * with the most of them reads, and those of sums on their way to memory and
 * back. A part has whole stages; sum_bytes: a tile's. */
uint32_t sl_mma_splits(uint32_t tiles, uint32_t stages, uint32_t most,
                       uint32_t n_sms, uint32_t stage_bytes,
                       uint32_t sum_bytes);
int sl_mma_launch(const struct sl_cuda *c, const struct sl_product *p,
                  struct sl_error *err);

/* to (n_rows, stride) f16 = rows [first, first + n_rows) of w (first: a
 * multiple of 16). Clamped as all FP16. */
int sl_decode_launch(const struct sl_cuda *c, uint16_t *to, size_t stride,
                     const struct sl_product *p, unsigned which, uint32_t first,
                     uint32_t n_rows, struct sl_error *err);
/* The epilogue of rows [0, n_rows) of out for n positions. */
int sl_finish_launch(const struct sl_cuda *c, const struct sl_product_out *out,
                     const struct sl_product_sums *sums, uint32_t n,
                     uint32_t n_rows, struct sl_error *err);

/* x[i] = row ids[i] - first of p.w[0], if it has that row, for i < p.n; or it
 * is added to x[i]. */
int sl_embed_launch(const struct sl_cuda *c, float *x,
                    const struct sl_product *p, uint32_t first,
                    const int32_t *ids, bool add, struct sl_error *err);

/* cublas.c. Errors of open: SL_ERR_UNSUPPORTED, none was found. */
int sl_cublas_open(struct sl_cublas **blas, void *stream, struct sl_error *err);
void sl_cublas_close(struct sl_cublas *blas);
int sl_cublas_set_workspace(struct sl_cublas *blas, void *at, uint64_t bytes,
                            struct sl_error *err);
/* y (n, y_stride) f32 = x (n, x_stride) f16 . w (n_rows, w_stride) f16
 * transposed, over cols columns, summed in FP32. */
int sl_cublas_product(struct sl_cublas *blas, float *y, size_t y_stride,
                      const uint16_t *w, size_t w_stride, uint32_t n_rows,
                      const uint16_t *x, size_t x_stride, uint32_t n,
                      uint32_t cols, struct sl_error *err);

#ifdef __cplusplus
}
#endif

#endif
