/*
 * matmul.h - matrix products over the thread pool
 *
 * The meeting point of weights (some blocks of a matrix, wherever they lie),
 * activations and threads. Work is split by blocks of 16 output rows.
 */
#ifndef SL_KERNELS_MATMUL_H
#define SL_KERNELS_MATMUL_H

#include "kernels/kernels.h"
#include "quant/planes.h"
#include "src/base/pool.h"

enum sl_epilogue {
    SL_EPI_NONE,   /* y = W x + bias */
    SL_EPI_GEGLU,  /* two segments: y = (A x + a) * gelu_erf(B x + b) */
    SL_EPI_SWIGLU, /* two segments: y = silu(A x + a) * (B x + b) */
};

/* What a low-rank adapter adds to a product: B x, where x is few values a
 * position. */
struct sl_low_rank {
    const struct sl_matrix *b; /* FP32, rows and segments as m has them */
    const float *w;            /* the whole of it */
    const float *x;            /* (n, x_stride) f32; b's cols are used */
    size_t x_stride;
};

/* Weights that lie as two planes (quant/planes.h). */
struct sl_matmul_planes {
    bool high_only;     /* the high plane's product, in place of both's */
    const void *low[2]; /* by segment: first byte of first_block */
    /* (threads, joined_bytes): room for what is joined */
    uint8_t *joined;
    size_t joined_bytes; /* as sl_matmul_joined_bytes has it, or more */
};

/* What joining the planes of m needs for each thread. */
size_t sl_matmul_joined_bytes(const struct sl_matrix *m);

/* Every so many blocks of a matrix are a head's, which has inputs of its own:
 * head h of position p those of row h * acts->n + p of acts (quantised, BF16),
 * or what lies h * x_step behind the position's x. What they give goes to
 * columns h * y_step and on. */
struct sl_matmul_heads {
    uint32_t blocks;
    size_t x_step, y_step;
};

/* Blocks [first_block, first_block + n_blocks) of every segment of m. */
struct sl_matmul {
    const struct sl_matrix *m;
    uint32_t first_block, n_blocks;
    const void *w[2];         /* by segment: first byte of first_block */
    const uint16_t *scale[2]; /* the same for the scales; NULL for floats */
    /* NULL: none. Else m is INT8, w its high plane; the product has the bits
     * of the one with m in one piece. */
    const struct sl_matmul_planes *planes;
    const float *bias;             /* (m->rows) or NULL */
    const struct sl_low_rank *low; /* added before the bias; or NULL */
    /* NULL: all blocks have the same inputs. Else without bias and low. */
    const struct sl_matmul_heads *heads;
    enum sl_epilogue epilogue;
};

/* y: (acts->n, y_stride). Row r of segment s goes to column
 * s * segment_rows + r of y; with a GLU to column r. Only the columns
 * of the given blocks are written. act chooses the form of the inputs. */
void sl_matmul_run(const struct sl_kernels *k, struct sl_pool *pool, float *y,
                   size_t y_stride, const struct sl_matmul *mm,
                   const struct sl_acts *acts, enum sl_act act);

/* True if m can be multiplied by k with activations in this form: INT8 and
 * BF16 want cols and group_cols to be multiples of 32 (or one group a row), and
 * INT8 packed weights. */
bool sl_matmul_takes(const struct sl_kernels *k, const struct sl_matrix *m,
                     enum sl_act act);

#endif
