/*
 * matvec.cuh - what kernels of few positions over blocks of rows share
 *
 * A thread block takes two blocks of 16 rows (in a GLU one of A and its partner
 * of B); its warps share the columns. Within a warp a lane holds 4 rows of
 * some columns, and the eight lanes of the same rows add up by shuffles.
 */
#ifndef SL_KERNELS_CUDA_MATVEC_CUH
#define SL_KERNELS_CUDA_MATVEC_CUH

#include "kernels/cuda/epilogue.cuh"
#include "kernels/cuda/launch.cuh"

#define WARPS   8u
#define THREADS (WARPS * SL_WARP)
#define LANES   8u              /* that share their rows */
#define STEP    (WARPS * LANES) /* units that a thread block takes at once */

struct matvec_args {
    struct sl_product p;
    uint32_t group_units; /* of a group; all of them if there is one */
    uint32_t row_blocks;  /* of a segment that a thread block takes */
    /* How far a step of the thread block goes: groups, and units beyond. */
    uint32_t step_groups, step_units;
};

struct matvec_shared {
    float sum[WARPS][2 * SL_BLOCK_ROWS][SL_CUDA_FEW];
};

/* Adds up the lanes of the same rows, then the warps. */
template <int N>
__device__ __forceinline__ void gather(struct matvec_shared *sh,
                                       float sum[2][4][N])
{
    uint32_t warp = threadIdx.x / SL_WARP, lane = threadIdx.x % SL_WARP;

#pragma unroll
    for (int b = 0; b < 2; b++) {
#pragma unroll
        for (int r = 0; r < 4; r++) {
#pragma unroll
            for (int p = 0; p < N; p++) {
                float v = sum[b][r][p];

                v += __shfl_xor_sync(SL_ALL_LANES, v, 4);
                v += __shfl_xor_sync(SL_ALL_LANES, v, 8);
                v += __shfl_xor_sync(SL_ALL_LANES, v, 16);
                if (lane < 4)
                    sh->sum[warp][b * SL_BLOCK_ROWS + lane * 4 + r][p] = v;
            }
        }
    }
    __syncthreads();
}

__device__ __forceinline__ float total(const struct matvec_shared *sh,
                                       uint32_t slot, uint32_t p)
{
    float v = 0;

    for (uint32_t i = 0; i < WARPS; i++)
        v += sh->sum[i][slot][p];
    return v;
}

/* Sum::columns<N>: adds up columns of two blocks of rows. Sum::least_blocks(N):
 * thread blocks that a multiprocessor is to hold; 0: nvcc may choose. */
template <class Sum, int N>
__global__ void __launch_bounds__(THREADS, Sum::least_blocks(N))
    matvec(struct matvec_args a)
{
    SL_SHARED(struct matvec_shared, sh, [1]);
    bool glu = a.p.out.pairs != 0;
    size_t block_bytes = (size_t)a.p.units * 64;
    size_t block_scales = (size_t)a.p.groups * SL_BLOCK_ROWS;
    uint32_t first_row = blockIdx.z * a.p.head_rows;
    const uint8_t *w[2];
    const uint16_t *scale[2];
    float sum[2][4][N] = {};

    for (uint32_t i = 0; i < 2; i++) {
        uint32_t which = glu ? i : 0;
        size_t block = glu ? blockIdx.x : blockIdx.x * 2 + i;

        w[i] = NULL;
        scale[i] = NULL;
        if (block * SL_BLOCK_ROWS >= a.p.n_rows)
            continue;
        block += first_row / SL_BLOCK_ROWS;
        w[i] = a.p.w[which] + block * block_bytes;
        scale[i] = a.p.scale[which] + block * block_scales;
    }
    Sum::template columns<N>(sum, a, w, scale);
    gather<N>(sh, sum);
    for (uint32_t i = threadIdx.x; i < 2 * SL_BLOCK_ROWS * N; i += THREADS) {
        uint32_t p = i / (2 * SL_BLOCK_ROWS), slot = i % (2 * SL_BLOCK_ROWS);
        uint32_t row = blockIdx.x * a.row_blocks * SL_BLOCK_ROWS + slot;

        if (p >= a.p.n || row >= a.p.n_rows || (glu && slot >= SL_BLOCK_ROWS))
            continue;
        sl_epilogue(&a.p.out, p, first_row + row, total(sh, slot, p),
                    glu ? total(sh, slot + SL_BLOCK_ROWS, p) : 0);
    }
}

/* What does not depend on the format. */
static inline struct matvec_args matvec_args_of(const struct sl_product *p)
{
    struct matvec_args a = {};

    a.p = *p;
    a.group_units = p->units;
    a.row_blocks = sl_product_pairs(p) ? 1 : 2;
    return a;
}

static inline dim3 matvec_grid(const struct sl_product *p)
{
    uint32_t n_blocks = (p->n_rows + SL_BLOCK_ROWS - 1) / SL_BLOCK_ROWS;

    return dim3(sl_product_pairs(p) ? n_blocks : (n_blocks + 1) / 2, 1,
                p->n_heads);
}

#endif
