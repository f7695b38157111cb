#include "config.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/bytes.h"
#include "src/ckpt/ckpt_pickle_machine.h"

#define LINE_MAX_BYTES 64 /* of a number in decimal that has a value here */

static int push_int(struct sl_pk_machine *m, int64_t v)
{
    uint32_t node;

    if (sl_pk_new(m, &node, SL_PK_INT) != 0)
        return -1;
    m->p->nodes.at[node].i = v;
    return sl_pk_push(m, node);
}

int sl_pk_op_constant(struct sl_pk_machine *m, unsigned node)
{
    return sl_pk_push(m, node);
}

/* BININT is signed, the narrower ones are not. */
int sl_pk_op_int(struct sl_pk_machine *m, unsigned width)
{
    const uint8_t *b;
    uint32_t at;

    if (sl_pk_take(m, &at, width) != 0)
        return -1;
    b = m->p->bytes.at + at;
    return push_int(m, width == 1   ? b[0]
                       : width == 2 ? sl_load_u16(b)
                                    : (int32_t)sl_load_u32(b));
}

int sl_pk_new_text(struct sl_pk_machine *m, uint32_t *node,
                   enum sl_pk_kind kind, uint32_t at, uint32_t n)
{
    if (sl_pk_new(m, node, kind) != 0)
        return -1;
    m->p->nodes.at[*node].text = at;
    m->p->nodes.at[*node].n = n;
    return 0;
}

static int push_text(struct sl_pk_machine *m, enum sl_pk_kind kind, uint32_t at,
                     uint32_t n)
{
    uint32_t node;

    if (sl_pk_new_text(m, &node, kind, at, n) != 0)
        return -1;
    return sl_pk_push(m, node);
}

/* A length of width bytes and as many bytes as it says. */
static int take_counted(struct sl_pk_machine *m, uint32_t *at, uint32_t *n,
                        unsigned width)
{
    const uint8_t *b;
    uint64_t len;

    if (sl_pk_take(m, at, width) != 0)
        return -1;
    b = m->p->bytes.at + *at;
    len = width == 1 ? b[0] : width == 4 ? sl_load_u32(b) : sl_load_u64(b);
    if (sl_pk_take(m, at, len) != 0)
        return -1;
    *n = (uint32_t)len;
    return 0;
}

/* Two's complement, little-endian, as short as it goes; no bytes is 0. */
int sl_pk_op_long(struct sl_pk_machine *m, unsigned width)
{
    const uint8_t *b;
    uint64_t v;
    uint32_t at, n;

    if (take_counted(m, &at, &n, width) != 0)
        return -1;
    if (n > 8)
        return push_text(m, SL_PK_BIG, at, n);
    b = m->p->bytes.at + at;
    v = n > 0 && b[n - 1] & 0x80 ? UINT64_MAX : 0;
    for (uint32_t i = n; i-- > 0;)
        v = v << 8 | b[i];
    return push_int(m, (int64_t)v);
}

int sl_pk_op_float(struct sl_pk_machine *m, unsigned arg)
{
    uint32_t node, at;
    uint64_t bits = 0;

    if (sl_pk_take(m, &at, 8) != 0 || sl_pk_new(m, &node, SL_PK_FLOAT) != 0)
        return -1;
    for (unsigned i = 0; i < 8; i++)
        bits = bits << 8 | m->p->bytes.at[at + i];
    memcpy(&m->p->nodes.at[node].d, &bits, sizeof bits);
    return sl_pk_push(m, node);
}

/* Digits with an optional sign, the whole of text[0, n). */
static bool decimal(int64_t *v, const uint8_t *text, uint32_t n)
{
    uint32_t i = n > 0 && (text[0] == '-' || text[0] == '+');
    int64_t r = 0;

    if (i == n)
        return false;
    for (; i < n; i++) {
        int digit = text[i] - '0';

        if (digit < 0 || digit > 9)
            return false;
        if (__builtin_mul_overflow(r, 10, &r) ||
            __builtin_add_overflow(r, text[0] == '-' ? -digit : digit, &r))
            return false;
    }
    *v = r;
    return true;
}

/* Protocol 0 writes True and False as the integers 01 and 00. */
int sl_pk_op_text_int(struct sl_pk_machine *m, unsigned arg)
{
    const uint8_t *text;
    uint32_t at, n;
    int64_t v;

    if (sl_pk_take_line(m, &at, &n) != 0)
        return -1;
    text = m->p->bytes.at + at;
    if (n == 2 && text[0] == '0' && (text[1] == '0' || text[1] == '1'))
        return sl_pk_push(m,
                          text[1] == '1' ? SL_PK_NODE_TRUE : SL_PK_NODE_FALSE);
    if (!decimal(&v, text, n))
        return sl_pk_fail(m, SL_ERR_CORRUPT, "no integer follows");
    return push_int(m, v);
}

int sl_pk_op_text_long(struct sl_pk_machine *m, unsigned arg)
{
    const uint8_t *text;
    uint32_t at, n, node, i;
    int64_t v;

    if (sl_pk_take_line(m, &at, &n) != 0)
        return -1;
    text = m->p->bytes.at + at;
    if (n > 0 && text[n - 1] == 'L')
        n--;
    if (decimal(&v, text, n))
        return push_int(m, v);
    for (i = n > 0 && text[0] == '-'; i < n; i++)
        if (text[i] < '0' || text[i] > '9')
            return sl_pk_fail(m, SL_ERR_CORRUPT, "no integer follows");
    if (i == 0)
        return sl_pk_fail(m, SL_ERR_CORRUPT, "no integer follows");
    if (sl_pk_new_text(m, &node, SL_PK_BIG, at, n) != 0)
        return -1;
    m->p->nodes.at[node].big_text = true;
    return sl_pk_push(m, node);
}

int sl_pk_op_text_float(struct sl_pk_machine *m, unsigned arg)
{
    char text[LINE_MAX_BYTES + 1];
    uint32_t at, n, node;
    char *end;

    if (sl_pk_take_line(m, &at, &n) != 0)
        return -1;
    if (n == 0 || n > LINE_MAX_BYTES)
        return sl_pk_fail(m, SL_ERR_CORRUPT, "no number follows");
    memcpy(text, m->p->bytes.at + at, n);
    text[n] = '\0';
    if (sl_pk_new(m, &node, SL_PK_FLOAT) != 0)
        return -1;
    m->p->nodes.at[node].d = strtod(text, &end);
    if (end != text + n)
        return sl_pk_fail(m, SL_ERR_CORRUPT, "no number follows");
    return sl_pk_push(m, node);
}

/* Python 2 strings hold bytes, and those in checkpoints are names. */
int sl_pk_op_str(struct sl_pk_machine *m, unsigned width)
{
    uint32_t at, n;

    if (take_counted(m, &at, &n, width) != 0)
        return -1;
    return push_text(m, SL_PK_STR, at, n);
}

int sl_pk_op_bytes(struct sl_pk_machine *m, unsigned width)
{
    uint32_t at, n;

    if (take_counted(m, &at, &n, width) != 0)
        return -1;
    return push_text(m, SL_PK_BYTES, at, n);
}

/* The value of n hexadecimal (or octal) digits at text; -1 if they are not. */
static int64_t digits(const uint8_t *text, uint32_t n, int base)
{
    int64_t v = 0;

    for (uint32_t i = 0; i < n; i++) {
        int c = text[i] | 0x20;
        int d = text[i] >= '0' && text[i] <= '9' ? text[i] - '0'
                : c >= 'a' && c <= 'f'           ? c - 'a' + 10
                                                 : base;

        if (d >= base)
            return -1;
        v = v * base + d;
    }
    return v;
}

/* Without a look at surrogates: pickles of Python 3 may hold them alone
 * (surrogatepass), and names that do match no tensor's. */
static uint32_t put_utf8(uint8_t *to, uint32_t c)
{
    if (c < 0x80) {
        to[0] = (uint8_t)c;
        return 1;
    }
    if (c < 0x800) {
        to[0] = (uint8_t)(0xc0 | c >> 6);
        to[1] = (uint8_t)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        to[0] = (uint8_t)(0xe0 | c >> 12);
        to[1] = (uint8_t)(0x80 | (c >> 6 & 0x3f));
        to[2] = (uint8_t)(0x80 | (c & 0x3f));
        return 3;
    }
    to[0] = (uint8_t)(0xf0 | (c >> 18 & 7));
    to[1] = (uint8_t)(0x80 | (c >> 12 & 0x3f));
    to[2] = (uint8_t)(0x80 | (c >> 6 & 0x3f));
    to[3] = (uint8_t)(0x80 | (c & 0x3f));
    return 4;
}

/* Python's raw-unicode-escape: Latin-1 but for \uXXXX and \UXXXXXXXX. */
static int unescape_unicode(uint8_t *to, uint32_t *n_to, const uint8_t *text,
                            uint32_t n)
{
    uint32_t used = 0;

    for (uint32_t i = 0; i < n;) {
        uint32_t len = text[i] != '\\' || i + 1 == n ? 0
                       : text[i + 1] == 'u'          ? 4
                       : text[i + 1] == 'U'          ? 8
                                                     : 0;
        int64_t c;

        if (len == 0) {
            used += put_utf8(to + used, text[i++]);
            continue;
        }
        c = len <= n - i - 2 ? digits(text + i + 2, len, 16) : -1;
        if (c < 0 || c > 0x10ffff)
            return -1;
        used += put_utf8(to + used, (uint32_t)c);
        i += 2 + len;
    }
    *n_to = used;
    return 0;
}

/* What Python 2 writes for a string inside its quotes. */
static int unescape_string(uint8_t *to, uint32_t *n_to, const uint8_t *text,
                           uint32_t n)
{
    static const char from[] = "\\'\"abfnrtv", into[] = "\\'\"\a\b\f\n\r\t\v";
    uint32_t used = 0;

    for (uint32_t i = 0; i < n;) {
        const char *known;
        int64_t c;

        if (text[i] != '\\') {
            to[used++] = text[i++];
            continue;
        }
        if (i + 1 == n)
            return -1;
        known = text[i + 1] ? strchr(from, text[i + 1]) : NULL;
        if (known != NULL) {
            to[used++] = (uint8_t)into[known - from];
            i += 2;
            continue;
        }
        c = n - i < 4            ? -1
            : text[i + 1] == 'x' ? digits(text + i + 2, 2, 16)
                                 : digits(text + i + 1, 3, 8);
        if (c < 0)
            return -1;
        to[used++] = (uint8_t)c;
        i += 4;
    }
    *n_to = used;
    return 0;
}

static int push_decoded(struct sl_pk_machine *m, uint32_t at, uint32_t n,
                        int (*unescape)(uint8_t *, uint32_t *, const uint8_t *,
                                        uint32_t))
{
    struct sl_pickle *p = m->p;
    uint32_t node, used;

    /* No escape makes text longer but Latin-1: 2 bytes of UTF-8 from 1. */
    if (SL_PK_GROW(m, p->decoded, 2ull * n + 4, 2 * SL_PK_MAX_BYTES + 4) != 0)
        return -1;
    if (unescape(p->decoded.at + p->decoded.n, &used, p->bytes.at + at, n) != 0)
        return sl_pk_fail(m, SL_ERR_CORRUPT, "a bad escape in the text");
    if (sl_pk_new_text(m, &node, SL_PK_STR, p->decoded.n, used) != 0)
        return -1;
    p->nodes.at[node].decoded = true;
    p->decoded.n += used;
    return sl_pk_push(m, node);
}

int sl_pk_op_text_str(struct sl_pk_machine *m, unsigned arg)
{
    const uint8_t *text;
    uint32_t at, n;

    if (sl_pk_take_line(m, &at, &n) != 0)
        return -1;
    text = m->p->bytes.at + at;
    if (n < 2 || text[0] != text[n - 1] || (text[0] != '\'' && text[0] != '"'))
        return sl_pk_fail(m, SL_ERR_CORRUPT, "no quoted string follows");
    return push_decoded(m, at + 1, n - 2, unescape_string);
}

int sl_pk_op_text_unicode(struct sl_pk_machine *m, unsigned arg)
{
    uint32_t at, n;

    if (sl_pk_take_line(m, &at, &n) != 0)
        return -1;
    return push_decoded(m, at, n, unescape_unicode);
}
