/*
 * block_shape.h - the shapes of ggml's blocks of weights, a line each
 *
 * A block is some columns of one row with what scales them. All of ggml's are
 * made of the same few things, and a line says of which: every weight has a
 * code of q_bits, every `run` columns a scale, and
 *
 *     weight = scale * value(code)                    mins NONE
 *     weight = scale * value(code) + minimum          mins ONE
 *     weight = scale * value(code) - minimum          mins CODES
 *     value(code) = code - q_off, or table[code]
 *     scale   = d                                     sub_bits 0
 *             = d * (sub code - sub_off)              else
 *     minimum = m (ONE), m * sub code (CODES)
 *
 * with d and m FP16 (MXFP4's d: a byte e, d = 2^(e - 128)) and the sub codes of
 * sub_bits: one a run, then with CODES one a run for the minima. The products
 * are exact in FP32, so a weight is rounded at most once, in that last
 * difference or sum: it is what ggml's own decoder computes, to the bit
 * (ggml-org/ggml src/ggml-quants.c, dequantize_row_*).
 *
 * quant/blocks.h draws how they lie in the model file. This is a list of
 * constants: kernels of any language may include it.
 */
#ifndef SL_QUANT_BLOCK_SHAPE_H
#define SL_QUANT_BLOCK_SHAPE_H

/* How values come out of codes. */
#define SL_CODES_EVEN 0 /* code - q_off */
#define SL_CODES_IQ4  1 /* SL_IQ4_VALUES */
#define SL_CODES_E2M1 2 /* SL_E2M1_VALUES: twice what E2M1 stands for */

#define SL_MINS_NONE  0
#define SL_MINS_ONE   1
#define SL_MINS_CODES 2

#define SL_IQ4_VALUES                                                          \
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113
#define SL_E2M1_VALUES 0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12

/* X(NAME, name, GGML type, columns and bytes of a block, blocks that share the
 *   word of d, run, q_bits, q_off, codes, sub_bits, sub_off, mins) */
#define SL_BLOCK_SHAPES(X)                                                     \
    X(Q4_0, q4_0, 2, 32, 18, 2, 32, 4, 8, SL_CODES_EVEN, 0, 0, SL_MINS_NONE)   \
    X(Q4_1, q4_1, 3, 32, 20, 1, 32, 4, 0, SL_CODES_EVEN, 0, 0, SL_MINS_ONE)    \
    X(Q5_0, q5_0, 6, 32, 22, 2, 32, 5, 16, SL_CODES_EVEN, 0, 0, SL_MINS_NONE)  \
    X(Q5_1, q5_1, 7, 32, 24, 1, 32, 5, 0, SL_CODES_EVEN, 0, 0, SL_MINS_ONE)    \
    X(Q8_0, q8_0, 8, 32, 34, 2, 32, 8, 128, SL_CODES_EVEN, 0, 0, SL_MINS_NONE) \
    X(Q2_K, q2_k, 10, 256, 84, 1, 16, 2, 0, SL_CODES_EVEN, 4, 0,               \
      SL_MINS_CODES)                                                           \
    X(Q3_K, q3_k, 11, 256, 110, 2, 16, 3, 4, SL_CODES_EVEN, 6, 32,             \
      SL_MINS_NONE)                                                            \
    X(Q4_K, q4_k, 12, 256, 144, 1, 32, 4, 0, SL_CODES_EVEN, 6, 0,              \
      SL_MINS_CODES)                                                           \
    X(Q5_K, q5_k, 13, 256, 176, 1, 32, 5, 0, SL_CODES_EVEN, 6, 0,              \
      SL_MINS_CODES)                                                           \
    X(Q6_K, q6_k, 14, 256, 210, 2, 16, 6, 32, SL_CODES_EVEN, 8, 128,           \
      SL_MINS_NONE)                                                            \
    X(IQ4_NL, iq4_nl, 20, 32, 18, 2, 32, 4, 0, SL_CODES_IQ4, 0, 0,             \
      SL_MINS_NONE)                                                            \
    X(IQ4_XS, iq4_xs, 23, 256, 136, 1, 32, 4, 0, SL_CODES_IQ4, 6, 32,          \
      SL_MINS_NONE)                                                            \
    X(MXFP4, mxfp4, 39, 32, 17, 4, 32, 4, 0, SL_CODES_E2M1, 0, 0, SL_MINS_NONE)

#endif
