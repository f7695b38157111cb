/*
 * blocks.h - ggml's blocks of weights, and how they lie in the model file
 *
 * A published GGUF file has rows of blocks. Ours has the same bits in another
 * order, none more (but up to three bytes at a row's end), so that sixteen rows
 * lie side by side as quant/matrix.h draws it: a row is a sequence of words of
 * four bytes, word k of row r at byte 64 k + 4 r of its block of rows. What
 * follows is the sequence of one row. (block_shape.h: what codes mean.)
 *
 *   row    = a tile for every `share` blocks (the last may have fewer)
 *   tile   = head word, then each block's sub words and group words
 *   head   = share 1:  d, m or dmin (FP16; IQ4_XS: sub codes' high bits, below)
 *            share 2:  d of the first block, d of the second (FP16)
 *            share 4:  e of four blocks (MXFP4)
 *   sub    = the planes of the sub codes (n = 8, 16 or 32 of them)
 *            8 bits:  n / 4 words of bytes
 *            4 bits:  n / 8 words of nibbles
 *            6 bits:  words of nibbles, then the high two bits of 16 codes in a
 *                     word (of 8, IQ4_XS: in the head's high half, code s at
 *                     bits 2 s)
 *   group  = the planes of 32 columns' codes: q_bits words
 *            8: bytes          5: nibbles, bit 4       3: low two bits, bit 2
 *            6: nibbles, high two bits   4: nibbles    2: two bits
 *
 *   plane, byte i of a word (c = codes from the word's first on)
 *     bytes    c[i]
 *     nibbles  c[i]  |  c[4 + i] << 4
 *     pairs    c[i]  |  c[4 + i] << 2  |  c[8 + i] << 4  |  c[12 + i] << 6
 *     bits     the sum over j < 8 of c[4 j + i] << j
 *
 * So any four columns' codes come out of a word by one shift and one mask, a
 * register of such words has four columns of all its rows, and groups follow
 * one another in the order of columns. INT4 and INT8 are drawn by the same rule
 * (nibbles, bytes) without heads and sub codes. Codes are ggml's own, but for
 * those that ggml stores with a sign (Q8_0, Q6_K's sub codes): 128 more.
 */
#ifndef SL_QUANT_BLOCKS_H
#define SL_QUANT_BLOCKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "quant/block_shape.h"
#include "quant/fmt.h"

#define SL_BLOCK_MAX_COLS  256u
#define SL_BLOCK_MAX_SUBS  32u
#define SL_BLOCK_MAX_WORDS 56u /* of a block, its head included */

/* A line of SL_BLOCK_SHAPES. */
struct sl_block_shape {
    uint32_t cols, bytes; /* of ggml's block */
    uint32_t share;
    uint32_t run;
    uint32_t q_bits;
    int32_t q_off;
    int codes; /* SL_CODES_* */
    uint32_t sub_bits;
    int32_t sub_off;
    int mins; /* SL_MINS_* */
};

/* fmt has blocks (sl_fmt_has_blocks). The table is constant. */
const struct sl_block_shape *sl_block_shape_of(enum sl_fmt fmt);
/* Codes of scales and minima in a block. */
uint32_t sl_block_subs(const struct sl_block_shape *s);
/* Words of sub codes in a block. */
uint32_t sl_block_sub_words(const struct sl_block_shape *s);
/* Words of a block, without the head. */
uint32_t sl_block_words(const struct sl_block_shape *s);

/* out[i] = weight i of a row of ggml's blocks, as it stands in a published
 * file, i < cols (a multiple of the block's columns); exactly what ggml's own
 * decoder gives. */
void sl_blocks_decode(float *out, enum sl_fmt fmt, const void *blocks,
                      uint32_t cols);

/* One row's words from its blocks in a published file and back; word k at
 * words + stride k. Nothing is lost either way. What a row has beyond its last
 * block (part of a head) is written as zeros, and not looked at. */
void sl_blocks_pack(uint8_t *words, size_t stride, enum sl_fmt fmt,
                    const void *blocks, uint32_t cols);
void sl_blocks_unpack(void *blocks, enum sl_fmt fmt, const uint8_t *words,
                      size_t stride, uint32_t cols);

/* struct sl_fmt_info's load, for the format. */
#define SL_BLOCKS_LOAD(NAME, name, ...)                                        \
    void sl_blocks_load_##name(float *out, const void *row, uint32_t first,    \
                               uint32_t n);
SL_BLOCK_SHAPES(SL_BLOCKS_LOAD)
#undef SL_BLOCKS_LOAD

#endif
