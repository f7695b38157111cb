/*
 * decode.cu - weights of any format as FP16 rows, for cuBLAS
 *
 * A weight is q * scale, rounded once.
 */
#include "config.h"

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/weight.cuh"

#define THREADS 256u

struct decode_args {
    struct sl_product p;
    uint16_t *to;
    size_t stride;
    uint32_t which, n_rows;
    uint32_t first, first_block; /* row and its block */
};

/* A thread takes 16 bytes: 4 rows of one unit. A warp writes 128 (INT8: 64)
 * consecutive bytes of each row. */
template <int FMT>
__global__ void __launch_bounds__(THREADS) decode_units(struct decode_args a)
{
    const uint32_t cols = FMT == SL_FMT_INT4 ? 8 : 4;
    uint32_t i = blockIdx.x * THREADS + threadIdx.x, unit = i / 4;
    uint32_t row = blockIdx.y * SL_BLOCK_ROWS + i % 4 * 4;
    size_t block = a.first_block + (size_t)blockIdx.y;
    uint4 w;
    uint2 scales;
    float s[4];

    if (unit >= a.p.units)
        return;
    w = sl_load_once(a.p.w[a.which] + (block * a.p.units + unit) * 64 +
                     i % 4 * 16);
    scales =
        *(const uint2 *)(a.p.scale[a.which] +
                         (block * a.p.groups + unit * cols / a.p.group_cols) *
                             SL_BLOCK_ROWS +
                         i % 4 * 4);
    sl_halves_to_floats(s, scales.x);
    sl_halves_to_floats(s + 2, scales.y);
    const uint32_t words[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
    for (int r = 0; r < 4; r++) {
        uint16_t *to = a.to + (row + r) * a.stride + (size_t)unit * cols;
        uint32_t h[4];
        float v[8];

        if (row + r >= a.n_rows)
            break;
        if (FMT == SL_FMT_INT8) {
            sl_int8_to_half(h, words[r]);
            sl_halves_to_floats(v, h[0]);
            sl_halves_to_floats(v + 2, h[1]);
            *(uint2 *)to = make_uint2(sl_to_halves(s[r] * v[0], s[r] * v[1]),
                                      sl_to_halves(s[r] * v[2], s[r] * v[3]));
            continue;
        }
        sl_int4_to_half(h, words[r]); /* (0, 2) (4, 6) (1, 3) (5, 7) */
#pragma unroll
        for (int k = 0; k < 4; k++)
            sl_halves_to_floats(v + 2 * k, h[k]);
        *(uint4 *)to = make_uint4(sl_to_halves(s[r] * v[0], s[r] * v[4]),
                                  sl_to_halves(s[r] * v[1], s[r] * v[5]),
                                  sl_to_halves(s[r] * v[2], s[r] * v[6]),
                                  sl_to_halves(s[r] * v[3], s[r] * v[7]));
    }
}

/* Rows of BF16, eight weights a thread. */
__global__ void __launch_bounds__(THREADS) decode_bf16(struct decode_args a)
{
    uint32_t c = (blockIdx.x * THREADS + threadIdx.x) * 8;

    for (uint32_t row = blockIdx.y; row < a.n_rows && c < a.p.cols;
         row += gridDim.y) {
        size_t at = (size_t)(a.first + row) * a.p.cols + c;
        uint4 v = sl_load_once(a.p.w[a.which] + at * 2);

        *(uint4 *)(a.to + row * a.stride + c) =
            make_uint4(sl_bf16s_to_halves(v.x), sl_bf16s_to_halves(v.y),
                       sl_bf16s_to_halves(v.z), sl_bf16s_to_halves(v.w));
    }
}

/* Whatever the above cannot: one weight a thread. */
__global__ void __launch_bounds__(THREADS) decode_singly(struct decode_args a)
{
    for (uint32_t row = blockIdx.y; row < a.n_rows; row += gridDim.y) {
        uint32_t c = blockIdx.x * THREADS + threadIdx.x;

        if (c < a.p.cols)
            a.to[row * a.stride + c] =
                sl_to_half(sl_weight_at(a.p, a.which, a.first + row, c));
    }
}

int sl_decode_launch(const struct sl_cuda *c, uint16_t *to, size_t stride,
                     const struct sl_product *p, unsigned which, uint32_t first,
                     uint32_t n_rows, struct sl_error *err)
{
    struct decode_args a = {};
    uint32_t n_blocks = (n_rows + SL_BLOCK_ROWS - 1) / SL_BLOCK_ROWS;
    dim3 units((p->units * 4 + THREADS - 1) / THREADS, n_blocks);
    dim3 eights((p->cols / 8 + THREADS - 1) / THREADS,
                n_rows < 65535 ? n_rows : 65535);
    dim3 singly((p->cols + THREADS - 1) / THREADS,
                n_rows < 65535 ? n_rows : 65535);

    a.p = *p;
    a.to = to;
    a.stride = stride;
    a.which = which;
    a.first = first;
    a.first_block = first / SL_BLOCK_ROWS;
    a.n_rows = n_rows;
    if (p->fmt == SL_FMT_BF16 && p->cols % 8 == 0)
        return sl_launch(c, "decode", decode_bf16, eights, THREADS, &a, err);
    if (!sl_matvec_takes(p) || sl_fmt_has_blocks(p->fmt))
        return sl_launch(c, "decode", decode_singly, singly, THREADS, &a, err);
    if (p->fmt == SL_FMT_INT4)
        return sl_launch(c, "decode", decode_units<SL_FMT_INT4>, units, THREADS,
                         &a, err);
    return sl_launch(c, "decode", decode_units<SL_FMT_INT8>, units, THREADS, &a,
                     err);
}
