#include "config.h"

#include <assert.h>
#include <string.h>

#include "quant/blocks.h"
#include "quant/blocks_impl.h"
#include "src/base/bytes.h"
#include "src/base/half.h"

#define GROUP 32u /* columns whose planes lie together */
/* Of a row's words in a block of rows. */
#define UNIT_BYTES 64u

static const struct sl_block_shape shapes[SL_FMT_COUNT] = {
#define SHAPE(NAME, name, type, cols, bytes, share, run, q_bits, q_off, codes, \
              sub_bits, sub_off, mins)                                         \
    [SL_FMT_##NAME] = {cols,  bytes, share,    run,     q_bits,                \
                       q_off, codes, sub_bits, sub_off, mins},
    SL_BLOCK_SHAPES(SHAPE)
#undef SHAPE
};

const struct sl_block_shape *sl_block_shape_of(enum sl_fmt fmt)
{
    assert((unsigned)fmt < SL_FMT_COUNT && shapes[fmt].cols > 0);
    return &shapes[fmt];
}

uint32_t sl_block_subs(const struct sl_block_shape *s)
{
    if (s->sub_bits == 0)
        return 0;
    return s->cols / s->run * (s->mins == SL_MINS_CODES ? 2 : 1);
}

uint32_t sl_block_sub_words(const struct sl_block_shape *s)
{
    uint32_t n = sl_block_subs(s);

    if (s->sub_bits == 8)
        return n / 4;
    return n / 8 + (s->sub_bits == 6 ? n / 16 : 0);
}

uint32_t sl_block_words(const struct sl_block_shape *s)
{
    return sl_block_sub_words(s) + s->cols / GROUP * s->q_bits;
}

/* --- weights -------------------------------------------------------------- */

static float scale_of(const struct sl_block_shape *s, uint16_t d)
{
    uint32_t bits;
    float f;

    if (s->share < 4)
        return sl_half_to_float(d);
    /* 2^(d - 128), the two least as subnormals (ggml-impl.h,
     * ggml_e8m0_to_fp32_half) */
    bits = d < 2 ? 0x00200000u << d : (uint32_t)(d - 1) << 23;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static float value_of(const struct sl_block_shape *s, uint8_t q)
{
    static const int8_t values[][16] = {
        [SL_CODES_IQ4] = {SL_IQ4_VALUES},
        [SL_CODES_E2M1] = {SL_E2M1_VALUES},
    };

    return (float)(s->codes == SL_CODES_EVEN ? q - s->q_off
                                             : values[s->codes][q]);
}

/* The weights of group g of a block: GROUP of them. */
static void decode_group(float *out, const struct sl_block_shape *s,
                         const struct sl_codes *c, uint32_t g)
{
    float d = scale_of(s, c->d);
    float m = s->mins != SL_MINS_NONE ? sl_half_to_float(c->m) : 0;
    uint32_t n_runs = s->cols / s->run;
    const uint8_t *q = c->q + (size_t)g * GROUP;

    for (uint32_t i = 0; i < GROUP; i++) {
        uint32_t k = (g * GROUP + i) / s->run;
        float scale = d;

        if (s->sub_bits > 0)
            scale = d * (float)(c->sub[k] - s->sub_off);
        out[i] = scale * value_of(s, q[i]);
        if (s->mins == SL_MINS_ONE)
            out[i] += m;
        else if (s->mins == SL_MINS_CODES)
            out[i] -= m * (float)c->sub[n_runs + k];
    }
}

void sl_blocks_decode(float *out, enum sl_fmt fmt, const void *blocks,
                      uint32_t cols)
{
    const struct sl_block_shape *s = sl_block_shape_of(fmt);
    const uint8_t *b = blocks;
    struct sl_codes c;

    for (; cols >= s->cols; cols -= s->cols, b += s->bytes) {
        sl_codes_split(&c, fmt, b);
        for (uint32_t g = 0; g < s->cols / GROUP; g++, out += GROUP)
            decode_group(out, s, &c, g);
    }
}

/* --- words ---------------------------------------------------------------- */

/* Words are made and taken apart byte by byte, four at once: shifts stay
 * within a byte, so bytes have one order on any machine. */
#define FOUR(x) ((x)*0x01010101u)

static uint32_t four(const uint8_t *q)
{
    uint32_t x;

    memcpy(&x, q, sizeof x);
    return x;
}

static void put(uint8_t **to, size_t stride, uint32_t word)
{
    memcpy(*to, &word, sizeof word);
    *to += stride;
}

static void or_four(uint8_t *q, uint32_t x)
{
    x |= four(q);
    memcpy(q, &x, sizeof x);
}

/* The plane of `bits` bits a code from bit `shift` on, of n codes. A word holds
 * 32 / bits of them, in fours. */
static void put_plane(uint8_t **to, size_t stride, const uint8_t *q, uint32_t n,
                      unsigned bits, unsigned shift)
{
    const uint32_t mask = FOUR((1u << bits) - 1);

    for (uint32_t c = 0; c < n; c += 32 / bits) {
        uint32_t word = 0;

        for (unsigned i = 0; i < 8; i += bits)
            word |= (four(q + c + i / bits * 4) >> shift & mask) << i;
        put(to, stride, word);
    }
}

/* Adds what put_plane took. */
static void get_plane(uint8_t *q, const uint8_t **from, size_t stride,
                      uint32_t n, unsigned bits, unsigned shift)
{
    const uint32_t mask = FOUR((1u << bits) - 1);

    for (uint32_t c = 0; c < n; c += 32 / bits, *from += stride) {
        uint32_t word = four(*from);

        for (unsigned i = 0; i < 8; i += bits)
            or_four(q + c + i / bits * 4, (word >> i & mask) << shift);
    }
}

struct plane {
    uint8_t bits, shift;
};

/* By bits of a code. */
static const struct plane planes[9][2] = {
    [2] = {{2, 0}},         [3] = {{2, 0}, {1, 2}}, [4] = {{4, 0}},
    [5] = {{4, 0}, {1, 4}}, [6] = {{4, 0}, {2, 4}}, [8] = {{8, 0}},
};

/* Planes of n codes; a plane of fewer codes than fill a word is elsewhere. */
static void put_codes(uint8_t **to, size_t stride, const uint8_t *q, uint32_t n,
                      uint32_t bits)
{
    for (unsigned i = 0; i < 2; i++) {
        const struct plane *p = &planes[bits][i];

        if (p->bits > 0 && n * p->bits >= 32)
            put_plane(to, stride, q, n, p->bits, p->shift);
    }
}

static void get_codes(uint8_t *q, const uint8_t **from, size_t stride,
                      uint32_t n, uint32_t bits)
{
    memset(q, 0, n);
    for (unsigned i = 0; i < 2; i++) {
        const struct plane *p = &planes[bits][i];

        if (p->bits > 0 && n * p->bits >= 32)
            get_plane(q, from, stride, n, p->bits, p->shift);
    }
}

/* Block b's part of the head. */
static void put_head(uint8_t *head, const struct sl_block_shape *s,
                     const struct sl_codes *c, uint32_t b)
{
    if (b % s->share == 0)
        memset(head, 0, 4);
    if (s->share == 4) {
        head[b % 4] = (uint8_t)c->d;
        return;
    }
    sl_store_u16(head + (size_t)b % s->share * 2, c->d);
    if (s->share == 1)
        sl_store_u16(head + 2, c->m);
}

static void get_head(struct sl_codes *c, const struct sl_block_shape *s,
                     const uint8_t *head, uint32_t b)
{
    c->d = s->share == 4 ? head[b % 4]
                         : sl_load_u16(head + (size_t)b % s->share * 2);
    if (s->share == 1)
        c->m = sl_load_u16(head + 2);
}

/* Where the words of block b begin, and its head's. */
static size_t block_at(const struct sl_block_shape *s, uint32_t b)
{
    return b / s->share + 1 + (size_t)b * sl_block_words(s);
}

static size_t head_at(const struct sl_block_shape *s, uint32_t b)
{
    uint32_t first = b / s->share * s->share;

    return b / s->share + (size_t)first * sl_block_words(s);
}

/* Head and sub codes of block b; returns where its groups begin. */
static const uint8_t *get_scales(struct sl_codes *c,
                                 const struct sl_block_shape *s,
                                 const uint8_t *words, size_t stride,
                                 uint32_t b)
{
    const uint8_t *from = words + block_at(s, b) * stride;
    uint32_t n = sl_block_subs(s);

    get_head(c, s, words + head_at(s, b) * stride, b);
    get_codes(c->sub, &from, stride, n, s->sub_bits);
    for (uint32_t i = 0; s->sub_bits == 6 && n == 8 && i < n; i++)
        c->sub[i] |= (uint8_t)((c->m >> 2 * i & 3) << 4);
    return from;
}

void sl_blocks_pack(uint8_t *words, size_t stride, enum sl_fmt fmt,
                    const void *blocks, uint32_t cols)
{
    const struct sl_block_shape *s = sl_block_shape_of(fmt);
    const uint8_t *from = blocks;
    struct sl_codes c = {.m = 0};

    for (uint32_t b = 0; b < cols / s->cols; b++, from += s->bytes) {
        uint8_t *to = words + block_at(s, b) * stride;

        sl_codes_split(&c, fmt, from);
        put_head(words + head_at(s, b) * stride, s, &c, b);
        put_codes(&to, stride, c.sub, sl_block_subs(s), s->sub_bits);
        for (uint32_t g = 0; g < s->cols; g += GROUP)
            put_codes(&to, stride, c.q + g, GROUP, s->q_bits);
    }
}

void sl_blocks_unpack(void *blocks, enum sl_fmt fmt, const uint8_t *words,
                      size_t stride, uint32_t cols)
{
    const struct sl_block_shape *s = sl_block_shape_of(fmt);
    uint8_t *to = blocks;
    struct sl_codes c = {.m = 0};

    for (uint32_t b = 0; b < cols / s->cols; b++, to += s->bytes) {
        const uint8_t *from = get_scales(&c, s, words, stride, b);

        for (uint32_t g = 0; g < s->cols; g += GROUP)
            get_codes(c.q + g, &from, stride, GROUP, s->q_bits);
        sl_codes_join(to, fmt, &c);
    }
}

/* Columns [first, first + n) of a row. */
static void load(float *out, enum sl_fmt fmt, const uint8_t *row,
                 uint32_t first, uint32_t n)
{
    const struct sl_block_shape *s = &shapes[fmt];
    const uint8_t *groups = NULL;
    struct sl_codes c = {.m = 0};
    float v[GROUP];
    uint32_t part;

    for (uint32_t block = UINT32_MAX; n > 0; n -= part) {
        uint32_t g = first % s->cols / GROUP, skip = first % GROUP;
        const uint8_t *from;

        if (first / s->cols != block) {
            block = first / s->cols;
            groups = get_scales(&c, s, row, UNIT_BYTES, block);
        }
        from = groups + (size_t)g * s->q_bits * UNIT_BYTES;
        get_codes(c.q + (size_t)g * GROUP, &from, UNIT_BYTES, GROUP, s->q_bits);
        decode_group(v, s, &c, g);
        part = GROUP - skip < n ? GROUP - skip : n;
        memcpy(out, v + skip, part * sizeof *out);
        out += part;
        first += part;
    }
}

#define LOAD(NAME, name, ...)                                                  \
    void sl_blocks_load_##name(float *out, const void *row, uint32_t first,    \
                               uint32_t n)                                     \
    {                                                                          \
        load(out, SL_FMT_##NAME, row, first, n);                               \
    }
SL_BLOCK_SHAPES(LOAD)
#undef LOAD
