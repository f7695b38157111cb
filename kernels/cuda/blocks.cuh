/*
 * blocks.cuh - weights of ggml's blocks, as quant/blocks.h draws them
 *
 * Everything of a row lies in words of four bytes, one every 64 bytes, and a
 * format is a line of constants (quant/block_shape.h).
 */
#ifndef SL_KERNELS_CUDA_BLOCKS_CUH
#define SL_KERNELS_CUDA_BLOCKS_CUH

#include "kernels/cuda/values.cuh"
#include "quant/block_shape.h"
#include "quant/fmt.h"

/* A line of SL_BLOCK_SHAPES as constants. */
template <int FMT> struct sl_shape;

#define SL_SHAPE(NAME, name, type, Cols, bytes, Share, Run, Q_bits, Q_off,     \
                 Codes, Sub_bits, Sub_off, Mins)                               \
    template <> struct sl_shape<SL_FMT_##NAME> {                               \
        static const uint32_t cols = Cols, share = Share, run = Run;           \
        static const uint32_t q_bits = Q_bits, sub_bits = Sub_bits;            \
        static const int q_off = Q_off, codes = Codes, sub_off = Sub_off;      \
        static const int mins = Mins;                                          \
        static const uint32_t runs = Cols / Run;                               \
        /* sub codes, words of them, words of a block without its head */      \
        static const uint32_t subs =                                           \
            Sub_bits == 0 ? 0 : runs * (Mins == SL_MINS_CODES ? 2 : 1);        \
        static const uint32_t sub_words =                                      \
            Sub_bits == 8 ? subs / 4                                           \
                          : subs / 8 + (Sub_bits == 6 ? subs / 16 : 0);        \
        static const uint32_t words = sub_words + Cols / 32 * Q_bits;          \
    };
SL_BLOCK_SHAPES(SL_SHAPE)
#undef SL_SHAPE

/* Word k of the row whose first word is at `row`. */
__device__ __forceinline__ uint32_t sl_block_word(const uint8_t *row, size_t k)
{
    return *(const uint32_t *)(row + k * 64);
}

/* Four bytes of a table of 16, the i-th such. */
__host__ __device__ constexpr uint32_t sl_table_word(const int8_t *t, int i)
{
    return (uint32_t)(uint8_t)t[4 * i] | (uint32_t)(uint8_t)t[4 * i + 1] << 8 |
           (uint32_t)(uint8_t)t[4 * i + 2] << 16 |
           (uint32_t)(uint8_t)t[4 * i + 3] << 24;
}

/* Four entries of the format's table, the i-th such. */
template <int FMT> __host__ __device__ constexpr uint32_t sl_table_of(int i)
{
    constexpr int8_t iq4[16] = {SL_IQ4_VALUES}, e2m1[16] = {SL_E2M1_VALUES};

    return sl_table_word(sl_shape<FMT>::codes == SL_CODES_IQ4 ? iq4 : e2m1, i);
}

/* The values of four codes of a table, a byte each: a code's low bits select
 * among eight bytes, bit 3 says of which half. */
template <int FMT>
__device__ __forceinline__ uint32_t sl_block_values(uint32_t codes)
{
    constexpr uint32_t a = sl_table_of<FMT>(0), b = sl_table_of<FMT>(1);
    constexpr uint32_t c = sl_table_of<FMT>(2), d = sl_table_of<FMT>(3);
    uint32_t at = __byte_perm(codes | codes >> 4, 0, 0x4420) & 0x7777;
    uint32_t low = __byte_perm(a, b, at), high = __byte_perm(c, d, at);
    uint32_t upper = (codes >> 3 & 0x01010101u) * 255;

    return (high & upper) | (low & ~upper);
}

/* The value of a code. */
template <int FMT> __device__ __forceinline__ int sl_block_value(uint32_t code)
{
    if (sl_shape<FMT>::codes == SL_CODES_EVEN)
        return (int)code - sl_shape<FMT>::q_off;
    return (int8_t)sl_block_values<FMT>(code);
}

/* The values of four codes, a byte each, as FP16. */
template <int FMT>
__device__ __forceinline__ void sl_block_halves(uint32_t out[2], uint32_t codes)
{
    if (sl_shape<FMT>::codes == SL_CODES_EVEN)
        sl_bytes_to_half<sl_shape<FMT>::q_off>(out, codes);
    else
        sl_bytes_to_half<128>(out, sl_block_values<FMT>(codes) ^ 0x80808080u);
}

/* Code c of the 32 of a group whose words begin at w. */
template <int FMT>
__device__ __forceinline__ uint32_t sl_block_code(const uint8_t *w, uint32_t c)
{
    const uint32_t bits = sl_shape<FMT>::q_bits;
    uint32_t byte = c % 4 * 8, j = c / 4, code;

    if (bits == 8)
        return sl_block_word(w, j) >> byte & 255;
    if (bits < 4) {
        code = sl_block_word(w, j / 4) >> (byte + j % 4 * 2) & 3;
        if (bits == 3)
            code |= (sl_block_word(w, 2) >> (byte + j) & 1) << 2;
        return code;
    }
    code = sl_block_word(w, j / 2) >> (byte + j % 2 * 4) & 15;
    if (bits == 5)
        code |= (sl_block_word(w, 4) >> (byte + j) & 1) << 4;
    if (bits == 6)
        code |= (sl_block_word(w, 4 + j / 4) >> (byte + j % 4 * 2) & 3) << 4;
    return code;
}

/* Sub code i of a block whose sub words begin at w. */
template <int FMT>
__device__ __forceinline__ uint32_t sl_block_sub(const uint8_t *w,
                                                 uint32_t head, uint32_t i)
{
    const uint32_t n = sl_shape<FMT>::subs, bits = sl_shape<FMT>::sub_bits;
    uint32_t byte = i % 4 * 8, code;

    if (bits == 8)
        return sl_block_word(w, i / 4) >> byte & 255;
    code = sl_block_word(w, i / 8) >> (byte + i / 4 % 2 * 4) & 15;
    if (bits == 6 && n == 8)
        code |= (head >> (16 + 2 * i) & 3) << 4;
    else if (bits == 6)
        code |= (sl_block_word(w, n / 8) >> (byte + i / 4 * 2) & 3) << 4;
    return code;
}

__device__ __forceinline__ float sl_half_of(uint32_t bits)
{
    return __half2float(__ushort_as_half((unsigned short)(bits & 0xffffu)));
}

/* d of the b-th block of a tile. */
template <int FMT>
__device__ __forceinline__ float sl_block_d(uint32_t head, uint32_t b)
{
    uint32_t e = head >> b % 4 * 8 & 255;

    if (sl_shape<FMT>::share == 4) /* 2^(e - 128); the two least: subnormal */
        return __uint_as_float(e < 2 ? 0x00200000u << e : (e - 1) << 23);
    return sl_half_of(sl_shape<FMT>::share == 2 ? head >> b % 2 * 16 : head);
}

/* Scale and minimum of column c of block b; head and words of the block. */
template <int FMT>
__device__ __forceinline__ void sl_block_scale(float *scale, float *min,
                                               const uint8_t *w, uint32_t head,
                                               uint32_t b, uint32_t c)
{
    uint32_t run = c / sl_shape<FMT>::run;

    *scale = sl_block_d<FMT>(head, b);
    *min = 0;
    if (sl_shape<FMT>::sub_bits > 0)
        *scale *= (float)((int)sl_block_sub<FMT>(w, head, run) -
                          sl_shape<FMT>::sub_off);
    if (sl_shape<FMT>::mins == SL_MINS_ONE)
        *min = sl_half_of(head >> 16);
    if (sl_shape<FMT>::mins == SL_MINS_CODES)
        *min = -(sl_half_of(head >> 16) *
                 (float)sl_block_sub<FMT>(w, head, sl_shape<FMT>::runs + run));
}

/* Where block b's words begin, and its head. */
template <int FMT>
__device__ __forceinline__ const uint8_t *
sl_block_at(uint32_t *head, const uint8_t *row, uint32_t b)
{
    const uint32_t share = sl_shape<FMT>::share, words = sl_shape<FMT>::words;
    size_t tile = b / share;

    *head = sl_block_word(row, tile * (1 + share * words));
    return row + (tile + 1 + (size_t)b * words) * 64;
}

template <int FMT>
__device__ __forceinline__ float sl_block_weight(const uint8_t *row,
                                                 uint32_t col)
{
    uint32_t b = col / sl_shape<FMT>::cols, c = col % sl_shape<FMT>::cols, head;
    const uint8_t *w = sl_block_at<FMT>(&head, row, b);
    float scale, min;
    int v;

    sl_block_scale<FMT>(&scale, &min, w, head, b, c);
    w += (sl_shape<FMT>::sub_words + c / 32 * sl_shape<FMT>::q_bits) * 64;
    v = sl_block_value<FMT>(sl_block_code<FMT>(w, c % 32));
    return scale * (float)v + min; /* exact but for the sum */
}

/* Column col of a row whose first word is at `row`. */
__device__ __forceinline__ float sl_block_weight_at(int fmt, const uint8_t *row,
                                                    uint32_t col)
{
    switch (fmt) {
#define SL_CASE(NAME, ...)                                                     \
    case SL_FMT_##NAME:                                                        \
        return sl_block_weight<SL_FMT_##NAME>(row, col);
        SL_BLOCK_SHAPES(SL_CASE)
#undef SL_CASE
    default:
        return 0;
    }
}

#endif
