/*
 * Blocks as ggml lays them out, of each type, taken apart to codes and put
 * together again (ggml-org/ggml src/ggml-common.h, block_*; how bits are
 * spread: dequantize_row_* of src/ggml-quants.c).
 */
#include "config.h"

#include <string.h>

#include "quant/blocks_impl.h"
#include "src/base/bytes.h"

/* Blocks of 32 have, of these, in this order: d, m, the fifth bits, codes. The
 * code of column i is in byte i % 16: the low half for i < 16. */
static void split_small(struct sl_codes *c, const struct sl_block_shape *s,
                        const uint8_t *b)
{
    uint32_t high = 0;

    c->d = s->share == 4 ? *b : sl_load_u16(b);
    b += s->share == 4 ? 1 : 2;
    if (s->mins == SL_MINS_ONE) {
        c->m = sl_load_u16(b);
        b += 2;
    }
    if (s->q_bits == 8) {
        for (unsigned i = 0; i < 32; i++)
            c->q[i] = b[i] ^ 0x80;
        return;
    }
    if (s->q_bits == 5) {
        high = sl_load_u32(b);
        b += 4;
    }
    for (unsigned i = 0; i < 16; i++) {
        c->q[i] = (uint8_t)((b[i] & 15) | (high >> i & 1) << 4);
        c->q[i + 16] = (uint8_t)(b[i] >> 4 | (high >> (i + 16) & 1) << 4);
    }
}

static void join_small(uint8_t *b, const struct sl_block_shape *s,
                       const struct sl_codes *c)
{
    uint32_t high = 0;

    if (s->share == 4)
        *b = (uint8_t)c->d;
    else
        sl_store_u16(b, c->d);
    b += s->share == 4 ? 1 : 2;
    if (s->mins == SL_MINS_ONE) {
        sl_store_u16(b, c->m);
        b += 2;
    }
    if (s->q_bits == 8) {
        for (unsigned i = 0; i < 32; i++)
            b[i] = c->q[i] ^ 0x80;
        return;
    }
    if (s->q_bits == 5) {
        for (unsigned i = 0; i < 32; i++)
            high |= (uint32_t)(c->q[i] >> 4) << i;
        sl_store_u32(b, high);
        b += 4;
    }
    for (unsigned i = 0; i < 16; i++)
        b[i] = (uint8_t)((c->q[i] & 15) | c->q[i + 16] << 4);
}

/* Two bits of 256 codes: 32 bytes hold 128 columns, those of bits 2 j are the
 * 32 from 32 j on. */
static void split_pairs(uint8_t *q, const uint8_t *b)
{
    for (unsigned half = 0; half < 2; half++, b += 32) {
        for (unsigned j = 0; j < 4; j++, q += 32) {
            for (unsigned l = 0; l < 32; l++)
                q[l] = b[l] >> 2 * j & 3;
        }
    }
}

/* The bits shift, shift + 1 of 256 codes. */
static void join_pairs(uint8_t *b, const uint8_t *q, int shift)
{
    for (unsigned half = 0; half < 2; half++, b += 32, q += 128) {
        for (unsigned l = 0; l < 32; l++)
            b[l] =
                (uint8_t)((q[l] >> shift & 3) | (q[l + 32] >> shift & 3) << 2 |
                          (q[l + 64] >> shift & 3) << 4 |
                          (q[l + 96] >> shift & 3) << 6);
    }
}

/* sc[16]: scale | minimum << 4; qs[64]; d, dmin */
static void split_q2_k(struct sl_codes *c, const uint8_t *b)
{
    for (unsigned k = 0; k < 16; k++) {
        c->sub[k] = b[k] & 15;
        c->sub[16 + k] = b[k] >> 4;
    }
    split_pairs(c->q, b + 16);
    c->d = sl_load_u16(b + 80);
    c->m = sl_load_u16(b + 82);
}

static void join_q2_k(uint8_t *b, const struct sl_codes *c)
{
    for (unsigned k = 0; k < 16; k++)
        b[k] = (uint8_t)(c->sub[k] | c->sub[16 + k] << 4);
    join_pairs(b + 16, c->q, 0);
    sl_store_u16(b + 80, c->d);
    sl_store_u16(b + 82, c->m);
}

/* hm[32]: bit s of byte l is the third bit of column 32 s + l; qs[64]; S[12]:
 * four bits of 16 sub codes, then two bits of them; d */
static void split_q3_k(struct sl_codes *c, const uint8_t *b)
{
    const uint8_t *sub = b + 96;

    split_pairs(c->q, b + 32);
    for (unsigned s = 0; s < 8; s++) {
        for (unsigned l = 0; l < 32; l++)
            c->q[32 * s + l] |= (uint8_t)((b[l] >> s & 1) << 2);
    }
    for (unsigned k = 0; k < 16; k++) {
        unsigned low = k < 8 ? sub[k] & 15 : sub[k - 8] >> 4;

        c->sub[k] = (uint8_t)(low | (sub[8 + k % 4] >> 2 * (k / 4) & 3) << 4);
    }
    c->d = sl_load_u16(b + 108);
}

static void join_q3_k(uint8_t *b, const struct sl_codes *c)
{
    uint8_t *sub = b + 96;

    memset(b, 0, 32);
    for (unsigned s = 0; s < 8; s++) {
        for (unsigned l = 0; l < 32; l++)
            b[l] |= (uint8_t)(c->q[32 * s + l] >> 2 << s);
    }
    join_pairs(b + 32, c->q, 0);
    memset(sub, 0, 12);
    for (unsigned k = 0; k < 16; k++) {
        sub[k % 8] |= (uint8_t)((c->sub[k] & 15) << (k < 8 ? 0 : 4));
        sub[8 + k % 4] |= (uint8_t)(c->sub[k] >> 4 << 2 * (k / 4));
    }
    sl_store_u16(b + 108, c->d);
}

/* Six bits of eight scales and eight minima in twelve bytes. */
static void split_subs_45(uint8_t sub[16], const uint8_t *b)
{
    for (unsigned s = 0; s < 4; s++) {
        sub[s] = b[s] & 63;
        sub[8 + s] = b[s + 4] & 63;
        sub[4 + s] = (uint8_t)((b[s + 8] & 15) | b[s] >> 6 << 4);
        sub[12 + s] = (uint8_t)(b[s + 8] >> 4 | b[s + 4] >> 6 << 4);
    }
}

static void join_subs_45(uint8_t *b, const uint8_t sub[16])
{
    for (unsigned s = 0; s < 4; s++) {
        b[s] = (uint8_t)(sub[s] | sub[4 + s] >> 4 << 6);
        b[s + 4] = (uint8_t)(sub[8 + s] | sub[12 + s] >> 4 << 6);
        b[s + 8] = (uint8_t)((sub[4 + s] & 15) | (sub[12 + s] & 15) << 4);
    }
}

/* d, dmin, S[12], Q5_K's qh[32] (bit s of byte l is the fifth bit of column
 * 32 s + l), qs[128] (32 bytes hold 64 columns: low halves, then high) */
static void split_q45_k(struct sl_codes *c, const struct sl_block_shape *s,
                        const uint8_t *b)
{
    bool five = s->q_bits == 5;
    const uint8_t *qs = b + (five ? 48 : 16);

    c->d = sl_load_u16(b);
    c->m = sl_load_u16(b + 2);
    split_subs_45(c->sub, b + 4);
    for (unsigned g = 0; g < 8; g++) {
        uint8_t *q = c->q + (size_t)32 * g;
        unsigned shift = g % 2 * 4;

        for (unsigned l = 0; l < 32; l++)
            q[l] = qs[g / 2 * 32 + l] >> shift & 15;
        for (unsigned l = 0; five && l < 32; l++)
            q[l] |= (uint8_t)((b[16 + l] >> g & 1) << 4);
    }
}

static void join_q45_k(uint8_t *b, const struct sl_block_shape *s,
                       const struct sl_codes *c)
{
    bool five = s->q_bits == 5;
    uint8_t *qs = b + (five ? 48 : 16);

    sl_store_u16(b, c->d);
    sl_store_u16(b + 2, c->m);
    join_subs_45(b + 4, c->sub);
    if (five)
        memset(b + 16, 0, 32);
    for (unsigned g = 0; five && g < 8; g++) {
        for (unsigned l = 0; l < 32; l++)
            b[16 + l] |= (uint8_t)(c->q[32 * g + l] >> 4 << g);
    }
    for (unsigned g = 0; g < 8; g += 2) {
        const uint8_t *q = c->q + (size_t)32 * g;

        for (unsigned l = 0; l < 32; l++)
            qs[g * 16 + l] = (uint8_t)((q[l] & 15) | (q[32 + l] & 15) << 4);
    }
}

/* ql[128] (64 bytes hold 128 columns: low halves, then high), qh[64], 16
 * scales of eight bits, d */
static void split_q6_k(struct sl_codes *c, const uint8_t *b)
{
    const uint8_t *sub = b + 192;

    split_pairs(c->q, b + 128);
    for (unsigned half = 0; half < 2; half++) {
        uint8_t *q = c->q + (size_t)128 * half;
        const uint8_t *low = b + (size_t)64 * half;

        for (unsigned l = 0; l < 64; l++) {
            q[l] = (uint8_t)(q[l] << 4 | (low[l] & 15));
            q[64 + l] = (uint8_t)(q[64 + l] << 4 | low[l] >> 4);
        }
    }
    for (unsigned k = 0; k < 16; k++)
        c->sub[k] = sub[k] ^ 0x80;
    c->d = sl_load_u16(b + 208);
}

static void join_q6_k(uint8_t *b, const struct sl_codes *c)
{
    uint8_t *sub = b + 192;

    for (unsigned half = 0; half < 2; half++) {
        const uint8_t *q = c->q + (size_t)128 * half;

        for (unsigned l = 0; l < 64; l++)
            b[64 * half + l] = (uint8_t)((q[l] & 15) | (q[64 + l] & 15) << 4);
    }
    join_pairs(b + 128, c->q, 4);
    for (unsigned k = 0; k < 16; k++)
        sub[k] = c->sub[k] ^ 0x80;
    sl_store_u16(b + 208, c->d);
}

/* d, high two bits of eight sub codes, their low four bits, qs[128] (16 bytes
 * hold 32 columns, as in small blocks) */
static void split_iq4_xs(struct sl_codes *c, const uint8_t *b)
{
    c->d = sl_load_u16(b);
    c->m = sl_load_u16(b + 2);
    for (unsigned s = 0; s < 8; s++) {
        const uint8_t *qs = b + 8 + (size_t)16 * s;
        uint8_t *q = c->q + (size_t)32 * s;

        c->sub[s] = (uint8_t)((b[4 + s / 2] >> 4 * (s % 2) & 15) |
                              (c->m >> 2 * s & 3) << 4);
        for (unsigned i = 0; i < 16; i++) {
            q[i] = qs[i] & 15;
            q[16 + i] = qs[i] >> 4;
        }
    }
}

static void join_iq4_xs(uint8_t *b, const struct sl_codes *c)
{
    sl_store_u16(b, c->d);
    sl_store_u16(b + 2, c->m);
    for (unsigned s = 0; s < 8; s++) {
        const uint8_t *q = c->q + (size_t)32 * s;

        for (unsigned i = 0; i < 16; i++)
            b[8 + 16 * s + i] = (uint8_t)(q[i] | q[16 + i] << 4);
        if (s % 2 == 0)
            b[4 + s / 2] =
                (uint8_t)((c->sub[s] & 15) | (c->sub[s + 1] & 15) << 4);
    }
}

void sl_codes_split(struct sl_codes *c, enum sl_fmt fmt, const uint8_t *b)
{
    const struct sl_block_shape *s = sl_block_shape_of(fmt);

    switch (fmt) {
    case SL_FMT_Q2_K:
        split_q2_k(c, b);
        return;
    case SL_FMT_Q3_K:
        split_q3_k(c, b);
        return;
    case SL_FMT_Q4_K:
    case SL_FMT_Q5_K:
        split_q45_k(c, s, b);
        return;
    case SL_FMT_Q6_K:
        split_q6_k(c, b);
        return;
    case SL_FMT_IQ4_XS:
        split_iq4_xs(c, b);
        return;
    default:
        split_small(c, s, b);
    }
}

void sl_codes_join(uint8_t *b, enum sl_fmt fmt, const struct sl_codes *c)
{
    const struct sl_block_shape *s = sl_block_shape_of(fmt);

    switch (fmt) {
    case SL_FMT_Q2_K:
        join_q2_k(b, c);
        return;
    case SL_FMT_Q3_K:
        join_q3_k(b, c);
        return;
    case SL_FMT_Q4_K:
    case SL_FMT_Q5_K:
        join_q45_k(b, s, c);
        return;
    case SL_FMT_Q6_K:
        join_q6_k(b, c);
        return;
    case SL_FMT_IQ4_XS:
        join_iq4_xs(b, c);
        return;
    default:
        join_small(b, s, c);
    }
}
