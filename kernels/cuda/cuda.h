/*
 * cuda.h - the arithmetic on a CUDA device: the C face of all launchers
 *
 * A launcher puts kernels on the context's stream and returns; it allocates
 * nothing and waits for nothing. Pointers are to device memory unless a
 * comment says "host". A launch that is refused is an error at once
 * (SL_ERR_IO); what goes wrong while a kernel runs is reported by the next
 * call that waits for the stream. The device that the stream belongs to must
 * be current on the calling thread; one thread at a time uses a context.
 *
 * Types. Weights are the model file's bytes (quant/matrix.h). The inputs of
 * products, q, k and v are FP16; the residual stream is FP32, because the
 * outliers of GLM-130B's hidden states and alpha = sqrt(2 * n_layers) leave
 * FP16's range. All sums, norms, softmax and activations are FP32. A value that
 * is stored as FP16 is clamped to +-65504, so that no outlier becomes an
 * infinity and then a NaN. (NaN stays NaN.)
 * BF16 weights are used as they are for up to SL_CUDA_FEW positions and by
 * embedding; for more they become FP16, which is exact from 2^-14 to 65504 and
 * off by 2^-25 at most below (clamped above, where no trained weight is).
 *
 * Alignment. FP16 inputs begin at multiples of 16 bytes and their strides are
 * multiples of 8 values; weights begin at multiples of 16 bytes, scales of 8
 * (of 16 where rows have groups of columns), everything else at multiples of
 * its own size.
 */
#ifndef SL_KERNELS_CUDA_CUDA_H
#define SL_KERNELS_CUDA_CUDA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "quant/matrix.h"
#include "src/base/error.h"

#ifdef __cplusplus
extern "C" {
#endif

#define SL_CUDA_PAGE_LEN    16u  /* positions in a page of the KV cache */
#define SL_CUDA_MAX_HEAD    256u /* values a head, at most */
#define SL_CUDA_MAX_LATENT  512u /* values of a latent, at most, */
#define SL_CUDA_MAX_JOINED  576u /* and with those that are rotated */
#define SL_CUDA_MAX_TOP     1024u
#define SL_CUDA_FEW         4u  /* positions: products on CUDA cores */
#define SL_CUDA_SOME        64u /* positions: products by mma.sync */
#define SL_CUDA_BLAS_BYTES  (32ull << 20) /* of the workspace, for cuBLAS, */
#define SL_CUDA_LEAST_BYTES (4ull << 20)  /* where it leaves so much */

struct sl_cublas;

/* What launchers need to know. Filled by sl_cuda_init; read only. */
struct sl_cuda {
    void *stream; /* cudaStream_t, borrowed */
    int arch;     /* 10 * major + minor compute capability */
    uint32_t n_sms;
    void *workspace; /* borrowed; shared by all launchers, in stream order */
    uint64_t workspace_bytes;
    /* By format: up to so many positions go in runs of SL_CUDA_SOME, not by
     * cuBLAS. 0 at first: none. The caller, who knows the device's rates, may
     * set it. */
    uint32_t runs_to[SL_FMT_COUNT];
    struct sl_cublas *blas; /* owned; NULL: see note */
    bool blas_ready;        /* it has its part of the workspace */
    char note[200];         /* why cuBLAS is not used; "" if it is */
};

/* For the current device. Loads cuBLAS; a machine without it computes long
 * products in runs of SL_CUDA_SOME positions, which is slower, and `note`
 * says so. Errors: SL_ERR_IO. */
int sl_cuda_init(struct sl_cuda *c, void *stream, struct sl_error *err);
void sl_cuda_fini(struct sl_cuda *c);
/* Memory that launchers may write to from now on. at: a multiple of 256
 * bytes. What each launcher wants is told by its _workspace function; the
 * largest of them is enough for all. */
int sl_cuda_set_workspace(struct sl_cuda *c, void *at, uint64_t bytes,
                          struct sl_error *err);

/* What a cudaError_t means to whoever reads it. */
const char *sl_cuda_error_text(int error);

/* --- products ------------------------------------------------------------ */

enum sl_cuda_type { SL_CUDA_F32, SL_CUDA_F16 };

/* What is done with a sum before it is stored. */
enum sl_cuda_epilogue {
    SL_CUDA_EPI_NONE,      /* y = W x + bias */
    SL_CUDA_EPI_GEGLU,     /* two segments: y = (A x + a) * gelu_erf(B x + b) */
    SL_CUDA_EPI_GELU_TANH, /* y = gelu_tanh(W x + bias) */
    SL_CUDA_EPI_RESIDUAL,  /* y = alpha * residual + W x + bias */
    SL_CUDA_EPI_SWIGLU,    /* two segments: y = silu(A x + a) * (B x + b) */
};

/* Blocks [first_block, first_block + n_blocks) of every segment of m. */
struct sl_cuda_matmul {
    const struct sl_matrix *m; /* host */
    uint32_t first_block, n_blocks;
    const void *w[2];         /* by segment: first byte of first_block */
    const uint16_t *scale[2]; /* the same for the scales; NULL for floats */
    const float *bias;        /* (m->rows) or NULL */
    enum sl_cuda_epilogue epilogue;
    float alpha;           /* SL_CUDA_EPI_RESIDUAL */
    const float *residual; /* (n, residual_stride); may be y */
    size_t residual_stride;
};

/* y: (n, y_stride) of y_type; row r of segment s goes to column
 * s * segment_rows + r, with a GLU to column r; only the columns of the given
 * blocks are written. x: (n, x_stride) f16, m->cols used.
 *
 * Up to SL_CUDA_FEW positions are done on CUDA cores in one pass over the
 * weights, up to SL_CUDA_SOME by mma.sync on the packed weights, up to runs_to
 * of the context in runs of so many; more by cuBLAS, with as many rows at a
 * time decoded to f16 as the workspace holds. Sums are FP32. For up to
 * SL_CUDA_FEW positions a position's result does not depend on the others. */
int sl_cuda_matmul_run(const struct sl_cuda *c, void *y, size_t y_stride,
                       enum sl_cuda_type y_type,
                       const struct sl_cuda_matmul *mm, const uint16_t *x,
                       size_t x_stride, uint32_t n, struct sl_error *err);
/* Bytes of workspace with which the product of m with up to n positions runs
 * at its best; and with which those of up to SL_CUDA_SOME give the same bits
 * however m is cut. It works with less, down to none, more slowly. */
uint64_t sl_cuda_matmul_workspace(const struct sl_matrix *m, uint32_t n);
uint64_t sl_cuda_matmul_workspace_least(const struct sl_matrix *m, uint32_t n);

/* m has as many rows for each of n_heads heads (a multiple of SL_BLOCK_ROWS),
 * all in one segment, and each takes its own values of x: head h those from h *
 * head_x on. y (n, y_stride) f16: row r of m goes to column r. Of mm: m,
 * first_block, n_blocks, w[0] and scale[0]; the blocks may be of parts of
 * heads. All whole heads are one launch for up to SL_CUDA_SOME positions, more
 * go in runs of so many; bits do not depend on how m is cut. No workspace. */
int sl_cuda_multiply_heads(const struct sl_cuda *c, uint16_t *y,
                           size_t y_stride, const struct sl_cuda_matmul *mm,
                           uint32_t n_heads, uint32_t head_x, const uint16_t *x,
                           size_t x_stride, uint32_t n, struct sl_error *err);

/* to = both planes of INT8 weights (quant/planes.h), whole units, as INT8;
 * bytes: of that. to[i] = 16 from[i], clamped: with these scales the high plane
 * alone is INT4. */
int sl_cuda_join_planes(const struct sl_cuda *c, void *to, const void *high,
                        const void *low, uint64_t bytes, struct sl_error *err);
int sl_cuda_scale_plane(const struct sl_cuda *c, uint16_t *to,
                        const uint16_t *from, uint64_t n, struct sl_error *err);

/* --- between products ---------------------------------------------------- */

/* y = (x - mean) / sqrt(var + eps) * w + b for n rows of h values:
 * x (., h) f32, row rows[i] or, with rows NULL, row i; y_f16 (n, y_stride)
 * (may be NULL), y_f32 (n, h) (may be NULL, may be x if rows is NULL). */
int sl_cuda_layer_norm(const struct sl_cuda *c, uint16_t *y_f16,
                       size_t y_stride, float *y_f32, const float *x,
                       const float *w, const float *b, const uint32_t *rows,
                       uint32_t n, uint32_t h, float eps, struct sl_error *err);

/* y = x / sqrt(mean(x^2) + eps) * w; otherwise as sl_cuda_layer_norm. */
int sl_cuda_rms_norm(const struct sl_cuda *c, uint16_t *y_f16, size_t y_stride,
                     float *y_f32, const float *x, const float *w,
                     const uint32_t *rows, uint32_t n, uint32_t h, float eps,
                     struct sl_error *err);
/* x += v / sqrt(mean(v^2) + eps) * w, x and v (n, h) f32: the norm of what a
 * stage computed, before it is added (GLM-4-0414). */
int sl_cuda_rms_norm_add(const struct sl_cuda *c, float *x, const float *v,
                         const float *w, uint32_t n, uint32_t h, float eps,
                         struct sl_error *err);

/* The first `values` of each of n rows of x (n, stride) f16 in place, as
 * sl_cuda_rms_norm; the others stay as they are. */
int sl_cuda_latent_norm(const struct sl_cuda *c, uint16_t *x, size_t stride,
                        const float *w, uint32_t n, uint32_t values, float eps,
                        struct sl_error *err);

/* How the heads of q, k and v follow one another in a row of qkv, head_dim
 * values each, where n_heads of queries share n_kv_heads of keys and values:
 * query head i uses key head i / (n_heads / n_kv_heads). */
enum sl_cuda_order {
    SL_CUDA_BY_HEAD, /* for each key head: its queries, k, v (GLM-130B: q, k,
                      * v of each head) */
    SL_CUDA_BLOCKS,  /* all q, all k, all v (ChatGLM2, Llama) */
};

struct sl_cuda_qkv {
    void *at; /* (n, stride) of type */
    size_t stride;
    enum sl_cuda_type type;
    enum sl_cuda_order order;
    uint32_t n, n_heads, n_kv_heads, head_dim;
};

/* Norms each head of q and of k in place, as sl_cuda_rms_norm, with weights
 * (head_dim) that all heads share (Qwen3). A NULL leaves q or k as it is.
 * Errors: SL_ERR_UNSUPPORTED for heads wider than SL_CUDA_MAX_HEAD. */
int sl_cuda_head_norm(const struct sl_cuda *c, const struct sl_cuda_qkv *qkv,
                      const float *q_w, const float *k_w, float eps,
                      struct sl_error *err);

/* Consecutive rows of a pass that belong to one sequence. Host. */
struct sl_cuda_item {
    uint32_t row, n;
    uint32_t most_keys; /* largest n_keys among its rows */
    bool tree;          /* its rows have paths */
};

/* Where the rows of a pass stand, for attention. */
struct sl_cuda_rows {
    uint32_t n;               /* rows */
    const uint32_t *position; /* (n) place in the row's own sequence */
    const uint32_t *n_keys;   /* (n) keys that the row sees, > 0 */
    const uint32_t *table;    /* (n) where its sequence's list begins in: */
    const uint32_t *pages;    /* page numbers, sequence after sequence */
    const float *cos, *sin;   /* (n, rotated values of a head / 2) f32 */
    const struct sl_cuda_item *items; /* (n_items) host; cover all rows */
    size_t n_items;
    /* NULL: no item is a tree. Else (n): key fork[i] + k of row i is the one
     * at fork[i] + the place of the k-th bit set in path[i] (a row's ancestors
     * and itself); fork[i] is UINT32_MAX for rows of no tree. */
    const uint32_t *fork;
    const uint64_t *path;
};

/* Keys and values of one layer: [page][head][position in page][d] f16, each
 * page_stride values (at least n_heads * SL_CUDA_PAGE_LEN * d) from the one
 * before, as in src/exec/kvcache.h. */
struct sl_cuda_kv {
    uint16_t *k, *v;
    size_t page_stride;
    uint32_t n_heads, head_dim;
};

/* A position of the cache that takes another's place. */
struct sl_cuda_move {
    uint32_t from_page, from, to_page, to; /* from, to: in the page */
};
#define SL_CUDA_MOVES 64u

/* One after another, in n_planes of keys or values, each plane_stride values
 * from the one before and otherwise as kv->k. n <= SL_CUDA_MOVES, host. */
int sl_cuda_kv_move(const struct sl_cuda *c, const struct sl_cuda_kv *kv,
                    size_t n_planes, size_t plane_stride,
                    const struct sl_cuda_move *moves, uint32_t n,
                    struct sl_error *err);

/* qkv (n, qkv_stride) of qkv_type holds per head q, k, v (head_dim each).
 * Rotates q and k (halves apart; with position_2d each half of a head by its
 * own half of the tables) and stores q to q (n, q_stride) f16 and k, v at
 * their position in the pages. head_dim must be even (2-D: a multiple of 4). */
int sl_cuda_rope_store(const struct sl_cuda *c, uint16_t *q, size_t q_stride,
                       const struct sl_cuda_kv *kv, const void *qkv,
                       size_t qkv_stride, enum sl_cuda_type qkv_type,
                       const struct sl_cuda_rows *rows, bool position_2d,
                       struct sl_error *err);

/* Which pairs of a head's first `turned` values rotate together; the others
 * stay as they are. */
enum sl_cuda_pairs {
    SL_CUDA_PAIRS_APART, /* (i, i + turned / 2): Llama, GLM-130B */
    SL_CUDA_PAIRS_NEXT,  /* (2i, 2i + 1): ChatGLM2, GLM-4 */
    SL_CUDA_PAIRS_2D,    /* each half by itself, apart: ChatGLM-6B; turned is a
                          * multiple of 4 */
};

/* The same for any order of qkv, fewer heads of keys than of queries, and
 * rotation of part of a head or, with turned 0, of none. qkv is only read; its
 * n, n_kv_heads and head_dim are rows->n, kv->n_heads and kv->head_dim. turned
 * and head_dim are even. */
int sl_cuda_rotate_store(const struct sl_cuda *c, uint16_t *q, size_t q_stride,
                         const struct sl_cuda_kv *kv,
                         const struct sl_cuda_qkv *qkv,
                         const struct sl_cuda_rows *rows,
                         enum sl_cuda_pairs pairs, uint32_t turned,
                         struct sl_error *err);

/* out (n, out_stride) f16: per row and head softmax(q . k / sqrt(d)) . v over
 * the row's first n_keys keys. Online softmax in FP32 (Milakov and
 * Gimelshein, arXiv 1805.02867); rows of short items are split over keys
 * (Flash-Decoding), those of longer ones are taken in tiles by mma.sync.
 * Strides are multiples of 8. Errors: SL_ERR_UNSUPPORTED for heads wider
 * than SL_CUDA_MAX_HEAD, SL_ERR_BUDGET for too small a workspace. */
int sl_cuda_attend(const struct sl_cuda *c, uint16_t *out, size_t out_stride,
                   const uint16_t *q, size_t q_stride,
                   const struct sl_cuda_kv *kv, const struct sl_cuda_rows *rows,
                   struct sl_error *err);
/* The same for n_heads of queries (a multiple of kv->n_heads) that share keys
 * and values; a thread block reads these once for several of them. */
int sl_cuda_attend_shared(const struct sl_cuda *c, uint16_t *out,
                          size_t out_stride, const uint16_t *q, size_t q_stride,
                          uint32_t n_heads, const struct sl_cuda_kv *kv,
                          const struct sl_cuda_rows *rows,
                          struct sl_error *err);
/* Bytes that a pass of n rows with up to most_keys keys needs; n_heads of
 * queries. */
uint64_t sl_cuda_attend_workspace(uint32_t n, uint32_t n_heads,
                                  uint32_t head_dim, uint32_t most_keys);

/* Attention to latents (DeepSeek-V2, arXiv 2405.04434, 2.1): one key for all
 * heads, of `values` values, which are the value too, and `turned` more, which
 * are rotated. kv->n_heads is 1, kv->head_dim values + turned, both even, and
 * kv->v is not looked at. What a row's products have left, all f16: */
struct sl_cuda_latent {
    const uint16_t *q; /* (n, q_stride) `values` a head: queries to latents */
    const uint16_t *turn; /* (n, turn_stride) head h: what of its query is
                           * rotated, from h * turn_head on */
    const uint16_t *key;  /* (n, key_stride) values + turned */
    size_t q_stride, turn_stride, key_stride, turn_head;
    uint32_t n_heads, values, turned;
    enum sl_cuda_pairs pairs;
};

/* q (n, q_stride) f16 = each head's query, values + turned of them side by
 * side; keys go to their position in the pages. */
int sl_cuda_latent_store(const struct sl_cuda *c, uint16_t *q, size_t q_stride,
                         const struct sl_cuda_kv *kv,
                         const struct sl_cuda_latent *latent,
                         const struct sl_cuda_rows *rows, struct sl_error *err);

/* out (n, out_stride) f16, `values` a head: softmax(scale * q . k) . v over the
 * row's first n_keys keys, of q as sl_cuda_latent_store leaves it. By mma.sync,
 * of which heads are the rows: so all of them share what is read; rows of short
 * items are split over keys. Strides are multiples of 8, values of 16. Errors:
 * SL_ERR_UNSUPPORTED beyond SL_CUDA_MAX_LATENT and SL_CUDA_MAX_JOINED,
 * SL_ERR_BUDGET for less workspace than sl_cuda_attend_workspace tells of heads
 * of `values`. */
int sl_cuda_attend_latent(const struct sl_cuda *c, uint16_t *out,
                          size_t out_stride, const uint16_t *q, size_t q_stride,
                          uint32_t n_heads, const struct sl_cuda_kv *kv,
                          uint32_t values, float scale,
                          const struct sl_cuda_rows *rows,
                          struct sl_error *err);

/* --- ends ---------------------------------------------------------------- */

/* x[i] = row ids[i] of m, for each ids[i] that lies in the given blocks of
 * its first segment; other rows of x are left as they are. ids (n) i32,
 * x (n, m->cols) f32. Of mm: m, first_block, n_blocks, w[0], scale[0]. */
int sl_cuda_embed(const struct sl_cuda *c, float *x,
                  const struct sl_cuda_matmul *mm, const int32_t *ids,
                  uint32_t n, struct sl_error *err);

/* x[i] += row ids[i] of m, otherwise the same: positions that are learned. */
int sl_cuda_embed_add(const struct sl_cuda *c, float *x,
                      const struct sl_cuda_matmul *mm, const int32_t *ids,
                      uint32_t n, struct sl_error *err);

/* The k largest of each row of x (n, stride), cols values each: best first,
 * of equals the lower column first; NaN counts as the least. index and value
 * (may be NULL) are (n, k). 1 <= k <= cols, k <= SL_CUDA_MAX_TOP. */
int sl_cuda_top_k(const struct sl_cuda *c, uint32_t *index, float *value,
                  const float *x, size_t stride, uint32_t cols, uint32_t n,
                  uint32_t k, struct sl_error *err);

#ifdef __cplusplus
}
#endif

#endif
