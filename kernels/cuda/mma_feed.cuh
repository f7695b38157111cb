/*
 * mma_feed.cuh - what mma.cuh multiplies, into shared memory and out of it
 *
 * A stage is some columns of a thread block's rows, of all positions and, where
 * rows have groups of columns, their scales. What a thread copies in a stage,
 * and what it reads of one, lies a fixed way from what it did in the one
 * before: struct feed and struct place keep where, so that a stage computes
 * next to nothing but products.
 */
#ifndef SL_KERNELS_CUDA_MMA_FEED_CUH
#define SL_KERNELS_CUDA_MMA_FEED_CUH

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/product.h"

#define TILE_BLOCKS 8u
#define TILE_ROWS   (TILE_BLOCKS * SL_BLOCK_ROWS)
#define RUN         32u /* columns that a warp takes at once */
#define ROW_WARPS   4u
#define MOST_STAGES 4u
#define MOST_SHARED (48u << 10) /* what every device has without asking */

/* The geometry of one instance: NT tiles of 8 positions, KW sets of warps. */
template <int FMT, int NT, int KW> struct geom {
    static const uint32_t threads = ROW_WARPS * KW * SL_WARP;
    /* Thread blocks that a multiprocessor is to hold, if that is told: nvcc
     * would give these so many registers that it holds two. */
    static const uint32_t least_blocks = FMT == SL_FMT_INT4 && NT == 8 ? 3 : 1;
    static const uint32_t cols = RUN * KW; /* of a stage */
    static const bool packed = FMT == SL_FMT_INT4 || FMT == SL_FMT_INT8;
    static const uint32_t unit_cols = FMT == SL_FMT_INT4 ? 8 : 4;
    static const uint32_t units = cols / unit_cols;
    /* in chunks of 16 bytes */
    static const uint32_t row_chunks = cols / 8 + 1; /* rows: one to spare */
    static const uint32_t x_row = cols / 8;
    static const uint32_t w_copies =
        packed ? TILE_BLOCKS * units * 4 : TILE_ROWS * x_row;
    static const uint32_t w_chunks = packed ? w_copies : TILE_ROWS * row_chunks;
    static const uint32_t x_copies = NT * cols;
    /* Where rows have groups: 16 scales for each block and run. */
    static const uint32_t scale_copies = packed ? KW * TILE_BLOCKS * 2 : 0;
    static const uint32_t x_at = w_chunks, scale_at = w_chunks + x_copies;
    static const uint32_t chunks = scale_at + scale_copies;
    static const uint32_t fit = MOST_SHARED / (chunks * 16);
    static const uint32_t stages = fit < MOST_STAGES ? fit : MOST_STAGES;
    static const uint32_t copies_w = w_copies / threads;
    static const uint32_t copies_x = (x_copies + threads - 1) / threads;
    /* All sums, when there are no more stages. */
    static const uint32_t box = TILE_ROWS * NT * 8 / 4;
    static const uint32_t shared = chunks * stages > box ? chunks *stages : box;
    /* A thread's copies of a stage are of the same columns. */
    static const uint32_t w_row = packed ? units * 4 : x_row;

    static_assert(stages >= 2, "two stages must fit");
    static_assert(w_copies % threads == 0, "no thread has fewer weights");
    static_assert(threads % w_row == 0 && threads % (2 * x_row) == 0,
                  "whole rows of copies");
    static_assert(scale_copies <= threads, "one copy of scales a thread");
};

struct mma_args {
    struct sl_product p;
    float *sums; /* (n_splits, n, slots); NULL if there is one split */
    uint32_t stages, stages_a_split, n_splits, slots;
    /* How far a stage goes on: whole groups, and columns beyond them; both 0 if
     * there is but one group. */
    uint32_t step_groups, step_cols;
};

/* Where chunk `quad` of unit `unit` of a block lies, so that the lanes of a
 * quarter warp read from all banks. */
template <int FMT>
__device__ __forceinline__ uint32_t spread(uint32_t unit, uint32_t quad)
{
    return (unit * 4 + quad) ^ (unit & (FMT == SL_FMT_INT4 ? 2u : 6u));
}

__device__ __forceinline__ uint32_t spread_x(uint32_t position, uint32_t chunk,
                                             uint32_t row_chunks)
{
    if (row_chunks == 8)
        chunk ^= (position & 1) << 2;
    return position * row_chunks + chunk;
}

/* The block of weights that slot `slot` of the thread block's rows holds. */
struct block_of {
    uint32_t which, block;
};

__device__ __forceinline__ struct block_of block_at(bool glu, uint32_t slot)
{
    struct block_of b = {0, blockIdx.x * TILE_BLOCKS + slot};

    if (glu) {
        b.which = slot % 2;
        b.block = (blockIdx.x * TILE_BLOCKS + slot) / 2;
    }
    return b;
}

/* Where block `block` of the thread block's head lies among the weights. */
__device__ __forceinline__ size_t in_weights(const struct sl_product &p,
                                             uint32_t block)
{
    return block + (size_t)blockIdx.z * (p.head_rows / SL_BLOCK_ROWS);
}

/* Stages of `step` from `first` on that begin before `end`. */
__device__ __forceinline__ uint32_t stages_before(uint32_t first, uint32_t step,
                                                  uint32_t end)
{
    return first < end ? (end - first + step - 1) / step : 0;
}

/* --- into shared memory --------------------------------------------------- */

/* What this thread copies: where the next stage's begins, for how many stages
 * there is something (zeros follow), and the chunk where it goes. */
template <class G> struct feed {
    const uint8_t *w[G::copies_w];
    uint32_t w_stages[G::copies_w], w_to;
    const uint16_t *x[G::copies_x];
    uint32_t x_stages[G::copies_x], x_to;
    const uint16_t *scale;
    uint32_t scale_stages, in_group;
};

/* Whether this thread copies scales at all. */
template <class G>
__device__ __forceinline__ bool copies_scales(const struct sl_product &p)
{
    return G::packed && threadIdx.x < G::scale_copies && p.groups > 1;
}

template <class G> __device__ __forceinline__ bool copies_x(uint32_t k)
{
    return G::x_copies % G::threads == 0 ||
           threadIdx.x + k * G::threads < G::x_copies;
}

template <class G>
__device__ __forceinline__ void feed_w(struct feed<G> *f,
                                       const struct sl_product &p,
                                       uint32_t stage, uint32_t k)
{
    uint32_t i = threadIdx.x + k * G::threads, row = i / G::w_row;
    bool glu = p.out.pairs != 0;

    if (G::packed) {
        struct block_of b = block_at(glu, row);
        uint32_t unit = stage * G::units + i / 4 % G::units;
        bool there = b.block * SL_BLOCK_ROWS < p.n_rows;

        f->w[k] = p.w[b.which] +
                  (in_weights(p, b.block) * p.units + unit) * 64 + i % 4 * 16;
        f->w_stages[k] = there ? stages_before(unit, G::units, p.units) : 0;
    } else {
        struct block_of b = block_at(glu, row / SL_BLOCK_ROWS);
        uint32_t r = b.block * SL_BLOCK_ROWS + row % SL_BLOCK_ROWS;
        uint32_t column = stage * G::cols + i % G::x_row * 8;

        f->w[k] =
            p.w[b.which] +
            ((r + (size_t)blockIdx.z * p.head_rows) * p.cols + column) * 2;
        f->w_stages[k] =
            r < p.n_rows ? stages_before(column, G::cols, p.cols) : 0;
    }
}

template <class G>
__device__ __forceinline__ void
feed_scales(struct feed<G> *f, const struct sl_product &p, uint32_t stage)
{
    uint32_t i = threadIdx.x, run = i / (TILE_BLOCKS * 2);
    uint32_t column = stage * G::cols + run * RUN;
    struct block_of b = block_at(p.out.pairs != 0, i / 2 % TILE_BLOCKS);

    f->in_group = f->scale_stages = 0;
    f->scale = NULL;
    if (!copies_scales<G>(p))
        return;
    f->in_group = column % p.group_cols;
    f->scale = p.scale[b.which] +
               (in_weights(p, b.block) * p.groups + column / p.group_cols) *
                   SL_BLOCK_ROWS +
               i % 2 * 8;
    f->scale_stages =
        b.block * SL_BLOCK_ROWS < p.n_rows
            ? stages_before(column, G::cols, p.groups * p.group_cols)
            : 0;
}

/* From `stage` on. */
template <class G, int FMT>
__device__ __forceinline__ void
feed_init(struct feed<G> *f, const struct sl_product &p, uint32_t stage)
{
    uint32_t i = threadIdx.x, chunk = i % G::x_row, in = i % G::w_row;
    uint32_t column = stage * G::cols + chunk * 8;

#pragma unroll
    for (uint32_t k = 0; k < G::copies_w; k++)
        feed_w(f, p, stage, k);
#pragma unroll
    for (uint32_t k = 0; k < G::copies_x; k++) {
        uint32_t position = (i + k * G::threads) / G::x_row;

        f->x[k] = p.x + blockIdx.z * p.head_x + position * p.x_stride + column;
        f->x_stages[k] =
            position < p.n ? stages_before(column, G::cols, p.cols) : 0;
    }
    f->w_to = i / G::w_row * (G::packed ? G::w_row : G::row_chunks);
    f->w_to += G::packed ? spread<FMT>(in / 4, in % 4) : in;
    f->w_to = sl_keep(f->w_to);
    f->x_to = sl_keep(G::x_at + spread_x(i / G::x_row, chunk, G::x_row));
    feed_scales(f, p, stage);
}

/* Copy k lies so far behind copy 0. */
template <class G> __device__ __forceinline__ uint32_t w_ahead(uint32_t k)
{
    uint32_t rows = k * G::threads / G::w_row;

    return rows * (G::packed ? G::w_row : G::row_chunks);
}

/* One stage on; true if that is another group. */
__device__ __forceinline__ bool advance(uint32_t *in_group,
                                        const struct mma_args &a)
{
    bool wraps;

    *in_group += a.step_cols;
    wraps = *in_group >= a.p.group_cols;
    if (wraps)
        *in_group -= a.p.group_cols;
    return wraps;
}

template <class G>
__device__ __forceinline__ void begin_scales(struct sl_copy *copy, uint4 *to,
                                             struct feed<G> *f, uint32_t s,
                                             const struct mma_args &a)
{
    uint32_t groups = a.step_groups;

    sl_copy_begin(copy, to + G::scale_at + threadIdx.x, f->scale,
                  s < f->scale_stages ? 16 : 0);
    if (advance(&f->in_group, a))
        groups++;
    f->scale += groups * SL_BLOCK_ROWS;
}

/* Begins the copies of stage s, counted from the first: all are begun, one
 * after another. */
template <class G>
__device__ __forceinline__ void begin_stage(struct sl_copy *copies, uint4 *to,
                                            struct feed<G> *f, uint32_t s,
                                            const struct mma_args &a)
{
#pragma unroll
    for (uint32_t k = 0; k < G::copies_w; k++) {
        sl_copy_begin(&copies[k], to + f->w_to + w_ahead<G>(k), f->w[k],
                      s < f->w_stages[k] ? 16 : 0);
        f->w[k] += G::packed ? G::units * 64 : G::cols * 2;
    }
#pragma unroll
    for (uint32_t k = 0; k < G::copies_x; k++) {
        if (copies_x<G>(k))
            sl_copy_begin(&copies[G::copies_w + k],
                          to + f->x_to + k * G::threads, f->x[k],
                          s < f->x_stages[k] ? 16 : 0);
        f->x[k] += G::cols;
    }
    if (copies_scales<G>(a.p))
        begin_scales<G>(&copies[G::copies_w + G::copies_x], to, f, s, a);
}

template <class G>
__device__ __forceinline__ void end_stage(struct sl_copy *copies,
                                          const struct sl_product &p)
{
#pragma unroll
    for (uint32_t k = 0; k < G::copies_w; k++)
        sl_copy_end(&copies[k]);
#pragma unroll
    for (uint32_t k = 0; k < G::copies_x; k++)
        if (copies_x<G>(k))
            sl_copy_end(&copies[G::copies_w + k]);
    if (copies_scales<G>(p))
        sl_copy_end(&copies[G::copies_w + G::copies_x]);
}

/* --- and out of it ---------------------------------------------------------
 */

/* The chunks of a stage where a lane's values begin; scales are half a chunk.
 */
struct place {
    uint32_t w, x, scale;
};

/* Of the warp that takes that run of columns of the 32 rows from 2 * rows
 * blocks on. */
template <class G, int FMT>
__device__ __forceinline__ struct place place_of(uint32_t rows, uint32_t run,
                                                 uint32_t lane)
{
    uint32_t g = lane / 4, t = lane % 4, quad = g % 4;
    uint32_t slot = rows * 2 + g / 4;
    struct place at;

    if (G::packed)
        at.w =
            slot * G::w_row + spread<FMT>(run * (FMT == SL_FMT_INT4 ? 4 : 8) +
                                              t * (FMT == SL_FMT_INT4 ? 1 : 2),
                                          quad);
    else
        at.w = (slot * SL_BLOCK_ROWS + quad * 4) * G::row_chunks + run * 4 + t;
    at.w = sl_keep(at.w);
    at.x = sl_keep(G::x_at + spread_x(g, run * 4 + t, G::x_row));
    at.scale = 2 * (G::scale_at + (run * TILE_BLOCKS + rows * 2) * 2) + g;
    return at;
}

/* The lane's 4 rows x 8 columns of one run, as FP16 pairs: pairs 0, 1 go into
 * the first step of 16 columns, 2, 3 into the second. */
template <class G, int FMT>
__device__ __forceinline__ void take_w(uint32_t out[4][4], const uint4 *stage,
                                       const struct place &at)
{
    if (FMT == SL_FMT_INT4) {
        uint4 v = stage[at.w];

        sl_int4_to_half(out[0], v.x);
        sl_int4_to_half(out[1], v.y);
        sl_int4_to_half(out[2], v.z);
        sl_int4_to_half(out[3], v.w);
    } else if (FMT == SL_FMT_INT8) {
#pragma unroll
        for (uint32_t i = 0; i < 2; i++) {
            uint4 v = stage[at.w ^ 4 * i]; /* the next unit, spread */

            sl_int8_to_half(out[0] + 2 * i, v.x);
            sl_int8_to_half(out[1] + 2 * i, v.y);
            sl_int8_to_half(out[2] + 2 * i, v.z);
            sl_int8_to_half(out[3] + 2 * i, v.w);
        }
    } else {
#pragma unroll
        for (uint32_t r = 0; r < 4; r++) {
            uint4 v = stage[at.w + r * G::row_chunks];

            out[r][0] = FMT == SL_FMT_BF16 ? sl_bf16s_to_halves(v.x) : v.x;
            out[r][1] = FMT == SL_FMT_BF16 ? sl_bf16s_to_halves(v.y) : v.y;
            out[r][2] = FMT == SL_FMT_BF16 ? sl_bf16s_to_halves(v.z) : v.z;
            out[r][3] = FMT == SL_FMT_BF16 ? sl_bf16s_to_halves(v.w) : v.w;
        }
    }
}

/* The inputs of position g of a tile in the same order. */
template <class G, int FMT>
__device__ __forceinline__ void take_x(uint32_t out[4], const uint4 *stage,
                                       const struct place &at, uint32_t tile)
{
    uint4 v = stage[at.x + tile * 8 * G::x_row];

    if (FMT == SL_FMT_INT4) { /* (0, 2) (4, 6) (1, 3) (5, 7) */
        out[0] = sl_low_halves(v.x, v.y);
        out[1] = sl_low_halves(v.z, v.w);
        out[2] = sl_high_halves(v.x, v.y);
        out[3] = sl_high_halves(v.z, v.w);
    } else {
        out[0] = v.x;
        out[1] = v.y;
        out[2] = v.z;
        out[3] = v.w;
    }
}

#endif
